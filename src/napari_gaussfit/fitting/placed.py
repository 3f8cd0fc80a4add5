"""Gaussians of a large stack, wherever in it they are: what tiles give each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.formats.tiled import REACH_SIGMAS
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import Gaussians

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.stacks.facts import StackFacts

    Floats = NDArray[np.float64]

__all__ = ["Placed"]


@dataclass(frozen=True, eq=False)
class Placed:
    """Gaussians in a large stack: centres in float64, which alone tells them apart everywhere.

    Parameters
    ----------
    means : ndarray, shape [K, 3]
        Centres (z, y, x) in the stack's unit, from its first voxel.
    cholesky : ndarray of float32, shape [K, 6]
        The Cholesky parameters, in the order of `GaussianField`.
    amplitudes : ndarray of float32, shape [C, K]
        In raw intensity of each channel.
    """

    means: Floats
    cholesky: NDArray[np.float32]
    amplitudes: NDArray[np.float32]

    @classmethod
    def none(cls, channels: int = 1) -> Placed:
        """Return no Gaussians.

        Parameters
        ----------
        channels : int
            That they would have.
        """
        nothing = np.empty((channels, 0), np.float32)
        return cls(np.empty((0, 3)), np.empty((0, 6), np.float32), nothing)

    @classmethod
    def joined(cls, parts: Sequence[Placed], channels: int = 1) -> Placed:
        """Return all Gaussians of several parts, in their order.

        Parameters
        ----------
        parts : sequence of Placed
            The Gaussians of several tiles; there may be none.
        channels : int
            How many channels each part has.
        """
        several = [cls.none(channels), *parts]
        return cls(
            np.concatenate([part.means for part in several]),
            np.concatenate([part.cholesky for part in several]),
            np.concatenate([part.amplitudes for part in several], 1),
        )

    @classmethod
    def of(
        cls,
        fields: Sequence[GaussianField | Gaussians],
        first: Sequence[int],
        spacing: Sequence[float],
    ) -> Placed:
        """Return the Gaussians of a part of the stack.

        Parameters
        ----------
        fields : sequence of GaussianField or Gaussians
            One a channel; positions from the part's first voxel.
        first : sequence of int
            That voxel (z, y, x) in the stack.
        spacing : sequence of float
            The distance between voxel centres along z, y and x, in the stack's unit.
        """
        channels = [one.numpy() if isinstance(one, GaussianField) else one for one in fields]
        shift = np.asarray(first) * np.asarray(spacing, np.float64)
        return cls(
            channels[0].means + shift,
            channels[0].cholesky.astype(np.float32),
            np.stack([one.amplitudes for one in channels]).astype(np.float32),
        )

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
        return Placed(self.means[which], self.cholesky[which], self.amplitudes[:, which])

    def replace(self, rows: NDArray[np.int64], by: Placed) -> None:
        """Put others in the place of some.

        Parameters
        ----------
        rows : ndarray of int, shape [M]
            Which Gaussians are replaced.
        by : Placed
            The M Gaussians that take their places.
        """
        self.means[rows], self.cholesky[rows] = by.means, by.cholesky
        self.amplitudes[:, rows] = by.amplitudes

    def fields(
        self, first: Sequence[int], stack: StackFacts, backgrounds: Sequence[float] | None = None
    ) -> tuple[GaussianField, ...]:
        """Return the Gaussians of each channel with positions from a voxel.

        Parameters
        ----------
        first : sequence of int
            The voxel (z, y, x) of the stack.
        stack : StackFacts
            Whose spacing and unit count.
        backgrounds : sequence of float, optional
            Of each channel, in raw intensity; 0 if None.
        """
        shift = np.asarray(first) * np.asarray(stack.spacing, np.float64)
        means = (self.means - shift).astype(np.float32)
        levels = backgrounds or [0.0] * len(self.amplitudes)
        return tuple(
            GaussianField.from_numpy(Gaussians(means, self.cholesky, own, level, stack.unit))
            for own, level in zip(self.amplitudes, levels, strict=True)
        )

    def extents(self) -> Floats:
        """Return how far each reaches along z, y and x [K, 3], in the stack's unit."""
        numbers = Gaussians(np.zeros((len(self), 3)), self.cholesky, self.amplitudes[0])
        variances = np.diagonal(numbers.covariances, axis1=1, axis2=2)
        extents: Floats = REACH_SIGMAS * np.sqrt(variances)
        return extents

    def bounds(self, spacing: Sequence[float]) -> tuple[Floats, Floats]:
        """Return the box in voxels that one or more reach into: its first corner, and its last.

        Parameters
        ----------
        spacing : sequence of float
            The distance between voxel centres along z, y and x, in the stack's unit.
        """
        step, extents = np.asarray(spacing), self.extents()
        low: Floats = np.floor(((self.means - extents) / step).min(0))
        high: Floats = np.ceil(((self.means + extents) / step).max(0))
        return low, high

    def reaching(
        self, low: Sequence[int], high: Sequence[int], spacing: Sequence[float]
    ) -> NDArray[np.bool_]:
        """Tell which Gaussians [K] reach into a box.

        Parameters
        ----------
        low, high : sequence of int
            The box, in voxels.
        spacing : sequence of float
            The distance between voxel centres along z, y and x, in the stack's unit.
        """
        step, reach = np.asarray(spacing), self.extents()
        above = self.means + reach >= (np.asarray(low) - 0.5) * step
        below = self.means - reach <= (np.asarray(high) - 0.5) * step
        inside: NDArray[np.bool_] = (above & below).all(1)
        return inside
