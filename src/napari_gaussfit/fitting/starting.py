"""Where a fit is told to begin: Gaussians and points, which must be of the stack that is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["Follows", "checked_points", "refuse_foreign_start"]


@dataclass(frozen=True)
class Follows:
    """What is known of the time before.

    Parameters
    ----------
    noises : tuple of Noise or None
        Of each channel's detector, in raw intensity: the same at all times. None where that time
        did not tell it.
    """

    noises: tuple[Noise | None, ...]

    @classmethod
    def of(cls, before: FitResult) -> Follows:
        """Return what the record of the time before tells.

        Parameters
        ----------
        before : FitResult
            With its reports, or without.
        """
        told = [report.detector for report in before.reports]
        return cls(tuple(told or [None] * len(before.fields)))


def refuse_foreign_start(start: Sequence[GaussianField], stacks: Sequence[Stack]) -> None:
    """Refuse Gaussians that are not of such stacks.

    Parameters
    ----------
    start : sequence of GaussianField
        A field a channel; none where a fit begins anew.
    stacks : sequence of Stack
        The channels to fit.

    Raises
    ------
    SettingsError
        If it is no field, there is another number of channels, another unit, all lie outside of the
        stack, or a number is not finite.
    """
    if not start:
        return
    if len(start) != len(stacks):
        raise SettingsError(
            f"start has {len(start)} fields, the fit {len(stacks)} channels; give one of each"
        )
    stack = stacks[0]
    from napari_gaussfit.model.field import GaussianField

    for field in start:
        if not isinstance(field, GaussianField):
            raise SettingsError(
                f"start is a {type(field).__name__}; expected a GaussianField, as result.field is "
                "(and positions are given as points)"
            )
        means = field.numpy().means  # which refuses what is not finite
        if field.unit != stack.unit:
            raise SettingsError(
                f"start is in {field.unit}s, the stack {stack.name!r} in {stack.unit}s; give both "
                "in one unit (spacing=(dz, dy, dx) in micrometers)"
            )
        if len(means) and not _inside(means, stack).any():
            raise SettingsError(
                f"start has none of its {len(means):,} Gaussians in the stack {stack.name!r}, "
                f"{_extent(stack)}; give Gaussians of this stack"
            )


def checked_points(points: ArrayLike | None, stack: Stack) -> NDArray[np.float64] | None:
    """Return points to begin at, as an array.

    Parameters
    ----------
    points : array-like, shape [P, 3], or None
        z, y, x in the stack's unit.
    stack : Stack
        In whose box they lie.

    Raises
    ------
    SettingsError
        If they have another shape, are not finite, or one lies outside.
    """
    if points is None:
        return None
    array = np.asarray(points, np.float64)
    if array.ndim != 2 or array.shape[1] != 3:
        raise SettingsError(f"points has shape {array.shape}; expected (P, 3), z, y, x in each row")
    outside = np.flatnonzero(~_inside(array, stack))  # NaN is nowhere inside
    if len(outside):
        place = ", ".join(f"{n:.6g}" for n in array[outside[0]])
        raise SettingsError(
            f"points: {len(outside)} of {len(array)} lie outside of the stack {stack.name!r}, the "
            f"first of them, {outside[0]}, at {place}; {_extent(stack)}: check their unit and that "
            "they are z, y, x"
        )
    return array


def _inside(places: NDArray[np.floating], stack: Stack) -> NDArray[np.bool_]:
    lower, upper = stack.box
    return np.asarray(((places >= lower) & (places <= upper)).all(axis=1))


def _extent(stack: Stack) -> str:
    lower, upper = stack.box
    ends = (f"{a} {low:.4g} to {up:.4g}" for a, low, up in zip("zyx", lower, upper, strict=True))
    return f"which is at {', '.join(ends)} {stack.unit}s"
