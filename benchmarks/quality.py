"""Time to a given held-out PSNR: the fit against the plain way, judged by the same code."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.plain import PlainFit, PlainSettings
from benchmarks.stacks import DENDRITE, open_stack
from benchmarks.tables import Cell, Table
from napari_gaussfit import Fit, FitSettings, render
from napari_gaussfit.measure.metrics import psnr
from napari_gaussfit.model.views import Views
from napari_gaussfit.settings import ITERATIONS

if TYPE_CHECKING:
    from benchmarks.options import Options
    from napari_gaussfit.model.field import GaussianField
    from napari_gaussfit.model.projection import Mode
    from napari_gaussfit.settings import Quality
    from napari_gaussfit.stacks.stack import Stack

TARGETS = (50.0, 52.0, 54.5)
"""dB of the held-out MIPs."""

FIT_JUDGED_EVERY, JUDGED_EVERY = 0.25, 10.0
"""Seconds of a fit, and of the plain way, between two judgements: times are known to so much."""

TOLERANCE = 1e-5
"""Below every temperature by far: what is fainter is no part of a soft-MIP."""


@dataclass(frozen=True)
class Moment:
    """How far a way was after `seconds` of its own: PSNR of held-out views, in dB."""

    seconds: float
    steps: int
    psnr: float


class Judge:
    """Mean PSNR over views that neither way trains on; its own time counts for neither."""

    def __init__(self, stack: Stack, views: Views) -> None:
        self._stack = stack
        self._views = [views.view(camera) for camera in views.held_out]

    def psnr(
        self, field: GaussianField, *, mode: Mode = "mip", temperature: float | None = None
    ) -> float:
        """Return the mean PSNR of a field's images in one mode, in dB."""
        found = []
        for view in self._views:
            image = render(
                field,
                view.camera,
                self._stack.box,
                mode=mode,
                temperature=temperature,
                tolerance=TOLERANCE,
            )
            found.append(
                psnr(
                    view.target.numpy(),
                    image.detach().numpy(),
                    self._stack.value_range,
                    view.hit.numpy(),
                )
            )
        return float(np.mean(found))


def run_fit(
    stack: Stack, settings: FitSettings, judge: Judge, *, every: float | None = None
) -> list[Moment]:
    """Fit, and judge after so many seconds and at the end; seeds are part of the time."""
    every = FIT_JUDGED_EVERY if every is None else every
    moments: list[Moment] = []
    for snapshot in Fit(stack, settings):
        due = not moments or snapshot.seconds - moments[-1].seconds >= every
        if due or snapshot.reason:
            found = judge.psnr(snapshot.field)
            moments.append(Moment(snapshot.seconds, snapshot.iteration, found))
    return moments


def run_plain(
    stack: Stack, views: Views, judge: Judge, settings: PlainSettings, seconds: float
) -> tuple[list[Moment], list[Moment]]:
    """Run the plain way for some seconds; its moments by its own soft-MIP and by the exact MIP.

    Its targets are made beforehand, at no cost to it.
    """
    seen = [views.view(camera) for camera in views.training]
    for view in seen:
        _ = view.target  # made when first asked for
    order = np.random.default_rng(settings.seed)
    plain = PlainFit(stack.box, stack.value_range, settings)
    own, exact = [], []
    spent, steps, last = 0.0, 0, -np.inf
    torch.set_flush_denormal(True)  # or exp of a large negative number slows it by a third
    try:
        while True:
            if spent - last >= JUDGED_EVERY or spent >= seconds:
                last = spent
                field = plain.field()
                heat = settings.temperature * plain.range
                by_own = judge.psnr(field, mode="soft-mip", temperature=heat)
                own.append(Moment(spent, steps, by_own))
                exact.append(Moment(spent, steps, judge.psnr(field)))
                if spent >= seconds:
                    return own, exact
            for n in order.permutation(len(seen)):
                began = time.perf_counter()
                plain.step(seen[n])
                spent += time.perf_counter() - began
                steps += 1
                if spent >= seconds or spent - last >= JUDGED_EVERY:
                    break
    finally:
        torch.set_flush_denormal(False)


def measure(options: Options) -> list[Table]:
    """Run both ways on the dendrite, one after the other."""
    stack = open_stack(DENDRITE, small=options.small)
    count = options.pick(DENDRITE.gaussians, 30)
    reference = FitSettings(exactly=True, gaussians=count)
    views = Views(stack, reference.views, reference.held_out)
    judge = Judge(stack, views)
    _compile(stack, count)
    ways: dict[str, list[Moment]] = {}
    qualities: list[Quality] = ["preview", "balanced"]
    for quality in qualities:
        steps = options.pick(ITERATIONS[quality], 4)
        settings = FitSettings(exactly=True, gaussians=count, iterations=steps)
        ways[f"fit, {steps} steps ({quality})"] = run_fit(stack, settings, judge)
    plain = PlainSettings(gaussians=count)
    own, exact = run_plain(stack, views, judge, plain, options.plain_seconds)
    ways["plain way, its own soft-MIP"], ways["plain way, exact MIP of its field"] = own, exact
    rows = tuple(_row(name, moments) for name, moments in ways.items())
    header = ("way", *(f"s to {goal:g} dB" for goal in TARGETS), "best, dB", "s", "steps")
    notes = (
        (
            f"{count:,} Gaussians, {len(views.held_out)} held-out views, pixels whose rays cross "
            "the box; kernels compiled. A fit's time holds its seeds; judging counts for neither, "
            "and the plain way's targets, the stack's own MIPs, not for it."
        ),
        (
            f"The plain way: dense torch soft-MIP at temperature {plain.temperature:g} of the "
            f"range, uniform random start, Adam at {plain.rate:g} for all, one of the same "
            f"{len(views.training)} training views a step; it was given "
            f"{options.plain_seconds:g} s."
        ),
        _comparison(ways, own),
    )
    return [Table("Time to a held-out PSNR: dendrite", header, rows, notes)]


def _compile(stack: Stack, count: int) -> None:
    """Take a few steps, so that compiling is no part of the time."""
    for _ in Fit(stack, FitSettings(exactly=True, gaussians=count, iterations=5)):
        pass


def first_at(moments: list[Moment], goal: float) -> float | None:
    """Seconds after which a PSNR was first reached; None if never."""
    return next((m.seconds for m in moments if m.psnr >= goal), None)


def _row(name: str, moments: list[Moment]) -> tuple[Cell, ...]:
    best = max(m.psnr for m in moments)
    reached = (first_at(moments, goal) for goal in TARGETS)
    return name, *reached, f"{best:.2f}", moments[-1].seconds, moments[-1].steps


def _comparison(ways: dict[str, list[Moment]], own: list[Moment]) -> str:
    """Say how much sooner the fit is at the highest target that it reached."""
    fits = [moments for name, moments in ways.items() if name.startswith("fit")]
    for goal in reversed(TARGETS):
        times = [t for t in (first_at(moments, goal) for moments in fits) if t is not None]
        if not times:
            continue
        plain = first_at(own, goal)
        if plain is not None:
            return f"To {goal:g} dB the fit is {plain / min(times):.0f} times sooner."
        best = max(m.psnr for m in own)
        return (
            f"To {goal:g} dB the fit is more than {own[-1].seconds / min(times):.0f} times sooner: "
            f"the plain way came to {best:.2f} dB in the time that it had."
        )
    return "No target was reached."
