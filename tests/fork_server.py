"""Forks processes of fits from one that has loaded all that they need: run by `forked.py`.

A process of a fit takes two seconds of a core to load torch and the kernels. Tests start hundreds.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import Any

from napari_gaussfit.jobs import batch_child, child

LARGEST = 1 << 18
"""Bytes of a request: the environment is the most of it."""


ASKED_OF = ("fitting", "formats", "measure", "model", "objects", "stacks", "synthetic")
"""Folders whose modules are loaded before anybody asks."""


class _Unheard:
    """Takes what the process says that prepares itself."""

    def send(self, _message: Any) -> None:
        """Forget it."""


def prepare() -> None:
    """Load what a fit needs, as `child` does before it has a task, and leave no thread behind."""
    child.load_torch("").set_num_threads(1)
    os.environ["GAUSSFIT_THREADS"] = "1"
    child._prepare(_Unheard())
    del os.environ["GAUSSFIT_THREADS"]
    for folder in ASKED_OF:
        package = importlib.import_module(f"napari_gaussfit.{folder}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            with suppress(ImportError):  # of an extra that is not installed
                importlib.import_module(module.name)
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join()
    # A fork's own collections neither look at all that, nor copy the pages that it lies in.
    gc.collect()
    gc.freeze()


def serve(channel: socket.socket) -> str | None:
    """Fork for each request, and return the module in the fork; None when nobody asks any more."""
    while True:
        words, files, _, _ = socket.recv_fds(channel, LARGEST, 3)
        if not words:
            return None
        asked = json.loads(words)
        told, tells = os.pipe()
        between = os.fork()
        if between == 0:
            # Twice, so that its parent is who asked, as of every process that it starts.
            number = os.fork()
            if number:
                os.write(tells, str(number).encode())
                os._exit(0)
            os.close(told)
            os.close(tells)
            channel.close()
            become(asked, files)
            return str(asked["module"])
        os.waitpid(between, 0)
        channel.send(os.read(told, 32))
        for file in (*files, told, tells):
            os.close(file)


def become(asked: dict[str, Any], files: list[int]) -> None:
    """Take the pipes, the environment and the folder of the process that was asked for."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    signal.signal(signal.SIGINT, signal.default_int_handler)


def main() -> None:
    """Prepare, then serve; a fork does here what its module does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = socket.socket(fileno=int(sys.argv[1]))
    prepare()
    module = serve(channel)
    if module is not None:
        {"child": child, "batch_child": batch_child}[module].main()


if __name__ == "__main__":
    main()
