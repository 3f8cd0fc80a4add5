"""Gaussians at rest, as they are shown."""

from __future__ import annotations

from dataclasses import replace

from napari_gaussfit.fitting.snapshot import HISTORY_KEYS, FitState
from napari_gaussfit.jobs.versions import opened
from saved_fits import some_fit


def test_a_fit_from_a_file_is_shown_as_one_that_has_finished() -> None:
    fit = some_fit()
    version = opened(fit)
    snapshot = version.news.snapshot
    assert snapshot is not None
    assert version.fit is fit
    assert snapshot.state is FitState.FINISHED
    assert snapshot.fields is fit.fields
    assert version.unedited is None


def test_a_file_without_history_is_shown_too() -> None:
    version = opened(replace(some_fit(), history={}, settings=None, reports=()))
    assert version.news.history == {key: [] for key in HISTORY_KEYS}
