"""FitSettings: what a fit is asked to do, validated on entry."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from napari_gaussfit._limits import BRIGHTEST
from napari_gaussfit.errors import SettingsError

Quality = Literal["preview", "balanced", "fine"]
Objective = Literal["mip+voxels", "mip", "voxels"]
Loss = Literal["squared", "poisson"]
Device = Literal["auto", "cpu", "cuda"]

ITERATIONS: dict[Quality, int] = {"preview": 150, "balanced": 700, "fine": 2500}
"""Steps of each quality, chosen by time to held-out PSNR on real stacks (benchmarks)."""

TRAINING_VIEWS = 48
"""Views of the orbit that are trained on at most: nearly all of 60 that are not held out. Twice as
many as 24, they bring the dendrite's held-out views 0.4 dB, and cost memory."""

MOST_GAUSSIANS, MOST_VIEWS = 100_000_000, 10_000
MOST_ITERATIONS, MOST_SECONDS, MOST_SEED = 1_000_000_000, 1e9, 2**63 - 1
"""Beyond what anyone means: settings may come from a file."""


@dataclass(frozen=True)
class FitSettings:
    """What a fit is asked to do.

    Parameters
    ----------
    gaussians : int or None
        The most Gaussians the field may have; None lets the stack suggest it.
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
    background : float or None
        Raw intensity; None fits it.
    device : {"auto", "cpu", "cuda"}
        Where to compute.
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

    Raises
    ------
    SettingsError
        If a value is outside of what it may be; the message names field, value and range.
    """

    gaussians: int | None = None
    quality: Quality = "balanced"
    objective: Objective = "mip+voxels"
    loss: Loss = "squared"
    ssim_weight: float = 0.0
    iterations: int | None = None
    max_seconds: float | None = None
    views: int = 60
    held_out: int = 10
    full_covariance: bool = True
    background: float | None = None
    device: Device = "auto"
    seed: int = 0
    refine: bool = False
    gain: float | None = None
    offset: float | None = None
    read_noise: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        self._one_of("quality", Quality)
        self._one_of("objective", Objective)
        self._one_of("loss", Loss)
        self._one_of("device", Device)
        self._whole("gaussians", 1, MOST_GAUSSIANS, optional=True)
        self._whole("iterations", 1, MOST_ITERATIONS, optional=True)
        self._whole("views", 2, MOST_VIEWS)
        self._whole("held_out", 1, MOST_VIEWS)
        self._whole("seed", 0, MOST_SEED)
        if self.held_out >= self.views:
            self._refuse("held_out", f"fewer than views={self.views}, so that some are trained on")
        self._flag("full_covariance")
        self._flag("refine")
        self._number("ssim_weight", 0.0, 1.0)
        if self.max_seconds is not None:
            self._number("max_seconds", 0.0, MOST_SECONDS)
        if self.background is not None:
            self._number("background", -BRIGHTEST, BRIGHTEST)
        self._detector()

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
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            message = f"{', '.join(unknown)}: no such setting; there are {', '.join(sorted(known))}"
            raise SettingsError(message)
        return cls(**values)

    def _refuse(self, name: str, expected: str) -> None:
        message = f"{name}={getattr(self, name)!r}: expected {expected}"
        raise SettingsError(message)

    def _detector(self) -> None:
        for name, least in (("gain", 0.0), ("offset", -BRIGHTEST), ("read_noise", 0.0)):
            if getattr(self, name) is not None:
                self._number(name, least, BRIGHTEST)
                if self.gain is None:
                    self._refuse(name, "a gain beside it, without which neither tells the noise")
        if self.gain == 0 and not self.read_noise:
            self._refuse("gain", "more than 0, or a read noise beside it")

    def _one_of(self, name: str, literal: Any) -> None:
        choices = get_args(literal)
        if getattr(self, name) not in choices:
            self._refuse(name, "one of " + ", ".join(map(repr, choices)))

    def _flag(self, name: str) -> None:
        if not isinstance(getattr(self, name), bool):
            self._refuse(name, "True or False")

    def _whole(self, name: str, least: int, most: int, *, optional: bool = False) -> None:
        value = getattr(self, name)
        if optional and value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            expected = f"a whole number of at least {least}"
            if isinstance(value, int) and value > most:
                expected = f"a whole number of at most {most:,}"
            self._refuse(name, expected + " or None" * optional)

    def _number(self, name: str, least: float, most: float) -> None:
        value = getattr(self, name)
        real = isinstance(value, (int, float)) and not isinstance(value, bool)
        # Neither NaN nor an infinity is in any range.
        if not real or not least <= value <= most:
            self._refuse(name, f"a number from {least:g} to {most:g}")
