"""Numba kernels over Gaussians, on regular grids and at free points: sums, and gradients gathered.

A Gaussian meets a plane of a grid in an ellipse, which is walked in columns as wide as a vector:
down one, u moves by the same from row to row, so that little is done but the exponential. Which
rows of it the ellipse touches follows exactly from the cutoff. Volumes are padded by one chunk
along x, where the last column may end. No calls (`math.floor` is one), no slices (each counts
references).

Points come in blocks; a Gaussian is skipped where the block's bounding box lies beyond its reach,
so that points ordered in space cost little more than the pairs that matter.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.jit import (
    CHUNK,
    WIDTH,
    add_to,
    exact_kernel,
    exact_part,
    fast_kernel,
    filled,
    inlined,
    load,
    ramp,
    total,
)
from napari_gaussfit._kernels.shared import gaussian
from napari_gaussfit._kernels.shared.gaussian import (
    AMPLITUDE,
    FACTOR,
    MEAN,
    MOMENTS,
    NOWHERE,
    ONE,
    RADIUS2,
    ZERO,
    Array,
    F,
    Vector,
    exp2_negative,
    first_index,
    half_sides,
    last_index,
)
from napari_gaussfit._kernels.shared.step import COORDINATES, Arrays, adam_brighten, adam_update


@exact_kernel
def pack(means: Array, cholesky: Array, amplitudes: Array, cutoff: F, packed: Array) -> None:
    """Write `packed` [K, PACKED]; see `shared.gaussian.pack`."""
    for k in range(packed.shape[0]):
        gaussian.pack(means, cholesky, amplitudes, cutoff, k, packed)


@exact_kernel
def unpack_gradient(
    moments: Array, packed: Array, d_means: Array, d_cholesky: Array, d_amplitudes: Array
) -> None:
    """Turn moments [K, 10] into derivatives; see `shared.gaussian.unpack_gradient`."""
    for k in range(packed.shape[0]):
        gaussian.unpack_gradient(moments, packed, k, d_means, d_cholesky, d_amplitudes)


@fast_kernel
def adam_step(
    leaves: Arrays, slopes: Arrays, moments: Arrays, rates: Array, begin: int, end: int
) -> None:
    """Take one step of Gaussians [begin, end) in place; see `shared.step.adam_update`.

    Amplitudes are [C, K], and rates [9 + C].
    """
    means, cholesky, amplitudes = leaves
    d_means, d_cholesky, d_amplitudes = slopes
    one = means, cholesky, amplitudes[0]
    one_slopes = d_means, d_cholesky, d_amplitudes[0]
    g = np.empty(COORDINATES, np.float32)
    for k in range(begin, end):
        adam_update(k, one, one_slopes, moments, rates, g)
        for c in range(1, amplitudes.shape[0]):
            n = COORDINATES + c - 1
            adam_brighten(k, n, amplitudes[c], d_amplitudes[c], moments, rates)


Factor = tuple[F, F, F, F, F, F]
RUN = 32  # rows in which u follows from that of the last: rounding adds up to 1e-6


@inlined
def _in_voxels(packed: Array, k: int, origin: Array, spacing: Array) -> tuple[Vector, Factor]:
    """Mean and W of Gaussian k, in voxels of the grid."""
    hz, hy, hx = spacing[0], spacing[1], spacing[2]
    mean = (
        (packed[k, MEAN] - origin[0]) / hz,
        (packed[k, MEAN + 1] - origin[1]) / hy,
        (packed[k, MEAN + 2] - origin[2]) / hx,
    )
    factor = (
        packed[k, FACTOR] * hz,
        packed[k, FACTOR + 1] * hz,
        packed[k, FACTOR + 2] * hy,
        packed[k, FACTOR + 3] * hz,
        packed[k, FACTOR + 4] * hy,
        packed[k, FACTOR + 5] * hx,
    )
    return mean, factor


@inlined
def _planes(
    packed: Array, k: int, origin: Array, spacing: Array, first: int, end: int
) -> tuple[int, int]:
    """First and last plane of [first, end) that Gaussian k touches (last < first when none)."""
    z = (packed[k, MEAN] - origin[0]) / spacing[0]
    reach = math.sqrt(max(packed[k, RADIUS2], ZERO)) / (packed[k, FACTOR] * spacing[0])
    return first_index(z - reach, first), last_index(z + reach, end - 1)


@inlined
def _section(mean: Vector, factor: Factor, r2: F, z: int) -> tuple[F, F, F, F]:
    """Return u_0 on plane z, the radius left there, and the y and x of the ellipse's centre."""
    dz = F(z) - mean[0]
    u0 = factor[0] * dz
    i11, i22 = ONE / factor[2], ONE / factor[5]
    dy = -factor[1] * dz * i11
    dx = -(factor[3] * dz + factor[4] * dy) * i22
    return u0, F(math.sqrt(max(r2 - u0 * u0, ZERO))), mean[1] + dy, mean[2] + dx


@inlined
def _columns(factor: Factor, radius: F, x: F, width: int) -> tuple[int, int]:
    """First and last column that an ellipse about x touches."""
    slant = factor[4] / factor[2]
    reach = radius * (math.sqrt(ONE + slant * slant) / factor[5])
    return first_index(x - reach, 0), last_index(x + reach, width - 1)


@inlined
def _rows(factor: Factor, radius: F, y: F, begin: F, end: F, rows: int) -> tuple[int, int]:
    """First and last row where an ellipse about y touches columns `begin` to `end` from its centre.

    Its upper edge is highest in the column nearest to that of its top, the lower one likewise.
    """
    f1, f12, f2 = factor[2], factor[4], factor[5]
    inverse = ONE / (f1 * f1 + f12 * f12)
    top = -radius * (f12 / (f1 * f2))
    left = radius * radius * (f1 * f1 + f12 * f12)
    dx = min(max(-top, begin), end)
    low = (-f12 * f2 * dx - math.sqrt(max(left - (f1 * f2 * dx) ** 2, ZERO))) * inverse
    dx = min(max(top, begin), end)
    high = (-f12 * f2 * dx + math.sqrt(max(left - (f1 * f2 * dx) ** 2, ZERO))) * inverse
    return first_index(y + low, 0), last_index(y + high, rows - 1)


@fast_kernel
def add_slab(
    packed: Array, origin: Array, spacing: Array, volume: Array, first_plane: int, end_plane: int
) -> None:
    """Set planes [first_plane, end_plane) of `volume` to the sum of all Gaussians."""
    rows, width = volume.shape[1], volume.shape[2] - CHUNK
    volume[first_plane:end_plane] = ZERO
    for k in range(packed.shape[0]):
        low, high = _planes(packed, k, origin, spacing, first_plane, end_plane)
        if low > high:
            continue
        amplitude, r2 = packed[k, AMPLITUDE], packed[k, RADIUS2]
        mean, factor = _in_voxels(packed, k, origin, spacing)
        steps = factor[5] * ramp()
        for z in range(low, high + 1):
            u0, radius, cy, cx = _section(mean, factor, r2, z)
            x0, x1 = _columns(factor, radius, cx, width)
            for x in range(x0, x1 + 1, WIDTH):
                dx = F(x) - cx
                y0, y1 = _rows(factor, radius, cy, dx, dx + F(WIDTH - 1), rows)
                for start in range(y0, y1 + 1, RUN):
                    dy = F(start) - cy
                    u1, u2 = factor[2] * dy, factor[4] * dy + factor[5] * dx + steps
                    for y in range(start, min(start + RUN, y1 + 1)):
                        e = exp2_negative(-(u0 * u0 + u1 * u1) - u2 * u2)
                        add_to(volume, (z, y, x), amplitude * e)
                        u1, u2 = u1 + factor[2], u2 + factor[4]


@fast_kernel
def subtract(volume: Array, target: Array, offset: F, sums: NDArray[np.float64]) -> None:
    """Turn `volume` into ``volume + offset - target``, its padding into zeros.

    sums : [Z, 2], each plane's sum of squares and sum, to be set.
    """
    width = target.shape[2]
    for z in range(target.shape[0]):
        squares, total = 0.0, 0.0
        for y in range(target.shape[1]):
            row_squares, row_total = ZERO, ZERO
            for x in range(width):
                difference = volume[z, y, x] + offset - target[z, y, x]
                volume[z, y, x] = difference
                row_squares += difference * difference
                row_total += difference
            for x in range(width, width + CHUNK):
                volume[z, y, x] = ZERO
            squares += float(row_squares)
            total += float(row_total)
        sums[z, 0], sums[z, 1] = squares, total


@inlined
def _with_point(sums: Any, we: Any, u1: Any, u2: Any) -> Any:
    """Add what is gathered at a point to a plane's moments: those without u_0, which is one."""
    we1, we2 = we * u1, we * u2
    return (
        sums[0] + we,
        sums[1] + we1,
        sums[2] + we2,
        sums[3] + we1 * u1,
        sums[4] + we2 * u1,
        sums[5] + we2 * u2,
    )


@inlined
def _with_plane(sums: Any, plane: Any, u0: F) -> Any:
    """Add a plane's moments to all."""
    s, s1, s2, s11, s21, s22 = plane
    return (
        sums[0] + s,
        sums[1] + u0 * s,
        sums[2] + s1,
        sums[3] + s2,
        sums[4] + u0 * u0 * s,
        sums[5] + u0 * s1,
        sums[6] + s11,
        sums[7] + u0 * s2,
        sums[8] + s21,
        sums[9] + s22,
    )


@fast_kernel
def gather_moments(
    packed: Array,
    origin: Array,
    spacing: Array,
    weights: Array,
    places: NDArray[np.int64],
    moments: Array,
    first: int,
    end: int,
) -> None:
    """Set rows `places` [first, end) of `moments` to the sums that `unpack_gradient` wants.

    `weights` is the derivative of the loss by each voxel, padded with zeros like a volume.
    """
    planes, rows, width = weights.shape[0], weights.shape[1], weights.shape[2] - CHUNK
    none = filled(ZERO)
    nothing = (none, none, none, none, none, none)
    for k in range(first, end):
        sums = nothing + (none, none, none, none)  # noqa: RUF005 (numba has no stars)
        low, high = _planes(packed, k, origin, spacing, 0, planes)
        r2 = packed[k, RADIUS2]
        mean, factor = _in_voxels(packed, k, origin, spacing)
        steps = factor[5] * ramp()
        for z in range(low, high + 1):
            u0, radius, cy, cx = _section(mean, factor, r2, z)
            x0, x1 = _columns(factor, radius, cx, width)
            plane = nothing
            for x in range(x0, x1 + 1, WIDTH):
                dx = F(x) - cx
                y0, y1 = _rows(factor, radius, cy, dx, dx + F(WIDTH - 1), rows)
                for start in range(y0, y1 + 1, RUN):
                    dy = F(start) - cy
                    u1, u2 = factor[2] * dy, factor[4] * dy + factor[5] * dx + steps
                    for y in range(start, min(start + RUN, y1 + 1)):
                        e = exp2_negative(-(u0 * u0 + u1 * u1) - u2 * u2)
                        plane = _with_point(plane, load(weights, (z, y, x)) * e, u1, u2)
                        u1, u2 = u1 + factor[2], u2 + factor[4]
            sums = _with_plane(sums, plane, u0)
        for n in range(MOMENTS):
            moments[places[k], n] = total(sums[n])


Tiles = tuple[int, int, int]


@exact_kernel
def boxes_of(packed: Array, boxes: Array) -> None:
    """Set `boxes` [K, 6] to the lower and upper corner of the box that each cutoff fits into.

    One below the cutoff everywhere has its corners beyond each other: no box meets it.
    """
    for k in range(packed.shape[0]):
        r = F(math.sqrt(packed[k, RADIUS2])) if packed[k, RADIUS2] > ZERO else -NOWHERE
        halves = half_sides(packed, k, r)
        for axis in range(3):
            boxes[k, axis] = packed[k, MEAN + axis] - halves[axis]
            boxes[k, 3 + axis] = packed[k, MEAN + axis] + halves[axis]


@inlined
def apart(a: Array, k: int, b: Array, n: int) -> bool:
    """Whether box k of `a` and box n of `b` have no point in common."""
    beyond = False
    for axis in range(3):
        beyond |= a[k, axis] > b[n, 3 + axis] or a[k, 3 + axis] < b[n, axis]
    return beyond


@inlined
def _tile(boxes: Array, k: int, box: Array, tiles: Tiles) -> int:
    """Return in which tile of `box` [1, 6] box k begins, counted along the last axis first."""
    tile = 0
    for axis in range(3):
        side = max(box[0, 3 + axis] - box[0, axis], ONE / NOWHERE)
        share = max(boxes[k, axis] - box[0, axis], ZERO) / side
        tile = tile * tiles[axis] + min(int(share * F(tiles[axis])), tiles[axis] - 1)
    return tile


@exact_kernel
def list_meeting(boxes: Array, box: Array, tiles: Tiles, some: NDArray[np.int64]) -> int:
    """Write to `some` [K] which boxes meet the only one of `box` [1, 6]; return how many.

    Tile by tile, of so many along each axis: those that follow each other see the same part of a
    grid, which is in the cache then.
    """
    apart_from_all = tiles[0] * tiles[1] * tiles[2]
    starts = np.zeros(apart_from_all + 2, np.int64)
    own = np.empty(boxes.shape[0], np.int64)
    for k in range(own.size):
        own[k] = apart_from_all if apart(boxes, k, box, 0) else _tile(boxes, k, box, tiles)
        starts[own[k] + 1] += 1
    starts[:] = np.cumsum(starts)
    count: int = starts[apart_from_all]
    for k in range(own.size):
        some[starts[own[k]]] = k
        starts[own[k]] += 1
    return count


BLOCK = 128


@exact_kernel
def bounds_of_blocks(points: Array, bounds: Array) -> None:
    """Set `bounds` [blocks, 6] to the lower and upper corner of each block of `points` [3, B]."""
    for b in range(bounds.shape[0]):
        for axis in range(3):
            block = points[axis, b * BLOCK : (b + 1) * BLOCK]
            bounds[b, axis], bounds[b, 3 + axis] = block.min(), block.max()


@fast_kernel
def evaluate_blocks(
    packed: Array,
    reaches: Array,
    points: Array,
    bounds: Array,
    values: Array,
    first: int,
    end: int,
) -> None:
    """Set `values` [B] on blocks [first, end) to f at `points` [3, B].

    reaches, bounds : the boxes of Gaussians and of blocks.
    """
    for b in range(first, end):
        z, y, x = (
            points[0, b * BLOCK : (b + 1) * BLOCK],
            points[1, b * BLOCK : (b + 1) * BLOCK],
            points[2, b * BLOCK : (b + 1) * BLOCK],
        )
        value = values[b * BLOCK : (b + 1) * BLOCK]
        value[:] = ZERO
        for k in range(packed.shape[0]):
            if apart(reaches, k, bounds, b):
                continue
            a, mz, my, mx = (
                packed[k, AMPLITUDE],
                packed[k, MEAN],
                packed[k, MEAN + 1],
                packed[k, MEAN + 2],
            )
            w00, w10, w11 = packed[k, FACTOR], packed[k, FACTOR + 1], packed[k, FACTOR + 2]
            w20, w21, w22 = packed[k, FACTOR + 3], packed[k, FACTOR + 4], packed[k, FACTOR + 5]
            for n in range(BLOCK):
                dz, dy, dx = z[n] - mz, y[n] - my, x[n] - mx
                u0 = w00 * dz
                u1 = w10 * dz + w11 * dy
                u2 = w20 * dz + w21 * dy + w22 * dx
                value[n] += a * exp2_negative(-(u0 * u0 + u1 * u1 + u2 * u2))


@fast_kernel
def gather_from_points(
    packed: Array,
    reaches: Array,
    points: Array,
    bounds: Array,
    weights: Array,
    moments: Array,
    first: int,
    end: int,
) -> None:
    """Set rows [first, end) of `moments` to the sums that `unpack_gradient` wants.

    weights : [B], the derivative of the loss by each value.
    """
    blocks = bounds.shape[0]
    for k in range(first, end):
        moments[k] = ZERO
        mz, my, mx = packed[k, MEAN], packed[k, MEAN + 1], packed[k, MEAN + 2]
        w00, w10, w11 = packed[k, FACTOR], packed[k, FACTOR + 1], packed[k, FACTOR + 2]
        w20, w21, w22 = packed[k, FACTOR + 3], packed[k, FACTOR + 4], packed[k, FACTOR + 5]
        b = 0
        while b < blocks:
            if apart(reaches, k, bounds, b):
                b += 1
                continue
            start = b
            while b < blocks and not apart(reaches, k, bounds, b):
                b += 1
            # All blocks in a row at once: the ten sums stay in vectors, added up once.
            run = slice(start * BLOCK, b * BLOCK)
            z, y, x, weight = points[0, run], points[1, run], points[2, run], weights[run]
            s = ZERO
            s0, s1, s2 = ZERO, ZERO, ZERO
            s00, s10, s11, s20, s21, s22 = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
            for n in range((b - start) * BLOCK):
                dz, dy, dx = z[n] - mz, y[n] - my, x[n] - mx
                u0 = w00 * dz
                u1 = w10 * dz + w11 * dy
                u2 = w20 * dz + w21 * dy + w22 * dx
                we = weight[n] * exp2_negative(-(u0 * u0 + u1 * u1 + u2 * u2))
                we0, we1, we2 = we * u0, we * u1, we * u2
                s += we
                s0 += we0
                s1 += we1
                s2 += we2
                s00 += we0 * u0
                s10 += we1 * u0
                s11 += we1 * u1
                s20 += we2 * u0
                s21 += we2 * u1
                s22 += we2 * u2
            moments[k, 0] += s
            moments[k, 1] += s0
            moments[k, 2] += s1
            moments[k, 3] += s2
            moments[k, 4] += s00
            moments[k, 5] += s10
            moments[k, 6] += s11
            moments[k, 7] += s20
            moments[k, 8] += s21
            moments[k, 9] += s22


DERIVED_BLOCK = 32
"""Points that are looked at together."""

DERIVED_REACH2 = 30.0
"""(x - mu)^T P (x - mu) beyond which a Gaussian is nothing: exp(-15) is 3e-7."""

DERIVATIVES = 10
"""f; its derivatives by z, y, x; by zz, zy, zx, yy, yx, xx."""

Floats = NDArray[np.float64]


@exact_part
def _list_near(means: Floats, reaches: Floats, points: Floats, near: NDArray[np.int64]) -> int:
    """Write to `near` [K] which Gaussians reach the box of points [B, 3]; return how many."""
    lower, upper = np.empty(3), np.empty(3)
    for axis in range(3):
        lower[axis], upper[axis] = points[:, axis].min(), points[:, axis].max()
    count = 0
    for k in range(means.shape[0]):
        away2 = 0.0
        for axis in range(3):
            away = max(lower[axis] - means[k, axis], means[k, axis] - upper[axis], 0.0)
            away2 += away * away
        if away2 <= reaches[k] * reaches[k]:
            near[count] = k
            count += 1
    return count


@exact_kernel
def sum_derivatives(
    means: Floats,
    precisions: Floats,
    amplitudes: Floats,
    reaches: Floats,
    points: Floats,
    sums: Floats,
    first: int,
    end: int,
) -> None:
    """Set rows of `sums` [B, DERIVATIVES], in float64, for blocks [first, end) of points [B, 3].

    With P = Sigma^-1 and v = P (x - mu), a Gaussian g = a exp(-(x - mu)^T v / 2) has

        dg/dx = -g v,    d2g/dx2 = g (v v^T - P).

    means : [K, 3]; precisions : [K, 6], P's entries zz, zy, zx, yy, yx, xx; amplitudes : [K];
    reaches : [K], distances from the centre beyond which a Gaussian is nothing.
    """
    near = np.empty(means.shape[0], np.int64)
    for block in range(first, end):
        start = block * DERIVED_BLOCK
        stop = min(start + DERIVED_BLOCK, points.shape[0])
        count = _list_near(means, reaches, points[start:stop], near)
        sums[start:stop] = 0.0
        for c in range(count):
            k = near[c]
            pzz, pzy, pzx = precisions[k, 0], precisions[k, 1], precisions[k, 2]
            pyy, pyx, pxx = precisions[k, 3], precisions[k, 4], precisions[k, 5]
            for b in range(start, stop):
                z, y, x = (
                    points[b, 0] - means[k, 0],
                    points[b, 1] - means[k, 1],
                    points[b, 2] - means[k, 2],
                )
                vz = pzz * z + pzy * y + pzx * x
                vy = pzy * z + pyy * y + pyx * x
                vx = pzx * z + pyx * y + pxx * x
                square = z * vz + y * vy + x * vx
                if square > DERIVED_REACH2:
                    continue
                g = amplitudes[k] * math.exp(-0.5 * square)
                sums[b, 0] += g
                sums[b, 1] -= g * vz
                sums[b, 2] -= g * vy
                sums[b, 3] -= g * vx
                sums[b, 4] += g * (vz * vz - pzz)
                sums[b, 5] += g * (vz * vy - pzy)
                sums[b, 6] += g * (vz * vx - pzx)
                sums[b, 7] += g * (vy * vy - pyy)
                sums[b, 8] += g * (vy * vx - pyx)
                sums[b, 9] += g * (vx * vx - pxx)
