"""What is done in one tile of a large stack: fit it, mend its seams, measure what it holds.

A tile *commits* the Gaussians whose centres lie in its core. What neighbours have committed before
is *anchored*: subtracted from what the tile sees, and so held as it is. Knows neither files nor
other processes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.fitting.fit import Fit
from napari_gaussfit.fitting.losses import LOSSES
from napari_gaussfit.fitting.placed import Placed
from napari_gaussfit.fitting.tile_counts import of_count
from napari_gaussfit.fitting.tile_starts import TileStart
from napari_gaussfit.fitting.tile_wide import Cells, fit_wide
from napari_gaussfit.fitting.tiles import triple
from napari_gaussfit.measure.constraints import Constraints
from napari_gaussfit.measure.measuring import measure, worth_measuring
from napari_gaussfit.settings import MOST_GAUSSIANS, MOST_UNASKED, FitSettings
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.stacks.statistics import SUGGESTION_VOXELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_gaussfit.fitting.tile_levels import Levels
    from napari_gaussfit.fitting.tiles import Tile, Tiling
    from napari_gaussfit.measure.measurement import Measurement
    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.measure.psf import Psf
    from napari_gaussfit.measure.refinement import Likelihood
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.stacks.facts import StackFacts
    from napari_gaussfit.stacks.lazy import LazyStack

    Dark = Sequence[tuple[Tile, Sequence[float]]]
    Voxels = Sequence[NDArray[np.generic]]

__all__ = ["TileFitter", "checked_settings"]

SEAM_STEPS = 0.25
"""Steps of the pass over the seams, in parts of a fit's: they move what is in place already."""


@dataclass(frozen=True, eq=False)
class TileFitter:
    """Fits the tiles of one stack.

    Parameters
    ----------
    stacks : tuple of LazyStack
        Its channels, read box by box.
    tiling : Tiling
        How the stack is divided into tiles.
    settings : FitSettings
        Of each tile's fit.
    levels : tuple of Levels
        The background and noise of each channel.
    psf : Psf or None
        The point spread function that is fitted with.
    start : TileStart
        What fits begin with.
    noise : Noise or None
        Of the stack, by which Gaussians are measured.
    """

    stacks: tuple[LazyStack, ...]
    tiling: Tiling
    settings: FitSettings
    levels: tuple[Levels, ...]
    psf: Psf | None = None
    start: TileStart = field(default_factory=TileStart)
    noise: Noise | None = None

    @property
    def facts(self) -> StackFacts:
        """The stack, of whose channels all but the number is the same."""
        return self.stacks[0].facts

    @property
    def backgrounds(self) -> tuple[float, ...]:
        """Raw intensity of each channel where there is no Gaussian."""
        return tuple(level.background for level in self.levels)

    def read(self, low: Sequence[int], high: Sequence[int]) -> list[NDArray[np.generic]]:
        """Read a box of each channel.

        Parameters
        ----------
        low, high : sequence of int
            Its first voxel (z, y, x), and the one behind its last.
        """
        return [stack.read(triple(low), triple(high)) for stack in self.stacks]

    def hold_light(self, voxels: Voxels) -> bool:
        """Tell whether a part of the stack holds more than background, in any channel.

        Parameters
        ----------
        voxels : sequence of ndarray, shape [Z, Y, X]
            The intensities of the box, one array a channel.
        """
        return any(level.hold_light(own) for level, own in zip(self.levels, voxels, strict=True))

    @property
    def has_wide(self) -> bool:
        """Whether there may be Gaussians wider than a tile sees, found before all tiles."""
        return len(self.tiling) > 1 and self.start.points is None

    def wide(self, parts: Sequence[Mapping[str, NDArray[Any]]], dark: Dark) -> Placed:
        """Return the Gaussians that are wider than a tile sees.

        Parameters
        ----------
        parts : sequence of mapping
            What each tile that holds light adds to cells.
        dark : sequence of (Tile, sequence of float)
            The others, and the mean of each channel there.
        """
        if self.start.fit is not None:
            return self.start.wide(self.facts)
        if not parts:
            return self.none()
        means = self.cells.means(parts, dark, self.backgrounds)
        return fit_wide(self.cells, means, self.settings, self.facts)

    @property
    def cells(self) -> Cells:
        """In which that is looked for."""
        return Cells.of(self.tiling.shape)

    def begins(self, tile: Tile) -> bool:
        """Tell whether a tile is told to begin with something, whatever there seems to be.

        Parameters
        ----------
        tile : Tile
            A tile of this tiling.
        """
        of_points = self.start.points is not None
        return (of_points and bool(self._points(tile)[1].any())) or (
            self.start.fit is not None and bool(self._started(tile)[1].any())
        )

    def _points(self, tile: Tile) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        return self.start.points_of(tile, self.tiling, self.facts)

    def _started(self, tile: Tile) -> tuple[Placed, NDArray[np.bool_]]:
        return self.start.gaussians_of(tile, self.tiling, self.facts)

    @property
    def count(self) -> int | None:
        """How many Gaussians all tiles have together; None where each has what it carries."""
        return self.settings.gaussians if self.settings.exactly else None

    def lit(self, tile: Tile, voxels: Voxels) -> int:
        """Return how large a part of a tile's core stands out of the noise.

        Parameters
        ----------
        tile : Tile
            A tile of this tiling.
        voxels : sequence of ndarray, shape [Z, Y, X]
            Of its box, one a channel.
        """
        return self._lit([own[tile.core_in_box] for own in voxels])

    def _lit(self, voxels: Voxels) -> int:
        return sum(level.lit(own) for level, own in zip(self.levels, voxels, strict=True))

    def fit(self, tile: Tile, voxels: Voxels, anchors: Placed, count: int | None = None) -> Placed:
        """Fit what a tile sees beside its anchors, and return what it commits.

        Parameters
        ----------
        tile : Tile
            A tile of this tiling.
        voxels : sequence of ndarray, shape [Z, Y, X]
            Of its box, one a channel.
        anchors : Placed
            What earlier neighbours have committed.
        count : int or None
            How many it commits, where that is given; not of a fit that is gone on from.
        """
        rest = self.beside(voxels, tile.low, anchors)
        if self.start.fit is not None:
            begun, own = self._started(tile)
            if not own.any():
                return self.none()
            fields = self._run(rest, self.settings, begun.fields(tile.low, self.facts))
            return self._placed(fields, tile.low).select(own)
        if self.start.points is not None:
            return self._fit_points(tile, rest)
        if count is not None:
            return self._fit_exactly(tile, rest, count)
        if not self.hold_light(rest):
            return self.none()
        fields = self._run(rest, replace(self.settings, gaussians=self._most(rest)))
        found = self._placed(fields, tile.low)
        return found.select(self._committed(tile, found))

    def _fit_points(self, tile: Tile, rest: list[NDArray[np.float32]]) -> Placed:
        """Fit a tile from points: a Gaussian that began at one is its, wherever it has moved."""
        points, own = self._points(tile)
        asked = self.settings.gaussians
        if asked is None and not own.any():
            return self.none()
        settings = self.settings
        if asked is not None:
            settings = replace(settings, gaussians=max(len(points), self._most(rest)))
        fields = self._run(rest, settings, points=points if len(points) else None)
        found = self._placed(fields, tile.low)
        mine = self._committed(tile, found)
        mine[: len(points)] = own
        return found.select(mine)

    def _fit_exactly(self, tile: Tile, rest: list[NDArray[np.float32]], count: int) -> Placed:
        """Fit a tile by a given number of Gaussians, beside as many as what it sees beyond asks."""
        if not count:
            return self.none()
        core = self._lit([own[tile.core_in_box] for own in rest])
        beyond = self._lit(rest) / core if core else 1.0
        seen = min(round(count * max(1.0, beyond)), MOST_GAUSSIANS)
        fields = self._run(rest, replace(self.settings, gaussians=seen))
        found = self._placed(fields, tile.low)
        mine = self._committed(tile, found)
        if np.count_nonzero(mine) == count:
            return found.select(mine)
        wanted = of_count(found, mine, count).fields(tile.low, self.facts)
        moved = self._placed(self._run(rest, self._going_over, wanted), tile.low)
        return moved.select(np.arange(count))

    @property
    def _going_over(self) -> FitSettings:
        """Settings by which Gaussians that are in place are moved once more."""
        steps = max(1, round(SEAM_STEPS * self.settings.steps))
        return replace(self.settings, refine=True, iterations=steps)

    def _most(self, rest: Voxels) -> int:
        """Return how many Gaussians a tile may have."""
        most = max(1, int(prod(rest[0].shape) / SUGGESTION_VOXELS))
        return min(self.settings.gaussians or MOST_UNASKED, most)

    def _committed(self, tile: Tile, found: Placed) -> NDArray[np.bool_]:
        return self.tiling.committed(tile, found.means / np.asarray(self.facts.spacing))

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
        lowest, highest = moved.bounds(self.facts.spacing)
        low = triple(np.maximum(lowest, tile.low).astype(int).tolist())
        high = triple(np.minimum(highest + 1, tile.high).astype(int).tolist())
        rest = self.beside(self.read(low, high), low, others)
        before = moved.fields(low, self.facts)
        after = self._run(rest, self._going_over, before)
        errors = zip(self._errors(after, rest), self._errors(before, rest), strict=True)
        # Channels count by what is left of each, since their light has no common unit.
        if sum(new / max(old, 1e-300) for new, old in errors) >= len(before):
            return moved
        return self._placed(after, low)

    def measured(self, tile: Tile, mine: Placed, others: Placed) -> Measurement | None:
        """Measure Gaussians of a tile, with those beside them; None where it means nothing.

        Parameters
        ----------
        tile : Tile
            A tile of this tiling.
        mine : Placed
            The Gaussians whose centres lie in the tile's core.
        others : Placed
            All other Gaussians whose light reaches the tile.

        Returns
        -------
        Measurement or None
            Of `mine` first, then of those others that lie in the tile's box; positions from the
            box's first voxel.
        """
        step = np.asarray(self.facts.spacing)
        at = others.means / step
        low, high = np.asarray(tile.low), np.asarray(tile.high)
        near = ((at >= low - 0.5) & (at <= high - 0.5)).all(1)
        together = Placed.joined([mine, others.select(near)], len(self.stacks))
        fields = together.fields(tile.low, self.facts, self.backgrounds)
        if not self.settings.measure:
            own = mine.fields(tile.low, self.facts)[0].numpy()
            if not worth_measuring(own, self.facts.spacing)[0]:
                return None
        rest = self.beside(self.read(tile.low, tile.high), tile.low, others.select(~near))
        shape = self.settings.shape
        constraints = None if self.psf is None else Constraints(shape=shape, psf=self.psf)
        likelihood: Likelihood = "squared" if self.noise is None else "poisson"
        return measure(
            fields, [self._part(own) for own in rest],
            likelihood=likelihood, noise=self.noise, constraints=constraints,
        )  # fmt: skip

    def beside(
        self, voxels: Voxels, low: Sequence[int], anchors: Placed
    ) -> list[NDArray[np.float32]]:
        """Return voxels of each channel without the light of Gaussians.

        Parameters
        ----------
        voxels : sequence of ndarray, shape [Z, Y, X]
            In raw intensity, one a channel.
        low : sequence of int
            The first of them in the stack.
        anchors : Placed
            Some may reach nowhere near.
        """
        rest = [own.astype(np.float32) for own in voxels]
        high = np.add(low, rest[0].shape).tolist()
        reaching = anchors.select(anchors.reaching(low, high, self.facts.spacing))
        if len(reaching):
            for n, one in enumerate(reaching.fields(low, self.facts)):
                rest[n] -= one.voxelise(rest[n].shape, self.facts.spacing).numpy()
        return rest

    def none(self) -> Placed:
        """Return no Gaussians of this stack."""
        return Placed.none(len(self.stacks))

    def _placed(self, fields: Sequence[GaussianField], low: Sequence[int]) -> Placed:
        return Placed.of(fields, low, self.facts.spacing)

    def _part(self, voxels: NDArray[np.float32]) -> Stack:
        return Stack.from_array(
            voxels, spacing=self.facts.spacing, unit=self.facts.unit, name="a tile"
        )

    def _run(
        self,
        rest: Sequence[NDArray[np.float32]],
        settings: FitSettings,
        start: Sequence[GaussianField] | None = None,
        points: ArrayLike | None = None,
    ) -> tuple[GaussianField, ...]:
        """Fit voxels above the background of each channel; photons count from an intensity of 0.

        What was subtracted of neighbours had noise too, by which a loss that counts photons would
        weigh voxels less. Its minimum is at the mean all the same, wherever 0 is.
        """
        levels = self.backgrounds
        if settings.loss == "poisson":
            settings = replace(settings, background=levels[0])
            start = start and [replace(one, background=levels[0]) for one in start]
            parts = [self._part(own) for own in rest]
        else:
            settings = replace(settings, background=0.0)
            parts = [self._part(v - np.float32(b)) for v, b in zip(rest, levels, strict=True)]
        fit = Fit(parts, settings, start=start, points=points, psf=self.psf)
        for _ in fit:
            pass
        return fit.snapshot().fields

    def _errors(
        self, fields: Sequence[GaussianField], rest: Sequence[NDArray[np.float32]]
    ) -> list[float]:
        """Return the mean loss of each channel, in parts of the range."""
        import torch

        found = []
        for one, voxels, background in zip(fields, rest, self.backgrounds, strict=True):
            light = one.voxelise(voxels.shape, self.facts.spacing).double() + background
            size = max(float(np.ptp(voxels)), 1e-30)
            target = torch.from_numpy(voxels).double()
            found.append(float(LOSSES[self.settings.loss](light / size, target / size)))
        return found


def checked_settings(settings: FitSettings, start: TileStart, channels: int = 1) -> FitSettings:
    """Return settings that fits of tiles can have.

    Parameters
    ----------
    settings : FitSettings
        The settings that a fit of the whole stack would have.
    start : TileStart
        What it begins with.
    channels : int
        How many are fitted together.

    Raises
    ------
    SettingsError
        If one of them is about a stack as a whole, makes a result depend on the machine's speed, or
        does not go with what the fit begins with.
    """
    for name, wrong, why in (
        ("objective", settings.objective == "mip", "the projections of a tile are not the stack's"),
        ("max_seconds", settings.max_seconds is not None, "what is found would go by its speed"),
    ):
        if wrong:
            raise SettingsError(
                f"{name}={getattr(settings, name)!r}: cannot be had by tiles, since {why}; leave "
                "it out, or fit the stack in one piece (--no-tiles)"
            )
    if settings.refine != (start.fit is not None):
        given = "there is no start" if settings.refine else "there is a start"
        raise SettingsError(
            f"refine={settings.refine}: {given}; by tiles, a fit that is gone on from (start, "
            "--refine FIT) is refined, and nothing else is"
        )
    if start.fit is not None and start.points is not None:
        raise SettingsError("points and start are both given; give one to begin with")
    if settings.exactly and start.fit is None and start.points is not None:
        raise SettingsError(
            "exactly: points are given too, and by tiles there is one Gaussian at each then; leave "
            "one of the two out"
        )
    if settings.exactly and start.fit is None and settings.gaussians is None:
        raise SettingsError(
            "exactly: by tiles, expected how many Gaussians beside it, which tiles share by how "
            "much of them stands out of the background; give a number (--gaussians N)"
        )
    if settings.loss == "poisson" and channels > 1:
        raise SettingsError(
            f"loss='poisson': by tiles, of one channel; {channels} are given, whose backgrounds "
            "differ: give one of them, or fit the stack in one piece (--no-tiles)"
        )
    return settings
