"""A fit tells whether more steps would change it, by what is known of phantoms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_gaussfit.fitting.convergence import LARGEST_CHANGE, judge
from napari_gaussfit.fitting.fit import Fit, fit
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.synthetic.phantoms import beads, separated
from napari_gaussfit.synthetic.recovery import errors_of

if TYPE_CHECKING:
    from napari_gaussfit.synthetic.phantoms import Phantom


@pytest.fixture(scope="module")
def four_beads() -> Phantom:
    return beads(count=4, shape=(24, 64, 64))


def far_start(phantom: Phantom) -> Fit:
    """A preview of four Gaussians that begin at the beads, five times as wide."""
    truth = phantom.truth
    wide = truth.from_covariances(
        truth.means, 25 * truth.covariances, truth.amplitudes, background=truth.background
    )
    return Fit(phantom.stack, FitSettings(exactly=True, gaussians=4, quality="preview"), start=wide)


def run(running: Fit) -> Fit:
    for _ in running:
        pass
    return running


def test_four_beads_that_a_preview_leaves_too_wide_have_not_converged(four_beads: Phantom) -> None:
    result = run(far_start(four_beads)).result()
    wrong = errors_of(result.field, four_beads.truth)["width"].max()
    assert wrong > 0.5, f"widths are right to {wrong:.1%}: this is no test"
    assert not result.report.converged
    assert "fit with quality balanced, or refine" in result.report.convergence


@pytest.mark.parametrize("quality", ["preview", "balanced"])
@pytest.mark.parametrize("objective", ["mip+voxels", "voxels"])
def test_four_beads_that_are_found_have_converged(
    four_beads: Phantom, quality: str, objective: str
) -> None:
    asked = FitSettings.from_dict(
        {"gaussians": 4, "exactly": True, "quality": quality, "objective": objective}
    )
    result = fit(four_beads.stack, asked)
    assert result.report.converged, result.report.convergence


def test_fifty_gaussians_found_to_the_noise_have_converged() -> None:
    phantom = separated(photons=100, shape=(40, 96, 96), count=25)
    result = fit(phantom.stack, FitSettings(exactly=True, gaussians=25))
    assert result.report.converged, result.report.convergence


def test_a_fit_that_was_cut_short_has_not_converged(four_beads: Phantom) -> None:
    running = Fit(four_beads.stack, FitSettings(exactly=True, gaussians=4, iterations=10_000))
    for snapshot in running:
        if snapshot.iteration >= 5:
            running.cancel()
    report = running.result().report
    assert not report.converged
    assert report.convergence == f"ended at step {report.iterations:,} of 10,000"


def test_a_fit_that_is_cancelled_while_it_is_looked_at_does_not_wait(four_beads: Phantom) -> None:
    running = run(Fit(four_beads.stack, FitSettings(exactly=True, gaussians=4, iterations=20)))
    running.cancel()
    report = running.result().report
    assert not report.converged
    assert report.convergence == "was not looked at to the end"


@pytest.mark.parametrize("channels", [1, 2])
def test_the_steps_that_tell_leave_a_fit_as_it_was(four_beads: Phantom, channels: int) -> None:
    stacks = [four_beads.stack] * channels
    running = run(
        Fit(stacks, FitSettings(exactly=True, gaussians=4, iterations=20, views=8, held_out=2))
    )
    before = running.checkpoint()
    running.result()
    after = running.checkpoint()
    assert before.state.keys() == after.state.keys()
    for name, array in before.state.items():
        np.testing.assert_array_equal(array, after.state[name], err_msg=name)
    for name in ("means", "cholesky", "amplitudes"):
        assert torch.equal(getattr(before.field, name), getattr(after.field, name)), name
    assert before.field.background == after.field.background


def test_a_large_change_of_one_in_four_counts_and_of_fewer_does_not() -> None:
    settings, much = FitSettings(), 2 * LARGEST_CHANGE
    assert not judge([much, 0, 0, 0], settings, settings.steps).converged
    assert judge([much, much, *[0] * 14], settings, settings.steps).converged
    assert judge([], settings, settings.steps).converged
    assert judge(np.full(100, LARGEST_CHANGE), settings, settings.steps).converged


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        (FitSettings(quality="preview"), "fit with quality balanced, or refine"),
        (FitSettings(quality="balanced"), "fit with quality fine, or refine"),
        (FitSettings(quality="fine"), "give it more steps than 2,500 (iterations), or refine"),
        (FitSettings(iterations=20), "give it more steps than 20 (iterations), or refine"),
        (FitSettings(max_seconds=5.0), "fit with quality fine, or refine"),
        (FitSettings(refine=True), "refine again"),
    ],
)
def test_a_fit_that_has_not_converged_says_what_to_do(settings: FitSettings, advice: str) -> None:
    found = judge([1.0], settings, settings.steps)
    assert found.sentence == (
        "50 more steps would change the widths of one in four Gaussians by 170 % or more; " + advice
    )


def test_more_time_is_advised_where_time_ended_the_fit_only() -> None:
    settings = FitSettings(quality="preview", max_seconds=20.0)
    for steps, advice in (
        (settings.steps - 1, "give it more time (max_seconds), or refine"),
        (settings.steps, "fit with quality balanced, or refine"),
    ):
        assert judge([1.0], settings, steps).sentence.endswith(advice), steps
