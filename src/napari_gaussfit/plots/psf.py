"""psf.png and psf.pdf: a point spread function on a page, from the beads that were measured.

Drawn by matplotlib's objects alone: no window system, no global state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA
from napari_gaussfit.plots.figure import Picture
from napari_gaussfit.plots.projections import DPI

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from napari_gaussfit.measure.beads import Beads
    from napari_gaussfit.measure.optics import Optics
    from napari_gaussfit.measure.psf import Psf

    Floats = NDArray[np.float64]

__all__ = ["draw_psf"]

AXES = ("z", "y", "x")
COLOURS = ("C0", "C1", "C2")
PAGE = (8.27, 11.69)
"""A4, in inches."""

SHOWN = 2.0
"""FWHM to either side of a bead that profiles show."""


def draw_psf(beads: Beads, optics: Optics | None = None) -> Figure:
    """Draw a page: table, histogram of widths, profiles along the axes, a bead from three sides.

    Parameters
    ----------
    beads : Beads
        With one that counts at least.
    optics : Optics, optional
        Of the microscope; what light allows then stands beside.

    Returns
    -------
    Figure
        Its ``savefig`` writes it, as a picture or as a PDF.
    """
    psf = beads.psf()
    figure = Picture(figsize=PAGE, dpi=DPI, layout="constrained")
    figure.suptitle(f"Point spread function: {psf.source}", fontsize=13)
    grid = figure.add_gridspec(4, 3, height_ratios=(1.0, 1.3, 1.3, 1.5))
    _write_table(figure.add_subplot(grid[0, :]), beads, psf, optics)
    _draw_widths(figure.add_subplot(grid[1, :]), beads, optics)
    for axis in range(3):
        _draw_profile(figure.add_subplot(grid[2, axis]), beads, psf, axis)
        _draw_side(figure.add_subplot(grid[3, axis]), beads, axis)
    return figure


def _write_table(axes: Axes, beads: Beads, psf: Psf, optics: Optics | None) -> None:
    axes.set_axis_off()
    light = ("",) * 3 if optics is None else tuple(f"{1000 * w:.0f}" for w in optics.fwhm)
    rows = [
        [f"FWHM along {name}", f"{1000 * width:.0f} ± {1000 * sd:.0f}", allowed]
        for name, width, sd, allowed in zip(AXES, psf.fwhm, psf.sd, light, strict=True)
    ]
    rows += [
        [f"principal axis {n}", f"{1000 * width:.0f} ± {1000 * sd:.0f}", ""]
        for n, (width, sd) in enumerate(zip(psf.principal_fwhm, psf.principal_sd, strict=True), 1)
    ]
    head = ["", f"{psf.beads} beads, mean ± sd (nm)", "what light allows (nm)"]
    drawn = axes.table([head, *rows], loc="center", cellLoc="left", edges="horizontal")
    drawn.auto_set_font_size(value=False)
    drawn.set_fontsize(9)
    refused = len(beads.refused) - psf.beads
    words = f"{refused} more were refused, see psf.csv" if refused else "none was refused"
    if optics is not None:
        hole = "wide field" if optics.pinhole is None else f"pinhole {optics.pinhole:g} Airy units"
        words += f"; NA {optics.na:g}, {optics.wavelength_nm:g} nm, index {optics.index:g}, {hole}"
    axes.set_title(words, fontsize=9)


def _draw_widths(axes: Axes, beads: Beads, optics: Optics | None) -> None:
    widths = 1000 * beads.fwhm[beads.good]
    bins = np.linspace(0.95 * widths.min(), 1.05 * widths.max(), 40)
    for n, (name, colour) in enumerate(zip(AXES, COLOURS, strict=True)):
        axes.hist(widths[:, n], bins=bins.tolist(), color=colour, alpha=0.6, label=name)
        if optics is not None:
            axes.axvline(1000 * optics.fwhm[n], color=colour, linestyle="--", linewidth=1)
    axes.set_xlabel("FWHM (nm)", fontsize=8)
    axes.set_ylabel("beads", fontsize=8)
    axes.tick_params(labelsize=8)
    dashes = "" if optics is None else "; dashed: what light allows"
    axes.legend(fontsize=8, title=f"along{dashes}", title_fontsize=8)


def _draw_profile(axes: Axes, beads: Beads, psf: Psf, axis: int) -> None:
    """Draw the voxels on a line through each bead, and the mean Gaussian."""
    stack, gaussians = beads.stack, beads.measurement.gaussians[0]
    spacing = np.asarray(stack.spacing)
    # Through the centre, the widths are those of a section, which is narrower than the shadow.
    precisions = np.linalg.inv(gaussians.covariances)
    sections = FWHM_PER_SIGMA / np.sqrt(precisions[:, axis, axis])
    most = SHOWN * psf.fwhm[axis]
    for k in np.flatnonzero(beads.good):
        at = np.clip(np.rint(gaussians.means[k] / spacing), 0, np.array(stack.shape) - 1)
        place: list[int | slice] = [int(n) for n in at]
        place[axis] = slice(None)
        line = stack.voxels[tuple(place)].astype(np.float64)
        offsets = np.arange(len(line)) * spacing[axis] - gaussians.means[k, axis]
        light = (line - beads.measurement.backgrounds[k, 0]) / gaussians.amplitudes[k]
        near = np.abs(offsets) < most
        axes.plot(1000 * offsets[near], light[near], ".", markersize=2, color="0.5")
    width = float(sections[beads.good].mean())
    dense = np.linspace(-most, most, 200)
    height = np.exp(-0.5 * np.square(dense * FWHM_PER_SIGMA / width))
    axes.plot(1000 * dense, height, color=COLOURS[axis], linewidth=1)
    axes.set_title(f"{'axial' if axis == 0 else 'lateral'} profile, {AXES[axis]}", fontsize=9)
    axes.set_xlabel("nm from the centre", fontsize=8)
    axes.tick_params(labelsize=7)


def _draw_side(axes: Axes, beads: Beads, axis: int) -> None:
    """Draw the MIP of the bead of median brightness along an axis, true to scale."""
    stack, gaussians = beads.stack, beads.measurement.gaussians[0]
    good = np.flatnonzero(beads.good)
    k = good[np.argsort(gaussians.amplitudes[good])[len(good) // 2]]
    spacing, last = np.asarray(stack.spacing), np.array(stack.shape) - 1
    half = 1.5 * beads.fwhm[k]
    first, end = (
        np.clip(np.rint((gaussians.means[k] + side * half) / spacing), 0, last).astype(int)
        for side in (-1, 1)
    )
    part = tuple(slice(a, b + 1) for a, b in zip(first, end, strict=True))
    image = stack.voxels[part].max(axis=axis)
    rows, columns = (n for n in range(3) if n != axis)
    height, width = (
        1000 * n * spacing[a] for n, a in zip(image.shape, (rows, columns), strict=True)
    )
    axes.imshow(image, cmap="magma", extent=(0, float(width), float(height), 0))
    axes.set_title(f"a bead, MIP along {AXES[axis]}", fontsize=9)
    axes.set_xlabel(f"{AXES[columns]} (nm)", fontsize=8)
    axes.set_ylabel(f"{AXES[rows]} (nm)", fontsize=8)
    axes.tick_params(labelsize=7)
