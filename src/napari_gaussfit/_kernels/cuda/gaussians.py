"""Gaussians on a CUDA device: their records, gradients, steps, and which reach which cell."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from numba.core import config
from torch import Tensor

from napari_gaussfit._kernels.cuda import (
    device as cuda_device,
)
from napari_gaussfit._kernels.cuda import (
    gaussian_kernels,
)
from napari_gaussfit._kernels.cuda.device import launch
from napari_gaussfit._kernels.shared.gaussian import PACKED

THREADS = 128  # of a block whose threads each have a Gaussian

# Small grids of blocks are meant: a step's launches are captured together.
config.CUDA_LOW_OCCUPANCY_WARNINGS = 0


def blocks_of(count: int, size: int) -> int:
    """Return how many blocks of some size hold `count`."""
    return -(-count // size)


def floats(device: torch.device, *shape: int) -> Tensor:
    """Return memory for float32."""
    return torch.empty(shape, dtype=torch.float32, device=device)


def whole_numbers(device: torch.device, *shape: int) -> Tensor:
    """Return memory for int32."""
    return torch.empty(shape, dtype=torch.int32, device=device)


def pack(means: Tensor, cholesky: Tensor, amplitudes: Tensor, cutoff: float | Tensor) -> Tensor:
    """Return the kernels' records [C, K, PACKED] of Gaussians in Cholesky parameters.

    `amplitudes` are [K] or [C, K]; `cutoff` is a number or a tensor [1].
    """
    device, count = means.device, len(means)
    if not isinstance(cutoff, Tensor):
        cutoff = torch.full((1,), cutoff, dtype=torch.float32, device=device)
    channels = amplitudes.reshape(-1, count).contiguous() if count else amplitudes.reshape(1, 0)
    packed = floats(device, len(channels), count, PACKED)
    launch(
        gaussian_kernels.pack,
        (blocks_of(count, THREADS), len(channels)),
        THREADS,
        means.contiguous(),
        cholesky.contiguous(),
        channels,
        cutoff,
        packed,
    )
    return packed


def unpack_gradient(moments: Tensor, packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return derivatives by means [K, 3], Cholesky parameters [K, 6] and amplitudes [C, K]."""
    channels, count = packed.shape[:2]
    device = packed.device
    gradients = (
        floats(device, channels, count, 3),
        floats(device, channels, count, 6),
        floats(device, channels, count),
    )
    unpack_into(moments, packed, gradients)
    d_means, d_cholesky, d_amplitudes = gradients
    return d_means.sum(0), d_cholesky.sum(0), d_amplitudes


def unpack_into(moments: Tensor, packed: Tensor, gradients: tuple[Tensor, ...]) -> None:
    """Set each channel's part of the derivatives: [C, K, 3], [C, K, 6] and [C, K]."""
    channels, count = packed.shape[:2]
    blocks = (blocks_of(count, THREADS), channels)
    launch(gaussian_kernels.unpack_gradient, blocks, THREADS, moments, packed, *gradients)


def adam_step(
    parameters: tuple[Tensor, Tensor, Tensor],
    gradients: tuple[Tensor, Tensor, Tensor],
    moments: tuple[Tensor, Tensor, Tensor],
    rates: Tensor,
) -> None:
    """Take one optimiser step in place; see `reference.adam_step`."""
    launch(
        gaussian_kernels.adam_step,
        (blocks_of(len(parameters[0]), THREADS),),
        THREADS,
        *map(_by_channel, parameters),
        *(_by_channel(gradient.contiguous()) for gradient in gradients),
        *moments,
        rates,
    )


def _by_channel(values: Tensor) -> Tensor:
    """Return amplitudes [K] of one channel as [1, K], and what has two axes as it is."""
    return values[None] if values.ndim == 1 else values


def widen(cholesky: Tensor, spacing: Tensor, narrowest: float) -> None:
    """Widen Gaussians that are narrower than voxels, in place; see `bounds.widen`.

    `spacing` is (dz, dy, dx) on the device, `narrowest` the least sigma in voxels.
    """
    blocks = (blocks_of(len(cholesky), THREADS),)
    launch(gaussian_kernels.widen, blocks, THREADS, cholesky, spacing, np.float32(narrowest))


class Lists:
    """Which Gaussians reach each cell of an image or grid, from their boxes [N, 6, K]."""

    def __init__(self, boxes: Tensor, cell: tuple[int, int, int], shape: Sequence[int]) -> None:
        device = boxes.device
        images, _, count = boxes.shape
        cells = [blocks_of(size, side) for size, side in zip(shape, cell, strict=True)]
        self.lists = whole_numbers(device, images, math.prod(cells), max(count, 1))
        self.counts = torch.zeros((images, math.prod(cells)), dtype=torch.int32, device=device)
        launch(
            cuda_device.list_cells,
            (math.prod(cells) if count else 0, images),
            cuda_device.LISTING_THREADS,
            boxes,
            _constant(tuple(cell), device),
            _constant(tuple(cells), device),
            self.lists,
            self.counts,
        )


@functools.lru_cache(maxsize=1024)
def _constant(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Return a few whole numbers on a device, sent there once."""
    return torch.tensor(numbers, dtype=torch.int32, device=device)
