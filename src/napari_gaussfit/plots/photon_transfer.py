"""noise.png: the photon-transfer curve of a stack, from which its gain is read.

Drawn by matplotlib's objects alone: no window system, no global state.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.plots.figure import Picture, set_title
from napari_gaussfit.plots.projections import DPI

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.measure.photon_transfer import PhotonTransfer

__all__ = ["draw_photon_transfer"]

PAGE = 6.5, 4.5
LINE_POINTS = 200


def draw_photon_transfer(curve: PhotonTransfer, given: Noise | None = None) -> Figure:
    """Draw the variance of a stack's noise against its light, and the line through it.

    Parameters
    ----------
    curve : PhotonTransfer
        Variance against mean, as `measure.photon_transfer.photon_transfer` returns it.
    given : Noise, optional
        That of the detector, where it is known; drawn too.

    Returns
    -------
    Figure
        Its ``savefig`` writes it. The points are bins of brightness, each half an octave of voxels.
    """
    figure = Picture(figsize=PAGE, dpi=DPI)
    title = textwrap.fill(f"noise: {curve.words}", 80)
    top = 1 - (0.2 + 0.15 * len(title.splitlines())) / PAGE[1]
    axes = figure.subplots(gridspec_kw={"left": 0.14, "right": 0.97, "bottom": 0.12, "top": top})
    axes.set_xlabel("mean (raw intensity)")
    axes.set_ylabel("variance (raw intensity squared)")
    set_title(axes, title, fontsize=9)
    if not len(curve.levels):
        return figure
    axes.scatter(curve.levels, curve.variances, s=14, color="0.3", label="neighbouring voxels")
    ends = float(curve.levels.min()), float(curve.levels.max())
    light = np.linspace(*ends, LINE_POINTS)
    for noise, name, colour in ((curve.noise, "line through them", "C0"), (given, "given", "C1")):
        if noise is not None:
            axes.plot(light, noise.variance(light), color=colour, label=name)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    return figure
