"""Gaussians without the blur of a microscope: objects' own widths, with errors, and their light.

A Gaussian blurred by a Gaussian is one: Sigma = Sigma_object + Sigma_psf. What is left of a
measured covariance without the point spread function's is the object's. Its error bar is that of a
variance: of an object that is no wider than light allows, it tells how wide it may be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.measure.measurement import SHAPE
from napari_gaussfit.measure.principal import variances_between, without_order
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA, Gaussians

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.measure.measurement import Measurement
    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.measure.psf import Psf

    Floats = NDArray[np.float64]

__all__ = ["deblurred", "object_columns", "object_variances", "object_widths"]

NOTHING = 1e-6
"""Of the blur's variance: what is less is what rounding of single precision leaves of 0."""

NARROWEST = 0.5
"""Of a voxel: the least standard deviation of what is shown without blur, or voxels miss it."""


def object_variances(
    gaussians: Gaussians, psf: Psf, covariances: Floats | None = None
) -> tuple[Floats, Floats, Floats]:
    """Return the variances of objects along their own axes, these, and the errors of the first.

    Parameters
    ----------
    gaussians : Gaussians
        The Gaussians as they were fitted, with the blur.
    psf : Psf
        The point spread function that they are blurred by.
    covariances : ndarray, shape [K, P, P], optional
        As of a `Measurement`: of each Gaussian's parameters.

    Returns
    -------
    variances : ndarray, shape [K, 3]
        Descending, in the Gaussians' unit squared; 0 where one is no wider than light allows.
    axes : ndarray, shape [K, 3, 3]
        ``axes[k, n]`` is the unit vector (z, y, x) of ``variances[k, n]``.
    errors : ndarray, shape [K, 3]
        NaN where not known.
    """
    values, axes, between = _own(gaussians, psf, covariances)
    return _told(values, gaussians, psf), axes, _errors(between)


def object_widths(
    gaussians: Gaussians, psf: Psf, covariances: Floats | None = None
) -> tuple[Floats, Floats]:
    """Return the standard deviations of objects along their own axes, and the errors of these.

    Parameters
    ----------
    gaussians : Gaussians
        The Gaussians as they were fitted, with the blur.
    psf : Psf
        The point spread function that they are blurred by.
    covariances : ndarray, shape [K, P, P], optional
        As of a `Measurement`: of each Gaussian's parameters.

    Returns
    -------
    widths : ndarray, shape [K, 3]
        Descending, in the Gaussians' unit; 0 where one is no wider than light allows. Where errors
        are known, without the bias of their order (see `principal`).
    errors : ndarray, shape [K, 3]
        Of a width w whose square is known to s: the larger of the distances to the roots of w^2 + s
        and w^2 - s. Beside a width of 0, how wide the object may be. NaN where not known.
    """
    values, _, between = _own(gaussians, psf, covariances)
    variances = _told(without_order(values, between), gaussians, psf)
    spread = _errors(between)
    spread = np.where(spread > 0, spread, np.nan)  # of what is given there is none
    widths = np.sqrt(variances)
    above = np.sqrt(variances + spread) - widths
    below = widths - np.sqrt(np.maximum(variances - spread, 0.0))
    return widths, np.maximum(above, below)


def _own(
    gaussians: Gaussians, psf: Psf, covariances: Floats | None
) -> tuple[Floats, Floats, Floats]:
    """Return eigenvalues [K, 3] of covariances without blur, descending, and their axes.

    And how well the covariance is known between these, [K, 3, 3]; NaN where it is not known.
    """
    values, vectors = np.linalg.eigh(gaussians.covariances - psf.in_unit(gaussians.unit))
    axes = np.ascontiguousarray(vectors.swapaxes(1, 2)[:, ::-1])
    between = np.full_like(axes, np.nan)
    if covariances is not None:
        between = variances_between(gaussians, axes, covariances[:, 3:SHAPE, 3:SHAPE])
    return np.ascontiguousarray(values[:, ::-1]), axes, between


def _told(values: Floats, gaussians: Gaussians, psf: Psf) -> Floats:
    """Return variances, 0 where they are no more than rounding leaves."""
    nothing = NOTHING * np.trace(psf.in_unit(gaussians.unit))
    return np.where(values > nothing, values, 0.0)


def _errors(between: Floats) -> Floats:
    """Return the errors [K, 3] of variances along axes, by those [K, 3, 3] between them."""
    errors: Floats = np.sqrt(np.diagonal(between, axis1=1, axis2=2))
    return errors


def object_columns(
    gaussians: Gaussians, psf: Psf, measurement: Measurement | None = None
) -> dict[str, NDArray[np.generic]]:
    """Return the columns of objects' own widths.

    Parameters
    ----------
    gaussians : Gaussians
        The Gaussians as they were fitted, with the blur.
    psf : Psf
        The point spread function that they are blurred by.
    measurement : Measurement, optional
        The measurement of these Gaussians, for the error bars.

    Returns
    -------
    dict of str to ndarray, shape [K]
        object_fwhm_1 .. 3, descending, in the Gaussians' unit, and sd_object_fwhm_1 .. 3, NaN where
        not known.
    """
    known = None if measurement is None else measurement.covariances
    widths, errors = object_widths(gaussians, psf, known)
    columns: dict[str, NDArray[np.generic]] = {}
    for name, values in (("object_fwhm", widths), ("sd_object_fwhm", errors)):
        columns |= {f"{name}_{n + 1}": FWHM_PER_SIGMA * values[:, n] for n in range(3)}
    return columns


def deblurred(
    channels: Sequence[Gaussians],
    psf: Psf,
    spacing: Sequence[float],
    *,
    measurement: Measurement | None = None,
    noise: Noise | None = None,
) -> tuple[Gaussians, ...]:
    """Return the light of objects before it was blurred, as far as the noise tells it.

    Parameters
    ----------
    channels : sequence of Gaussians
        Blurred; of each channel.
    psf : Psf
        The point spread function that they are blurred by.
    spacing : sequence of float
        (dz, dy, dx) of the voxels that show it: nothing is narrower than half of one.
    measurement : Measurement, optional
        Of these Gaussians: no variance of an object is less than its error.
    noise : Noise, optional
        Where there is no measurement, the same by what the noise lets be known of a Gaussian that
        is alone, which is the least that its error can be.

    Returns
    -------
    tuple of Gaussians
        As bright in all as before, and so brighter at their centres.
    """
    first = channels[0]
    known = None if measurement is None else measurement.covariances
    variances, axes, floor = object_variances(first, psf, known)
    if measurement is None and noise is not None:
        along = np.einsum("kni,kij,knj->kn", axes, first.covariances, axes)
        floor = along * _relative_errors(channels, noise, spacing)[:, None]
    floor = np.where(np.isfinite(floor), floor, 0.0)
    voxel = np.square(NARROWEST * np.asarray(spacing, np.float64))
    shown = np.maximum(variances, np.maximum(floor, (axes**2 * voxel).sum(-1)))
    covariances = axes.swapaxes(1, 2) @ (shown[..., None] * axes)
    before = np.exp(first.log_widths.sum(1))
    return tuple(
        Gaussians.from_covariances(
            one.means,
            covariances,
            one.amplitudes * before / np.sqrt(shown.prod(1)),
            background=one.background,
            unit=one.unit,
        )
        for one in channels
    )


def _relative_errors(
    channels: Sequence[Gaussians], noise: Noise, spacing: Sequence[float]
) -> Floats:
    """Return the least error [K] of a variance along an axis, in parts of it.

    Of a Gaussian alone, on noise that is even over it, the Fisher matrix of the logarithms of
    amplitude and widths is q times [1, 1/2; 1/2, 3/4 or 1/4], with q = a^2 pi^(3/2) s / v, s the
    product of its sigmas in voxels and v the noise's variance. So a log-width is known to
    sqrt(2 / q), and a variance to twice that.
    """
    volume = np.exp(channels[0].log_widths.sum(1)) / np.prod(spacing)
    known = np.zeros(len(channels[0]))
    for one in channels:
        amplitudes = one.amplitudes.astype(np.float64)
        variance = noise.variance(np.maximum(amplitudes, 0.0) + one.background)
        known += amplitudes**2 * np.pi**1.5 * volume / np.maximum(variance, 1e-300)
    return np.asarray(2 * np.sqrt(2 / np.maximum(known, 1e-300)), np.float64)
