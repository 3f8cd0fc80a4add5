"""What projections.png compares: views of a stack, and of its fit.

Knows no matplotlib: another process may draw, which knows no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.measure.metrics import noise_leaves, psnr
from napari_gaussfit.model.camera import AXIS_NAMES
from napari_gaussfit.model.gaussians import counted
from napari_gaussfit.model.scaling import WorkingStack
from napari_gaussfit.settings import FitSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.measure.report import Report
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.model.views import View, Views
    from napari_gaussfit.stacks.stack import Stack

    Image = NDArray[np.float32]

__all__ = ["Comparison", "comparisons", "comparisons_in", "heading"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """One view of a stack and of its fit.

    Parameters
    ----------
    title : str
        Title of the pair of pictures: which view it shows.
    data, fit : ndarray, shape [H, W]
        MIPs in raw intensity; NaN where a ray misses the box.
    size : tuple of float
        Height and width in the stack's unit.
    psnr : float
        PSNR of the rendered picture against the stack's, in dB.
    """

    title: str
    data: Image
    fit: Image
    size: tuple[float, float]
    psnr: float


def comparisons(result: FitResult, original: Stack) -> list[Comparison]:
    """Return the three axis views and two of the views that were held out.

    Parameters
    ----------
    result : FitResult
        The fit; which views were held out follows from its settings.
    original : Stack
        The stack that was fitted; of several channels, the first.

    Returns
    -------
    list of Comparison
        In the order of the rows of ``projections.png``.
    """
    from napari_gaussfit.model.views import Views

    working, settings = WorkingStack.of(original), result.settings or FitSettings()
    views = Views(working.stack, settings.views, settings.held_out)
    return comparisons_in(views, working, result.field)


def comparisons_in(views: Views, working: WorkingStack, fitted: GaussianField) -> list[Comparison]:
    """Return what `comparisons` does, in views that are there: a fit has looked into most of them.

    Parameters
    ----------
    views : Views
        Of the stack in working units.
    working : WorkingStack
        The stack that was fitted; of several channels, the first.
    fitted : GaussianField
        What was fitted to it, in the original's unit and raw intensity.

    Returns
    -------
    list of Comparison
        In the order of the rows of ``projections.png``.
    """
    field = working.scaled(fitted)
    # The spline's maxima, as in every other view; the voxels' own lie beside the peaks.
    chosen = [
        (f"along {name}", camera) for name, camera in zip(AXIS_NAMES, views.along_axes, strict=True)
    ]
    held_out = views.held_out
    chosen += [
        (f"held out: {camera.name}", camera)
        for camera in dict.fromkeys([held_out[len(held_out) // 4], held_out[-1]])
    ]
    return [_compare(field, working, views.view(camera), title) for title, camera in chosen]


def _compare(field: GaussianField, working: WorkingStack, view: View, title: str) -> Comparison:
    from napari_gaussfit.model.projection import render

    stack, camera, hit = working.stack, view.camera, view.hit.numpy()
    data = view.target.numpy()
    fit = render(field, camera, stack.box).numpy()
    height, width = (
        n * step * working.length for n, step in zip(camera.shape, camera.pixel, strict=True)
    )
    shown = [np.where(hit, image * working.range + working.lowest, np.nan) for image in (data, fit)]
    found = psnr(data, fit, stack.value_range, hit)
    return Comparison(title, shown[0], shown[1], (height, width), found)


def heading(report: Report) -> str:
    """Return what stands above all projections.

    Parameters
    ----------
    report : Report
        How good the fit is.

    Returns
    -------
    str
        Two lines: whose projections they are, and how near they come.
    """
    return (
        f"{_shortened(report.stack)}: maximum intensity projections of "
        f"{counted(report.gaussians)}\nheld-out views {report.heldout_mip_psnr:.1f} dB"
        f"{noise_leaves(report.heldout_noise_psnr)}, "
        f"voxels {report.voxel_psnr:.1f} dB{noise_leaves(report.noise_psnr)}"
    )


def _shortened(name: str, most: int = 48) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
