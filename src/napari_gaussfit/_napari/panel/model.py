"""The part of the panel that says how to fit: count, quality, objective, device, memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, ComboBox, SpinBox
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_gaussfit._napari.panel.how_many import HowMany
from napari_gaussfit._napari.panel.number_field import NumberField
from napari_gaussfit._napari.panel.psf import PsfField
from napari_gaussfit._napari.panel.widgets import Form
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.settings import MOST_UNASKED, SETTINGS, FitSettings, Preferences, Setting

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_gaussfit.measure.psf import Psf

__all__ = ["ModelPart"]

PLAIN = ("gaussians", "exactly", "quality", "objective", "loss", "shape", "device")
"""Settings that are always in sight; all others lie under "Advanced"."""

BUTTONS = ("refine", "measure")
"""What is asked of a fit that is there."""


class ModelPart(QWidget):
    """Chooses the settings of a fit, of which each has a control."""

    changed = Signal()
    """Another device, or an advanced setting."""

    def __init__(self) -> None:
        super().__init__()
        self._edited = False
        self._suggested: int | None = None
        self._count = SpinBox(
            label=SETTINGS["gaussians"].label,
            value=MOST_UNASKED,
            min=1,
            max=int(SETTINGS["gaussians"].most),
            step=100,
            tooltip=_tip(SETTINGS["gaussians"]),
        )
        self._exactly = QCheckBox(SETTINGS["exactly"].label)
        self._exactly.setObjectName("gaussfit_exactly")
        self._exactly.setToolTip(
            f"{_tip(SETTINGS['exactly'])} Off: as many as the noise carries. "
            "On, the number is suggested by the volume of signal until you change it."
        )
        self._choices = {
            name: ComboBox(
                label=setting.label,
                choices=[(words, choice) for choice, words in setting.choices.items()],
                value=getattr(FitSettings, name),
                tooltip=_tip(setting),
            )
            for name, setting in SETTINGS.items()
            if setting.choices
        }
        self._own_process = CheckBox(
            text="In a process of its own",
            value=True,
            tooltip="On: the window stays fluent, and a crash of the fit is not napari's. "
            "Off: the fit runs inside napari, for those who debug.",
        )
        self._facts = QLabel()
        self._facts.setObjectName("gaussfit_facts")
        self._facts.setWordWrap(True)
        self._advanced, self._psf = _Advanced(), PsfField()
        self.how_many = HowMany()
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(2)
        form = self._counts = Form(self._count)
        form.add_row("", self._exactly)
        box.addWidget(form)
        box.addWidget(self.how_many)
        box.addWidget(Form(*self._choices.values()))
        psf = Form()
        psf.add_row("PSF", self._psf)
        box.addWidget(psf)
        box.addWidget(self._own_process.native)
        box.addWidget(self._advanced)
        box.addWidget(self._facts)
        self._facts.setContentsMargins(4, 0, 4, 0)
        self._own_process.native.setContentsMargins(4, 0, 4, 0)
        self._count.changed.connect(self._note_edit)
        self._exactly.toggled.connect(self._show_count)
        self._choices["device"].changed.connect(lambda _: self.changed.emit())
        self._advanced.changed.connect(self.changed)
        self._psf.changed.connect(self.changed)

    @property
    def in_process(self) -> bool:
        """Whether the fit runs inside napari."""
        return not self._own_process.value

    @in_process.setter
    def in_process(self, wanted: bool) -> None:
        self._own_process.value = not wanted

    @property
    def settings(self) -> FitSettings:
        """What is chosen; a SettingsError says what of it cannot be meant."""
        chosen = {name: box.value for name, box in self._choices.items()}
        exactly = self._exactly.isChecked()
        return FitSettings(int(self._count.value), exactly, **chosen, **self._advanced.values)

    @settings.setter
    def settings(self, settings: FitSettings) -> None:
        self._exactly.setChecked(settings.exactly)
        if settings.gaussians is not None:
            self._count.value = settings.gaussians
        for name, box in self._choices.items():
            box.value = getattr(settings, name)
        self._advanced.show_values(settings)

    def prefer(self, preferences: Preferences) -> None:
        """Choose what a person prefers, before anything else is chosen."""
        for name, box in self._choices.items():
            box.value = getattr(preferences, name, box.value)

    @property
    def psf(self) -> Psf | None:
        """The point spread function that is named; a SettingsError says why it is none."""
        return self._psf.psf

    @property
    def named_psf(self) -> str:
        """What stands where a point spread function is named."""
        return self._psf.named

    @named_psf.setter
    def named_psf(self, words: str) -> None:
        self._psf.named = words

    @property
    def device(self) -> str:
        """Where to compute, as it is chosen."""
        return str(self._choices["device"].value)

    @property
    def problem(self) -> str:
        """Why what is chosen cannot be meant, empty where it can."""
        try:
            _ = self.settings, self.psf
        except SettingsError as error:
            return str(error)
        return ""

    def commit(self) -> None:
        """Take what is typed."""
        self._advanced.commit()
        self._psf.commit()

    def suggest(self, count: int) -> None:
        """Suggest a number of Gaussians to have exactly; one that the user chose stays."""
        if count != self._suggested:  # else whoever hears of it would look at the stack again
            self._suggested = count
            self._show_count()

    def show_facts(self, device: str, needed: int, free: int) -> None:
        """Say what will be used, and how much memory a fit takes of what is there."""
        warning = needed > free
        text = f"{device} Takes about {needed / 1e9:.2g} GB of {free / 1e9:.2g} GB free."
        if self._suggested is not None and self._exactly.isChecked():
            text = f"Suggested for this stack: {self._suggested:,} Gaussians. {text}"
        if warning:
            text = f"⚠ {text} That is too little: choose a region."
        self._facts.setText(text)

    def show_no_facts(self) -> None:
        """Say nothing where no stack is chosen."""
        self._facts.setText("")

    def _note_edit(self, count: int) -> None:
        self._edited = count != self._unasked

    @property
    def _unasked(self) -> int:
        """The number that stands there until the user chooses one."""
        if self._exactly.isChecked() and self._suggested is not None:
            return self._suggested
        return MOST_UNASKED

    def _show_count(self, _change: object = None) -> None:
        label = "Gaussians" if self._exactly.isChecked() else SETTINGS["gaussians"].label
        self._counts.call(self._count.native, label)
        if not self._edited:
            self._count.value = self._unasked
            self._edited = False
        self.changed.emit()


class _Advanced(QWidget):
    """The settings that few people change, out of sight until they are asked for."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._button = QPushButton()
        self._button.setObjectName("gaussfit_advanced")
        self._button.setToolTip("Settings that a fit seldom needs.")
        self._button.setCheckable(True)
        self._button.setStyleSheet("text-align: left; padding: 3px 6px;")
        form = Form()
        self._controls: dict[str, NumberField | QCheckBox] = {}
        for name, setting in SETTINGS.items():
            if name in PLAIN or name in BUTTONS:
                continue
            control = _control(setting, self._note_change)
            control.setObjectName(f"gaussfit_{name}")
            control.setToolTip(_tip(setting))
            self._controls[name] = control
            form.add_row("" if setting.kind is bool else setting.label, control)
        form.setVisible(False)
        self._button.toggled.connect(form.setVisible)
        self._button.toggled.connect(self._show_title)
        box = QVBoxLayout(self)
        box.setContentsMargins(4, 0, 4, 0)
        box.addWidget(self._button)
        box.addWidget(form)
        self.show_values(FitSettings())

    @property
    def values(self) -> dict[str, Any]:
        """What is chosen, by the settings' names; a SettingsError says what is no such value."""
        found: dict[str, Any] = {}
        for name, control in self._controls.items():
            if isinstance(control, QCheckBox):
                found[name] = control.isChecked()
            elif control.problem:
                raise SettingsError(f"{SETTINGS[name].label}: {control.problem}")
            else:
                found[name] = control.value
        return found

    def show_values(self, settings: FitSettings) -> None:
        """Show what is set in settings."""
        for name, control in self._controls.items():
            if isinstance(control, QCheckBox):
                control.setChecked(getattr(settings, name))
            else:
                control.show_value(getattr(settings, name))
        self._note_change()

    def commit(self) -> None:
        """Take what is typed."""
        for control in self._controls.values():
            if isinstance(control, NumberField):
                control.commit()

    def _note_change(self, _change: object = None) -> None:
        self._show_title()
        self.changed.emit()

    def _show_title(self, _open: object = None) -> None:
        """Say how many settings hold that nobody sees while this is closed."""
        try:
            values = self.values
        except SettingsError:
            found = " ⚠"
        else:
            others = sum(value != getattr(FitSettings, name) for name, value in values.items())
            found = f" ({others} changed)" if others else ""
        self._button.setText(f"{'▾' if self._button.isChecked() else '▸'} Advanced{found}")


def _control(setting: Setting, changed: Callable[..., None]) -> NumberField | QCheckBox:
    """Return a control for a setting that is no choice of several."""
    if setting.kind is bool:
        box = QCheckBox(setting.label)
        box.toggled.connect(changed)
        return box
    whole = setting.kind is int
    field = NumberField(setting.least, setting.most, whole=whole, without=setting.without)
    field.committed.connect(changed)
    field.marked.connect(changed)
    return field


def _tip(setting: Setting) -> str:
    """Return what a setting means, as a sentence."""
    words = f"{setting.help[0].upper()}{setting.help[1:]}"
    if setting.least > 0 or setting.most < 1e9:  # else nobody comes near them
        words += f", {setting.least:,g} to {setting.most:,g}"
    return f"{words}; empty: {setting.without}." if setting.without else f"{words}."
