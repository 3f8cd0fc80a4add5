"""Units of length as microscopes and programs spell them."""

from __future__ import annotations

import re

from napari_gaussfit.errors import SettingsError

__all__ = ["MICROMETERS_PER_UNIT", "UNIT_WORDS", "micrometers_per", "standard_unit"]

UNIT_WORDS = {"micrometer": "µm", "pixel": "pixels"}
"""A stack's unit of length behind a number, in a sentence."""

MICROMETERS_PER_UNIT: dict[str, float] = {
    "pm": 1e-6,
    "å": 1e-4,
    "nm": 1e-3,
    "um": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "in": 25400.0,
    "m": 1e6,
}

_SYMBOLS = {
    "angstrom": "å",
    "nanometer": "nm",
    "micron": "um",
    "micrometer": "um",
    "millimeter": "mm",
    "centimeter": "cm",
    "inch": "in",
    "inche": "in",
    '"': "in",
    "meter": "m",
}

_PIXELS = ("pixel", "pixels", "px", "voxel", "voxels")

_MISREAD_MICRO = "\N{MICRO SIGN}".encode().decode("latin-1")
"""The micro sign, written in UTF-8 and read as Latin-1: another letter stands before it."""


def micrometers_per(unit: str) -> float | None:
    r"""Return the length of one `unit` in micrometres, or None if it is no unit of length.

    Understands symbols and names, singular and plural, British and American, either of Unicode's
    two mu signs, and the escape ``\u00B5`` that ImageJ writes.
    """
    unescaped = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), unit)
    unescaped = unescaped.replace(_MISREAD_MICRO, "u")
    spelt = unescaped.strip().casefold().replace("metre", "meter")
    # Case folding has made the micro sign a mu, and the angstrom sign a letter.
    spelt = spelt.replace("\N{GREEK SMALL LETTER MU}", "u", 1)
    if len(spelt) > 3:
        spelt = spelt.removesuffix("s")
    return MICROMETERS_PER_UNIT.get(_SYMBOLS.get(spelt, spelt))


def standard_unit(unit: str) -> tuple[str, float]:
    """Return the unit that lengths have here, and the length of one `unit` in it.

    Parameters
    ----------
    unit : str
        A unit of length in any of the spellings that `micrometers_per` knows, or "pixel".

    Returns
    -------
    name : str
        "micrometer" or "pixel".
    factor : float
        By which lengths in `unit` are multiplied to be in the unit of that name.

    Raises
    ------
    SettingsError
        If it is neither.
    """
    if unit.strip().casefold() in _PIXELS:
        return "pixel", 1.0
    micrometers = micrometers_per(unit)
    if micrometers is None:
        raise SettingsError(
            f"unit={unit[:40]!r} is no length known here; "
            "give 'micrometer', 'nanometer', 'millimeter' or 'pixel'"
        )
    return "micrometer", micrometers
