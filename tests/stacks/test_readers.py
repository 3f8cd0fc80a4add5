"""What a file is goes by its name, or by its contents; what is read by no module is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from one_line import message_of

from napari_gaussfit.errors import (
    StackError,
    StackNotFoundError,
)
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["absent.tif", "absent.png", "absent"])
def test_a_missing_file_is_said_to_be_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(StackNotFoundError) as error:
        Stack.open(tmp_path / name)
    assert message_of(error).startswith(f"{tmp_path / name}: there is no such file")


def test_a_file_of_another_kind_is_refused_with_the_suffixes_that_are_read(tmp_path: Path) -> None:
    path = tmp_path / "stack.h5"
    path.write_bytes(b"\x89HDF")
    with pytest.raises(StackError) as error:
        Stack.open(path)
    assert "'.h5'" in message_of(error)
    assert ".tiff" in message_of(error)


@pytest.mark.parametrize("suffix", [".czi", ".nd2", ".lif", ".ims", ".CZI"])
def test_a_microscopes_own_format_says_where_it_can_be_opened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"stack{suffix}"
    path.write_bytes(b"ZISRAWFILE")
    with pytest.raises(StackError) as error:
        Stack.open(path)
    assert repr(suffix) in message_of(error)
    assert "open it in napari with a plugin that reads it and fit the layer" in message_of(error)
    assert "OME-TIFF" in message_of(error)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="is a folder"):
        Stack.open(tmp_path)
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(StackError, match="is a folder"):
        Stack.open(tmp_path / "folder.tif")
