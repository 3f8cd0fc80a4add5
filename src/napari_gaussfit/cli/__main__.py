"""``python -m napari_gaussfit.cli`` is ``napari-gaussfit``."""

import sys

from napari_gaussfit.cli.commands import program

sys.exit(program())
