"""What the columns of the panel's tables are called, their units, and what they mean."""

from __future__ import annotations

import re
from dataclasses import dataclass

from napari_gaussfit.measure.table import FLAGS, GOODNESS

__all__ = ["Column", "column_named"]

SYMBOLS = {"micrometer": "µm", "pixel": "px"}

_POWERS = {1: "", 2: "²", 3: "³"}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Parameters
    ----------
    title : str
        As its header has it.
    tip : str
        What it means, for its tooltip.
    power : int
        Of the length in its unit.
    intensity : bool
        Whether raw intensity is part of its unit.
    """

    title: str
    tip: str = ""
    power: int = 0
    intensity: bool = False

    def unit(self, length: str) -> str:
        """Return its unit as a symbol, where lengths are in `length`; empty where it has none."""
        symbol = f"{SYMBOLS.get(length, length)}{_POWERS[self.power]}" if self.power else ""
        return "·".join(part for part in ("raw" if self.intensity else "", symbol) if part)

    def unit_in_words(self, length: str) -> str:
        """Return its unit in words, as "micrometers"."""
        lengths = f"{length}s{_POWERS[self.power]}" if self.power else ""
        raw = "in raw intensity" if self.intensity else ""
        return " × ".join(part for part in (raw, lengths) if part)


_PRINCIPAL = "the longest of its three principal axes", "the middle one", "the shortest one"

_KNOWN = {
    "time": Column("time", "Number of the time in the recording, from 0."),
    "track": Column("track", "What has the same number is the same object at another time."),
    "index": Column("index", "Number of the Gaussian, from 0, as in files."),
    "amplitude": Column(
        "amplitude",
        "How much brighter the Gaussian makes its own centre than everything else.",
        intensity=True,
    ),
    "integrated_intensity": Column(
        "intensity", "All its light: amplitude times volume.", 3, intensity=True
    ),
    **{axis: Column(axis, f"Centre along {axis}; the first voxel's is 0.", 1) for axis in "zyx"},
    **{f"axis-{n}": Column(f"{axis} voxel", "Centre in voxels.") for n, axis in enumerate("zyx")},
    **{
        f"fwhm_{n}": Column(f"fwhm {n}", f"Full width at half maximum along {along}.", 1)
        for n, along in enumerate(_PRINCIPAL, 1)
    },
    **{
        f"fwhm_{axis}": Column(f"fwhm {axis}", f"Full width at half maximum along {axis}.", 1)
        for axis in "zyx"
    },
    **{
        f"object_fwhm_{n}": Column(
            f"object fwhm {n}", f"Width along {along}, without what light has blurred.", 1
        )
        for n, along in enumerate(_PRINCIPAL, 1)
    },
    **{
        f"sigma_{n}": Column(f"sigma {n}", f"Standard deviation along {along}.", 1)
        for n, along in enumerate(_PRINCIPAL, 1)
    },
    GOODNESS: Column(
        "reduced χ²", "How well the Gaussian describes its part of the stack; 1 is as the noise."
    ),
    FLAGS: Column("flags", "What keeps the numbers of this row from being trusted."),
    "signal_to_noise": Column("signal/noise", "Amplitude in standard deviations of the noise."),
    "neighbours": Column("neighbours", "Other spots that overlap with this one."),
    "label": Column("label", "Of the object, as in the layer of labels."),
    "gaussians": Column("gaussians", "That make up the object."),
    "volume": Column("volume", "Of the object.", 3),
    "surface": Column("surface", "Area of the object's surface.", 2),
    "length": Column("length", "Along the branch's centre line.", 1),
    "mean_radius": Column("radius", "In the mean along the branch.", 1),
    "head_width": Column("head width", "Of a spine's head.", 1),
    "from_soma": Column("from soma", "Whether it begins at the soma."),
    "tortuosity": Column("tortuosity", "Length over the distance between the ends."),
    "at_border": Column("at border", "Whether the stack's border cuts the object."),
}

_FAMILIES = (
    (re.compile(r"cov_(\w)(\w)"), Column("cov {0}{1}", "Covariance of {0} and {1}.", 2)),
    (re.compile(r"axis_(\d)_(\w)"), Column("axis {0} {1}", "Principal axis {0}, along {1}.")),
    (re.compile(r"semiaxis_(\d)"), Column("semiaxis {0}", "Half axis {0}, longest first.", 1)),
    (
        re.compile(r"amplitude_(\d+)"),
        Column("amplitude {0}", "Amplitude in channel {0}.", intensity=True),
    ),
    (
        re.compile(r"ratio_(\d+)"),
        Column("ratio {0}/0", "Amplitude in channel {0} over that in channel 0."),
    ),
    (
        re.compile(r"integrated_intensity_(\d+)"),
        Column("intensity {0}", "All its light in channel {0}.", 3, intensity=True),
    ),
)


def column_named(name: str) -> Column:
    """Return what is known of a column; one that nobody has described is called by its name."""
    if name in _KNOWN:
        return _KNOWN[name]
    for pattern, family in _FAMILIES:
        found = pattern.fullmatch(name)
        if found:
            title, tip = (text.format(*found.groups()) for text in (family.title, family.tip))
            return Column(title, tip, family.power, family.intensity)
    return Column(name.replace("_", " "))
