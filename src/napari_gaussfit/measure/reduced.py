"""Information and score by what is free, where not all parameters of Gaussians are.

The kernels know both by all parameters of a block. Of parameters that are free, of which these
follow, they are J^T F J and J^T g: a few small matrices, made here for all blocks at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit._kernels.cpu.refinement_kernels import SHAPE
from napari_gaussfit.measure.shapes import by_cholesky

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.measure.blocks import Batch, Scene

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

__all__ = ["Reduced", "dark", "hold", "invert", "reduce_to_free", "variances_left"]


@dataclass(frozen=True, eq=False)
class Reduced:
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


def reduce_to_free(scene: Scene, batch: Batch) -> Reduced:
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
    return Reduced(fisher, np.einsum("bpq,bp->bq", jacobian, batch.score), jacobian, rest)


def dark(scene: Scene, batch: Batch, reduced: Reduced) -> Mask:
    """Return which parameters [B, q] are amplitudes of 0 that would be less: they stay."""
    count, channels, n = batch.state.heights.shape
    first = 3 * n * scene.model.moves
    some = slice(first, first + channels * n)
    found = np.zeros((count, reduced.rest), np.bool_)
    found[:, some] = batch.state.heights.reshape(count, -1) <= 0
    return np.asarray(found & (reduced.score[:, : reduced.rest] <= 0), np.bool_)


def variances_left(scene: Scene, batch: Batch, reduced: Reduced) -> Floats:
    """Return by what the variances of scores [B] are more than the information.

    1 where the noise is known. Where it is not, what is left tells how large errors are.
    """
    if scene.poisson:
        return np.ones(len(batch))
    free = np.maximum(batch.looked - reduced.jacobian.shape[2], 1)
    return np.asarray(np.maximum(batch.chi2, 1e-300) / free, np.float64)


def hold(matrix: Floats, held: Mask) -> Floats:
    """Return matrices [.., q, q] in which what is held stands apart."""
    rows, columns = held[..., :, None], held[..., None, :]
    apart = np.where(rows | columns, 0.0, matrix)
    return apart + np.where(held[..., None] & (np.eye(matrix.shape[-1]) > 0), 1.0, 0.0)


def invert(matrix: Floats) -> Floats:
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
