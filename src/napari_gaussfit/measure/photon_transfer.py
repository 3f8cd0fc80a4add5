"""The photon-transfer curve: variances of second differences against the light.

The one estimator of a stack's noise (J. R. Janesick, Photon Transfer, SPIE 2007).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.differences import LEAST_VOXELS, MOST_VOXELS, SHARED, Samples
from napari_gaussfit.measure.noise import LEAST_ALIKE, Noise, saturation_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from napari_gaussfit.measure.differences import Bins
    from napari_gaussfit.stacks.stack import Stack

    Floats = NDArray[np.float64]

__all__ = [
    "PhotonTransfer",
    "curve_of",
    "noise_of_neighbours",
    "noise_of_residuals",
    "photon_transfer",
]

NO_NOISE = 1e-5
"""Of a stack's range: noise below is that of single precision."""

FLAT = 0.1
"""Of the noise's standard deviation: light that varies by no more tells no gain. A fit of nothing
but noise has such light, and the line through it had a gain of millions."""

TRUSTED, BENT = 0.03, 1.5
"""Parts of a variance to which a bin is trusted at best, since structure may add to it, and errors
of a bin beyond which it counts for less (Huber)."""

SMOOTH = 1.4
"""By what differences of voxels two apart may have more variance than those of neighbours: noise
has no more, unless voxels were smoothed (by 0.4 voxels: 2; by 0.7: 14)."""

ROUNDING = 0.2
"""Variance, in steps squared, of rounding (1 / 12) and of hardly anything else."""

LOWEST_SHARE, CUT = 0.02, 0.5
"""Share of voxels at the lowest value in a bin from which its background may be cut off, and the
part of the variance that the brighter bins lead to expect which then is missing."""

RARE = 1e-4
"""Voxels a step above the lowest value for one at it, below which none were recorded there."""

FEW = 0.1
"""Part of the bins that may look like noise by chance."""

STEP_SAMPLE = 2**18
"""Voxels among which steps of the intensity are looked for."""

NARROWEST, WIDEST = 2.0**-40, 2.0**60
"""Ranges of intensity whose squares, and those of the noise in them, single precision holds."""

MOST = 1e150
"""Intensities from which on squares overflow, or, of its inverse, vanish."""


@dataclass(frozen=True, eq=False)
class PhotonTransfer:
    """The photon-transfer curve of a stack, the line through it, or why there is none.

    Parameters
    ----------
    levels, variances : ndarray, shape [B]
        Light and variance of the noise in bins of brightness, in raw intensity and its square.
    counts : ndarray, shape [B]
        Number of voxels in each bin.
    line : Noise or None
        Through them, whatever they are of; None where there is no variance.
    why_not : str
        Why the noise cannot be known; empty where it can.
    """

    levels: Floats
    variances: Floats
    counts: Floats
    line: Noise | None
    why_not: str = ""

    @property
    def noise(self) -> Noise | None:
        """The noise; None where it cannot be known."""
        return None if self.why_not else self.line

    @property
    def words(self) -> str:
        """The noise, or why it cannot be known, for a person."""
        return self.noise.words if self.noise else f"cannot be known: {self.why_not}"

    def variance(self, light: NDArray[np.floating]) -> Floats:
        """Return the variance of the noise at some light, by the line or else by the curve.

        Parameters
        ----------
        light : ndarray
            Raw intensity without noise.

        Returns
        -------
        ndarray
            As many, in raw intensity squared; 0 where the stack tells nothing.
        """
        if self.noise is not None:
            return self.noise.variance(light)
        if len(self.levels):
            variance: Floats = np.interp(light, self.levels, self.variances)
            return variance
        return np.zeros(light.shape)

    def known(self) -> Noise:
        """Return the noise.

        Raises
        ------
        SettingsError
            If it cannot be known.
        """
        if self.noise is None:
            message = f"the noise cannot be known: {self.why_not}; give it "
            raise SettingsError(message + "(gain, offset and read noise)")
        return self.noise

    def rescaled(self, factor: float, zero: float = 0.0) -> PhotonTransfer:
        """Return the curve of the same voxels in other units, see `Noise.rescaled`.

        Parameters
        ----------
        factor, zero : float
            Factor and offset of the new unit: factor v + zero, where v is in this one's.

        Returns
        -------
        PhotonTransfer
            Of factor v + zero, where this is of v.
        """
        return replace(
            self,
            levels=self.levels * factor + zero,
            variances=self.variances * factor**2,
            line=self.line and self.line.rescaled(factor, zero),
        )


def noise_of_neighbours(voxels: ArrayLike, *, most: int = MOST_VOXELS) -> Noise:
    """Estimate a stack's noise before a fit, from voxels and their neighbours.

    Parameters
    ----------
    voxels : array-like, shape [Z, Y, X]
        The stack's voxels, in raw intensity as they were recorded.
    most : int, default 2,097,152
        Voxels that are looked at, about.

    Returns
    -------
    Noise
        Structure that is as fine as a voxel counts as noise, and what was smoothed away does not:
        `photon_transfer` tells.

    Raises
    ------
    SettingsError
        If the stack is too small, or has no noise.
    """
    return _line_of(photon_transfer(voxels, most=most))


def noise_of_residuals(voxels: ArrayLike, fitted: ArrayLike, *, most: int = MOST_VOXELS) -> Noise:
    """Estimate a stack's noise after a fit, from what the fit leaves.

    Parameters
    ----------
    voxels, fitted : array-like, shape [Z, Y, X]
        Raw intensity as it was recorded, and as the fit has it, with its background.
    most : int, default 2,097,152
        Voxels that are looked at, about.

    Returns
    -------
    Noise
        What the fit does not describe counts as noise where it is as fine as a voxel.

    Raises
    ------
    SettingsError
        If the stack is too small, or nothing is left.
    """
    return _line_of(photon_transfer(voxels, fitted, most=most))


def _line_of(curve: PhotonTransfer) -> Noise:
    if curve.line is None:
        raise SettingsError(f"the stack has no noise: {curve.why_not}")
    return curve.line


_CURVES: WeakKeyDictionary[Stack, PhotonTransfer] = WeakKeyDictionary()


def curve_of(stack: Stack) -> PhotonTransfer:
    """Return the `photon_transfer` of a stack, found once for each.

    Parameters
    ----------
    stack : Stack
        Whose voxels do not change, as those of no stack do.

    Returns
    -------
    PhotonTransfer
        With the noise, or why it cannot be known.
    """
    if stack not in _CURVES:
        _CURVES[stack] = photon_transfer(stack.voxels)
    return _CURVES[stack]


def photon_transfer(
    voxels: ArrayLike, fitted: ArrayLike | None = None, *, most: int = MOST_VOXELS
) -> PhotonTransfer:
    """Return variance against light of a stack, and the line through it.

    Variances are those of second differences along all axes, the light is the mean of the same
    voxels, or that of a fit. A line cannot be had where a background was cut off, where voxels were
    smoothed, interpolated or deconvolved, where next to no noise is left beside the rounding to
    steps of intensity, or where a stack has no neighbours.

    Parameters
    ----------
    voxels : array-like, shape [Z, Y, X]
        The stack's voxels, in raw intensity as they were recorded.
    fitted : array-like, shape [Z, Y, X], optional
        As a fit has it, with its background; differences are of what it leaves.
    most : int, default 2,097,152
        Voxels that are looked at, about: of a larger stack, parts that are evenly spread.

    Returns
    -------
    PhotonTransfer
        With the noise, or why it cannot be known.
    """
    known = np.asarray(voxels)
    level = None if fitted is None else np.asarray(fitted)
    both = [known] if level is None else [known, level]
    bottom, top = min(float(one.min()) for one in both), max(float(one.max()) for one in both)
    if max(-bottom, top) > MOST or 0 < top - bottom < 1 / MOST:
        return _no_curve(f"squares of intensities from {bottom:g} to {top:g} cannot be computed")
    unit = _unit(top - bottom)
    if unit != 1.0:
        scaled = [np.divide(one, unit, dtype=np.float64) for one in both]
        return photon_transfer(*scaled, most=most).rescaled(unit)
    lowest = known.min()
    near = Samples.of(known, level, lowest, lag=1, most=most)
    if not near.squares.size:
        return _no_curve("fewer than 3 voxels along each axis tell no noise from structure")
    bins = near.binned()
    levels, variances, _, counts = bins
    levels += float(lowest)

    def far() -> Floats:
        return Samples.of(known, level, lowest, lag=2, most=most, alone=True).variances()[0]

    why = _why_not(known, bins, far)
    line = None
    if (variances > 0).any():
        gain, intercept = _line(levels, variances, counts)
        line = Noise(gain, intercept, saturation_of(known))
    return PhotonTransfer(levels, variances, counts, line, why)


def _no_curve(why: str) -> PhotonTransfer:
    nothing = np.zeros(0)
    return PhotonTransfer(nothing, nothing, nothing, None, why)


def _unit(width: float) -> float:
    """Return a power of two in which a range of intensity is one whose squares can be held."""
    if width == 0 or NARROWEST <= width <= WIDEST:
        return 1.0
    return 2.0 ** math.frexp(width)[1]


def _why_not(known: NDArray[Any], near: Bins, far: Callable[[], Floats]) -> str:
    """Return why the variances of differences are not those of noise, or nothing.

    far : what gives the variances [B] of differences of voxels two apart.
    """
    _, variances, shares, counts = near
    if not (variances > (NO_NOISE * (float(known.max()) - float(known.min()))) ** 2).any():
        return "neighbours differ by nothing but what the light explains"
    lowest = float(np.average(shares, weights=counts))
    whole = f"{100 * lowest:.3g} % of the voxels have the lowest value"
    cut = f"; {whole}: a background may have been cut off too" if lowest > 0.2 else ""
    step, clear = _step(known), shares < LOWEST_SHARE
    if step and clear.any() and np.median(variances[clear]) < ROUNDING * step**2:
        return f"all that is left of it is the rounding to steps of {step:.3g}: {_SMOOTHED}{cut}"
    beyond = far()
    both = min(len(variances), len(beyond))
    sure = (counts[:both] >= SHARED * LEAST_VOXELS) & (variances[:both] > 0)
    ratios = beyond[:both][sure] / variances[:both][sure]
    if len(ratios) and np.quantile(ratios, FEW) > SMOOTH:
        return f"neighbouring voxels are too much alike: {_SMOOTHED}{cut}"
    if lowest > LOWEST_SHARE and (_has_gap(known, step) or _is_cut(near)):
        return f"the background was cut off ({whole})"
    return ""


_SMOOTHED = "they were smoothed, interpolated or deconvolved, or hold hardly any noise"


def _has_gap(known: NDArray[Any], step: float) -> bool:
    """Tell whether there is hardly a voxel a step above the lowest value, where most are.

    Where there are no steps, no two voxels are at the same value by chance.
    """
    lowest = known.min()
    there = np.count_nonzero(known == lowest)
    above = np.count_nonzero(known <= lowest + 1.5 * step) - there
    return bool(there >= LEAST_ALIKE and above < RARE * there)


def _is_cut(near: Bins) -> bool:
    """Tell whether variance is missing where voxels are at the lowest value."""
    levels, variances, shares, counts = near
    dark = shares >= LOWEST_SHARE
    if not dark.any() or np.count_nonzero(~dark) < 3:
        return False
    gain, intercept = _line(levels[~dark], variances[~dark], counts[~dark])
    most = int(np.argmax(shares))
    return bool(variances[most] < CUT * (gain * levels[most] + intercept))


def _step(known: NDArray[Any]) -> float:
    """Return the step in which intensities are given; 0 where there is none."""
    sample = np.unique(known.reshape(-1)[:: max(1, known.size // STEP_SAMPLE)].astype(np.float64))
    if not 2 < len(sample) < min(known.size, STEP_SAMPLE) / 2:
        return 0.0
    return float(np.diff(sample).min())


def _line(levels: Floats, variances: Floats, counts: Floats) -> tuple[float, float]:
    """Return gain and intercept of the line through variances; bins that are off count less.

    Weighted by their own precision, which the line itself tells.
    """
    mean = float(np.average(variances, weights=counts))
    start = levels[0]
    x, spread = levels - start, np.sqrt(2 * SHARED / counts + TRUSTED**2)
    if len(x) == 1 or not np.ptp(x) > FLAT * math.sqrt(mean):
        return 0.0, mean
    expected = np.maximum(variances, variances[variances > 0].min())
    robust = np.ones(len(x))
    gain = least = 0.0
    for _ in range(30):
        weights = robust / (spread * expected) ** 2
        total = weights.sum()
        centre = float((x * weights).sum() / total)
        offsets = x - centre
        gain = float((weights * offsets * variances).sum() / (weights * offsets**2).sum())
        least = float((variances * weights).sum() / total) - gain * centre
        expected = np.maximum(gain * x + least, 1e-3 * max(variances.max(), 1e-300))
        errors = np.abs(variances - gain * x - least) / (spread * expected)
        robust = np.minimum(1.0, BENT / np.maximum(errors, 1e-12))
    if gain <= 0:
        return 0.0, mean
    return gain, least - gain * float(start)
