"""What a fit computes in: lengths in finest spacings, intensities from 0 to 1.

Single precision holds seven digits: with a camera's offset of 10^9, or a spacing of 10^-6, too few
of them would be left for what is in the stack. Knows no optimiser.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_gaussfit.model.field import GaussianField

__all__ = ["WorkingStack"]

FARTHEST_BACKGROUND = 1e6
"""Ranges of the stack that a background may lie from its lowest voxel."""

_IS_WIDTH = (1.0, 0.0, 1.0, 0.0, 0.0, 1.0)
"""Which Cholesky parameters are logarithms of lengths; the others are lengths."""


@dataclass(frozen=True, eq=False)
class WorkingStack:
    """A stack in the units that a fit computes in.

    Parameters
    ----------
    original : Stack
        As it was read.

    Attributes
    ----------
    stack : Stack
        The same voxels in float32, from 0 to 1; the finest spacing is 1.
    length : float
        What a length of 1 is in the original's unit.
    lowest : int or float
        What 0 is in the original's intensity: of integers exactly.
    range : float
        What 1 is above that.
    """

    original: Stack
    stack: Stack
    length: float
    lowest: int | float
    range: float

    @classmethod
    def of(cls, original: Stack) -> WorkingStack:
        """Return a stack in working units: offset taken off in double precision, then scaled.

        Parameters
        ----------
        original : Stack
            As it was read.

        Returns
        -------
        WorkingStack
            Of the same name and shape.
        """
        voxels = original.voxels
        lowest, highest = voxels.min().item(), voxels.max().item()
        value_range = float(highest - lowest)
        scaled = np.empty(voxels.shape, np.float32)
        for plane, out in zip(voxels, scaled, strict=True):
            np.divide(_above(plane, lowest), value_range, out=out, casting="same_kind")
        length = min(original.spacing)
        dz, dy, dx = (d / length for d in original.spacing)
        stack = replace(original, voxels=scaled, spacing=(dz, dy, dx), unit="pixel")
        return cls(original, stack, length, lowest, value_range)

    def scaled_background(self, background: float) -> float:
        """Return a background of the original in working units."""
        return (background - self.lowest) / self.range

    def given_background(self, background: float) -> float:
        """Return a background that was asked for in working units.

        Raises
        ------
        SettingsError
            If it is so far from the stack that single precision loses the stack beside it.
        """
        scaled = self.scaled_background(background)
        if abs(scaled) <= FARTHEST_BACKGROUND:
            return scaled
        highest = self.lowest + self.range
        raise SettingsError(
            f"background={background:g}: lies {abs(scaled):.0e} times the range of the stack away "
            f"from its voxels, {self.lowest:g} to {highest:g}; give one near these, or none"
        )

    def restored_background(self, background: float) -> float:
        """Return a background in working units as one of the original."""
        return background * self.range + self.lowest

    def scaled(self, field: GaussianField) -> GaussianField:
        """Return a field of the original stack in working units.

        Parameters
        ----------
        field : GaussianField
            In the original's unit and intensity.

        Returns
        -------
        GaussianField
            Tensors of its own.
        """
        return replace(
            field,
            means=field.means.detach() / self.length,
            cholesky=_stretched(field.cholesky.detach(), 1 / self.length),
            amplitudes=field.amplitudes.detach() / self.range,
            background=self.scaled_background(field.background),
            unit=self.stack.unit,
        )

    def restored(self, field: GaussianField) -> GaussianField:
        """Return a field in working units as one of the original stack.

        Parameters
        ----------
        field : GaussianField
            A field in working units, as it is fitted.

        Returns
        -------
        GaussianField
            In the original's unit and intensity; tensors of its own.
        """
        return replace(
            field,
            means=field.means.detach() * self.length,
            cholesky=_stretched(field.cholesky.detach(), self.length),
            amplitudes=field.amplitudes.detach() * self.range,
            background=self.restored_background(field.background),
            unit=self.original.unit,
        )


def _stretched(cholesky: Tensor, factor: float) -> Tensor:
    """Return the Cholesky parameters [K, 6] of Gaussians larger by a factor."""
    is_width = cholesky.new_tensor(_IS_WIDTH)
    return cholesky * (is_width + (1 - is_width) * factor) + is_width * math.log(factor)


def _above(voxels: NDArray[Any], lowest: float) -> NDArray[np.float64]:
    """Return what voxels lie above their lowest value, of integers exactly."""
    if voxels.dtype.kind not in "iu":
        return voxels.astype(np.float64) - lowest
    # Modulo 2^64 the difference is right, whatever the sign and size of both.
    difference = voxels.astype(np.uint64) - np.uint64(int(lowest) % 2**64)
    return difference.astype(np.float64)
