"""What is set in napari's Preferences: the manifest, the dialog, and the panel that opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import napari.settings
import pytest
import yaml
from qtpy.QtWidgets import QComboBox, QLabel

import napari_gaussfit
from napari_gaussfit._napari.panel.panel import GaussianFitPanel
from napari_gaussfit._napari.panel.preferences import MANIFEST_KEY, PLUGIN, begins_at, preferences
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.settings import PREFERENCES, Preferences

MANIFEST = Path(napari_gaussfit.__file__).with_name("napari.yaml")
TYPES = {str: "string", bool: "boolean", int: "integer", float: "number"}

has_page = pytest.mark.skipif(
    not hasattr(napari.settings, "get_plugin_settings"), reason="needs napari 0.9"
)


def manifest_page() -> dict[str, Any]:
    """Return what the manifest says of the preferences."""
    contributions = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))["contributions"]
    page: dict[str, Any] = contributions["configurations"][MANIFEST_KEY]["properties"]
    return page


def as_manifest(name: str) -> dict[str, Any]:
    """Return what the manifest has to say of a preference."""
    setting = PREFERENCES[name]
    wanted = {
        "title": setting.label,
        "description": f"{setting.help[0].upper()}{setting.help[1:]}.",
        "type": TYPES[setting.kind],
        "default": getattr(Preferences, name),
    }
    return wanted | ({"enum": list(setting.choices)} if setting.choices else {})


def test_the_manifest_has_the_preferences_of_the_model() -> None:
    assert manifest_page() == {name: as_manifest(name) for name in PREFERENCES}


def test_what_cannot_be_preferred_is_refused() -> None:
    with pytest.raises(SettingsError, match="look_for='cells': expected one of 'structure'"):
        Preferences(look_for="cells")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="folder=3: expected words"):
        Preferences(folder=3)  # type: ignore[arg-type]


def test_words_name_only_what_nobody_would_expect() -> None:
    assert Preferences().words == ""
    words = Preferences(quality="fine", keep=False).words
    assert words == "quality fine (2,500 steps); keep results for after a crash: off"


def test_a_napari_without_such_a_page_has_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(napari.settings, "get_plugin_settings", raising=False)
    assert preferences() == Preferences()


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The preferences as napari has them, kept in a folder of the test's own."""
    monkeypatch.setattr(napari.settings, "_CFG_PATH", str(tmp_path / "settings.yaml"))
    monkeypatch.setattr(napari.settings, "_PLUGIN_SETTINGS", {})
    return getattr(napari.settings.get_plugin_settings(PLUGIN), MANIFEST_KEY)


@has_page
def test_dialogs_begin_in_the_preferred_folder_while_it_is_there(page: Any, tmp_path: Path) -> None:
    assert begins_at("a.csv") == "a.csv"
    page.folder = str(tmp_path)
    assert begins_at("a.csv") == str(tmp_path / "a.csv")
    page.folder = str(tmp_path / "gone")
    assert begins_at("a.csv") == "a.csv"


@has_page
@pytest.mark.gui
def test_the_panel_opens_as_is_preferred_and_says_so(page: Any, make_napari_viewer: Any) -> None:
    page.update({"look_for": "spots", "quality": "preview", "device": "cpu"})
    viewer = make_napari_viewer()
    panel = GaussianFitPanel(viewer)
    viewer.window.add_dock_widget(panel)
    assert panel.modes.mode is panel.spots
    assert (panel.model.settings.quality, panel.model.device) == ("preview", "cpu")
    said = panel.findChild(QLabel, "gaussfit_preferences")
    assert not said.isHidden()
    for word in ("Spots", "preview (150 steps)", "CPU"):
        assert word in said.text()


@has_page
@pytest.mark.gui
def test_a_panel_that_opens_again_is_as_it_was_left(page: Any, make_napari_viewer: Any) -> None:
    viewer = make_napari_viewer()
    panel = GaussianFitPanel(viewer)
    panel.close_down()
    page.quality = "fine"
    again = GaussianFitPanel(viewer)
    assert again.model.settings.quality == "balanced"
    assert again.preferred.isHidden()
    again.close_down()


@has_page
@pytest.mark.gui
def test_the_preferences_dialog_has_a_page_whose_choices_the_next_panel_takes(
    page: Any, make_napari_viewer: Any, qtbot: Any
) -> None:
    from napari._qt.dialogs.preferences_dialog import PreferencesDialog

    viewer = make_napari_viewer()
    dialog = PreferencesDialog(parent=viewer.window._qt_window)
    qtbot.addWidget(dialog)
    names = [dialog._list.item(n).text() for n in range(dialog._list.count())]
    dialog._list.setCurrentRow(names.index("Gaussian Fit"))
    shown = dialog._stack.currentWidget()
    quality = next(box for box in shown.findChildren(QComboBox) if box.findText("fine") >= 0)
    quality.setCurrentText("fine")
    assert page.quality == "fine"
    panel = GaussianFitPanel(viewer)
    assert panel.model.settings.quality == "fine"
    panel.close_down()


@has_page
@pytest.mark.gui
def test_no_result_is_kept_as_a_file_where_preferences_say_so(
    page: Any, make_napari_viewer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = GaussianFitPanel(make_napari_viewer())
    kept: list[str] = []
    folder = panel.kept.session.folder
    monkeypatch.setattr(folder, "keep", lambda key, _fits, _about: kept.append(key))
    result: Any = type("Result", (), {"key": "a", "fits": (), "about": None})
    panel.kept.write(result)
    page.keep = False
    panel.kept.write(result)
    assert kept == ["a"]
    panel.close_down()
