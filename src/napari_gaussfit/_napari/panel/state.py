"""The line of the state in words: where a fit is, and at rest what is so of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_gaussfit._napari.worker import Phase
from napari_gaussfit.jobs.verdict import held_out_words, verdict_of
from napari_gaussfit.measure.measurement import summary
from napari_gaussfit.measure.metrics import noise_leaves

if TYPE_CHECKING:
    from napari_gaussfit.fitting.result import FitResult

__all__ = ["figures_at_rest", "state_words"]


def state_words(phase: Phase, fit: FitResult | None, notice: str = "") -> tuple[str, bool]:
    """Return what is said of a phase, and whether it is said in doubt.

    Parameters
    ----------
    phase : Phase
        Where the panel is.
    fit : FitResult or None
        The fit that is shown.
    notice : str
        What there is to wait for, or why it failed.
    """
    name = str(phase).capitalize()
    if phase is Phase.FINISHED and fit is not None:
        verdict = verdict_of(fit)
        if not verdict.converged:
            return f"Not converged: {verdict.advice.rstrip('.')}", True
        return f"{name}: {verdict.words}", verdict.doubt
    details = {
        Phase.FAILED: notice,
        Phase.IDLE: notice,
        Phase.STARTING: notice,
        Phase.MEASURING: "each Gaussian is refined by itself; the first time takes a minute",
        Phase.MEASURED: "" if fit is None else summary(fit.measurement),
    }
    detail = details.get(phase, "")
    return (f"{name}: {detail}" if detail else name), False


def figures_at_rest(fit: FitResult) -> str:
    """Return the lines below the bar of a fit with a report, or measured; else nothing."""
    if fit.reports:
        leaves = noise_leaves(fit.report.heldout_noise_psnr)
        first = f"Held-out projections {held_out_words(fit)}{leaves}"
    elif fit.measurement is not None:
        first = "Held-out projections: not compared since Gaussians were measured"
    else:
        return ""
    return f"{first}\nGaussians: {len(fit.field):,}, background {fit.field.background:.4g}"
