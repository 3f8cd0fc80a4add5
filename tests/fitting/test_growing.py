"""A fit has as many Gaussians as its stack's noise carries, and says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba.extending import is_jitted

from napari_gaussfit import Fit, FitSettings, Stack, fit
from napari_gaussfit._kernels.cpu import noise_kernels, relocation_kernels
from napari_gaussfit.fitting.starting import Follows
from napari_gaussfit.fitting.steps import CpuSteps
from napari_gaussfit.fitting.trainer import Trainer, compile_kernels
from napari_gaussfit.settings import MOST_UNASKED
from napari_gaussfit.synthetic import phantoms
from napari_gaussfit.synthetic.recovery import against_truth, errors_of


def test_equal_spots_are_one_gaussian_each() -> None:
    phantom = phantoms.spots()
    result = fit(phantom.stack)
    assert len(result.field) == len(phantom.truth) == 48
    assert result.report.count_reason == "more would describe noise"
    errors = errors_of(result.field, phantom.truth)
    assert np.median(errors["centre"]) < 0.1


@pytest.mark.parametrize("photons", [50.0, 400.0])
def test_no_count_given_is_nearer_the_truth_than_the_signals_size_suggests(photons: float) -> None:
    phantom = phantoms.neurite(photons=photons, shape=(24, 72, 72))
    asked = FitSettings(iterations=300)
    own, by_size = (
        against_truth(fit(phantom.stack, settings).field, phantom)
        for settings in (asked, FitSettings(iterations=300, exactly=True))
    )
    assert own[0] > by_size[0] + 2
    assert own[1] > by_size[1] + 2


def test_noise_alone_is_described_by_next_to_nothing() -> None:
    rng = np.random.default_rng(1)
    stack = Stack.from_array(rng.poisson(20, (20, 48, 48)).astype(np.float32))
    assert len(fit(stack, FitSettings(iterations=200)).field) <= 2


def test_the_number_asked_for_is_a_cap_and_said_to_be_one() -> None:
    phantom = phantoms.spots()
    result = fit(phantom.stack, FitSettings(gaussians=30, iterations=200))
    assert len(result.field) == 30
    assert result.report.count_reason == "the cap: the stack would carry more"


def test_a_cap_is_said_also_where_one_was_taken_away_at_the_end() -> None:
    result = fit(phantoms.spots().stack, FitSettings(gaussians=30, iterations=150, device="cpu"))
    assert 25 < len(result.field) <= 30  # 29 where this was found: others round otherwise
    assert result.report.count_reason == "the cap: the stack would carry more"


def test_exactly_is_exactly() -> None:
    stack = phantoms.neurite(shape=(10, 24, 24)).stack
    result = fit(stack, FitSettings(gaussians=37, exactly=True, iterations=60))
    assert len(result.field) == 37
    assert result.report.count_reason == "as asked for"
    suggested = fit(stack, FitSettings(exactly=True, iterations=30))
    assert suggested.report.count_reason == "as the size of the signal suggests"


def test_points_without_a_number_are_all_there_are() -> None:
    phantom = phantoms.spots()
    points = phantom.truth.means.double().numpy()[:5]
    *_, last = Fit(phantom.stack, FitSettings(iterations=60), points=points)
    assert len(last.field) == 5


def test_points_with_a_number_stay_and_others_come() -> None:
    phantom = phantoms.spots()
    wrong = np.array([[1.0, 1.0, 1.0]]) * np.array(phantom.stack.spacing)
    asked = FitSettings(iterations=200, gaussians=100)
    result_of = Fit(phantom.stack, asked, points=wrong)
    for _ in result_of:
        pass
    result = result_of.result()
    assert 48 <= len(result.field) <= 60
    # The one that was given is still there, where nothing is.
    apart = np.linalg.norm(result.field.means.numpy()[0] - wrong[0])
    assert apart < 4 * max(phantom.stack.spacing)


def test_where_voxels_are_not_fitted_there_is_no_evidence() -> None:
    stack = phantoms.neurite(shape=(10, 24, 24)).stack
    trainer = Trainer([stack], FitSettings(objective="mip", gaussians=12))
    assert not trainer.grows
    assert len(trainer.field) == 12


def test_a_fit_that_grows_goes_on_from_its_state_bit_for_bit() -> None:
    stack = phantoms.neurite(shape=(12, 40, 40)).stack
    settings = FitSettings(iterations=120)
    whole = Trainer([stack], settings)
    for n in range(60):
        whole.step(n / 120)
    again = Trainer([stack], settings, start=whole.fields)
    again.restore({name: tensor.clone() for name, tensor in whole.state().items()})
    assert again.grows
    for n in range(60, 120):
        whole.step(n / 120)
        again.step(n / 120)
    for one, other in zip(whole.field.tensors, again.field.tensors, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert whole.count_reason == again.count_reason


def test_the_same_seed_gives_the_same_number_and_the_same_bits() -> None:
    stack = phantoms.neurite(shape=(12, 40, 40)).stack
    first, second = (fit(stack, FitSettings(iterations=100)).field for _ in range(2))
    assert len(first) == len(second)
    np.testing.assert_array_equal(first.means.numpy(), second.means.numpy())


def test_channels_share_as_many_as_they_need_together() -> None:
    one, other = phantoms.spots(seed=0), phantoms.spots(seed=1)
    result = fit([one.stack, other.stack], FitSettings(iterations=300))
    assert 80 <= len(result.field) <= 110


def test_without_noise_a_fit_grows_to_its_cap() -> None:
    phantom = phantoms.neurite(photons=None, shape=(20, 60, 60))
    result = fit(phantom.stack, FitSettings(gaussians=120, iterations=200))
    assert len(result.field) == 120
    assert "cap" in result.report.count_reason
    assert MOST_UNASKED > 120


@pytest.mark.parametrize(("follows", "times"), [(None, 8), (Follows((None,)), 2)])
def test_what_follows_the_time_before_looks_less_often_what_comes_and_goes(
    monkeypatch: pytest.MonkeyPatch, *, follows: Follows | None, times: int
) -> None:
    phantom = phantoms.beads(count=6, shape=(12, 40, 40))
    looks: list[int] = []
    recount = CpuSteps.recount

    def counted(self: CpuSteps, first: int, *others: Any) -> int:
        looks.append(first)
        return recount(self, first, *others)

    monkeypatch.setattr(CpuSteps, "recount", counted)
    start = phantom.truth.select(slice(0, 4))  # and two have come
    settings = FitSettings(iterations=90, device="cpu")
    running = Fit(phantom.stack, settings, start=start, follows=follows)
    for _ in running:
        pass
    assert len(looks) == times
    assert len(running.checkpoint().field) == 6


def test_where_none_came_and_none_went_the_next_look_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    phantom = phantoms.beads(count=6, shape=(12, 40, 40))
    looks: list[int] = []
    recount = CpuSteps.recount

    def counted(self: CpuSteps, first: int, *others: Any) -> int:
        looks.append(first)
        return recount(self, first, *others)

    monkeypatch.setattr(CpuSteps, "recount", counted)
    settings = FitSettings(iterations=140, device="cpu")
    running = Fit(phantom.stack, settings, start=phantom.truth, follows=Follows((None,)))
    for _ in running:
        pass
    assert len(looks) == 3, "at steps 25, 75 and 125, of five times"
    assert running.origins.tolist() == [*range(6)]


def test_what_judges_gaussians_is_compiled_before_the_clock_of_a_fit_starts() -> None:
    modules = noise_kernels, relocation_kernels
    kernels = [value for module in modules for value in vars(module).values() if is_jitted(value)]
    compile_kernels("cpu")
    known = [list(kernel.signatures) for kernel in kernels]
    fit(phantoms.neurite(shape=(12, 40, 40)).stack, FitSettings(iterations=30, device="cpu"))
    assert [list(kernel.signatures) for kernel in kernels] == known
