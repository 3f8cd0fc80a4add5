"""Writing figures."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from napari_gaussfit.files import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

__all__ = ["draw"]

COMPRESSION = 3
"""Of PNG files: a third of the time of the usual 6, for files a tenth larger."""


def draw(path: Path, figure: Figure) -> None:
    """Write a figure as a file.

    Parameters
    ----------
    path : Path
        The file to write or to replace.
    figure : Figure
        The matplotlib figure that is drawn and written.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with replacing(path) as temporary, warnings.catch_warnings():
        # A stack's name may be in a script that the font lacks; the title shows boxes then.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        figure.savefig(temporary, pil_kwargs={"compress_level": COMPRESSION})
