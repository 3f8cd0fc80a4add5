"""FitWorker: a fit that napari knows of, watched from the GUI's thread.

A napari thread worker waits for the fit (in a process of its own, unless asked otherwise), so
that napari asks before it closes on a running fit. A timer pulls the latest, at a rate that leaves
the window its time; nothing is queued.
"""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from qtpy.compat import isalive
from qtpy.QtCore import QObject, QTimer, Signal
from superqt.utils import FunctionWorker

from napari_gaussfit._napari.layers.destroyed import when_destroyed
from napari_gaussfit.errors import FitError
from napari_gaussfit.fitting.snapshot import FitState
from napari_gaussfit.jobs.children import Fitter
from napari_gaussfit.jobs.collection import HeldCollection
from napari_gaussfit.jobs.job import FitTask, Job, News, ThreadJob
from napari_gaussfit.jobs.outcome import outcome_of
from napari_gaussfit.jobs.pictures import MipDrawer, MipPair, ViewChoice
from napari_gaussfit.jobs.process import ProcessJob
from napari_gaussfit.jobs.renderer import RemoteDrawer
from napari_gaussfit.jobs.sequence import SequenceJob, SequenceTask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_gaussfit.stacks.stack import Stack

    AnyJob = ProcessJob | ThreadJob | SequenceJob

__all__ = ["FitWorker", "Phase"]

FASTEST_MS, SLOWEST_MS = 185, 2000
"""From one look at the fit to the next in the mean: 5.4 Hz, and less where drawing takes long."""

CAUGHT_UP = 3
"""Looks that are made up for, with the next ones sooner, where a fit had nothing new for so long:
of 50,000 Gaussians it stands still for half a second where it relocates some."""

PERIOD_PER_DRAWING = 1.8
"""The window has nearly as long for itself as an update takes to be drawn."""

AGAIN_MS = 25
"""Until the next look, where there was nothing new: a look alone costs nothing."""

PREPARE_MS = 500
"""At rest, before a process is prepared for the next fit: the window comes first."""

PREPARING_MS = 250
"""Between two looks at how far that process is."""


class Phase(StrEnum):
    """What the user may know of a fit; what was asked for shows before it has happened."""

    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    STOPPING = "stopping"
    FINISHED = "finished"
    CANCELLED = "stopped"
    FAILED = "failed"
    MEASURING = "measuring"
    MEASURED = "measured"

    @property
    def active(self) -> bool:
        """Whether a fit is under way, or being measured."""
        return self not in _AT_REST


_AT_REST = {Phase.IDLE, Phase.FINISHED, Phase.CANCELLED, Phase.FAILED, Phase.MEASURED}

_PHASES = {
    FitState.IDLE: Phase.STARTING,
    FitState.RUNNING: Phase.RUNNING,
    FitState.PAUSED: Phase.PAUSED,
    FitState.FINISHED: Phase.FINISHED,
    FitState.CANCELLED: Phase.CANCELLED,
    FitState.FAILED: Phase.FAILED,
}


class _JobThread(FunctionWorker[None]):
    """A thread worker whose job ends when napari asks the worker to quit."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._job = job
        self.error = ""

    def work(self) -> None:
        """Run the job; how it failed is kept here, since napari's own way fails with PySide6."""
        try:
            super().work()
        except FitError as error:
            self.error = str(error)

    def quit(self) -> None:
        """End the job at once."""
        super().quit()
        self._job.close()


class FitWorker(QObject):
    """Runs one fit at a time. Lives in the GUI's thread, as do all its signals."""

    phase_changed = Signal(object)
    """The new `Phase`."""

    updated = Signal(object)
    """The `News`, where there is a new snapshot, at most six times a second."""

    mips_changed = Signal(object)
    """A new `MipPair`."""

    preparation_changed = Signal()
    """There is something else to wait for before a fit can begin, or nothing more."""

    ended = Signal(object)
    """The `News` after the fit's thread is done; after "failed", `error` says why."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.in_process = False
        """Whether the next fit runs in napari's own process, for those who debug."""

        self.error = ""
        self._phase = Phase.IDLE
        self._job: AnyJob | None = None
        self._thread: _JobThread | None = None
        self._fitters: list[Fitter] = []
        self._awaited = ""
        self._news = News()
        self._drawers: list[MipDrawer | RemoteDrawer] = []
        self._stacks: tuple[Stack, ...] = ()
        self._drawing: News | None = None
        self._wanted: ViewChoice | None = None
        self._seen: tuple[Any, Any] = (None, None)
        self._drawing_since = self._due = 0.0
        self._collection = HeldCollection()
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._pull)
        self._preparing = QTimer(self)
        self._preparing.setSingleShot(True)
        self._preparing.timeout.connect(self._prepare)
        self._preparing.start(PREPARE_MS)
        drawers, fitters = self._drawers, self._fitters
        when_destroyed(self, lambda: _end_all(drawers, fitters))

    @property
    def phase(self) -> Phase:
        """Where the fit is."""
        return self._phase

    @property
    def news(self) -> News:
        """The latest of the fit that runs, or of the last one."""
        return self._news

    @property
    def job(self) -> AnyJob | None:
        """The fit that runs, None at rest."""
        return self._job

    @property
    def notice(self) -> str:
        """Why the last fit failed, or what there is to wait for: of a fit, or before the next."""
        return self.error or (self._news.notice if self._phase.active else self._preparation())

    def start(self, task: FitTask | SequenceTask) -> None:
        """Begin a fit. There must be none under way."""
        from napari.qt.threading import create_worker

        self._end_fit()
        self._preparing.stop()
        self.error, self._seen = "", (None, None)
        self._draw_beside(task.stacks)
        self._wanted = task.view
        self._job = self._job_of(task)
        self._news = self._job.news
        thread = create_worker(
            self._job, _worker_class=_JobThread, _ignore_errors=True, _start_thread=False
        )
        thread.finished.connect(self._over)
        self._thread = thread
        self._enter(Phase.STARTING)
        self._due = time.perf_counter()
        self._timer.start(FASTEST_MS)
        self._collection.hold()
        thread.start()

    def _job_of(self, task: FitTask | SequenceTask) -> AnyJob:
        if isinstance(task, SequenceTask):
            return SequenceJob(task, self._ready(), in_process=self.in_process)
        return ThreadJob(task) if self.in_process else ProcessJob(task, self._ready())

    def pause(self) -> None:
        """Let the fit stand still after its current step."""
        if self._job is not None and self._phase is Phase.RUNNING:
            self._job.pause()
            self._enter(Phase.PAUSING)

    def resume(self) -> None:
        """Let a paused fit go on."""
        if self._job is not None and self._phase in {Phase.PAUSING, Phase.PAUSED}:
            self._job.resume()
            self._enter(Phase.RUNNING)

    def stop(self) -> None:
        """End the fit, with the Gaussians as they are then; within a second."""
        if self._job is not None and self._phase.active:
            self._job.cancel()
            self._enter(Phase.STOPPING)

    def abort(self) -> None:
        """End the fit at once; what it found last stays."""
        if self._job is not None and self._phase.active:
            self._job.close()
            self._enter(Phase.STOPPING)

    def look(self, view: ViewChoice) -> None:
        """Ask for projections of another view, also of a fit at rest."""
        self._wanted = view
        if self._job is not None:
            self._job.look(view)
        else:
            self._draw()

    def take(self, news: News, stacks: Sequence[Stack] = ()) -> None:
        """Show other Gaussians, of the same stack or of another. There must be no fit under way."""
        if stacks:
            self._draw_beside(tuple(stacks))
        self._news = news
        self._seen = news.snapshot, None
        if news.mips is None or news.mips.view != self._wanted:
            self._draw()
        else:
            self._pull()

    def about(self, stacks: tuple[Stack, ...], view: ViewChoice) -> None:
        """Draw Gaussians at rest beside other stacks from now on, none to draw none."""
        self._wanted = view
        if [*map(id, stacks)] != [*map(id, self._stacks)]:
            self._draw_with(RemoteDrawer(stacks) if stacks else None)
            self._stacks = stacks

    @property
    def _drawer(self) -> MipDrawer | RemoteDrawer | None:
        """What draws a fit at rest, None before the first fit."""
        return self._drawers[0] if self._drawers else None

    def _draw_beside(self, stacks: tuple[Stack, ...]) -> None:
        """Draw Gaussians beside these stacks from now on."""
        self._draw_with(MipDrawer(stacks) if self.in_process else RemoteDrawer(stacks))
        self._stacks = stacks

    def _draw_with(self, drawer: MipDrawer | RemoteDrawer | None) -> None:
        for before in self._drawers:
            before.close()
        self._drawers[:] = [] if drawer is None else [drawer]

    def _draw(self) -> None:
        """Draw the wanted view of a fit at rest; one after another, the newest next."""
        from napari.qt.threading import create_worker

        if self._drawing is not None or self._drawer is None or self._news.snapshot is None:
            return
        self._drawing = self._news
        fields, view = self._news.snapshot.fields, self._wanted
        thread = create_worker(outcome_of, self._drawer.draw, fields, view, _start_thread=False)
        thread.returned.connect(self._end_drawing)
        thread.start()

    def _end_drawing(self, outcome: tuple[MipPair | None, str]) -> None:
        mips, error = outcome
        if mips is None:
            self._miss_drawn(error)
        else:
            self._take_drawn(mips)

    def _miss_drawn(self, error: str) -> None:
        """Say that a view could not be drawn, unless it was given up for a new fit."""
        from napari.utils.notifications import show_error

        drawn, self._drawing = self._drawing, None
        if self._job is not None or self._drawer is None:
            return
        if drawn is not self._news:
            self._draw()  # It was given up for Gaussians of another stack.
        else:
            show_error(f"Gaussian fit: {error}")

    def _take_drawn(self, mips: MipPair) -> None:
        drawn, self._drawing = self._drawing, None
        if self._job is not None:
            return
        if drawn is self._news:
            self._news.take_mips(mips)
            self._pull()
        if drawn is not self._news or mips.view != self._wanted:
            self._draw()

    def close(self) -> None:
        """End the fit at once and tell nobody: who watched it is gone."""
        self._end_fit()
        self._preparing.stop()
        self._end_fitters()

    def _end_fit(self) -> None:
        self._timer.stop()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.quit()
        self._job, self._stacks = None, ()
        self._draw_with(None)
        self._collection.release()
        self._phase = Phase.IDLE

    def _prepare(self) -> None:
        """Have a process ready for the next fit; say what it is waiting for while it is not."""
        if self._ready() is None and not self.in_process:
            self._end_fitters()
            fitter = Fitter()
            fitter.prepare()
            self._fitters.append(fitter)
        if any(fitter.preparing for fitter in self._fitters):
            self._preparing.start(PREPARING_MS)
        if self._awaited != self._preparation():
            self._awaited = self._preparation()
            self.preparation_changed.emit()

    def _preparation(self) -> str:
        return "".join(fitter.notice for fitter in self._fitters)

    def _end_fitters(self) -> None:
        while self._fitters:
            self._fitters.pop().end()

    def _ready(self) -> Fitter | None:
        """Return the process that waits for a task, None where there is none."""
        return next((fitter for fitter in self._fitters if fitter.alive), None)

    def _enter(self, phase: Phase) -> None:
        if phase is not self._phase:
            self._phase = phase
            self.phase_changed.emit(phase)

    def _pull(self) -> None:
        """Show what is new, and rest in proportion to the time that it takes to be drawn."""
        snapshot, mips = self._news.snapshot, self._news.mips
        if self._news.notice and self._phase is Phase.STARTING:
            self.phase_changed.emit(Phase.STARTING)
        if (snapshot, mips) == self._seen:
            if self._timer.isActive():
                self._timer.start(AGAIN_MS)
            return
        old_snapshot, old_mips = self._seen
        self._seen = snapshot, mips
        self._drawing_since = time.perf_counter()
        if snapshot is not None and snapshot is not old_snapshot:
            self._follow(_PHASES[snapshot.state])
            self.updated.emit(self._news)
        if mips is not None and mips is not old_mips:
            self.mips_changed.emit(mips)
        # Painting comes before a timer's turn: when this one rings, all is drawn.
        QTimer.singleShot(0, self._rest)

    def _rest(self) -> None:
        if not isalive(self):  # type: ignore[no-untyped-call]
            return  # The window has closed since, and PySide6 calls all the same.
        now = time.perf_counter()
        drawing = 1000 * (now - self._drawing_since)
        late = self._drawing_since - CAUGHT_UP * FASTEST_MS / 1000
        self._due = max(self._due, late) + FASTEST_MS / 1000
        if self._timer.isActive():
            period = min(PERIOD_PER_DRAWING * drawing, SLOWEST_MS)
            wait = max(period - drawing, 1000 * (self._due - now), 0.0)
            self._timer.start(int(wait))

    def _follow(self, seen: Phase) -> None:
        """Take over the fit's own state, unless something else was asked for since."""
        if not seen.active:
            return  # The thread's end says so, once all is there.
        if self._phase is Phase.STOPPING:
            return
        if self._phase is Phase.PAUSING and seen is Phase.RUNNING:
            return
        if self._phase is Phase.RUNNING and seen is Phase.PAUSED:
            return  # A snapshot from before the user went on.
        self._enter(seen)

    def _over(self) -> None:
        """Come to rest: the thread is done."""
        if self._thread is None:
            return  # Closed before.
        self._timer.stop()
        self._collection.release()
        self._pull()
        self.error = self._thread.error
        self._job = self._thread = None
        if self._ready() is None:
            self._preparing.start(PREPARE_MS)
        shown = self._news.mips
        if self._wanted is not None and (shown is None or shown.view != self._wanted):
            self._draw()
        snapshot = self._news.snapshot
        if self.error:
            self._enter(Phase.FAILED)
        elif snapshot is None or snapshot.state is FitState.CANCELLED:
            self._enter(Phase.CANCELLED)
        else:
            self._enter(Phase.FINISHED)
        self.ended.emit(self._news)


def _end_all(drawers: list[MipDrawer | RemoteDrawer], fitters: list[Fitter]) -> None:
    for drawer in drawers:
        drawer.close()
    for fitter in fitters:
        fitter.end()
