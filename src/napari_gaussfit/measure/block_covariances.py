"""Covariances of blocks' parameters, of which not all are free, and some may be shared by all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit._kernels.cpu.refinement_kernels import NOTHING, WRONG_MODEL
from napari_gaussfit.measure.blocks import information_at
from napari_gaussfit.measure.reduced import hold, invert, reduce_to_free

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.measure.blocks import Batch, Scene

    Floats = NDArray[np.float64]

__all__ = ["find_covariances"]


def find_covariances(scene: Scene, batches: Sequence[Batch]) -> list[Floats]:
    """Return the covariances [B, P, P] of blocks' parameters, as the kernels know these.

    The inverse of the reduced information H, or where the model does not hold, or nothing is known
    of the noise, the sandwich H^-1 M H^-1 of the scores' variances M. With what blocks share, that
    of a block's own follows from the scores of its own and from what all say of what they share.
    """
    reduced = [reduce_to_free(scene, batch) for batch in batches]
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
        inverse = invert(hold(own, unknown))
        inverse[unknown] = np.nan
        inverse.swapaxes(1, 2)[unknown] = np.nan
        follows = (np.nan_to_num(inverse) @ both).swapaxes(1, 2)
        # What a block's scores say of what all share, when its own parameters follow.
        by = np.concatenate(
            [-follows, np.broadcast_to(np.eye(shared), (len(own), shared, shared))], 2
        )
        # One that did not end, or whose own is not known at all, says nothing.
        heard = batch.steady & ~np.isnan(inverse).all((1, 2))
        total += (one.fisher[:, size:, size:] - follows @ both)[heard].sum(0)
        spread += (by @ scores @ by.swapaxes(1, 2))[heard].sum(0)
        parts.append((inverse, both, scores, by))
    common = invert(total)
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


def _scores(scene: Scene, batch: Batch, reduced: Floats) -> Floats:
    """Return what noise makes of the scores [B, P, P], or the information where it is that.

    reduced : the reduced chi^2 [B], which says where it is.
    """
    wrong = reduced > 1 + WRONG_MODEL * np.sqrt(2 / np.maximum(batch.looked, 1))
    if scene.poisson and not wrong.any():
        return batch.fisher
    spread, _, _ = information_at(scene, batch.blocks, batch.theta, spread=True)
    if not scene.poisson:
        return spread
    return np.where(wrong[:, None, None], spread, batch.fisher)
