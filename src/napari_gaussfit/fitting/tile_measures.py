"""How well the Gaussians of tiles are known, as arrays that a working file holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.measure.measurement import SHAPE, Measurement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.model.gaussians import Gaussians

__all__ = ["Measured", "arrays_of", "known_of"]

NUMBERS = ("covariances", "reduced_chi2", "backgrounds", "steps")


def arrays_of(found: Measurement, count: int) -> dict[str, NDArray[Any]]:
    """Return what is known of the first Gaussians of a measurement.

    Parameters
    ----------
    found : Measurement
        Of Gaussians of a tile, and others after them.
    count : int
        How many are the tile's.
    """
    flags = json.dumps(found.flags[:count]).encode()
    numbers: dict[str, NDArray[Any]] = {n: getattr(found, n)[:count] for n in NUMBERS}
    return numbers | {"flags": np.frombuffer(flags, np.uint8)}


@dataclass(frozen=True, eq=False)
class Measured:
    """What a working file knows of Gaussians of a task.

    Parameters
    ----------
    rows : ndarray of int, shape [M]
        Which of the task's they are; -1 of others.
    arrays : mapping
        As of `arrays_of`, of M Gaussians.
    """

    rows: NDArray[np.int64]
    arrays: Mapping[str, NDArray[Any]]


def known_of(
    which: NDArray[np.bool_], files: Sequence[Measured], gaussians: Sequence[Gaussians]
) -> tuple[Measurement | None, int]:
    """Return what is known of some Gaussians of a task, None where none was measured.

    Parameters
    ----------
    which : ndarray of bool, shape [K]
        Which of the task's.
    files : sequence of Measured
        What working files know.
    gaussians : sequence of Gaussians
        Those that are asked for, one a channel.

    Returns
    -------
    Measurement or None
        NaN of those that were not measured.
    int
        How many were.
    """
    count, channels = int(np.count_nonzero(which)), len(gaussians)
    free = SHAPE + 2 * channels
    numbers: dict[str, NDArray[Any]] = {
        "covariances": np.full((count, free, free), np.nan),
        "reduced_chi2": np.full(count, np.nan),
        "backgrounds": np.full((count, channels), np.nan),
        "steps": np.zeros(count, np.int64),
    }
    flags, measured = [""] * count, 0
    index = np.where(which, np.cumsum(which) - 1, -1)
    for file in files:
        to = np.where(file.rows >= 0, index[file.rows], -1)
        there = np.flatnonzero(to >= 0)
        words = json.loads(file.arrays["flags"].tobytes())
        for name, values in numbers.items():
            values[to[there]] = file.arrays[name][there]
        for n in there.tolist():
            flags[int(to[n])] = words[n]
        measured += len(there)
    if not measured:
        return None, 0
    covariances, reduced_chi2, backgrounds, steps = (numbers[name] for name in NUMBERS)
    found = Measurement(
        tuple(gaussians), covariances, reduced_chi2, backgrounds, steps, tuple(flags)
    )
    return found, measured
