"""Processes of fits that are forked rather than started, where starting is not what is tested.

They are as real: with pipes, a number, memory and an end of their own. Where they cannot be
forked (elsewhere than on Linux, or where the environment could change what is loaded), they are
started.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from napari_gaussfit.jobs import children

HERE = Path(__file__).parent
FORKED = {f"napari_gaussfit.jobs.{name}": name for name in ("child", "batch_child")}
OF_NO_MATTER = ("GAUSSFIT_", "NAPARI_", "PYTEST_", "QT_", "XDG_")
"""Beginnings of names that change nothing of what is loaded."""

PR_SET_CHILD_SUBREAPER = 36


class ForkServer:
    """A process that has loaded what fits need, and forks."""

    def __init__(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel, self._lock = ours, threading.Lock()
        self._environment = environment_of_children()
        # Forks are this process's children: it can wait for them.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(HERE / "fork_server.py"), str(its.fileno())],
                env=self._environment,
                pass_fds=[its.fileno()],
            )

    def suits(self, command: Any, environment: Any) -> bool:
        """Tell whether it forks what this command would start."""
        begins = [sys.executable, "-P", "-m"]
        return (
            command[:3] == begins
            and command[3] in FORKED
            and loading(environment) == loading(self._environment)
        )

    def fork(self, module: str, environment: dict[str, str], files: tuple[int, int, int]) -> int:
        """Return the number of a new process, with its standard input, output and errors."""
        asked = {"module": FORKED[module], "environment": environment, "folder": str(Path.cwd())}
        with self._lock:
            socket.send_fds(self._channel, [json.dumps(asked).encode()], files)
            return int(self._channel.recv(32))

    def close(self) -> None:
        """End it: there is no one to ask."""
        self._channel.close()
        self._process.wait()


def environment_of_children() -> dict[str, str]:
    """Return what `start_child` gives to a process here and now."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(children._search_path())}


def loading(environment: dict[str, str]) -> dict[str, str]:
    """Return what of an environment can change what is loaded."""
    return {k: v for k, v in environment.items() if not k.startswith(OF_NO_MATTER)}


@contextmanager
def forking(server: ForkServer) -> Iterator[None]:
    """Have `start_child` fork what the server suits, and start all else."""

    class Forked(subprocess.Popen[bytes]):
        def _execute_child(self, *given: Any) -> None:
            command, environment = given[0], given[6]
            if not server.suits(command, environment):
                super()._execute_child(*given)
                return
            its_input, _, _, its_output, _, its_errors = given[10:16]
            self.pid = server.fork(command[3], environment, (its_input, its_output, its_errors))
            self._child_created = True
            self._close_pipe_fds(*given[10:16])

    named = SimpleNamespace(**vars(subprocess) | {"Popen": Forked})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(children, "subprocess", named)
        yield
