"""How two fits stand beside each other: in words, and in the viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit._napari.layers.opened import placement_of
from napari_gaussfit._napari.layers.placement import METADATA, OF
from napari_gaussfit._napari.layers.put import put_layer
from napari_gaussfit.jobs.verdict import held_out_words
from napari_gaussfit.measure.metrics import noise_leaves

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_gaussfit._napari.panel.kept import Result
    from napari_gaussfit.fitting.result import FitResult

__all__ = ["comparison_of", "put_beside", "side_by_side"]

BESIDE = "#5fd3f9"
"""The colour of centres that are put beside others."""


def comparison_of(first: Result, second: Result) -> str:
    """Return how two results differ, as a table in HTML."""
    rows = "".join(
        f"<tr><td>{what}&nbsp;&nbsp;</td><td>{one}&nbsp;&nbsp;</td><td>{other}</td></tr>"
        for what, one, other in side_by_side(first, second)
    )
    names = f"<th></th><th align=left>{first.name}</th><th align=left>{second.name}</th>"
    return f"<table><tr>{names}</tr>{rows}</table>"


def put_beside(viewer: Viewer, result: Result) -> None:
    """Put the centres of a result beside those that are shown, where they are seen."""
    from napari_gaussfit._napari.layers.gaussians import points_layer

    name, place = f"{result.name} beside", placement_of(result.fit.stack)
    if result.source is not None:
        place = result.source.placement
    data, keywords, _ = points_layer(result.fit, place, name=name)
    look = {"face_color": "transparent", "border_color": BESIDE, "border_width": 0.2}
    metadata = {METADATA: {OF: {"beside": result.key}}}
    made = {"name": name, "size": keywords["size"], "metadata": metadata, **look}
    layer = put_layer(viewer, (data, made | place.keywords(), "points"), "beside")
    if layer is not None:
        # The one that is there may be from before the stack had its spacing.
        for key, value in place.keywords().items():
            setattr(layer, key, value)
        layer.visible = True


def side_by_side(first: Result, second: Result) -> list[tuple[str, str, str]]:
    """Return what there is to say of two results, a row each: what, of the first, of the second."""
    rows = {
        "quality": lambda one: one.quality,
        "Gaussians": lambda one: f"{len(one.fit.field):,}",
        "held-out projections": lambda one: held_out_words(one.fit) or "–",
        "voxels": _voxels,
        "background": lambda one: f"{one.fit.field.background:.4g}",
        "total intensity": _total,
        "steps, time": _effort,
    }
    found = [(what, words(first), words(second)) for what, words in rows.items()]
    alone = [_without_partner(one.fit, other.fit) for one, other in _both_ways(first, second)]
    return [*found, ("centres without one beside", *(f"{count:,}" for count in alone))]  # type: ignore[list-item]


def _both_ways(first: Result, second: Result) -> tuple[tuple[Result, Result], ...]:
    return (first, second), (second, first)


def _voxels(one: Result) -> str:
    if not one.fit.reports:
        return "–"
    report = one.fit.report
    return f"{report.voxel_psnr:.1f} dB{noise_leaves(report.noise_psnr)}"


def _total(one: Result) -> str:
    return f"{one.fit.field.numpy().integrated_intensities().sum():.4g}"


def _effort(one: Result) -> str:
    if not one.fit.reports:
        return "–"
    report = one.fit.report
    return f"{report.iterations:,}, {report.seconds:.1f} s on {report.device}"


def _without_partner(fit: FitResult, other: FitResult) -> int:
    """Return how many Gaussians have no centre of another fit within a standard deviation."""
    from scipy.spatial import cKDTree

    mine, theirs = fit.field.numpy(), other.field.numpy()
    if not len(theirs):
        return len(mine)
    near = cKDTree(theirs.means).query(mine.means)[0]
    return int((near > np.exp(mine.log_widths.mean(axis=1))).sum())
