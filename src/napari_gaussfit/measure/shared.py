"""Fisher scoring of blocks of Gaussians whose widths are those of all.

A step of the widths is what all blocks say of them once each block's own parameters follow
(Schur's complement). Everything else is each block's own: how far its steps are trusted
(Levenberg's damping), whether one was good, and whether it is steady. So none holds up others, and
those that never become steady say nothing of the widths in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from napari_gaussfit._kernels.cpu.refinement_kernels import (
    FIRST_DAMPING,
    LEAST_DAMPING,
    MOST_DAMPING,
    NOTHING,
    SHAPE,
    STEADY,
)
from napari_gaussfit.measure.blocks import State, how_far, how_stretched, information_at, moved
from napari_gaussfit.measure.reduced import dark, hold, reduce_to_free, variances_left

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.measure.blocks import Batch, Scene

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

__all__ = ["Told", "refine_shared"]

Told = Callable[[int, int], object]
"""Hears how many Gaussians are steady, of how many."""

T = TypeVar("T", "Batch", State, "_Left")

RENEWALS = 12
"""Steps of the widths after which each block sees all others as they are by then: were they taken
to be as they began, it would make up for what is wrong with them."""

MOST_BENT = 1.5
"""Times what was foreseen that slopes may change along a step, of which 2 is where it wins
nothing."""


@dataclass(frozen=True, eq=False)
class _Left:
    """What B blocks leave of the widths when their own q parameters follow, and how these do.

    Own information is D (V diag(values) V^T + damping) D of unit diagonal, so that one
    decomposition serves any damping.

    scale : [B, q], 1 / D, and 0 of what is held. values, vectors : [B, q] and [B, q, q].
    score : [B, q], of the own. both : [B, q, m], information of the own with the widths.
    widths, slope : [B, m, m] and [B, m], information and score of the widths.
    variance : [B], what noise makes of a score by its information.
    """

    scale: Floats
    values: Floats
    vectors: Floats
    score: Floats
    both: Floats
    widths: Floats
    slope: Floats
    variance: Floats

    def __len__(self) -> int:
        return len(self.scale)

    def solved(self, damping: Floats, right: Floats) -> Floats:
        """Return own parameters [B, q, k] that a damped right-hand side [B, q, k] leads to."""
        turned = self.vectors.swapaxes(1, 2) @ (self.scale[..., None] * right)
        eased = turned / (self.values + damping[:, None])[..., None]
        return np.asarray(self.scale[..., None] * (self.vectors @ eased), np.float64)

    def trusted(self, damping: Floats, longest: Callable[[Floats], Floats]) -> Floats:
        """Return dampings [B], no less, with which steps of the own are no longer than allowed."""
        damping = damping.copy()
        far = np.ones(len(self), np.bool_)
        while far.any():
            steps = self.solved(damping, self.score[..., None])[..., 0]
            far = (longest(steps) > 1) & (damping < MOST_DAMPING)
            damping[far] *= 10.0
        return damping


def _left_by(scene: Scene, batch: Batch) -> _Left:
    """Return what blocks leave of the widths at their state."""
    reduced = reduce_to_free(scene, batch)
    own, both, widths = reduced.parts
    q = reduced.rest
    diagonal = np.diagonal(own, axis1=1, axis2=2)
    held = dark(scene, batch, reduced) | ~(diagonal >= NOTHING)
    scale = np.where(held, 0.0, 1 / np.sqrt(np.where(held, 1.0, diagonal)))
    scaled = hold(np.nan_to_num(own) * scale[:, :, None] * scale[:, None, :], held)
    values, vectors = np.linalg.eigh(scaled)
    return _Left(
        scale,
        np.maximum(values, 0.0),
        vectors,
        reduced.score[:, :q],
        both,
        widths,
        reduced.score[:, q:],
        variances_left(scene, batch, reduced),
    )


class _Course:
    """Blocks on their way, and the widths that they share.

    batches, left : blocks and what they leave, of each size.
    heard : [B] of each, which blocks still say what the widths are.
    damping : Levenberg's, of the widths. steady : whether they have taken their last step.
    """

    def __init__(self, scene: Scene, batches: Sequence[Batch]) -> None:
        self.scene = scene
        self.batches = list(batches)
        self.left = [_left_by(scene, batch) for batch in batches]
        self.heard = [np.ones(len(batch), np.bool_) for batch in batches]
        self.damping, self.steady = FIRST_DAMPING, False
        self.renewals = RENEWALS

    @property
    def counts(self) -> tuple[int, int]:
        """How many Gaussians are steady, of how many."""
        sizes = [batch.members.shape[1] for batch in self.batches]
        steady = sum(
            n * int(batch.steady.sum()) for n, batch in zip(sizes, self.batches, strict=True)
        )
        return steady, sum(n * len(batch) for n, batch in zip(sizes, self.batches, strict=True))

    def turn(self) -> bool:
        """Try a step of all that is not steady; False where that is nothing."""
        step, short = self._common_step()
        rests = short and self.steady
        if rests:
            step = np.zeros_like(step)
        who = [
            heard & (~batch.steady if rests else True)
            for heard, batch in zip(self.heard, self.batches, strict=True)
        ]
        if not any(one.any() for one in who):
            return False
        tried = {
            n: _tried(self.scene, self.batches[n].where(some), _some(self.left[n], some), step)
            for n, some in enumerate(who)
            if some.any()
        }
        good = rests or short or sum(float(one.gains.sum()) for one in tried.values()) > 0
        for n, one in tried.items():
            some, now = who[n], one.ended if good else one.refused
            self.batches[n] = _with(self.batches[n], some, now)
            if good:
                self.left[n] = _with(self.left[n], some, _left_by(self.scene, now))
            self.heard[n] &= self.batches[n].damping < MOST_DAMPING
        if not rests:
            if good and not short and self.renewals:
                self.renewals -= 1
                self._renew()
            self.steady = short
            self.damping = max(0.1 * self.damping, LEAST_DAMPING) if good else 10.0 * self.damping
        return self.damping < MOST_DAMPING

    def hear_the_steady(self) -> bool:
        """Let blocks that are not steady say no more; return whether any has said something."""
        heard = [one & batch.steady for one, batch in zip(self.heard, self.batches, strict=True)]
        fewer = any((one != was).any() for one, was in zip(heard, self.heard, strict=True))
        self.heard = heard
        return fewer

    def _renew(self) -> None:
        """Have each block see where all others are by now."""
        shapes, amplitudes = (one.copy() for one in self.scene.gaussians)
        for batch in self.batches:
            n = batch.members.shape[1]
            shapes[batch.members] = batch.theta[:, : SHAPE * n].reshape(-1, n, SHAPE)
            amplitudes[:, batch.members] = batch.state.heights.transpose(1, 0, 2)
        # Halfway: neighbours that both make up for the same light would take turns without end.
        was = self.scene.gaussians
        halfway = 0.5 * (was[0] + shapes), 0.5 * (was[1] + amplitudes)
        self.scene = replace(self.scene, gaussians=halfway)
        self.batches = [_at(self.scene, batch, batch.state) for batch in self.batches]
        self.left = [_left_by(self.scene, batch) for batch in self.batches]

    def _common_step(self) -> tuple[Floats, bool]:
        """Return the step [m] of the widths, and whether it is far shorter than their errors."""
        scene, shapes = self.scene, self.scene.model.shapes
        m = shapes.freedom
        fisher, slope, spread = np.zeros((m, m)), np.zeros(m), np.zeros((m, m))
        for n, (heard, batch) in enumerate(zip(self.heard, self.batches, strict=True)):
            if not heard.any():
                continue
            left = _some(self.left[n], heard)
            damping = left.trusted(batch.damping[heard], partial(how_far, scene, batch))
            raised = batch.damping.copy()
            raised[heard] = damping
            self.batches[n] = replace(batch, damping=raised)
            known = left.widths - left.both.swapaxes(1, 2) @ left.solved(damping, left.both)
            own = left.solved(damping, left.score[..., None])
            fisher += known.sum(0)
            slope += (left.slope - (left.both.swapaxes(1, 2) @ own)[..., 0]).sum(0)
            spread += (left.variance[:, None, None] * known).sum(0)
        first = next((b for b in self.batches if len(b)), None)
        if first is None or not m or not fisher.any():
            return np.zeros(m), True
        own = first.state.own[:1, :1]
        damped = fisher + self.damping * np.diag(np.diagonal(fisher))
        step = shapes.step(own, damped[None], slope[None])[0, 0]
        pull = fisher @ step
        squares = float(pull @ np.linalg.lstsq(spread, pull, rcond=None)[0])
        short = squares < STEADY * m and self.damping <= FIRST_DAMPING
        changes = np.einsum("m,mij->ij", step, shapes.directions)
        return step / max(float(how_stretched(scene, own[0, 0], changes)), 1.0), short


@dataclass(frozen=True, eq=False)
class _Tried:
    """Blocks where a step led, or as they were, and by how much each has won."""

    ended: Batch
    refused: Batch
    gains: Floats


def _tried(scene: Scene, batch: Batch, left: _Left, step: Floats) -> _Tried:
    """Try a step of the widths and of blocks' own, which stay where theirs makes it worse."""
    own = left.solved(batch.damping, left.score[..., None])[..., 0]
    follows = left.solved(batch.damping, (left.both @ step)[..., None])[..., 0]
    squares = np.einsum("bq,bq->b", own, left.score)
    last = (squares < STEADY * own.shape[1] * left.variance) & (batch.damping <= FIRST_DAMPING)
    rest = own - follows
    rest /= np.maximum(how_far(scene, batch, rest), 1.0)[:, None]
    changes = np.einsum("m,mij->ij", step, scene.model.shapes.directions)
    there = _at(scene, batch, moved(scene, batch, changes, rest))
    gains = _gains(batch, there)
    worse = ~((gains > 0) | last)
    # Where slopes change by far more than foreseen, the next would go too far again.
    moves = there.theta - batch.theta
    foreseen = np.einsum("bp,bpq,bq->b", moves, batch.fisher, moves)
    bent = (moves * (batch.score - there.score)).sum(1)
    harder = worse | ((bent > MOST_BENT * foreseen) & ~last)
    if worse.any():
        there, gains = _or_stay(scene, batch, there, gains, worse, (changes, rest))
    raised, steps = 10.0 * batch.damping, batch.steps + 1
    eased = np.maximum(0.1 * batch.damping, LEAST_DAMPING)
    return _Tried(
        replace(there, damping=np.where(harder, raised, eased), steps=steps, steady=last),
        replace(batch, damping=np.where(harder, raised, batch.damping), steps=steps),
        gains,
    )


def _or_stay(
    scene: Scene,
    batch: Batch,
    there: Batch,
    gains: Floats,
    worse: Mask,
    step: tuple[Floats, Floats],
) -> tuple[Batch, Floats]:
    """Return blocks of which some stay where they are, but for the widths, if that is better."""
    changes, rest = step
    stays = some = batch.where(worse)
    if changes.any():
        stays = _at(scene, some, moved(scene, some, changes, np.zeros_like(rest[worse])))
    won = _gains(some, stays)
    better = np.zeros(len(batch), np.bool_)
    better[worse] = won > gains[worse]
    gains = gains.copy()
    gains[worse] = np.maximum(won, gains[worse])
    return _with(there, better, stays.where(better[worse])), gains


def _gains(before: Batch, after: Batch) -> Floats:
    """Return twice the gain on a parabola, by slopes at both ends."""
    return np.asarray(
        ((after.theta - before.theta) * (before.score + after.score)).sum(1), np.float64
    )


def _at(scene: Scene, batch: Batch, state: State) -> Batch:
    """Return blocks at another state."""
    theta = state.theta(scene.model.shapes.floor)
    fisher, score, numbers = information_at(scene, batch.blocks, theta)
    return replace(batch, state=state, theta=theta, fisher=fisher, score=score, chi2=numbers[:, 0])


def _some(whole: _Left, which: Mask) -> _Left:
    return replace(whole, **{f.name: getattr(whole, f.name)[which] for f in fields(whole)})


def _with(whole: T, which: Mask, part: T) -> T:
    """Return rows of arrays of which some are those of another."""
    made: dict[str, Any] = {}
    for field in fields(whole):
        own, new = getattr(whole, field.name), getattr(part, field.name)
        if isinstance(own, State):
            made[field.name] = _with(own, which, new)
        elif isinstance(own, np.ndarray):
            made[field.name] = own.copy()
            made[field.name][which] = new
    return replace(whole, **made)


def refine_shared(
    scene: Scene,
    batches: Sequence[Batch],
    most_steps: int,
    told: Told | None = None,
) -> list[Batch]:
    """Refine blocks whose widths are those of all.

    Parameters
    ----------
    scene : Scene
        What they are refined on.
    batches : sequence of Batch
        Blocks of each size, as they begin.
    most_steps : int
        Steps of a block at most: in the first half all say what the widths are, then those alone
        that are steady.
    told : callable, optional
        Hears after each step how many Gaussians are steady, of how many.

    Returns
    -------
    list of Batch
        The same blocks where they end. Those that are not steady have no part in the widths.
    """
    course = _Course(scene, batches)
    for _ in range(2):
        for _ in range(most_steps // 2):
            going = course.turn()
            if told is not None:
                told(*course.counts)
            if not going:
                break
        if not course.hear_the_steady():
            break
    return course.batches
