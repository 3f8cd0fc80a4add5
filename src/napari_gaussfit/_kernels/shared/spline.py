"""A cubic B-spline along a ray: scalar code that CPU loops and CUDA kernels share.

Coefficients carry `MARGIN` more on every side, mirrored, so that no point of the box asks for one
that is not there.
"""

from __future__ import annotations

from napari_gaussfit._kernels.shared.gaussian import HALF, ONE, TWO, ZERO, Array, F

SIXTH, TWO_THIRDS = F(1.0 / 6.0), F(2.0 / 3.0)
STEP = F(0.5)  # voxels between a ray's samples, along the axis on which it is fastest
MARGIN = 2
BOTH_MARGINS = 2 * MARGIN


def weights(f: F) -> tuple[F, F, F, F]:
    """Weights of the four coefficients around a point, `f` beyond the second of them."""
    g = ONE - f
    return (
        SIXTH * g * g * g,
        TWO_THIRDS - HALF * f * f * (TWO - f),
        TWO_THIRDS - HALF * g * g * (TWO - g),
        SIXTH * f * f * f,
    )


def place(frame: Array, spacing: Array, i: int, j: int, t: F, axis: int, size: int) -> F:
    """Return where on an axis of `size` voxels, in voxels, pixel (i, j)'s ray is at t.

    Held inside the box, whatever rounding says of a camera far away.
    """
    o = frame[0, axis] + F(i) * frame[1, axis] + F(j) * frame[2, axis]
    d = frame[3, axis] + F(i) * frame[4, axis] + F(j) * frame[5, axis]
    return min(max((o + t * d) / spacing[axis], -HALF), F(size) - HALF)


def vertex(before: F, best: F, after: F) -> F:
    """Where a parabola through three samples is largest, in samples from the middle one.

    0 where the middle one is not the largest: within a search's slack, a neighbour may be.
    """
    bend = before - best + after - best
    if bend >= ZERO or best < max(before, after):
        return ZERO
    return HALF * (before - after) / bend
