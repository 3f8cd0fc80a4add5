"""Pictures of what was found in a fit: neurites over its MIPs, labels over its MIPs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle

from napari_gaussfit.model.camera import AXIS_NAMES, axis_view
from napari_gaussfit.model.projection import render
from napari_gaussfit.plots.figure import Picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.objects.neurites import Trace
    from napari_gaussfit.stacks.facts import StackFacts

__all__ = ["draw_objects", "draw_trace", "first_labels"]

DPI, WIDTH = 140, 11.0
_COLOURS = "tab10"
_ACROSS = ((1, 2), (0, 2), (1, 0))
"""Which axes are the rows and the columns of the view along each, as in `axis_view`."""

_GAMMA = 0.5
"""Of the MIPs: what is faint is seen beside what is bright."""


def draw_trace(trace: Trace, result: FitResult) -> Figure:
    """Draw a trace over the MIPs of the fit along z, y and x; ``savefig`` writes it.

    Parameters
    ----------
    trace : Trace
        Colours are orders of branches; the width of a line is that of the neurite.
    result : FitResult
        The fit whose neurite was traced.

    Returns
    -------
    Figure
        Its ``savefig`` writes it.
    """
    figure = Picture(figsize=(WIDTH, WIDTH / 2), dpi=DPI, layout="constrained")
    nodes = np.flatnonzero(trace.parents >= 0)
    colours = colormaps[_COLOURS]
    orders = trace.branches.order[trace.branch] if len(trace) else np.empty(0, int)
    for panel, across in _over_mips(figure, result):
        ends = np.stack([trace.points[trace.parents[nodes]], trace.points[nodes]], axis=1)
        lines = ends[:, :, across[::-1]]
        panel.add_collection(
            LineCollection(list(lines), colors=colours(orders[nodes] % 10), linewidths=1.2)
        )
        for soma in np.flatnonzero(trace.kinds == 1):
            centre = trace.points[soma][across[::-1]]
            panel.add_patch(Circle(tuple(centre), trace.radii[soma], fill=False, color="white"))
    figure.suptitle(
        f"{result.stack.name}: {len(trace.branches)} branches, {int(trace.branches.spine.sum())} "
        "of them spines; colours are orders",
        fontsize=10,
    )
    return figure


def first_labels(labels: NDArray[np.int32], axis: int) -> NDArray[np.int32]:
    """Return the first label of each ray along an axis, which is left out.

    Parameters
    ----------
    labels : ndarray of int32, shape [Z, Y, X]
        0 where there is no object.
    axis : int
        0, 1 or 2, for z, y, x.

    Returns
    -------
    ndarray of int32
        An image along the other two axes; 0 where a ray meets none.
    """
    first = np.take_along_axis(labels, np.argmax(labels > 0, axis, keepdims=True), axis)
    return np.squeeze(first, axis)


def draw_objects(
    first_along: Callable[[int], NDArray[np.int32]], count: int, result: FitResult
) -> Figure:
    """Draw labels over the MIPs of the fit along z, y and x; ``savefig`` writes it.

    Parameters
    ----------
    first_along : callable
        Returns the first label of each ray along an axis, as `first_labels` does.
    count : int
        How many objects there are.
    result : FitResult
        The fit whose Gaussians were grouped into objects.

    Returns
    -------
    Figure
        Its ``savefig`` writes it.
    """
    figure = Picture(figsize=(WIDTH, WIDTH / 2), dpi=DPI, layout="constrained")
    for panel, across in _over_mips(figure, result):
        axis = 3 - sum(across)
        seen = first_along(axis)
        seen = seen.T if across[0] > across[1] else seen
        coloured = colormaps[_COLOURS]((seen * 7) % 10)
        coloured[..., 3] = np.where(seen > 0, 0.45, 0.0)
        panel.imshow(coloured, extent=_extent(result.stack, across), interpolation="nearest")
    figure.suptitle(f"{result.stack.name}: {count} objects", fontsize=10)
    return figure


def _over_mips(figure: Figure, result: FitResult) -> Iterator[tuple[Axes, list[int]]]:
    """Draw the MIP along each axis; yield its panel and which axes are its rows and columns."""
    sizes = np.array(result.stack.shape) * result.stack.spacing
    widths = [float(sizes[columns]) for _, columns in _ACROSS]
    panels = figure.subplots(1, 3, squeeze=False, width_ratios=widths)[0]
    for axis, panel in enumerate(panels):
        view = axis_view(result.stack.shape, result.stack.spacing, axis)
        image: Any = render(result.field, view, result.stack.box).numpy() - result.field.background
        panel.imshow(
            np.maximum(image, 0.0) ** _GAMMA,
            cmap="gray",
            extent=_extent(result.stack, _ACROSS[axis]),
        )
        panel.set_title(f"along {AXIS_NAMES[axis]}", fontsize=9, loc="left")
        panel.set_axis_off()
        yield panel, list(_ACROSS[axis])


def _extent(stack: StackFacts, across: Sequence[int]) -> tuple[float, float, float, float]:
    lower, upper = stack.box
    rows, columns = across
    return float(lower[columns]), float(upper[columns]), float(upper[rows]), float(lower[rows])
