"""The part of the panel that says how to fit: count, quality, objective, device, memory."""

from __future__ import annotations

from typing import get_args

from magicgui.widgets import CheckBox, ComboBox, SpinBox
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_gaussfit._napari.panel.widgets import Form
from napari_gaussfit.settings import ITERATIONS, Device, FitSettings, Loss, Objective, Quality

__all__ = ["ModelPart"]

MOST = 1_000_000


class ModelPart(QWidget):
    """Chooses the settings of a fit."""

    def __init__(self) -> None:
        super().__init__()
        self._edited = False
        self._suggested: int | None = None
        self._count = SpinBox(
            label="Gaussians",
            value=2000,
            min=1,
            max=MOST,
            step=100,
            tooltip="The most Gaussians that the fit may use. "
            "It is suggested by the volume of signal until you change it.",
        )
        self._quality = ComboBox(
            label="Quality",
            choices=[(f"{name} ({ITERATIONS[name]:,} steps)", name) for name in get_args(Quality)],
            value="balanced",
            tooltip="How long to go on. Preview shows in seconds whether it works at all.",
        )
        self._objective = ComboBox(
            label="Objective",
            choices=[
                ("projections and voxels", "mip+voxels"),
                ("projections only", "mip"),
                ("voxels only", "voxels"),
            ],
            value=get_args(Objective)[0],
            tooltip="What is made alike: maximum projections from many sides, the voxels, or both.",
        )
        self._loss = ComboBox(
            label="Noise",
            choices=[("even (squared error)", "squared"), ("photons (Poisson)", "poisson")],
            value=get_args(Loss)[0],
            tooltip="Which noise the stack has: even everywhere, or growing with brightness.",
        )
        self._device = ComboBox(
            label="Device",
            choices=[("automatic", "auto"), ("CPU", "cpu"), ("GPU (CUDA)", "cuda")],
            value=get_args(Device)[0],
            tooltip="Where to compute. Below stands what will really be used.",
        )
        self._own_process = CheckBox(
            text="In a process of its own",
            value=True,
            tooltip="On: the window stays fluent, and a crash of the fit is not napari's. "
            "Off: the fit runs inside napari, for those who debug.",
        )
        self._facts = QLabel()
        self._facts.setObjectName("gaussfit_facts")
        self._facts.setWordWrap(True)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(2)
        box.addWidget(Form(self._count, self._quality, self._objective, self._loss, self._device))
        box.addWidget(self._own_process.native)
        box.addWidget(self._facts)
        self._facts.setContentsMargins(4, 0, 4, 0)
        self._own_process.native.setContentsMargins(4, 0, 4, 0)
        self._count.changed.connect(self._note_edit)
        self.device_changed = self._device.changed

    @property
    def in_process(self) -> bool:
        """Whether the fit runs inside napari."""
        return not self._own_process.value

    @in_process.setter
    def in_process(self, wanted: bool) -> None:
        self._own_process.value = not wanted

    @property
    def settings(self) -> FitSettings:
        """What is chosen."""
        return FitSettings(
            gaussians=int(self._count.value),
            quality=self._quality.value,
            objective=self._objective.value,
            loss=self._loss.value,
            device=self._device.value,
        )

    @settings.setter
    def settings(self, settings: FitSettings) -> None:
        if settings.gaussians is not None:
            self._count.value = settings.gaussians
        self._quality.value = settings.quality
        self._objective.value = settings.objective
        self._loss.value = settings.loss
        self._device.value = settings.device

    def suggest(self, count: int) -> None:
        """Suggest a number of Gaussians; one that the user chose stays."""
        self._suggested = count
        if not self._edited:
            self._count.value = count
            self._edited = False

    def show_facts(self, device: str, needed: int, free: int) -> None:
        """Say what will be used, and how much memory a fit takes of what is there."""
        warning = needed > free
        text = f"{device} Takes about {needed / 1e9:.2g} GB of {free / 1e9:.2g} GB free."
        if self._suggested is not None:
            text = f"Suggested for this stack: {self._suggested:,} Gaussians. {text}"
        if warning:
            text = f"⚠ {text} That is too little: choose a region."
        self._facts.setText(text)

    def show_no_facts(self) -> None:
        """Say nothing where no stack is chosen."""
        self._facts.setText("")

    def _note_edit(self, count: int) -> None:
        self._edited = count != self._suggested
