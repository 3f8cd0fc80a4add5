"""Spots as a window that loads no torch asks for them, and what the process answers.

Each question stands above its answer, as each encoder above its decoder. Asking is sending a
`Message` and waiting for another: `jobs.renderer.Renderer.ask` does both.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_gaussfit.jobs.encoding import measurement_from, measurement_message
from napari_gaussfit.jobs.messages import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from numpy.typing import NDArray

    from napari_gaussfit.measure.measurement import Measurement
    from napari_gaussfit.objects.candidates import Candidates
    from napari_gaussfit.stacks.stack import Stack

    Floats = NDArray[np.float64]

__all__ = [
    "TOLD",
    "Asked",
    "FoundSpots",
    "ObjectAnswers",
    "SpotCandidates",
    "SpotsAsked",
    "found_spots",
    "save_spots",
    "spot_candidates",
]

TOLD = "told"
"""The kind of a message before the answer, which says how far that is."""


class Asked(Protocol):
    """Sends a question, and returns its answer."""

    def __call__(
        self, question: Message, told: Callable[[dict[str, Any]], None] | None = None
    ) -> Message:
        """Wait for the answer; `told` hears how far it is."""
        ...


@dataclass(frozen=True, eq=False)
class SpotsAsked:
    """What is asked of a search for spots.

    Parameters
    ----------
    least_size, largest_size : float or None
        FWHM in the stack's unit; None takes what suits the stack.
    false_discoveries : float
        Share of the spots that may be noise.
    points, excluded : ndarray, shape [P, 3]
        z, y, x in the stack's unit: where spots are, and where none is, whatever the noise says.
    """

    least_size: float | None
    largest_size: float | None
    false_discoveries: float
    points: Floats
    excluded: Floats


@dataclass(frozen=True, eq=False)
class FoundSpots:
    """The spots of a stack as they were found.

    Parameters
    ----------
    measurement : Measurement
        A Gaussian each, with its error bars.
    table : DataFrame, K rows
        That of `objects.spots.spots_table`.
    report : dict
        What was asked, assumed and found; JSON types.
    answer : Message
        That they came in, and in which they go to be written.
    """

    measurement: Measurement
    table: pd.DataFrame
    report: dict[str, Any]
    answer: Message


@dataclass(frozen=True, eq=False)
class SpotCandidates:
    """What may be spots, at a rate of false discoveries.

    Parameters
    ----------
    places : ndarray, shape [n, 3]
        z, y, x in voxels, the most certain first.
    widths : ndarray, shape [n]
        FWHM across the optical axis, in the stack's unit.
    scores : ndarray, shape [n]
        In standard deviations of the noise.
    least, largest : float
        FWHM that were looked for.
    threshold : float
        Least score.
    """

    places: Floats
    widths: Floats
    scores: Floats
    least: float
    largest: float
    threshold: float


def spot_candidates(ask: Asked, asked: SpotsAsked) -> SpotCandidates:
    """Return from what a search for spots would begin in the stack that the process keeps.

    Parameters
    ----------
    ask : callable
        Asks the process.
    asked : SpotsAsked
        What is looked for. With the sizes of the question before, the answer comes at once.

    Raises
    ------
    FitError
        If sizes are none, the noise cannot be estimated, or the process was closed meanwhile.
    """
    answer = ask(Message("candidates", _settings_words(asked)))
    words: dict[str, Any] = answer.arrays | answer.words
    return SpotCandidates(**words)


def _settings_words(asked: SpotsAsked) -> dict[str, Any]:
    names = (part.name for part in fields(asked))
    return {name: getattr(asked, name) for name in names if name not in ("points", "excluded")}


def found_spots(
    ask: Asked, asked: SpotsAsked, told: Callable[[dict[str, Any]], None] | None = None
) -> FoundSpots:
    """Return the spots of the stack that the process keeps.

    Parameters
    ----------
    ask : callable
        Asks the process.
    asked : SpotsAsked
        What is looked for.
    told : callable, optional
        Hears after each round how many ``rounds`` and ``spots`` there are.

    Raises
    ------
    FitError
        If a setting is none, or the process was closed meanwhile.
    """
    arrays = {"points": asked.points, "excluded": asked.excluded}
    answer = ask(Message("spots", _settings_words(asked), arrays), told)
    table = _table_from(answer)
    return FoundSpots(measurement_from(answer), table, answer.words["report"], answer)


def save_spots(ask: Asked, found: FoundSpots, kept: NDArray[np.bool_], folder: str) -> None:
    """Write spots as ``napari-gaussfit spots`` does.

    Parameters
    ----------
    ask : callable
        Asks the process that keeps their stack.
    found : FoundSpots
        What was found.
    kept : ndarray of bool, shape [K]
        Which of them are written.
    folder : str
        Made if it is not there; what it has of the same name is replaced.

    Raises
    ------
    FitError
        If it cannot be written.
    """
    words = found.answer.words | {"folder": folder}
    ask(Message("save_spots", words, found.answer.arrays | {"kept": kept}))


def _table_message(table: pd.DataFrame) -> Message:
    numbers = {f"table.{n}": table[name].to_numpy() for n, name in enumerate(table)}
    texts = {key: [*map(str, column)] for key, column in numbers.items() if column.dtype == object}
    arrays = {key: column for key, column in numbers.items() if key not in texts}
    return Message("table", {"columns": [*map(str, table)], "texts": texts}, arrays)


def _table_from(message: Message) -> pd.DataFrame:
    import pandas as pd

    found = message.arrays | message.words["texts"]
    columns = enumerate(message.words["columns"])
    return pd.DataFrame({name: found[f"table.{n}"] for n, name in columns})


class ObjectAnswers:
    """What the process answers to questions on objects.

    Parameters
    ----------
    tell : callable
        Sends a message before the answer: how far it is.
    """

    def __init__(self, tell: Callable[[Message], None]) -> None:
        self._tell = tell
        self._candidates: tuple[Stack, float | None, float | None, Candidates] | None = None
        self.to: dict[str, Callable[[Message, Stack], Message]] = {
            "candidates": self._spot_candidates,
            "spots": self._spots,
            "save_spots": _save_spots,
        }
        """By the kind of the question, given the stack that the process keeps."""

    def _spot_candidates(self, question: Message, stack: Stack) -> Message:
        from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA
        from napari_gaussfit.objects.candidates import candidates
        from napari_gaussfit.objects.halos import within_halos
        from napari_gaussfit.objects.search import COMPANION, HALO

        words = question.words
        key = stack, words["least_size"], words["largest_size"]
        if self._candidates is None or self._candidates[:-1] != key:
            found = candidates(stack, least_size=key[1], largest_size=key[2])
            self._candidates = *key, found
        known = self._candidates[-1]
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
        spots = fit_spots(stack, settings, **question.arrays, told=self._say)
        message = measurement_message(spots.measurement)
        table = _table_message(spots_table(spots, stack.spacing))
        words = message.words | table.words | {"report": spots_report(stack, spots, settings)}
        return Message("spots", words, message.arrays | table.arrays)

    def _say(self, rounds: int, spots: int) -> None:
        self._tell(Message(TOLD, {"rounds": rounds, "spots": spots}))


def _save_spots(question: Message, stack: Stack) -> Message:
    from napari_gaussfit.jobs.folders import write_spots

    kept, words = question.arrays["kept"], question.words
    report = words["report"] | {"spots": int(kept.sum())}
    folder = Path(words["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    [gaussians] = measurement_from(question).gaussians
    write_spots(folder, stack, _table_from(question)[kept], gaussians.select(kept), report)
    return Message("saved")
