"""Whether a refinement is better than the Gaussians that it began with, by held-out views."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_gaussfit.fitting.trainer import Trainer
    from napari_gaussfit.model.field import GaussianField

__all__ = ["Comparer", "Comparison"]

ROUNDING = 1e-4
"""Loss in dB that counts as none: a field is rounded on its way into working units."""


@dataclass(frozen=True)
class Comparison:
    """Mean PSNR of the same held-out views before and after a refinement, in dB.

    Parameters
    ----------
    before : float
        PSNR of the Gaussians that the refinement was given.
    after : float
        PSNR of the refined Gaussians.
    views : int
        Number of views that were compared.
    """

    before: float
    after: float
    views: int

    def __str__(self) -> str:
        """Say which is better, and by how much."""
        figures = f"{self.before:.2f} dB before, {self.after:.2f} dB refined"
        if self.improved:
            return f"refining was no loss: {figures}"
        return f"refining lost, and what it went on from is the better fit: {figures}"

    @property
    def improved(self) -> bool:
        """Whether the refined Gaussians are at least as good as those before, but for rounding."""
        return self.after >= self.before - ROUNDING


class Comparer:
    """Looks at the start of a refinement while that runs, so that its end is compared at once.

    Parameters
    ----------
    trainer : Trainer
        The refinement's trainer, which has the held-out views.
    start : sequence of GaussianField
        Field of each channel that the refinement begins with, in raw intensity.
    """

    def __init__(self, trainer: Trainer, start: Sequence[GaussianField]) -> None:
        self._trainer, self._start = trainer, start
        self._before: dict[int, float] = {}

    def look(self, view: int) -> None:
        """Look at the start from a held-out view, unless that was done.

        Parameters
        ----------
        view : int
            Number of the held-out view, from 0.
        """
        if view not in self._before:
            self._before[view] = self._trainer.view_psnr(self._start, view)

    def compare(self, fields: Sequence[GaussianField], *, seconds: float = math.inf) -> Comparison:
        """Compare with the start on the views looked at so far; on the first if there are none.

        Parameters
        ----------
        fields : sequence of GaussianField
            Refined field of each channel, in raw intensity.
        seconds : float
            Time after which no further view is looked at.

        Returns
        -------
        Comparison
            Both PSNRs, over one view at least.
        """
        if not self._before:
            self.look(0)
        end = time.monotonic() + seconds
        after: dict[int, float] = {}
        for view in self._before:
            if after and time.monotonic() > end:
                break
            after[view] = self._trainer.view_psnr(fields, view)
        before = float(np.mean([self._before[view] for view in after]))
        return Comparison(before, float(np.mean(list(after.values()))), len(after))
