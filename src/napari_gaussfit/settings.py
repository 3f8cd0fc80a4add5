"""FitSettings: what a fit is asked to do, validated on entry; Preferences: how a panel opens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, Literal, NoReturn

from napari_gaussfit._limits import BRIGHTEST
from napari_gaussfit.errors import SettingsError

Quality = Literal["preview", "balanced", "fine"]
Objective = Literal["mip+voxels", "mip", "voxels"]
Loss = Literal["squared", "poisson"]
Device = Literal["auto", "cpu", "cuda"]
Shape = Literal["any", "point"]
LookFor = Literal["structure", "spots"]

ITERATIONS: dict[Quality, int] = {"preview": 150, "balanced": 700, "fine": 2500}
"""Steps of each quality, chosen by time to held-out PSNR on real stacks (benchmarks)."""

TRAINING_VIEWS = 48
"""Views of the orbit that are trained on at most: nearly all of 60 that are not held out. Twice as
many as 24, they bring the dendrite's held-out views 0.4 dB, and cost memory."""

MOST_UNASKED = 20_000
"""Gaussians at most where no number is asked for: with more, a fit takes minutes."""

MOST_GAUSSIANS, MOST_VIEWS = 100_000_000, 10_000
MOST_ITERATIONS, MOST_SECONDS, MOST_SEED = 1_000_000_000, 1e9, 2**63 - 1
"""Beyond what anyone means: settings may come from a file."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What one setting may be, and what it is called: for messages, the command line and the panel.

    Parameters
    ----------
    kind : type
        `str`, any or of `choices`; `bool`, `int` or `float`.
    label : str
        What the panel calls it.
    help : str
        What it means, in a line.
    least, most : float
        The bounds of a number, which are allowed.
    choices : mapping of str to str
        Each choice, and what the panel calls it.
    without : str
        What holds where the setting is None; empty where it cannot be.
    """

    kind: type
    label: str
    help: str
    least: float = -math.inf
    most: float = math.inf
    choices: Mapping[str, str] = field(default_factory=dict)
    without: str = ""

    def taken(self, value: Any) -> Any:
        """Return a value as it is kept: a number of numpy's as one of Python's.

        Parameters
        ----------
        value : Any
            The value as it was given, from an option, a file or a call.

        Returns
        -------
        str, bool, int, float or None
            Of Python's own types.

        Raises
        ------
        ValueError
            If it cannot be meant; the message is what was expected.
        """
        if value is None and self.without:
            return None
        expected = ""
        if self.choices:
            if not isinstance(value, str) or value not in self.choices:
                expected = "one of " + ", ".join(map(repr, self.choices))
        elif self.kind is bool:
            if not isinstance(value, bool):
                expected = "True or False"
        elif self.kind is str:
            if not isinstance(value, str):
                expected = "words"
        else:
            expected = self._number_expected(value)
        if expected:
            raise ValueError(expected)
        # An int stays one where a float may be: files hold what was given.
        return value if type(value) in {str, bool, int, float} else self.kind(value)

    def _number_expected(self, value: Any) -> str:
        """Return what was expected in place of a number; nothing where it is fine."""
        whole = self.kind is int
        is_number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
        # Neither NaN nor an infinity is in any range.
        if is_number and self.least <= value <= self.most:
            return ""
        if not whole:
            return f"a number from {self.least:g} to {self.most:g}" + self._or_none
        above = is_number and value > self.most
        bound = f"at most {self.most:,}" if above else f"at least {self.least}"
        return f"a whole number of {bound}{self._or_none}"

    @property
    def _or_none(self) -> str:
        return " or None" if self.without else ""


def _about(kind: type, label: str, help: str, **given: Any) -> dict[str, Setting]:  # noqa: A002
    """Return a field's metadata."""
    return {"setting": Setting(kind=kind, label=label, help=help, **given)}


def _take(given: Any, known: Mapping[str, Setting]) -> None:
    """Keep each value of a record as its setting has it, and refuse what cannot be meant."""
    for name, setting in known.items():
        try:
            object.__setattr__(given, name, setting.taken(getattr(given, name)))
        except ValueError as error:
            _refuse(given, name, str(error))


def _refuse(given: Any, name: str, expected: str) -> NoReturn:
    message = f"{name}={getattr(given, name)!r}: expected {expected}"
    raise SettingsError(message) from None


@dataclass(frozen=True)
class FitSettings:
    """What a fit is asked to do.

    Parameters
    ----------
    gaussians : int or None
        The most Gaussians the field may have; None for 20,000. A fit has as many of them as the
        stack's noise carries.
    exactly : bool
        Whether it has just as many, whatever they describe; without a number, as many as the size
        of the stack's signal suggests.
    quality : {"preview", "balanced", "fine"}
        How long to go on: 150, 700 or 2,500 steps.
    objective : {"mip+voxels", "mip", "voxels"}
        Fit the projections and the voxels, or one of them.
    loss : {"squared", "poisson"}
        Squared error, or Poisson deviance above the background.
    ssim_weight : float
        Weight of 1 - SSIM of the projections beside the loss, 0 to 1.
    iterations : int or None
        Steps, in place of those of `quality`.
    max_seconds : float or None
        Time after which the fit ends (annealed by then, as if all its steps were done).
    views : int
        Views of the orbit, the held-out ones among them.
    held_out : int
        Views of the orbit never trained on.
    full_covariance : bool
        False keeps the Gaussians' axes along z, y, x.
    shape : {"any", "point"}
        "point" has Gaussians of centre and amplitude alone, as wide as the point spread function
        that the fit is given.
    background : float or None
        Raw intensity; None fits it.
    device : {"auto", "cpu", "cuda"}
        Where the fit computes; "auto" takes CUDA where it works, and says so.
    seed : int
        Of all random choices: the same seed on the same device gives the same result.
    refine : bool
        Go on from the Gaussians that `Fit` is given as `start`, as their own fit would have: with
        steps that begin at the size at which a whole fit ends, and none relocated. Without it a
        start is worth no more than good seeds: the large first steps of a fit undo it.
    gain : float or None
        Of the detector, raw intensity a photon; None lets the stack tell its noise. The noise says
        what a fit could reach and how well its numbers are known; the fit itself asks for none.
    offset, read_noise : float or None
        Raw intensity of no light, and the standard deviation of its noise; 0 beside a gain if None.
    measure : bool or None
        Whether the command line measures the Gaussians when the fit has ended, each number with its
        error bar; None lets it decide, by whether most of them stand alone or in small groups.

    Raises
    ------
    SettingsError
        If a value is outside of what it may be; the message names field, value and range.
    """

    gaussians: int | None = field(
        default=None,
        metadata=_about(
            int,
            "Gaussians, at most",
            "the most Gaussians that the fit may use; it takes as many as the noise carries",
            least=1,
            most=MOST_GAUSSIANS,
            without=f"{MOST_UNASKED:,}",
        ),
    )
    exactly: bool = field(
        default=False,
        metadata=_about(
            bool,
            "Exactly as many",
            "just as many Gaussians, whatever they describe",
        ),
    )
    quality: Quality = field(
        default="balanced",
        metadata=_about(
            str,
            "Quality",
            "how long to go on; preview shows in seconds whether it works at all",
            choices={name: f"{name} ({steps:,} steps)" for name, steps in ITERATIONS.items()},
        ),
    )
    objective: Objective = field(
        default="mip+voxels",
        metadata=_about(
            str,
            "Objective",
            "what is made alike: maximum projections from many sides, the voxels, or both",
            choices={
                "mip+voxels": "projections and voxels",
                "mip": "projections only",
                "voxels": "voxels only",
            },
        ),
    )
    loss: Loss = field(
        default="squared",
        metadata=_about(
            str,
            "Noise",
            "which noise the stack has: even everywhere, or growing with brightness",
            choices={"squared": "even (squared error)", "poisson": "photons (Poisson)"},
        ),
    )
    ssim_weight: float = field(
        default=0.0,
        metadata=_about(
            float,
            "SSIM weight",
            "weight of the structural similarity of projections, beside the noise's loss",
            least=0.0,
            most=1.0,
        ),
    )
    iterations: int | None = field(
        default=None,
        metadata=_about(
            int,
            "Steps",
            "steps to take",
            least=1,
            most=MOST_ITERATIONS,
            without="of the quality",
        ),
    )
    max_seconds: float | None = field(
        default=None,
        metadata=_about(
            float,
            "Seconds",
            "end after this time, whatever steps are left",
            least=0.0,
            most=MOST_SECONDS,
            without="no limit",
        ),
    )
    views: int = field(
        default=60,
        metadata=_about(
            int,
            "Views",
            "projections from around the stack, the held-out ones among them",
            least=2,
            most=MOST_VIEWS,
        ),
    )
    held_out: int = field(
        default=10,
        metadata=_about(
            int,
            "Held out",
            "views that are never trained on, by which the fit is judged",
            least=1,
            most=MOST_VIEWS,
        ),
    )
    full_covariance: bool = field(
        default=True,
        metadata=_about(
            bool, "Any orientation", "Gaussians of any orientation, or else along z, y and x"
        ),
    )
    shape: Shape = field(
        default="any",
        metadata=_about(
            str,
            "Shape",
            "what a Gaussian may be; a point is as wide as light makes it, by the point spread "
            "function beside it",
            choices={"any": "any", "point": "a point"},
        ),
    )
    background: float | None = field(
        default=None,
        metadata=_about(
            float,
            "Background",
            "raw intensity where there is no Gaussian",
            least=-BRIGHTEST,
            most=BRIGHTEST,
            without="fitted",
        ),
    )
    device: Device = field(
        default="auto",
        metadata=_about(
            str,
            "Device",
            "where to compute",
            choices={"auto": "automatic", "cpu": "CPU", "cuda": "GPU (CUDA)"},
        ),
    )
    seed: int = field(
        default=0,
        metadata=_about(
            int,
            "Seed",
            "of all random choices: the same again gives the same fit",
            least=0,
            most=MOST_SEED,
        ),
    )
    refine: bool = field(
        default=False,
        metadata=_about(bool, "Refine", "go on from the Gaussians of another fit"),
    )
    gain: float | None = field(
        default=None,
        metadata=_about(
            float,
            "Gain",
            "raw intensity that the detector gives a photon",
            least=0.0,
            most=BRIGHTEST,
            without="the stack tells",
        ),
    )
    offset: float | None = field(
        default=None,
        metadata=_about(
            float,
            "Offset",
            "raw intensity of no light, beside a gain",
            least=-BRIGHTEST,
            most=BRIGHTEST,
            without="0",
        ),
    )
    read_noise: float | None = field(
        default=None,
        metadata=_about(
            float,
            "Read noise",
            "standard deviation of the detector's noise without light, beside a gain",
            least=0.0,
            most=BRIGHTEST,
            without="0",
        ),
    )
    measure: bool | None = field(
        default=None,
        metadata=_about(
            bool,
            "Measure",
            "error bars for each Gaussian in the command line's table",
            without="where they mean something",
        ),
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        _take(self, SETTINGS)
        if self.held_out >= self.views:
            _refuse(self, "held_out", f"fewer than views={self.views}, so that some are trained on")
        for name in ("offset", "read_noise"):
            if self.gain is None and getattr(self, name) is not None:
                _refuse(self, name, "a gain beside it, without which neither tells the noise")
        if self.gain == 0 and not self.read_noise:
            _refuse(self, "gain", "more than 0, or a read noise beside it")

    @property
    def steps(self) -> int:
        """Number of steps that a whole fit takes."""
        return self.iterations or ITERATIONS[self.quality]

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FitSettings:
        """Return settings from `to_dict`.

        Parameters
        ----------
        values : dict
            By name; those left out have their defaults.

        Returns
        -------
        FitSettings
            Checked.

        Raises
        ------
        SettingsError
            If there is a name that is no setting.
        """
        unknown = sorted(set(values) - set(SETTINGS))
        if unknown:
            known = ", ".join(sorted(SETTINGS))
            message = f"{', '.join(unknown)}: no such setting; there are {known}"
            raise SettingsError(message)
        return cls(**values)


SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {one.name: one.metadata["setting"] for one in fields(FitSettings)}
)
"""What each setting may be, by its name."""


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """How a panel opens: what a person sets once, and napari's Preferences keep.

    The manifest names the same to napari, see `tests/_napari/panel/test_preferences.py`.

    Parameters
    ----------
    look_for : {"structure", "spots"}
        What the panel looks for when it opens.
    quality : {"preview", "balanced", "fine"}
        How long fits go on, as in `FitSettings`.
    device : {"auto", "cpu", "cuda"}
        Where fits compute, as in `FitSettings`.
    folder : str
        In which the panel's dialogs begin; empty for the one that napari was started in.
    keep : bool
        Whether results are also kept as files, to be had back after a crash.
    """

    look_for: LookFor = field(
        default="structure",
        metadata=_about(
            str,
            "Look for",
            "what the panel looks for when it opens",
            choices={"structure": "Structure", "spots": "Spots: one Gaussian each"},
        ),
    )
    quality: Quality = field(default=FitSettings.quality, metadata={"setting": SETTINGS["quality"]})
    device: Device = field(default=FitSettings.device, metadata={"setting": SETTINGS["device"]})
    folder: str = field(
        default="",
        metadata=_about(
            str,
            "Folder of results",
            "where dialogs that save results begin; empty: where napari was started",
        ),
    )
    keep: bool = field(
        default=True,
        metadata=_about(
            bool,
            "Keep results for after a crash",
            "results are also kept as files until napari is closed",
        ),
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be meant: the file of preferences may be of another version."""
        _take(self, PREFERENCES)

    @property
    def words(self) -> str:
        """What of them a person would not expect who never set any; empty where there is none."""
        others = []
        for name, setting in PREFERENCES.items():
            value = getattr(self, name)
            if value == getattr(Preferences, name):
                continue
            label = f"{setting.label[0].lower()}{setting.label[1:]}"
            if setting.kind is bool:
                others.append(f"{label}: {'on' if value else 'off'}")
            else:
                others.append(f"{label} {setting.choices.get(value, value)}")
        return "; ".join(others)


PREFERENCES: Mapping[str, Setting] = MappingProxyType(
    {one.name: one.metadata["setting"] for one in fields(Preferences)}
)
"""What each preference may be, by its name."""
