"""A saved fit comes back to the bit, and what is none is refused in one line."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file

from napari_gaussfit.errors import FormatError, OutputError, SettingsError
from napari_gaussfit.fitting.result import FitResult, load
from napari_gaussfit.formats.native import FORMAT, VERSION
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.facts import StackFacts
from saved_fits import some_report

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def saved() -> FitResult:
    generator = torch.Generator().manual_seed(3)
    field = GaussianField(
        torch.randn(50, 3, generator=generator),
        torch.randn(50, 6, generator=generator),
        torch.randn(50, generator=generator) * 1000,
        background=np.pi * 100,
    )
    return FitResult(
        (field,),
        StackFacts("dendrite µ", (40, 128, 96), (0.1 + 0.2, 0.1, 1 / 3)),
        FitSettings(exactly=True, gaussians=50, quality="fine"),
        history={"loss": [1 / 3, 1e-300, 7.0], "iteration": [0.0, 1.0, 2.0]},
        reports=(some_report(),),
        state={
            "exp_avg.means": torch.randn(50, 3, generator=generator).numpy(),
            "iteration": np.array(17),
            "generator": generator.get_state().numpy(),
            "alive": np.ones(50, bool),
        },
    )


def write_raw(path: Path, metadata: dict[str, str] | None, **tensors: torch.Tensor) -> Path:
    save_file(tensors, path, metadata)
    return path


def rewritten(path: Path, saved: FitResult, **changes: Any) -> Path:
    """Write a fit whose JSON is changed; a change to None takes the key away."""
    saved.save(path)
    metadata = json_of(path) | changes
    kept = {key: value for key, value in metadata.items() if value is not None}
    field = saved.field
    return write_raw(
        path,
        {FORMAT: json.dumps(kept)},
        means=field.means,
        cholesky=field.cholesky,
        amplitudes=field.amplitudes,
    )


def json_of(path: Path) -> dict[str, Any]:
    """Read the metadata as the format's specification has it, without any library."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata: dict[str, Any] = json.loads(header["__metadata__"][FORMAT])
    return metadata


def refusal(path: Path) -> str:
    with pytest.raises(FormatError) as error:
        load(path)
    text = str(error.value)
    assert "\n" not in text, "an error is one line"
    assert text.startswith(f"{path}: "), "an error begins with the file"
    return text


def test_a_fit_comes_back_to_the_bit(tmp_path: Path, saved: FitResult) -> None:
    path = tmp_path / "fit.safetensors"
    saved.save(path)
    loaded = load(path)
    for name in ("means", "cholesky", "amplitudes"):
        assert torch.equal(getattr(loaded.field, name), getattr(saved.field, name)), name
        assert getattr(loaded.field, name).dtype == torch.float32, name
    assert loaded.field.background == saved.field.background
    assert loaded.field.unit == saved.field.unit
    for name in ("stack", "settings", "history", "reports"):
        assert getattr(loaded, name) == getattr(saved, name), name
    assert loaded.state.keys() == saved.state.keys()
    for name, array in saved.state.items():
        assert loaded.state[name].dtype == array.dtype, name
        np.testing.assert_array_equal(loaded.state[name], array, err_msg=name)


def test_a_generator_goes_on_where_it_was_saved(tmp_path: Path, saved: FitResult) -> None:
    path = tmp_path / "fit.safetensors"
    saved.save(path)
    first, second = torch.Generator(), torch.Generator()
    first.set_state(torch.from_numpy(saved.state["generator"]))
    second.set_state(torch.from_numpy(load(path).state["generator"]))
    assert torch.equal(torch.rand(9, generator=first), torch.rand(9, generator=second))


def test_a_fit_without_gaussians_state_or_report_comes_back(
    tmp_path: Path, saved: FitResult
) -> None:
    path = tmp_path / "fit.safetensors"
    none = saved.field.select(torch.arange(0))
    empty = replace(saved, fields=(none,), reports=(), history={}, state={})
    empty.save(path)
    loaded = load(path)
    assert len(loaded.field) == 0
    assert not loaded.reports
    assert loaded.state == {}


def test_what_is_not_finite_comes_back_too(tmp_path: Path, saved: FitResult) -> None:
    path = tmp_path / "fit.safetensors"
    replace(saved, history={"psnr": [float("inf"), float("nan")]}).save(path)
    infinite, undefined = load(path).history["psnr"]
    assert infinite == float("inf")
    assert math.isnan(undefined)


def test_arrays_that_share_memory_or_have_gaps_are_saved(tmp_path: Path, saved: FitResult) -> None:
    path = tmp_path / "fit.safetensors"
    base = np.arange(6.0).reshape(2, 3)
    state = {"base": base, "same": base, "turned": base.T, "number": np.array(3)}
    replace(saved, state=state).save(path)
    loaded = load(path).state
    for name, array in state.items():
        assert loaded[name].shape == array.shape, name
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)


def test_a_field_that_is_being_learnt_is_saved(tmp_path: Path, saved: FitResult) -> None:
    path = tmp_path / "fit.safetensors"
    leaf = saved.field.detached()
    leaf.means.requires_grad_()
    replace(saved, fields=(leaf,)).save(path)
    assert torch.equal(load(path).field.means, saved.field.means)


def test_numbers_that_numpy_does_not_know_are_refused(tmp_path: Path, saved: FitResult) -> None:
    path = tmp_path / "fit.safetensors"
    path = write_raw(path, {}, means=saved.field.means.bfloat16())
    assert "holds numbers that NumPy does not know" in refusal(path)


def test_the_same_fit_gives_the_same_file(tmp_path: Path, saved: FitResult) -> None:
    paths = [tmp_path / f"{n}.safetensors" for n in range(2)]
    for path in paths:
        saved.save(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_metadata_names_version_axes_unit_spacing_background_and_history(
    tmp_path: Path, saved: FitResult
) -> None:
    path = tmp_path / "fit.safetensors"
    saved.save(path)
    metadata = json_of(path)
    assert metadata["version"] == 1
    assert metadata["axes"] == "zyx"
    assert metadata["unit"] == "micrometer"
    assert metadata["spacing"] == list(saved.stack.spacing)
    assert metadata["background"] == saved.field.background
    assert metadata["history"]["loss"] == saved.history["loss"]


def test_a_loaded_fit_lets_its_file_be_replaced(tmp_path: Path, saved: FitResult) -> None:
    path = tmp_path / "fit.safetensors"
    saved.save(path)
    loaded = load(path)
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(loaded.field.means, saved.field.means)


def test_a_fit_that_cannot_be_saved_leaves_the_one_before(tmp_path: Path, saved: FitResult) -> None:
    path = tmp_path / "fit.safetensors"
    saved.save(path)
    with pytest.raises(TypeError):
        replace(saved, history={"loss": [object()]}).save(path)
    assert load(path).history == saved.history
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError, match="no folder"):
        saved.save(tmp_path / "missing" / "fit.safetensors")


def test_numbers_of_numpy_are_saved(tmp_path: Path, saved: FitResult) -> None:
    path = tmp_path / "fit.safetensors"
    nz, ny, nx = np.array(saved.stack.shape)
    field = replace(saved.field, background=np.float32(0.1))
    facts = replace(saved.stack, shape=(nz, ny, nx))
    replace(saved, fields=(field,), stack=facts).save(path)
    assert load(path).stack.shape == saved.stack.shape
    assert load(path).field.background == np.float32(0.1)


@pytest.mark.parametrize(("unit", "known"), [("um", "micrometer"), ("px", "pixel")])
def test_the_unit_is_read_in_any_spelling(
    tmp_path: Path, saved: FitResult, unit: str, known: str
) -> None:
    fit = load(rewritten(tmp_path / "fit.safetensors", saved, unit=unit))
    assert (fit.stack.unit, fit.field.unit) == (known, known)


def test_lengths_that_no_fit_is_saved_in_are_refused(tmp_path: Path, saved: FitResult) -> None:
    path = rewritten(tmp_path / "fit.safetensors", saved, unit="nm")
    with pytest.raises(FormatError, match="unit='nm'; expected 'micrometer' or 'pixel'"):
        load(path)


def test_an_origin_that_is_nowhere_is_refused(tmp_path: Path, saved: FitResult) -> None:
    path = rewritten(tmp_path / "fit.safetensors", saved, origin=[0.0, float("nan"), 1.0])
    with pytest.raises(FormatError, match="origin"):
        load(path)


def test_a_field_in_another_unit_than_its_stack_is_refused(saved: FitResult) -> None:
    with pytest.raises(SettingsError, match="'pixel' of the stack is not the field's"):
        replace(saved, stack=replace(saved.stack, unit="pixel"))


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, saved: FitResult, kept: int) -> None:
    path = tmp_path / "fit.safetensors"
    saved.save(path)
    path.write_bytes(path.read_bytes()[:kept])
    assert "truncated" in refusal(path)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (witness.write_text, ("",))

    path = tmp_path / "fit.safetensors"
    path.write_bytes(pickle.dumps(Payload()))
    assert "is no safetensors file" in refusal(path)
    assert not witness.exists()


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "there is no such file" in refusal(tmp_path / "none.safetensors")
    assert "is a folder" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("metadata", "found"), [(None, "has nothing"), ({"format": "pt"}, "has format")]
)
def test_tensors_of_another_program_are_refused_with_what_they_are(
    tmp_path: Path, metadata: dict[str, str] | None, found: str
) -> None:
    path = write_raw(tmp_path / "net.safetensors", metadata, weight=torch.ones(2))
    text = refusal(path)
    assert found in text
    assert "its tensors are weight" in text
    assert f"expected the metadata '{FORMAT}'" in text


def test_a_list_of_thousands_of_tensors_is_cut_short(tmp_path: Path) -> None:
    tensors = {f"layer{n:04}": torch.ones(1) for n in range(1000)}
    text = refusal(write_raw(tmp_path / "net.safetensors", None, **tensors))
    assert "and 988 more" in text
    assert len(text) < 500


def test_a_newer_version_is_refused_with_what_to_do(tmp_path: Path, saved: FitResult) -> None:
    path = rewritten(tmp_path / "fit.safetensors", saved, version=VERSION + 1)
    text = refusal(path)
    assert f"version {VERSION + 1}, this program reads up to {VERSION}" in text
    assert "install a newer" in text


def test_missing_metadata_is_named(tmp_path: Path, saved: FitResult) -> None:
    path = rewritten(tmp_path / "fit.safetensors", saved, spacing=None, unit=None)
    text = refusal(path)
    assert "lacks unit, spacing" in text
    assert "it has axes, background" in text


def test_missing_tensors_are_named(tmp_path: Path, saved: FitResult) -> None:
    path = tmp_path / "fit.safetensors"
    saved.save(path)
    metadata = {FORMAT: json.dumps(json_of(path))}
    text = refusal(write_raw(path, metadata, means=saved.field.means, weights=torch.ones(50)))
    assert "lacks the tensors cholesky, amplitudes" in text
    assert "it has means, weights" in text
    assert "expected means, cholesky, amplitudes" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"spacing": [1.0, 2.0]},
        {"shape": "large"},
        {"background": "dark"},
        {"history": [1, 2]},
        {"axes": "xyz"},
    ],
)
def test_metadata_of_the_wrong_kind_is_refused(
    tmp_path: Path, saved: FitResult, changes: dict[str, Any]
) -> None:
    refusal(rewritten(tmp_path / "fit.safetensors", saved, **changes))


def test_metadata_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "fit.safetensors", {FORMAT: "{"}, means=torch.ones(1, 3))
    assert "is no JSON" in refusal(path)


def test_tensors_whose_shapes_do_not_belong_together_are_refused(
    tmp_path: Path, saved: FitResult
) -> None:
    path = tmp_path / "fit.safetensors"
    saved.save(path)
    metadata = {FORMAT: json.dumps(json_of(path))}
    field = saved.field
    write_raw(
        path,
        metadata,
        means=field.means,
        cholesky=field.cholesky[:9],
        amplitudes=field.amplitudes,
    )
    assert "cholesky has shape (9, 6), expected (50, 6)" in refusal(path)


def test_channels_come_back_to_the_bit(tmp_path: Path, in_channels: FitResult) -> None:
    path = tmp_path / "fit.safetensors"
    in_channels.save(path)
    again = load(path)
    for found, expected in zip(again.fields, in_channels.fields, strict=True):
        assert torch.equal(found.amplitudes, expected.amplitudes)
        assert torch.equal(found.means, expected.means)
        assert found.background == expected.background
    with safe_open(path, "pt") as file:
        assert tuple(file.get_tensor("amplitudes").shape) == (len(in_channels.field), 3)
        assert json.loads(file.metadata()[FORMAT])["version"] == 2


def test_channels_of_different_gaussians_are_refused(in_channels: FitResult) -> None:
    moved = replace(in_channels.field, means=in_channels.field.means + 1)
    with pytest.raises(SettingsError, match="channel 1 has other Gaussians than channel 0"):
        replace(in_channels, fields=(in_channels.field, moved))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"report": []}, "report is []"),
        ({"report": some_report().to_dict() | {"iterations": "many"}}, "iterations is 'many'"),
        ({"report": {"stack": "cells"}}, "shape is None; expected a list"),
        ({"history": {"loss": 3}}, "history of loss is 3"),
        ({"history": {"loss": [1.0], "seconds": []}}, "lists of 0 to 1 numbers"),
        ({"shape": [0, 30, 28]}, "shape is"),
        ({"shape": [14, 30, 10**12]}, "shape is"),
        ({"shape": None}, "shape is None"),
        ({"spacing": [1e-200, 0.1, 0.1]}, "dz is 1e-200"),
        ({"spacing": [float("nan"), 0.1, 0.1]}, "dz is nan"),
        ({"unit": "parsec"}, "unit='parsec'"),
        ({"unit": None}, "unit is None"),
        ({"background": float("nan")}, "background=nan"),
        ({"background": "x" * 100_000}, "background is"),
        ({"settings": {"full_covariance": "x"}}, "full_covariance is 'x'"),
        ({"settings": None}, "settings is None"),
        ({"stack": 7}, "stack is 7"),
        ({"version": [9]}, None),
    ],
)
def test_metadata_that_hold_anything_else_are_refused_by_their_name(
    changed: dict[str, object], said: str | None, saved: FitResult, tmp_path: Path
) -> None:
    path = tmp_path / "fit.safetensors"
    saved.save(path)
    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = json.loads(file.metadata()[FORMAT])
    save_numpy(tensors, path, {FORMAT: json.dumps(metadata | changed)})
    if said is None:
        assert load(path).stack == saved.stack
        return
    with pytest.raises(FormatError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)
    assert len(str(error.value)) < 500


def test_metadata_that_are_nested_without_end_are_refused(saved: FitResult, tmp_path: Path) -> None:
    path = tmp_path / "fit.safetensors"
    saved.save(path)
    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_numpy(tensors, path, {FORMAT: "[" * 100_000})
    with pytest.raises(FormatError, match="nested too deeply"):
        load(path)


@pytest.mark.parametrize("name", ["means", "cholesky", "amplitudes"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3.4e38])
def test_a_number_that_is_not_finite_is_refused(
    name: str, value: float, saved: FitResult, tmp_path: Path
) -> None:
    path = tmp_path / "fit.safetensors"
    saved.save(path)
    with safe_open(path, "np") as file:
        tensors = {each: file.get_tensor(each) for each in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    tensors[name].flat[-1] = value
    save_numpy(tensors, path, metadata)
    with pytest.raises(FormatError, match="Gaussian 49 of 50"):
        load(path)
