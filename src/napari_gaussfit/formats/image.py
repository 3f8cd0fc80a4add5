"""Projections to files: TIFF in raw intensity, PNG to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.errors import OutputError
from napari_gaussfit.files import replacing

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

__all__ = ["IMAGE_SUFFIXES", "checked_image_path", "write_image"]

IMAGE_SUFFIXES = (".tif", ".tiff", ".png")


def checked_image_path(path: str | os.PathLike[str]) -> Path:
    """Return a path under which an image can be written.

    Parameters
    ----------
    path : path-like
        The name of an image.

    Returns
    -------
    Path
        The same.

    Raises
    ------
    OutputError
        If its suffix is that of no image, or there is no such folder.
    """
    target = Path(path)
    if target.suffix.lower() not in IMAGE_SUFFIXES:
        raise OutputError(
            f"{target}: has the suffix {target.suffix!r}; expected {', '.join(IMAGE_SUFFIXES)}"
        )
    if not target.parent.is_dir():
        raise OutputError(
            f"{target}: there is no folder {target.parent} to write into; create it first"
        )
    return target


def write_image(
    path: str | os.PathLike[str],
    image: NDArray[np.float32],
    *,
    pixel: tuple[float, float],
    unit: str,
) -> None:
    """Write an image: a TIFF of 32-bit reals with its pixel size, or a PNG from black to white.

    Parameters
    ----------
    path : path-like
        The file; its suffix chooses.
    image : ndarray, shape [H, W]
        Raw intensity. A PNG's grey runs from its smallest to its largest value.
    pixel : tuple of float
        Height and width of a pixel in `unit`.
    unit : str
        Unit of length of the spacing: "micrometer" or "pixel".

    Raises
    ------
    OutputError
        See `checked_image_path`.
    """
    target = checked_image_path(path)
    with replacing(target) as temporary:
        if target.suffix.lower() == ".png":
            _write_png(temporary, image)
        else:
            _write_tiff(temporary, image, pixel, unit)


def _write_png(path: Path, image: NDArray[np.float32]) -> None:
    from matplotlib.image import imsave

    imsave(path, np.asarray(image), cmap="gray", format="png")


def _write_tiff(
    path: Path, image: NDArray[np.float32], pixel: tuple[float, float], unit: str
) -> None:
    import tifffile

    height, width = pixel
    tifffile.imwrite(
        path,
        np.asarray(image, dtype=np.float32),
        imagej=True,
        resolution=(1 / width, 1 / height),
        metadata={"axes": "YX", "unit": "um" if unit == "micrometer" else "pixel"},
    )
