"""A result that is kept: what is known of it, and how two stand beside each other. Knows no Qt."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.jobs.session_folder import About, now
from napari_gaussfit.jobs.verdict import held_out_words, verdict_of
from napari_gaussfit.measure.metrics import noise_leaves

if TYPE_CHECKING:
    from datetime import datetime

    from napari.layers import Points

    from napari_gaussfit._napari.layers.source import Source
    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.jobs.versions import Version

__all__ = ["Result", "side_by_side"]


@dataclass(eq=False)
class Result:
    """Gaussians at rest that a viewer keeps, whatever becomes of layers and panel.

    Parameters
    ----------
    version : Version
        As they are now.
    name : str
        What a person calls it.
    kind : str
        "fit", or what else was found.
    source : Source or None
        The stack; None where a file has brought the Gaussians alone.
    points : napari.layers.Points or None
        The layer that a file has brought.
    path : str
        The file of its stack, "" where it has none.
    made : datetime
        When it first came to rest.
    key : str
        The stem of the files in which it is kept.
    """

    version: Version
    name: str
    kind: str = "fit"
    source: Source | None = None
    points: Points | None = None
    path: str = ""
    made: datetime = field(default_factory=now)
    key: str = field(default_factory=lambda: secrets.token_hex(6))

    @property
    def fit(self) -> FitResult:
        """The record."""
        return self.version.fit

    @property
    def quality(self) -> str:
        """How good it is, in words."""
        if self.version.unedited is not None and self.fit.measurement is None:
            return "edited, not judged"
        if self.fit.measurement is not None:
            return "measured"
        return verdict_of(self.fit).words

    @property
    def about(self) -> About:
        """What is kept beside the fit."""
        return About(self.name, self.made.isoformat(), self.path)


def side_by_side(first: Result, second: Result) -> list[tuple[str, str, str]]:
    """Return what there is to say of two results, a row each: what, of the first, of the second."""
    rows = {
        "quality": lambda one: one.quality,
        "Gaussians": lambda one: f"{len(one.fit.field):,}",
        "held-out projections": lambda one: held_out_words(one.fit) or "–",
        "voxels": _voxels,
        "background": lambda one: f"{one.fit.field.background:.4g}",
        "total intensity": _total,
        "steps, time": _effort,
    }
    found = [(what, words(first), words(second)) for what, words in rows.items()]
    alone = [_without_partner(one.fit, other.fit) for one, other in _both_ways(first, second)]
    return [*found, ("centres without one beside", *(f"{count:,}" for count in alone))]  # type: ignore[list-item]


def _both_ways(first: Result, second: Result) -> tuple[tuple[Result, Result], ...]:
    return (first, second), (second, first)


def _voxels(one: Result) -> str:
    if not one.fit.reports:
        return "–"
    report = one.fit.report
    return f"{report.voxel_psnr:.1f} dB{noise_leaves(report.noise_psnr)}"


def _total(one: Result) -> str:
    return f"{one.fit.field.numpy().integrated_intensities().sum():.4g}"


def _effort(one: Result) -> str:
    if not one.fit.reports:
        return "–"
    report = one.fit.report
    return f"{report.iterations:,}, {report.seconds:.1f} s on {report.device}"


def _without_partner(fit: FitResult, other: FitResult) -> int:
    """Return how many Gaussians have no centre of another fit within a standard deviation."""
    from scipy.spatial import cKDTree

    mine, theirs = fit.field.numpy(), other.field.numpy()
    if not len(theirs):
        return len(mine)
    near = cKDTree(theirs.means).query(mine.means)[0]
    return int((near > np.exp(mine.log_widths.mean(axis=1))).sum())
