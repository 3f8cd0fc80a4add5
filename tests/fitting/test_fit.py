"""The fit as a state machine: what one may ask of it, and what it keeps to."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_gaussfit.errors import FitError, SettingsError
from napari_gaussfit.fitting.fit import Fit, fit
from napari_gaussfit.fitting.snapshot import FinishReason, FitState
from napari_gaussfit.fitting.trainer import Trainer
from napari_gaussfit.measure.metrics import psnr
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.synthetic.phantoms import beads, neurite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_gaussfit.fitting.snapshot import Snapshot
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.stacks.stack import Stack

LATENCY_S = 2.0
"""Longest wait for a pause or an end on a small stack; a step takes some 20 ms there."""


def settings(**changes: Any) -> FitSettings:
    return FitSettings(
        **(
            {"gaussians": 20, "exactly": True, "iterations": 30, "views": 8, "held_out": 2}
            | changes
        )
    )


@pytest.fixture(scope="module")
def stack() -> Stack:
    """Beads in a small box; the kernels are compiled when a test gets it."""
    small = beads(count=5, shape=(16, 40, 40)).stack
    fit(small, settings(iterations=2))
    return small


def run(running: Fit) -> Snapshot:
    snapshots = list(running)
    return snapshots[-1]


def assert_same(one: GaussianField, other: GaussianField) -> None:
    for name in ("means", "cholesky", "amplitudes"):
        difference = (getattr(one, name) - getattr(other, name)).abs().max()
        assert torch.equal(getattr(one, name), getattr(other, name)), f"{name} by {difference:g}"
    assert one.background == other.background


def test_fit_takes_all_its_steps_and_finishes(stack: Stack) -> None:
    running = Fit(stack, settings())
    assert running.state is FitState.IDLE
    states = [snapshot.state for snapshot in running]
    assert states[0] is FitState.RUNNING
    assert states[-1] is running.state is FitState.FINISHED
    assert running.reason is FinishReason.ITERATIONS
    assert running.snapshot().iteration == 30
    assert running.snapshot().seconds_left == 0


def test_fit_ends_when_its_time_is_over(stack: Stack) -> None:
    running = Fit(stack, settings(iterations=100_000, max_seconds=0.5))
    last = run(running)
    assert running.reason is FinishReason.MAX_SECONDS
    assert last.iteration < 100_000
    assert last.seconds < 0.5 + LATENCY_S


@pytest.mark.parametrize("limit", [20.0, 3600.0])
def test_a_limit_that_is_not_reached_changes_no_bit(stack: Stack, limit: float) -> None:
    """Steps go by the time that is left for them, of which the setup took its part before."""
    limited = run(Fit(stack, settings(max_seconds=limit)))
    assert limited.reason is FinishReason.ITERATIONS
    assert_same(limited.field, run(Fit(stack, settings())).field)


def test_same_seed_gives_the_same_field_to_the_bit(stack: Stack) -> None:
    assert_same(run(Fit(stack, settings())).field, run(Fit(stack, settings())).field)


def test_another_seed_gives_another_field(stack: Stack) -> None:
    one, other = (run(Fit(stack, settings(seed=seed))).field for seed in (0, 1))
    assert not torch.equal(one.means, other.means)


@pytest.mark.parametrize("objective", ["mip+voxels", "mip", "voxels"])
def test_restored_fit_ends_in_the_field_of_an_uninterrupted_one(
    stack: Stack, objective: str
) -> None:
    # 70 steps: relocation, at every 50th, comes after the break.
    wanted = settings(iterations=70, objective=objective)
    whole = run(Fit(stack, wanted)).field
    broken = Fit(stack, wanted)
    for snapshot in broken:
        if snapshot.iteration >= 5:
            break
    taken = broken.checkpoint()
    again = Fit(stack, wanted)
    again.restore(taken)
    first = next(iterator := iter(again))
    assert first.iteration == snapshot.iteration
    *_, last = iterator
    assert_same(last.field, whole)


@pytest.mark.notebook("gradient-monitoring", api="FitResult.history")
def test_history_has_means_spreads_and_gradients_of_every_group(stack: Stack) -> None:
    result = fit(stack, settings(iterations=20))
    means, amplitudes = (t.double().numpy() for t in (result.field.means, result.field.amplitudes))
    widths = np.exp(result.field.cholesky.double().numpy()[:, [0, 2, 5]]).mean(1)
    groups = {"width": widths, "amplitude": amplitudes}
    groups |= {axis: means[:, n] for n, axis in enumerate("zyx")}
    for name, values in groups.items():
        assert result.history[f"mean_{name}"][-1] == pytest.approx(values.mean(), rel=1e-5)
        assert result.history[f"spread_{name}"][-1] == pytest.approx(values.std(), rel=1e-4)
    for name in ("means", "cholesky", "amplitudes"):
        norms = result.history[f"gradient_{name}"]
        assert len(norms) == 2
        assert all(np.isfinite(norm) and norm > 0 for norm in norms), name


def test_history_goes_on_where_it_was(stack: Stack) -> None:
    broken = Fit(stack, settings())
    for snapshot in broken:
        if snapshot.iteration >= 12:
            break
    again = Fit(stack, settings())
    again.restore(broken.checkpoint())
    run(again)
    assert again.history["iteration"] == [10, 20, 30]
    assert np.all(np.diff(again.history["seconds"]) > 0)


def watched(running: Fit, seen: list[Snapshot]) -> threading.Thread:
    def watch() -> None:
        seen.extend(iter(running))

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def wait_for(running: Fit, state: FitState) -> float:
    began = time.monotonic()
    while running.state is not state:
        assert time.monotonic() - began < 30, f"waited for {state}, the fit is {running.state}"
        time.sleep(0.002)
    return time.monotonic() - began


@pytest.fixture
def endless(stack: Stack) -> Iterator[tuple[Fit, list[Snapshot]]]:
    """A fit that runs in another thread until it is told to end."""
    running, seen = Fit(stack, settings(iterations=10**6)), []
    thread = watched(running, seen)
    wait_for(running, FitState.RUNNING)
    yield running, seen
    running.cancel()
    thread.join(30)
    assert not thread.is_alive()


def test_fit_pauses_and_goes_on_from_another_thread(endless: tuple[Fit, list[Snapshot]]) -> None:
    running, seen = endless
    running.pause()
    waited = wait_for(running, FitState.PAUSED)
    assert waited < LATENCY_S + 5, "the trainer is made first, then the pause is heeded"
    time.sleep(0.3)
    paused = seen[-1]
    assert paused.state is FitState.PAUSED
    time.sleep(0.3)
    assert seen[-1] is paused, "a paused fit takes no step"
    running.resume()
    wait_for(running, FitState.RUNNING)
    time.sleep(0.5)
    assert seen[-1].iteration > paused.iteration


def test_cancel_ends_a_running_fit_at_once(endless: tuple[Fit, list[Snapshot]]) -> None:
    running, seen = endless
    while not seen or seen[-1].iteration < 3:
        time.sleep(0.01)
    running.cancel()
    waited = wait_for(running, FitState.CANCELLED)
    assert waited < LATENCY_S, f"it took {waited:.2f} s"
    assert running.reason is FinishReason.CANCELLED


def test_cancel_ends_a_paused_fit(endless: tuple[Fit, list[Snapshot]]) -> None:
    running, _ = endless
    running.pause()
    wait_for(running, FitState.PAUSED)
    running.cancel()
    assert wait_for(running, FitState.CANCELLED) < LATENCY_S


def test_cancelled_fit_has_a_result(stack: Stack) -> None:
    running = Fit(stack, settings(iterations=10**6))
    for snapshot in running:
        if snapshot.iteration >= 5:
            running.cancel()
    assert running.state is FitState.CANCELLED
    assert math.isfinite(running.result().report.voxel_psnr)


def test_snapshot_shares_nothing_with_the_fit(stack: Stack) -> None:
    snapshots = list(Fit(stack, settings()))
    snapshots[0].field.means.zero_()
    assert float(snapshots[-1].field.means.abs().max()) > 0


def test_fit_runs_once(stack: Stack) -> None:
    running = Fit(stack, settings(iterations=1))
    run(running)
    with pytest.raises(FitError, match="this fit is finished; make a new one"):
        run(running)
    with pytest.raises(FitError, match="only an idle one can be restored"):
        running.restore(running.checkpoint())


def test_the_result_of_a_fit_that_has_ended_is_made_once(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    drift = Trainer.drift

    def counted(self: Trainer, steps: int, cut_short: Callable[[], bool]) -> torch.Tensor:
        tried.append(steps)
        return drift(self, steps, cut_short)

    monkeypatch.setattr(Trainer, "drift", counted)
    running = Fit(stack, settings(iterations=4))
    early = None
    for _ in running:
        early = early or running.result()
    assert running.result() is running.result() is not early
    assert len(tried) == 1, "the steps that tell whether it has converged are taken once"


def test_a_fit_goes_on_from_a_record_of_its_own_kind_alone(stack: Stack) -> None:
    running = Fit(stack, settings(iterations=1))
    run(running)
    record = running.checkpoint()
    with pytest.raises(FitError, match="the record has 1 channels, this fit 2"):
        Fit([stack, stack]).restore(record)
    with pytest.raises(FitError, match="has no state to go on from; give its Gaussians as `start`"):
        Fit(stack).restore(replace(record, state={}))


def test_fit_that_has_not_begun_has_no_result(stack: Stack) -> None:
    with pytest.raises(FitError, match="has not begun"):
        Fit(stack).result()


def test_a_start_is_taken_up(stack: Stack) -> None:
    field = fit(stack, settings()).field
    first = next(iter(Fit(stack, settings(), start=field)))
    for found, given in zip(first.field.tensors, field.tensors, strict=True):
        torch.testing.assert_close(found, given, rtol=1e-5, atol=1e-6)


def voxel_psnr(field: GaussianField, stack: Stack) -> float:
    return psnr(stack.voxels, field.voxelise(stack.shape, stack.spacing), stack.value_range)


def test_a_refinement_is_at_no_step_worse_than_the_fit_that_it_goes_on_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("napari_gaussfit.fitting.fit.SNAPSHOT_SECONDS", 0.0)
    stack = neurite(photons=None, shape=(16, 48, 48), spacing=(0.5, 0.2, 0.2)).stack
    asked = settings(exactly=True, gaussians=150, iterations=150)
    done = fit(stack, asked).field
    was = voxel_psnr(done, stack)

    def worst(asked: FitSettings) -> float:
        snapshots = Fit(stack, asked, start=done)
        return min(voxel_psnr(s.field, stack) for s in snapshots if s.iteration in {3, 10, 30, 60})

    refined = worst(replace(asked, refine=True))
    assert refined > was - 0.05, f"{was:.2f} dB fell to {refined:.2f}"
    anew = worst(asked)
    assert anew < was - 1, f"{was:.2f} dB, {anew:.2f}: as a start it would do as well"


def test_a_refinement_relocates_nothing() -> None:
    stack = neurite(photons=None, shape=(16, 48, 48), spacing=(0.5, 0.2, 0.2)).stack
    seeds = fit(stack, settings(exactly=True, gaussians=150, iterations=1)).field
    asked = settings(gaussians=150, iterations=60, refine=True)
    moved = fit(stack, asked, start=seeds).field.means - seeds.means
    # No step is longer than 0.008 of a Gaussian's widths; a relocated one crosses the stack.
    assert float(moved.abs().max()) < 1.5


def test_a_refinement_of_nothing_is_refused(stack: Stack) -> None:
    with pytest.raises(SettingsError, match="refine=True: there is nothing to go on from"):
        fit(stack, settings(refine=True))


@pytest.mark.parametrize(
    ("name", "value", "would_do"),
    [
        ("gaussians", 0, "a whole number of at least 1"),
        ("gaussians", 2.5, "a whole number of at least 1"),
        ("quality", "best", "'preview', 'balanced', 'fine'"),
        ("objective", "mips", "'mip+voxels', 'mip', 'voxels'"),
        ("device", "tpu", "'auto', 'cpu', 'cuda'"),
        ("iterations", -1, "a whole number of at least 1"),
        ("max_seconds", -1.0, "a number from 0 to 1e+09"),
        ("max_seconds", math.nan, "a number from 0 to 1e+09"),
        ("ssim_weight", 1.5, "a number from 0 to 1"),
        ("held_out", 60, "fewer than views=60"),
        ("seed", -1, "a whole number of at least 0"),
        ("background", math.inf, "a number from -1e+36 to 1e+36"),
        ("refine", "yes", "True or False"),
        ("full_covariance", 0, "True or False"),
    ],
)
def test_a_bad_setting_is_named_with_its_value_and_what_would_do(
    name: str, value: object, would_do: str
) -> None:
    with pytest.raises(SettingsError) as refusal:
        FitSettings(**{name: value})
    assert f"{name}={value!r}" in str(refusal.value)
    assert would_do in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_settings_come_back_from_their_dictionary() -> None:
    wanted = settings(max_seconds=3.5, objective="mip")
    assert FitSettings.from_dict(wanted.to_dict()) == wanted
    with pytest.raises(SettingsError, match="gausians: no such setting"):
        FitSettings.from_dict({"gausians": 3})
