"""A batch: which files are meant, where they go, that one's fault is its own, what is kept."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from napari_gaussfit.errors import FormatError, OutputError, SettingsError, StackError
from napari_gaussfit.jobs.batch import (
    SUMMARY_NAME,
    Batch,
    Item,
    Row,
    RowState,
    Stopped,
    expanded,
    figures_of,
    is_several,
    items_of,
)
from napari_gaussfit.jobs.settings_file import (
    SETTINGS_NAME,
    difference,
    read_settings,
    write_settings,
)

ASKED = {"gaussians": 4, "quality": "fine", "channel": None}


@pytest.fixture
def plate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with stacks, one of them in a folder of its own, and a note."""
    (tmp_path / "plate" / "more").mkdir(parents=True)
    for name in ("B.tif", "A.ome.tif", "notes.txt", "more/A.tif"):
        (tmp_path / "plate" / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    return Path("plate")


def summary(out: Path) -> list[dict[str, str]]:
    with (out / SUMMARY_NAME).open(newline="") as file:
        return list(csv.DictReader(file))


def test_folders_and_patterns_are_their_stacks_each_once(plate: Path) -> None:
    given = [plate / "B.tif", plate, Path("plate/**/A*.tif")]
    names = [path.as_posix() for path in expanded(given)]
    assert names == ["plate/B.tif", "plate/A.ome.tif", "plate/more/A.tif"]


def test_a_file_called_like_a_pattern_is_that_file(plate: Path) -> None:
    odd = plate / "a[1].tif"
    odd.write_text("")
    assert expanded([odd]) == [odd]
    assert not is_several([odd])


@pytest.mark.parametrize(
    ("given", "several"),
    [(["plate/B.tif"], False), (["none.tif"], False), (["plate"], True), (["plate/*.tif"], True),
     (["a.tif", "b.tif"], True)],
)  # fmt: skip
@pytest.mark.usefixtures("plate")
def test_one_file_is_no_batch_and_a_folder_is(given: list[str], several: bool) -> None:
    assert is_several([Path(name) for name in given]) is several


@pytest.mark.parametrize("name", ["plate/*.tiff", "plate/empty"])
def test_a_pattern_or_folder_of_nothing_is_refused(plate: Path, name: str) -> None:
    (plate / "empty").mkdir()
    with pytest.raises(SettingsError, match="TIFF or OME-Zarr") as refused:
        expanded([Path(name)])
    assert name in str(refused.value)


def test_folders_are_called_like_the_files_and_never_twice_the_same() -> None:
    paths = [Path(name) for name in ("p/a.tif", "p/b.ome.tif", "q/A.tif", "q/c.tif", "q/c.tiff")]
    names = [item.folder.as_posix() for item in items_of(paths, Path("out"))]
    assert names == ["out/p-a", "out/b", "out/q-A", "out/q-c.tif", "out/q-c.tiff"]


class Work:
    """What a batch does with a file; some files it cannot."""

    def __init__(self) -> None:
        self.done: list[tuple[str, bool]] = []

    def __call__(self, item: Item, goes_on: bool) -> Row:
        self.done.append((item.path.name, goes_on))
        if item.path.name == "bad.tif":
            message = "bad.tif: is no\nTIFF"
            raise StackError(message)
        if item.path.name == "huge.tif":
            raise MemoryError
        if item.path.name == "stop.tif":
            raise Stopped
        item.folder.mkdir(parents=True, exist_ok=True)
        (item.folder / "report.json").write_text('{"voxel_psnr": 30.123456, "converged": true}')
        (item.folder / "gaussians.csv").write_text("z,y,x\n1,2,3\n4,5,6\n")
        write_settings(item.folder / SETTINGS_NAME, ASKED, "fit")
        return figures_of(item.folder, "Gaussians")


def made(tmp_path: Path, *names: str) -> list[Item]:
    for name in names:
        (tmp_path / name).write_text(name)
    return items_of([tmp_path / name for name in names], tmp_path / "out")


def ran(batch: Batch) -> list[tuple[str, bool]]:
    work = Work()
    batch.run(work, lambda *_: None)
    return work.done


def test_a_file_that_fails_leaves_the_rest_and_its_reason(tmp_path: Path) -> None:
    items = made(tmp_path, "a.tif", "bad.tif", "huge.tif", "b.tif")
    batch = Batch(items, tmp_path / "out", ASKED)
    assert len(ran(batch)) == 4
    rows = summary(tmp_path / "out")
    assert [row["state"] for row in rows] == ["done", "failed", "failed", "done"]
    assert [row["error"] for row in rows[1:3]] == [
        "bad.tif: is no TIFF",
        "not enough memory; crop or bin the stack",
    ]
    assert (rows[0]["number"], rows[0]["of"]) == ("2", "Gaussians")
    assert (rows[0]["voxel_psnr"], rows[0]["converged"]) == ("30.1235", "True")
    assert batch.count(RowState.FAILED) == 2


def test_a_file_that_is_not_there_is_one_of_them(tmp_path: Path) -> None:
    items = [*made(tmp_path, "a.tif"), Item(tmp_path / "none.tif", tmp_path / "out" / "none")]
    batch = Batch(items, tmp_path / "out", ASKED)

    def work(item: Item, _: bool) -> Row:
        item.path.read_text()
        return Row("", "", RowState.DONE)

    batch.run(work, lambda *_: None)
    assert [row.state for row in batch.rows] == [RowState.DONE, RowState.FAILED]


def test_a_batch_that_is_stopped_says_what_was_not_begun(tmp_path: Path) -> None:
    items = made(tmp_path, "a.tif", "stop.tif", "b.tif")
    ran(Batch(items, tmp_path / "out", ASKED))
    states = [row["state"] for row in summary(tmp_path / "out")]
    assert states == ["done", "stopped", "not begun"]


def test_what_was_done_with_the_same_settings_is_kept(tmp_path: Path) -> None:
    items = made(tmp_path, "a.tif", "bad.tif")
    ran(Batch(items, tmp_path / "out", ASKED))
    before = summary(tmp_path / "out")
    limited = ASKED | {"max_seconds": 60.0, "device": "cpu"}
    batch = Batch([*items, *made(tmp_path, "b.tif")], tmp_path / "out", limited, resume=True)
    assert [name for name, _ in ran(batch)] == ["bad.tif", "b.tif"]
    rows = summary(tmp_path / "out")
    assert [row["state"] for row in rows] == ["done before", "failed", "done"]
    assert rows[0] == before[0] | {"state": "done before"}


def test_other_settings_are_refused_and_replaced_if_forced(tmp_path: Path) -> None:
    items = made(tmp_path, "a.tif")
    ran(Batch(items, tmp_path / "out", ASKED))
    other = ASKED | {"gaussians": 5}
    batch = Batch(items, tmp_path / "out", other, resume=True)
    assert ran(batch) == []
    assert "gaussians=4, not 5; --force replaces it" in batch.rows[0].error
    forced = Batch(items, tmp_path / "out", other, resume=True, force=True)
    assert ran(forced) == [("a.tif", False)], "anew: what is there is of other settings"
    assert forced.rows[0].state is RowState.DONE


def test_a_file_that_has_changed_is_not_taken_for_done(tmp_path: Path) -> None:
    items = made(tmp_path, "a.tif")
    ran(Batch(items, tmp_path / "out", ASKED))
    os.utime(items[0].path, (0, 0))
    batch = Batch(items, tmp_path / "out", ASKED, resume=True)
    assert ran(batch) == []
    assert "it has changed; --force replaces it" in batch.rows[0].error


def test_a_table_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    items = made(tmp_path, "a.tif")
    ran(Batch(items, tmp_path / "out", ASKED))
    with pytest.raises(OutputError, match=r"summary\.csv: exists; --force replaces it, --resume"):
        Batch(items, tmp_path / "out", ASKED)


def test_a_foreign_table_is_no_batch_to_go_on_with(tmp_path: Path) -> None:
    (tmp_path / SUMMARY_NAME).write_text("plate,mean\nA,3\n")
    with pytest.raises(OutputError, match="is no table of a batch"):
        Batch(made(tmp_path, "a.tif"), tmp_path, ASKED, resume=True)


def test_settings_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / SETTINGS_NAME
    asked = {"psf": 'a "b" \x7f µ\\.json', "spacing": (0.3, 0.1, 0.1), "exactly": True, "seed": 3}
    write_settings(path, asked | {"background": None}, "fit")
    assert read_settings(path) == asked | {"spacing": [0.3, 0.1, 0.1]}
    assert difference(path, asked) == ""
    assert difference(path, asked | {"seed": 4}) == "seed=3, not 4"
    assert difference(path, asked | {"gain": 2.0}) == "gain=the default, not 2.0"


@pytest.mark.parametrize(
    ("text", "said"), [("a = ", "is no TOML"), ("[fit]\na = 1", "is a table"), (None, "read")]
)
def test_what_is_no_settings_file_is_said(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "given.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(FormatError, match=said) as refused:
        read_settings(path)
    assert str(path) in str(refused.value)
