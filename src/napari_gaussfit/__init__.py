"""Fit anisotropic 3D Gaussians to fluorescence stacks and their projections.

Names are loaded on first use: importing this package imports neither torch nor napari.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_gaussfit.fitting.fit import Fit, FitResult, fit
    from napari_gaussfit.fitting.snapshot import FitState, Snapshot
    from napari_gaussfit.measure.measuring import measure
    from napari_gaussfit.model.camera import Camera
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.model.projection import project_stack, render
    from napari_gaussfit.settings import FitSettings
    from napari_gaussfit.stacks.stack import Stack

_HOMES = {
    "Camera": "model.camera",
    "Fit": "fitting.fit",
    "FitResult": "fitting.fit",
    "FitSettings": "settings",
    "FitState": "fitting.snapshot",
    "GaussianField": "model.field",
    "Snapshot": "fitting.snapshot",
    "Stack": "stacks.stack",
    "fit": "fitting.fit",
    "project_stack": "model.projection",
    "render": "model.projection",
}

__all__ = [
    "Camera",
    "Fit",
    "FitResult",
    "FitSettings",
    "FitState",
    "GaussianField",
    "Snapshot",
    "Stack",
    "fit",
    "measure",
    "project_stack",
    "render",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-gaussfit")
    if name == "measure":  # the package of that name, which can be called
        return importlib.import_module("napari_gaussfit.measure")
    if name in _HOMES:
        return getattr(importlib.import_module(f"napari_gaussfit.{_HOMES[name]}"), name)
    message = f"module 'napari_gaussfit' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    """Name what can be loaded."""
    return sorted([*__all__, "__version__"])
