"""What float32 and memory can work with: numbers that kernels and the borders share.

Products of three widths, and squares of their ratios, stay below 3e38. A Gaussian beyond them is
refused where it comes from outside, and is nowhere in a kernel that meets it all the same.
"""

from __future__ import annotations

FARTHEST_MEAN = 1e16
"""From 0, in the field's unit."""

NARROWEST, WIDEST = 1e-12, 1e12
"""Entries of the factor L: the least on its diagonal, and the largest, in the field's unit."""

MOST_ELONGATED = 1e8
"""The largest entry of L, in parts of the least on its diagonal."""

SPACINGS = (1e-9, 1e9)
"""The least and the largest distance of voxels, in the stack's unit."""

LONGEST_SIDE = 1_000_000
"""Voxels along an axis of a stack that a fit may be of."""

BRIGHTEST = 1e36
"""Of amplitudes, backgrounds and voxels, in raw intensity: sums of a few still are float32."""

MOST_HALVED = 16_000_000
"""Cells of a voxel of which each half has a bound of its own; in larger stacks, for memory's sake,
each whole one."""
