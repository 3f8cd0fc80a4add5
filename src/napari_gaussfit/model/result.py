"""What a fit leaves behind, and what must be known of the stack that it was of."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as default
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_gaussfit._limits import FARTHEST_MEAN, LONGEST_SIDE
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.stacks.layout import checked_spacing
from napari_gaussfit.stacks.reading import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["SavedFit", "StackBox", "StackFacts"]

_AXES = "zyx"


_UNITS = ("micrometer", "pixel")


class StackFacts(Protocol):
    """What a file that does not know its stack must be told of it; a `Stack` is one."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The number of voxels along z, y and x."""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """(dz, dy, dx), in `unit`."""

    @property
    def unit(self) -> str:
        """Of lengths: "micrometer" or "pixel"."""

    @property
    def value_range(self) -> tuple[float, float]:
        """The smallest and the largest intensity."""


@dataclass(frozen=True)
class StackBox:
    """What is known of a stack that is not at hand: where its voxels are, see `StackFacts`.

    Parameters
    ----------
    name : str
        What to call it.
    shape : tuple of int
        The number of voxels along z, y and x.
    spacing : tuple of float
        (dz, dy, dx), in `unit`.
    unit : str
        Of lengths: "micrometer" or "pixel".
    value_range : tuple of float
        The smallest and the largest intensity; 0 and 1 where they are not known.
    """

    name: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    unit: str = "micrometer"
    value_range: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def of_size(cls, name: str, size: Sequence[float], spacing: Sequence[float]) -> StackBox:
        """Return the stack of a size and a spacing.

        Parameters
        ----------
        name : str
            What to call it.
        size : sequence of float
            Along z, y and x, in micrometres.
        spacing : sequence of float
            (dz, dy, dx) in micrometres.

        Returns
        -------
        StackBox
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


@dataclass(frozen=True, eq=False)
class SavedFit:
    """What a fit leaves behind: its result, how it got there, and what it needs to go on.

    Parameters
    ----------
    field : GaussianField
        The result; loaded fields are float32 on the CPU, and load torch when they need it.
    stack : str
        The name of the stack that was fitted.
    shape : tuple of int
        The stack's number of voxels along z, y and x.
    spacing : tuple of float
        The stack's (dz, dy, dx), in `unit`.
    unit : str
        Of lengths, the field's too: "micrometer" or "pixel".
    settings : dict
        What the fit was asked to do, as JSON has it.
    history : dict of lists of float
        What was recorded along the way.
    report : dict or None
        What the fit found about itself, None before its end.
    state : dict of ndarray
        Optimiser moments, iteration, random state: what it takes to go on. May be empty.
    others : tuple of GaussianField
        Of a fit of several channels, those after the first, which is `field`: the same means and
        covariances, with amplitudes and a background of their own.
    origin : tuple of float
        Where the stack says that the centre of its first voxel lies (z, y, x), in `unit`. The
        field's positions count from that voxel.
    channel, time : int or None
        Which channel and time of the stack's file or layer was fitted, None where it has but one,
        or several were fitted together.
    notes : tuple of str
        What was assumed as another program's file was read; not saved.

    Raises
    ------
    SettingsError
        If the field is in another unit than the stack, the channels' Gaussians differ in more than
        brightness, or shape, spacing or unit are not those of a stack.
    """

    field: GaussianField
    stack: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    unit: str
    settings: dict[str, Any] = default(default_factory=dict)
    history: dict[str, list[float]] = default(default_factory=dict)
    report: dict[str, Any] | None = None
    state: dict[str, NDArray[Any]] = default(default_factory=dict)
    others: tuple[GaussianField, ...] = ()
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    channel: int | None = None
    time: int | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no stack, another unit than its, and channels of different Gaussians."""
        self._refuse_no_stack()
        if self.field.unit != self.unit:
            raise SettingsError(
                f"unit={self.unit!r} of the stack is not the field's, {self.field.unit!r}; "
                "give both in one unit"
            )
        if not np.isfinite(self.origin).all():
            raise SettingsError(f"origin={self.origin}: expected three finite numbers, z, y, x")
        for n, other in enumerate(self.others, 1):
            if not _same_shapes(self.field, other):
                raise SettingsError(
                    f"channel {n} has other Gaussians than channel 0; expected the same means and "
                    "covariances, with amplitudes of its own"
                )

    def _refuse_no_stack(self) -> None:
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
    def of(cls, field: GaussianField, stack: Stack, **more: Any) -> SavedFit:
        """Return the fit of a stack, with all that is known of where the stack is.

        Parameters
        ----------
        field : GaussianField
            Of the stack, or of the first of several channels.
        stack : Stack
            What was fitted; of several channels, the first.
        **more
            The other parameters of the class, by their names.

        Returns
        -------
        SavedFit
            With the stack's name, shape, spacing, unit, origin and time, and its channel where
            there are no others.
        """
        return cls(
            field,
            stack.name,
            stack.shape,
            stack.spacing,
            stack.unit,
            origin=stack.origin,
            channel=None if more.get("others") else stack.channel,
            time=stack.time,
            **more,
        )

    @property
    def place(self) -> dict[str, int]:
        """The channel and the time, as far as there is more than one."""
        known = {"channel": self.channel, "time": self.time}
        return {axis: index for axis, index in known.items() if index is not None}

    @property
    def channels(self) -> tuple[GaussianField, ...]:
        """The field of each channel."""
        return self.field, *self.others

    @property
    def box(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The lower and upper corner of the stack, see `Stack.box`."""
        spacing = np.asarray(self.spacing, dtype=np.float64)
        return -0.5 * spacing, (np.asarray(self.shape) - 0.5) * spacing


def _same_shapes(field: GaussianField, other: GaussianField) -> bool:
    one, another = field.numpy(), other.numpy()
    return (
        one.unit == another.unit
        and np.array_equal(one.means, another.means)
        and np.array_equal(one.cholesky, another.cholesky)
    )
