"""Pictures as messages: what each is of, in words and arrays, and the bytes of what is drawn of it.

A process that draws loads matplotlib and no torch; whoever has something drawn need not load
matplotlib.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.jobs.messages import Message
from napari_gaussfit.plots.shown import Shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.figure import Figure

    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.measure.photon_transfer import PhotonTransfer
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.model.gaussians import Gaussians
    from napari_gaussfit.plots.comparisons import Comparison
    from napari_gaussfit.stacks.stack import Stack

__all__ = [
    "drawn",
    "gaussians_drawing",
    "history_drawing",
    "noise_drawing",
    "projections_drawing",
    "sketched",
    "spots_drawing",
    "titled",
]


def history_drawing(history: Mapping[str, Sequence[float]], unit: str) -> Message:
    """Return what `draw_history` draws."""
    arrays = {key: np.asarray(values, np.float64) for key, values in history.items()}
    return Message("history", {"unit": unit}, arrays)


def gaussians_drawing(field: GaussianField) -> Message:
    """Return what `draw_gaussians` draws."""
    shown = vars(Shown.of(field)).copy()
    return Message("gaussians", {"unit": shown.pop("unit")}, shown)


def noise_drawing(curve: PhotonTransfer, given: Noise | None) -> Message:
    """Return what `draw_photon_transfer` draws."""
    line, known = (None if one is None else asdict(one) for one in (curve.line, given))
    words = {"line": line, "given": known, "why_not": curve.why_not}
    arrays = {"levels": curve.levels, "variances": curve.variances, "counts": curve.counts}
    return Message("noise", words, arrays)


def projections_drawing(rows: Sequence[Comparison], unit: str) -> Message:
    """Return what `draw_rows` draws, to be `titled`."""
    arrays = {f"data_{n}": row.data for n, row in enumerate(rows)}
    arrays |= {f"fit_{n}": row.fit for n, row in enumerate(rows)}
    words = [{"title": row.title, "size": row.size, "psnr": float(row.psnr)} for row in rows]
    return Message("projections", {"rows": words, "unit": unit}, arrays)


def titled(drawing: Message, title: str) -> Message:
    """Return a drawing with the words above it."""
    return replace(drawing, words=drawing.words | {"title": title})


def spots_drawing(stack: Stack, spots: Gaussians) -> Message:
    """Return what `draw_spots` draws."""
    words = {"pixel": stack.spacing[1:], "unit": stack.unit}
    return Message("spots", words, {"projection": stack.voxels.max(0), "means": spots.means})


def drawn(drawing: Message) -> bytes:
    """Draw what a message tells, and return the bytes of a PNG file."""
    from napari_gaussfit.plots.saving import png

    return png(_DRAWN[drawing.kind](drawing))


def sketched(drawing: Message) -> Callable[[str], bytes]:
    """Draw what `projections_drawing` told, and return what makes a PNG file of it and its title.

    What a fit looks like is known before how good it is.
    """
    from napari_gaussfit.plots.figure import Sketch
    from napari_gaussfit.plots.projections import write_heading

    figure = _rows(drawing)
    sketch = Sketch(figure)
    return lambda title: sketch.png_with(write_heading(figure, title))


def _history(drawing: Message) -> Figure:
    from napari_gaussfit.plots.history import draw_history

    history = {key: values.tolist() for key, values in drawing.arrays.items()}
    return draw_history(history, drawing.words["unit"])


def _gaussians(drawing: Message) -> Figure:
    from napari_gaussfit.plots.history import draw_shown

    known = drawing.arrays
    sizes = known["amplitudes"], known["sigmas"]
    return draw_shown(Shown(known["means"], *sizes, drawing.words["unit"]))


def _noise(drawing: Message) -> Figure:
    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.measure.photon_transfer import PhotonTransfer
    from napari_gaussfit.plots.photon_transfer import draw_photon_transfer

    line, given = (
        None if told is None else Noise(**told)
        for told in (drawing.words["line"], drawing.words["given"])
    )
    curve = PhotonTransfer(**drawing.arrays, line=line, why_not=drawing.words["why_not"])
    return draw_photon_transfer(curve, given)


def _projections(drawing: Message) -> Figure:
    from napari_gaussfit.plots.projections import write_heading

    figure = _rows(drawing)
    write_heading(figure, drawing.words["title"])
    return figure


def _rows(drawing: Message) -> Figure:
    from napari_gaussfit.plots.comparisons import Comparison
    from napari_gaussfit.plots.projections import draw_rows

    images = drawing.arrays
    rows = [
        Comparison(
            row["title"], images[f"data_{n}"], images[f"fit_{n}"], tuple(row["size"]), row["psnr"]
        )
        for n, row in enumerate(drawing.words["rows"])
    ]
    return draw_rows(rows, drawing.words["unit"])


def _spots(drawing: Message) -> Figure:
    from napari_gaussfit.plots.spots import draw_marks

    told = drawing.words
    return draw_marks(
        drawing.arrays["projection"], drawing.arrays["means"], told["pixel"], told["unit"]
    )


_DRAWN = {
    "history": _history,
    "gaussians": _gaussians,
    "noise": _noise,
    "projections": _projections,
    "spots": _spots,
}
