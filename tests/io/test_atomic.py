"""A file appears whole under its name, or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from napari_gaussfit.errors import OutputError
from napari_gaussfit.io.atomic import replacing

if TYPE_CHECKING:
    from pathlib import Path


def test_the_file_appears_when_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "fit.safetensors"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == path.suffix
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_what_was_there(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "fit.csv"
    path.write_text("old")

    def fail_halfway() -> None:
        with replacing(path) as temporary:
            temporary.write_text("ha")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_share_a_temporary_name(tmp_path: Path) -> None:
    path = tmp_path / "fit.ome.tif"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        assert first.name.endswith(".ome.tif")
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "volume.zarr"
    for text in ("first", "second"):
        with replacing(path) as temporary:
            (temporary / "0").mkdir(parents=True)
            (temporary / "0" / text).write_text(text)
        assert [inner.name for inner in (path / "0").iterdir()] == [text]

    def fail_halfway() -> None:
        with replacing(path) as temporary:
            temporary.mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_halfway()
    assert (path / "0" / "second").read_text() == "second"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_the_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    with replacing(tmp_path / "ours") as temporary:
        temporary.write_text("")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="there is no folder"),
        replacing(tmp_path / "no" / "fit.csv"),
    ):
        pass
