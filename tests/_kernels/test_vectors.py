"""A vector's arithmetic is that of the numbers in its lanes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import njit

from napari_gaussfit._kernels.cpu import jit
from napari_gaussfit._kernels.cpu.jit import (
    WIDTH,
    add_to,
    filled,
    load,
    ramp,
    total,
    up_to,
    weighted,
)
from napari_gaussfit._kernels.shared import gaussian
from napari_gaussfit._kernels.shared.gaussian import F

SOME = np.random.default_rng(3).uniform(0.1, 9.0, (3, 2 * WIDTH)).astype(np.float32)


@njit
def of_vectors(a, b, number):  # noqa: ANN001, ANN201 (numba's vectors are no type of Python's)
    return (
        a + b,
        a - number,
        number - a,
        a * b,
        a * number,
        number / a,
        a / b,
        -a,
        max(a, b),
        max(a, number),
        min(number, a),
        np.floor(a),
        math.sqrt(a),
        gaussian.exp2_negative(-a),
    )


def of_numbers(a: np.ndarray, b: np.ndarray, number: np.float32) -> tuple[np.ndarray, ...]:
    return (
        a + b,
        a - number,
        number - a,
        a * b,
        a * number,
        number / a,
        a / b,
        -a,
        np.maximum(a, b),
        np.maximum(a, number),
        np.minimum(number, a),
        np.floor(a),
        np.sqrt(a),
        np.exp2(-a),
    )


@njit
def _all(rows: np.ndarray, first: int, number: np.float32, out: np.ndarray) -> None:
    found = of_vectors(load(rows, (0, first)), load(rows, (np.uintp(1), first)), number)
    for n in range(len(found)):
        add_to(out, (n, 0), found[n])


@pytest.mark.parametrize("first", [0, 1, WIDTH])
def test_operations_are_those_of_the_lanes(first: int) -> None:
    number = F(2.5)
    lanes = slice(first, first + WIDTH)
    true = np.array(of_numbers(SOME[0, lanes], SOME[1, lanes], number))
    found = np.zeros_like(true)
    _all(SOME, first, number, found)
    np.testing.assert_allclose(found, true, rtol=1e-6)


@njit
def _add(out: np.ndarray, at: tuple[int, int, int]) -> None:
    add_to(out, at, filled(F(1.0)) + ramp())


@pytest.mark.parametrize("at", [(0, 0, 0), (1, 2, 3), (1, 2, WIDTH)])
def test_what_is_added_lies_where_it_should(at: tuple[int, int, int]) -> None:
    found, true = np.zeros((2, 2, 3, 2 * WIDTH), np.float32)
    _add(found, at)
    z, y, x = at
    true[z, y, x : x + WIDTH] = 1 + np.arange(WIDTH)
    np.testing.assert_array_equal(found, true)


@njit
def _reduced(row: np.ndarray, last: int) -> tuple[float, float, float, float]:
    vector = load(row, (0,))
    return (
        total(vector),
        jit.lowest(vector),
        jit.highest(vector),
        total(up_to(last, vector, F(0.0))),
    )


@pytest.mark.parametrize("last", [-1, 0, 2, WIDTH - 1, WIDTH])
def test_reductions_look_at_every_lane_and_at_no_other(last: int) -> None:
    row = SOME[2]
    seen = row[:WIDTH]
    true = [seen.sum(), seen.min(), seen.max(), seen[: last + 1].sum()]
    assert _reduced(row, last) == pytest.approx(true, rel=1e-6)


FOUR = tuple[float, float, float, float]


@njit
def _weighted(volume: np.ndarray, at: tuple[int, int, int], wz: FOUR, wy: FOUR, wx: FOUR) -> float:
    return weighted(volume, at, wz, wy, wx)  # type: ignore[no-any-return]


@pytest.mark.parametrize("at", [(0, 0, 0), (2, 1, 3), (3, 2, 5)])
def test_numbers_are_weighted_along_each_axis(at: tuple[int, int, int]) -> None:
    source = np.random.default_rng(4)
    volume = source.uniform(-1.0, 1.0, (7, 6, 9)).astype(np.float32)
    z, y, x = at
    weights = source.uniform(0.1, 1.0, (3, 4)).astype(np.float32)
    true = np.einsum("abc,a,b,c", volume[z : z + 4, y : y + 4, x : x + 4], *weights)
    found = _weighted(volume, at, *(tuple(row) for row in weights))
    assert found == pytest.approx(true, abs=1e-6)
