"""The noise of a stack: gain, and what of its variance does not depend on the light.

The one estimator of it: variances of second differences against the light, the photon-transfer
curve (J. R. Janesick, Photon Transfer, SPIE 2007).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._threads import run_pieces
from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    from napari_gaussfit.settings import FitSettings

    Floats = NDArray[np.float64]

__all__ = [
    "Noise",
    "PhotonTransfer",
    "draw_noise",
    "given_noise",
    "noise_of_neighbours",
    "noise_of_residuals",
    "photon_transfer",
    "saturation_of",
    "second_differences",
]

MASK = (1.0, -2.0, 1.0)
"""A second difference along an axis: nothing of light that changes linearly is left. Along all
axes, next to nothing of what optics have blurred (Immerkaer, "Fast noise variance estimation",
1996, in three dimensions)."""

MASK_POWER = 6.0
"""The sum of its squares."""

OWN, MEAN = (1 / 6, 4 / 6, 1 / 6), (1 / 3, 1 / 3, 1 / 3)
"""Masks of the light: by what each voxel's noise counts in a difference, and of all three alike,
whose normal noise has nothing to do with the difference's."""

AT_ONCE = 2**19
"""Voxels that are looked at together."""

MOST_VOXELS = 2**21
"""Voxels that are looked at unless fewer are asked for; of a larger stack, slabs that are evenly
spread."""

OCTAVE = 2
"""Bins in which the number of voxels halves: what is bright and rare has a say."""

LEAST_VOXELS = 200
"""Of a bin: with fewer, the variance in it is not known well enough."""

CLIPPED = 4.5
"""Standard deviations beyond which a difference tells of structure, or of a hot pixel."""

SHARED = 7.35
"""By what the mean of squares varies more than that of as many independent ones: neighbouring
differences share voxels. The sum of their squared correlations, (1 + 2 (4/6)^2 + 2 (1/6)^2)^3."""

NO_NOISE = 1e-5
"""Of a stack's range: noise below is that of single precision."""

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

LEAST_ALIKE = 8
"""Voxels at the largest or the lowest value that are no accident."""

STEP_SAMPLE = 2**18
"""Voxels among which steps of the intensity are looked for."""

NARROWEST, WIDEST = 2.0**-40, 2.0**60
"""Ranges of intensity whose squares, and those of the noise in them, single precision holds."""

MOST = 1e150
"""Intensities from which on squares overflow, or, of its inverse, vanish."""


@dataclass(frozen=True)
class Noise:
    """How a voxel's variance follows from its light: gain f + intercept.

    Parameters
    ----------
    gain : float
        Raw intensity a photon. 0 where the variance does not depend on the light.
    intercept : float
        read^2 - gain offset, of a detector whose `offset` is what it records of no light and whose
        read noise is `read`, both in raw intensity. From a stack alone the two cannot be told
        apart, and no likelihood asks for more than this.
    saturation : float
        Value from which a voxel may have had more light than it says.

    Raises
    ------
    SettingsError
        If no variance follows from the numbers.
    """

    gain: float
    intercept: float = 0.0
    saturation: float = math.inf

    def __post_init__(self) -> None:
        """Refuse what gives no variance."""
        if not (self.gain >= 0 and math.isfinite(self.gain) and math.isfinite(self.intercept)):
            message = f"noise with gain={self.gain:g}, intercept={self.intercept:g}: give finite "
            raise SettingsError(message + "numbers, and a gain of 0 or more")
        if self.gain == 0 and self.intercept <= 0:
            message = f"noise with gain=0, intercept={self.intercept:g} has no variance; "
            raise SettingsError(message + "give the read noise squared as the intercept")

    @classmethod
    def of_detector(
        cls, gain: float, *, offset: float = 0.0, read: float = 0.0, saturation: float = math.inf
    ) -> Noise:
        """Return the noise of a detector.

        Parameters
        ----------
        gain : float
            Raw intensity a photon.
        offset : float, default 0
            Raw intensity of no light.
        read : float, default 0
            Standard deviation of the noise of no light, in raw intensity.
        saturation : float, default infinite
            Value from which a voxel may have had more light than it says, in raw intensity.

        Returns
        -------
        Noise
            gain f + read^2 - gain offset.
        """
        return cls(gain, read * read - gain * offset, saturation)

    @property
    def offset(self) -> float:
        """The raw intensity of no light, if no read noise adds to the variance; NaN without gain.

        Read noise `read` lifts it by read^2 / gain.
        """
        return max(-self.intercept / self.gain, 0.0) if self.gain else math.nan

    @property
    def read(self) -> float:
        """The standard deviation of the noise of no light, at `offset`."""
        return math.sqrt(max(self.intercept, 0.0))

    @property
    def words(self) -> str:
        """The noise in words, for a person."""
        if not self.gain:
            said = f"standard deviation {self.read:.3g} at every intensity"
        elif self.intercept > 0:
            said = f"gain {self.gain:.3g} a photon, read noise {self.read:.3g} if the offset is 0"
        else:
            said = f"gain {self.gain:.3g} a photon, offset {self.offset:.4g} if the read noise is 0"
        return said + (f", saturated at {self.saturation:g}" if self.saturation < math.inf else "")

    def variance(self, light: NDArray[np.floating]) -> Floats:
        """Return the variance of voxels.

        Parameters
        ----------
        light : ndarray
            What is recorded of them in the mean, in raw intensity.

        Returns
        -------
        ndarray
            In raw intensity squared, at least 0.
        """
        return np.maximum(self.gain * light.astype(np.float64) + self.intercept, 0.0)

    def rescaled(self, factor: float, zero: float = 0.0) -> Noise:
        """Return the noise of the same voxels in other units.

        Parameters
        ----------
        factor : float
            New units that one of these is.
        zero : float
            What 0 is in the new ones.

        Returns
        -------
        Noise
            Of factor v + zero, where this is of v.
        """
        gain = self.gain * factor
        intercept = self.intercept * factor**2 - gain * zero
        return Noise(gain, intercept, self.saturation * factor + zero)


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
    near = _Samples.of(known, level, lowest, lag=1, most=most)
    if not near.squares.size:
        return _no_curve("fewer than 3 voxels along each axis tell no noise from structure")
    bins = near.binned()
    levels, variances, _, counts = bins
    levels += float(lowest)
    far = _Samples.of(known, level, lowest, lag=2, most=most)
    why = _why_not(known, bins, far.binned())
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


def given_noise(settings: FitSettings, voxels: NDArray[Any]) -> Noise | None:
    """Return the noise of the detector that settings describe.

    Parameters
    ----------
    settings : FitSettings
        With gain, offset and read_noise, or without.
    voxels : ndarray, shape [Z, Y, X]
        Raw intensity; tells where they are saturated.

    Returns
    -------
    Noise or None
        None where no gain is given.
    """
    if settings.gain is None:
        return None
    return Noise.of_detector(
        settings.gain,
        offset=settings.offset or 0.0,
        read=settings.read_noise or 0.0,
        saturation=saturation_of(voxels),
    )


def saturation_of(voxels: NDArray[Any]) -> float:
    """Return the value at which a stack's voxels are saturated.

    Parameters
    ----------
    voxels : ndarray, shape [Z, Y, X]
        The stack's voxels, in raw intensity as they were recorded.

    Returns
    -------
    float
        The largest value, where more voxels have it than have the hundredth part of the range below
        it; infinite elsewhere.
    """
    lowest, highest = float(voxels.min()), float(voxels.max())
    full = int(np.count_nonzero(voxels == voxels.max()))
    if full < LEAST_ALIKE or highest <= lowest:
        return math.inf
    near = int(np.count_nonzero(voxels > highest - 0.01 * (highest - lowest))) - full
    return highest if near < full < voxels.size // 2 else math.inf


def draw_noise(
    noise: Noise, light: NDArray[np.floating], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return a draw of noise.

    As far as it grows with the light, it is that of photons, and as skew as theirs (the first terms
    of Cornish and Fisher's expansion, 1938).

    Parameters
    ----------
    noise : Noise
        The gain and intercept that the variance follows.
    light : ndarray, shape [Z, Y, X]
        Mean of what is recorded in each voxel, in raw intensity.
    rng : numpy.random.Generator
        Source of the draw.

    Returns
    -------
    ndarray of float32, shape [Z, Y, X]
        In raw intensity; its mean is 0.
    """
    drawn = np.empty(light.shape, np.float32)
    sources = rng.spawn(len(light))  # one a plane: the draw is the same in any number of threads
    skew = np.float32(noise.gain / 6)

    def draw(first: int, end: int) -> None:
        # Plane by plane: beside a large stack there is no room for what comes between.
        for z in range(first, end):
            normal = sources[z].standard_normal(light[z].shape, dtype=np.float32)
            deviation = np.sqrt(noise.variance(light[z])).astype(np.float32)
            drawn[z] = deviation * normal + skew * (np.square(normal) - 1)

    run_pieces(draw, len(light))
    return drawn


def second_differences(voxels: NDArray[Any], *, lag: int = 1) -> Iterator[tuple[slice, Floats]]:
    """Yield squared second differences along all axes, in variances, slab by slab.

    Parameters
    ----------
    voxels : ndarray, shape [Z, Y, X]
        Any intensities. An axis shorter than three voxels is not looked along.
    lag : int, default 1
        Voxels from the first to the second, and on to the third, along axes that are long enough.

    Yields
    ------
    slice
        The planes that they are of, with those beside them.
    ndarray
        The squares.
    """
    lags = _lags(voxels.shape, lag)
    for some in _slabs(voxels.shape, lags) if any(lags) else ():
        yield some, _squared(voxels[some].astype(np.float64), lags, lags)


def _lags(shape: tuple[int, ...], lag: int) -> tuple[int, ...]:
    """Return how far apart voxels are compared along each axis; 0 along one that is too short."""
    return tuple(min(lag, (length - 1) // 2) for length in shape)


def _slabs(shape: tuple[int, ...], lags: tuple[int, ...]) -> Iterator[slice]:
    """Yield planes to look at together, with those that they overlap; of a large stack not all."""
    plane = max(1, int(np.prod(shape[1:])))
    planes, overlap = max(1, AT_ONCE // plane), 2 * lags[0]
    starts = list(range(0, shape[0] - overlap, planes))
    most = max(1, MOST_VOXELS // (plane * planes))
    for first in starts[:: -(-len(starts) // most)]:
        yield slice(first, min(first + planes + overlap, shape[0]))


def _parts(
    shape: tuple[int, ...], lags: tuple[int, ...], most: int
) -> Iterator[tuple[slice, slice]]:
    """Yield planes and rows of them to look at together: all rows, or a band that wanders down."""
    slabs = list(_slabs(shape, lags))
    looked = sum(slab.stop - slab.start - 2 * lags[0] for slab in slabs) * shape[1] * shape[2]
    rows = max(math.ceil(shape[1] * min(1.0, most / max(looked, 1))), 4 * lags[1], 1)
    firsts = np.linspace(0, max(shape[1] - rows, 0), len(slabs) + 2)[1:-1].astype(np.int64)
    for planes, first in zip(slabs, firsts.tolist(), strict=True):
        yield planes, slice(first, first + rows)


def _filtered(values: Floats, mask: tuple[float, float, float], lags: tuple[int, ...]) -> Floats:
    """Return values weighted by a mask of three along each axis."""
    for axis, lag in enumerate(lags):
        if lag:
            lines = np.moveaxis(values, axis, 0)
            a, b, c = lines[: -2 * lag], lines[lag:-lag], lines[2 * lag :]
            values = np.moveaxis(mask[0] * a + mask[1] * b + mask[2] * c, 0, axis)
    return values


def _only(axis: int, lags: tuple[int, ...]) -> tuple[int, ...]:
    """Return the lags along one axis alone."""
    return tuple(lag if n == axis else 0 for n, lag in enumerate(lags))


def _inner(values: Floats, way: tuple[int, ...], lags: tuple[int, ...]) -> Floats:
    """Return values without the margins of the axes that a way does not look along."""
    margins = [lag if lag and not step else 0 for step, lag in zip(way, lags, strict=True)]
    return values[tuple(slice(margin or None, -margin or None) for margin in margins)]


def _squared(values: Floats, way: tuple[int, ...], lags: tuple[int, ...]) -> Floats:
    """Return squared second differences along the axes of a way, in variances."""
    power = MASK_POWER ** sum(step > 0 for step in way)
    return np.square(_filtered(_inner(values, way, lags), MASK, way)) / power


@dataclass(frozen=True, eq=False)
class _Samples:
    """Squared differences [N], light, and the share of voxels at the lowest value there.

    `order` sorts them into bins: by the mean of the voxels that a difference is of. That of normal
    noise has nothing to do with the difference, and that of photons lies on the same line.
    """

    squares: NDArray[np.float32]
    levels: NDArray[np.float32]
    shares: NDArray[np.float32]
    order: NDArray[np.int64]

    @classmethod
    def of(
        cls, known: NDArray[Any], level: NDArray[Any] | None, lowest: Any, *, lag: int, most: int
    ) -> _Samples:
        """Return those of a stack, or of what a fit leaves of it."""
        lags = _lags(known.shape, lag)
        # Of what a fit leaves, which holds hardly any structure, along one axis after the other:
        # these know the same variance to two fifths of the error.
        ways = [lags] if level is None else [_only(axis, lags) for axis in range(3) if lags[axis]]
        parts: list[tuple[NDArray[np.float32], ...]] = [(np.zeros(0, np.float32),) * 4]
        for some in _parts(known.shape, lags, most) if any(lags) else ():
            # Less the lowest: beside an offset, the single precision of what is kept loses them.
            voxels = known[some].astype(np.float64) - float(lowest)
            light = voxels if level is None else level[some].astype(np.float64) - float(lowest)
            rest = voxels if level is None else voxels - light
            found = (
                sum(_squared(rest, way, lags) for way in ways) / len(ways),
                # Whose variance the square has: MASK^2 / 6.
                sum(_filtered(_inner(light, way, lags), OWN, way) for way in ways) / len(ways),
                _filtered((voxels == 0).astype(np.float64), MEAN, lags),
                _filtered(light, MEAN, lags),
            )
            parts.append(tuple(np.asarray(one, np.float32).ravel() for one in found))
        squares, levels, shares, means = map(np.concatenate, zip(*parts, strict=True))
        return cls(squares, levels, shares, np.argsort(means, kind="stable"))

    def binned(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Return levels, variances, shares and counts [B] of bins, from dark to bright."""
        size = len(self.order)
        cuts = [int(size * (1 - 2 ** (-n / OCTAVE))) for n in range(64 * OCTAVE)]
        parts = [self.order[a:b] for a, b in itertools.pairwise(cuts) if b - a >= LEAST_VOXELS] or [
            self.order
        ]
        mean = partial(np.mean, dtype=np.float64)
        found = [
            (mean(self.levels[p]), _clipped_mean(self.squares[p]), mean(self.shares[p]), len(p))
            for p in parts
        ]
        levels, variances, shares, counts = np.array(found, np.float64).T
        return levels, variances, shares, counts


Bins = tuple["Floats", "Floats", "Floats", "Floats"]


def _why_not(known: NDArray[Any], near: Bins, far: Bins) -> str:
    """Return why the variances of differences are not those of noise, or nothing."""
    _, variances, shares, counts = near
    if not (variances > (NO_NOISE * (float(known.max()) - float(known.min()))) ** 2).any():
        return "neighbours differ by nothing but what the light explains"
    lowest = float(np.average(shares, weights=counts))
    whole = f"{100 * lowest:.3g} % of the voxels have the lowest value"
    cut = f"; {whole}: a background may have been cut off too" if lowest > 0.2 else ""
    step, clear = _step(known), shares < LOWEST_SHARE
    if step and clear.any() and np.median(variances[clear]) < ROUNDING * step**2:
        return f"all that is left of it is the rounding to steps of {step:.3g}: {_SMOOTHED}{cut}"
    both = min(len(variances), len(far[1]))
    sure = (counts[:both] >= SHARED * LEAST_VOXELS) & (variances[:both] > 0)
    ratios = far[1][:both][sure] / variances[:both][sure]
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
    if len(x) == 1 or not np.ptp(x) > 0:
        return 0.0, mean
    expected = np.maximum(variances, variances[variances > 0].min())
    robust = np.ones(len(x))
    gain = least = 0.0
    for _ in range(30):
        weights = robust / (spread * expected) ** 2
        centre = float(np.average(x, weights=weights))
        offsets = x - centre
        gain = float((weights * offsets * variances).sum() / (weights * offsets**2).sum())
        least = float(np.average(variances, weights=weights)) - gain * centre
        expected = np.maximum(gain * x + least, 1e-3 * max(variances.max(), 1e-300))
        errors = np.abs(variances - gain * x - least) / (spread * expected)
        robust = np.minimum(1.0, BENT / np.maximum(errors, 1e-12))
    if gain <= 0:
        return 0.0, mean
    return gain, least - gain * float(start)


def _clipped_mean(squares: NDArray[np.float32]) -> float:
    """Return the mean of squares of a normal distribution, without those too large to be of it."""
    mean = float(squares.mean(dtype=np.float64))
    for _ in range(5):
        mean = float(squares[squares <= CLIPPED**2 * mean].mean(dtype=np.float64))
    return mean
