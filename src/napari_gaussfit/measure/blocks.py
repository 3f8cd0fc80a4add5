"""Blocks of Gaussians that are refined together, those of one size side by side, as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit._kernels.cpu.block_kernels import informations
from napari_gaussfit._kernels.cpu.information_kernels import PHOTONS
from napari_gaussfit._kernels.cpu.refinement_kernels import (
    FIRST_DAMPING,
    LARGEST_STRETCH,
    LONGEST_MOVE,
    MOST_DAMPING,
    SHAPE,
    some_of,
)
from napari_gaussfit.measure.shapes import parameters_of
from napari_gaussfit.model.gaussians import factors_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit._kernels.cpu.refinement_kernels import Lists
    from napari_gaussfit.measure.shapes import Shapes

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]
    Mask = NDArray[np.bool_]
    Blocks = tuple[Counts, Counts, Lists]

__all__ = [
    "Batch",
    "Model",
    "Scene",
    "State",
    "how_far",
    "how_stretched",
    "information_at",
    "make_batches",
    "moved",
]

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
class Scene:
    """What blocks are refined on: the voxels, the windows, all Gaussians as they are, the noise."""

    voxels: NDArray[np.float32]
    windows: Counts
    gaussians: tuple[Floats, Floats]
    noise: Floats
    farthest: Floats
    model: Model

    @property
    def poisson(self) -> bool:
        """Whether voxels count by what photons say of them."""
        return bool(self.noise[3] == PHOTONS)


@dataclass(frozen=True, eq=False)
class State:
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

    def where(self, which: Mask) -> State:
        """Return some of the blocks."""
        return State(self.centres[which], self.own[which], self.heights[which], self.grounds[which])

    def but(self, which: Mask, other: State) -> State:
        """Return this, but another's blocks where those are asked for."""

        def either(own: Floats, new: Floats) -> Floats:
            return np.where(which.reshape(-1, *[1] * (own.ndim - 1)), new, own)

        return State(
            either(self.centres, other.centres),
            either(self.own, other.own),
            either(self.heights, other.heights),
            either(self.grounds, other.grounds),
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """B blocks of n Gaussians each, and how far they have come.

    numbers : [B], which of all blocks they are. bounds : [B, 6]. members : [B, n].
    others : the Gaussians of other blocks that reach each.
    start : [B, n, 3], centres where they began.
    theta, fisher, score, chi2, looked : at `state`. damping, steps, steady : see `constrained`
    and `shared`.
    """

    numbers: Counts
    bounds: Counts
    members: Counts
    others: Lists
    start: Floats
    state: State
    theta: Floats
    fisher: Floats
    score: Floats
    chi2: Floats
    looked: Floats
    damping: Floats
    steps: Counts
    steady: Mask

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self.numbers)

    @property
    def over(self) -> Mask:
        """Which blocks go no further."""
        return np.asarray(self.steady | (self.damping >= MOST_DAMPING), np.bool_)

    @property
    def blocks(self) -> Blocks:
        """What the kernels know of them."""
        return self.bounds, self.members, self.others

    def where(self, which: Mask) -> Batch:
        """Return some of the blocks."""
        rows = {name: getattr(self, name)[which] for name in _ROWS}
        others = some_of(self.others, np.flatnonzero(which))
        return replace(self, others=others, state=self.state.where(which), **rows)


_ROWS = (
    *("numbers", "bounds", "members", "start", "theta", "fisher", "score", "chi2", "looked"),
    *("damping", "steps", "steady"),
)


def make_batches(
    scene: Scene, bounds: Counts, members: Lists, others: Lists, backgrounds: Floats
) -> list[Batch]:
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
            state = State(
                shapes[at, :3],
                own[at],
                amplitudes[:, at].transpose(1, 0, 2).copy(),
                backgrounds[which],
            )
            made.append(_begun(scene, which, (bounds[which], at, some_of(others, which)), state))
    return made


def _begun(scene: Scene, numbers: Counts, blocks: Blocks, state: State) -> Batch:
    """Return blocks at a state, before the first step."""
    theta = state.theta(scene.model.shapes.floor)
    fisher, score, found = information_at(scene, blocks, theta)
    chi2, looked = found.T
    return Batch(
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


def information_at(
    scene: Scene, blocks: Blocks, theta: Floats, *, spread: bool = False
) -> tuple[Floats, Floats, Floats]:
    """Return information, score, and chi^2 beside voxels looked at, at `theta`."""
    return informations(
        scene.voxels, blocks, scene.windows, scene.gaussians, theta, scene.noise, spread=spread
    )


def how_far(scene: Scene, batch: Batch, rest: Floats) -> Floats:
    """Return how far steps of the rest [B, q] take centres, in what they may go at most [B]."""
    first = 3 * batch.members.shape[1] * scene.model.moves
    return np.asarray(np.abs(rest[:, :first]).max(1, initial=0.0) / LONGEST_MOVE, np.float64)


def how_stretched(scene: Scene, own: Floats, changes: Floats) -> Floats:
    """Return how far changes [.., 3, 3] stretch covariances, in what they may at most [..]."""
    inverse = np.linalg.inv(np.linalg.cholesky(own + scene.model.shapes.floor))
    stretch = np.abs(np.linalg.eigvalsh(inverse @ changes @ inverse.swapaxes(-1, -2)))
    return np.asarray(0.5 * stretch.max(-1) / LARGEST_STRETCH, np.float64)


def moved(scene: Scene, batch: Batch, changes: Floats, rest: Floats) -> State:
    """Return where steps lead that are short enough.

    Parameters
    ----------
    scene : Scene
        What is free, and how far centres may go in all.
    batch : Batch
        The blocks, where they are.
    changes : ndarray, shape [B, n, 3, 3], or one that is broadcast to it
        What is added to the covariances of objects.
    rest : ndarray, shape [B, q]
        Steps of centres, amplitudes and backgrounds.

    Returns
    -------
    State
        No object is below 0, and no amplitude.
    """
    state, shapes = batch.state, scene.model.shapes
    count, channels, n = state.heights.shape
    first = 3 * n * scene.model.moves
    centres = rest[:, :first].reshape(count, n, 3) if first else 0.0
    heights = rest[:, first : first + channels * n].reshape(count, channels, n)
    least, most = batch.start - scene.farthest, batch.start + scene.farthest
    return State(
        np.clip(state.centres + centres, least, most),
        shapes.nearest(state.own + changes),
        np.maximum(state.heights + heights, 0.0),
        state.grounds + rest[:, first + channels * n :],
    )
