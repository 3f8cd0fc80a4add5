"""Haze of a large stack: found once for all tiles, not anew in each."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from napari_gaussfit.fitting.fit_tiles import fit_tiles
from napari_gaussfit.fitting.result import load
from napari_gaussfit.fitting.tile_wide import CELL, Cells, _sharpened, fit_wide, is_wide
from napari_gaussfit.fitting.tiles import Tiling
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.facts import StackFacts
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.synthetic import phantoms

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = (40, 128, 128)
SETTINGS = FitSettings(iterations=100, device="cpu", measure=False)


def haze(shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """Return two wide hills, of 60 and 40 at their tops."""
    _, y, x = np.indices(shape)
    first = 60 * np.exp(-((y - 40) ** 2 + (x - 50) ** 2) / (2 * 35**2))
    return first + 40 * np.exp(-((y - 100) ** 2 + (x - 90) ** 2) / (2 * 30**2))


@pytest.fixture(scope="module")
def stack() -> Stack:
    neurite = phantoms.neurite(shape=SHAPE, seed=2).stack
    voxels = np.random.default_rng(1).poisson(neurite.voxels + haze(SHAPE)).astype(np.uint16)
    return Stack.from_array(voxels, spacing=neurite.spacing, name="hazy")


def test_haze_takes_as_many_gaussians_as_in_one_piece(stack: Stack, tmp_path: Path) -> None:
    from napari_gaussfit import fit

    whole = fit(stack, SETTINGS)

    report = fit_tiles(stack, tmp_path / "out", SETTINGS, tile=(40, 43, 43))

    assert report.gaussians <= 1.25 * len(whole.field)
    assert report.voxel_psnr >= whole.report.voxel_psnr - 0.1
    told = json.loads((tmp_path / "out" / "index.json").read_text())["report"]
    table = pd.read_parquet(tmp_path / "out" / "gaussians.parquet" / "wide.parquet")
    assert told["wide"] == len(table) >= 2
    part = load(tmp_path / "out", region=((0, 0, 0), (2, 2, 2)))
    assert len(part.field), "what is wide reaches into every region that it reaches into"

    again = fit_tiles(
        stack, tmp_path / "again", replace(SETTINGS, refine=True), tile=(40, 43, 43),
        start=tmp_path / "out",
    )  # fmt: skip
    assert again.gaussians == report.gaussians
    assert again.voxel_psnr >= report.voxel_psnr


def test_cells_of_tiles_are_those_of_the_whole() -> None:
    """Whatever the cut: each block of four voxels is in the cell that holds its middle."""
    voxels = np.random.default_rng(0).normal(100, 10, (40, 64, 64))
    tiling, cells = Tiling.of(voxels.shape, (40, 32, 32), (3, 12, 12)), Cells.of(voxels.shape)
    parts, dark = [], []
    for tile in tiling.tiles():
        box = voxels[tuple(slice(a, b) for a, b in zip(tile.low, tile.high, strict=True))]
        blocks = box.reshape(*(n for size in box.shape for n in (size // 4, 4))).mean((1, 3, 5))
        if tile.place == (0, 1, 1):
            dark.append((tile, (120.0,)))
        else:
            parts.append(cells.sums(tile, [blocks]))

    [means] = cells.means(parts, dark, [100.0])

    assert means.shape == (5, 8, 8)
    whole = voxels.reshape(5, CELL, 8, CELL, 8, CELL).mean((1, 3, 5))
    assert np.allclose(means[:, :4, :4], whole[:, :4, :4] - 120, atol=1e-4)
    assert np.allclose(means[:, 4:, 4:], 0), "what is dark is nothing, whatever the mode is"
    [bright] = cells.means(parts, [], [100.0])
    assert np.allclose(bright[:, :4, :4], whole[:, :4, :4] - 100, atol=1e-4)


def test_cells_of_a_large_stack_are_larger() -> None:
    assert Cells.of((1024, 2240, 2240)) == Cells(16, (64, 140, 140))
    assert Cells.of((5, 40, 9)) == Cells(8, (1, 5, 1))


def test_light_of_what_is_wide_is_nowhere_more_than_there_is() -> None:
    """What is too bright there no tile could mend, since Gaussians add light alone."""
    facts = StackFacts("hills", SHAPE, (1.0, 1.0, 1.0), "micrometer")
    hills = haze(SHAPE)
    means = hills.reshape(5, 8, 16, 8, 16, 8).mean((1, 3, 5))
    means += np.random.default_rng(0).normal(0, 0.5, means.shape)

    found = fit_wide(Cells.of(SHAPE), means[None].astype(np.float32), SETTINGS, facts)

    [field] = found.fields((0, 0, 0), facts)
    light = field.voxelise(SHAPE, facts.spacing).numpy()
    assert light.sum() > 0.2 * hills.sum()
    assert (light - hills).max() < 0.1 * hills.max()
    assert is_wide(found, facts.spacing).all()


def test_gaussians_of_cells_lose_what_means_have_blurred_them_by() -> None:
    own, step = np.diag([200.0, 400.0, 900.0]), np.array([8.0, 8.0, 8.0])
    blurred = Gaussians.from_covariances(
        np.zeros((1, 3)), (own + np.diag(step**2 / 12))[None], np.array([50.0])
    )

    sharp = _sharpened(blurred, step)

    assert sharp.covariances[0] == pytest.approx(own, rel=1e-5, abs=1e-3)
    assert sharp.integrated_intensities() == pytest.approx(blurred.integrated_intensities())
