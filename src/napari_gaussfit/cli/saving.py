"""Keeping a fit on disk: at intervals while it runs, and somewhere in the end.

Disks fill and files are held by other programs; neither ends a fit, nor costs what it found.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_gaussfit.cli.printing import complain
from napari_gaussfit.errors import OutputError
from napari_gaussfit.jobs.fit_folder import FIT_NAME, KEPT_PREFIX, REPLACED
from napari_gaussfit.jobs.overwriting import claimed, refuse_to_replace

if TYPE_CHECKING:
    from napari_gaussfit.fitting.fit import Fit
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.jobs.fit_folder import Failures, FitFolder

__all__ = ["Saving", "rescue"]

SAVE_SECONDS = 10.0
"""Time between two savings: what a kill costs at most."""


class Saving:
    """Saves a fit at intervals; what cannot be written is said once, and tried again.

    Parameters
    ----------
    fit : Fit
        The fit that is running.
    folder : FitFolder
        The folder that the results are written to.
    own : bool
        Whether the folder's files are this fit's own from before.
    """

    def __init__(self, fit: Fit, folder: FitFolder, *, own: bool) -> None:
        self._fit, self._folder, self.own = fit, folder, own
        self._due = -math.inf
        self._failing = False

    def look(self) -> None:
        """Save, if it is time to. Between two snapshots only."""
        if time.monotonic() < self._due:
            return
        try:
            self._folder.save(self._fit.checkpoint(), over_own=self.own)
        except OutputError as error:
            if not self._failing:
                _say(f"{error}; the fit goes on, and is saved as soon as that can be done")
            self._failing = True
        else:
            if self._failing:
                _say(f"{self._folder.path}: the fit is saved again")
            if not self.own:
                self._folder.forget_results()
            self.own, self._failing = True, False
        self._due = time.monotonic() + SAVE_SECONDS


def rescue(fit: Fit, folder: FitFolder, result: FitResult, failed: Failures) -> None:
    """Say what could not be written; a fit that is nowhere yet is written to another place.

    That is where the person at the terminal says, or else a temporary folder.

    Parameters
    ----------
    fit : Fit
        A fit that has ended.
    folder : FitFolder
        The folder that the results are written to.
    result : FitResult
        The fit as far as it had come.
    failed : dict of OutputError
        By name, why a file could not be written.
    """
    for error in failed.values():
        _say(f"error: {error}")
    if FIT_NAME not in failed:
        _say(f"{folder.path}: the fit itself is saved; --resume writes what is missing")
        return
    while (place := _place_asked_for()) is not None:
        try:
            if _written_to(place, folder, fit, result):
                return
        except OutputError as error:
            _say(f"error: {error}")
    kept = Path(tempfile.mkdtemp(prefix=KEPT_PREFIX))
    if _written_to(kept, folder, fit, result):
        _say(f"move it to {folder.path} once there is room: temporary folders are emptied")
    else:
        _say(f"error: the fit is lost, but for what {folder.path} holds of it")


def _written_to(place: Path, folder: FitFolder, fit: Fit, result: FitResult) -> bool:
    """Write a fit to another place, or to its own after all; tell whether it is there."""
    if place.resolve() == folder.path.resolve():  # which is claimed
        failed = folder.write(fit, result, over_own=True)
    else:
        refuse_to_replace(place / name for name in REPLACED)
        with claimed(place):
            failed = replace(folder, path=place).write(fit, result)
    for error in failed.values():
        _say(f"error: {error}")
    if FIT_NAME in failed:
        return False
    _say(f"the fit is in {place}")
    return True


def _place_asked_for() -> Path | None:
    """Return another folder from the person at the terminal, None where there is neither."""
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    sys.stderr.write("another folder for the fit (or the same, once there is room; else Enter): ")
    sys.stderr.flush()
    try:
        named = sys.stdin.readline().strip()
    except KeyboardInterrupt:
        return None
    return Path(named) if named else None


def _say(line: str) -> None:
    from tqdm import tqdm

    # Above a progress bar, where there is one.
    with tqdm.external_write_mode(file=sys.stderr):
        complain(f"napari-gaussfit: {line}")
