"""history.png and gaussians.png: how a fit went, and what its Gaussians are like.

Drawn by matplotlib's objects alone: no window system, no global state, no torch. Works on what a
fit left, also on one that was loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.ticker import LogFormatter

from napari_gaussfit.plots.figure import Picture, set_title
from napari_gaussfit.plots.projections import DPI, UNIT_SYMBOLS
from napari_gaussfit.plots.shown import Shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from mpl_toolkits.mplot3d import Axes3D

    from napari_gaussfit.model.field import GaussianField

__all__ = ["draw_gaussians", "draw_history", "draw_shown"]

PANELS: dict[str, tuple[str, dict[str, str]]] = {
    "PSNR (dB)": (
        "linear",
        {
            "voxel_psnr": "voxels",
            "train_psnr": "views trained on",
            "held_out_psnr": "views held out",
        },
    ),
    "loss": ("log", {"loss": "loss"}),
    "gradient norms": (
        "log",
        {
            "gradient_means": "centres",
            "gradient_cholesky": "covariances",
            "gradient_amplitudes": "amplitudes",
        },
    ),
    "centres": ("linear", {"mean_z": "z", "mean_y": "y", "mean_x": "x"}),
    "widths": ("linear", {"mean_width": "sigma"}),
    "amplitudes": ("linear", {"mean_amplitude": "amplitude"}),
}
"""What is drawn over the iterations: by title, its scale, and its lines with their names."""

MOST_POINTS = 20_000
"""Centres shown at most: more hide each other."""

BINS = 50
PAGE = 11.0, 6.0
PLACES = {
    "left": 0.06,
    "right": 0.985,
    "bottom": 0.08,
    "top": 0.95,
    "wspace": 0.28,
    "hspace": 0.36,
}
"""Where the panels stand on a page: said, and not found by matplotlib, which draws all twice for
it."""

COLOURS = "plasma"


def draw_history(history: Mapping[str, Sequence[float]], unit: str = "pixel") -> Figure:
    """Draw losses, PSNRs, gradient norms, and means with spreads of centres, widths, amplitudes.

    Parameters
    ----------
    history : mapping
        What a fit recorded: `FitResult.history`.
    unit : str
        Of lengths: "micrometer" or "pixel".

    Returns
    -------
    Figure
        Its ``savefig`` writes it.
    """
    figure = Picture(figsize=PAGE, dpi=DPI)
    grid = figure.subplots(2, 3, gridspec_kw=PLACES)
    for axes, (title, (scale, lines)) in zip(grid.flat, PANELS.items(), strict=True):
        for key, name in lines.items():
            _draw_line(axes, history, key, name)
        lengths = title in ("centres", "widths")
        set_title(axes, f"{title} ({UNIT_SYMBOLS[unit]})" if lengths else title, fontsize=10)
        axes.set_yscale(scale)
        if scale == "log":
            _label_plainly(axes.yaxis)
        axes.set_xlabel("iteration", fontsize=8)
        axes.tick_params(labelsize=8)
        if len(axes.get_lines()) > 1:
            axes.legend(fontsize=7)
        if title in ("widths", "amplitudes"):
            axes.set_ylim(bottom=0)  # a spread may be larger than the mean
    return figure


def _label_plainly(axis: Axis) -> None:
    """Write 0.2 and 8e-05 beside a logarithmic axis: powers of ten overlap, and take longer."""
    axis.set_major_formatter(LogFormatter())
    axis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    axis.set_tick_params(which="both", labelsize=8)


def _draw_line(axes: Axes, history: Mapping[str, Sequence[float]], key: str, name: str) -> None:
    """Draw what was recorded under a key, with a band of its spread where there is one."""
    values = np.asarray(history.get(key, ()), np.float64)
    if not len(values):
        return
    iterations = np.asarray(history["iteration"], np.float64)[-len(values) :]
    [line] = axes.plot(iterations, values, linewidth=1, label=name)
    spread = np.asarray(history.get(key.replace("mean_", "spread_"), ()), np.float64)
    if key.startswith("mean_") and len(spread) == len(values):
        axes.fill_between(
            iterations, values - spread, values + spread, color=line.get_color(), alpha=0.15
        )


def draw_gaussians(field: GaussianField) -> Figure:
    """Draw centres in 3D, coloured by amplitude, and histograms of amplitudes and sigmas.

    Parameters
    ----------
    field : GaussianField
        What to draw; of more than `MOST_POINTS` centres, evenly many.

    Returns
    -------
    Figure
        Its ``savefig`` writes it.
    """
    return draw_shown(Shown.of(field))


def draw_shown(shown: Shown) -> Figure:
    """Draw what `draw_gaussians` does, of Gaussians that are known as arrays.

    Parameters
    ----------
    shown : Shown
        What to draw; of more than `MOST_POINTS` centres, evenly many.

    Returns
    -------
    Figure
        Its ``savefig`` writes it.
    """
    amplitudes, sigmas, unit = shown.amplitudes, shown.sigmas, UNIT_SYMBOLS[shown.unit]
    figure = Picture(figsize=PAGE, dpi=DPI)
    grid = figure.add_gridspec(2, 1, **(PLACES | {"left": 0.68}))
    space: Axes3D = figure.add_axes((0.0, 0.03, 0.52, 0.9), projection="3d")
    _draw_centres(figure, space, shown, unit)
    above = figure.add_subplot(grid[0])
    above.hist(amplitudes, bins=BINS, color="0.35")
    set_title(above, "amplitudes (raw intensity)", fontsize=10)
    below = figure.add_subplot(grid[1])
    ends = (float(sigmas.min()), float(sigmas.max())) if sigmas.size else (0.1, 1.0)
    bins = np.geomspace(ends[0] / 1.01, ends[1] * 1.01, BINS + 1)
    for n, name in enumerate(("longest axis", "middle axis", "shortest axis")):
        below.hist(sigmas[:, n], bins=bins.tolist(), histtype="step", label=name)
    below.set_xscale("log")
    _label_plainly(below.xaxis)
    set_title(below, f"sigmas ({unit})", fontsize=10)
    below.legend(fontsize=7)
    for axes in (above, below):
        axes.tick_params(labelsize=8)
        axes.set_ylabel("Gaussians", fontsize=8)
    return figure


def _draw_centres(figure: Figure, space: Axes3D, shown: Shown, unit: str) -> None:
    count = len(shown.means)
    step = max(1, -(-count // MOST_POINTS))
    z, y, x = shown.means[::step].T
    amplitudes = shown.amplitudes[::step]
    # A few bright ones would leave the others one colour.
    ends = np.percentile(amplitudes, (1, 99)) if len(amplitudes) else (0.0, 1.0)
    points = space.scatter(
        x, y, z, c=amplitudes, s=4, cmap=COLOURS, norm=Normalize(*ends), depthshade=False
    )
    set_title(space, f"{count:,} centres by amplitude", fontsize=10)
    for set_label, axis in zip(
        (space.set_xlabel, space.set_ylabel, space.set_zlabel), "xyz", strict=True
    ):
        set_label(f"{axis} ({unit})", fontsize=8)
    space.tick_params(labelsize=7)
    if count:
        space.set_box_aspect([max(float(np.ptp(one)), 1e-9) for one in (x, y, z)])
    space.invert_yaxis()  # y points down in images
    beside = figure.add_axes((0.55, 0.25, 0.013, 0.5))
    set_title(beside, "")
    figure.colorbar(points, cax=beside, label="amplitude")
