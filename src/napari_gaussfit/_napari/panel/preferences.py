"""What is set in napari's Preferences, from napari 0.9 on, and how a panel opens by it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari.settings

from napari_gaussfit._napari.panel.widgets import wrapped
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.settings import PREFERENCES, Preferences

if TYPE_CHECKING:
    from qtpy.QtWidgets import QLabel

__all__ = [
    "MANIFEST_KEY",
    "PLUGIN",
    "begins_at",
    "open_as_preferred",
    "preferences",
    "preferences_label",
]

PLUGIN, MANIFEST_KEY = "napari-gaussfit", "panel"
"""Under which names the manifest has the preferences."""


def preferences() -> Preferences:
    """Return what is set, as it is now; the defaults where this napari has no such page."""
    # napari below 0.9 has none, and npe2 below 0.9 passes over what the manifest says of it.
    settings_of = getattr(napari.settings, "get_plugin_settings", None)
    page = None if settings_of is None else getattr(settings_of().get(PLUGIN), MANIFEST_KEY, None)
    if page is None:
        return Preferences()
    try:
        return Preferences(**{name: getattr(page, name) for name in PREFERENCES})
    except (AttributeError, SettingsError):  # of a manifest that is not this version's
        return Preferences()


def open_as_preferred(panel: Any) -> None:
    """Have a panel that opens for the first time begin as is preferred, and say so."""
    chosen = preferences()
    panel.model.prefer(chosen)
    panel.modes.choose(PREFERENCES["look_for"].choices[chosen.look_for])
    panel.preferred.setText(f"From Preferences: {chosen.words}.")
    panel.preferred.setVisible(bool(chosen.words))


def preferences_label() -> QLabel:
    """Return a label for what of a panel is as Preferences have it, hidden where nothing is."""
    label = wrapped(
        "gaussfit_preferences",
        "How the panel opens is set in napari's Preferences, under Gaussian Fit.",
    )
    label.setContentsMargins(6, 0, 4, 0)
    label.setVisible(False)
    return label


def begins_at(name: str = "") -> str:
    """Return where a dialog that saves begins: a file or folder in the preferred folder, if any.

    Parameters
    ----------
    name : str
        Of the file that is suggested; empty where a folder is asked for.

    Returns
    -------
    str
        As Qt's dialogs take it; the name alone where no folder is preferred, or it is gone.
    """
    chosen = preferences().folder.strip()
    folder = Path(chosen).expanduser()
    return str(folder / name) if chosen and folder.is_dir() else name
