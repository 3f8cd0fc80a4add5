"""Rows of `CHUNK` numbers on the stack, for loops of as many turns that LLVM vectorises.

What such a loop adds to an array that Python made is written back to memory each time, lest another
array overlap it. Of memory on the stack LLVM knows that none does. Loops without branches are
shorter with `cpu.simd`.
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

    from napari_gaussfit._kernels.shared.gaussian import Array

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
