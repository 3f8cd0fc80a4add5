"""Small TIFF files, and how a file is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import tifffile

from napari_gaussfit.errors import StackError
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture
def refusal() -> Callable[..., str]:
    """Open a file that must be refused, and return the one line that says why."""

    def refuse(path: Path, **options: Any) -> str:
        with pytest.raises(StackError) as error:
            Stack.open(path, **options)
        text = str(error.value)
        assert "\n" not in text, "an error is one line"
        assert text.startswith(f"{path}: "), "an error begins with the file"
        return text

    return refuse


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Write an array with tifffile's options, and return the file."""

    def write(voxels: NDArray[Any], **options: Any) -> Path:
        path = tmp_path / "stack.tif"
        tifffile.imwrite(path, voxels, photometric="minisblack", **options)
        return path

    return write
