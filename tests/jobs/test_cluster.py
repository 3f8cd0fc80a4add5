"""Workers of a fit by tiles start, or it is said why not."""

from __future__ import annotations

from typing import Any

import pytest
from distributed import LocalCluster

from napari_gaussfit.errors import OutputError
from napari_gaussfit.jobs.cluster import STARTS, own_cluster


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many of the next starts fail, as where a worker is killed before it is there."""
    left = [0]

    def start(**options: Any) -> LocalCluster:
        if left[0]:
            left[0] -= 1
            raise RuntimeError("Nanny failed to start.")
        return LocalCluster(**options)

    monkeypatch.setattr("distributed.LocalCluster", start)
    return left


def test_workers_that_were_killed_as_they_started_are_started_again(starts: list[int]) -> None:
    starts[0] = 1
    with own_cluster(2) as client:
        assert client.submit(sum, [1, 2]).result() == 3


def test_workers_that_never_start_are_an_error_that_says_what_to_do(starts: list[int]) -> None:
    starts[0] = STARTS
    with pytest.raises(OutputError, match=r"do not start \(Nanny failed.*--workers 1"):
        own_cluster(2).__enter__()
