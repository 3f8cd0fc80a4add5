"""Fits as jobs that a thread waits for; here the one that runs in that very thread.

`process` has the one in a process of its own. A job holds the latest of everything, for
whoever looks.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from napari_gaussfit.errors import FitError, GaussfitError
from napari_gaussfit.fitting.snapshot import HISTORY_KEYS, FinishReason, FitState, Snapshot
from napari_gaussfit.jobs.pictures import MipPair, MipThread, ViewChoice
from napari_gaussfit.settings import FitSettings

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np
    from numpy.typing import NDArray

    from napari_gaussfit.fitting.fit import Fit
    from napari_gaussfit.fitting.refinement import Comparison
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.fitting.starting import Follows
    from napari_gaussfit.measure.psf import Psf
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.stacks.stack import Stack

__all__ = [
    "Descent",
    "FitTask",
    "Job",
    "News",
    "ThreadJob",
    "descent_of",
    "described",
    "fit_of",
    "load_torch",
    "mark_end",
    "result_of",
]

SETTLE_SECONDS = 0.2
"""What the end of a fit waits for a picture of its last Gaussians."""


@dataclass(frozen=True, eq=False)
class FitTask:
    """What `napari_gaussfit.Fit` is asked for, and the view of it that is rendered meanwhile."""

    stacks: tuple[Stack, ...]
    """The channels, which share their Gaussians; one, mostly."""

    settings: FitSettings = field(default_factory=FitSettings)
    start: tuple[GaussianField, ...] = ()
    """A field a channel, none where it begins with seeds."""

    points: NDArray[np.float64] | None = None
    before: tuple[Stack, ...] = ()
    """The channels at the time before, of which `start` is; none where it is the first."""

    view: ViewChoice = field(default_factory=ViewChoice)
    psf: Psf | None = None
    """What light makes of a point, None where it is not known."""

    follows: Follows | None = None
    """What else is known of the time before, None where it is the first."""


@dataclass(frozen=True, eq=False)
class Descent:
    """How the Gaussians of a time come from those of the time before.

    Parameters
    ----------
    drift : ndarray, shape [3]
        By which all has moved since, in the stacks' unit.
    origins : ndarray of int, shape [K]
        Which of the time before each is, -1 of those that came since.
    """

    drift: NDArray[np.float64]
    origins: NDArray[np.int64]


@dataclass(eq=False)
class News:
    """The latest of a fit. One thread writes, others read; what is read is never changed.

    Parameters
    ----------
    snapshot : Snapshot or None
        The Gaussians while it runs.
    mips : MipPair or None
        Projections of them and of the stack.
    result : FitResult or None
        The record of a fit that has finished, without the state of its optimiser.
    comparison : Comparison or None
        A refinement beside what it went on from.
    history : dict of lists
        What was recorded so far.
    notice : str
        What there is to wait for.
    descent : Descent or None
        Of a fit that follows that of the time before: what became of its Gaussians.
    """

    snapshot: Snapshot | None = None
    mips: MipPair | None = None
    result: FitResult | None = None
    comparison: Comparison | None = None
    history: dict[str, list[float]] = field(
        default_factory=lambda: {key: [] for key in HISTORY_KEYS}
    )
    notice: str = ""
    descent: Descent | None = None

    def take_mips(self, mips: MipPair) -> None:
        """Keep the newest projections."""
        self.mips = mips


class Job(Protocol):
    """A fit that runs in the thread that calls it."""

    @property
    def news(self) -> News:
        """The latest of everything."""

    def __call__(self) -> None:
        """Run until the end.

        Raises
        ------
        FitError
            If the fit failed; the last snapshot stays, with the state "failed".
        """

    def pause(self) -> None:
        """Ask to stand still."""

    def resume(self) -> None:
        """Ask to go on."""

    def cancel(self) -> None:
        """Ask to end with the Gaussians as they are."""

    def look(self, view: ViewChoice) -> None:
        """Ask for projections of another view."""

    def close(self) -> None:
        """End at once; nobody looks any more."""


class ThreadJob:
    """A fit in the thread that calls it."""

    def __init__(self, task: FitTask, news: News | None = None) -> None:
        self.news = news or News()
        self._name = described(task)
        self._drift: NDArray[np.float64] | None = None
        self._fit: Fit | GaussfitError
        try:
            self._fit, self._drift = fit_of(task)
        except GaussfitError as error:  # told when it is run, like all that ends a fit
            self._fit = error
        self._mips = MipThread(task.stacks, self.news.take_mips)
        self._mips.look(task.view)

    def __str__(self) -> str:
        """Say what is done, for napari's list of tasks."""
        return self._name

    def __call__(self) -> None:
        """Run until the end; see `Job`."""
        try:
            fit = self._fit
            if isinstance(fit, GaussfitError):
                raise fit
            self.news.history = fit.history
            load_torch('tick "In a process of its own", where it is loaded without Qt')
            for snapshot in fit:
                self.news.snapshot = snapshot
                self._mips.show(snapshot.fields)
            self.news.comparison = fit.comparison()
            self.news.descent = descent_of(fit, self._drift)
            self._mips.settle(SETTLE_SECONDS)
            self.news.result = result_of(fit)
        except Exception as error:
            mark_end(self.news, FitState.FAILED, FinishReason.ERROR)
            message = f"{type(error).__name__}: {error}"
            raise error if isinstance(error, FitError) else FitError(message) from error
        finally:
            self._mips.close()

    def pause(self) -> None:
        """Ask to stand still."""
        if not isinstance(self._fit, GaussfitError):
            self._fit.pause()

    def resume(self) -> None:
        """Ask to go on."""
        if not isinstance(self._fit, GaussfitError):
            self._fit.resume()

    def cancel(self) -> None:
        """Ask to end with the Gaussians as they are."""
        if not isinstance(self._fit, GaussfitError):
            self._fit.cancel()

    def look(self, view: ViewChoice) -> None:
        """Ask for projections of another view."""
        self._mips.look(view)

    def close(self) -> None:
        """End after the step that is running."""
        self._mips.close()
        self.cancel()


def fit_of(task: FitTask) -> tuple[Fit, NDArray[np.float64] | None]:
    """Return the fit that a task asks for, idle, and the drift since the time before, if any.

    Raises
    ------
    GaussfitError
        If it cannot begin with what is given.
    """
    from napari_gaussfit.fitting.fit import Fit
    from napari_gaussfit.fitting.result import FitResult

    if task.before:
        from napari_gaussfit.objects.sequence import next_fit

        last = FitResult(task.start, task.before[0].facts, psf=task.psf)
        return next_fit(task.before, task.stacks, last, task.settings, task.points, task.follows)
    start = task.start or None
    fit = Fit(task.stacks, task.settings, start=start, points=task.points, psf=task.psf)
    return fit, None


def descent_of(fit: Fit, drift: NDArray[np.float64] | None) -> Descent | None:
    """Return how Gaussians come from those of the time before, None where there is none."""
    return None if drift is None else Descent(drift, fit.origins)


def result_of(fit: Fit) -> FitResult | None:
    """Return the record of a fit that has finished, None of one that was stopped.

    Without the state of its optimiser: from a window a fit goes on from its Gaussians, and the
    state takes as much again.
    """
    return replace(fit.result(), state={}) if fit.state is FitState.FINISHED else None


def load_torch(advice: str) -> ModuleType:
    """Load PyTorch, or say what to do where it cannot be loaded.

    Raises
    ------
    FitError
        With the reason, and the advice.
    """
    try:
        return importlib.import_module("torch")
    except (ImportError, OSError) as error:
        raise FitError(f"PyTorch cannot be loaded ({error}); {advice}") from error


def described(task: FitTask) -> str:
    """Say what is done, for napari's list of tasks."""
    return f"Gaussian fit of {task.stacks[0].name}"


def mark_end(news: News, state: FitState, reason: FinishReason) -> None:
    """Give the last snapshot the state that the fit ended in."""
    if news.snapshot is not None and news.snapshot.reason is None:
        news.snapshot = replace(news.snapshot, state=state, reason=reason, seconds_left=0.0)
