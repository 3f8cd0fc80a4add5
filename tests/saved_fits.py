"""A field whose Gaussians lean every way, and a saved fit of it, for tests of layers."""

from __future__ import annotations

import numpy as np

from napari_gaussfit._napari.layers.placement import Placement
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.result import SavedFit

SPACING = (0.3, 0.1, 0.2)
SHAPE = (20, 30, 25)
PLACEMENT = Placement.of_stack(SPACING, "micrometer")


def some_field(count: int, seed: int = 0) -> GaussianField:
    rng = np.random.default_rng(seed)
    upper = (np.array(SHAPE) - 1) * SPACING
    factors = np.tril(rng.normal(size=(count, 3, 3)) * 0.1) + 0.3 * np.eye(3)
    return GaussianField.from_covariances(
        rng.uniform(0, upper, (count, 3)),
        factors @ factors.transpose(0, 2, 1),
        rng.uniform(100, 1000, count),
        background=12.5,
    )


def some_fit(count: int = 40) -> SavedFit:
    return SavedFit(
        some_field(count),
        "stack",
        SHAPE,
        SPACING,
        "micrometer",
        settings={"quality": "fine"},
        report={"voxel_psnr": 50.0},
        state={"step": np.array(3)},
    )
