"""A time after another: each begins with the Gaussians of the one before, where they have drifted.

Knows neither files nor who watches, and links nothing: a Gaussian that stays is the same one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.fitting.fit import Fit
from napari_gaussfit.fitting.starting import Follows
from napari_gaussfit.settings import FitSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.stacks.stack import Stack

    Floats = NDArray[np.float64]

__all__ = ["following"]

FOLLOWING = 0.25
"""Of the steps of a first fit, those of the next: they begin as large, and so follow what moves by
some widths; of a moving droplet they reach within 0.4 dB of what a fit of its own does."""


def following(
    stacks: Sequence[Stack],
    before: FitResult,
    settings: FitSettings,
    drift: Floats,
    *,
    points: int = 0,
    follows: Follows | None = None,
) -> Fit:
    """Return a fit that goes on from the time before, to be run.

    Gaussians are added and taken away as the stack's noise carries, unless their number was given:
    `Fit.origins` tells which were there before.

    Parameters
    ----------
    stacks : sequence of Stack
        The channels at this time.
    before : FitResult
        Of the time before, whose point spread function holds here too.
    settings : FitSettings
        Of the first time; this one takes a quarter of its steps, or of its seconds.
    drift : ndarray, shape [3]
        z, y, x in the stacks' unit by which all has moved since.
    points : int, default 0
        Number of Gaussians, the first ones, that began at given points.
    follows : Follows, optional
        What else is known of the time before; what its record tells if None.

    Returns
    -------
    Fit
        Idle.
    """
    shorter = replace(
        settings,
        refine=False,
        iterations=max(1, round(FOLLOWING * settings.steps)),
        max_seconds=None if settings.max_seconds is None else FOLLOWING * settings.max_seconds,
    )
    start = [_moved(field, drift) for field in before.fields]
    at = start[0].numpy().means[:points].astype(np.float64) if points else None
    return Fit(
        stacks,
        shorter,
        start=start,
        points=at,
        psf=before.psf,
        follows=follows or Follows.of(before),
    )


def _moved(field: GaussianField, drift: Floats) -> GaussianField:
    import torch

    return replace(field, means=field.means + torch.as_tensor(drift, dtype=field.means.dtype))
