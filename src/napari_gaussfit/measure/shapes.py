"""Covariances that are not free: which there may be, and which way they may change.

A covariance is a floor and what it is above that, an object's own, which is no less than 0. The
floor is a point spread function, or so small that it is none. An object changes along a few
symmetric matrices, its directions. How far, where it may not become less than 0, is a quadratic
program on a cone: by projected gradients (A. Beck and M. Teboulle, SIAM J. Imaging Sci. 2 (2009)
183), begun anew where they would climb (B. O'Donoghue and E. Candes, Found. Comput. Math. 15 (2015)
715).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.model.gaussians import LOWER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_gaussfit.measure.constraints import Constraints

    Floats = NDArray[np.float64]

__all__ = ["Shapes", "by_cholesky", "parameters_of"]

DIAGONAL = np.array([0, 2, 5])

LEAST_SIGMA = 0.02
"""Voxels: of the floor where there is no point spread function. Nothing that narrow is told from a
voxel."""

MOST_TURNS, STILL = 500, 1e-8
"""Of projected gradients; and the part of a step by which they change it in the end."""


def _without_negative(fisher: Floats) -> Floats:
    """Return information [B, m, m] without what is below 0, where it has no largest likelihood.

    Of Gaussians that are nearly one, rounding leaves such: steps along it grow without end.
    """
    values, vectors = np.linalg.eigh(fisher)
    return np.asarray((vectors * np.maximum(values, 0.0)[:, None, :]) @ vectors.swapaxes(1, 2))


def _units() -> Floats:
    """Return six symmetric matrices of length 1, at right angles to each other."""
    units = np.zeros((6, 3, 3))
    for n, (i, j) in enumerate(zip(*LOWER, strict=True)):
        units[n, i, j] = units[n, j, i] = 1.0 if i == j else np.sqrt(0.5)
    return units


def parameters_of(covariances: Floats) -> Floats:
    """Return the Cholesky parameters of covariances.

    Parameters
    ----------
    covariances : ndarray, shape [..., 3, 3]
        The covariances, positive definite.

    Returns
    -------
    ndarray, shape [..., 6]
        As in `Gaussians.cholesky`.
    """
    found = np.linalg.cholesky(covariances)[..., LOWER[0], LOWER[1]]
    found[..., DIAGONAL] = np.log(found[..., DIAGONAL])
    return np.asarray(found, np.float64)


def by_cholesky(covariances: Floats, directions: Floats) -> Floats:
    """Return how Cholesky parameters change with covariances.

    Of dS the factor's change is dL = L low(L^-1 dS L^-T), where low takes the lower triangle and
    half of the diagonal.

    Parameters
    ----------
    covariances : ndarray, shape [..., 3, 3]
        The covariances at which the derivatives are taken.
    directions : ndarray, shape [..., m, 3, 3]
        Changes of the covariances.

    Returns
    -------
    ndarray, shape [..., 6, m]
        Derivatives.
    """
    factors = np.linalg.cholesky(covariances)[..., None, :, :]
    inverse = np.linalg.inv(factors)
    inner = np.tril(inverse @ directions @ inverse.swapaxes(-1, -2))
    inner[..., range(3), range(3)] *= 0.5
    changes = (factors @ inner)[..., LOWER[0], LOWER[1]]
    diagonal = np.diagonal(factors, axis1=-2, axis2=-1)
    changes[..., DIAGONAL] /= diagonal
    return np.asarray(changes.swapaxes(-1, -2), np.float64)


@dataclass(frozen=True, eq=False)
class Shapes:
    """Which covariances there may be, in voxels.

    Parameters
    ----------
    kind : {"any", "aligned", "sphere", "point", "given"}
        Of objects. The last two do not change.
    shared : bool
        All objects are alike.
    floor : ndarray, shape [3, 3]
        What light makes of a point.
    ball : ndarray, shape [3, 3]
        A sphere's covariance: voxels are no cubes.
    """

    kind: str
    shared: bool
    floor: Floats
    ball: Floats

    @classmethod
    def of(cls, constraints: Constraints, spacing: Floats, unit: str) -> Shapes:
        """Return those that constraints allow.

        Parameters
        ----------
        constraints : Constraints
            What is known of the shapes beforehand.
        spacing : ndarray, shape [3]
            The distance between voxel centres along z, y and x, in the stack's unit.
        unit : str
            The unit of the spacing, and so of all lengths.

        Returns
        -------
        Shapes
            In voxels.
        """
        scale = 1 / spacing
        floor = LEAST_SIGMA**2 * np.eye(3)
        if constraints.psf is not None:
            floor = constraints.psf.in_unit(unit) * scale[:, None] * scale
        return cls(
            "given" if constraints.widths == "given" else constraints.shape,
            constraints.widths == "shared",
            floor,
            np.diag(scale**2) / scale.max() ** 2,
        )

    @property
    def freedom(self) -> int:
        """Along how many directions an object may change."""
        return {"any": 6, "aligned": 3, "sphere": 1}.get(self.kind, 0)

    def nearest(self, own: Floats) -> Floats:
        """Return the objects that there may be which are nearest to some.

        Parameters
        ----------
        own : ndarray, shape [..., 3, 3]
            Covariances above the floor.

        Returns
        -------
        ndarray, shape [..., 3, 3]
            None below 0.
        """
        if self.kind == "given":
            return own
        if self.kind == "point":
            return np.zeros_like(own)
        variances = np.diagonal(own, axis1=-2, axis2=-1)
        if self.kind == "aligned":
            return np.asarray(np.maximum(variances, 0.0)[..., None] * np.eye(3), np.float64)
        if self.kind == "sphere":
            size = np.maximum((variances / np.diagonal(self.ball)).mean(-1), 0.0)
            return np.asarray(size[..., None, None] * self.ball, np.float64)
        factor = np.linalg.cholesky(self.floor)
        inverse = np.linalg.inv(factor)
        values, vectors = np.linalg.eigh(inverse @ own @ inverse.T)
        axes = factor @ vectors
        return np.asarray((axes * np.maximum(values, 0.0)[..., None, :]) @ axes.swapaxes(-1, -2))

    @property
    def directions(self) -> Floats:
        """Symmetric matrices [m, 3, 3] along which objects change, of length 1 in floors."""
        if self.kind == "any":
            factor = np.linalg.cholesky(self.floor)
            return np.asarray(factor @ _units() @ factor.T, np.float64)
        if self.kind == "aligned":
            return np.eye(3)[:, :, None] * np.diag(np.diagonal(self.floor))[:, None, :]
        return self.ball[None][: self.freedom]

    def _along(self, changes: Floats) -> Floats:
        """Return how far changes [..., 3, 3] go along each direction [..., m]."""
        if self.kind == "any":
            inverse = np.linalg.inv(np.linalg.cholesky(self.floor))
            whitened = inverse @ changes @ inverse.T
            return np.asarray(np.einsum("...ij,mij->...m", whitened, _units()), np.float64)
        if self.kind == "aligned":
            variances = np.diagonal(changes, axis1=-2, axis2=-1)
            return np.asarray(variances / np.diagonal(self.floor), np.float64)
        return np.asarray(changes[..., 0, :1] / self.ball[0, 0], np.float64)[..., : self.freedom]

    def step(self, own: Floats, fisher: Floats, score: Floats) -> Floats:
        """Return how far objects go so that a parabola is highest, none below 0.

        Parameters
        ----------
        own : ndarray, shape [B, n, 3, 3]
            B times n objects, as `nearest` gave them.
        fisher : ndarray, shape [B, n m, n m]
            Of the directions of n objects together, positive definite.
        score : ndarray, shape [B, n m]
            Derivatives of the likelihood along the free directions.

        Returns
        -------
        ndarray, shape [B, n, m]
            Along each direction.
        """
        lead = (*own.shape[:2], self.freedom)
        if not self.freedom:
            return np.zeros(lead)
        free = np.linalg.solve(fisher, score[..., None])[..., 0]
        inside = self._allowed(own, free.reshape(lead))
        leaves = np.abs(inside.reshape(free.shape) - free).max(1) > STILL
        found = free
        if leaves.any():
            found[leaves] = self._descended(own[leaves], fisher[leaves], score[leaves])
        return found.reshape(lead)

    def _allowed(self, own: Floats, steps: Floats) -> Floats:
        """Return the steps [B, n, m] nearest to some that leave no object below 0."""
        ends = own + np.einsum("bkm,mij->bkij", steps, self.directions)
        return self._along(self.nearest(ends) - own)

    def _descended(self, own: Floats, fisher: Floats, score: Floats) -> Floats:
        """Return steps [B, n m] by projected gradients."""
        lead = (*own.shape[:2], self.freedom)
        values = np.linalg.eigvalsh(fisher)
        lost = values[:, 0] < 0
        if lost.any():
            fisher = fisher.copy()
            fisher[lost] = _without_negative(fisher[lost])
        largest = np.maximum(values[:, -1:], np.finfo(np.float64).tiny)
        rate = np.where(values[:, -1:] > 0, 1 / largest, 0.0)
        found = np.zeros_like(score)
        ahead, turns = found, np.ones((len(score), 1))
        for _ in range(MOST_TURNS):
            slope = score - np.einsum("bij,bj->bi", fisher, ahead)
            new = self._allowed(own, (ahead + rate * slope).reshape(lead)).reshape(score.shape)
            move = new - found
            # Where momentum goes against the slope it begins anew.
            turns = np.where(((ahead - new) * move).sum(1, keepdims=True) > 0, 1.0, turns)
            more = 0.5 * (1 + np.sqrt(1 + 4 * turns**2))
            ahead, found = new + (turns - 1) / more * move, new
            turns = more
            if (np.abs(move) <= STILL * (1 + np.abs(new))).all():
                break
        return found
