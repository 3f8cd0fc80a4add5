"""noise.png shows variance against mean: bins, and the line through them, or why there is none."""

from __future__ import annotations

import numpy as np

from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.photon_transfer import photon_transfer
from napari_gaussfit.plots.photon_transfer import draw_photon_transfer


def voxels() -> np.ndarray:
    ramp = np.broadcast_to(np.linspace(5.0, 80.0, 60), (20, 60, 60))
    return 3.0 * np.random.default_rng(0).poisson(ramp)


def test_the_slope_of_the_line_is_the_gain() -> None:
    curve = photon_transfer(voxels())
    figure = draw_photon_transfer(curve, Noise(2.9))
    figure.canvas.draw()
    [axes] = figure.axes
    found, given = (np.asarray(line.get_xydata()) for line in axes.get_lines())
    for drawn, gain in ((found, curve.known().gain), (given, 2.9)):
        slope = (drawn[-1, 1] - drawn[0, 1]) / (drawn[-1, 0] - drawn[0, 0])
        np.testing.assert_allclose(slope, gain, rtol=1e-6)
    [points] = axes.collections
    np.testing.assert_allclose(
        np.asarray(points.get_offsets()), np.stack([curve.levels, curve.variances], 1)
    )
    assert "gain" in axes.get_title()


def test_without_a_line_it_says_why() -> None:
    for flat in (np.zeros((5, 5, 5)), np.zeros((2, 2, 2))):
        figure = draw_photon_transfer(photon_transfer(flat))
        figure.canvas.draw()
        assert not figure.axes[0].get_lines()
        assert "cannot be known" in figure.axes[0].get_title()
