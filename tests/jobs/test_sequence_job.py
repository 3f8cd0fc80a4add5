"""All times of a recording as one job: what `fit_sequence` finds, and what is done stays."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from job_runs import Run

from napari_gaussfit.errors import StackError
from napari_gaussfit.fitting.snapshot import FitState
from napari_gaussfit.jobs.sequence import SequenceJob, SequenceTask
from napari_gaussfit.objects.sequence import fit_sequence
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.time_series import TimeSeries
from napari_gaussfit.synthetic.phantoms import moving_spots

if TYPE_CHECKING:
    from napari_gaussfit.stacks.stack import Stack

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

SHORT = FitSettings(exactly=True, gaussians=5, iterations=40)
LONG = FitSettings(exactly=True, gaussians=5, iterations=1_000_000)


@pytest.fixture(scope="module")
def series() -> TimeSeries:
    """Five spots at three times."""
    spots = moving_spots(count=5, times=3, crossings=0, shape=(12, 40, 40))
    return TimeSeries.from_stacks(spots.stacks)


@pytest.mark.parametrize("in_process", [False, True], ids=["process", "thread"])
def test_a_job_finds_what_the_library_finds_at_each_time(
    series: TimeSeries, in_process: bool
) -> None:
    run = Run(SequenceJob(SequenceTask(series, SHORT), in_process=in_process))
    run.join()
    assert run.error == ""
    news, expected = run.job.news, fit_sequence(series, SHORT)
    assert [frame.time for frame in news.frames] == [0, 1, 2]
    for frame, result in zip(news.frames, expected.results, strict=True):
        np.testing.assert_allclose(frame.result.field.means, result.field.means, atol=1e-5)
        assert frame.mips is not None
    drifts = [frame.drift for frame in news.frames]
    np.testing.assert_array_equal(drifts, expected.drifts)
    assert news.tracks is not None
    for one, other in zip(news.tracks.numbers, expected.tracks.numbers, strict=True):
        np.testing.assert_array_equal(one, other)
    assert news.snapshot is not None
    assert news.snapshot.state is FitState.FINISHED


def test_what_is_done_stays_when_the_rest_is_given_up(series: TimeSeries) -> None:
    first, second, _ = (series.read(n) for n in range(3))
    reached = threading.Event()

    def read(n: int) -> tuple[Stack, ...]:
        if n == 2:
            reached.set()
            stopped.wait(60)
        return (first, second, second)[n]

    stopped = threading.Event()
    run = Run(SequenceJob(SequenceTask(TimeSeries((0, 1, 2), read), SHORT)))
    run.wait_for(reached.is_set)
    run.job.cancel()
    stopped.set()
    run.join()
    assert [frame.time for frame in run.job.news.frames] == [0, 1]
    assert run.job.news.tracks is not None
    assert run.job.news.tracks.times == (0, 1)
    assert run.job.news.snapshot is not None
    assert run.job.news.snapshot.state is FitState.CANCELLED


def test_a_time_that_cannot_be_read_is_named_and_those_before_stay(series: TimeSeries) -> None:
    def read(n: int) -> tuple[Stack, ...]:
        if n:
            raise StackError("all its voxels are 7; nothing to fit")
        return series.read(0)

    run = Run(SequenceJob(SequenceTask(TimeSeries((4, 6), read), SHORT)))
    run.join()
    assert run.error == "time 6: all its voxels are 7; nothing to fit"
    assert [frame.time for frame in run.job.news.frames] == [4]


def test_a_pause_stands_still_and_stop_ends_it_from_there(series: TimeSeries) -> None:
    run = Run(SequenceJob(SequenceTask(series, LONG)))
    news = run.job.news
    run.wait_for(lambda: news.snapshot is not None and news.snapshot.iteration > 0)
    run.job.pause()
    run.wait_for(lambda: news.snapshot is not None and news.snapshot.state is FitState.PAUSED)
    run.job.cancel()
    run.join()
    assert news.frames == []
    assert news.words == "time 0, 1 of 3"
