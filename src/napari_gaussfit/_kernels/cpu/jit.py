"""How functions are compiled for the CPU: kernels, their parts, the shared arithmetic, and vectors.

A kernel holds all that it calls, so that one order of additions is compiled. Numba would else
compile each function by itself, and put a copy into the kernel that LLVM optimises once more: the
process that compiles calls the one, and those that load the kernel later call the other, whose sums
differ in their last digits. And what inherits `fastmath` has that of whoever is compiled first.

A vector is `WIDTH` numbers that a core works on at once. Arithmetic between vectors, and between
one and a number, is written as that of numbers. A loop of `WIDTH` turns instead would be LLVM's to
vectorise: it unrolls short ones before it looks, and puts what they add to arrays back into memory
at every turn. Of memory on the stack (`lanes`) LLVM knows that no other array overlaps it: loops
with branches, over rows of `CHUNK`, are for that.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from types import FunctionType
from typing import Any, Literal

import llvmlite.binding
import numpy as np
from llvmlite import ir
from llvmlite.ir import IRBuilder
from numba import types
from numba.core import cgutils
from numba.core.datamodel.models import PrimitiveModel
from numba.core.target_extension import current_target
from numba.extending import intrinsic, overload, register_model
from numba.np.arrayobj import make_array, populate_array

from napari_gaussfit._kernels.compiled import functions_of, njit
from napari_gaussfit._kernels.shared import footprint, gaussian, profile, step
from napari_gaussfit._kernels.shared.gaussian import Array, power_of_two

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

FAST = {footprint: True, gaussian: False, profile: False, step: True}
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
    # Of vectors it is said below.
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


# Of float32: one register of a core with AVX-512 or AVX2, two of others.
WIDTH = 16 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 8
BYTES = 4  # of one number
CHUNK = 16
"""Numbers of a row of `lanes`."""

NUMBER = ir.FloatType()
FLOATS, INTEGERS = ir.VectorType(NUMBER, WIDTH), ir.VectorType(ir.IntType(32), WIDTH)
FOUR = ir.VectorType(NUMBER, 4)
FASTMATH = ("fast",)


class VectorType(types.Type):
    """Numba's type of a vector."""


VECTOR = VectorType("vector")


@register_model(VectorType)
class _VectorModel(PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, of: Any) -> None:
        super().__init__(manager, of, FLOATS)


def _spread(context: Any, builder: IRBuilder, of: Any, value: Any) -> Any:
    """Return a vector as it is, and of a number one that holds it in every lane."""
    if of == VECTOR:
        return value
    return _in_every_lane(builder, context.cast(builder, value, of, types.float32), FLOATS)


def _in_every_lane(builder: IRBuilder, number: Any, of: ir.VectorType) -> Any:
    nothing, lane = ir.Constant(of, ir.Undefined), ir.IntType(32)
    first = builder.insert_element(nothing, number, ir.Constant(lane, 0))
    lanes = ir.Constant(ir.VectorType(lane, of.count), None)
    return builder.shuffle_vector(first, nothing, lanes)


def _constant(of: ir.VectorType, values: Any) -> ir.Constant:
    return ir.Constant(of, list(values))


RAMP = _constant(FLOATS, map(float, range(WIDTH)))


def _generator(emit: Callable[..., Any]) -> Callable[..., Any]:
    """Return what generates an operation on vectors, and numbers spread to such."""

    def generate(context: Any, builder: IRBuilder, signature: Any, values: Any) -> Any:
        pairs = zip(signature.args, values, strict=True)
        return emit(builder, *(_spread(context, builder, of, value) for of, value in pairs))

    return generate


def _overload_one(function: Any, emit: Callable[..., Any]) -> None:
    """Give a function of one number a meaning for a vector."""
    call: Callable[..., Any] = intrinsic(lambda _context, a: (VECTOR(a), _generator(emit)))

    def choose(a: Any) -> Any:
        # Numba compiles what is returned: it must be a function.
        return (lambda a: call(a)) if a == VECTOR else None  # noqa: PLW0108

    overload(function, strict=False)(choose)


def _overload_two(function: Any, emit: Callable[..., Any]) -> None:
    """Give a function of two numbers a meaning for vectors, or one and a number."""
    call: Callable[..., Any] = intrinsic(lambda _context, a, b: (VECTOR(a, b), _generator(emit)))

    def choose(a: Any, b: Any) -> Any:
        return (lambda a, b: call(a, b)) if VECTOR in (a, b) else None  # noqa: PLW0108

    overload(function, strict=False)(choose)


def _call(builder: IRBuilder, name: str, of: Any, *values: Any) -> Any:
    """Call an operation of LLVM's that takes a vector last."""
    signature = ir.FunctionType(of, [value.type for value in values])
    lanes = values[-1].type.count
    function = cgutils.get_or_insert_function(builder.module, signature, f"{name}.v{lanes}f32")
    return builder.call(function, values, fastmath=FASTMATH)


def _chosen(builder: IRBuilder, comparison: str, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(comparison, a, b, flags=FASTMATH), a, b)


def _power_of_two(builder: IRBuilder, whole: Any) -> Any:
    """See `shared.gaussian.power_of_two`."""
    exponent = builder.fptosi(whole, INTEGERS)
    biased = builder.add(exponent, _constant(INTEGERS, [127] * WIDTH))
    return builder.bitcast(builder.shl(biased, _constant(INTEGERS, [23] * WIDTH)), FLOATS)


_overload_two(operator.add, lambda builder, a, b: builder.fadd(a, b))
_overload_two(operator.sub, lambda builder, a, b: builder.fsub(a, b))
_overload_two(operator.mul, lambda builder, a, b: builder.fmul(a, b))
_overload_two(operator.truediv, lambda builder, a, b: builder.fdiv(a, b))
_overload_two(max, lambda builder, a, b: _chosen(builder, ">", a, b))
_overload_two(min, lambda builder, a, b: _chosen(builder, "<", a, b))
_overload_one(operator.neg, lambda builder, a: builder.fneg(a))
_overload_one(np.floor, lambda builder, a: _call(builder, "llvm.floor", FLOATS, a))
_overload_one(math.sqrt, lambda builder, a: _call(builder, "llvm.sqrt", FLOATS, a))
_overload_one(power_of_two, _power_of_two)


def _pointer(context: Any, builder: IRBuilder, signature: Any, values: Any) -> Any:
    """Return where `WIDTH` numbers begin, of an array in C order and an index, the first two."""
    of_array, of_index = signature.args[:2]
    array = make_array(of_array)(context, builder, values[0])
    parts = zip(cgutils.unpack_tuple(builder, values[1]), of_index, strict=True)
    index = [context.cast(builder, value, of, types.intp) for value, of in parts]
    item = cgutils.get_item_pointer(context, builder, of_array, array, index)
    return builder.bitcast(item, FLOATS.as_pointer())


def _load(_context: Any, array: Any, index: Any) -> Any:
    """Return the numbers of an array in C order from an index, a tuple, on."""

    def generate(context: Any, builder: IRBuilder, signature: Any, values: Any) -> Any:
        return builder.load(_pointer(context, builder, signature, values), align=BYTES)

    return VECTOR(array, index), generate


def _add_to(_context: Any, array: Any, index: Any, vector: Any) -> Any:
    """Add a vector to the numbers of an array in C order from an index, a tuple, on."""

    def generate(context: Any, builder: IRBuilder, signature: Any, values: Any) -> Any:
        place = _pointer(context, builder, signature, values)
        total = builder.fadd(builder.load(place, align=BYTES), values[2], flags=FASTMATH)
        builder.store(total, place, align=BYTES)
        return context.get_dummy_value()

    return types.void(array, index, vector), generate


def _store(_context: Any, array: Any, index: Any, vector: Any) -> Any:
    """Set the numbers of an array in C order from an index, a tuple, on."""

    def generate(context: Any, builder: IRBuilder, signature: Any, values: Any) -> Any:
        builder.store(values[2], _pointer(context, builder, signature, values), align=BYTES)
        return context.get_dummy_value()

    return types.void(array, index, vector), generate


def _weighted(_context: Any, array: Any, index: Any, wz: Any, wy: Any, wx: Any) -> Any:
    """Return the sum of 4 x 4 x 4 numbers from an index on, weighted along each axis.

    Each row of four is a vector. LLVM finds none in the 64 products, and takes three times as long.
    """

    def generate(context: Any, builder: IRBuilder, signature: Any, values: Any) -> Any:
        rows = make_array(signature.args[0])(context, builder, values[0])
        deep, down, _ = cgutils.unpack_tuple(builder, rows.strides)
        along_z, along_y, along_x = (cgutils.unpack_tuple(builder, four) for four in values[2:])
        across = [_in_every_lane(builder, number, FOUR) for number in along_y]
        place = builder.bitcast(
            _pointer(context, builder, signature, values), ir.IntType(8).as_pointer()
        )
        lines = ir.Constant(FOUR, None)
        for a, number in enumerate(along_z):
            plane = ir.Constant(FOUR, None)
            for b, weight in enumerate(across):
                away = builder.add(builder.mul(deep, deep.type(a)), builder.mul(down, down.type(b)))
                row = builder.bitcast(builder.gep(place, [away]), FOUR.as_pointer())
                product = builder.fmul(builder.load(row, align=BYTES), weight, flags=FASTMATH)
                plane = builder.fadd(plane, product, flags=FASTMATH)
            product = builder.fmul(plane, _in_every_lane(builder, number, FOUR), flags=FASTMATH)
            lines = builder.fadd(lines, product, flags=FASTMATH)
        for n, number in enumerate(along_x):
            weight = builder.insert_element(weight, number, ir.Constant(ir.IntType(32), n))
        product = builder.fmul(lines, weight, flags=FASTMATH)
        return _call(builder, "llvm.vector.reduce.fadd", NUMBER, NUMBER(0.0), product)

    return types.float32(array, index, wz, wy, wx), generate


def _ramp(_context: Any) -> Any:
    """Return 0, 1, 2 and so on."""
    return VECTOR(), lambda *_: RAMP


def _filled(_context: Any, number: Any) -> Any:
    """Return a vector that holds a number in every lane."""
    return VECTOR(number), _generator(lambda _builder, a: a)


def _up_to(_context: Any, last: Any, vector: Any, other: Any) -> Any:
    """Return a vector with a number instead, `other`, in the lanes after lane `last`."""

    def emit(builder: IRBuilder, last: Any, vector: Any, other: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<=", RAMP, last), vector, other)

    return VECTOR(last, vector, other), _generator(emit)


def _reduction(name: str, *first: float) -> Callable[..., Any]:
    def typed(_context: Any, vector: Any) -> Any:
        def emit(builder: IRBuilder, vector: Any) -> Any:
            begin = (ir.Constant(NUMBER, value) for value in first)
            return _call(builder, f"llvm.vector.reduce.{name}", NUMBER, *begin, vector)

        return types.float32(vector), _generator(emit)

    return typed


load: Callable[..., Any] = intrinsic(_load)
add_to: Callable[..., None] = intrinsic(_add_to)
store: Callable[..., None] = intrinsic(_store)
weighted: Callable[..., Any] = intrinsic(_weighted)
ramp: Callable[..., Any] = intrinsic(_ramp)
filled: Callable[..., Any] = intrinsic(_filled)
up_to: Callable[..., Any] = intrinsic(_up_to)
total: Callable[..., Any] = intrinsic(_reduction("fadd", 0.0))
lowest: Callable[..., Any] = intrinsic(_reduction("fmin"))
highest: Callable[..., Any] = intrinsic(_reduction("fmax"))


def _lanes(typing_context: Any, rows: Any) -> Any:  # noqa: ARG001
    """Return an array [rows, CHUNK], `rows` a constant, that lasts as long as the kernel's call.

    It holds what was in its memory before.
    """
    if not isinstance(rows, types.IntegerLiteral):
        return None
    count, array_type = rows.literal_value, types.Array(types.float32, 2, "C")

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        memory = cgutils.alloca_once(builder, ir.ArrayType(ir.FloatType(), count * CHUNK))
        memory.align = BYTES * CHUNK
        array = make_array(array_type)(context, builder)
        populate_array(
            array,
            data=builder.bitcast(memory, ir.FloatType().as_pointer()),
            shape=[context.get_constant(types.intp, size) for size in (count, CHUNK)],
            strides=[context.get_constant(types.intp, size) for size in (BYTES * CHUNK, BYTES)],
            itemsize=context.get_constant(types.intp, BYTES),
            meminfo=None,
        )
        return array._getvalue()  # noqa: SLF001

    return array_type(rows), generate


lanes: Callable[[int], Array] = intrinsic(_lanes)
