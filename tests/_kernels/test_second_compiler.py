"""The shared arithmetic is plain enough for another compiler than the one that is used.

That is numba-cuda-mlir (the extra ``mlir``), which NVIDIA develops in numba-cuda's place: it takes
the functions of `_kernels/shared` and makes PTX of them, without a GPU.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import re
from collections.abc import Callable
from typing import Any

import pytest

from napari_gaussfit._kernels.compiled import functions_of
from napari_gaussfit._kernels.shared import footprint, gaussian, profile, step

mlir = pytest.importorskip(
    "numba_cuda_mlir", reason="numba-cuda-mlir is not installed: pip install '.[mlir]'"
)


class InItsWords(ast.NodeTransformer):
    """What numba-cuda-mlir 0.6 lacks: numbers looked at as other bits, and min and max of three."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        match node:
            case ast.Call(ast.Attribute(number, "view"), [kind]):
                cast = "float_as_int" if ast.unparse(kind) == "np.int32" else "int_as_float"
                return ast.Call(ast.Name(cast, ast.Load()), [number], [])
            case ast.Call(ast.Name("min" | "max") as least, [first, *others]):
                return functools.reduce(lambda a, b: ast.Call(least, [a, b], []), others, first)
        return node


def in_its_words(function: Callable[..., Any], library: Any) -> Callable[..., Any]:
    """Return a function as it is, or what does the same for that compiler."""
    tree = ast.parse(inspect.getsource(function))
    before = ast.unparse(tree)
    text = ast.unparse(ast.fix_missing_locations(InItsWords().visit(tree)))
    if text == before:
        return function
    name = f"<{function.__name__} in other words>"
    source = f"from __future__ import annotations\n{text}\n"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    names = function.__globals__ | {
        cast: getattr(library, cast) for cast in ("float_as_int", "int_as_float")
    }
    exec(compile(source, name, "exec"), names)
    made: Callable[..., Any] = names[function.__name__]
    return made


@pytest.fixture(scope="module")
def cuda() -> Any:
    """The compiler, which knows the shared functions, for a card that is not there."""
    from numba_cuda_mlir import cuda, extending, tools

    tools._cached_cc = (9, 0)  # asked of a driver otherwise
    registry = extending.typing_registry
    for module in (footprint, gaussian, profile, step):
        for function in functions_of(module):
            meant = in_its_words(function, cuda.libdevice)

            @extending.overload(function, strict=False, jit_options={}, typing_registry=registry)
            def same(*_: Any, meant: Any = meant) -> Any:
                return meant

    extending.refresh_registries()
    return cuda


# Kernels: a thread a Gaussian. Parameters that end in 1 and 2 are arrays of so many axes.
def pack(cuda: Any) -> Any:
    def kernel(means2, cholesky2, light1, cutoff, packed2):  # noqa: ANN001, ANN202
        k = cuda.grid(1)
        if k < packed2.shape[0]:
            gaussian.pack(means2, cholesky2, light1, cutoff, k, packed2)

    return kernel


def unpack(cuda: Any) -> Any:
    def kernel(moments2, packed2, means2, cholesky2, light1):  # noqa: ANN001, ANN202
        k = cuda.grid(1)
        if k < packed2.shape[0]:
            gaussian.unpack_gradient(moments2, packed2, k, means2, cholesky2, light1)

    return kernel


def footprints(cuda: Any) -> Any:
    def kernel(packed2, frame2, solve2, out2):  # noqa: ANN001, ANN202
        k = cuda.grid(1)
        if k < packed2.shape[0]:
            footprint.footprint(packed2, k, frame2, solve2, True, 512, out2)

    return kernel


def profiles(cuda: Any) -> Any:
    def kernel(footprints2, first, size, out2):  # noqa: ANN001, ANN202
        k = cuda.grid(1)
        if k < out2.shape[0]:
            profile.profile_of(footprints2, k, first, size, out2)
            m, a, place = profile.profile_on_ray(out2, k, 3, 4, True)
            out2[k, 0] = gaussian.exp2_negative(-(m + a * place * place))

    return kernel


def adam(cuda: Any) -> Any:
    def kernel(x2, l2, a1, dx2, dl2, da1, first2, second2, age1, rates1, g1):  # noqa: ANN001, ANN202
        k = cuda.grid(1)
        if k < a1.shape[0]:
            moments = (first2, second2, age1)
            step.adam_update(k, (x2, l2, a1), (dx2, dl2, da1), moments, rates1, g1)

    return kernel


@pytest.mark.parametrize("made", [pack, unpack, footprints, profiles, adam])
def test_the_shared_arithmetic_is_compiled_by_another_compiler(
    cuda: Any, made: Callable[[Any], Any]
) -> None:
    from numba_cuda_mlir import types

    kernel = made(cuda)
    kinds = [
        types.Array(types.float32, int(name[-1]), "C") if name[-1].isdigit() else types.float32
        for name in inspect.signature(kernel).parameters
    ]
    ptx, _ = cuda.compile_ptx(kernel, tuple(kinds), cc=(9, 0))
    assert ".target sm_90" in ptx
    assert ".entry" in ptx
    assert re.search(r"st\.global", ptx), "it writes what it has computed"
    assert re.search(r"(fma|mul|add)\.\w*\.?f32", ptx)
