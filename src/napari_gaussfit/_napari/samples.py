"""Sample data under File > Open Sample: phantoms made on the fly, with their ground truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_gaussfit._napari.layers.gaussians import points_layer
from napari_gaussfit._napari.layers.placement import Placement
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.jobs.renderer import sample

if TYPE_CHECKING:
    from napari_gaussfit._napari.layers.gaussians import LayerData

__all__ = ["open_beads", "open_neurite", "open_nuclei", "open_spots"]


def open_neurite() -> list[LayerData]:
    """Return a branching dendrite with spines."""
    return _layers("neurite")


def open_beads() -> list[LayerData]:
    """Return fluorescent beads of one size."""
    return _layers("beads")


def open_nuclei() -> list[LayerData]:
    """Return nuclei with chromatin texture."""
    return _layers("nuclei")


def open_spots() -> list[LayerData]:
    """Return spots of 100 photons, each by itself."""
    return _layers("spots")


def _layers(name: str) -> list[LayerData]:
    """Return the stack as an Image, and the Gaussians that it was made of as hidden Points."""
    stack, field = sample(name)
    placement = Placement.of_stack(stack.spacing, stack.unit)
    truth = FitResult((field,), stack.facts)
    points, keywords, kind = points_layer(truth, placement, name=f"{name} truth")
    image = {"name": name, **placement.keywords()}
    return [(stack.voxels, image, "image"), (points, {**keywords, "visible": False}, kind)]
