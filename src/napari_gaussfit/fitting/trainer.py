"""The optimiser's loop body: one step of a fit, and what must be kept to go on from it.

Knows neither threads nor files nor who watches. Inside, all is in working units, see `scaling`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_gaussfit import _kernels
from napari_gaussfit._threads import in_one_torch_thread
from napari_gaussfit.errors import FitError, OutOfMemoryError
from napari_gaussfit.fitting.bounds import confine, widen
from napari_gaussfit.fitting.memory import RELOCATION_VOXELS, predict_device_memory
from napari_gaussfit.fitting.objective import Objective, decibels
from napari_gaussfit.fitting.relocation import relocate
from napari_gaussfit.fitting.seeding import seed_count, seed_field
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.scaling import WorkingStack
from napari_gaussfit.settings import Device, FitSettings
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.stacks.statistics import background_of, smoothed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_gaussfit.fitting.cuda_fit import CapturedFit
    from napari_gaussfit.fitting.objective import Found, Tensors
    from napari_gaussfit.model.views import Views

RATE, RATE_AT_END = 0.05, 0.006
"""Steps of Adam in a Gaussian's own frame: parts of its brightness, widths and position."""

REFINING_RATE_AT_END = 0.002
"""Where the steps of a refinement end, which begin where those of a whole fit had."""

REFINING_WARM_UP = 20
"""Steps in which those of a refinement grow to their size: Adam's first steps know a gradient's
sign alone, and at full size undo part of a fit."""

RELOCATE_EVERY, RELOCATED_FRACTION, RELOCATE_UNTIL = 25, 0.05, 0.85
"""Steps between relocations, the part of the Gaussians that one may move, and the part of the fit
in which they come."""

WIDEN_EVERY, NARROWEST = 10, 0.4
"""Least sigma in voxels, in any direction: a narrower Gaussian hides between samples. With means
confined to the voxels' centres 0.4 is wide enough: consistency stays 10 dB above the fit's own
error, and 0.5 costs the beads 0.1 dB."""

LARGEST_MOMENT = 1e15
"""Of a state that a fit goes on from: amplitudes and gradients in working units are far below, also
where a given background is a million ranges away, and their squares are in float32 still."""

STATE_VERSION = 2
"""Of what `Trainer.state` gives: another version's would go on from wrong numbers."""

STATE_TENSORS = ("means", "cholesky", "amplitudes", "first", "second", "age")

HISTORY_EVERY = 10
"""Steps from one record of a fit to the next."""


@dataclass(frozen=True)
class StepValues:
    """What one step found; NaN where it did not look.

    Parameters
    ----------
    loss : float
        Of the whole objective, in working units.
    train_psnr, voxel_psnr : float
        Of the step's own view and bricks, in dB.
    gradient_norms : tuple of float
        Of means, Cholesky parameters and amplitudes.
    """

    loss: float
    train_psnr: float
    voxel_psnr: float
    gradient_norms: tuple[float, float, float]


@cache
def compile_kernels(device: Device) -> None:
    """Compile every kernel of a fit on a device, or load it, by a step on a few voxels."""
    ramp = np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7)
    enough = round(1 / RELOCATED_FRACTION)  # for one to be relocated
    settings = FitSettings(gaussians=enough, views=2, held_out=1, device=device)
    trainer = Trainer(Stack.from_array(ramp), settings)
    for trainer.iteration in (0, 1, HISTORY_EVERY - 1, RELOCATE_EVERY - 1):
        trainer.step(0.0)
    trainer.held_out_psnr()


class Trainer:
    """Holds a fit's parameters and optimiser; `step` moves them.

    Parameters
    ----------
    stack : Stack
        What to fit.
    settings : FitSettings
        How.
    start : GaussianField, optional
        Gaussians to go on from, instead of seeds.
    points : ndarray, shape [P, 3], optional
        Positions (z, y, x in the stack's unit) that seeds must begin at.

    Attributes
    ----------
    notes : tuple of str
        Why the device is the CPU, if that was not asked for.
    """

    def __init__(
        self,
        stack: Stack,
        settings: FitSettings,
        *,
        start: GaussianField | None = None,
        points: NDArray[np.float64] | None = None,
    ) -> None:
        self.stack, self.settings = stack, settings
        self.working = WorkingStack.of(stack)
        self.rng = np.random.default_rng(settings.seed)
        self.kept = 0 if points is None or start is not None else len(points)
        begin = self._seeds(points) if start is None else self.working.scaled(start)
        self.objective = Objective(self.working, settings, self.rng, begin.background)
        self._means, self._cholesky, self._amplitudes = begin.tensors
        count = len(begin)
        self._first, self._second = torch.zeros(count, 10), torch.zeros(count, 10)
        self._age = torch.zeros(count)
        self.iteration = 0
        self.device = _kernels.device_named(settings.device)
        self._captured: CapturedFit | None = None
        nothing = float("nan")
        self._found = StepValues(nothing, nothing, nothing, (nothing, nothing, nothing))
        note = _kernels.fallback(settings.device)
        self.notes: tuple[str, ...] = () if note is None else (note,)
        if _kernels.backend_name(self.device) == "numba-cuda":
            self._captured = self._on_device()

    def _seeds(self, points: NDArray[np.float64] | None) -> GaussianField:
        stack, settings = self.working.stack, self.settings
        smooth = smoothed(stack.voxels)
        background, noise = background_of(smooth)
        if settings.background is not None:
            background = self.working.given_background(settings.background)
        seeds = seed_field(
            smooth - np.float32(background),
            stack.spacing,
            seed_count(settings.gaussians, points, stack.voxels),
            self.rng,
            noise=noise,
            points=None if points is None else points / self.working.length,
            unit=stack.unit,
        )
        return replace(seeds, background=background)

    @property
    def field(self) -> GaussianField:
        """A copy of the field as it stands, in raw intensity, on the CPU."""
        if self._captured is not None:
            self._read_back(self._captured)
        return self.working.restored(self.scaled_field().to("cpu"))

    @property
    def fields(self) -> tuple[GaussianField, ...]:
        """Copies of the field of each channel, in raw intensity, on the CPU."""
        return self.field, *self.other_fields

    @property
    def other_fields(self) -> tuple[GaussianField, ...]:
        """Of several channels, the fields after the first; none here."""
        return ()

    def channels(self) -> Iterator[tuple[WorkingStack, Views, GaussianField]]:
        """Yield each channel's stack, views and field, in working units."""
        if self._captured is not None:
            self._read_back(self._captured)
        yield self.working, self.objective.views, self.scaled_field()

    def scaled_field(self) -> GaussianField:
        """Return the field of the tensors themselves, in working units."""
        background, unit = self.objective.background, self.working.stack.unit
        return GaussianField(self._means, self._cholesky, self._amplitudes, background, unit)

    def _on_device(self) -> CapturedFit | None:
        """Move what steps change to the device, and what they look at.

        Where it has no room, and was not asked for by name, the fit stays on the CPU.
        """
        try:
            return self._moved()
        except OutOfMemoryError as error:
            if self.settings.device != "auto":
                raise
            self.device = torch.device("cpu")
            self.notes = (f"device auto is the CPU here: {error}",)
            return None

    def _moved(self) -> CapturedFit:
        from napari_gaussfit._kernels.cuda.memory import free_memory, no_room
        from napari_gaussfit.fitting.cuda_fit import CapturedFit

        if self.device.type == "cuda":
            needed = predict_device_memory(self.stack.voxels.size, self.settings)
            if needed > free_memory(self.device)[0]:
                raise no_room(self.device, needed)
        planes = self._slab_planes
        captured = CapturedFit(
            self.objective,
            (self._means, self._cholesky, self._amplitudes),
            (self._first, self._second, self._age),
            self.device,
            planes=planes,
            most=round(self._share(0, planes) * len(self._means)),
        )
        for name in STATE_TENSORS:
            setattr(self, f"_{name}", getattr(captured.state, name))
        return captured

    def _read_back(self, captured: CapturedFit) -> None:
        """Fetch what a captured step changes beside the Gaussians; waits for the device."""
        state = captured.state
        found = torch.cat([state.background, state.cutoff]).tolist()
        self.objective.background, self.objective.cutoff = found

    def _captured_step(self, captured: CapturedFit, progress: float) -> StepValues:
        """Take one step on the device; what it found is read back every `HISTORY_EVERY` steps."""
        bricks, views = self.objective.draw()
        steps = captured.steps
        rate, search = self._rate(progress), self.objective.searches(self.iteration, views)
        captured.step(bricks, views, rate=rate, search=search)
        self.objective.depths |= {n: steps.depth(n) for n in views}
        last = progress + 1 / self.settings.steps >= 1
        if self.iteration % WIDEN_EVERY == 0 or last:
            captured.widen(NARROWEST)
        self.iteration += 1
        if self._relocates(progress):
            self._relocate()
        unknown = float("nan")
        if self.iteration % HISTORY_EVERY and not last:
            return replace(self._found, train_psnr=unknown, voxel_psnr=unknown)
        found = steps.numbers()
        self.objective.background, self.objective.cutoff = found.background, found.cutoff
        self._found = StepValues(
            found.loss,
            decibels(found.pixel_error),
            decibels(found.voxel_error),
            found.gradient_norms,
        )
        return self._found

    def _relocates(self, progress: float) -> bool:
        """Whether Gaussians are relocated after this step."""
        return (
            self.objective.has_voxels
            and not self.settings.refine
            and self.iteration % RELOCATE_EVERY == 0
            and progress < RELOCATE_UNTIL
        )

    def _rate(self, progress: float) -> float:
        """Return the optimiser's step size, which falls evenly by the logarithm."""
        if not self.settings.refine:
            return _between(RATE, RATE_AT_END, progress)
        warm = min(1.0, (self.iteration + 1) / REFINING_WARM_UP)
        return warm * _between(RATE_AT_END, REFINING_RATE_AT_END, progress)

    def step(self, progress: float) -> StepValues:
        """Take one step; `progress` from 0 to 1 sets its size."""
        if self._captured is not None:
            return self._captured_step(self._captured, progress)
        return self._step(progress)

    @in_one_torch_thread()
    def _step(self, progress: float) -> StepValues:
        gradients, found = self.gradients()
        if not self.settings.full_covariance:
            gradients[1][:, [1, 3, 4]] = 0.0
        self.move(gradients, self._rate(progress))
        if self.iteration % WIDEN_EVERY == 0 or progress + 1 / self.settings.steps >= 1:
            widen(self._cholesky, self.working.stack.spacing, NARROWEST)
        self.iteration += 1
        if self._relocates(progress):
            self._relocate()
        d_means, d_cholesky, d_amplitudes = (float(g.norm()) for g in gradients)
        return StepValues(*found, (d_means, d_cholesky, d_amplitudes))

    def gradients(self) -> tuple[Tensors, Found]:
        """Return the gradients of this step's loss, and what it found."""
        return self.objective.gradients(self.scaled_field().tensors, self.iteration)

    def move(self, gradients: Tensors, rate: float) -> None:
        """Take a step of Adam against gradients."""
        _kernels.adam_step(
            (self._means, self._cholesky, self._amplitudes),
            gradients,
            (self._first, self._second, self._age),
            torch.full((10,), rate),
        )
        confine(self._means, self.stack.shape, self.working.stack.spacing)

    def _relocate(self) -> None:
        first, end = self._slab()
        if self._captured is not None:
            self._captured.relocate(first, self.kept)
            return
        residual = self.residual(first, end)
        moved = relocate(
            self.scaled_field(),
            residual,
            self.working.stack.spacing,
            self._share(first, end),
            first_plane=first,
            kept=self.kept,
        )
        self.forget(moved)

    @property
    def _slab_planes(self) -> int:
        """How many planes a relocation looks at."""
        depth, rows, columns = self.stack.shape
        return min(depth, max(1, RELOCATION_VOXELS // (rows * columns)))

    def _slab(self) -> tuple[int, int]:
        """Draw the planes that a relocation looks at: all, but of a large stack."""
        depth, planes = self.stack.shape[0], self._slab_planes
        first = int(self.rng.integers(depth - planes + 1)) if planes < depth else 0
        return first, first + planes

    def _share(self, first: int, end: int) -> float:
        """Return which part of the Gaussians planes [first, end) may draw to themselves."""
        return RELOCATED_FRACTION * (end - first) / self.stack.shape[0]

    def residual(self, first: int, end: int) -> NDArray[np.float32]:
        """Return stack minus field on planes [first, end), in working units."""
        if self._captured is not None:
            self._read_back(self._captured)
        return self.objective.residual(self.scaled_field(), first, end)

    def forget(self, moved: Tensor) -> None:
        """Forget the moments of the Gaussians that were moved [M]."""
        for moments in (self._first, self._second, self._age):
            moments[moved.to(self.device)] = 0.0

    def share_shapes_of(self, field: GaussianField) -> None:
        """Take a field's own means and Cholesky parameters, which whoever has them may move."""
        self._means, self._cholesky = field.means, field.cholesky

    @in_one_torch_thread()
    def held_out_psnr(self) -> float:
        """Return the mean PSNR of the held-out views, one of them looked at anew.

        See `Objective.next_held_out`.
        """
        n = self.objective.next_held_out(self.iteration)
        if self._captured is not None:
            psnr = decibels(self._captured.held_out_error(n))
        else:
            psnr = self.objective.look(self.scaled_field(), n)
        return self.objective.held_out_psnr(n, psnr)

    @in_one_torch_thread()
    def drift(self, steps: int, cut_short: Callable[[], bool]) -> Tensor:
        """Return by how much [K] more steps would change widths; all stays as it is.

        The steps are those of a refinement, which forgets what slowed earlier ones down.

        Parameters
        ----------
        steps : int
            How many.
        cut_short : callable
            Asked before each step; True ends it.

        Returns
        -------
        Tensor, shape [K]
            Of each Gaussian the largest change of its width along any direction, by the logarithm.
        """
        before, found = self.field, self._found
        state = {name: tensor.clone() for name, tensor in self.state().items()}
        settings, self.settings = self.settings, replace(self.settings, refine=True)
        self.forget(torch.arange(len(before)))
        self.iteration = 0
        for _ in range(steps):
            if cut_short():
                break
            self.step(0.0)
        after, self.settings = self.field, settings
        self.restore(state)
        self._found = found
        return _width_changes(before, after)

    def view_psnr(self, fields: Sequence[GaussianField], n: int) -> float:
        """Return the PSNR of held-out view n; the mean over the channels, a field each."""
        scaled = self.working.scaled(fields[0])
        return self.objective.view_psnr(scaled.to(self.device), n)

    def state(self) -> dict[str, Tensor]:
        """Return what `restore` needs to go on as if nothing had been.

        The Gaussians too: through the original's units and back they would not be the same bits.
        """
        if self._captured is not None:
            self._read_back(self._captured)
        words = {
            "version": STATE_VERSION,
            "iteration": self.iteration,
            "kept": self.kept,
            "rng": self.rng.bit_generator.state,
            **self.objective.state(),
        }
        packed = np.frombuffer(json.dumps(words).encode(), np.uint8).copy()
        tensors = {name: getattr(self, f"_{name}").cpu() for name in STATE_TENSORS}
        return tensors | self.objective.packed_depths() | {"words": torch.from_numpy(packed)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up the state of an earlier trainer of the same stack and settings.

        Raises
        ------
        FitError
            If it holds anything else than `state` gives: it may come from a file.
        """
        try:
            self._take_up(state)
        except (NameError, ImportError):
            raise
        except Exception as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            message = (
                f"the state of the saved fit cannot be gone on from ({type(error).__name__}: "
                f"{reason}); fit anew, without resuming"
            )
            raise FitError(message) from error

    def _take_up(self, state: dict[str, Tensor]) -> None:
        words: dict[str, Any] = json.loads(state["words"].numpy().tobytes().decode())
        if words.get("version") != STATE_VERSION:
            message = f"it has number {words.get('version', 1)}, not {STATE_VERSION}"
            raise ValueError(f"it was begun by another version: {message}")
        # Into the memory that captured steps know.
        for name in STATE_TENSORS:
            own, saved = getattr(self, f"_{name}"), state[name]
            most = LARGEST_MOMENT**2 if name == "second" else LARGEST_MOMENT
            if saved.shape != own.shape or not bool((saved.abs() <= most).all()):
                message = f"{name} has shape {tuple(saved.shape)}, expected {tuple(own.shape)}"
                raise ValueError(f"{message}, of numbers up to {most:g}")
            own.copy_(saved)
        iteration = words["iteration"]
        if not isinstance(iteration, int) or iteration < 0:
            raise ValueError("iteration is no whole number from 0")
        kept = words["kept"]
        if not isinstance(kept, int) or not 0 <= kept <= len(self._age):
            raise ValueError(f"kept is no number of {len(self._age)} Gaussians")
        self.iteration, self.kept = iteration, kept
        self.rng.bit_generator.state = words["rng"]
        self.objective.restore(words)
        self.objective.depths = self.objective.unpacked_depths(state)
        if self._captured is not None:
            for n, depth in self.objective.depths.items():
                self.objective.depths[n] = self._captured.steps.depth(n).copy_(depth)
            self._captured.state.background.fill_(self.objective.background)
            self._captured.state.cutoff.fill_(self.objective.cutoff)


def _between(first: float, last: float, progress: float) -> float:
    """Return a value on the way from the first to the last, even by the logarithm."""
    value: float = first * (last / first) ** progress
    return value


def _width_changes(before: GaussianField, after: GaussianField) -> Tensor:
    """Return the largest change [K] of a width along any direction, by the logarithm."""
    old, new = before.factors.double(), after.factors.double()
    # Of L0^-1 S1 L0^-T the eigenvalues are by what squared widths along its axes have changed.
    ratio = torch.linalg.solve_triangular(old, new, upper=False)
    squares = torch.linalg.eigvalsh(ratio @ ratio.transpose(-1, -2))
    changes: Tensor = 0.5 * squares.clamp(min=1e-12).log().abs().amax(dim=-1)
    return changes
