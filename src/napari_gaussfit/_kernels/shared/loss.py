"""The losses of a voxel or pixel and the law of the cutoff: plain arithmetic, written once.

`fitting.losses` has the same losses for torch's tensors, whose means are differentiated there.
"""

from __future__ import annotations

import math
from typing import TypeVar

from napari_gaussfit._kernels.shared.gaussian import ONE, TWO, ZERO, F

Number = TypeVar("Number", float, F)


def loss_of(rate: F, known: F, zero: F, darkest: F) -> tuple[F, F, F]:
    """Return a loss, its derivative by the rate, and how much the residual is to be trusted.

    With p = rate + zero and t = known + zero: (p - t)^2, 2 (p - t), 1 of the squared error; of the
    Poisson deviance 2 (t log(t / p) - (t - p)), 2 (1 - t / p), 1 / p.

    zero : distance of intensity 0 below the lowest voxel.
    darkest : smallest Poisson rate; 0 stands for the squared error.
    """
    if darkest == ZERO:
        excess = rate - known
        return excess * excess, TWO * excess, ONE
    p, t = max(rate + zero, darkest), known + zero
    least = ZERO
    if t != ZERO:
        least = t * F(math.log(max(t, darkest)))
    return TWO * (least - t * F(math.log(p)) - (t - p)), TWO * (ONE - t / p), ONE / p


def cutoff_of(error: Number, per_error: Number, least: Number, largest: Number) -> Number:
    """Return the contribution below which Gaussians are left out, by the field's own error.

    error : root of the mean squared residual. per_error : the cutoff in parts of it.
    """
    return min(max(per_error * error, least), largest)
