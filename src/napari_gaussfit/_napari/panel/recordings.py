"""The times of a recording in the panel: one after another while they are fitted, then any of them.

What is shown of one time is the panel's; here is which time that is, and what all have in common.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from qtpy.QtCore import QObject

from napari_gaussfit._napari.layers.live_times import LiveTimes
from napari_gaussfit._napari.panel.over_time import OverTime
from napari_gaussfit.jobs.sequence import SequenceNews

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_gaussfit._napari.layers.times import Recording
    from napari_gaussfit._napari.panel.session import Session
    from napari_gaussfit.jobs.job import News
    from napari_gaussfit.jobs.sequence import Frame
    from napari_gaussfit.objects.tracks import Tracks
    from napari_gaussfit.settings import FitSettings

__all__ = ["Recordings"]


class Recordings(QObject):
    """Follows recordings, one at a time.

    Parameters
    ----------
    panel : GaussianFitPanel
        Which shows one time; its `live` layers are those of the recording meanwhile.
    """

    def __init__(self, panel: Any) -> None:
        super().__init__(cast("QObject", panel))
        self._panel = panel
        self.shown: OverTime | None = None
        """What is followed, None while the panel shows a fit of one time."""

    def follow(self, recording: Recording, settings: FitSettings) -> None:
        """Follow a recording, in the layers that are there of it."""
        self.leave()
        panel = self._panel
        live = self.live_of(recording)
        panel.live = live
        panel.show_nothing()
        self.shown = OverTime(panel.viewer, live, settings, self)
        self.shown.moved.connect(self._show_time)

    def leave(self) -> None:
        """Follow no more; layers stay."""
        panel = self._panel
        panel.all_times.show_times(None)
        panel.track_plot.show_points(None)
        if self.shown is not None:
            self.shown.close()
            self.shown = None
            panel.show_nothing()
        if isinstance(panel.live, LiveTimes):
            panel.live = None

    def follow_fit(self, news: News) -> None:
        """Show the time that is fitted."""
        shown = self.shown
        if shown is not None and isinstance(news, SequenceNews):
            if shown.follow_fit(news):
                # What was shown is of the time before.
                self._panel.run.show_snapshot(news.snapshot)
            self._panel.show_phase()

    def settle(self, news: News) -> bool:
        """Show what is done, if that is of a recording, and tell whether it is."""
        shown, panel = self.shown, self._panel
        if shown is None or not isinstance(news, SequenceNews) or not news.frames:
            return False
        shown.settle(news)
        panel.all_times.show_times(shown)
        fit, points = shown.frames[-1].result, shown.live.points
        panel.table.show_fit(fit, points)
        panel.track_plot.show_points(points, fit.stack.unit)
        self._show_time()
        return True

    def show(
        self,
        recording: Recording,
        frames: Sequence[Frame],
        tracks: Tracks | None,
        settings: FitSettings,
    ) -> None:
        """Show what was fitted of a recording before."""
        self.follow(recording, settings)
        self._panel.turn_to()
        news = SequenceNews(times=recording.times, frames=[*frames], tracks=tracks)
        self.settle(news)
        self._panel.allow()

    @property
    def words(self) -> str:
        """Which time is fitted or shown, of several."""
        news, shown = self._panel.worker.news, self.shown
        if shown is None or not (shown.frames or self._panel.phase.active):
            return ""
        fitted = news.words if isinstance(news, SequenceNews) else shown.words
        return f" ({shown.words if shown.frames else fitted})"

    def live_of(self, recording: Recording) -> LiveTimes:
        """Return layers that follow a recording: those there are if they are of the same one."""
        session: Session = self._panel.kept.session
        for live in session.recordings:
            if live.recording.is_of_same_layers(recording):
                live.restart_all(recording)
                return live
        live = LiveTimes(self._panel.viewer, recording, session)
        session.recordings.append(live)
        return live

    def _show_time(self) -> None:
        """Show what was found at the time in view."""
        shown, panel = self.shown, self._panel
        if shown is None or shown.version is None or panel.phase.active:
            return
        shown.live.look_at(shown.version.fit.stack.time or 0)
        panel.worker.take(shown.version.news, shown.live.source.stacks)
        panel.show_version(shown.version)
        panel.show_phase()
