"""Whether a fit can be of a stack in the viewer, and whether two sources are the same stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_gaussfit._napari.layers.source import Source
    from napari_gaussfit.fitting.result import FitResult

__all__ = ["is_of", "needs_stack", "path_of", "same_voxels"]

SAME_SPACING = 1e-3
"""Part by which spacings may differ that are said with other digits."""


def is_of(fit: FitResult, source: Source) -> bool:
    """Tell whether a fit can be of a stack: by size, spacing and, where both tell, its place."""
    known, several = source.stack.facts, len(source.stacks) > 1
    close = all(
        abs(one - other) <= SAME_SPACING * other
        for one, other in zip(fit.stack.spacing, known.spacing, strict=True)
    )
    places = [(fit.stack.time, known.time)]
    if not several:
        places.append((fit.stack.channel, known.channel))
    same_place = all(None in (one, other) or one == other for one, other in places)
    alike = fit.stack.shape == known.shape and fit.stack.unit == known.unit
    return alike and close and same_place and len(fit.fields) == len(source.stacks)


def same_voxels(known: Source, source: Source) -> bool:
    """Tell whether two sources hold the very same voxels."""
    return all(
        one.facts == other.facts and np.may_share_memory(one.voxels, other.voxels)
        for one, other in zip(known.stacks, source.stacks, strict=True)
    )


def path_of(source: Source | None) -> str:
    """Return the file of a stack, "" where it has none."""
    return "" if source is None else str(source.layer.source.path or "")


def needs_stack(what: str, fit: FitResult) -> str:
    """Say which stack has to be opened, and for what."""
    size = " x ".join(map(str, fit.stack.shape))
    return f"{what}: open it, {size} voxels (z, y, x), and choose it under Image."
