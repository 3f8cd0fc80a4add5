"""Beads: found in a stack, measured, and those that do not count told from the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.psf import Psf, triple
from napari_gaussfit.measure.refinement import refine
from napari_gaussfit.measure.table import AXES, measurements
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA, Gaussians
from napari_gaussfit.stacks.statistics import background_of, smoothed

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from napari_gaussfit.measure.measurement import Measurement
    from napari_gaussfit.stacks.stack import Stack

    Floats = NDArray[np.float64]

__all__ = ["Beads", "measure_beads"]

PART = 0.15
"""Of the brightest voxel above the background: where a bead begins."""

SIGMAS = 6.0
"""Of the smoothed noise above the background, at which a bead begins at least."""

LEAST_VOXELS = 8
"""Of a bead: fewer are a hot pixel."""

APART = 6.0
"""Standard deviations of a bead within which no other may be: its window ends at 3.5."""

LEAST_EXPLAINED = 0.85
"""Part of the variance of its window that a bead's Gaussian explains: two beads that touch, or a
clump, are explained worse."""

OTHERS = 0.3
"""By what a bead's FWHM may differ from the median of all, where there are four or more."""

UNSURE = 0.1
"""Error of a FWHM, in parts of it, beyond which a bead is too dim."""


@dataclass(frozen=True, eq=False)
class Beads:
    """Beads of a stack, measured.

    Parameters
    ----------
    stack : Stack
        The stack that the beads lie in.
    measurement : Measurement
        The Gaussian of each bead with its errors.
    explained : ndarray, shape [K]
        Part of the variance of its window that each one's Gaussian explains.
    refused : tuple of str
        Why a bead does not count; empty where it does.
    """

    stack: Stack
    measurement: Measurement
    explained: Floats
    refused: tuple[str, ...]

    @property
    def good(self) -> NDArray[np.bool_]:
        """Which beads count [K]."""
        return np.array([not why for why in self.refused], np.bool_)

    @property
    def fwhm(self) -> Floats:
        """Full widths at half maximum along z, y and x [K, 3], in micrometres."""
        return FWHM_PER_SIGMA * self.measurement.along_axes()[0]

    def table(self) -> pd.DataFrame:
        """Return a row for each bead: the columns of `measurements`, and those of a PSF.

        Returns
        -------
        DataFrame
            Also fwhm_z, fwhm_y, fwhm_x and their standard deviations, explained, and refused.
        """
        field = self.measurement.fields[0]
        table = measurements(field, self.stack.spacing, measurement=self.measurement)
        errors = FWHM_PER_SIGMA * self.measurement.along_axes()[1]
        for n, axis in enumerate(AXES):
            table[f"fwhm_{axis}"] = self.fwhm[:, n]
            table[f"sd_fwhm_{axis}"] = errors[:, n]
        return table.assign(explained=self.explained, refused=list(self.refused))

    def psf(self) -> Psf:
        """Return the mean of the beads that count.

        Raises
        ------
        SettingsError
            If none does.
        """
        good = self.good
        if not good.any():
            reasons = "; ".join(dict.fromkeys(self.refused)) or "no bead was found"
            raise SettingsError(f"{self.stack.name}: no bead can be measured: {reasons}")
        principal = FWHM_PER_SIGMA * self.measurement.principal_widths[0][good]
        rows = self.measurement.gaussians[0].covariances[good].mean(axis=0)
        return Psf(
            *_mean_and_sd(self.fwhm[good]),
            *_mean_and_sd(principal),
            tuple(triple(row) for row in rows),
            int(good.sum()),
            self.stack.name,
        )


def measure_beads(stack: Stack) -> Beads:
    """Find the beads of a stack, and measure each with its error bars.

    Squared error over a window of 3.5 standard deviations with a background of its own: in the
    tails, which no Gaussian describes, what is bright must not count for more than it is.

    Parameters
    ----------
    stack : Stack
        With its spacing in micrometres; beads that are smaller than light resolves, apart from each
        other.

    Returns
    -------
    Beads
        All that were found, also those that do not count.

    Raises
    ------
    SettingsError
        If the stack has no spacing.
    """
    if stack.unit != "micrometer":
        raise SettingsError(
            f"{stack.name}: its spacing is not known; give it (--spacing DZ DY DX), since widths "
            "in pixels tell no resolution"
        )
    start = _found(stack)
    if not len(start):
        raise SettingsError(
            f"{stack.name}: no bead stands out from the noise; check channel and time, or record "
            "brighter ones"
        )
    found = refine([start], [stack], likelihood="squared")
    explained = np.array([_explained(stack, found, k) for k in range(len(found))])
    return Beads(stack, found, explained, _refusals(found, explained))


def _found(stack: Stack) -> Gaussians:
    """Return a Gaussian for each bright blob, by its moments."""
    from scipy import ndimage

    calm = smoothed(np.asarray(stack.voxels, np.float32))
    background, noise = background_of(calm)
    signal = np.maximum(calm - np.float32(background), 0.0)
    labels, count = ndimage.label(signal > max(PART * float(signal.max()), SIGMAS * noise))
    spacing = np.asarray(stack.spacing)
    means, covariances, heights = [], [], []
    for n, part in enumerate(ndimage.find_objects(labels), 1):
        inside = labels[part] == n
        if inside.sum() < LEAST_VOXELS or count == 0:
            continue
        weights = np.where(inside, signal[part], 0.0).astype(np.float64)
        places = np.moveaxis(np.indices(inside.shape), 0, -1) + [axis.start for axis in part]
        mean = np.average(places.reshape(-1, 3), axis=0, weights=weights.ravel())
        offsets = (places - mean).reshape(-1, 3)
        moments = (weights.ravel()[:, None] * offsets).T @ offsets / weights.sum()
        means.append(mean * spacing)
        # What lies below the threshold is missing, and a voxel has a width of its own.
        covariances.append((1.2 * moments + 0.1 * np.eye(3)) * spacing[:, None] * spacing)
        heights.append(float(weights.max()))
    return Gaussians.from_covariances(
        np.reshape(means, (-1, 3)), np.reshape(covariances, (-1, 3, 3)), heights,
        background=background, unit=stack.unit,
    )  # fmt: skip


def _explained(stack: Stack, found: Measurement, k: int) -> float:
    """Return which part of the variance about a bead its Gaussian explains."""
    gaussians = found.gaussians[0]
    spacing = np.asarray(stack.spacing)
    half = 3.0 * np.sqrt(np.diag(gaussians.covariances[k]))
    last = np.array(stack.shape) - 1
    first, end = (
        np.clip(np.rint((gaussians.means[k] + side * half) / spacing), 0, last).astype(int)
        for side in (-1, 1)
    )
    part = tuple(slice(a, b + 1) for a, b in zip(first, end, strict=True))
    voxels = stack.voxels[part].astype(np.float64)
    if voxels.size < 2 or not voxels.std() > 0:
        return 0.0
    places = np.moveaxis(np.indices(voxels.shape), 0, -1) + first
    offsets = places * spacing - gaussians.means[k]
    squares = np.einsum("...i,ij,...j", offsets, np.linalg.inv(gaussians.covariances[k]), offsets)
    light = gaussians.amplitudes[k] * np.exp(-0.5 * squares) + found.backgrounds[k, 0]
    return float(1 - np.square(voxels - light).mean() / voxels.var())


def _refusals(found: Measurement, explained: Floats) -> tuple[str, ...]:
    """Return why each bead does not count."""
    means = found.gaussians[0].means
    sigmas, errors = found.along_axes()
    refused = list(found.flags)
    for k, why in enumerate(refused):
        apart = np.abs(means - means[k]) / np.maximum(sigmas[k], 1e-12)
        near = np.linalg.norm(apart, axis=1) < APART
        near[k] = False
        unsure = errors[k] / sigmas[k]
        if why:
            continue
        if near.any():
            distance = float(np.linalg.norm(means[near] - means[k], axis=1).min())
            refused[k] = f"another bead is {distance:.3g} micrometers away"
        elif not (unsure < UNSURE).all():
            refused[k] = f"too dim: a width is known to {100 * np.nanmax(unsure):.0f} %"
        elif explained[k] < LEAST_EXPLAINED:
            refused[k] = (
                f"no single bead: a Gaussian explains {100 * explained[k]:.0f} % of it, "
                f"expected {100 * LEAST_EXPLAINED:.0f} %"
            )
    good = [k for k, why in enumerate(refused) if not why]
    if len(good) >= 4:
        ratios = sigmas / np.median(sigmas[good], axis=0)
        for k in good:
            n = int(np.argmax(np.abs(ratios[k] - 1)))
            if abs(ratios[k, n] - 1) > OTHERS:
                refused[k] = f"{ratios[k, n]:.2f} times as wide along {AXES[n]} as the others"
    return tuple(refused)


def _mean_and_sd(
    values: Floats,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return means and standard deviations over beads [N, 3]; NaN where one is all."""
    sd = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(3, np.nan)
    return triple(values.mean(axis=0)), triple(sd)
