"""A fit to write, of one channel and of three."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.stacks.facts import StackFacts

if TYPE_CHECKING:
    pass


@pytest.fixture
def saved() -> FitResult:
    """A fit of 40 Gaussians up to eight times as long as wide, of any orientation."""
    rng = np.random.default_rng(8)
    turns = np.linalg.qr(rng.normal(size=(40, 3, 3)))[0]
    variances = np.exp(rng.uniform(np.log(0.15), np.log(1.2), (40, 3))) ** 2
    field = GaussianField.from_covariances(
        rng.uniform(0, 4, (40, 3)),
        np.einsum("kij,kj,klj->kil", turns, variances, turns),
        rng.lognormal(5, 1, 40),
        background=99.25,
    )
    return FitResult((field,), StackFacts("dendrite µ", (14, 30, 28), (0.3, 0.13, 0.14)))


@pytest.fixture
def in_channels(saved: FitResult) -> FitResult:
    """The same Gaussians in three channels."""
    rng = np.random.default_rng(1)
    brightness = torch.from_numpy(rng.lognormal(4, 1, (2, len(saved.field))).astype(np.float32))
    others = tuple(
        replace(saved.field, amplitudes=amplitudes, background=level)
        for amplitudes, level in zip(brightness, (10.0, 20.0), strict=True)
    )
    return replace(saved, fields=(saved.field, *others))
