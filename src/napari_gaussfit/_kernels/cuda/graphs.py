"""Work of one shape on a CUDA device, captured in a graph once and replayed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable


class Graphs:
    """Runs work of several kinds: each kind once as it is, then captured, then replayed.

    Work of a kind must do the same operations each time, on memory that stays where it is, and
    leave there what it found. Elsewhere than on a CUDA device, as in the simulator, all runs as it
    is.

    Parameters
    ----------
    device : torch.device
        Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._captures = device.type == "cuda"
        self._known: dict[Hashable, torch.cuda.CUDAGraph | None] = {}

    def forget(self, kind: Hashable) -> None:
        """Forget a kind of work: it is of another shape from now on."""
        self._known.pop(kind, None)

    def run(self, kind: Hashable, work: Callable[[], None]) -> None:
        """Do work of a kind; returns when it is on its way.

        The first time compiles kernels and sends constants, neither of which a graph can hold.
        """
        if not self._captures or kind not in self._known:
            work()
            self._known[kind] = None
            return
        graph = self._known[kind]
        if graph is None:
            graph = self._known[kind] = _captured(work)
        graph.replay()


def _captured(work: Callable[[], None]) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    # Other threads (a viewer's, say) may allocate meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph
