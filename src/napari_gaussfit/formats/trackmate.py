"""Gaussians as spots of TrackMate: the XML that it opens, and the CSV that it exports.

Positions are x, y, z. TrackMate's spots are spheres: the radius is that of a blob detector's for a
Gaussian as large, sqrt(3) sigma, with sigma the geometric mean of the three. Each spot has the
features that TrackMate knows, and those of a Gaussian beside them, declared as it asks for
(``TmXmlReader`` and ``CSVExporter`` of TrackMate 7 and 8).
"""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_gaussfit.files import replacing

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from napari_gaussfit.formats.tracked import Tracked
    from napari_gaussfit.stacks.facts import StackFacts

    Floats = NDArray[np.float64]

__all__ = ["write_trackmate_csv", "write_trackmate_xml"]

VERSION = "7.14.0"
"""Of TrackMate, whose files these are as: one that it has not is taken for a file of version 1."""


@dataclass(frozen=True)
class Feature:
    """A feature of spots, as TrackMate declares it.

    Parameters
    ----------
    name, short : str
        What TrackMate calls it.
    dimension : str
        One of TrackMate's, which makes its unit.
    whole : bool
        Whether it is a whole number.
    """

    name: str
    short: str
    dimension: str
    whole: bool = False


FEATURES = {
    "QUALITY": Feature("Quality", "Quality", "QUALITY"),
    "POSITION_X": Feature("X", "X", "POSITION"),
    "POSITION_Y": Feature("Y", "Y", "POSITION"),
    "POSITION_Z": Feature("Z", "Z", "POSITION"),
    "POSITION_T": Feature("T", "T", "TIME"),
    "FRAME": Feature("Frame", "Frame", "NONE", whole=True),
    "RADIUS": Feature("Radius", "R", "LENGTH"),
    "VISIBILITY": Feature("Visibility", "Visibility", "NONE", whole=True),
    "AMPLITUDE": Feature("Amplitude", "Ampl.", "INTENSITY"),
    "INTEGRATED_INTENSITY": Feature("Integrated intensity", "Int. intensity", "NONE"),
    "FWHM_1": Feature("FWHM, longest", "FWHM 1", "LENGTH"),
    "FWHM_2": Feature("FWHM, second", "FWHM 2", "LENGTH"),
    "FWHM_3": Feature("FWHM, shortest", "FWHM 3", "LENGTH"),
}

_UNITS = {"QUALITY": "quality", "TIME": "frame", "INTENSITY": "counts", "NONE": ""}
"""As TrackMate writes them in tables; those of positions and lengths are the stack's."""


EDGE_FEATURES = {
    "SPOT_SOURCE_ID": Feature("Source spot ID", "Source ID", "NONE", whole=True),
    "SPOT_TARGET_ID": Feature("Target spot ID", "Target ID", "NONE", whole=True),
    "DISPLACEMENT": Feature("Displacement", "Disp.", "LENGTH"),
}

TRACK_FEATURES = {
    "TRACK_INDEX": Feature("Track index", "Index", "NONE", whole=True),
    "TRACK_ID": Feature("Track ID", "ID", "NONE", whole=True),
    "NUMBER_SPOTS": Feature("Number of spots in track", "N spots", "NONE", whole=True),
    "TRACK_START": Feature("Track start", "Start", "TIME"),
    "TRACK_STOP": Feature("Track stop", "Stop", "TIME"),
    "TRACK_DURATION": Feature("Duration of track", "Duration", "TIME"),
}


def write_trackmate_xml(path: str | os.PathLike[str], spots: Tracked, stack: StackFacts) -> None:
    """Write Gaussians as a file that TrackMate opens: spots, and their tracks where there are any.

    Parameters
    ----------
    path : path-like
        The file to write or to replace.
    spots : Tracked
        The Gaussians; their quality is what TrackMate filters by. A track of one spot is none.
    stack : StackFacts
        The stack that they are of.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    root = ET.Element("TrackMate", version=VERSION)
    model = ET.SubElement(root, "Model", spatialunits=_space_unit(stack), timeunits="frame")
    _declare(model)
    columns = _features(spots)
    every = ET.SubElement(model, "AllSpots", nspots=str(len(spots.times)))
    # A time without spots is there too.
    last = max(spots.times.max(initial=0), stack.time or 0)
    times = range(last + 1) if (spots.tracks >= 0).any() else [last]
    for time in times:
        frame = ET.SubElement(every, "SpotsInFrame", frame=str(time))
        for n in np.flatnonzero(spots.times == time):
            values = {key: _word(feature, columns[key][n]) for key, feature in FEATURES.items()}
            ET.SubElement(frame, "Spot", {"ID": str(n), "name": f"ID{n}"} | values)
    _add_tracks(model, spots)
    _add_settings(root, stack, last + 1)
    ET.SubElement(root, "GUIState", state="ConfigureViews")
    ET.indent(root)
    with replacing(path) as temporary:
        ET.ElementTree(root).write(temporary, encoding="UTF-8", xml_declaration=True)


def _declare(model: ET.Element) -> None:
    """Declare the features of spots, edges and tracks."""
    declared = ET.SubElement(model, "FeatureDeclarations")
    for kind, features in (
        ("SpotFeatures", FEATURES),
        ("EdgeFeatures", EDGE_FEATURES),
        ("TrackFeatures", TRACK_FEATURES),
    ):
        about = ET.SubElement(declared, kind)
        for key, feature in features.items():
            ET.SubElement(
                about, "Feature", feature=key, name=feature.name, shortname=feature.short,
                dimension=feature.dimension, isint=str(feature.whole).lower(),
            )  # fmt: skip


def _add_tracks(model: ET.Element, spots: Tracked) -> None:
    """Add each track with its edges, and say that none is filtered out."""
    every, shown = ET.SubElement(model, "AllTracks"), ET.SubElement(model, "FilteredTracks")
    edges = spots.edges
    moved = np.diff(spots.gaussians.means[edges].astype(np.float64), axis=1)[:, 0]
    lengths = np.linalg.norm(moved, axis=1)
    numbers, first = np.unique(spots.tracks[edges[:, 0]], return_index=True)
    runs = itertools.pairwise([*first, len(edges)]) if len(edges) else ()
    for index, (number, (begin, end)) in enumerate(zip(numbers, runs, strict=True)):
        start, stop = (float(spots.times[n]) for n in (edges[begin, 0], edges[end - 1, 1]))
        values = {
            "TRACK_INDEX": index,
            "TRACK_ID": number,
            "NUMBER_SPOTS": end - begin + 1,
            "TRACK_START": start,
            "TRACK_STOP": stop,
            "TRACK_DURATION": stop - start,
        }
        words = {key: _word(TRACK_FEATURES[key], value) for key, value in values.items()}
        track = ET.SubElement(every, "Track", {"name": f"Track_{number}"} | words)
        for (source, target), length in zip(edges[begin:end], lengths[begin:end], strict=True):
            ET.SubElement(
                track, "Edge", SPOT_SOURCE_ID=str(source), SPOT_TARGET_ID=str(target),
                DISPLACEMENT=repr(float(length)),
            )  # fmt: skip
        ET.SubElement(shown, "TrackID", TRACK_ID=str(number))


def write_trackmate_csv(path: str | os.PathLike[str], spots: Tracked, stack: StackFacts) -> None:
    """Write Gaussians as the table that TrackMate exports, with its four lines of header.

    Parameters
    ----------
    path : path-like
        The file to write or to replace.
    spots : Tracked
        The Gaussians; the track of each, where it is in one.
    stack : StackFacts
        The stack that they are of.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    columns = _features(spots)
    space = _space_unit(stack)
    units = [_UNITS.get(feature.dimension, space) for feature in FEATURES.values()]
    header = [
        ["LABEL", "ID", "TRACK_ID", *FEATURES],
        ["Label", "Spot ID", "Track ID", *(feature.name for feature in FEATURES.values())],
        ["Label", "Spot ID", "Track ID", *(feature.short for feature in FEATURES.values())],
        ["", "", "", *(f"({unit})" if unit else "" for unit in units)],
    ]
    tracks = [str(number) if number >= 0 else "" for number in spots.tracks]
    rows = [
        [
            f"ID{n}",
            str(n),
            tracks[n],
            *(_word(feature, columns[key][n]) for key, feature in FEATURES.items()),
        ]
        for n in range(len(tracks))
    ]
    with replacing(path) as temporary:
        pd.DataFrame(header + rows).to_csv(
            temporary, index=False, header=False, lineterminator="\n"
        )


def _features(spots: Tracked) -> dict[str, Floats]:
    """Return a column for each feature."""
    gaussians = spots.gaussians
    z, y, x = gaussians.means.astype(np.float64).T
    longest, second, shortest = gaussians.fwhm().T
    frames = spots.times.astype(np.float64)
    return {
        "QUALITY": spots.quality,
        "POSITION_X": x,
        "POSITION_Y": y,
        "POSITION_Z": z,
        "POSITION_T": frames,
        "FRAME": frames,
        "RADIUS": np.sqrt(3.0) * np.exp(gaussians.log_widths.mean(axis=1)),
        "VISIBILITY": np.ones(len(gaussians)),
        "AMPLITUDE": gaussians.amplitudes.astype(np.float64),
        "INTEGRATED_INTENSITY": gaussians.integrated_intensities(),
        "FWHM_1": longest,
        "FWHM_2": second,
        "FWHM_3": shortest,
    }


def _word(feature: Feature, value: float) -> str:
    return str(int(value)) if feature.whole else repr(float(value))


def _space_unit(stack: StackFacts) -> str:
    return "micron" if stack.unit == "micrometer" else "pixel"


def _add_settings(root: ET.Element, stack: StackFacts, frames: int) -> None:
    """Say which image the spots are of; TrackMate looks for it beside the file."""
    settings = ET.SubElement(root, "Settings")
    (depth, rows, columns), (dz, dy, dx) = stack.shape, stack.spacing
    ET.SubElement(
        settings, "ImageData", filename=stack.name, folder="", width=str(columns),
        height=str(rows), nslices=str(depth), nframes=str(frames),
        pixelwidth=repr(float(dx)), pixelheight=repr(float(dy)), voxeldepth=repr(float(dz)),
        timeinterval="1.0",
    )  # fmt: skip
    ET.SubElement(settings, "InitialSpotFilter", feature="QUALITY", value="0.0", isabove="true")
    for name in ("SpotFilterCollection", "TrackFilterCollection"):
        ET.SubElement(settings, name)
    analysers = ET.SubElement(settings, "AnalyzerCollection")
    for name in ("SpotAnalyzers", "EdgeAnalyzers", "TrackAnalyzers"):
        ET.SubElement(analysers, name)
