"""The noise of a detector is what it is given as, and a draw of it is like the light's own."""

from __future__ import annotations

import numpy as np
import pytest
from noisy_voxels import shot

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.noise import Noise, draw_noise, given_noise, saturation_of
from napari_gaussfit.measure.photon_transfer import (
    noise_of_neighbours,
    photon_transfer,
)
from napari_gaussfit.settings import FitSettings


def test_words_say_what_a_stack_alone_cannot_tell_apart() -> None:
    known = Noise.of_detector(2.0, offset=100.0)
    assert known.words == "gain 2 a photon, offset 100 if the read noise is 0"
    assert Noise(2.0, 9.0).words == "gain 2 a photon, read noise 3 if the offset is 0"
    assert Noise(0.0, 9.0).words == "standard deviation 3 at every intensity"
    assert known.offset == 100
    assert Noise(2.0, 9.0).read == 3


def test_a_detector_that_is_given_is_taken_as_it_is() -> None:
    voxels = np.minimum(shot(), 180)
    assert given_noise(FitSettings(), voxels) is None
    given = given_noise(FitSettings(gain=2.0, offset=10.0, read_noise=3.0), voxels)
    assert given == Noise.of_detector(2.0, offset=10.0, read=3.0, saturation=180.0)


def test_a_plateau_at_the_largest_value_is_saturation() -> None:
    voxels = shot()
    assert saturation_of(voxels) == np.inf
    assert saturation_of(np.minimum(voxels, 180)) == 180
    assert "saturated at 180" in noise_of_neighbours(np.minimum(voxels, 180)).words


@pytest.mark.parametrize("shape", [(2, 2, 2), (3, 3, 3), (2, 5, 5), (9, 9, 9), (16, 16, 16)])
def test_noise_of_a_small_stack_is_drawn_like_its_own(shape: tuple[int, int, int]) -> None:
    """A class of one voxel decided for all, and a stack of 27 had no class."""
    level = np.linspace(0.0, 100.0, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    drawn = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        noisy = level + rng.normal(0.0, 5.0, shape).astype(np.float32)
        found = photon_transfer(noisy, level).noise
        if max(shape) < 3:
            assert found is None, "nothing tells noise from structure"
        else:
            assert found is not None
            drawn.append(draw_noise(found, level, rng))
    if drawn:
        assert float(np.sqrt(np.mean(np.square(drawn)))) == pytest.approx(5.0, rel=0.25)


def test_noise_that_is_drawn_has_the_variance_and_skewness_of_photons() -> None:
    light = np.full((20, 50, 50), 30.0)
    drawn = draw_noise(Noise.of_detector(2.0, offset=10.0), light, np.random.default_rng(4))
    assert drawn.mean() == pytest.approx(0.0, abs=0.1)
    assert drawn.var() == pytest.approx(2.0 * 20, rel=0.03)
    # Ten photons: their skewness is one over the root of that.
    assert np.mean((drawn / drawn.std()) ** 3) == pytest.approx(10**-0.5, rel=0.1)


def test_what_has_no_variance_is_refused() -> None:
    with pytest.raises(SettingsError, match="has no variance"):
        Noise(0.0)
    with pytest.raises(SettingsError, match="a gain of 0 or more"):
        Noise(-1.0)
