"""What has been fitted of a recording, time by time, and which time of it is in view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_gaussfit._napari.layers.times import bring_into_view, index_in_view
from napari_gaussfit.jobs.job import News
from napari_gaussfit.jobs.versions import Version

if TYPE_CHECKING:
    import pandas as pd
    from napari.viewer import Viewer

    from napari_gaussfit._napari.layers.live_times import LiveTimes
    from napari_gaussfit.jobs.sequence import Frame, SequenceNews
    from napari_gaussfit.objects.tracks import Tracks
    from napari_gaussfit.settings import FitSettings

__all__ = ["OverTime"]


class OverTime(QObject):
    """Follows the fits of a recording with a viewer's slider, and the slider when they are done.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose slider shows the times.
    live : LiveTimes
        The layers of these fits.
    settings : FitSettings
        With which the first time is fitted.
    parent : QObject
        With it all ends.
    """

    moved = Signal()
    """Another time that is done is in view."""

    def __init__(
        self, viewer: Viewer, live: LiveTimes, settings: FitSettings, parent: QObject
    ) -> None:
        super().__init__(parent)
        self.live = live
        self.frames: tuple[Frame, ...] = ()
        """The times that are done, once nothing is fitted any more."""

        self.tracks: Tracks | None = None
        self.settings = settings
        self._viewer = viewer
        self._time: int | None = None
        self._versions: dict[int, Version] = {}
        self._count = len(live.recording.times)
        viewer.dims.events.point.connect(self._follow)

    @property
    def words(self) -> str:
        """Which time is shown, and how many are done."""
        done = len(self.frames)
        of = f"all {done} times" if done == self._count else f"{done} of {self._count} times"
        return f"time {self._time}, {of} done"

    @property
    def version(self) -> Version | None:
        """What was found at the time in view, or at the one that was in view last."""
        return None if self._time is None else self._versions.get(self._time)

    def follow_fit(self, news: SequenceNews) -> bool:
        """Show the time that is fitted, unless another one than the last is being looked at.

        Return whether it is another than before.
        """
        if news.time == self._time:
            return False
        before, self._time = self._time, news.time
        frames = [*news.frames]
        self.live.fit_at(news.time, frames)
        if before is None or self._in_view == before:
            self._go_to(news.time)
        self.live.look_at(news.time)
        return True

    def settle(self, news: SequenceNews) -> None:
        """Take what is done: one time at least."""
        self.frames, self.tracks = tuple(news.frames), news.tracks
        self._versions = {frame.time: _version_of(frame) for frame in self.frames}
        self.live.settle_all(self.frames, self.table())
        last = self.frames[-1].time
        self._time = self._in_view if self._in_view in self._versions else last

    def table(self) -> pd.DataFrame:
        """Return the table of the Gaussians of all times, as the command line has it."""
        from napari_gaussfit.objects.tracks import joined_tables  # which loads scipy

        tables = [frame.result.to_dataframe() for frame in self.frames]
        if self.tracks is None:
            return tables[0].assign(track=-1)
        return joined_tables(tables, self.tracks)

    def close(self) -> None:
        """Follow no more."""
        self._viewer.dims.events.point.disconnect(self._follow)
        self.deleteLater()

    @property
    def _in_view(self) -> int:
        recording = self.live.recording
        return index_in_view(recording.layer, recording.axis, self._viewer.dims)

    def _go_to(self, time: int) -> None:
        recording = self.live.recording
        bring_into_view(recording.layer, recording.axis, time, self._viewer.dims)

    def _follow(self, _event: object = None) -> None:
        """Show what was found at the time in view."""
        layer = self.live.recording.layer
        # The viewer hears first that a layer is gone.
        if not self._versions or layer not in self._viewer.layers:
            return
        time = self._in_view
        if time != self._time and time in self._versions:
            self._time = time
            self.moved.emit()


def _version_of(frame: Frame) -> Version:
    """Return a time that is done as a fit at rest."""
    history = frame.result.history
    news = News(frame.snapshot, frame.mips, frame.result, None, dict(history))
    return Version(frame.result, news)
