"""napari's way to stacks and saved fits: what `viewer.open` and a dropped file get.

A stack comes with spacing, units and axis labels, a layer a channel. A TIFF that is no stack (a
2D or colour image) comes as napari's own reader has it, so that preferring this reader for
``*.tif`` costs nothing. A broken file raises one error, and nothing is added.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import StackError
from napari_gaussfit.stacks.large import is_large
from napari_gaussfit.stacks.layout import refused_shape
from napari_gaussfit.stacks.readers import is_stack_file, read_layout, read_voxels, stack_name
from napari_gaussfit.stacks.zarr_paths import is_zarr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_gaussfit._napari.layers.gaussians import LayerData
    from napari_gaussfit.stacks.layout import StackLayout

    Reader = Callable[[str | Sequence[str]], list[LayerData]]

__all__ = ["FIT_SUFFIXES", "get_reader", "open_fit", "open_stack"]

FIT_SUFFIXES = (".safetensors", ".ply")

_COLORMAPS = {1: ("gray",), 2: ("magenta", "green")}
_MORE_COLORMAPS = ("cyan", "yellow", "magenta", "red", "green", "blue")
"""The colours in which napari splits channels."""

_SEVERAL_IMAGES = "images and no stack"
"""What is in a refusal where napari's own reader shows but the first of them."""

LOOKED_AT = 2**24
"""Voxels that are read of a large stack to know its range: coarser ones are dimmer."""

_POSITIONS_SHARE = 0.25
"""Of the free memory that all positions of a file may take; else the first is opened alone."""


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """Return what reads a file, or None where that is not for this package.

    Parameters
    ----------
    path : str or sequence of str
        A file; or several, which the user wants stacked.
    """
    if not isinstance(path, str):
        return _as_napari_does if all(map(is_stack_file, path)) else None
    if is_stack_file(path):
        return _stack_or_image
    return open_fit if _suffix(path) in FIT_SUFFIXES else None


def open_stack(layout: StackLayout) -> list[LayerData]:
    """Return an Image for each channel, [Z, Y, X], or [T, Z, Y, X] of a time series.

    Of a large OME-Zarr nothing is read yet: the layers have all of its resolutions, and
    napari reads what is in view.

    The metadata of each has an entry ``napari_gaussfit`` with ``source`` (the path), ``channel``
    and ``position`` (None where there is but one) and ``notes`` (what was assumed).

    Parameters
    ----------
    layout : StackLayout
        What `read_layout` found in the file.

    Raises
    ------
    StackError
        If the voxels cannot be read, do not fit into memory, or are all NaN.
    """
    from napari_gaussfit._napari.layers.gaussians import METADATA
    from napari_gaussfit._napari.layers.placement import AXIS_LABELS
    from napari_gaussfit.stacks.layout import refuse_what_memory_cannot_hold

    count = layout.channels
    lazy = _is_read_by_parts(layout)
    if not lazy:
        refuse_what_memory_cannot_hold(
            str(layout.path), layout.stack_nbytes * layout.times * count, voxels=0
        )
    channels = [_unread(layout, n) if lazy else _voxels(layout, n) for n in range(count)]
    if not lazy and not any(np.isfinite(voxels).any() for voxels in channels):
        raise StackError(
            f"{layout.path}: every one of its {sum(one.size for one in channels):,} voxels is NaN "
            "or infinite; check how it was saved"
        )
    axes: dict[str, tuple[Any, ...]] = {
        "scale": layout.scale,
        "translate": layout.origin,
        "units": (layout.unit,) * 3,
        "axis_labels": AXIS_LABELS,
    }
    if layout.times > 1:
        # No format here tells how long a step in time is.
        of_time = {"scale": 1.0, "translate": 0.0, "units": "pixel", "axis_labels": "t"}
        axes = {key: (of_time[key], *values) for key, values in axes.items()}
    named = layout.channel_names or tuple(f"channel {n}" for n in range(count))
    stem = stack_name(layout.path)
    position = layout.image if len(layout.positions) > 1 else None
    if position is not None:
        stem += f" position {position}"
    return [
        (
            voxels,
            {
                "name": stem if count == 1 else f"{stem} {named[n]}",
                **axes,
                **(_shown_unread(voxels) if isinstance(voxels, list) else {}),
                "colormap": _COLORMAPS.get(count, _MORE_COLORMAPS)[n % len(_MORE_COLORMAPS)],
                "blending": "additive" if count > 1 else "translucent_no_depth",
                "metadata": {
                    METADATA: {
                        "source": str(layout.path),
                        "channel": n if count > 1 else None,
                        "position": position,
                        "notes": layout.notes,
                    }
                },
            },
            "image",
        )
        for n, voxels in enumerate(channels)
    ]


def open_fit(path: str | Sequence[str]) -> list[LayerData]:
    """Return the layers of a saved fit: centres, and hidden its axes and ellipsoids.

    Raises
    ------
    FormatError
        If the file is no fit, is damaged, or newer than this package.
    """
    from napari.utils.notifications import show_info

    from napari_gaussfit._napari.layers.gaussians import points_layer, surface_layer, vectors_layer
    from napari_gaussfit._napari.layers.pictures import FAINTEST
    from napari_gaussfit._napari.layers.placement import Placement
    from napari_gaussfit.fitting.result import load

    fit = load(str(path))
    for note in fit.notes:
        show_info(f"{path}: {note}")
    stack = fit.stack
    placement = Placement.of_stack(stack.spacing, stack.unit, stack.origin)
    centres = points_layer(fit, placement, name=f"{stack.name} centres")
    field = fit.measured_fields[0]
    axes = vectors_layer(field, placement, name=f"{stack.name} axes")
    title = f"{stack.name} ellipsoids"
    surface = surface_layer(field, placement, name=title, faintest=FAINTEST)
    for _, keywords, _ in (axes, surface):
        keywords["visible"] = False
    return [surface, axes, centres] if len(fit.field) else [centres]


def _stack_or_image(path: str | Sequence[str]) -> list[LayerData]:
    """Read a stack; what is whole but no stack, as napari does."""
    try:
        layout = read_layout(str(path))
    except StackError as refusal:
        if not refused_shape(refusal):
            raise
        if _SEVERAL_IMAGES in str(refusal):
            _say(str(refusal))
        return _as_napari_does(path)
    layers: list[LayerData] = []
    for one in _positions(layout):
        layers += [
            (voxels, {**keywords, "visible": one.image == layout.image}, kind)
            for voxels, keywords, kind in open_stack(one)
        ]
        for note in one.axis_notes + (one.spacing_notes if one.spacing else ()):
            _say(f"{one.path.name}: {note}")
    return layers


def _positions(layout: StackLayout) -> list[StackLayout]:
    """Return all images of a file that are stacks where memory holds them, else the one chosen."""
    import psutil

    if len(layout.positions) == 1:
        return [layout]
    found: list[StackLayout] = []
    for position in layout.positions:
        try:
            found.append(read_layout(layout.path, position=position))
        except StackError as refusal:
            _say(str(refusal))
    needed = sum(one.stack_nbytes * one.times * one.channels for one in found)
    return found if needed <= _POSITIONS_SHARE * psutil.virtual_memory().available else [layout]


def _say(text: str) -> None:
    """Tell the user, where there is a window in its corner."""
    from napari.utils.notifications import show_info

    show_info(text)


def _as_napari_does(path: str | Sequence[str]) -> list[LayerData]:
    """Let napari's own reader read a file, or a list of files that it stacks."""
    import npe2

    paths, several = ([path], False) if isinstance(path, str) else (list(path), True)
    layers: list[Any] = npe2.read(paths, stack=several, plugin_name="napari")
    return layers


def _is_read_by_parts(layout: StackLayout) -> bool:
    """Tell whether a file is opened without reading its voxels: a large OME-Zarr."""
    return is_zarr(layout.path) and is_large(layout.shape)


def _unread(layout: StackLayout, channel: int) -> Any:
    """Return a channel in all resolutions that there are, none of it read yet."""
    from napari_gaussfit.stacks.ome_zarr import resolutions

    levels = resolutions(layout, channel)
    return levels if len(levels) > 1 else levels[0]


def _shown_unread(levels: list[Any]) -> dict[str, Any]:
    """Return how a channel in several resolutions is shown, by one that is soon read."""
    # Of several times, the one in the middle.
    stacks = [level[len(level) // 2] if level.ndim > 3 else level for level in levels]
    looked_at = next((stack for stack in stacks if stack.size <= LOOKED_AT), None)
    if looked_at is None:
        return {"multiscale": True}
    voxels = np.asarray(looked_at)
    low, high = float(np.nanmin(voxels)), float(np.nanmax(voxels))
    limits = {"contrast_limits": (low, high)} if low < high else {}
    return {"multiscale": True, **limits}


def _voxels(layout: StackLayout, channel: int) -> NDArray[Any]:
    """Return a channel at all its times."""
    frames = [read_voxels(layout, channel=channel, time=time) for time in range(layout.times)]
    return np.stack(frames) if layout.times > 1 else frames[0]


def _suffix(path: str) -> str:
    return Path(path).suffix.lower()
