"""Where pixels look from: framing, handedness, and the geometry of points and covariances."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.model.camera import Camera, axis_view, look_at, orbit, orbit_view

BOX = (np.array([-0.15, -0.05, -0.05]), np.array([11.85, 9.95, 14.95]))
MIDDLE = (BOX[0] + BOX[1]) / 2
_, Y, X = np.eye(3)


def oblique() -> Camera:
    return orbit_view(BOX, azimuth=37.0, elevation=-20.0, pixel=0.1)


def pinhole() -> Camera:
    return look_at((-30.0, 2.0, 20.0), MIDDLE, shape=(60, 80), field_of_view=40.0)


CAMERAS = {
    "orthographic": oblique,
    "pinhole": pinhole,
    "along x": lambda: axis_view((40, 100, 150), (0.3, 0.1, 0.1), 2),
}


@pytest.fixture(params=CAMERAS)
def camera(request: pytest.FixtureRequest) -> Camera:
    return CAMERAS[request.param]()


@pytest.mark.parametrize("views", [3, 7, 60])
def test_every_view_of_an_orbit_frames_the_whole_box(views: int) -> None:
    corners = np.array(list(itertools.product(*zip(*BOX, strict=True))))
    cameras = orbit(BOX, 0.1, views=views)
    assert len(cameras) == views
    for camera in cameras:
        pixels, _ = camera.project(corners)
        beyond = max(-0.5 - pixels.min(), (pixels - np.array(camera.shape) + 0.5).max())
        assert beyond < 1e-3, f"{camera.name} cuts a corner off by {beyond:.3f} pixels"
        slack = np.array(camera.shape) - np.ptp(pixels, axis=0)
        assert (slack < 1.001).all(), f"{camera.name} leaves {slack} pixels around the box"


def test_pixels_are_as_large_as_asked_unless_the_image_would_be_too_large() -> None:
    assert orbit_view(BOX, 10, 0, 0.25).pixel == (0.25, 0.25)
    limited = orbit_view(BOX, 10, 0, 0.01, largest_side=64)
    assert max(limited.shape) == 64
    assert limited.pixel[0] > 0.01


def test_no_two_views_of_an_orbit_share_an_azimuth() -> None:
    rights = np.array([camera.rotation[1] for camera in orbit(BOX, 0.1)])
    apart = np.linalg.norm(rights[:, None] - rights[None], axis=-1) + 2 * np.eye(len(rights))
    assert apart.min() > 0.1, f"two views are {apart.min():.3f} apart"


def test_straight_view_looks_along_z_with_y_down_and_x_to_the_right() -> None:
    camera = orbit_view(BOX, azimuth=0, elevation=0, pixel=0.1)
    np.testing.assert_allclose(camera.rotation, np.eye(3)[[1, 2, 0]], atol=1e-12)
    here, _ = camera.project(MIDDLE)
    lower, _ = camera.project(MIDDLE + Y)
    right, _ = camera.project(MIDDLE + X)
    np.testing.assert_allclose(lower - here, [10, 0], atol=1e-9)
    np.testing.assert_allclose(right - here, [0, 10], atol=1e-9)


def test_azimuth_turns_about_y_and_elevation_tilts_towards_it() -> None:
    turned = orbit_view(BOX, azimuth=90, elevation=0, pixel=0.1)
    np.testing.assert_allclose(turned.rotation[2], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(turned.rotation[0], [0, 1, 0], atol=1e-12)
    tilted = orbit_view(BOX, azimuth=0, elevation=20, pixel=0.1)
    assert tilted.rotation[2] @ [0, 1, 0] == pytest.approx(np.sin(np.radians(20)))


def test_rotations_are_orthonormal(camera: Camera) -> None:
    np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_pixels_of_an_axis_view_are_the_voxels_columns(axis: int) -> None:
    shape, spacing = (5, 7, 9), (0.3, 0.1, 0.2)
    camera = axis_view(shape, spacing, axis)
    voxels = np.stack(np.indices(shape), -1).reshape(-1, 3)
    pixels, _ = camera.project(voxels * spacing)
    expected = voxels[:, {0: [1, 2], 1: [0, 2], 2: [1, 0]}[axis]]
    np.testing.assert_allclose(pixels, expected, atol=1e-9)
    assert camera.shape == tuple(expected.max(0) + 1)


@pytest.mark.notebook("world-to-camera", api="Camera.to_camera")
def test_a_ray_projects_to_its_own_pixel(camera: Camera) -> None:
    rays = camera.rays(BOX)
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, camera.shape, (50, 2))
    weights = np.concatenate([np.ones((50, 1)), pixels], 1)
    t = rng.uniform(20, 40, (50, 1))
    points = weights @ rays.frame[:3] + t * (weights @ rays.frame[3:])
    found, depths = camera.project(points)
    np.testing.assert_allclose(found, pixels, atol=2e-3)
    if camera.perspective:
        np.testing.assert_allclose(depths, t[:, 0], rtol=1e-5)
    else:
        np.testing.assert_allclose(np.diff(depths), np.diff(t[:, 0]), atol=1e-4)


@pytest.mark.notebook("mip-views", api="model.camera.look_at")
def test_look_at_sees_its_target_in_the_middle_and_its_field_of_view_edge_to_edge() -> None:
    position, target = np.array([-20.0, 5.0, 8.0]), np.array([6.0, 5.0, 8.0])
    camera = look_at(position, target, shape=(60, 80), field_of_view=40.0)
    pixel, depth = camera.project(target)
    np.testing.assert_allclose(pixel, camera.middle, atol=1e-9)
    assert depth == pytest.approx(26.0)
    half = 26.0 * np.tan(np.radians(20.0))
    (bottom, _), _ = camera.project(target + half * Y)
    assert bottom == pytest.approx(59.5), "y points down, to the image's lower edge"
    (_, column), _ = camera.project(target + half * X)
    assert column == pytest.approx(camera.middle[1] + 30), "x points right, pixels are square"


@pytest.mark.notebook("perspective-jacobian", api="Camera.project")
def test_what_is_nearer_to_a_pinhole_is_seen_larger() -> None:
    camera = look_at((0, 0, 0), (1, 0, 0), shape=(50, 50), field_of_view=60)
    near, far = (camera.project([[z, 0, 1], [z, 0, 0]])[0] for z in (4.0, 8.0))
    assert near[0, 1] - near[1, 1] == pytest.approx(2 * (far[0, 1] - far[1, 1]))


def covariances(count: int) -> np.ndarray:
    factors = np.random.default_rng(2).normal(size=(count, 3, 3)) * 0.3
    return factors @ factors.transpose(0, 2, 1) + 0.02 * np.eye(3)


@pytest.mark.notebook("world-to-camera", api="Camera.covariances_to_camera")
def test_covariances_turn_as_the_points_that_have_them(camera: Camera) -> None:
    sigma = covariances(1)[0]
    points = np.random.default_rng(3).multivariate_normal(MIDDLE, sigma, 200)
    expected = np.cov(camera.to_camera(points).T)
    np.testing.assert_allclose(
        camera.covariances_to_camera(np.cov(points.T)), expected, rtol=1e-9, atol=1e-12
    )


@pytest.mark.notebook("perspective-jacobian", api="Camera.image_covariances")
def test_covariances_on_the_image_are_those_of_the_projections_derivative(camera: Camera) -> None:
    points = np.random.default_rng(4).uniform(*BOX, (20, 3))
    sigma = covariances(20)
    step = 1e-4
    columns = [
        (camera.project(points + step * e)[0] - camera.project(points - step * e)[0]) / (2 * step)
        for e in np.eye(3)
    ]
    jacobian = np.stack(columns, -1)
    expected = jacobian @ sigma @ jacobian.transpose(0, 2, 1)
    np.testing.assert_allclose(camera.image_covariances(points, sigma), expected, rtol=1e-5)


def test_covariances_on_the_image_are_those_of_projected_samples() -> None:
    camera, sigma = pinhole(), 0.1 * covariances(1)[0]
    samples = np.random.default_rng(5).multivariate_normal(MIDDLE, sigma, 100_000)
    expected = np.cov(camera.project(samples)[0].T)
    error = np.abs(camera.image_covariances(MIDDLE, sigma) - expected).max() / expected.max()
    assert error < 0.02, f"off by {error:.1%}"


def test_what_is_no_camera_is_refused() -> None:
    def view(**changes: Any) -> Camera:
        asked: dict[str, Any] = {
            "position": (0, 0, 0),
            "target": (1, 0, 0),
            "shape": (9, 9),
            "field_of_view": 50,
        }
        return look_at(**(asked | changes))

    with pytest.raises(SettingsError, match="axis=3: expected 0"):
        axis_view((3, 3, 3), (1, 1, 1), 3)
    with pytest.raises(SettingsError, match="is the position itself"):
        view(target=(0, 0, 0))
    with pytest.raises(SettingsError, match="field_of_view=180: expected an angle"):
        view(field_of_view=180)
    with pytest.raises(SettingsError, match="is the direction of the view"):
        view(down=(2, 0, 0))
