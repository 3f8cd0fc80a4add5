"""An optimiser is a function and a line in a table, and any fit can be made with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_gaussfit.fitting.optimisers import OPTIMISERS
from napari_gaussfit.fitting.trainer import Trainer
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.synthetic.phantoms import beads

if TYPE_CHECKING:
    from torch import Tensor

    from napari_gaussfit.fitting.state import OptimiserState, Tensors


def descend(state: OptimiserState, gradients: Tensors, rates: Tensor) -> None:
    """Plain gradient descent: p <- p - 100 rate dp."""
    for parameter, gradient in zip(state.gaussians, gradients, strict=True):
        parameter.sub_(100 * rates[0] * gradient)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_fit_by_an_optimiser_of_ones_own_goes_down(
    monkeypatch: pytest.MonkeyPatch, channels: int
) -> None:
    stack = beads(count=5, shape=(16, 40, 40), photons=None).stack
    settings = FitSettings(
        exactly=True, gaussians=20, views=8, held_out=2, objective="voxels", device="cpu"
    )
    monkeypatch.setitem(OPTIMISERS, "descent", descend)
    trainer = Trainer([stack] * channels, settings, optimiser="descent")
    losses = [trainer.step(0.0).loss for _ in range(20)]
    assert (np.diff(losses) < 0).all(), f"each step goes down: {losses}"
    assert losses[-1] < 0.99 * losses[0], f"from {losses[0]:.3g} to {losses[-1]:.3g}"
    assert not trainer.steps.state.first.any(), "and Adam had no part in it"
