"""Gaussians at rest as shown, and the two that a refinement leaves to choose from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.fitting.snapshot import HISTORY_KEYS, FitState, Snapshot
from napari_gaussfit.jobs.job import News

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_gaussfit.fitting.refinement import Comparison
    from napari_gaussfit.jobs.job import FitTask
    from napari_gaussfit.jobs.sequence import SequenceTask

__all__ = ["EDITS", "MEASURING", "Choice", "Version", "opened", "undo_words", "version_of"]

EDITS, MEASURING = "edits", "measuring"
"""What may have been done to Gaussians since their fit."""


def undo_words(done: Iterable[str]) -> str:
    """Say what is taken back of what was done to Gaussians: "undo edits and measuring"."""
    known = {*done}
    return f"undo {' and '.join(one for one in (EDITS, MEASURING) if one in known)}"


@dataclass(frozen=True, eq=False)
class Version:
    """Gaussians at rest.

    Parameters
    ----------
    fit : FitResult
        The record of the fit that found them.
    news : News
        What was known when they came to rest.
    unedited : Version, optional
        Where a person has edited or measured them: as the fit had left them.
    done : tuple of str
        What was done to them since, of `EDITS` and `MEASURING`, the last thing last.
    """

    fit: FitResult
    news: News
    unedited: Version | None = None
    done: tuple[str, ...] = ()

    def edited(self, fit: FitResult) -> Version:
        """Return what was made of these Gaussians by hand; their measures are those no more."""
        return self if fit is self.fit else self._after(fit, EDITS)

    def measured(self, fit: FitResult) -> Version:
        """Return these Gaussians as they were measured."""
        return self._after(fit, MEASURING)

    def _after(self, fit: FitResult, what: str) -> Version:
        snapshot, unknown = self.news.snapshot, float("nan")
        if snapshot is not None:
            snapshot = replace(
                snapshot,
                fields=fit.fields,
                loss=unknown,
                held_out_psnr=unknown,
                train_psnr=unknown,
                voxel_psnr=unknown,
            )
        news = replace(self.news, snapshot=snapshot, mips=None, result=None)
        before = tuple(one for one in self.done if one != what)
        return Version(fit, news, self.unedited or self, (*before, what))


def version_of(task: FitTask | SequenceTask, news: News) -> Version | None:
    """Return what a fit that stands still has found, None where that is nothing.

    Parameters
    ----------
    task : FitTask or SequenceTask
        What was asked of that very fit, whatever the panel's controls say by now; of several times
        it is the first.
    news : News
        The latest of it.
    """
    if news.snapshot is None:
        return None
    facts = task.stacks[0].facts
    fit = news.result or FitResult(
        news.snapshot.fields,
        facts if len(task.stacks) == 1 else replace(facts, channel=None),
        task.settings,
        {key: list(values) for key, values in news.history.items()},
    )
    return Version(fit, news)


def opened(fit: FitResult) -> Version:
    """Return a fit that comes from a file as it is shown: at rest, with what was recorded of it."""
    history = {key: list(fit.history.get(key, ())) for key in HISTORY_KEYS}

    def last(key: str, otherwise: float = math.nan) -> float:
        return history[key][-1] if history[key] else otherwise

    snapshot = Snapshot(
        FitState.FINISHED,
        iteration=int(last("iteration", 0)),
        iterations=max(1, int(last("iteration", 1)), fit.settings.steps if fit.settings else 0),
        seconds=last("seconds"),
        seconds_left=0.0,
        fields=fit.fields,
        loss=last("loss"),
        held_out_psnr=last("held_out_psnr"),
        train_psnr=last("train_psnr"),
        voxel_psnr=last("voxel_psnr"),
    )
    return Version(fit, News(snapshot, result=fit, history=history))


@dataclass(frozen=True, eq=False)
class Choice:
    """Both ends of a refinement, of which one is shown.

    Parameters
    ----------
    before, refined : Version
        What it went on from, and what it came to.
    comparison : Comparison or None
        Of the two on the same held-out views; None where it was ended before it could tell.
    refined_shown : bool
        Which of them is shown.
    """

    before: Version
    refined: Version
    comparison: Comparison | None
    refined_shown: bool

    @classmethod
    def of_better(cls, before: Version, refined: Version) -> Choice:
        """Show the better one; where they were not compared, the one that was there before.

        By their reports where both have one (of several channels they have more): each has the
        figure then that is told of it everywhere.
        """
        comparison = refined.news.comparison
        one = before.fit.reports[:2], refined.fit.reports[:2]
        if comparison is not None and all(len(reports) == 1 for reports in one):
            (was,), (is_now,) = one
            comparison = replace(
                comparison, before=was.heldout_mip_psnr, after=is_now.heldout_mip_psnr
            )
        return cls(before, refined, comparison, comparison is not None and comparison.improved)

    @property
    def shown(self) -> Version:
        """The one that is shown."""
        return self.refined if self.refined_shown else self.before

    def other(self, shown: Version) -> Choice:
        """Show the other one; of the one shown, keep what it is by now."""
        if self.refined_shown:
            return replace(self, refined=shown, refined_shown=False)
        return replace(self, before=shown, refined_shown=True)

    @property
    def words(self) -> str:
        """How the two compare, and which of them is shown."""
        shown = (
            "The refined Gaussians are shown."
            if self.refined_shown
            else ("Those before are shown, nothing of them is lost.")
        )
        if self.comparison is None:
            return f"The refinement ended before it could be compared. {shown}"
        return (
            f"Held-out projections: {self.comparison.before:.1f} dB before, "
            f"{self.comparison.after:.1f} dB refined. {shown}"
        )

    @property
    def offer(self) -> str:
        """What a button that shows the other one is called."""
        return "Undo refine" if self.refined_shown else "Take refined"
