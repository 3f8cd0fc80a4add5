"""Fisher scoring of Gaussians that are not free: widths that they share, centres that are known.

The kernels know the information and the score by all parameters of a block. Of parameters that are
free, of which these follow, they are J^T F J and J^T g: a few small matrices, made here for all
blocks at once. What blocks share is solved for by what each leaves of it (Schur's complement), so
that the time grows with their number alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit._kernels.cpu.block_kernels import informations
from napari_gaussfit._kernels.cpu.information_kernels import EVEN, PHOTONS
from napari_gaussfit._kernels.cpu.refinement_kernels import (
    FIRST_DAMPING,
    LARGEST_STRETCH,
    LEAST_DAMPING,
    LONGEST_MOVE,
    MOST_DAMPING,
    NOTHING,
    SHAPE,
    STEADY,
    WRONG_MODEL,
)
from napari_gaussfit.measure.shapes import by_cholesky, parameters_of
from napari_gaussfit.model.gaussians import factors_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.measure.shapes import Shapes

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Mask = NDArray[np.bool_]
    Lists = tuple[Counts, Counts]
    Blocks = tuple[Counts, Counts, Lists]

__all__ = ["Model", "refine_constrained"]

MOST_NUMBERS = 4_000_000
"""Of a matrix for each block that are solved at once: so many take little memory."""


@dataclass(frozen=True, eq=False)
class Model:
    """What is free of Gaussians.

    Parameters
    ----------
    shapes : Shapes
        Which covariances there may be.
    moves : bool
        Whether the centres are free to move.
    """

    shapes: Shapes
    moves: bool


@dataclass(frozen=True, eq=False)
class _Scene:
    """What blocks are refined on: the voxels, the windows, all Gaussians as they are, the noise."""

    voxels: NDArray[np.float32]
    windows: Counts
    gaussians: tuple[Floats, Floats]
    noise: Floats
    farthest: Floats
    model: Model

    @property
    def poisson(self) -> bool:
        return bool(self.noise[3] == PHOTONS)


@dataclass(frozen=True, eq=False)
class _State:
    """Where B blocks of n Gaussians are.

    centres : [B, n, 3]. own : [B, n, 3, 3], objects' covariances. heights, grounds : [B, C, n] and
    [B, C], amplitudes and backgrounds.
    """

    centres: Floats
    own: Floats
    heights: Floats
    grounds: Floats

    def theta(self, floor: Floats) -> Floats:
        """Return the parameters of blocks [B, P], as the kernels know them."""
        shapes = np.concatenate([self.centres, parameters_of(self.own + floor)], -1)
        count = len(shapes)
        return np.concatenate(
            [shapes.reshape(count, -1), self.heights.reshape(count, -1), self.grounds], 1
        )

    def where(self, which: Mask) -> _State:
        """Return some of the blocks."""
        return _State(
            self.centres[which], self.own[which], self.heights[which], self.grounds[which]
        )

    def but(self, which: Mask, other: _State) -> _State:
        """Return this, but another's blocks where those are asked for."""

        def either(own: Floats, new: Floats) -> Floats:
            return np.where(which.reshape(-1, *[1] * (own.ndim - 1)), new, own)

        return _State(
            either(self.centres, other.centres),
            either(self.own, other.own),
            either(self.heights, other.heights),
            either(self.grounds, other.grounds),
        )


@dataclass(frozen=True, eq=False)
class _Batch:
    """B blocks of n Gaussians each, and how far they have come.

    numbers : [B], which of all blocks they are. bounds : [B, 6]. members : [B, n].
    others : the Gaussians of other blocks that reach each.
    start : [B, n, 3], centres where they began.
    theta, fisher, score, chi2, looked : at `state`. damping, steps, steady : see `_refined`.
    """

    numbers: Counts
    bounds: Counts
    members: Counts
    others: Lists
    start: Floats
    state: _State
    theta: Floats
    fisher: Floats
    score: Floats
    chi2: Floats
    looked: Floats
    damping: Floats
    steps: Counts
    steady: Mask

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def over(self) -> Mask:
        """Which blocks go no further."""
        return np.asarray(self.steady | (self.damping >= MOST_DAMPING), np.bool_)

    @property
    def blocks(self) -> Blocks:
        """What the kernels know of them."""
        return self.bounds, self.members, self.others

    def where(self, which: Mask) -> _Batch:
        """Return some of the blocks."""
        rows = {name: getattr(self, name)[which] for name in _ROWS}
        others = _some(self.others, np.flatnonzero(which))
        return replace(self, others=others, state=self.state.where(which), **rows)


_ROWS = (
    *("numbers", "bounds", "members", "start", "theta", "fisher", "score", "chi2", "looked"),
    *("damping", "steps", "steady"),
)


@dataclass(frozen=True, eq=False)
class _Reduced:
    """Information and score by what is free: q of each block, and of shapes s, the last.

    fisher, score : J^T F J [B, q + s, q + s], and J^T g. jacobian : J [B, P, q + s].
    rest : q. Of what blocks share, each has the part that it knows.
    """

    fisher: Floats
    score: Floats
    jacobian: Floats
    rest: int

    @property
    def parts(self) -> tuple[Floats, Floats, Floats]:
        """Information of the rest, of it with shapes, and of shapes."""
        q = self.rest
        return self.fisher[:, :q, :q], self.fisher[:, :q, q:], self.fisher[:, q:, q:]


def refine_constrained(  # noqa: PLR0913, PLR0917 - those of `refine_blocks`
    voxels: NDArray[np.float32],
    bounds: Counts,
    windows: Counts,
    members: Lists,
    others: Lists,
    before: tuple[Floats, Floats],
    backgrounds: Floats,
    noise: Floats,
    most_steps: int,
    limits: Floats,
    *,
    model: Model,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Refine blocks of Gaussians of which not all is free; else as `refine_blocks`.

    Parameters
    ----------
    voxels, bounds, windows, members, others, before, backgrounds, noise, most_steps, limits
        As for `refine_blocks`; of the limits only that of centres counts.
    model : Model
        Which parameters are free, and how they move the shapes.

    Returns
    -------
    tuple of ndarray
        As of `refine_blocks`. Of what is given the covariance is 0. Along what an object has
        nothing of, it is as if that could be less: error bars of narrow objects are no narrower.
    """
    scene = _Scene(voxels, windows, before, noise, limits[2], model)
    channels, count = before[1].shape
    size = SHAPE + 2 * channels
    after = before[0].copy(), before[1].copy()
    found = np.full((count, size, size), np.nan), np.full((count, 3 + channels), np.nan)
    batches = _batches(scene, bounds, members, others, backgrounds)
    for together in [batches] if model.shapes.shared else [[batch] for batch in batches]:
        ended = _refined(scene, together, most_steps)
        if noise[3] == EVEN:  # chi^2 is in the noise's units then
            found_by = (_informed(scene, one.blocks, one.theta, spread=True)[2] for one in ended)
            ended = [replace(b, chi2=n[:, 0]) for b, n in zip(ended, found_by, strict=True)]
        for batch, covariance in zip(ended, _covariances(scene, ended), strict=True):
            _put(batch, covariance, after, found)
            backgrounds[batch.numbers] = batch.state.grounds
    return (*after, *found)


def _batches(
    scene: _Scene, bounds: Counts, members: Lists, others: Lists, backgrounds: Floats
) -> list[_Batch]:
    """Return blocks by how many Gaussians they have, as they begin."""
    starts, ids = members
    sizes = np.diff(starts)
    shapes, amplitudes = scene.gaussians
    allowed, made = scene.model.shapes, []
    objects = factors_of(shapes[:, 3:])
    own = allowed.nearest(objects @ objects.swapaxes(1, 2) - allowed.floor)
    if allowed.shared and len(own):
        own[:] = allowed.nearest(own[ids].mean(0))
    for n in np.unique(sizes):
        same = np.flatnonzero(sizes == n)
        most = max(1, MOST_NUMBERS // (n * (SHAPE + len(amplitudes))) ** 2)
        for first in range(0, len(same), most):
            which = same[first : first + most]
            at = ids[starts[which][:, None] + np.arange(n)]
            state = _State(
                shapes[at, :3],
                own[at],
                amplitudes[:, at].transpose(1, 0, 2).copy(),
                backgrounds[which],
            )
            made.append(_begun(scene, which, (bounds[which], at, _some(others, which)), state))
    return made


def _begun(scene: _Scene, numbers: Counts, blocks: Blocks, state: _State) -> _Batch:
    """Return blocks at a state, before the first step."""
    theta = state.theta(scene.model.shapes.floor)
    fisher, score, found = _informed(scene, blocks, theta)
    chi2, looked = found.T
    return _Batch(
        numbers,
        *blocks,
        state.centres,
        state,
        theta,
        fisher,
        score,
        chi2,
        looked,
        damping=np.full(len(numbers), FIRST_DAMPING),
        steps=np.zeros(len(numbers), np.int64),
        steady=np.zeros(len(numbers), np.bool_),
    )


def _informed(
    scene: _Scene, blocks: Blocks, theta: Floats, *, spread: bool = False
) -> tuple[Floats, Floats, Floats]:
    """Return information, score, and chi^2 beside voxels looked at, at `theta`."""
    return informations(
        scene.voxels, blocks, scene.windows, scene.gaussians, theta, scene.noise, spread=spread
    )


def _some(lists: Lists, which: Counts) -> Lists:
    """Return those of lists that are asked for."""
    starts, numbers = lists
    parts = [numbers[starts[b] : starts[b + 1]] for b in which]
    ends = np.cumsum([0, *map(len, parts)]).astype(np.int64)
    return ends, np.concatenate(parts) if parts else numbers[:0]


def _refined(scene: _Scene, batches: Sequence[_Batch], most_steps: int) -> list[_Batch]:
    """Refine blocks; those of one batch each by itself, those of several together.

    A block is `steady` when a step is far shorter than its error bars, which is the last then.
    """
    running = list(batches)
    ended: list[_Batch] = []
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


def _stepped(scene: _Scene, batches: Sequence[_Batch]) -> list[_Batch]:
    """Try a step, and return the blocks where that leaves them."""
    shared = scene.model.shapes.shared
    reduced = [_reduced(scene, batch) for batch in batches]
    rests, steps, squares = _solved(scene, batches, reduced)
    last = [_lasts(scene, *parts) for parts in zip(batches, reduced, squares, strict=True)]
    trials = _trials(scene, batches, rests, steps)
    thetas = [trial.theta(scene.model.shapes.floor) for trial in trials]
    found = [
        _informed(scene, batch.blocks, theta) for batch, theta in zip(batches, thetas, strict=True)
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
    batch: _Batch,
    trial: _State,
    theta: Floats,
    found: tuple[Floats, Floats, Floats],
    gains: Floats,
    last: Mask,
) -> _Batch:
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


def _lasts(scene: _Scene, batch: _Batch, reduced: _Reduced, squares: Floats) -> Mask:
    """Return where a step, of these squares in units of error bars, is the last."""
    size = reduced.jacobian.shape[2]
    variance = np.ones(len(batch))
    if not scene.poisson:  # what is left tells how large errors are
        variance = np.maximum(batch.chi2, 1e-300) / np.maximum(batch.looked - size, 1)
    short = squares < STEADY * size * variance
    return np.asarray(short & (batch.damping <= FIRST_DAMPING), np.bool_)


def _reduced(scene: _Scene, batch: _Batch) -> _Reduced:
    """Return information and score by what is free."""
    shapes, state = scene.model.shapes, batch.state
    count, n = state.centres.shape[:2]
    m, moved = shapes.freedom, 3 * scene.model.moves
    lights = batch.theta.shape[1] - SHAPE * n
    rest = n * moved + lights
    jacobian = np.zeros((count, batch.theta.shape[1], rest + m * (1 if shapes.shared else n)))
    covariances = state.own + shapes.floor
    directions = np.broadcast_to(shapes.directions, (count, n, m, 3, 3))
    changes = by_cholesky(covariances, directions)
    for k in range(n):
        at, first = SHAPE * k, rest + m * k * (not shapes.shared)
        jacobian[:, range(at, at + moved), range(moved * k, moved * (k + 1))] = 1.0
        jacobian[:, at + 3 : at + SHAPE, first : first + m] = changes[:, k]
    jacobian[:, range(SHAPE * n, SHAPE * n + lights), range(n * moved, rest)] = 1.0
    fisher = jacobian.swapaxes(1, 2) @ batch.fisher @ jacobian
    return _Reduced(fisher, np.einsum("bpq,bp->bq", jacobian, batch.score), jacobian, rest)


def _dark(scene: _Scene, batch: _Batch, reduced: _Reduced) -> Mask:
    """Return which parameters [B, q] are amplitudes of 0 that would be less: they stay."""
    count, channels, n = batch.state.heights.shape
    first = 3 * n * scene.model.moves
    some = slice(first, first + channels * n)
    dark = np.zeros((count, reduced.rest), np.bool_)
    dark[:, some] = batch.state.heights.reshape(count, -1) <= 0
    return dark & (reduced.score[:, : reduced.rest] <= 0)


def _held(matrix: Floats, held: Mask) -> Floats:
    """Return matrices [.., q, q] in which what is held stands apart."""
    rows, columns = held[..., :, None], held[..., None, :]
    apart = np.where(rows | columns, 0.0, matrix)
    return apart + np.where(held[..., None] & (np.eye(matrix.shape[-1]) > 0), 1.0, 0.0)


def _damped(matrix: Floats, held: Mask, damping: Floats) -> tuple[Floats, Mask]:
    """Return information with its diagonal times 1 + damping, and what is held or not known."""
    diagonal = np.diagonal(matrix, axis1=-2, axis2=-1)
    held = held | (diagonal < NOTHING)
    more = (damping[..., None] * diagonal)[..., None] * np.eye(matrix.shape[-1])
    return _held(matrix + more, held), held


def _inverse(matrix: Floats) -> Floats:
    """Return inverses of positive matrices [.., q, q], of whatever units; NaN where there are none.

    What rounding leaves below 0 has none.
    """
    if not matrix.shape[-1]:
        return matrix
    scale = 1 / np.sqrt(np.maximum(np.diagonal(matrix, axis1=-2, axis2=-1), 1e-300))
    both = scale[..., :, None] * scale[..., None, :]
    scaled = matrix * both
    sound = np.isfinite(scaled).all((-1, -2))
    scaled[~sound] = np.eye(matrix.shape[-1])
    values, vectors = np.linalg.eigh(scaled)
    sound &= values[..., 0] > 1e-13
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (vectors / values[..., None, :]) @ vectors.swapaxes(-1, -2) * both
    found[~sound] = np.nan
    return np.asarray(found, np.float64)


def _solved(
    scene: _Scene, batches: Sequence[_Batch], reduced: Sequence[_Reduced]
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
    scene: _Scene, batch: _Batch, reduced: _Reduced
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return information and score of shapes when the rest follows them, and how it does.

    That is, the inverse of the rest's information, with which what is held stays, and that of the
    rest with shapes.
    """
    rest, both, shapes = reduced.parts
    q, damping = reduced.rest, batch.damping
    matrix, held = _damped(rest, _dark(scene, batch, reduced), damping)
    inverse = np.nan_to_num(_inverse(matrix))
    inverse = np.where(held[:, :, None] | held[:, None, :], 0.0, inverse)
    both = np.where(held[..., None], 0.0, both)
    matrix, unknown = _damped(shapes, np.zeros(shapes.shape[:2], np.bool_), damping)
    both = np.where(unknown[:, None], 0.0, both)
    follows = inverse @ both
    score = reduced.score[:, q:] - np.einsum("bqm,bq->bm", follows, reduced.score[:, :q])
    return matrix - both.swapaxes(1, 2) @ follows, np.where(unknown, 0.0, score), inverse, both


def _trials(
    scene: _Scene, batches: Sequence[_Batch], rests: Sequence[Floats], steps: Sequence[Floats]
) -> list[_State]:
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
    scene: _Scene, batch: _Batch, length: Floats, centres: Floats, changes: Floats, rest: Floats
) -> _State:
    """Return where a step of a length [B] leads."""
    state = batch.state
    count, channels, n = state.heights.shape
    heights = rest[:, : channels * n].reshape(count, channels, n)
    least, most = batch.start - scene.farthest, batch.start + scene.farthest
    return _State(
        np.clip(state.centres + length[:, None, None] * centres, least, most),
        scene.model.shapes.nearest(state.own + length[:, None, None, None] * changes),
        np.maximum(state.heights + length[:, None, None] * heights, 0.0),
        state.grounds + length[:, None] * rest[:, channels * n :],
    )


def _covariances(scene: _Scene, batches: Sequence[_Batch]) -> list[Floats]:
    """Return the covariances [B, P, P] of blocks' parameters, as the kernels know these.

    The inverse of the reduced information H, or where the model does not hold, or nothing is known
    of the noise, the sandwich H^-1 M H^-1 of the scores' variances M. With what blocks share, that
    of a block's own follows from the scores of its own and from what all say of what they share.
    """
    reduced = [_reduced(scene, batch) for batch in batches]
    shared = scene.model.shapes.freedom * scene.model.shapes.shared
    total, spread = np.zeros((shared, shared)), np.zeros((shared, shared))
    parts = []
    for batch, one in zip(batches, reduced, strict=True):
        size = one.score.shape[1] - shared
        own, both = one.fisher[:, :size, :size], one.fisher[:, :size, size:]
        freedom = np.maximum(batch.looked - one.score.shape[1], 1)
        scores = _scores(scene, batch, batch.chi2 / freedom)
        scores = one.jacobian.swapaxes(1, 2) @ scores @ one.jacobian
        unknown = np.diagonal(own, axis1=1, axis2=2) < NOTHING
        inverse = _inverse(_held(own, unknown))
        inverse[unknown] = np.nan
        inverse.swapaxes(1, 2)[unknown] = np.nan
        follows = (np.nan_to_num(inverse) @ both).swapaxes(1, 2)
        # What a block's scores say of what all share, when its own parameters follow.
        by = np.concatenate(
            [-follows, np.broadcast_to(np.eye(shared), (len(own), shared, shared))], 2
        )
        total += (one.fisher[:, size:, size:] - follows @ both).sum(0)
        spread += (by @ scores @ by.swapaxes(1, 2)).sum(0)
        parts.append((inverse, both, scores, by))
    common = _inverse(total)
    return [
        _expanded(one.jacobian, _of_block(*part, common, spread))
        for one, part in zip(reduced, parts, strict=True)
    ]


def _of_block(
    inverse: Floats, both: Floats, scores: Floats, by: Floats, common: Floats, spread: Floats
) -> Floats:
    """Return the covariances of blocks' own parameters and of what they share."""
    count, size, shared = both.shape
    every = np.broadcast_to(common @ spread @ common, (count, shared, shared))
    cross = scores[:, :size] @ by.swapaxes(1, 2) @ common
    middle = scores[:, :size, :size] - cross @ both.swapaxes(1, 2)
    middle += both @ (every @ both.swapaxes(1, 2) - cross.swapaxes(1, 2))
    known, unknown = np.nan_to_num(inverse), np.isnan(inverse)
    lost = np.diagonal(unknown, axis1=1, axis2=2)
    found = np.empty((count, size + shared, size + shared))
    found[:, :size, :size] = np.where(unknown, np.nan, known @ middle @ known)
    between = known @ (cross - both @ every)
    found[:, :size, size:] = np.where(lost[..., None], np.nan, between)
    found[:, size:, :size] = found[:, :size, size:].swapaxes(1, 2)
    found[:, size:, size:] = every
    return found


def _expanded(jacobian: Floats, covariance: Floats) -> Floats:
    """Return J C J^T; NaN of parameters that follow from some that are not known, alone."""
    unknown = np.isnan(np.diagonal(covariance, axis1=1, axis2=2))
    lost = np.einsum("bpq,bq->bp", (jacobian != 0).astype(np.float64), unknown) > 0
    found = jacobian @ np.nan_to_num(covariance) @ jacobian.swapaxes(1, 2)
    return np.where(lost[:, :, None] | lost[:, None, :], np.nan, found)


def _scores(scene: _Scene, batch: _Batch, reduced: Floats) -> Floats:
    """Return what noise makes of the scores [B, P, P], or the information where it is that.

    reduced : the reduced chi^2 [B], which says where it is.
    """
    wrong = reduced > 1 + WRONG_MODEL * np.sqrt(2 / np.maximum(batch.looked, 1))
    if scene.poisson and not wrong.any():
        return batch.fisher
    spread, _, _ = _informed(scene, batch.blocks, batch.theta, spread=True)
    if not scene.poisson:
        return spread
    return np.where(wrong[:, None, None], spread, batch.fisher)


def _put(
    batch: _Batch,
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
