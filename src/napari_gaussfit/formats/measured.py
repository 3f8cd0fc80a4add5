"""What was measured as JSON types and arrays, for files and for messages."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.measurement import SHAPE, Measurement
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.psf import Psf
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.stacks.reading import numbers_of, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]

__all__ = ["measurement_from", "measurement_parts"]

_OWN = ("covariances", "reduced_chi2", "backgrounds", "steps")
"""Arrays of a `Measurement` beside those of its Gaussians."""

_NUMBERS = ("gain", "intercept", "saturation")


def measurement_parts(found: Measurement) -> tuple[dict[str, Any], Arrays]:
    """Return all of a measurement.

    Parameters
    ----------
    found : Measurement
        Of Gaussians in any number of channels.

    Returns
    -------
    dict
        JSON types, one infinity among them: the saturation of what never saturates.
    dict of ndarray
        ``means`` [K, 3], ``cholesky`` [K, 6] and ``amplitudes`` [K, C] of the refined Gaussians,
        and the measurement's own.
    """
    first = found.gaussians[0]
    words = {
        "unit": first.unit,
        "levels": [float(gaussians.background) for gaussians in found.gaussians],
        "flags": list(found.flags),
        "noise": None if found.noise is None else asdict(found.noise),
        "notes": list(found.notes),
        "psf": None if found.psf is None else found.psf.to_dict(),
    }
    arrays = {name: getattr(found, name) for name in _OWN}
    arrays |= {"means": first.means, "cholesky": first.cholesky}
    arrays["amplitudes"] = np.stack([one.amplitudes for one in found.gaussians], axis=1)
    return words, arrays


def measurement_from(words: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Measurement:
    """Return the measurement that `measurement_parts` took apart.

    Parameters
    ----------
    words, arrays : mapping
        As it gave them; a file may hold anything in their places.

    Returns
    -------
    Measurement
        The same to the bit.

    Raises
    ------
    SettingsError
        If something is missing, or its parts do not belong together.
    """
    flags, notes = (_texts_of(words.get(name), name) for name in ("flags", "notes"))
    levels = numbers_of(words.get("levels"), "measurement: levels")
    _refuse_other_arrays(arrays, len(flags), len(levels))
    gaussians = tuple(
        Gaussians(arrays["means"], arrays["cholesky"], own.copy(), level, str(words.get("unit")))
        for own, level in zip(arrays["amplitudes"].T, levels, strict=True)
    )
    return Measurement(
        gaussians,
        **{name: arrays[name] for name in _OWN},
        flags=flags,
        noise=_noise_from(words.get("noise")),
        notes=notes,
        psf=_psf_from(words.get("psf")),
    )


def _refuse_other_arrays(arrays: Mapping[str, NDArray[Any]], count: int, channels: int) -> None:
    size = SHAPE + 2 * channels
    shapes = {
        "means": (count, 3),
        "cholesky": (count, 6),
        "amplitudes": (count, channels),
        "covariances": (count, size, size),
        "reduced_chi2": (count,),
        "backgrounds": (count, channels),
        "steps": (count,),
    }
    for name, shape in shapes.items():
        array = arrays.get(name)
        kinds = "i" if name == "steps" else "f"
        if array is None or array.shape != shape or array.dtype.kind not in kinds:
            found = "missing" if array is None else f"of {array.dtype} {array.shape}"
            expected = "whole numbers" if kinds == "i" else "real numbers"
            message = f"measurement: {name} is {found}; expected {expected} {shape}"
            raise SettingsError(message)


def _texts_of(values: object, name: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        raise SettingsError(f"measurement: {name} is {shown(values)}; expected a list of texts")
    return tuple(values)


def _noise_from(values: object) -> Noise | None:
    if values is None:
        return None
    numbers = [values.get(name) for name in _NUMBERS] if isinstance(values, dict) else None
    return Noise(*numbers_of(numbers, "measurement: noise", len(_NUMBERS)))


def _psf_from(values: object) -> Psf | None:
    if values is None:
        return None
    try:
        if not isinstance(values, dict):
            raise ValueError(f"it is {shown(values)}")
        return Psf.from_dict(values)
    except ValueError as error:
        raise SettingsError(f"measurement: psf is none ({error})") from error
