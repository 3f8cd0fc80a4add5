"""GaussianFitPanel: the panel's parts put together, and who tells whom what."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QTabWidget, QVBoxLayout, QWidget

from napari_gaussfit._napari.layers.channels import channel_names, joined
from napari_gaussfit._napari.layers.gl_context import CanvasContext
from napari_gaussfit._napari.layers.live import LiveLayers
from napari_gaussfit._napari.panel.batch import BatchButton
from napari_gaussfit._napari.panel.by_tiles import ByTilesPart
from napari_gaussfit._napari.panel.conventions import (
    Activity,
    give_keys,
    name_controls,
    order_focus,
)
from napari_gaussfit._napari.panel.data import DataPart
from napari_gaussfit._napari.panel.dropping import TakesFiles
from napari_gaussfit._napari.panel.help import HelpButton
from napari_gaussfit._napari.panel.keeping import Keeping
from napari_gaussfit._napari.panel.matching import is_of
from napari_gaussfit._napari.panel.measuring import Measuring
from napari_gaussfit._napari.panel.mode import ModePart, StructureMode
from napari_gaussfit._napari.panel.model import ModelPart
from napari_gaussfit._napari.panel.objects import ObjectsPart
from napari_gaussfit._napari.panel.plots import DetailPlots, ProgressPlots
from napari_gaussfit._napari.panel.preferences import preferences_label
from napari_gaussfit._napari.panel.preview import Preview, memory_of_fit
from napari_gaussfit._napari.panel.previewing import Previewing
from napari_gaussfit._napari.panel.recordings import Recordings
from napari_gaussfit._napari.panel.results import ResultsPart
from napari_gaussfit._napari.panel.run import RunPart
from napari_gaussfit._napari.panel.save_times import SaveTimes
from napari_gaussfit._napari.panel.shown import ShownPart
from napari_gaussfit._napari.panel.spots import SpotsMode
from napari_gaussfit._napari.panel.state import figures_at_rest, state_words
from napari_gaussfit._napari.panel.table import TablePart
from napari_gaussfit._napari.panel.tour import Tour, stops_of, tour_frame
from napari_gaussfit._napari.panel.track_plot import TrackPlot
from napari_gaussfit._napari.panel.view import ViewPart
from napari_gaussfit._napari.panel.widgets import scrolling, stacked, wrapped
from napari_gaussfit._napari.worker import FitWorker, Phase
from napari_gaussfit.errors import GaussfitError
from napari_gaussfit.jobs.job import FitTask
from napari_gaussfit.jobs.sequence import SequenceTask
from napari_gaussfit.jobs.verdict import details_of
from napari_gaussfit.jobs.versions import Choice, Version, version_of

if TYPE_CHECKING:
    import napari
    from napari.utils.events import Event

    from napari_gaussfit._napari.layers.opened import OpenedLayers
    from napari_gaussfit._napari.layers.source import Source
    from napari_gaussfit._napari.panel.mode import Tab
    from napari_gaussfit._napari.panel.over_time import OverTime
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


class GaussianFitPanel(TakesFiles):
    """Fits Gaussians to a layer of a viewer, and shows how it goes.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Whose layers are fitted, and where those of the fit appear.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer)
        self._context = CanvasContext(napari_viewer, self)
        self.data, self.model, self.run = DataPart(napari_viewer), ModelPart(), RunPart()
        self.view, self.progress, self.details = ViewPart(), ProgressPlots(), DetailPlots()
        self.quality = wrapped("gaussfit_quality", "How good the fit shown is, by its report.")
        self.table, self.results = TablePart(napari_viewer), ResultsPart(napari_viewer)
        self.all_times, self.track_plot = SaveTimes(), TrackPlot()
        self.shown = ShownPart(napari_viewer)
        self.objects = ObjectsPart(napari_viewer)
        self.spots = SpotsMode(napari_viewer, self.data, self)
        self.by_tiles = ByTilesPart(napari_viewer, self.data, self.model, self.spots.setup)
        self.worker, self._previewing = FitWorker(self), Previewing(self)
        self.activity = Activity(self.worker, self)
        self.measuring = Measuring(self)
        self.live: LiveLayers | OpenedLayers | None = None
        self.recordings = Recordings(self)
        self.kept = Keeping(self)
        self._task: FitTask | SequenceTask | None = None
        self._shown: Version | None = None
        self._before: Version | None = None
        self._choice: Choice | None = None
        self._edited: FitResult | None = None
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
        self.preferred = preferences_label()
        parts = self.data, self.by_tiles, self.model, self.batch, self.spots.setup
        setup = scrolling(stacked(self.preferred, *parts))
        self.tabs.setTabToolTip(self.tabs.addTab(setup, "Setup"), "What to look into, and how.")
        details = stacked(self.quality, self.track_plot, self.details)
        self._export = scrolling(stacked(self.kept.part, self.results, self.all_times))
        progress = stacked(self.view, self.shown, self.progress)
        structure: tuple[Tab, ...] = (
            ("Progress", scrolling(progress, fills=True), "The fit while it runs."),
            ("Details", scrolling(details, fills=True), "How good it is, in numbers."),
            ("Table", self.table, "Every Gaussian, a row each."),
            ("Results", self._export, "All results, as layers and files."),
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
        self._offer_tour(HelpButton(self.tabs))
        name_controls(self)
        order_focus([self.modes, self.tabs, *(mode.foot for mode in modes)])
        self.setMinimumWidth(340)

    def _offer_tour(self, button: HelpButton) -> None:
        """Offer a tour of the panel where napari has the frame for one."""
        frame = tour_frame()
        self.tour: Tour | None = None
        if frame is not None:
            self.tour = Tour(frame, stops_of(self), self.show_structure, self)
            button.offer_tour(self.tour.start)

    def _connect(self) -> None:
        self._settling.timeout.connect(self._look_at_stack)
        self._previewing.made.connect(self._show_preview)
        self.data.changed.connect(self._look_soon)
        self.model.changed.connect(self._look_soon)
        self.run.fit_asked.connect(self.start_fit)
        self.run.refine_asked.connect(self.refine)
        self.run.pause_asked.connect(self.worker.pause)
        self.run.resume_asked.connect(self.resume)
        self.run.stop_asked.connect(self.stop)
        self.run.other_asked.connect(self.take_the_other)
        self.run.measure_asked.connect(self.measuring.measure)
        self.measuring.changed.connect(self.show_phase)
        self.view.changed.connect(self.worker.look)
        self.worker.phase_changed.connect(self.show_phase)
        self.worker.preparation_changed.connect(self._look_soon)
        self.worker.updated.connect(self._show_news)
        self.worker.mips_changed.connect(self._show_mips)
        self.worker.ended.connect(self._settle)
        self.modes.changed.connect(self._change_mode)
        for found in (self.spots.found_some, self.spots.found_times):
            found.connect(lambda: self.tabs.setCurrentWidget(self.spots.table))
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
    def over_time(self) -> OverTime | None:
        """The times of a recording that are shown, None where it is a fit of one."""
        return self.recordings.shown

    @property
    def phase(self) -> Phase:
        """Where the panel is: with its fit, with measuring it, or done with that."""
        if self.measuring.active:
            return Phase.MEASURING
        phase, measured = self.worker.phase, self.fit is not None and self.fit.measurement
        if not phase.active and self.kept.fits.phase is not None:
            phase = self.kept.fits.phase
        return Phase.MEASURED if measured and phase in _DONE else phase

    # What is to be fitted

    def _look_soon(self, _change: object = None) -> None:
        self._settling.start()

    def _change_mode(self) -> None:
        several = self.modes.mode is not self.spots
        self.data.channels.allow(several=several)
        self.batch.setVisible(several)
        self.by_tiles.allow(structure=several)
        self._look_at_stack()

    def _look_at_stack(self) -> None:
        """Say what is there to be fitted, and what that takes."""
        refusal = ""
        try:
            self._ready = self.data.source()
        except GaussfitError as error:
            self._ready, refusal = None, str(error)
        self.kept.fits.look_for_stack()
        self.by_tiles.look_at()
        self.allow()
        self.data.show_words(self._ready, refusal)
        self.model.how_many.look_at(None if self._ready is None else self._ready.stack)
        if self.by_tiles.serves:
            refusal = ""
        self.modes.mode.look_at(self._ready, refusal)
        if not self.phase.active:
            self.show_phase()
            if refusal or self.model.problem:
                self.run.show_refusal(refusal or self.model.problem)
        if self._ready is None:
            self.model.show_no_facts()
            self.data.show_preview(None)
        stack = None if self._ready is None else self._ready.stack
        self._previewing.look(stack, self.model.device, self.data.edition)

    def _show_preview(self, preview: Preview) -> None:
        if self._ready is not None:
            self.data.show_preview(preview)
            self.model.suggest(preview.suggested)
            self.model.show_facts(preview.device, *memory_of_fit(self._ready.stacks))

    def allow(self) -> None:
        """Enable what can be done."""
        sound, single = not self.model.problem, self.over_time is None
        self.run.allow(
            fit=sound and self._ready is not None,
            refine=sound and self._source is not None and self.fit is not None and single,
            measure=bool(self.stacks_of_fit()) and single,
        )

    @property
    def _source(self) -> Source | None:
        """The stack of what is shown, None where a file has brought Gaussians alone."""
        return None if self.live is None else self.live.source

    def stacks_of_fit(self) -> tuple[Stack, ...]:
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
        self.kept.fits.heed_edits()
        if recording is None:
            source = self.kept.fits.known_source(source)
            self._follow(source)
        else:
            self.recordings.follow(recording, self.model.settings)
        if isinstance(self.live, LiveLayers):
            self.shown.follow(self.live)
        self.view.show_channels(channel_names(source))
        settings, view, psf = self.model.settings, self.view.choice, self.model.psf
        if recording is None:
            self._begin(FitTask(source.stacks, settings, start, points, view=view, psf=psf))
        else:
            self._begin(SequenceTask(recording.series, settings, start, points, view, psf))

    def _follow(self, source: Source) -> None:
        """Have layers follow a fit: the ones there if of the same."""
        self.recordings.leave()
        live = self.kept.fits.live_of(source)
        if live is not self.live:
            self._shown, self.live = None, live

    def show_nothing(self) -> None:
        """Forget what was shown: what comes is of another stack, or of all times of it."""
        self._shown = None

    def refine(self) -> None:
        """Go on from the last result, as the user has edited it."""
        self.model.commit()
        if self.model.problem:
            self._look_at_stack()
            return
        self.kept.fits.heed_edits()
        before = self.as_edited()
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
            self.show_phase()
            return
        self._edited = self._edited_while_paused()
        self.worker.stop()

    def _edited_while_paused(self) -> FitResult | None:
        """Return a paused fit as its points were edited since, None where they were not."""
        if self.worker.phase is not Phase.PAUSED:
            return None
        try:
            edited = self.as_edited()
        except GaussfitError:
            return None  # Points that have lost what makes a Gaussian are no edit to keep.
        return None if edited is None or edited is self._shown else edited.fit

    def as_edited(self) -> Version | None:
        """Return the Gaussians shown with what was done to their points since."""
        from napari_gaussfit._napari.layers.edited import fit_of_layer

        centres = None if self.live is None else self.live.centres
        if centres is None or self._shown is None:
            return self._shown
        return self._shown.edited(fit_of_layer(centres))

    def _begin(self, task: FitTask | SequenceTask, before: Version | None = None) -> None:
        """Run a fit; `before` is what a refinement goes on from."""
        self.measuring.forget()
        self._task, self._before, self._edited = task, before, None
        self._offer(None)
        self.worker.in_process = self.model.in_process
        self.run.show_snapshot(None)
        self.table.show_nothing()
        self.results.expect_another()
        self.kept.began(refining=before is not None)
        if isinstance(self.live, LiveLayers):
            self.live.bring_back()
        self.worker.start(task)
        self.tabs.setCurrentIndex(1)

    def show_phase(self, _phase: Phase | None = None) -> None:
        """Say where the panel is, and what is so of the fit shown."""
        phase, news = self.phase, self.worker.news
        edited = self._shown is not None and self._shown.unedited is not None
        fit = news.result or (self.fit if edited else None)
        text, doubt = state_words(phase, fit, self.worker.notice)
        self.run.show_state(phase, text + self.recordings.words, doubt)
        if self.measuring.refusal and phase in {*_DONE, Phase.MEASURED}:
            self.run.show_unmeasured(self.measuring.refusal)
        if phase is Phase.PAUSED and isinstance(self._task, FitTask):
            self.show_version(version_of(self._task, self.worker.news))

    def _show_news(self, news: News) -> None:
        if news.snapshot is None or not isinstance(self.live, LiveLayers):
            return
        if self.worker.phase is Phase.PAUSED:
            return  # It stands still, and is shown so already, with all that is known of it.
        self.recordings.follow_fit(news)
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
        if self.recordings.settle(news):
            self.kept.keep_times(self.over_time, news)
            self.allow()
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
            self.show_version(found or before or self._shown)
        self.show_phase()
        self.allow()

    def _offer(self, choice: Choice | None) -> None:
        """Show one of a refinement's two results, and how to have the other."""
        self._choice = choice
        self._say_choice()
        if choice is not None:
            self.show_version(choice.shown)

    def _say_choice(self) -> None:
        choice = self._choice
        self.run.offer(*("", "") if choice is None else (choice.words, choice.offer))

    def turn_to(self, choice: Choice | None = None) -> None:
        """Have view and pictures be of the layers that there are now."""
        self._choice = choice
        self.measuring.refusal = ""
        source = self._source
        if source is not None and isinstance(self.live, LiveLayers):
            self.view.show_channels(channel_names(source))
            self.shown.follow(self.live)
        self.worker.about(() if source is None else source.stacks, self.view.choice)
        self._say_choice()

    def show_moment(self, version: Version, choice: Choice | None) -> None:
        """Show Gaussians that were shown before, with what there was to choose then."""
        self.turn_to(choice)
        self.show_version(version)
        self.show_phase()
        self.allow()

    def take_edits(self) -> None:
        """Show what was made of the points, as a version of its own."""
        edited = self.as_edited()
        if edited is not None and edited is not self._shown:
            self.show_version(edited)
            self.show_phase()

    def running_version(self) -> Version | None:
        """Return what a fit that runs has found by now, None where none runs."""
        if not isinstance(self._task, FitTask) or not self.worker.phase.active:
            return None
        return version_of(self._task, replace(self.worker.news))

    def show_results(self) -> None:
        """Show the list of results."""
        self.show_structure(self._export)

    def show_structure(self, tab: QWidget | None = None) -> None:
        """Look for structure; turn to one of its pages."""
        self.modes.choose(StructureMode.title)
        if tab is not None:
            self.tabs.setCurrentWidget(tab)

    def take_the_other(self) -> None:
        """Show the other result of a refinement; the one shown can be had back as it is now."""
        shown = self.as_edited()
        if self._choice is not None and shown is not None and not self.phase.active:
            self._offer(self._choice.other(shown))

    def show_version(self, version: Version | None) -> None:
        """Show Gaussians that stand still with all that is known of them."""
        if version is None or self.live is None:
            return
        self._shown = version
        if version.news is not self.worker.news:
            self.worker.take(version.news)
            self.show_phase()
        elif version.news.mips is not None:
            self._show_mips(version.news.mips)  # For pictures that are to be made again.
        self.run.show_snapshot(version.news.snapshot, figures_at_rest(version.fit))
        self.quality.setText(details_of(version.fit))
        if self.over_time is None or not self.over_time.frames:
            self.live.settle(version.fit)
            self.table.show_fit(version.fit, self.live.centres, version.done)
        self.shown.overlays.show_field(None)
        self.results.show_fit(version.fit, self.live)
        self.kept.fits.took(version)
        self.objects.look_again()
        self._draw_plots()

    def _undo_edits(self) -> None:
        """Show the Gaussians as the fit left them."""
        self.kept.fits.heed_edits()
        phase = self.phase
        if self._shown is not None and (phase is Phase.PAUSED or not phase.active):
            self.show_version(self._shown.unedited or self._shown)
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

    def changeEvent(self, event: QEvent | None) -> None:
        """End the fit where napari takes the panel out of its window: it is being closed."""
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.close_down()

    def close_down(self) -> None:
        """End the fit, and let go of the viewer; its session keeps the results."""
        if self.tour is not None:
            self.tour.close()
        self.kept.close_down()
        self.worker.close()
        self.activity.close()
        self.measuring.give_up()
        self.spots.close_down()
        self.by_tiles.close_down()
        self.objects.close_down()
        self.model.how_many.close_down()
        self._previewing.close()
        self._settling.stop()
        self.data.close_down()
        self.table.close_down()
        self.track_plot.show_points(None)
        self.shown.overlays.close()
        self.recordings.leave()
        self.live = None
        self._context.close()
        self.viewer.layers.events.removed.disconnect(self._layer_removed)
        self.deleteLater()
