"""Fisher scoring of Gaussians that are not free: centres and widths that are known, shapes.

Blocks whose widths are those of all are refined in `shared`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit._kernels.cpu.information_kernels import EVEN
from napari_gaussfit._kernels.cpu.refinement_kernels import (
    FIRST_DAMPING,
    LEAST_DAMPING,
    NOTHING,
    SHAPE,
    STEADY,
)
from napari_gaussfit._threads import in_one_blas_thread
from napari_gaussfit.measure.block_covariances import find_covariances
from napari_gaussfit.measure.blocks import (
    Scene,
    State,
    how_far,
    how_stretched,
    information_at,
    make_batches,
    moved,
)
from napari_gaussfit.measure.reduced import dark, hold, invert, reduce_to_free, variances_left
from napari_gaussfit.measure.shared import refine_shared

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit._kernels.cpu.refinement_kernels import BlockScene
    from napari_gaussfit.measure.blocks import Batch, Model
    from napari_gaussfit.measure.reduced import Reduced
    from napari_gaussfit.measure.shared import Told

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Mask = NDArray[np.bool_]

__all__ = ["refine_constrained"]


@in_one_blas_thread()
def refine_constrained(
    given: BlockScene, most_steps: int, limits: Floats, *, model: Model, told: Told | None = None
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
    told : callable, optional
        Hears after each step how many Gaussians are steady or at their end, of how many.

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
    progress = _Progress(told, sum(batch.members.size for batch in batches))
    for together in [batches] if model.shapes.shared else [[batch] for batch in batches]:
        if model.shapes.shared:
            ended = refine_shared(scene, together, most_steps, told)
        else:
            ended = _refined(scene, together[0], most_steps, progress)
        if noise[3] == EVEN:  # chi^2 is in the noise's units then
            found_by = (
                information_at(scene, one.blocks, one.theta, spread=True)[2] for one in ended
            )
            ended = [replace(b, chi2=n[:, 0]) for b, n in zip(ended, found_by, strict=True)]
        for batch, covariance in zip(ended, find_covariances(scene, ended), strict=True):
            _put(batch, covariance, after, found)
            given.backgrounds[batch.numbers] = batch.state.grounds
    return (*after, *found)


@dataclass(eq=False)
class _Progress:
    """How many Gaussians, of how many, are at their end, and who hears it."""

    told: Told | None
    count: int
    ended: int = 0

    def add(self, batch: Batch) -> None:
        """Count blocks that have ended."""
        self.ended += batch.members.size

    def tell(self) -> None:
        """Say how far it is."""
        if self.told is not None:
            self.told(self.ended, self.count)


def _refined(scene: Scene, batch: Batch, most_steps: int, progress: _Progress) -> list[Batch]:
    """Refine blocks, each by itself.

    A block is `steady` when a step is far shorter than its error bars, which is the last then.
    """
    running = batch
    ended: list[Batch] = []
    for _ in range(most_steps):
        if not len(running):
            return ended
        running = _stepped(scene, running)
        over = running.over
        if over.any():
            ended.append(running.where(over))
            progress.add(ended[-1])
            running = running.where(~over)
        progress.tell()
    progress.add(running)
    return [*ended, running] if len(running) else ended


def _stepped(scene: Scene, batch: Batch) -> Batch:
    """Try a step, and return the blocks where that leaves them."""
    reduced = reduce_to_free(scene, batch)
    rest, step, squares = _solved(scene, batch, reduced)
    last = _lasts(scene, batch, reduced, squares)
    trial = _trial(scene, batch, rest, step)
    theta = trial.theta(scene.model.shapes.floor)
    found = information_at(scene, batch.blocks, theta)
    # Half of what slopes at both ends predict together is the gain on a parabola.
    gains = ((theta - batch.theta) * (batch.score + found[1])).sum(1)
    return _taken(batch, trial, theta, found, gains, last)


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
    short = squares < STEADY * size * variances_left(scene, batch, reduced)
    return np.asarray(short & (batch.damping <= FIRST_DAMPING), np.bool_)


def _damped(matrix: Floats, held: Mask, damping: Floats) -> tuple[Floats, Mask]:
    """Return information with its diagonal times 1 + damping, and what is held or not known."""
    diagonal = np.diagonal(matrix, axis1=-2, axis2=-1)
    held = held | (diagonal < NOTHING)
    more = (damping[..., None] * diagonal)[..., None] * np.eye(matrix.shape[-1])
    return hold(matrix + more, held), held


def _solved(scene: Scene, batch: Batch, reduced: Reduced) -> tuple[Floats, Floats, Floats]:
    """Return steps of the rest [B, q] and of shapes [B, n, m], and their squares in error bars."""
    fisher, left, inverse, both = _eliminated(scene, batch, reduced)
    step = scene.model.shapes.step(batch.state.own, fisher, left)
    flat = step.reshape(len(step), -1)
    score = reduced.score[:, : reduced.rest]
    rest = np.einsum("bij,bj->bi", inverse, score - np.einsum("bim,bm->bi", both, flat))
    pulls = np.concatenate([rest, flat], 1) * reduced.score
    return rest, step, pulls.sum(1)


def _eliminated(
    scene: Scene, batch: Batch, reduced: Reduced
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return information and score of shapes when the rest follows them, and how it does.

    That is, the inverse of the rest's information, with which what is held stays, and that of the
    rest with shapes.
    """
    rest, both, shapes = reduced.parts
    q, damping = reduced.rest, batch.damping
    matrix, held = _damped(rest, dark(scene, batch, reduced), damping)
    inverse = np.nan_to_num(invert(matrix))
    inverse = np.where(held[:, :, None] | held[:, None, :], 0.0, inverse)
    both = np.where(held[..., None], 0.0, both)
    matrix, unknown = _damped(shapes, np.zeros(shapes.shape[:2], np.bool_), damping)
    both = np.where(unknown[:, None], 0.0, both)
    follows = inverse @ both
    score = reduced.score[:, q:] - np.einsum("bqm,bq->bm", follows, reduced.score[:, :q])
    return matrix - both.swapaxes(1, 2) @ follows, np.where(unknown, 0.0, score), inverse, both


def _trial(scene: Scene, batch: Batch, rest: Floats, step: Floats) -> State:
    """Return where a step leads, shortened so that no Gaussian moves or stretches too far."""
    changes = np.einsum("bkm,mij->bkij", step, scene.model.shapes.directions)
    stretched = how_stretched(scene, batch.state.own, changes)
    longest = np.maximum(how_far(scene, batch, rest), stretched.max(1, initial=0.0))
    length = 1 / np.maximum(longest, 1.0)
    return moved(scene, batch, length[:, None, None, None] * changes, length[:, None] * rest)


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
