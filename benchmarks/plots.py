"""Plots of what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def draw_growth(pairs: Sequence[float], seconds: Sequence[float], slope: float, path: Path) -> None:
    """Draw time against pairs on logarithmic axes, beside what is in proportion to them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.loglog(pairs, [1e3 * taken for taken in seconds], "o-", label=f"a step, {slope:.2f}")
    scale = 1e3 * seconds[-1] / pairs[-1]
    axes.loglog(pairs, [scale * n for n in pairs], "--", color="grey", label="exponent 1")
    axes.set_xlabel("pairs of Gaussian and voxel or pixel")
    axes.set_ylabel("ms")
    axes.legend(title="exponent", frameon=False)
    axes.grid(visible=True, which="major", alpha=0.3)
    figure.savefig(path, dpi=110, metadata={"Software": None})
