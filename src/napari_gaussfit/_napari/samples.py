"""Sample data under File > Open Sample: phantoms made on the fly, with their ground truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_gaussfit import phantoms
from napari_gaussfit._napari.layers import points_layer
from napari_gaussfit._napari.placement import Placement
from napari_gaussfit.io.native import SavedFit

if TYPE_CHECKING:
    from napari_gaussfit._napari.layers import LayerData
    from napari_gaussfit.phantoms import Phantom

__all__ = ["open_beads", "open_neurite", "open_nuclei"]


def open_neurite() -> list[LayerData]:
    """Return a branching dendrite with spines."""
    return _layers(phantoms.neurite())


def open_beads() -> list[LayerData]:
    """Return fluorescent beads of one size."""
    return _layers(phantoms.beads())


def open_nuclei() -> list[LayerData]:
    """Return nuclei with chromatin texture."""
    return _layers(phantoms.nuclei())


def _layers(phantom: Phantom) -> list[LayerData]:
    """Return the stack as an Image, and the Gaussians that it was made of as hidden Points."""
    stack = phantom.stack
    placement = Placement.of_stack(stack.spacing, stack.unit)
    truth = SavedFit(phantom.truth, stack.name, stack.shape, stack.spacing, stack.unit)
    points, keywords, kind = points_layer(truth, placement, name=f"{phantom.name} truth")
    image = {"name": phantom.name, **placement.keywords()}
    return [(stack.voxels, image, "image"), (points, {**keywords, "visible": False}, kind)]
