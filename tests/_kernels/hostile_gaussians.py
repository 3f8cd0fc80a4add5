"""Gaussians that no kernel can evaluate, or that lie far from everything."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from scenes import Field

UNSOUND = {
    "a mean that is NaN": ("means", 1, math.nan),
    "a mean that is infinite": ("means", 0, math.inf),
    "a mean of the largest float": ("means", 2, -3.4e38),
    "a width that is NaN": ("cholesky", 2, math.nan),
    "a width beyond float32": ("cholesky", 0, 90.0),
    "a width of nothing": ("cholesky", 5, -90.0),
    "a width that is minus infinity": ("cholesky", 0, -math.inf),
    "a slant that is NaN": ("cholesky", 4, math.nan),
    "a slant beyond float32": ("cholesky", 1, 3e38),
    "a slant that makes a thread of it": ("cholesky", 3, 1e11),
    "an amplitude that is NaN": ("amplitudes", None, math.nan),
    "an amplitude that is infinite": ("amplitudes", None, math.inf),
}
"""What may be wrong with a Gaussian: in which tensor, in which column, and what stands there."""

FAR = {f"{axis} of {mean:.0e}": (axis, mean) for axis in range(3) for mean in (1e4, -1e15, 1e16)}
"""Axis and position of a mean that is finite, with nothing of the Gaussian near the box."""


def spoilt(field: Field, name: str) -> Field:
    """Put a Gaussian before all others, and one after them, that is not sound."""
    tensor, column, value = UNSOUND[name]
    grown = _framed(field)
    changed = getattr(grown, tensor)
    changed[[0, -1] if column is None else ([0, -1], column)] = value
    return grown


def with_far_ones(field: Field, name: str) -> Field:
    """Put a Gaussian before all others, and one after them, that is far away."""
    axis, mean = FAR[name]
    grown = _framed(field)
    grown.means[[0, -1], axis] = mean
    return grown


def _framed(field: Field) -> Field:
    which = torch.tensor([0, *range(len(field.means)), 0])
    return replace(
        field,
        means=field.means[which].clone(),
        cholesky=field.cholesky[which].clone(),
        amplitudes=field.amplitudes[which].clone(),
    )
