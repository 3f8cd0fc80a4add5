"""What else tiles can do: channels, a PSF, error bars, points, another fit to begin with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy.spatial import cKDTree

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.fitting.fit_tiles import fit_tiles
from napari_gaussfit.fitting.result import load
from napari_gaussfit.measure.psf import Psf
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.synthetic import phantoms

if TYPE_CHECKING:
    from pathlib import Path

    from napari_gaussfit.synthetic.phantoms import Phantom

SETTINGS = FitSettings(iterations=60, device="cpu")
TILE = (24, 32, 32)


@pytest.fixture(scope="module")
def neurite() -> Stack:
    return phantoms.neurite(shape=(24, 64, 64), seed=2).stack


@pytest.fixture(scope="module")
def spots() -> Phantom:
    return phantoms.spots(peak=400.0)


@pytest.fixture(scope="module")
def found(spots: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spots of which some lie on seams, each fitted from its true place."""
    out = tmp_path_factory.mktemp("tiles") / "out"
    fit_tiles(spots.stack, out, SETTINGS, tile=(42, 27, 27), points=spots.truth.numpy().means)
    return out


def test_channels_share_gaussians_and_have_amplitudes_of_their_own(
    neurite: Stack, tmp_path: Path
) -> None:
    half = Stack.from_array(
        (0.5 * neurite.voxels + 40).astype(np.float32), spacing=neurite.spacing, name="half"
    )

    report = fit_tiles([neurite, half], tmp_path / "out", SETTINGS, tile=TILE)

    first, second = load(tmp_path / "out").fields
    assert np.array_equal(first.numpy().means, second.numpy().means)
    ratio = second.numpy().amplitudes.sum() / first.numpy().amplitudes.sum()
    assert ratio == pytest.approx(0.5, rel=0.01)
    assert second.background == pytest.approx(0.5 * first.background + 40, rel=0.01)
    assert report.other_psnrs == pytest.approx((report.voxel_psnr,), abs=0.1)
    table = pd.read_parquet(tmp_path / "out" / "gaussians.parquet")
    assert {"amplitude_0", "amplitude_1", "sd_amplitude_1"} <= set(table)
    assert "channel" not in table


def test_channels_of_another_shape_are_refused(neurite: Stack, tmp_path: Path) -> None:
    other = Stack.from_array(neurite.voxels[:20], spacing=neurite.spacing, name="other")

    with pytest.raises(SettingsError, match="other: has shape"):
        fit_tiles([neurite, other], tmp_path / "out", SETTINGS, tile=TILE)


def test_no_gaussian_is_narrower_than_the_point_spread_function(
    neurite: Stack, tmp_path: Path
) -> None:
    dz, _, dx = neurite.spacing
    psf = Psf.of_fwhm((3.0 * dz, 3.0 * dx, 3.0 * dx))

    unmeasured = replace(SETTINGS, measure=False)
    fit_tiles(neurite, tmp_path / "out", unmeasured, tile=TILE, psf=psf)

    result = load(tmp_path / "out")
    own = result.field.numpy().covariances - psf.matrix
    assert np.linalg.eigvalsh(own).min() >= -1e-4 * psf.matrix.max()
    assert result.psf == psf
    assert len(result.deconvolved().field) == len(result.field)


def test_points_begin_one_gaussian_each_also_on_seams(spots: Phantom, found: Path) -> None:
    truth = spots.truth.numpy().means
    means = load(found).field.numpy().means

    distances, which = cKDTree(truth).query(means)
    assert len(means) == len(truth)
    assert len(set(which.tolist())) == len(truth)
    assert distances.max() < 0.5 * max(spots.stack.spacing)


def test_error_bars_are_right_beside_seams_as_inside(spots: Phantom, found: Path) -> None:
    truth, table = spots.truth.numpy(), pd.read_parquet(found / "gaussians.parquet")
    _, which = cKDTree(truth.means).query(table[[*"zyx"]].to_numpy())

    assert np.isfinite(table["sd_z"]).mean() > 0.9
    wrong = (table[[*"zyx"]].to_numpy() - truth.means[which]) / table[
        ["sd_z", "sd_y", "sd_x"]
    ].to_numpy()
    voxels = table[["axis-1", "axis-2"]].to_numpy()
    near = (np.abs(voxels[:, :, None] - np.array([26.5, 52.5])) < 5).any((1, 2))
    assert 5 < near.sum() < len(table) - 5
    for part in (near, ~near):
        deviation = 1.4826 * np.nanmedian(np.abs(wrong[part]))
        assert 0.7 < deviation < 1.4, f"{deviation:.2f} error bars"


def test_a_fit_that_is_gone_on_from_keeps_its_gaussians_and_is_no_worse(
    neurite: Stack, tmp_path: Path
) -> None:
    whole = FitSettings(iterations=60, device="cpu", measure=False)
    first = fit_tiles(neurite, tmp_path / "first", whole, tile=TILE)
    refine = FitSettings(iterations=60, device="cpu", measure=False, refine=True)

    again = fit_tiles(neurite, tmp_path / "again", refine, tile=TILE, start=tmp_path / "first")

    assert again.gaussians == first.gaussians
    assert again.voxel_psnr >= first.voxel_psnr
    with pytest.raises(SettingsError, match="refine=True: there is no start"):
        fit_tiles(neurite, tmp_path / "other", refine, tile=TILE)
    with pytest.raises(SettingsError, match="refine=False: there is a start"):
        fit_tiles(neurite, tmp_path / "other", whole, tile=TILE, start=tmp_path / "first")


def test_photons_are_fitted_nearly_as_well_as_in_one_piece(tmp_path: Path) -> None:
    """Also of those that a neighbour has subtracted: by the deviance, and as bright as they are."""
    from napari_gaussfit import fit

    truth = phantoms.neurite(shape=(24, 64, 64), seed=2).truth
    spacing = phantoms.neurite(shape=(24, 64, 64), seed=2).stack.spacing
    light = truth.voxelise((24, 64, 64), spacing).numpy() - truth.background
    rate = 2.0 + 20.0 * light / light.max()
    voxels = np.random.default_rng(0).poisson(rate).astype(np.uint16)
    stack = Stack.from_array(voxels, spacing=spacing, name="photons")
    even = replace(SETTINGS, measure=False)
    settings = replace(even, loss="poisson")

    fit_tiles(stack, tmp_path / "out", replace(settings, background=2.0), tile=TILE)
    by_tiles = load(tmp_path / "out").voxelise()
    whole = fit(stack, settings, background=2.0).voxelise()

    def away(found: np.ndarray) -> float:
        """Return the mean deviance from the rate that the photons were drawn at."""
        found = np.maximum(found, 1e-3)
        return float(2 * np.mean(rate * np.log(rate / found) - (rate - found)))

    fit_tiles(stack, tmp_path / "even", replace(even, background=2.0), tile=TILE)
    assert away(by_tiles) <= 1.2 * away(whole)
    assert away(by_tiles) <= 0.9 * away(load(tmp_path / "even").voxelise())
    assert (by_tiles - 2.0).sum() == pytest.approx((rate - 2.0).sum(), rel=0.03)


@pytest.mark.parametrize(
    ("given", "channels", "why"),
    [
        ({"exactly": True}, 1, "how many Gaussians beside it"),
        ({"loss": "poisson"}, 2, "of one channel; 2 are given"),
    ],
)
def test_what_has_no_meaning_by_tiles_is_refused(
    neurite: Stack, tmp_path: Path, given: dict[str, Any], channels: int, why: str
) -> None:
    with pytest.raises(SettingsError, match=why):
        fit_tiles([neurite] * channels, tmp_path / "out", replace(SETTINGS, **given), tile=TILE)


def test_points_and_an_exact_number_exclude_each_other(neurite: Stack, tmp_path: Path) -> None:
    asked = replace(SETTINGS, gaussians=9, exactly=True)
    with pytest.raises(SettingsError, match="points are given too"):
        fit_tiles(neurite, tmp_path / "out", asked, tile=TILE, points=np.ones((1, 3)))
