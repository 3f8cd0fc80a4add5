"""Refining Gaussians by Fisher scoring in windows of a stack: numba kernels on the CPU.

A block is a few Gaussians that overlap, with a constant background of their own. Its parameters
are, in this order: of each Gaussian the centre (z, y, x) and the Cholesky factor of its covariance
(as `GaussianField.cholesky`: logarithms on the diagonal), then of each channel the amplitudes, then
of each channel the background. With u = L^-1 (x - mu), v = L^-T u and g = exp(-|u|^2 / 2),

    dg/dmu_i = g v_i,    dg/dL_ij = g v_i u_j,    dg/dlog L_ii = g v_i u_i L_ii.

Of a rate r that follows from the model f, and data d, the score is the sum of (d - r) / var(r) dr
and the Fisher information that of dr dr^T / var(r): J. A. Fessler, Image Reconstruction, ch. 1;
the steps are Levenberg's (K. Levenberg, Q. Appl. Math. 2 (1944) 164) on these two.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.jit import exact_kernel, exact_part, part
from napari_gaussfit._threads import run_pieces

__all__ = ["SHAPE", "refine_blocks"]

SHAPE = 9
"""Parameters of a Gaussian's centre and covariance."""

REACH2 = 30.0
"""|u|^2 beyond which a Gaussian is nothing: exp(-15) is 3e-7."""

LEAST_RATE = 1e-3
"""Photons a voxel below which a rate is taken for this: a Poisson likelihood has none at 0."""

FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-9, 1e9
STEADY = 1e-4
"""Of a step in units of error bars, squared, a parameter: below it the block has converged."""

WRONG_MODEL = 3.0
"""Standard deviations of chi^2 above its mean from which the sandwich's error bars are taken."""

LONGEST_MOVE, LARGEST_STRETCH = 2.0, 0.5
"""Voxels that a centre, and logarithm that a width, changes at most in a step."""

ROOT_HALF, LN2 = math.sqrt(0.5), math.log(2.0)
MANTISSA, ONE_HALF = np.int64(0xFFFFFFFFFFFFF), np.int64(0x3FE0000000000000)  # bits of float64

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def _exponents(degree: int) -> list[tuple[int, int, int]]:
    """Return the exponents of z, y and x of all monomials, in the order of `add_moments`."""
    return [
        (a, b, c)
        for c in range(degree + 1)
        for b in range(degree + 1 - c)
        for a in range(degree + 1 - c - b)
    ]


MONOMIALS = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
MONOMIALS += [m for m in _exponents(2) if sum(m) == 2]
_FOURTH, _SECOND = _exponents(4), _exponents(2)


def _sum_of(a: tuple[int, int, int], b: tuple[int, int, int]) -> tuple[int, int, int]:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


SUMS = np.array([[_FOURTH.index(_sum_of(a, b)) for b in MONOMIALS] for a in MONOMIALS])
"""Which of the moments of degree 4 a product of two monomials is."""
PRODUCTS = np.array(
    [[MONOMIALS.index(_sum_of(a, b)) for b in MONOMIALS[:4]] for a in MONOMIALS[:4]]
)
"""Which monomial a product of two of 1, z, y and x is."""
IN_ORDER = np.array([_SECOND.index(m) for m in MONOMIALS])
"""Where `add_moments` has each monomial among those of degree 2."""
ROWS, COLUMNS = np.array([0, 1, 1, 2, 2, 2]), np.array([0, 0, 1, 0, 1, 2])
"""Of L's entries in the order of Cholesky parameters."""


@exact_part
def factor_in_place(a: Floats, size: int) -> bool:
    """Put the Cholesky factor in place of the lower triangle of a; False where it has none."""
    for i in range(size):
        for j in range(i + 1):
            total = a[i, j]
            for n in range(j):
                total -= a[i, n] * a[j, n]
            if i == j:
                if not total > 1e-300:
                    return False
                a[i, i] = math.sqrt(total)
            else:
                a[i, j] = total / a[j, j]
    return True


@exact_part
def solve_in_place(factor: Floats, b: Floats, size: int) -> None:
    """Replace b [size] by the solution x of factor factor^T x = b."""
    for i in range(size):
        total = b[i]
        for n in range(i):
            total -= factor[i, n] * b[n]
        b[i] = total / factor[i, i]
    for i in range(size - 1, -1, -1):
        total = b[i]
        for n in range(i + 1, size):
            total -= factor[n, i] * b[n]
        b[i] = total / factor[i, i]


@exact_part
def widths_of(theta: Floats, count: int, widths: Floats) -> None:
    """Set `widths` [count, 4] to the diagonals of L, and what `fill_row` shrinks its ratio by."""
    for k in range(count):
        for n, m in ((0, 3), (1, 5), (2, 8)):
            widths[k, n] = math.exp(theta[SHAPE * k + m])
        widths[k, 3] = math.exp(-1.0 / (widths[k, 2] * widths[k, 2]))


@exact_part
def fill_row(
    theta: Floats, widths: Floats, k: int, z: float, y: float, first: int, g: Floats
) -> bool:
    """Set g [x] to Gaussian k on a row of voxels that begins at x = first; False if it is nothing.

    Exponents of evenly spaced places are quadratic in the place's number: each value is the last
    one's times a ratio, and each ratio the last one's times a constant.
    """
    at = SHAPE * k
    l22 = widths[k, 2]
    u0 = (z - theta[at]) / widths[k, 0]
    u1 = (y - theta[at + 1] - theta[at + 4] * u0) / widths[k, 1]
    rest = REACH2 - u0 * u0 - u1 * u1
    if rest <= 0.0:
        return False
    centre = theta[at + 2] + theta[at + 6] * u0 + theta[at + 7] * u1 - first
    reach = l22 * math.sqrt(rest)
    low = max(0, math.ceil(centre - reach))
    high = min(len(g) - 1, math.floor(centre + reach))
    if low > high:
        return False
    g[:low] = 0.0
    g[high + 1 :] = 0.0
    u2 = (low - centre) / l22
    value = math.exp(-0.5 * (u0 * u0 + u1 * u1 + u2 * u2))
    ratio, shrink = math.exp(-(u2 + 0.5 / l22) / l22), widths[k, 3]
    for n in range(low, high + 1):
        g[n] = value
        value *= ratio
        ratio *= shrink
    return True


@part
def log_and_inverse(x: float) -> tuple[float, float]:
    """Return log(x) of x > 0, to 1e-11, and 1 / x: one division, no library call, in vectors.

    log(f) = log(r) + 2 artanh((f - r) / (f + r)), with x = f 2^n and r = sqrt(1/2).
    """
    bits = np.float64(x).view(np.int64)
    # By way of 32 bits: no conversion of 64-bit integers vectorises everywhere.
    exponent = float(np.int32(bits >> 52)) - 1022.5
    f = np.int64((bits & MANTISSA) | ONE_HALF).view(np.float64)  # from 1/2 to 1
    above = f + ROOT_HALF
    both = 1.0 / (x * above)
    s = (f - ROOT_HALF) * both * x
    t = s * s
    series = 1.0 + t * (1 / 3 + t * (1 / 5 + t * (1 / 7 + t * (1 / 9 + t * (1 / 11 + t / 13)))))
    return exponent * LN2 + 2.0 * s * series, both * above


@part
def judge_row(
    voxels: NDArray[np.float32],
    model: Floats,
    noise: Floats,
    weights: Floats,
    pulls: Floats,
) -> tuple[float, float]:
    """Set each voxel's weight (over the model) and pull, and return objective and chi^2 of a row.

    The weight is the Fisher information of the model there, the pull the score; of a voxel that is
    saturated or outside (`weights` is 0 there before) nothing counts.
    """
    gain, shift = noise[0], noise[1] / (noise[0] * noise[0])
    objective, chi2 = 0.0, 0.0
    for n in range(len(model)):
        counted = weights[n]
        if noise[3] > 0.0:
            rate, data = max(model[n] / gain + shift, LEAST_RATE), voxels[n] / gain + shift
            logarithm, inverse = log_and_inverse(rate)
            objective += counted * 2.0 * (rate - data * logarithm)
            weights[n] = counted * inverse / (gain * gain)
            pulls[n] = counted * (data - rate) * inverse / gain
            chi2 += counted * (data - rate) * (data - rate) * inverse
        else:
            pulls[n] = counted * (voxels[n] - model[n])
            chi2 += pulls[n] * pulls[n]
    return (objective if noise[3] > 0.0 else chi2), chi2


@part
def multiply(a: Floats, b: Floats, out: Floats) -> None:
    """Set `out` to a b, without the array in between that numba would make."""
    for n in range(len(out)):
        out[n] = a[n] * b[n]


@part
def begin_row(
    model: Floats,
    known: Floats,
    ground: float,
    line: NDArray[np.float32],
    full: float,
    inside: Floats,
    weights: Floats,
) -> int:
    """Set the model to what does not depend on the block, and `weights` to 1 where voxels count.

    Returns how many do.
    """
    counted = 0
    for n in range(len(model)):
        model[n] = ground + known[n]
        weights[n] = inside[n] if line[n] < full else 0.0
        counted += int(weights[n] > 0.0)
    return counted


@part
def add_scaled(model: Floats, scale: float, g: Floats) -> None:
    """Add scale g to the model."""
    for n in range(len(model)):
        model[n] += scale * g[n]


@part
def add_moments(product: Floats, x: float, powers: Floats, degree: int, sums: Floats) -> None:
    """Add a row's moments of total degree `degree` or less, in the order of `EXPONENTS`.

    product : [x], what is summed. x : of its first. powers : [2, degree + 1], those of z and y.
    """
    m0, m1, m2, m3, m4 = 0.0, 0.0, 0.0, 0.0, 0.0
    for n in range(len(product)):
        at = x + n
        p = product[n]
        q = p * at
        r = q * at
        m0 += p
        m1 += q
        m2 += r
        m3 += r * at
        m4 += r * at * at
    along = (m0, m1, m2, m3, m4)
    m = 0
    for c in range(degree + 1):
        for b in range(degree + 1 - c):
            own = along[c] * powers[1, b]
            for a in range(degree + 1 - c - b):
                sums[m] += own * powers[0, a]
                m += 1


@exact_part
def polynomials_of(theta: Floats, k: int, middle: Floats, coefficients: Floats) -> None:
    """Set `coefficients` [9, 10] to those of dg / g of Gaussian k, in `MONOMIALS` about `middle`.

    With u = L^-1 (x - mu), affine in x, each is a product of two such.
    """
    at = SHAPE * k
    l00, l11, l22 = math.exp(theta[at + 3]), math.exp(theta[at + 5]), math.exp(theta[at + 8])
    l10, l20, l21 = theta[at + 4], theta[at + 6], theta[at + 7]
    u, v = np.zeros((3, 4)), np.empty((3, 4))  # of 1, z, y, x
    u[0, 1], u[0, 0] = 1.0 / l00, (middle[0] - theta[at]) / l00
    u[1, 2] = 1.0
    u[1, 0] = middle[1] - theta[at + 1]
    u[1] = (u[1] - l10 * u[0]) / l11
    u[2, 3] = 1.0
    u[2, 0] = middle[2] - theta[at + 2]
    u[2] = (u[2] - l20 * u[0] - l21 * u[1]) / l22
    v[2] = u[2] / l22
    v[1] = (u[1] - l21 * v[2]) / l11
    v[0] = (u[0] - l10 * v[1] - l20 * v[2]) / l00
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


@exact_part
def information(
    voxels: NDArray[np.float32],
    known: Floats,
    box: Counts,
    windows: Counts,
    theta: Floats,
    count: int,
    noise: Floats,
    fisher: Floats,
    score: Floats,
    squared: bool,
) -> tuple[float, float, int]:
    """Set the Fisher information of a block (its lower triangle) and the score.

    voxels : [C, Z, Y, X]. known : [C, z, y, x] of the box, what Gaussians of other blocks add.
    box, windows : [6] and [count, 6], first and last z, y, x of the block and its Gaussians.
    noise : [4], gain, intercept of the variance over f, value from which a voxel is saturated, and
        1 where the likelihood is Poisson's, 0 where it is that of a constant variance.
    squared : the sum of the squared scores instead of the information, for a sandwich.

    All sums are moments of z, y and x of a row times g of one Gaussian or two: derivatives are
    polynomials of the second degree times g.

    Returns minus twice the logarithm of the likelihood (but for a constant), chi^2, and the number
    of values that were looked at.
    """
    channels, width = voxels.shape[0], box[5] - box[4] + 1
    middle = np.array([box[0] + box[1], box[2] + box[3], box[4] + box[5]]) / 2.0
    g, near_by = np.empty((count, width)), np.empty(count, np.int64)
    pulls, weights, model = np.empty(width), np.empty(width), np.empty(width)
    inside, single, product = np.empty(width), np.empty(width), np.empty(width)
    powers, widths = np.ones((2, 5)), np.empty((count, 4))
    widths_of(theta, count, widths)
    pairs = np.zeros((channels, count * (count + 1) // 2, 35))
    singles, scores = np.zeros((channels, count, 10)), np.zeros((channels, count, 10))
    totals = np.zeros((channels, 2))
    objective, chi2, looked = 0.0, 0.0, 0
    x = box[4] - middle[2]
    for z in range(box[0], box[1] + 1):
        for y in range(box[2], box[3] + 1):
            inside[:] = 0.0
            for k in range(count):
                w = windows[k]
                if w[0] <= z <= w[1] and w[2] <= y <= w[3]:
                    inside[w[4] - box[4] : w[5] - box[4] + 1] = 1.0
            touched = 0
            for k in range(count):
                if fill_row(theta, widths, k, z, y, box[4], g[touched]):
                    near_by[touched] = k
                    touched += 1
            for n in range(1, 5):
                powers[0, n] = powers[0, n - 1] * (z - middle[0])
                powers[1, n] = powers[1, n - 1] * (y - middle[1])
            for c in range(channels):
                line = voxels[c, z, y, box[4] : box[5] + 1]
                ground = SHAPE * count + channels * count + c
                others = known[c, z - box[0], y - box[2]]
                looked += begin_row(model, others, theta[ground], line, noise[2], inside, weights)
                for m in range(touched):
                    add_scaled(model, theta[SHAPE * count + c * count + near_by[m]], g[m])
                own, own_chi2 = judge_row(line, model, noise, weights, pulls)
                objective, chi2 = objective + own, chi2 + own_chi2
                if squared:
                    multiply(pulls, pulls, weights)
                for n in range(width):
                    totals[c, 0] += weights[n]
                    totals[c, 1] += pulls[n]
                for m in range(touched):
                    k = near_by[m]
                    multiply(pulls, g[m], product)
                    add_moments(product, x, powers, 2, scores[c, k])
                    multiply(weights, g[m], single)
                    add_moments(single, x, powers, 2, singles[c, k])
                    for o in range(m + 1):
                        pair = k * (k + 1) // 2 + near_by[o]
                        multiply(single, g[o], product)
                        add_moments(product, x, powers, 4, pairs[c, pair])
    assemble(theta, count, middle, (pairs, singles, scores, totals), fisher, score)
    return objective, chi2, looked


@exact_part
def assemble(
    theta: Floats,
    count: int,
    middle: Floats,
    sums: tuple[Floats, Floats, Floats, Floats],
    fisher: Floats,
    score: Floats,
) -> None:
    """Set the Fisher information's lower triangle and the score from moments; see `information`."""
    pairs, singles, scores, totals = sums
    channels = len(totals)
    fisher[:], score[:] = 0.0, 0.0
    by_shape, products = np.zeros((count, SHAPE + 1, 10)), np.empty((10, 10))
    for k in range(count):
        polynomials_of(theta, k, middle, by_shape[k, :SHAPE])
        by_shape[k, SHAPE, 0] = 1.0
    for c in range(channels):
        amplitudes = SHAPE * count + c * count
        ground = SHAPE * count + channels * count + c
        fisher[ground, ground], score[ground] = totals[c, 0], totals[c, 1]
        for k in range(count):
            height = theta[amplitudes + k]
            single, pull = (
                by_shape[k] @ singles[c, k][IN_ORDER],
                by_shape[k] @ scores[c, k][IN_ORDER],
            )
            for p in range(SHAPE + 1):
                i, scale = amplitudes + k, 1.0
                if p < SHAPE:
                    i, scale = SHAPE * k + p, height
                score[i] += scale * pull[p]
                fisher[ground, i] += scale * single[p]
            for o in range(k + 1):
                moments = pairs[c, k * (k + 1) // 2 + o]
                for a in range(10):
                    for b in range(10):
                        products[a, b] = moments[SUMS[a, b]]
                both = by_shape[k] @ products @ by_shape[o].T
                for p in range(SHAPE + 1):
                    i, scale = amplitudes + k, 1.0
                    if p < SHAPE:
                        i, scale = SHAPE * k + p, height
                    for q in range(SHAPE + 1):
                        j, other = amplitudes + o, 1.0
                        if q < SHAPE:
                            j, other = SHAPE * o + q, theta[amplitudes + o]
                        if k != o or j <= i:
                            fisher[max(i, j), min(i, j)] += scale * other * both[p, q]


@exact_part
def step_length(step: Floats, count: int) -> float:
    """Return by how much a step is shortened so that no Gaussian moves or stretches too far."""
    longest = 1.0
    for k in range(count):
        for n in range(3):
            longest = max(longest, abs(step[SHAPE * k + n]) / LONGEST_MOVE)
        for n in (3, 5, 8):
            longest = max(longest, abs(step[SHAPE * k + n]) / LARGEST_STRETCH)
    return 1.0 / longest


@exact_part
def invert(factor: Floats, size: int, inverse: Floats) -> None:
    """Set `inverse` [size, size] to that of factor factor^T."""
    for i in range(size):
        inverse[i, :size] = 0.0
        inverse[i, i] = 1.0
        solve_in_place(factor, inverse[i], size)


@exact_part
def add_known(
    known: Floats, box: Counts, others: Counts, shapes: Floats, amplitudes: Floats
) -> None:
    """Set `known` to what Gaussians of other blocks add in a box."""
    known[:] = 0.0
    g, widths = np.empty(box[5] - box[4] + 1), np.empty((1, 4))
    for m in range(len(others)):
        k = others[m]
        widths_of(shapes[k], 1, widths)
        for z in range(box[0], box[1] + 1):
            for y in range(box[2], box[3] + 1):
                if fill_row(shapes[k], widths, 0, z, y, box[4], g):
                    for c in range(len(known)):
                        add_scaled(known[c, z - box[0], y - box[2]], amplitudes[c, k], g)


@exact_part
def damp(fisher: Floats, damping: float, damped: Floats) -> bool:
    """Set `damped` to the Cholesky factor of the information, its diagonal times 1 + damping."""
    for i in range(len(fisher)):
        for j in range(i):
            damped[i, j] = fisher[i, j]
        damped[i, i] = fisher[i, i] * (1.0 + damping) + 1e-300
    return factor_in_place(damped, len(fisher))


@exact_part
def refine_block(
    voxels: NDArray[np.float32],
    known: Floats,
    box: Counts,
    windows: Counts,
    theta: Floats,
    count: int,
    noise: Floats,
    most_steps: int,
    covariance: Floats,
) -> tuple[float, int, int]:
    """Refine the parameters `theta` of a block in place, and set their covariance [P, P].

    It is the inverse of the Fisher information; or, where chi^2 says that the model does not hold,
    or nothing is known of the noise, the sandwich, which assumes neither (H. White, Econometrica
    50 (1982) 1).

    Returns the reduced chi^2, the number of values looked at, and that of steps: below 0 where they
    have not converged, and 0 where the information cannot be inverted (covariances are NaN then).
    """
    size, channels = len(theta), voxels.shape[0]
    fisher, score = np.empty((size, size)), np.empty(size)
    tried_fisher, tried_score = np.empty((size, size)), np.empty(size)
    damped, step = np.empty((size, size)), np.empty(size)
    trial = theta.copy()
    objective, chi2, looked, decrement = math.inf, 0.0, 0, math.inf
    damping, steady, taken = 10.0 * FIRST_DAMPING, False, 0
    while True:
        tried, tried_chi2, tried_looked = information(
            voxels,
            known,
            box,
            windows,
            trial,
            count,
            noise,
            tried_fisher,
            tried_score,
            squared=False,
        )
        # A step that is as small as errors allow may go uphill by a rounding.
        scale = 1.0 if noise[3] > 0.0 else max(chi2, 1e-300) / max(looked - size, 1)
        steady = decrement < STEADY * size * scale
        if tried <= objective:
            theta[:] = trial
            objective, chi2, looked = tried, tried_chi2, tried_looked
            fisher, tried_fisher = tried_fisher, fisher
            score, tried_score = tried_score, score
            damping = max(damping * 0.1, LEAST_DAMPING)
        elif not steady:
            damping *= 10.0
        if steady or taken == most_steps:
            break
        while damping < MOST_DAMPING and not damp(fisher, damping, damped):
            damping *= 10.0
        if not damping < MOST_DAMPING:
            break
        taken += 1
        step[:] = score
        solve_in_place(damped, step, size)
        decrement = 0.0
        for i in range(size):
            decrement += step[i] * score[i]
        step *= step_length(step, count)
        trial[:] = theta + step
        for n in range(channels * count):
            trial[SHAPE * count + n] = max(trial[SHAPE * count + n], 0.0)
    reduced = chi2 / max(looked - size, 1)
    damped[:] = fisher
    if not factor_in_place(damped, size):
        covariance[:] = np.nan
        return reduced, looked, 0
    invert(damped, size, covariance)
    if noise[3] <= 0.0 or reduced > 1.0 + WRONG_MODEL * math.sqrt(2.0 / max(looked, 1)):
        information(voxels, known, box, windows, theta, count, noise, fisher, score, squared=True)
        for i in range(size):
            for j in range(i):
                fisher[j, i] = fisher[i, j]
        covariance[:] = covariance @ fisher @ covariance
    return reduced, looked, taken if steady else -taken


@exact_kernel
def refine_some(
    voxels: NDArray[np.float32],
    bounds: Counts,
    windows: Counts,
    members: tuple[Counts, Counts],
    others: tuple[Counts, Counts],
    before: tuple[Floats, Floats],
    after: tuple[Floats, Floats],
    backgrounds: Floats,
    noise: Floats,
    most_steps: int,
    found: tuple[Floats, Floats],
    first: int,
    end: int,
) -> None:
    """Refine blocks [first, end); see `refine_blocks`."""
    starts, ids = members
    other_starts, other_ids = others
    shapes, amplitudes = before
    channels = len(amplitudes)
    covariances, numbers = found
    for b in range(first, end):
        own = ids[starts[b] : starts[b + 1]]
        count, box = len(own), bounds[b]
        size = count * (SHAPE + channels) + channels
        theta = np.empty(size)
        for k in range(count):
            theta[SHAPE * k : SHAPE * (k + 1)] = shapes[own[k]]
            for c in range(channels):
                theta[SHAPE * count + c * count + k] = amplitudes[c, own[k]]
        theta[size - channels :] = backgrounds[b]
        known = np.empty((channels, box[1] - box[0] + 1, box[3] - box[2] + 1, box[5] - box[4] + 1))
        near_by = other_ids[other_starts[b] : other_starts[b + 1]]
        add_known(known, box, near_by, shapes, amplitudes)
        covariance = np.empty((size, size))
        reduced, looked, steps = refine_block(
            voxels,
            known,
            box,
            windows[own],
            theta,
            count,
            noise,
            most_steps,
            covariance,
        )
        for k in range(count):
            after[0][own[k]] = theta[SHAPE * k : SHAPE * (k + 1)]
            for c in range(channels):
                after[1][c, own[k]] = theta[SHAPE * count + c * count + k]
            keep_own(covariance, k, count, channels, covariances[own[k]])
            numbers[own[k], 0], numbers[own[k], 1], numbers[own[k], 2] = reduced, looked, steps
            numbers[own[k], 3 : 3 + channels] = theta[size - channels :]
        backgrounds[b] = theta[size - channels :]


@exact_part
def keep_own(whole: Floats, k: int, count: int, channels: int, own: Floats) -> None:
    """Copy the part of a block's covariance that is Gaussian k's, with the backgrounds': `own`."""
    size = SHAPE + 2 * channels
    for i in range(size):
        a = own_place(i, k, count, channels)
        for j in range(size):
            own[i, j] = whole[a, own_place(j, k, count, channels)]


@exact_part
def own_place(i: int, k: int, count: int, channels: int) -> int:
    """Return where parameter i of Gaussian k stands among those of its block."""
    if i < SHAPE:
        return SHAPE * k + i
    if i < SHAPE + channels:
        return SHAPE * count + (i - SHAPE) * count + k
    return SHAPE * count + channels * count + i - SHAPE - channels


def refine_blocks(
    voxels: NDArray[np.float32],
    bounds: Counts,
    windows: Counts,
    members: tuple[Counts, Counts],
    others: tuple[Counts, Counts],
    before: tuple[Floats, Floats],
    backgrounds: Floats,
    noise: Floats,
    most_steps: int,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Refine blocks of Gaussians, each by itself, over all threads.

    Parameters
    ----------
    voxels : ndarray, shape [C, Z, Y, X]
        In float32.
    bounds, windows : ndarray, shape [B, 6] and [K, 6]
        First and last z, y, x of each block's box and each Gaussian's window, in voxels.
    members, others : tuple of two ndarrays, shape [B + 1] and [n]
        Where each block's part of the second begins: the Gaussians in it, and those of other
        blocks that reach its box, which stay as they are.
    before : tuple of two ndarrays, shape [K, 9] and [C, K]
        Centre and Cholesky parameters, in voxels; amplitudes.
    backgrounds : ndarray, shape [B, C]
        Of each block; changed in place.
    noise : ndarray, shape [4]
        See `information`.
    most_steps : int
        Steps of a block at most.

    Returns
    -------
    shapes, amplitudes : ndarray, shape [K, 9] and [C, K]
        The refined ones.
    covariances : ndarray, shape [K, 9 + 2 C, 9 + 2 C]
        Of centre, Cholesky parameters, amplitudes and backgrounds; see `refine_block`.
    numbers : ndarray, shape [K, 3 + C]
        Of each Gaussian's block: reduced chi^2, values looked at, steps (see `refine_block`),
        backgrounds.
    """
    channels, count = before[1].shape
    size = SHAPE + 2 * channels
    after = before[0].copy(), before[1].copy()
    found = (
        np.full((count, size, size), np.nan),
        np.full((count, 3 + channels), np.nan),
    )

    def some(first: int, end: int) -> None:
        refine_some(
            voxels,
            bounds,
            windows,
            members,
            others,
            before,
            after,
            backgrounds,
            noise,
            most_steps,
            found,
            first,
            end,
        )

    run_pieces(some, len(bounds))
    return (*after, *found)
