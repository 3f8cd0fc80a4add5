"""Launching numba's CUDA kernels on torch's memory and streams.

Torch allocates, numba launches: on torch's current stream, so that kernels and torch's own
operations follow each other in order and torch's allocator knows when memory is free again.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


def launch(kernel: Any, blocks: Sequence[int], threads: int | tuple[int, int], *given: Any) -> None:
    """Run a kernel on torch's current stream; tensors are handed over without a copy.

    Parameters
    ----------
    kernel : numba.cuda dispatcher
        What to run.
    blocks : sequence of int
        Blocks along x, y, z; nothing is launched where one is 0.
    threads : int or tuple of int
        A block's.
    *given : Tensor or float
        The kernel's arguments. Tensors must be contiguous and on one device.
    """
    from napari_gaussfit._kernels.cuda.device import SIMULATED

    if min(blocks) == 0:
        return
    if SIMULATED:
        arguments = [a.detach().numpy() if isinstance(a, Tensor) else a for a in given]
        kernel[tuple(blocks), threads](*arguments)
        return
    from numba import cuda

    device = next(a.device for a in given if isinstance(a, Tensor))
    with torch.cuda.device(device), cuda.gpus[device.index]:
        stream = _stream(device.index, torch.cuda.current_stream().cuda_stream)
        arguments = [cuda.as_cuda_array(a.detach()) if isinstance(a, Tensor) else a for a in given]
        kernel[tuple(blocks), threads, stream](*arguments)


@functools.lru_cache(maxsize=64)
def _stream(_device: int, pointer: int) -> Any:
    """Return numba's object for a stream of torch's on a device, the same each time.

    Numba keeps what it prepares of a launch by its stream: of a new object it would prepare all
    anew.
    """
    from numba import cuda

    return cuda.external_stream(pointer)
