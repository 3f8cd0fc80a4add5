"""All times of a recording as one job: each begins with the Gaussians of the time before.

Like a job of one fit to whoever watches; what is done of it stays, whatever becomes of the rest.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.errors import FitError, GaussfitError
from napari_gaussfit.fitting.snapshot import HISTORY_KEYS, FinishReason, FitState
from napari_gaussfit.fitting.starting import Follows
from napari_gaussfit.jobs.children import Fitter
from napari_gaussfit.jobs.job import FitTask, News, ThreadJob
from napari_gaussfit.jobs.pictures import ViewChoice
from napari_gaussfit.jobs.process import ProcessJob
from napari_gaussfit.settings import FitSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.fitting.snapshot import Snapshot
    from napari_gaussfit.jobs.pictures import MipPair
    from napari_gaussfit.measure.psf import Psf
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.objects.tracks import Tracks
    from napari_gaussfit.stacks.stack import Stack
    from napari_gaussfit.stacks.time_series import TimeSeries

__all__ = ["Frame", "SequenceJob", "SequenceNews", "SequenceTask", "tracks_of_frames"]


@dataclass(frozen=True, eq=False)
class SequenceTask:
    """What is asked for: the times of a recording, and how the first of them is fitted."""

    series: TimeSeries
    settings: FitSettings = field(default_factory=FitSettings)
    start: tuple[GaussianField, ...] = ()
    points: NDArray[np.float64] | None = None
    view: ViewChoice = field(default_factory=ViewChoice)
    psf: Psf | None = None

    @cached_property
    def stacks(self) -> tuple[Stack, ...]:
        """The channels at the first time, read once."""
        return self.series.read(0)


@dataclass(frozen=True, eq=False)
class Frame:
    """A time that is done.

    Parameters
    ----------
    time : int
        The number of the time in the recording.
    result : FitResult
        The record of the fit of that time.
    snapshot : Snapshot or None
        The same, as it was watched last.
    mips : MipPair or None
        Projections, as they were looked at last.
    drift : ndarray, shape [3]
        By which all has moved since the time before; 0 of the first.
    origins : ndarray of int, shape [K]
        Which Gaussian of the time before each is, -1 where it is none.
    """

    time: int
    result: FitResult
    snapshot: Snapshot | None
    mips: MipPair | None
    drift: NDArray[np.float64]
    origins: NDArray[np.int64]


@dataclass(eq=False)
class SequenceNews(News):
    """The latest of the time that is fitted, and the times that are done.

    Parameters
    ----------
    times : tuple of int
        All that are asked for.
    frames : list of Frame
        The times that are done.
    tracks : Tracks or None
        Of their Gaussians, once the last is done.
    """

    times: tuple[int, ...] = ()
    frames: list[Frame] = field(default_factory=list)
    tracks: Tracks | None = None

    @property
    def time(self) -> int:
        """The time that is fitted, or the last one."""
        return self.times[min(len(self.frames), len(self.times) - 1)]

    @property
    def words(self) -> str:
        """Which time is fitted, of how many."""
        count = len(self.times)
        return f"time {self.time}, {min(len(self.frames) + 1, count)} of {count}"

    def begin(self) -> None:
        """Expect another time: what was known of the last one is kept with it."""
        self.result, self.descent = None, None
        self.history = {key: [] for key in HISTORY_KEYS}

    def keep(self, result: FitResult) -> None:
        """Keep a time that is done."""
        came = self.descent
        nowhere = np.full(len(result.field), -1)
        drift, origins = (np.zeros(3), nowhere) if came is None else (came.drift, came.origins)
        frame = Frame(self.time, result, self.snapshot, self.mips, drift, origins)
        self.frames.append(frame)


class SequenceJob:
    """Fits time after time, in the thread that calls it or in a process.

    Parameters
    ----------
    task : SequenceTask
        What is to be fitted.
    fitter : Fitter, optional
        A process that waits for tasks; one of its own if None.
    in_process : bool
        Whether to fit in this very process instead.
    """

    def __init__(
        self, task: SequenceTask, fitter: Fitter | None = None, *, in_process: bool = False
    ) -> None:
        self.news = SequenceNews(times=task.series.times)
        self._task, self._fitter, self._in_process = task, fitter, in_process
        self._owned = fitter is None and not in_process
        self._name = f"Gaussian fits of {len(task.series)} times of {task.stacks[0].name}"
        self._view = task.view
        self._lock = threading.Lock()
        self._job: ProcessJob | ThreadJob | None = None
        self._may_go = threading.Event()
        self._may_go.set()
        self._ended = False

    def __str__(self) -> str:
        """Say what is done, for napari's list of tasks."""
        return self._name

    @property
    def pid(self) -> int | None:
        """The process's number, None before it is started, and where there is none."""
        return self._fitter.pid if self._fitter else None

    def __call__(self) -> None:
        """Run until the end; see `Job`."""
        try:
            self._fit_all()
        except FitError:
            raise
        except GaussfitError as error:  # of a time that cannot be read
            raise FitError(f"time {self.news.time}: {error}") from error
        finally:
            self._link()
            if self._owned and self._fitter is not None:
                self._fitter.close()
        snapshot = self.news.snapshot
        if snapshot is not None and len(self.news.frames) < len(self.news.times):
            state, reason = FitState.CANCELLED, FinishReason.CANCELLED
            self.news.snapshot = replace(snapshot, state=state, reason=reason, seconds_left=0.0)

    def _fit_all(self) -> None:
        stacks: tuple[Stack, ...] = ()
        for n in range(len(self._task.series)):
            self._wait()
            before, stacks = stacks, self._task.series.read(n)
            job = self._begin(stacks, before)
            if job is None:
                return
            job()
            if self.news.result is None:
                return
            self.news.keep(self.news.result)

    def _begin(
        self, stacks: tuple[Stack, ...], before: tuple[Stack, ...]
    ) -> ProcessJob | ThreadJob | None:
        """Return the fit of the next time, None where no more is wanted."""
        asked, frames = self._task, self.news.frames
        start = frames[-1].result.fields if frames else asked.start
        with self._lock:
            if self._ended:
                return None
            self.news.begin()
            follows = Follows.of(frames[-1].result) if frames else None
            task = FitTask(
                stacks, asked.settings, start, asked.points, before, self._view, asked.psf, follows
            )
            if self._in_process:
                self._job = ThreadJob(task, self.news)
            else:
                if self._fitter is None or not self._fitter.alive:
                    self._fitter = Fitter()
                    self._owned = True
                self._job = ProcessJob(task, self._fitter, self.news)
            return self._job

    def _wait(self) -> None:
        """Stand still between two times while a pause is asked for."""
        snapshot = self.news.snapshot
        if snapshot is not None and not self._may_go.is_set():
            self.news.snapshot = replace(snapshot, state=FitState.PAUSED, reason=None)
        self._may_go.wait()

    def _link(self) -> None:
        """Find the tracks of what is done."""
        if self.news.frames:
            self.news.tracks = tracks_of_frames(self.news.frames)

    def pause(self) -> None:
        """Ask to stand still."""
        with self._lock:
            self._may_go.clear()
            if self._job is not None:
                self._job.pause()

    def resume(self) -> None:
        """Ask to go on."""
        with self._lock:
            self._may_go.set()
            if self._job is not None:
                self._job.resume()

    def cancel(self) -> None:
        """Ask to end; the time that is fitted is given up, those before stay."""
        with self._lock:
            self._ended = True
            self._may_go.set()
            if self._job is not None:
                self._job.cancel()

    def look(self, view: ViewChoice) -> None:
        """Ask for projections of another view."""
        with self._lock:
            self._view = view
            if self._job is not None:
                self._job.look(view)

    def close(self) -> None:
        """End at once; nobody looks any more."""
        with self._lock:
            self._ended = True
            self._may_go.set()
            if self._job is not None:
                self._job.close()


def tracks_of_frames(frames: Sequence[Frame]) -> Tracks:
    """Return the tracks of the Gaussians of times that are done, one at least."""
    from napari_gaussfit.objects.tracks import tracks_of

    return tracks_of(
        [frame.result.field.numpy() for frame in frames],
        [frame.drift for frame in frames],
        [frame.time for frame in frames],
        follows=[frame.origins for frame in frames],
    )
