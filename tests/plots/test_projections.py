"""projections.png: what is shown, true to scale, with nothing cut off."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_gaussfit.fitting.fit import fit
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.plots.comparisons import comparisons
from napari_gaussfit.plots.projections import draw_projections, scale_bar_length
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.synthetic.phantoms import beads

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

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


def pictures_of(figure: Figure) -> list[AxesImage]:
    """The pictures of stack, fit and residual: those that have a name."""
    [axes] = figure.axes
    return [image for image in axes.images if not image.get_label().startswith("_")]


def test_lengths_are_true_to_scale_in_both_directions(figure: Figure, result: FitResult) -> None:
    [axes] = figure.axes
    shown = pictures_of(figure)
    assert len(shown) == 15
    for n, row in enumerate(comparisons(result, STACK)):
        for image in shown[3 * n : 3 * n + 3]:
            left, right, bottom, top = image.get_extent()
            (x0, y0), (x1, y1) = axes.transData.transform([(left, top), (right, bottom)])
            across, down = (x1 - x0) / row.size[1], (y0 - y1) / row.size[0]
            assert across == pytest.approx(down, rel=0.01), image.get_label()


def test_the_scale_bar_is_as_long_as_it_says(figure: Figure, result: FitResult) -> None:
    [axes] = figure.axes
    bars = [one for one in axes.patches if one.get_fill()]
    for n, (row, bar) in enumerate(zip(comparisons(result, STACK), bars, strict=True)):
        left, right, *_ = pictures_of(figure)[3 * n].get_extent()
        of_picture = bar.get_width() / (right - left)
        assert of_picture * row.size[1] == pytest.approx(scale_bar_length(row.size[1]))


def test_a_bar_of_colours_says_the_intensities_of_its_picture(figure: Figure) -> None:
    [axes] = figure.axes
    bars = [image for image in axes.images if image.get_label().startswith("_")]
    beside = [image for n, image in enumerate(pictures_of(figure)) if n % 3]
    assert len(bars) == len(beside) == 10
    for bar, picture in zip(bars, beside, strict=True):
        assert bar.get_clim() == picture.get_clim()
        left, right, bottom, top = bar.get_extent()
        low, high = bar.get_clim()
        numbers = {
            float(text.get_text()): y
            for text in axes.texts
            for x, y in [text.get_position()]
            if right < x < right + 0.1 and top <= y <= bottom
        }
        assert len(numbers) >= 2
        for value, place in numbers.items():
            assert (bottom - place) / (bottom - top) == pytest.approx(
                (value - low) / (high - low), abs=1e-3
            )
        assert left > picture.get_extent()[1]


def test_the_side_of_an_anisotropic_stack_has_its_real_proportions(result: FitResult) -> None:
    along_y = comparisons(result, STACK)[1]
    assert along_y.data.shape == (12, 56)
    assert along_y.size == pytest.approx((4.8, 5.6))


def test_nothing_is_cut_off(figure: Figure) -> None:
    page = figure.bbox
    [axes] = figure.axes
    for one in (*axes.texts, *axes.patches, *axes.images):
        box = one.get_window_extent()
        assert box.x0 >= page.x0 - 1, one
        assert box.y0 >= page.y0 - 1, one
        assert box.x1 <= page.x1 + 1, one
        assert box.y1 <= page.y1 + 1, one


def test_words_do_not_run_into_each_other(figure: Figure) -> None:
    [axes] = figure.axes
    words = [(text.get_text(), text.get_window_extent()) for text in axes.texts]
    for (one, box), (other, next_box) in itertools.combinations(words, 2):
        assert not box.overlaps(next_box), f"{one} runs into {other}"


@pytest.mark.parametrize(
    ("width", "length"), [(10.0, 2.0), (100.0, 20.0), (17.0, 5.0), (0.4, 0.1), (3.4, 1.0)]
)
def test_scale_bar_is_a_round_length(width: float, length: float) -> None:
    assert scale_bar_length(width) == pytest.approx(length)
