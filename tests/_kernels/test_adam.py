"""The optimiser's step is the reference's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from napari_gaussfit._kernels import reference
from napari_gaussfit._kernels.cpu import backend
from napari_gaussfit._kernels.shared import step

if TYPE_CHECKING:
    from scenes import Field


@pytest.mark.parametrize("channels", [1, 3])
def test_steps_agree_with_the_reference(overlapping: Field, channels: int) -> None:
    count, coordinates = len(overlapping.means), 9 + channels
    generator = torch.Generator().manual_seed(5)
    rates = torch.linspace(0.01, 0.1, coordinates)
    means, cholesky, amplitudes = (p.detach() for p in overlapping.leaves(torch.float64))
    brightness = amplitudes * torch.arange(1.0, channels + 1)[:, None]
    true = means.clone(), cholesky.clone(), brightness
    found = tuple(p.float() for p in true)
    shapes = ((count, coordinates), (count, coordinates), (count,))
    found_moments = tuple(torch.zeros(shape) for shape in shapes)
    true_moments = tuple(torch.zeros(shape, dtype=torch.float64) for shape in shapes)
    for _ in range(5):
        gradients = tuple(torch.randn(p.shape, generator=generator) for p in found)
        backend.adam_step(found, gradients, found_moments, rates)
        reference.adam_step(
            true,
            tuple(g.double() for g in gradients),
            true_moments,
            rates.double(),
            decays=(float(step.FIRST_DECAY), float(step.SECOND_DECAY)),
            longest_step=float(step.LONGEST_LOG_STEP),
        )
    for a, b in zip((*found, *found_moments), (*true, *true_moments), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)


def test_a_step_changes_the_tensors_memory_however_it_is_strided(overlapping: Field) -> None:
    count = len(overlapping.means)
    plain = tuple(p.detach() for p in overlapping.leaves(torch.float32))
    strided = tuple(torch.stack([p, -p], -1)[..., 0] for p in plain)
    assert not any(p.is_contiguous() for p in strided)
    gradients = tuple(torch.ones_like(p) for p in plain)
    before = [p.clone() for p in plain]
    for parameters in (plain, strided):
        moments = tuple(torch.zeros(shape) for shape in ((count, 10), (count, 10), (count,)))
        backend.adam_step(parameters, gradients, moments, torch.full((10,), 0.05))
    for known, one, other in zip(before, plain, strided, strict=True):
        assert not torch.equal(known, one)
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
