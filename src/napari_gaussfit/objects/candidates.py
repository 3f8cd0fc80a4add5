"""Where a stack may hold a spot: matched filters over the noise, at a rate of false discoveries.

A spot that is to be added changes the likelihood, to first order, by what a filter of its shape
answers: the score test. Differences of two Gaussians are the filter, so that a level background
answers nothing. What noise alone answers, at the maxima and over all widths, is counted on noise
that went the same way: A. Schwartzman and co-authors, Ann. Statist. 39 (2011) 3290, with the rate
of Y. Benjamini and Y. Hochberg, J. R. Stat. Soc. B 57 (1995) 289.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._kernels.cpu.smoothing import smoothed
from napari_gaussfit._threads import run_pieces
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.photon_transfer import noise_of_neighbours
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA
from napari_gaussfit.objects.background import background_of
from napari_gaussfit.objects.explained import LOWEST, Null, unexplained
from napari_gaussfit.objects.filters import maxima
from napari_gaussfit.objects.sizes import STEP, Sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.stacks.stack import Stack

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Volume = NDArray[np.float32]
    Triple = tuple[float, float, float]
    Shape = tuple[int, int, int]

__all__ = ["CandidateFinder", "Candidates", "Sizes", "candidates"]

COLUMNS = "places", "levels", "scores", "heights", "backgrounds"

KEPT = 32
"""Ranges of sizes whose candidates are kept: a table of some thousand rows each."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Maxima of the filters, the most certain first, and how often noise has such.

    Parameters
    ----------
    places : ndarray, shape [n, 3]
        z, y, x in voxels.
    levels : ndarray of int, shape [n]
        Which width answers most.
    scores : ndarray, shape [n]
        Answers in standard deviations of the noise, as of normal noise.
    heights : ndarray, shape [n]
        Raw intensity at the peak of a spot of that width.
    backgrounds : ndarray, shape [n]
        Raw intensity around it.
    sizes : Sizes
        That were looked for.
    noise : Noise
        The noise that the scores were computed with.
    spread : float
        Of the answers of most of the stack, over what the noise explains; above 1, the answers
        were divided by it.
    null : Null
        What noise alone has.
    """

    places: Floats
    levels: NDArray[np.int64]
    scores: Floats
    heights: Floats
    backgrounds: Floats
    sizes: Sizes
    noise: Noise
    spread: float
    null: Null

    def __len__(self) -> int:
        """Return the number of maxima."""
        return len(self.scores)

    def threshold(self, false_discoveries: float) -> float:
        """Return the score from which maxima are spots.

        Parameters
        ----------
        false_discoveries : float
            Share of them that may be noise, between 0 and 1.

        Returns
        -------
        float
            Of noise alone, some maximum is above it with about this probability.

        Raises
        ------
        SettingsError
            If the share is none.
        """
        if not 0 < false_discoveries < 1:
            message = f"false_discoveries={false_discoveries:g}: give a share between 0 and 1"
            raise SettingsError(message)
        scores = np.sort(self.scores)[::-1]
        kept = np.flatnonzero(
            self.null.expected(scores) <= false_discoveries * np.arange(1, len(scores) + 1)
        )
        allowed = false_discoveries * (1 + (kept[-1] if len(kept) else 0))
        low, high = LOWEST, 40.0
        for _ in range(60):
            middle = (low + high) / 2
            above = self.null.expected(np.array([middle]))[0] > allowed
            low, high = (middle, high) if above else (low, middle)
        return high

    def chosen(self, false_discoveries: float) -> Candidates:
        """Return those that are spots at a rate of false discoveries.

        Parameters
        ----------
        false_discoveries : float
            Share of them that may be noise.

        Returns
        -------
        Candidates
            Takes no time: what a slider asks for.
        """
        return self.where(self.scores >= self.threshold(false_discoveries))

    def fwhm(self) -> Floats:
        """Return full widths at half maximum across z, in the stack's unit, of the filters."""
        step = self.sizes.spacing
        across = self.sizes.sigmas(self.levels)[:, 1:] * np.asarray(step)[1:]
        widths: Floats = FWHM_PER_SIGMA * across.mean(axis=1)
        return widths

    def where(self, which: NDArray[np.bool_] | Counts) -> Candidates:
        """Return some.

        Parameters
        ----------
        which : ndarray of bool, shape [n], or of int
            True for those to keep, or their indices.

        Returns
        -------
        Candidates
            In the same order, or in that of the indices.
        """
        return replace(self, **{name: getattr(self, name)[which] for name in COLUMNS})

    @classmethod
    def joined(
        cls, parts: Sequence[Candidates], sizes: Sizes, noise: Noise, null: Null
    ) -> Candidates:
        """Return the candidates of parts of a stack, the most certain first.

        Parameters
        ----------
        parts : sequence of Candidates
            The candidates of parts of a stack; any number of parts.
        sizes : Sizes
            The least and largest width of a spot that is looked for.
        noise : Noise
            The noise of the stack's voxels: gain, offset, read noise.
        null : Null
            What noise alone has in the whole stack.

        Returns
        -------
        Candidates
            Of the stack.
        """
        none, spread = np.zeros(0), max((part.spread for part in parts), default=1.0)
        nothing = cls(
            np.zeros((0, 3)), np.zeros(0, np.int64), none, none, none, sizes, noise, spread, null
        )
        every = (nothing, *parts)
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in every]) for name in COLUMNS
        }
        whole = replace(nothing, **columns)
        return whole.where(np.argsort(-whole.scores, kind="stable"))


def candidates(
    stack: Stack,
    *,
    least_size: float | None = None,
    largest_size: float | None = None,
    noise: Noise | None = None,
) -> Candidates:
    """Look for what may be spots.

    Parameters
    ----------
    stack : Stack
        The stack that is searched: one channel at one time.
    least_size, largest_size : float, optional
        FWHM across the optical axis in the stack's unit; see `Sizes.of`.
    noise : Noise, optional
        Estimated by `noise_of_neighbours` if None.

    Returns
    -------
    Candidates
        All maxima above three standard deviations; `chosen` takes those that are spots.

    Raises
    ------
    SettingsError
        If sizes are none, or the noise cannot be estimated.
    """
    return CandidateFinder(stack, noise=noise).find(least_size, largest_size)


class CandidateFinder:
    """Candidates of one stack for sliders: what was once looked for is kept.

    Parameters
    ----------
    stack : Stack
        The stack that is searched: one channel at one time.
    noise : Noise, optional
        Estimated by `noise_of_neighbours` if None.

    Raises
    ------
    SettingsError
        If the noise cannot be estimated.
    """

    def __init__(self, stack: Stack, *, noise: Noise | None = None) -> None:
        self.stack = stack
        self.noise = noise_of_neighbours(stack.voxels) if noise is None else noise
        self._voxels = stack.voxels.astype(np.float32, copy=False)
        self._found: dict[Sizes, Candidates] = {}

    def find(
        self, least_size: float | None = None, largest_size: float | None = None
    ) -> Candidates:
        """Return all candidates; `Candidates.chosen` takes those that are spots, in no time.

        Parameters
        ----------
        least_size, largest_size : float, optional
            FWHM across the optical axis in the stack's unit; see `Sizes.of`.

        Returns
        -------
        Candidates
            Of sizes that were asked for before, the same.

        Raises
        ------
        SettingsError
            If sizes are none.
        """
        sizes = Sizes.of(self.stack, least_size, largest_size)
        # Up to the next width, the filters of a larger size are the same.
        same = replace(sizes, largest=sizes.least * STEP ** (sizes.count - 1))
        if same not in self._found:
            ground = background_of(self._voxels, same, self.noise)
            null = Null.of(self.stack.shape, same)
            if len(self._found) == KEPT:
                self._found.pop(next(iter(self._found)))
            self._found[same] = searched(self._voxels, ground, None, same, self.noise, null)
        return replace(self._found[same], sizes=sizes)


def searched(  # noqa: PLR0913 - the stack, what is there already, and by what is looked
    voxels: Volume,
    ground: Volume,
    spots: Volume | None,
    sizes: Sizes,
    noise: Noise,
    null: Null,
    *,
    levels: Counts | None = None,
    samples: int = 0,
) -> Candidates:
    """Return the maxima of what a model leaves.

    Parameters
    ----------
    voxels, ground : ndarray, shape [Z, Y, X]
        The stack and its background, in raw intensity.
    spots : ndarray, shape [Z, Y, X], or None
        The light of spots that there are already, without background.
    sizes : Sizes
        The least and largest width of a spot that is looked for.
    noise : Noise
        The noise of the stack's voxels: gain, offset, read noise.
    null : Null
        What noise alone has in the whole stack.
    levels : ndarray of int, optional
        Which widths are looked for; all if None.
    samples : int, default 0
        Answers of each filter of which their spread is taken, about; it is 1 if 0.

    Returns
    -------
    Candidates
        The most certain first.
    """
    levels = sizes.levels() if levels is None else levels
    # Noise goes with all light that is there: spots, and what of the background is not smooth.
    light = smoothed(voxels, 2 * sizes.sigmas(min(2, sizes.count - 1)), mode="edge")
    left = np.empty_like(light)
    least = _least_variance(noise, ground)

    def some(first: int, end: int) -> None:
        # Plane by plane, which stays in the cache.
        for z in range(first, end):
            model = ground[z] if spots is None else ground[z] + spots[z]
            np.maximum(light[z], model, out=light[z])
            variance = np.maximum(
                np.float32(noise.gain) * light[z] + np.float32(noise.intercept), least
            )
            np.divide(voxels[z] - model, np.sqrt(variance), out=left[z])

    run_pieces(some, len(light))
    found = maxima(left, sizes.sigmas(levels), LOWEST, samples=samples)
    widths = levels[found.levels]
    at = tuple(np.rint(found.places).astype(np.int64).T)
    deviations = np.sqrt(np.maximum(noise.variance(light[at]), least))
    scores = _as_of_normal_noise(found.answers, found.skewness * noise.gain / deviations)
    order = np.flatnonzero(scores >= LOWEST)
    order = order[unexplained(found.places[order], widths[order], scores[order], sizes)]
    return Candidates(
        found.places[order],
        widths[order],
        scores[order],
        (found.peaks * deviations)[order],
        ground[at][order].astype(np.float64),
        sizes,
        noise,
        found.spread,
        null,
    )


def _least_variance(noise: Noise, ground: Volume) -> float:
    """Return the least variance of a voxel: a hundredth of the usual, or of a photon's."""
    usual = float(np.median(noise.variance(ground[::2, ::4, ::4])))
    return max(1e-2 * usual, 1e-2 * noise.gain**2, 1e-30)


def _as_of_normal_noise(answers: Floats, skewness: Floats) -> Floats:
    """Return what is as rare in normal noise as an answer is in noise that is skew as photons are.

    The signed root of the deviance of a number of photons whose skewness that is.
    """
    skew = np.maximum(skewness, 1e-6)
    x = np.maximum(answers * skew, -0.99)
    deviance = np.maximum(2 * ((1 + x) * np.log1p(x) - x), 0.0)
    return np.where(skew * answers < 1e-3, answers, np.sign(x) * np.sqrt(deviance) / skew)
