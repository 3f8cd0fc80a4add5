"""What the panel tells of a stack before it is fitted. Runs in a thread; knows no widget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.errors import FitError, SettingsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.stack import Stack

__all__ = ["Preview", "device_words", "memory_of_fit", "preview_of"]

BINS = 100


@dataclass(frozen=True, eq=False)
class Preview:
    """What there is to know of a stack's intensities.

    Parameters
    ----------
    stack : Stack
        Whose they are.
    background : float
        Estimated, raw intensity.
    suggested : int
        Number of Gaussians.
    counts : ndarray, shape [B]
        Voxels in each bin of intensity.
    edges : ndarray, shape [B + 1]
        Of the bins.
    device : str
        In words, what a fit will really run on, or why it cannot.
    """

    stack: Stack
    background: float
    suggested: int
    counts: NDArray[np.int64]
    edges: NDArray[np.float64]
    device: str


def preview_of(stack: Stack, device: str) -> Preview:
    """Return what there is to know of a stack's intensities, and of the device of that name.

    Raises
    ------
    FitError
        If PyTorch cannot be loaded beside Qt, with what to do about it.
    """
    # Imported here, beside the window, so that the first update of a fit has it at hand.
    from napari_gaussfit._napari import edited, layers  # noqa: F401

    try:
        from napari_gaussfit.seeding import estimate_background, suggested_count
    except OSError as error:
        message = (
            f"PyTorch cannot be loaded into this napari ({error}); on Windows, install the "
            "Microsoft Visual C++ redistributable, or start napari with "
            'python -c "import torch, napari; napari.Viewer(); napari.run()"'
        )
        raise FitError(message) from error
    counts, edges = np.histogram(stack.voxels, bins=BINS)
    background, suggested = estimate_background(stack.voxels)[0], suggested_count(stack.voxels)
    return Preview(stack, background, suggested, counts, edges, device_words(device))


def memory_of_fit(stack: Stack) -> tuple[int, int]:
    """Return the bytes that the fit of a stack is expected to take, and those that are free."""
    import psutil

    from napari_gaussfit.memory import predict_memory
    from napari_gaussfit.settings import FitSettings

    needed = predict_memory(stack.voxels.size, stack.nbytes, FitSettings())
    return needed, int(psutil.virtual_memory().available)


def device_words(name: str) -> str:
    """Say what the device of a name ("auto", "cpu", "cuda") really is, or why it cannot serve."""
    import torch

    from napari_gaussfit._kernels import backend_name, device_named

    try:
        device = device_named(name)
    except SettingsError as error:
        return f"⚠ {error}"
    if device.type == "cpu":
        return f"Runs on the CPU ({backend_name(device)})."
    free, _ = torch.cuda.mem_get_info(device)
    return (
        f"Runs on {torch.cuda.get_device_name(device)} ({backend_name(device)}), "
        f"{free / 1e9:.2g} GB of it free."
    )
