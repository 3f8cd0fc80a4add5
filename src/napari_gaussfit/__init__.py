"""Fit anisotropic 3D Gaussians to fluorescence stacks and their projections.

Names are loaded on first use: importing this package imports neither torch nor napari.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_gaussfit.fitting import losses, relocation
    from napari_gaussfit.fitting.fit import Fit, fit
    from napari_gaussfit.fitting.fit_tiles import fit_tiles
    from napari_gaussfit.fitting.outlook import outlook
    from napari_gaussfit.fitting.result import FitResult, load
    from napari_gaussfit.fitting.snapshot import FitState, Snapshot
    from napari_gaussfit.measure import noise
    from napari_gaussfit.measure.beads import measure_beads
    from napari_gaussfit.measure.constraints import Constraints
    from napari_gaussfit.measure.measuring import measure
    from napari_gaussfit.measure.metrics import psnr, ssim
    from napari_gaussfit.measure.optics import Optics
    from napari_gaussfit.measure.photon_transfer import photon_transfer
    from napari_gaussfit.measure.psf import Psf
    from napari_gaussfit.model import views
    from napari_gaussfit.model.camera import Camera, axis_view, look_at, orbit, orbit_view
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.model.projection import StackProjector, project_stack, render
    from napari_gaussfit.objects import grouping, labels, neurites
    from napari_gaussfit.objects.candidates import candidates
    from napari_gaussfit.objects.sequence import fit_sequence, spot_sequence
    from napari_gaussfit.objects.spot_tiles import fit_spot_tiles
    from napari_gaussfit.objects.spots import SpotSettings, fit_spots, spots_table
    from napari_gaussfit.plots.history import draw_gaussians, draw_history
    from napari_gaussfit.plots.images import draw_curves, draw_images
    from napari_gaussfit.plots.photon_transfer import draw_photon_transfer
    from napari_gaussfit.plots.projections import draw_projections
    from napari_gaussfit.plots.psf import draw_psf
    from napari_gaussfit.plots.spots import draw_spots
    from napari_gaussfit.plots.tracks import draw_tracks
    from napari_gaussfit.settings import FitSettings
    from napari_gaussfit.stacks.facts import StackFacts
    from napari_gaussfit.stacks.lazy import LazyStack
    from napari_gaussfit.stacks.stack import Stack
    from napari_gaussfit.stacks.time_series import TimeSeries
    from napari_gaussfit.synthetic import density, phantoms, recovery, splatting2d

_HOMES = {
    "Camera": "model.camera",
    "Constraints": "measure.constraints",
    "Fit": "fitting.fit",
    "FitResult": "fitting.result",
    "FitSettings": "settings",
    "FitState": "fitting.snapshot",
    "GaussianField": "model.field",
    "LazyStack": "stacks.lazy",
    "Optics": "measure.optics",
    "Psf": "measure.psf",
    "Snapshot": "fitting.snapshot",
    "SpotSettings": "objects.spot_settings",
    "Stack": "stacks.stack",
    "StackFacts": "stacks.facts",
    "StackProjector": "model.projection",
    "TimeSeries": "stacks.time_series",
    "axis_view": "model.camera",
    "candidates": "objects.candidates",
    "draw_curves": "plots.images",
    "draw_gaussians": "plots.history",
    "draw_history": "plots.history",
    "draw_images": "plots.images",
    "draw_photon_transfer": "plots.photon_transfer",
    "draw_projections": "plots.projections",
    "draw_psf": "plots.psf",
    "draw_spots": "plots.spots",
    "draw_tracks": "plots.tracks",
    "fit": "fitting.fit",
    "fit_sequence": "objects.sequence",
    "fit_spot_tiles": "objects.spot_tiles",
    "fit_spots": "objects.spots",
    "fit_tiles": "fitting.fit_tiles",
    "load": "fitting.result",
    "look_at": "model.camera",
    "measure_beads": "measure.beads",
    "orbit": "model.camera",
    "orbit_view": "model.camera",
    "outlook": "fitting.outlook",
    "photon_transfer": "measure.photon_transfer",
    "project_stack": "model.projection",
    "psnr": "measure.metrics",
    "render": "model.projection",
    "spot_sequence": "objects.sequence",
    "spots_table": "objects.spots",
    "ssim": "measure.metrics",
}

_MODULES = {
    "density": "synthetic.density",
    "grouping": "objects.grouping",
    "labels": "objects.labels",
    "losses": "fitting.losses",
    "neurites": "objects.neurites",
    "noise": "measure.noise",
    "phantoms": "synthetic.phantoms",
    "recovery": "synthetic.recovery",
    "relocation": "fitting.relocation",
    "splatting2d": "synthetic.splatting2d",
    "views": "model.views",
}
"""Modules that are offered whole: stacks with a known truth, what is found in a fit, and what the
tutorial looks into."""

__all__ = [
    "Camera",
    "Constraints",
    "Fit",
    "FitResult",
    "FitSettings",
    "FitState",
    "GaussianField",
    "LazyStack",
    "Optics",
    "Psf",
    "Snapshot",
    "SpotSettings",
    "Stack",
    "StackFacts",
    "StackProjector",
    "TimeSeries",
    "axis_view",
    "candidates",
    "density",
    "draw_curves",
    "draw_gaussians",
    "draw_history",
    "draw_images",
    "draw_photon_transfer",
    "draw_projections",
    "draw_psf",
    "draw_spots",
    "draw_tracks",
    "fit",
    "fit_sequence",
    "fit_spot_tiles",
    "fit_spots",
    "fit_tiles",
    "grouping",
    "labels",
    "load",
    "look_at",
    "losses",
    "measure",
    "measure_beads",
    "neurites",
    "noise",
    "orbit",
    "orbit_view",
    "outlook",
    "phantoms",
    "photon_transfer",
    "project_stack",
    "psnr",
    "recovery",
    "relocation",
    "render",
    "splatting2d",
    "spot_sequence",
    "spots_table",
    "ssim",
    "views",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name == "__version__":
        from importlib.metadata import version

        return version("napari-gaussfit")
    if name == "measure":  # the package of that name, which can be called
        return importlib.import_module("napari_gaussfit.measure")
    if name in _MODULES:
        return importlib.import_module(f"napari_gaussfit.{_MODULES[name]}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"napari_gaussfit.{_HOMES[name]}"), name)
    message = f"module 'napari_gaussfit' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    """Name what can be loaded."""
    return sorted([*__all__, "__version__"])
