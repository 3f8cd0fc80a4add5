"""Checkpoints of the research notebook that this grew out of: torch's ``.pt``, read only.

They are read with ``weights_only``: nothing is unpickled. Their Gaussians are in x, y, z, in a box
of their own (the unit cube unless the file or the caller gives another), which is mapped onto the
stack's, and their brightness is in parts of the stack's range above its smallest intensity.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_gaussfit._kernels.reference import factors
from napari_gaussfit.errors import FormatError, SettingsError
from napari_gaussfit.formats.xyz import covariances_in_zyx, covariances_of
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.stacks.reading import refusing, shown

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from napari_gaussfit.stacks.facts import StackFacts

    Floats = NDArray[np.float64]

__all__ = ["LAYOUTS", "read_checkpoint"]

UNIT_CUBE = ((0.0, 1.0), (0.0, 1.0), (0.0, 1.0))
"""The box of a checkpoint that gives none: lower and upper end of x, y and z."""

REGULARISATION = 1e-6
"""What the notebook's field adds to the diagonal of its covariances, in squares of its own unit."""

_RELATIVE = (
    "a checkpoint has its brightness in parts of its stack's range; without the stack it stays so, "
    "over a background of 0 (give --stack for raw intensity)"
)

_WRAPPERS = ("model_state_dict", "state_dict")
"""The entries of a checkpoint that may hold the parameters; else it holds them itself."""


@dataclass(frozen=True)
class Layout:
    """The tensors of one of the notebook's models, and what they mean.

    Parameters
    ----------
    shapes : mapping of str to str
        Each tensor's name and shape, K the number of Gaussians and C that of channels.
    covariances : callable
        What makes covariances [K, 3, 3] in x, y, z of the tensors.
    brightness : callable
        What makes amplitudes [K, C] of the last of the tensors.
    """

    shapes: Mapping[str, str]
    covariances: Callable[[Mapping[str, Tensor]], Floats]
    brightness: Callable[[Tensor], Tensor]

    @property
    def described(self) -> str:
        """The names in a line."""
        return "{" + ", ".join(self.shapes) + "}"


def _of_factors(name: str, regularisation: float) -> Callable[[Mapping[str, Tensor]], Floats]:
    def covariances(tensors: Mapping[str, Tensor]) -> Floats:
        lower = factors(tensors[name].double()).numpy()
        sigma: Floats = lower @ lower.transpose(0, 2, 1) + regularisation * np.eye(3)
        return sigma

    return covariances


def _of_scales(tensors: Mapping[str, Tensor]) -> Floats:
    squares = np.exp(2 * tensors["log_scales"].double().numpy())
    sigma: Floats = squares[:, :, None] * np.eye(3)
    return sigma


def _of_quaternions(tensors: Mapping[str, Tensor]) -> Floats:
    return covariances_of(tensors["log_scales"].numpy(), tensors["quaternions"].numpy())


_ROTATED = {"means": "K, 3", "log_scales": "K, 3", "quaternions": "K, 4"}

LAYOUTS = (
    Layout(
        {"means": "K, 3", "cov_tril": "K, 6", "weights": "K"},
        _of_factors("cov_tril", REGULARISATION),
        torch.sigmoid,
    ),
    Layout({"means": "K, 3", "log_scales": "K, 3", "weights": "K"}, _of_scales, torch.sigmoid),
    Layout(
        {"means_3d": "K, 3", "cov_tril_params": "K, 6", "features": "K, C"},
        _of_factors("cov_tril_params", 0.0),
        torch.relu,
    ),
    Layout({**_ROTATED, "log_amplitudes": "K"}, _of_quaternions, torch.exp),
    Layout({**_ROTATED, "log_intensities": "K"}, _of_quaternions, torch.sigmoid),
)
"""The notebook's models: field, diagonal field, splatting model, and two with quaternions."""


def read_checkpoint(
    path: str | os.PathLike[str],
    stack: StackFacts,
    *,
    box: ArrayLike | None = None,
    value_range: tuple[float, float] | None = None,
    channel: int | None = None,
) -> tuple[tuple[GaussianField, ...], tuple[str, ...]]:
    """Read Gaussians from a checkpoint of the notebook.

    Parameters
    ----------
    path : path-like
        A ``.pt`` or ``.pth`` file in one of `LAYOUTS`, plain or wrapped in a dictionary as
        ``model_state_dict`` or ``state_dict``.
    stack : StackFacts
        The stack that was fitted, onto whose box the checkpoint's is mapped. Where its range of
        intensities is not known, they stay in parts of it, from 0 to 1, and a note says so.
    box : array-like, shape [3, 2], optional
        Lower and upper end of x, y and z in the checkpoint's own lengths; what the file says
        as ``aabb`` by default, else the unit cube.
    value_range : tuple of float, optional
        The raw intensities that the checkpoint has as 0 and 1: its background, and that and an
        amplitude of 1. The stack's smallest and largest by default.
    channel : int, optional
        Which of the features to take for amplitudes; all by default, each a channel.

    Returns
    -------
    fields : tuple of GaussianField
        The Gaussians of each channel.
    notes : tuple of str
        What was assumed.

    Raises
    ------
    FormatError
        If there is no such file, it holds more than tensors and plain values, or is in none of
        the layouts; then the message has its keys and those expected.
    SettingsError
        If the box is none, or there is no such channel.
    """
    source = Path(path)
    with refusing(source, "a checkpoint of tensors, a .pt file"):
        contents = _loaded(source)
        tensors, layout = _recognised(source, contents)
        own, extent = _checked_box(source, contents.get("aabb", UNIT_CUBE))
    if box is not None:
        own, extent = _checked_box(source, box)
    means, *_, brightness = (tensors[name] for name in layout.shapes)
    channels = brightness[:1].numel()
    if channel is not None and not 0 <= channel < channels:
        raise SettingsError(f"channel={channel}: {source} has {channels}, from 0")
    spacing = np.asarray(stack.spacing)
    stretch = np.asarray(stack.shape) * spacing / extent
    known = stack.value_range if value_range is None else value_range
    low, high = known or (0.0, 1.0)
    with refusing(source, "a checkpoint of the notebook"):
        amplitudes = layout.brightness(brightness.double()).reshape(len(means), -1)
        chosen = amplitudes if channel is None else amplitudes[:, channel : channel + 1]
        gaussians = Gaussians.from_covariances(
            (means.double().numpy()[:, ::-1] - own) * stretch - spacing / 2,
            covariances_in_zyx(layout.covariances(tensors)) * np.outer(stretch, stretch),
            chosen[:, 0],
            background=low,
            unit=stack.unit,
        )
        fields = tuple(
            GaussianField.from_numpy(
                replace(gaussians, amplitudes=(high - low) * brightness.float().numpy())
            )
            for brightness in chosen.unbind(1)
        )
    return fields, (_RELATIVE,) if known is None else ()


def _loaded(path: Path) -> dict[str, Any]:
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "there is no such file"
        raise FormatError(f"{path}: {found}; expected a checkpoint, a .pt file")
    try:
        with warnings.catch_warnings(action="ignore"):  # of old formats and odd storages
            contents = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # as a damaged file lets torch stumble: KeyError, struct.error, ...
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise FormatError(
            f"{path}: is no checkpoint, is damaged, or holds more than tensors and plain values, "
            f"which are not unpickled here ({reason}); save its state_dict alone"
        ) from error
    if not isinstance(contents, dict):
        kind = type(contents).__name__
        raise FormatError(f"{path}: holds a {kind}; expected a dictionary of tensors")
    return contents


def _recognised(path: Path, contents: dict[str, Any]) -> tuple[dict[str, Tensor], Layout]:
    """Return the parameters and their layout, with the shapes that it asks for."""
    inner = next((contents[name] for name in _WRAPPERS if name in contents), contents)
    if not isinstance(inner, dict):
        raise FormatError(f"{path}: holds {shown(inner)} as state; expected a dictionary")
    for layout in LAYOUTS:
        if not set(layout.shapes) <= set(inner):
            continue
        tensors = {name: _dense(path, name, inner[name]) for name in layout.shapes}
        first = tensors[next(iter(layout.shapes))]
        count = len(first) if first.ndim else 0
        for name, shape in layout.shapes.items():
            wanted = [count if n == "K" else n for n in shape.split(", ")]
            found = list(tensors[name].shape)
            if len(found) != len(wanted) or any(
                n not in ("C", str(length), length) for n, length in zip(wanted, found, strict=True)
            ):
                raise FormatError(
                    f"{path}: its {name} has shape {found}, expected [{shape}] with K={count}"
                )
        return tensors, layout
    expected = ", or ".join(layout.described for layout in LAYOUTS)
    keys = ", ".join(map(str, [*inner][:12]))
    raise FormatError(
        f"{path}: has the keys {{{keys}}}; expected {expected}, plain or as "
        f"{' or '.join(_WRAPPERS)}"
    )


def _dense(path: Path, name: str, value: object) -> Tensor:
    """Return a tensor of real numbers that are there: neither sparse nor quantised nor without."""
    if not isinstance(value, torch.Tensor):
        raise FormatError(f"{path}: its {name} is {shown(value)}; expected a tensor")
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_complex():
        raise FormatError(
            f"{path}: its {name} is a tensor of {value.dtype}, {value.layout}, on {value.device}; "
            "expected a dense one of real numbers"
        )
    return value.detach().double()


def _checked_box(path: Path, box: ArrayLike | Tensor) -> tuple[Floats, Floats]:
    """Return the lower corner and the extent of a box, both z, y, x."""
    try:
        given = np.asarray(box)
        ends = given.astype(np.float64) if given.dtype.kind in "fiu" else np.empty(0)
    except (TypeError, ValueError, RuntimeError):
        ends = np.empty(0)
    if ends.shape != (3, 2) or not (np.isfinite(ends).all() and (ends[:, 1] > ends[:, 0]).all()):
        raise SettingsError(
            f"box={shown(box)} of {path}: expected lower and upper ends of x, y and z, e.g. "
            "[[0, 1], [0, 1], [0, 1]]"
        )
    return ends[::-1, 0], ends[::-1, 1] - ends[::-1, 0]
