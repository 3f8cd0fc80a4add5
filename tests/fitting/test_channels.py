"""Several channels have one set of Gaussians, and each its own brightness."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_gaussfit import _kernels
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.fitting.fit import Fit, fit
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.fitting.trainer import Trainer, checked_channels
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.synthetic.phantoms import separated
from napari_gaussfit.synthetic.recovery import errors_of

if TYPE_CHECKING:
    from napari_gaussfit.model.field import GaussianField

COUNT = 12
BACKGROUNDS = (100.0, 40.0, 7.0)


def settings(**changes: Any) -> FitSettings:
    return FitSettings(
        **({"gaussians": COUNT, "exactly": True, "views": 8, "held_out": 2} | changes)
    )


@pytest.fixture(scope="module")
def truths() -> list[GaussianField]:
    """The same Gaussians in three channels, of which the last lacks every third."""
    first = separated(count=COUNT, shape=(30, 60, 60)).truth
    brightness = np.random.default_rng(0).uniform(300, 3000, (2, COUNT)).astype(np.float32)
    brightness[1, ::3] = 0.0
    amplitudes = (first.amplitudes, *torch.from_numpy(brightness))
    return [
        replace(first, amplitudes=one, background=level)
        for one, level in zip(amplitudes, BACKGROUNDS, strict=True)
    ]


@pytest.fixture(scope="module")
def stacks(truths: list[GaussianField]) -> tuple[Stack, ...]:
    shape, spacing = (30, 60, 60), (0.3, 0.1, 0.1)
    return tuple(
        Stack.from_array(truth.voxelise(shape, spacing).numpy(), spacing=spacing, name="cells")
        for truth in truths
    )


@pytest.fixture(scope="module")
def result(stacks: tuple[Stack, ...]) -> FitResult:
    return fit(stacks, settings())


@pytest.mark.notebook("mip-splatting-model", api="fit")
def test_shapes_are_shared_and_each_channel_has_its_own_brightness(
    result: FitResult, truths: list[GaussianField]
) -> None:
    assert len(result.fields) == 3
    for n, (found, truth) in enumerate(zip(result.fields, truths, strict=True)):
        assert torch.equal(found.means, result.field.means)
        assert torch.equal(found.cholesky, result.field.cholesky)
        lit = truth.amplitudes > 0
        # Partners by place, which all channels share; of what is dark, only that it is dark.
        partner = torch.cdist(truth.means, found.means).argmin(1)
        off = float((found.amplitudes[partner][lit] / truth.amplitudes[lit] - 1).abs().max())
        assert off < 0.01, f"channel {n}: an amplitude is {off:.2%} off"
        dark = found.amplitudes[partner][~lit]
        assert not len(dark) or float(dark.max()) < 0.01 * float(truth.amplitudes.max())
        assert found.background == pytest.approx(truth.background, abs=1.0)


def test_places_and_widths_are_found_from_all_channels_together(
    result: FitResult, truths: list[GaussianField]
) -> None:
    errors = errors_of(result.field, truths[0])
    assert errors["centre"].max() < 0.02 * 0.1, "within a fiftieth of a voxel"
    assert errors["width"].max() < 0.01


def test_every_channel_has_its_report(result: FitResult, stacks: tuple[Stack, ...]) -> None:
    reports = result.reports
    assert [report.background for report in reports] == [f.background for f in result.fields]
    for report in reports:
        assert report.voxel_psnr > 50, f"{report.voxel_psnr:.1f} dB"
        assert report.gaussians == COUNT
        assert report.shape == stacks[0].shape


def test_one_channel_alone_is_fitted_as_a_stack(stacks: tuple[Stack, ...]) -> None:
    quick = settings(iterations=20)
    one, alone = fit(stacks[:1], quick), fit(stacks[0], quick)
    assert torch.equal(one.field.means, alone.field.means)
    assert len(one.fields) == len(alone.fields) == 1


def test_a_fit_of_channels_goes_on_as_if_nothing_had_been(stacks: tuple[Stack, ...]) -> None:
    whole = fit(stacks, settings(iterations=120))
    half = Fit(stacks, settings(iterations=120))
    for snapshot in half:
        if snapshot.iteration >= 60:
            half.cancel()
    again = Fit(stacks, settings(iterations=120))
    again.restore(half.checkpoint())
    for _ in again:
        pass
    for found, expected in zip(again.result().fields, whole.fields, strict=True):
        assert torch.equal(found.amplitudes, expected.amplitudes)
        assert torch.equal(found.means, expected.means)


def test_what_is_moved_is_lit_by_each_channel(stacks: tuple[Stack, ...]) -> None:
    dark = [
        replace(
            field,
            means=field.means.clone(),
            amplitudes=torch.where(torch.arange(COUNT) < 3, 1e-6, field.amplitudes),
        )
        for field in Trainer(stacks, settings()).fields
    ]
    trainer = Trainer(stacks, settings(), start=dark)
    trainer.steps.relocate(0, 0)
    first, *others = trainer.fields
    moved = (first.means != dark[0].means).any(-1)
    assert moved.any(), "there is a residual where nothing shines"
    for field in (first, *others):
        assert torch.equal(field.means, first.means)
        assert (field.amplitudes[moved] > 0).all()
    share = torch.stack([field.amplitudes[moved] for field in (first, *others)])
    assert float(share.amax(0).min()) > 1.0, "bright in one channel or another"


def test_held_out_views_are_those_of_all_channels(stacks: tuple[Stack, ...]) -> None:
    trainer = Trainer(stacks, settings())
    alone = [
        channel.held_out_psnr(trainer.scaled_field(n), 0, 1e-4)
        for n, channel in enumerate(trainer.objective.channels)
    ]
    assert np.ptp(alone) > 0.1, "the channels tell apart nothing"
    assert trainer.held_out_psnr() == pytest.approx(np.mean(alone), abs=1e-3)


def test_channels_of_axes_that_do_not_turn_stay_so(stacks: tuple[Stack, ...]) -> None:
    found = fit(stacks, settings(iterations=60, full_covariance=False))
    for channel in found.fields:
        assert not channel.cholesky[:, [1, 3, 4]].any()
        assert not channel.full_covariance


def test_channels_are_fitted_where_one_is(
    stacks: tuple[Stack, ...], truths: list[GaussianField], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, if there is one; what steps compute there is tested in the simulator."""
    pytest.importorskip("numba_cuda", reason="numba-cuda is for Linux and Windows")
    from napari_gaussfit.fitting.cuda_steps import CudaSteps

    with monkeypatch.context() as patch:
        patch.setattr(_kernels, "fallback", lambda _: None)
        patch.setattr(_kernels, "device_named", torch.device)
        patch.setattr(_kernels, "backend_name", lambda _: "numba-cuda")
        trainer = Trainer(stacks, settings(device="cpu"), start=truths)
    assert isinstance(trainer.steps, CudaSteps)
    assert trainer.steps.state.amplitudes.shape == (3, COUNT)
    assert trainer.notes == ()


def test_channels_of_auto_that_stay_on_the_cpu_say_why(
    stacks: tuple[Stack, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_kernels, "why_not", lambda _=None: "there is none")
    assert Trainer(stacks, settings()).notes == ("device auto is the CPU here: there is none",)
    assert Trainer(stacks, settings(device="cpu")).notes == ()


def test_channels_that_do_not_belong_together_are_refused(stacks: tuple[Stack, ...]) -> None:
    other = Stack.from_array(stacks[0].voxels, spacing=(0.3, 0.1, 0.2))
    with pytest.raises(SettingsError, match=r"channel 1 has .* give channels of one recording"):
        checked_channels([stacks[0], other])
    with pytest.raises(SettingsError, match="there is no stack to fit"):
        checked_channels([])
