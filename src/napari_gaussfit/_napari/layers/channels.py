"""Layers that are channels of one recording: which belong together, and what is fitted of them.

Reads layers and changes none. Knows no panel.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._napari.layers.placement import METADATA, OF
from napari_gaussfit._napari.layers.source import axis_name, refusal_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari.layers import Image, Layer

    from napari_gaussfit._napari.layers.source import Source

__all__ = ["channel_axis", "channel_names", "common_name", "companions", "joined"]

_CHANNEL = "channel"
_TRANSFORMS = ("scale", "translate", "rotate", "shear", "affine")


def channel_axis(layer: Layer) -> int | None:
    """Return which axis before z, y and x is the channels', None where none is."""
    named = [axis_name(layer, axis) for axis in range(layer.ndim - 3)]
    return named.index(_CHANNEL) if _CHANNEL in named else None


def companions(layer: Image, layers: Iterable[Layer]) -> list[Image]:
    """Return the layers that may be channels beside a layer, it among them.

    Those of as many voxels in the same place; first what was opened from the same file.
    """
    from napari.layers import Image

    found = [
        one
        for one in layers
        if isinstance(one, Image)
        and OF not in one.metadata.get(METADATA, {})
        and refusal_of(one) == ""
        and _lies_like(one, layer)
    ]
    ours = _opened_from(layer)
    return sorted(found, key=lambda one: _opened_from(one) != ours)


def joined(parts: Sequence[Source]) -> Source:
    """Return the source of a fit of these channels, under the name that they have in common."""
    first, *others = parts
    if not others:
        return first
    name = common_name(parts)
    channels = tuple(
        replace(part, stack=replace(part.stack, name=name, channel=_number(part, n)))
        for n, part in enumerate(parts)
    )
    return replace(channels[0], name=name, channels=channels)


def channel_names(source: Source) -> list[str]:
    """Return what the channels that are fitted together are called."""
    several = len(source.layers) > 1
    return [
        str(part.layer.name) if several else f"channel {part.stack.channel}"
        for part in source.parts
    ]


def _lies_like(one: Image, other: Image) -> bool:
    """Tell whether the voxels of two layers are as many, and in the same places."""
    alike = tuple(one.data.shape) == tuple(other.data.shape) and one.units == other.units
    return alike and all(
        np.allclose(np.asarray(getattr(one, name)), np.asarray(getattr(other, name)))
        for name in _TRANSFORMS
    )


def _opened_from(layer: Layer) -> tuple[Any, ...] | None:
    """Return which file, and which image therein, a layer was opened from."""
    carried = layer.metadata.get(METADATA, {})
    if "source" in carried:
        return carried["source"], carried.get("position")
    return None if layer.source.path is None else (layer.source.path, None)


def common_name(parts: Sequence[Source], but: Sequence[str] = (_CHANNEL,)) -> str:
    """Return the words with which the layers' names begin, and at which time they are.

    `but` are axes that are left out: which channel or time it is says something else.
    """
    names = list(dict.fromkeys(str(part.layer.name) for part in parts))
    words = zip(*(name.split() for name in names), strict=False)
    shared = [ours[0] for ours in takewhile(lambda ours: len(set(ours)) == 1, words)]
    if len(names) > 1 and shared[-1:] == [_CHANNEL]:
        shared.pop()  # as this package's reader has them, "cells channel 0"
    layer, place = parts[0].layer, parts[0].place
    axes = ((axis_name(layer, axis), index) for axis, index in enumerate(place))
    several = len(parts) > 1
    left_out = {*but, *([_CHANNEL] if several else [])}
    others = [f"{axis} {index}" for axis, index in axes if axis not in left_out]
    return " ".join([" ".join(shared) or "+".join(names), *others])


def _number(part: Source, place: int) -> int:
    """Return which channel a source is of: its file's, or its place among those fitted."""
    return place if part.stack.channel is None else part.stack.channel
