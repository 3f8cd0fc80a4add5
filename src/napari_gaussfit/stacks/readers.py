"""Which module reads a file of a stack, and what it is asked: the layout, then the voxels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from napari_gaussfit.errors import StackError, StackNotFoundError
from napari_gaussfit.stacks.reading import refusing
from napari_gaussfit.stacks.zarr_paths import is_zarr, zarr_name

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from napari_gaussfit.stacks.layout import StackLayout

__all__ = ["STACK_SUFFIXES", "is_stack_file", "read_layout", "read_voxels", "stack_name"]

_TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf2", ".tf8", ".stk", ".lsm")

_ZARR_SUFFIXES = (".zarr", ".zarr.zip", ".ozx")

STACK_SUFFIXES = (*_TIFF_SUFFIXES, *_ZARR_SUFFIXES)
"""The suffixes of files that `Stack.open` reads; what is Zarr by its contents may have any name."""

_MICROSCOPES = {
    ".czi": "Zeiss",
    ".nd2": "Nikon",
    ".lif": "Leica",
    ".ims": "Imaris",
    ".oib": "Olympus",
    ".oir": "Olympus",
    ".vsi": "Olympus",
    ".dv": "DeltaVision",
}
"""Suffixes of files that other plugins of napari read."""


def read_layout(path: str | os.PathLike[str], *, position: int | None = None) -> StackLayout:
    """Read what a file says about its stack: axes, sizes, spacing, unit, channels; no voxels.

    Parameters
    ----------
    path : path-like
        A file that `Stack.open` reads.
    position : int, optional
        Which image of the file, as for `Stack.open`.

    Returns
    -------
    StackLayout
        What `Stack.open` goes by.

    Raises
    ------
    StackNotFoundError
        If there is no such file.
    StackError
        If it holds no 3D stack.
    """
    source = Path(path)
    with refusing(source, "a stack", StackError):
        return _reader_of(source).read_layout(source, position=position)


def read_voxels(
    layout: StackLayout, *, channel: int | None = None, time: int | None = None
) -> NDArray[Any]:
    """Read one channel at one time.

    Parameters
    ----------
    layout : StackLayout
        The file's axes, spacing and choices, as `read_layout` returns them.
    channel, time : int, optional
        Which one; must be given where the file has several.

    Returns
    -------
    ndarray, shape [Z, Y, X]
        The voxels, in the file's type.

    Raises
    ------
    StackError
        If a choice is missing or not on offer, there is not enough memory, or the data cannot be
        decoded.
    """
    with refusing(layout.path, "a stack", StackError):
        return _reader_of(layout.path).read_voxels(layout, channel=channel, time=time)


def is_stack_file(path: str | os.PathLike[str]) -> bool:
    """Tell whether `Stack.open` reads a file or folder: TIFF goes by name, Zarr by contents.

    Parameters
    ----------
    path : path-like
        It need not exist: then its name tells.

    Returns
    -------
    bool
        Whether it is one; whether it can be read is another matter.
    """
    return _is_tiff(Path(path)) or is_zarr(Path(path))


def stack_name(path: Path) -> str:
    """Return what to call the stack in a file.

    Parameters
    ----------
    path : Path
        The file or folder.

    Returns
    -------
    str
        Its name without suffixes; inside of a Zarr with the place there, as in "plate A 1 0".
    """
    return zarr_name(path) if is_zarr(path) else path.stem.removesuffix(".ome")


class _StackReader(Protocol):
    """What a module of `io` that reads stacks offers."""

    def read_layout(self, path: Path, *, position: int | None = None) -> StackLayout: ...

    def read_voxels(
        self, layout: StackLayout, *, channel: int | None = None, time: int | None = None
    ) -> NDArray[Any]: ...


def _reader_of(path: Path) -> _StackReader:
    """Return the module that reads files with the suffix of `path`."""
    if _is_tiff(path):
        from napari_gaussfit.stacks import tiff

        return tiff
    if is_zarr(path):
        from napari_gaussfit.stacks import ome_zarr

        return ome_zarr
    if not path.exists():
        raise StackNotFoundError(f"{path}: there is no such file; check the path")
    maker = _MICROSCOPES.get(path.suffix.lower())
    if maker is not None:
        raise StackError(
            f"{path}: has the suffix {path.suffix!r}, a format of {maker} that is not read here; "
            "open it in napari with a plugin that reads it and fit the layer in the panel, or save "
            "it as OME-TIFF (.ome.tiff), e.g. in Fiji"
        )
    kind = "is a folder" if path.is_dir() else f"has the suffix {path.suffix!r}"
    raise StackError(f"{path}: {kind}; expected a name that ends in {', '.join(STACK_SUFFIXES)}")


def _is_tiff(path: Path) -> bool:
    return path.suffix.lower() in _TIFF_SUFFIXES
