"""projections.png: what the stack shows, what the fit shows, and what is left, view by view.

Drawn by matplotlib's objects alone: no window system, no global state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.offsetbox import AnchoredOffsetbox, AuxTransformBox, HPacker, TextArea
from matplotlib.patches import Rectangle

from napari_gaussfit.measure.metrics import noise_leaves, psnr
from napari_gaussfit.model.camera import AXIS_NAMES, axis_view
from napari_gaussfit.model.projection import render
from napari_gaussfit.model.scaling import WorkingStack
from napari_gaussfit.model.views import View, Views
from napari_gaussfit.plots.figure import Picture, set_title
from napari_gaussfit.settings import FitSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.stacks.stack import Stack

    Image = NDArray[np.float32]

__all__ = ["Comparison", "comparisons", "draw_projections", "scale_bar_length"]

COLUMN_INCHES = 3.1
"""Width of a picture."""

LEAST_INCHES, MOST_INCHES = 1.0, 3.4
"""Heights of a row: a thin stack stays visible from its side, a tall one keeps its columns."""

MARGIN_INCHES, GAP_INCHES = 0.1, 0.15
"""At the left, and between data and fit."""

BAR_INCHES = 0.82
"""Beside a picture: its bar of colours, with numbers and their name."""

TITLE_INCHES, BELOW_INCHES, HEAD_INCHES = 0.25, 0.2, 0.55
"""Above a row, below it (for the scale bar), and above all rows."""

DPI = 140
SCALE_BAR_PART = 0.3
"""Largest part of a picture's width that its scale bar takes."""

OUTSIDE = "0.85"
"""The grey of pixels whose rays miss the stack."""

UNIT_SYMBOLS = {"micrometer": "µm", "pixel": "px"}


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
    working, settings = WorkingStack.of(original), result.settings or FitSettings()
    stack, field = working.stack, working.scaled(result.field)
    views = Views(stack, settings.views, settings.held_out)
    chosen = [
        # The spline's maxima, as in every other view; the voxels' own lie beside the peaks.
        (f"along {name}", replace(axis_view(stack.shape, stack.spacing, axis), axis=None))
        for axis, name in enumerate(AXIS_NAMES)
    ]
    held_out = views.held_out
    chosen += [
        (f"held out: {camera.name}", camera)
        for camera in dict.fromkeys([held_out[len(held_out) // 4], held_out[-1]])
    ]
    return [_compare(field, working, views.view(camera), title) for title, camera in chosen]


def _compare(field: GaussianField, working: WorkingStack, view: View, title: str) -> Comparison:
    stack, camera, hit = working.stack, view.camera, view.hit.numpy()
    data = view.target.numpy()
    fit = render(field, camera, stack.box).numpy()
    height, width = (
        n * step * working.length for n, step in zip(camera.shape, camera.pixel, strict=True)
    )
    shown = [np.where(hit, image * working.range + working.lowest, np.nan) for image in (data, fit)]
    found = psnr(data, fit, stack.value_range, hit)
    return Comparison(title, shown[0], shown[1], (height, width), found)


def draw_projections(result: FitResult, original: Stack) -> Figure:
    """Draw data, fit and residual of `comparisons`, a row each; ``savefig`` writes it.

    Lengths are true to scale in both directions of every picture, whatever the spacing.

    Parameters
    ----------
    result : FitResult
        The fit; which views were held out follows from its settings.
    original : Stack
        The stack that was fitted; of several channels, the first.

    Returns
    -------
    Figure
        Its ``savefig`` writes it.
    """
    rows = comparisons(result, original)
    unit = UNIT_SYMBOLS[result.stack.unit]
    heights = [
        float(np.clip(COLUMN_INCHES * row.size[0] / row.size[1], LEAST_INCHES, MOST_INCHES))
        for row in rows
    ]
    figure, axes = _panels(heights)
    largest = max(float(np.nanmax(np.abs(row.data - row.fit))) for row in rows)
    for panels, row in zip(axes, rows, strict=True):
        _draw_row(figure, panels, row, unit, largest)
    report = result.report
    figure.suptitle(
        f"{_shortened(report.stack)}: maximum intensity projections of {report.gaussians:,} "
        f"Gaussians\nheld-out views {report.heldout_mip_psnr:.1f} dB"
        f"{noise_leaves(report.heldout_noise_psnr)}, "
        f"voxels {report.voxel_psnr:.1f} dB{noise_leaves(report.noise_psnr)}",
        fontsize=12, va="top", y=1 - MARGIN_INCHES / figure.get_figheight(),
    )  # fmt: skip
    return figure


def _panels(heights: list[float]) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure with three panels a row, of these heights in inches.

    Where everything stands is said, and not found by matplotlib, which draws all twice for it.
    """
    lefts = (
        MARGIN_INCHES,
        MARGIN_INCHES + COLUMN_INCHES + GAP_INCHES,
        MARGIN_INCHES + 2 * COLUMN_INCHES + GAP_INCHES + BAR_INCHES,
    )
    width = lefts[-1] + COLUMN_INCHES + BAR_INCHES
    height = HEAD_INCHES + sum(heights) + len(heights) * (TITLE_INCHES + BELOW_INCHES)
    figure = Picture(figsize=(width, height), dpi=DPI)
    axes, top = [], height - HEAD_INCHES
    for row in heights:
        bottom = top - TITLE_INCHES - row
        boxes = [(left, bottom, COLUMN_INCHES, row) for left in lefts]
        axes.append(
            [
                figure.add_axes((x / width, y / height, w / width, h / height))
                for x, y, w, h in boxes
            ]
        )
        top = bottom - BELOW_INCHES
    return figure, axes


def _draw_row(
    figure: Figure, panels: list[Axes], row: Comparison, unit: str, largest: float
) -> None:
    lowest, highest = float(np.nanmin(row.data)), float(np.nanmax(row.data))
    shown = (
        (row.data, f"data, {row.title}", "gray", lowest, highest),
        (row.fit, f"fit, {row.psnr:.1f} dB", "gray", lowest, highest),
        (row.data - row.fit, "residual, data − fit", "RdBu_r", -largest, largest),
    )
    drawn = [
        _draw_image(panel, image, row.size, colours, limits)
        for panel, (image, _, colours, *limits) in zip(panels, shown, strict=True)
    ]
    for panel, (_, title, *_) in zip(panels, shown, strict=True):
        set_title(panel, title, fontsize=9, loc="left")
    _draw_scale_bar(panels[0], row.size[1], unit)
    for image, beside in ((drawn[1], panels[1]), (drawn[2], panels[2])):
        # Inside the picture's own frame, so that all columns stay in line.
        bar = figure.colorbar(image, cax=beside.inset_axes((1.02, 0.0, 0.04, 1.0)))
        set_title(bar.ax, "")
        bar.ax.tick_params(labelsize=7)
        bar.set_label("intensity", fontsize=7)


def _draw_image(
    axes: Axes, image: Image, size: tuple[float, float], colours: str, limits: list[float]
) -> AxesImage:
    height, width = size
    axes.set_axis_off()
    axes.set_anchor("NW")
    drawn = axes.imshow(
        np.ma.masked_invalid(image),
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        extent=(0, width, height, 0),
        interpolation="nearest",
    )
    drawn.set_cmap(drawn.get_cmap().with_extremes(bad=OUTSIDE))
    return drawn


def scale_bar_length(width: float) -> float:
    """Return the largest of 1, 2, 5, 10, ... that takes no more than its part of a width.

    Parameters
    ----------
    width : float
        Of the picture, in any unit.

    Returns
    -------
    float
        In the same unit.
    """
    most = SCALE_BAR_PART * width
    decade = 10.0 ** np.floor(np.log10(most))
    return float(max(step for step in (1.0, 2.0, 5.0) if step * decade <= most) * decade)


def _draw_scale_bar(axes: Axes, width: float, unit: str) -> None:
    """Draw a bar of a round length below a picture, where it hides nothing."""
    length = scale_bar_length(width)
    line = AuxTransformBox(axes.transData)
    line.add_artist(Rectangle((0, 0), length, width / 120, facecolor="black"))
    label = TextArea(f"{length:g} {unit}", textprops={"fontsize": 8})
    bar = AnchoredOffsetbox(
        "upper left",
        child=HPacker(children=[line, label], align="center", pad=0, sep=4),
        pad=0,
        borderpad=0.3,
        frameon=False,
        bbox_to_anchor=(0.0, 0.0),
        bbox_transform=axes.transAxes,
    )
    axes.add_artist(bar)


def _shortened(name: str, most: int = 48) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
