"""OUT: the folder that a fit leaves behind, and how a fit goes on from it.

``fit.safetensors`` comes first and at intervals, so that a fit survives its process; the table,
the report and the pictures follow when it has ended.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
import warnings
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import FormatError, OutOfSpaceError, OutputError, SettingsError
from napari_gaussfit.files import replacing
from napari_gaussfit.fitting.snapshot import FitState
from napari_gaussfit.formats.csv import write_csv
from napari_gaussfit.formats.native import load_fit, save_fit
from napari_gaussfit.model.result import SavedFit
from napari_gaussfit.settings import FitSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from napari_gaussfit.fitting.fit import Fit, FitResult
    from napari_gaussfit.stacks.stack import Stack

__all__ = [
    "FIT_NAME",
    "GAUSSIANS_NAME",
    "HISTORY_NAME",
    "KEPT_PREFIX",
    "NOISE_NAME",
    "OUTPUTS",
    "PICTURE_NAME",
    "REPORT_NAME",
    "TABLE_NAME",
    "FitFolder",
    "checked_folder",
    "fit_path",
    "holds_fit",
    "is_finished",
    "report_of",
    "resumed_points",
    "resumed_settings",
]

FIT_NAME, TABLE_NAME = "fit.safetensors", "gaussians.csv"
REPORT_NAME, PICTURE_NAME = "report.json", "projections.png"
HISTORY_NAME, GAUSSIANS_NAME, NOISE_NAME = "history.png", "gaussians.png", "noise.png"

OUTPUTS = (
    *(FIT_NAME, TABLE_NAME, REPORT_NAME),
    *(PICTURE_NAME, HISTORY_NAME, GAUSSIANS_NAME, NOISE_NAME),
)
"""What a fit leaves in its folder."""

_RESULTS = OUTPUTS[1:]
"""What is there once a fit has ended."""

MAY_CHANGE = ("device", "max_seconds")
"""Settings that a resumed fit may have otherwise: they limit a run, and leave the fit the same."""

_DIGEST = "stack_digest"
"""The array in the saved state that tells whose fit it is."""

_POINTS = "points"
"""That of the points where it began, where there were any."""

NOT_WRITTEN = "not_written"
"""What a saved report names beside its figures: files that are still to be written."""

KEPT_PREFIX = "napari-gaussfit-"
"""Of temporary folders in which a fit is kept while, or because, its own has no room."""

Failures = dict[str, OutputError]


def checked_folder(path: str | os.PathLike[str]) -> Path:
    """Return a path that is, or can become, a folder to write into; makes nothing.

    Raises
    ------
    OutputError
        If it is a file, or lies where this user may not write.
    """
    folder = Path(path)
    standing = folder
    while not standing.exists() and standing != standing.parent:
        standing = standing.parent
    if not standing.is_dir():
        raise OutputError(f"{folder}: {standing} is a file; give a folder to write into")
    if not os.access(standing, os.W_OK | os.X_OK):
        raise OutputError(
            f"{folder}: {standing} may not be written to by this user; give another folder"
        )
    return folder


def fit_path(path: str | os.PathLike[str]) -> Path:
    """Return the native file that a path means: itself, or the one in the folder that it is.

    Raises
    ------
    FormatError
        If it is a folder without one.
    """
    given = Path(path)
    if not given.is_dir():
        return given
    if not holds_fit(given):
        raise FormatError(
            f"{given}: is a folder that holds no {FIT_NAME}; give the folder of a fit, or a file"
        )
    return given / FIT_NAME


def holds_fit(path: Path) -> bool:
    """Tell whether a folder has a fit to go on from, or to replace."""
    return (path / FIT_NAME).is_file()


@dataclass(frozen=True)
class FitFolder:
    """The folder of one fit of one stack.

    Parameters
    ----------
    path : Path
        The folder.
    stack : Stack
        What is fitted.
    others : tuple of Stack
        Of several channels, those after the first.
    """

    path: Path
    stack: Stack
    others: tuple[Stack, ...] = ()

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The stack of each channel."""
        return self.stack, *self.others

    @property
    def place(self) -> dict[str, int]:
        """The one channel and the time that are fitted, as far as the file has several."""
        chosen = {"channel": None if self.others else self.stack.channel, "time": self.stack.time}
        return {axis: index for axis, index in chosen.items() if index is not None}

    def save(
        self, fit: Fit, report: Mapping[str, Any] | None = None, *, over_own: bool = False
    ) -> None:
        """Write ``fit.safetensors``, from which the fit can go on. Between two snapshots only.

        Parameters
        ----------
        fit : Fit
            What to save.
        report : mapping, optional
            Of a fit that has ended.
        over_own : bool
            Whether the file that is there is an earlier state of this fit, for which no room is
            needed beside the new one.

        Raises
        ------
        OutputError
            If it cannot be written; the file that was there is as it was, or a copy of the new one
            stays where the message says.
        """
        state, history, field = fit.checkpoint()
        state[_DIGEST] = self._digest
        if fit.points is not None:
            state[_POINTS] = np.asarray(fit.points)
        saved = SavedFit.of(
            field,
            self.stack,
            settings=fit.settings.to_dict(),
            history=history,
            report=None if report is None else dict(report),
            state=state,
            others=fit.other_fields,
        )
        path = self.path / FIT_NAME
        try:
            save_fit(path, saved)
        except OutOfSpaceError:
            if not over_own or not _replaced_by_way_of_a_copy(path, saved):
                raise

    def forget_results(self) -> None:
        """Remove table, report and pictures of an earlier fit, which the new one replaces."""
        for name in _RESULTS:
            with suppress(OSError):  # one that is held now is replaced, or named, at the end
                (self.path / name).unlink(missing_ok=True)

    def finish(self, fit: Fit, *, over_own: bool = False) -> tuple[FitResult, Failures]:
        """Write all that a fit leaves; the fit itself first, should the rest be interrupted.

        Returns
        -------
        FitResult
            What the fit found.
        dict of OutputError
            By name, why a file could not be written.
        """
        with suppress(OutputError):  # which is written once more, and then counts
            self.save(fit, over_own=over_own)
            over_own = True
        result = fit.result()
        return result, self.write(fit, result, over_own=over_own)

    def write(self, fit: Fit, result: FitResult, *, over_own: bool = False) -> Failures:
        """Write all files, each on its own; return why some could not be written, by name."""
        from napari_gaussfit.measure.noise import given_noise, photon_transfer
        from napari_gaussfit.plots.history import draw_gaussians, draw_history
        from napari_gaussfit.plots.photon_transfer import draw_photon_transfer
        from napari_gaussfit.plots.projections import draw_projections

        def fitted() -> None:
            ended = fit.state is FitState.FINISHED
            report = result.report.to_dict() | ({NOT_WRITTEN: sorted(failed)} if failed else {})
            self.save(fit, report if ended else None, over_own=over_own)

        def noise() -> Figure:
            voxels = self.stack.voxels
            return draw_photon_transfer(photon_transfer(voxels), given_noise(fit.settings, voxels))

        failed: Failures = {}
        spacing, unit = self.stack.spacing, self.stack.unit
        writers: dict[str, Callable[[Path], None]] = {
            TABLE_NAME: lambda path: write_csv(
                path, result.field, spacing, result.others, self.place
            ),
            REPORT_NAME: lambda path: _write_json(path, report_of(result, fit.settings)),
            PICTURE_NAME: lambda path: _draw(path, draw_projections(result, fit.settings)),
            HISTORY_NAME: lambda path: _draw(path, draw_history(result.history, unit)),
            GAUSSIANS_NAME: lambda path: _draw(path, draw_gaussians(result.field)),
            NOISE_NAME: lambda path: _draw(path, noise()),
            FIT_NAME: lambda _: fitted(),  # last, since it tells of the others
        }
        for name, write in writers.items():
            try:
                write(self.path / name)
            except OutputError as error:
                failed[name] = error
        return failed

    @cached_property
    def _digest(self) -> NDArray[np.uint8]:
        """Return a checksum of the voxels [16]: channels, time and fillings tell by it."""
        digest = hashlib.blake2b(digest_size=16)
        for stack in self.stacks:
            digest.update(stack.voxels.tobytes())
        return np.frombuffer(digest.digest(), np.uint8)

    def saved(self) -> SavedFit:
        """Return the fit in the folder.

        Raises
        ------
        FormatError
            If it cannot be read, or is the fit of another stack.
        """
        path = self.path / FIT_NAME
        saved, stack = load_fit(path), self.stack
        for what, found, given in (
            ("shape", saved.shape, stack.shape),
            ("spacing", saved.spacing, stack.spacing),
            ("unit", saved.unit, stack.unit),
        ):
            if found != given:
                raise FormatError(
                    f"{path}: is the fit of a stack of {what} {found}, this one's is {given}; "
                    "give that stack as it was, or another folder"
                )
        if _DIGEST not in saved.state:
            raise FormatError(f"{path}: holds no state to go on from; fit anew, without resuming")
        if not np.array_equal(saved.state[_DIGEST], self._digest):
            raise FormatError(
                f"{path}: is the fit of other voxels, {saved.stack!r}; "
                "give that stack (and channel, time) again, or another folder"
            )
        return saved


def _draw(path: Path, figure: Figure) -> None:
    with replacing(path) as temporary, warnings.catch_warnings():
        # A stack's name may be in a script that the font lacks; the title shows boxes then.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        figure.savefig(temporary)


def _replaced_by_way_of_a_copy(path: Path, saved: SavedFit) -> bool:
    """Replace a fit whose disk has no room for two; a copy stays on another disk meanwhile.

    Returns
    -------
    bool
        False where there is no room for that either, and nothing has changed.

    Raises
    ------
    OutputError
        If the file is not written in the end; the message says where the copy is.
    """
    if not path.exists():
        return False
    aside = Path(tempfile.mkdtemp(prefix=KEPT_PREFIX))
    copy = aside / FIT_NAME
    try:
        save_fit(copy, saved)
        freed = shutil.disk_usage(path.parent).free + path.stat().st_size
        if freed <= copy.stat().st_size:
            raise OutOfSpaceError
        path.unlink()
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        return False
    try:
        save_fit(path, saved)
    except OutputError as error:
        raise OutputError(f"{error}; it is kept in {aside}") from error
    shutil.rmtree(aside, ignore_errors=True)
    return True


def resumed_settings(saved: SavedFit, given: Mapping[str, Any]) -> FitSettings:
    """Return the settings of a saved fit, those given checked against them.

    Raises
    ------
    SettingsError
        If one that was given is another; `MAY_CHANGE` excepted.
    """
    known = FitSettings.from_dict(saved.settings)
    for setting in fields(FitSettings):
        name = setting.name
        was = getattr(known, name)
        if name in given and name not in MAY_CHANGE and given[name] != was:
            raise SettingsError(
                f"{name}={given[name]!r}: the saved fit has {was!r}; leave it out to go on, "
                "or fit anew, without resuming"
            )
    changed = {name: given[name] for name in MAY_CHANGE if name in given}
    return FitSettings.from_dict(saved.settings | changed)


def resumed_points(
    saved: SavedFit, given: NDArray[np.float64] | None
) -> NDArray[np.float64] | None:
    """Return the points where a saved fit began, those given checked against them.

    Raises
    ------
    SettingsError
        If it began elsewhere.
    """
    known = saved.state.get(_POINTS)
    if given is not None and (known is None or not np.array_equal(known, given)):
        found = "no points" if known is None else f"{len(known)} points, others than these"
        raise SettingsError(
            f"points: the saved fit began at {found}; leave --points out to go on, "
            "or fit anew, without resuming"
        )
    return known


def is_finished(saved: SavedFit, settings: FitSettings) -> bool:
    """Tell whether a saved fit has done all that its settings ask for, and left all its files."""
    if saved.report is None or saved.report.get(NOT_WRITTEN):
        return False
    seconds, iterations = saved.report.get("seconds"), saved.report.get("iterations")
    if not (isinstance(seconds, (int, float)) and isinstance(iterations, (int, float))):
        raise FormatError(
            f"the saved fit of {saved.stack} has no number of seconds and steps in its report; "
            "fit anew, without resuming"
        )
    limit = settings.max_seconds
    return (limit is not None and seconds >= limit) or iterations >= settings.steps


def report_of(result: FitResult, settings: FitSettings) -> dict[str, Any]:
    """Return what ``report.json`` holds: report (of all channels), settings and history."""
    of_others = [report.to_dict() for report in result.other_reports]
    return (
        result.report.to_dict()
        | ({"other_channels": of_others} if of_others else {})
        | {"settings": settings.to_dict(), "history": result.history}
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        text = json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    """Return JSON types with null for what is not known: JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
