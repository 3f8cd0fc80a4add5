"""Fits that version 0.1.0 saved, before its modules moved, load as they were and go on.

``tests/data/saved_fits`` holds three, each of `bumps`: one of one channel, cancelled after 13 of 25
steps; a finished one of two channels; and a finished one in pixels of Gaussians along the axes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_gaussfit.fitting.fit import Fit
from napari_gaussfit.fitting.result import load
from napari_gaussfit.fitting.snapshot import FitState
from napari_gaussfit.measure.metrics import psnr
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.facts import StackFacts
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from napari_gaussfit.fitting.result import FitResult

FITS = Path(__file__).parents[1] / "data" / "saved_fits"


def saved_before(name: str) -> FitResult:
    return load(FITS / f"{name}.safetensors")


def bumps(seed: int, spacing: tuple[float, float, float] | None = (0.5, 0.2, 0.2)) -> Stack:
    """Four blurred points over 100, as the saved fits saw them."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((6, 14, 12))
    voxels = np.full(z.shape, 100.0)
    for _ in range(4):
        at = rng.uniform(1, [5, 13, 11])
        distances = (z - at[0]) ** 2 / 2 + ((y - at[1]) ** 2 + (x - at[2]) ** 2) / 4
        voxels += rng.uniform(300, 900) * np.exp(-distances)
    return Stack.from_array(np.rint(voxels).astype(np.float32), spacing=spacing, name="bumps")


def test_there_are_three_small_ones() -> None:
    files = list(FITS.iterdir())
    assert len(files) == 3
    assert sum(file.stat().st_size for file in files) < 100_000


@pytest.mark.parametrize(
    ("name", "seeds", "spacing"),
    [
        ("one_channel", (1,), (0.5, 0.2, 0.2)),
        ("two_channels", (1, 2), (0.5, 0.2, 0.2)),
        ("along_the_axes", (3,), None),
    ],
)
def test_an_old_fit_is_as_good_as_it_was(
    name: str, seeds: tuple[int, ...], spacing: tuple[float, float, float] | None
) -> None:
    saved = saved_before(name)
    assert len(saved.fields) == len(saved.reports) == len(seeds)
    for field, report, seed in zip(saved.fields, saved.reports, seeds, strict=True):
        stack = bumps(seed, spacing)
        rendered = field.voxelise(stack.shape, stack.spacing).numpy()
        found = psnr(stack.voxels, rendered, stack.value_range)
        assert found == pytest.approx(report.voxel_psnr, abs=1e-3)


def test_the_numbers_of_an_old_fit_are_what_was_saved() -> None:
    saved = saved_before("one_channel")
    assert saved.stack == StackFacts("bumps", (6, 14, 12), (0.5, 0.2, 0.2))
    assert len(saved.field) == 6
    np.testing.assert_allclose(saved.field.means[0], [1.3557144, 2.3439600, 0.6030344], rtol=1e-6)
    assert saved.history["iteration"] == [10]

    in_pixels = saved_before("along_the_axes")
    assert (in_pixels.stack.name, in_pixels.stack.unit) == ("bumps µ", "pixel")
    assert in_pixels.stack.place == {"channel": 1, "time": 3}
    assert in_pixels.field.background == 99.5
    assert not in_pixels.field.full_covariance


def test_the_settings_of_an_old_fit_are_those_that_ran() -> None:
    settings = saved_before("along_the_axes").settings
    assert settings == FitSettings(
        exactly=True,
        gaussians=6,
        iterations=12,
        views=4,
        held_out=1,
        device="cpu",
        full_covariance=False,
        objective="voxels",
        loss="poisson",
        background=99.5,
    )


def test_an_old_fit_that_was_cancelled_goes_on_from_where_it_stood() -> None:
    saved = saved_before("one_channel")
    fit = Fit(bumps(1), saved.settings)
    fit.restore(saved)

    snapshots = list(fit)

    assert snapshots[0].iteration == saved.report.iterations == 13
    np.testing.assert_allclose(snapshots[0].field.means, saved.field.means, rtol=1e-5)
    assert (fit.state, snapshots[-1].iteration) == (FitState.FINISHED, 25)
    assert fit.result().report.voxel_psnr > saved.report.voxel_psnr


def test_an_old_fit_of_two_channels_goes_on_from_where_it_stood() -> None:
    """Its state was one of version 2: a whole state for each channel."""
    saved = saved_before("two_channels")
    settings = replace(saved.settings, iterations=40)
    stacks = (bumps(1), bumps(2))
    assert {"means", "1.means", "words", "1.words"} <= set(saved.state)
    fit = Fit(stacks, settings)
    fit.restore(saved)

    begin = next(iter(fit))
    for found, known in zip(fit.snapshot().fields, saved.fields, strict=True):
        np.testing.assert_allclose(found.means, known.means, rtol=1e-5)
        np.testing.assert_allclose(found.amplitudes, known.amplitudes, rtol=1e-5)
        assert found.background == pytest.approx(known.background, rel=1e-6)

    again = Fit(stacks, settings)
    again.restore(saved)
    snapshots = list(again)
    assert begin.iteration == saved.report.iterations < snapshots[-1].iteration == 40
    for field, known, stack in zip(again.snapshot().fields, saved.fields, stacks, strict=True):
        after, before = (
            psnr(stack.voxels, f.voxelise(stack.shape, stack.spacing).numpy(), stack.value_range)
            for f in (field, known)
        )
        assert after > before - 0.5, "no step goes astray for moments that were lost"
