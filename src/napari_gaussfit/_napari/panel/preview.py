"""What the panel tells of a stack before it is fitted. Runs in a thread; knows no widget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.errors import FitError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.jobs.renderer import Renderer
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["Preview", "is_same_stack", "memory_of_fit", "preview_of"]

BINS = 100


@dataclass(frozen=True, eq=False)
class Preview:
    """What there is to know of a stack's intensities.

    Parameters
    ----------
    stack : Stack
        The stack that is previewed.
    background : float
        Background as estimated from the voxels, in raw intensity.
    suggested : int
        Number of Gaussians that the volume of the signal suggests.
    counts : ndarray, shape [B]
        Voxels in each bin of intensity.
    edges : ndarray, shape [B + 1]
        Edges of the histogram's bins, in raw intensity.
    device : str
        In words, what a fit will really run on, or why it cannot.
    """

    stack: Stack
    background: float
    suggested: int
    counts: NDArray[np.int64]
    edges: NDArray[np.float64]
    device: str


def preview_of(stack: Stack, device: str, renderer: Renderer) -> Preview:
    """Return what there is to know of a stack's intensities, and of the device of that name."""
    # Imported here, beside the window, so that the first update of a fit has it at hand.
    from napari_gaussfit._napari.layers import edited, gaussians  # noqa: F401
    from napari_gaussfit.fitting.memory import predict_device_memory
    from napari_gaussfit.jobs.renderer import device_words
    from napari_gaussfit.settings import FitSettings
    from napari_gaussfit.stacks.statistics import estimate_background, suggested_count

    counts, edges = np.histogram(stack.voxels, bins=BINS)
    background, suggested = estimate_background(stack.voxels)[0], suggested_count(stack.voxels)
    try:
        needed = predict_device_memory(stack.voxels.size, FitSettings())
        words = device_words(device, renderer, needed=needed)
    except FitError as error:
        words = f"⚠ {error}."
    return Preview(stack, background, suggested, counts, edges, words)


def is_same_stack(one: Stack | None, other: Stack | None) -> bool:
    """Tell whether two stacks, each made of a layer when it was looked at, are the same voxels."""
    if one is None or other is None:
        return one is other
    first, second = (
        (stack.spacing, stack.unit, stack.voxels.__array_interface__) for stack in (one, other)
    )
    return first == second


def memory_of_fit(stacks: Sequence[Stack]) -> tuple[int, int]:
    """Return the bytes that the fit of these channels is expected to take, and what is free."""
    import psutil

    from napari_gaussfit.fitting.memory import predict_memory
    from napari_gaussfit.settings import FitSettings

    voxels = sum(stack.voxels.size for stack in stacks)
    nbytes = sum(stack.nbytes for stack in stacks)
    needed = predict_memory(voxels, nbytes, FitSettings())
    return needed, int(psutil.virtual_memory().available)
