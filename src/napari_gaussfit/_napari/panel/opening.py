"""What comes into the list of results from files: opened fits, and what a crash has left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from qtpy.QtCore import QObject, QTimer

from napari_gaussfit._napari.layers.placement import METADATA, OF
from napari_gaussfit._napari.panel.kept import Result
from napari_gaussfit._napari.panel.left_over_bar import LeftOverBar
from napari_gaussfit._napari.panel.matching import path_of
from napari_gaussfit.errors import GaussfitError
from napari_gaussfit.jobs.versions import opened

if TYPE_CHECKING:
    from napari.layers import Layer
    from napari.utils.events import Event

    from napari_gaussfit._napari.panel.kept import Keeper
    from napari_gaussfit._napari.panel.session import Session
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.jobs.session_folder import LeftOver

__all__ = ["Opening"]

_TABLE = {"amplitude", "cov_zz", "cov_zy", "cov_zx", "cov_yy", "cov_yx", "cov_xx", "unit"}
"""Columns by which a table of Gaussians is known among points that napari has read."""


class Opening(QObject):
    """Takes what files bring into the list of results.

    Parameters
    ----------
    keeping : Keeper
        Who has the list.
    panel : ResultsPanel
        In which what is opened is shown.
    """

    def __init__(self, keeping: Keeper, panel: Any) -> None:
        super().__init__(cast("QObject", keeping))
        self._keeping, self._panel = keeping, panel
        self._session: Session = keeping.session
        self.bar = LeftOverBar()
        self.bar.restore_asked.connect(self._restore)
        self.bar.discard_asked.connect(self._discard)
        panel.viewer.layers.events.inserted.connect(self._look_at_new)

    def look_around(self) -> None:
        """Offer what a crash has left, and take the fits of all layers that are there."""
        self.bar.offer(self._session.left)
        for layer in list(self._panel.viewer.layers):
            self._look_at(layer)

    def close_down(self) -> None:
        """Take nothing more."""
        self._panel.viewer.layers.events.inserted.disconnect(self._look_at_new)

    def _look_at_new(self, event: Event) -> None:
        self._look_at(event.value, fresh=True)

    def _look_at(self, layer: Layer, *, fresh: bool = False) -> None:
        """Take the fit that a layer has brought into the list; show it if it has just come."""
        carried = layer.metadata.get(METADATA, {})
        key = str(layer.unique_id)
        seen = self._session.seen
        if layer.__class__.__name__ != "Points" or OF in carried or key in seen:
            return
        fit = carried.get("fit")
        table = fit is None and fresh and _is_table(layer)
        if fit is None and not table:
            return
        seen.add(key)
        if table:
            fit = self._read_table(layer)
        if fit is None:
            return
        keeping = self._keeping
        source = keeping.source_for(fit)
        name = keeping.results.free_name(_name_of(layer, fit))
        result = Result(
            version=opened(fit), name=name, source=source, points=layer, path=path_of(source)
        )
        keeping.insert(result)
        if fresh:
            # napari is not done with adding the layer yet.
            QTimer.singleShot(0, lambda: self._show_opened(result))

    def _show_opened(self, result: Result) -> None:
        if self._keeping.results.row_of(result) >= 0:
            self._keeping.show(result)

    def _read_table(self, layer: Layer) -> FitResult | None:
        """Return the fit of a table, whose stack is the chosen one."""
        from napari_gaussfit.fitting.result import load

        try:
            source = self._panel.data.source()
            if source is None:
                self._keeping.say(
                    f"{layer.name}: a table does not tell its stack; open the stack, choose it "
                    "under Image, and open the table again."
                )
                return None
            fit = load(layer.source.path, source.stack)
        except GaussfitError as error:
            self._keeping.say(str(error))
            return None
        for name, value in source.placement.keywords().items():
            setattr(layer, name, value)
        layer.metadata = {**layer.metadata, METADATA: {"fit": fit}}
        return fit

    def _restore(self) -> None:
        """Bring back what a window has left that was not closed in order."""
        session, keeping = self._session, self._keeping
        lost = [words for left in session.left for words in self._take_back(left)]
        session.left.clear()
        self.bar.offer([])
        said = "\n".join(f"Not restored: {words}" for words in lost)
        keeping.say(said or "Restored. Show one; Refine needs its stack.")
        fits = [result for result in keeping.results if isinstance(result, Result)]
        if fits and keeping.results.shown is None:
            keeping.show(fits[-1])
            model = self._panel.model
            model.named_psf = model.named_psf or fits[-1].named_psf
        self._panel.show_results()

    def _take_back(self, left: LeftOver) -> list[str]:
        """Take one window's results into the list; return why some are not to be had."""
        lost: list[str] = []
        for about, fits in left.fits():
            home = self._keeping.homes.get(about.kind)
            if isinstance(fits, str):
                lost.append(fits)
            elif home is None:
                lost.append(f"{about.name}: of the kind {about.kind!r}, of another version")
            else:
                result = home.restored(fits, about)
                result.name = self._keeping.results.free_name(about.name)
                self._keeping.insert(result)
        self._session.folder.settle()
        if lost:
            left.leave()
        else:
            left.discard()
        return lost

    def _discard(self) -> None:
        for left in self._session.left:
            left.discard()
        self._session.left.clear()
        self.bar.offer([])


def _is_table(layer: Any) -> bool:
    """Tell whether napari has read a table of Gaussians as points."""
    path: Path | str | None = layer.source.path
    return bool(path) and str(path).lower().endswith(".csv") and set(layer.features) >= _TABLE


def _name_of(layer: Layer, fit: FitResult) -> str:
    """Return what a fit is called that a layer has brought: as its file."""
    return Path(layer.source.path).stem if layer.source.path else fit.stack.name
