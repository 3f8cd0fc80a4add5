"""What the process of a `Renderer` answers to questions on spots, cells, neurites, and how many."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.jobs.encoding import measurement_from
from napari_gaussfit.jobs.messages import Message
from napari_gaussfit.jobs.objects import (
    NODES,
    TOLD,
    fit_from,
    spots_message,
    table_from,
    table_message,
)
from napari_gaussfit.jobs.outlook import answer_outlook
from napari_gaussfit.jobs.spot_times import SpotTimes

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from numpy.typing import NDArray

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.model.gaussians import Gaussians
    from napari_gaussfit.objects.candidates import CandidateFinder
    from napari_gaussfit.objects.grouping import Grouping, Groups
    from napari_gaussfit.objects.labels import Objects, Painter
    from napari_gaussfit.objects.neurites import Trace
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["ObjectAnswers"]


class ObjectAnswers:
    """What the process answers to questions on what is in a stack or a fit.

    Parameters
    ----------
    tell : callable
        Sends a message before the answer: how far it is.
    """

    def __init__(self, tell: Callable[[Message], None]) -> None:
        self._tell = tell
        self._finder: CandidateFinder | None = None
        self._grouped: tuple[Gaussians, Grouping, Painter] | None = None
        self.to: dict[str, Callable[[Message, Stack], Message]] = {
            "candidates": self._spot_candidates,
            "spots": self._spots,
            "save_spots": _save_spots,
            "outlook": answer_outlook,
        }
        """By the kind of the question, given the stack that the process keeps."""

        self.of_fit: dict[str, Callable[[Message], Message]] = {
            "cells": self._cells,
            "save_cells": self._save_cells,
            "trace": _trace,
            "save_trace": _save_trace,
            "spots_at": SpotTimes().answer,
        }
        """By the kind of the question, which brings its fit, or the stack of a time."""

    def _spot_candidates(self, question: Message, stack: Stack) -> Message:
        from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA
        from napari_gaussfit.objects.candidates import CandidateFinder
        from napari_gaussfit.objects.halos import within_halos
        from napari_gaussfit.objects.rules import COMPANION, HALO

        words = question.words
        if self._finder is None or self._finder.stack is not stack:
            self._finder = CandidateFinder(stack)
        known = self._finder.find(words["least_size"], words["largest_size"])
        threshold = known.threshold(words["false_discoveries"])
        found = known.where(known.scores >= threshold)
        found = found.where(~within_halos(found, HALO, COMPANION))
        sizes = found.sizes
        arrays = {
            "places": found.places,
            "widths": FWHM_PER_SIGMA * sizes.sigmas(found.levels)[:, 2] * stack.spacing[2],
            "scores": found.scores,
        }
        told = {"least": sizes.least, "largest": sizes.largest, "threshold": threshold}
        return Message("candidates", told, arrays)

    def _spots(self, question: Message, stack: Stack) -> Message:
        from napari_gaussfit.jobs.folders import spots_report
        from napari_gaussfit.objects.spots import SpotSettings, fit_spots, spots_table

        settings = SpotSettings(**question.words)
        points, excluded = question.arrays["points"], question.arrays["excluded"]
        spots = fit_spots(stack, settings, points=points, excluded=excluded, told=self._say)
        table = table_message(spots_table(spots, stack.spacing))
        report = spots_report(stack, spots, settings)
        return spots_message(spots.measurement, table, report)

    def _cells(self, question: Message) -> Message:
        labels, groups, objects = self._painted(question, fit_from(question))
        table = table_message(_frame(objects.columns()))
        arrays: dict[str, NDArray[Any]] = {"labels": labels, "of": groups.of}
        return Message("cells", table.words | {"radius": groups.radius}, table.arrays | arrays)

    def _save_cells(self, question: Message) -> Message:
        from napari_gaussfit.jobs.folders import write_cells

        fit = fit_from(question)
        labels, _, objects = self._painted(question, fit)
        write_cells(_folder(question), fit, labels, objects)
        return Message("saved")

    def _painted(
        self, question: Message, fit: FitResult
    ) -> tuple[NDArray[np.int32], Groups, Objects]:
        """Return the objects that are asked for, with what is known of the fit already."""
        from napari_gaussfit.objects.grouping import Grouping, merge, split
        from napari_gaussfit.objects.labels import Painter, measure_objects

        gaussians, stack, words = fit.field.numpy(), fit.stack, question.words
        if not len(gaussians):
            raise SettingsError("the fit has no Gaussians to group")
        if self._grouped is None or not _same_gaussians(self._grouped[0], gaussians):
            grouping = Grouping(gaussians)
            painter = Painter(fit.field, stack.shape, stack.spacing)
            self._grouped = gaussians, grouping, painter
        _, grouping, painter = self._grouped
        if "of" in question.arrays:
            groups = grouping.of(question.arrays["of"].astype(np.intp), words["radius"])
        else:
            groups = grouping.at(words["saddle"])
        if words["merged"]:
            groups = merge(groups, words["merged"])
        if words["split"]:
            groups = split(groups, gaussians, words["split"])
        labels, groups = painter.paint(groups)
        return labels, groups, measure_objects(fit.field, groups, labels, stack.spacing)

    def _say(self, rounds: int, spots: int) -> None:
        self._tell(Message(TOLD, {"rounds": rounds, "spots": spots}))


def _save_spots(question: Message, stack: Stack) -> Message:
    from napari_gaussfit.jobs.folders import write_spots

    kept, words = question.arrays["kept"], question.words
    report = words["report"] | {"spots": int(kept.sum())}
    [gaussians] = measurement_from(question).gaussians
    write_spots(
        _folder(question), stack, table_from(question)[kept], gaussians.select(kept), report
    )
    return Message("saved")


def _trace(question: Message) -> Message:
    found = _traced(question, fit_from(question))
    table = table_message(_frame(found.branches.columns()))
    return Message(
        "trace", table.words, table.arrays | {name: getattr(found, name) for name in NODES}
    )


def _save_trace(question: Message) -> Message:
    from napari_gaussfit.jobs.folders import write_trace

    fit = fit_from(question)
    write_trace(_folder(question), fit, _traced(question, fit))
    return Message("saved")


def _traced(question: Message, fit: FitResult) -> Trace:
    from napari_gaussfit.objects.neurites import SPINE_LENGTH, TraceSettings, trace

    spines = SPINE_LENGTH if fit.stack.unit == "micrometer" else 0.0
    settings = TraceSettings(shortest=question.words["shortest"], spine_length=spines)
    return trace(fit.field.numpy(), fit.stack.box, settings)


def _folder(question: Message) -> Path:
    folder = Path(question.words["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _frame(columns: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns)


def _same_gaussians(one: Gaussians, other: Gaussians) -> bool:
    names = ("means", "cholesky", "amplitudes")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)
