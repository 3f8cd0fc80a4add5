"""``napari-gaussfit export``: a fit in another format."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_gaussfit.cli import tiles
from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.cli.inputs import loaded, opened
from napari_gaussfit.cli.options import add_force, add_manner, add_stack_options
from napari_gaussfit.cli.overwriting import refuse_to_destroy
from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    import argparse

    from napari_gaussfit.stacks.facts import StackFacts

__all__ = ["add_parser", "run"]


EXAMPLES = """\
examples:
  napari-gaussfit export out -o gaussians.ply
  napari-gaussfit export out -o residual.ome.tif --stack stack.tif --residual"""


def add_parser(commands: Any) -> None:
    """Add the command to a command line."""
    export = commands.add_parser("export", help="write a fit in another format", epilog=EXAMPLES)
    export.add_argument(
        "fit", metavar="FIT", type=Path,
        help="fit.safetensors, or its folder; or .ply; with its stack or box, .csv or .pt",
    )  # fmt: skip
    export.add_argument(
        "-o", "--out", metavar="FILE", type=Path, required=True,
        help=".csv (table), .ply (Gaussians), .ome.tif or .ome.zarr (volume), .safetensors",
    )  # fmt: skip
    of = export.add_mutually_exclusive_group()
    of.add_argument("--stack", metavar="STACK", type=Path, help="the stack that was fitted (none)")
    of.add_argument(
        "--box", type=float, nargs=3, metavar=("Z", "Y", "X"),
        help="in place of --stack, with --spacing: its size in micrometers (none)",
    )  # fmt: skip
    export.add_argument(
        "--residual", action="store_true", help="write the stack minus the fit, as a volume"
    )
    add_stack_options(export, several=True)
    add_force(export)
    add_manner(export, json=False)
    export.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write a fit in another format, and return the exit code."""
    _export(arguments)
    sys.stdout.write(f"wrote {arguments.out}\n")
    return Exit.DONE


def _export(arguments: argparse.Namespace) -> None:
    from napari_gaussfit.formats.registry import writer_of

    writer_of(arguments.out)
    refuse_to_destroy(arguments, arguments.stack)
    if not arguments.residual and tiles.exported(arguments.fit, arguments.out):
        return
    if arguments.residual and arguments.stack and tiles.residual_exported(arguments):
        return
    stacks = () if arguments.stack is None else opened(arguments, arguments.stack)
    saved = loaded(arguments.fit, stacks[0].facts if stacks else given_box(arguments))
    if not arguments.residual:
        saved.export(arguments.out)
        return
    if not stacks:
        raise SettingsError("--residual needs the stack that was fitted; give it too (--stack)")
    saved.export(arguments.out, residual_of=stacks)


def given_box(arguments: argparse.Namespace) -> StackFacts | None:
    """Return the stack that --box and --spacing describe, for fits that do not tell theirs."""
    from napari_gaussfit.stacks.facts import StackFacts

    if arguments.box is None:
        if (arguments.spacing, arguments.channel, arguments.time) != (None, None, None):
            raise SettingsError(
                "--spacing, --channel and --time are about a stack; give it too (--stack)"
            )
        return None
    if arguments.spacing is None:
        raise SettingsError("--box needs --spacing DZ DY DX too: they make the number of voxels")
    return StackFacts.of_size(arguments.fit.stem, arguments.box, arguments.spacing)
