"""The fits among a panel's results: what is shown, edited, refined, undone.

The panel says what it shows; whatever it shows has a row in the list, and a file in the session's
folder, from then on.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, cast

from qtpy.QtCore import QObject, QTimer

from napari_gaussfit._napari.layers.channels import joined
from napari_gaussfit._napari.layers.live import LiveLayers
from napari_gaussfit._napari.layers.opened import OpenedLayers
from napari_gaussfit._napari.panel.comparing import comparison_of, put_beside
from napari_gaussfit._napari.panel.kept import Result
from napari_gaussfit._napari.panel.matching import is_of, needs_stack, path_of, same_voxels
from napari_gaussfit._napari.panel.undo import Change, Moment, edit_words
from napari_gaussfit._napari.worker import Phase
from napari_gaussfit.errors import GaussfitError
from napari_gaussfit.fitting.snapshot import FitState
from napari_gaussfit.jobs.versions import opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Points
    from napari.utils.events import Event

    from napari_gaussfit._napari.layers.source import Source
    from napari_gaussfit._napari.panel.kept import Keeper
    from napari_gaussfit._napari.panel.over_time import OverTime
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.jobs.session_folder import About
    from napari_gaussfit.jobs.versions import Choice, Version

    Live = LiveLayers | OpenedLayers

__all__ = ["Fits", "ResultsPanel"]


class ResultsPanel(Protocol):
    """What shows one result: the panel, a QWidget, as far as this module knows it."""

    viewer: Any
    data: Any
    model: Any
    view: Any
    tabs: Any
    results: Any
    live: Any
    modes: Any
    spots: Any
    objects: Any
    recordings: Any
    worker: Any
    all_times: Any

    @property
    def over_time(self) -> OverTime | None:
        """The times of a recording that are shown."""
        ...

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

    def refine(self) -> None:
        """Go on from what is shown."""
        ...

    def show_results(self) -> None:
        """Show the list."""
        ...

    def show_structure(self, tab: Any = None) -> None:
        """Look for structure; turn to one of its pages."""
        ...


class Fits(QObject):
    """Shows fits in the panel, and keeps what it shows; a `kept.Home`.

    Parameters
    ----------
    keeping : Keeper
        Who has the list.
    panel : ResultsPanel
        Which shows one fit.
    """

    def __init__(self, keeping: Keeper, panel: ResultsPanel) -> None:
        super().__init__(cast("QObject", keeping))
        self._keeping, self._panel = keeping, panel
        self.session, self.results = keeping.session, keeping.results
        self.phase: Phase | None = None
        """Of the result shown, where it is not the one that the worker has found last."""

        self._expected = self._refining = self._putting = self._closed = False
        self._centres: Points | None = None
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self.heed_edits)

    # The panel's life

    def reopen(self) -> None:
        """Show the fit that the viewer's panel showed when it was closed last."""
        result = self.results.shown
        if result is not None:
            self.put(result, Moment(result.version, self.session.choice))

    def close_down(self) -> None:
        """Keep what the panel shows, and hear no more."""
        self.heed_edits()
        self._keep_running()
        self.session.choice = self._panel.choice
        self._closed = True
        self._follow()

    def _keep_running(self) -> None:
        """Keep the Gaussians of a fit that ends with the panel, as they are by now."""
        found = self._panel.running_version()
        if found is None or self._refining:
            return
        if self._expected:
            self._add(found)
        elif self.results.shown is not None:
            self.results.shown.version = found
            self._keeping.write(self.results.shown)

    # What the panel tells

    def began(self, *, refining: bool) -> None:
        """Expect another result; a refinement is of the one that is shown."""
        self._expected, self._refining, self.phase = not refining, refining, None

    def rested(self) -> None:
        """Hear that the fit has ended; what it came to is shown next."""
        self._refining = False

    def took(self, version: Version) -> None:
        """Keep what the panel shows."""
        self._follow()
        if self._panel.over_time is not None:
            return  # The times of a recording are a result of their own.
        known = next((one for one in self._all if one.version is version), None)
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

    def took_times(self, phase: Phase | None) -> None:
        """Hear that the panel shows the times of a recording; `phase` as of `phase` here."""
        self._expected, self.phase = False, phase
        self._follow()

    @property
    def _all(self) -> list[Result]:
        return [one for one in self.results if isinstance(one, Result)]

    def known_source(self, source: Source) -> Source:
        """Return the source that a result has of the same voxels already, else this one."""
        for result in self._all:
            known = result.source
            if known is not None and known.is_of_same_place(source) and same_voxels(known, source):
                return known.placed_anew()
        return source

    def live_of(self, source: Source) -> LiveLayers:
        """Return layers that follow fits of a stack: those that are there, else new ones."""
        live: LiveLayers | None = self.session.live_of(source)
        if live is None:
            live = LiveLayers(self._panel.viewer, source, self.session)
            self.session.lives.append(live)
        else:
            live.restart(source)
        return live

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
        result = Result(
            version=version,
            name=name,
            source=source,
            path=path_of(source),
            named_psf=self._psf_named_for(version.fit),
        )
        self._expected = False
        self._keeping.insert(result)
        self.results.show(result)

    def _change(self, result: Result, version: Version) -> None:
        """Give a result other Gaussians; undone can be what a person did, not how a fit went on."""
        before, result.version = result.version, version
        choice = self._panel.choice
        if before.news is not version.news:
            words = edit_words(before, version)
            old, new = Moment(before, self.session.choice), Moment(version, choice)
            self.session.undo.push(Change(result, old, new, self._put_by_session, words))
        self.session.choice = choice
        self._keeping.write(result)
        self.results.tell()

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

    def show(self, result: Result, *, raised: bool = True) -> None:
        """Show a fit in the panel."""
        self.heed_edits()
        choice = self._panel.choice if result is self.results.shown else None
        if raised:
            self._panel.show_structure()
        self.put(result, Moment(result.version, choice), anew=raised)

    def save(self, result: Result) -> None:
        """Ask for a file, and save a fit."""
        self._panel.results.ask_where(result.fit)

    def _psf_named_for(self, fit: FitResult) -> str:
        """Return how the point spread function of a fit is named in the panel, if it is that."""
        model = self._panel.model
        known = not model.problem and fit.psf is not None and model.psf == fit.psf
        return str(model.named_psf) if known else ""

    def restored(self, fits: Sequence[FitResult], about: About) -> Result:
        """Return a fit as it was kept."""
        named = str(about.words.get("psf", ""))
        return Result(version=opened(fits[0]), name=about.name, path=about.path, named_psf=named)

    def put(self, result: Result, moment: Moment, *, anew: bool = False) -> None:
        """Show a result as of a moment, `anew` also in layers that a person has deleted."""
        panel, fit = self._panel, moment.version.fit
        self._putting, self._expected = True, False
        panel.recordings.leave()
        if result.source is None:
            result.source = self.source_for(fit)
        panel.live = self._live_for(result, anew=anew)
        snapshot = moment.version.news.snapshot
        ended = snapshot is not None and snapshot.state is FitState.FINISHED
        self.phase = Phase.FINISHED if ended else Phase.CANCELLED
        result.version, self.session.choice = moment.version, moment.choice
        self.results.show(result)
        panel.show_moment(moment.version, moment.choice)
        self._putting = False
        self._follow()
        self._keeping.write(result)

    def _put_by_session(self, result: Result, moment: Moment) -> None:
        """Show a result as of a moment, in the panel that there is by now."""
        current: Keeper = self.session.keeping
        current.fits.put(result, moment)

    def _live_for(self, result: Result, *, anew: bool) -> Live:
        if result.source is None:
            alone = OpenedLayers(self._panel.viewer, result.fit, result.points, anew=anew)
            if alone.centres is not None:
                result.points = alone.centres
            return alone
        live, points = self.live_of(result.source), result.points
        if anew:
            live.bring_back()
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
        if self.source_for(shown.fit) is not None:
            self.put(shown, Moment(shown.version, self._panel.choice))

    def source_for(self, fit: FitResult) -> Source | None:
        """Return the stack that is chosen in the panel, if a fit can be of it."""
        source = None
        with suppress(GaussfitError):
            source = self._panel.data.source()
        return joined(source.parts) if source is not None and is_of(fit, source) else None

    def compare(self, first: Result, second: Result) -> None:
        """Say how two fits differ, and put the centres of the second beside the first."""
        if first is not self.results.shown:
            self._keeping.show(first)
        self._keeping.say(comparison_of(first, second))
        put_beside(self._panel.viewer, second)

    def refine(self, result: Result) -> None:
        """Go on from a fit."""
        if result is not self.results.shown:
            self._keeping.show(result)
        if result.source is None:
            self._keeping.say(needs_stack(f"Refine needs the stack of {result.name}", result.fit))
            return
        self._panel.refine()
