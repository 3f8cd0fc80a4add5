"""Spots by tiles: none twice at a seam, none lost, and the same bytes in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy.spatial import cKDTree

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.fitting.result import load
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.psf import Psf
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.objects.spot_tiles import fit_spot_tiles
from napari_gaussfit.objects.spots import SpotSettings, fit_spots
from napari_gaussfit.synthetic.phantoms import photon_counts

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_gaussfit.stacks.stack import Stack

SHAPE, SPACING = (40, 80, 80), (0.2, 0.1, 0.1)
TILE = (40, 40, 40)
SIGMAS = np.multiply((1.6, 1.5, 1.5), SPACING)


def places() -> NDArray[np.float64]:
    """Return spots in voxels: some right on the seams at 39.5, two close together, others apart."""
    on_seams = [(9, 39.5, 12), (20, 39.4, 39.6), (31, 39.6, 60), (12, 15, 39.5), (29, 62, 39.45)]
    close = [(20.0, 20.0, 37.2), (20.0, 20.0, 42.4)]
    apart = [(8, 60, 60), (30, 12, 66), (32, 66, 14), (10, 12, 12), (30, 28, 22)]
    return np.array([*on_seams, *close, *apart])


@pytest.fixture(scope="module")
def stack() -> Stack:
    at = places() * SPACING
    truth = GaussianField.from_covariances(
        at, np.tile(np.diag(SIGMAS**2), (len(at), 1, 1)), np.full(len(at), 200.0), background=10.0
    )
    return photon_counts(truth, SHAPE, SPACING, seed=4).stack


@pytest.fixture(scope="module")
def out(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spots") / "out"
    fit_spot_tiles(stack, folder, tile=TILE)
    return folder


def test_spots_on_seams_are_found_once_and_none_is_lost(out: Path) -> None:
    table = pd.read_parquet(out / "objects.parquet")
    found = table[["axis-0", "axis-1", "axis-2"]].to_numpy()

    truth = places()
    assert len(found) == len(truth)
    distances, nearest = cKDTree(found).query(truth)
    assert sorted(nearest.tolist()) == [*range(len(truth))]
    assert distances.max() < 0.5
    assert len(pd.read_parquet(out / "tiles.parquet")) == 4


def test_spots_are_measured_as_in_one_piece(stack: Stack, out: Path) -> None:
    table = pd.read_parquet(out / "objects.parquet")
    whole = fit_spots(stack)

    _, same = cKDTree(table[["z", "y", "x"]].to_numpy()).query(whole.gaussians.means)
    by_tiles = table.iloc[same]
    amplitudes = by_tiles["amplitude"].to_numpy() / whole.gaussians.amplitudes
    assert np.abs(amplitudes - 1).max() < 0.05
    assert (by_tiles["sd_x"] > 0).all()
    assert set(table["unit"]) == {"micrometer"}


def test_a_region_of_spots_is_loaded(out: Path) -> None:
    part = load(out, region=((0, 0, 0), (20, 30, 30)))

    assert len(part.field) < len(places())
    nearest = np.abs(part.field.numpy().means / SPACING - (10, 12, 12)).max(1).min()
    assert nearest < 0.5


def test_a_noise_and_a_width_that_are_known_are_settings_like_others(
    stack: Stack, tmp_path: Path
) -> None:
    known = SpotSettings(noise=Noise(1.0), psf=Psf.of_fwhm(2.355 * SIGMAS))

    report = fit_spot_tiles(stack, tmp_path / "out", known, tile=TILE)

    assert report.gaussians == len(places())
    assert fit_spot_tiles(stack, tmp_path / "out", known, tile=TILE, resume=True) == report


def test_the_bytes_of_spots_are_the_same_each_time(stack: Stack, out: Path, tmp_path: Path) -> None:
    fit_spot_tiles(stack, tmp_path / "again", tile=TILE)

    for name in ("index.json", "tiles.parquet"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()
    for part in (out / "objects.parquet").iterdir():
        other = tmp_path / "again" / "objects.parquet" / part.name
        assert other.read_bytes() == part.read_bytes()
    with pytest.raises(SettingsError, match="another settings"):
        fit_spot_tiles(stack, out, SpotSettings(least_size=0.2), tile=TILE, resume=True)
