"""A training step keeps to what the settings promise."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from napari_gaussfit.errors import FitError, SettingsError
from napari_gaussfit.fitting import objective
from napari_gaussfit.fitting import trainer as training
from napari_gaussfit.fitting.fit import Fit, fit
from napari_gaussfit.fitting.objective import BRICK, VOXELS_PER_STEP, _bricks
from napari_gaussfit.fitting.trainer import NARROWEST, RATE, RATE_AT_END, Trainer
from napari_gaussfit.measure.metrics import psnr
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.synthetic.phantoms import beads, neurite

OFF_DIAGONAL = [1, 3, 4]


def settings(**changes: Any) -> FitSettings:
    return FitSettings(
        **(
            {"gaussians": 20, "exactly": True, "iterations": 60, "views": 8, "held_out": 2}
            | changes
        )
    )


@pytest.fixture(scope="module")
def stack() -> Stack:
    return beads(count=5, shape=(16, 40, 40)).stack


@pytest.fixture(scope="module")
def clean() -> Stack:
    """The same without noise, which more steps would otherwise begin to follow."""
    return beads(count=5, shape=(16, 40, 40), photons=None).stack


@pytest.mark.parametrize(
    "shape", [(5, 6, 7), (40, 512, 300), (129, 400, 33), (32, 128, 4096), (1, 3000, 3000)]
)
def test_bricks_cover_every_voxel_once(shape: tuple[int, int, int]) -> None:
    seen = np.zeros(shape, np.uint8)
    bricks = _bricks(shape)
    for brick in bricks:
        seen[brick] += 1
    assert (seen == 1).all(), f"{(seen == 0).sum()} voxels in none, {(seen > 1).sum()} in several"
    if seen.size > VOXELS_PER_STEP:
        sizes = np.array([[s.stop - s.start for s in brick] for brick in bricks])
        assert (sizes <= BRICK).all()
        assert (np.ptp(sizes, axis=0) <= 1).all(), "even"
    else:
        assert len(bricks) == 1


@pytest.mark.notebook("field", api="FitSettings.full_covariance")
def test_diagonal_covariances_stay_diagonal(stack: Stack) -> None:
    diagonal = fit(stack, settings(full_covariance=False)).field
    assert not diagonal.cholesky[:, OFF_DIAGONAL].any()
    assert not diagonal.full_covariance
    assert fit(stack, settings()).field.cholesky[:, OFF_DIAGONAL].any()


def test_a_given_background_is_kept(stack: Stack) -> None:
    assert fit(stack, settings(background=90.0)).field.background == pytest.approx(90.0)
    assert fit(stack, settings()).field.background == pytest.approx(100.0, abs=10.0)


@pytest.mark.parametrize("objective", ["mip+voxels", "mip", "voxels"])
def test_steps_bring_the_field_closer_to_the_stack(clean: Stack, objective: str) -> None:
    trainer = Trainer([clean], settings(objective=objective))

    def closeness() -> float:
        volume = trainer.field.voxelise(clean.shape, clean.spacing).numpy()
        return psnr(clean.voxels, volume, clean.value_range)

    before = closeness()
    for _ in range(40):
        trainer.step(0.0)
    gained = closeness() - before
    assert gained > 1, f"from {before:.1f} dB by {gained:.2f} dB"


@pytest.mark.parametrize(("loss", "ssim_weight"), [("poisson", 0.0), ("squared", 0.3)])
def test_other_losses_bring_the_field_closer_too(
    clean: Stack, loss: str, ssim_weight: float
) -> None:
    def quality(iterations: int) -> float:
        asked = settings(loss=loss, ssim_weight=ssim_weight, iterations=iterations)
        return fit(clean, asked).report.voxel_psnr

    gained = quality(60) - quality(1)
    assert gained > 1, f"{gained:.2f} dB"


@pytest.mark.notebook("mip-splatting-model", api="fit")
def test_a_fit_of_projections_alone_learns_and_keeps_its_losses(clean: Stack) -> None:
    result = fit(clean, settings(objective="mip", iterations=100))
    losses = result.history["loss"]
    assert len(losses) == 10
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3]), f"losses {losses}"
    assert (result.field.amplitudes > 0).all(), "no darkness is added"


@pytest.mark.notebook("mip-splatting-model", api="fit")
def test_steps_shrink_as_a_fit_goes_on(clean: Stack) -> None:
    def first_step(progress: float) -> float:
        trainer = Trainer([clean], settings(objective="mip"))
        before = trainer.field.amplitudes.log()
        trainer.step(progress)
        return float((trainer.field.amplitudes.log() - before).abs().max())

    assert first_step(1.0) / first_step(0.0) == pytest.approx(RATE_AT_END / RATE, rel=0.01)


def test_no_gaussian_hides_between_samples(stack: Stack) -> None:
    field = fit(stack, settings()).field
    widths = field.cholesky[:, [0, 2, 5]].exp().numpy() / stack.spacing
    assert widths.min() > NARROWEST * 0.999, f"{widths.min():.3f} voxels"


def test_the_count_never_changes(stack: Stack) -> None:
    result = fit(stack, settings(iterations=120))
    assert set(result.history["gaussians"]) == {20}


def test_held_out_views_are_not_trained_on(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer([stack], settings(objective="mip"))
    asked = []
    views = trainer.objective.views
    make = views.view
    monkeypatch.setattr(views, "view", lambda camera: asked.append(camera) or make(camera))
    for _ in range(2 * len(views.training)):
        trainer.step(0.0)
    assert set(asked) == set(views.training)
    assert not set(asked) & set(views.held_out)


def test_every_brick_of_a_large_stack_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objective, "VOXELS_PER_STEP", 6000)
    monkeypatch.setattr(objective, "BRICK", (8, 16, 16))
    stack = beads(count=5, shape=(16, 40, 40)).stack
    trainer = Trainer([stack], settings(objective="voxels"))
    count = len(trainer.objective.bricks)
    assert count == 2 * 3 * 3
    a_step = trainer.objective.bricks_per_step
    assert 1 <= a_step < count
    drawn = [trainer.objective.draw(0).bricks for _ in range(-(-count // a_step))]
    assert set(itertools.chain(*drawn)) == set(range(count))
    for _ in range(60):
        values = trainer.step(0.0)
    assert np.isfinite(values.loss)


@pytest.mark.notebook("gradient-monitoring", api="FitResult.history")
def test_gradients_of_all_three_tensors_are_recorded(stack: Stack) -> None:
    values = Trainer([stack], settings()).step(0.0)
    assert len(values.gradient_norms) == 3
    assert all(np.isfinite(norm) and norm > 0 for norm in values.gradient_norms)


def test_fits_in_micrometres_and_in_pixels_are_the_same(stack: Stack) -> None:
    from napari_gaussfit.stacks.stack import Stack as AnyStack

    scale = 10.0
    spacing = tuple(scale * d for d in stack.spacing)
    larger = AnyStack.from_array(stack.voxels, spacing=spacing, name="larger")
    small, large = (fit(s, settings()).report.voxel_psnr for s in (stack, larger))
    assert small == pytest.approx(large, abs=0.5), "the unit decides nothing"


def test_relocation_looks_at_a_slab_of_a_large_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = neurite(shape=(20, 24, 24)).stack
    monkeypatch.setattr(training, "RELOCATION_VOXELS", 5 * 24 * 24 + 7)
    trainer = Trainer([stack], FitSettings(exactly=True, gaussians=40, objective="voxels"))
    assert trainer._slab.planes == 5
    assert {trainer._draw_slab() for _ in range(200)} == set(range(16))
    [channel] = trainer.objective.channels

    def residual(first: int, end: int) -> np.ndarray:
        return channel.residual(trainer.scaled_field(), first, end)

    whole = residual(0, 20)
    np.testing.assert_allclose(residual(7, 12), whole[7:12], atol=1e-5)
    before = float(np.square(whole).sum())
    for _ in range(2 * training.RELOCATE_EVERY):
        trainer.step(0.2)
    assert float(np.square(residual(0, 20)).sum()) < before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"background": [math.nan]}, "background is nan"),
        ({"background": [1e200]}, "background is 1e+200"),
        ({"background": [1.0, 1.0]}, "ValueError"),
        ({"background": ["x"]}, "ValueError"),
        ({"background": 0.5}, "TypeError"),
        ({"background": None}, "TypeError"),
        ({"cutoff": [0.0]}, "cutoff 0"),
        ({"iteration": -1}, "iteration"),
        ({"iteration": "x"}, "iteration"),
        ({"kept": -1}, "kept"),
        ({"kept": 10**6}, "kept"),
        ({"views_left": [10**6]}, "none of them"),
        ({"views_left": [-1]}, "none of them"),
        ({"views_left": None}, "TypeError"),
        ({"bricks_left": [0.5]}, "none of them"),
        ({"held_out_psnr": {"99": 30.0}}, "held_out_psnr"),
        ({"held_out_psnr": [1]}, "AttributeError"),
        ({"rng": {}}, "PCG64"),
        ({"rng": "x"}, "TypeError"),
    ],
)
def test_words_of_a_state_that_no_fit_writes_are_refused(
    changed: dict[str, Any], said: str, stack: Stack
) -> None:
    trainer = Trainer([stack], settings())
    state = trainer.state()
    words = json.loads(state["words"].numpy().tobytes()) | changed
    packed = np.frombuffer(json.dumps(words).encode(), np.uint8).copy()
    with pytest.raises(FitError, match="cannot be gone on from") as error:
        trainer.restore(state | {"words": torch.from_numpy(packed)})
    assert said in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("name", ["first", "second", "age", "amplitudes", "words"])
@pytest.mark.parametrize("damage", ["left out", "of one row", "not finite"])
def test_a_state_of_other_tensors_is_refused(name: str, damage: str, stack: Stack) -> None:
    trainer = Trainer([stack], settings())
    state = trainer.state()
    own = state.pop(name)
    if damage == "of one row":
        state[name] = own[..., :1]
    elif damage == "not finite":
        state[name] = torch.full(own.shape, math.nan)
    with pytest.raises(FitError, match="fit anew, without resuming"):
        trainer.restore(state)


def test_gaussians_to_go_on_from_that_are_not_finite_are_refused(stack: Stack) -> None:
    start = GaussianField(torch.full((1, 3), math.nan), torch.zeros(1, 6), torch.ones(1))
    with pytest.raises(SettingsError, match="Gaussian 0 of 1"):
        Fit(stack, settings(), start=start)


FAR_AWAY: dict[str, Any] = {
    "gaussians": 4,
    "exactly": True,
    "iterations": 5,
    "views": 4,
    "held_out": 1,
}


@pytest.mark.parametrize("background", [-9e5, 9e5])
def test_a_fit_with_a_background_far_away_ends(background: float) -> None:
    """Its convergence is tried from its own state, which was refused as one from a file."""
    voxels = np.random.default_rng(0).random((8, 8, 8), dtype=np.float32)
    found = fit(Stack.from_array(voxels), FitSettings(**FAR_AWAY, background=background))
    assert found.report.iterations == 5


@pytest.mark.parametrize("channels", [1, 2])
def test_a_background_of_another_recording_is_refused(channels: int) -> None:
    voxels = 1e9 + np.random.default_rng(0).random((8, 8, 8))
    stacks = [Stack.from_array(voxels)] * channels
    with pytest.raises(SettingsError, match="background=0: lies 1e\\+09 times the range"):
        fit(stacks, FitSettings(**FAR_AWAY, background=0.0))
