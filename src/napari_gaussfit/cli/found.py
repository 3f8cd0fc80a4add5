"""``napari-gaussfit trace`` and ``cells``: objects in a fit, made first where a stack is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_gaussfit.cli import cells, fit, trace
from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.cli.inputs import loaded, opened, refuse_too_large
from napari_gaussfit.cli.options import (
    add_also,
    add_force,
    add_manner,
    add_out,
    add_settings,
    add_settings_file,
    add_stack_options,
    add_stacks,
)
from napari_gaussfit.cli.overwriting import refuse_further
from napari_gaussfit.cli.printing import answer, answering_elsewhere
from napari_gaussfit.cli.several import offer
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.jobs.settings_file import SETTINGS_NAME, write_settings

if TYPE_CHECKING:
    import argparse

__all__ = ["add_parsers", "run"]


EXAMPLES = """\
examples:
  napari-gaussfit {name} stack.tif -o {name}
  napari-gaussfit {name} out/fit.safetensors -o {name}
  napari-gaussfit {name} A.tif B.tif -o {name}"""


def add_parsers(commands: Any) -> None:
    """Add the commands that find objects in a fit."""
    for name, about, options, of in (
        (
            "trace", "trace neurites and write SWC, a table of branches and a picture", trace,
            "branches",
        ),
        ("cells", "group Gaussians into cells or nuclei; write labels and a table", cells, "cells"),
    ):  # fmt: skip
        found = commands.add_parser(name, help=about, epilog=EXAMPLES.format(name=name))
        add_stacks(found, fits=True)
        add_out(found)
        add_settings_file(found)
        options.add_options(found)
        add_also(found, options.ALSO)
        add_settings(found, gaussians=options.GAUSSIANS)
        add_stack_options(found)
        found.add_argument(
            "--region", type=int, nargs=6, metavar=("Z", "Y", "X", "Z2", "Y2", "X2"),
            help="of a fit by tiles a part alone: its first voxel, and the one behind its last "
            "(all of it)",
        )  # fmt: skip
        found.add_argument(
            "--resume", action="store_true", help="of several files, keep those done before"
        )
        add_force(found)
        add_manner(found)
        found.set_defaults(command=name, options=options)
        offer(found, run, of, fits=True)


def run(arguments: argparse.Namespace) -> int:
    """Find objects in a fit, made first where a stack is given, and write them into a folder."""
    from napari_gaussfit.formats.registry import FIT_NAME, FIT_READERS
    from napari_gaussfit.formats.tiled import holds_tiles
    from napari_gaussfit.jobs.fit_folder import checked_folder, holds_fit
    from napari_gaussfit.jobs.overwriting import refuse_to_replace

    given, folder = arguments.stack, checked_folder(arguments.out)
    refuse_further(arguments, arguments.options.WRITERS)
    targets = [folder / name for name in arguments.options.outputs(arguments)]
    refuse_to_replace(targets, force=arguments.force)
    if given.suffix.lower() in FIT_READERS or holds_fit(given) or holds_tiles(given):
        saved = loaded(given, region=arguments.region)
    elif arguments.region is not None:
        raise SettingsError(f"--region: {given} is no fit by tiles; fit it first, or leave it out")
    else:
        if arguments.gaussians is None:
            refuse_too_large(given, 1, arguments.position)
            arguments.gaussians = arguments.options.gaussians_for(opened(arguments, given)[0])
            arguments.exactly = True
        with answering_elsewhere():
            code = fit.run(arguments)
        if code != Exit.DONE:
            return code
        saved = loaded(folder / FIT_NAME)
    if len(saved.fields) > 1:
        raise SettingsError(
            f"{given}: is a fit of {len(saved.fields)} channels; give a fit of one of them, or "
            "the stack with --channel"
        )
    folder.mkdir(parents=True, exist_ok=True)
    answer({"out": str(folder)} | arguments.options.write(saved, arguments, folder))
    write_settings(folder / SETTINGS_NAME, arguments.asked, arguments.command)
    return Exit.DONE
