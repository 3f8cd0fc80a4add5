"""The optimiser's loop body: one step of a fit, and what must be kept to go on from it.

Knows neither threads nor files nor who watches. Inside, intensities are scaled: the background
is taken off and the stack's range is 1.
"""

from __future__ import annotations

import itertools
import json
import math
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_gaussfit import _kernels
from napari_gaussfit._kernels.geometry import Grid
from napari_gaussfit.density import confine, widen
from napari_gaussfit.field import GaussianField
from napari_gaussfit.losses import LOSSES, dissimilarity
from napari_gaussfit.metrics import psnr
from napari_gaussfit.relocation import relocate, removal_costs
from napari_gaussfit.seeding import estimate_background, seed_field, suggested_count
from napari_gaussfit.settings import Device, FitSettings
from napari_gaussfit.stack import Stack
from napari_gaussfit.views import EndlessShuffle, Views

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_gaussfit.camera import Camera
    from napari_gaussfit.captured import CapturedSteps
    from napari_gaussfit.views import View

    Leaves = tuple[Tensor, Tensor, Tensor]

RATE, RATE_AT_END = 0.05, 0.008
"""Steps of Adam in a Gaussian's own frame: parts of its brightness, widths and position."""

PIXEL_WEIGHT = 0.7
"""What a pixel of the training views counts, all together, in voxels of the stack. More
wins projections and loses voxels: on the beads 0.4 gives 47.6 and 50.5 dB, 0.7 48.2 and 50.2."""

SEARCH_STEP = 1.5
"""How far apart the search for a ray's maximum looks, in finest spacings."""

SEARCH_EVERY = 4
"""Every so many steps a ray's maximum is searched for. Between, with the voxels' term to hold
the field to the stack, the climb begins where the stack itself is largest: a third of the time."""

BACKGROUND_RATE = 0.01
CUTOFF_PER_ERROR = 0.02
"""A Gaussian is left out where it adds less than this part of the field's own error: tails that
are left out while fitting come back in the end, and 0.1 costs the beads 2 dB."""

CUTOFFS = (1e-5, 1e-3)
"""The smallest and the largest cutoff, in parts of the range; a fit begins between."""

RELOCATE_EVERY, RELOCATED_FRACTION, RELOCATE_UNTIL = 25, 0.05, 0.85
RELOCATION_VOXELS = 8_000_000
"""Relocation looks at a slab of about as many voxels, however large the stack: its time and memory
stay what they are on a small one."""

WIDEN_EVERY, NARROWEST = 10, 0.4
"""Least sigma in voxels, in any direction: a narrower Gaussian hides between samples. With means
confined to the voxels' centres 0.4 is wide enough: consistency stays 10 dB above the fit's own
error, and 0.5 costs the beads 0.1 dB."""

BRICK = (32, 128, 128)
"""Largest brick of voxels, z, y, x: its volume stays in the second-level cache by planes."""

VOXELS_PER_STEP = 1_000_000
"""About as many voxels are looked at in a step, however large the stack."""

HELD_OUT_EVERY = 10
HISTORY_EVERY = 10


@contextmanager
def _in_one_torch_thread() -> Iterator[None]:
    """Keep torch from waking its threads: they spin while the kernels' own threads want the cores.

    A step takes five times as long with both.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class StepValues:
    """What one step found; NaN where it did not look.

    Parameters
    ----------
    loss : float
        Of the whole objective, in scaled intensity.
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
    settings = FitSettings(gaussians=2, views=2, held_out=1, device=device)
    trainer = Trainer(Stack.from_array(ramp), settings)
    trainer.step(0.0)
    trainer.held_out_psnr(trainer.field)
    removal_costs(trainer.field)


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
        low, high = stack.value_range
        self.range = high - low
        self.rng = np.random.default_rng(settings.seed)
        self.views = Views(stack, settings.views, settings.held_out)
        self._order = EndlessShuffle(len(self.views.training), self.rng)
        self._held_out_psnr: dict[int, float] = {}
        self._bricks = _bricks(stack.shape)
        share = VOXELS_PER_STEP / math.prod(stack.shape)
        self._bricks_per_step = max(1, round(min(1.0, share) * len(self._bricks)))
        self._brick_order = EndlessShuffle(len(self._bricks), self.rng)
        self._voxels = torch.from_numpy(np.asarray(stack.voxels, np.float32) / self.range)
        start = self._seeds(points) if start is None else start
        self.background = start.background / self.range
        self._means = start.means.detach().clone()
        self._cholesky = start.cholesky.detach().clone()
        self._amplitudes = start.amplitudes.detach().clone() / self.range
        count = len(start)
        self._first, self._second = torch.zeros(count, 10), torch.zeros(count, 10)
        self._age = torch.zeros(count)
        self._cutoff = math.sqrt(math.prod(CUTOFFS))
        self.iteration = 0
        self.device = _kernels.device_named(settings.device)
        self._captured: CapturedSteps | None = None
        nothing = float("nan")
        self._found = StepValues(nothing, nothing, nothing, (nothing, nothing, nothing))
        if _kernels.backend_name(self.device) == "numba-cuda":
            self._captured = self._on_device()

    def _seeds(self, points: NDArray[np.float64] | None) -> GaussianField:
        voxels = np.asarray(self.stack.voxels, np.float32)
        background, noise = estimate_background(voxels)
        if self.settings.background is not None:
            background = self.settings.background
        count = self.settings.gaussians or suggested_count(voxels)
        signal = voxels - background
        del voxels  # of a large stack, memory that the seeds need
        seeds = seed_field(
            signal,
            self.stack.spacing,
            count,
            self.rng,
            noise=noise,
            points=points,
            unit=self.stack.unit,
        )
        return replace(seeds, background=background)

    @property
    def field(self) -> GaussianField:
        """A copy of the field as it stands, in raw intensity, on the CPU."""
        if self._captured is not None:
            self._read_back(self._captured)
        return replace(
            self.scaled_field(),
            means=self._means.to("cpu", copy=True),
            cholesky=self._cholesky.to("cpu", copy=True),
            amplitudes=self._amplitudes.cpu() * self.range,
            background=self.background * self.range,
        )

    @property
    def other_fields(self) -> tuple[GaussianField, ...]:
        """Of several channels, the fields after the first; none here."""
        return ()

    def channels(self) -> Iterator[tuple[Stack, Views, GaussianField]]:
        """Yield each channel's stack, views and field."""
        yield self.stack, self.views, self.field

    def scaled_field(self) -> GaussianField:
        """Return the field of the tensors themselves, in parts of the stack's range."""
        return GaussianField(
            self._means, self._cholesky, self._amplitudes, self.background, self.stack.unit
        )

    def _on_device(self) -> CapturedSteps:
        """Move what steps change to the device, and what they look at."""
        from napari_gaussfit.captured import Bricks, CapturedSteps, Pixels, Rules, State

        settings, device = self.settings, self.device
        state = State(
            self._means.to(device),
            self._cholesky.to(device),
            self._amplitudes.to(device),
            self._first.to(device),
            self._second.to(device),
            self._age.to(device),
            torch.full((1,), self.background, device=device),
            torch.full((1,), self._cutoff, device=device),
        )
        self._means, self._cholesky = state.means, state.cholesky
        self._amplitudes = state.amplitudes
        self._first, self._second, self._age = state.first, state.second, state.age
        rules = Rules(
            settings.loss,
            settings.ssim_weight,
            settings.full_covariance,
            BACKGROUND_RATE if settings.background is None else 0.0,
            CUTOFF_PER_ERROR,
            CUTOFFS,
        )
        bricks = pixels = None
        if "voxels" in settings.objective:
            bricks = Bricks(self.stack, self._bricks, self.range, device)
        if "mip" in settings.objective:
            views = [self.views.view(camera) for camera in self.views.training]
            weights = [self._pixel_weight(view) for view in views]
            pixels = Pixels(views, self.range, self._search_step(), weights, device)
        self._spacing = torch.tensor(self.stack.spacing, dtype=torch.float32, device=device)
        return CapturedSteps(rules, state, bricks, pixels)

    def _read_back(self, steps: CapturedSteps) -> None:
        """Fetch what a captured step changes beside the Gaussians; waits for the device."""
        self.background = float(steps.state.background)
        self._cutoff = float(steps.state.cutoff)

    def _captured_step(self, steps: CapturedSteps, progress: float) -> StepValues:
        """Take one step on the device; what it found is read back every `HISTORY_EVERY` steps."""
        objective = self.settings.objective
        count = self._bricks_per_step if "voxels" in objective else 0
        bricks = self._brick_order.draw(count)
        views = self._order.draw(1 if "mip" in objective else 0)
        rate, search = RATE * (RATE_AT_END / RATE) ** progress, self._searches()
        steps.step(bricks.tolist(), views.tolist(), rate=rate, search=search)
        confine(self._means, self.stack.shape, self.stack.spacing)
        last = progress + 1 / self.settings.steps >= 1
        if self.iteration % WIDEN_EVERY == 0 or last:
            steps.widen(self._spacing, NARROWEST)
        self.iteration += 1
        if self._relocates(progress):
            self._relocate()
        unknown = float("nan")
        if self.iteration % HISTORY_EVERY and not last:
            return replace(self._found, train_psnr=unknown, voxel_psnr=unknown)
        found = steps.numbers()
        self._read_back(steps)
        self._found = StepValues(
            found.loss,
            _decibels(found.pixel_error),
            _decibels(found.voxel_error),
            found.gradient_norms,
        )
        return self._found

    def _searches(self) -> bool:
        """Whether this step searches for rays' maxima."""
        return self.settings.objective == "mip" or self.iteration % SEARCH_EVERY == 0

    def _search_step(self) -> float:
        return SEARCH_STEP * min(self.stack.spacing)

    def _relocates(self, progress: float) -> bool:
        """Whether Gaussians are relocated after this step."""
        return (
            "voxels" in self.settings.objective
            and self.iteration % RELOCATE_EVERY == 0
            and progress < RELOCATE_UNTIL
        )

    def _pixel_weight(self, view: View) -> float:
        """Weight of a view's loss beside that of the voxels."""
        if self.settings.objective == "mip":
            return 1.0
        return PIXEL_WEIGHT * int(view.hit.sum()) * len(self.views.training) / self._voxels.numel()

    def step(self, progress: float) -> StepValues:
        """Take one step; `progress` from 0 to 1 sets its size."""
        if self._captured is not None:
            return self._captured_step(self._captured, progress)
        return self._step(progress)

    @_in_one_torch_thread()
    def _step(self, progress: float) -> StepValues:
        leaves = (_leaf(self._means), _leaf(self._cholesky), _leaf(self._amplitudes))
        loss, train_psnr, voxel_psnr = self.add_gradients(leaves)
        gradients = (_gradient(leaves[0]), _gradient(leaves[1]), _gradient(leaves[2]))
        if not self.settings.full_covariance:
            gradients[1][:, [1, 3, 4]] = 0.0
        self.move(gradients, RATE * (RATE_AT_END / RATE) ** progress)
        if self.iteration % WIDEN_EVERY == 0 or progress + 1 / self.settings.steps >= 1:
            widen(self._cholesky, self.stack.spacing, NARROWEST)
        self.iteration += 1
        if self._relocates(progress):
            self._relocate()
        d_means, d_cholesky, d_amplitudes = (float(g.norm()) for g in gradients)
        return StepValues(loss, train_psnr, voxel_psnr, (d_means, d_cholesky, d_amplitudes))

    def add_gradients(self, leaves: Leaves) -> tuple[float, float, float]:
        """Add the gradients of this step's loss to means, Cholesky parameters and amplitudes.

        Returns the loss and the PSNRs of the view and the bricks that it is of, NaN for none.
        """
        objective = self.settings.objective
        loss, train_psnr, voxel_psnr = 0.0, float("nan"), float("nan")
        if "voxels" in objective:
            value, voxel_psnr = self._voxel_term(leaves)
            loss += value
        if "mip" in objective:
            value, train_psnr = self._mip_term(leaves)
            loss += value
        error = 10 ** (-(train_psnr if math.isnan(voxel_psnr) else voxel_psnr) / 20)
        self._cutoff = min(max(CUTOFF_PER_ERROR * error, CUTOFFS[0]), CUTOFFS[1])
        return loss, train_psnr, voxel_psnr

    def move(self, gradients: Leaves, rate: float) -> None:
        """Take a step of Adam against gradients."""
        _kernels.adam_step(
            (self._means, self._cholesky, self._amplitudes),
            gradients,
            (self._first, self._second, self._age),
            torch.full((10,), rate),
        )
        confine(self._means, self.stack.shape, self.stack.spacing)

    def _voxel_term(self, leaves: Leaves) -> tuple[float, float]:
        """Add the gradient of the voxels' loss on a few bricks."""
        drawn = self._brick_order.draw(self._bricks_per_step)
        total, squares = 0.0, 0.0
        for n in drawn:
            brick = self._bricks[n]
            origin = [s.start * d for s, d in zip(brick, self.stack.spacing, strict=True)]
            depth, rows, columns = (s.stop - s.start for s in brick)
            grid = Grid(
                np.asarray(origin, np.float32),
                np.asarray(self.stack.spacing, np.float32),
                (depth, rows, columns),
            )
            loss, square, mean = self._brick_error(leaves, grid, self._voxels[brick])
            torch.autograd.backward(loss / len(drawn))
            squares += square / len(drawn)
            if self.settings.background is None:
                self.background -= BACKGROUND_RATE * mean / len(drawn)
            total += loss.item() / len(drawn)
        return total, _decibels(squares)

    def _brick_error(
        self, leaves: Leaves, grid: Grid, target: Tensor
    ) -> tuple[Tensor, float, float]:
        """Return the loss of a brick, and the means of (f - target)^2 and of f - target."""
        if self.settings.loss == "squared":
            loss, mean = _kernels.squared_residual(
                *leaves, grid, target, offset=self.background, cutoff=self._cutoff
            )
            return loss, loss.item(), mean
        above = target - self.background
        prediction = _kernels.voxelise(*leaves, grid, cutoff=self._cutoff)
        residual = prediction.detach() - above
        loss = LOSSES[self.settings.loss](prediction, above)
        return loss, float(residual.square().mean()), float(residual.mean())

    def _mip_term(self, leaves: Leaves) -> tuple[float, float]:
        """Add the gradient of one view's loss."""
        view = self.views.view(self.views.training[int(self._order.draw(1)[0])])
        weight, search = self._pixel_weight(view), self._searches()
        image = _kernels.mip(
            *leaves,
            view.rays,
            cutoff=self._cutoff,
            bin_step=self._search_step(),
            start=None if search else view.depth,
        )
        target = view.target / self.range - self.background
        seen = image[view.hit], target[view.hit]
        loss = LOSSES[self.settings.loss](*seen)
        if self.settings.ssim_weight:
            share = self.settings.ssim_weight
            blank = torch.where(view.hit, target, 0.0)
            loss = (1 - share) * loss + share * dissimilarity(image, blank)
        torch.autograd.backward(weight * loss)
        error = float((seen[0].detach() - seen[1]).square().mean())
        return weight * loss.item(), _decibels(error)

    def _relocate(self) -> None:
        first, end = self._slab()
        residual = self.residual(first, end)
        field = self.scaled_field()
        host = field.to("cpu")
        moved = relocate(
            host, residual, self.stack.spacing, self._share(first, end), first_plane=first
        )
        for here, there in zip(host.tensors, field.tensors, strict=True):
            there.copy_(here)
        self.forget(moved)

    def _slab(self) -> tuple[int, int]:
        """Draw the planes that a relocation looks at: all, but of a large stack."""
        depth, rows, columns = self.stack.shape
        planes = min(depth, max(1, RELOCATION_VOXELS // (rows * columns)))
        first = int(self.rng.integers(depth - planes + 1)) if planes < depth else 0
        return first, first + planes

    def _share(self, first: int, end: int) -> float:
        """Return which part of the Gaussians planes [first, end) may draw to themselves."""
        return RELOCATED_FRACTION * (end - first) / self.stack.shape[0]

    def residual(self, first: int, end: int) -> NDArray[np.float32]:
        """Return stack minus field on planes [first, end), in parts of the stack's range."""
        if self._captured is not None:
            self._read_back(self._captured)
        _, rows, columns = self.stack.shape
        prediction = self.scaled_field().voxelise(
            (end - first, rows, columns),
            self.stack.spacing,
            origin=(first * self.stack.spacing[0], 0.0, 0.0),
            tolerance=1e-3,
        )
        residual: NDArray[np.float32] = (self._voxels[first:end] - prediction.cpu()).numpy()
        return residual

    def forget(self, moved: Tensor) -> None:
        """Forget the moments of the Gaussians that were moved [M]."""
        for moments in (self._first, self._second, self._age):
            moments[moved.to(self.device)] = 0.0

    def share_shapes_of(self, field: GaussianField) -> None:
        """Take a field's own means and Cholesky parameters, which whoever has them may move."""
        self._means, self._cholesky = field.means, field.cholesky

    def held_out_psnr(self, field: GaussianField) -> float:
        """Return the mean PSNR of the held-out views, one of them looked at anew.

        Each call looks at the next view; the others count as they were last seen.
        """
        cameras = self.views.held_out
        n = (self.iteration // HELD_OUT_EVERY) % len(cameras)
        self._held_out_psnr[n] = self.view_psnr(field, cameras[n])
        return float(np.mean(list(self._held_out_psnr.values())))

    def view_psnr(self, field: GaussianField, camera: Camera) -> float:
        """Return the PSNR of a field's MIP (raw intensity) for a camera, in dB."""
        view = self.views.view(camera)
        image = _kernels.mip(
            *field.to(self.device).tensors,
            view.rays,
            cutoff=self._cutoff * self.range,
            bin_step=self._search_step(),
        )
        return psnr(
            view.target.numpy(),
            (image.cpu() + field.background).numpy(),
            self.stack.value_range,
            view.hit.numpy(),
        )

    def state(self) -> dict[str, Tensor]:
        """Return what `restore` needs, beside the field, to go on as if nothing had been."""
        if self._captured is not None:
            self._read_back(self._captured)
        words = {
            "iteration": self.iteration,
            "rng": self.rng.bit_generator.state,
            "views_left": self._order.left,
            "bricks_left": self._brick_order.left,
            "held_out_psnr": self._held_out_psnr,
            "background": self.background,
            "cutoff": self._cutoff,
        }
        packed = np.frombuffer(json.dumps(words).encode(), np.uint8).copy()
        return {
            "first": self._first.cpu(),
            "second": self._second.cpu(),
            "age": self._age.cpu(),
            "amplitudes": self._amplitudes.cpu(),
            "words": torch.from_numpy(packed),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up the state of an earlier trainer of the same stack, settings and field."""
        words: dict[str, Any] = json.loads(state["words"].numpy().tobytes().decode())
        # Into the memory that captured steps know.
        for name in ("first", "second", "age", "amplitudes"):
            getattr(self, f"_{name}").copy_(state[name])
        self.iteration, self.background = words["iteration"], words["background"]
        self._cutoff = words["cutoff"]
        self.rng.bit_generator.state = words["rng"]
        self._order.left, self._brick_order.left = words["views_left"], words["bricks_left"]
        self._held_out_psnr = {int(n): value for n, value in words["held_out_psnr"].items()}
        if self._captured is not None:
            self._captured.state.background.fill_(self.background)
            self._captured.state.cutoff.fill_(self._cutoff)


def _leaf(parameters: Tensor) -> Tensor:
    """Return a view of parameters that gathers a gradient of its own."""
    return parameters.detach().requires_grad_()


def _gradient(leaf: Tensor) -> Tensor:
    """Return what a leaf has gathered."""
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _decibels(mean_square: float) -> float:
    """PSNR of a mean squared error in scaled intensity."""
    return float(-10 * np.log10(max(mean_square, 1e-30)))


def _bricks(shape: tuple[int, int, int]) -> list[tuple[slice, slice, slice]]:
    """Cut a volume that is too large for a step into even bricks no larger than `BRICK`."""
    if math.prod(shape) <= VOXELS_PER_STEP:
        z, y, x = (slice(0, size) for size in shape)
        return [(z, y, x)]
    cuts = []
    for size, most in zip(shape, BRICK, strict=True):
        edges = np.linspace(0, size, -(-size // most) + 1).round().astype(int)
        cuts.append([slice(int(a), int(b)) for a, b in itertools.pairwise(edges)])
    return [(z, y, x) for z in cuts[0] for y in cuts[1] for x in cuts[2]]
