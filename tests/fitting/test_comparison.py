"""A refinement is compared with what it went on from, by the same views."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_gaussfit.fitting.fit import Fit, fit
from napari_gaussfit.fitting.refinement import Comparison
from napari_gaussfit.fitting.snapshot import FitState
from napari_gaussfit.measure.metrics import psnr
from napari_gaussfit.model.projection import project_stack, render
from napari_gaussfit.model.views import Views
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.synthetic.phantoms import beads

if TYPE_CHECKING:
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.stacks.stack import Stack

SETTINGS = FitSettings(exactly=True, gaussians=20, iterations=60, views=8, held_out=2)
REFINING = dataclasses.replace(SETTINGS, refine=True)


@pytest.fixture(scope="module")
def stack() -> Stack:
    return beads(count=5, shape=(16, 40, 40)).stack


@pytest.fixture(scope="module")
def done(stack: Stack) -> GaussianField:
    return fit(stack, SETTINGS).field


def held_out_psnr(field: GaussianField, stack: Stack) -> float:
    views = Views(stack, SETTINGS.views, SETTINGS.held_out)
    found = [
        psnr(
            project_stack(stack, camera),
            render(field, camera, stack.box).numpy(),
            stack.value_range,
            views.view(camera).hit.numpy(),
        )
        for camera in views.held_out
    ]
    return float(np.mean(found))


def refined(start: GaussianField, stack: Stack) -> tuple[Comparison, GaussianField]:
    running = Fit(stack, REFINING, start=start)
    *_, last = running
    comparison = running.comparison()
    assert comparison is not None
    return comparison, last.field


def test_both_ends_of_a_refinement_are_measured_as_the_report_measures(
    stack: Stack, done: GaussianField
) -> None:
    comparison, after = refined(done, stack)
    assert comparison.views == SETTINGS.held_out
    assert comparison.before == pytest.approx(held_out_psnr(done, stack), abs=0.1)
    assert comparison.after == pytest.approx(held_out_psnr(after, stack), abs=0.1)
    assert comparison.improved == (comparison.after >= comparison.before)


def test_a_refinement_that_loses_is_told_from_one_that_wins(
    stack: Stack, done: GaussianField, monkeypatch: pytest.MonkeyPatch
) -> None:
    dim = dataclasses.replace(done, amplitudes=0.8 * done.amplitudes)
    won, _ = refined(dim, stack)
    assert won.improved
    assert won.after > won.before + 1
    assert str(won).startswith("refining was no loss: ")
    monkeypatch.setattr("napari_gaussfit.fitting.trainer.RATE_AT_END", 0.5)
    monkeypatch.setattr("napari_gaussfit.fitting.trainer.REFINING_RATE_AT_END", 0.5)
    lost, _ = refined(done, stack)
    assert not lost.improved
    assert "what it went on from is the better fit" in str(lost)


def test_a_refinement_that_is_cancelled_at_once_is_compared_too(
    stack: Stack, done: GaussianField
) -> None:
    running = Fit(stack, REFINING, start=done)
    for _ in running:
        running.cancel()
    assert running.state is FitState.CANCELLED
    comparison = running.comparison()
    assert comparison is not None
    assert comparison.views == 1
    assert comparison.after == pytest.approx(comparison.before, abs=1e-6), "no step"
    assert comparison.improved


def test_channels_are_compared_together(stack: Stack) -> None:
    channels = [stack, stack]
    fields = fit(channels, SETTINGS).fields
    running = Fit(channels, REFINING, start=fields)
    for _ in running:
        pass
    comparison = running.comparison()
    assert comparison is not None
    expected = np.mean([held_out_psnr(field, stack) for field in fields])
    assert comparison.before == pytest.approx(expected, abs=0.1)


def test_what_is_no_refinement_has_nothing_to_be_compared_with(stack: Stack) -> None:
    running = Fit(stack, SETTINGS)
    for _ in running:
        pass
    assert running.comparison() is None
