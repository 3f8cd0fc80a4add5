"""The native format: a fit in one safetensors file, with its metadata as JSON.

The file's tensors are ``means`` [K, 3], ``cholesky`` [K, 6] and ``amplitudes`` of the field, [K] or
of several channels [K, C]; any number of ``state.*`` by which a fit goes on; and of a fit whose
Gaussians were measured ``measured.*``, what was found of each. Its metadata has one entry, named
after this package, that holds all the rest as JSON. Nothing is unpickled.
Knows numbers and JSON alone: what they mean together is `FitResult`'s to say.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from napari_gaussfit.errors import FormatError, SettingsError
from napari_gaussfit.files import replacing
from napari_gaussfit.formats.measured import measurement_from, measurement_parts
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.stacks.facts import StackFacts
from napari_gaussfit.stacks.reading import numbers_of, parsed_json, refusing, shown
from napari_gaussfit.stacks.units import standard_unit

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.measure.measurement import Measurement

    Arrays = dict[str, NDArray[Any]]

__all__ = ["FORMAT", "VERSION", "load_fit", "save_fit"]

FORMAT = "napari-gaussfit"
"""The metadata entry that says whose file it is, and holds the JSON."""

VERSION = 2
"""Counts up when a reader of the version before could not read the file rightly. Fits of one
channel, which version 1 knew alone, are still written as such."""

_AXES = "zyx"


_FIELD_TENSORS = ("means", "cholesky", "amplitudes")

_STATE_PREFIX = "state."
_MEASURED_PREFIX = "measured."

_KEYS = (
    "version",
    "axes",
    "unit",
    "spacing",
    "shape",
    "stack",
    "background",
    "settings",
    "history",
    "report",
)

_NAMES_SHOWN = 12
"""How many names an error lists before it says that there are more."""


def save_fit(  # noqa: PLR0913 - a name for each thing that the file holds
    path: str | os.PathLike[str],
    fields: Sequence[GaussianField],
    stack: StackFacts,
    *,
    settings: Mapping[str, Any] | None = None,
    history: Mapping[str, list[float]] | None = None,
    report: Mapping[str, Any] | None = None,
    state: Mapping[str, NDArray[Any]] | None = None,
    psf: Mapping[str, Any] | None = None,
    measurement: Measurement | None = None,
) -> None:
    """Write a fit; what `load_fit` returns of it is the same to the bit.

    Parameters
    ----------
    path : path-like
        The file to write or to replace, by convention named ``*.safetensors``.
    fields : sequence of GaussianField
        The Gaussians of each channel, with the same means and covariances.
    stack : StackFacts
        The stack that was fitted.
    settings : mapping, optional
        Settings of the fit, as JSON types.
    history : mapping, optional
        Lists of numbers that were recorded while it ran.
    report : mapping, optional
        How good it is, as JSON types.
    state : mapping of ndarray, optional
        What the fit needs to go on.
    psf : mapping, optional
        The point spread function that was fitted with, as JSON types.
    measurement : Measurement, optional
        The same Gaussians refined, and how well each is known.

    Raises
    ------
    OutputError
        If the folder does not exist.
    """
    first = fields[0].numpy()
    arrays = {name: getattr(first, name) for name in _FIELD_TENSORS}
    if len(fields) > 1:
        arrays["amplitudes"] = np.stack([field.numpy().amplitudes for field in fields], axis=1)
    arrays |= {_STATE_PREFIX + name: array for name, array in (state or {}).items()}
    metadata = _place(fields, stack) | {
        "settings": dict(settings or {}),
        "history": dict(history or {}),
        "report": None if report is None else dict(report),
    }
    if psf is not None:
        metadata["psf"] = dict(psf)
    if measurement is not None:
        metadata["measurement"], measured = measurement_parts(measurement)
        arrays |= {_MEASURED_PREFIX + name: array for name, array in measured.items()}
    # The format takes no array that has gaps.
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    data = save(whole, {FORMAT: json.dumps(metadata)})
    with replacing(path, len(data)) as temporary:
        temporary.write_bytes(data)


def load_fit(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a fit that `save_fit` wrote.

    Parameters
    ----------
    path : path-like
        Path of the file that `save_fit` wrote.

    Returns
    -------
    dict
        What `save_fit` took, under the names of its parameters. The arrays keep no hold on the
        file.

    Raises
    ------
    FormatError
        If there is no such file, or it is truncated, of another kind or of a newer version.
    """
    source = Path(path)
    with refusing(source, "a fit that napari-gaussfit saved"):
        arrays, header = _contents(source)
        metadata = _checked_metadata(source, header, sorted(arrays))
        missing = [name for name in _FIELD_TENSORS if name not in arrays]
        if missing:
            raise FormatError(
                f"{source}: lacks the tensors {_listed(missing)}; it has "
                f"{_listed(sorted(arrays))}, expected {_listed(_FIELD_TENSORS)}"
            )
        return _fit_of(arrays, metadata)


def _place(fields: Sequence[GaussianField], stack: StackFacts) -> dict[str, Any]:
    """Return what the metadata say of the stack and of the backgrounds."""
    backgrounds = [float(field.background) for field in fields]
    several = len(fields) > 1
    return {
        "version": VERSION if several else 1,
        "axes": _AXES,
        "unit": stack.unit,
        "spacing": [float(distance) for distance in stack.spacing],
        "shape": [int(length) for length in stack.shape],
        "stack": stack.name,
        "origin": [float(position) for position in stack.origin],
        "channel": stack.channel,
        "time": stack.time,
        "background": backgrounds if several else backgrounds[0],
    }


def _contents(path: Path) -> tuple[Arrays, dict[str, str]]:
    """Return all tensors and the metadata of a safetensors file."""
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "there is no such file"
        raise FormatError(f"{path}: {found}; expected a fit, a .safetensors file")
    try:
        with safe_open(path, "np") as file:
            # Copies, since a file that is still mapped cannot be replaced on Windows.
            names = file.keys()
            arrays = {name: file.get_tensor(name).copy() for name in names}
            return arrays, file.metadata() or {}
    except (TypeError, AttributeError) as error:
        raise FormatError(
            f"{path}: holds numbers that NumPy does not know ({_one_line(error)}); expected a fit "
            "that napari-gaussfit saved"
        ) from error
    except SafetensorError as error:
        raise FormatError(
            f"{path}: is no safetensors file, or a truncated one ({_one_line(error)}); "
            "expected a fit that napari-gaussfit saved"
        ) from error


def _checked_metadata(path: Path, header: dict[str, str], names: list[str]) -> dict[str, Any]:
    """Return the JSON of the metadata, with all keys of a version that is known here."""
    if FORMAT not in header:
        raise FormatError(
            f"{path}: was not saved by napari-gaussfit; its metadata has {_listed(sorted(header))} "
            f"and its tensors are {_listed(names)}, expected the metadata {FORMAT!r}"
        )
    try:
        metadata = parsed_json(header[FORMAT])
    except ValueError as error:
        raise FormatError(f"{path}: its metadata {FORMAT!r} is no JSON: {error}") from error
    found = sorted(metadata)
    version = metadata.get("version")
    if isinstance(version, int) and version > VERSION:
        raise FormatError(
            f"{path}: is of format version {shown(version)}, this program reads up to {VERSION}; "
            "install a newer napari-gaussfit"
        )
    missing = [key for key in _KEYS if key not in found]
    if missing:
        raise FormatError(
            f"{path}: its metadata lacks {_listed(missing)}; it has {_listed(found)}, "
            f"expected {_listed(_KEYS)}"
        )
    if metadata["axes"] != _AXES:
        raise FormatError(f"{path}: has the axes {shown(metadata['axes'])}, expected {_AXES!r}")
    return metadata


def _fit_of(arrays: Arrays, metadata: dict[str, Any]) -> dict[str, Any]:
    for name in _FIELD_TENSORS:
        if arrays[name].dtype.kind not in "fiu":
            raise SettingsError(f"{name} holds {arrays[name].dtype}; expected real numbers")
    means, cholesky, amplitudes = (arrays[name].astype(np.float32) for name in _FIELD_TENSORS)
    if amplitudes.ndim not in (1, 2):
        raise SettingsError(f"amplitudes has shape {amplitudes.shape}; expected [K] or [K, C]")
    unit, factor = standard_unit(_of_kind(metadata, "unit", str, "'micrometer' or 'pixel'"))
    if factor != 1:
        raise SettingsError(
            f"unit={metadata['unit']!r}; expected 'micrometer' or 'pixel', which fits are saved in"
        )
    background = metadata["background"]
    levels = numbers_of(background if isinstance(background, list) else [background], "background")
    settings = _of_kind(metadata, "settings", dict, "names and values")
    full = settings.get("full_covariance", True)
    if not isinstance(full, bool):
        raise SettingsError(f"full_covariance is {shown(full)}; expected true or false")
    brightness = amplitudes[:, None] if amplitudes.ndim == 1 else amplitudes
    if len(levels) != brightness.shape[1] or not levels:
        raise SettingsError(
            f"it has {len(levels)} backgrounds and {brightness.shape[1]} amplitudes a Gaussian; "
            "expected one of each for every channel"
        )
    fields = tuple(
        GaussianField.from_numpy(Gaussians(means, cholesky, channel, float(level), unit, full))
        for channel, level in zip(brightness.T.copy(), levels, strict=True)
    )
    dz, dy, dx = numbers_of(metadata["spacing"], "spacing", 3)
    z, y, x = (float(n) for n in numbers_of(metadata.get("origin", [0.0, 0.0, 0.0]), "origin", 3))
    report = metadata["report"]
    stack = StackFacts(
        _of_kind(metadata, "stack", str, "a name"),
        tuple(_of_kind(metadata, "shape", list, "three whole numbers")),
        (dz, dy, dx),
        unit,
        (z, y, x),
        metadata.get("channel"),
        metadata.get("time"),
    )
    return {
        "fields": fields,
        "stack": stack,
        "settings": settings,
        "history": _checked_history(metadata),
        "report": None
        if report is None
        else _of_kind(metadata, "report", dict, "names and values, or null"),
        "psf": None
        if metadata.get("psf") is None
        else _of_kind(metadata, "psf", dict, "names and values, or null"),
        "state": _under(_STATE_PREFIX, arrays),
        "measurement": None
        if metadata.get("measurement") is None
        else measurement_from(
            _of_kind(metadata, "measurement", dict, "names and values, or null"),
            _under(_MEASURED_PREFIX, arrays),
        ),
    }


def _under(prefix: str, arrays: Arrays) -> Arrays:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _of_kind(metadata: dict[str, Any], name: str, kind: type, expected: str) -> Any:
    if not isinstance(metadata[name], kind):
        raise SettingsError(f"{name} is {shown(metadata[name])}; expected {expected}")
    return metadata[name]


def _checked_history(metadata: dict[str, Any]) -> dict[str, list[float]]:
    """Return the history: lists of numbers, all of one length."""
    history = _of_kind(metadata, "history", dict, "names and lists of numbers")
    lists = {
        name: numbers_of(values, f"history of {name[:40]}") for name, values in history.items()
    }
    lengths = {len(values) for values in lists.values()}
    if len(lengths) > 1:
        raise SettingsError(f"history has lists of {min(lengths)} to {max(lengths)} numbers")
    return lists


def _listed(names: list[str] | tuple[str, ...]) -> str:
    """Return names in a line, of which a file may have thousands."""
    if not names:
        return "nothing"
    shown = ", ".join(names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
