"""The fits of a recording as results: all its times are one row of the list."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from qtpy.QtCore import QObject

from napari_gaussfit._napari.layers.channels import joined
from napari_gaussfit._napari.layers.times import Recording
from napari_gaussfit._napari.panel.kept import STRUCTURE, Kept, NotShownError
from napari_gaussfit._napari.panel.matching import is_of, needs_stack, path_of
from napari_gaussfit._napari.worker import Phase
from napari_gaussfit.errors import GaussfitError
from napari_gaussfit.jobs.sequence import Frame, tracks_of_frames
from napari_gaussfit.jobs.time_folder import DRIFT, ORIGINS
from napari_gaussfit.jobs.verdict import details_of, verdict_of
from napari_gaussfit.jobs.versions import opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_gaussfit._napari.panel.fits import ResultsPanel
    from napari_gaussfit._napari.panel.kept import Keeper
    from napari_gaussfit._napari.panel.over_time import OverTime
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.jobs.session_folder import About
    from napari_gaussfit.objects.tracks import Tracks
    from napari_gaussfit.settings import FitSettings
    from napari_gaussfit.stacks.facts import StackFacts

__all__ = ["KeptFrames", "KeptTimes", "TimesHome", "chosen_recording"]


@dataclass(eq=False, kw_only=True)
class KeptFrames(Kept):
    """What was found of a recording, time by time.

    Parameters
    ----------
    frames : tuple
        The times that are done, one at least; each has its `time`.
    asked : tuple of int
        All times that were asked for.
    recording : Recording or None
        In the viewer; None after a crash, until it is chosen.
    """

    frames: tuple[Any, ...]
    asked: tuple[int, ...]
    recording: Recording | None = None

    @property
    def time(self) -> str:
        """The first and the last time that are done."""
        first, last = self.frames[0].time, self.frames[-1].time
        return str(first) if first == last else f"{first} to {last}"

    @property
    def of_times(self) -> str:
        """How many times are done."""
        done, asked = len(self.frames), len(self.asked)
        return f"all {done} times" if done == asked else f"{done} of {asked} times"

    @property
    def words(self) -> dict[str, Any]:
        """Which times these are."""
        return {"times": [frame.time for frame in self.frames], "asked": [*self.asked]}


@dataclass(eq=False, kw_only=True)
class KeptTimes(KeptFrames):
    """What was fitted of a recording.

    Parameters
    ----------
    frames : tuple of Frame
        The times that are done, one at least.
    tracks : Tracks or None
        The tracks of their Gaussians.
    settings : FitSettings
        With which the first time was fitted.
    """

    kind = "times"
    place = STRUCTURE

    frames: tuple[Frame, ...]
    tracks: Tracks | None
    settings: FitSettings

    @property
    def stack(self) -> StackFacts:
        """What was fitted, of the last time."""
        return self.frames[-1].result.stack

    @property
    def count(self) -> str:
        """How many Gaussians there are, at all times together."""
        return f"{sum(len(frame.result.field) for frame in self.frames):,}"

    @property
    def quality(self) -> str:
        """What is so of the worst time, and how many are done."""
        found = [verdict_of(frame.result) for frame in self.frames]
        worst = max(found, key=lambda one: (not one.converged, one.doubt))
        return f"{worst.words}, {self.of_times}"

    @property
    def details(self) -> str:
        """The report of the last time."""
        return f"Time {self.frames[-1].time}: {details_of(self.frames[-1].result)}"

    @property
    def fits(self) -> tuple[FitResult, ...]:
        """A fit a time, with what joins it to the one before."""
        return tuple(
            replace(
                frame.result,
                state={ORIGINS: frame.origins, DRIFT: frame.drift},
                settings=self.settings,
            )
            for frame in self.frames
        )


class TimesHome(QObject):
    """Shows the fits of a recording in the panel, and keeps those that it has done.

    Parameters
    ----------
    keeping : Keeper
        Who has the list.
    panel : ResultsPanel
        Which follows one recording.
    """

    def __init__(self, keeping: Keeper, panel: ResultsPanel) -> None:
        super().__init__(cast("QObject", keeping))
        self._keeping, self._panel = keeping, panel

    def took(self, shown: OverTime, asked: tuple[int, ...]) -> None:
        """Keep what was fitted of a recording."""
        recording = shown.live.recording
        result = KeptTimes(
            name=self._keeping.results.free_name(recording.name),
            path=path_of(recording.first),
            frames=shown.frames,
            tracks=shown.tracks,
            settings=shown.settings,
            asked=asked,
            recording=recording,
        )
        self._keeping.insert(result)
        self._keeping.results.show(result)
        self._keeping.fits.took_times(None)

    def show(self, result: KeptTimes, *, raised: bool = True) -> None:
        """Show points, tracks, rows, and the time in view."""
        if result.recording is None:
            times = [frame.time for frame in result.frames]
            result.recording = chosen_recording(self._panel, result.frames[0].result, times)
        if result.recording is None:
            words = f"Show needs the recording of {result.name}"
            raise NotShownError(needs_stack(words, result.frames[0].result))
        self._keeping.fits.heed_edits()
        done = len(result.frames) == len(result.asked)
        self._keeping.fits.took_times(Phase.FINISHED if done else Phase.CANCELLED)
        if raised:
            self._panel.show_structure()
            self._panel.recordings.live_of(result.recording).bring_back()
        self._panel.recordings.show(result.recording, result.frames, result.tracks, result.settings)

    def save(self, result: KeptTimes) -> None:
        """Ask for a folder, and write what the command line writes."""
        shown = self._panel.over_time
        if shown is None or shown.frames != result.frames:
            raise NotShownError(f"Not saved: {result.name} has to be shown first.")
        self._panel.all_times.ask_where()

    def restored(self, fits: Sequence[FitResult], about: About) -> KeptTimes:
        """Return what was fitted of a recording as it was kept."""
        frames = tuple(
            Frame(
                time,
                replace(fit, state={}),
                opened(fit).news.snapshot,
                None,
                fit.state[DRIFT],
                fit.state[ORIGINS],
            )
            for time, fit in zip(about.words["times"], fits, strict=True)
        )
        settings = fits[0].settings
        if settings is None:
            raise ValueError(about.name)
        return KeptTimes(
            name=about.name,
            path=about.path,
            frames=frames,
            tracks=tracks_of_frames(frames),
            settings=settings,
            asked=tuple(about.words["asked"]),
        )


def chosen_recording(panel: ResultsPanel, fit: FitResult, times: Sequence[int]) -> Recording | None:
    """Return the recording that is chosen in a panel, None where a result cannot be of it.

    Parameters
    ----------
    panel : ResultsPanel
        In which it may be chosen.
    fit : FitResult
        Of one of its times.
    times : sequence of int
        That it must have, ascending.
    """
    try:
        source = panel.data.source()
    except GaussfitError:
        return None
    if source is None:
        return None
    fit = replace(fit, stack=replace(fit.stack, time=None))
    found = Recording(joined(source.parts), tuple(times))
    axis = found.layer.ndim > 3 and source.stack.time is not None
    if not axis or not is_of(fit, source):
        return None
    if max(found.times) >= found.layer.data.shape[found.axis]:
        return None
    return replace(found, first=found.at(found.times[0]))
