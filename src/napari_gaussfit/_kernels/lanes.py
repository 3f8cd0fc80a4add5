"""Vectors that stay in a core's registers: rows of `CHUNK` sums, one for each lane.

What a loop of `CHUNK` turns adds to an array that Python made is written back to memory each time,
lest another array overlap it. Of memory on the stack LLVM knows that none does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_gaussfit._kernels.arithmetic import Array

CHUNK = 16
FLOAT = 4  # bytes


def _lanes(typing_context: Any, rows: Any) -> Any:  # noqa: ARG001
    """Return an array [rows, CHUNK], `rows` a constant, that lasts as long as the kernel's call.

    It holds what was in its memory before.
    """
    if not isinstance(rows, types.IntegerLiteral):
        return None
    count, array_type = rows.literal_value, types.Array(types.float32, 2, "C")

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        memory = cgutils.alloca_once(builder, ir.ArrayType(ir.FloatType(), count * CHUNK))
        memory.align = FLOAT * CHUNK
        array = make_array(array_type)(context, builder)
        populate_array(
            array,
            data=builder.bitcast(memory, ir.FloatType().as_pointer()),
            shape=[context.get_constant(types.intp, size) for size in (count, CHUNK)],
            strides=[context.get_constant(types.intp, size) for size in (FLOAT * CHUNK, FLOAT)],
            itemsize=context.get_constant(types.intp, FLOAT),
            meminfo=None,
        )
        return array._getvalue()  # noqa: SLF001

    return array_type(rows), generate


lanes: Callable[[int], Array] = intrinsic(_lanes)


def _add_lanes(typing_context: Any, target: Any, row: Any, first: Any, source: Any, n: Any) -> Any:  # noqa: ARG001
    """Do ``target[row, first : first + CHUNK] += source[n]``, of arrays in C order.

    Written as a loop beside others it is not vectorised: LLVM would ask each time whether the rows
    overlap, and unrolls a loop that adds nothing but these.
    """
    vector = ir.VectorType(ir.FloatType(), CHUNK)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def pointer(array_type: Any, array: Any, indices: list[Any]) -> Any:
            record = make_array(array_type)(context, builder, array)
            item = cgutils.get_item_pointer(context, builder, array_type, record, indices)
            return builder.bitcast(item, vector.as_pointer())

        place = pointer(signature.args[0], arguments[0], list(arguments[1:3]))
        zero = context.get_constant(types.intp, 0)
        added = pointer(signature.args[3], arguments[3], [arguments[4], zero])
        total = builder.fadd(
            builder.load(place, align=FLOAT), builder.load(added, align=FLOAT), flags=("fast",)
        )
        builder.store(total, place, align=FLOAT)
        return context.get_dummy_value()

    return types.void(target, types.intp, types.intp, source, types.intp), generate


add_lanes: Callable[[Array, int, int, Array, int], None] = intrinsic(_add_lanes)
