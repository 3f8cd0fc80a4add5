"""projections.png: what is shown, true to scale, with nothing cut off."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_gaussfit.fitting.fit import fit
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.plots.projections import comparisons, draw_projections, scale_bar_length
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.synthetic.phantoms import beads

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SETTINGS = FitSettings(exactly=True, gaussians=20, iterations=10, views=8, held_out=4)


STACK = beads(count=4, shape=(12, 40, 56), spacing=(0.4, 0.1, 0.1)).stack


@pytest.fixture(scope="module")
def result() -> FitResult:
    return fit(STACK, SETTINGS)


@pytest.fixture(scope="module")
def figure(result: FitResult) -> Figure:
    drawn = draw_projections(result, STACK)
    drawn.canvas.draw()
    return drawn


def test_three_axis_views_and_two_held_out_ones_are_compared(result: FitResult) -> None:
    titles = [row.title for row in comparisons(result, STACK)]
    assert titles[:3] == ["along z", "along y", "along x"]
    assert len(titles) == len(set(titles)) == 5
    assert all(title.startswith("held out: azimuth") for title in titles[3:])


def test_each_view_has_its_psnr_over_the_pixels_that_see_the_stack(result: FitResult) -> None:
    low, high = STACK.value_range
    for row in comparisons(result, STACK):
        error = np.nanmean(np.square((row.data - row.fit).astype(np.float64)))
        assert row.psnr == pytest.approx(10 * np.log10((high - low) ** 2 / error), abs=1e-3)


def test_lengths_are_true_to_scale_in_both_directions(figure: Figure) -> None:
    for axes in figure.axes:
        for image in axes.images:
            left, right, bottom, top = image.get_extent()
            box = axes.get_window_extent()
            across, down = box.width / (right - left), box.height / (bottom - top)
            assert across == pytest.approx(down, rel=0.01), axes.get_title(loc="left")


def test_the_side_of_an_anisotropic_stack_has_its_real_proportions(result: FitResult) -> None:
    along_y = comparisons(result, STACK)[1]
    assert along_y.data.shape == (12, 56)
    assert along_y.size == pytest.approx((4.8, 5.6))


def test_nothing_is_cut_off(figure: Figure) -> None:
    page = figure.bbox
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box is not None
        assert box.x0 >= page.x0 - 1, axes.get_title(loc="left")
        assert box.y0 >= page.y0 - 1, axes.get_title(loc="left")
        assert box.x1 <= page.x1 + 1, axes.get_title(loc="left")
        assert box.y1 <= page.y1 + 1, axes.get_title(loc="left")


def test_titles_do_not_run_into_each_other(figure: Figure) -> None:
    panels = [axes for axes in figure.axes if axes.images]
    rows = [panels[n : n + 3] for n in range(0, len(panels), 3)]
    assert [len(row) for row in rows] == [3] * 5
    for row in rows:
        boxes = [axes._left_title.get_window_extent() for axes in row]
        for one, other in itertools.pairwise(boxes):
            assert one.x1 < other.x0


@pytest.mark.parametrize(
    ("width", "length"), [(10.0, 2.0), (100.0, 20.0), (17.0, 5.0), (0.4, 0.1), (3.4, 1.0)]
)
def test_scale_bar_is_a_round_length(width: float, length: float) -> None:
    assert scale_bar_length(width) == pytest.approx(length)
