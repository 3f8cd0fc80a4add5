"""OUT: the folder that a fit leaves behind, and how a fit goes on from it.

``fit.safetensors`` comes first and at intervals, so that a fit survives its process; the table,
the report and the pictures follow when it has ended.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._threads import in_one_torch_thread
from napari_gaussfit.errors import FormatError, OutOfSpaceError, OutputError, SettingsError
from napari_gaussfit.files import write_json, write_table
from napari_gaussfit.fitting.result import POINTS, FitResult
from napari_gaussfit.fitting.snapshot import FitState
from napari_gaussfit.formats.native import save_fit
from napari_gaussfit.formats.registry import FIT_NAME, read_fit
from napari_gaussfit.jobs.drawings import (
    drawn,
    gaussians_drawing,
    history_drawing,
    noise_drawing,
    projections_drawing,
    titled,
)
from napari_gaussfit.jobs.settings_file import SETTINGS_NAME, write_settings
from napari_gaussfit.plots.saving import write_picture
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.reading import refusing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from napari_gaussfit.fitting.fit import Fit
    from napari_gaussfit.jobs.drawing import Drawer
    from napari_gaussfit.jobs.messages import Message
    from napari_gaussfit.measure.report import Report
    from napari_gaussfit.stacks.stack import Stack

    Pictures = dict[str, Callable[[], bytes]]
    """By name, what waits for a picture that is being drawn."""

__all__ = [
    "FIT_NAME",
    "GAUSSIANS_NAME",
    "HISTORY_NAME",
    "KEPT_PREFIX",
    "NOISE_NAME",
    "OUTPUTS",
    "PICTURE_NAME",
    "REPLACED",
    "REPORT_NAME",
    "TABLE_NAME",
    "FitFolder",
    "check_points",
    "checked_folder",
    "holds_fit",
    "is_finished",
    "report_of",
    "resumed_settings",
]

_LOG = logging.getLogger(__name__)

TABLE_NAME, REPORT_NAME, PICTURE_NAME = "gaussians.csv", "report.json", "projections.png"
HISTORY_NAME, GAUSSIANS_NAME, NOISE_NAME = "history.png", "gaussians.png", "noise.png"

DECONVOLVED_NAME, CHANNELS_NAME = "deconvolved.ome.tif", "channels.csv"

OUTPUTS = (
    *(FIT_NAME, TABLE_NAME, REPORT_NAME),
    *(PICTURE_NAME, HISTORY_NAME, GAUSSIANS_NAME, NOISE_NAME, SETTINGS_NAME),
)
"""What a fit leaves in its folder."""

REPLACED = (*OUTPUTS, DECONVOLVED_NAME, CHANNELS_NAME)
"""What it may find there of another one: the last two are of fits with a point spread function, and
of several channels."""

_RESULTS = REPLACED[1:]
"""What is there once a fit has ended."""

MAY_CHANGE = ("device", "max_seconds")
"""Settings that a resumed fit may have otherwise: they limit a run, and leave the fit the same."""

_DIGEST = "stack_digest"
"""The array in the saved state that tells whose fit it is."""

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


def holds_fit(path: Path) -> bool:
    """Tell whether a folder has a fit to go on from, or to replace."""
    return (path / FIT_NAME).is_file()


@dataclass(frozen=True)
class FitFolder:
    """The folder of one fit of one stack.

    Parameters
    ----------
    path : Path
        Path of the results folder.
    stacks : tuple of Stack
        The channels that are fitted.
    asked : mapping or None
        What ``settings.toml`` is to say; the settings of the fit if None.
    drawer : Drawer or None
        The process that draws the pictures; None draws them here.
    """

    path: Path
    stacks: tuple[Stack, ...]
    asked: Mapping[str, Any] | None = None
    drawer: Drawer | None = None

    def save(
        self, result: FitResult, *, over_own: bool = False, not_written: Iterable[str] = ()
    ) -> None:
        """Write ``fit.safetensors``, from which the fit can go on.

        Parameters
        ----------
        result : FitResult
            The fit as it is now; with a report if it has ended.
        not_written : iterable of str
            Names of the files that the fit still lacks; the report names them.
        over_own : bool
            Whether the file that is there is an earlier state of this fit, for which no room is
            needed beside the new one.

        Raises
        ------
        OutputError
            If it cannot be written; the file that was there is as it was, or a copy of the new one
            stays where the message says.
        """
        contents = result.contents()
        contents["state"] = {**result.state, _DIGEST: self.digest}
        if contents["report"] is not None and not_written:
            contents["report"][NOT_WRITTEN] = sorted(not_written)
        path = self.path / FIT_NAME
        try:
            save_fit(path, **contents)
        except OutOfSpaceError:
            if not over_own or not _replaced_by_way_of_a_copy(path, contents):
                raise

    def forget_results(self) -> None:
        """Remove table, report and pictures of an earlier fit, which the new one replaces."""
        for name in _RESULTS:
            with suppress(OSError):  # one that is held now is replaced, or named, at the end
                (self.path / name).unlink(missing_ok=True)

    @in_one_torch_thread()
    def finish(self, fit: Fit, *, over_own: bool = False) -> tuple[FitResult, Failures]:
        """Write all that a fit leaves; the fit itself first, should the rest be interrupted.

        Returns
        -------
        FitResult
            What the fit found.
        dict of OutputError
            By name, why a file could not be written.
        """
        ended = fit.checkpoint()
        # Another process draws beside what comes next, each as soon as what it is of is known.
        pictures = self._of_gaussians(ended)
        with suppress(OutputError):  # which is written once more, and then counts
            self.save(ended, over_own=over_own)
            over_own = True
        titled_later = self._of_views(fit, ended)
        pictures |= self._of_noise(fit)
        result = fit.result()
        pictures |= {PICTURE_NAME: titled_later(result.report)}
        result = self.judged(result)
        return result, self.write(fit, result, over_own=over_own, pictures=pictures)

    def judged(self, result: FitResult) -> FitResult:
        """Return a result whose report says whether its Gaussians were measured; errors beside."""
        from napari_gaussfit.jobs.measuring import measured_after

        found, words = measured_after(result, self.stacks)
        reports = tuple(replace(report, measured=words) for report in result.reports)
        return replace(result, reports=reports, measurement=found)

    def write(
        self,
        fit: Fit,
        result: FitResult,
        *,
        over_own: bool = False,
        pictures: Pictures | None = None,
    ) -> Failures:
        """Write all files, each on its own; return why some could not be written, by name."""

        def sharp(path: Path) -> None:
            result.deconvolved().export(path)

        def picture(path: Path) -> None:
            write_picture(path, drawings[path.name]())

        drawings = pictures or {
            **self._of_gaussians(result),
            **self._of_noise(fit),
            PICTURE_NAME: self._of_views(fit, result)(result.report),
        }
        pairs = self._channel_pairs(result)
        failed: Failures = {}
        # A fit that was stopped goes on, and so is saved without a report.
        kept = result if fit.state is FitState.FINISHED else replace(result, reports=())
        writers: dict[str, Callable[[Path], None]] = {
            TABLE_NAME: result.export,
            REPORT_NAME: lambda path: write_json(path, report_of(result) | _in_report(pairs)),
            SETTINGS_NAME: lambda path: write_settings(path, self._asked_of(fit), "fit"),
            **({} if result.psf is None else {DECONVOLVED_NAME: sharp}),
            **({} if pairs is None else {CHANNELS_NAME: lambda path: write_table(path, pairs)}),
            **dict.fromkeys((HISTORY_NAME, GAUSSIANS_NAME, PICTURE_NAME, NOISE_NAME), picture),
            # Last, since it tells of the others.
            FIT_NAME: lambda _: self.save(kept, over_own=over_own, not_written=failed),
        }
        for name, write in writers.items():
            began = time.perf_counter()
            try:
                write(self.path / name)
            except OutputError as error:
                failed[name] = error
            else:
                seconds = time.perf_counter() - began
                _LOG.info("wrote %s in %.2f s", self.path / name, seconds)
        return failed

    def _of_gaussians(self, result: FitResult) -> Pictures:
        """Have drawn what needs no report."""
        return {
            HISTORY_NAME: self._begun(history_drawing(result.history, result.stack.unit)),
            GAUSSIANS_NAME: self._begun(gaussians_drawing(result.field)),
        }

    def _of_views(self, fit: Fit, result: FitResult) -> Callable[[Report], Callable[[], bytes]]:
        """Have drawn all of the projections but their title, which needs the report."""
        from napari_gaussfit.plots.comparisons import comparisons_in, heading

        rows = comparisons_in(*fit.first_views, result.field)
        drawing = projections_drawing(rows, result.stack.unit)
        if self.drawer is None:
            return lambda report: partial(drawn, titled(drawing, heading(report)))
        finish = self.drawer.begin_untitled(drawing)
        return lambda report: finish(heading(report))

    def _of_noise(self, fit: Fit) -> Pictures:
        from napari_gaussfit.measure.noise import given_noise
        from napari_gaussfit.measure.photon_transfer import curve_of

        stack = self.stacks[0]
        given = given_noise(fit.settings, stack.voxels)
        return {NOISE_NAME: self._begun(noise_drawing(curve_of(stack), given))}

    def _begun(self, drawing: Message) -> Callable[[], bytes]:
        """Have a picture drawn, and return what waits for its bytes."""
        return partial(drawn, drawing) if self.drawer is None else self.drawer.begin(drawing)

    def _asked_of(self, fit: Fit) -> Mapping[str, Any]:
        """Return what was asked for, by options or otherwise."""
        if self.asked is not None:
            return self.asked
        asked = fit.settings.to_dict()
        del asked["refine"]  # by which fit is not known here
        return asked

    def _channel_pairs(self, result: FitResult) -> pd.DataFrame | None:
        """Return how every two channels go together; None where there is one."""
        from napari_gaussfit.measure.channels import compare_channels, pairs_table

        if len(result.fields) < 2 or not len(result.field):
            return None
        known = result.measurement
        gaussians = [field.numpy() for field in result.measured_fields]
        numbers = [stack.facts.channel for stack in self.stacks]
        names = [n if number is None else number for n, number in enumerate(numbers)]
        return pairs_table(compare_channels(gaussians, known), names)

    @cached_property
    def digest(self) -> NDArray[np.uint8]:
        """Return a checksum of the voxels [16]: channels, time and fillings tell by it."""
        digest = hashlib.blake2b(digest_size=16)
        for stack in self.stacks:
            digest.update(stack.voxels.tobytes())
        return np.frombuffer(digest.digest(), np.uint8)

    def saved(self) -> FitResult:
        """Return the fit in the folder, without a report as long as files are still to be written.

        Raises
        ------
        FormatError
            If it cannot be read, or is the fit of another stack.
        """
        path = self.path / FIT_NAME
        contents = read_fit(path)
        if (contents["report"] or {}).get(NOT_WRITTEN):
            contents["report"] = None
        with refusing(path, "a fit"):
            saved = FitResult.from_contents(contents)
        for what in ("shape", "spacing", "unit"):
            found, given = getattr(saved.stack, what), getattr(self.stacks[0], what)
            if found != given:
                raise FormatError(
                    f"{path}: is the fit of a stack of {what} {found}, this one's is {given}; "
                    "give that stack as it was, or another folder"
                )
        if _DIGEST not in saved.state:
            raise FormatError(f"{path}: holds no state to go on from; fit anew, without resuming")
        if not np.array_equal(saved.state[_DIGEST], self.digest):
            raise FormatError(
                f"{path}: is the fit of other voxels, {saved.stack.name!r}; "
                "give that stack (and channel, time) again, or another folder"
            )
        return saved


def _replaced_by_way_of_a_copy(path: Path, contents: Mapping[str, Any]) -> bool:
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
        save_fit(copy, **contents)
        freed = shutil.disk_usage(path.parent).free + path.stat().st_size
        if freed <= copy.stat().st_size:
            raise OutOfSpaceError
        path.unlink()
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        return False
    try:
        save_fit(path, **contents)
    except OutputError as error:
        raise OutputError(f"{error}; it is kept in {aside}") from error
    shutil.rmtree(aside, ignore_errors=True)
    return True


def resumed_settings(saved: FitResult, given: Mapping[str, Any]) -> FitSettings:
    """Return the settings of a saved fit, those given checked against them.

    Raises
    ------
    SettingsError
        If one that was given is another; `MAY_CHANGE` excepted.
    """
    known = saved.settings
    if known is None:
        raise SettingsError(
            "; ".join(saved.notes or ("the saved fit has no settings",))
            + "; fit anew, without resuming"
        )
    for setting in fields(FitSettings):
        name = setting.name
        was = getattr(known, name)
        if name in given and name not in MAY_CHANGE and given[name] != was:
            raise SettingsError(
                f"{name}={given[name]!r}: the saved fit has {was!r}; leave it out to go on, "
                "or fit anew, without resuming"
            )
    changed = {name: given[name] for name in MAY_CHANGE if name in given}
    return replace(known, **changed)


def check_points(saved: FitResult, given: NDArray[np.float64] | None) -> None:
    """Check that points which are given anew are those where a saved fit began.

    Raises
    ------
    SettingsError
        If it began elsewhere.
    """
    known = saved.state.get(POINTS)
    if given is not None and (known is None or not np.array_equal(known, given)):
        found = "no points" if known is None else f"{len(known)} points, others than these"
        raise SettingsError(
            f"points: the saved fit began at {found}; leave --points out to go on, "
            "or fit anew, without resuming"
        )


def is_finished(saved: FitResult, settings: FitSettings) -> bool:
    """Tell whether a saved fit has done all that its settings ask for, and left all its files."""
    if not saved.reports:
        return False
    limit, report = settings.max_seconds, saved.report
    return (limit is not None and report.seconds >= limit) or report.iterations >= settings.steps


def _in_report(pairs: pd.DataFrame | None) -> dict[str, Any]:
    """Return how channels go together as ``report.json`` holds it."""
    return {} if pairs is None else {"channel_pairs": pairs.to_dict("records")}


def report_of(result: FitResult) -> dict[str, Any]:
    """Return what ``report.json`` holds: report (of all channels), settings and history."""
    contents = result.contents()
    return {
        **contents["report"],
        "settings": contents["settings"],
        "history": result.history,
    }
