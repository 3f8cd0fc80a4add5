"""What commands read: stacks, fits and points, checked before anything is computed."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING

from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.settings import FitSettings
    from napari_gaussfit.stacks.facts import StackFacts
    from napari_gaussfit.stacks.stack import Stack

    Points = NDArray[np.float64] | None

_LOG = logging.getLogger(__name__)

__all__ = [
    "loaded",
    "opened",
    "points_in",
    "refuse_missing_device",
    "refuse_too_large",
    "say_note",
    "start_in",
]


def say_note(line: str) -> None:
    """Say what was assumed."""
    print(f"note: {line}", file=sys.stderr)


def opened(arguments: argparse.Namespace, path: Path) -> tuple[Stack, ...]:
    """Return the channels that were chosen, or the one that there is."""
    from napari_gaussfit.stacks.stack import Stack

    began = time.perf_counter()
    stacks = tuple(
        Stack.open(
            path,
            channel=channel,
            time=arguments.time,
            position=arguments.position,
            spacing=arguments.spacing,
            fill_nan=arguments.fill_nan,
        )
        for channel in arguments.channel or (None,)
    )
    seconds, shape = time.perf_counter() - began, " x ".join(map(str, stacks[0].shape))
    what = f"{len(stacks)} channels" if len(stacks) > 1 else "a stack"
    _LOG.info("read %s: %s of %s voxels, in %.2f s", path, what, shape, seconds)
    return stacks


def points_in(path: Path | None, stack: Stack) -> Points:
    """Return the positions in a table, None where none is given."""
    from napari_gaussfit.formats.csv import read_points

    return None if path is None else read_points(path, stack)


def start_in(path: Path | None, stacks: tuple[Stack, ...]) -> tuple[GaussianField, ...] | None:
    """Return the Gaussians of a fit of such a stack as this one."""
    if path is None:
        return None
    saved, stack = loaded(path, stacks[0].facts), stacks[0]
    for what, found, wanted in (
        ("shape", saved.stack.shape, stack.shape),
        ("spacing", saved.stack.spacing, stack.spacing),
        ("unit", saved.stack.unit, stack.unit),
        ("number of channels", len(saved.fields), len(stacks)),
    ):
        if found != wanted:
            raise SettingsError(
                f"--refine {path}: is the fit of a stack of {what} {found}, this one's is {wanted};"
                " give a fit of this stack, or of one like it"
            )
    return saved.fields


def loaded(
    path: Path, stack: StackFacts | None = None, region: Sequence[int] | None = None
) -> FitResult:
    """Read a fit, of one by tiles maybe a region alone, and say what was assumed."""
    from napari_gaussfit.fitting.result import load
    from napari_gaussfit.formats.tiled import holds_tiles

    if region is None:
        saved = load(path, stack)
    elif holds_tiles(path):
        saved = load(path, region=(tuple(region[:3]), tuple(region[3:])))
    else:
        raise SettingsError(
            f"--region: {path} is no fit by tiles, of which alone a part can be read; leave it out"
        )
    for note in saved.notes:
        say_note(note)
    return saved


def refuse_missing_device(settings: FitSettings) -> None:
    """Refuse a device that this machine lacks."""
    from napari_gaussfit._kernels import device_named

    device_named(settings.device)


def refuse_too_large(path: Path, channels: int, position: int | None) -> None:
    """Refuse a stack whose fit has no room, before its voxels are read."""
    from napari_gaussfit.fitting.memory import refuse_what_memory_cannot_hold
    from napari_gaussfit.stacks.readers import read_layout

    layout = read_layout(path, position=position)
    depth, rows, columns = layout.stack_shape
    nbytes = channels * layout.stack_nbytes
    refuse_what_memory_cannot_hold(str(path), (channels * depth, rows, columns), nbytes)
