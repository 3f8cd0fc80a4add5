"""Memory of a CUDA device: what is free, and what to say where it does not suffice."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from napari_gaussfit.errors import OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Iterator


def free_memory(device: torch.device) -> tuple[int, int]:
    """Return the bytes of a device that a fit may have, and all of them.

    What torch holds in reserve and nobody uses counts as free.
    """
    free, total = torch.cuda.mem_get_info(device)
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + reserve, total


@contextmanager
def room_on(device: torch.device) -> Iterator[None]:
    """Turn torch's error where memory of a device runs out into ours.

    Raises
    ------
    OutOfMemoryError
        If it does.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise no_room(device) from error


def no_room(device: torch.device, needed: int | None = None) -> OutOfMemoryError:
    """Return the error that says how much memory there is, and what to do.

    `needed` is in bytes, where it is known.
    """
    name, there = str(device), ""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        free, total = free_memory(device)
        there = f", where {free / 1e9:.2g} of {total / 1e9:.2g} GB are free"
    wanted = "no room is left" if needed is None else f"about {needed / 1e9:.2g} GB are needed"
    return OutOfMemoryError(
        f"{wanted} on {name}{there}; crop or bin the stack, ask for fewer Gaussians, close what "
        "else uses the GPU, or use device='cpu'"
    )
