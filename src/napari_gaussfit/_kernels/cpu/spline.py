"""Projecting stacks on the CPU: a stack as a cubic B-spline, through which rays are marched.

Along each axis a filter runs forth and back to the spline's coefficients, mirrored at the outer
voxel centres (Unser, "Splines: a perfect fit for signal and image processing", 1999). SciPy's, line
by line in double precision, takes several times as long.

Bounds of the spline from above, in cells of half a voxel or a voxel, tell where nothing needs to be
interpolated: where they are below the best value found on a ray. The maximum is the same. A
polynomial lies below the largest of its Bezier points. Those of a half of a cell are much nearer
to it than the spline's own coefficients, which overshoot noise several times: on a noisy stack
they leave one in fifteen samples of a ray to be interpolated where coefficients leave nearly all.
Those of whole cells leave two or three times as many, and are found in a tenth of the time.
"""

from __future__ import annotations

import math
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from napari_gaussfit._kernels.cpu.backend import lengths, view_of
from napari_gaussfit._kernels.cpu.jit import fast_kernel, inlined, part, weighted
from napari_gaussfit._kernels.geometry import Rays
from napari_gaussfit._kernels.shared.footprint import (
    BOTH_MARGINS,
    MARGIN,
    STEP,
    place,
    vertex,
    weights,
)
from napari_gaussfit._kernels.shared.gaussian import HALF, ONE, TWO, ZERO, Array, F, Vector
from napari_gaussfit._limits import BRIGHTEST, MOST_HALVED
from napari_gaussfit._threads import run_pieces
from napari_gaussfit.errors import StackError

POLE = F(math.sqrt(3.0) - 2.0)
GAIN = F(6.0)
TURN = GAIN * POLE / (POLE * POLE - ONE)
HORIZON = 14  # voxels that the filter's first value looks at: POLE^14 is 1e-8


@inlined
def _mirrored(n: int, size: int) -> int:
    """Return which of `size` voxels, 2 or more, lies at n from the first on."""
    n %= 2 * size - 2
    return min(n, 2 * size - 2 - n)


@inlined
def _row(c: Array, axis: int, line: int, n: int) -> Array:
    """Return row n along an axis, 0 or 1, of those that lie at `line` along the other."""
    z, y = (n, line) if axis == 0 else (line, n)
    return c[z + MARGIN, y + MARGIN, MARGIN:-MARGIN]


@fast_kernel
def filter_rows(c: Array, axis: int, first: int, end: int) -> None:
    """Filter along z or y (axis 0 or 1) what lies at [first, end) along the other.

    c : [Z + 4, Y + 4, X + 4], with `MARGIN` more on every side, which is left alone.
    """
    size = c.shape[axis] - 2 * MARGIN
    begin = np.empty(c.shape[2] - 2 * MARGIN, np.float32)
    for line in range(first, end):
        begin[:] = ZERO
        weight = ONE
        for n in range(HORIZON):
            row = _row(c, axis, line, _mirrored(n, size))
            for x in range(len(begin)):
                begin[x] += weight * row[x]
            weight *= POLE
        before = _row(c, axis, line, 0)
        before[:] = begin
        for n in range(1, size):
            row = _row(c, axis, line, n)
            for x in range(len(row)):
                row[x] += POLE * before[x]
            before = row
        after, before = _row(c, axis, line, size - 1), _row(c, axis, line, size - 2)
        for x in range(len(after)):
            after[x] = TURN * (after[x] + POLE * before[x])
        for n in range(size - 2, -1, -1):
            row = _row(c, axis, line, n)
            for x in range(len(row)):
                row[x] = POLE * (after[x] - GAIN * row[x])
            after = row


@fast_kernel
def filter_columns(c: Array, first: int, end: int) -> None:
    """Filter planes [first, end) along x; see `filter_rows`."""
    size = c.shape[2] - 2 * MARGIN
    for z in range(first, end):
        for y in range(c.shape[1] - 2 * MARGIN):
            row = c[z + MARGIN, y + MARGIN, MARGIN:-MARGIN]
            begin, weight = ZERO, ONE
            for n in range(HORIZON):
                begin += weight * row[_mirrored(n, size)]
                weight *= POLE
            row[0] = begin
            for x in range(1, size):
                row[x] += POLE * row[x - 1]
            row[size - 1] = TURN * (row[size - 1] + POLE * row[size - 2])
            for x in range(size - 2, -1, -1):
                row[x] = POLE * (row[x + 1] - GAIN * row[x])


Codes = NDArray[np.uint8]

LOWEST = F(-1e30)
SIXTH, THIRD = F(1.0 / 6.0), F(1.0 / 3.0)

# Bezier points of a cell, from the four coefficients around it; and of both its halves, the middle
# one shared.
WHOLE = (np.array([[1, 4, 1, 0], [0, 4, 2, 0], [0, 2, 4, 0], [0, 1, 4, 1]]) / 6).astype(np.float32)
_LEFT = np.array([[8, 0, 0, 0], [4, 4, 0, 0], [2, 4, 2, 0], [1, 3, 3, 1]], np.float32) / F(8)
HALVES = np.concatenate([_LEFT @ WHOLE, (_LEFT[::-1, ::-1] @ WHOLE)[1:]])


@inlined
def _mix(point: Array, r0: Array, r1: Array, r2: Array, r3: Array, mixed: Array) -> None:
    """Set `mixed` [X] to a Bezier point, of weights [4], between rows [X] of coefficients."""
    w0, w1, w2, w3 = point
    for x in range(mixed.shape[0]):
        mixed[x] = w0 * r0[x] + w1 * r1[x] + w2 * r2[x] + w3 * r3[x]


@inlined
def _raise(row: Array, bounds: Array) -> None:
    """Raise the bounds of cells [X] to the Bezier points of a row of coefficients."""
    for x in range(bounds.shape[0]):
        r0, r1, r2, r3 = row[x], row[x + 1], row[x + 2], row[x + 3]
        p0, p3 = SIXTH * (r0 + F(4.0) * r1 + r2), SIXTH * (r1 + F(4.0) * r2 + r3)
        p1, p2 = THIRD * (TWO * r1 + r2), THIRD * (r1 + TWO * r2)
        bounds[x] = max(bounds[x], p0, p1, p2, p3)


@inlined
def _raise_halves(row: Array, left: Array, right: Array) -> None:
    """Raise the bounds of cells' halves [X] to the Bezier points of a row of coefficients."""
    for x in range(left.shape[0]):
        r0, r1, r2, r3 = row[x], row[x + 1], row[x + 2], row[x + 3]
        p0, p3 = SIXTH * (r0 + F(4.0) * r1 + r2), SIXTH * (r1 + F(4.0) * r2 + r3)
        p1, p2 = THIRD * (TWO * r1 + r2), THIRD * (r1 + TWO * r2)
        h = HALF * (p1 + p2)
        l1, l5 = HALF * (p0 + p1), HALF * (p2 + p3)
        l2, l4 = HALF * (l1 + h), HALF * (h + l5)
        middle = HALF * (l2 + l4)
        left[x] = max(left[x], p0, l1, l2, middle)
        right[x] = max(right[x], middle, l4, l5, p3)


@inlined
def _code(bound: F, low: F, scale: F, table: Codes) -> np.uint8:
    entry = min(max((bound - low) * scale, ZERO), F(table.shape[0] - 1))
    code: np.uint8 = table[np.uintp(int(entry))]
    return code


@fast_kernel
def bound_planes(
    coefficients: Array, low: F, scale: F, table: Codes, codes: Codes, first: int, end: int
) -> None:
    """Set what belongs to planes [first, end) of cells to codes of bounds.

    coefficients : [Z + 3, Y + 3, X + 3] for [Z, Y, X] cells.
    table : codes of bounds; that of b is entry (b - low) * scale, or the first or the last.
    codes : [n Z, n Y, n X], with n = 1 or 2 entries a cell and axis.
    """
    rows, width = coefficients.shape[1], coefficients.shape[2]
    parts = 2 if codes.shape[2] > width - 3 else 1
    points = HALVES if parts == 2 else WHOLE
    planes = np.empty((len(points), rows, width), np.float32)
    row = np.empty(width, np.float32)
    bounds = np.empty((parts, width - 3), np.float32)
    for z in range(first, end):
        for a in range(len(points)):
            for y in range(rows):
                r0, r1 = coefficients[z, y], coefficients[z + 1, y]
                r2, r3 = coefficients[z + 2, y], coefficients[z + 3, y]
                _mix(points[a], r0, r1, r2, r3, planes[a, y])
        for y in range(rows - 3):
            for piece in range(parts * parts):
                sz, sy = piece // parts, piece % parts
                bounds[:] = LOWEST
                for a in range(3 * sz, 3 * sz + 4):
                    r0, r1 = planes[a, y], planes[a, y + 1]
                    r2, r3 = planes[a, y + 2], planes[a, y + 3]
                    for b in range(3 * sy, 3 * sy + 4):
                        _mix(points[b], r0, r1, r2, r3, row)
                        if parts == 2:
                            _raise_halves(row, bounds[0], bounds[1])
                        else:
                            _raise(row, bounds[0])
                line = codes[parts * z + sz, parts * y + sy]
                for x in range(width - 3):
                    for n in range(parts):
                        line[parts * x + n] = _code(bounds[n, x], low, scale, table)


BLOCK = 32  # samples that are passed over together


@part
def _interpolate(coefficients: Array, z: F, y: F, x: F) -> F:
    """Value at (z, y, x) in voxels, at least -1; `coefficients` carry `MARGIN` on every side."""
    z, y, x = z + ONE, y + ONE, x + ONE
    iz, iy, ix = int(z), int(y), int(x)
    wz, wy, wx = weights(z - F(iz)), weights(y - F(iy)), weights(x - F(ix))
    # Unsigned, as a signed index is asked whether it counts from the end.
    index = np.uintp(iz), np.uintp(iy), np.uintp(ix)
    value: F = weighted(coefficients, index, wz, wy, wx)
    return value


@inlined
def _level(levels: Array, value: F) -> int:
    """Return the largest code whose bound is at most `value`; -1 if none is."""
    low, high = -1, levels.shape[0]
    while high - low > 1:
        middle = (low + high) // 2
        if levels[middle] <= value:
            low = middle
        else:
            high = middle
    return low


@part
def _look_up(
    codes: Codes, start: Vector, step: Vector, count: int, seen: Codes, tops: Codes
) -> None:
    """Set `seen` to the codes at `count` samples, `tops` to the largest of each `BLOCK` of them.

    The last sample is repeated to the end of its block.
    """
    rows, width = codes.shape[1], codes.shape[2]
    flat = codes.reshape(-1)
    places = np.empty(BLOCK, np.int64)
    last = F(count - 1)
    for block in range(0, count, BLOCK):
        for n in range(BLOCK):
            m = min(F(block + n), last)
            z, y, x = start[0] + m * step[0], start[1] + m * step[1], start[2] + m * step[2]
            places[n] = (int(z) * rows + int(y)) * width + int(x)
        some = seen[block : block + BLOCK]
        top = np.uint8(0)
        for n in range(BLOCK):
            code = flat[np.uintp(places[n])]
            some[n] = code
            top = max(top, code)
        tops[block // BLOCK] = top


@fast_kernel
def march_maximum(
    coefficients: Array,
    bounds: tuple[Codes, Array],
    geometry: tuple[Array, Array],
    ends: tuple[Array, Array],
    limits: tuple[F, F],
    image: Array,
    depth: Array,
    first: int,
    end: int,
) -> None:
    """Set rows [first, end) of `image` [H, W] to the largest value on each ray, `depth` to its t.

    The sample with the highest bound is looked at first; what it holds spares most of the others.
    The largest sample's peak is found by a parabola.

    bounds : codes, see `bound_planes`, and levels [256]: a bound of the spline is its code's level.
    geometry : [6, 3] as `Rays.frame`, and the spacing of voxels.
    ends : [H, W] each, where rays enter and leave, in t; one that leaves first keeps its value.
    limits : longest distance between samples, in voxels of the axis along which a ray is fastest;
        what may be missed of the largest value, which spares the noise of an empty ray.
    """
    codes, levels = bounds
    frame, spacing = geometry
    near, far = ends
    step, slack = limits
    nz, ny, nx = (
        coefficients.shape[0] - BOTH_MARGINS,
        coefficients.shape[1] - BOTH_MARGINS,
        coefficients.shape[2] - BOTH_MARGINS,
    )
    parts = F(codes.shape[2] // (nx + 1))
    longest = int(F(max(nz, ny, nx)) / step) + 2
    tops = np.empty(longest // BLOCK + 1, np.uint8)
    seen = np.empty(len(tops) * BLOCK, np.uint8)
    for i in range(first, end):
        for j in range(image.shape[1]):
            if near[i, j] >= far[i, j]:
                continue
            z = place(frame, spacing, i, j, near[i, j], 0, nz)
            dz = place(frame, spacing, i, j, far[i, j], 0, nz) - z
            y = place(frame, spacing, i, j, near[i, j], 1, ny)
            dy = place(frame, spacing, i, j, far[i, j], 1, ny) - y
            x = place(frame, spacing, i, j, near[i, j], 2, nx)
            dx = place(frame, spacing, i, j, far[i, j], 2, nx) - x
            count = int(math.ceil(max(abs(dz), abs(dy), abs(dx)) / step)) + 1
            count = max(2, min(count, longest))
            part = ONE / F(count - 1)
            dz, dy, dx = dz * part, dy * part, dx * part
            _look_up(
                codes,
                (parts * (z + ONE), parts * (y + ONE), parts * (x + ONE)),
                (parts * dz, parts * dy, parts * dx),
                count,
                seen,
                tops,
            )
            blocks = (count - 1) // BLOCK + 1
            likely = 0
            for block in range(blocks):
                if tops[block] > tops[likely]:
                    likely = block
            where = likely * BLOCK
            while seen[where] != tops[likely]:
                where += 1
            m = F(where)
            best = _interpolate(coefficients, z + m * dz, y + m * dy, x + m * dx)
            enough = _level(levels, best + slack)
            for block in range(blocks):
                if tops[block] <= enough:
                    continue
                for n in range(block * BLOCK, min(count, (block + 1) * BLOCK)):
                    if seen[n] > enough and n != where:
                        m = F(n)
                        value = _interpolate(coefficients, z + m * dz, y + m * dy, x + m * dx)
                        if value > best:
                            best, where = value, n
                            enough = _level(levels, best + slack)
            peak = F(where)
            if 0 < where < count - 1:
                m = F(where - 1)
                before = _interpolate(coefficients, z + m * dz, y + m * dy, x + m * dx)
                m = F(where + 1)
                after = _interpolate(coefficients, z + m * dz, y + m * dy, x + m * dx)
                m = F(where) + vertex(before, best, after)
                value = _interpolate(coefficients, z + m * dz, y + m * dy, x + m * dx)
                if value > best:
                    best, peak = value, m
            image[i, j] = best
            depth[i, j] = near[i, j] + peak * part * (far[i, j] - near[i, j])


@fast_kernel
def sample_rays(
    coefficients: Array,
    geometry: tuple[Array, Array],
    ends: tuple[Array, Array],
    depth: Array,
    image: Array,
    first: int,
    end: int,
) -> None:
    """Set rows [first, end) of `image` [H, W] to the spline at t = `depth` on each ray.

    geometry, ends : as of `march_maximum`; one that leaves first has the value 0.
    depth : [H, >= W], as the ends are.
    """
    frame, spacing = geometry
    near, far = ends
    nz, ny, nx = (
        coefficients.shape[0] - BOTH_MARGINS,
        coefficients.shape[1] - BOTH_MARGINS,
        coefficients.shape[2] - BOTH_MARGINS,
    )
    for i in range(first, end):
        for j in range(image.shape[1]):
            image[i, j] = ZERO
            if near[i, j] < far[i, j]:
                t = depth[i, j]
                z = place(frame, spacing, i, j, t, 0, nz)
                y = place(frame, spacing, i, j, t, 1, ny)
                x = place(frame, spacing, i, j, t, 2, nx)
                image[i, j] = _interpolate(coefficients, z, y, x)


SLACK = 1e-4
"""Part of the stack's range that a projected maximum may fall short: less than 80 dB shows."""

TABLE = 2**14
"""Values, evenly spaced, whose codes are kept in a table."""

OVERSHOOT = 27.0
"""How far a cubic spline's coefficients may lie beyond the voxels: 3 along each axis."""

SAMPLED = 200_000
"""Coefficients that say where codes should be dense."""


def _levels(coefficients: Array) -> Array:
    """Return what the codes 0 to 255 stand for: bounds, the last one above all.

    They are denser where a ray's maximum decides: each level has the same part fewer above it.
    """
    step = max(1, coefficients.size // SAMPLED)
    ordered = np.sort(coefficients.reshape(-1)[::step])
    above = np.geomspace(ordered.size, 1, 255)
    levels = ordered[(ordered.size - above).astype(np.intp)]
    return np.append(levels, np.float32(np.finfo(np.float32).max))


def _coefficients(voxels: Array) -> Array:
    """Return a stack's cubic B-spline coefficients, with `MARGIN` more on every side."""
    padded = np.empty([size + 2 * MARGIN for size in voxels.shape], np.float32)
    padded[MARGIN:-MARGIN, MARGIN:-MARGIN, MARGIN:-MARGIN] = voxels
    depth, rows, columns = voxels.shape
    # Of one voxel along an axis the coefficient is that voxel.
    if depth > 1:
        run_pieces(partial(filter_rows, padded, 0), rows)
    if rows > 1:
        run_pieces(partial(filter_rows, padded, 1), depth)
    if columns > 1:
        run_pieces(partial(filter_columns, padded), depth)
    for axis, size in enumerate(voxels.shape):
        slices = np.moveaxis(padded, axis, 0)
        mirrored = np.pad(np.arange(MARGIN, MARGIN + size), MARGIN, mode="reflect")
        for n in (*range(MARGIN), *range(-MARGIN, 0)):
            slices[n] = slices[mirrored[n]]
    return padded


class SplineVolume:
    """A stack as cubic B-spline coefficients, mirrored at its outer voxel centres.

    Parameters
    ----------
    voxels : ndarray, shape [Z, Y, X]
        The intensities at the knots of the spline.
    spacing : ndarray, shape (3,)
        The distance between voxel centres along z, y and x, in the stack's unit.

    Attributes
    ----------
    coefficients : ndarray, shape [Z + 4, Y + 4, X + 4]
        With `spline.MARGIN` more on every side.
    spacing : ndarray, shape (3,)
        The distances between voxel centres, as given.
    """

    def __init__(self, voxels: Array, spacing: Array) -> None:
        self.spacing = np.asarray(spacing, np.float32)
        self._slack = np.float32(SLACK * float(np.ptp(voxels)))
        self.coefficients = _coefficients(voxels)
        low, high = np.float32(self.coefficients.min()), np.float32(self.coefficients.max())
        if not max(abs(low), abs(high)) <= BRIGHTEST * OVERSHOOT:
            message = f"voxels: reach from {low:g} to {high:g}; expected finite ones below 1e36"
            raise StackError(message)
        self._ends = low, high

    @cached_property
    def _bounds(self) -> tuple[Array, Codes]:
        """What codes of 8 bits stand for, and those that bound the spline from above.

        Made for the first projection: a fit on a GPU needs none.
        """
        coefficients, (low, high) = self.coefficients, self._ends
        levels = _levels(coefficients)
        edges = np.linspace(low, high, TABLE + 1, dtype=np.float32)
        table = np.searchsorted(levels, edges[1:]).clip(0, 255).astype(np.uint8)
        scale = np.float32(TABLE) / max(high - low, np.float32(1e-30))
        cells = [size - 3 for size in coefficients.shape]
        parts = 2 if math.prod(cells) <= MOST_HALVED else 1
        codes = np.empty([parts * size for size in cells], np.uint8)

        def bound(first: int, end: int) -> None:
            bound_planes(coefficients, low, scale, table, codes, first, end)

        run_pieces(bound, cells[0])
        return levels, codes

    def mip(self, rays: Rays) -> tuple[Array, Array]:
        """Return the largest value [H, W] on each ray and its t; 0 where a ray misses the box."""
        view, width = view_of(rays), rays.shape[1]
        near, far = (np.ascontiguousarray(t[:, :width]) for t in (view.near, view.far))
        image, depth = np.zeros((2, *rays.shape), np.float32)
        levels, codes = self._bounds

        def march(first: int, end: int) -> None:
            march_maximum(
                self.coefficients,
                (codes, levels),
                (rays.frame, self.spacing),
                (near, far),
                (STEP, self._slack),
                image,
                depth,
                first,
                end,
            )

        run_pieces(march, rays.shape[0])
        return image, depth

    def sample(self, rays: Rays, depth: Array, image: Array, first: int, end: int) -> None:
        """Set rows [first, end) of `image` [H, W] to the values at t = `depth` [H, >= W] on rays.

        0 where a ray misses the box.
        """
        view = view_of(rays)
        sample_rays(
            self.coefficients,
            (rays.frame, self.spacing),
            (view.near, view.far),
            depth,
            image,
            first,
            end,
        )

    def integral(self, rays: Rays) -> Array:
        """Return the integral [H, W] over each ray's length in the box, 0 where it misses."""
        from scipy.ndimage import map_coordinates

        view, (rows, width) = view_of(rays), rays.shape
        inside = lengths(rays)
        samples = int(np.ceil(inside.max() / (float(STEP) * self.spacing.min()))) + 1
        fractions = (np.arange(samples) + 0.5) / samples
        column = np.arange(width)[:, None]
        image = np.zeros(rays.shape, np.float32)
        for i in range(rows):
            origin = rays.frame[0] + i * rays.frame[1] + column * rays.frame[2]
            direction = rays.frame[3] + i * rays.frame[4] + column * rays.frame[5]
            near, far = view.near[i, :width, None], view.far[i, :width, None]
            t = near + (far - near) * fractions
            points = (origin[:, None] + t[..., None] * direction[:, None]) / self.spacing
            values = map_coordinates(
                self.coefficients,
                points.reshape(-1, 3).T + MARGIN,
                order=3,
                prefilter=False,
                mode="nearest",
            )
            image[i] = values.reshape(width, samples).mean(1) * inside[i]
        return image
