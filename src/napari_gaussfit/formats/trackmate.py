"""Gaussians as spots of TrackMate: the XML that it opens, and the CSV that it exports.

Positions are x, y, z. TrackMate's spots are spheres: the radius is that of a blob detector's for a
Gaussian as large, sqrt(3) sigma, with sigma the geometric mean of the three. Each spot has the
features that TrackMate knows, and those of a Gaussian beside them, declared as it asks for
(``TmXmlReader`` and ``CSVExporter`` of TrackMate 7 and 8).
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_gaussfit.files import replacing

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.model.field import GaussianField
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


def write_trackmate_xml(
    path: str | os.PathLike[str],
    fields: Sequence[GaussianField],
    stack: StackFacts,
    *,
    quality: Floats | None = None,
) -> None:
    """Write Gaussians as a file that TrackMate opens: spots, without tracks.

    Parameters
    ----------
    path : path-like
        The file to write or to replace.
    fields : sequence of GaussianField
        The Gaussians; of several channels, the first's brightness counts.
    stack : StackFacts
        The stack that they are of, and the frame.
    quality : ndarray, shape [K], optional
        What TrackMate filters by; the amplitudes if None.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    root = ET.Element("TrackMate", version=VERSION)
    space = _space_unit(stack)
    model = ET.SubElement(root, "Model", spatialunits=space, timeunits="frame")
    declared = ET.SubElement(model, "FeatureDeclarations")
    about = ET.SubElement(declared, "SpotFeatures")
    for key, feature in FEATURES.items():
        ET.SubElement(
            about, "Feature", feature=key, name=feature.name, shortname=feature.short,
            dimension=feature.dimension, isint=str(feature.whole).lower(),
        )  # fmt: skip
    for kind in ("EdgeFeatures", "TrackFeatures"):
        ET.SubElement(declared, kind)
    columns = _features(fields, stack, quality)
    count = len(columns["QUALITY"])
    spots = ET.SubElement(model, "AllSpots", nspots=str(count))
    frame = ET.SubElement(spots, "SpotsInFrame", frame=str(stack.time or 0))
    for n in range(count):
        values = {key: _word(key, columns[key][n]) for key in FEATURES}
        ET.SubElement(frame, "Spot", {"ID": str(n), "name": f"ID{n}"} | values)
    ET.SubElement(model, "AllTracks")
    ET.SubElement(model, "FilteredTracks")
    _add_settings(root, stack)
    ET.SubElement(root, "GUIState", state="ConfigureViews")
    ET.indent(root)
    with replacing(path) as temporary:
        ET.ElementTree(root).write(temporary, encoding="UTF-8", xml_declaration=True)


def write_trackmate_csv(
    path: str | os.PathLike[str],
    fields: Sequence[GaussianField],
    stack: StackFacts,
    *,
    quality: Floats | None = None,
) -> None:
    """Write Gaussians as the table that TrackMate exports, with its four lines of header.

    Parameters
    ----------
    path : path-like
        The file to write or to replace.
    fields : sequence of GaussianField
        The Gaussians; of several channels, the first's brightness counts.
    stack : StackFacts
        The stack that they are of, and the frame.
    quality : ndarray, shape [K], optional
        The amplitudes if None.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    columns = _features(fields, stack, quality)
    space = _space_unit(stack)
    units = [_UNITS.get(feature.dimension, space) for feature in FEATURES.values()]
    header = [
        ["LABEL", "ID", "TRACK_ID", *FEATURES],
        ["Label", "Spot ID", "Track ID", *(feature.name for feature in FEATURES.values())],
        ["Label", "Spot ID", "Track ID", *(feature.short for feature in FEATURES.values())],
        ["", "", "", *(f"({unit})" if unit else "" for unit in units)],
    ]
    rows = [
        [f"ID{n}", str(n), "", *(_word(key, columns[key][n]) for key in FEATURES)]
        for n in range(len(columns["QUALITY"]))
    ]
    with replacing(path) as temporary:
        pd.DataFrame(header + rows).to_csv(
            temporary, index=False, header=False, lineterminator="\n"
        )


def _features(
    fields: Sequence[GaussianField], stack: StackFacts, quality: Floats | None
) -> dict[str, Floats]:
    """Return a column for each feature."""
    gaussians = fields[0].numpy()
    amplitudes = gaussians.amplitudes.astype(np.float64)
    z, y, x = gaussians.means.astype(np.float64).T
    radii = np.sqrt(3.0) * np.exp(gaussians.log_widths.mean(axis=1))
    frame = np.full(len(gaussians), float(stack.time or 0))
    longest, second, shortest = gaussians.fwhm().T
    return {
        "QUALITY": amplitudes if quality is None else np.asarray(quality, np.float64),
        "POSITION_X": x,
        "POSITION_Y": y,
        "POSITION_Z": z,
        "POSITION_T": frame,
        "FRAME": frame,
        "RADIUS": radii,
        "VISIBILITY": np.ones(len(gaussians)),
        "AMPLITUDE": amplitudes,
        "INTEGRATED_INTENSITY": gaussians.integrated_intensities(),
        "FWHM_1": longest,
        "FWHM_2": second,
        "FWHM_3": shortest,
    }


def _word(key: str, value: float) -> str:
    return str(int(value)) if FEATURES[key].whole else repr(float(value))


def _space_unit(stack: StackFacts) -> str:
    return "micron" if stack.unit == "micrometer" else "pixel"


def _add_settings(root: ET.Element, stack: StackFacts) -> None:
    """Say which image the spots are of; TrackMate looks for it beside the file."""
    settings = ET.SubElement(root, "Settings")
    (depth, rows, columns), (dz, dy, dx) = stack.shape, stack.spacing
    ET.SubElement(
        settings, "ImageData", filename=stack.name, folder="", width=str(columns),
        height=str(rows), nslices=str(depth), nframes=str((stack.time or 0) + 1),
        pixelwidth=repr(float(dx)), pixelheight=repr(float(dy)), voxeldepth=repr(float(dz)),
        timeinterval="1.0",
    )  # fmt: skip
    ET.SubElement(settings, "InitialSpotFilter", feature="QUALITY", value="0.0", isabove="true")
    for name in ("SpotFilterCollection", "TrackFilterCollection"):
        ET.SubElement(settings, name)
    analysers = ET.SubElement(settings, "AnalyzerCollection")
    for name in ("SpotAnalyzers", "EdgeAnalyzers", "TrackAnalyzers"):
        ET.SubElement(analysers, name)
