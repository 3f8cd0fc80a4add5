"""Whether a fit has converged, judged by what a few more steps change, which are taken back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np

from napari_gaussfit.settings import Quality

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from napari_gaussfit.settings import FitSettings

__all__ = ["Convergence", "judge"]

MORE_STEPS = 50
"""Number of steps that are tried. Noise and chance move a converged fit's widths by 1 to 4 % in as
many, and by 7 % where Gaussians describe noise, however many there are; those of one that has not
converged by 9 % and more."""

LARGEST_CHANGE = 0.08
"""Largest change of widths, by the logarithm, of a fit that has converged. In 50 steps those of
four beads that a preview leaves 1.3 to 1.8 micrometers wide, where 0.67 is right, change by 0.4,
once found by 0.02; a real dendrite of 2,000 by 0.09 after 150 steps, by 0.02 after 700; 200 on real
beads by 0.15 and 0.06."""

SHARE = 0.25
"""Part of the Gaussians that must change so much before a fit counts as not converged: one of four
objects; of the thousands that make up a structure some always change."""


@dataclass(frozen=True)
class Convergence:
    """Whether a fit has converged, and the evidence.

    Parameters
    ----------
    converged : bool
        True where more steps would leave the fit as it is, but for noise.
    sentence : str
        Sentence on what was found, and on what to do.
    """

    converged: bool
    sentence: str


def judge(changes: ArrayLike, settings: FitSettings, steps: int) -> Convergence:
    """Judge a fit by what `MORE_STEPS` further steps change.

    Parameters
    ----------
    changes : array-like, shape [K]
        Largest change of a width of each Gaussian, by the logarithm.
    settings : FitSettings
        Settings of the fit, which decide what to advise.
    steps : int
        Number of steps taken: fewer than the settings ask for where `max_seconds` ended the fit.

    Returns
    -------
    Convergence
        The verdict; a fit without Gaussians has converged.
    """
    known = np.asarray(changes, np.float64)
    change = float(np.quantile(known, 1 - SHARE, method="higher")) if known.size else 0.0
    percent = f"{float(f'{100 * np.expm1(change):.2g}'):g} %"  # two digits, never as 1.7e+02
    if change <= LARGEST_CHANGE:
        sentence = (
            f"{MORE_STEPS} more steps change the widths of three in four Gaussians by {percent} "
            "or less"
        )
    else:
        sentence = (
            f"{MORE_STEPS} more steps would change the widths of one in four Gaussians by "
            f"{percent} or more; {_more_than(settings, steps)}"
        )
    return Convergence(converged=change <= LARGEST_CHANGE, sentence=sentence)


def _more_than(settings: FitSettings, steps: int) -> str:
    """Return the advice on how to go on."""
    if settings.refine:
        return "refine again"
    if settings.max_seconds is not None and steps < settings.steps:
        return "give it more time (max_seconds), or refine"
    qualities = get_args(Quality)
    better = qualities.index(settings.quality) + 1
    if settings.iterations is not None or better == len(qualities):
        return f"give it more steps than {settings.steps:,} (iterations), or refine"
    return f"fit with quality {qualities[better]}, or refine"
