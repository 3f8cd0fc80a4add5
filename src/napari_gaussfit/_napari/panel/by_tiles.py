"""The part of the panel that fits a large stack by tiles: in processes of its own, to a folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QGroupBox,
    QHBoxLayout,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_gaussfit._napari.layers.large import LargeSource, is_large_layer
from napari_gaussfit._napari.layers.opened import placement_of
from napari_gaussfit._napari.layers.placement import METADATA, OF
from napari_gaussfit._napari.layers.tile_points import TilePoints
from napari_gaussfit._napari.panel.child_run import ChildRun
from napari_gaussfit._napari.panel.preferences import begins_at
from napari_gaussfit._napari.panel.run import duration
from napari_gaussfit._napari.panel.widgets import Form, wrapped
from napari_gaussfit.errors import GaussfitError, SettingsError
from napari_gaussfit.formats.tiled import OBJECTS_NAME, read_index
from napari_gaussfit.jobs.messages import Message
from napari_gaussfit.jobs.tiles import Pace, RenderTask, TilesTask, folder_state, progress_words
from napari_gaussfit.model.gaussians import counted
from napari_gaussfit.objects.sizes import Sizes

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_gaussfit._napari.layers.placement import Placement
    from napari_gaussfit._napari.panel.data import DataPart
    from napari_gaussfit._napari.panel.model import ModelPart
    from napari_gaussfit._napari.panel.spot_parts import SpotSetup
    from napari_gaussfit.stacks.facts import StackFacts

__all__ = ["ByTilesPart"]

WHY = (
    "A fit in one piece would see each voxel of a large stack a few times only. By tiles, each "
    "part is fitted with as many steps as any stack, and no more than that is in memory. Settings "
    "are those below; a Region limits it to the box around it."
)

WHY_SPOTS = (
    "Spots are looked for and measured part by part; one on a seam is found once. Sizes and the "
    "share of false ones are those below; a Region limits the search to the box around it."
)

_TIPS = {
    "Fit by tiles": "Fit the stack, or the box around its region, by tiles into the folder: its "
    "structure, or its spots, as is chosen above.",
    "Go on": "Go on with the fit in the folder, from wherever it was stopped or killed.",
    "Stop": "End it with its workers. What is done is kept; Go on goes on with it.",
    "Show": "Show the Gaussians of the fit in the folder as points.",
    "Volume": "Write the fitted volume into the folder as OME-Zarr in several resolutions, and "
    "show it as a layer of which napari reads what is in view.",
}

_LINES = (
    ("out", "a new folder, or that of a fit by tiles", "Where the result is written."),
    (
        "tile",
        "z y x; empty: about 128 128 128",
        "Voxels of a tile along z, y, x. Empty: 128 where the spacing is finest, alike elsewhere.",
    ),
    (
        "scheduler",
        "none: processes of its own",
        "Address of a dask scheduler, tcp://host:8786; its workers need the same paths.",
    ),
)
"""What is typed: its name, what stands there while it is empty, and its tooltip."""

VOLUME_NAME = "volume.ome.zarr"


class ByTilesPart(QGroupBox):
    """Shown where the chosen layer is large, or a fit by tiles runs.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where points and volumes are shown.
    data : DataPart
        Which layer, channels and times are chosen.
    model : ModelPart
        How it is fitted.
    spots : SpotSetup
        What is looked for, where spots are.
    """

    changed = Signal()
    """A fit by tiles has begun, or is over."""

    def __init__(self, viewer: Viewer, data: DataPart, model: ModelPart, spots: SpotSetup) -> None:
        super().__init__("By tiles")
        self.setObjectName("gaussfit_by_tiles")
        self._viewer, self._data, self._model, self._spots = viewer, data, model, spots
        self._source: LargeSource | None = None
        self._run: ChildRun | None = None
        self._points: TilePoints | None = None
        self._pace, self._stopped, self._result = Pace(), False, False
        self._structure, self._reading = True, False
        self.setToolTip(WHY)
        self.words = wrapped("gaussfit_tiles_stack", WHY)
        self.out, self.tile, self.scheduler = QLineEdit(), QLineEdit(), QLineEdit()
        self.workers = QSpinBox()
        self.bar = QProgressBar()
        self.state = wrapped("gaussfit_tiles_state", "How far the fit by tiles is.")
        self.seen = wrapped("gaussfit_tiles_seen", "Which of the Gaussians are shown as points.")
        self.buttons = {name: self._button(name, tip) for name, tip in _TIPS.items()}
        for name, action in (
            ("Fit by tiles", self.start), ("Go on", self.go_on), ("Stop", self.stop),
            ("Show", self.show_folder), ("Volume", self.render_volume),
        ):  # fmt: skip
            self.buttons[name].clicked.connect(action)
        self._lay_out()
        self.look_at()

    def _button(self, name: str, tip: str) -> QPushButton:
        button = QPushButton(name)
        button.setObjectName(f"gaussfit_tiles_{name.lower().replace(' ', '_')}")
        button.setToolTip(tip)
        return button

    def _lay_out(self) -> None:
        for line, (name, empty, tip) in zip(
            (self.out, self.tile, self.scheduler), _LINES, strict=True
        ):
            line.setObjectName(f"gaussfit_tiles_{name}")
            line.setPlaceholderText(empty)
            line.setToolTip(tip)
            line.textChanged.connect(self._enable)
        self.workers.setObjectName("gaussfit_tiles_workers")
        self.workers.setRange(0, 999)
        self.workers.setSpecialValueText("as cores and memory allow")
        self.workers.setToolTip("Processes of this machine that fit tiles at the same time.")
        choose = QPushButton("…")
        choose.setObjectName("gaussfit_tiles_choose")
        choose.setAccessibleName("Choose the folder of the result")
        choose.setToolTip(self.out.toolTip())
        choose.setFixedWidth(28)
        choose.clicked.connect(self._choose)
        form = Form()
        form.add_row("Folder", _row(self.out, choose, tip=self.out.toolTip()))
        form.add_row("Tile", self.tile)
        form.add_row("Workers", self.workers)
        form.add_row("Scheduler", self.scheduler)
        box = QVBoxLayout(self)
        box.setContentsMargins(4, 4, 4, 4)
        box.setSpacing(4)
        box.addWidget(self.words)
        box.addWidget(form)
        box.addWidget(_row(*(self.buttons[name] for name in ("Fit by tiles", "Go on", "Stop"))))
        box.addWidget(self.bar)
        box.addWidget(self.state)
        box.addWidget(self.seen)
        box.addWidget(_row(*(self.buttons[name] for name in ("Show", "Volume"))))

    @property
    def choices(self) -> tuple[str, str, str, int]:
        """What is typed: folder, tile, scheduler and how many workers."""
        typed = self.out.text(), self.tile.text(), self.scheduler.text()
        return *typed, self.workers.value()

    @choices.setter
    def choices(self, choices: tuple[str, str, str, int]) -> None:
        *typed, workers = choices
        for line, text in zip((self.out, self.tile, self.scheduler), typed, strict=True):
            line.setText(text)
        self.workers.setValue(workers)

    @property
    def active(self) -> bool:
        """Whether something is under way."""
        return self._run is not None

    @property
    def points(self) -> TilePoints | None:
        """The points of the last fit."""
        return self._points

    def allow(self, *, structure: bool) -> None:
        """Say whether structure is looked for, or else spots."""
        self._structure = structure
        self.setToolTip(WHY if structure else WHY_SPOTS)
        self.look_at()

    @property
    def serves(self) -> bool:
        """Whether what is chosen is fitted here: that it is not fitted in one piece is no fault."""
        return self.active or self._source is not None

    def look_at(self) -> None:
        """Take what is chosen now: its size, and its region, without reading a voxel."""
        large = is_large_layer(self._data.layer)
        self.setVisible(large or self.active)
        if self.active:
            return
        self._source = None
        if large:
            try:
                self._source = LargeSource.of(self._data.chosen(), self._data.marked())
                self.words.setText(f"{self._source.words}, fitted part by part into a folder.")
                if not self._structure:
                    self._show_sizes(self._source.facts)
            except GaussfitError as error:
                self.words.setText(f"⚠ {error}")
        self._enable()

    def _show_sizes(self, facts: StackFacts) -> None:
        """Offer the sizes of spots that the stack can show: no voxel of it tells more of them."""
        self._spots.show_stack(facts)
        sizes = Sizes.of(facts, *self._spots.sizes)
        self._spots.show_sizes(sizes.least, sizes.largest)

    # What is done

    def start(self) -> None:
        """Fit it into the folder."""
        self._begin(resume=False)

    def go_on(self) -> None:
        """Go on with what is in the folder."""
        self._begin(resume=True)

    def stop(self) -> None:
        """End it; what is done is in the folder."""
        if self._run is not None:
            self._stopped = True
            self._run.stop()
            self._say("Stopping…")
            self._enable()

    def show_folder(self) -> None:
        """Show the Gaussians of the fit that is in the folder, where that says that they lie."""
        try:
            facts = read_index(self._folder)[0]
        except GaussfitError as error:
            self._say(str(error), bad=True)
            return
        spots = (Path(self._folder) / OBJECTS_NAME).exists()
        self._show_points(placement_of(facts), facts, spots=spots)
        self._ask("show", {"out": self._folder}, "Reading the Gaussians…")

    def render_volume(self) -> None:
        """Write the fitted volume, and show it."""
        task = RenderTask(self._folder, str(Path(self._folder) / VOLUME_NAME))
        self._ask("render", asdict(task), "Rendering…")

    def close_down(self) -> None:
        """End what is under way: the folder keeps what is done."""
        run, self._run = self._run, None
        if run is not None:
            run.kill()
        if self._points is not None:
            self._points.close()
            self._points = None

    def _begin(self, *, resume: bool) -> None:
        self._model.commit()
        self._data.spacing.commit()
        self._spots.commit()
        self.look_at()
        source = self._source
        if source is None:
            return
        try:
            self._refuse_what_is_ignored()
            task = self._task(source, resume=resume)
        except GaussfitError as error:
            self._say(str(error), bad=True)
            return
        self._show_points(source.placement, source.facts, spots=not self._structure)
        self._ask("fit", asdict(task), "Starting…")

    def _refuse_what_is_ignored(self) -> None:
        """Refuse what is chosen above and cannot be had here."""
        if not self._structure and self._spots.problem:
            raise SettingsError(self._spots.problem)
        if self._structure and self._data.start_from is not None:
            raise SettingsError(
                "by tiles, a fit begins with the stack itself: choose that under Start from; or "
                "give points at the prompt (napari-gaussfit fit --points)"
            )
        if len(self._data.times.times()) > 1:
            raise SettingsError(
                "by tiles, one time is fitted here: the one in view; for all, see napari-gaussfit "
                f"{'fit' if self._structure else 'spots'} --time all"
            )

    def _task(self, source: LargeSource, *, resume: bool) -> TilesTask:
        psf = self._model.psf
        part = source.part
        return TilesTask(
            str(source.path),
            self._folder,
            self._model.settings.to_dict(),
            [*source.channels],
            source.time,
            source.position,
            None if source.spacing is None else [*source.spacing],
            None if part is None else [[*part[0]], [*part[1]]],
            whole_numbers(self.tile.text()),
            None if psf is None else psf.to_dict(),
            self.workers.value() or None,
            self.scheduler.text().strip() or None,
            resume,
            None if self._structure else self._asked_of_spots,
        )

    @property
    def _asked_of_spots(self) -> dict[str, float | None]:
        least, largest = self._spots.sizes
        share = self._spots.false_discoveries
        return {"least_size": least, "largest_size": largest, "false_discoveries": share}

    @property
    def _folder(self) -> str:
        return self.out.text().strip()

    def _ask(self, kind: str, words: dict[str, Any], said: str) -> None:
        """Have a process do something, and follow it."""
        self._stopped, self._result, self._pace = False, False, Pace()
        self._reading = kind == "show"
        self.bar.setRange(0, 0)
        self._run = ChildRun("tiles_child", Message(kind, words), "fit by tiles", self)
        self._run.told.connect(self._take)
        self._run.ended.connect(self._end)
        self._say(said)
        self._enable()
        self.changed.emit()

    def _show_points(self, placement: Placement, of: StackFacts, *, spots: bool) -> None:
        """Have points for what will be found; those of a fit before stay."""
        if self._points is not None:
            self._points.close()
        name = f"{of.name} by tiles"
        self._points = TilePoints(self._viewer, placement, name, self, of.shape, rings=spots)
        self._points.shown.connect(self._say_seen)

    # What is heard

    def _take(self, message: Message) -> None:
        words, arrays = message.words, message.arrays
        if message.kind in {"found", "result"} and self._points is not None:
            if message.kind == "result" and not self._result:
                self._result = True
                self._points.clear()
            self._points.add(arrays["means"], arrays["sigmas"], arrays["amplitudes"])
        elif message.kind == "progress" and not self._stopped:
            self._show_progress(words)
        elif message.kind == "workers":
            link = f", dashboard: {words['dashboard']}" if words["dashboard"] else ""
            self._say(f"{words['text'].capitalize()}{link}")
        elif message.kind == "report":
            self._say(_report_words(words), bad=bool(words["failed"]))
        elif message.kind == "rendering":
            self.bar.setRange(0, words["of"])
            self.bar.setValue(words["done"])
        elif message.kind == "rendered":
            self._show_volume(words["path"])

    def _show_progress(self, words: dict[str, Any]) -> None:
        left = self._pace.left(words["stage"], words["done"], words["total"])
        self.bar.setRange(0, words["total"])
        self.bar.setValue(words["done"])
        self._say(progress_words(words, "" if left is None else duration(left)))

    def _show_volume(self, path: str) -> None:
        """Show a volume, as its source is shown; what was there of it before is not so any more."""
        for layer in [one for one in self._viewer.layers if one.source.path == path]:
            self._viewer.layers.remove(layer)
        name, source = read_index(Path(path).parent)[0].name, self._source
        layers = self._viewer.open(path, plugin="napari-gaussfit")
        for n, layer in enumerate(layers):
            layer.metadata[METADATA] = layer.metadata[METADATA] | {OF: {"layer": name}}
            layer.name = f"{name} fitted" + (f" {n}" if len(layers) > 1 else "")
            if source is not None and source.name == name and len(layers) == 1:
                layer.contrast_limits = source.layer.contrast_limits
        self._say(f"{path}: written, and shown as it is read.")

    def _end(self, why: str) -> None:
        self._run = None
        self.bar.setRange(0, 1)
        self.bar.reset()
        if why:
            self._say(why, bad=True)
        elif self._stopped:
            self._say("Stopped. What is done is in the folder; Go on goes on with it.")
        elif self._reading and self._points is not None:
            self._say(f"{counted(self._points.count)} of the fit in the folder.")
        self.look_at()
        self.changed.emit()

    def _say_seen(self) -> None:
        self.seen.setText("" if self._points is None else self._points.words)

    def _say(self, text: str, *, bad: bool = False) -> None:
        self.state.setText(text)
        self.state.setStyleSheet("color: #c4483a" if bad else "")

    def _choose(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "Folder for the fit by tiles", begins_at())
        if name:
            self.out.setText(name)

    def _enable(self) -> None:
        rest, folder = self._run is None, self._folder
        found = folder_state(folder)
        ready = rest and bool(folder) and self._source is not None
        enabled = {
            "Fit by tiles": ready and not found.begun,
            "Go on": ready and found.goes_on,
            "Stop": not rest and not self._stopped,
            "Show": rest and found.ended,
            "Volume": rest and found.ended,
        }
        for name, button in self.buttons.items():
            button.setEnabled(enabled[name])
        for widget in (self.out, self.tile, self.workers, self.scheduler):
            widget.setEnabled(rest)


def whole_numbers(text: str) -> list[int] | None:
    """Return the voxels of a tile as they are typed, None where nothing is.

    Raises
    ------
    SettingsError
        If these are not three whole numbers.
    """
    parts = text.replace(",", " ").replace("x", " ").split()
    if not parts:
        return None
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise SettingsError(
            f"tile {text!r}: expected three whole numbers, voxels along z, y and x, such as "
            "64 128 128; or nothing"
        )
    return [int(part) for part in parts]


def _report_words(words: dict[str, Any]) -> str:
    psnr = "" if words["psnr"] is None else f", voxels {words['psnr']:.2f} dB"
    measured = f" {words['measured']:,} have error bars." if words["measured"] else ""
    failed = words["failed"]
    empty = words["background"]
    background = f", {empty:,} of which hold nothing but background" if empty else ""
    text = (
        f"{words['gaussians']:,} {words['what']} in {words['tiles']:,} tiles"
        f"{background}{psnr}.{measured}"
    )
    if not failed:
        return text
    more = f" and {len(failed) - 1:,} more" if len(failed) > 1 else ""
    return f"{text} Failed: {failed[0]}{more}; Go on tries again."


def _row(*widgets: QWidget, tip: str = "") -> QWidget:
    holder = QWidget()
    holder.setToolTip(tip)
    row = QHBoxLayout(holder)
    row.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        row.addWidget(widget)
    return holder
