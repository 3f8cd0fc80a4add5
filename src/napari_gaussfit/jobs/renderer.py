"""What a window that loads no torch has rendered: its questions, and the process that answers.

A question is a `Message` and so is its answer; both stand here, one below the other. On Windows
torch cannot be loaded beside Qt, and elsewhere it would take the window 2 seconds and 200 MB.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from napari_gaussfit.errors import FitError, GaussfitError, SettingsError
from napari_gaussfit.jobs.children import how_it_ended, start_child
from napari_gaussfit.jobs.encoding import (
    facts_from,
    facts_words,
    fields_arrays,
    fields_from,
    fields_words,
    measurement_from,
    measurement_message,
    mips_from,
    mips_message,
    result_from,
    result_message,
    stacks_from,
    stacks_message,
)
from napari_gaussfit.jobs.messages import Message, receive, send
from napari_gaussfit.jobs.object_answers import ObjectAnswers
from napari_gaussfit.jobs.objects import TOLD
from napari_gaussfit.jobs.pictures import MipDrawer, MipPair, ViewChoice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.stacks.facts import StackFacts
    from napari_gaussfit.stacks.stack import Stack

__all__ = [
    "Answers",
    "RemoteDrawer",
    "Renderer",
    "device_words",
    "measured",
    "rendered",
    "sample",
]

_DEVICES: dict[str, dict[str, Any]] = {}
"""What is known of the device of a name."""

ENDING = 5.0
"""Seconds that a process has to end whose pipes are closed."""


class Renderer:
    """A process that answers questions, one after another; it starts with the first.

    Parameters
    ----------
    *stacks : Stack
        What it is told when it starts: the channels that are drawn beside fields, or a stack that
        is asked about; none where no question needs one.
    """

    def __init__(self, *stacks: Stack) -> None:
        self._stacks = stacks
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Renderer:
        """Ask within a block, at whose end the process ends."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self.close()

    def ask(
        self, question: Message, told: Callable[[dict[str, Any]], None] | None = None
    ) -> Message:
        """Return the answer to a question.

        Parameters
        ----------
        question : Message
            One of those that `Answers` knows.
        told : callable, optional
            Hears, in this thread, how far the process is.

        Raises
        ------
        FitError
            If the process could not answer, or was closed meanwhile.
        """
        with self._lock:
            try:
                if self._closed:
                    raise EOFError
                answer = _exchange(self._process or self._start(), question, told)
            except (OSError, EOFError) as error:
                raise FitError(self._obituary()) from error
            if answer.kind == "error":
                self._end()
                raise FitError(answer.words["message"])
            return answer

    def rest(self) -> None:
        """End the process until there is another question."""
        with self._lock:
            self._end()

    def close(self) -> None:
        """End the process at once, also while it works on an answer; it is asked no more."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
        # Who waits for an answer hears at once that there is none.
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[bytes]:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = process = start_child(self._errors)
        if self._closed:
            raise EOFError
        if self._stacks:
            _exchange(process, stacks_message("stacks", self._stacks))
        return process

    def _obituary(self) -> str:
        """Say why there is no answer, and end what is left of the process."""
        process, errors = self._process, self._errors
        if self._closed or process is None or errors is None:
            self._end()
            return "rendering was given up"
        try:
            code = process.wait(ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        how = how_it_ended(code, errors)
        self._end()
        return f"the process that renders {how}; nothing else is lost, try again"

    def _end(self) -> None:
        process, self._process = self._process, None
        errors, self._errors = self._errors, None
        if process is not None:
            process.kill()
            process.communicate()
        if errors is not None:
            errors.close()


def _exchange(
    process: subprocess.Popen[bytes],
    question: Message,
    told: Callable[[dict[str, Any]], None] | None = None,
) -> Message:
    if process.stdin is None or process.stdout is None:
        raise EOFError
    with suppress(OSError):  # It has died; what it said last says why.
        send(process.stdin, question)
    answer = receive(process.stdout)
    while answer.kind == TOLD:
        if told is not None:
            told(answer.words)
        answer = receive(process.stdout)
    return answer


class RemoteDrawer:
    """Draws stacks and fields for views as `MipDrawer` does, in a process that keeps the stacks.

    Parameters
    ----------
    stacks : sequence of Stack
        What is projected beside the fields.
    """

    def __init__(self, stacks: Sequence[Stack]) -> None:
        self._renderer = Renderer(*stacks)

    def draw(self, fields: Sequence[GaussianField], view: ViewChoice) -> MipPair:
        """Return the projections of the stacks and of their fields.

        Raises
        ------
        FitError
            If they cannot be drawn.
        """
        words = {"view": view.to_dict(), "fields": fields_words(fields)}
        return mips_from(self._renderer.ask(Message("draw", words, fields_arrays(fields))))

    def close(self) -> None:
        """End the process."""
        self._renderer.close()


def rendered(fields: Sequence[GaussianField], stack: StackFacts) -> NDArray[np.float32]:
    """Return the voxels of a fit; see `formats.registry.rendered`."""
    words = {"fields": fields_words(fields), "stack": facts_words(stack)}
    with Renderer() as renderer:
        return renderer.ask(Message("render", words, fields_arrays(fields))).arrays["volume"]


def measured(fit: FitResult, stacks: Sequence[Stack], renderer: Renderer) -> FitResult:
    """Return a fit measured on its stack, or its channels; see `FitResult.measured`.

    Raises
    ------
    FitError
        If it cannot be measured, or the renderer was closed meanwhile.
    """
    question = stacks_message("measure", stacks)
    asked = result_message(fit)
    words, arrays = {**asked.words, **question.words}, asked.arrays | question.arrays
    return fit.refined_by(measurement_from(renderer.ask(Message("measure", words, arrays))))


def sample(name: str) -> tuple[Stack, GaussianField]:
    """Return the stack and the true Gaussians of a phantom: neurite, beads, nuclei or spots."""
    with Renderer() as renderer:
        answer = renderer.ask(Message("sample", {"name": name}))
    return stacks_from(answer)[0], fields_from(answer)[0]


def device_words(name: str, renderer: Renderer, *, needed: int) -> str:
    """Say what the device of a name ("auto", "cpu", "cuda") really is, or why it cannot serve.

    Of a GPU also what of its memory is `needed`, in bytes. What it is does not change while napari
    runs, and is asked once; the renderer rests after it.
    """
    if name not in _DEVICES:
        _DEVICES[name] = renderer.ask(Message("device", {"name": name})).words
        renderer.rest()
    known = _DEVICES[name]
    if "memory" not in known:
        return str(known["text"])
    return f"{known['text']}, takes about {needed / 1e9:.2g} of its {known['memory'] / 1e9:.3g} GB."


class Answers:
    """What the process of a `Renderer` answers; it loads torch.

    Parameters
    ----------
    tell : callable
        Sends a message before the answer: how far it is.
    """

    def __init__(self, tell: Callable[[Message], None]) -> None:
        self._objects = ObjectAnswers(tell)
        self._stacks: tuple[Stack, ...] = ()
        self._drawer: MipDrawer | None = None

    def to(self, question: Message) -> Message:
        """Return the answer to a question."""
        answers = {
            "stacks": self._take_stacks,
            "draw": self._draw,
            "render": _render,
            "device": _device,
            "measure": _measure,
            "sample": _sample,
        }
        if question.kind in answers:
            return answers[question.kind](question)
        try:
            if question.kind in self._objects.of_fit:
                return self._objects.of_fit[question.kind](question)
            return self._objects.to[question.kind](question, self._kept)
        except GaussfitError as error:
            raise FitError(str(error)) from error

    def _take_stacks(self, question: Message) -> Message:
        self._stacks, self._drawer = stacks_from(question), None
        return Message("taken")

    @property
    def _kept(self) -> Stack:
        if not self._stacks:
            raise FitError("something of a stack was asked for without it")
        return self._stacks[0]

    def _draw(self, question: Message) -> Message:
        if self._drawer is None:
            self._drawer = MipDrawer(self._stacks)
        view = ViewChoice(**question.words["view"])
        return mips_message(self._drawer.draw(fields_from(question), view))


def _render(question: Message) -> Message:
    from napari_gaussfit.formats import registry

    volume = registry.rendered(fields_from(question), facts_from(question.words["stack"]))
    return Message("volume", {}, {"volume": volume})


def _measure(question: Message) -> Message:
    try:
        found = result_from(question).measured(stacks_from(question)).measurement
    except GaussfitError as error:
        raise FitError(str(error)) from error
    if found is None:
        raise FitError("the fit was not measured")
    return measurement_message(found)


def _device(question: Message) -> Message:
    import torch

    from napari_gaussfit._kernels import backend_name, device_named, fallback

    name = question.words["name"]
    try:
        device = device_named(name)
    except SettingsError as error:
        return Message("device", {"text": f"⚠ {error}"})
    backend = backend_name(device)
    if device.type == "cpu":
        why = fallback(name)
        said = f"Runs on the CPU ({backend})" + ("" if why is None else f"; {why}")
        return Message("device", {"text": f"{said}."})
    gpu = torch.cuda.get_device_properties(device)
    text = f"Runs on {gpu.name} ({backend})"
    return Message("device", {"text": text, "memory": gpu.total_memory})


def _sample(question: Message) -> Message:
    from napari_gaussfit.synthetic import phantoms

    makers: dict[str, Callable[[], phantoms.Phantom]] = {
        "neurite": phantoms.neurite,
        "beads": phantoms.beads,
        "nuclei": phantoms.nuclei,
        "spots": phantoms.spots,
    }
    phantom = makers[question.words["name"]]()
    stack = stacks_message("sample", [phantom.stack])
    words = {**stack.words, "fields": fields_words([phantom.truth])}
    return Message("sample", words, stack.arrays | fields_arrays([phantom.truth]))
