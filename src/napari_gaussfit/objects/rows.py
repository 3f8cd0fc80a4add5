"""What is known of spots while they are sought: rows of measurements, and marks beside them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from napari_gaussfit.measure.measurement import Measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.model.gaussians import Gaussians

    Mask = NDArray[np.bool_]

__all__ = ["Marks", "put", "rows_of"]

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Marks:
    """What is known of spots beside their numbers, an array [K] each.

    asked : points of the user's; settled : whether each is one or two was asked; whole : of two
    that are one, not to be halved; twin : the number of the halving that they are of, or -1.
    """

    asked: Mask
    settled: Mask
    whole: Mask
    twin: NDArray[np.int64]

    @classmethod
    def of(cls, asked: Mask, *, whole: bool = False, twin: int = -1) -> Marks:
        """Return those of new spots."""
        count = len(asked)
        return cls(
            asked, np.zeros(count, np.bool_), np.full(count, whole), np.full(count, twin, np.int64)
        )

    def select(self, which: Mask) -> Marks:
        """Return those of some spots."""
        return Marks(*(getattr(self, one.name)[which] for one in fields(self)))

    def joined(self, *others: Marks) -> Marks:
        """Return these and, after them, others."""
        every = (self, *others)
        return Marks(
            *(np.concatenate([getattr(m, one.name) for m in every]) for one in fields(self))
        )


def rows_of(measured: Measurement, which: Mask | NDArray[np.int64]) -> Measurement:
    """Return some Gaussians of a measurement."""
    return Measurement(
        tuple(g.select(which) for g in measured.gaussians),
        measured.covariances[which],
        measured.reduced_chi2[which],
        measured.backgrounds[which],
        measured.steps[which],
        tuple(np.array(measured.flags, object)[which]),
        measured.noise,
        measured.notes,
    )


def put(before: Measurement, gaussians: Gaussians, which: Mask, part: Measurement) -> Measurement:
    """Return what was known of the first Gaussians, with what is known now of some of them all."""

    def filled(old: NDArray[T], new: NDArray[T]) -> NDArray[T]:
        out = np.zeros((len(gaussians), *old.shape[1:]), old.dtype)
        out[: len(old)] = old
        out[which] = new
        return out

    [refined] = part.gaussians
    names = ("means", "cholesky", "amplitudes")
    own = {name: getattr(gaussians, name).astype(np.float64) for name in names}
    for name, values in own.items():
        values[which] = getattr(refined, name)
    return Measurement(
        (replace(gaussians, **own),),
        filled(before.covariances, part.covariances),
        filled(before.reduced_chi2, part.reduced_chi2),
        filled(before.backgrounds, part.backgrounds),
        filled(before.steps, part.steps),
        tuple(filled(np.array(before.flags, object), np.array(part.flags, object))),
        part.noise,
    )
