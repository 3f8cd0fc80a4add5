"""A full disk or a held file costs no fit: it goes on, and is somewhere in the end."""

from __future__ import annotations

import errno
import io
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_gaussfit.cli import main, saving
from napari_gaussfit.errors import OutOfSpaceError
from napari_gaussfit.fitting.fit import Fit
from napari_gaussfit.fitting.result import load
from napari_gaussfit.formats.native import save_fit
from napari_gaussfit.jobs import fit_folder as folders
from napari_gaussfit.jobs.fit_folder import OUTPUTS, FitFolder
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.tiff import write_ome_tiff
from napari_gaussfit.synthetic.phantoms import beads

Capture = pytest.CaptureFixture[str]

NOT_WRITTEN = 3


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A file of five beads."""
    made = beads(count=5, shape=(16, 40, 36)).stack
    write_ome_tiff(
        tmp_path / "beads.tif", made.voxels, spacing=made.spacing, unit=made.unit, name="beads"
    )
    return tmp_path / "beads.tif"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where temporary ones are made."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


class Disk:
    """A disk with room for so many fits, in the place of the one that a folder is on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.room, self.tries = 0, 0
        self._folder = folder.resolve()
        monkeypatch.setattr(folders, "save_fit", self._save)

    def _save(self, path: Path, *fit: Any, **more: Any) -> None:
        if path.parent.resolve() == self._folder:
            self.tries += 1
            # The one that is replaced is there until the new one is whole.
            if self.room < 1 + path.exists():
                message = f"{path}: there is no room for it: 1 MB is free"
                raise OutOfSpaceError(message)
        save_fit(path, *fit, **more)


def command(stack: Path, out: Path, *options: str) -> list[str]:
    return ["fit", str(stack), "-o", str(out), "--gaussians", "10", "--exactly", *options]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_fit_that_finds_no_room_goes_on_and_is_kept(
    stack: Path, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    out = tmp_path / "out"
    disk = Disk(monkeypatch, out)
    monkeypatch.setattr(saving, "SAVE_SECONDS", 0.0)
    assert main(command(stack, out, "--iterations", "60")) == NOT_WRITTEN
    assert disk.tries > 2
    [kept] = temporary.iterdir()
    assert names(kept) == sorted(OUTPUTS)
    saved = load(kept / "fit.safetensors")
    assert saved.report.iterations == 60
    said = capsys.readouterr().err
    assert said.count("the fit goes on, and is saved as soon as that can be done") == 1
    assert f"error: {out / 'fit.safetensors'}: there is no room for it: 1 MB is free" in said
    assert f"the fit is in {kept}" in said
    assert f"move it to {out}" in said


def test_a_fit_that_finds_room_again_is_saved_there(
    stack: Path, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    out = tmp_path / "out"
    disk = Disk(monkeypatch, out)
    monkeypatch.setattr(saving, "SAVE_SECONDS", 0.0)
    show = saving.Saving.look

    def look(self: saving.Saving) -> None:
        disk.room = 2 * (disk.tries > 0)
        show(self)

    monkeypatch.setattr(saving.Saving, "look", look)
    assert main(command(stack, out, "--iterations", "150")) == 0
    assert f"{out}: the fit is saved again" in capsys.readouterr().err
    assert names(out) == sorted(OUTPUTS)
    assert not names(temporary)


def test_room_for_one_fit_is_enough(
    stack: Path, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    disk = Disk(monkeypatch, out)
    disk.room = 1
    assert main(command(stack, out, "--iterations", "30")) == 0
    saved = load(out / "fit.safetensors")
    assert saved.report.iterations == 30
    assert not names(temporary), "the copy is not needed any more"


def test_the_fit_of_before_stays_where_another_has_no_room(
    stack: Path, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert main(command(stack, out, "--iterations", "30")) == 0
    before = (out / "fit.safetensors").read_bytes()
    Disk(monkeypatch, out).room = 1
    assert main(command(stack, out, "--iterations", "20", "--force")) == NOT_WRITTEN
    assert (out / "fit.safetensors").read_bytes() == before
    [kept] = temporary.iterdir()
    assert names(kept) == sorted(OUTPUTS)


def test_a_person_at_a_terminal_is_asked_for_another_place(
    stack: Path, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out, other, taken = tmp_path / "out", tmp_path / "other", tmp_path / "taken"
    taken.mkdir()
    (taken / "report.json").write_text("mine")
    Disk(monkeypatch, out)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdin", Terminal(f"{taken}\n{other}\n"))
    assert main(command(stack, out, "--iterations", "30")) == NOT_WRITTEN
    said = terminal.getvalue()
    assert said.count("another folder for the fit") == 2
    assert f"{taken / 'report.json'}: exists" in said
    assert (taken / "report.json").read_text() == "mine"
    assert names(other) == sorted(OUTPUTS)
    assert not names(temporary)


def test_a_held_table_costs_no_other_file(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    table = out / "gaussians.csv"
    table.write_text("open in a spreadsheet")
    rename, unlink = Path.replace, Path.unlink

    def held(path: Path) -> None:
        if path == table:
            raise PermissionError(errno.EACCES, "The process cannot access the file")

    def renamed(source: Path, target: Path) -> Path:
        held(target)
        return rename(source, target)

    def removed(path: Path, missing_ok: bool = False) -> None:
        held(path)
        unlink(path, missing_ok)

    with monkeypatch.context() as spreadsheet:
        spreadsheet.setattr(Path, "replace", renamed)
        spreadsheet.setattr(Path, "unlink", removed)
        assert main(command(stack, out, "--iterations", "30", "--force")) == NOT_WRITTEN
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2, said
    assert "gaussians.csv: is held by another program" in said[0]
    assert "the fit itself is saved; --resume writes what is missing" in said[1]
    assert table.read_text() == "open in a spreadsheet"
    assert names(out) == sorted(OUTPUTS)
    field = load(out / "fit.safetensors").field
    # The spreadsheet is closed.
    assert main(command(stack, out, "--resume")) == 0
    assert table.read_text().startswith("index,axis-0")
    np.testing.assert_array_equal(load(out / "fit.safetensors").field.means, field.means)
    assert main(command(stack, out, "--resume")) == 0
    assert "this fit is finished, after 30 steps" in capsys.readouterr().out


def test_a_copy_stays_where_the_room_is_taken_in_between(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phantom = beads(count=5, shape=(16, 40, 36)).stack
    fit = Fit(phantom, FitSettings(exactly=True, gaussians=10, iterations=5))
    for _ in fit:
        pass
    folder = FitFolder(tmp_path / "out", (phantom,))
    folder.path.mkdir()
    folder.save(fit.checkpoint())
    Disk(monkeypatch, folder.path)  # has room for none, not even once the old one is gone
    with pytest.raises(OutOfSpaceError, match="there is no room") as error:
        folder.save(fit.checkpoint())
    assert "kept" not in str(error.value)
    with pytest.raises(OSError, match="it is kept in") as moved:
        folder.save(fit.checkpoint(), over_own=True)
    [kept] = temporary.iterdir()
    assert str(moved.value).endswith(str(kept))
    assert len(load(kept / "fit.safetensors").field) == 10


def _mounted(size: str, folder: Path, *commands: str) -> str:
    """Return a shell's line that mounts a small disk and runs commands with it."""
    mount = f"mount -t tmpfs -o size={size} tmpfs {shlex.quote(str(folder))}"
    return shlex.join(["unshare", "-rm", "sh", "-c", " && ".join([mount, *commands])])


def _may_mount() -> bool:
    if shutil.which("unshare") is None or os.name == "nt":
        return False
    line = _mounted("64k", Path("/mnt"))
    return subprocess.run(line, shell=True, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _may_mount(), reason="needs to mount a small disk (unshare, tmpfs)")
def test_a_disk_that_is_really_full(stack: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    fit = shlex.join([sys.executable, "-m", "napari_gaussfit.cli", "fit", str(stack)])
    line = _mounted(
        "40k",
        disk,
        f"{fit} -o {disk} --gaussians 300 --exactly --iterations 30; echo $?; ls {disk}",
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(
        line, shell=True, capture_output=True, text=True, env=environment, check=False
    )
    assert f"\n{NOT_WRITTEN}\n" in done.stdout, done
    assert "fit.safetensors" not in done.stdout
    assert "Traceback" not in done.stderr
    [kept] = tmp_path.glob("napari-gaussfit-*")
    assert names(kept) == sorted(OUTPUTS)
