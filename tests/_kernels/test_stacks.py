"""A stack's projections are those of its spline; bounds of it spare work and no maximum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter

from napari_gaussfit._kernels import Rays, reference
from napari_gaussfit._kernels.cpu import spline as cpu_spline
from napari_gaussfit._kernels.cpu.backend import view_of
from napari_gaussfit._kernels.cpu.spline import SLACK, SplineVolume
from napari_gaussfit._kernels.shared.footprint import STEP
from napari_gaussfit.model.camera import look_at, orbit_view

Array = NDArray[np.float32]

SPACING = np.array([1.5, 0.5, 0.4], np.float32)


@pytest.fixture(params=["noise", "smooth", "spots", "flat"])
def voxels(request: pytest.FixtureRequest) -> Array:
    """Voxels of every kind, [Z, Y, X]."""
    source = np.random.default_rng(3)
    noise = source.normal(100.0, 10.0, (9, 14, 17))
    spots = gaussian_filter((source.random(noise.shape) > 0.995).astype(float), 1.2)
    kinds = {
        "noise": noise,
        "smooth": gaussian_filter(noise, 2.0),
        "spots": noise + 1e4 * spots,
        "flat": np.full(noise.shape, 7.0),
    }
    return np.asarray(kinds[request.param], np.float32)


@pytest.fixture(params=["halves of voxels", "voxels"])
def volume(
    request: pytest.FixtureRequest, voxels: Array, monkeypatch: pytest.MonkeyPatch
) -> SplineVolume:
    """A spline whose bounds are as fine as a small stack's, or as coarse as a large one's."""
    if request.param == "voxels":
        monkeypatch.setattr(cpu_spline, "MOST_HALVED", 0)
    return SplineVolume(voxels, SPACING)


@pytest.mark.parametrize("shape", [(9, 14, 17), (1, 5, 6), (2, 3, 1), (1, 1, 1), (40, 2, 50)])
def test_coefficients_are_those_of_scipy(shape: tuple[int, int, int]) -> None:
    noise = np.random.default_rng(2).normal(100.0, 10.0, shape).astype(np.float32)
    true = spline_filter(noise.astype(np.float64), order=3, mode="mirror")
    found = SplineVolume(noise, SPACING).coefficients
    np.testing.assert_allclose(found, np.pad(true, 2, mode="reflect"), rtol=0, atol=5e-4)


def bounds_at(volume: SplineVolume, points: NDArray[np.float64]) -> Array:
    """Bounds [B] that hold at points [3, B] in voxels."""
    levels, codes = volume._bounds
    parts = codes.shape[2] // (volume.coefficients.shape[2] - 3)
    cells = (parts * (points + 1)).astype(int)
    bounds: Array = levels[codes[tuple(cells)]]
    return bounds


def values_at(voxels: Array, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The spline [B] at points [3, B] in voxels."""
    values: NDArray[np.float64] = map_coordinates(
        np.asarray(voxels, np.float64), points, order=3, mode="mirror"
    )
    return values


def test_the_spline_is_nowhere_above_its_bounds(volume: SplineVolume, voxels: Array) -> None:
    source = np.random.default_rng(4)
    points = source.uniform(-0.5, np.array(voxels.shape)[:, None] - 0.5, (3, 40_000))
    above = (values_at(voxels, points) - bounds_at(volume, points)).max()
    allowed = 1e-5 * max(1.0, float(np.abs(voxels).max()))
    assert above < allowed, f"the spline is {above:.2e} above a bound"


def test_few_samples_of_a_noisy_ray_may_hold_its_maximum() -> None:
    voxels = np.random.default_rng(5).normal(100.0, 10.0, (40, 30, 30)).astype(np.float32)
    volume = SplineVolume(voxels, SPACING)
    along = np.arange(-0.5, 39.5, STEP)
    places = np.random.default_rng(6).uniform(0, 29, (2, 300))
    points = np.stack(
        [
            np.broadcast_to(along, (300, len(along))),
            *(np.broadcast_to(place[:, None], (300, len(along))) for place in places),
        ]
    ).reshape(3, -1)
    values = values_at(voxels, points).reshape(300, -1)
    bounds = bounds_at(volume, points).reshape(300, -1)
    share = float((bounds > values.max(1, keepdims=True)).mean())
    assert share < 0.2, f"{share:.0%} of the samples have bounds above their ray's largest value"


@pytest.mark.parametrize("camera", ["orthographic", "pinhole"])
def test_no_sample_of_a_ray_is_above_its_maximum(
    volume: SplineVolume, voxels: Array, camera: str
) -> None:
    box = -0.5 * SPACING, (np.array(voxels.shape) - 0.5) * SPACING
    middle = (box[0] + box[1]) / 2
    seen = (
        orbit_view(box, 35.0, 20.0, 0.5)
        if camera == "orthographic"
        else look_at(middle - [30, 6, 5], middle, shape=(30, 34), field_of_view=30.0)
    )
    rays = seen.rays(box)
    image, depth = volume.mip(rays)
    near, far = (t[:, : rays.shape[1]] for t in (view_of(rays).near, view_of(rays).far))
    hit = near < far
    assert 0.2 < hit.mean() < 1
    t, sure = _samples(rays, hit, near[hit], far[hit])
    values = values_at(voxels, _points(rays, hit, t).reshape(3, -1)).reshape(t.shape)
    scale = max(float(np.ptp(voxels)), 1e-3 * float(np.abs(voxels).max()))
    short = float((values.max(1) - image[hit])[sure].max()) / scale
    assert short < 1.5 * SLACK, f"a sample is {short:.2e} of the range above the maximum"
    reached = values_at(voxels, _points(rays, hit, depth[hit][:, None]).reshape(3, -1))
    off = float(np.abs(reached - image[hit]).max()) / scale
    assert off < 1e-3, f"the value at the depth found is off by {off:.2e} of the range"


def _samples(
    rays: Rays, hit: NDArray[np.bool_], near: Array, far: Array
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Where rays [R] are sampled, t [R, S]: evenly, `STEP` apart at most; the last is repeated.

    And of which rays [R] rounding has no say in the number of samples.
    """
    ends = _points(rays, hit, np.stack([near, far], -1).astype(np.float64))
    voxels_crossed = np.abs(ends[..., 1] - ends[..., 0]).max(0)
    sure = np.abs((voxels_crossed / STEP + 0.5) % 1 - 0.5) > 1e-3
    gaps = np.maximum(np.ceil(voxels_crossed / STEP), 1)[:, None]
    fractions = np.minimum(np.arange(gaps.max() + 1), gaps) / gaps
    return near[:, None] + (far - near)[:, None] * fractions, sure


def _points(rays: Rays, hit: NDArray[np.bool_], t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points [3, R, S] in voxels at t [R, S] of the rays that hit."""
    o, d = reference.origins_and_directions(rays, torch.float64)
    keep = torch.from_numpy(hit)
    points = o[keep].numpy()[:, None] + t[..., None] * d[keep].numpy()[:, None]
    return np.moveaxis(points / SPACING, -1, 0)
