"""Fisher information and score of a few Gaussians in a box of voxels: numba kernels on the CPU.

Parameters `theta` are, in this order: of each Gaussian the centre (z, y, x) and the Cholesky factor
of its covariance (as `GaussianField.cholesky`: logarithms on the diagonal), then of each channel
the amplitudes, then of each channel the background. With u = L^-1 (x - mu), v = L^-T u and
g = exp(-|u|^2 / 2),

    dg/dmu_i = g v_i,    dg/dL_ij = g v_i u_j,    dg/dlog L_ii = g v_i u_i L_ii:

polynomials of the second degree in x, times g. So all that is summed over voxels are moments in z,
y and x: of the second degree, of residuals times g and of weights times g, and of the fourth, of
weights times g times g of the same or another Gaussian; of the fourth of residuals too where the
second derivatives of g are asked for, which are polynomials of that degree, times g. They are
summed in float32, a core's vector of voxels at a time and about the box's middle; what comes of
them is in double precision.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.jit import (
    WIDTH,
    add_to,
    exact_part,
    filled,
    inlined,
    load,
    part,
    ramp,
    store,
    total,
)
from napari_gaussfit._kernels.shared.gaussian import SCALE, ZERO, Array, F, exp2_negative

SHAPE = 9
"""Parameters of a Gaussian's centre and covariance."""

REACH2 = F(30.0) * SCALE * SCALE
"""|u|^2, times that of `SCALE`, beyond which a row has nothing of a Gaussian: exp(-15) is 3e-7."""

LEAST_RATE = F(1e-3)
"""Photons a voxel below which a rate is taken for this: a Poisson likelihood has none at 0."""

UNKNOWN, PHOTONS, EVEN = 0.0, 1.0, 2.0

DEGREE4 = 15  # pairs of exponents of z and y, of a degree of 4 or less

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Block = tuple[Array, Array, Array]
"""Voxels, which of them count (1, else 0), and what other blocks add: each [C, z, y, x], x padded
to vectors, and in photons."""

Work = tuple[Array, Array, Array, Array, Counts]
Given = tuple[Array, Array, Array]
Sums = tuple[Floats, Floats]
"""Memory of `sum_block`, what it is given, and what it finds: see `make_memory`."""


def _exponents(degree: int) -> list[tuple[int, int, int]]:
    """Return the exponents of z, y and x of all monomials, in the order of `sum_columns`."""
    return [
        (a, b, c)
        for b in range(degree + 1)
        for a in range(degree + 1 - b)
        for c in range(degree + 1 - a - b)
    ]


MONOMIALS = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
MONOMIALS += [m for m in _exponents(2) if sum(m) == 2]
_FOURTH, _SECOND = _exponents(4), _exponents(2)


def _sum_of(a: tuple[int, int, int], b: tuple[int, int, int]) -> tuple[int, int, int]:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


NEAR = 1e-5
"""By what a parameter is changed for the derivatives of the polynomials, which are smooth."""

MOMENTS4 = len(_FOURTH)
SUMS = np.array([[_FOURTH.index(_sum_of(a, b)) for b in MONOMIALS] for a in MONOMIALS])
"""Which of the moments of degree 4 a product of two monomials is."""
PRODUCTS = np.array(
    [[MONOMIALS.index(_sum_of(a, b)) for b in MONOMIALS[:4]] for a in MONOMIALS[:4]]
)
"""Which monomial a product of two of 1, z, y and x is."""
IN_ORDER = np.array([_SECOND.index(m) for m in MONOMIALS])
"""Which of the moments of degree 2 each monomial is."""
ROWS, COLUMNS = np.array([0, 1, 1, 2, 2, 2]), np.array([0, 0, 1, 0, 1, 2])
"""Of L's entries in the order of Cholesky parameters."""


@inlined
def padded(width: int) -> int:
    """Return how many numbers a row of `width` has when it is made of whole vectors."""
    return -(-width // WIDTH) * WIDTH


@exact_part
def inverse_factor(theta: Floats, middle: Floats, record: Array) -> None:
    """Set `record` [9]: centre from `middle`, 1 / l00, l10, 1 / l11, l20, l21, 1 / l22."""
    for axis in range(3):
        record[axis] = theta[axis] - middle[axis]
    record[3], record[5] = math.exp(-theta[3]), math.exp(-theta[5])
    record[4], record[6], record[7] = theta[4], theta[6] / SCALE, theta[7] / SCALE
    record[8] = math.exp(-theta[8])


@inlined
def on_row(record: Array, z: F, y: F) -> tuple[F, F]:
    """Return u0^2 + u1^2 on a row of voxels, times that of `SCALE`, and where on it u2 is 0."""
    u0 = (z - record[0]) * SCALE * record[3]
    u1 = ((y - record[1]) * SCALE - record[4] * u0) * record[5]
    return u0 * u0 + u1 * u1, record[2] + record[6] * u0 + record[7] * u1


@part
def add_gaussian(record: Array, scales: Array, model: Array) -> None:
    """Add a Gaussian about the first voxel of `model` [C, z, y, x] to it, `scales` [C] times."""
    for zi in range(model.shape[1]):
        for yi in range(model.shape[2]):
            square, centre = on_row(record, F(zi), F(yi))
            if square > REACH2:
                continue
            for j in range(0, model.shape[3], WIDTH):
                u2 = (ramp() + (F(j) - centre)) * (SCALE * record[8])
                g = exp2_negative(-(u2 * u2 + square))
                for c in range(len(scales)):
                    add_to(model, (c, zi, yi, j), g * scales[c])


@inlined
def add_powers(term: Any, y: F, lines: Array, n: int, count: int) -> None:
    """Add a row's term, times the powers of y, to row n of `lines` [sums, 5, WIDTH]."""
    for b in range(count):
        add_to(lines, (n, b, 0), term)
        term = term * y


@part
def add_plane(lines: Array, z: F, degree: int, n: int, moments: Array) -> None:
    """Add row n of `lines`, times the powers of z, to that of `moments` [sums, 15, WIDTH]."""
    m = 0
    for b in range(degree + 1):
        term = load(lines, (n, b, 0))
        store(lines, (n, b, 0), filled(ZERO))
        for _ in range(degree + 1 - b):
            add_to(moments, (n, m, 0), term)
            term = term * z
            m += 1


@part
def sum_columns(moments: Array, x: F, degree: int, n: int, sums: Floats) -> None:
    """Add row n of `moments`, times the powers of x, which begins at `x`, to that of `sums`."""
    m, at = 0, 0
    for b in range(degree + 1):
        for a in range(degree + 1 - b):
            term = load(moments, (n, at, 0))
            store(moments, (n, at, 0), filled(ZERO))
            at += 1
            for _ in range(degree + 1 - a - b):
                sums[n, m] += total(term)
                term = term * (ramp() + x)
                m += 1


@exact_part
def make_memory(channels: int, count: int) -> tuple[Work, Given, Sums]:
    """Return memory for C channels of K Gaussians, with S = 2 K + K (K + 1) / 2 sums of each.

    It is:

    - of `sum_block`: [K, WIDTH], [C S, 5, WIDTH] and [C S, 15, WIDTH], which are zero between
      calls, [C, 3, WIDTH] and [K];
    - Gaussians [K, 9] (see `inverse_factor`), amplitudes [C, K] and backgrounds [C], in photons;
    - moments [C S, 35], of each channel K of residuals, K of weights and those of pairs, see
      `degree_of`; and [C, 3], sums of weights, of residuals and of their squares.
    """
    sums = channels * (2 * count + count * (count + 1) // 2)
    work = (
        np.empty((count, WIDTH), np.float32),
        np.zeros((sums, 5, WIDTH), np.float32),
        np.zeros((sums, DEGREE4, WIDTH), np.float32),
        np.empty((channels, 3, WIDTH), np.float32),
        np.empty(count, np.int64),
    )
    given = (
        np.empty((count, SHAPE), np.float32),
        np.empty((channels, count), np.float32),
        np.empty(channels, np.float32),
    )
    return work, given, (np.empty((sums, MOMENTS4)), np.empty((channels, 3)))


@inlined
def degree_of(n: int, count: int, spread: bool) -> int:
    """Return the degree of the moments that are sum n of a channel's."""
    return 4 if n >= 2 * count or (spread and n < count) else 2


@part
def sum_block(
    block: Block, width: int, kind: float, spread: bool, given: Given, work: Work, found: Sums
) -> None:
    """Set the sums over a block that `assemble` takes; see `make_memory`.

    width : voxels of a row that are the block's.
    kind, spread : see `information`.
    """
    photons, told = kind == PHOTONS, kind != UNKNOWN
    records, heights, grounds = given
    sums, totals = found
    voxels, counted, known = block
    row, lines, moments, extra, near_by = work
    channels, planes, rows, wide = voxels.shape
    count = len(records)
    each = len(lines) // channels
    z0, y0 = F(0.5) * F(1 - planes), F(0.5) * F(1 - rows)
    sums[:], extra[:] = 0.0, ZERO
    for j in range(0, wide, WIDTH):
        x0 = F(j) + F(0.5) * F(1 - width)
        for zi in range(planes):
            z = z0 + F(zi)
            for yi in range(rows):
                y, touched = y0 + F(yi), 0
                for k in range(count):
                    square, centre = on_row(records[k], z, y)
                    if square <= REACH2:
                        u2 = (ramp() + (x0 - centre)) * (SCALE * records[k, 8])
                        store(row, (touched, 0), exp2_negative(-(u2 * u2 + square)))
                        near_by[touched] = k
                        touched += 1
                for c in range(channels):
                    rate = load(known, (c, zi, yi, j)) + grounds[c]
                    for m in range(touched):
                        rate = rate + load(row, (m, 0)) * heights[c, near_by[m]]
                    weight = load(counted, (c, zi, yi, j))
                    if photons:
                        rate = max(rate, LEAST_RATE)
                        weight = weight / rate
                    light = load(voxels, (c, zi, yi, j))
                    off = light - rate
                    pull = weight * off
                    if spread and told and not photons:
                        add_to(extra, (c, 2, 0), pull * off / max(rate, LEAST_RATE))
                    else:
                        add_to(extra, (c, 2, 0), pull * off)
                    if spread:
                        weight = weight * weight * light if told else pull * pull
                    add_to(extra, (c, 0, 0), weight)
                    add_to(extra, (c, 1, 0), pull)
                    at = c * each
                    for m in range(touched):
                        k = near_by[m]
                        g = load(row, (m, 0))
                        if spread:
                            add_powers(pull * g, y, lines, at + k, 5)
                        else:
                            add_powers(pull * g, y, lines, at + k, 3)
                        single = weight * g
                        add_powers(single, y, lines, at + count + k, 3)
                        for o in range(m + 1):
                            n = at + 2 * count + k * (k + 1) // 2 + near_by[o]
                            add_powers(single * load(row, (o, 0)), y, lines, n, 5)
            for n in range(len(lines)):
                add_plane(lines, z, degree_of(n % each, count, spread), n, moments)
        for n in range(len(lines)):
            sum_columns(moments, x0, degree_of(n % each, count, spread), n, sums)
    for c in range(channels):
        for n in range(3):
            totals[c, n] = total(load(extra, (c, n, 0)))


@exact_part
def polynomials_of(theta: Floats, middle: Floats, coefficients: Floats) -> None:
    """Set `coefficients` [10, 10] to those of dg / g of a Gaussian, in `MONOMIALS` about `middle`.

    With u = L^-1 (x - mu), affine in x, each is a product of two such. The last, by the amplitude,
    is 1.
    """
    l00, l11, l22 = math.exp(theta[3]), math.exp(theta[5]), math.exp(theta[8])
    l10, l20, l21 = theta[4], theta[6], theta[7]
    u, v = np.zeros((3, 4)), np.empty((3, 4))  # of 1, z, y, x
    u[0, 1], u[0, 0] = 1.0 / l00, (middle[0] - theta[0]) / l00
    u[1, 2], u[1, 0] = 1.0, middle[1] - theta[1]
    u[2, 3], u[2, 0] = 1.0, middle[2] - theta[2]
    for n in range(4):
        u[1, n] = (u[1, n] - l10 * u[0, n]) / l11
        u[2, n] = (u[2, n] - l20 * u[0, n] - l21 * u[1, n]) / l22
        v[2, n] = u[2, n] / l22
        v[1, n] = (u[1, n] - l21 * v[2, n]) / l11
        v[0, n] = (u[0, n] - l10 * v[1, n] - l20 * v[2, n]) / l00
    coefficients[:] = 0.0
    for i in range(3):
        for n in range(4):
            coefficients[i, n] = v[i, n]
    scales = (l00, 1.0, l11, 1.0, 1.0, l22)
    for m in range(6):
        i, j = ROWS[m], COLUMNS[m]
        for a in range(4):
            for b in range(4):
                coefficients[3 + m, PRODUCTS[a, b]] += scales[m] * v[i, a] * u[j, b]
    coefficients[SHAPE, 0] = 1.0


@exact_part
def copy_to(to: Floats, of: Floats) -> None:
    """Set `to` [n] to `of`, which is compiled much sooner than an assignment of slices."""
    for i in range(len(to)):
        to[i] = of[i]


@exact_part
def transpose_to(to: Floats, of: Floats) -> None:
    """Set `to` [n, n] to the transpose of `of`."""
    for i in range(len(to)):
        for j in range(len(to)):
            to[i, j] = of[j, i]


@exact_part
def middle_of(box: Counts) -> Floats:
    """Return the middle [3] of a box of first and last z, y, x."""
    middle = np.empty(3)
    for axis in range(3):
        middle[axis] = (box[2 * axis] + box[2 * axis + 1]) / 2.0
    return middle


@part
def multiply(a: Floats, b: Floats, out: Floats) -> None:
    """Set `out` [10, 10] to a b."""
    for i in range(SHAPE + 1):
        out[i] = 0.0
        for k in range(SHAPE + 1):
            if a[i, k] != 0.0:
                for j in range(SHAPE + 1):
                    out[i, j] += a[i, k] * b[k, j]


@exact_part
def place_of(p: int, k: int, count: int, c: int) -> int:
    """Return where in `theta` number p of Gaussian k is: of its shape, then amplitude c."""
    return SHAPE * k + p if p < SHAPE else (SHAPE + c) * count + k


@exact_part
def assemble(
    theta: Floats,
    count: int,
    middle: Floats,
    found: Sums,
    gain: float,
    spread: bool,
    fisher: Floats,
    score: Floats,
) -> None:
    """Set the Fisher information's lower triangle and the score from what `sum_block` found.

    `gain` is how much intensity a photon has, of which the sums are.
    """
    sums, totals = found
    order = SUMS[0] if spread else IN_ORDER
    channels = len(totals)
    each = len(sums) // channels
    fisher[:], score[:] = 0.0, 0.0
    by_shape = np.empty((count, SHAPE + 1, SHAPE + 1))
    products, half, both = np.empty((3, SHAPE + 1, SHAPE + 1))
    for k in range(count):
        polynomials_of(theta[SHAPE * k : SHAPE * (k + 1)], middle, by_shape[k])
    squares = 1.0 / (gain * gain)
    for c in range(channels):
        ground = (SHAPE + channels) * count + c
        fisher[ground, ground], score[ground] = totals[c, 0] * squares, totals[c, 1] / gain
        for k in range(count):
            height = theta[place_of(SHAPE, k, count, c)]
            pulls, weights = sums[c * each + k], sums[c * each + count + k]
            for p in range(SHAPE + 1):
                i, scale = place_of(p, k, count, c), height if p < SHAPE else 1.0
                for m in range(SHAPE + 1):
                    factor = scale * by_shape[k, p, m]
                    score[i] += factor * pulls[order[m]] / gain
                    fisher[ground, i] += factor * weights[IN_ORDER[m]] * squares
            for o in range(k + 1):
                moments = sums[c * each + 2 * count + k * (k + 1) // 2 + o]
                for a in range(SHAPE + 1):
                    for b in range(SHAPE + 1):
                        products[a, b] = moments[SUMS[a, b]] * squares
                multiply(by_shape[k], products, half)
                # The other's transposed: products is free again.
                transpose_to(products, by_shape[o])
                multiply(half, products, both)
                other_height = theta[place_of(SHAPE, o, count, c)]
                for p in range(SHAPE + 1):
                    i, scale = place_of(p, k, count, c), height if p < SHAPE else 1.0
                    for q in range(SHAPE + 1):
                        j, other = place_of(q, o, count, c), other_height if q < SHAPE else 1.0
                        if k != o or j <= i:
                            fisher[max(i, j), min(i, j)] += scale * other * both[p, q]


@exact_part
def bend(theta: Floats, count: int, middle: Floats, found: Sums, gain: float, bent: Floats) -> None:
    """Set `bent` to the sum of residuals over variances, times second derivatives of the rate.

    That is by what the information differs from minus the second derivatives of the likelihood's
    logarithm, from what `sum_block` found for a `spread`.
    """
    sums, totals = found
    channels = len(totals)
    each = len(sums) // channels
    bent[:] = 0.0
    products, half, both, own, above = np.empty((5, SHAPE + 1, SHAPE + 1))
    shape = np.empty(SHAPE)
    for k in range(count):
        copy_to(shape, theta[SHAPE * k : SHAPE * (k + 1)])
        for c in range(channels):
            height = theta[place_of(SHAPE, k, count, c)]
            pulls = sums[c * each + k]
            for a in range(SHAPE + 1):
                for b in range(SHAPE + 1):
                    products[a, b] = pulls[SUMS[a, b]] / gain
            polynomials_of(shape, middle, own)
            multiply(own, products, half)
            transpose_to(products, own)
            multiply(half, products, both)
            # dg = g p, and of two: d(g p) = g p p' + g dp.
            for p in range(SHAPE):
                i = place_of(p, k, count, c)
                for q in range(SHAPE):
                    bent[i, place_of(q, k, count, c)] += height * both[p, q]
                peak = place_of(SHAPE, k, count, c)
                bent[i, peak] += both[p, SHAPE]
                bent[peak, i] += both[p, SHAPE]
                shape[p] += NEAR
                polynomials_of(shape, middle, above)
                shape[p] -= 2.0 * NEAR
                polynomials_of(shape, middle, own)
                shape[p] = theta[SHAPE * k + p]
                for q in range(SHAPE):
                    for m in range(SHAPE + 1):
                        slope = (above[q, m] - own[q, m]) / (2.0 * NEAR)
                        own_sum = pulls[SUMS[0, m]] / gain
                        bent[i, place_of(q, k, count, c)] += height * slope * own_sum


@exact_part
def information(
    block: Block,
    box: Counts,
    theta: Floats,
    count: int,
    noise: Floats,
    spread: bool,
    memory: tuple[Work, Given, Sums],
    fisher: Floats,
    score: Floats,
) -> float:
    """Set the Fisher information (its lower triangle) and the score of a block; return chi^2.

    box : [6], first and last z, y, x of the block in its stack.
    noise : [4], gain, intercept of the variance over f, value from which a voxel is saturated, and
        how voxels count: `PHOTONS` by their variance, which is the rate; `EVEN` all alike, of the
        same variance; `UNKNOWN` all alike, of one that is not known.
    spread : the variance of the score instead of the information. They are the same where the
        model holds. Of photons it is that of the noise alone: a voxel's own value is its variance
        in the mean, whatever the model says of it. Where no variance is known it is the sum of the
        scores' squares, to which what the model does not describe adds.
    """
    work, given, found = memory
    records, heights, grounds = given
    channels, gain = len(heights), noise[0]
    middle = middle_of(box)
    for k in range(count):
        inverse_factor(theta[SHAPE * k : SHAPE * (k + 1)], middle, records[k])
    for c in range(channels):
        for k in range(count):
            heights[c, k] = theta[place_of(SHAPE, k, count, c)] / gain
        grounds[c] = (theta[(SHAPE + channels) * count + c] + noise[1] / gain) / gain
    sum_block(block, box[5] - box[4] + 1, noise[3], spread, given, work, found)
    assemble(theta, count, middle, found, gain, spread, fisher, score)
    chi2: float = found[1][:, 2].sum()
    return chi2
