"""The arithmetic that all kernels share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numba import njit

from napari_gaussfit._kernels.cpu import backend
from napari_gaussfit._kernels.reference import factors
from napari_gaussfit._kernels.shared import gaussian, profile

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike
    from scenes import Field

    from napari_gaussfit._kernels.shared.gaussian import Array


def over_arrays(function: Callable[[Any], Any]) -> Callable[[ArrayLike], Array]:
    """Return a function over an array, compiled as the kernels compile it."""

    @njit(fastmath=True, error_model="numpy")
    def over(values: Array, results: Array) -> None:
        for n in range(values.size):
            results[n] = function(values[n])

    def run(values: ArrayLike) -> Array:
        arguments = np.asarray(values, np.float32)
        results = np.empty_like(arguments)
        over(arguments, results)
        return results

    return run


@pytest.fixture(scope="module")
def exp2() -> Callable[[ArrayLike], Array]:
    return over_arrays(gaussian.exp2_negative)


@pytest.fixture(scope="module")
def log2() -> Callable[[ArrayLike], Array]:
    return over_arrays(gaussian.log2_positive)


def test_exp2_is_right_to_two_parts_in_ten_million(exp2: Callable[..., Array]) -> None:
    x = np.linspace(-59.99, 0.0, 2_000_001, dtype=np.float32)
    true = np.exp2(x.astype(np.float64))
    worst = float((np.abs(exp2(x) - true) / true).max())
    assert worst < 2e-7, f"relative error {worst:.1e}"


def test_exp2_is_exact_at_whole_exponents(exp2: Callable[..., Array]) -> None:
    x = -np.arange(60.0)
    np.testing.assert_array_equal(exp2(x), np.exp2(x))


def test_exp2_never_becomes_a_denormal(exp2: Callable[..., Array]) -> None:
    assert (exp2([-61.0, -126.5, -149.0, -1e4, -1e30]) == np.float32(2.0**-60)).all()


def test_a_packed_gaussian_has_the_inverse_of_its_factor(overlapping: Field) -> None:
    packed = backend.pack(*overlapping.leaves(torch.float32), 1e-6)
    inverse = torch.linalg.inv(factors(overlapping.cholesky.double()))
    lower = inverse[:, [0, 1, 1, 2, 2, 2], [0, 0, 1, 0, 1, 2]] * math.sqrt(0.5 / math.log(2))
    found = packed[:, gaussian.FACTOR : gaussian.FACTOR + 6]
    np.testing.assert_allclose(found, lower.numpy(), rtol=1e-5, atol=1e-6)


def test_a_gaussian_below_the_cutoff_has_no_reach(overlapping: Field) -> None:
    overlapping.amplitudes[:3] = torch.tensor([0.1, 0.0, -0.1])
    packed = backend.pack(*overlapping.leaves(torch.float32), 0.15)
    assert (packed[:3, gaussian.RADIUS2] < 0).all()
    assert (packed[3:, gaussian.RADIUS2] > 0).all()


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (-1.0, 2.0),
        (2.5, 2.6),
        (3.0, 3.5),
        (-3.5, -3.0),
        (-50.0, 50.0),
        (1.0, 1.01),
        (-0.3, -0.2),
        (4.0, 40.0),
    ],
)
def test_moments_along_a_line_agree_with_quadrature(low: float, high: float) -> None:
    m, a = 0.7, 1.3
    x = np.linspace(max(low, -8.0), min(high, 8.0), 200_001)
    e = np.exp2(-m - a * x * x)
    true = [np.trapezoid(e * x**n, x) for n in range(3)]
    found = njit(profile.line_moments)(*map(np.float32, (m, a, low, high)))
    np.testing.assert_allclose(found, true, rtol=1e-5, atol=1e-6 * true[0])


def test_log2_is_right_to_three_parts_in_a_million(log2: Callable[..., Array]) -> None:
    x = np.geomspace(1e-30, 1e30, 1_000_001).astype(np.float32)
    # Beside the fit's own error, what float32 resolves of a logarithm near 100.
    np.testing.assert_allclose(log2(x), np.log2(x.astype(np.float64)), rtol=0, atol=3e-6 + 8e-6)


def test_log2_is_exact_at_powers_of_two(log2: Callable[..., Array]) -> None:
    whole = np.arange(-90.0, 90.0)
    np.testing.assert_array_equal(log2(np.exp2(whole)), whole)
