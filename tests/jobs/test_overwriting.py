"""Nothing is destroyed: what exists, what is read, what another fit writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from napari_gaussfit.errors import OutputError
from napari_gaussfit.jobs.overwriting import claimed, refuse_to_replace

CLAIM = """
import sys, time
from pathlib import Path
from napari_gaussfit.jobs.overwriting import claimed
with claimed(Path(sys.argv[1])):
    print("claimed", flush=True)
    time.sleep(60)
"""


def claim(folder: Path) -> None:
    with claimed(folder):
        assert folder.is_dir()


def test_what_exists_is_replaced_by_force_only(tmp_path: Path) -> None:
    there, new = tmp_path / "gaussians.csv", tmp_path / "report.json"
    there.write_text("mine")
    refuse_to_replace([new])
    with pytest.raises(OutputError, match=r"gaussians.csv: exists; --force replaces it"):
        refuse_to_replace([new, there])
    refuse_to_replace([new, there], force=True)


def test_what_is_read_is_never_written_over(tmp_path: Path) -> None:
    points, zarr = tmp_path / "gaussians.csv", tmp_path / "stack.zarr"
    points.write_text("mine")
    zarr.mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    for target in (points, link / "gaussians.csv", tmp_path / "x" / ".." / "gaussians.csv"):
        with pytest.raises(OutputError, match="which is read"):
            refuse_to_replace([target], inputs=[points], force=True)
    with pytest.raises(OutputError, match=r"would write over .*stack.zarr, which is read"):
        refuse_to_replace([zarr / "fit" / "report.json"], inputs=[zarr], force=True)
    refuse_to_replace([tmp_path / "fit.safetensors"], inputs=[points, zarr])


def test_a_folder_is_one_fits_alone_for_as_long_as_that_lives(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "claimed\n"
        with pytest.raises(OutputError) as error:
            claim(folder)
        expected = f"{folder}: another fit is writing into it (process {other.pid}); let it end"
        assert str(error.value).startswith(expected)
        other.kill()
    # What it left is no claim any more.
    claim(folder)
    (folder / "kept").touch()
    claim(folder)
    assert [path.name for path in folder.iterdir()] == ["kept"]


def test_a_claim_leaves_no_empty_folder_that_it_made(tmp_path: Path) -> None:
    claim(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    claim(tmp_path / "mine")
    assert (tmp_path / "mine").is_dir()


def test_a_claim_in_one_process_keeps_the_same_process_out(tmp_path: Path) -> None:
    with claimed(tmp_path / "out"), pytest.raises(OutputError, match=f"process {os.getpid()}"):
        claim(tmp_path / "out")
