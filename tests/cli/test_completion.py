"""What shells complete: commands, options, their values, and files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from napari_gaussfit.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    Capture = pytest.CaptureFixture[str]

ASK = """
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
_shtab_napari_gaussfit napari-gaussfit "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
"""What bash does at a Tab, after the script."""


def script(shell: str, capsys: Capture) -> str:
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["sp"], {"spots"}),
        (["fit", "--qual"], {"--quality"}),
        (["fit", "--quality", "p"], {"preview"}),
        (["fit", "st"], {"stack.tif"}),
        (["fit", "stack.tif", "-o", "re"], {"results"}),
        (["spots", "stack.tif", "--psf", "ps"], {"psf.json"}),
        (["render", "fi"], {"fit.safetensors"}),
        (["fit", "--settings", "set"], {"settings.toml"}),
        (["fit", "--gaussians", "s"], set()),
        (["completion", "z"], {"zsh"}),
    ],
    ids=" ".join,
)
def test_bash_completes(
    typed: list[str], offered: set[str], tmp_path: Path, capsys: Capture
) -> None:
    for name in ("stack.tif", "psf.json", "fit.safetensors", "settings.toml"):
        (tmp_path / name).touch()
    (tmp_path / "results").mkdir()
    text = script("bash", capsys) + ASK
    done = subprocess.run(
        ["bash", "--norc", "-c", text, "bash", "napari-gaussfit", *typed],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    # Outside a completion there is none to change, which bash says and goes on.
    wrong = [line for line in done.stderr.splitlines() if "compopt" not in line]
    assert (done.returncode, wrong) == (0, [])
    assert {one.rstrip("/") for one in done.stdout.split()} == offered


@pytest.mark.parametrize(("shell", "check"), [("zsh", "_files"), ("tcsh", "/f/'")])
def test_other_shells_complete_files_too(
    shell: str, check: str, tmp_path: Path, capsys: Capture
) -> None:
    text = script(shell, capsys)
    assert check in text
    assert "spots" in text
    program = shutil.which(shell)
    if program is None:
        return
    (tmp_path / "script").write_text(text, encoding="utf-8")
    options = ["-n"] if shell == "zsh" else ["-f"]
    done = subprocess.run(
        [program, *options, str(tmp_path / "script")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_completion_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "install napari-gaussfit[completion]" in capsys.readouterr().err
