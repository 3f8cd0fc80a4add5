"""How functions are compiled for the CPU: kernels, their parts, and the shared arithmetic.

A kernel holds all that it calls, so that one order of additions is compiled. Numba would else
compile each function by itself, and put a copy into the kernel that LLVM optimises once more: the
process that compiles calls the one, and those that load the kernel later call the other, whose sums
differ in their last digits. And what inherits `fastmath` has that of whoever is compiled first.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any, Literal

from numba import types
from numba.core.target_extension import current_target
from numba.extending import overload

from napari_gaussfit._kernels.compiled import functions_of, njit
from napari_gaussfit._kernels.shared import adam, footprint, gaussian, overlaps, profile, spline

__all__ = ["exact_kernel", "exact_part", "fast_kernel", "inlined", "part"]

fast_kernel = njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
"""Of a kernel whose sums may be taken in any order."""

exact_kernel = njit(nogil=True, error_model="numpy", cache=True)
"""Of a kernel that computes what is written."""

part = njit(fastmath=True, error_model="numpy", forceinline=True)
"""Of a function that kernels call: compiled once, and put into each where it is called."""

exact_part = njit(error_model="numpy", forceinline=True)

inlined = njit(inline="always")
"""Of a function that becomes lines of whoever calls it, and so is as fast or exact as that is."""

FAST = {adam: True, footprint: True, gaussian: False, overlaps: False, profile: False, spline: True}
"""Of each module of shared arithmetic, whether its sums may be taken in any order."""

LINES = (
    gaussian.exp2_negative,
    gaussian.first_index,
    gaussian.last_index,
    gaussian.log2_positive,
    gaussian.with_point,
)
"""Functions that become lines of loops, which vectorise with them."""


@overload(gaussian.power_of_two, inline="always", strict=False, target="cpu")
def _power_of_number(whole: Any) -> Any:
    # Of vectors `simd` says what it is.
    return gaussian.power_of_two if isinstance(whole, types.Number) else None


def _register(function: FunctionType, *, fast: bool) -> None:
    """Let kernels call a function of the shared arithmetic."""
    options: Any = {"fastmath": fast, "error_model": "numpy", "forceinline": True}
    inline: Literal["always", "never"] = "always" if function in LINES else "never"

    @overload(function, options, strict=False, inline=inline, target="cpu")
    def same(*_given: Any, **_named: Any) -> FunctionType | None:
        # Asked for although it is said above: what becomes lines is looked up by the types of
        # arguments alone, so that CUDA would have what was compiled for the CPU before.
        return function if current_target() == "cpu" else None


for _module, _fast in FAST.items():
    for _function in functions_of(_module):
        if _function is not gaussian.power_of_two:
            _register(_function, fast=_fast)
