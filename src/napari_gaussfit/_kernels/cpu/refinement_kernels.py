"""Refining Gaussians by Fisher scoring in windows of a stack: numba kernels on the CPU.

A block is a few Gaussians that overlap, with a constant background of their own; its parameters are
those of `information_kernels`. Of a rate r that follows from the model f, and data d, the score is
the sum of (d - r) / var(r) dr and the Fisher information that of dr dr^T / var(r): J. A. Fessler,
Image Reconstruction, ch. 1; the steps are Levenberg's (K. Levenberg, Q. Appl. Math. 2 (1944) 164)
on these two.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.information_kernels import (
    EVEN,
    PHOTONS,
    SHAPE,
    Block,
    Counts,
    Floats,
    add_gaussian,
    bend,
    copy_to,
    information,
    inverse_factor,
    make_memory,
    middle_of,
    padded,
)
from napari_gaussfit._kernels.cpu.jit import (
    WIDTH,
    exact_kernel,
    exact_part,
    filled,
    load,
    store,
    total,
    up_to,
)
from napari_gaussfit._kernels.shared.gaussian import ZERO, F
from napari_gaussfit._threads import run_pieces

__all__ = ["SHAPE", "BlockScene", "make_ready", "refine_blocks", "some_of"]

Lists = tuple[Counts, Counts]
"""Where each of several lists begins in all of them one after the other, and that."""

FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-9, 1e9
STEADY = 3e-3
"""Of a step in units of error bars, squared, a parameter: one below it is the last. What would
follow is a hundredth of an error bar."""

WRONG_MODEL = 3.0
"""Standard deviations of chi^2 above its mean from which the sandwich's error bars are taken."""

NOTHING = 1e-200
"""Information below which nothing is known of a parameter: the shape of what has no light."""

LONGEST_MOVE, LARGEST_STRETCH = 2.0, 0.5
"""Voxels that a centre, and logarithm that a width, changes at most in a step."""


class BlockScene(NamedTuple):
    """B blocks of K Gaussians, and the voxels in which each block is looked at by itself.

    Parameters
    ----------
    voxels : ndarray, shape [C, Z, Y, X]
        The channels' intensities, in float32.
    bounds, windows : ndarray, shape [B, 6] and [K, 6]
        First and last z, y, x of each block's box and each Gaussian's window, in voxels.
    members, others : tuple of two ndarrays, shape [B + 1] and [n]
        Where each block's part of the second begins: the Gaussians in it, and those of other
        blocks that reach its box, which stay as they are.
    gaussians : tuple of two ndarrays, shape [K, 9] and [C, K]
        Centre and Cholesky parameters, in voxels; amplitudes.
    backgrounds : ndarray, shape [B, C]
        What each block's voxels have beside all Gaussians, in raw intensity.
    noise : ndarray, shape [4]
        Gain, offset, read variance and saturation, as `information` takes them.
    """

    voxels: NDArray[np.float32]
    bounds: Counts
    windows: Counts
    members: Lists
    others: Lists
    gaussians: tuple[Floats, Floats]
    backgrounds: Floats
    noise: Floats


def some_of(lists: Lists, which: Counts) -> Lists:
    """Return those of lists, which lie one after the other in an array, that are asked for.

    Parameters
    ----------
    lists : tuple of two ndarrays, shape [B + 1] and [n]
        Where each list begins in the second, and what is in them all.
    which : ndarray, shape [b]
        Numbers of the lists.

    Returns
    -------
    tuple of two ndarrays, shape [b + 1] and [m]
        The same of these.
    """
    starts, numbers = lists
    lengths = np.diff(starts)[which]
    ends = np.cumsum(lengths)
    within = np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)
    return np.concatenate([[0], ends]), numbers[np.repeat(starts[which], lengths) + within]


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
def damp(fisher: Floats, damping: float, damped: Floats) -> bool:
    """Set `damped` to the Cholesky factor of the information, its diagonal times 1 + damping.

    A parameter of which nothing is known stands apart, and stays as it is.
    """
    for i in range(len(fisher)):
        for j in range(i):
            damped[i, j] = fisher[i, j]
        damped[i, i] = fisher[i, i] * (1.0 + damping) + 1e-300
        if fisher[i, i] < NOTHING:
            damped[i, :i], damped[i, i] = 0.0, 1.0
        for j in range(i):
            if fisher[j, j] < NOTHING:
                damped[i, j] = 0.0
    return factor_in_place(damped, len(fisher))


@exact_part
def hold_dark(theta: Floats, first: int, end: int, fisher: Floats, score: Floats) -> None:
    """Let amplitudes [first, end) of `theta` stay 0 that would be negative: nothing of others'."""
    for n in range(first, end):
        if theta[n] <= 0.0 and score[n] <= 0.0:
            fisher[n, :], fisher[:, n], score[n] = 0.0, 0.0, 0.0


@exact_part
def forget(fisher: Floats, covariance: Floats) -> None:
    """Set covariances of parameters of which nothing is known to NaN."""
    for i in range(len(fisher)):
        if fisher[i, i] < NOTHING:
            covariance[i, :] = np.nan
            covariance[:, i] = np.nan


@exact_part
def curved(first: Floats, bent: Floats, fisher: Floats, damped: Floats) -> bool:
    """Set `damped` to the Cholesky factor of `first` without `bent`; False where it has none.

    fisher : the information; a parameter of which it knows nothing stands apart.
    """
    for i in range(len(first)):
        if fisher[i, i] >= NOTHING and first[i, i] - bent[i, i] < NOTHING:
            return False
        for j in range(i + 1):
            known = fisher[i, i] >= NOTHING and fisher[j, j] >= NOTHING
            bent[i, j] = first[i, j] - bent[i, j] if known else 0.0
    return damp(bent, 0.0, damped)


@exact_part
def cut_block(
    voxels: NDArray[np.float32], box: Counts, windows: Counts, own: Counts, noise: Floats
) -> tuple[Block, int]:
    """Return a block's voxels, in photons, and how many count.

    These are in the windows of its `own` Gaussians, and not saturated.
    """
    channels, width = len(voxels), box[5] - box[4] + 1
    shape = channels, box[1] - box[0] + 1, box[3] - box[2] + 1, padded(width)
    light, counted = np.empty(shape, np.float32), np.zeros(shape, np.float32)
    known = np.zeros(shape, np.float32)
    scale, shift = F(1.0 / noise[0]), F(noise[1] / (noise[0] * noise[0]))
    z0, y0, x0 = box[0], box[2], box[4]
    looked = filled(ZERO)
    for c in range(channels):
        for z in range(shape[1]):
            for y in range(shape[2]):
                # A vector reads on into the next row, of which there is none at the very end.
                row = (c * voxels.shape[1] + z0 + z) * voxels.shape[2] + y0 + y
                if row * voxels.shape[3] + x0 + shape[3] <= voxels.size:
                    for j in range(0, shape[3], WIDTH):
                        line = load(voxels, (c, z0 + z, y0 + y, x0 + j))
                        store(light, (c, z, y, j), line * scale + shift)
                else:
                    light[c, z, y] = ZERO
                    for x in range(width):
                        light[c, z, y, x] = voxels[c, z0 + z, y0 + y, x0 + x] * scale + shift
        for k in own:
            first, last = windows[k, 4] - x0, windows[k, 5] - x0
            for j in range(0, shape[3], WIDTH):
                on = up_to(F(last - j), filled(F(1.0)), ZERO)
                on = up_to(F(first - 1 - j), filled(ZERO), F(1.0)) * on
                for z in range(windows[k, 0] - z0, windows[k, 1] - z0 + 1):
                    for y in range(windows[k, 2] - y0, windows[k, 3] - y0 + 1):
                        store(counted, (c, z, y, j), max(load(counted, (c, z, y, j)), on))
        if noise[2] < math.inf:
            for z in range(shape[1]):
                for y in range(shape[2]):
                    for x in range(width):
                        if voxels[c, z0 + z, y0 + y, x0 + x] >= noise[2]:
                            counted[c, z, y, x] = ZERO
        for z in range(shape[1]):
            for y in range(shape[2]):
                for j in range(0, shape[3], WIDTH):
                    looked = looked + load(counted, (c, z, y, j))
    return (light, counted, known), int(total(looked))


@exact_part
def add_known(
    known: NDArray[np.float32],
    box: Counts,
    others: Counts,
    shapes: Floats,
    amplitudes: Floats,
    gain: float,
) -> None:
    """Add to `known` [C, z, y, x] what Gaussians of other blocks add in a box, in photons."""
    corner = box[::2].astype(np.float64)
    record, scales = np.empty(SHAPE, np.float32), np.empty(len(known), np.float32)
    for m in range(len(others)):
        k = others[m]
        inverse_factor(shapes[k], corner, record)
        for c in range(len(known)):
            scales[c] = amplitudes[c, k] / gain
        add_gaussian(record, scales, known)


@exact_part
def keep_within(theta: Floats, start: Floats, count: int, limits: Floats) -> None:
    """Bring Gaussians back to where centres and widths may be; see `refine_block`."""
    for k in range(count):
        at = SHAPE * k
        for i in range(3):
            far = limits[2, i]
            theta[at + i] = min(max(theta[at + i], start[at + i] - far), start[at + i] + far)
        at += 3
        for i in range(3):
            widest = math.exp(limits[1, i])
            for _ in range(i):
                theta[at] = min(max(theta[at], -widest), widest)
                at += 1
            theta[at] = min(max(theta[at], limits[0, i]), limits[1, i])
            at += 1


@exact_part
def next_trial(
    theta: Floats,
    score: Floats,
    factor: Floats,
    count: int,
    step: Floats,
    trial: Floats,
    start: Floats,
    limits: Floats,
) -> float:
    """Set `trial` to what a step from `theta` leads to, and `step` to how far that is.

    factor : of the damped information. Returns the whole step's square, in units of error bars.
    """
    size = len(theta)
    copy_to(step, score)
    solve_in_place(factor, step, size)
    square = 0.0
    for i in range(size):
        square += step[i] * score[i]
    shorter = step_length(step, count)
    for i in range(size):
        trial[i] = theta[i] + step[i] * shorter
    keep_within(trial, start, count, limits)
    channels = (size - SHAPE * count) // (count + 1)
    for n in range(SHAPE * count, SHAPE * count + channels * count):
        trial[n] = max(trial[n], 0.0)
    for i in range(size):
        step[i] = trial[i] - theta[i]
    return square


@exact_part
def refine_block(
    block: Block,
    looked: int,
    box: Counts,
    theta: Floats,
    count: int,
    noise: Floats,
    most_steps: int,
    limits: Floats,
    covariance: Floats,
) -> tuple[float, int]:
    """Refine the parameters `theta` of a block in place, and set their covariance [P, P].

    limits : [3, 3], of z, y and x the logarithms of the least and the largest entry of L's diagonal
        in voxels, and how far centres may be from where they begin.

    It is the inverse of the Fisher information; or, where chi^2 says that the model does not hold,
    or voxels do not count by their noise, the sandwich H^-1 J H^-1, which assumes neither (H.
    White, Econometrica 50 (1982) 1). What a model does not describe is the same every time that it
    is recorded, and only the noise is another: J is what noise makes of the score, and H the
    likelihood's own curvature, to which what is not described adds (Fisher's where that has no
    inverse, as of a width at its limit).

    A step is taken where the likelihood's slopes at both its ends say that it wins: half of what
    they predict together is the gain on a parabola, and it needs no logarithm. A step that is far
    shorter than the error bars is the last, and what is known there is what is known at its begin.

    Returns the reduced chi^2 and the number of steps: below 0 where they have not converged, and 0
    where the information cannot be inverted (covariances are NaN then). They are NaN too of what
    has no light, alone: its centre and shape stay where they are while its amplitude is 0.
    """
    size, poisson, channels = len(theta), noise[3] == PHOTONS, len(block[0])
    freedom = max(looked - size, 1)
    memory = make_memory(channels, count)
    fisher, score = np.empty((size, size)), np.zeros(size)
    tried_fisher, tried_score = np.empty((size, size)), np.empty(size)
    damped, bent = np.empty((2, size, size))
    step, trial = np.zeros(size), theta.copy()
    start = theta.copy()
    damping, chi2, reduced, taken, steps = 10.0 * FIRST_DAMPING, 0.0, 0.0, 0, 0
    steady, ended = False, False
    while True:
        tried_chi2 = information(
            block, box, trial, count, noise, ended, memory, tried_fisher, tried_score
        )
        if ended:
            break
        gained = 0.0
        for i in range(size):
            gained += step[i] * (score[i] + tried_score[i])
        if taken == 0 or gained > 0.0:
            copy_to(theta, trial)
            chi2 = tried_chi2
            fisher, tried_fisher = tried_fisher, fisher
            score, tried_score = tried_score, score
            hold_dark(theta, SHAPE * count, size - channels, fisher, score)
            damping = max(damping * 0.1, LEAST_DAMPING)
        else:
            damping *= 10.0
        while damping < MOST_DAMPING and not damp(fisher, damping, damped):
            damping *= 10.0
        ended = taken == most_steps or not damping < MOST_DAMPING
        if not ended:
            taken += 1
            square = next_trial(theta, score, damped, count, step, trial, start, limits)
            variance = 1.0 if poisson else max(chi2, 1e-300) / freedom
            steady = square < STEADY * size * variance and damping <= FIRST_DAMPING
            ended = steady
        if ended:
            if steady:
                copy_to(theta, trial)
            reduced = chi2 / freedom
            if not damp(fisher, 0.0, damped):
                covariance[:] = np.nan
                return reduced, 0
            invert(damped, size, covariance)
            steps = taken if steady else -taken
            if poisson and reduced <= 1.0 + WRONG_MODEL * math.sqrt(2.0 / max(looked, 1)):
                forget(fisher, covariance)
                return reduced, steps
            copy_to(trial, theta)
    # Which is the spread of the score now, and chi^2 in the noise's units.
    if noise[3] == EVEN:
        reduced = tried_chi2 / freedom
    middle = middle_of(box)
    bend(theta, count, middle, memory[2], noise[0], bent)
    if curved(tried_fisher if poisson else fisher, bent, fisher, damped):
        invert(damped, size, covariance)
    for i in range(size):
        for j in range(i):
            tried_fisher[j, i] = tried_fisher[i, j]
    covariance[:] = covariance @ tried_fisher @ covariance
    forget(fisher, covariance)
    return reduced, steps


@exact_part
def theta_of(own: Counts, shapes: Floats, amplitudes: Floats, grounds: Floats) -> Floats:
    """Return the parameters of a block of Gaussians, in the order of `information_kernels`."""
    channels, count = len(amplitudes), len(own)
    size = count * (SHAPE + channels) + channels
    theta = np.empty(size)
    for k in range(count):
        copy_to(theta[SHAPE * k : SHAPE * (k + 1)], shapes[own[k]])
        for c in range(channels):
            theta[SHAPE * count + c * count + k] = amplitudes[c, own[k]]
    copy_to(theta[size - channels :], grounds)
    return theta


@exact_part
def block_of(scene: BlockScene, b: int) -> tuple[Counts, Floats, Block, int]:
    """Return the Gaussians of block b, its parameters, its voxels, and how many are looked at."""
    (starts, ids), (other_starts, other_ids) = scene.members, scene.others
    shapes, amplitudes = scene.gaussians
    own, box = ids[starts[b] : starts[b + 1]], scene.bounds[b]
    theta = theta_of(own, shapes, amplitudes, scene.backgrounds[b])
    block, looked = cut_block(scene.voxels, box, scene.windows, own, scene.noise)
    near_by = other_ids[other_starts[b] : other_starts[b + 1]]
    add_known(block[2], box, near_by, shapes, amplitudes, scene.noise[0])
    return own, theta, block, looked


@exact_kernel
def refine_some(
    scene: BlockScene,
    after: tuple[Floats, Floats],
    most_steps: int,
    limits: Floats,
    found: tuple[Floats, Floats],
    first: int,
    end: int,
) -> None:
    """Refine blocks [first, end); see `refine_blocks`."""
    channels = len(scene.voxels)
    covariances, numbers = found
    for b in range(first, end):
        box = scene.bounds[b]
        own, theta, block, looked = block_of(scene, b)
        count, size = len(own), len(theta)
        covariance = np.empty((size, size))
        reduced, steps = refine_block(
            block, looked, box, theta, count, scene.noise, most_steps, limits, covariance
        )
        for k in range(count):
            copy_to(after[0][own[k]], theta[SHAPE * k : SHAPE * (k + 1)])
            for c in range(channels):
                after[1][c, own[k]] = theta[SHAPE * count + c * count + k]
            keep_own(covariance, k, count, channels, covariances[own[k]])
            numbers[own[k], 0], numbers[own[k], 1], numbers[own[k], 2] = reduced, looked, steps
            copy_to(numbers[own[k], 3 : 3 + channels], theta[size - channels :])
        copy_to(scene.backgrounds[b], theta[size - channels :])


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


def make_ready() -> None:
    """Load what refines, before there is something to refine: that takes 0.04 s."""
    boxes, nobody = np.zeros((0, 6), np.int64), (np.zeros(1, np.int64), np.zeros(0, np.int64))
    voxels, gaussians = np.zeros((1, 1, 1, 1), np.float32), (np.zeros((0, SHAPE)), np.zeros((1, 0)))
    scene = BlockScene(
        voxels, boxes, boxes, nobody, nobody, gaussians, np.zeros((0, 1)), np.zeros(4)
    )
    numbers = np.zeros((0, SHAPE + 2, SHAPE + 2)), np.zeros((0, 4))
    refine_some(scene, gaussians, 0, np.zeros((3, 3)), numbers, 0, 0)


def refine_blocks(
    scene: BlockScene, most_steps: int, limits: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """Refine blocks of Gaussians, each by itself, over all threads.

    Parameters
    ----------
    scene : BlockScene
        Where they begin; the backgrounds are changed in place.
    most_steps : int
        Steps of a block at most.
    limits : ndarray, shape [3, 3]
        The limits of widths and moves, as `refine_block` takes them.

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
    shapes, amplitudes = scene.gaussians
    channels, count = amplitudes.shape
    size = SHAPE + 2 * channels
    after = shapes.copy(), amplitudes.copy()
    found = (
        np.full((count, size, size), np.nan),
        np.full((count, 3 + channels), np.nan),
    )

    def some(first: int, end: int) -> None:
        refine_some(scene, after, most_steps, limits, found, first, end)

    run_pieces(some, len(scene.bounds))
    return (*after, *found)
