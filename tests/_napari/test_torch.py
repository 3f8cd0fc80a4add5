"""The window where torch cannot be loaded beside Qt: what needs it has a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from napari_gaussfit.fitting.result import load

PROGRAM = Path(__file__).with_name("window_without_torch.py")
STEPS = ["opened", "fitted", "looked", "added", "saved", "opened again", "refined", "measured"]


@pytest.mark.gui
def test_a_window_without_torch_does_all_that_one_with_it_does(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, PROGRAM, tmp_path], capture_output=True, text=True, check=False
    )
    said = [line for line in done.stdout.splitlines() if not line.startswith("ERROR: ")]
    assert said[:-2] == STEPS, f"{done.stdout}\n{done.stderr}"
    failure, last = said[-2:]
    assert failure.startswith("PyTorch cannot be loaded ([WinError 1114]")
    assert 'tick "In a process of its own"' in failure
    assert last == "closed"

    saved = load(tmp_path / "fit.safetensors")
    assert len(saved.field) == 4
    assert saved.report.voxel_psnr > 30
    assert saved.field.fwhm().median() == pytest.approx(2.355 * 0.2, rel=0.2)
