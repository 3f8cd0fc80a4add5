"""How many Gaussians a stack would carry, and what fewer or more would cost, before it is fitted.

Boxes are drawn from the stack, with chances that follow how much structure each has, and fitted
coarsely by their voxels alone: once with as many Gaussians as the noise allows, and then with fixed
parts of that number. What a box tells counts in inverse proportion to its chance (M. H. Hansen and
W. N. Hurwitz, Ann. Math. Statist. 14 (1943) 333), so that the mean over the boxes is of the whole
stack, and their spread tells its error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.fitting.fit import Fit
from napari_gaussfit.measure.photon_transfer import photon_transfer
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.statistics import background_of, smoothed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.measure.photon_transfer import PhotonTransfer
    from napari_gaussfit.stacks.stack import Stack

    Floats = NDArray[np.float64]
    Box = tuple[slice, ...]

__all__ = ["Outlook", "outlook"]

PARTS = (0.25, 0.5, 2.0)
"""Of the number that the noise allows, those that are tried beside it."""

CORE, MARGIN = (24, 64, 64), (8, 16, 16)
"""Voxels along z, y and x of a box, and those around it that are fitted with it: what lies across
its border is counted where its centre is."""

BOXES = 3
"""That are drawn of a stack."""

WHOLE = 700_000
"""Voxels up to which a stack is looked at whole."""

LEAST_VARIANCE = float(np.finfo(np.float32).tiny)
"""What a variance is at least, so that a stack without any noise can be divided by it."""

STEPS = 100
"""Of each of the coarse fits."""

SEEN_FROM = 4.0
"""Standard deviations of the smoothed noise from which a voxel counts as structure."""

EVEN = 0.25
"""Of the chance of a box, the part that follows its size alone: structure too faint to be seen by
single voxels is met there."""

SHORT, SHORT_ERROR = 0.25, 0.25
"""Of the dB that a coarse fit misses to what the noise leaves, those that a whole fit gains, and by
how much that differs, of phantoms with known truth."""

COARSE_PSNR, COARSE_COUNT = 0.3, 0.25
"""What coarse fits err by beside: dB, and parts of the number, of the same phantoms."""


@dataclass(frozen=True, eq=False)
class Outlook:
    """What numbers of Gaussians would reach.

    Parameters
    ----------
    counts : ndarray of int, shape [N]
        Numbers of Gaussians, from the least.
    psnr, psnr_error : ndarray, shape [N]
        Predicted PSNR of the voxels in dB, as a fit's report has it, and its standard error.
    noise_share : ndarray, shape [N]
        Of what each number describes beyond the one before it, how much may be noise, from 0 to 1;
        0 in the first place.
    noise_psnr : float
        PSNR in dB that the noise leaves to reach: what is above describes noise.
    carried, carried_error : int
        The number that the noise allows, which is among `counts`, and its standard error.
    looked_at : str
        At what, in words.
    """

    counts: NDArray[np.int64]
    psnr: Floats
    psnr_error: Floats
    noise_share: Floats
    noise_psnr: float
    carried: int
    carried_error: int
    looked_at: str

    @property
    def words(self) -> str:
        """The number that the noise allows, and what half and twice as many would cost."""
        own = int(np.flatnonzero(self.counts == self.carried)[0])
        said = f"as many as the noise allows: about {self.carried:,} ± {self.carried_error:,}"
        said += f", {self.psnr[own]:.1f} ± {self.psnr_error[own]:.1f} dB"
        if own and self.carried:
            lost = self.psnr[own] - self.psnr[own - 1]
            said += f"; {self.counts[own - 1]:,} would cost {max(lost, 0.0):.1f} dB"
        if own + 1 < len(self.counts):
            share = self.noise_share[own + 1]
            said += f"; of what {self.counts[own + 1]:,} would add {share:.0%} may be noise"
        return said


def outlook(stack: Stack, *, seed: int = 0) -> Outlook:
    """Predict what numbers of Gaussians would reach, by coarse fits of parts of a stack.

    Parameters
    ----------
    stack : Stack
        The stack that is searched: one channel at one time.
    seed : int, default 0
        Of the boxes that are drawn.

    Returns
    -------
    Outlook
        The same each time.

    Examples
    --------
    >>> from napari_gaussfit import outlook, phantoms
    >>> found = outlook(phantoms.beads().stack)
    >>> bool(found.psnr[0] < found.psnr[-1])
    True
    """
    from napari_gaussfit.fitting.evidence import price  # loads torch

    curve = photon_transfer(stack.voxels)
    smooth = smoothed(np.asarray(stack.voxels, np.float32))
    cores, weights = _drawn(stack, smooth, seed)
    tried = [_Tried.of(stack, core, curve, smooth) for core in cores]
    noise = float(np.mean(curve.variance(smooth[:: max(1, len(smooth) // 32)])))
    total = stack.voxels.size

    counts, excess, chi2 = (
        np.array([getattr(one, name) for one in tried]) * weights[:, None]
        for name in ("counts", "excess", "chi2")
    )
    count, count_error = _mean_and_error(counts)
    missed, missed_error = _mean_and_error(excess / total)
    span = float(np.subtract(*stack.value_range[::-1]))
    least = max(1e-12 * span**2, LEAST_VARIANCE)
    error = np.maximum(noise + missed, least)
    reachable = _decibels(span, max(noise, least))
    coarse = _decibels(span, error)
    gap = np.maximum(reachable - coarse, 0.0)
    sampling = 10 / math.log(10) * missed_error / error
    order = np.argsort(count, kind="stable")
    gains = -np.diff(chi2.mean(0)[order], prepend=np.inf)
    paid = price(total) * np.diff(count[order], prepend=0.0)
    return Outlook(
        np.rint(count[order]).astype(np.int64),
        (coarse + SHORT * gap)[order],
        np.sqrt(COARSE_PSNR**2 + (SHORT_ERROR * gap) ** 2 + sampling**2)[order],
        np.where(gains > paid, paid / np.maximum(gains, LEAST_VARIANCE), 1.0 * (paid > 0)),
        float(reachable) if noise else math.inf,
        round(count[-1]),
        round(math.hypot(count_error[-1], COARSE_COUNT * count[-1])),
        _words(stack, cores),
    )


def _drawn(stack: Stack, smooth: NDArray[np.float32], seed: int) -> tuple[list[Box], Floats]:
    """Return boxes of a stack, and what each counts for."""
    if stack.voxels.size <= WHOLE:
        return [tuple(slice(0, size) for size in stack.shape)], np.ones(1)
    background, noise = background_of(smooth)
    seen = (smooth > background + max(SEEN_FROM * noise, 1e-6 * float(np.ptp(smooth)))).astype(
        np.float64
    )
    edges = [
        np.linspace(0, size, max(1, round(size / core)) + 1).round().astype(np.int64)
        for size, core in zip(stack.shape, CORE, strict=True)
    ]
    for axis, edge in enumerate(edges):
        seen = np.add.reduceat(seen, edge[:-1], axis=axis)
    sizes = np.einsum("i,j,k->ijk", *(np.diff(edge) for edge in edges)).astype(np.float64)
    chance = EVEN * sizes / sizes.sum()
    chance += (1 - EVEN) * (seen / seen.sum() if seen.sum() else sizes / sizes.sum())
    # Systematic: from the boxes in order of their structure, evenly.
    order = np.argsort((seen / sizes).reshape(-1), kind="stable")
    ends = np.cumsum(chance.reshape(-1)[order])
    start = np.random.default_rng(seed).random()
    at = order[np.searchsorted(ends, (start + np.arange(BOXES)) / BOXES * ends[-1], side="right")]
    cores = [
        tuple(slice(int(e[i]), int(e[i + 1])) for e, i in zip(edges, place, strict=True))
        for place in zip(*np.unravel_index(at, sizes.shape), strict=True)
    ]
    return cores, 1 / chance.reshape(-1)[at]


@dataclass(frozen=True, eq=False)
class _Tried:
    """Coarse fits of a box with `PARTS` of the number that its noise allows, and that number.

    counts, excess, chi2 : [N], Gaussians with their centre in the box, squared residual beyond the
    noise's, and that in units of the noise's variance.
    """

    counts: Floats
    excess: Floats
    chi2: Floats

    @classmethod
    def of(
        cls, stack: Stack, core: Box, curve: PhotonTransfer, smooth: NDArray[np.float32]
    ) -> _Tried:
        around = tuple(
            slice(max(0, cut.start - margin), min(size, cut.stop + margin))
            for cut, margin, size in zip(core, MARGIN, stack.shape, strict=True)
        )
        part = replace(stack, voxels=np.ascontiguousarray(stack.voxels[around]), origin=(0, 0, 0))
        inner = tuple(
            slice(cut.start - wide.start, cut.stop - wide.start)
            for cut, wide in zip(core, around, strict=True)
        )
        variance = curve.variance(smooth[core])
        known = part.voxels[inner].astype(np.float64)
        first, last = (np.array([getattr(cut, end) for cut in inner]) for end in ("start", "stop"))
        rows = []

        def look(means: Floats, volume: Floats) -> None:
            places = means / part.spacing + 0.5
            inside = np.all((places >= first) & (places < last), axis=1)
            squares = np.square(known - volume[inner])
            chi2 = np.sum(squares / np.maximum(variance, LEAST_VARIANCE))
            rows.append((inside.sum(), np.sum(squares - variance), chi2))

        carried = _fitted(part, None)
        for share in PARTS:
            count = max(1, round(share * len(carried[0])))
            look(*_fitted(part, count, exactly=share > 1))
        look(*carried)
        return cls(*np.array(rows, np.float64).T)


def _fitted(part: Stack, count: int | None, *, exactly: bool = False) -> tuple[Floats, Floats]:
    """Return the means [K, 3] and the light [Z, Y, X] of a coarse fit."""
    settings = FitSettings(
        gaussians=count,
        exactly=exactly,
        objective="voxels",
        iterations=STEPS,
        views=2,
        held_out=1,
        device="cpu",
    )
    running = Fit(part, settings)
    for _ in running:
        pass
    field = running.checkpoint().field
    volume = field.voxelise(part.shape, part.spacing)
    return field.numpy().means.astype(np.float64), np.asarray(volume, np.float64)


def _mean_and_error(values: Floats) -> tuple[Floats, Floats]:
    """Return the mean over boxes [B, N], and its standard error; 0 of a stack seen whole."""
    if len(values) == 1:
        return values[0], np.zeros(values.shape[1])
    return values.mean(0), values.std(0, ddof=1) / math.sqrt(len(values))


def _decibels(span: float, error: Floats | float) -> Floats:
    if not span:
        return np.full(np.shape(error), np.inf)
    return np.asarray(20 * math.log10(span) - 10 * np.log10(error))


def _words(stack: Stack, cores: list[Box]) -> str:
    if len(cores) == 1:
        return "the whole stack, fitted coarsely"
    part = sum(math.prod(cut.stop - cut.start for cut in core) for core in cores)
    return f"{len(cores)} boxes, {part / stack.voxels.size:.2g} of the stack, fitted coarsely"
