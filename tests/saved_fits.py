"""A field whose Gaussians lean every way, and a saved fit of it, for tests of layers."""

from __future__ import annotations

from dataclasses import fields as parts

import numpy as np

from napari_gaussfit._napari.layers.placement import Placement
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.measure.report import Report
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.facts import StackFacts

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


def some_fit(count: int = 40) -> FitResult:
    return FitResult(
        (some_field(count),),
        StackFacts("stack", SHAPE, SPACING),
        FitSettings(quality="fine"),
        reports=(some_report(),),
        state={"step": np.array(3)},
    )


def some_report() -> Report:
    """A report in which every real number is another one."""
    kinds = {"int": 12, "str": "words", "tuple[int, int, int]": [20, 30, 25]}
    values = {
        part.name: kinds.get(str(part.type), 50.0 + n) for n, part in enumerate(parts(Report))
    }
    known = {
        "spacing": [0.3, 0.1, 0.2],
        "unit": "micrometer",
        "converged": True,
        "notes": ["a note"],
    }
    return Report.from_dict(values | known)
