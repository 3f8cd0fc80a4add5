"""A fit says beforehand what it takes of memory, and keeps to it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from napari_gaussfit import FitSettings
from napari_gaussfit.fitting.memory import predict_memory

HONEST = 0.2

FIT = """
import numpy as np
from napari_gaussfit import FitSettings, Stack, fit
from napari_gaussfit.fitting.memory import predict_memory
voxels = np.random.default_rng(0).poisson(20, (60, 200, 250)).astype(np.uint16)
voxels[20:30, 50:90, 60:100] += 200
stack = Stack.from_array(voxels, spacing=(1.0, 0.5, 0.5))
settings = FitSettings(exactly=True, gaussians=300, iterations=52, views=12, held_out=3)
fit(stack, settings)
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(peak * 1024, predict_memory(voxels.size, voxels.nbytes, settings))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
def test_a_fit_takes_the_memory_that_was_predicted() -> None:
    done = subprocess.run([sys.executable, "-c", FIT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    taken, predicted = map(int, done.stdout.split()[-2:])
    off = predicted / taken - 1
    assert abs(off) < HONEST, f"{predicted / 1e6:.0f} MB predicted, {taken / 1e6:.0f} MB taken"


def test_a_large_stack_is_predicted_to_fit_into_two_gigabytes() -> None:
    voxels = 100 * 647 * 813
    predicted = predict_memory(voxels, 2 * voxels, FitSettings(exactly=True, gaussians=20_000))
    assert predicted < 2e9, f"{predicted / 1e9:.2f} GB"


@pytest.mark.parametrize(
    "more",
    [
        FitSettings(exactly=True, gaussians=100_000),
        FitSettings(exactly=True, gaussians=10, held_out=40),
    ],
)
def test_more_gaussians_and_views_take_more(more: FitSettings) -> None:
    least = predict_memory(10**6, 10**6, FitSettings(exactly=True, gaussians=10))
    assert predict_memory(10**6, 10**6, more) > least + 10**7
