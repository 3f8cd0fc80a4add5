"""The bias of the likeliest parameters of a few Gaussians: numba kernels on the CPU.

To the second order in the errors, the parameters theta of a rate r that are likeliest are off in
the mean by

    b = -1/2 C sum over voxels of (dr / dtheta) tr(C H) / var(r)

where C is the inverse of the Fisher information and H the second derivatives of r: M. J. Box, J. R.
Statist. Soc. B 33 (1971) 171, for squares; of photons D. R. Cox and E. J. Snell, J. R. Statist.
Soc. B 30 (1968) 248, come to the same. So b is what a step of Fisher scoring would be if each voxel
were brighter than the model by tr(C H) / 2, to the other side. That is a polynomial of the fourth
degree in x times g, of each Gaussian (see `information_kernels`).
"""

from __future__ import annotations

import numpy as np

from napari_gaussfit._kernels.cpu.information_kernels import (
    MOMENTS4,
    NEAR,
    REACH2,
    SHAPE,
    SUMS,
    Block,
    Counts,
    Floats,
    copy_to,
    information,
    inverse_factor,
    make_memory,
    middle_of,
    multiply,
    on_row,
    place_of,
    polynomials_of,
    transpose_to,
)
from napari_gaussfit._kernels.cpu.jit import (
    WIDTH,
    add_to,
    exact_kernel,
    exact_part,
    filled,
    part,
    ramp,
)
from napari_gaussfit._kernels.cpu.refinement_kernels import (
    BlockScene,
    block_of,
    damp,
    invert,
    own_place,
    solve_in_place,
)
from napari_gaussfit._kernels.shared.gaussian import SCALE, ZERO, Array, F, exp2_negative
from napari_gaussfit._threads import run_pieces

__all__ = ["find_biases"]


@part
def add_times_polynomial(record: Array, coefficients: Array, width: int, model: Array) -> None:
    """Add a Gaussian, times a polynomial about the middle of a box, to `model` [z, y, x] of it.

    record : see `inverse_factor`, about the middle too. coefficients : [35], of the moments of
        degree 4 in their order. width : voxels of a row that are the box's.
    """
    line = np.empty(5, np.float32)
    z0, y0 = F(0.5) * F(1 - model.shape[0]), F(0.5) * F(1 - model.shape[1])
    for zi in range(model.shape[0]):
        for yi in range(model.shape[1]):
            z, y = z0 + F(zi), y0 + F(yi)
            square, centre = on_row(record, z, y)
            if square > REACH2:
                continue
            line[:] = ZERO
            m, y_power = 0, F(1.0)
            for b in range(5):
                power = y_power
                for a in range(5 - b):
                    for c in range(5 - a - b):
                        line[c] += coefficients[m] * power
                        m += 1
                    power *= z
                y_power *= y
            for j in range(0, model.shape[2], WIDTH):
                x = ramp() + (F(j) + F(0.5) * F(1 - width))
                u2 = (x - centre) * (SCALE * record[8])
                factor = filled(line[4])
                for c in range(3, -1, -1):
                    factor = factor * x + line[c]
                add_to(model, (zi, yi, j), factor * exp2_negative(-(u2 * u2 + square)))


@exact_part
def traces_of(
    theta: Floats, k: int, count: int, c: int, middle: Floats, covariance: Floats, traces: Floats
) -> None:
    """Set `traces` [35] to tr(C H) / g of Gaussian k in channel c, a polynomial about `middle`."""
    peak, first = place_of(SHAPE, k, count, c), SHAPE * k
    height = theta[peak]
    own, above, half, both, known = np.empty((5, SHAPE + 1, SHAPE + 1))
    for p in range(SHAPE):
        for q in range(SHAPE):
            known[p, q] = height * covariance[first + p, first + q]
        known[p, SHAPE] = known[SHAPE, p] = covariance[first + p, peak]
    known[SHAPE, SHAPE] = 0.0
    shape = np.empty(SHAPE)
    copy_to(shape, theta[first : first + SHAPE])
    polynomials_of(shape, middle, own)
    # dg = g p, and of two: d(g p) = g p p' + g dp; by the amplitude, whose p is 1, g p.
    multiply(known, own, half)
    transpose_to(above, own)
    multiply(above, half, both)
    traces[:] = 0.0
    for a in range(SHAPE + 1):
        for b in range(SHAPE + 1):
            traces[SUMS[a, b]] += both[a, b]
    for p in range(SHAPE):
        shape[p] += NEAR
        polynomials_of(shape, middle, above)
        shape[p] -= 2.0 * NEAR
        polynomials_of(shape, middle, own)
        shape[p] = theta[first + p]
        for q in range(SHAPE):
            for m in range(SHAPE + 1):
                slope = (above[q, m] - own[q, m]) / (2.0 * NEAR)
                traces[SUMS[0, m]] += known[p, q] * slope


@exact_part
def brighten(
    block: Block, box: Counts, theta: Floats, count: int, noise: Floats, covariance: Floats
) -> None:
    """Put the rate and tr(C H) in place of a block's voxels."""
    light, _, known = block
    channels, width = len(light), box[5] - box[4] + 1
    middle = middle_of(box)
    record, coefficients = np.empty(SHAPE, np.float32), np.empty(MOMENTS4, np.float32)
    traces = np.empty(MOMENTS4)
    for c in range(channels):
        ground = F((theta[len(theta) - channels + c] + noise[1] / noise[0]) / noise[0])
        for z in range(light.shape[1]):
            for y in range(light.shape[2]):
                for x in range(light.shape[3]):
                    light[c, z, y, x] = known[c, z, y, x] + ground
        for k in range(count):
            traces_of(theta, k, count, c, middle, covariance, traces)
            traces[0] += theta[place_of(SHAPE, k, count, c)]
            for m in range(MOMENTS4):
                coefficients[m] = traces[m] / noise[0]
            inverse_factor(theta[SHAPE * k : SHAPE * (k + 1)], middle, record)
            add_times_polynomial(record, coefficients, width, light[c])


@exact_part
def bias_of_block(
    block: Block, box: Counts, theta: Floats, count: int, noise: Floats, bias: Floats
) -> None:
    """Set `bias` [P] of a block's parameters; NaN where the information cannot be inverted.

    The block's voxels are overwritten.
    """
    size = len(theta)
    memory = make_memory(len(block[0]), count)
    fisher, factor, covariance = np.empty((3, size, size))
    spread = False
    for told in (False, True):  # one call, as it is much to compile
        information(block, box, theta, count, noise, spread, memory, fisher, bias)
        if told:
            break
        if not damp(fisher, 0.0, factor):
            bias[:] = np.nan
            return
        invert(factor, size, covariance)
        brighten(block, box, theta, count, noise, covariance)
    solve_in_place(factor, bias, size)
    for i in range(size):
        bias[i] *= -0.5


@exact_kernel
def bias_of_some(scene: BlockScene, biases: Floats, first: int, end: int) -> None:
    """Set the biases of the Gaussians of blocks [first, end); see `find_biases`."""
    channels = len(scene.voxels)
    for b in range(first, end):
        own, theta, block, _ = block_of(scene, b)
        count, whole = len(own), np.empty(len(theta))
        bias_of_block(block, scene.bounds[b], theta, count, scene.noise, whole)
        for k in range(count):
            for i in range(SHAPE + 2 * channels):
                biases[own[k], i] = whole[own_place(i, k, count, channels)]


def find_biases(scene: BlockScene) -> Floats:
    """Find by how much the likeliest parameters are off in the mean, over all threads.

    Parameters
    ----------
    scene : BlockScene
        Gaussians and backgrounds of the largest likelihood, and noise of photons.

    Returns
    -------
    ndarray, shape [K, 9 + 2 C]
        Of centre, Cholesky parameters, amplitudes and backgrounds; NaN of Gaussians that are in no
        block, or of which not all is known.
    """
    channels, count = scene.gaussians[1].shape
    biases = np.full((count, SHAPE + 2 * channels), np.nan)

    def some(first: int, end: int) -> None:
        bias_of_some(scene, biases, first, end)

    run_pieces(some, len(scene.bounds))
    return biases
