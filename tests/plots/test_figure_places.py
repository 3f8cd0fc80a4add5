"""Pictures whose places are said, not found by matplotlib: drawn once, with nothing cut off."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.image import imread

from napari_gaussfit.measure.photon_transfer import photon_transfer
from napari_gaussfit.plots.history import PANELS, draw_gaussians, draw_history
from napari_gaussfit.plots.photon_transfer import draw_photon_transfer
from napari_gaussfit.plots.saving import draw
from napari_gaussfit.synthetic.phantoms import separated

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure


def history() -> Figure:
    """Of numbers as long as they come."""
    steps = np.arange(1.0, 41.0)
    keys = {key for _, lines in PANELS.values() for key in lines}
    lines = {key: (12345.678 * steps).tolist() for key in keys}
    return draw_history({**lines, "loss": (3e-5 / steps).tolist(), "iteration": steps.tolist()})


def gaussians() -> Figure:
    return draw_gaussians(separated().truth)


def noise() -> Figure:
    ramp = np.broadcast_to(np.linspace(50.0, 8000.0, 60), (20, 60, 60))
    return draw_photon_transfer(photon_transfer(9.0 * np.random.default_rng(0).poisson(ramp)))


def no_noise() -> Figure:
    return draw_photon_transfer(photon_transfer(np.zeros((2, 2, 2))))


@pytest.mark.parametrize("picture", [history, gaussians, noise, no_noise])
def test_nothing_is_cut_off_though_matplotlib_looks_for_no_room(
    picture: Callable[[], Figure],
) -> None:
    figure = picture()
    figure.canvas.draw()
    assert figure.get_layout_engine() is None
    page = figure.bbox
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box is not None
        assert box.x0 >= page.x0 - 1, axes.get_title()
        assert box.y0 >= page.y0 - 1, axes.get_title()
        assert box.x1 <= page.x1 + 1, axes.get_title()
        assert box.y1 <= page.y1 + 1, axes.get_title()


@pytest.mark.parametrize("picture", [history, gaussians])
def test_no_panel_writes_into_another(picture: Callable[[], Figure]) -> None:
    figure = picture()
    figure.canvas.draw()
    flat = [axes for axes in figure.axes if axes.name != "3d"]
    for axes in flat:
        box = axes.get_tightbbox()
        assert box is not None
        for other in flat:
            inside = other.get_window_extent()
            assert other is axes or not box.overlaps(inside), axes.get_title()


def test_a_picture_that_is_written_is_the_one_that_was_drawn(tmp_path: Path) -> None:
    figure = noise()
    figure.canvas.draw()
    draw(tmp_path / "noise.png", figure)
    shown = np.asarray(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]
    np.testing.assert_array_equal((255 * imread(tmp_path / "noise.png")).round(), shown)
