"""Fields of every kind, and grids and rays that see them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scenes import FIELDS, SIZE, Field, make_grid, make_rays

from napari_gaussfit._kernels.geometry import Grid, Rays


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Small operations of the reference cost more on several threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=FIELDS)
def field(request: pytest.FixtureRequest) -> Field:
    """Every kind of field in turn."""
    return FIELDS[request.param](seed=sorted(FIELDS).index(request.param))


@pytest.fixture
def overlapping() -> Field:
    return FIELDS["overlapping"](seed=11)


@pytest.fixture
def single() -> Field:
    return FIELDS["one"](seed=12)


@pytest.fixture
def grid(field: Field) -> Grid:
    """A grid over the box: coarse where the reference has many Gaussians to evaluate."""
    return make_grid((4, 5, 6) if field.many else (12, 10, 21))


@pytest.fixture
def coarse_grid() -> Grid:
    return make_grid((2, 3, 2))


@pytest.fixture
def fine_grid() -> Grid:
    return make_grid((12, 10, 14))


@pytest.fixture(params=["orthographic", "pinhole"])
def rays(request: pytest.FixtureRequest, field: Field) -> Rays:
    """Rays of either camera: few where the reference has many Gaussians to evaluate."""
    return make_rays(request.param, (1, 2) if field.many else (10, 11))


@pytest.fixture(params=["orthographic", "pinhole"])
def many_rays(request: pytest.FixtureRequest) -> Rays:
    """Rays of either camera, as many as a small image has."""
    return make_rays(request.param, (60, 70))


@pytest.fixture(params=["orthographic", "pinhole"])
def few_rays(request: pytest.FixtureRequest) -> Rays:
    """Rays of either camera, as few as finite differences allow."""
    return make_rays(request.param, (2, 3))


@pytest.fixture
def axis_rays() -> Rays:
    """Look along z through pixels of 0.5 by 0.5."""
    frame = np.zeros((6, 3), np.float32)
    frame[0], frame[1, 1], frame[2, 2], frame[3, 0] = (-5.0, 0.25, 0.25), 0.5, 0.5, 1.0
    size = np.asarray(SIZE, np.float32)
    return Rays(frame, (40, 56), np.zeros(3, np.float32), size, -math.inf)
