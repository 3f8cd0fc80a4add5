"""Linear equations of a block of Gaussians, solved by the threads of a block together.

In double precision: error bars are what is left of large numbers.
"""

from __future__ import annotations

import math
from typing import Any

from numba import cuda

from napari_gaussfit._kernels.cpu.refinement_kernels import NOTHING, own_place
from napari_gaussfit._kernels.cuda.device import U, exact
from napari_gaussfit._kernels.shared.gaussian import Array64


@exact
def at(i: int, j: int) -> U:
    """Return where entry (i, j), j <= i, of a triangle is in a row of its entries."""
    return U(U(U(i) * U(U(i) + U(1))) // U(2) + U(j))


@exact
def factor(a: Array64, size: int, thread: int) -> Any:
    """Put the Cholesky factor in place of the triangle `a`; False where it has none.

    Of the diagonal the reciprocals, as it is what others divide by. A thread a row, and column
    after column.
    """
    for n in range(size):
        rest = 0.0
        if n <= thread < size:
            rest = a[at(thread, n)]
            for p in range(n):
                rest -= a[at(thread, p)] * a[at(n, p)]
        if thread == n:
            a[at(n, n)] = 1.0 / math.sqrt(rest) if rest > 1e-300 else -1.0
        cuda.syncthreads()
        per_pivot = a[at(n, n)]
        if per_pivot < 0.0:
            return False
        if n < thread < size:
            a[at(thread, n)] = rest * per_pivot
        cuda.syncthreads()
    return True


@exact
def solve(a: Array64, b: Array64, size: int, thread: int) -> None:
    """Replace b [size] by the solution x of a a^T x = b, `a` as `factor` has it: a thread a row."""
    for p in range(size):
        if thread == p:
            b[p] *= a[at(p, p)]
        cuda.syncthreads()
        if p < thread < size:
            b[thread] -= a[at(thread, p)] * b[p]
    for p in range(size - 1, -1, -1):
        if thread == p:
            b[p] *= a[at(p, p)]
        cuda.syncthreads()
        if thread < p:
            b[thread] -= a[at(p, thread)] * b[p]
    cuda.syncthreads()


@exact
def damp(fisher: Array64, damping: float, damped: Array64, size: int, thread: int) -> Any:
    """Set `damped` to the factor of the information; see `cpu.refinement_kernels.damp`."""
    if thread < size:
        nothing = fisher[at(thread, thread)] < NOTHING
        for j in range(thread):
            unknown = nothing or fisher[at(j, j)] < NOTHING
            damped[at(thread, j)] = 0.0 if unknown else fisher[at(thread, j)]
        own_entry = fisher[at(thread, thread)] * (1.0 + damping) + 1e-300
        damped[at(thread, thread)] = 1.0 if nothing else own_entry
    cuda.syncthreads()
    return factor(damped, size, thread)


@exact
def invert(a: Array64, inverse: Array64, size: int, thread: int) -> None:
    """Set `inverse` [size, size] to that of a a^T, as in `solve`: a thread a column, by itself."""
    if thread < size:
        x = inverse[thread]
        for i in range(size):
            rest = 1.0 if i == thread else 0.0
            for n in range(i):
                rest -= a[at(i, n)] * x[n]
            x[i] = rest * a[at(i, i)]
        for i in range(size - 1, -1, -1):
            rest = x[i]
            for n in range(i + 1, size):
                rest -= a[at(n, i)] * x[n]
            x[i] = rest * a[at(i, i)]
    cuda.syncthreads()


@exact
def limited(value: float, n: int, start: float, limits: Array64) -> Any:
    """Return number n of a shape as near as may be; see `cpu.refinement_kernels.keep_within`."""
    if n < 3:
        return min(max(value, start - limits[2, n]), start + limits[2, n])
    axis = 0 if n == 3 else 1 if n <= 5 else 2
    if n == 3 or n == 5 or n == 8:  # noqa: PLR1714 - numba has no `in` here
        return min(max(value, limits[0, axis]), limits[1, axis])
    widest = math.exp(limits[1, axis])
    return min(max(value, -widest), widest)


place_of = exact(own_place.py_func)
