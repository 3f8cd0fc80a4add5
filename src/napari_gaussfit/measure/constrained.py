"""Fisher scoring of Gaussians that are not free: widths that they share, centres that are known.

What blocks share is solved for by what each leaves of it (Schur's complement), so that the time
grows with their number alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit._kernels.cpu.information_kernels import EVEN
from napari_gaussfit._kernels.cpu.refinement_kernels import (
    FIRST_DAMPING,
    LARGEST_STRETCH,
    LEAST_DAMPING,
    LONGEST_MOVE,
    NOTHING,
    SHAPE,
    STEADY,
)
from napari_gaussfit.measure.block_covariances import find_covariances
from napari_gaussfit.measure.blocks import Scene, State, information_at, make_batches
from napari_gaussfit.measure.reduced import hold, invert, reduce_to_free

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit._kernels.cpu.refinement_kernels import BlockScene
    from napari_gaussfit.measure.blocks import Batch, Model
    from napari_gaussfit.measure.reduced import Reduced

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Mask = NDArray[np.bool_]

__all__ = ["refine_constrained"]


def refine_constrained(
    given: BlockScene, most_steps: int, limits: Floats, *, model: Model
) -> tuple[Floats, Floats, Floats, Floats]:
    """Refine blocks of Gaussians of which not all is free; else as `refine_blocks`.

    Parameters
    ----------
    given : BlockScene
        Where the blocks begin; the backgrounds are changed in place.
    most_steps : int
        Steps of a block at most.
    limits : ndarray, shape [3, 3]
        As `refine_block` takes them; only that of centres counts.
    model : Model
        Which parameters are free, and how they move the shapes.

    Returns
    -------
    tuple of ndarray
        As of `refine_blocks`. Of what is given the covariance is 0. Along what an object has
        nothing of, it is as if that could be less: error bars of narrow objects are no narrower.
    """
    (shapes, amplitudes), noise = given.gaussians, given.noise
    scene = Scene(given.voxels, given.windows, given.gaussians, noise, limits[2], model)
    channels, count = amplitudes.shape
    size = SHAPE + 2 * channels
    after = shapes.copy(), amplitudes.copy()
    found = np.full((count, size, size), np.nan), np.full((count, 3 + channels), np.nan)
    batches = make_batches(scene, given.bounds, given.members, given.others, given.backgrounds)
    for together in [batches] if model.shapes.shared else [[batch] for batch in batches]:
        ended = _refined(scene, together, most_steps)
        if noise[3] == EVEN:  # chi^2 is in the noise's units then
            found_by = (
                information_at(scene, one.blocks, one.theta, spread=True)[2] for one in ended
            )
            ended = [replace(b, chi2=n[:, 0]) for b, n in zip(ended, found_by, strict=True)]
        for batch, covariance in zip(ended, find_covariances(scene, ended), strict=True):
            _put(batch, covariance, after, found)
            given.backgrounds[batch.numbers] = batch.state.grounds
    return (*after, *found)


def _refined(scene: Scene, batches: Sequence[Batch], most_steps: int) -> list[Batch]:
    """Refine blocks; those of one batch each by itself, those of several together.

    A block is `steady` when a step is far shorter than its error bars, which is the last then.
    """
    running = list(batches)
    ended: list[Batch] = []
    for _ in range(most_steps):
        if not running:
            return ended
        stepped = _stepped(scene, running)
        running = []
        for batch in stepped:
            over = batch.over
            if over.any():
                ended.append(batch.where(over))
            if not over.all():
                running.append(batch if not over.any() else batch.where(~over))
    return ended + running


def _stepped(scene: Scene, batches: Sequence[Batch]) -> list[Batch]:
    """Try a step, and return the blocks where that leaves them."""
    shared = scene.model.shapes.shared
    reduced = [reduce_to_free(scene, batch) for batch in batches]
    rests, steps, squares = _solved(scene, batches, reduced)
    last = [_lasts(scene, *parts) for parts in zip(batches, reduced, squares, strict=True)]
    trials = _trials(scene, batches, rests, steps)
    thetas = [trial.theta(scene.model.shapes.floor) for trial in trials]
    found = [
        information_at(scene, batch.blocks, theta)
        for batch, theta in zip(batches, thetas, strict=True)
    ]
    # Half of what slopes at both ends predict together is the gain on a parabola.
    gains = [
        ((theta - batch.theta) * (batch.score + score)).sum(1)
        for batch, theta, (_, score, _) in zip(batches, thetas, found, strict=True)
    ]
    if shared:
        total, every = sum(float(one.sum()) for one in gains), all(one.all() for one in last)
        gains = [np.full(len(one), total) for one in gains]
        last = [np.full(len(one), every) for one in last]
    return [
        _taken(*parts) for parts in zip(batches, trials, thetas, found, gains, last, strict=True)
    ]


def _taken(
    batch: Batch,
    trial: State,
    theta: Floats,
    found: tuple[Floats, Floats, Floats],
    gains: Floats,
    last: Mask,
) -> Batch:
    """Return blocks where they were tried, if that wins, and where they were otherwise."""
    fisher, score, numbers = found
    taken = (gains > 0) | last
    eased = np.maximum(0.1 * batch.damping, LEAST_DAMPING)
    return replace(
        batch,
        state=batch.state.but(taken, trial),
        theta=np.where(taken[:, None], theta, batch.theta),
        fisher=np.where(taken[:, None, None], fisher, batch.fisher),
        score=np.where(taken[:, None], score, batch.score),
        chi2=np.where(taken, numbers[:, 0], batch.chi2),
        damping=np.where(taken, eased, 10.0 * batch.damping),
        steps=batch.steps + 1,
        steady=last,
    )


def _lasts(scene: Scene, batch: Batch, reduced: Reduced, squares: Floats) -> Mask:
    """Return where a step, of these squares in units of error bars, is the last."""
    size = reduced.jacobian.shape[2]
    variance = np.ones(len(batch))
    if not scene.poisson:  # what is left tells how large errors are
        variance = np.maximum(batch.chi2, 1e-300) / np.maximum(batch.looked - size, 1)
    short = squares < STEADY * size * variance
    return np.asarray(short & (batch.damping <= FIRST_DAMPING), np.bool_)


def _dark(scene: Scene, batch: Batch, reduced: Reduced) -> Mask:
    """Return which parameters [B, q] are amplitudes of 0 that would be less: they stay."""
    count, channels, n = batch.state.heights.shape
    first = 3 * n * scene.model.moves
    some = slice(first, first + channels * n)
    dark = np.zeros((count, reduced.rest), np.bool_)
    dark[:, some] = batch.state.heights.reshape(count, -1) <= 0
    return dark & (reduced.score[:, : reduced.rest] <= 0)


def _damped(matrix: Floats, held: Mask, damping: Floats) -> tuple[Floats, Mask]:
    """Return information with its diagonal times 1 + damping, and what is held or not known."""
    diagonal = np.diagonal(matrix, axis1=-2, axis2=-1)
    held = held | (diagonal < NOTHING)
    more = (damping[..., None] * diagonal)[..., None] * np.eye(matrix.shape[-1])
    return hold(matrix + more, held), held


def _solved(
    scene: Scene, batches: Sequence[Batch], reduced: Sequence[Reduced]
) -> tuple[list[Floats], list[Floats], list[Floats]]:
    """Return steps of the rest [B, q] and of shapes [B, n, m], and their squares in error bars."""
    shapes = scene.model.shapes
    eliminated = [_eliminated(scene, *pair) for pair in zip(batches, reduced, strict=True)]
    left = [(fisher, score) for fisher, score, _, _ in eliminated]
    if shapes.shared:
        own = batches[0].state.own[:1, :1]
        fisher = sum((one.sum(0, keepdims=True) for one, _ in left), np.zeros(()))
        score = sum((one.sum(0, keepdims=True) for _, one in left), np.zeros(()))
        common = shapes.step(own, np.asarray(fisher), np.asarray(score))
        steps = [np.broadcast_to(common, (*b.state.own.shape[:2], shapes.freedom)) for b in batches]
    else:
        steps = [
            shapes.step(batch.state.own, *one) for batch, one in zip(batches, left, strict=True)
        ]
    rests, squares = [], []
    for one, step, (_, _, inverse, both) in zip(reduced, steps, eliminated, strict=True):
        flat = (step[:, :1] if shapes.shared else step).reshape(len(step), -1)
        score = one.score[:, : one.rest]
        rests.append(np.einsum("bij,bj->bi", inverse, score - np.einsum("bim,bm->bi", both, flat)))
        pulls = np.concatenate([rests[-1], flat], 1) * one.score
        squares.append(pulls.sum(1))
    return rests, steps, squares


def _eliminated(
    scene: Scene, batch: Batch, reduced: Reduced
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return information and score of shapes when the rest follows them, and how it does.

    That is, the inverse of the rest's information, with which what is held stays, and that of the
    rest with shapes.
    """
    rest, both, shapes = reduced.parts
    q, damping = reduced.rest, batch.damping
    matrix, held = _damped(rest, _dark(scene, batch, reduced), damping)
    inverse = np.nan_to_num(invert(matrix))
    inverse = np.where(held[:, :, None] | held[:, None, :], 0.0, inverse)
    both = np.where(held[..., None], 0.0, both)
    matrix, unknown = _damped(shapes, np.zeros(shapes.shape[:2], np.bool_), damping)
    both = np.where(unknown[:, None], 0.0, both)
    follows = inverse @ both
    score = reduced.score[:, q:] - np.einsum("bqm,bq->bm", follows, reduced.score[:, :q])
    return matrix - both.swapaxes(1, 2) @ follows, np.where(unknown, 0.0, score), inverse, both


def _trials(
    scene: Scene, batches: Sequence[Batch], rests: Sequence[Floats], steps: Sequence[Floats]
) -> list[State]:
    """Return where steps lead, shortened so that no Gaussian moves or stretches too far."""
    model = scene.model
    cut, lengths = [], []
    for batch, rest, step in zip(batches, rests, steps, strict=True):
        state, (count, n) = batch.state, batch.state.centres.shape[:2]
        centres = np.zeros_like(state.centres)
        if model.moves:
            centres = rest[:, : 3 * n].reshape(count, n, 3)
        changes = np.einsum("bkm,mij->bkij", step, model.shapes.directions)
        inverse = np.linalg.inv(np.linalg.cholesky(state.own + model.shapes.floor))
        stretch = np.abs(np.linalg.eigvalsh(inverse @ changes @ inverse.swapaxes(-1, -2)))
        longest = np.maximum(
            np.abs(centres).max((1, 2), initial=0.0) / LONGEST_MOVE,
            0.5 * stretch.max((1, 2), initial=0.0) / LARGEST_STRETCH,
        )
        lengths.append(1 / np.maximum(longest, 1.0))
        cut.append((centres, changes, rest[:, 3 * n * model.moves :]))
    if model.shapes.shared:
        least = min(float(one.min()) for one in lengths)
        lengths = [np.full(len(one), least) for one in lengths]
    return [
        _moved(scene, batch, length, *parts)
        for batch, length, parts in zip(batches, lengths, cut, strict=True)
    ]


def _moved(
    scene: Scene, batch: Batch, length: Floats, centres: Floats, changes: Floats, rest: Floats
) -> State:
    """Return where a step of a length [B] leads."""
    state = batch.state
    count, channels, n = state.heights.shape
    heights = rest[:, : channels * n].reshape(count, channels, n)
    least, most = batch.start - scene.farthest, batch.start + scene.farthest
    return State(
        np.clip(state.centres + length[:, None, None] * centres, least, most),
        scene.model.shapes.nearest(state.own + length[:, None, None, None] * changes),
        np.maximum(state.heights + length[:, None, None] * heights, 0.0),
        state.grounds + length[:, None] * rest[:, channels * n :],
    )


def _put(
    batch: Batch,
    covariances: Floats,
    after: tuple[Floats, Floats],
    found: tuple[Floats, Floats],
) -> None:
    """Write what was found of each Gaussian."""
    count, n = batch.members.shape
    channels = batch.state.grounds.shape[1]
    parameters = batch.theta[:, : SHAPE * n].reshape(count, n, SHAPE)
    freedom = np.maximum(batch.looked - (np.abs(covariances).sum(2) > 0).sum(1), 1)
    steps = np.where(batch.steady, batch.steps, -batch.steps)
    steps[np.isnan(covariances).all((1, 2))] = 0
    for k in range(n):
        at = batch.members[:, k]
        after[0][at] = parameters[:, k]
        after[1][:, at] = batch.state.heights[:, :, k].T
        own = [*range(SHAPE * k, SHAPE * (k + 1))]
        own += [SHAPE * n + c * n + k for c in range(channels)]
        own += [(SHAPE + channels) * n + c for c in range(channels)]
        found[0][at] = covariances[:, own][:, :, own]
        found[1][at, 0], found[1][at, 1], found[1][at, 2] = (
            batch.chi2 / freedom,
            batch.looked,
            steps,
        )
        found[1][at, 3:] = batch.state.grounds
