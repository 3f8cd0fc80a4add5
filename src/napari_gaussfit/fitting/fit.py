"""Fit: a fit as a state machine that yields snapshots, and `fit()` for a notebook.

Knows neither Qt nor files; whoever watches takes snapshots, whoever decides asks for a pause,
for going on, or for the end.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from napari_gaussfit._threads import in_one_torch_thread
from napari_gaussfit.errors import FitError, SettingsError
from napari_gaussfit.fitting.progress import BAR, show
from napari_gaussfit.fitting.result import POINTS, FitResult
from napari_gaussfit.fitting.snapshot import HISTORY_KEYS, FinishReason, FitState, Snapshot
from napari_gaussfit.fitting.starting import checked_points, refuse_foreign_start
from napari_gaussfit.settings import SETTINGS, FitSettings
from napari_gaussfit.stacks.given import STACK_OPTIONS, stacks_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_gaussfit.fitting.convergence import Convergence
    from napari_gaussfit.fitting.refinement import Comparer, Comparison
    from napari_gaussfit.fitting.starting import Follows
    from napari_gaussfit.fitting.steps import StepResult
    from napari_gaussfit.fitting.trainer import Trainer
    from napari_gaussfit.measure.psf import Psf
    from napari_gaussfit.measure.report import Report
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.model.scaling import WorkingStack
    from napari_gaussfit.model.views import Views
    from napari_gaussfit.stacks.given import Given
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["Fit", "fit"]

T = TypeVar("T")

SNAPSHOT_SECONDS = 0.1
"""A snapshot at least this long after the last one: 10 Hz is what a person can watch."""

TIME_COUNTS_FROM = 0.1
"""Part of the time for steps, before which a fit with a limit goes by its steps: the first of them
are the slowest, and a limit that ten such fits would keep changes nothing of the fit."""

COMPARISON_SECONDS = 0.2
"""What the comparison of a refinement that was cancelled may take: who cancels waits for it."""


class Fit:
    """A fit of one stack.

    Iterate over it to run it::

        for snapshot in Fit(stack, FitSettings(gaussians=500)):
            print(snapshot.iteration, snapshot.held_out_psnr)

    It runs in the thread that iterates. `pause`, `resume` and `cancel` may be called from any
    thread: they leave a request that the running step heeds when it ends.

    ::

        idle ──iterate──> running ──steps done, or out of time──> finished
                           │   ^ ──cancel──────────────────────> cancelled
                      pause│   │resume    (paused too)
                           v   │ ──error───────────────────────> failed
                          paused

    Parameters
    ----------
    stack : Stack or sequence of Stack
        Stack to fit; or the channels of one recording, which share means and covariances, and have
        amplitudes and a background each (`Stack.open_channels`).
    settings : FitSettings, optional
        Settings of the fit; the defaults if None.
    start : GaussianField or sequence of GaussianField, optional
        Gaussians to go on from, in the stack's unit and raw intensity, instead of seeds; of several
        channels, one field each. A fit that has ended goes on with ``FitSettings(refine=True)``;
        else these are seeds like others, and the large steps at the beginning move them far.
    points : ndarray, shape [P, 3], optional
        Positions (z, y, x in the stack's unit) at which Gaussians begin, one at each: as wide as
        the stack's curvature says there, and never moved elsewhere. Where the settings leave the
        number of Gaussians open, these are all; else the rest is drawn like other seeds.
    psf : Psf, optional
        The point spread function, as a Gaussian. A Gaussian's covariance is then the sum of an
        object's own and the point spread function's, and the first is no less than 0.
    follows : Follows, optional
        What is known of the time before, whose Gaussians `start` are: few come and go, and so it is
        looked less often which; its noise is this one's. A fit that is restored does not know.

    Raises
    ------
    SettingsError
        If start or points are not of this stack: in another unit, outside of it.
    """

    def __init__(
        self,
        stack: Stack | Sequence[Stack],
        settings: FitSettings | None = None,
        *,
        start: GaussianField | Sequence[GaussianField] | None = None,
        points: ArrayLike | None = None,
        psf: Psf | None = None,
        follows: Follows | None = None,
    ) -> None:
        self.stacks, self._follows = _listed(stack), follows
        self.stack = self.stacks[0]
        self.settings = settings or FitSettings()
        self.history: dict[str, list[float]] = {key: [] for key in HISTORY_KEYS}
        self._start = () if start is None else _listed(start)
        refuse_foreign_start(self._start, self.stacks)
        self.points, self.psf = checked_points(points, self.stack), psf
        self._trainer: Trainer | None = None
        self._restored: dict[str, NDArray[Any]] | None = None
        self._state = FitState.IDLE
        self._reason: FinishReason | None = None
        self._seconds = self._setup = 0.0
        self._last: StepResult | None = None
        self._comparer: Comparer | None = None
        self._result: FitResult | None = None
        self._train_psnr = self._voxel_psnr = self._held_out_psnr = float("nan")
        self._may_run = threading.Event()
        self._may_run.set()
        self._cancel_asked = threading.Event()

    @property
    def state(self) -> FitState:
        """Where the fit is."""
        return self._state

    @property
    def reason(self) -> FinishReason | None:
        """Why it ended, None before."""
        return self._reason

    def pause(self) -> None:
        """Ask the fit to stand still after the current step."""
        self._may_run.clear()

    def resume(self) -> None:
        """Ask a paused fit to go on."""
        self._may_run.set()

    def cancel(self) -> None:
        """Ask the fit to end after the current step, with the field as it is then."""
        self._cancel_asked.set()
        self._may_run.set()

    def restore(self, record: FitResult) -> None:
        """Resume from a record; the next iteration continues bit for bit where it was made.

        Parameters
        ----------
        record : FitResult
            What `checkpoint` returned of a fit of the same stack and settings, or `load` of its
            file.

        Raises
        ------
        FitError
            If this fit has begun already, has another number of channels, or the record has no
            state to go on from.
        """
        if self._state is not FitState.IDLE:
            message = f"this fit is {self._state}; only an idle one can be restored"
            raise FitError(message)
        if not record.state:
            message = "the record has no state to go on from; give its Gaussians as `start`"
            raise FitError(f"{message}, and refine=True")
        if len(record.fields) != len(self.stacks):
            message = f"the record has {len(record.fields)} channels, this fit {len(self.stacks)}"
            raise FitError(f"{message}; give the stacks that it is of")
        if self.psf is not None and (
            record.psf is None or record.psf.covariance != self.psf.covariance
        ):
            found = "none" if record.psf is None else record.psf.words
            raise FitError(f"psf: the record's is {found}; leave it out to go on, or fit anew")
        self.psf = record.psf
        self._start, self._restored = record.fields, record.state
        self.points = record.state.get(POINTS)
        self.history = {key: list(record.history.get(key, [])) for key in HISTORY_KEYS}

    @in_one_torch_thread()
    def checkpoint(self) -> FitResult:
        """Return a record of the fit as it is now, to `restore` or save it. Between two snapshots.

        Returns
        -------
        FitResult
            Without reports. It shares nothing with the fit.

        Raises
        ------
        FitError
            If the fit has not begun.
        """
        trainer, facts = self._begun(), self.stack.facts
        state = {name: tensor.cpu().numpy().copy() for name, tensor in trainer.state().items()}
        if self.points is not None:
            state[POINTS] = np.asarray(self.points)
        return FitResult(
            trainer.fields,
            facts if len(self.stacks) == 1 else replace(facts, channel=None),
            self.settings,
            {key: list(values) for key, values in self.history.items()},
            state=state,
            psf=self.psf,
        )

    def __iter__(self) -> Iterator[Snapshot]:
        """Run the fit, yielding a snapshot at the start, ten times a second, and at the end."""
        if self._state is not FitState.IDLE:
            message = f"this fit is {self._state}; make a new one to run again"
            raise FitError(message)
        try:
            yield from self._run()
        except GeneratorExit:
            self._end(FitState.CANCELLED, FinishReason.CANCELLED)
            raise
        except BaseException:
            self._end(FitState.FAILED, FinishReason.ERROR)
            raise

    def _run(self) -> Iterator[Snapshot]:
        import torch

        from napari_gaussfit._kernels import device_named
        from napari_gaussfit.fitting.trainer import Trainer, compile_kernels

        if self.settings.refine and not self._start:
            message = "refine=True: there is nothing to go on from; give Gaussians as `start`"
            raise SettingsError(message)
        self._state = FitState.RUNNING
        device_named(self.settings.device)
        # Before the clock starts: a time limit is for the fit.
        compile_kernels(self.settings.device)
        began = time.perf_counter()
        trainer = Trainer(
            self.stacks, self.settings,
            start=self._start, points=self.points, psf=self.psf, follows=self._follows,
        )  # fmt: skip
        if self._restored is not None:
            trainer.restore(
                {name: torch.from_numpy(array) for name, array in self._restored.items()}
            )
            self._seconds = self.history["seconds"][-1] if self.history["seconds"] else 0.0
        elif self.settings.refine:
            from napari_gaussfit.fitting.refinement import Comparer

            self._comparer = Comparer(trainer, self._start)
        self._trainer = trainer
        self._setup = time.perf_counter() - began
        self._seconds += self._setup
        yield self.snapshot()
        shown = time.perf_counter()
        while not self._over():
            if not self._may_run.is_set():
                self._state = FitState.PAUSED
                yield self.snapshot()
                self._may_run.wait()
                self._state = FitState.RUNNING
                continue
            began = time.perf_counter()
            self._step(trainer)
            now = time.perf_counter()
            self._seconds += now - began
            if now - shown >= SNAPSHOT_SECONDS:
                shown = now
                yield self.snapshot()
        yield self.snapshot()

    def _over(self) -> bool:
        """Whether the fit has come to its end; sets state and reason if so."""
        limit = self.settings.max_seconds
        if self._cancel_asked.is_set():
            self._end(FitState.CANCELLED, FinishReason.CANCELLED)
        elif self._begun().iteration >= self.settings.steps:
            self._end(FitState.FINISHED, FinishReason.ITERATIONS)
        elif limit is not None and self._seconds >= limit:
            self._end(FitState.FINISHED, FinishReason.MAX_SECONDS)
        return self._reason is not None

    def _end(self, state: FitState, reason: FinishReason) -> None:
        if self._reason is None:
            self._state, self._reason = state, reason

    def _progress(self) -> float:
        limit = self.settings.max_seconds
        by_time = 0.0
        if limit is not None and self._setup < limit:
            by_time = (self._seconds - self._setup) / (limit - self._setup)
        if by_time < TIME_COUNTS_FROM:
            by_time = 0.0
        return min(1.0, max(self._begun().iteration / self.settings.steps, by_time))

    def _step(self, trainer: Trainer) -> None:
        from napari_gaussfit.fitting.objective import HELD_OUT_EVERY
        from napari_gaussfit.fitting.trainer import HISTORY_EVERY

        values = trainer.step(self._progress())
        self._last = values
        self._train_psnr = _smoothed(self._train_psnr, values.train_psnr)
        self._voxel_psnr = _smoothed(self._voxel_psnr, values.voxel_psnr)
        if trainer.iteration % HELD_OUT_EVERY == 0:
            self._held_out_psnr = trainer.held_out_psnr()
            if self._comparer is not None:
                looks = trainer.iteration // HELD_OUT_EVERY
                self._comparer.look(looks % self.settings.held_out)
        if trainer.iteration % HISTORY_EVERY == 0:
            self._record(trainer, values)

    def _record(self, trainer: Trainer, values: StepResult) -> None:
        field = trainer.field
        row = (
            trainer.iteration,
            self._seconds,
            values.loss,
            self._held_out_psnr,
            self._train_psnr,
            self._voxel_psnr,
            len(field),
            field.background,
            *values.gradient_norms,
            *_means_and_spreads(field),
        )
        for key, value in zip(HISTORY_KEYS, row, strict=True):
            self.history[key].append(value)

    def _begun(self) -> Trainer:
        if self._trainer is None:
            message = "this fit has not begun; iterate over it first"
            raise FitError(message)
        return self._trainer

    def snapshot(self) -> Snapshot:
        """Return the fit as it is now. Between two snapshots of the iteration only."""
        trainer = self._begun()
        progress = self._progress()
        left = self._seconds * (1 - progress) / progress if progress > 0 else float("nan")
        return Snapshot(
            self._state,
            trainer.iteration,
            self.settings.steps,
            self._seconds,
            0.0 if self._reason else left,
            trainer.fields,
            self._last.loss if self._last else float("nan"),
            self._held_out_psnr,
            self._train_psnr,
            self._voxel_psnr,
            self._reason,
        )

    @property
    def origins(self) -> NDArray[np.int64]:
        """Which of the Gaussians it began with each is now [K]; -1 of those that came since.

        Where one was relocated, or took over from two, what is there now counts as having come
        since, or as the one that stayed. Between two snapshots only; not of a fit that was
        restored, whose file does not tell.
        """
        return self._begun().origins()

    @property
    def first_views(self) -> tuple[Views, WorkingStack]:
        """The views of the first channel, and its stack in working units."""
        working, views, _ = next(iter(self._begun().channels()))
        return views, working

    def comparison(self) -> Comparison | None:
        """Compare a refinement with what it went on from, on the same held-out views.

        Returns
        -------
        Comparison or None
            None of a fit that is no refinement, or one that was restored and so has not seen
            where it began.
        """
        if self._comparer is None:
            return None
        trainer = self._begun()
        limit = COMPARISON_SECONDS if self._state is FitState.CANCELLED else math.inf
        return self._comparer.compare(trainer.fields, seconds=limit)

    def _converged(self) -> Convergence:
        """Tell by more steps, which are taken back; a fit that was cut short is not tried."""
        from napari_gaussfit.fitting.convergence import MORE_STEPS, Convergence, judge

        trainer = self._begun()
        if self._state is not FitState.FINISHED:
            message = f"ended at step {trainer.iteration:,} of {self.settings.steps:,}"
            return Convergence(converged=False, sentence=message)
        changes = trainer.drift(MORE_STEPS, self._cancel_asked.is_set).numpy()
        if self._cancel_asked.is_set():
            return Convergence(converged=False, sentence="was not looked at to the end")
        return judge(changes, self.settings, trainer.iteration)

    def result(self) -> FitResult:
        """Return the record of the fit as it is now, with a full report. Between two snapshots.

        Of a fit that has ended it is made once, and is the same record at every call.

        Returns
        -------
        FitResult
            What `checkpoint` returns, and a report of each channel.

        Raises
        ------
        FitError
            If the fit has not begun.
        """
        if self._result is not None:
            return self._result
        result = replace(self.checkpoint(), reports=self._reports())
        if self._reason is not None:
            self._result = result
        return result

    def _reports(self) -> tuple[Report, ...]:
        """Measure each channel, and whether more steps would change the fit."""
        from napari_gaussfit.measure.report import make_report

        trainer, convergence = self._begun(), self._converged()
        known = (None,) * len(self.stacks) if self._follows is None else self._follows.noises
        measured = [
            make_report(
                field,
                working,
                views,
                self.settings,
                seconds=self._seconds,
                iterations=trainer.iteration,
                known=noise,
            )
            for (working, views, field), noise in zip(trainer.channels(), known, strict=True)
        ]
        return tuple(
            replace(
                report,
                converged=convergence.converged,
                convergence=convergence.sentence,
                notes=(*trainer.notes, *report.notes),
                count_reason=trainer.count_reason,
                psf="" if self.psf is None else self.psf.words,
            )
            for report in measured
        )


def fit(
    stack: Given | Sequence[Given],
    settings: FitSettings | None = None,
    *,
    start: GaussianField | Sequence[GaussianField] | None = None,
    points: ArrayLike | None = None,
    psf: Psf | None = None,
    progress: bool = False,
    **options: Any,
) -> FitResult:
    """Fit Gaussians to a stack and return the record of the fit.

    Parameters
    ----------
    stack : Stack, path-like or array-like, or a sequence of these
        The stack to fit, the file that holds it, or its voxels; or the channels of one recording,
        see `Fit`.
    settings : FitSettings, optional
        Settings of the fit; the defaults if None.
    start : GaussianField or sequence of GaussianField, optional
        Gaussians to go on from.
    points : array-like, shape [P, 3], optional
        Positions (z, y, x in the stack's unit) that seeds must begin at.
    psf : Psf, optional
        The point spread function that objects are seen by, see `Fit`.
    progress : bool
        Whether to show a bar, in a terminal or a notebook.
    **options
        Fields of `FitSettings`, beside or in place of `settings`; and of a file or an array those
        of `Stack.open` or `Stack.from_array`: ``spacing``, ``channel``, ``time``, ..

    Returns
    -------
    FitResult
        Gaussians, report and history; `FitResult.save` writes it.

    Examples
    --------
    >>> from napari_gaussfit import fit
    >>> from napari_gaussfit.synthetic.phantoms import beads
    >>> result = fit(beads().stack, gaussians=60, exactly=True, quality="preview")
    >>> len(result.field) <= 60
    True
    """
    unknown = sorted(set(options) - set(SETTINGS) - set(STACK_OPTIONS))
    if unknown:
        raise SettingsError(
            f"{', '.join(unknown)}: no setting of a fit and no option of a stack; there are "
            f"{', '.join(sorted({*SETTINGS, *STACK_OPTIONS}))}"
        )
    chosen = {name: options.pop(name) for name in SETTINGS if name in options}
    stacks = stacks_of(stack, **options)
    settings = replace(settings or FitSettings(), **chosen)
    running = Fit(stacks, settings, start=start, points=points, psf=psf)
    if progress:
        from tqdm.auto import tqdm  # which in a notebook without ipywidgets warns

        with tqdm(total=settings.steps, bar_format=BAR) as bar:
            for snapshot in running:
                show(bar, snapshot)
    else:
        for _ in running:
            pass
    return replace(running.result(), originals=stacks)


def _listed(given: T | Sequence[T]) -> tuple[T, ...]:
    """Return what may be one or several as several."""
    if isinstance(given, (list, tuple)):
        return tuple(given)
    return (cast("T", given),)


def _means_and_spreads(field: GaussianField) -> list[float]:
    """Return the means of z, y, x, widths and amplitudes, then their standard deviations."""
    # By numpy: torch's threads would be woken for these few numbers, and spin beside the kernels.
    means, cholesky, amplitudes = (tensor.numpy() for tensor in field.tensors)
    widths = np.exp(cholesky[:, [0, 2, 5]]).mean(1, keepdims=True)
    columns = np.concatenate([means, widths, amplitudes[:, None]], 1).astype(np.float64)
    return [*columns.mean(0).tolist(), *columns.std(0).tolist()]


def _smoothed(known: float, new: float) -> float:
    """Follow a noisy value; NaN adds nothing and is forgotten first."""
    if math.isnan(new):
        return known
    return new if math.isnan(known) else 0.9 * known + 0.1 * new
