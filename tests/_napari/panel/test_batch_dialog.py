"""Many files from the panel: chosen, fitted one after another, stopped; by real events."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_gaussfit._napari.panel.batch import BatchButton, BatchDialog
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.tiff import write_ome_tiff
from napari_gaussfit.synthetic.phantoms import beads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytestqt.qtbot import QtBot

pytestmark = pytest.mark.gui

SECONDS_MS = 300_000


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    """A folder of two stacks, and a file that is none."""
    folder = tmp_path / "plate"
    folder.mkdir()
    made = beads(count=3, shape=(8, 20, 20)).stack
    for name in ("A", "C"):
        write_ome_tiff(
            folder / f"{name}.tif", made.voxels, spacing=made.spacing, unit=made.unit, name=name
        )
    (folder / "B.tif").write_text("no image")
    return folder


@pytest.fixture
def dialog(
    qtbot: QtBot, plate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BatchDialog]:
    """The dialog as its button opens it, with a folder chosen and results typed."""
    steps = 20 if "stop" not in str(tmp_path) else 10**6
    settings = FitSettings(gaussians=3, exactly=True, iterations=steps)
    button = BatchButton(lambda: settings)
    qtbot.addWidget(button)
    button.show()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    found = button.dialog
    assert found is not None
    found.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, on=False)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(plate))
    qtbot.mouseClick(found.buttons["Add folder…"], Qt.MouseButton.LeftButton)
    assert not found.buttons["Start"].isEnabled(), "there is no folder for results yet"
    qtbot.keyClicks(found.out, str(tmp_path / "fits"))
    assert found.buttons["Start"].isEnabled()
    yield found  # with its button, to which it belongs
    button.close()


def cells(dialog: BatchDialog, column: int) -> list[str]:
    items: list[Any] = [dialog.table.item(n, column) for n in range(dialog.table.rowCount())]
    return [item.text() for item in items]


def rests(dialog: BatchDialog) -> bool:
    return dialog.buttons["Close"].isEnabled() and not dialog.buttons["Stop"].isEnabled()


def test_a_folder_is_fitted_with_a_row_a_file(
    qtbot: QtBot, dialog: BatchDialog, tmp_path: Path
) -> None:
    assert cells(dialog, 0) == ["A.tif", "B.tif", "C.tif"]
    qtbot.mouseClick(dialog.buttons["Start"], Qt.MouseButton.LeftButton)
    assert not dialog.buttons["Start"].isEnabled()
    qtbot.waitUntil(lambda: rests(dialog), timeout=SECONDS_MS)
    assert cells(dialog, 1) == ["done", "failed", "done"], dialog.words.text()
    assert cells(dialog, 2) == ["3", "", "3"]
    assert "is not a TIFF" in cells(dialog, 5)[1]
    assert dialog.words.text().endswith("summary.csv: 2 done, 1 failed")
    with (tmp_path / "fits" / "summary.csv").open(newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["done", "failed", "done"]
    assert (tmp_path / "fits" / "C" / "gaussians.csv").is_file()

    dialog.resume.click()
    qtbot.mouseClick(dialog.buttons["Start"], Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: rests(dialog), timeout=SECONDS_MS)
    assert cells(dialog, 1) == ["done before", "failed", "done before"]


def test_a_batch_can_be_stopped(qtbot: QtBot, dialog: BatchDialog, tmp_path: Path) -> None:
    qtbot.mouseClick(dialog.buttons["Start"], Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: cells(dialog, 1)[0] == "running", timeout=SECONDS_MS)
    qtbot.waitUntil(lambda: dialog.bar.value() >= 0, timeout=SECONDS_MS)
    qtbot.mouseClick(dialog.buttons["Stop"], Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: rests(dialog), timeout=SECONDS_MS)
    assert cells(dialog, 1) == ["stopped", "not begun", "not begun"]
    assert (tmp_path / "fits" / "A" / "fit.safetensors").is_file(), "what was found so far is kept"


def test_settings_that_cannot_be_meant_are_said_and_open_no_dialog(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> FitSettings:
        raise SettingsError("SSIM weight: 'often' is no number")

    said: list[str] = []
    monkeypatch.setattr("napari.utils.notifications.show_error", said.append)
    button = BatchButton(refused)
    qtbot.addWidget(button)
    button.show()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert button.dialog is None
    [words] = said
    assert "SSIM weight: 'often' is no number" in words
