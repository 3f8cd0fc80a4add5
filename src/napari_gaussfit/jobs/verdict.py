"""What is so of a fit, in words, by its own report; the numbers stand behind.

In decibels nobody sees whether a fit is good: what matters is how far it is from what the noise of
its stack leaves to reach.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_gaussfit.measure.measurement import summary
from napari_gaussfit.measure.metrics import noise_leaves
from napari_gaussfit.model.gaussians import counted

if TYPE_CHECKING:
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.measure.report import Report

__all__ = [
    "Verdict",
    "details_of",
    "edited_words",
    "figures_of",
    "held_out_words",
    "verdict_of",
]

SHORT_OF_NOISE = 0.5
"""Decibels below what the noise leaves, in voxels, from which on structure is missing: fits of
phantoms with the right number end 0.1 to 0.4 above, and 0.5 below with about 3 of 5 of it."""

ABOVE_NOISE = 1.0
"""Decibels above it from which on Gaussians describe noise."""

MISSING_SHARE = 0.1
"""Of the noise's power: what may be missing of the structure without being seen in its noise."""

POWER_LAW = 1.5
"""What is missing falls with this power of the number of Gaussians, in phantoms of neurites, nuclei
and spots: from capped fits, it tells the number that the noise carries to a factor of 2.3."""

LEAST_MORE = 1.5
"""By which more Gaussians are at least named where a cap was reached."""

_GROWN, _CAPPED = "more would describe noise", "the cap: the stack would carry more"
"""What a report says of a number that the fit has found itself."""


@dataclass(frozen=True)
class Verdict:
    """What is so of a fit.

    Parameters
    ----------
    words : str
        In a few words, as "limited by noise".
    advice : str
        What that means, and what to do.
    converged : bool
        False where more steps would change the Gaussians.
    doubt : bool
        Whether a person should do something before using the numbers.
    """

    words: str
    advice: str
    converged: bool = True
    doubt: bool = False


def verdict_of(fit: FitResult) -> Verdict:
    """Return what is so of a fit; of several channels, of the worst."""
    if not fit.reports:
        return Verdict(
            "not judged", "It was stopped before its end, or its Gaussians were edited since."
        )
    projections = fit.settings is not None and fit.settings.objective == "mip"
    found = [_verdict_of(report, projections=projections) for report in fit.reports]
    worst = max(found, key=lambda one: (not one.converged, one.doubt))
    if len(set(found)) > 1:
        return replace(worst, advice=f"In channel {found.index(worst)}: {worst.advice}")
    return worst


def _verdict_of(report: Report, *, projections: bool) -> Verdict:
    if report.convergence and not report.converged:
        return Verdict("not converged", f"{report.convergence}.", converged=False, doubt=True)
    reached, left = (
        (report.heldout_mip_psnr, report.heldout_noise_psnr)
        if projections
        else (report.voxel_psnr, report.noise_psnr)
    )
    known = left is not None and not math.isnan(left)
    missing = left - reached if left is not None and known else math.nan
    if report.count_reason == _CAPPED or (
        report.count_reason != _GROWN and missing > SHORT_OF_NOISE
    ):
        return _too_few(report, math.nan if projections else missing)
    if report.count_reason != _GROWN and missing < -ABOVE_NOISE:
        return Verdict(
            "too many Gaussians, some describe noise",
            f"It is {-missing:.1f} dB nearer its noisy stack than the noise allows. "
            'Take fewer, or let the fit count: Gaussians "at most".',
            doubt=True,
        )
    if not known:
        why = f" ({report.noise})" if report.noise else ""
        return Verdict(
            "noise not known",
            f"The stack does not tell its noise{why}, so nothing says how near a fit can come: "
            "look at the residual.",
        )
    return Verdict(
        "limited by noise",
        "What the Gaussians leave of the stack is its noise: more of them would not describe it "
        "better.",
    )


def _too_few(report: Report, missing: float) -> Verdict:
    """Say how many Gaussians would do, where what is missing tells."""
    number = ""
    if not math.isnan(missing):
        number = f"about {_rounded(max(report.gaussians, 1) * _more(missing))}"
    return Verdict(
        f"too few Gaussians{f', {number} would do' if number else ''}",
        "There is structure that the noise does not explain and the Gaussians do not describe: "
        f"allow {number or 'more'} of them.",
        doubt=True,
    )


def _more(missing: float) -> float:
    """Return how many times as many Gaussians bring what is missing, in dB, below the noise."""
    # The power of the structure that is missing, in that of the noise.
    power = max(math.pow(10, missing / 10) - 1.0, 0.0)
    return max(LEAST_MORE, math.pow(power / MISSING_SHARE, 1 / POWER_LAW))


def _rounded(count: float) -> str:
    """Return a number up to the next that has one digit."""
    size = 10 ** math.floor(math.log10(count))
    return f"{math.ceil(count / size) * size:,}"


def held_out_words(fit: FitResult) -> str:
    """Return the one figure by which fits are compared, empty where there is none."""
    return f"{fit.report.heldout_mip_psnr:.1f} dB" if fit.reports else ""


def figures_of(fit: FitResult) -> str:
    """Return the figures of a fit's report in a sentence, empty where it has none."""
    if not fit.reports:
        return ""
    report = fit.report
    views, voxels = (
        noise_leaves(known) for known in (report.heldout_noise_psnr, report.noise_psnr)
    )
    return (
        f"Held-out projections {held_out_words(fit)}{views} and SSIM "
        f"{report.heldout_mip_ssim:.3f}, training {report.train_mip_psnr:.1f} dB, voxels "
        f"{report.voxel_psnr:.1f} dB{voxels}, {report.compression:.0f} times smaller than the "
        "voxels."
    )


def details_of(fit: FitResult) -> str:
    """Return all that is known of how good a fit is, a line each: words first, then numbers."""
    if not fit.reports and fit.measurement is None:
        return edited_words(fit, len(fit.field))
    first = _counted(fit, len(fit.field))
    if fit.measurement is not None:
        known = summary(fit.measurement)
        return f"{first}\nMeasured: {known}. A table (*.csv) has the error bars."
    report, verdict = fit.report, verdict_of(fit)
    lines = [first, f"{_capital(verdict.words)}. {verdict.advice}", figures_of(fit)]
    if report.convergence and report.converged:
        lines.append(f"Converged: {report.convergence}.")
    lines += [f"Noise: {report.noise}."] if report.noise else []
    lines += [f"{_capital(note)}." for note in report.notes]
    return "\n".join(lines)


def edited_words(fit: FitResult, count: int) -> str:
    """Say of a fit that it has `count` Gaussians now, which no report is of."""
    first = _counted(replace(fit, reports=()), count)
    return f"{first} No report: the fit was stopped, or edited since."


def _counted(fit: FitResult, count: int) -> str:
    why = f" ({fit.report.count_reason})" if fit.reports and fit.report.count_reason else ""
    return f"{counted(count)}{why} in {fit.stack.name}, lengths in {fit.stack.unit}s."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
