"""Views: held-out ones are fair, and every one shows the stack's own projection."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_gaussfit.model.camera import ORBIT_ELEVATIONS
from napari_gaussfit.model.projection import StackProjector, hits
from napari_gaussfit.model.views import EndlessShuffle, Views
from napari_gaussfit.settings import TRAINING_VIEWS
from napari_gaussfit.synthetic.phantoms import beads

if TYPE_CHECKING:
    from napari_gaussfit.model.camera import Camera
    from napari_gaussfit.stacks.stack import Stack

COUNTS = [(60, 10), (60, 40), (30, 10), (12, 4), (8, 7), (8, 2), (2, 1)]


@pytest.fixture(scope="module")
def stack() -> Stack:
    return beads(count=4, shape=(16, 40, 40)).stack


def elevation(camera: Camera) -> float:
    return round(float(np.degrees(np.arcsin(camera.rotation[2, 1]))), 6) + 0.0


@pytest.mark.notebook("mip-views", api="FitSettings.held_out")
@pytest.mark.parametrize(("orbit", "held_out"), COUNTS)
def test_as_many_views_are_held_out_as_asked_for(stack: Stack, orbit: int, held_out: int) -> None:
    views = Views(stack, orbit, held_out)
    assert len(set(views.held_out)) == held_out


@pytest.mark.parametrize(("orbit", "held_out"), [c for c in COUNTS if c[1] >= 3])
def test_held_out_views_come_from_every_ring(stack: Stack, orbit: int, held_out: int) -> None:
    rings = {elevation(camera) for camera in Views(stack, orbit, held_out).held_out}
    assert rings == set(ORBIT_ELEVATIONS)


@pytest.mark.parametrize(("orbit", "held_out"), COUNTS)
def test_held_out_views_are_never_trained_on_nor_their_mirror_images(
    stack: Stack, orbit: int, held_out: int
) -> None:
    views = Views(stack, orbit, held_out)
    for unseen, trained in itertools.product(views.held_out, views.training):
        parallel = abs(float(unseen.rotation[2] @ trained.rotation[2]))
        assert parallel < 1 - 1e-6, f"{unseen.name} shows what {trained.name} shows"


def test_held_out_views_go_all_around(stack: Stack) -> None:
    held_out = Views(stack, 60, 10).held_out
    forwards = np.array([camera.rotation[2] for camera in held_out])
    azimuths = np.sort(np.degrees(np.arctan2(forwards[:, 2], forwards[:, 0])) % 360)
    gaps = np.diff(np.concatenate([azimuths, azimuths[:1] + 360]))
    assert gaps.max() <= 60, f"nothing is held out over {gaps.max():.0f} degrees"


def test_training_has_the_axis_views_and_views_of_every_ring(stack: Stack) -> None:
    training = Views(stack, 60, 10).training
    assert [camera.axis for camera in training[-3:]] == [0, 1, 2]
    assert {elevation(camera) for camera in training[:-3]} == set(ORBIT_ELEVATIONS)
    assert TRAINING_VIEWS - 2 <= len(training) - 3 <= TRAINING_VIEWS


def test_a_view_shows_the_stacks_projection_with_its_rays(stack: Stack) -> None:
    views = Views(stack, 12, 2)
    camera = views.held_out[1]
    view = views.view(camera)
    expected = StackProjector(stack).maximum(camera)
    seen = hits(camera, stack.box)
    np.testing.assert_array_equal(view.hit, seen)
    np.testing.assert_array_equal(view.target, np.where(seen, expected, 0))
    assert views.view(camera) is view, "made once"


def test_only_views_that_are_compared_are_projected(stack: Stack) -> None:
    """A view that trains reads the stack where the field is largest: no march through it."""
    views = Views(stack, 12, 2)
    made = [views.view(camera) for camera in views.training]
    assert all("target" not in vars(view) for view in made)


def test_a_shuffle_draws_all_before_any_comes_again() -> None:
    shuffle = EndlessShuffle(7, np.random.default_rng(0))
    drawn = np.concatenate([shuffle.draw(count) for count in (3, 1, 5, 2, 10)])
    rounds = drawn.reshape(3, 7)
    assert (np.sort(rounds, 1) == np.arange(7)).all()
    assert (rounds[0] != rounds[1]).any()
