"""What `napari-gaussfit info` says of this machine, of a stack and of a fit: names and values."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_gaussfit.cli import tiles
from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.cli.inputs import loaded, opened
from napari_gaussfit.cli.options import add_manner, add_stack_options
from napari_gaussfit.cli.printing import answer
from napari_gaussfit.errors import SettingsError, StackError
from napari_gaussfit.stacks.large import is_large

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.stacks.layout import StackLayout
    from napari_gaussfit.stacks.lazy import LazyStack
    from napari_gaussfit.stacks.stack import Stack

__all__ = [
    "add_parser",
    "how_many",
    "of_choices",
    "of_fit",
    "of_large_stack",
    "of_layout",
    "of_machine",
    "of_stack",
    "of_tiles",
    "open_choice",
    "run",
]

Lines = list[tuple[str, Any]]
"""Names, and words or numbers: printed short, and in JSON as they are."""


SEVERAL = ("note", "failed")
"""Names that there may be several of."""


COUNTS = ("gaussians", "iterations")
"""Names of numbers that are grouped by thousands for a person."""


EXAMPLES = """\
examples:
  napari-gaussfit info
  napari-gaussfit info stack.tif --json
  napari-gaussfit info out"""


def add_parser(commands: Any) -> None:
    """Add the command to a command line."""
    info = commands.add_parser(
        "info", help="say what this machine, a stack or a fit is", epilog=EXAMPLES
    )
    info.add_argument(
        "path", metavar="STACK|FIT", type=Path, nargs="?", help="none, for what this machine is"
    )
    add_stack_options(info)
    info.add_argument(
        "--how-many",
        action="store_true",
        help="look coarsely how many Gaussians a stack would carry, and what others would cost",
    )
    add_manner(info)
    info.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Say what this machine, a stack or a fit is, and return the exit code."""
    lines = _lines(arguments)
    if arguments.how_many:
        raise SettingsError(
            f"--how-many: {arguments.path or 'this machine'} is no single stack that is looked at "
            "whole; give one, with --channel and --time where it has several"
        )
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        sys.stdout.write(f"{name:<{width}}  {_words(value, grouped=name in COUNTS)}\n")
    answer(_object_of(lines))
    return Exit.DONE


def _words(value: Any, *, grouped: bool = False) -> str:
    """Return a value for a person, a count grouped by thousands."""
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    if grouped and isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _object_of(lines: Lines) -> dict[str, Any]:
    """Return names and values as JSON has them: notes, of which there may be several, as a list."""
    told: dict[str, Any] = {}
    for name, value in lines:
        key = name.replace(" ", "_")
        if key in SEVERAL:
            told.setdefault(f"{key}s" if key == "note" else key, []).append(value)
        else:
            told[key] = value
    return told


def _lines(arguments: argparse.Namespace) -> Lines:
    from napari_gaussfit.formats.registry import FIT_READERS
    from napari_gaussfit.formats.tiled import holds_tiles
    from napari_gaussfit.stacks.readers import is_stack_file, read_layout

    path = arguments.path
    if path is None:
        return of_machine()
    if holds_tiles(path):
        return of_tiles(path)
    if path.suffix.lower() in FIT_READERS or (path.is_dir() and not is_stack_file(path)):
        return of_fit(loaded(path))
    layout = read_layout(path, position=arguments.position)
    lines = of_layout(layout)
    [channel] = arguments.channel or [None]
    choice = open_choice(layout, channel, arguments.time)
    if choice:
        notes = (("note", note) for note in layout.notes)
        return [*lines, *of_choices(layout, arguments.spacing), ("to choose", choice), *notes]
    if is_large(layout.stack_shape):
        return lines + of_large_stack(tiles.opened(arguments, path, channel))
    [stack] = opened(arguments, path)
    lines += of_stack(stack)
    if arguments.how_many:
        lines += how_many(stack)
        arguments.how_many = False  # which tells that it was done
    return lines


def of_machine() -> Lines:
    """Return version, backend and why it is that, cores and memory."""
    import platform
    from importlib.metadata import version

    import psutil
    import torch

    from napari_gaussfit._kernels import backend_name, why_not
    from napari_gaussfit._threads import thread_count

    memory = psutil.virtual_memory()
    reason = why_not()
    device = torch.device("cuda" if reason is None else "cpu")
    place = "the CPU" if reason is not None else torch.cuda.get_device_name()
    lines = [
        ("version", version("napari-gaussfit")),
        ("python", f"{platform.python_version()}, torch {torch.__version__}"),
        ("backend", f"{backend_name(device)}, on {place}"),
    ]
    if reason is not None:
        lines.append(("not cuda", reason))
    return [
        *lines,
        ("kernels", _where_kernels_are()),
        ("cores", str(thread_count())),
        ("memory", f"{memory.total / 1e9:.1f} GB, {memory.available / 1e9:.1f} GB free"),
    ]


def _where_kernels_are() -> str:
    """Return the folder of the compiled kernels, and why it is a temporary one if it is."""
    from napari_gaussfit._kernels import kernel_folder

    folder, temporary = kernel_folder()
    if temporary:
        return (
            f"kept in {folder}, until that is cleared: neither the installation nor the home "
            "can be written; NUMBA_CACHE_DIR names another folder"
        )
    return f"kept in {folder}"


def of_layout(layout: StackLayout) -> Lines:
    """Return what a stack's file says, without reading its voxels."""
    sizes = ", ".join(f"{axis.lower()} {size}" for axis, size in layout.sizes.items())
    return [
        ("stack", str(layout.path)),
        ("format", f"{layout.container}, {sizes}, {layout.dtype}"),
    ]


def open_choice(layout: StackLayout, channel: int | None, time: int | None) -> str | None:
    """Return which choice of channel or time is still to be made, None when none is."""
    several = (layout.channels > 1 and channel is None) or (layout.times > 1 and time is None)
    if not several:
        return None
    try:
        layout.choose(channel, time)
    except StackError as error:
        return str(error).removeprefix(f"{layout.path}: ")
    return None


def of_choices(layout: StackLayout, given: list[float] | None) -> Lines:
    """Return what is the same for all channels and times that are still to be chosen from."""
    lines = [("shape", f"{' x '.join(map(str, layout.stack_shape))} voxels (z, y, x)")]
    if given is not None:
        lines.append(("spacing", _lengths(tuple(given), "micrometer")))
    elif all(layout.voxel_size):
        lines.append(("spacing", _lengths(layout.voxel_size, "micrometer")))
    else:
        lines.append(("spacing", "not in the file; --spacing DZ DY DX gives it"))
    if layout.channels > 1:
        names = layout.channel_names or [""] * layout.channels
        channels = (f"{n} {name}".strip() for n, name in enumerate(names))
        lines.append(("channels", ", ".join(channels)))
    if layout.times > 1:
        lines.append(("times", f"0 to {layout.times - 1}"))
    return lines


def of_stack(stack: Stack) -> Lines:
    """Return shape, spacing, intensities, noise, a count of Gaussians, and what was assumed."""
    from napari_gaussfit.fitting.memory import predict_device_memory, predict_memory
    from napari_gaussfit.measure.photon_transfer import photon_transfer
    from napari_gaussfit.settings import FitSettings

    lowest, highest = stack.value_range
    needed = predict_memory(stack.voxels.size, stack.nbytes, FitSettings())
    on_device = predict_device_memory(stack.voxels.size, FitSettings())
    lines = [
        ("shape", f"{' x '.join(map(str, stack.shape))} voxels (z, y, x)"),
        ("spacing", _lengths(stack.spacing, stack.unit)),
        *([("origin", _lengths(stack.origin, stack.unit))] if any(stack.origin) else []),
        ("intensity", f"{lowest:g} to {highest:g}"),
        ("noise", photon_transfer(stack.voxels).words),
        ("gaussians", "as many as the noise carries, which a fit finds out"),
        (
            "memory",
            f"a fit takes about {needed / 1e9:.2g} GB; of a GPU's {on_device / 1e9:.2g} GB",
        ),
    ]
    return lines + [("note", note) for note in stack.notes]


def how_many(stack: Stack) -> Lines:
    """Return what numbers of Gaussians would reach, a line each."""
    from napari_gaussfit.fitting.outlook import outlook

    found = outlook(stack)
    rows = zip(found.counts, found.psnr, found.psnr_error, found.noise_share, strict=True)
    return [
        ("looked at", found.looked_at),
        ("how many", found.words),
        ("noise leaves", f"{found.noise_psnr:.1f} dB"),
        *(
            (f"{count:,}", f"{psnr:.1f} ± {error:.1f} dB; noise, of what is added: {share:.0%}")
            for count, psnr, error, share in rows
        ),
    ]


def of_large_stack(stack: LazyStack) -> Lines:
    """Return what a sample tells of a stack that is not read whole, and how that was drawn."""
    import numpy as np

    from napari_gaussfit.measure.photon_transfer import photon_transfer
    from napari_gaussfit.stacks.statistics import background_of

    sample = stack.sample()
    lowest, highest = sample.value_range
    return [
        ("shape", f"{' x '.join(map(str, stack.shape))} voxels (z, y, x)"),
        ("spacing", _lengths(stack.spacing, stack.facts.unit)),
        ("looked at", sample.words),
        ("intensity", f"{lowest:g} to {highest:g}"),
        ("background", f"{background_of(sample.smoothed())[0]:.6g}"),
        ("noise", photon_transfer(np.concatenate(sample.boxes)).words),
        ("gaussians", "as many as the noise carries; a fit goes by tiles"),
        *(("note", note) for note in stack.notes),
    ]


def _lengths(lengths: Sequence[float | None], unit: str) -> str:
    return f"{' x '.join(f'{length:g}' for length in lengths)} {unit}"


def of_fit(fit: FitResult) -> Lines:
    """Return a fit's report, or how far it has come."""
    stack, backgrounds = fit.stack, [float(field.background) for field in fit.fields]
    lines: Lines = [
        ("stack", stack.name),
        ("shape", f"{' x '.join(map(str, stack.shape))} voxels (z, y, x)"),
        ("spacing", _lengths(stack.spacing, stack.unit)),
        ("gaussians", len(fit.field)),
        ("background", backgrounds if len(backgrounds) > 1 else backgrounds[0]),
    ]
    if len(fit.fields) > 1:
        lines.append(("channels", f"{len(fit.fields)}, an amplitude in each"))
    lines += [("note", note) for note in fit.notes]
    if fit.settings is None:  # from a format that has the Gaussians alone
        return lines
    if not fit.reports:
        steps = fit.history.get("iteration") or [0]
        return [*lines, ("unfinished", f"after step {steps[-1]:.0f} or more; --resume goes on")]
    told = {name for name, _ in lines} | {"unit", "notes"}
    report = fit.report.to_dict()
    return [
        *lines,
        *(
            (name, value)
            for name, value in report.items()
            if name not in told and value not in (None, "") and not _is_nan(value)
        ),
        *(("note", note) for note in report["notes"]),
    ]


def of_tiles(path: Path) -> Lines:
    """Return the report of a fit by tiles, without reading its Gaussians."""
    from napari_gaussfit.formats.tiled import read_index

    stack, _, report = read_index(path)
    return [
        ("stack", stack.name),
        ("shape", f"{' x '.join(map(str, stack.shape))} voxels (z, y, x)"),
        ("spacing", _lengths(stack.spacing, stack.unit)),
        *(
            (name, value)
            for name, value in report.items()
            if name not in {"failed", "notes"} and value is not None
        ),
        *(("note", note) for note in report.get("notes", ())),
        *(("failed", f"{tile}: {why}") for tile, why in report["failed"].items()),
    ]


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
