"""Keeps a panel's results in its viewer's session: what is shown, opened, edited, undone, restored.

The panel says what it shows; whatever it shows has a row in the list, and a file in the session's
folder, from then on.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from qtpy.QtCore import QObject, QTimer

from napari_gaussfit._napari.layers.channels import joined
from napari_gaussfit._napari.layers.live import LiveLayers
from napari_gaussfit._napari.layers.opened import OpenedLayers, placement_of
from napari_gaussfit._napari.layers.placement import METADATA, OF
from napari_gaussfit._napari.panel.kept import Result, side_by_side
from napari_gaussfit._napari.panel.left_over_bar import LeftOverBar
from napari_gaussfit._napari.panel.result_list import ResultListPart
from napari_gaussfit._napari.panel.session import Controls, session_of
from napari_gaussfit._napari.panel.undo import Change, Moment, Removal, edit_words
from napari_gaussfit._napari.worker import Phase
from napari_gaussfit.errors import GaussfitError
from napari_gaussfit.fitting.snapshot import FitState
from napari_gaussfit.jobs.versions import opened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari.layers import Layer, Points
    from napari.utils.events import Event

    from napari_gaussfit._napari.layers.source import Source
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.jobs.versions import Choice, Version

    Live = LiveLayers | OpenedLayers

__all__ = ["Keeping", "is_of"]

_TABLE = {"amplitude", "cov_zz", "cov_zy", "cov_zx", "cov_yy", "cov_yx", "cov_xx", "unit"}
"""Columns by which a table of Gaussians is known among points that napari has read."""

SAME_SPACING = 1e-3
"""Part by which spacings may differ that are said with other digits."""

BESIDE = "#5fd3f9"
"""The colour of centres that are put beside others."""


class ResultsPanel(Protocol):
    """What shows one result: the panel, a QWidget, as far as this module knows it."""

    viewer: Any
    data: Any
    model: Any
    view: Any
    tabs: Any
    results: Any
    live: Any
    over_time: Any

    @property
    def phase(self) -> Phase:
        """Whether a fit is under way."""
        ...

    @property
    def choice(self) -> Choice | None:
        """What a refinement has left to choose between."""
        ...

    def running_version(self) -> Version | None:
        """Return what a fit that runs has found by now."""
        ...

    def take_edits(self) -> None:
        """Show what was made of the points, as a version of its own."""
        ...

    def show_moment(self, version: Version, choice: Choice | None) -> None:
        """Show Gaussians, with what there was to choose then."""
        ...

    def leave_times(self) -> None:
        """Follow the times of a recording no more."""
        ...

    def refine(self) -> None:
        """Go on from what is shown."""
        ...

    def show_results(self) -> None:
        """Show the list."""
        ...


class Keeping(QObject):
    """Stands between a panel, which shows one result, and the session, which keeps all.

    Parameters
    ----------
    panel : ResultsPanel
        Which is closed before the session ends.
    """

    def __init__(self, panel: ResultsPanel) -> None:
        super().__init__(cast("QObject", panel))
        self._panel = panel
        self.session = session_of(panel.viewer)
        self.session.keeping = self
        self.results = self.session.results
        self.part = ResultListPart(self.results, self.session.undo)
        self.bar = LeftOverBar()
        self.phase: Phase | None = None
        """Of the result shown, where it is not the one that the worker has found last."""

        self._expected = self._refining = self._putting = self._closed = False
        self._centres: Points | None = None
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self.heed_edits)
        part = self.part
        part.show_asked.connect(self.show)
        part.compare_asked.connect(self.compare)
        part.refine_asked.connect(self._refine)
        part.save_asked.connect(self._save)
        part.remove_asked.connect(self._remove)
        part.undo_asked.connect(self.undo)
        part.redo_asked.connect(self.redo)
        self.results.renamed.connect(self._write)
        self.bar.restore_asked.connect(self._restore)
        self.bar.discard_asked.connect(self._discard)
        self.session.failed.connect(_warn)
        panel.viewer.layers.events.inserted.connect(self._look_at_new)

    # The panel's life

    def reopen(self) -> None:
        """Show what the viewer's panel showed when it was closed last."""
        session, panel = self.session, self._panel
        self.bar.offer(session.left)
        QTimer.singleShot(0, self._find_window)
        if session.controls is not None:
            self._set_controls(session.controls)
        result = self.results.shown
        if result is not None:
            self._put(result, Moment(result.version, session.choice))
        for layer in list(panel.viewer.layers):
            self._look_at(layer)
        if session.controls is not None:
            panel.tabs.setCurrentIndex(session.controls.tab)

    def close_down(self) -> None:
        """Keep what the panel's controls say, and what it shows, for the next one."""
        panel, data = self._panel, self._panel.data
        self.heed_edits()
        self._keep_running()
        self.session.choice = panel.choice
        self.session.controls = Controls(
            None if panel.model.problem else panel.model.settings,
            panel.model.in_process,
            data.layer,
            data.start_from,
            panel.view.choice,
            panel.tabs.currentIndex(),
        )
        self._closed = True
        self._follow()
        if self.session.keeping is self:
            self.session.keeping = None
        panel.viewer.layers.events.inserted.disconnect(self._look_at_new)

    def _keep_running(self) -> None:
        """Keep the Gaussians of a fit that ends with the panel, as they are by now."""
        found = self._panel.running_version()
        if found is None or self._refining:
            return
        if self._expected:
            self._add(found)
        elif self.results.shown is not None:
            self.results.shown.version = found
            self._write(self.results.shown)

    def _set_controls(self, controls: Controls) -> None:
        panel = self._panel
        there = list(panel.viewer.layers)
        if controls.settings is not None:
            panel.model.settings = controls.settings
        panel.model.in_process = controls.in_process
        if controls.layer in there:
            panel.data.layer = controls.layer
        if controls.start_from in there:
            panel.data.start_from = controls.start_from
        view = controls.view
        if view.axis is None:
            panel.view.look_from(view.azimuth, view.elevation)
        else:
            panel.view.look_along(view.axis)

    def _find_window(self) -> None:
        """Have the session end with the window that the panel has come into."""
        widget: Any = self._panel
        while widget.parentWidget() is not None:
            widget = widget.parentWidget()
        if widget is not self._panel:
            self.session.end_with(widget)

    # What the panel tells

    def began(self, *, refining: bool) -> None:
        """Expect another result; a refinement is of the one that is shown."""
        self._expected, self._refining, self.phase = not refining, refining, None
        self.part.allow(busy=True)

    def rested(self) -> None:
        """Let the list be used again: the fit has ended, and what it came to is shown next."""
        self._refining = False
        self.part.allow(busy=False)

    def took(self, version: Version) -> None:
        """Keep what the panel shows."""
        self._follow()
        if self._panel.over_time is not None:
            return  # The times of a recording have a list and files of their own.
        known = next((one for one in self.results if one.version is version), None)
        if known is not None:
            self._expected = False
            self.session.choice = self._panel.choice
            self.results.show(known)
            return
        if self._putting or self._refining:
            return
        if self._expected or self.results.shown is None:
            self._add(version)
            return
        self._change(self.results.shown, version)

    def known_source(self, source: Source) -> Source:
        """Return the source that a result has of the same voxels already, else this one."""
        for result in self.results:
            known = result.source
            if known is not None and known.is_of_same_place(source) and _same(known, source):
                return known.placed_anew()
        return source

    def live_of(self, source: Source) -> LiveLayers:
        """Return layers that follow fits of a stack: those that are there, else new ones."""
        live = self.session.live_of(source)
        if live is None:
            live = LiveLayers(self._panel.viewer, source, self.session)
            self.session.lives.append(live)
        else:
            live.restart(source)
        return live

    def undo(self) -> None:
        """Take the last edit, refinement or removal back."""
        self.heed_edits()
        if not self._panel.phase.active:
            self.session.undo.undo()

    def redo(self) -> None:
        """Do again what was taken back."""
        self.heed_edits()
        if not self._panel.phase.active:
            self.session.undo.redo()

    def heed_edits(self) -> None:
        """Take what a person has done to the points as another version of their result."""
        self._soon.stop()
        if self._panel.phase.active or self._panel.over_time is not None:
            return
        with suppress(GaussfitError):  # Points that have lost what makes a Gaussian.
            self._panel.take_edits()

    def _add(self, version: Version) -> None:
        live = self._panel.live
        source = None if live is None else live.source
        name = self.results.free_name(version.fit.stack.name)
        result = Result(version, name, source=source, path=_path_of(source))
        self._expected = False
        self._insert(result)
        self.results.show(result)

    def _insert(self, result: Result) -> None:
        self.results.insert(len(self.results), result)
        self._write(result)
        self.part.select(result)

    def _change(self, result: Result, version: Version) -> None:
        """Give a result other Gaussians; undone can be what a person did, not how a fit went on."""
        before, result.version = result.version, version
        choice = self._panel.choice
        if before.news is not version.news:
            words = edit_words(before, version)
            old, new = Moment(before, self.session.choice), Moment(version, choice)
            self.session.undo.push(Change(result, old, new, self._put_by_session, words))
        self.session.choice = choice
        self._write(result)
        self.results.tell()

    def _write(self, result: Result) -> None:
        self.session.folder.keep(result.key, result.fit, result.about)

    def _follow(self) -> None:
        """Hear what is done to the points that are shown."""
        live = self._panel.live
        centres = None if live is None or self._closed else live.centres
        if centres is self._centres:
            return
        if self._centres is not None:
            self._centres.events.data.disconnect(self._hear)
        self._centres = centres
        if centres is not None:
            centres.events.data.connect(self._hear)

    def _hear(self, _event: Event) -> None:
        self._soon.start(0)

    # What a person asks of the list

    def show(self, result: Result) -> None:
        """Show a result in the panel, unless a fit is under way."""
        if self._panel.phase.active:
            return
        self.heed_edits()
        choice = self._panel.choice if result is self.results.shown else None
        self._put(result, Moment(result.version, choice))
        self.part.words.setText("")

    def _put(self, result: Result, moment: Moment) -> None:
        """Show a result as of a moment."""
        panel, fit = self._panel, moment.version.fit
        self._putting, self._expected = True, False
        panel.leave_times()
        if result.source is None:
            result.source = self._source_for(fit)
        panel.live = self._live_for(result)
        snapshot = moment.version.news.snapshot
        ended = snapshot is not None and snapshot.state is FitState.FINISHED
        self.phase = Phase.FINISHED if ended else Phase.CANCELLED
        result.version, self.session.choice = moment.version, moment.choice
        self.results.show(result)
        panel.show_moment(moment.version, moment.choice)
        self._putting = False
        self._follow()
        self._write(result)

    def _put_by_session(self, result: Result, moment: Moment) -> None:
        """Show a result as of a moment, in the panel that there is by now."""
        current: Keeping = self.session.keeping
        current._put(result, moment)

    def _live_for(self, result: Result) -> Live:
        if result.source is None:
            return OpenedLayers(self._panel.viewer, result.fit, result.points)
        live, points = self.live_of(result.source), result.points
        before = self._panel.live
        if isinstance(before, OpenedLayers):
            points = points or before.centres
            before.close()
        if result.source.layer not in self._panel.viewer.layers:
            live.make_no_more()
        if points is not None and points in self._panel.viewer.layers:
            result.points = None
            if live.centres is None:
                live.adopt(points)
            elif live.centres is not points:
                points.visible = False
        return live

    def look_for_stack(self) -> None:
        """Put a fit that a file has brought beside its stack, once that is chosen in the panel."""
        shown = self.results.shown
        busy = self._panel.phase.active or self._putting or self._panel.over_time is not None
        if shown is None or shown.source is not None or busy:
            return
        if self._source_for(shown.fit) is not None:
            self._put(shown, Moment(shown.version, self._panel.choice))

    def _source_for(self, fit: FitResult) -> Source | None:
        """Return the stack that is chosen in the panel, if a fit can be of it."""
        source = None
        with suppress(GaussfitError):
            source = self._panel.data.source()
        return joined(source.parts) if source is not None and is_of(fit, source) else None

    def compare(self, first: Result, second: Result) -> None:
        """Say how two results differ, and put the centres of the second beside the first."""
        from napari.layers import Points

        from napari_gaussfit._napari.layers.gaussians import points_layer

        rows = "".join(
            f"<tr><td>{what}&nbsp;&nbsp;</td><td>{one}&nbsp;&nbsp;</td><td>{other}</td></tr>"
            for what, one, other in side_by_side(first, second)
        )
        names = f"<th></th><th align=left>{first.name}</th><th align=left>{second.name}</th>"
        self.part.words.setText(f"<table><tr>{names}</tr>{rows}</table>")
        if first is not self.results.shown:
            self.show(first)
            self.part.words.setText(f"<table><tr>{names}</tr>{rows}</table>")
        viewer, name = self._panel.viewer, f"{second.name} beside"
        place = placement_of(second.fit.stack)
        if second.source is not None:
            place = second.source.placement
        data, keywords, _ = points_layer(second.fit, place, name=name)
        look = {"face_color": "transparent", "border_color": BESIDE, "border_width": 0.2}
        kept = {key: keywords[key] for key in ("size", *place.keywords())}
        if name in viewer.layers:
            viewer.layers.remove(name)
        metadata = {METADATA: {OF: {"beside": True}}}
        layer = Points(data, name=name, metadata=metadata, **look, **kept)
        chosen = set(viewer.layers.selection)
        viewer.add_layer(layer)
        viewer.layers.selection = chosen

    def _refine(self, result: Result) -> None:
        if result is not self.results.shown:
            self.show(result)
        if result.source is None:
            size = " x ".join(map(str, result.fit.stack.shape))
            self.part.words.setText(
                f"Refine needs the stack of {result.name}: open it, {size} voxels (z, y, x), and "
                "choose it under Image."
            )
            return
        self._panel.refine()

    def _save(self, result: Result) -> None:
        if result is not self.results.shown and not self._panel.phase.active:
            self.show(result)
        self._panel.results.ask_where(result.fit)

    def _remove(self, results: Sequence[Result]) -> None:
        self.heed_edits()
        self.session.undo.push(Removal(results, self._take_away, self._put_back))
        names = ", ".join(one.name for one in results)
        self.part.words.setText(f"Removed: {names}. Undo brings it back.")

    def _take_away(self, results: Sequence[Result]) -> None:
        for result in results:
            self.results.remove(result)
            self.session.folder.drop(result.key)
        if self.results.shown in results:
            self.results.show(None)

    def _put_back(self, results: Sequence[Result]) -> None:
        for result in results:
            self._insert(result)

    # What is opened, and what was left

    def _look_at_new(self, event: Event) -> None:
        self._look_at(event.value, fresh=True)

    def _look_at(self, layer: Layer, *, fresh: bool = False) -> None:
        """Take the fit that a layer has brought into the list; show it if it has just come."""
        carried = layer.metadata.get(METADATA, {})
        key = str(layer.unique_id)
        if layer.__class__.__name__ != "Points" or OF in carried or key in self.session.seen:
            return
        fit = carried.get("fit")
        table = fit is None and fresh and _is_table(layer)
        if fit is None and not table:
            return
        self.session.seen.add(key)
        if table:
            fit = self._read_table(layer)
        if fit is None:
            return
        source = self._source_for(fit)
        name = self.results.free_name(_name_of(layer, fit))
        result = Result(opened(fit), name, source=source, points=layer, path=_path_of(source))
        self._insert(result)
        if fresh:
            # napari is not done with adding the layer yet.
            QTimer.singleShot(0, lambda: self._show_opened(result))

    def _show_opened(self, result: Result) -> None:
        if self.results.row_of(result) >= 0:
            self.show(result)

    def _read_table(self, layer: Layer) -> FitResult | None:
        """Return the fit of a table, whose stack is the chosen one."""
        from napari_gaussfit.fitting.result import load

        try:
            source = self._panel.data.source()
            if source is None:
                self.part.words.setText(
                    f"{layer.name}: a table does not tell its stack; open the stack, choose it "
                    "under Image, and open the table again."
                )
                return None
            fit = load(layer.source.path, source.stack)
        except GaussfitError as error:
            self.part.words.setText(str(error))
            return None
        for name, value in source.placement.keywords().items():
            setattr(layer, name, value)
        layer.metadata = {**layer.metadata, METADATA: {"fit": fit}}
        return fit

    def _restore(self) -> None:
        """Bring back what a window has left that was not closed in order."""
        lost: list[str] = []
        for left in self.session.left:
            whole = True
            for about, fit in left.fits():
                if isinstance(fit, str):
                    lost.append(fit)
                    whole = False
                    continue
                self._insert(
                    Result(opened(fit), self.results.free_name(about.name), path=about.path)
                )
            self.session.folder.settle()
            if whole:
                left.discard()
            else:
                left.leave()
        self.session.left.clear()
        self.bar.offer([])
        said = "\n".join(f"Not restored: {words}" for words in lost)
        self.part.words.setText(said or "Restored. Show one; Refine needs its stack.")
        if len(self.results) and self.results.shown is None:
            self.show(self.results[len(self.results) - 1])
        self._panel.show_results()

    def _discard(self) -> None:
        for left in self.session.left:
            left.discard()
        self.session.left.clear()
        self.bar.offer([])


def is_of(fit: FitResult, source: Source) -> bool:
    """Tell whether a fit can be of a stack: by size, spacing and, where both tell, its place."""
    known, several = source.stack.facts, len(source.stacks) > 1
    close = all(
        abs(one - other) <= SAME_SPACING * other
        for one, other in zip(fit.stack.spacing, known.spacing, strict=True)
    )
    places = [(fit.stack.time, known.time)]
    if not several:
        places.append((fit.stack.channel, known.channel))
    same_place = all(None in (one, other) or one == other for one, other in places)
    alike = fit.stack.shape == known.shape and fit.stack.unit == known.unit
    return alike and close and same_place and len(fit.fields) == len(source.stacks)


def _same(known: Source, source: Source) -> bool:
    """Tell whether two sources hold the very same voxels."""
    return all(
        one.facts == other.facts and np.may_share_memory(one.voxels, other.voxels)
        for one, other in zip(known.stacks, source.stacks, strict=True)
    )


def _is_table(layer: Any) -> bool:
    """Tell whether napari has read a table of Gaussians as points."""
    path: Path | str | None = layer.source.path
    return bool(path) and str(path).lower().endswith(".csv") and set(layer.features) >= _TABLE


def _name_of(layer: Layer, fit: FitResult) -> str:
    """Return what a fit is called that a layer has brought: as its file."""
    from pathlib import Path

    return Path(layer.source.path).stem if layer.source.path else fit.stack.name


def _path_of(source: Source | None) -> str:
    return "" if source is None else str(source.layer.source.path or "")


def _warn(reason: str) -> None:
    """Say that a result is not safe from a crash."""
    from napari.utils.notifications import show_warning

    show_warning(f"Gaussian fit: a result is not kept for the case of a crash: {reason}")
