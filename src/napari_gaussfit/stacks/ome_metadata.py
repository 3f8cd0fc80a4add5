"""What the metadata of an OME-Zarr group say of its image, as programs write them.

Reads what a stack needs and no more: what is about display, or breaks a rule of the specification
without leaving a doubt (axes named Z, Y, X, axes without type), does not matter. Opens no file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any

from napari_gaussfit.errors import StackError
from napari_gaussfit.stacks.units import micrometers_per

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Axis", "Level", "Multiscale", "axes_named", "ome_attributes", "read_multiscale"]

_LETTERS = {"channel": "C", "time": "T"}
"""What axes are called here by their type, or by their name written out."""

_FIRST_AXES = "TCZYX"
"""The axes of the versions `_WITHOUT_AXES`, always these five."""

_WITHOUT_AXES = ("0.1", "0.2")


@dataclass(frozen=True)
class Axis:
    """An axis of an image.

    Parameters
    ----------
    letter : str
        "T", "C", "Z", "Y", "X", or "?" where neither name nor type tells.
    micrometers : float or None
        The length of its unit, None where it has none.
    """

    letter: str
    micrometers: float | None = None


@dataclass(frozen=True)
class Level:
    """One resolution of an image: an array, and where its voxels lie.

    Parameters
    ----------
    path : str
        Of the array in the group.
    scale : tuple of float
        Along each axis, in its unit; as the file has it, so that it may be 0, negative or NaN.
    translation : tuple of float
        Of the first voxel, likewise.
    """

    path: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]

    def then(self, transform: Transform) -> Level:
        """Return the level after one more transformation."""
        by, to = transform
        return replace(
            self,
            scale=tuple(s * factor for s, factor in zip(self.scale, by, strict=True)),
            translation=tuple(
                t * factor + step for t, factor, step in zip(self.translation, by, to, strict=True)
            ),
        )


Transform = tuple[tuple[float, ...], tuple[float, ...]]
"""What is multiplied, and what is added then, along each axis."""


@dataclass(frozen=True)
class Multiscale:
    """An image in one resolution or more.

    Parameters
    ----------
    version : str
        Version of the OME-Zarr specification, such as "0.5".
    axes : tuple of Axis
        In the arrays' order.
    levels : tuple of Level
        In the file's order.
    channel_names : tuple of str
        As far as the file names them.
    notes : tuple of str
        What was assumed where the metadata say nothing, a sentence each.
    """

    version: str
    axes: tuple[Axis, ...]
    levels: tuple[Level, ...]
    channel_names: tuple[str, ...]
    notes: tuple[str, ...]


def ome_attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the OME metadata of a group: from version 0.5 on under a name of their own."""
    inner = attributes.get("ome")
    return dict(inner) if isinstance(inner, dict) else attributes


def axes_named(names: Sequence[str | None]) -> tuple[Axis, ...]:
    """Return axes by their names alone."""
    return tuple(Axis(_letter(str(name), None)) for name in names)


def read_multiscale(metadata: dict[str, Any]) -> Multiscale:
    """Read the first image that the metadata describe.

    Parameters
    ----------
    metadata : dict
        What `ome_attributes` returned of a group that has ``multiscales``.

    Raises
    ------
    StackError
        If something that a stack needs is missing or of another kind; the message names the field,
        and no file.
    """
    images = _kind(metadata["multiscales"], list, "multiscales")
    image = _kind(_first(images, "multiscales"), dict, "multiscales[0]")
    datasets = _kind(image.get("datasets"), list, "multiscales[0].datasets")
    _first(datasets, "multiscales[0].datasets")
    axes = tuple(_axes(image))
    whole = _transforms(image, len(axes), "multiscales[0]")
    levels = []
    for n, dataset in enumerate(datasets):
        field = f"multiscales[0].datasets[{n}]"
        path = _kind(_kind(dataset, dict, field).get("path"), str, f"{field}.path")
        level = Level(path, (1.0,) * len(axes), (0.0,) * len(axes))
        for transform in (*_transforms(dataset, len(axes), field), *whole):
            level = level.then(transform)
        levels.append(level)
    more = len(images) - 1
    note = f"the file describes {more + 1} images in one place; the first is taken"
    return Multiscale(
        version=str(metadata.get("version") or image.get("version") or "0.4"),
        axes=axes,
        levels=tuple(levels),
        channel_names=_channel_names(metadata.get("omero")),
        notes=(note,) if more else (),
    )


def _axes(image: dict[str, Any]) -> Iterator[Axis]:
    listed = image.get("axes")
    if listed is None and image.get("version") in _WITHOUT_AXES:
        yield from axes_named(_FIRST_AXES)
        return
    for n, axis in enumerate(_kind(listed, list, "multiscales[0].axes")):
        if isinstance(axis, str):  # OME-Zarr 0.3
            yield Axis(_letter(axis, None))
            continue
        known = _kind(axis, dict, f"multiscales[0].axes[{n}]")
        unit = known.get("unit")
        letter = _letter(str(known.get("name")), known.get("type"))
        yield Axis(letter, micrometers_per(unit) if isinstance(unit, str) else None)


def _letter(name: str, kind: object) -> str:
    if isinstance(kind, str) and kind in _LETTERS:
        return _LETTERS[kind]
    short = _LETTERS.get(name.casefold(), name.upper())
    return short if short in tuple(_FIRST_AXES) else "?"


def _transforms(holder: dict[str, Any], ndim: int, field: str) -> Iterator[Transform]:
    """Yield the scales and translations of a dataset, or of the whole image."""
    key = "coordinateTransformations"
    listed = holder.get(key)
    for n, transform in enumerate(_kind(listed, list, f"{field}.{key}") if listed else ()):
        place = f"{field}.{key}[{n}]"
        kind = _kind(transform, dict, place).get("type")
        if kind == "identity":
            continue
        if kind not in ("scale", "translation"):
            raise StackError(
                f"{place} is of type {kind!r:.40}; expected scale or translation: write the image "
                "again as OME-Zarr 0.4 or 0.5"
            )
        listed_numbers = _kind(transform.get(kind), list, f"{place}.{kind}")
        numbers = tuple(_number(one, f"{place}.{kind}") for one in listed_numbers)
        if len(numbers) != ndim:
            raise StackError(f"{place}.{kind} has {len(numbers)} numbers for {ndim} axes")
        yield (numbers, (0.0,) * ndim) if kind == "scale" else ((1.0,) * ndim, numbers)


def _channel_names(omero: object) -> tuple[str, ...]:
    """Return labels where they are there: the rest of `omero` is about display."""
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list):
        return ()
    labels = [one.get("label") if isinstance(one, dict) else None for one in channels]
    return tuple(str(label or f"channel {n}") for n, label in enumerate(labels))


def _number(value: object, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise StackError(f"{field} has {value!r:.40}; expected numbers")
    try:
        return float(value)
    except OverflowError:  # JSON's whole numbers have no end
        return inf


def _first(values: list[Any], field: str) -> Any:
    if not values:
        raise StackError(f"{field} is empty")
    return values[0]


def _kind(value: Any, kind: type, field: str) -> Any:
    if not isinstance(value, kind):
        found = "is missing" if value is None else f"is {value!r:.40}"
        raise StackError(f"{field} {found}; expected a {kind.__name__}")
    return value
