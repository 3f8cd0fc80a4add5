"""`measure`: a fit, Gaussians or points, measured on their stack, and how well each is known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import numpy as np

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure import refinement
from napari_gaussfit.measure.measurement import NOT_DETERMINED
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.photon_transfer import curve_of, photon_transfer
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import Gaussians, counted
from napari_gaussfit.stacks.statistics import background_of, peak_widths, smoothed, summits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_gaussfit.measure.constraints import Constraints
    from napari_gaussfit.measure.measurement import Measurement
    from napari_gaussfit.measure.refinement import Likelihood
    from napari_gaussfit.measure.shared import Told
    from napari_gaussfit.settings import Device
    from napari_gaussfit.stacks.stack import Stack

    Floats = NDArray[np.float64]

__all__ = ["measure", "worth_measuring"]

T = TypeVar("T")

STRUCTURE = 0.5
"""Part of the Gaussians that make up structures, above which measuring them means nothing."""


MORE = 1.05
"""By what the variance of what is left may be more than that among neighbours, by chance."""

BEYOND = 1.5
"""Voxels beyond the first and last centres that a refinement may end: light whose maximum lies
farther out is a tail alone, which any amplitude explains."""


class _Fit(Protocol):
    """A fit of a stack, of which only the Gaussians are looked at."""

    @property
    def fields(self) -> tuple[GaussianField, ...]:
        """The Gaussians of each channel."""


def measure(
    what: _Fit | Gaussians | GaussianField | Sequence[Gaussians | GaussianField] | ArrayLike,
    stack: Stack | Sequence[Stack],
    *,
    likelihood: Likelihood = "robust",
    noise: Noise | None = None,
    constraints: Constraints | None = None,
    device: Device = "cpu",
    told: Told | None = None,
) -> Measurement:
    """Refine Gaussians on a stack to the largest likelihood, and say how well each is known.

    Parameters
    ----------
    what : FitResult, GaussianField, Gaussians, or array-like of shape [P, 3]
        What to measure: a fit, Gaussians from anywhere (of several channels, one each), or
        positions z, y, x in the stack's unit, about each of which a Gaussian begins that is as
        wide as the stack's curvature says.
    stack : Stack or sequence of Stack
        The stack, or its channels.
    likelihood : {"robust", "poisson", "even", "squared"}
        "poisson" weighs voxels by the noise of photons and of a detector's reading, which is as
        near to the truth as photons allow, where there are Gaussians. "even" weighs the voxels of a
        window alike, with error bars of the same noise. "robust" is "poisson", and "even" where
        there is no Gaussian over a constant (`refinement.MISFIT`): its dim tails would decide about
        the width. "squared" weighs them alike, and takes the noise from what is left there.
    noise : Noise, optional
        For all but "squared". If None, the stack's, by `photon_transfer`, and then that of what the
        Gaussians leave; where it cannot be known, likelihood is "squared", and the notes say so.
    constraints : Constraints, optional
        What is known of them before: widths, centres, shapes, what light makes of a point.
    device : {"cpu", "cuda", "auto"}
        Where they are refined. On a GPU single Gaussians and groups of a few; the notes say it.
    told : callable, optional
        Where widths are shared, hears after each step how many Gaussians are steady, of how many.

    Returns
    -------
    Measurement
        As many Gaussians in the same order. Those that did not converge are as they were, without
        error bars.

    Raises
    ------
    SettingsError
        If Gaussians and stacks do not belong together.

    Examples
    --------
    >>> from napari_gaussfit import measure
    >>> from napari_gaussfit.synthetic.phantoms import beads
    >>> phantom = beads(count=3)
    >>> found = measure(phantom.truth, phantom.stack)
    >>> sorted(found.errors())[:3]
    ['sd_amplitude', 'sd_background', 'sd_fwhm_1']
    """
    stacks = _listed(stack)
    began = gaussians = _gaussians(what, stacks)
    notes: tuple[str, ...] = ()
    if likelihood != "squared" and noise is None:
        curve = curve_of(stacks[0])
        noise = curve.noise
        if noise is None:
            likelihood = "squared"
            why = "errors follow from what is left about each Gaussian, and there is no chi^2"
            notes = (f"the noise {curve.words}; {why}",)
        else:
            first = refinement.refine(
                began,
                stacks,
                likelihood=likelihood,
                noise=noise,
                constraints=constraints,
                device=device,
                told=told,
            )
            first = _without_lost(first, began, stacks[0])
            gaussians, noise = first.gaussians, _refined_noise(first, stacks[0], noise)
    found = refinement.refine(
        gaussians,
        stacks,
        likelihood=likelihood,
        noise=noise,
        constraints=constraints,
        device=device,
        told=told,
    )
    return replace(_without_lost(found, began, stacks[0]), notes=(*notes, *found.notes))


def _without_lost(found: Measurement, before: tuple[Gaussians, ...], stack: Stack) -> Measurement:
    """Return a measurement whose Gaussians that did not converge, or left, are as they were."""
    left = _outside(found.gaussians[0], stack) & ~_outside(before[0], stack)
    lost = (found.steps <= 0) | left
    if not lost.any():
        return found
    gaussians = refinement.with_others(found.gaussians, before, lost)
    covariances = np.where(lost[:, None, None], np.nan, found.covariances)
    flags = [
        "; ".join(filter(None, (flag, NOT_DETERMINED)))
        if gone and NOT_DETERMINED not in flag
        else flag
        for flag, gone in zip(found.flags, left, strict=True)
    ]
    return replace(found, gaussians=gaussians, covariances=covariances, flags=tuple(flags))


def _outside(gaussians: Gaussians, stack: Stack) -> NDArray[np.bool_]:
    """Return whose centres lie beyond the stack's edges."""
    centres = gaussians.means / refinement.spacing_of(gaussians, stack)
    last = np.subtract(stack.shape, 1)
    outside: NDArray[np.bool_] = np.any((centres < -BEYOND) | (centres > last + BEYOND), axis=1)
    return outside


def _refined_noise(first: Measurement, stack: Stack, noise: Noise) -> Noise:
    """Return the noise of what refined Gaussians leave, if there is less than among neighbours.

    It is known better; where Gaussians describe only a part of the stack, the rest is in it.
    """
    z, y, x = refinement.spacing_of(first.gaussians[0], stack)
    light = first.fields[0].voxelise(stack.shape, (z, y, x)).numpy()
    curve = photon_transfer(stack.voxels, light)
    if curve.noise is None:
        return noise
    by = curve.counts
    found, known = (
        np.average(one.variance(curve.levels), weights=by) for one in (curve.noise, noise)
    )
    return curve.noise if found < MORE * known else noise


def worth_measuring(gaussians: Gaussians, spacing: Sequence[float]) -> tuple[bool, str]:
    """Tell whether numbers of single Gaussians mean something.

    Parameters
    ----------
    gaussians : Gaussians
        Gaussians of a fit, whose overlaps are looked at.
    spacing : sequence of float
        (dz, dy, dx) of the stack, in their unit.

    Returns
    -------
    bool
        Whether at least half of them stand alone or in small groups.
    str
        How many do, for a person.
    """
    count = len(gaussians)
    parts = round(count * refinement.share_of_structures(gaussians, spacing))
    if parts > STRUCTURE * count:
        return False, (
            f"{parts:,} of {count:,} Gaussians make up structures together, and have no meaning of "
            "their own"
        )
    stand = "stands" if count == 1 else "stand"
    return True, f"{count - parts:,} of {counted(count)} {stand} alone or in small groups"


def _listed(given: T | Sequence[T]) -> tuple[T, ...]:
    return tuple(given) if isinstance(given, (list, tuple)) else (cast("T", given),)


def _gaussians(what: object, stacks: tuple[Stack, ...]) -> tuple[Gaussians, ...]:
    """Return the Gaussians to begin with, one a channel."""
    channels = getattr(what, "fields", what)
    several = channels if isinstance(channels, (list, tuple)) and channels else (channels,)
    if all(isinstance(one, (Gaussians, GaussianField)) for one in several):
        return tuple(one.numpy() if isinstance(one, GaussianField) else one for one in several)
    points = np.asarray(what, np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise SettingsError(
            f"what is to be measured has shape {points.shape}; expected a fit, Gaussians, or "
            "points [P, 3], z, y, x"
        )
    return tuple(_at_points(points, stack) for stack in stacks)


def _at_points(points: Floats, stack: Stack) -> Gaussians:
    """Return Gaussians at points, as wide as the stack's curvature says, and as bright."""
    spacing = np.asarray(stack.spacing)
    voxels = points / spacing
    outside = ((voxels < -0.5) | (voxels > np.array(stack.shape) - 0.5)).any(axis=1)
    if outside.any():
        place = ", ".join(f"{n:.6g}" for n in points[np.argmax(outside)])
        raise SettingsError(f"the point at {place} lies outside of the stack {stack.name!r}")
    calm = smoothed(np.asarray(stack.voxels, np.float32))
    background, _ = background_of(calm)
    tops = summits(calm - np.float32(background), voxels)
    widths = peak_widths(calm - np.float32(background), tops) * spacing
    cholesky = np.zeros((len(points), 6))
    cholesky[:, [0, 2, 5]] = np.log(widths)
    heights = calm[tuple(tops.T)].astype(np.float64) - background
    return Gaussians(points, cholesky, np.maximum(heights, 1e-9), background, stack.unit)
