"""Points whose width is known are told apart where two stand closer than free widths allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.psf import Psf
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA, Gaussians
from napari_gaussfit.objects.points import measure_points
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.measure.measurement import Measurement

    Floats = NDArray[np.float64]

SPACING = np.array([0.2, 0.1, 0.1])
BLUR = np.array([0.4, 0.15, 0.15])
PSF = Psf.of_fwhm(FWHM_PER_SIGMA * BLUR)
PITCH, CELLS = np.array([28, 32, 32]), (1, 4, 4)


def recorded(means: Floats, amplitudes: Floats, seed: int, gain: float = 1.0) -> Stack:
    covariances = np.tile(PSF.matrix, (len(means), 1, 1))
    truth = GaussianField.from_covariances(means, covariances, amplitudes, background=10.0)
    shape = tuple(int(n) for n in PITCH * CELLS)
    light = truth.voxelise(shape, SPACING).numpy()  # type: ignore[arg-type]
    photons = np.random.default_rng(seed).poisson(light).astype(float)
    return Stack.from_array(gain * photons, spacing=tuple(SPACING))


def middles(rng: np.random.Generator) -> Floats:
    cells = np.indices(CELLS).reshape(3, -1).T
    return ((cells + 0.5) * PITCH + rng.uniform(-0.5, 0.5, cells.shape)) * SPACING


def apart(rng: np.random.Generator, sigmas: float, count: int) -> Floats:
    """Half of so many standard deviations of light, each in some direction."""
    along = rng.normal(size=(count, 3))
    return along / np.linalg.norm(along, axis=1, keepdims=True) * BLUR * sigmas / 2


def seen_as_one(means: Floats, amplitude: float, background: float = 10.0) -> Gaussians:
    """What a search may have found."""
    covariances = np.tile(PSF.matrix * 1.3, (len(means), 1, 1))
    return Gaussians.from_covariances(
        means, covariances, np.full(len(means), amplitude), background=background
    )


def told_apart(found: Measurement, pairs: Floats) -> list[bool]:
    """Of which pairs [P, 2, 3] both are found, each within three of its error bars."""
    means = found.gaussians[0].means
    bars = np.stack([found.errors()[f"sd_{axis}"] for axis in "zyx"], 1)
    right = []
    for pair in pairs:
        near = np.flatnonzero((np.abs((means - pair.mean(0)) / BLUR) < 4).all(1))
        ways = ([0, 1], [1, 0]) if len(near) == 2 else ()
        right.append(any((np.abs(means[near] - pair[w]) < 3 * bars[near]).all() for w in ways))
    return right


@pytest.mark.parametrize(("sigmas", "share"), [(1.5, 0.9), (1.0, 0.6)])
def test_two_points_are_found_where_one_was_seen(sigmas: float, share: float) -> None:
    rng = np.random.default_rng(0)
    right = []
    for draw in range(3):
        centres = middles(rng)
        off = apart(rng, sigmas, len(centres))
        pairs = np.stack([centres - off, centres + off], 1)
        stack = recorded(pairs.reshape(-1, 3), np.full(2 * len(pairs), 100.0), draw)
        found = measure_points(stack, seen_as_one(centres, 180.0), PSF, Noise(1.0))
        right += told_apart(found, pairs)
        assert (np.diff(found.gaussians[0].means[:, 0]) >= 0).all(), "from the least z"
    assert np.mean(right) >= share


def test_one_point_stays_one_and_two_of_one_become_one() -> None:
    rng = np.random.default_rng(1)
    centres = middles(rng)
    stack = recorded(centres, np.full(len(centres), 100.0), 5, gain=2.3)
    off = apart(rng, 0.8, len(centres))
    for start in (
        seen_as_one(centres, 200.0, 23.0),
        seen_as_one(np.concatenate([centres - off, centres + off]), 100.0, 23.0),
    ):
        found = measure_points(stack, start, PSF, Noise(2.3))
        assert len(found) == len(centres)
        apart_by = np.abs(found.gaussians[0].means[:, None] - centres).sum(2)
        off_by = found.gaussians[0].means - centres[apart_by.argmin(1)]
        for n, axis in enumerate("zyx"):
            pulls = off_by[:, n] / found.errors()[f"sd_{axis}"]
            assert 0.5 < np.sqrt(np.mean(pulls**2)) < 1.6, axis


def test_three_in_a_row_are_three() -> None:
    rng = np.random.default_rng(2)
    [centre] = middles(rng)[:1]
    step = np.array([0.0, 1.6 * BLUR[1], 0.0])
    means = np.stack([centre - step, centre, centre + step])
    stack = recorded(means, np.full(3, 200.0), 6)
    found = measure_points(stack, seen_as_one(centre[None], 500.0), PSF, Noise(1.0))
    assert len(found) == 3
