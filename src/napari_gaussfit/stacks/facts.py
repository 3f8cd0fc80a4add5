"""StackFacts: what is known of a stack without its voxels, and what a fit keeps of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit._limits import FARTHEST_MEAN, LONGEST_SIDE
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.stacks.layout import checked_spacing
from napari_gaussfit.stacks.reading import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["StackFacts", "box_of"]

_AXES = "zyx"

_UNITS = ("micrometer", "pixel")


@dataclass(frozen=True)
class StackFacts:
    """Name, size and place of a stack: `Stack.facts`, or what is known where there is no stack.

    Parameters
    ----------
    name : str
        Name of the stack, by default its file's.
    shape : tuple of int
        The number of voxels along z, y and x.
    spacing : tuple of float
        Distances between voxel centres (dz, dy, dx), in `unit`.
    unit : str
        Unit of all lengths: "micrometer" or "pixel".
    origin : tuple of float
        Where the stack's file says that the centre of its first voxel lies (z, y, x), in `unit`.
        Positions of Gaussians count from that voxel.
    channel, time : int or None
        Which channel and time of the stack's file or layer this is, None where it has but one, or
        where several were fitted together.
    value_range : tuple of float or None
        The smallest and the largest intensity, None where they are not known. Not saved.

    Raises
    ------
    SettingsError
        If no stack can have such a shape, spacing, unit or place.
    """

    name: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    unit: str = "micrometer"
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    channel: int | None = None
    time: int | None = None
    value_range: tuple[float, float] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        """Refuse what no stack can be."""
        if self.unit not in _UNITS:
            raise SettingsError(f"unit is {shown(self.unit)}; expected {' or '.join(_UNITS)}")
        sides: tuple[object, ...] = self.shape
        whole = [n for n in sides if isinstance(n, (int, np.integer)) and n is not True]
        if len(sides) != 3 or len(whole) != 3 or not 1 <= min(whole) <= max(whole) <= LONGEST_SIDE:
            raise SettingsError(
                f"shape is {shown(self.shape)}; expected three whole numbers from 1 to "
                f"{LONGEST_SIDE:,}, the voxels along z, y and x"
            )
        checked_spacing(self.spacing)
        if not all(abs(position) <= FARTHEST_MEAN for position in self.origin):
            raise SettingsError(f"origin is {shown(self.origin)}; expected three finite numbers")
        for name in ("channel", "time"):
            index: object = getattr(self, name)
            if index is not None and (not isinstance(index, (int, np.integer)) or index < 0):
                raise SettingsError(f"{name} is {shown(index)}; expected a number from 0, or null")

    @classmethod
    def of_size(cls, name: str, size: Sequence[float], spacing: Sequence[float]) -> StackFacts:
        """Return the facts of a stack of a given size and spacing.

        Parameters
        ----------
        name : str
            Name of the stack, by default its file's.
        size : sequence of float
            Extent along z, y and x, in micrometres.
        spacing : sequence of float
            Distances between voxel centres (dz, dy, dx), in micrometres.

        Returns
        -------
        StackFacts
            With the number of voxels that comes closest.

        Raises
        ------
        SettingsError
            If the spacing is none, or the size is not of a voxel or more along each axis.
        """
        steps = checked_spacing(spacing)
        counts = [length / step for length, step in zip(size, steps, strict=True)]
        for axis, length, count in zip(_AXES, size, counts, strict=True):
            if not 0.5 <= count < np.iinfo(np.int32).max:
                raise SettingsError(
                    f"box: its {axis} is {length:g} micrometers; expected a voxel or more of this "
                    "spacing along each axis"
                )
        z, y, x = (round(count) for count in counts)
        return cls(name, (z, y, x), steps)

    def sampled(self, spacing: Sequence[float]) -> StackFacts:
        """Return the facts of the same box in other voxels, of which the first lies where it did.

        Parameters
        ----------
        spacing : sequence of float
            (dz, dy, dx) in `unit`.

        Returns
        -------
        StackFacts
            With as many voxels as lie between the outer centres.

        Raises
        ------
        SettingsError
            If it is no spacing, or leaves too many voxels.
        """
        steps = checked_spacing(spacing)
        z, y, x = (
            1 + int((n - 1) * old / new + 1e-6)
            for n, old, new in zip(self.shape, self.spacing, steps, strict=True)
        )
        return replace(self, shape=(z, y, x), spacing=steps)

    @property
    def place(self) -> dict[str, int]:
        """The channel and the time, as far as the stack's file has several."""
        known = {"channel": self.channel, "time": self.time}
        return {axis: index for axis, index in known.items() if index is not None}

    @property
    def box(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The lower and upper corner of the stack, see `Stack.box`."""
        return box_of(self.shape, self.spacing)


def box_of(
    shape: Sequence[int], spacing: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the corners of a stack's box, which ends half a voxel beyond the outer centres.

    Parameters
    ----------
    shape : sequence of int
        The number of voxels along z, y and x.
    spacing : sequence of float
        (dz, dy, dx), in the stack's unit.

    Returns
    -------
    tuple of ndarray
        The lower and the upper corner, each [3] zyx in the stack's unit.
    """
    steps = np.asarray(spacing, dtype=np.float64)
    return -0.5 * steps, (np.asarray(shape) - 0.5) * steps
