"""What is done in one tile of a large stack: tell whether it holds light, fit it, mend its seams.

A tile *commits* the Gaussians whose centres lie in its core. What neighbours have committed before
is *anchored*: subtracted from what the tile sees, and so held as it is. Knows neither files nor
other processes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.fitting.fit import Fit
from napari_gaussfit.fitting.tiles import triple
from napari_gaussfit.formats.tiled import REACH_SIGMAS
from napari_gaussfit.measure.noise import photon_transfer
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.settings import MOST_UNASKED, FitSettings
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.stacks.statistics import SUGGESTION_VOXELS, background_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import DTypeLike, NDArray

    from napari_gaussfit.fitting.tiles import Tile, Tiling
    from napari_gaussfit.stacks.facts import StackFacts
    from napari_gaussfit.stacks.lazy import LazyStack, Sample

    Floats = NDArray[np.float64]

__all__ = ["Levels", "Placed", "TileFitter", "checked_settings"]

BLOCKS = (2, 4)
"""Sides in voxels of the blocks whose means are looked at for light: a spot fills one, a faint haze
many, and noise is less by 3 and by 8."""

CLEAR = 5.5
"""Standard deviations by which a block's mean is above the background where there is light: noise
alone comes there once in 50 million blocks, a hundred tiles."""

FAINTEST = 1e-4
"""Light that is worth a fit, in parts of the stack's range: 80 dB."""

SEAM_STEPS = 0.25
"""Steps of the pass over the seams, in parts of a fit's: they move what is in place already."""


@dataclass(frozen=True, eq=False)
class Placed:
    """Gaussians in a large stack: centres in float64, which alone tells them apart everywhere.

    Parameters
    ----------
    means : ndarray, shape [K, 3]
        Centres (z, y, x) in the stack's unit, from its first voxel.
    cholesky : ndarray of float32, shape [K, 6]
        As in `GaussianField`.
    amplitudes : ndarray of float32, shape [K]
        In raw intensity.
    """

    means: Floats
    cholesky: NDArray[np.float32]
    amplitudes: NDArray[np.float32]

    @classmethod
    def none(cls) -> Placed:
        """Return no Gaussians."""
        return cls(np.empty((0, 3)), np.empty((0, 6), np.float32), np.empty(0, np.float32))

    @classmethod
    def joined(cls, parts: Sequence[Placed]) -> Placed:
        """Return all Gaussians of several parts, in their order.

        Parameters
        ----------
        parts : sequence of Placed
            May be empty.
        """
        several = [cls.none(), *parts]
        return cls(
            np.concatenate([part.means for part in several]),
            np.concatenate([part.cholesky for part in several]),
            np.concatenate([part.amplitudes for part in several]),
        )

    @classmethod
    def of(cls, field: GaussianField, first: Sequence[int], spacing: Sequence[float]) -> Placed:
        """Return the Gaussians of a part of the stack.

        Parameters
        ----------
        field : GaussianField
            Positions from the part's first voxel.
        first : sequence of int
            That voxel (z, y, x) in the stack.
        spacing : sequence of float
            (dz, dy, dx).
        """
        numbers = field.numpy()
        shift = np.asarray(first) * np.asarray(spacing, np.float64)
        return cls(numbers.means + shift, numbers.cholesky, numbers.amplitudes)

    def __len__(self) -> int:
        """Return the number of Gaussians."""
        return len(self.means)

    def select(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> Placed:
        """Return the Gaussians that a mask [K] or indices choose.

        Parameters
        ----------
        which : ndarray
            A mask [K], or indices.
        """
        return Placed(self.means[which], self.cholesky[which], self.amplitudes[which])

    def field(
        self, first: Sequence[int], stack: StackFacts, background: float = 0.0
    ) -> GaussianField:
        """Return the Gaussians with positions from a voxel.

        Parameters
        ----------
        first : sequence of int
            The voxel (z, y, x) of the stack.
        stack : StackFacts
            Whose spacing and unit count.
        background : float
            In raw intensity.
        """
        shift = np.asarray(first) * np.asarray(stack.spacing, np.float64)
        means = (self.means - shift).astype(np.float32)
        return GaussianField.from_numpy(
            Gaussians(means, self.cholesky, self.amplitudes, background, stack.unit)
        )

    def extents(self) -> Floats:
        """Return how far each reaches along z, y and x [K, 3], in the stack's unit."""
        numbers = Gaussians(np.zeros((len(self), 3)), self.cholesky, self.amplitudes)
        variances = np.diagonal(numbers.covariances, axis1=1, axis2=2)
        extents: Floats = REACH_SIGMAS * np.sqrt(variances)
        return extents

    def reaching(
        self, low: Sequence[int], high: Sequence[int], spacing: Sequence[float]
    ) -> NDArray[np.bool_]:
        """Tell which Gaussians [K] reach into a box.

        Parameters
        ----------
        low, high : sequence of int
            The box, in voxels.
        spacing : sequence of float
            (dz, dy, dx).
        """
        step, reach = np.asarray(spacing), self.extents()
        above = self.means + reach >= (np.asarray(low) - 0.5) * step
        below = self.means - reach <= (np.asarray(high) - 0.5) * step
        inside: NDArray[np.bool_] = (above & below).all(1)
        return inside


@dataclass(frozen=True)
class Levels:
    """What a sample of a stack tells of where there is no light.

    Parameters
    ----------
    background : float
        Raw intensity where there is no Gaussian.
    thresholds : tuple of float
        Means of blocks, of the sides `BLOCKS`, from which there is light in one.
    words : str
        How the sample was drawn.
    """

    background: float
    thresholds: tuple[float, ...]
    words: str

    @classmethod
    def of(cls, sample: Sample, background: float | None = None) -> Levels:
        """Estimate the background, and by how much blocks of it vary.

        Parameters
        ----------
        sample : Sample
            Of the stack.
        background : float, optional
            Raw intensity, where it is known.
        """
        level = background_of(sample.smoothed())[0] if background is None else background
        line = photon_transfer(np.concatenate(sample.boxes)).line
        gain = 0.0 if line is None else line.gain
        lowest, highest = sample.value_range
        found = [[means.reshape(-1) for means in _block_means(box)] for box in sample.boxes]
        thresholds: list[float] = []
        for several in zip(*found, strict=True):
            means = np.concatenate(several)
            below = means[means <= level]
            deviation = 1.4826 * float(np.median(level - below)) if len(below) else 0.0
            # Few photons are not normal: the tail of Cornish and Fisher (1938), to third order.
            photons = gain / BLOCKS[len(thresholds)] ** 3 * (CLEAR**2 - 1) / 6
            least = FAINTEST * (highest - lowest)
            thresholds.append(level + max(CLEAR * deviation + photons, least))
        return cls(float(level), tuple(thresholds), sample.words)

    def hold_light(self, voxels: NDArray[np.generic]) -> bool:
        """Tell whether a part of the stack holds more than background.

        Parameters
        ----------
        voxels : ndarray, shape [Z, Y, X]
            In raw intensity.
        """
        means = zip(_block_means(voxels), self.thresholds, strict=True)
        return any(float(of_side.max()) > most for of_side, most in means)


@dataclass(frozen=True, eq=False)
class TileFitter:
    """Fits the tiles of one stack.

    Parameters
    ----------
    stack : LazyStack
        Read box by box.
    tiling : Tiling
        Its tiles.
    settings : FitSettings
        Of each tile's fit.
    levels : Levels
        Of the stack.
    """

    stack: LazyStack
    tiling: Tiling
    settings: FitSettings
    levels: Levels

    def fit(self, tile: Tile, voxels: NDArray[np.generic], anchors: Placed) -> Placed:
        """Fit what a tile sees beside its anchors, and return what it commits.

        Parameters
        ----------
        tile : Tile
            One of these.
        voxels : ndarray, shape [Z, Y, X]
            Of its box.
        anchors : Placed
            What earlier neighbours have committed.
        """
        spacing = self.stack.spacing
        rest = self.beside(voxels, tile.low, anchors)
        if not self.levels.hold_light(rest):
            return Placed.none()
        most = max(1, int(prod(rest.shape) / SUGGESTION_VOXELS))
        asked = self.settings.gaussians or MOST_UNASKED
        field = self._run(rest, replace(self.settings, gaussians=min(asked, most)))
        found = Placed.of(field, tile.low, spacing)
        return found.select(self.tiling.committed(tile, found.means / spacing))

    def mend(self, tile: Tile, moved: Placed, others: Placed) -> Placed:
        """Move Gaussians beside seams once more, all together, and return them in their order.

        Parameters
        ----------
        tile : Tile
            One over a seam.
        moved : Placed
            In its core, beside the seam.
        others : Placed
            All others that reach into its box.
        """
        spacing = np.asarray(self.stack.spacing)
        extents = moved.extents()
        lowest = np.floor(((moved.means - extents) / spacing).min(0)).astype(int)
        highest = np.ceil(((moved.means + extents) / spacing).max(0)).astype(int) + 1
        low = triple(np.maximum(lowest, tile.low))
        high = triple(np.minimum(highest, tile.high))
        rest = self.beside(self.stack.read(low, high), low, others)
        steps = max(1, round(SEAM_STEPS * self.settings.steps))
        settings = replace(self.settings, refine=True, iterations=steps)
        before = moved.field(low, self.stack.facts, self.levels.background)
        after = self._run(rest, settings, before)
        if self._error(after, rest) >= self._error(before, rest):
            return moved
        return Placed.of(after, low, self.stack.spacing)

    def beside(
        self, voxels: NDArray[np.generic], low: Sequence[int], anchors: Placed
    ) -> NDArray[np.float32]:
        """Return voxels without the light of Gaussians.

        Parameters
        ----------
        voxels : ndarray, shape [Z, Y, X]
            In raw intensity.
        low : sequence of int
            The first of them in the stack.
        anchors : Placed
            Some may reach nowhere near.
        """
        rest = voxels.astype(np.float32)
        high = np.add(low, voxels.shape).tolist()
        reaching = anchors.select(anchors.reaching(low, high, self.stack.spacing))
        if len(reaching):
            field = reaching.field(low, self.stack.facts)
            rest -= field.voxelise(rest.shape, self.stack.spacing).numpy()
        return rest

    def _run(
        self, voxels: NDArray[np.float32], settings: FitSettings, start: GaussianField | None = None
    ) -> GaussianField:
        stack = Stack.from_array(
            voxels, spacing=self.stack.spacing, unit=self.stack.facts.unit, name="a tile"
        )
        fit = Fit(stack, replace(settings, background=self.levels.background), start=start)
        for _ in fit:
            pass
        return fit.snapshot().field

    def _error(self, field: GaussianField, voxels: NDArray[np.float32]) -> float:
        difference = field.voxelise(voxels.shape, self.stack.spacing).numpy() - voxels
        return float(np.square(difference, dtype=np.float64).sum())


def checked_settings(settings: FitSettings) -> FitSettings:
    """Return settings that fits of tiles can have.

    Parameters
    ----------
    settings : FitSettings
        Of a fit.

    Raises
    ------
    SettingsError
        If one of them is about a stack as a whole, or makes a result depend on the machine's speed.
    """
    for name, wrong, why in (
        ("objective", settings.objective == "mip", "the projections of a tile are not the stack's"),
        ("loss", settings.loss == "poisson", "what neighbours have fitted is subtracted first"),
        ("exactly", settings.exactly, "each tile has as many Gaussians as its part carries"),
        ("refine", settings.refine, "there is nothing to go on from"),
        ("max_seconds", settings.max_seconds is not None, "what is found would go by its speed"),
    ):
        if wrong:
            raise SettingsError(
                f"{name}={getattr(settings, name)!r}: cannot be had by tiles, since {why}; leave "
                "it out, or fit the stack in one piece (--no-tiles)"
            )
    return settings


def _block_means(voxels: NDArray[np.generic]) -> Iterator[NDArray[np.floating]]:
    """Yield the means of blocks of a volume, of each of the sides `BLOCKS`."""
    wide = {"u1": np.uint32, "u2": np.uint32, "f4": np.float32}.get(
        voxels.dtype.str[1:], np.float64
    )
    sums, count = voxels, 1
    for _ in BLOCKS:
        for axis in range(3):
            sums = _pair_sums(sums, axis, wide)
        count *= 8
        yield np.divide(sums, np.float32(count))


def _pair_sums(values: NDArray[Any], axis: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return sums of neighbours along an axis; of an odd number, the last is in two pairs."""
    lines = np.moveaxis(values, axis, 0)
    if len(lines) == 1:
        lines = np.concatenate([lines, lines])
    even = len(lines) // 2 * 2
    sums = np.add(lines[0:even:2], lines[1:even:2], dtype=dtype)
    if even < len(lines):
        sums = np.concatenate([sums, np.add(lines[-2:-1], lines[-1:], dtype=dtype)])
    return np.moveaxis(sums, 0, axis)
