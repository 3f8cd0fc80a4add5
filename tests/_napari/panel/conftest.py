"""Processes of fits that are there at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from forked import ForkServer, forking


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer | None]:
    """One for all tests of this process. Not where coverage is to see what forks run."""
    if sys.platform != "linux" or "COVERAGE_PROCESS_CONFIG" in os.environ:
        yield None
        return
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _forked(request: pytest.FixtureRequest, fork_server: ForkServer | None) -> Iterator[None]:
    """Fork the processes of fits, but for tests that say `started`."""
    if fork_server is None or request.node.get_closest_marker("started"):
        yield
        return
    with forking(fork_server):
        yield
