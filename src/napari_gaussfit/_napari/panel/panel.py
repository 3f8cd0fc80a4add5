"""GaussianFitPanel: the panel's parts put together, and who tells whom what."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QTabWidget, QVBoxLayout, QWidget

from napari_gaussfit._napari.layers.channels import channel_names, joined
from napari_gaussfit._napari.layers.destroyed import when_destroyed
from napari_gaussfit._napari.layers.live import LiveLayers
from napari_gaussfit._napari.layers.live_times import LiveTimes
from napari_gaussfit._napari.panel.batch import BatchButton
from napari_gaussfit._napari.panel.conventions import (
    Activity,
    give_keys,
    name_controls,
    order_focus,
)
from napari_gaussfit._napari.panel.data import DataPart
from napari_gaussfit._napari.panel.help import HelpButton
from napari_gaussfit._napari.panel.keeping import Keeping, is_of
from napari_gaussfit._napari.panel.measuring import Measuring
from napari_gaussfit._napari.panel.mode import ModePart, StructureMode
from napari_gaussfit._napari.panel.model import ModelPart
from napari_gaussfit._napari.panel.objects import ObjectsPart
from napari_gaussfit._napari.panel.over_time import OverTime
from napari_gaussfit._napari.panel.plots import DetailPlots, ProgressPlots
from napari_gaussfit._napari.panel.preview import Preview, memory_of_fit, preview_of
from napari_gaussfit._napari.panel.results import ResultsPart
from napari_gaussfit._napari.panel.run import RunPart
from napari_gaussfit._napari.panel.save_times import SaveTimes
from napari_gaussfit._napari.panel.shown import ShownPart
from napari_gaussfit._napari.panel.spots import SpotsMode
from napari_gaussfit._napari.panel.state import figures_at_rest, state_words
from napari_gaussfit._napari.panel.table import TablePart
from napari_gaussfit._napari.panel.track_plot import TrackPlot
from napari_gaussfit._napari.panel.view import ViewPart
from napari_gaussfit._napari.panel.widgets import dropped_files, scrolling, stacked, wrapped
from napari_gaussfit._napari.worker import FitWorker, Phase
from napari_gaussfit.errors import GaussfitError
from napari_gaussfit.jobs.job import FitTask
from napari_gaussfit.jobs.renderer import Renderer
from napari_gaussfit.jobs.sequence import SequenceNews, SequenceTask
from napari_gaussfit.jobs.verdict import details_of
from napari_gaussfit.jobs.versions import Choice, Version, version_of

if TYPE_CHECKING:
    import napari
    from napari.utils.events import Event
    from qtpy.QtGui import QDragEnterEvent, QDropEvent

    from napari_gaussfit._napari.layers.opened import OpenedLayers
    from napari_gaussfit._napari.layers.source import Source
    from napari_gaussfit._napari.layers.times import Recording
    from napari_gaussfit._napari.panel.mode import Tab
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.jobs.job import News
    from napari_gaussfit.jobs.pictures import MipPair
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["GaussianFitPanel"]

SIZE = 390, 720
"""Width and height that the panel would like to have, in pixels."""

WRITE_SECONDS = 2.0
"""Between two updates of figures and plots, which nobody reads faster."""

EDITED = (
    "the points were edited, and a fit goes on from its own Gaussians; press Undo edits (Table) "
    "to resume, or Stop and then Refine to go on from the edited ones"
)
"""Why a paused fit is not resumed."""

_DONE = {Phase.FINISHED, Phase.CANCELLED}
"""Phases of a fit after which its Gaussians may be measured."""

SETTLE_MS = 150
"""After a change of the data, before the stack is looked at: who types a number types several."""


class GaussianFitPanel(QWidget):
    """Fits Gaussians to a layer of a viewer, and shows how it goes.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Whose layers are fitted, and where those of the fit appear.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.data, self.model, self.run = DataPart(napari_viewer), ModelPart(), RunPart()
        self.view, self.progress, self.details = ViewPart(), ProgressPlots(), DetailPlots()
        self.quality = wrapped("gaussfit_quality", "How good the fit shown is, by its report.")
        self.table, self.results = TablePart(napari_viewer), ResultsPart(napari_viewer)
        self.all_times, self.track_plot = SaveTimes(), TrackPlot()
        self.shown = ShownPart(napari_viewer)
        self.objects = ObjectsPart(napari_viewer)
        self.spots = SpotsMode(napari_viewer, self.data, self)
        self.worker, self._renderer = FitWorker(self), Renderer()
        self.activity = Activity(self.worker)
        self.measuring = Measuring(self)
        self.live: LiveLayers | OpenedLayers | None = None
        self.over_time: OverTime | None = None
        self.kept = Keeping(self)
        self._task: FitTask | SequenceTask | None = None
        self._shown: Version | None = None
        self._before: Version | None = None
        self._choice: Choice | None = None
        self._edited: FitResult | None = None
        self._unmeasured = ""
        self._measured_of: Version | None = None
        self._written = 0.0
        self._ready: Source | None = None
        self._settling = QTimer(self)
        self._settling.setSingleShot(True)
        self._settling.setInterval(SETTLE_MS)
        self._lay_out()
        self._connect()
        self.kept.reopen()
        self._settling.start()

    def _lay_out(self) -> None:
        self.tabs = QTabWidget()
        self.batch = BatchButton(lambda: self.model.settings)
        setup = scrolling(stacked(self.data, self.model, self.batch, self.spots.setup))
        self.tabs.setTabToolTip(self.tabs.addTab(setup, "Setup"), "What to look into, and how.")
        details = stacked(self.quality, self.track_plot, self.details)
        export = scrolling(stacked(self.kept.part, self.results, self.all_times))
        progress = stacked(self.view, self.shown, self.progress)
        structure: tuple[Tab, ...] = (
            ("Progress", scrolling(progress, fills=True), "The fit while it runs."),
            ("Details", scrolling(details, fills=True), "How good it is, in numbers."),
            ("Table", self.table, "Every Gaussian, a row each."),
            ("Results", export, "All results, as layers and files."),
            ("Objects", self.objects, "Cells, nuclei or neurites in a fit."),
        )
        modes = StructureMode(self.model, structure, self.run), self.spots
        self.modes = ModePart(self.tabs, modes)
        box = QVBoxLayout(self)
        box.setContentsMargins(2, 2, 2, 2)
        box.addWidget(self.kept.bar)
        box.addWidget(self.modes)
        box.addWidget(self.tabs, 1)
        for mode in modes:
            box.addWidget(mode.foot)
        give_keys(self.run.buttons)
        give_keys({"Fit": self.spots.foot.fit, "Stop": self.spots.foot.stop})
        HelpButton(self.tabs)
        name_controls(self)
        order_focus([self.modes, self.tabs, *(mode.foot for mode in modes)])
        self.setMinimumWidth(340)
        self.setAcceptDrops(True)

    def _connect(self) -> None:
        when_destroyed(self, self._renderer.close)
        self._settling.timeout.connect(self._look_at_stack)
        self.data.changed.connect(self._look_soon)
        self.model.changed.connect(self._look_soon)
        self.run.fit_asked.connect(self.start_fit)
        self.run.refine_asked.connect(self.refine)
        self.run.pause_asked.connect(self.worker.pause)
        self.run.resume_asked.connect(self.resume)
        self.run.stop_asked.connect(self.stop)
        self.run.other_asked.connect(self.take_the_other)
        self.run.measure_asked.connect(self.measure)
        self.measuring.ended.connect(self._take_measured)
        self.view.changed.connect(self.worker.look)
        self.worker.phase_changed.connect(self._show_phase)
        self.worker.preparation_changed.connect(self._look_soon)
        self.worker.updated.connect(self._show_news)
        self.worker.mips_changed.connect(self._show_mips)
        self.worker.ended.connect(self._settle)
        self.modes.changed.connect(self._change_mode)
        self.spots.found_some.connect(lambda: self.tabs.setCurrentWidget(self.spots.table))
        self.tabs.currentChanged.connect(self._draw_plots)
        self.table.undo_asked.connect(self._undo_edits)
        self.table.edited.connect(self.results.show_edits)
        self.table.filtered.connect(self.shown.overlays.draw_soon)
        self.viewer.layers.events.removed.connect(self._layer_removed)
        for key, do in (("Undo", self.kept.undo), ("Redo", self.kept.redo)):
            shortcut = QShortcut(QKeySequence.StandardKey[key], self)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(do)

    @property
    def choice(self) -> Choice | None:
        """What a refinement has left to choose between."""
        return self._choice

    @property
    def fit(self) -> FitResult | None:
        """The fit that stands still, None before the first."""
        return None if self._shown is None else self._shown.fit

    @property
    def phase(self) -> Phase:
        """Where the panel is: with its fit, with measuring it, or done with that."""
        if self.measuring.active:
            return Phase.MEASURING
        phase, measured = self.worker.phase, self.fit is not None and self.fit.measurement
        if not phase.active and self.kept.phase is not None:
            phase = self.kept.phase
        return Phase.MEASURED if measured and phase in _DONE else phase

    # What is to be fitted

    def _look_soon(self, _change: object = None) -> None:
        self._settling.start()

    def _change_mode(self) -> None:
        several = self.modes.mode is not self.spots
        self.data.channels.allow(several=several)
        self.data.times.allow(several=several)
        self.batch.setVisible(several)
        self._look_at_stack()

    def _look_at_stack(self) -> None:
        """Say what is there to be fitted, and what that takes."""
        from napari.qt.threading import create_worker

        refusal = ""
        try:
            self._ready = self.data.source()
        except GaussfitError as error:
            self._ready, refusal = None, str(error)
        self.kept.look_for_stack()
        self._allow()
        self.data.show_words(self._ready, refusal)
        self.model.how_many.look_at(None if self._ready is None else self._ready.stack)
        self.modes.mode.look_at(self._ready, refusal)
        if not self.phase.active:
            self._show_phase()
            if refusal or self.model.problem:
                self.run.show_refusal(refusal or self.model.problem)
        if self._ready is None:
            self.model.show_no_facts()
            self.data.show_preview(None)
            return
        worker = create_worker(
            preview_of, self._ready.stack, self.model.device, self._renderer, _start_thread=False
        )
        worker.returned.connect(self._show_preview)
        worker.start()

    def _show_preview(self, preview: Preview) -> None:
        if self._ready is not None and preview.stack is self._ready.stack:
            self.data.show_preview(preview)
            self.model.suggest(preview.suggested)
            self.model.show_facts(preview.device, *memory_of_fit(self._ready.stacks))

    def _allow(self) -> None:
        sound, single = not self.model.problem, self.over_time is None
        self.run.allow(
            fit=sound and self._ready is not None,
            refine=sound and self._source is not None and self.fit is not None and single,
            measure=bool(self._stacks_of_fit()) and single,
        )

    @property
    def _source(self) -> Source | None:
        """The stack of what is shown, None where a file has brought Gaussians alone."""
        return None if self.live is None else self.live.source

    def _stacks_of_fit(self) -> tuple[Stack, ...]:
        """Return the channels of the fit shown, none where there is no fit, or another stack."""
        source = self._source
        if self.fit is None or source is None or not len(self.fit.field):
            return ()
        return source.stacks if is_of(self.fit, source) else ()

    # Running

    def start_fit(self) -> None:
        """Fit the chosen stack."""
        # Where a button takes no focus, as on macOS, what is typed is not taken yet.
        self.data.spacing.commit()
        self.model.commit()
        self._look_at_stack()
        source = self._ready
        if source is None or self.model.problem:
            return
        try:
            recording = self.data.recording(source)
            source = joined(source.parts) if recording is None else recording.first
            start, points = self.data.start(source)
        except GaussfitError as error:
            self.run.show_refusal(str(error))
            return
        self.kept.heed_edits()
        if recording is None:
            source = self.kept.known_source(source)
        self._follow(source, recording)
        if isinstance(self.live, LiveLayers):
            self.shown.follow(self.live)
        self.view.show_channels(channel_names(source))
        settings, view, psf = self.model.settings, self.view.choice, self.model.psf
        if recording is None:
            self._begin(FitTask(source.stacks, settings, start, points, view=view, psf=psf))
        else:
            self._begin(SequenceTask(recording.series, settings, start, points, view, psf))

    def _follow(self, source: Source, recording: Recording | None) -> None:
        """Have layers follow a fit, or those of a recording: the ones there if of the same."""
        self.all_times.show_times(None)
        self.track_plot.show_points(None)
        if recording is not None:
            times = _following(self.live, self.viewer, recording, self)
            if times is not self.live:
                self.leave_times()
            elif self.over_time is not None:
                self.over_time.close()
            self.live, self._shown = times, None
            self.over_time = OverTime(self.viewer, times, self.model.settings, self)
            self.over_time.moved.connect(self._show_time)
            return
        self.leave_times()
        live = self.kept.live_of(source)
        if live is not self.live:
            self._shown, self.live = None, live

    def leave_times(self) -> None:
        """Follow the times of a recording no more; their layers stay."""
        if self.over_time is not None:
            self.over_time.close()
            self.over_time = self._shown = None
            self.all_times.show_times(None)
            self.track_plot.show_points(None)
        if isinstance(self.live, LiveTimes):
            self.live.close()
            self.live = None

    def refine(self) -> None:
        """Go on from the last result, as the user has edited it."""
        self.model.commit()
        if self.model.problem:
            self._look_at_stack()
            return
        self.kept.heed_edits()
        before = self._as_edited()
        if not isinstance(self.live, LiveLayers) or before is None:
            return
        fields = before.fit.fields
        if not len(fields[0]):
            detail = "no Gaussians are left to refine; undo the edits, or press Fit"
            self.run.show_phase(self.worker.phase, detail)
            return
        self.live.restart(self.live.source)
        settings = replace(self.model.settings, gaussians=len(fields[0]), refine=True)
        task = FitTask(
            self.live.source.stacks,
            settings,
            fields,
            view=self.view.choice,
            psf=self.model.psf or before.fit.psf,
        )
        self._begin(task, before)

    def resume(self) -> None:
        """Let a paused fit go on, unless its points were edited: it goes on from its own."""
        if self._edited_while_paused() is not None:
            self.run.show_phase(self.worker.phase, EDITED)
            return
        self.worker.resume()
        self.results.expect_another()

    def stop(self) -> None:
        """End the fit; what was done to its points while it stood still stays done."""
        if self.measuring.active:
            self.measuring.give_up()
            self._show_phase()
            return
        self._edited = self._edited_while_paused()
        self.worker.stop()

    def _edited_while_paused(self) -> FitResult | None:
        """Return a paused fit as its points were edited since, None where they were not."""
        if self.worker.phase is not Phase.PAUSED:
            return None
        try:
            edited = self._as_edited()
        except GaussfitError:
            return None  # Points that have lost what makes a Gaussian are no edit to keep.
        return None if edited is None or edited is self._shown else edited.fit

    def _as_edited(self) -> Version | None:
        """Return the Gaussians shown with what was done to their points since."""
        from napari_gaussfit._napari.layers.edited import fit_of_layer

        centres = None if self.live is None else self.live.centres
        if centres is None or self._shown is None:
            return self._shown
        return self._shown.edited(fit_of_layer(centres))

    def measure(self) -> None:
        """Measure the Gaussians shown, as the user has edited them."""
        stacks = self._stacks_of_fit()
        if not stacks or self.phase.active:
            return
        try:
            edited = self._as_edited()
        except GaussfitError as error:
            self._say_unmeasured(str(error))
            return
        if edited is None or not len(edited.fit.field):
            self._say_unmeasured("no Gaussians are left; undo the edits")
            return
        if edited is not self._shown:
            self._show(edited)
        self._unmeasured, self._measured_of = "", self._shown
        self.measuring.start(edited.fit, stacks)
        self._show_phase()

    def _take_measured(self, fit: FitResult | None, error: str) -> None:
        """Show what was measured, unless the points are others by now."""
        before, same = self._measured_of, False
        with suppress(GaussfitError):
            same = self._as_edited() is before
        if fit is not None and before is not None and same:
            self._show(before.edited(fit))
        edited = "" if same else "the points were edited; press Measure again"
        self._say_unmeasured(error or edited)

    def _say_unmeasured(self, reason: str) -> None:
        """Say why nothing was measured, until it is tried again or another fit begins."""
        self._unmeasured = reason
        self._show_phase()

    def _begin(self, task: FitTask | SequenceTask, before: Version | None = None) -> None:
        """Run a fit; `before` is what a refinement goes on from."""
        self.measuring.give_up()
        self._unmeasured = ""
        self._task, self._before, self._edited = task, before, None
        self._offer(None)
        self.worker.in_process = self.model.in_process
        self.run.show_snapshot(None)
        self.table.show_nothing()
        self.results.expect_another()
        self.kept.began(refining=before is not None)
        self.worker.start(task)
        self.tabs.setCurrentIndex(1)

    def _show_phase(self, _phase: Phase | None = None) -> None:
        phase, news = self.phase, self.worker.news
        edited = self._shown is not None and self._shown.unedited is not None
        fit = news.result or (self.fit if edited else None)
        text, doubt = state_words(phase, fit, self.worker.notice)
        self.run.show_state(phase, text + self._time_words(), doubt)
        if self._unmeasured and phase in {*_DONE, Phase.MEASURED}:
            self.run.show_unmeasured(self._unmeasured)
        if phase is Phase.PAUSED and isinstance(self._task, FitTask):
            self._show(version_of(self._task, self.worker.news))

    def _time_words(self) -> str:
        """Say which time is fitted or shown, of several."""
        news, shown = self.worker.news, self.over_time
        if shown is None or not (shown.frames or self.phase.active):
            return ""
        fitted = news.words if isinstance(news, SequenceNews) else shown.words
        return f" ({shown.words if shown.frames else fitted})"

    def _show_news(self, news: News) -> None:
        if news.snapshot is None or not isinstance(self.live, LiveLayers):
            return
        if self.worker.phase is Phase.PAUSED:
            return  # It stands still, and is shown so already, with all that is known of it.
        if self.over_time is not None and isinstance(news, SequenceNews):
            if self.over_time.follow_fit(news):
                self.run.show_snapshot(news.snapshot)  # what was shown is of the time before
            self._show_phase()
        made = self.live.show(news.snapshot.fields)
        if not made:
            self.shown.overlays.show_field(news.snapshot.field)
        now = time.monotonic()
        # What takes long comes one at a time, with the window's own turns between.
        if not made and now - self._written >= WRITE_SECONDS:
            self._written = now
            self.run.show_snapshot(news.snapshot)
            self._draw_plots()

    def _show_mips(self, mips: MipPair) -> None:
        if self.live is not None:
            self.live.show_mips(mips)
            self.shown.overlays.show_mips(mips)

    def _draw_plots(self, _tab: int = 0) -> None:
        news = self.worker.news
        self.progress.show_history(news.history)
        if news.snapshot is not None:
            self.details.show_fit(news.snapshot.field, news.history)

    # At rest

    def _settle(self, news: News) -> None:
        """Take the result of a fit that has ended; of a refinement, the better of two."""
        if self.worker.error:
            from napari.utils.notifications import show_error

            show_error(f"Gaussian fit: {self.worker.error}")
        self.kept.rested()
        if isinstance(news, SequenceNews) and news.frames and self.over_time is not None:
            self.over_time.settle(news)
            self.all_times.show_times(self.over_time)
            self._show_all_times(self.over_time)
            self._show_time()
            self._allow()
            return
        before, self._before = self._before, None
        edited, self._edited = self._edited, None
        found = None if self._task is None else version_of(self._task, news)
        if found is not None and edited is not None:
            found = found.edited(edited)
        if before is not None and found is not None:
            self._offer(Choice.of_better(before, found))
        else:
            # A fit that has found nothing takes nothing away.
            self._show(found or before or self._shown)
        self._show_phase()
        self._allow()

    def _show_all_times(self, shown: OverTime) -> None:
        """Show what there is once for all times: their table, and the numbers of tracks."""
        fit, points = shown.frames[-1].result, shown.live.points
        self.table.show_fit(fit, points)
        self.track_plot.show_points(points, fit.stack.unit)

    def _show_time(self) -> None:
        """Show what was found at the time in view."""
        shown = self.over_time
        if shown is None or shown.version is None or self.phase.active:
            return
        shown.live.look_at(shown.version.fit.stack.time or 0)
        self.worker.take(shown.version.news, shown.live.source.stacks)
        self._show(shown.version)
        self._show_phase()

    def _offer(self, choice: Choice | None) -> None:
        """Show one of a refinement's two results, and how to have the other."""
        self._choice = choice
        self._say_choice()
        if choice is not None:
            self._show(choice.shown)

    def _say_choice(self) -> None:
        choice = self._choice
        self.run.offer(*("", "") if choice is None else (choice.words, choice.offer))

    def show_moment(self, version: Version, choice: Choice | None) -> None:
        """Show Gaussians that were shown before, with what there was to choose then."""
        self._choice, self._unmeasured = choice, ""
        source = self._source
        if source is not None and isinstance(self.live, LiveLayers):
            self.view.show_channels(channel_names(source))
            self.shown.follow(self.live)
        self.worker.about(() if source is None else source.stacks, self.view.choice)
        self._say_choice()
        self._show(version)
        self._show_phase()
        self._allow()

    def take_edits(self) -> None:
        """Show what was made of the points, as a version of its own."""
        edited = self._as_edited()
        if edited is not None and edited is not self._shown:
            self._show(edited)
            self._show_phase()

    def running_version(self) -> Version | None:
        """Return what a fit that runs has found by now, None where none runs."""
        if not isinstance(self._task, FitTask) or not self.worker.phase.active:
            return None
        return version_of(self._task, replace(self.worker.news))

    def show_results(self) -> None:
        """Show the list of results."""
        for number in range(self.tabs.count()):
            if self.tabs.tabText(number) == "Results":
                self.tabs.setCurrentIndex(number)

    def take_the_other(self) -> None:
        """Show the other result of a refinement; the one shown can be had back as it is now."""
        shown = self._as_edited()
        if self._choice is not None and shown is not None and not self.phase.active:
            self._offer(self._choice.other(shown))

    def _show(self, version: Version | None) -> None:
        """Show Gaussians that stand still with all that is known of them."""
        if version is None or self.live is None:
            return
        self._shown = version
        if version.news is not self.worker.news:
            self.worker.take(version.news)
            self._show_phase()
        self.run.show_snapshot(version.news.snapshot, figures_at_rest(version.fit))
        self.quality.setText(details_of(version.fit))
        if self.over_time is None or not self.over_time.frames:
            self.live.settle(version.fit)
            edited = version.unedited is not None
            self.table.show_fit(version.fit, self.live.centres, edited=edited)
        self.shown.overlays.show_field(None)
        self.results.show_fit(version.fit, self.live)
        self.kept.took(version)
        self.objects.look_again()
        self._draw_plots()

    def _undo_edits(self) -> None:
        """Show the Gaussians as the fit left them."""
        self.kept.heed_edits()
        phase = self.phase
        if self._shown is not None and (phase is Phase.PAUSED or not phase.active):
            self._show(self._shown.unedited or self._shown)
            if phase is Phase.PAUSED:
                self.run.show_phase(phase)  # without what was said of the edits

    def _layer_removed(self, event: Event) -> None:
        source = self._source
        if self.live is not None and source is not None and event.value in source.layers:
            self.worker.abort()
            self.live.make_no_more()

    # The panel itself

    def sizeHint(self) -> QSize:
        """Leave most of the window to the picture."""
        return QSize(*SIZE)

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        """Take files."""
        if event is not None and dropped_files(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:
        """Open dropped files with this plugin's reader, without a question."""
        if event is None:
            return
        event.acceptProposedAction()
        for path in dropped_files(event):
            self._open(path)

    def _open(self, path: str) -> None:
        """Open a file; one that cannot be read keeps none that was dropped with it from opening."""
        from napari.utils.notifications import show_error

        try:
            table = path.lower().endswith(".csv")  # which napari reads as points
            self.viewer.open(path, plugin="napari" if table else "napari-gaussfit")
        except GaussfitError as error:
            show_error(str(error))

    def changeEvent(self, event: QEvent | None) -> None:
        """End the fit where napari takes the panel out of its window: it is being closed."""
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.close_down()

    def close_down(self) -> None:
        """End the fit, and let go of the viewer; its session keeps the results."""
        self.kept.close_down()
        self.worker.close()
        self.activity.close()
        self.measuring.give_up()
        self.spots.close_down()
        self.objects.close_down()
        self.model.how_many.close_down()
        self._renderer.close()
        self._settling.stop()
        self.data.close_down()
        self.table.close_down()
        self.track_plot.show_points(None)
        self.shown.overlays.close()
        self.leave_times()
        self.live = None
        self.viewer.layers.events.removed.disconnect(self._layer_removed)
        self.deleteLater()


def _following(
    live: LiveLayers | OpenedLayers | None,
    viewer: napari.viewer.Viewer,
    recording: Recording,
    keeper: QWidget,
) -> LiveTimes:
    """Return layers that follow a recording: those there are if they are of the same one."""
    if isinstance(live, LiveTimes) and live.recording.is_of_same_layers(recording):
        live.restart_all(recording)
        return live
    return LiveTimes(viewer, recording, keeper)
