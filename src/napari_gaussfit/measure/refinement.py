"""Gaussians refined one by one or with those that overlap them, each number with its error bar.

A fit trains all Gaussians on views and voxels at once, by gradients. Here each is refined in its
own window of the stack until its likelihood is largest, by Fisher scoring: what is known of it then
is what the photons allow (the bound of Cramér and Rao), and the inverse of the same matrix tells
how well.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_gaussfit._kernels.cpu.information_kernels import EVEN, PHOTONS, UNKNOWN
from napari_gaussfit._kernels.cpu.refinement_kernels import (
    SHAPE,
    refine_blocks,
)
from napari_gaussfit._threads import run_pieces
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.bias import without_bias
from napari_gaussfit.measure.blocks import Model
from napari_gaussfit.measure.constrained import refine_constrained
from napari_gaussfit.measure.grouping import (
    MOST_TOGETHER,
    blocks_of,
    boxes_about,
    half_sides,
)
from napari_gaussfit.measure.measurement import NOT_DETERMINED, Measurement
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.photon_transfer import noise_of_neighbours
from napari_gaussfit.measure.shapes import Shapes
from napari_gaussfit.measure.surroundings import are_dim, with_surroundings
from napari_gaussfit.measure.turns import reaches_of, refined_in_turns
from napari_gaussfit.model.gaussians import Gaussians

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.measure.constraints import Constraints
    from napari_gaussfit.measure.shared import Told
    from napari_gaussfit.measure.turns import Fits, Refine
    from napari_gaussfit.settings import Device
    from napari_gaussfit.stacks.stack import Stack

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]

__all__ = ["refine", "share_of_structures", "with_others"]

Likelihood = Literal["robust", "poisson", "even", "squared"]

WINDOW = 3.5
"""Sigmas from its centre to the sides of a Gaussian's window: far enough to tell it from the
background, near enough that one constant is a background."""

LEAST_HALF = 3
"""Voxels from a centre to the sides of its window, at least."""

MOST_STEPS = 60

LEAST_FACTOR, LARGEST_FACTOR = 1e-3, 1e4
"""Voxels between which widths are that a stack can tell; a refinement that ends beyond has none."""

MISFIT = 2.0
"""Reduced chi^2 from which what no Gaussian describes is more than the noise."""

BORDER = 2.0
"""Sigmas: a Gaussian whose centre is nearer to a face of the stack is seen in part."""


def refine(  # noqa: PLR0913 - a name for each thing that may be known
    gaussians: Sequence[Gaussians],
    stacks: Sequence[Stack],
    *,
    likelihood: Likelihood = "poisson",
    noise: Noise | None = None,
    most_steps: int = MOST_STEPS,
    most_together: int = MOST_TOGETHER,
    widths: tuple[Floats, Floats] | None = None,
    constraints: Constraints | None = None,
    device: Device = "cpu",
    told: Told | None = None,
) -> Measurement:
    """Refine Gaussians on a stack to the largest likelihood, and say how well each is known.

    Parameters
    ----------
    gaussians : sequence of Gaussians
        Where to begin: one a channel, with equal means and covariances, in the stack's unit.
    stacks : sequence of Stack
        The channels of one stack.
    likelihood : {"robust", "poisson", "even", "squared"}
        "poisson" takes the noise for that of photons and a detector's reading. "squared" takes it
        for the same at all voxels of a window, and its size from what is left there. "even" has all
        voxels of a window count alike as well, with error bars of the noise as it is. "robust" is
        "poisson", but "even" where the reduced chi^2 is above `MISFIT`: the dim tails of what is no
        Gaussian have the least noise, and would decide about its width.
    noise : Noise, optional
        For all but "squared"; estimated from the first channel by `noise_of_neighbours` if None.
    most_steps, most_together : int
        Steps, and Gaussians refined together, at most: less of both where more is refined later.
    widths : tuple of two ndarrays, shape [3], optional
        Least and largest standard deviations along z, y and x, in the stack's unit; centres then
        stay within the largest of where they begin. What would leave them ends at them, and its
        error bars say nothing of it.
    constraints : Constraints, optional
        What is known of them before. Of `widths`, centres then heed their part, and shapes none.
    device : {"cpu", "cuda", "auto"}
        Where they are refined; on the CPU where constraints are given, and blocks of many.
    told : callable, optional
        Where not all is free, hears after each step how many Gaussians are steady, of how many.

    Returns
    -------
    Measurement
        As many Gaussians in the same order.

    Raises
    ------
    SettingsError
        If Gaussians and stacks do not belong together, or the noise cannot be estimated.
    """
    if likelihood == "robust":
        given = {"noise": noise, "most_steps": most_steps, "most_together": most_together}
        known_before = {"widths": widths, "constraints": constraints}
        return _robust(gaussians, stacks, **given, **known_before, device=device, told=told)
    _refuse_what_differs(gaussians, stacks)
    first, stack = gaussians[0], stacks[0]
    spacing = spacing_of(first, stack)
    if noise is None:
        noise = noise_of_neighbours(stack.voxels) if likelihood != "squared" else Noise(1.0)
    known = likelihood != "squared" and noise.gain > 0
    kind = {"poisson": PHOTONS, "even": EVEN}[likelihood] if known else UNKNOWN
    numbers = np.array([noise.gain or 1.0, noise.intercept, noise.saturation, kind])
    if not known:  # any unit does, as the noise is taken from the residuals: one of float32
        numbers[:2] = max(float(abs(stack.voxels).max()), 1e-30), 0.0
    shapes = _in_voxels(first, spacing)
    amplitudes = np.stack([g.amplitudes.astype(np.float64) for g in gaussians])
    voxels = _channels(stacks)
    windows = boxes_about(shapes, WINDOW, LEAST_HALF, stack.shape)
    blocks, structure = blocks_of(shapes, most_together)
    grounds = np.array([g.background for g in gaussians])
    backgrounds = np.tile(grounds, (len(blocks[0]) - 1, 1))
    limits = most_steps, _limits(widths, spacing)
    model = None if constraints is None else _model(constraints, spacing, first.unit)
    way, words = _way(device, model, told)
    fits = refined_in_turns(
        voxels, (shapes, amplitudes), blocks, windows, backgrounds, numbers, limits, model, way
    )
    if kind == PHOTONS and widths is None and not (model and model.shapes.shared):
        reaches = reaches_of(fits[1], numbers, float(np.nanmin(fits[3][:, 3:], initial=0.0)))
        rules = numbers, *limits
        fits, seen = with_surroundings(voxels, fits, blocks, windows, reaches, way, rules)
        if model is None:
            dim = are_dim(fits)
            fits = without_bias(voxels, fits, blocks, seen, reaches, numbers, dim)
    shapes, amplitudes, covariances, found = _without_lost((shapes, amplitudes), fits)
    reduced, steps = found[:, 0], found[:, 2].astype(np.int64)
    saturated = _saturated(voxels, windows, noise.saturation)
    return Measurement(
        _in_units(shapes, amplitudes, gaussians, spacing),
        _scaled(covariances, spacing),
        reduced if known else np.full(len(reduced), math.nan),
        found[:, 3:],
        steps,
        _flags(shapes, stack.shape, structure, saturated, steps, np.isnan(covariances[:, 0, 0])),
        noise if known else None,
        (*words, *(() if constraints is None else constraints.notes)),
        None if constraints is None else constraints.psf,
    )


def _robust(gaussians: Sequence[Gaussians], stacks: Sequence[Stack], **options: Any) -> Measurement:
    """Return what `refine` finds, all voxels alike where no Gaussian describes what is there."""
    found = refine(gaussians, stacks, likelihood="poisson", **options)
    wrong = np.asarray(found.reduced_chi2 > MISFIT)
    if not wrong.any():
        return found
    options["noise"] = found.noise
    even = refine(gaussians, stacks, likelihood="even", **options)
    note = (
        f"{int(wrong.sum()):,} of {len(wrong):,} are no Gaussians over a constant (reduced chi^2 "
        f"above {MISFIT:g}): all voxels about them count alike"
    )
    return replace(
        found,
        gaussians=with_others(found.gaussians, even.gaussians, wrong),
        covariances=np.where(wrong[:, None, None], even.covariances, found.covariances),
        reduced_chi2=np.where(wrong, even.reduced_chi2, found.reduced_chi2),
        backgrounds=np.where(wrong[:, None], even.backgrounds, found.backgrounds),
        steps=np.where(wrong, even.steps, found.steps),
        flags=tuple(
            pair[int(other)]
            for pair, other in zip(zip(found.flags, even.flags, strict=True), wrong, strict=True)
        ),
        notes=(*found.notes, note),
    )


def with_others(
    gaussians: Sequence[Gaussians], others: Sequence[Gaussians], where: NDArray[np.bool_]
) -> tuple[Gaussians, ...]:
    """Return Gaussians of which some are those of others.

    Parameters
    ----------
    gaussians, others : sequence of Gaussians
        As many of each, one a channel.
    where : ndarray of bool, shape [K]
        Which are those of `others`.

    Returns
    -------
    tuple of Gaussians
        One a channel, with the backgrounds and the units of `gaussians`.
    """
    return tuple(
        replace(
            one,
            means=np.where(where[:, None], other.means, one.means),
            cholesky=np.where(where[:, None], other.cholesky, one.cholesky),
            amplitudes=np.where(where, other.amplitudes, one.amplitudes),
        )
        for one, other in zip(gaussians, others, strict=True)
    )


def share_of_structures(gaussians: Gaussians, spacing: Sequence[float]) -> float:
    """Return which part of Gaussians are of many that make up a structure together.

    Parameters
    ----------
    gaussians : Gaussians
        In the unit of the spacing.
    spacing : sequence of float
        The distance between voxel centres along z, y and x, in the stack's unit.

    Returns
    -------
    float
        From 0 to 1: the part that is in clusters of more than `MOST_TOGETHER`.
    """
    _, structure = blocks_of(_in_voxels(gaussians, np.asarray(spacing, np.float64)))
    return float(structure.mean()) if len(structure) else 0.0


def _limits(widths: tuple[Floats, Floats] | None, spacing: Floats) -> Floats:
    """Return what `refine_block` keeps Gaussians within, in voxels."""
    limits = np.array([[-math.inf] * 3, [math.inf] * 3, [math.inf] * 3])
    if widths is not None:
        limits[:2] = np.log(np.asarray(widths) / spacing)
        limits[2] = widths[1] / spacing
    return limits


def _model(constraints: Constraints, spacing: Floats, unit: str) -> Model:
    """Return what is free of Gaussians, in voxels."""
    return Model(Shapes.of(constraints, spacing, unit), constraints.centres == "free")


def _way(device: Device, model: Model | None, told: Told | None) -> tuple[Refine, tuple[str, ...]]:
    """Return what refines blocks, and where, in words, if not on the CPU as asked for."""
    on_cpu: Refine = refine_blocks
    if model is not None:
        on_cpu = partial(refine_constrained, model=model, told=told)
    if device == "cpu":
        return on_cpu, ()
    from napari_gaussfit import _kernels

    chosen = _kernels.device_named(device)
    if _kernels.backend_name(chosen) == "numba":
        return on_cpu, tuple(filter(None, [_kernels.fallback(device)]))
    if model is not None:
        return on_cpu, ("refined on the CPU: constraints are not kept on a GPU",)
    from napari_gaussfit._kernels.cuda import name_of, refinement

    words = f"refined on {name_of(chosen)}; groups of more than {refinement.MOST} on the CPU"
    return refinement.Refiner(chosen), (words,)


def _without_lost(start: tuple[Floats, Floats], fits: Fits) -> Fits:
    """Return fits, with what became of no stack's size where it began, and not determined."""
    shapes, amplitudes, covariances, found = fits
    widths = shapes[:, 3 + np.array([0, 2, 5])]
    slants = np.abs(shapes[:, 3 + np.array([1, 3, 4])])
    sound = (widths >= math.log(LEAST_FACTOR)) & (widths <= math.log(LARGEST_FACTOR))
    sound &= (slants <= LARGEST_FACTOR) & np.isfinite(shapes[:, :3])
    negative = np.any(np.diagonal(covariances, axis1=1, axis2=2) < 0, axis=1)
    told = np.all(sound, axis=1) & np.all(np.isfinite(amplitudes), axis=0)
    lost = np.asarray(negative | ~told, np.bool_)
    return (
        np.where(lost[:, None], start[0], shapes),
        np.where(lost, start[1], amplitudes),
        np.where(lost[:, None, None], math.nan, covariances),
        found,
    )


def spacing_of(gaussians: Gaussians, stack: Stack) -> Floats:
    """Return the distances of voxels in the unit of Gaussians, which may be voxels.

    Parameters
    ----------
    gaussians : Gaussians
        Whose unit is that of the stack, or pixels.
    stack : Stack
        The stack whose spacing is asked for.

    Returns
    -------
    ndarray, shape [3]
        Along z, y and x; ones where the unit is pixels.
    """
    return np.asarray(stack.spacing if gaussians.unit == stack.unit else (1.0, 1.0, 1.0))


def _refuse_what_differs(gaussians: Sequence[Gaussians], stacks: Sequence[Stack]) -> None:
    if len(gaussians) != len(stacks) or not gaussians:
        message = f"{len(gaussians)} channels of Gaussians for {len(stacks)} of a stack"
        raise SettingsError(f"{message}; give one of each for every channel")
    if len({stack.shape for stack in stacks}) > 1 or len({len(g) for g in gaussians}) > 1:
        raise SettingsError("channels of several shapes or counts cannot be measured together")
    if gaussians[0].unit not in (stacks[0].unit, "pixel"):
        message = f"Gaussians in {gaussians[0].unit} cannot be measured on a stack in "
        raise SettingsError(f"{message}{stacks[0].unit}; give the stack's spacing")


def _channels(stacks: Sequence[Stack]) -> NDArray[np.float32]:
    """Return the voxels [C, Z, Y, X] of stacks; of one channel its own, if it can be."""
    own = stacks[0].voxels
    if len(stacks) == 1 and own.dtype == np.float32 and own.flags.c_contiguous:
        return own[None]
    voxels = np.empty((len(stacks), *own.shape), np.float32)
    for channel, stack in zip(voxels, stacks, strict=True):

        def some(first: int, end: int, to: NDArray[Any] = channel, of: Stack = stack) -> None:
            to[first:end] = of.voxels[first:end]

        run_pieces(some, len(channel))
    return voxels


def _in_voxels(gaussians: Gaussians, spacing: Floats) -> Floats:
    """Return centres and Cholesky parameters [K, 9] in voxels."""
    shapes = np.empty((len(gaussians), SHAPE))
    shapes[:, :3] = gaussians.means / spacing
    shapes[:, 3:] = gaussians.cholesky
    shapes[:, [3, 5, 8]] -= np.log(spacing)
    shapes[:, [4, 6, 7]] /= spacing[[1, 2, 2]]
    return shapes


def _in_units(
    shapes: Floats, amplitudes: Floats, before: Sequence[Gaussians], spacing: Floats
) -> tuple[Gaussians, ...]:
    """Return the refined Gaussians of all channels."""
    cholesky = shapes[:, 3:].copy()
    cholesky[:, [0, 2, 5]] += np.log(spacing)
    cholesky[:, [1, 3, 4]] *= spacing[[1, 2, 2]]
    return tuple(
        Gaussians(shapes[:, :3] * spacing, cholesky, own, g.background, g.unit)
        for own, g in zip(amplitudes, before, strict=True)
    )


def _scaled(covariances: Floats, spacing: Floats) -> Floats:
    """Return covariances of parameters in voxels in the stack's unit."""
    scale = np.ones(covariances.shape[1])
    scale[:3] = spacing
    scale[[4, 6, 7]] = spacing[[1, 2, 2]]
    return covariances * scale[:, None] * scale


def _saturated(
    voxels: NDArray[np.float32], windows: Counts, saturation: float
) -> NDArray[np.bool_]:
    """Return in whose windows a voxel is saturated."""
    if not math.isfinite(saturation):
        return np.zeros(len(windows), np.bool_)
    full: NDArray[np.bool_] = np.any(voxels >= saturation, axis=0)
    return np.array(
        [full[a : b + 1, c : d + 1, e : f + 1].any() for a, b, c, d, e, f in windows], np.bool_
    )


def _flags(
    shapes: Floats,
    shape: tuple[int, int, int],
    structure: NDArray[np.bool_],
    saturated: NDArray[np.bool_],
    steps: Counts,
    unknown: NDArray[np.bool_],
) -> tuple[str, ...]:
    """Return what keeps each Gaussian's numbers from being trusted."""
    half = BORDER * half_sides(shapes)
    last = np.subtract(shape, 1)
    border = np.any((shapes[:, :3] < half) | (shapes[:, :3] > last - half), axis=1)
    words = {
        "one of many in a structure": structure,
        "at the border": border,
        "saturated": saturated,
        "not converged": steps < 0,
        NOT_DETERMINED: unknown,
    }
    flags = [""] * len(shapes)
    for k in np.flatnonzero(np.any([*words.values()], axis=0)):
        flags[k] = "; ".join(word for word, holds in words.items() if holds[k])
    return tuple(flags)
