"""Voxels whose noise is known: photons of light that changes slowly."""

from __future__ import annotations

import numpy as np


def light_of(shape: tuple[int, int, int]) -> np.ndarray:
    """Light that changes slowly, from 2 to 200 photons."""
    z, y, x = np.meshgrid(*(np.linspace(0, np.pi, n) for n in shape), indexing="ij")
    return 2 + 198 * (np.sin(z) * np.sin(y) * np.sin(x)) ** 2


def shot(background: float = 20.0) -> np.ndarray:
    """Photons of a stack, over a background."""
    light = light_of((24, 60, 60)) + background - 2
    return np.random.default_rng(2).poisson(light).astype(np.float64)
