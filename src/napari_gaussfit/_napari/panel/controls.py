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
    data: Any
    start_from: Any
    view: ViewChoice
    shown: frozenset[str]
    candidates: Any
    mode: str
    tab: int
    choices: dict[str, Any]
    """Of parts that have some beside these."""

    looked_at: dict[str, Any]
    """Of parts whose choices are of what is shown, once it is."""

    @classmethod
    def of_panel(cls, panel: Any) -> Controls:
        """Return what they say now."""
        return cls(
            None if panel.model.problem else panel.model.settings,
            panel.model.named_psf,
            panel.model.in_process,
            panel.data.layer,
            panel.data.choices,
            panel.data.start_from,
            panel.view.choice,
            panel.shown.wanted,
            panel.spots.drawn,
            panel.modes.mode.title,
            panel.tabs.currentIndex(),
            {name: part.choices for name, part in _parts(panel).items()},
            {name: part.choices for name, part in _showing(panel).items()},
        )

    def set_in(self, panel: Any) -> None:
        """Set those of a panel, as far as the layers are there still; `show_again` is for later."""
        there = list(panel.viewer.layers)
        if self.settings is not None:
            panel.model.settings = self.settings
        panel.model.named_psf = self.named_psf
        panel.model.in_process = self.in_process
        if self.layer in there:
            panel.data.layer = self.layer
            panel.data.choices = self.data
        if self.start_from in there:
            panel.data.start_from = self.start_from
        if self.view.axis is None:
            panel.view.look_from(self.view.azimuth, self.view.elevation)
        else:
            panel.view.look_along(self.view.axis)
        panel.shown.wanted = self.shown
        panel.spots.drawn = self.candidates
        for name, part in _parts(panel).items():
            part.choices = self.choices[name]
        panel.modes.choose(self.mode)

    def show_again(self, panel: Any) -> None:
        """Look at what is shown as before, and turn to the page that was open."""
        panel.view.look_at_channel(self.view.channel)
        for name, part in _showing(panel).items():
            part.choices = self.looked_at[name]
        panel.tabs.setCurrentIndex(self.tab)


def _parts(panel: Any) -> dict[str, Any]:
    return {
        "spots": panel.spots.setup,
        "objects": panel.objects,
        "export": panel.results,
        "by tiles": panel.by_tiles,
    }


def _showing(panel: Any) -> dict[str, Any]:
    return {
        "hidden": panel.shown,
        "filters": panel.table,
        "Gaussians": panel.table.view,
        "spots": panel.spots.table.view,
        **{title: page.view for title, page in panel.objects.pages.items()},
    }
