"""Looking for spots, one Gaussian each: candidates at once, then what is fitted, with its table."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QFileDialog

from napari_gaussfit._napari.layers.hidden import slice_hidden
from napari_gaussfit._napari.layers.put import put_layer
from napari_gaussfit._napari.layers.spacing import converted
from napari_gaussfit._napari.layers.spots import (
    ADDED,
    Marks,
    candidates_layer,
    matching,
    spots_layer,
    still_there,
)
from napari_gaussfit._napari.layers.unwrapped import is_same
from napari_gaussfit._napari.panel.asking import Asking
from napari_gaussfit._napari.panel.preferences import begins_at
from napari_gaussfit._napari.panel.run import duration
from napari_gaussfit._napari.panel.spot_parts import SpotRun, SpotSetup, SpotTable
from napari_gaussfit._napari.panel.spots_over_time import STOPPED, SpotsOverTime
from napari_gaussfit._napari.worker import Phase
from napari_gaussfit.errors import GaussfitError, SettingsError
from napari_gaussfit.files import write_table
from napari_gaussfit.jobs.objects import SpotsAsked, found_spots, save_spots, spot_candidates

if TYPE_CHECKING:
    from napari.layers import Layer, Points
    from napari.utils.events import Event
    from napari.viewer import Viewer
    from numpy.typing import NDArray

    from napari_gaussfit._napari.layers.gaussians import LayerData
    from napari_gaussfit._napari.layers.source import Source
    from napari_gaussfit._napari.layers.times import Recording
    from napari_gaussfit._napari.panel.data import DataPart
    from napari_gaussfit._napari.panel.mode import Tab
    from napari_gaussfit._napari.panel.spots_over_time import TimesFound
    from napari_gaussfit.jobs.objects import FoundSpots, SpotCandidates
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["SpotsMode"]

CANDIDATES, SPOTS = "candidates", "spots"
"""What follows the stack's name in those of the layers."""

SECOND_MS = 1000


class SpotsMode(QObject):
    """A `mode.Mode` whose things are spots.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the points go.
    data : DataPart
        What is chosen to be looked into.
    parent : QObject
        With it all processes end.
    """

    title = "Spots: one Gaussian each"
    tip = "How many spots there are, where, how large and how bright, each with error bars."

    found_some = Signal()
    """A search has found spots."""

    found_times = Signal()
    """A search has found spots of several times."""

    deleted_some = Signal()
    """A person has deleted spots, or taken that back."""

    def __init__(self, viewer: Viewer, data: DataPart, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer, self._data = viewer, data
        self.setup, self.foot, self.table = SpotSetup(), SpotRun(), SpotTable()
        self.tabs: tuple[Tab, ...] = (("Spots", self.table, "Every spot, a row each."),)
        self.marks = Marks.none()
        self.found: FoundSpots | None = None
        self.looking, self.fitting = Asking(self, keeps=True), Asking(self)
        self._saving = Asking(self)
        self.over_time = SpotsOverTime(viewer, self.table, self)
        self._source: Source | None = None
        self._of: Source | None = None
        self._candidates: SpotCandidates | None = None
        self._left = np.ones(0, np.bool_)
        self.drawn: tuple[Layer, Points] | None = None
        """Whose candidates were drawn last, in which layer; None once they are asked for anew."""

        self._layers: dict[str, Points] = {}
        self._shown: dict[str, NDArray[np.float64]] = {}
        self._began = 0.0
        self._said = ""
        self._busy = False
        self._clock = QTimer(self)
        self._clock.timeout.connect(self._tick)
        self._connect()

    def _connect(self) -> None:
        self.setup.changed.connect(self._look_anew)
        self.foot.fit_asked.connect(self.fit)
        self.foot.stop_asked.connect(self.stop)
        self.foot.forget_asked.connect(self._forget_marks)
        self.looking.ended.connect(self._take_candidates)
        self.fitting.told.connect(self._hear)
        self.fitting.ended.connect(self._take_spots)
        self._saving.ended.connect(self._take_saved)
        self.over_time.told.connect(self._tick)
        self.over_time.ended.connect(self._take_times)
        self.over_time.saved.connect(self._take_saved)
        self.table.save_asked.connect(self._ask_for_file)
        self.table.folder_asked.connect(self.ask_for_folder)
        self.table.view.chosen.connect(self._select_points)
        self._viewer.layers.events.removed.connect(self._forget_layer)

    # Candidates

    def look_at(self, source: Source | None, refusal: str) -> None:
        """Show candidates of a stack, or say why there are none."""
        before, self._source = self._source, source
        if source is None:
            self.looking.about(None)
            self._allow()
            self.setup.show_words("")
            self.foot.show_state(
                f"Cannot be fitted: {refusal.partition(';')[0]}" if refusal else "Idle",
                Phase.FAILED if refusal else Phase.IDLE,
            )
            return
        if before is None or not _same(before.stack, source.stack):
            self.setup.show_stack(source.stack)
            if self.found is None and self.over_time.found is None:
                self.table.show_unit(source.stack.unit)
            self.looking.about(source.stack)
            if before is None or not before.is_of_same_place(source):
                self.marks = Marks.none()
                self._show_marks()
            times = self.over_time.found
            if times is None or not times.has(source):
                self._look()
            else:  # who looks at what was found needs no candidates, unless a slider is moved
                self._candidates = None
                self.setup.show_words("")
        if not self._active and self._said == "":
            self.foot.show_state("Idle", Phase.IDLE)
        self._allow()

    def leave(self) -> None:
        """Look no more; what was found stays."""
        self.looking.about(None)
        self._source = None

    @property
    def _active(self) -> bool:
        return self.fitting.active or self.over_time.active

    def close_down(self) -> None:
        """End all processes, and let go of the viewer."""
        self.over_time.close_down()
        for asking in (self.looking, self.fitting, self._saving):
            asking.give_up()
        self._clock.stop()
        self._viewer.layers.events.removed.disconnect(self._forget_layer)
        for role in [*self._layers]:
            self._let_go(role)

    def _look_anew(self) -> None:
        """Ask for candidates of other sizes, also where a person has deleted those before."""
        self.drawn = None
        self._look()

    def _look(self) -> None:
        """Ask for candidates, unless what is typed is no number."""
        if self._source is None:
            return
        asked = self._asked()
        self._allow()
        if self.setup.problem:
            self.setup.show_words(f"⚠ {self.setup.problem}")
            return
        if self._candidates is None:
            self.setup.show_words("Looking for candidates…")
        self.looking.ask(lambda renderer: spot_candidates(renderer.ask, asked))

    def _asked(self, points: Any = None) -> SpotsAsked:
        """Return what is looked for, with points [P, 3] in the stack's unit beside the marks."""
        least, largest = self.setup.sizes
        spacing = np.ones(3) if self._source is None else self._source.placement.spacing
        marked = self.marks.added * spacing
        added = marked if points is None else np.concatenate([marked, points])
        excluded = self.marks.excluded * spacing
        return SpotsAsked(least, largest, self.setup.false_discoveries, added, excluded)

    def _take_candidates(self, found: SpotCandidates | None, error: str) -> None:
        if self._source is None:
            return
        if found is None:
            self.setup.show_words(f"⚠ {error}")
            return
        self._candidates = found
        self._show_candidates()

    def _show_candidates(self) -> None:
        if self._candidates is None or self._source is None:
            return
        made = candidates_layer(self._candidates, self.marks, self._source)
        first = CANDIDATES not in self._layers and self.drawn is None
        self._put(CANDIDATES, made, self._source, anew=not self._can_do_without(self._source))
        layer = self._layers.get(CANDIDATES)
        if layer is not None:
            self.drawn = self._source.layer, layer
            if first and len(made[0]):
                self._go_to(CANDIDATES, 0)
        self.setup.show_candidates(self._candidates, len(made[0]), drawn=layer is not None)

    def _can_do_without(self, source: Source) -> bool:
        """Tell whether candidates were drawn, and were deleted since or gave way to spots."""
        if self.drawn is None or not is_same(self.drawn[0], source.layer):
            return False
        deleted = self.drawn[1] not in self._viewer.layers
        return deleted or (
            self.found is not None and self._of is not None and _same(self._of.stack, source.stack)
        )

    # Fitting

    def fit(self) -> None:
        """Search for the spots, and measure them."""
        self._data.spacing.commit()
        self.setup.commit()
        if self._source is None or self.setup.problem:
            return
        try:
            recording = self._data.recording(self._source)
            asked = self._asked(self._start_at(recording))
        except GaussfitError as error:
            self._say(f"Cannot be fitted: {error}", Phase.FAILED)
            return
        self._began, self._said = time.monotonic(), "the first time takes a minute"
        if recording is None:
            self._find(self._source, asked)
        else:
            self.over_time.start(recording, asked)
        self._clock.start(SECOND_MS)
        self._tick()
        self._allow()

    def _start_at(self, recording: Recording | None) -> NDArray[np.float64] | None:
        """Return where spots are in any case, None for nowhere; of a recording at its first time.

        Raises
        ------
        SettingsError
            If the points are of no such stack, or what was marked is of a later time.
        """
        if self._source is None:
            return None
        source = self._source if recording is None else recording.first
        if len(self.marks) and not source.is_of_same_place(self._source):
            raise SettingsError(
                f"points were added or deleted at another time than the first one, "
                f"{source.stack.time}; mark them there, or press Forget"
            )
        fields, points = self._data.start(source)
        return fields[0].numpy().means if fields else points

    def _find(self, source: Source, asked: SpotsAsked) -> None:
        """Have the spots of one stack found."""
        self._of = source
        self._saving.about(source.stack)
        self.fitting.about(source.stack)
        told = self.fitting.told
        self.fitting.ask(lambda renderer: found_spots(renderer.ask, asked, told.emit))

    def stop(self) -> None:
        """End the search; what was found before, or at the times that are done, stays."""
        if self.over_time.active:
            self.over_time.stop()
            return
        self.fitting.give_up()
        self._clock.stop()
        kept = "" if self.found is None else ": the spots found before are kept"
        self._say(f"Stopped{kept}", Phase.CANCELLED)

    def _hear(self, words: dict[str, int]) -> None:
        rounds, spots = words["rounds"], words["spots"]
        self._said = f"{spots:,} spot{'s' * (spots != 1)} after {rounds} round{'s' * (rounds > 1)}"
        self._tick()

    def _tick(self) -> None:
        if self._active:
            took = duration(time.monotonic() - self._began)
            said = self._said if self.fitting.active else self.over_time.words
            self.foot.show_state(f"Running, {took}: {said}", Phase.RUNNING)

    def _take_spots(self, found: FoundSpots | None, error: str) -> None:
        from napari.utils.notifications import show_error

        self._clock.stop()
        if found is None or self._of is None:
            self._say(f"Failed: {error}", Phase.FAILED)
            show_error(f"Gaussian fit: {error}")
            return
        self._show_found(found, self._of)
        count, flagged = len(found.table), int(found.report["flagged"])
        doubt = f", {flagged:,} of them with a flag in the table" if flagged else ""
        took = duration(time.monotonic() - self._began)
        self._say(f"Finished: {count:,} spot{'s' * (count != 1)}{doubt}, {took}", Phase.FINISHED)
        self.found_some.emit()

    @property
    def found_in(self) -> Source | None:
        """The stack of the spots that are shown."""
        return self._of

    def show_spots(
        self, found: FoundSpots, source: Source, left: NDArray[np.bool_], *, anew: bool
    ) -> None:
        """Show spots that were found before; `left` are those that were not deleted since.

        A layer that a person has deleted comes back if it is to be made `anew`.
        """
        self._give_up()
        self._of = source
        self._saving.about(source.stack)
        self._show_found(found, source, anew=anew)
        self._left = left.copy()
        layer = self._layers.get(SPOTS)
        if layer is not None:
            with layer.events.data.blocker():
                layer.selected_data = {int(n) for n in np.flatnonzero(~left)}
                layer.remove_selected()
            slice_hidden(layer)
            self._shown[SPOTS] = np.array(layer.data)
        self._show_rows()
        count = int(left.sum())
        self._say(f"Shown: {count:,} spot{'s' * (count != 1)} found before", Phase.FINISHED)

    def _show_found(self, found: FoundSpots, source: Source, *, anew: bool = True) -> None:
        """Show rings and rows."""
        self.found, self._left = found, np.ones(len(found.table), np.bool_)
        self.over_time.leave()
        self.table.show_spots(found.table, source.stack.unit)
        self._put(SPOTS, spots_layer(found, source), source, anew=anew)
        if CANDIDATES in self._layers:
            self._layers[CANDIDATES].visible = False
        self._show_rows()
        if anew and len(found.table):
            self._go_to(SPOTS, int(found.table["signal_to_noise"].argmax()))

    def _take_times(self, why: str) -> None:
        """Take the times that are done: all of them, or as many as there were."""
        from napari.utils.notifications import show_error

        self._clock.stop()
        times, done = self.over_time.found, self.over_time.done
        phase = Phase.FINISHED
        if why:
            phase = Phase.CANCELLED if why == STOPPED else Phase.FAILED
        if phase is Phase.FAILED:
            show_error(f"Gaussian fit: {why}")
        begun = {Phase.FINISHED: "Finished", Phase.CANCELLED: "Stopped"}.get(
            phase, f"Failed: {why}"
        )
        if times is None or not done:
            kept = self.found is not None or times is not None
            self._say(begun + ": the spots found before are kept" * kept, phase)
            return
        self._turn_to_times()
        of = len(times.recording.times)
        some = f"{done} of {of} times done, " if done < of else ""
        took = duration(time.monotonic() - self._began)
        self._say(f"{begun}: {some}{times.words}, {took}", phase)
        self.found_times.emit()

    def show_times(self, found: TimesFound, *, anew: bool) -> None:
        """Show the spots of several times that were found before, `anew` as one time's are."""
        self._give_up()
        self.over_time.show(found, anew=anew)
        self._turn_to_times()
        self._say(f"Shown: {found.words}, found before", Phase.FINISHED)

    def _turn_to_times(self) -> None:
        """Show those of one time no more in the table: several are; their points stay."""
        self.found, self._of = None, None
        if SPOTS in self._layers:
            self._let_go(SPOTS)
        if CANDIDATES in self._layers:
            self._layers[CANDIDATES].visible = False

    def _give_up(self) -> None:
        """End any search; something that was found before is shown."""
        self.fitting.give_up()
        self.over_time.give_up()
        self._clock.stop()

    def _say(self, words: str, phase: Phase) -> None:
        self._said = words
        self.foot.show_state(words, phase)
        self._allow()

    def _allow(self) -> None:
        ready = self._source is not None and not self.setup.problem
        self.foot.allow(ready=ready, busy=self._active)

    # Layers

    def _put(self, role: str, made: LayerData, source: Source, *, anew: bool = True) -> None:
        """Show points in the layer of a role; where there is none of the stack, make it `anew`."""
        data, keywords, _ = made
        keywords["name"] = f"{source.name} {role}"
        before: Any = self._layers.get(role)
        layer: Any = put_layer(self._viewer, made, role, anew=anew)
        if layer is not before and before is not None:
            self._let_go(role)
        if layer is None:
            return
        if layer is not before:
            self._layers[role] = layer
            layer.current_border_color = ADDED
            layer.events.data.connect(self._heed)
            layer.selected_data.events.items_changed.connect(self._select_rows)
        layer.visible = layer.visible or anew
        self._shown[role] = np.array(data)

    def _go_to(self, role: str, number: int) -> None:
        """Have the viewer show the plane of a point: in 2D, no other plane shows it."""
        layer = self._layers[role]
        dims = self._viewer.dims
        depth = layer.data_to_world(layer.data[number])[0]
        if dims.units is not None:
            depth = converted(depth, str(layer.units[0]), str(dims.units[-3]))
        if dims.ndisplay == 2:
            dims.set_point(dims.ndim - 3, depth)

    def _heed(self, event: Event) -> None:
        """Note what a person adds, moves or deletes."""
        role = next(
            (role for role, layer in self._layers.items() if is_same(layer, event.source)), None
        )
        if role is None or str(getattr(event, "action", "")) in _BEFORE:
            return
        now = np.array(event.source.data)
        self.marks = self.marks.after(self._shown[role], now)
        self._shown[role] = now
        if role == SPOTS:
            self._left = still_there(self._places, now)
        self._show_marks()
        self._show_rows()
        if role == SPOTS:
            self.deleted_some.emit()

    def _show_marks(self) -> None:
        added, left_out = len(self.marks.added), len(self.marks.excluded)
        again = "Fit takes that into account." if len(self.marks) else ""
        words = [f"{added:,} added"] * bool(added) + [f"{left_out:,} left out"] * bool(left_out)
        self.foot.show_marks(f"By hand: {', '.join(words)}. {again}" if words else "")

    def _forget_marks(self) -> None:
        self.marks = Marks.none()
        self._show_marks()
        self._show_candidates()
        if self.found is not None and self._of is not None:
            self._left[:] = True
            self._put(SPOTS, spots_layer(self.found, self._of), self._of, anew=False)
            self._show_rows()
            self.deleted_some.emit()

    def _forget_layer(self, event: Event) -> None:
        for role, layer in [*self._layers.items()]:
            if is_same(layer, event.value):
                self._let_go(role)

    def _let_go(self, role: str) -> None:
        layer = self._layers.pop(role)
        layer.events.data.disconnect(self._heed)
        layer.selected_data.events.items_changed.disconnect(self._select_rows)

    # The table

    @property
    def _places(self) -> NDArray[np.float64]:
        """Of the spots, in voxels."""
        if self.found is None:
            return np.zeros((0, 3))
        places: NDArray[np.float64] = self.found.table[["axis-0", "axis-1", "axis-2"]].to_numpy()
        return places

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which spots a person has not deleted, also where their layer is deleted since."""
        return self._left.copy()

    def _show_rows(self) -> None:
        if self.found is None or self._of is None:
            return
        kept = self.kept
        self.table.model.allow(kept)
        gone = int((~kept).sum())
        left_out = f", {gone:,} deleted by hand" if gone else ""
        unit = f"{self._of.stack.unit}s"
        self.table.show_words(
            f"{self._of.name}: {int(kept.sum()):,} spots{left_out}; lengths in {unit}, ± one "
            "standard deviation."
        )

    def _select_points(self) -> None:
        if self.over_time.found is not None:
            self.over_time.select_points()
            return
        layer = self._layers.get(SPOTS)
        if layer is None or self._busy:
            return
        places = self._places[sorted(self.table.view.items)]
        self._busy = True
        found = matching(places, np.asarray(layer.data))
        chosen = [int(n) for n in found if n >= 0]
        layer.selected_data = set(chosen)
        if chosen:
            self._go_to(SPOTS, chosen[-1])
        self._busy = False

    def _select_rows(self, _event: object = None) -> None:
        layer = self._layers.get(SPOTS)
        if layer is None or self._busy:
            return
        chosen = [n for n in layer.selected_data if n < len(layer.data)]
        rows = matching(np.asarray(layer.data)[chosen], self._places)
        self.table.view.choose({int(n) for n in rows if n >= 0})

    # Files

    @property
    def _title(self) -> str:
        """What files and folders are called."""
        times = self.over_time.found
        if times is not None:
            return f"{times.recording.name} spots"
        return "objects" if self._of is None else f"{self._of.stack.name} spots"

    def _ask_for_file(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self.table, "Save the spots", begins_at(f"{self._title}.csv"), "Table (*.csv)"
        )
        if path:
            self.save_table(path if path.lower().endswith(".csv") else f"{path}.csv")

    def save_table(self, path: str) -> None:
        """Write the rows that are shown as CSV."""
        times = self.over_time.found
        if times is not None:
            table = times.table
        elif self.found is not None:
            table = self.found.table[self.kept]
        else:
            return
        try:
            write_table(Path(path), table)
        except (GaussfitError, OSError) as error:
            self._take_saved(None, str(error))
        else:
            self._take_saved(path, "")

    def ask_for_folder(self) -> None:
        """Ask where, and write what the command line writes into a new folder there."""
        parent = QFileDialog.getExistingDirectory(
            self.table, "Save the spots into a new folder in", begins_at()
        )
        if parent and (self._of is not None or self.over_time.found is not None):
            self.save_folder(new_folder(parent, self._title))

    def save_folder(self, folder: str) -> None:
        """Write what ``napari-gaussfit spots`` writes."""
        found, kept = self.found, self.kept
        if found is None and self.over_time.found is None:
            return
        self.table.show_words("Saving…")
        if found is None:
            self.over_time.save_folder(folder)
            return

        def save(renderer: Any) -> str:
            save_spots(renderer.ask, found, kept, folder)
            return folder

        self._saving.ask(save)

    def _take_saved(self, where: str | None, error: str) -> None:
        from napari.utils.notifications import show_error

        self.table.show_words(f"Saved to {where}" if where else f"Not saved: {error}")
        if not where:
            show_error(f"Gaussian fit: not saved: {error}")


_BEFORE = {"adding", "removing", "changing"}
"""What napari tells of points before it has happened."""


def new_folder(parent: str, name: str) -> str:
    """Return the path of a folder that there is not, called so or with a number after it."""
    path, number = Path(parent, name), 1
    while path.exists():
        number += 1
        path = Path(parent, f"{name} {number}")
    return str(path)


def _same(stack: Stack, other: Stack) -> bool:
    """Tell whether two stacks are one, taken from its layer twice."""
    if stack.facts != other.facts:
        return False
    with suppress(ValueError):
        return bool(np.array_equal(stack.voxels, other.voxels))
    return False
