"""What crosses the border of the process that fits: how each thing is sent, and how it is read.

Each encoder stands above its decoder; what one writes the other takes. Names and values are
those of the dataclass itself, so that a field that is added to one travels without a word here.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from napari_gaussfit.fitting.refinement import Comparison
from napari_gaussfit.fitting.snapshot import FinishReason, FitState, Snapshot
from napari_gaussfit.jobs.job import FitTask
from napari_gaussfit.jobs.messages import Message
from napari_gaussfit.jobs.pictures import MipPair, ViewChoice
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.settings import FitSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.stacks.stack import Stack

__all__ = [
    "comparison_from",
    "comparison_message",
    "field_arrays",
    "field_from",
    "field_words",
    "mips_from",
    "mips_message",
    "snapshot_from",
    "snapshot_message",
    "stack_from",
    "stack_message",
    "task_from",
    "task_message",
]

FIELD_ARRAYS = ("means", "cholesky", "amplitudes")


def stack_message(kind: str, stack: Stack) -> Message:
    """Return a message with a stack."""
    words = {"spacing": stack.spacing, "unit": stack.unit, "name": stack.name}
    return Message(kind, words, {"voxels": stack.voxels})


def stack_from(message: Message) -> Stack:
    """Return the stack that a message carries."""
    from napari_gaussfit.stacks.stack import Stack

    words = message.words
    dz, dy, dx = words["spacing"]
    return Stack(message.arrays["voxels"], (dz, dy, dx), words["unit"], words["name"])


def field_arrays(field: GaussianField, prefix: str = "") -> dict[str, NDArray[Any]]:
    """Return a field's arrays, under their names with a prefix."""
    return {prefix + name: getattr(field.numpy(), name) for name in FIELD_ARRAYS}


def field_words(field: GaussianField) -> dict[str, object]:
    """Return what a message says of a field beside its arrays."""
    return {name: getattr(field, name) for name in ("background", "unit", "full_covariance")}


def field_from(message: Message, prefix: str = "") -> GaussianField:
    """Return the field that a message carries."""
    means, cholesky, amplitudes = (message.arrays[prefix + name] for name in FIELD_ARRAYS)
    words = message.words[prefix + "field"]
    return GaussianField.from_numpy(Gaussians(means, cholesky, amplitudes, **words))


def task_message(task: FitTask) -> Message:
    """Return a message that asks for a fit."""
    message = stack_message("fit", task.stack)
    words, arrays = message.words, message.arrays
    words |= {"settings": task.settings.to_dict(), "view": task.view.to_dict()}
    if task.start is not None:
        words["start.field"] = field_words(task.start)
        arrays |= field_arrays(task.start, "start.")
    if task.points is not None:
        arrays["points"] = task.points
    return message


def task_from(message: Message) -> FitTask:
    """Return the fit that a message asks for."""
    return FitTask(
        stack_from(message),
        FitSettings.from_dict(message.words["settings"]),
        field_from(message, "start.") if "start.means" in message.arrays else None,
        message.arrays.get("points"),
        ViewChoice(**message.words["view"]),
    )


def snapshot_message(snapshot: Snapshot, history: dict[str, list[float]], since: int) -> Message:
    """Return a snapshot, with the history's rows from `since` on."""
    names = [part.name for part in fields(snapshot) if part.name != "field"]
    words = {name: getattr(snapshot, name) for name in names}
    rows = {key: values[since:] for key, values in history.items()}
    return Message(
        "snapshot",
        {"snapshot": words, "history": rows, "field": field_words(snapshot.field)},
        field_arrays(snapshot.field),
    )


def snapshot_from(message: Message) -> tuple[Snapshot, dict[str, list[float]]]:
    """Return the snapshot that a message carries, and the rows of the history that are new."""
    words = dict(message.words["snapshot"])
    state, reason = FitState(words.pop("state")), words.pop("reason")
    snapshot = Snapshot(
        state=state,
        field=field_from(message),
        reason=FinishReason(reason) if reason else None,
        **words,
    )
    return snapshot, message.words["history"]


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


def comparison_message(comparison: Comparison) -> Message:
    """Return a refinement beside what it went on from."""
    return Message("comparison", asdict(comparison))


def comparison_from(message: Message) -> Comparison:
    """Return the comparison that a message carries."""
    return Comparison(**message.words)
