"""What all CUDA kernels share: exp2, sums over a block, which Gaussians reach a tile, launches.

Barriers are reached by every thread of a block: whatever decides whether one is, is the same for
all. No atomics and no shuffles, so that sums have one order and the simulator runs everything.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numba import cuda
from numba.core import config
from torch import Tensor

from napari_gaussfit._kernels.compiled import functions_of, keep_kernels_of
from napari_gaussfit._kernels.shared import footprint, gaussian, profile, step
from napari_gaussfit._kernels.shared.footprint import FOOTPRINT
from napari_gaussfit._kernels.shared.gaussian import INT, MOMENTS, PACKED, ZERO, Array, F

SIMULATED = bool(config.ENABLE_CUDASIM)
"""Whether kernels run in numba's simulator, on the CPU, as tests have it."""

if not SIMULATED:
    from numba.cuda.core.caching import CacheImpl

    keep_kernels_of(CacheImpl)

kernel = cuda.jit(fastmath=True, cache=not SIMULATED)
"""Makes a kernel, in which numbers are taken for finite."""

device = cuda.jit(device=True, fastmath=True)
# Where nothing is taken for finite: limits may be infinite, and what is not known is NaN.
exact_kernel = cuda.jit(cache=not SIMULATED)
MOST_REGISTERS = 96  # of a thread whose block has much to keep: with more, few blocks run at a time


def crowded_kernel(function: Callable[..., None]) -> Any:
    """Make an exact kernel of `MOST_REGISTERS`."""
    limits = {} if SIMULATED else {"max_registers": MOST_REGISTERS}
    return cuda.jit(function, cache=not SIMULATED, **limits)


exact = cuda.jit(device=True)

U = np.uint32
"""Of indices and counters in loops that matter: numba takes an index without a sign as it is, where
it looks at each access whether another is negative, and counts in 64 bits, which GPUs do in two."""

LONG = np.uint64
"""Of indices to which constants are added: `U` would have to wrap around, so that a GPU adds them
by instructions of their own, where an access can have them for nothing."""

GAUSSIAN_THREADS = 128  # of a block whose threads each have a Gaussian
GROUP = 16  # threads whose counts are added up by one of them
FEW_THREADS, BYTES = 64, 4  # of a block whose counts are added up in bytes; of a word
SHARE = 4  # candidates that a thread looks at in one go
CAPACITY = 1024  # Gaussians that a tile keeps in shared memory; more of them come in pieces
RECORDS = 32  # of Gaussians, that a tile works on at a time
STAGED = (RECORDS, FOOTPRINT)  # footprints in shared memory, see `stage`
STAGED_PACKED = (RECORDS, PACKED + 1)  # packed Gaussians: a column more makes them `WIDE`
WIDE = 16  # bytes that one load from shared memory takes, where they are aligned so
LISTING_THREADS = 256
LISTING_SCAN = LISTING_THREADS + LISTING_THREADS // GROUP  # see `places`
GATHERING = 8  # threads by threads that gather one Gaussian's gradient: rows by columns
GATHERING_THREADS = GATHERING * GATHERING
PARTS = 4  # into which each of the ten sums of a block is cut
SUMS = (MOMENTS + 1, GATHERING_THREADS + 1)  # see `add_up`; a column more spares bank conflicts

Counts = np.ndarray
Moments = tuple[F, F, F, F, F, F, F, F, F, F]

if SIMULATED:
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    def _shared_array(self: Any, shape: Any, dtype: Any, _alignment: int | None = None) -> Any:
        """Return the block's array for a line of code; the simulator's own refuses alignment."""
        line = sys._getframe(1)  # noqa: SLF001
        key = line.f_code.co_filename, line.f_lineno
        return self._allocations.setdefault(key, np.empty(shape, dtype))

    FakeCUDAShared.array = _shared_array
else:
    from llvmlite import ir
    from numba.cuda import extending, types

    def _be_one_instruction(function: Callable[[F], F], name: str) -> None:
        """Let a function of the shared arithmetic be one instruction of PTX, of a float32.

        Numba-cuda optimises kernels as it links them, and the linker is not told of fastmath: an
        exponential would be four instructions, for numbers below the normal ones, and a root nine.
        """

        def codegen(_context: Any, builder: Any, _signature: Any, given: Any) -> Any:
            kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()])
            return builder.asm(kind, f"{name} $0, $1;", "=f,f", given, side_effect=False)

        def typed(_context: Any, _x: Any) -> Any:
            return types.float32(types.float32), codegen

        one = extending.intrinsic(typed)

        def implementation(_x: Any) -> Any:
            return lambda x: one(F(x))

        extending.overload(function, strict=False)(implementation)

    # Numba's decorators for functions of the shared arithmetic, which stay as plain as they are.
    # Those of rays have quotients of one instruction as well; powers and logarithms stay exact.
    for _module, _fast in ((footprint, True), (gaussian, False), (profile, True), (step, False)):
        for _function in functions_of(_module):
            if _function is gaussian.exp2_negative:
                _be_one_instruction(_function, "ex2.approx.ftz.f32")
            elif _function is gaussian.square_root:
                _be_one_instruction(_function, "sqrt.approx.ftz.f32")
            else:
                extending.register_jitable(fastmath=_fast)(_function)


@device
def sum_of_bytes(word: U) -> INT:
    """Return the sum of the four bytes of a word."""
    halves = U(U(word & U(0xFF00FF)) + U(U(word >> U(8)) & U(0xFF00FF)))
    return INT(U(halves & U(0xFFFF)) + U(halves >> U(16)))


@device
def places_of_few(count: INT, scan: Counts, thread: int) -> tuple[INT, INT]:
    """Return what `places` returns, of `FEW_THREADS`, whose counts are a byte's at most each.

    A word has four of them, and no more than 63 a byte are added up.
    """
    scan.view(np.uint8)[U(thread)] = np.uint8(count)
    cuda.syncthreads()
    words, own = scan.view(np.uint32), U(U(thread) >> U(2))
    before, total = U(0), U(0)
    for n in range(FEW_THREADS // BYTES):
        word = words[U(n)]
        total = U(total + word)
        before = U(before + (word if U(n) < own else U(0)))
    rest = U(words[own] & U(U(U(1) << U(U(8) * U(U(thread) & U(3)))) - U(1)))
    cuda.syncthreads()
    return sum_of_bytes(U(before + rest)), sum_of_bytes(total)


@device
def places(count: INT, scan: Counts, thread: int, threads: int) -> tuple[INT, INT]:
    """Return the sum of `count` over the threads before this one, and over the whole block.

    `scan` holds threads + threads / GROUP numbers in shared memory. A count is `SHARE` at most.
    """
    if threads == FEW_THREADS:
        place, total = places_of_few(count, scan, thread)
        return place, total
    scan[U(thread)] = count
    cuda.syncthreads()
    if thread < threads // GROUP:
        total = INT(0)
        for m in range(GROUP):
            total = INT(total + scan[U(thread * GROUP + m)])
        scan[U(threads + thread)] = total
    cuda.syncthreads()
    place, total = INT(0), INT(0)
    n = U(thread - thread % GROUP)
    while n < U(thread):
        place = INT(place + scan[n])
        n = U(n + U(1))
    for group in range(threads // GROUP):
        if group < thread // GROUP:
            place = INT(place + scan[U(threads + group)])
        total = INT(total + scan[U(threads + group)])
    cuda.syncthreads()
    return place, total


@device
def overlap(boxes: Array, n: int, k: int, tile: tuple[F, F, F, F, F, F]) -> Any:
    """Whether box k of image n, [N, K, 6], meets a tile: (z, z, y, y, x, x), ends included."""
    # Without `and`, whose branches would wait for one load after another.
    return (
        (boxes[n, k, 2] <= tile[3])
        & (boxes[n, k, 3] >= tile[2])
        & (boxes[n, k, 4] <= tile[5])
        & (boxes[n, k, 5] >= tile[4])
        & (boxes[n, k, 0] <= tile[1])
        & (boxes[n, k, 1] >= tile[0])
    )


# The loop over what is collected stands in five kernels. Two are alike, in `ray_kernels`, and made
# by a factory they are 45 lines more than written out; the others differ where speed is won:
# lists that are kept between loops, a pixel split over threads, four neighbours in registers.
@device
def collect(
    boxes: Array,
    n: int,
    tile: tuple[F, F, F, F, F, F],
    candidates: Counts,
    count: int,
    start: INT,
    found: Counts,
    scan: Counts,
    thread: int,
    threads: int,
) -> tuple[INT, INT]:
    """Fill `found` with those of `candidates` [start, count) whose boxes meet the tile.

    Returns how many there are, and where to go on when `found` could not hold all: `count` or
    more when it could. Their order depends on nothing but the candidates'. `found` has room for
    SHARE * threads at least, which are looked at in one go.
    """
    held, room = INT(0), start < count
    while room:
        met, number = INT(0), INT(0)
        for m in range(SHARE):
            at = INT(start + m * threads + thread)
            if at < count and overlap(boxes, n, U(candidates[U(at)]), tile):
                met |= INT(1) << INT(m)
                number = INT(number + INT(1))
        place, total = places(number, scan, thread, threads)
        room = held + total <= found.shape[0]
        if room:
            place = INT(place + held)
            for m in range(SHARE):
                if met & (INT(1) << INT(m)):
                    found[U(place)] = candidates[U(start + m * threads + thread)]
                    place = INT(place + INT(1))
            held = INT(held + total)
            start = INT(start + INT(SHARE * threads))
            room = start < count
    cuda.syncthreads()
    return held, start


@device
def stage(
    source: Array,
    found: Counts,
    first: int,
    number: int,
    records: Array,
    width: int,
    thread: int,
    threads: int,
) -> U:
    """Copy rows found[first], found[first + 1], ... of `source` to `records` in shared memory.

    Returns how many there are, `RECORDS` at most. A loop over Gaussians that read each number
    of theirs from global memory would wait for loads longer than it computes.
    """
    count = U(min(INT(number - first), INT(RECORDS)))
    cuda.syncthreads()
    n, end = U(thread), U(count * U(width))
    while n < end:
        m = U(n // U(width))
        column = U(n - m * U(width))
        records[m, column] = source[U(found[U(first + m)]), column]
        n = U(n + U(threads))
    cuda.syncthreads()
    return count


@kernel
def list_cells(boxes: Array, cell: Counts, shape: Counts, lists: Counts, counts: Counts) -> None:
    """List the Gaussians that reach each cell, a large tile: one block a cell and image.

    boxes : [N, K, 6], first and last z, y, x that each Gaussian reaches.
    cell, shape : [3], points a cell; number of cells.
    lists, counts : [N, cells, K] and [N, cells].
    """
    scan = cuda.shared.array(LISTING_SCAN, np.int32)
    n, number, thread = cuda.blockIdx.y, cuda.blockIdx.x, cuda.threadIdx.x
    x = number % shape[2]
    y = (number // shape[2]) % shape[1]
    z = number // (shape[2] * shape[1])
    tile = (
        z * cell[0],
        (z + 1) * cell[0] - 1,
        y * cell[1],
        (y + 1) * cell[1] - 1,
        x * cell[2],
        (x + 1) * cell[2] - 1,
    )
    held, start, count = INT(0), INT(0), INT(boxes.shape[1])
    while start < count:
        met, some = INT(0), INT(0)
        for m in range(SHARE):
            k = INT(start + INT(thread * SHARE) + INT(m))
            if k < count and overlap(boxes, n, U(k), tile):
                met |= INT(1) << INT(m)
                some = INT(some + INT(1))
        place, total = places(some, scan, thread, LISTING_THREADS)
        place = INT(place + held)
        for m in range(SHARE):
            if met & (INT(1) << INT(m)):
                lists[n, number, U(place)] = INT(start + INT(thread * SHARE) + INT(m))
                place = INT(place + INT(1))
        held = INT(held + total)
        start = INT(start + INT(SHARE * LISTING_THREADS))
    if thread == 0:
        counts[n, number] = held


@device
def add_up(s: Moments, sums: Array, thread: int, moments: Array) -> None:
    """Set `moments` [10] to the sums of `s` over a block of `GATHERING_THREADS`.

    `sums` is [MOMENTS + 1, GATHERING_THREADS + 1] in shared memory.
    """
    sums[0, thread], sums[1, thread], sums[2, thread] = s[0], s[1], s[2]
    sums[3, thread], sums[4, thread], sums[5, thread] = s[3], s[4], s[5]
    sums[6, thread], sums[7, thread], sums[8, thread] = s[6], s[7], s[8]
    sums[9, thread] = s[9]
    cuda.syncthreads()
    if thread < MOMENTS * PARTS:
        part = ZERO
        first = (thread % PARTS) * (GATHERING_THREADS // PARTS)
        for n in range(first, first + GATHERING_THREADS // PARTS):
            part += sums[thread // PARTS, n]
        sums[MOMENTS, thread] = part
    cuda.syncthreads()
    if thread < MOMENTS:
        total = ZERO
        for n in range(PARTS):
            total += sums[MOMENTS, thread * PARTS + n]
        moments[thread] = total


@device
def floor_int(x: F) -> INT:
    """Return the largest whole number not above x, within what int32 holds."""
    return INT(math.floor(min(max(x, -F(1e9)), F(1e9))))


@device
def ceil_int(x: F) -> INT:
    """Return the smallest whole number not below x, within what int32 holds."""
    return INT(math.ceil(min(max(x, -F(1e9)), F(1e9))))


def launch(kernel: Any, blocks: Sequence[int], threads: int | tuple[int, int], *given: Any) -> None:
    """Run a kernel on torch's current stream; tensors are handed over without a copy.

    Parameters
    ----------
    kernel : numba.cuda dispatcher
        The kernel that is run on the device.
    blocks : sequence of int
        Blocks along x, y, z; nothing is launched where one is 0.
    threads : int or tuple of int
        How many threads a block has, along each of its axes.
    *given : Tensor, float, or tuple of such
        The kernel's arguments. Tensors must be contiguous and on one device.
    """
    if min(blocks) == 0:
        return
    if SIMULATED:
        kernel[tuple(blocks), threads](*(_handed(one, Tensor.numpy) for one in given))
        return
    device = next(filter(None, map(_device_of, given)))
    with torch.cuda.device(device), cuda.gpus[device.index]:
        stream = _stream(device.index, torch.cuda.current_stream().cuda_stream)
        arguments = [_handed(one, cuda.as_cuda_array) for one in given]
        kernel[tuple(blocks), threads, stream](*arguments)


def _handed(given: Any, array_of: Any) -> Any:
    """Return an argument as a kernel takes it: of tensors, arrays of the same memory."""
    if isinstance(given, tuple):
        return tuple(_handed(one, array_of) for one in given)
    return array_of(given.detach()) if isinstance(given, Tensor) else given


def _device_of(given: Any) -> torch.device | None:
    """Return where an argument's tensors are; None where it has none."""
    if isinstance(given, tuple):
        return next(filter(None, map(_device_of, given)), None)
    return given.device if isinstance(given, Tensor) else None


@functools.lru_cache(maxsize=64)
def _stream(_device: int, pointer: int) -> Any:
    """Return numba's object for a stream of torch's on a device, the same each time.

    Numba keeps what it prepares of a launch by its stream: of a new object it would prepare all
    anew.
    """
    return cuda.external_stream(pointer)


def blocks_of(count: int, size: int) -> int:
    """Return how many blocks of some size hold `count`."""
    return -(-count // size)


def floats(device: torch.device, *shape: int) -> Tensor:
    """Return memory for float32."""
    return torch.empty(shape, dtype=torch.float32, device=device)


def whole_numbers(device: torch.device, *shape: int) -> Tensor:
    """Return memory for int32."""
    return torch.empty(shape, dtype=torch.int32, device=device)


class Lists:
    """Which Gaussians reach each cell of an image or grid, from their boxes [N, K, 6]."""

    def __init__(self, boxes: Tensor, cell: tuple[int, int, int], shape: Sequence[int]) -> None:
        device = boxes.device
        images, count, _ = boxes.shape
        cells = [blocks_of(size, side) for size, side in zip(shape, cell, strict=True)]
        self.lists = whole_numbers(device, images, math.prod(cells), max(count, 1))
        self.counts = torch.zeros((images, math.prod(cells)), dtype=torch.int32, device=device)
        launch(
            list_cells,
            (math.prod(cells) if count else 0, images),
            LISTING_THREADS,
            boxes,
            _constant(tuple(cell), device),
            _constant(tuple(cells), device),
            self.lists,
            self.counts,
        )


@functools.lru_cache(maxsize=1024)
def _constant(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Return a few whole numbers on a device, sent there once."""
    return torch.tensor(numbers, dtype=torch.int32, device=device)
