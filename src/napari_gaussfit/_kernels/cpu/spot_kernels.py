"""Numba kernels of the search for spots: light in a box, and what maxima of filters explain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.jit import exact_kernel

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

__all__ = ["add_light", "explain"]

FARTHEST = 36.0
"""Squared distance in standard deviations from which a Gaussian is nothing: 1.5e-8 of its peak."""


@exact_kernel
def add_light(
    centres: Floats, inverses: Floats, amplitudes: Floats, at: tuple[Floats, Floats, Floats],
    light: Floats,
) -> None:  # fmt: skip
    """Add amplitude exp(-u^T S^-1 u / 2) of each Gaussian to `light` [Z, Y, X] at places `at`."""
    along_z, along_y, along_x = at
    for k in range(len(centres)):
        inverse, amplitude = inverses[k], amplitudes[k]
        for i in range(len(along_z)):
            dz = along_z[i] - centres[k, 0]
            for j in range(len(along_y)):
                dy = along_y[j] - centres[k, 1]
                # Row by row a parabola.
                row = inverse[0, 0] * dz * dz + inverse[1, 1] * dy * dy
                row += 2 * inverse[0, 1] * dz * dy
                slope = 2 * (inverse[0, 2] * dz + inverse[1, 2] * dy)
                for n in range(len(along_x)):
                    dx = along_x[n] - centres[k, 2]
                    square = row + (slope + inverse[2, 2] * dx) * dx
                    if square < FARTHEST:
                        light[i, j, n] += amplitude * np.exp(-0.5 * square)


@exact_kernel
def explain(
    maxima: tuple[Floats, Floats, Floats], near: tuple[Counts, Counts],
    numbers: tuple[float, float, float],
) -> Counts:  # fmt: skip
    """Return which maxima, the highest first, are more than answers to those before them.

    maxima : places [n, 3], widths [n, 3], scores [n]; near : where the neighbours of each begin
    [n + 1], and these; numbers : the least score, how many times as much as what is explained
    another must be, and the outer Gaussian of a filter over its inner one.
    """
    (places, widths, scores), (starts, others) = maxima, near
    least, times, outer = numbers
    own = 2**-1.5 - (1 + outer * outer) ** -1.5
    explained = np.zeros(len(places))
    kept = np.ones(len(places), np.bool_)
    for k in range(len(places)):
        if scores[k] < least + times * explained[k]:
            kept[k] = False
            continue
        for other in others[starts[k] : starts[k + 1]]:
            if other <= k:
                continue
            inside, outside, deviation, near_square, far_square = 1.0, 1.0, 1.0, 0.0, 0.0
            for axis in range(3):
                width, by = widths[k, axis], widths[other, axis]
                apart = places[other, axis] - places[k, axis]
                narrow = width * width + by * by
                wide = width * width + (outer * by) ** 2
                inside *= width / np.sqrt(narrow)
                outside *= width / np.sqrt(wide)
                near_square += apart * apart / narrow
                far_square += apart * apart / wide
                deviation *= width / by
            answer = inside * np.exp(-0.5 * near_square) - outside * np.exp(-0.5 * far_square)
            # Deviations of a filter's noise are as its width^(-3/2).
            explained[other] += scores[k] * max(answer / own / np.sqrt(deviation), 0.0)
    return np.flatnonzero(kept)
