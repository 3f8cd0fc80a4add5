"""On a CUDA device, a Gaussian at a voxel, and its derivatives by centre and widths."""

from __future__ import annotations

import math
from typing import Any

from napari_gaussfit._kernels.cpu.information_kernels import REACH2
from napari_gaussfit._kernels.cuda.device import LONG, U, exact
from napari_gaussfit._kernels.shared.gaussian import (
    INT,
    ONE,
    SCALE,
    ZERO,
    Array,
    Array64,
    F,
    exp2_negative,
)

RECORD = 12  # centre, 1 / l00, l10, 1 / l11, l20, l21, 1 / l22, l00, l11, l22
OCTAVES = SCALE * SCALE  # exp(-x / 2) = 2^(-OCTAVES x)
FARTHEST = REACH2 / OCTAVES


@exact
def record(theta: Array64, first: int, corner: tuple[INT, INT, INT], record: Array) -> None:
    """Set `record` [RECORD] of the Gaussian whose shape begins at `theta[first]`."""
    for n in range(3):
        record[n] = F(theta[first + n] - corner[n])
    l00, l11, l22 = (
        math.exp(theta[first + 3]),
        math.exp(theta[first + 5]),
        math.exp(theta[first + 8]),
    )
    record[3], record[5], record[8] = F(1.0 / l00), F(1.0 / l11), F(1.0 / l22)
    record[4], record[6], record[7] = (
        F(theta[first + 4]),
        F(theta[first + 6]),
        F(theta[first + 7]),
    )
    record[9], record[10], record[11] = F(l00), F(l11), F(l22)


@exact
def from_centre(r: Array, z: F, y: F, x: F) -> tuple[F, F, F]:
    """Return u = L^-1 (x - mu) of a voxel."""
    u0 = (z - r[0]) * r[3]
    u1 = (y - r[1] - r[4] * u0) * r[5]
    return u0, u1, (x - r[2] - r[6] * u0 - r[7] * u1) * r[8]


@exact
def height_of(u: tuple[F, F, F]) -> F:
    """Return exp(-|u|^2 / 2), and 0 on the rows of voxels where the CPU leaves a Gaussian out."""
    square = u[0] * u[0] + u[1] * u[1]
    return exp2_negative(-OCTAVES * (square + u[2] * u[2])) if square <= FARTHEST else ZERO


@exact
def differentiate(r: Array, u: tuple[F, F, F], height: F, rows: Array, first: U, n: int) -> None:
    """Set rows [first, first + 9) of item n: what a height's change with centre and widths is."""
    v2 = u[2] * r[8]
    v1 = (u[1] - r[7] * v2) * r[5]
    v0 = (u[0] - r[4] * v1 - r[6] * v2) * r[3]
    v0, v1, v2, row = height * v0, height * v1, height * v2, LONG(first)
    rows[row, n], rows[LONG(row + LONG(1)), n], rows[LONG(row + LONG(2)), n] = v0, v1, v2
    rows[LONG(row + LONG(3)), n] = v0 * u[0] * r[9]
    rows[LONG(row + LONG(4)), n] = v1 * u[0]
    rows[LONG(row + LONG(5)), n] = v1 * u[1] * r[10]
    rows[LONG(row + LONG(6)), n] = v2 * u[0]
    rows[LONG(row + LONG(7)), n] = v2 * u[1]
    rows[LONG(row + LONG(8)), n] = v2 * u[2] * r[11]


@exact
def inverses(r: Array, m: Array, a: Array) -> None:
    """Set `m` to L^-1 and `a` to the inverse of the covariance, of a record's Gaussian."""
    for i in range(3):
        for j in range(3):
            m[i, j] = ZERO
    m[0, 0], m[1, 1], m[2, 2] = r[3], r[5], r[8]
    m[1, 0], m[2, 1] = -r[4] * r[3] * r[5], -r[7] * r[5] * r[8]
    m[2, 0] = -(r[6] * r[3] + r[7] * m[1, 0]) * r[8]
    for i in range(3):
        for j in range(3):
            a[i, j] = m[0, i] * m[0, j] + m[1, i] * m[1, j] + m[2, i] * m[2, j]


@exact
def place_in_shape(p: int) -> tuple[int, int]:
    """Return row and column of L of number p >= 3 of a shape."""
    i = 0 if p == 3 else 1 if p <= 5 else 2
    return i, p - 3 - i * (i + 1) // 2


@exact
def bend_of(
    p: int, q: int, scales: tuple[F, F], inverse: tuple[Array, Array], rows: Array, n: int
) -> Any:
    """Return d2g / g by numbers p and q of a shape at item n, q <= p.

    With M = L^-1 and A = M^T M, dv = -A dmu - M^T dL^T v - A dL u and du = -M (dmu + dL u); of a
    height's logarithm the derivative by mu is v, that by L is v u^T.
    scales : of both, 1, or of a logarithm the number itself. rows : from 2 on, u and then v.
    """
    m, inner = inverse
    i, j, a, b = p, 0, q, 0
    if p >= 3:
        i, j = place_in_shape(p)
    if q >= 3:
        a, b = place_in_shape(q)
    v_i, u_j, v_a, u_b = rows[5 + i, n], rows[2 + j, n], rows[5 + a, n], rows[2 + b, n]
    if q < 3:
        by_q, d_v, d_u = v_a, -inner[i, a], -m[j, a]
    else:
        by_q = scales[1] * v_a * u_b
        d_v = -scales[1] * (m[b, i] * v_a + inner[i, a] * u_b)
        d_u = -scales[1] * m[j, a] * u_b
    if p < 3:
        return v_i * by_q + d_v
    by_p = scales[0] * v_i * u_j
    bent = by_p * by_q + scales[0] * (d_v * u_j + v_i * d_u)
    return bent + by_p if p == q and i == j else bent


@exact
def scale_of(r: Array, p: int) -> Any:
    """Return what a derivative by number p of a shape has beyond that by L or mu."""
    return r[9] if p == 3 else r[10] if p == 5 else r[11] if p == 8 else ONE
