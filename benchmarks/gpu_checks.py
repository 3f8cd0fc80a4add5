"""Every CUDA kernel against the float64 reference and the CPU backend, on fresh random inputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.fields import random_field
from benchmarks.tables import Cell, Table
from napari_gaussfit._kernels import reference
from napari_gaussfit._kernels.cpu import backend
from napari_gaussfit._kernels.cpu.spline import SplineVolume
from napari_gaussfit._kernels.cuda import backend as cuda
from napari_gaussfit._kernels.geometry import Grid
from napari_gaussfit._kernels.shared import step
from napari_gaussfit.fitting import relocation
from napari_gaussfit.fitting.bounds import widen
from napari_gaussfit.fitting.cuda_relocation import filters_on
from napari_gaussfit.fitting.losses import DARKEST_RATE, LOSSES
from napari_gaussfit.model.camera import ORBIT_ELEVATIONS, orbit, orbit_view
from napari_gaussfit.model.field import GaussianField

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.fields import Parameters
    from napari_gaussfit._kernels.geometry import Rays

CUTOFF = 1e-7
LARGEST_VALUE_ERROR, LARGEST_GRADIENT_ERROR = 3e-5, 1e-4
SIDES = (24.0, 20.0, 28.0)
TEMPERATURE = 0.1
OF_CPU = 1e-3
"""How far a MIP may be from the CPU's, in parts of the largest: on a flat top, four evaluations do
not reach the mode."""

Row = tuple[Cell, ...]


class Checks:
    """Compares what a device computes, and remembers how far it was off."""

    def __init__(self, device: torch.device, *, small: bool, seed: int) -> None:
        self.device, self.seed = device, seed
        self._count = 10 if small else 300
        self._places = 40 if small else 9_000
        self._shape = (3, 9, 17) if small else (33, 45, 67)
        self._image = (9, 10) if small else (60, 75)
        self._rows: list[Row] = []
        self.passed = True

    def run(self) -> Table:
        """Check all, and return what was found."""
        parameters = random_field(self._count, SIDES, 2.0, seed=self.seed)
        self._check_sums(parameters)
        self._check_projections(parameters)
        self._check_batches(parameters)
        self._check_steps(parameters)
        self._check_losses()
        self._check_relocation(parameters)
        self._check_maxima()
        header = ("what", "against", "value off by", "gradients off by", "")
        note = f"{self._count:,} random Gaussians, seed {self.seed}; in relative norm."
        return Table("Checks", header, tuple(self._rows), (note,))

    def _note(self, what: str, against: str, errors: tuple[float, float], limit: float) -> None:
        value, gradient = errors
        fine = value < limit and gradient < max(limit, LARGEST_GRADIENT_ERROR)
        self.passed &= fine
        verdict = "ok" if fine else "FAILED"
        self._rows.append((what, against, f"{value:.0e}", f"{gradient:.0e}", verdict))

    def _compare(
        self, what: str, parameters: Parameters, evaluation: object, oracle: Callable[..., object]
    ) -> None:
        """Hold value and gradients of an evaluation against the reference in float64."""
        found, gradients, weights = self._found(parameters, evaluation)
        leaves = [p.double().requires_grad_() for p in parameters]
        true = oracle(*leaves)
        assert isinstance(true, torch.Tensor)
        right = torch.autograd.grad((true * weights.double()).sum(), leaves)
        true = true.detach()
        errors = float((found - true).abs().max() / true.abs().max()), apart(gradients, right)
        self._note(what, "reference", errors, LARGEST_VALUE_ERROR)

    def _found(
        self, parameters: Parameters, evaluation: object
    ) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
        """Value and gradients on the device, and the random weights that the latter are for."""
        means, cholesky, amplitudes = (p.to(self.device) for p in parameters)
        packed = cuda.pack(means, cholesky, amplitudes, CUTOFF)
        assert hasattr(evaluation, "forward")
        assert hasattr(evaluation, "backward")
        value = evaluation.forward(packed)
        weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(self.seed))
        moments = evaluation.backward(packed, weights.to(self.device))
        gradients = [g.cpu() for g in cuda.unpack_gradient(moments, packed)]
        return value.cpu(), [gradients[0], gradients[1], gradients[2][0]], weights

    def _check_sums(self, parameters: Parameters) -> None:
        source = torch.Generator().manual_seed(self.seed + 1)
        points = torch.rand(self._places, 3, generator=source) * torch.tensor(SIDES)
        for name, some in (("dense", points[: self._places // 4]), ("culled", points)):
            evaluation = cuda.PointEvaluation(some.to(self.device))
            evaluation.dense = name == "dense"
            self._compare(
                f"f at points, {name}",
                parameters,
                evaluation,
                _at(reference.evaluate, some.double()),
            )
        grid = grid_of(self._shape)
        self._compare(
            "f on a grid",
            parameters,
            cuda.GridEvaluation(grid),
            _at(reference.voxelise, grid),
        )

    def _check_projections(self, parameters: Parameters) -> None:
        for rays in views_of(2, self._image):
            self._compare(
                "soft MIP",
                parameters,
                cuda.SoftMipEvaluation(rays, TEMPERATURE),
                _at(reference.soft_mip, rays, TEMPERATURE),
            )
            self._compare(
                "line integral",
                parameters,
                cuda.LineIntegralEvaluation(rays),
                _at(reference.line_integral, rays),
            )
            self._compare_mip(parameters, rays)

    def _compare_mip(self, parameters: Parameters, rays: Rays) -> None:
        """Hold a MIP against the CPU's, and its gradient against the reference's of f there."""
        evaluation = cuda.MipEvaluation(rays, 1.0)
        found, gradients, weights = self._found(parameters, evaluation)
        own = backend.MipEvaluation(rays, 1.0).forward(backend.pack(*parameters, CUTOFF))
        leaves = [p.double().requires_grad_() for p in parameters]
        o, d = reference.origins_and_directions(rays, torch.float64)
        near, far = reference.clip(rays, torch.float64)
        depth = evaluation.depth[0].cpu().double()
        points = (o + depth[..., None] * d).reshape(-1, 3)
        f = torch.cat([_at(reference.evaluate, some)(*leaves) for some in points.split(500)])
        f = torch.where(near < far, f.reshape(rays.shape), 0.0)
        right = torch.autograd.grad((f * weights.double()).sum(), leaves)
        errors = float((found - own).abs().max() / own.max()), apart(gradients, right)
        self._note("exact MIP", "CPU, reference", errors, OF_CPU)
        self._compare_targets(evaluation, rays)

    def _compare_targets(self, evaluation: cuda.MipEvaluation, rays: Rays) -> None:
        """Hold a random stack's values at the maxima that the device found against the CPU's."""
        voxels = np.random.default_rng(self.seed).random(self._shape, np.float32)
        spline = SplineVolume(voxels, grid_of(self._shape).spacing)
        found = evaluation.target_of([cuda.Volume(spline, self.device)]).cpu().numpy()
        own = np.zeros(rays.shape, np.float32)
        spline.sample(rays, evaluation.depth[0].cpu().numpy(), own, 0, rays.shape[0])
        off = float(np.abs(found - own).max() / np.abs(own).max())
        self._note("targets at the maxima", "CPU", (off, 0.0), LARGEST_VALUE_ERROR)

    def _check_batches(self, parameters: Parameters) -> None:
        """Two channels in several views at once, each against the image by itself."""
        means, cholesky, amplitudes = (p.to(self.device) for p in parameters)
        channels = torch.stack([amplitudes, amplitudes.flip(0)])
        views = views_of(2, self._image)
        table = cuda.Views.of(views, 1.0, self.device)
        images = cuda.MipEvaluation(table).forward(cuda.pack(means, cholesky, channels, CUTOFF))
        worst = 0.0
        for n, image in enumerate(images):
            packed = cuda.pack(means, cholesky, channels[n // len(views)], CUTOFF)
            alone = cuda.MipEvaluation(views[n % len(views)], 1.0).forward(packed)
            rows, width = alone.shape
            worst = max(worst, float((image[:rows, :width] - alone).abs().max() / alone.max()))
        self._note("views and channels at once", "one by one", (worst, 0.0), OF_CPU)

    def _check_steps(self, parameters: Parameters) -> None:
        source = torch.Generator().manual_seed(self.seed + 2)
        by_means, by_cholesky, by_amplitudes = (
            torch.randn(p.shape, generator=source) for p in parameters
        )
        count, rates = len(parameters[0]), torch.linspace(0.01, 0.1, 10)
        shapes = (count, 10), (count, 10), (count,)
        found = [p.to(self.device, copy=True) for p in parameters]
        true = [p.double() for p in parameters]
        cuda.adam_step(
            (found[0], found[1], found[2]),
            (by_means.to(self.device), by_cholesky.to(self.device), by_amplitudes.to(self.device)),
            _zeros(shapes, torch.float32, self.device),
            rates.to(self.device),
        )
        reference.adam_step(
            (true[0], true[1], true[2]),
            (by_means.double(), by_cholesky.double(), by_amplitudes.double()),
            _zeros(shapes, torch.float64, torch.device("cpu")),
            rates.double(),
            decays=(float(step.FIRST_DECAY), float(step.SECOND_DECAY)),
            longest_step=float(step.LONGEST_LOG_STEP),
        )
        off = apart([p.cpu() for p in found], true)
        self._note("a step of Adam", "reference", (off, 0.0), LARGEST_GRADIENT_ERROR)
        spacing, narrow = (1.0, 0.5, 0.25), parameters[1] - 2.0
        wide = narrow.clone()
        widen(wide, spacing, 0.7)
        here = narrow.to(self.device, copy=True)
        cuda.widen(here, torch.tensor(spacing, device=self.device), 0.7)
        self._note("widening", "float64", (apart([here.cpu()], [wide]), 0.0), OF_CPU)

    def _check_losses(self) -> None:
        """Losses and derivatives of bricks of two sizes, against torch's own."""
        source = torch.Generator().manual_seed(self.seed + 3)
        z, y, x = self._shape
        voxels = torch.rand(self._shape, generator=source)
        prediction = torch.rand((2, z, y, x), generator=source)
        shapes = torch.tensor([[z, y, x], [z - 1, y - 2, x - 3]], dtype=torch.int32)
        counts = shapes.prod(1).float()
        bricks = cuda.BrickTables(
            voxels[None].to(self.device),
            torch.zeros_like(shapes).to(self.device),
            shapes.to(self.device),
            counts.to(self.device),
            torch.ones(2, device=self.device),
        )
        for name, loss in LOSSES.items():
            background = torch.full((1,), 0.1, device=self.device)
            losses = cuda.Losses(
                darkest=DARKEST_RATE if name == "poisson" else 0.0,
                zero=[0.0],
                rules=(0.0, 0.02, 1e-5, 1e-3),
                background=background,
                cutoff=torch.zeros(1, device=self.device),
            )
            which = torch.arange(2, device=self.device)
            weights = losses.of_bricks(bricks, which, prediction.to(self.device)).cpu()
            leaf = prediction.double().requires_grad_()
            parts = [tuple(slice(int(end)) for end in shape) for shape in shapes]
            each = [
                loss(leaf[n][part] + 0.1, voxels.double()[part]) for n, part in enumerate(parts)
            ]
            total = torch.stack(each).mean()
            (right,) = torch.autograd.grad(total, leaf)
            off = float((losses.found[0, 0].cpu() / total.detach() - 1).abs())
            errors = (off, apart([weights], [right]))
            self._note(f"{name} loss of bricks", "torch", errors, LARGEST_VALUE_ERROR)

    def _check_relocation(self, parameters: Parameters) -> None:
        """What it costs to take Gaussians away, and where one more would win most."""
        scale = torch.tensor([(2 * math.pi) ** 1.5], dtype=torch.float64, device=self.device)
        means, cholesky, amplitudes = (p.to(self.device) for p in parameters)
        found, *_ = cuda.removal_costs(means, cholesky, amplitudes, scale)
        own, *_ = relocation.removal_costs(GaussianField(*parameters))
        alone = (2 * math.pi) ** 1.5 * parameters[2].double() ** 2
        off = apart([found.cpu() / alone], [own / alone])
        self._note("costs of removal", "CPU", (off, 0.0), LARGEST_VALUE_ERROR)
        residual = np.random.default_rng(self.seed).standard_normal(self._shape, np.float32)
        most = self._count
        places = cuda.sites(
            torch.from_numpy(residual).to(self.device), filters_on((1, 1, 1), self.device), most
        )
        sites = relocation.sites(residual, most)
        true = torch.from_numpy(sites.gains)
        off = apart([places.gains[: len(true)].cpu()], [true])
        self._note("gains of places", "CPU", (off, 0.0), LARGEST_VALUE_ERROR)

    def _check_maxima(self) -> None:
        """Maxima of a random stack along the rays of two views.

        In relative norm: of two peaks of noise that are a rounding apart, either may be taken.
        """
        voxels = np.random.default_rng(self.seed).random(self._shape, np.float32)
        spline = SplineVolume(voxels, grid_of(self._shape).spacing)
        views = views_of(2, self._image)
        table, volume = cuda.Views.of(views, 1.0, self.device), cuda.Volume(spline, self.device)
        off = 0.0
        for image, rays in zip(cuda.maxima(volume, table).cpu().numpy(), views, strict=True):
            own = spline.mip(rays)[0]
            rows, width = own.shape
            off = max(off, apart([torch.from_numpy(image[:rows, :width])], [torch.from_numpy(own)]))
        self._note("a stack's maxima", "CPU", (off, 0.0), OF_CPU)


def apart(found: Sequence[torch.Tensor], true: Sequence[torch.Tensor]) -> float:
    """The largest relative norm of a difference; NaN is as far as can be."""
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(found, true, strict=True)]
    return math.inf if any(map(math.isnan, errors)) else max(errors)


def grid_of(shape: tuple[int, int, int]) -> Grid:
    """A grid over the box."""
    spacing = np.divide(SIDES, shape).astype(np.float32)
    return Grid((spacing / 2).astype(np.float32), spacing, shape)


def views_on_box(count: int, side: int, sides: Sequence[float]) -> list[Rays]:
    """Orthographic views from around a box, each with about side^2 rays that cross it."""
    lengths = np.asarray(sides, np.float64)
    box = np.zeros(3), lengths
    found = []
    for n in range(count):
        where = 360.0 * n / count, ORBIT_ELEVATIONS[n % len(ORBIT_ELEVATIONS)]
        forward = orbit_view(box, *where, 1.0).rotation[2]
        # The box's shadow is that of its three faces on this side.
        shadow = float(np.abs(forward) @ (lengths.prod() / lengths))
        camera = orbit_view(box, *where, math.sqrt(shadow) / side, largest_side=2 * side)
        found.append(camera.rays(box))
    return found


def views_of(count: int, shape: tuple[int, int], sides: Sequence[float] = SIDES) -> list[Rays]:
    """Orthographic views from around a box, of about `shape` pixels each."""
    box = np.zeros(3), np.asarray(sides, np.float64)
    pixel = float(np.linalg.norm(sides)) / max(shape)
    cameras = orbit(box, pixel, views=count, largest_side=max(shape))
    return [camera.rays(box) for camera in cameras]


def _at(function: Callable[..., torch.Tensor], *where: Any) -> Callable[..., torch.Tensor]:
    """Return a function of Gaussians' parameters somewhere as one of these alone."""
    return lambda *parameters: function(*parameters, *where)


def _zeros(
    shapes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """State of an optimiser that has not begun."""
    first, second, peaks = (torch.zeros(shape, dtype=dtype, device=device) for shape in shapes)
    return first, second, peaks
