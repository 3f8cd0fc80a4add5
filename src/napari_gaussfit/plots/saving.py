"""Writing figures."""

from __future__ import annotations

import io
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_gaussfit.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.figure import Figure

__all__ = ["COMPRESSION", "any_script", "draw", "png", "write_picture"]

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
    write_picture(path, png(figure))


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file.

    Parameters
    ----------
    figure : Figure
        The matplotlib figure that is drawn.
    """
    buffer = io.BytesIO()
    with any_script():
        figure.savefig(buffer, format="png", pil_kwargs={"compress_level": COMPRESSION})
    return buffer.getvalue()


@contextmanager
def any_script() -> Iterator[None]:
    """Let a stack's name be in a script that the font lacks: the title shows boxes then."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        yield


def write_picture(path: Path, drawn: bytes) -> None:
    """Write a picture that is drawn as a file.

    Parameters
    ----------
    path : Path
        The file to write or to replace.
    drawn : bytes
        The bytes that `png` returned.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(drawn)
