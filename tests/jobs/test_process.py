"""A fit in a process of its own, or in a thread: the same to whoever watches."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from job_runs import Run

from napari_gaussfit.fitting.snapshot import FinishReason, FitState
from napari_gaussfit.jobs.children import Fitter, start_child
from napari_gaussfit.jobs.job import FitTask, ThreadJob
from napari_gaussfit.jobs.pictures import ViewChoice
from napari_gaussfit.jobs.process import ProcessJob
from napari_gaussfit.settings import FitSettings

if TYPE_CHECKING:
    from pathlib import Path

    from napari_gaussfit.synthetic.phantoms import Phantom

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

Jobs = type[ProcessJob] | type[ThreadJob]
KINDS = pytest.mark.parametrize("kind", [ProcessJob, ThreadJob])
LONG = FitSettings(exactly=True, gaussians=20, iterations=1_000_000)


@KINDS
def test_a_job_runs_to_its_end_and_reports(kind: Jobs, small_beads: Phantom) -> None:
    run = Run(
        kind(FitTask((small_beads.stack,), FitSettings(exactly=True, gaussians=20, iterations=30)))
    )
    run.join()
    news = run.job.news

    assert run.error == ""
    assert news.snapshot is not None
    assert (news.snapshot.state, news.snapshot.iteration) == (FitState.FINISHED, 30)
    assert len(news.snapshot.field) == 20
    assert news.history["iteration"] == [10, 20, 30]
    assert news.result is not None
    assert news.result.report.iterations == 30
    assert news.result.stack == small_beads.stack.facts
    assert news.result.settings == FitSettings(exactly=True, gaussians=20, iterations=30)
    assert news.result.history == news.history
    assert not news.result.state, "a window goes on from Gaussians"
    assert news.mips is not None
    assert news.mips.data.shape == news.mips.fit.shape == (1, 40, 40)


def test_a_process_finds_what_a_thread_finds(small_beads: Phantom) -> None:
    task = FitTask((small_beads.stack,), FitSettings(exactly=True, gaussians=20, iterations=10))
    fields = []
    for kind in (ProcessJob, ThreadJob):
        run = Run(kind(task))
        run.join()
        assert run.job.news.snapshot is not None
        fields.append(run.job.news.snapshot.field)
    np.testing.assert_array_equal(fields[0].means, fields[1].means)
    assert fields[0].unit == fields[1].unit == small_beads.stack.unit


@KINDS
def test_a_job_pauses_goes_on_and_stops_within_a_second(kind: Jobs, small_beads: Phantom) -> None:
    run = Run(kind(FitTask((small_beads.stack,), LONG)))
    job = run.job
    run.wait_for(run.running)
    job.pause()
    run.wait_for(lambda: job.news.snapshot.state is FitState.PAUSED)
    stood = job.news.snapshot.iteration
    job.look(ViewChoice(None, 30.0, 20.0))
    run.wait_for(lambda: job.news.mips is not None and job.news.mips.view.azimuth == 30.0)
    assert job.news.snapshot.iteration == stood
    job.resume()
    run.wait_for(lambda: job.news.snapshot.iteration > stood)
    asked = time.monotonic()
    job.cancel()
    run.join()

    assert time.monotonic() - asked < run.patience()
    assert job.news.snapshot.state is FitState.CANCELLED
    assert run.error == ""


@KINDS
def test_a_fit_that_is_stopped_when_it_has_done_its_steps_still_reports(
    kind: Jobs, small_beads: Phantom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_gaussfit.jobs.process.STOP_GRACE", 0.0)
    run = Run(
        kind(FitTask((small_beads.stack,), FitSettings(exactly=True, gaussians=20, iterations=30)))
    )
    job = run.job
    run.wait_for(lambda: job.news.snapshot and job.news.snapshot.state is FitState.FINISHED)
    job.cancel()
    run.join()

    assert run.error == ""
    assert job.news.snapshot.state is FitState.FINISHED
    assert job.news.result is not None
    assert job.news.result.report.iterations == 30


def test_a_job_goes_on_from_given_gaussians(small_beads: Phantom) -> None:
    task = FitTask((small_beads.stack,), FitSettings(iterations=1), start=(small_beads.truth,))
    run = Run(ProcessJob(task))
    run.join()
    assert run.job.news.snapshot is not None
    assert len(run.job.news.snapshot.field) == len(small_beads.truth)


def test_a_job_seeds_at_given_points(small_beads: Phantom) -> None:
    points = small_beads.truth.means.double().numpy()
    settings = FitSettings(exactly=True, gaussians=len(points), iterations=1)
    run = Run(ProcessJob(FitTask((small_beads.stack,), settings, points=points)))
    run.join()
    assert run.job.news.snapshot is not None
    moved = np.abs(run.job.news.snapshot.field.means.numpy() - points).max()
    assert moved < 0.1, f"a Gaussian is {moved} µm from the point that it was to begin at"


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no such signal")
def test_the_death_of_the_process_is_told_and_the_last_gaussians_stay(
    small_beads: Phantom,
) -> None:
    run = Run(ProcessJob(FitTask((small_beads.stack,), LONG)))
    run.wait_for(run.running)
    assert isinstance(run.job, ProcessJob)
    assert run.job.pid is not None
    os.kill(run.job.pid, signal.SIGKILL)
    run.join()

    assert "killed" in run.error
    assert "Refine" in run.error
    assert run.job.news.snapshot is not None
    assert run.job.news.snapshot.state is FitState.FAILED
    assert run.job.news.snapshot.reason is FinishReason.ERROR
    assert len(run.job.news.snapshot.field) == 20


@KINDS
def test_an_error_of_the_fit_is_told_in_its_own_words(kind: Jobs, small_beads: Phantom) -> None:
    points = np.full((3, 2), 1.0)
    run = Run(kind(FitTask((small_beads.stack,), LONG, points=points)))
    run.join()
    assert "Error" in run.error


def test_a_job_that_is_closed_ends_at_once_and_without_a_word(small_beads: Phantom) -> None:
    run = Run(ProcessJob(FitTask((small_beads.stack,), LONG)))
    run.wait_for(run.running)
    asked = time.monotonic()
    run.job.close()
    run.join()
    assert time.monotonic() - asked < run.patience()
    assert run.error == ""


def test_a_process_fits_one_task_after_another_as_a_fresh_one_does(small_beads: Phantom) -> None:
    settings = FitSettings(exactly=True, gaussians=20, iterations=10)
    other = FitTask((small_beads.stack,), FitSettings(exactly=True, gaussians=7, iterations=3))
    task = FitTask((small_beads.stack,), settings)
    fresh = Run(ProcessJob(task))
    fresh.join()
    fitter = Fitter()
    fitter.prepare()
    try:
        for one in (other, task):
            run = Run(ProcessJob(one, fitter))
            run.join()
            assert run.error == ""
        assert fitter.alive
        assert not fitter.preparing
        assert run.job.news.history == fresh.job.news.history | {
            "seconds": run.job.news.history["seconds"]
        }
        np.testing.assert_array_equal(
            run.job.news.snapshot.field.means, fresh.job.news.snapshot.field.means
        )
    finally:
        fitter.end()
    assert not fitter.alive


def test_stop_leaves_a_process_ready_and_what_is_asked_late_concerns_no_other_fit(
    small_beads: Phantom,
) -> None:
    fitter = Fitter()
    try:
        stopped = Run(ProcessJob(FitTask((small_beads.stack,), LONG), fitter))
        stopped.wait_for(stopped.running)
        stopped.job.cancel()
        stopped.join()
        assert stopped.job.news.snapshot.state is FitState.CANCELLED
        assert fitter.alive
        stopped.job.cancel()
        settings = FitSettings(exactly=True, gaussians=5, iterations=20)
        run = Run(ProcessJob(FitTask((small_beads.stack,), settings), fitter))
        run.join()
        assert run.job.news.snapshot.state is FitState.FINISHED
    finally:
        fitter.end()


def test_a_process_that_was_killed_at_rest_is_told_of_like_any_other(small_beads: Phantom) -> None:
    fitter = Fitter()
    fitter.kill()
    run = Run(ProcessJob(FitTask((small_beads.stack,), LONG), fitter))
    run.join()
    assert "the process of the fit was killed" in run.error


@pytest.mark.parametrize("name", ["queue.py", "numpy.py", "torch.py", "napari_gaussfit.py"])
def test_a_process_runs_nothing_that_lies_in_the_working_folder(
    name: str, small_beads: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_text("raise SystemExit('this was run')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # where `python -m napari` begins
    run = Run(
        ProcessJob(
            FitTask((small_beads.stack,), FitSettings(exactly=True, gaussians=5, iterations=1))
        )
    )
    run.join()
    assert run.error == ""
    assert run.job.news.snapshot is not None
    assert run.job.news.snapshot.state is FitState.FINISHED


def test_a_process_looks_where_the_user_asks_it_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('as asked')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for asked, found in (("", False), (str(tmp_path), True), (".", True)):
        monkeypatch.setenv("PYTHONPATH", asked)
        with tempfile.TemporaryFile() as errors:
            process = start_child(errors)
            process.communicate()
            errors.seek(0)
            assert (b"as asked" in errors.read()) is found, f"PYTHONPATH={asked!r}"
