"""Spots of a recording as results: all its times are one row of the list."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from qtpy.QtCore import QObject

from napari_gaussfit._napari.panel.kept import NotShownError
from napari_gaussfit._napari.panel.kept_times import KeptFrames, chosen_recording
from napari_gaussfit._napari.panel.matching import needs_stack, path_of
from napari_gaussfit._napari.panel.spots_over_time import TimesFound
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.jobs.messages import Message
from napari_gaussfit.jobs.objects import SpotsAsked, settings_words, table_from, table_message
from napari_gaussfit.jobs.spot_times import SpotFrame
from napari_gaussfit.model.field import GaussianField

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_gaussfit._napari.panel.fits import ResultsPanel
    from napari_gaussfit._napari.panel.kept import Keeper
    from napari_gaussfit.jobs.session_folder import About
    from napari_gaussfit.objects.tracks import Tracks
    from napari_gaussfit.stacks.facts import StackFacts

__all__ = ["KeptSpotTimes", "SpotTimesHome"]

_TRACK, _STEPS, _POINTS, _EXCLUDED = "track", "steps", "points", "excluded"
"""Arrays of a time's file beside the columns of its table."""


@dataclass(eq=False, kw_only=True)
class KeptSpotTimes(KeptFrames):
    """The spots that were found of a recording.

    Parameters
    ----------
    frames : tuple of SpotFrame
        The times that are done, one at least.
    tracks : Tracks
        Which of their spots are one.
    looked_for : SpotsAsked
        What was asked of the search.
    facts : StackFacts
        Of the stack at any time.
    """

    kind = "spot times"
    place = "spots"

    frames: tuple[SpotFrame, ...]
    tracks: Tracks
    looked_for: SpotsAsked
    facts: StackFacts

    @property
    def stack(self) -> StackFacts:
        """What was searched, at the last time."""
        return replace(self.facts, time=self.frames[-1].time)

    @property
    def count(self) -> str:
        """How many spots there are, at all times together."""
        return f"{sum(len(frame.table) for frame in self.frames):,}"

    @property
    def quality(self) -> str:
        """How many have a flag, and how many times are done."""
        flagged = sum(int((frame.table["flags"] != "").sum()) for frame in self.frames)
        return f"{flagged or 'none'} with a flag, {self.of_times}"

    @property
    def details(self) -> str:
        """How many tracks they make, and what was assumed."""
        notes = dict.fromkeys(note for frame in self.frames for note in frame.state["notes"])
        return "\n".join([f"{len(self.tracks):,} tracks", *notes])

    @property
    def fits(self) -> tuple[FitResult, ...]:
        """A time each: its spots as Gaussians, with the columns of their table and their tracks."""
        return tuple(self._fit_of(frame, n) for n, frame in enumerate(self.frames))

    def _fit_of(self, frame: SpotFrame, n: int) -> FitResult:
        from napari_gaussfit.measure.table import gaussians_of

        state = table_message(frame.table).arrays | {_TRACK: self.tracks.numbers[n]}
        if n == 0:
            state |= {
                _STEPS: self.tracks.steps,
                _POINTS: self.looked_for.points,
                _EXCLUDED: self.looked_for.excluded,
            }
        field = GaussianField.from_numpy(gaussians_of(frame.table, self.facts.unit))
        return FitResult((field,), replace(self.facts, time=frame.time), state=state)

    @property
    def words(self) -> dict[str, Any]:
        """Which times these are, what was looked for, and the words of each table."""
        tables = [table_message(frame.table).words for frame in self.frames]
        return super().words | {
            "looked_for": settings_words(self.looked_for),
            "tables": tables,
            "states": [frame.state for frame in self.frames],
        }


class SpotTimesHome(QObject):
    """Shows kept spots of a recording where spots are looked for, and keeps what is found there.

    Parameters
    ----------
    keeping : Keeper
        Who has the list.
    panel : ResultsPanel
        In which spots are looked for.
    """

    def __init__(self, keeping: Keeper, panel: ResultsPanel) -> None:
        super().__init__(cast("QObject", keeping))
        self._keeping, self._panel, self._mode = keeping, panel, panel.spots
        self._mode.found_times.connect(self._keep)

    def show(self, result: KeptSpotTimes, *, raised: bool = True) -> None:
        """Show rings, tracks and rows."""
        if result.recording is None:
            times = [frame.time for frame in result.frames]
            result.recording = chosen_recording(self._panel, result.fits[0], times)
        if result.recording is None:
            words = f"Show needs the recording of {result.name}"
            raise NotShownError(needs_stack(words, result.fits[0]))
        self._mode.show_times(
            TimesFound(result.recording, result.looked_for, result.frames, result.tracks),
            anew=raised,
        )
        if raised:
            self._panel.modes.choose(self._mode.title)
            self._panel.tabs.setCurrentWidget(self._mode.table)

    def save(self, result: KeptSpotTimes) -> None:
        """Ask for a folder, and write what the command line writes."""
        shown = self._mode.over_time.found
        if shown is None or shown.frames is not result.frames:
            raise NotShownError(f"Not saved: {result.name} has to be shown first.")
        self._mode.ask_for_folder()

    def restored(self, fits: Sequence[FitResult], about: About) -> KeptSpotTimes:
        """Return spots as they were kept."""
        from napari_gaussfit.objects.tracks import Tracks  # which loads scipy

        words, marked = about.words, fits[0].state
        each = zip(words["times"], words["states"], words["tables"], fits, strict=True)
        frames = tuple(
            SpotFrame(time, table_from(Message("table", table, fit.state)), state)
            for time, state, table, fit in each
        )
        numbers = tuple(fit.state[_TRACK].astype(np.int64) for fit in fits)
        return KeptSpotTimes(
            name=about.name,
            path=about.path,
            frames=frames,
            tracks=Tracks(tuple(words["times"]), numbers, marked[_STEPS]),
            looked_for=SpotsAsked(
                **words["looked_for"], points=marked[_POINTS], excluded=marked[_EXCLUDED]
            ),
            facts=replace(fits[0].stack, time=None),
            asked=tuple(words["asked"]),
        )

    def _keep(self) -> None:
        """Keep what a search has found."""
        found = self._mode.over_time.found
        recording = found.recording
        facts = recording.first.stack.facts
        result = KeptSpotTimes(
            name=self._keeping.results.free_name(f"{recording.name} spots"),
            path=path_of(recording.first),
            frames=found.frames,
            tracks=found.tracks,
            looked_for=found.asked,
            facts=replace(facts, name=recording.name, time=None),
            asked=recording.times,
            recording=recording,
        )
        self._keeping.insert(result)
        self._keeping.results.show(result)
