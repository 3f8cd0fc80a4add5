"""The part of the panel that makes layers and files of a fit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import CheckBox, Container, FloatSpinBox
from qtpy.QtWidgets import QFileDialog, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_gaussfit._napari.layers.opened import placement_of
from napari_gaussfit._napari.layers.pictures import FAINTEST
from napari_gaussfit._napari.layers.placement import METADATA, OF
from napari_gaussfit._napari.layers.source import mark
from napari_gaussfit._napari.panel.number_field import NumberField
from napari_gaussfit._napari.panel.preferences import begins_at
from napari_gaussfit._napari.panel.widgets import Form
from napari_gaussfit._napari.writer import save_fit_as
from napari_gaussfit.errors import GaussfitError
from napari_gaussfit.formats.registry import FIT_WRITERS
from napari_gaussfit.jobs.verdict import details_of, edited_words

if TYPE_CHECKING:
    from napari.viewer import Viewer
    from numpy.typing import NDArray

    from napari_gaussfit._napari.layers.live import LiveLayers
    from napari_gaussfit._napari.layers.opened import OpenedLayers
    from napari_gaussfit._napari.layers.placement import Placement
    from napari_gaussfit._napari.layers.source import Source
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.stacks.facts import StackFacts

    LayerData = tuple[Any, dict[str, Any], str]
    Live = LiveLayers | OpenedLayers

__all__ = ["KINDS", "ResultsPart", "result_layers"]

_BRIGHTEST = 1e12
"""The largest threshold that can be typed."""

KINDS = {
    "points": ("Centres (Points)", "With all measurements as features."),
    "vectors": ("Axes (Vectors)", "The principal axes, each as long as its sigma."),
    "surface": ("Ellipsoids (Surface)", "All Gaussians as ellipsoids, in one layer; best in 3D."),
    "volume": ("Rendered volume (Image)", "The sum of the Gaussians in the stack's voxels."),
    "residual": ("Residual (Image)", "Stack minus rendered volume."),
    "deconvolved": (
        "Without the blur (Image)",
        "The sum of the objects' own light, in the stack's voxels; of a fit with a PSF (Setup).",
    ),
    "labels": ("Nearest Gaussian (Labels)", "Voxels above the threshold, by nearest centre."),
}


def result_layers(
    fit: FitResult,
    source: Source | None,
    kinds: set[str],
    *,
    at_sigma: float,
    faintest: float,
    threshold: float,
) -> list[LayerData]:
    """Return layers of a fit.

    Parameters
    ----------
    fit : FitResult
        The fit whose layers are made.
    source : Source or None
        The stack that was fitted, and its layer; without it there is no residual.
    kinds : set of str
        Which layers are made, a subset of `KINDS`.
    at_sigma : float
        The ellipsoids' distance from their centres, in standard deviations.
    faintest : float
        Amplitude below which a Gaussian gets no ellipsoid, in parts of the brightest's.
    threshold : float
        Of the labels, in raw intensity.
    """
    from napari_gaussfit._napari.layers import gaussians
    from napari_gaussfit.jobs.renderer import rendered

    place, name = placement_of(fit.stack), fit.stack.name
    if source is not None:
        place, name = source.placement, source.name
    field = fit.field
    made: list[LayerData] = []
    if kinds & {"volume", "residual", "labels"}:
        volumes = rendered(fit.fields, fit.stack).reshape(-1, *fit.stack.shape)
        made += _volumes(fit, source, kinds, volumes)
    if "deconvolved" in kinds and fit.psf is not None:
        made += _deconvolved(fit, place, name)
    if "labels" in kinds:
        # Bright in any channel.
        volume, title = volumes.max(axis=0), f"{name} nearest"
        made.append(gaussians.labels_layer(field, volume, place, threshold=threshold, name=title))
    if "surface" in kinds:
        title = f"{name} ellipsoids"
        surface = gaussians.surface_layer(
            field, place, name=title, at_sigma=at_sigma, faintest=faintest
        )
        made.append(surface)
    if "vectors" in kinds:
        made.append(gaussians.vectors_layer(field, place, name=f"{name} axes"))
    if "points" in kinds:
        made.append(gaussians.points_layer(fit, place, name=f"{name} Gaussians"))
    for _, keywords, _ in made:
        if source is not None:
            mark(keywords, source)
        else:
            keywords.setdefault("metadata", {}).setdefault(METADATA, {})[OF] = {"layer": name}
    return made


def _volumes(
    fit: FitResult, source: Source | None, kinds: set[str], volumes: NDArray[np.float32]
) -> list[LayerData]:
    """Return rendered volumes and residuals of each channel; these need its stack."""
    from napari_gaussfit._napari.layers import gaussians

    if source is None:
        place = placement_of(fit.stack)
        titles = [f"{fit.stack.name} rendered"] * len(volumes) * ("volume" in kinds)
        return [
            gaussians.volume_layer(one, place, name=title)
            for one, title in zip(volumes, titles, strict=False)
        ]
    parts = [*zip(source.parts, volumes, strict=True)]
    made = [_rendered(part, one) for part, one in parts] if "volume" in kinds else []
    if "residual" in kinds:
        place = source.placement
        made += [
            gaussians.residual_layer(part.stack.voxels, one, place, name=f"{part.name} residual")
            for part, one in parts
        ]
    return made


def _deconvolved(fit: FitResult, place: Placement, name: str) -> list[LayerData]:
    """Return the light of each channel as it was before the point spread function."""
    from napari_gaussfit._napari.layers.gaussians import volume_layer
    from napari_gaussfit.jobs.renderer import rendered

    sharp = fit.deconvolved()
    volumes = rendered(sharp.fields, fit.stack).reshape(-1, *fit.stack.shape)
    return [volume_layer(one, place, name=f"{name} deconvolved") for one in volumes]


def _rendered(part: Source, volume: NDArray[np.float32]) -> LayerData:
    """Return a channel's rendered volume, in the look of its layer."""
    from napari_gaussfit._napari.layers.gaussians import volume_layer

    name, limits = f"{part.name} rendered", part.contrast_limits
    data, keywords, kind = volume_layer(volume, part.placement, name=name, contrast_limits=limits)
    if part.layer.blending == "additive":  # as channels are, which are seen together
        keywords |= {"colormap": part.layer.colormap, "blending": "additive"}
    return data, keywords, kind


class ResultsPart(QWidget):
    """Chooses which layers to make of a result, and saves it.

    Parameters
    ----------
    viewer : napari.Viewer
        Where the layers go.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._fit: FitResult | None = None
        self._live: Live | None = None
        self._edits = False
        self._typed: tuple[StackFacts, float] | None = None
        """The threshold of labels that a person has typed, and of which stack it is."""

        self._kinds = {
            kind: CheckBox(text=text, value=kind == "points", tooltip=tip)
            for kind, (text, tip) in KINDS.items()
        }
        self._sigma = FloatSpinBox(
            label="Ellipsoids at (sigmas)",
            value=1.0,
            min=0.1,
            max=5.0,
            step=0.1,
            tooltip="How far out the ellipsoids lie, in standard deviations.",
        )
        self._faintest = FloatSpinBox(
            label="Ellipsoids above (%)",
            value=100 * FAINTEST,
            min=0.0,
            max=100.0,
            step=5.0,
            tooltip="Gaussians fainter than this part of the brightest get no ellipsoid: "
            "faint ones are wide, and hide the others. 0 shows all.",
        )
        self._threshold = NumberField(-_BRIGHTEST, _BRIGHTEST)
        self._threshold.show_value(0.0)
        self._threshold.setToolTip(
            "Raw intensity of the rendered volume above which a voxel is labelled. Until you type "
            "one for a stack: half the median amplitude of the Gaussians above their background."
        )
        self._threshold.marked.connect(self._mark)
        self._threshold.committed.connect(self._take_threshold)
        self.add = QPushButton("Add layers")
        self.add.setToolTip("Add the ticked layers of the fit shown to the viewer.")
        heading = QLabel("Layers of the fit shown:")
        self.save = QPushButton("Save the fit shown…")
        self.save.setToolTip(
            "Save the fit to go on with, its measurements as a table, or what it renders."
        )
        self._words = QLabel("No fit yet.")
        self._words.setWordWrap(True)
        boxes = Container(widgets=list(self._kinds.values()), labels=False)
        form = Form(self._sigma, self._faintest, labels=140)
        form.add_row("Labels above (intensity)", self._threshold)
        box = QVBoxLayout(self)
        for widget in (heading, boxes.native, form, self.add, self.save, self._words):
            box.addWidget(widget)
        box.addStretch(1)
        self.add.clicked.connect(self.add_layers)
        self.save.clicked.connect(self._ask_for_shown)
        self._kinds["deconvolved"].enabled = False
        for kind in self._kinds.values():
            kind.changed.connect(self._enable)
        self._enable()

    @property
    def kinds(self) -> set[str]:
        """Which layers are ticked."""
        return {kind for kind, box in self._kinds.items() if box.value}

    @kinds.setter
    def kinds(self, kinds: set[str]) -> None:
        for kind, box in self._kinds.items():
            box.value = kind in kinds

    @property
    def choices(self) -> tuple[set[str], float, float, Any]:
        """Which layers are ticked, and how they are made."""
        return self.kinds, self._sigma.value, self._faintest.value, self._typed

    @choices.setter
    def choices(self, choices: tuple[set[str], float, float, Any]) -> None:
        self.kinds, self._sigma.value, self._faintest.value, self._typed = choices

    def show_fit(self, fit: FitResult, live: Live) -> None:
        """Take a result."""
        if not self._threshold.being_edited:
            self._threshold.show_value(self._threshold_of(fit))
        self._kinds["deconvolved"].enabled = fit.psf is not None
        if fit.psf is None:
            self._kinds["deconvolved"].value = False
        self._fit, self._live, self._edits = fit, live, True
        self._words.setText(details_of(fit))
        self._enable()

    def _threshold_of(self, fit: FitResult) -> float:
        """Return from which intensity on voxels of a fit are labelled: as typed for its stack."""
        if self._typed is not None and self._typed[0] == replace(fit.stack, time=None):
            return self._typed[1]
        peak = float(np.median(fit.field.numpy().amplitudes)) if len(fit.field) else 0.0
        return float(f"{fit.field.background + 0.5 * peak:.4g}")

    def _take_threshold(self, value: float) -> None:
        if self._fit is not None:
            self._typed = replace(self._fit.stack, time=None), value

    def show_edits(self) -> None:
        """Say that the result's points are no more as its report found them."""
        centres = None if self._live is None else self._live.centres
        if self._fit is not None and centres is not None and self._edits:
            self._words.setText(edited_words(self._fit, len(centres.data)))

    def expect_another(self) -> None:
        """Keep to the result that is there, while its points move with a fit that runs."""
        self._edits = False

    def _as_edited(self) -> FitResult | None:
        """Return the result with what was done to its points, if they are there and stand still."""
        from napari_gaussfit._napari.layers.edited import fit_of_layer

        centres = None if self._live is None else self._live.centres
        return self._fit if centres is None or not self._edits else fit_of_layer(centres)

    def add_layers(self) -> None:
        """Make the ticked layers in a thread, and add them to the viewer."""
        from napari.qt.threading import create_worker

        try:
            fit = self._as_edited()
        except GaussfitError as error:
            self._words.setText(f"No layers were made: {error}")
            return
        if fit is None or self._live is None:
            return
        self._threshold.commit()
        if self._threshold.problem:
            return
        self.add.setEnabled(False)
        worker = create_worker(
            result_layers,
            fit,
            self._live.source,
            self.kinds,
            at_sigma=float(self._sigma.value),
            faintest=float(self._faintest.value) / 100,
            threshold=self._threshold.value or 0.0,
            _start_thread=False,
        )
        worker.returned.connect(self._add)
        worker.finished.connect(self._enable)
        worker.start()

    def _add(self, made: list[LayerData]) -> None:
        from napari.layers import Layer

        for layer_data in made:
            self._viewer.add_layer(Layer.create(*layer_data))

    def _ask_for_shown(self) -> None:
        self.ask_where()

    def ask_where(self, fit: FitResult | None = None) -> None:
        """Ask for a file, and save a fit; the one shown, as its points are now, if None."""
        asked = fit or self._fit
        name = asked.stack.name if asked is not None else "fit"
        kinds = (f"{what[0].upper()}{what[1:]} (*{end})" for end, (what, _) in FIT_WRITERS.items())
        path, kind = QFileDialog.getSaveFileName(
            self,
            "Save the fit",
            begins_at(f"{name}.safetensors"),
            ";;".join(kinds),
        )
        if path:
            self.save_to(_with_suffix(path, kind), fit)

    def save_to(self, path: str, fit: FitResult | None = None) -> None:
        """Save a fit in the format of the path's suffix; the one shown if None."""
        from napari.utils.notifications import show_error

        try:
            fit = fit or self._as_edited()
            if fit is None:
                return
            save_fit_as(path, fit)
        except (GaussfitError, OSError) as error:
            self._words.setText(f"Not saved: {error}")
            show_error(f"Gaussian fit: not saved: {error}")
        else:
            self._words.setText(f"Saved to {path}")

    def _mark(self) -> None:
        """Say why what is typed is no threshold."""
        problem = self._threshold.problem
        said = "" if self._fit is None else details_of(self._fit)
        self._words.setText(f"⚠ Labels above: {problem}" if problem else said)
        self._enable()

    def _enable(self, _value: object = None) -> None:
        there = self._fit is not None
        self.add.setEnabled(there and bool(self.kinds) and not self._threshold.problem)
        self.save.setEnabled(there)


def _with_suffix(path: str, kind: str) -> str:
    """Return a path with the suffix of the kind of file that was chosen, as "A table (*.csv)"."""
    wanted = kind.rpartition("*")[2].rstrip(")")
    stem, dot, end = path.rpartition(".")
    if not wanted or path.lower().endswith(wanted):
        return path
    return (stem if dot + end in FIT_WRITERS else path) + wanted
