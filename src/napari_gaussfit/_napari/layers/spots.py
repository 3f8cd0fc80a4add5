"""Candidates and spots as Points layers, and what a person does to them. Knows no viewer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._napari.layers.gaussians import points_layer
from napari_gaussfit._napari.layers.source import mark
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.model.field import GaussianField

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from napari_gaussfit._napari.layers.gaussians import LayerData
    from napari_gaussfit._napari.layers.source import Source
    from napari_gaussfit._napari.layers.times import Recording
    from napari_gaussfit.jobs.objects import FoundSpots, SpotCandidates

    Floats = NDArray[np.float64]

__all__ = [
    "AROUND",
    "RING",
    "SPOT",
    "Marks",
    "candidates_layer",
    "matching",
    "rings_coming",
    "rings_over_time",
    "spots_layer",
    "still_there",
]

NONE: Floats = np.zeros((0, 3))

AROUND = 2.0
"""FWHM that the ring around a spot is wide."""

RING: dict[str, Any] = {"face_color": "transparent", "border_width": 0.08, "opacity": 1.0}
"""How a ring is drawn."""

SAME = 1e-6
"""Voxels within which two places are one."""

INSTEAD = 2.0
"""Voxels from a place that was left out, within which what is added takes that back."""

CANDIDATE, ADDED, SPOT = "yellow", "cyan", "orange"
"""Colours of the rings: what may be a spot, what a person added, what was fitted."""


@dataclass(frozen=True, eq=False)
class Marks:
    """What a person says of spots, whatever the noise says.

    Parameters
    ----------
    added : ndarray, shape [P, 3]
        Voxels where there is one.
    excluded : ndarray, shape [E, 3]
        Voxels where there is none.
    """

    added: Floats
    excluded: Floats

    @classmethod
    def none(cls) -> Marks:
        """Return that nothing was said."""
        return cls(NONE, NONE)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.added) + len(self.excluded)

    def after(self, shown: Floats, now: Floats) -> Marks:
        """Return what is said once points that were shown [n, 3] are others [m, 3]."""
        new = now[~still_there(now, shown)]
        gone = shown[~still_there(shown, now)]
        added = self.added[~still_there(self.added, gone)]
        refused = gone[~still_there(gone, self.added)]
        excluded = self.excluded[matching(self.excluded, new, INSTEAD) < 0]
        return Marks(np.concatenate([added, new]), np.concatenate([excluded, refused]))


def matching(places: Floats, among: Floats, within: float = SAME) -> NDArray[np.int64]:
    """Return which of others [m, 3] each place [n, 3] is, -1 for none."""
    from scipy.spatial import cKDTree

    if not len(places) or not len(among):
        return np.full(len(places), -1)
    apart, which = cKDTree(among).query(places, p=np.inf)
    return np.where(apart < within, which, -1)


def still_there(places: Floats, among: Floats) -> NDArray[np.bool_]:
    """Tell which places [n, 3] are among others [m, 3]."""
    found: NDArray[np.bool_] = matching(places, among) >= 0
    return found


def candidates_layer(found: SpotCandidates, marks: Marks, source: Source) -> LayerData:
    """Return what may be spots as rings, twice as wide as they are, with what was added."""
    spacing = source.placement.spacing
    left = np.ones(len(found.places), np.bool_)
    for place in marks.excluded:
        apart = np.linalg.norm((found.places - place) * spacing, axis=1)
        left &= apart > found.widths
    places = np.concatenate([found.places[left], marks.added])
    usual = float(np.sqrt(found.least * found.largest))
    widths = np.concatenate([found.widths[left], np.full(len(marks.added), usual)])
    scores = np.concatenate([found.scores[left], np.full(len(marks.added), np.nan)])
    keywords: dict[str, Any] = {
        "features": {"score": scores},
        "border_color": [CANDIDATE] * int(left.sum()) + [ADDED] * len(marks.added),
        **_rings(widths, source),
    }
    mark(keywords, source)
    return places, keywords, "points"


def spots_layer(found: FoundSpots, source: Source) -> LayerData:
    """Return spots as rings, twice as wide as they are, with their table; they carry the fit."""
    [gaussians] = found.measurement.gaussians
    fit = FitResult(
        (GaussianField.from_numpy(gaussians),),
        source.stack.facts,
        measurement=found.measurement,
        notes=tuple(found.report["notes"]),
    )
    places, keywords, kind = points_layer(fit, source.placement, name="")
    columns = ["signal_to_noise", "neighbours"]
    keywords["features"] = keywords["features"].join(found.table[columns])
    for colour in ("face_color", "face_colormap", "face_contrast_limits"):
        keywords.pop(colour, None)
    keywords |= {"border_color": SPOT, **_rings(found.table["fwhm_2"].to_numpy(), source)}
    mark(keywords, source)
    return places, keywords, kind


def rings_over_time(table: pd.DataFrame, recording: Recording) -> LayerData:
    """Return the spots of several times as rings with the recording's axis of time.

    Parameters
    ----------
    table : DataFrame
        A row a spot, with its ``time``.
    recording : Recording
        The layer whose spots they are.
    """
    means, times = table[["z", "y", "x"]].to_numpy(float), table["time"].to_numpy()
    keywords: dict[str, Any] = {
        # Positions are the data; napari takes more columns of these names for axes.
        "features": table.drop(columns=["axis-0", "axis-1", "axis-2"]),
        "border_color": SPOT,
        **_rings(table["fwhm_2"].to_numpy(), recording.first),
        **recording.keywords(),
    }
    return recording.places(means, times), keywords, "points"


def rings_coming(seen: Floats, recording: Recording) -> LayerData:
    """Return spots of several times as rings alone, while others are still to come.

    Parameters
    ----------
    seen : ndarray, shape [K, 5]
        z, y, x, FWHM across the optical axis and time of each.
    recording : Recording
        The layer whose spots they are.
    """
    keywords = {
        "features": None,
        "border_color": SPOT,
        **_rings(seen[:, 3], recording.first),
        **recording.keywords(),
    }
    return recording.places(seen[:, :3], seen[:, 4].astype(np.int64)), keywords, "points"


def _rings(widths: Floats, source: Source) -> dict[str, Any]:
    """Return how rings look around things of these widths [n], and where they lie."""
    return {
        # A marker's size counts in pixels of the last axis.
        "size": AROUND * widths / source.placement.spacing[-1] if len(widths) else 10.0,
        **RING,
        # In a thick slice, which the user may choose, all that lie within it.
        "projection_mode": "all",
        **source.placement.keywords(),
    }
