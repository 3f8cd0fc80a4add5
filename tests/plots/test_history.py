"""history.png and gaussians.png show what was recorded, and every Gaussian."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_gaussfit.fitting.fit import fit
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.fitting.snapshot import HISTORY_KEYS
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.plots.history import MOST_POINTS, PANELS, draw_gaussians, draw_history
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.synthetic.phantoms import beads


@pytest.fixture(scope="module")
def result() -> FitResult:
    settings = FitSettings(exactly=True, gaussians=12, iterations=60, views=8, held_out=2)
    return fit(beads(count=4, shape=(12, 40, 40)).stack, settings)


@pytest.mark.notebook("gradient-monitoring", api="plots.history.draw_history")
def test_the_lines_are_what_the_fit_recorded(result: FitResult) -> None:
    figure = draw_history(result.history, "micrometer")
    figure.canvas.draw()
    assert len(figure.axes) == len(PANELS)
    for axes, (title, (scale, lines)) in zip(figure.axes, PANELS.items(), strict=True):
        assert axes.get_title().startswith(title)
        assert axes.get_yscale() == scale
        drawn = [np.asarray(line.get_xydata()) for line in axes.get_lines()]
        assert len(drawn) == len(lines), title
        for key, points in zip(lines, drawn, strict=True):
            expected = [result.history["iteration"], result.history[key]]
            np.testing.assert_array_equal(points.T, expected, err_msg=key)
        has_spread = any(key.startswith("mean_") for key in lines)
        assert len(axes.collections) == (len(lines) if has_spread else 0), title


def test_every_group_has_a_mean_a_spread_and_a_gradient() -> None:
    drawn = {key for _, lines in PANELS.values() for key in lines}
    assert drawn <= set(HISTORY_KEYS)
    for key in drawn:
        assert key.replace("mean_", "spread_") in HISTORY_KEYS
    assert {"gradient_means", "gradient_cholesky", "gradient_amplitudes"} <= drawn


def test_a_history_that_lacks_some_is_drawn_without_them() -> None:
    figure = draw_history({"iteration": [10.0, 20.0], "loss": [2.0, 1.0]})
    figure.canvas.draw()
    assert [len(axes.get_lines()) for axes in figure.axes] == [0, 1, 0, 0, 0, 0]


@pytest.mark.notebook("plots", api="plots.history.draw_gaussians")
def test_centres_are_where_they_are_in_the_colours_of_their_amplitudes(result: FitResult) -> None:
    figure = draw_gaussians(result.field)
    figure.canvas.draw()
    titled = {axes.get_title().split(" (")[0]: axes for axes in figure.axes}
    amplitudes, sigmas = titled["amplitudes"], titled["sigmas"]
    [shown] = titled["12 centres by amplitude"].collections
    x, y, z = shown._offsets3d
    np.testing.assert_array_equal(np.stack([z, y, x], 1), result.field.means)
    np.testing.assert_array_equal(shown.get_array(), result.field.amplitudes)
    assert sum(bar.get_height() for bar in amplitudes.patches) == len(result.field)
    counts = [outline.get_xy()[:, 1] for outline in sigmas.patches]
    assert len(counts) == 3, "a histogram for each principal axis"


def test_many_are_thinned_and_none_is_drawn_too() -> None:
    many = GaussianField(
        torch.rand(3 * MOST_POINTS, 3), torch.zeros(3 * MOST_POINTS, 6), torch.rand(3 * MOST_POINTS)
    )
    [shown] = draw_gaussians(many).axes[0].collections
    assert len(shown._offsets3d[0]) == MOST_POINTS
    draw_gaussians(many.select(torch.arange(0))).canvas.draw()
