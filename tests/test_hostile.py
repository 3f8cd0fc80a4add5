"""Files that ended in a crash, a hang, a foreign exception or a wrong result that was accepted.

Each ends in one of our errors, in one line and quickly, or in a right reading. The table of all is
printed (``pytest -s``). See `test_mutations` for such files made anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from attacked import outcomes
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.stacks.facts import StackFacts

if TYPE_CHECKING:
    from pathlib import Path

READ = ("info", "view", "picture", "table", "scene", "volume")
COMMANDS = {
    ".tif": ("info",),
    ".csv": ("table", "volume"),
    ".pt": ("table", "volume"),
    ".ply": READ,
    ".safetensors": READ,
}
REFUSED = {
    "nan_bg.safetensors",
    "nan_chol.safetensors",
    "nan_mean.safetensors",
    "far.ply",
    "far_mean.safetensors",
    "z_1e39.csv",
    "range_beyond_float32.tif",
    "spacing_huge.ome.tif",
    "spacing_tiny.ome.tif",
}
"""What has no right reading."""

READ_RIGHTLY = {"float64_offset_1e12.tif"}


@pytest.fixture(scope="module")
def hostile_dir(data_dir: Path) -> Path:
    """The folder of attacked files, beside that of the real stacks."""
    folder = data_dir.parent / "cases" / "hostile"
    if not folder.is_dir():
        pytest.skip(f"needs the attacked files: there is no {folder}")
    return folder


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stack that tables and checkpoints are given."""
    path = tmp_path_factory.mktemp("stack") / "stack.tif"
    voxels = np.random.default_rng(1).integers(0, 999, (12, 32, 40)).astype(np.uint16)
    spacing = {"axes": "ZYX", "spacing": 0.5, "unit": "um"}
    tifffile.imwrite(path, voxels, imagej=True, resolution=(1 / 0.13, 1 / 0.13), metadata=spacing)
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit that every command reads."""
    path = tmp_path_factory.mktemp("sound") / "sound.safetensors"
    field = GaussianField.from_covariances([[2, 3, 4]], [np.eye(3)], [9.0])
    FitResult((field,), StackFacts("sound", (5, 6, 7), (1.0, 1.0, 1.0))).save(path)
    return path


def test_every_attacked_file_ends_in_an_error_of_ours_or_in_a_right_reading(
    hostile_dir: Path, stack: Path, sound: Path
) -> None:
    files = sorted(path for path in hostile_dir.iterdir() if path.suffix in COMMANDS)
    tasks = [(path, command) for path in files for command in COMMANDS[path.suffix]]
    found = list(outcomes(tasks, stack, (sound, "view")))
    print("\n".join(outcome.row for outcome in found))  # noqa: T201
    assert [(outcome.path, outcome.command) for outcome in found] == tasks
    wrong = [outcome.row for outcome in found if outcome.wrong]
    assert not wrong, "\n" + "\n".join(wrong)
    codes = {path.name: {one.code for one in found if one.path == path} for path in files}
    assert [name for name in sorted(REFUSED) if codes[name] != {2}] == []
    assert [name for name in sorted(READ_RIGHTLY) if codes[name] != {0}] == []
