"""The part of the panel that runs a fit: buttons, state, progress, figures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QGridLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_gaussfit._napari.worker import Phase

if TYPE_CHECKING:
    from napari_gaussfit.fitting.snapshot import Snapshot

__all__ = ["RunPart", "StateLine", "duration"]

_AMBER = "#a8690a"

_COLOURS = {
    Phase.IDLE: "#7f8a99",
    Phase.STARTING: _AMBER,
    Phase.RUNNING: "#3f9b57",
    Phase.PAUSING: _AMBER,
    Phase.PAUSED: _AMBER,
    Phase.STOPPING: _AMBER,
    Phase.FINISHED: "#3a7fc4",
    Phase.CANCELLED: "#7f8a99",
    Phase.FAILED: "#c4483a",
    Phase.MEASURING: _AMBER,
    Phase.MEASURED: "#3a7fc4",
}

_STYLE = "background: {}; color: white; border-radius: 3px; padding: 3px 6px;"

_TIPS = {
    "Fit": "Fit Gaussians to the chosen stack, from scratch or from the chosen points.",
    "Pause": "Let the fit stand still. Nothing is lost.",
    "Resume": "Let the paused fit go on.",
    "Stop": "End the fit, or its measuring, and keep the Gaussians as they are now.",
    "Refine": "Go on from the Gaussians shown, with what you deleted, moved or added.",
    "Measure": "Refine each Gaussian shown by itself, and say how well its numbers are known: "
    "error bars in the table, in the points and in tables that are saved.",
}


class StateLine(QLabel):
    """Says what is being done, in a colour of its own."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setObjectName(name)
        self.setToolTip("What the fit is doing.")
        self.setWordWrap(True)

    def show_state(self, text: str, phase: Phase, *, doubt: bool = False) -> None:
        """Say something of a phase; `doubt` where it is not to be trusted."""
        self.setText(text)
        self.setStyleSheet(_STYLE.format(_AMBER if doubt else _COLOURS[phase]))


class RunPart(QWidget):
    """Buttons that are enabled only when they do something, and what the fit says of itself."""

    fit_asked, pause_asked, resume_asked = Signal(), Signal(), Signal()
    stop_asked, refine_asked, other_asked = Signal(), Signal(), Signal()
    measure_asked = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.buttons = {name: QPushButton(name) for name in _TIPS}
        asked = (
            self.fit_asked,
            self.pause_asked,
            self.resume_asked,
            self.stop_asked,
            self.refine_asked,
            self.measure_asked,
        )
        grid = QGridLayout()
        grid.setSpacing(4)
        for n, ((name, button), signal) in enumerate(zip(self.buttons.items(), asked, strict=True)):
            button.setToolTip(_TIPS[name])
            button.setObjectName(f"gaussfit_{name.lower()}")
            button.setMinimumWidth(48)
            button.clicked.connect(signal)
            grid.addWidget(button, 0, n)
        self._choice = QLabel()
        self._choice.setObjectName("gaussfit_choice")
        self._choice.setWordWrap(True)
        self._choice.setToolTip("What a refinement has come to, beside what it went on from.")
        self.other = QPushButton()
        self.other.setObjectName("gaussfit_other")
        self.other.setToolTip("Show the other of the two; the one shown can be had back.")
        self.other.clicked.connect(self.other_asked)
        grid.addWidget(self._choice, 1, 0, 1, 4)
        grid.addWidget(self.other, 1, 4, 1, 2)
        self._state = StateLine("gaussfit_state")
        self._bar = QProgressBar()
        self._bar.setTextVisible(True)
        self._bar.setToolTip("Steps taken, and the time that is left by what the last ones took.")
        self._figures = QLabel()
        self._figures.setObjectName("gaussfit_figures")
        self._figures.setWordWrap(True)
        self._figures.setToolTip(
            "PSNR (dB, more is better) of projections never trained on, of trained ones, "
            "and of the voxels."
        )
        box = QVBoxLayout(self)
        box.setContentsMargins(4, 2, 4, 4)
        box.setSpacing(4)
        box.addLayout(grid)
        box.addWidget(self._state)
        box.addWidget(self._bar)
        box.addWidget(self._figures)
        self._phase = Phase.IDLE
        self._ready = self._refinable = self._measurable = False
        self.show_phase(Phase.IDLE)
        self.show_snapshot(None)
        self.offer("", "")

    def allow(self, *, fit: bool, refine: bool, measure: bool) -> None:
        """Say whether there is a stack to fit, a result to go on from, and one to measure."""
        self._ready, self._refinable, self._measurable = fit, refine, measure
        self._enable()

    def offer(self, words: str, button: str) -> None:
        """Say what there is to choose between, and what shows the other; no words hide it."""
        self._choice.setText(words)
        self.other.setText(button)
        for widget in (self._choice, self.other):
            widget.setVisible(bool(words))

    def show_phase(self, phase: Phase, detail: str = "", *, doubt: bool = False) -> None:
        """Show where the fit is, with a word on why; `doubt` where it is not to be trusted yet."""
        self.show_state(phase, str(phase).capitalize() + (f": {detail}" if detail else ""), doubt)

    def show_state(self, phase: Phase, text: str, doubt: bool) -> None:  # noqa: FBT001
        """Show where the fit is, in words of one's own."""
        self._phase = phase
        self._state.show_state(text, phase, doubt=doubt)
        self._enable()

    def show_refusal(self, reason: str) -> None:
        """Say why the chosen stack cannot be fitted, in place of how the last fit went."""
        self._state.show_state(f"Cannot be fitted: {reason.partition(';')[0]}", Phase.FAILED)

    def show_unmeasured(self, reason: str) -> None:
        """Say why the Gaussians shown were not measured."""
        self._state.show_state(f"Not measured: {reason}", Phase.FAILED)

    def show_snapshot(self, snapshot: Snapshot | None, figures: str = "") -> None:
        """Show how far the fit is, and how good; `figures` where a report has measured it."""
        if snapshot is None:
            self._bar.setRange(0, 1)
            self._bar.setValue(0)
            self._bar.setFormat("no fit yet")
            self._figures.setText("PSNR: held-out –, training –, voxels –\nGaussians: –")
            return
        # A bar paints itself, and the window with it, at every call: once is enough.
        self._bar.setUpdatesEnabled(False)
        self._bar.setRange(0, snapshot.iterations)
        self._bar.setValue(snapshot.iteration)
        self._bar.setFormat(
            f"step %v of %m, {duration(snapshot.seconds)}"
            + (f", {duration(snapshot.seconds_left)} left" if snapshot.seconds_left > 0 else "")
        )
        self._bar.setUpdatesEnabled(True)
        self._figures.setText(
            figures
            or f"PSNR: held-out {_decibels(snapshot.held_out_psnr)}, "
            f"training {_decibels(snapshot.train_psnr)}, voxels {_decibels(snapshot.voxel_psnr)}\n"
            f"Gaussians: {len(snapshot.field):,}, background {snapshot.field.background:.4g}"
        )

    def _enable(self) -> None:
        phase = self._phase
        rest = not phase.active
        enabled = {
            "Fit": rest and self._ready,
            "Pause": phase is Phase.RUNNING,
            "Resume": phase in {Phase.PAUSING, Phase.PAUSED},
            "Stop": phase.active and phase is not Phase.STOPPING,
            "Refine": rest and self._refinable,
            "Measure": rest and self._measurable,
        }
        for name, button in self.buttons.items():
            button.setEnabled(enabled[name])


def _decibels(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f} dB"


def duration(seconds: float) -> str:
    """Return a time in words."""
    if math.isnan(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
