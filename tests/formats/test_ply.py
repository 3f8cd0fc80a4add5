"""A PLY is read by programs for 3D Gaussian splatting, and comes back as the field that it was."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from napari_gaussfit.errors import FormatError
from napari_gaussfit.fitting.result import FitResult, load
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.stacks.facts import StackFacts

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SPLATTING_ORDER = [
    *("x", "y", "z", "nx", "ny", "nz"),
    *("f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2"),
    *("rot_0", "rot_1", "rot_2", "rot_3"),
]


@pytest.fixture
def path(tmp_path: Path, saved: FitResult) -> Path:
    target = tmp_path / "field.ply"
    saved.export(target)
    return target


def splatting_reader(path: Path) -> dict[str, Floats]:
    """Read what the program of Kerbl et al. reads of a scene without view-dependent colour."""
    vertices = PlyData.read(path).elements[0]
    names = [one.name for one in vertices.properties]
    assert not [name for name in names if name.startswith("f_rest_")]
    scales = sorted(name for name in names if name.startswith("scale_"))
    turns = sorted(name for name in names if name.startswith("rot"))

    def columns(*of: str) -> Floats:
        return np.stack([np.asarray(vertices[name], np.float64) for name in of], axis=1)

    quaternions = columns(*turns)
    return {
        "xyz": columns("x", "y", "z"),
        "opacity": 1 / (1 + np.exp(-columns("opacity")[:, 0])),
        "colour": 0.5 + 0.28209479177387814 * columns("f_dc_0", "f_dc_1", "f_dc_2"),
        "scaling": np.exp(columns(*scales)),
        "rotation": quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True),
    }


def rotation_matrices(quaternions: Floats) -> Floats:
    """Return matrices [K, 3, 3] of w, x, y, z, as that program builds them."""
    w, x, y, z = quaternions.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def test_the_properties_are_those_of_splatting_in_their_order(path: Path) -> None:
    vertices = PlyData.read(path)["vertex"]
    names = [one.name for one in vertices.properties]
    assert names[: len(SPLATTING_ORDER)] == SPLATTING_ORDER
    assert names[len(SPLATTING_ORDER) :] == ["amplitude"]
    assert {str(one.val_dtype) for one in vertices.properties} == {"f4"}


def test_a_splatting_program_reads_the_same_gaussians(path: Path, saved: FitResult) -> None:
    scene = splatting_reader(path)
    half = rotation_matrices(scene["rotation"]) * scene["scaling"][:, None, :]
    in_xyz = half @ half.transpose(0, 2, 1)
    exact = saved.field.numpy()
    np.testing.assert_array_equal(scene["xyz"], saved.field.means.numpy()[:, [2, 1, 0]])
    expected = exact.covariances[:, ::-1, ::-1]
    np.testing.assert_allclose(in_xyz, expected, atol=1e-6 * expected.max())
    brightness = exact.amplitudes
    np.testing.assert_allclose(
        scene["opacity"], 0.99 * brightness / brightness.max(), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(scene["colour"], scene["opacity"][:, None].repeat(3, 1), atol=1e-6)


def test_the_file_says_that_it_is_for_interchange(path: Path) -> None:
    comments = PlyData.read(path).comments
    assert any("interchange" in one and "not made to be alpha-blended" in one for one in comments)


def test_a_field_loses_nothing_beyond_float32(path: Path, saved: FitResult) -> None:
    again = load(path)
    assert again.stack == saved.stack
    assert again.field.background == saved.field.background
    assert torch.equal(again.field.means, saved.field.means)
    assert torch.equal(again.field.amplitudes, saved.field.amplitudes)
    # In each Gaussian's own frame: the identity, but for rounding times its elongation.
    exact, found = saved.field.numpy(), again.field.numpy()
    inverse = np.linalg.inv(exact.factors)
    whitened = inverse @ found.covariances @ inverse.transpose(0, 2, 1)
    off = float(np.abs(whitened - np.eye(3)).max())
    assert off < 16 * 2.0**-23, f"a covariance is off by {off:.1e} of itself"


def test_dark_and_negative_gaussians_come_back_too(tmp_path: Path, saved: FitResult) -> None:
    amplitudes = saved.field.amplitudes.clone()
    amplitudes[:3] = torch.tensor([0.0, -5.0, 1e-9])
    dim = replace(saved, fields=(replace(saved.field, amplitudes=amplitudes),))
    dim.export(tmp_path / "dim.ply")
    assert torch.equal(load(tmp_path / "dim.ply").field.amplitudes, amplitudes)
    assert np.isfinite(splatting_reader(tmp_path / "dim.ply")["opacity"]).all()


def test_an_empty_field_and_one_in_training_are_written(tmp_path: Path, saved: FitResult) -> None:
    empty = replace(saved, fields=(saved.field.select(torch.arange(0)),))
    empty.export(tmp_path / "empty.ply")
    assert len(load(tmp_path / "empty.ply").field) == 0
    trained = replace(saved.field, means=saved.field.means.clone().requires_grad_())
    replace(saved, fields=(trained,)).export(tmp_path / "trained.ply")
    assert len(load(tmp_path / "trained.ply").field) == len(saved.field)


def test_a_scene_of_another_program_is_read_in_pixels(tmp_path: Path) -> None:
    rows = np.zeros(2, [(name, "f4") for name in SPLATTING_ORDER])
    rows["x"], rows["y"], rows["z"] = [7, 1], [2, 3], [4.5, 0]
    rows["opacity"] = [0.0, np.log(3.0)]
    rows["scale_0"], rows["scale_1"], rows["scale_2"] = np.log(3), np.log(2), 0.0
    # A quarter turn about z, of twice the length: x becomes y.
    rows["rot_0"], rows["rot_3"] = np.sqrt(2), np.sqrt(2)
    path = tmp_path / "scene.ply"
    PlyData([PlyElement.describe(rows, "vertex")]).write(path)
    fit = load(path)
    assert fit.stack == StackFacts("scene", (6, 4, 8), (1, 1, 1), "pixel")
    assert fit.field.background == 0
    np.testing.assert_allclose(fit.field.means, [[4.5, 2, 7], [0, 3, 1]])
    np.testing.assert_allclose(fit.field.amplitudes, [0.5, 0.75], rtol=1e-6)
    for covariance in fit.field.covariances:
        np.testing.assert_allclose(covariance, np.diag([1.0, 9.0, 4.0]), atol=1e-5)


def centred_scene(path: Path, lowest: float) -> Floats:
    """A scene of another program whose centres reach below the origin, and these (z, y, x)."""
    rng = np.random.default_rng(0)
    centres = rng.uniform(lowest, lowest + 9, (50, 3))
    rows = np.zeros(50, [(name, "f4") for name in SPLATTING_ORDER])
    for name, column in zip("zyx", centres.T, strict=True):
        rows[name] = column
    rows["rot_0"] = 1
    PlyData([PlyElement.describe(rows, "vertex")]).write(path)
    return centres


@pytest.mark.parametrize("lowest", [-4.6, -50.0, 3000.2])
def test_a_scene_about_the_origin_comes_in_a_stack_that_holds_all_of_it(
    tmp_path: Path, lowest: float
) -> None:
    centres = centred_scene(tmp_path / "scene.ply", lowest)
    fit = load(tmp_path / "scene.ply")
    means = fit.field.means.double().numpy()
    lower, upper = fit.stack.box
    assert (lower <= means).all()
    assert (means <= upper).all()
    moved = means - centres
    np.testing.assert_allclose(moved, np.round(moved[:1]).repeat(50, 0), atol=1e-5)
    [note] = fit.notes
    by = " x ".join(f"{n:.0f}" for n in moved[0])
    assert f"all were moved by {by}" in note
    assert max(fit.stack.shape) <= 11, "the stack is no larger than what it holds"


def test_every_gaussian_of_a_scene_about_the_origin_is_rendered(tmp_path: Path) -> None:
    centred_scene(tmp_path / "scene.ply", -4.6)
    fit = load(tmp_path / "scene.ply")
    volume = fit.field.voxelise(fit.stack.shape, fit.stack.spacing).numpy()
    total = float(fit.field.integrated_intensities().sum())
    assert volume.sum() > 0.7 * total, "the rest lies beyond the stack's sides"


def test_a_unit_is_read_in_any_spelling(path: Path, saved: FitResult) -> None:
    path.write_bytes(path.read_bytes().replace(b'"unit": "micrometer"', b'"unit": "um"'))
    again = load(path)
    assert (again.stack.unit, again.stack.spacing) == ("micrometer", saved.stack.spacing)
    assert torch.equal(again.field.means, saved.field.means)


def refusal(path: Path) -> str:
    with pytest.raises(FormatError) as error:
        load(path)
    text = str(error.value)
    assert "\n" not in text, "an error is one line"
    assert text.startswith(f"{path}: "), "an error begins with the file"
    return text


def test_missing_properties_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mesh.ply"
    rows = np.zeros(3, [("x", "f4"), ("y", "f4"), ("z", "f4"), ("red", "u1")])
    PlyData([PlyElement.describe(rows, "vertex")]).write(path)
    assert "lacks the properties opacity, scale_0" in refusal(path)
    assert "it has x, y, z, red" in refusal(path)
    PlyData([PlyElement.describe(rows, "dots")]).write(path)
    assert "has the elements dots; expected vertex" in refusal(path)


@pytest.mark.parametrize("name", ["scale_1", "amplitude"])
def test_what_is_no_number_is_named_with_its_place(path: Path, name: str) -> None:
    ply = PlyData.read(path, mmap=False)
    ply["vertex"].data[name][4] = np.nan
    ply.write(path)
    assert f"has nan as {name} of vertex 5 of 40" in refusal(path)


def test_a_quaternion_of_no_length_is_refused(path: Path) -> None:
    ply = PlyData.read(path, mmap=False)
    for n in range(4):
        ply["vertex"].data[f"rot_{n}"][4] = 0
    ply.write(path)
    assert "zero norm" in refusal(path)


def test_what_is_no_ply_or_cut_short_is_refused(path: Path, tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.ply")
    assert "is a folder" in refusal(tmp_path)
    path.write_bytes(path.read_bytes()[:-7])
    assert "truncated" in refusal(path)
    path.write_bytes(b"II*\0\x08\0\0\0")
    assert "is no PLY" in refusal(path)


def test_a_newer_file_asks_for_a_newer_program(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"version": 1', b'"version": 2'))
    assert "version 2, this program reads up to 1" in refusal(path)


def test_a_failed_write_leaves_the_old_file(
    path: Path, saved: FitResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def fill_the_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PlyData, "write", fill_the_disk)
    with pytest.raises(OSError, match="there is no room for it"):
        replace(saved, fields=(GaussianField.from_covariances([], [], []),)).export(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_channels_have_properties_of_their_own_and_are_red_green_and_blue(
    tmp_path: Path, in_channels: FitResult
) -> None:
    path = tmp_path / "field.ply"
    in_channels.export(path)
    vertices = PlyData.read(path)["vertex"]
    scene = splatting_reader(path)
    for n, channel in enumerate(in_channels.fields):
        amplitudes = channel.amplitudes.numpy()
        np.testing.assert_array_equal(vertices[f"amplitude_{n}"], amplitudes)
        expected = 0.99 * amplitudes / amplitudes.max()
        np.testing.assert_allclose(scene["colour"][:, n], expected, atol=2e-6)
    np.testing.assert_allclose(scene["opacity"], scene["colour"].max(axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": None}, "version None"),
        ({"shape_zyx": 5}, "shape_zyx is 5"),
        ({"shape_zyx": [1, 2]}, "shape_zyx is [1, 2]"),
        ({"shape_zyx": [1.5, 2, 3]}, "shape is"),
        ({"spacing_zyx": [0, 1, 1]}, "dz is 0"),
        ({"unit": "micr/meter"}, "unit="),
        ({"backgrounds": []}, "backgrounds is []"),
        ({"backgrounds": [float("inf")]}, "background=inf"),
    ],
)
def test_metadata_that_hold_anything_else_are_refused_by_their_name(
    changed: dict[str, object], said: str, saved: FitResult, tmp_path: Path
) -> None:
    path = tmp_path / "fit.ply"
    saved.export(path)
    ply = PlyData.read(str(path), mmap=False)
    [notice, line] = ply.comments
    mark, _, text = line.partition(" ")
    comments = [notice, f"{mark} {json.dumps(json.loads(text) | changed)}"]
    PlyData(list(ply.elements), byte_order="<", comments=comments).write(str(path))
    with pytest.raises(FormatError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)


def test_a_centre_astronomically_far_is_refused(saved: FitResult, tmp_path: Path) -> None:
    path = tmp_path / "fit.ply"
    saved.export(path)
    ply = PlyData.read(str(path), mmap=False)
    ply["vertex"].data["x"][3] = 3e38
    ply.write(str(path))
    with pytest.raises(FormatError, match="Gaussian 3 of 40"):
        load(path)
