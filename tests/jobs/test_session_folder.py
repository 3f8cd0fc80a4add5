"""The folder in which results outlive a crash."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_gaussfit.jobs.session_folder import About, SessionFolder, left_over
from saved_fits import some_fit

if TYPE_CHECKING:
    from pathlib import Path

MORNING, NOON = "2026-03-01T09:15:00+01:00", "2026-03-01T12:05:00+01:00"


def test_results_of_a_session_that_lives_are_offered_to_nobody(tmp_path: Path) -> None:
    folder = SessionFolder(pytest.fail, tmp_path)
    folder.keep("one", [some_fit()], About("one", NOON))
    folder.settle()
    assert left_over(tmp_path) == []
    folder.close()
    assert list(tmp_path.iterdir()) == [], "what was closed in order leaves nothing"


CRASHING = """
import os, signal, sys
from pathlib import Path
from napari_gaussfit.jobs.session_folder import About, SessionFolder
from saved_fits import some_fit
folder = SessionFolder(print, Path(sys.argv[1]))
folder.keep("b", [some_fit()], About("second", "2026-03-01T12:05:00+01:00", "/data/b.tif"))
folder.keep("a", [some_fit()], About("first", "2026-03-01T09:15:00+01:00"))
folder.keep("gone", [some_fit()], About("gone", "2026-03-01T09:16:00+01:00"))
folder.drop("gone")
folder.settle()
print("kept", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def crashed(tmp_path: Path, checkout: Path) -> Path:
    """A folder of sessions, one of which was killed with two results."""
    if os.name == "nt":
        pytest.skip("Windows knows no such signal")
    tests = str(checkout / "tests")
    paths = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", CRASHING, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout == "kept\n"
    return tmp_path


def test_results_of_a_killed_process_are_offered_once_oldest_first(crashed: Path) -> None:
    [left] = left_over(crashed)
    assert left.words == "2 results from 2026-03-01 " + left.words[-5:]
    assert [about.name for _, about in left.results] == ["first", "second"]
    assert [about.path for _, about in left.results] == ["", "/data/b.tif"]
    for _, fits in left.fits():
        assert not isinstance(fits, str)
        [fit] = fits
        np.testing.assert_array_equal(fit.field.means, some_fit().field.means)
    assert left_over(crashed) == [], "another window offers them while this one does"
    left.leave()
    [again] = left_over(crashed)
    again.discard()
    assert left_over(crashed) == []
    assert list(crashed.iterdir()) == []


def test_a_result_that_is_damaged_takes_no_other_with_it(crashed: Path) -> None:
    [folder] = crashed.iterdir()
    (folder / "a.safetensors").write_bytes(b"cut")
    (folder / "half.json").write_text("{")
    [left] = left_over(crashed)
    found = {about.name: fit for about, fit in left.fits()}
    assert isinstance(found["first"], str)
    assert "a.safetensors: is no safetensors file" in found["first"]
    assert not isinstance(found["second"], str)
    left.leave()


def test_a_folder_of_a_crash_without_results_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "2026-03-01_09-15-00-cafe").mkdir()
    assert left_over(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_kept_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    with closing(SessionFolder(said.append, tmp_path / "file")) as folder:
        folder.keep("one", [some_fit()], About("one", MORNING))
        folder.settle()
    assert len(said) == 1
    assert "file" in said[0]


def test_a_result_of_several_fits_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    with closing(SessionFolder(pytest.fail, tmp_path)) as folder:
        about = About("times", MORNING, kind="times", words={"times": [3, 4]}, parts=2)
        folder.keep("one", [some_fit(), some_fit()], about)
        folder.settle()
        assert folder.path is not None
        for copy in ("whole", "cut"):
            shutil.copytree(folder.path, tmp_path / copy, ignore=shutil.ignore_patterns("lock"))
        (tmp_path / "cut" / "one-0001.safetensors").unlink()
        [left] = left_over(tmp_path)
        [(kept, fits)] = left.fits()
        assert kept == about
        assert len(fits) == 2
        left.discard()
        folder.drop("one")
        folder.settle()
        assert [path.name for path in folder.path.iterdir()] == ["lock"]
