"""What a panel's controls say, kept while it is closed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_gaussfit.jobs.pictures import ViewChoice
    from napari_gaussfit.settings import FitSettings

__all__ = ["Controls"]


@dataclass(frozen=True, eq=False)
class Controls:
    """What a panel's controls said when it was closed."""

    settings: FitSettings | None
    named_psf: str
    in_process: bool
    layer: Any
    start_from: Any
    view: ViewChoice
    shown: frozenset[str]
    candidates: Any
    mode: str
    tab: int

    @classmethod
    def of_panel(cls, panel: Any) -> Controls:
        """Return what they say now."""
        return cls(
            None if panel.model.problem else panel.model.settings,
            panel.model.named_psf,
            panel.model.in_process,
            panel.data.layer,
            panel.data.start_from,
            panel.view.choice,
            panel.shown.wanted,
            panel.spots.drawn,
            panel.modes.mode.title,
            panel.tabs.currentIndex(),
        )

    def set_in(self, panel: Any) -> None:
        """Set those of a panel, as far as the layers are there still; `show_tab` is for later."""
        there = list(panel.viewer.layers)
        if self.settings is not None:
            panel.model.settings = self.settings
        panel.model.named_psf = self.named_psf
        panel.model.in_process = self.in_process
        if self.layer in there:
            panel.data.layer = self.layer
        if self.start_from in there:
            panel.data.start_from = self.start_from
        if self.view.axis is None:
            panel.view.look_from(self.view.azimuth, self.view.elevation)
        else:
            panel.view.look_along(self.view.axis)
        panel.shown.wanted = self.shown
        panel.spots.drawn = self.candidates
        panel.modes.choose(self.mode)

    def show_tab(self, panel: Any) -> None:
        """Turn to the page that was open."""
        panel.tabs.setCurrentIndex(self.tab)
