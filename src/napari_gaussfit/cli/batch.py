"""``napari-gaussfit batch``: fits of many stacks."""

from __future__ import annotations

from typing import Any

from napari_gaussfit.cli import fit
from napari_gaussfit.cli.several import offer

__all__ = ["add_parser"]

ABOUT = """\
Fit many stacks: the same as napari-gaussfit fit of several files, of a folder, or of a pattern
(which Windows' own prompt leaves to programs), also where it comes to one file.

OUT gets a folder for each file, called like the file, with all that fit leaves, and summary.csv, a
row a file: its state, the number of Gaussians, quality, and why it failed. One that fails does not
stop the rest. --resume keeps what was done before with the same settings, and does what is missing.
Exit codes: 0 all are done, 2 nothing was begun, 3 some failed, 130 interrupted.

spots, cells and trace take several files in the same way."""

EXAMPLES = """\
examples:
  napari-gaussfit batch plate -o fits --quality preview
  napari-gaussfit batch A.tif B.tif 'plate/*.tif' -o fits --settings out/settings.toml
  napari-gaussfit batch plate -o fits --resume"""


def add_parser(commands: Any) -> None:
    """Add the command to a command line."""
    parser = commands.add_parser(
        "batch", help="fit many stacks, a folder each and one table", description=ABOUT,
        epilog=EXAMPLES,
    )  # fmt: skip
    fit.add_options(parser)
    parser.set_defaults(also=())  # which is of one recording
    offer(parser, fit.run, "Gaussians", always=True)
