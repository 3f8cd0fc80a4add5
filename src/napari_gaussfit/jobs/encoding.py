"""What crosses the border of the process that fits: how each thing is sent, and how it is read.

Each encoder stands above its decoder; what one writes the other takes. Names and values are
those of the dataclass itself, so that a field that is added to one travels without a word here.
"""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from napari_gaussfit.fitting.refinement import Comparison
from napari_gaussfit.fitting.result import FitResult
from napari_gaussfit.fitting.snapshot import FinishReason, FitState, Snapshot
from napari_gaussfit.fitting.starting import Follows
from napari_gaussfit.formats import measured
from napari_gaussfit.jobs.job import Descent, FitTask
from napari_gaussfit.jobs.messages import Message
from napari_gaussfit.jobs.pictures import MipPair, ViewChoice
from napari_gaussfit.measure.noise import Noise
from napari_gaussfit.measure.psf import Psf
from napari_gaussfit.measure.report import Report
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.facts import StackFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.measure.measurement import Measurement
    from napari_gaussfit.stacks.stack import Stack

__all__ = [
    "comparison_from",
    "comparison_message",
    "descent_from",
    "descent_message",
    "facts_from",
    "facts_words",
    "fields_arrays",
    "fields_from",
    "fields_words",
    "measurement_from",
    "measurement_message",
    "mips_from",
    "mips_message",
    "result_from",
    "result_message",
    "snapshot_from",
    "snapshot_message",
    "stacks_from",
    "stacks_message",
    "task_from",
    "task_message",
]

FIELD_ARRAYS = ("means", "cholesky", "amplitudes")

MEASURED = "measured."
"""What the arrays of a measurement begin with, beside those of its fit."""


def stacks_message(kind: str, stacks: Sequence[Stack], name: str = "stacks") -> Message:
    """Return a message with a stack, or with several channels, under a name."""
    words = {name: [facts_words(stack.facts) for stack in stacks]}
    return Message(kind, words, {f"{name}.{n}": stack.voxels for n, stack in enumerate(stacks)})


def stacks_from(message: Message, name: str = "stacks") -> tuple[Stack, ...]:
    """Return the stacks that a message carries under a name."""
    from napari_gaussfit.stacks.stack import Stack

    known = [facts_from(words) for words in message.words[name]]
    return tuple(
        Stack(
            message.arrays[f"{name}.{n}"],
            facts.spacing,
            facts.unit,
            facts.name,
            channel=facts.channel,
            time=facts.time,
            origin=facts.origin,
        )
        for n, facts in enumerate(known)
    )


def facts_words(facts: StackFacts) -> dict[str, Any]:
    """Return what a message says of a stack beside its voxels."""
    return asdict(facts)


def facts_from(words: dict[str, Any]) -> StackFacts:
    """Return the facts of a stack that a message carries."""
    lists = {name: tuple(value) for name, value in words.items() if isinstance(value, list)}
    return StackFacts(**(words | lists))


def fields_arrays(fields: Sequence[GaussianField]) -> dict[str, NDArray[Any]]:
    """Return the arrays of the Gaussians of each channel."""
    return {
        f"{n}.{name}": getattr(field.numpy(), name)
        for n, field in enumerate(fields)
        for name in FIELD_ARRAYS
    }


def fields_words(fields: Sequence[GaussianField]) -> list[dict[str, Any]]:
    """Return what a message says of the Gaussians of each channel beside their arrays."""
    names = ("background", "unit", "full_covariance")
    return [{name: getattr(field, name) for name in names} for field in fields]


def fields_from(message: Message) -> tuple[GaussianField, ...]:
    """Return the Gaussians of each channel that a message carries."""
    fields = []
    for n, words in enumerate(message.words["fields"]):
        means, cholesky, amplitudes = (message.arrays[f"{n}.{name}"] for name in FIELD_ARRAYS)
        gaussians = Gaussians(means, cholesky, amplitudes, **words)
        fields.append(GaussianField.from_numpy(gaussians))
    return tuple(fields)


def task_message(task: FitTask) -> Message:
    """Return a message that asks for a fit."""
    message = stacks_message("fit", task.stacks)
    earlier = stacks_message("fit", task.before, "before")
    words, arrays = message.words | earlier.words, message.arrays | earlier.arrays
    words |= {"settings": task.settings.to_dict(), "view": task.view.to_dict()}
    words["psf"] = task.psf and task.psf.to_dict()
    words["noises"] = None if task.follows is None else _noises_words(task.follows)
    if task.start:
        words["fields"] = fields_words(task.start)
        arrays |= fields_arrays(task.start)
    if task.points is not None:
        arrays["points"] = task.points
    return Message(message.kind, words, arrays)


def task_from(message: Message) -> FitTask:
    """Return the fit that a message asks for."""
    return FitTask(
        stacks_from(message),
        FitSettings.from_dict(message.words["settings"]),
        fields_from(message) if "fields" in message.words else (),
        message.arrays.get("points"),
        stacks_from(message, "before"),
        ViewChoice(**message.words["view"]),
        Psf.from_dict(message.words["psf"]) if message.words["psf"] else None,
        _follows_from(message.words["noises"]),
    )


def _noises_words(follows: Follows) -> list[dict[str, float] | None]:
    return [None if noise is None else _finite(asdict(noise)) for noise in follows.noises]


def _finite(values: dict[str, float]) -> dict[str, float]:
    """Return the finite ones of values; others are the default, and JSON has none."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _follows_from(words: list[dict[str, float] | None] | None) -> Follows | None:
    if words is None:
        return None
    return Follows(tuple(None if noise is None else Noise(**noise) for noise in words))


def snapshot_message(snapshot: Snapshot, history: dict[str, list[float]], since: int) -> Message:
    """Return a snapshot, with the history's rows from `since` on."""
    names = [part.name for part in fields(snapshot) if part.name != "fields"]
    words = {name: getattr(snapshot, name) for name in names}
    rows = {key: values[since:] for key, values in history.items()}
    return Message(
        "snapshot",
        {"snapshot": words, "history": rows, "fields": fields_words(snapshot.fields)},
        fields_arrays(snapshot.fields),
    )


def snapshot_from(message: Message) -> tuple[Snapshot, dict[str, list[float]]]:
    """Return the snapshot that a message carries, and the rows of the history that are new."""
    words = dict(message.words["snapshot"])
    state, reason = FitState(words.pop("state")), words.pop("reason")
    snapshot = Snapshot(
        state=state,
        fields=fields_from(message),
        reason=FinishReason(reason) if reason else None,
        **words,
    )
    return snapshot, message.words["history"]


def result_message(result: FitResult) -> Message:
    """Return the record of a fit, without the state that it would go on from."""
    contents = result.contents()
    words = {
        "fields": fields_words(result.fields),
        "stack": facts_words(result.stack),
        "reports": [report.to_dict() for report in result.reports],
        "notes": result.notes,
        **{name: contents[name] for name in ("settings", "history", "psf")},
    }
    arrays = fields_arrays(result.fields)
    if result.measurement is not None:
        words["measurement"], own = measured.measurement_parts(result.measurement)
        arrays |= {MEASURED + name: array for name, array in own.items()}
    return Message("result", words, arrays)


def result_from(message: Message) -> FitResult:
    """Return the record of a fit that a message carries."""
    words = message.words
    own = {name.removeprefix(MEASURED): array for name, array in message.arrays.items()}
    known = words.get("measurement")
    return FitResult(
        fields_from(message),
        facts_from(words["stack"]),
        FitSettings.from_dict(words["settings"]) if words["settings"] else None,
        words["history"],
        tuple(Report.from_dict(report) for report in words["reports"]),
        notes=tuple(words["notes"]),
        measurement=None if known is None else measured.measurement_from(known, own),
        psf=Psf.from_dict(words["psf"]) if words["psf"] else None,
    )


def measurement_message(found: Measurement) -> Message:
    """Return Gaussians that were measured, and what is known of each."""
    return Message("measurement", *measured.measurement_parts(found))


def measurement_from(message: Message) -> Measurement:
    """Return the measurement that a message carries."""
    return measured.measurement_from(message.words, message.arrays)


def mips_message(pair: MipPair) -> Message:
    """Return the two projections of a view."""
    return Message(
        "mips",
        {"view": asdict(pair.view), "pixel": pair.pixel},
        {"data": pair.data, "fit": pair.fit},
    )


def mips_from(message: Message) -> MipPair:
    """Return the projections that a message carries."""
    down, along = message.words["pixel"]
    view = ViewChoice(**message.words["view"])
    return MipPair(view, (down, along), message.arrays["data"], message.arrays["fit"])


def descent_message(descent: Descent) -> Message:
    """Return how Gaussians come from those of the time before."""
    return Message("descent", {}, {"drift": descent.drift, "origins": descent.origins})


def descent_from(message: Message) -> Descent:
    """Return what a message says of where Gaussians come from."""
    return Descent(message.arrays["drift"], message.arrays["origins"])


def comparison_message(comparison: Comparison) -> Message:
    """Return a refinement beside what it went on from."""
    return Message("comparison", asdict(comparison))


def comparison_from(message: Message) -> Comparison:
    """Return the comparison that a message carries."""
    return Comparison(**message.words)
