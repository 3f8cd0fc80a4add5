"""Projections of fields are those of the formulas, projections of stacks those of a dense march."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_gaussfit._kernels import reference
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.model import projection
from napari_gaussfit.model.camera import Camera, axis_view, look_at, orbit_view
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.projection import hits, project_stack, render, voxel_mip
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from torch import Tensor

BOX = (np.array([-0.5, -0.5, -0.5]), np.array([11.5, 9.5, 13.5]))
BACKGROUND = 7.0


@pytest.fixture
def field() -> GaussianField:
    """Thirty overlapping Gaussians of every orientation, some of them outside of the box."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(30, 3, 3)) * 0.8
    sigma = factors @ factors.transpose(0, 2, 1) + 0.5 * np.eye(3)
    means = rng.uniform(BOX[0] - 2, BOX[1] + 2, (30, 3))
    return GaussianField.from_covariances(
        means, sigma, rng.uniform(20, 100, 30), background=BACKGROUND
    )


@pytest.fixture(params=["orthographic", "pinhole"])
def camera(request: pytest.FixtureRequest) -> Camera:
    if request.param == "pinhole":
        return look_at((-25.0, 9.0, 1.0), (5, 4, 6), shape=(8, 9), field_of_view=60.0)
    return orbit_view(BOX, 30.0, 20.0, 2.5)


@pytest.fixture(scope="module")
def stack() -> Stack:
    """Noise as smooth as a microscope's image: every ray has several maxima."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(1).normal(size=(12, 30, 34))
    voxels = gaussian_filter(noise, (1.0, 1.2, 1.2)).astype(np.float32) * 1000 + 50
    return Stack.from_array(voxels, spacing=(0.3, 0.1, 0.12), name="noise")


def double(field: GaussianField) -> tuple[Tensor, Tensor, Tensor]:
    return field.means.double(), field.cholesky.double(), field.amplitudes.double()


def assert_close(found: Tensor, true: Tensor, part: float) -> None:
    off = float((found - true).abs().max() / true.abs().max())
    assert off < part, f"off by {off:.2e} of the largest value"


def test_mip_of_a_field_is_its_largest_value_on_each_ray(
    field: GaussianField, camera: Camera
) -> None:
    true = reference.mip(*double(field), camera.rays(BOX)) + BACKGROUND
    assert_close(render(field, camera, BOX), true, 0.01)


@pytest.mark.notebook("mip-splatting-model", api="render")
@pytest.mark.parametrize("temperature", [2.0, 40.0])
def test_soft_mip_is_the_softmax_weighted_mean_of_peaks(
    field: GaussianField, camera: Camera, temperature: float
) -> None:
    true = reference.soft_mip(*double(field), camera.rays(BOX), temperature) + BACKGROUND
    found = render(field, camera, BOX, mode="soft-mip", temperature=temperature)
    assert_close(found, true, 1e-4)


def test_soft_mip_has_a_tenth_of_the_largest_amplitude_as_its_temperature(
    field: GaussianField, camera: Camera
) -> None:
    temperature = 0.1 * float(field.amplitudes.max())
    chosen = render(field, camera, BOX, mode="soft-mip", temperature=temperature)
    assert_close(render(field, camera, BOX, mode="soft-mip"), chosen, 1e-6)


def test_sum_is_the_line_integral_with_the_background_along_the_ray(
    field: GaussianField, camera: Camera
) -> None:
    rays = camera.rays(BOX)
    near, far = reference.clip(rays, torch.float64)
    _, direction = reference.origins_and_directions(rays, torch.float64)
    length = (far - near).clamp(min=0.0) * direction.norm(dim=-1)
    true = reference.line_integral(*double(field), rays) + BACKGROUND * length
    assert_close(render(field, camera, BOX, mode="sum"), true, 1e-4)


def test_sum_along_an_axis_is_the_sum_over_the_voxels(field: GaussianField) -> None:
    shape = (12, 10, 14)
    camera = axis_view(shape, (1.0, 1.0, 1.0), 0)
    fine = field.voxelise((240, 10, 14), (0.05, 1.0, 1.0), origin=(-0.475, 0.0, 0.0))
    assert_close(render(field, camera, BOX, mode="sum"), fine.sum(0) * 0.05, 1e-4)


@pytest.mark.parametrize("mode", ["mip", "soft-mip", "sum"])
def test_projections_have_gradients(field: GaussianField, camera: Camera, mode: str) -> None:
    leaf = GaussianField(
        field.means.clone().requires_grad_(),
        field.cholesky.clone().requires_grad_(),
        field.amplitudes.clone().requires_grad_(),
    )
    image = render(leaf, camera, BOX, mode=mode)
    image.sum().backward()
    for name in ("means", "cholesky", "amplitudes"):
        gradient = getattr(leaf, name).grad
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        assert gradient.any(), name


def test_rays_that_miss_the_box_show_the_background_alone(field: GaussianField) -> None:
    camera = orbit_view(BOX, 40.0, 20.0, 0.5)
    seen = torch.from_numpy(hits(camera, BOX))
    assert 0 < int((~seen).sum()) < seen.numel()
    for mode, value in (("mip", BACKGROUND), ("soft-mip", BACKGROUND), ("sum", 0.0)):
        missed = render(field, camera, BOX, mode=mode)[~seen]
        assert (missed == value).all(), f"{mode}: {missed.min()} to {missed.max()}"


def test_hits_are_the_rays_that_cross_the_box(camera: Camera) -> None:
    near, far = reference.clip(camera.rays(BOX), torch.float64)
    sure = (far - near).abs() > 1e-4
    np.testing.assert_array_equal(hits(camera, BOX)[sure], (near < far)[sure].numpy())


def test_an_axis_view_hits_with_every_pixel() -> None:
    assert all(hits(axis_view((12, 10, 14), (1, 1, 1), axis), BOX).all() for axis in range(3))


def test_a_field_without_gaussians_is_its_background(camera: Camera) -> None:
    empty = GaussianField(
        torch.zeros(0, 3), torch.zeros(0, 6), torch.zeros(0), background=BACKGROUND
    )
    assert (render(empty, camera, BOX) == BACKGROUND).all()


def marched(stack: Stack, camera: Camera) -> np.ndarray:
    """Sample each ray at 1,200 points of scipy's cubic spline [H, W, 1200]."""
    from scipy.ndimage import map_coordinates

    rays = camera.rays(stack.box)
    near, far = reference.clip(rays, torch.float64)
    o, d = reference.origins_and_directions(rays, torch.float64)
    t = near[..., None] + (far - near)[..., None] * torch.linspace(0, 1, 1200).double()
    points = (o[..., None, :] + t[..., None] * d[..., None, :]).numpy() / stack.spacing
    values = map_coordinates(
        stack.voxels.astype(np.float64), points.reshape(-1, 3).T, order=3, mode="mirror"
    )
    values = values.reshape(t.shape)
    values[(near >= far).numpy()] = stack.voxels.min()
    return values


def assert_is_the_maximum(found: np.ndarray, true: np.ndarray, stack: Stack) -> None:
    off = (found - true) / np.ptp(stack.voxels)
    worst, typical = np.abs(off).max(), np.sqrt(np.square(off).mean())
    # Between half-voxel samples the lower of two peaks may be taken for the higher.
    assert worst < 0.02, f"a pixel is off by {worst:.2e} of the range"
    assert typical < 1.5e-3, f"pixels are off by {typical:.2e} of the range"


@pytest.mark.parametrize("angles", [(25.0, 20.0), (130.0, -20.0), (90.0, 0.0)])
def test_mip_of_a_stack_is_the_largest_value_of_its_spline(
    stack: Stack, angles: tuple[float, float]
) -> None:
    camera = orbit_view(stack.box, *angles, 0.3)
    assert_is_the_maximum(project_stack(stack, camera), marched(stack, camera).max(-1), stack)


@pytest.mark.notebook("mip-views", api="project_stack")
def test_mip_of_a_stack_for_a_pinhole_camera(stack: Stack) -> None:
    middle = (stack.box[0] + stack.box[1]) / 2
    camera = look_at(middle - [9, 2, 1], middle, shape=(14, 16), field_of_view=35.0)
    assert_is_the_maximum(project_stack(stack, camera), marched(stack, camera).max(-1), stack)


def test_sum_of_a_stack_is_the_integral_of_its_spline(stack: Stack) -> None:
    camera = orbit_view(stack.box, 25.0, 20.0, 0.3)
    near, far = reference.clip(camera.rays(stack.box), torch.float64)
    length = (far - near).clamp(min=0.0).numpy()
    true = marched(stack, camera).mean(-1) * length
    off = np.abs(project_stack(stack, camera, mode="sum") - true).max() / true.max()
    assert off < 0.01, f"off by {off:.2e} of the largest integral"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mip_along_an_axis_is_the_largest_voxel_of_each_column(stack: Stack, axis: int) -> None:
    found = project_stack(stack, axis_view(stack.shape, stack.spacing, axis))
    expected = stack.voxels.max(axis)
    np.testing.assert_array_equal(found, expected.T if axis == 2 else expected)


def test_rays_that_miss_a_stack_show_its_smallest_value(stack: Stack) -> None:
    camera = orbit_view(stack.box, 40.0, 20.0, 0.1)
    missed = ~hits(camera, stack.box)
    assert missed.any()
    assert (project_stack(stack, camera)[missed] == stack.voxels.min()).all()
    assert (project_stack(stack, camera, mode="sum")[missed] == 0).all()


def test_a_stack_and_the_field_that_made_it_have_the_same_projections() -> None:
    from napari_gaussfit.measure.metrics import psnr
    from napari_gaussfit.synthetic.phantoms import separated

    phantom = separated(count=6, shape=(30, 50, 50))
    camera = orbit_view(phantom.stack.box, 50.0, -20.0, 0.1)
    seen = hits(camera, phantom.stack.box)
    image = render(phantom.truth, camera, phantom.stack.box).numpy()
    found = psnr(project_stack(phantom.stack, camera), image, phantom.stack.value_range, seen)
    assert found > 55, f"{found:.1f} dB apart"


def test_what_cannot_be_rendered_is_refused(field: GaussianField, camera: Camera) -> None:
    with pytest.raises(SettingsError, match="mode='max': expected 'mip', 'soft-mip' or 'sum'"):
        render(field, camera, BOX, mode="max")
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(SettingsError, match="expected a positive intensity"):
            render(field, camera, BOX, mode="soft-mip", temperature=temperature)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("at_once", [2**23, 3 * 9 * 13])
def test_mip_of_a_fields_voxels_is_that_of_a_stack_of_them(
    field: GaussianField, axis: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, spacing = (11, 9, 13), (1.0, 1.1, 1.05)
    volume = Stack(field.voxelise(shape, spacing).numpy(), spacing, "pixel", "voxels")
    monkeypatch.setattr(projection, "_VOXELS_AT_ONCE", at_once)
    found = voxel_mip(field, shape, spacing, axis)
    true = project_stack(volume, axis_view(shape, spacing, axis))
    np.testing.assert_allclose(found, true, rtol=1e-6)
    exact = render(field, axis_view(shape, spacing, axis), volume.box)
    assert bool((exact >= found * 0.99).all()), "no voxel is above the largest value on its ray"
