"""A file appears whole under its name, or not at all."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_gaussfit.errors import OutOfSpaceError, OutputError
from napari_gaussfit.files import replacing, write_columns, write_table


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


class Holder:
    """Another program that holds names as Windows has it: they can be neither renamed nor removed.

    Parameters
    ----------
    path : Path
        The name that nothing can be renamed to.
    seconds : float
        For how long.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, seconds: float) -> None:
        self.tries = 0
        until = time.monotonic() + seconds
        rename = Path.replace

        def replace(source: Path, target: Path) -> Path:
            if target == path and time.monotonic() < until:
                self.tries += 1
                raise PermissionError(errno.EACCES, "The process cannot access the file")
            return rename(source, target)

        monkeypatch.setattr(Path, "replace", replace)


def test_a_file_that_is_held_for_a_moment_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fit.csv"
    path.write_text("old")
    holder = Holder(monkeypatch, path, 0.3)
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert holder.tries > 1
    assert path.read_text() == "new"


class Clock:
    """A clock that goes on while somebody sleeps by it, and then at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_file_that_stays_held_is_named_after_two_seconds_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fit.csv"
    path.write_text("old")
    clock = Clock(monkeypatch)
    Holder(monkeypatch, path, 60)
    with (
        pytest.raises(OutputError, match=r"fit.csv: is held by another program.*close it there"),
        replacing(path) as temporary,
    ):
        temporary.write_text("new")
    assert 2.0 <= clock.now < 2.1
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="Windows limits no file's size")
def test_a_full_disk_costs_one_line_and_not_the_file_of_before(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "fit.csv"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"fit.csv: cannot be written: File too large"):
            _write(path, 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError("1250000 requested and 4096 written"),  # numpy's
    ],
)
def test_no_room_is_said_with_what_is_needed_and_what_is_free(
    tmp_path: Path, error: OSError
) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(bytes(2_000_000))
        raise error

    with (
        pytest.raises(OutOfSpaceError, match=r"no room for it: [\d.]+ [MG]B are free on its disk"),
        replacing(tmp_path / "volume.tif") as temporary,
    ):
        fail(temporary)
    with pytest.raises(OutOfSpaceError, match=r"it needs 5\.5 GB, and [\d.]+ [MG]B are free"):
        _write_of_size(tmp_path / "fit.safetensors", error)
    assert not list(tmp_path.iterdir())


def _write(path: Path, nbytes: int) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(bytes(nbytes))


def _write_of_size(path: Path, error: OSError) -> None:
    with replacing(path, 5_500_000_000):
        raise error


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="there is no folder"),
        replacing(tmp_path / "no" / "fit.csv"),
    ):
        pass


def test_columns_are_written_as_pandas_writes_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    numbers = rng.normal(size=2000) * 10.0 ** rng.integers(-300, 300, 2000)
    numbers[:9] = np.nan, np.inf, -np.inf, -0.0, 0.0, 3.0, 1e16, 5e-324, 2**53
    words = ["", "a; b", "a, b", 'say "a"', "two\nlines", " µ ", "'", "3", "nan", "\r"] * 200
    columns = {
        "index": np.arange(2000),
        "a, b": numbers,
        "z": rng.normal(size=2000).astype(np.float32).astype(np.float64),
        "flags": np.array(words, dtype=object),
        "unit": np.full(2000, "pixel", dtype=object),
    }
    for part in (columns, {name: column[:0] for name, column in columns.items()}):
        write_columns(tmp_path / "ours.csv", part)
        write_table(tmp_path / "pandas.csv", pd.DataFrame(part))
        assert (tmp_path / "ours.csv").read_bytes() == (tmp_path / "pandas.csv").read_bytes()
