"""A fit at one moment, where it is by then, and what it records along the way."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_gaussfit.model.field import GaussianField

__all__ = ["HISTORY_KEYS", "FinishReason", "FitState", "Snapshot"]


class FitState(StrEnum):
    """Where a fit is; `Fit` draws the diagram."""

    IDLE = "idle"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"


class FinishReason(StrEnum):
    """Why a fit ended."""

    ITERATIONS = "iterations"
    MAX_SECONDS = "max_seconds"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What is shown of a fit while it runs. Anybody may hold it: it shares nothing with the fit.

    Parameters
    ----------
    state : FitState
        State of the fit at that moment.
    iteration, iterations : int
        Number of steps taken, and of those that a whole fit takes.
    seconds : float
        Time spent running, pauses not counted.
    seconds_left : float
        Estimate of the time to the end; NaN before the first step.
    fields : tuple of GaussianField
        The Gaussians of each channel, in raw intensity and the stack's unit.
    loss : float
        Loss of the last step; NaN before the first step.
    held_out_psnr, train_psnr, voxel_psnr : float
        Running PSNRs in dB of held-out views, training views and voxels; NaN where not known yet.
    reason : FinishReason or None
        Reason why the fit ended; None while it goes on.
    """

    state: FitState
    iteration: int
    iterations: int
    seconds: float
    seconds_left: float
    fields: tuple[GaussianField, ...]
    loss: float
    held_out_psnr: float
    train_psnr: float
    voxel_psnr: float
    reason: FinishReason | None = None

    @property
    def field(self) -> GaussianField:
        """The Gaussians of the first channel."""
        return self.fields[0]


HISTORY_KEYS = (
    "iteration",
    "seconds",
    "loss",
    "held_out_psnr",
    "train_psnr",
    "voxel_psnr",
    "gaussians",
    "background",
    "gradient_means",
    "gradient_cholesky",
    "gradient_amplitudes",
    *("mean_z", "mean_y", "mean_x", "mean_width", "mean_amplitude"),
    *("spread_z", "spread_y", "spread_x", "spread_width", "spread_amplitude"),
)
"""What `Fit.history` records, a list each: means and spreads are over the Gaussians."""
