"""Spots, cells and neurites, as a window that loads no torch asks for them.

Asking is sending a `Message` and waiting for another: `jobs.renderer.Renderer.ask` does both. What
answers is `jobs.object_answers`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_gaussfit.jobs.encoding import (
    facts_from,
    facts_words,
    fields_arrays,
    fields_from,
    fields_words,
    measurement_from,
    measurement_message,
)
from napari_gaussfit.jobs.messages import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from numpy.typing import NDArray

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.measure.measurement import Measurement

    Floats = NDArray[np.float64]

__all__ = [
    "TOLD",
    "Asked",
    "CellsAsked",
    "FoundCells",
    "FoundSpots",
    "FoundTrace",
    "SpotCandidates",
    "SpotsAsked",
    "fit_from",
    "found_cells",
    "found_spots",
    "found_trace",
    "save_cells",
    "save_spots",
    "save_trace",
    "settings_words",
    "spot_candidates",
    "spots_from",
    "spots_message",
    "table_from",
    "table_message",
]

TOLD = "told"
"""The kind of a message before the answer, which says how far that is."""

NODES = "points", "radii", "parents", "branch"
"""What an answer says of the nodes of a trace."""


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
        A row a spot, as `objects.spots.spots_table` makes it.
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
        The least score that the rate of false discoveries admits.
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
        Sends a question to the process that computes, and returns the answer.
    asked : SpotsAsked
        What is looked for. With the sizes of the question before, the answer comes at once.

    Raises
    ------
    FitError
        If sizes are none, the noise cannot be estimated, or the process was closed meanwhile.
    """
    answer = ask(Message("candidates", settings_words(asked)))
    words: dict[str, Any] = answer.arrays | answer.words
    return SpotCandidates(**words)


def settings_words(asked: SpotsAsked) -> dict[str, Any]:
    """Return the settings of what is asked, without its points; JSON types.

    Parameters
    ----------
    asked : SpotsAsked
        What is looked for.
    """
    names = (part.name for part in fields(asked))
    return {name: getattr(asked, name) for name in names if name not in ("points", "excluded")}


def found_spots(
    ask: Asked, asked: SpotsAsked, told: Callable[[dict[str, Any]], None] | None = None
) -> FoundSpots:
    """Return the spots of the stack that the process keeps.

    Parameters
    ----------
    ask : callable
        Sends a question to the process that computes, and returns the answer.
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
    return spots_from(ask(Message("spots", settings_words(asked), arrays), told))


def spots_from(answer: Message) -> FoundSpots:
    """Return the spots that a message carries."""
    return FoundSpots(measurement_from(answer), table_from(answer), answer.words["report"], answer)


def spots_message(measurement: Measurement, table: Message, report: dict[str, Any]) -> Message:
    """Return a message that carries spots; `table` as `table_message` makes it."""
    found = measurement_message(measurement)
    words = found.words | table.words | {"report": report}
    return Message("spots", words, found.arrays | table.arrays)


def save_spots(ask: Asked, found: FoundSpots, kept: NDArray[np.bool_], folder: str) -> None:
    """Write spots as ``napari-gaussfit spots`` does.

    Parameters
    ----------
    ask : callable
        Asks the process that keeps their stack.
    found : FoundSpots
        The spots as the search returned them.
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


@dataclass(frozen=True, eq=False)
class CellsAsked:
    """How the Gaussians of a fit are grouped.

    Parameters
    ----------
    saddle : float
        As in `objects.grouping.GroupSettings`; counts where there are no groups yet.
    of : ndarray of int, shape [K], or None
        The groups that there are: the object of each Gaussian.
    radius : float or None
        Of these; None takes the field's own.
    merged : tuple of int
        Objects of them that become one.
    split : int
        An object of them that becomes several; 0 for none.
    """

    saddle: float
    of: NDArray[np.intp] | None = None
    radius: float | None = None
    merged: tuple[int, ...] = ()
    split: int = 0


@dataclass(frozen=True, eq=False)
class FoundCells:
    """The objects in a fit.

    Parameters
    ----------
    labels : ndarray of int32, shape [Z, Y, X]
        0 where there is no object.
    of : ndarray of int, shape [K]
        The object of each Gaussian, 0 for none.
    table : DataFrame, M rows
        The columns of `objects.labels.Objects`.
    radius : float
        About that of the objects, in the fit's unit.
    """

    labels: NDArray[np.int32]
    of: NDArray[np.intp]
    table: pd.DataFrame
    radius: float


def found_cells(ask: Asked, fit: FitResult, asked: CellsAsked) -> FoundCells:
    """Return the objects in a fit. Of one fit, another share takes a moment.

    Parameters
    ----------
    ask : callable
        Sends a question to the process that computes, and returns the answer.
    fit : FitResult
        Of one channel, or of the first.
    asked : CellsAsked
        How it is grouped.

    Raises
    ------
    FitError
        If it cannot be, or the process was closed meanwhile.
    """
    answer = ask(_cells_question("cells", fit, asked))
    arrays = answer.arrays
    return FoundCells(arrays["labels"], arrays["of"], table_from(answer), answer.words["radius"])


def save_cells(ask: Asked, fit: FitResult, found: FoundCells, folder: str) -> None:
    """Write the objects in a fit as ``napari-gaussfit cells`` does; see `found_cells`.

    Parameters
    ----------
    ask : callable
        Sends a question to the process that computes, and returns the answer.
    fit : FitResult
        The fit whose Gaussians were grouped into objects.
    found : FoundCells
        The objects as the grouping returned them.
    folder : str
        Made if it is not there; what it has of the same name is replaced.
    """
    question = _cells_question("save_cells", fit, CellsAsked(0.0, found.of, found.radius))
    question.words["folder"] = folder
    ask(question)


def _cells_question(kind: str, fit: FitResult, asked: CellsAsked) -> Message:
    words = {part.name: getattr(asked, part.name) for part in fields(asked) if part.name != "of"}
    arrays = {} if asked.of is None else {"of": asked.of}
    return _fit_question(kind, fit, words, arrays)


@dataclass(frozen=True, eq=False)
class FoundTrace:
    """The neurites in a fit.

    Parameters
    ----------
    points : ndarray, shape [N, 3]
        Nodes, z, y, x in the fit's unit.
    radii : ndarray, shape [N]
        In the fit's unit.
    parents : ndarray of int, shape [N]
        The node that each hangs on; -1 for a root.
    branch : ndarray of int, shape [N]
        The row of the table that each node belongs to.
    table : DataFrame, M rows
        The columns of `objects.neurites.Branches`.
    """

    points: Floats
    radii: Floats
    parents: NDArray[np.intp]
    branch: NDArray[np.intp]
    table: pd.DataFrame


def found_trace(ask: Asked, fit: FitResult, shortest: float | None) -> FoundTrace:
    """Return the neurites in a fit.

    Parameters
    ----------
    ask : callable
        Sends a question to the process that computes, and returns the answer.
    fit : FitResult
        Of one channel, or of the first.
    shortest : float or None
        The least length of a branch, in the fit's unit; None takes three of its radii.

    Raises
    ------
    FitError
        If it cannot be traced, or the process was closed meanwhile.
    """
    answer = ask(_fit_question("trace", fit, {"shortest": shortest}, {}))
    points, radii, parents, branch = (answer.arrays[name] for name in NODES)
    return FoundTrace(points, radii, parents, branch, table_from(answer))


def save_trace(ask: Asked, fit: FitResult, shortest: float | None, folder: str) -> None:
    """Write the neurites in a fit as ``napari-gaussfit trace`` does; see `found_trace`.

    Parameters
    ----------
    ask : callable
        Sends a question to the process that computes, and returns the answer.
    fit : FitResult
        The fit whose field is traced.
    shortest : float or None
        The shortest branch that is kept, as it was asked for.
    folder : str
        Made if it is not there; what it has of the same name is replaced.
    """
    ask(_fit_question("save_trace", fit, {"shortest": shortest, "folder": folder}, {}))


def _fit_question(
    kind: str, fit: FitResult, words: dict[str, Any], arrays: dict[str, Any]
) -> Message:
    one = [fit.field]
    known = {"fields": fields_words(one), "stack": facts_words(fit.stack)}
    return Message(kind, known | words, fields_arrays(one) | arrays)


def table_message(table: pd.DataFrame) -> Message:
    """Return a message with a table, whatever its columns hold."""
    numbers = {f"table.{n}": table[name].to_numpy() for n, name in enumerate(table)}
    texts = {key: [*map(str, column)] for key, column in numbers.items() if column.dtype == object}
    arrays = {key: column for key, column in numbers.items() if key not in texts}
    return Message("table", {"columns": [*map(str, table)], "texts": texts}, arrays)


def table_from(message: Message) -> pd.DataFrame:
    """Return the table that a message carries."""
    import pandas as pd

    found = message.arrays | message.words["texts"]
    columns = enumerate(message.words["columns"])
    return pd.DataFrame({name: found[f"table.{n}"] for n, name in columns})


def fit_from(question: Message) -> FitResult:
    """Return the fit that a question brings."""
    from napari_gaussfit.fitting.result import FitResult

    return FitResult(fields_from(question), facts_from(question.words["stack"]))
