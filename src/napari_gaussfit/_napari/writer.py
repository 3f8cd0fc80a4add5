"""napari's way to save a Points layer that carries a fit, as its points are now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_gaussfit._napari.layers.edited import fit_of_points
from napari_gaussfit.errors import FitError, SettingsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.fitting.result import FitResult

__all__ = ["save_fit_as", "write_fit"]


def write_fit(path: str, data: NDArray[Any], keywords: dict[str, Any]) -> list[str]:
    """Write the fit in the format that the file's suffix asks for, see `formats.registry`.

    The native file is the one from which a fit can be gone on with.

    Parameters
    ----------
    path : str
        The file to write or to replace.
    data, keywords
        Of the Points layer, as in its layer data tuple.

    Raises
    ------
    FitError
        If the layer carries no fit.
    OutputError
        If the folder does not exist.
    """
    save_fit_as(path, _fit_of(data, keywords))
    return [path]


def save_fit_as(path: str, fit: FitResult) -> None:
    """Write a fit in the format of a path's suffix; volumes are rendered in another process.

    Raises
    ------
    FitError
        If it cannot be rendered.
    OutputError
        If there is no such format, or no such folder.
    """
    from napari_gaussfit.formats import registry
    from napari_gaussfit.jobs.renderer import rendered

    if Path(path).suffix.lower() in registry.VOLUME_SUFFIXES:
        registry.write_volume(path, rendered(fit.fields, fit.stack), fit.stack)
    else:
        fit.export(path)


def _fit_of(data: NDArray[Any], keywords: dict[str, Any]) -> FitResult:
    try:
        return fit_of_points(data, keywords)
    except SettingsError as error:
        # napari takes a ValueError to mean that there is no writer, and never shows its message.
        raise FitError(str(error)) from error
