"""What is sent to the process that fits, and back, arrives as it was."""

from __future__ import annotations

import io
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_gaussfit.fitting.refinement import Comparison
from napari_gaussfit.fitting.snapshot import HISTORY_KEYS, FinishReason, FitState, Snapshot
from napari_gaussfit.fitting.starting import Follows
from napari_gaussfit.jobs import encoding
from napari_gaussfit.jobs.job import FitTask
from napari_gaussfit.jobs.messages import Message, receive, send
from napari_gaussfit.jobs.pictures import MipPair, ViewChoice
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.psf import Psf
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.stack import Stack
from saved_fits import some_field, some_fit

if TYPE_CHECKING:
    from napari_gaussfit.model.field import GaussianField

VOXELS = np.random.default_rng(0).integers(0, 900, (4, 6, 5), np.uint16)
STACK = replace(
    Stack.from_array(VOXELS, spacing=(0.5, 0.2, 0.1), name="cells µ"),
    channel=1,
    time=4,
    origin=(3.0, 2.0, 1.0),
)


def sent(message: Message) -> Message:
    """Send a message through a stream."""
    stream = io.BytesIO()
    send(stream, message)
    stream.seek(0)
    return receive(stream)


def assert_same(found: Any, wanted: Any) -> None:
    """Compare two values of a class, part by part, of which arrays and fields are some."""
    for part in fields(wanted):
        one, other = getattr(found, part.name), getattr(wanted, part.name)
        if isinstance(other, np.ndarray):
            np.testing.assert_array_equal(one, other, err_msg=part.name)
            assert one.dtype == other.dtype, part.name
        else:
            assert one == other, part.name
            assert type(one) is type(other), part.name


def assert_same_field(found: GaussianField, wanted: GaussianField) -> None:
    assert_same(found.numpy(), wanted.numpy())


@pytest.mark.parametrize(
    "field",
    [
        some_field(7),
        replace(some_field(3), unit="pixel", background=-12.5),
        replace(some_field(5), full_covariance=False),
    ],
    ids=["of any orientation", "in pixels", "along the axes"],
)
def test_the_gaussians_of_each_channel_arrive(field: GaussianField) -> None:
    channels = (field, replace(field, background=3.0))
    words = {"fields": encoding.fields_words(channels)}
    message = Message("fields", words, encoding.fields_arrays(channels))
    for found, expected in zip(encoding.fields_from(sent(message)), channels, strict=True):
        assert_same_field(found, expected)


@pytest.mark.parametrize("begins", [False, True], ids=["anew", "from others"])
@pytest.mark.parametrize("points", [None, np.ones((2, 3))], ids=["seeds", "points"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_task_arrives_with_all_channels(
    begins: bool, points: np.ndarray | None, channels: int
) -> None:
    settings = FitSettings(
        exactly=True, gaussians=9, loss="poisson", background=3.5, full_covariance=False
    )
    stacks = tuple(replace(STACK, voxels=VOXELS + n, channel=n) for n in range(channels))
    start = tuple(replace(some_field(6), background=float(n)) for n in range(channels))
    view = ViewChoice(azimuth=40.0, channel=None)
    before = tuple(replace(stack, voxels=VOXELS // 2, time=3) for stack in stacks)
    earlier = before if begins else ()
    psf = Psf.of_fwhm((0.6, 0.25, 0.25)) if begins else None
    follows = Follows((Noise(0.5, 2.0), None)) if begins else None
    task = FitTask(stacks, settings, start if begins else (), points, earlier, view, psf, follows)

    found = encoding.task_from(sent(encoding.task_message(task)))

    for one, sent_one in zip(found.stacks + found.before, stacks + earlier, strict=True):
        np.testing.assert_array_equal(one.voxels, sent_one.voxels)
        assert one.voxels.dtype == VOXELS.dtype
        assert one.facts == sent_one.facts
    assert (found.settings, found.view, found.psf) == (settings, task.view, psf)
    assert found.follows == follows
    assert (found.points is None) == (points is None)
    for field, sent_field in zip(found.start, task.start, strict=True):
        assert_same_field(field, sent_field)
    if points is not None:
        np.testing.assert_array_equal(found.points, points)


@pytest.mark.parametrize("reason", [None, *FinishReason])
def test_a_snapshot_arrives_with_what_is_new_of_the_history(reason: FinishReason | None) -> None:
    state = FitState.FINISHED if reason else FitState.RUNNING
    snapshot = Snapshot(state, 30, 700, 1.5, 33.25, (some_field(4),), 0.1, 31.5, 32.5, 33.5, reason)
    history = {key: [1.0, 2.0, 3.0] for key in HISTORY_KEYS}

    found, rows = encoding.snapshot_from(sent(encoding.snapshot_message(snapshot, history, 2)))

    assert_same_field(found.field, snapshot.field)
    assert_same(replace(found, fields=()), replace(snapshot, fields=()))
    assert rows == {key: [3.0] for key in HISTORY_KEYS}


@pytest.mark.parametrize("settings", [None, FitSettings(exactly=True, gaussians=9, background=3.5)])
def test_a_record_arrives_without_the_state_that_it_would_go_on_from(
    settings: FitSettings | None,
) -> None:
    result = replace(
        some_fit(4), settings=settings, history={"loss": [2.0, 1.0]}, notes=("a note",)
    )
    second = replace(result.field, background=3.0)
    result = replace(result, fields=(result.field, second), reports=result.reports * 2)

    found = encoding.result_from(sent(encoding.result_message(result)))

    for one, expected in zip(found.fields, result.fields, strict=True):
        assert_same_field(one, expected)
    assert result.state
    assert_same(replace(found, fields=result.fields), replace(result, state={}))


def test_projections_arrive() -> None:
    data, fit = np.random.default_rng(1).random((2, 3, 5, 6), np.float32)
    pair = MipPair(ViewChoice(azimuth=10.0, elevation=-20.0), (0.2, 0.1), data, fit)
    assert_same(encoding.mips_from(sent(encoding.mips_message(pair))), pair)


def test_a_comparison_arrives() -> None:
    comparison = Comparison(31.0, 32.5, 10)
    assert encoding.comparison_from(sent(encoding.comparison_message(comparison))) == comparison
