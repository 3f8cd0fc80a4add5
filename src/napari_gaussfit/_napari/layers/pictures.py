"""The pictures beside a stack: the projections of data and fit, their difference, and captions.

Makes layer data tuples ``(data, keywords, type)`` and knows no viewer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit._napari.layers.source import Source
    from napari_gaussfit.jobs.pictures import MipPair
    from napari_gaussfit.model.field import GaussianField

    LayerData = tuple[Any, dict[str, Any], str]

__all__ = ["CAPTIONS", "FAINTEST", "PICTURES", "WORDS", "channel_colours", "pictures_of"]

GAP = 0.06
"""Between pictures beside each other, in parts of the stack's larger side."""

RESIDUAL_SHARE = 0.05
"""Of the contrast: a difference as large as this has the fullest colour."""

FAINTEST = 0.1
"""Of the amplitudes that are shown as ellipsoids where nobody chooses, in parts of the brightest's:
without it, the dendrite stands in a cloud of what makes up its background."""

_DATA, _FIT, _RESIDUAL = "data MIP", "fit MIP", "residual MIP"
_CAPTIONED = {
    "": "stack, centres",
    _RESIDUAL: f"residual MIP\n±{RESIDUAL_SHARE:.0%}",
    _DATA: "data MIP",
    _FIT: "fit MIP",
}

CAPTIONS = "captions"
WORDS = tuple(_CAPTIONED.values())
"""What the captions say, in the order of their points."""

PICTURES = (_DATA, _FIT, _RESIDUAL, CAPTIONS)
"""What layers of a view there are."""


def pictures_of(mips: MipPair, source: Source) -> dict[str, LayerData]:
    """Return the flat layers of a view by what they are: three pictures, and blank captions.

    Of several channels data and fit are in the colours of their layers, and the residual is in
    parts of a channel's contrast.
    """
    looks = _coloured(mips, source) if source.channels else _grey(mips, source)
    pictures: dict[str, LayerData] = {
        role: (picture, {**look, **_beside(role, mips, source)}, "image")
        for role, (picture, look) in looks.items()
    }
    # In the world's own coordinates, where the corners are.
    corners = [_beside(role, mips, source)["translate"] for role in _CAPTIONED]
    place = pictures[_DATA][1]
    words = {key: place[key] for key in ("units", "axis_labels", "affine")}
    words |= {
        "size": 0.0,
        "face_color": "transparent",
        "border_color": "transparent",
        # No picture hides its caption, in 3D either.
        "blending": "translucent_no_depth",
        "features": {"picture": [""] * len(WORDS)},
        "text": {"string": "{picture}", "anchor": "lower_left", "size": 9, "color": "#c8d0da"},
    }
    return {**pictures, CAPTIONS: (np.array(corners), words, "points")}


def _grey(mips: MipPair, source: Source) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return the three pictures of one channel, each with how it is shown."""
    (data,), (fit,) = mips.data, mips.fit
    low, high = source.contrast_limits
    end = RESIDUAL_SHARE * (high - low)
    grey = {"contrast_limits": (low, high), "colormap": "gray"}
    residual = {"contrast_limits": (-end, end), "colormap": _residual_colours()}
    return {_DATA: (data, grey), _FIT: (fit, grey), _RESIDUAL: (data - fit, residual)}


def _coloured(mips: MipPair, source: Source) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return the three pictures of the channels that are looked at, each with how it is shown."""
    parts = [source.parts[n] for n in mips.view.channels(len(source.parts))]
    ranges = np.array([np.ptp(part.layer.contrast_limits) or 1.0 for part in parts])
    residuals = (mips.data - mips.fit) / ranges[:, None, None]
    where = np.abs(residuals).argmax(axis=0)[None]
    largest = np.take_along_axis(residuals, where, axis=0)[0].astype(np.float32)
    end = RESIDUAL_SHARE
    residual = {"contrast_limits": (-end, end), "colormap": _residual_colours()}
    return {
        _DATA: (_merged(mips.data, parts), {"rgb": True}),
        _FIT: (_merged(mips.fit, parts), {"rgb": True}),
        _RESIDUAL: (largest, residual),
    }


def _merged(pictures: NDArray[np.float32], parts: Sequence[Source]) -> NDArray[np.uint8]:
    """Return pictures [C, H, W] as one, [H, W, 3], in the colours and contrasts of their layers."""
    total = np.zeros((*pictures.shape[1:], 3), np.float32)
    for picture, part in zip(pictures, parts, strict=True):
        low, high = part.layer.contrast_limits
        share = np.clip((picture - low) / (high - low), 0, 1) ** part.layer.gamma
        shades = part.layer.colormap.map(np.linspace(0, 1, 256))[:, :3].astype(np.float32)
        total += shades[(255 * share).astype(np.uint8)]
    return (255 * np.clip(total, 0, 1)).astype(np.uint8)


def channel_colours(fields: Sequence[GaussianField], source: Source, channel: int | None) -> Any:
    """Return colours [K, 4] of Gaussians; faint ones are transparent.

    By amplitude; of several channels that are looked at together, mixed of their layers' colours.
    """
    if channel is not None or len(fields) == 1:
        return amplitude_colours(fields[min(channel or 0, len(fields) - 1)])
    shares = [np.clip(field.numpy().amplitudes, 0, None) for field in fields]
    shares = [share / max(float(share.max(initial=0.0)), 1e-12) for share in shares]
    ends = [part.layer.colormap.map([1.0])[0] for part in source.parts]
    colours = sum(share[:, None] * end for share, end in zip(shares, ends, strict=True))
    brightest = np.max(shares, axis=0)
    # The mixture says which channels; how bright, the opacity.
    colours = colours / np.maximum(colours[:, :3].max(axis=1, initial=1e-12), 1e-12)[:, None]
    colours[:, 3] = 0.2 + 0.8 * brightest
    return colours


def amplitude_colours(field: GaussianField) -> Any:
    """Return colours [K, 4] by amplitude; faint Gaussians are transparent."""
    from napari.utils.colormaps import ensure_colormap

    amplitudes = field.numpy().amplitudes
    low, high = (float(amplitudes.min()), float(amplitudes.max())) if len(amplitudes) else (0, 1)
    share = (amplitudes - low) / max(high - low, 1e-12)
    # Its darkest third is not seen on a picture.
    colours = ensure_colormap("plasma").map(0.3 + 0.7 * share)
    colours[:, 3] = 0.4 + 0.6 * share
    return colours


def _beside(role: str, mips: MipPair, source: Source) -> dict[str, Any]:
    """Return where a picture lies: residual right of the stack, data and fit below.

    Pictures are flat: they lie in the plane of the source's last two axes and move with it.
    """
    place, stack = source.placement, source.stack
    high, wide = (n * d for n, d in zip(stack.shape[1:], stack.spacing[1:], strict=True))
    rows, columns = (n * d for n, d in zip(mips.data.shape[1:], mips.pixel, strict=True))
    gap = GAP * max(high, wide)
    right, below = max(wide, columns) + gap, max(high, rows) + gap
    corners = {_RESIDUAL: (0.0, right), _DATA: (below, 0.0), _FIT: (below, right)}
    corner = np.asarray(corners.get(role, (0.0, 0.0)))
    # From the corner of the first pixel to its middle, and from the fit's unit to the layer's.
    half = (np.asarray(mips.pixel) - np.asarray(stack.spacing[1:])) / 2
    ratio = place.scale[1:] / place.spacing[1:]
    turn = place.rotate[1:, 1:] @ place.shear[1:, 1:]
    return {
        "scale": np.asarray(mips.pixel) * np.abs(ratio),
        "translate": place.translate[1:] + turn @ ((corner + half) * ratio),
        "rotate": place.rotate[1:, 1:],
        "shear": place.shear[1:, 1:],
        "affine": place.affine[1:, 1:],
        "units": place.units[1:],
        "axis_labels": place.axis_labels[1:],
    }


def _residual_colours() -> Any:
    """Return colours for a difference: blue where the fit is brighter, orange where the data is."""
    from napari.utils.colormaps import Colormap

    return Colormap([[0.3, 0.7, 1.0], [0.0, 0.0, 0.0], [1.0, 0.6, 0.2]], name="residual")
