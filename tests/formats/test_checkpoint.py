"""The notebook's checkpoints come with the right geometry and brightness, and nothing unpickled."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from napari_gaussfit.errors import FormatError, SettingsError
from napari_gaussfit.fitting.result import load
from napari_gaussfit.formats.checkpoint import LAYOUTS
from napari_gaussfit.stacks.facts import StackFacts
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Floats = NDArray[np.float64]

COUNT = 7
SHAPE, SPACING = (10, 24, 30), (0.4, 0.15, 0.1)
LOW, HIGH = 100.0, 1100.0


@pytest.fixture
def stack() -> Stack:
    ramp = np.linspace(LOW, HIGH, int(np.prod(SHAPE))).reshape(SHAPE)
    return Stack.from_array(ramp, spacing=SPACING, name="cell")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def tensor(values: Any) -> Tensor:
    return torch.as_tensor(np.asarray(values, np.float32))


def models(rng: np.random.Generator) -> dict[str, tuple[dict[str, Tensor], Floats, Floats]]:
    """A state of each of the notebook's models, its covariances in x, y, z, its amplitudes."""
    means = tensor(rng.uniform(0.2, 0.8, (COUNT, 3)))
    logits = tensor(rng.normal(size=COUNT))
    scales = tensor(rng.uniform(-4, -2, (COUNT, 3)))
    tril = tensor(rng.normal(0, 0.02, (COUNT, 6)))
    tril[:, [0, 2, 5]] = scales
    # scipy's own order of a quaternion is x, y, z, w.
    turns = Rotation.from_quat(rng.normal(size=(COUNT, 4)))
    wxyz = tensor(2.5 * turns.as_quat()[:, [3, 0, 1, 2]])
    features = tensor(rng.normal(size=(COUNT, 2)))

    lower = np.zeros((COUNT, 3, 3))
    a, b, c, d, e, f = tril.double().numpy().T
    lower[:, 0, 0], lower[:, 1, 1], lower[:, 2, 2] = np.exp(a), np.exp(c), np.exp(f)
    lower[:, 1, 0], lower[:, 2, 0], lower[:, 2, 1] = b, d, e
    of_tril = np.einsum("kij,klj->kil", lower, lower)
    squares = np.exp(2 * scales.double().numpy())
    of_scales = np.stack([np.diag(one) for one in squares])
    matrices = turns.as_matrix()
    rotated = np.einsum("kij,kj,klj->kil", matrices, squares, matrices)
    sigmoid = 1 / (1 + np.exp(-logits.double().numpy()))
    quaternion_model = {"means": means, "log_scales": scales, "quaternions": wxyz}
    return {
        "field": (
            {"means": means, "cov_tril": tril, "weights": logits},
            of_tril + 1e-6 * np.eye(3),
            sigmoid,
        ),
        "diagonal field": (
            {"means": means, "log_scales": scales, "weights": logits},
            of_scales,
            sigmoid,
        ),
        "splatting": (
            {"means_3d": means, "cov_tril_params": tril, "features": features},
            of_tril,
            np.maximum(features.double().numpy()[:, 0], 0),
        ),
        "log amplitudes": (
            {**quaternion_model, "log_amplitudes": logits},
            rotated,
            np.exp(logits.double().numpy()),
        ),
        "log intensities": ({**quaternion_model, "log_intensities": logits}, rotated, sigmoid),
    }


MODELS = tuple(models(np.random.default_rng(3)))


def checkpoint_value(
    means: Floats, covariances: Floats, amplitudes: Floats, places: Floats
) -> Floats:
    """Evaluate a checkpoint's own sum at places [B, 3], all in its x, y, z."""
    offsets = places[:, None] - means
    squares = np.einsum("bki,kij,bkj->bk", offsets, np.linalg.inv(covariances), offsets)
    return np.exp(-squares / 2) @ amplitudes


def test_every_layout_is_tested() -> None:
    found = models(np.random.default_rng(3)).values()
    assert [set(state) for state, _, _ in found] == [set(layout.shapes) for layout in LAYOUTS]


@pytest.mark.notebook("checkpoints", api="formats.checkpoint.read_checkpoint")
@pytest.mark.parametrize("model", MODELS)
def test_the_field_is_the_checkpoints_own_in_the_stacks_box(
    tmp_path: Path, stack: Stack, rng: np.random.Generator, model: str
) -> None:
    state, covariances, amplitudes = models(rng)[model]
    torch.save(state, tmp_path / "model.pt")
    fit = load(tmp_path / "model.pt", stack)
    assert fit.stack == stack.facts

    # A place in the unit cube, x first, is one of the stack's box, z first.
    means = next(iter(state.values())).double().numpy()
    places = means + np.random.default_rng(4).normal(0, 0.02, means.shape)
    lower, upper = stack.box
    world = lower + places[:, ::-1] * (upper - lower)
    found = fit.field.evaluate(torch.as_tensor(world.astype(np.float32))).double().numpy()
    parts = checkpoint_value(means, covariances, amplitudes, places)
    expected = LOW + (HIGH - LOW) * parts
    off = np.abs(found - expected).max() / np.ptp(expected)
    assert off < 1e-5, f"{model}: off by {off:.1e} of the range"


@pytest.mark.parametrize("wrapper", ["model_state_dict", "state_dict"])
def test_a_wrapped_model_is_found(
    tmp_path: Path, stack: Stack, rng: np.random.Generator, wrapper: str
) -> None:
    state, _, _ = models(rng)["log amplitudes"]
    wrapped = {"iteration": 900, "loss": 0.25, wrapper: OrderedDict(state), "optimizer": {"lr": 1}}
    torch.save(wrapped, tmp_path / "wrapped.pt")
    torch.save(state, tmp_path / "plain.pt")
    found, plain = (load(tmp_path / f"{n}.pt", stack) for n in ("wrapped", "plain"))
    assert torch.equal(found.field.cholesky, plain.field.cholesky)
    assert torch.equal(found.field.means, plain.field.means)


def test_a_box_of_its_own_is_mapped_onto_the_stacks(
    tmp_path: Path, stack: Stack, rng: np.random.Generator
) -> None:
    state, _, _ = models(rng)["log amplitudes"]
    torch.save(state, tmp_path / "unit.pt")
    low, size = np.array([-1.0, 0.5, 2.0]), np.array([4.0, 4.0, 4.0])
    larger = state | {
        "means": tensor(low + size * state["means"].numpy()),
        "log_scales": state["log_scales"] + float(np.log(4.0)),
    }
    aabb = tensor(np.stack([low, low + size], 1))
    torch.save({**larger, "num_gaussians": COUNT, "aabb": aabb}, tmp_path / "aabb.pt")
    torch.save(larger, tmp_path / "plain.pt")
    unit = load(tmp_path / "unit.pt", stack).field
    said = load(tmp_path / "aabb.pt", stack).field
    given = load(tmp_path / "plain.pt", stack, box=aabb).field
    for field in (said, given):
        torch.testing.assert_close(field.means, unit.means, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(field.covariances, unit.covariances, rtol=1e-4, atol=1e-7)


def test_the_intensities_of_0_and_1_can_be_given(
    tmp_path: Path, stack: Stack, rng: np.random.Generator
) -> None:
    state, _, amplitudes = models(rng)["log intensities"]
    torch.save(state, tmp_path / "model.pt")
    field = load(tmp_path / "model.pt", stack, value_range=(50.0, 52.0)).field
    assert field.background == 50
    np.testing.assert_allclose(field.amplitudes, 2 * amplitudes, rtol=1e-5)


def test_features_are_channels_of_which_one_may_be_chosen(
    tmp_path: Path, stack: Stack, rng: np.random.Generator
) -> None:
    state, _, _ = models(rng)["splatting"]
    torch.save(state, tmp_path / "model.pt")
    expected = torch.relu(state["features"]) * (HIGH - LOW)
    both = load(tmp_path / "model.pt", stack).fields
    for found, amplitudes in zip(both, expected.unbind(1), strict=True):
        torch.testing.assert_close(found.amplitudes, amplitudes)
    second = load(tmp_path / "model.pt", stack, channel=1)
    assert len(second.fields) == 1
    assert torch.equal(second.field.amplitudes, both[1].amplitudes)
    with pytest.raises(SettingsError, match=r"channel=2: .* has 2, from 0"):
        load(tmp_path / "model.pt", stack, channel=2)


def test_a_size_and_a_spacing_stand_for_the_stack(
    tmp_path: Path, stack: Stack, rng: np.random.Generator
) -> None:
    torch.save(models(rng)["field"][0], tmp_path / "model.pt")
    known = StackFacts.of_size("cell", np.multiply(SHAPE, SPACING).tolist(), SPACING)
    assert (known.shape, known.spacing) == (SHAPE, SPACING)
    given = load(tmp_path / "model.pt", known)
    of_stack = load(tmp_path / "model.pt", stack, value_range=(0.0, 1.0))
    assert torch.equal(given.field.means, of_stack.field.means)
    assert torch.equal(given.field.cholesky, of_stack.field.cholesky)
    assert torch.equal(given.field.amplitudes, of_stack.field.amplitudes)
    assert given.field.background == 0
    assert "in parts of its stack's range" in given.notes[0]
    assert not of_stack.notes


@pytest.mark.parametrize("size", [(4.0, 3.6, 0.0), (4.0, -3.6, 3.0), (4.0, 3.6, np.nan)])
def test_a_size_without_a_voxel_is_refused(size: tuple[float, float, float]) -> None:
    with pytest.raises(SettingsError, match="expected a voxel or more"):
        StackFacts.of_size("cell", size, SPACING)


def refusal(path: Path, stack: Stack) -> str:
    with pytest.raises(FormatError) as error:
        load(path, stack)
    text = str(error.value)
    assert "\n" not in text, "an error is one line"
    assert text.startswith(f"{path}: "), "an error begins with the file"
    return text


def test_another_layout_is_told_by_its_keys(tmp_path: Path, stack: Stack) -> None:
    path = tmp_path / "other.pt"
    torch.save({"_xyz": torch.zeros(2, 3), "_opacity": torch.zeros(2)}, path)
    text = refusal(path, stack)
    assert "has the keys {_xyz, _opacity}; expected" in text
    for layout in LAYOUTS:
        assert layout.described in text
    torch.save(torch.zeros(3), path)
    assert "holds a Tensor; expected a dictionary" in refusal(path, stack)


def test_a_tensor_of_another_shape_is_named(
    tmp_path: Path, stack: Stack, rng: np.random.Generator
) -> None:
    state, _, _ = models(rng)["field"]
    torch.save(state | {"cov_tril": torch.zeros(COUNT, 3, 3)}, tmp_path / "model.pt")
    text = refusal(tmp_path / "model.pt", stack)
    assert f"its cov_tril has shape [{COUNT}, 3, 3], expected [K, 6] with K={COUNT}" in text


def test_a_box_that_is_none_is_refused(
    tmp_path: Path, stack: Stack, rng: np.random.Generator
) -> None:
    torch.save(models(rng)["field"][0], tmp_path / "model.pt")
    with pytest.raises(SettingsError, match="expected lower and upper ends"):
        load(tmp_path / "model.pt", stack, box=[[0, 1], [1, 0], [0, 1]])


class Trap:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def test_nothing_is_unpickled(tmp_path: Path, stack: Stack, rng: np.random.Generator) -> None:
    path, sprung = tmp_path / "model.pt", tmp_path / "sprung"
    torch.save({**models(rng)["field"][0], "extra": Trap(str(sprung))}, path)
    assert "not unpickled here" in refusal(path, stack)
    path.write_bytes(pickle.dumps(Trap(str(sprung)), protocol=2))
    assert "not unpickled here" in refusal(path, stack)
    assert not sprung.exists()


def test_what_is_no_checkpoint_is_refused(
    tmp_path: Path, stack: Stack, rng: np.random.Generator
) -> None:
    assert "no such file" in refusal(tmp_path / "missing.pt", stack)
    path = tmp_path / "model.pt"
    torch.save(models(rng)["field"][0], path)
    path.write_bytes(path.read_bytes()[:200])
    assert "is damaged" in refusal(path, stack)
    path.write_bytes(b"")
    assert "is damaged" in refusal(path, stack)


class _Touches:
    """Unpickled, it writes a file: as any code could do anything."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self._path,)


def test_a_file_that_holds_code_does_not_run_it(stack: Stack, tmp_path: Path) -> None:
    path, touched = tmp_path / "model.pt", tmp_path / "touched"
    torch.save({"means": _Touches(touched)}, path)
    torch.load(path, weights_only=False)
    assert touched.exists(), "it would run"
    touched.unlink()
    with pytest.raises(FormatError, match="not unpickled here"):
        load(path, stack)
    assert not touched.exists()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(3, 3).to_sparse(),
        torch.zeros(3, 3, device="meta"),
        torch.zeros(3, 3, dtype=torch.complex64),
        torch.zeros(()),
        torch.full((3, 3), torch.nan),
        "x" * 10_000,
        None,
    ],
)
def test_what_is_no_table_of_numbers_is_refused(
    tensor: object, stack: Stack, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    shapes = {"log_scales": torch.zeros(3, 3), "weights": torch.zeros(3)}
    torch.save({"means": tensor, **shapes}, path)
    with pytest.raises(FormatError) as error:
        load(path, stack)
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value)) < 500
