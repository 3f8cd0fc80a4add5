"""The command line: fits, and what is made of them, from a terminal."""

from napari_gaussfit.cli.commands import main, program

__all__ = ["main", "program"]
