"""Density control: fields of more or fewer Gaussians, with which no fit of this package works.

`split`, `clone` and `prune` give the rows that an optimiser's moments move along. A fit moves
Gaussians at an equal count, see `fitting.relocation`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

    from napari_gaussfit.model.field import GaussianField

SPREAD = 0.5
"""How far from their parent's centre the outermost parts of a split lie, in its largest sigma."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Where the rows of a resized field came from.

    Parameters
    ----------
    source : Tensor, shape [K]
        The row of the field before.
    fresh : Tensor, shape [K], bool
        Whether the Gaussian is new: an optimiser knows nothing of it yet.
    """

    source: Tensor
    fresh: Tensor

    def carried(self, moments: Tensor) -> Tensor:
        """Return an optimiser's moments [K', ...] for the new rows [K, ...], 0 for fresh ones.

        Parameters
        ----------
        moments : Tensor, shape [K', ...]
            A row for each Gaussian of the field before.

        Returns
        -------
        Tensor, shape [K, ...]
            A row for each Gaussian of the resized field.
        """
        kept = moments[self.source]
        return torch.where(self.fresh.reshape(-1, *[1] * (kept.ndim - 1)), 0, kept)


def split(
    field: GaussianField, which: Tensor, *, parts: int = 2, spread: float = SPREAD
) -> tuple[GaussianField, Rows]:
    """Split Gaussians into equal parts along their longest axes.

    Parameters
    ----------
    field : GaussianField
        K Gaussians, a_k their amplitudes.
    which : Tensor
        A mask [K], or indices, of those to split.
    parts : int
        Into how many; each has the parent's covariance and ``a_k / parts``, so that the integrated
        intensity stays what it was.
    spread : float
        How far the outermost parts lie from the parent's centre, in its largest sigma.

    Returns
    -------
    field : GaussianField
        Those kept, in their order, then the parts of each that was split.
    rows : Rows
        Parts are fresh.

    Raises
    ------
    SettingsError
        If `parts` is less than 2.
    """
    if parts < 2:
        message = f"parts={parts}: expected 2 or more"
        raise SettingsError(message)
    chosen = _mask(field, which)
    parents = chosen.nonzero().squeeze(-1)
    sigmas, axes = field.select(parents).principal()
    along = spread * sigmas[:, :1] * axes[:, 0]
    places = torch.linspace(-1, 1, parts, dtype=along.dtype, device=along.device)
    offsets = (places[:, None] * along[:, None]).reshape(-1, 3)
    grown, rows = _appended(
        field, (~chosen).nonzero().squeeze(-1), parents.repeat_interleave(parts)
    )
    kept = len(grown) - len(offsets)
    amplitudes, means = grown.amplitudes.clone(), grown.means.clone()
    amplitudes[kept:] /= parts
    means[kept:] += offsets
    return replace(grown, means=means, amplitudes=amplitudes), rows


def clone(field: GaussianField, which: Tensor) -> tuple[GaussianField, Rows]:
    """Put a second Gaussian at the place of each chosen one; both have half of its amplitude.

    Parameters
    ----------
    field : GaussianField
        The field of K Gaussians of which some are doubled.
    which : Tensor
        A mask [K], or indices, of those to clone.

    Returns
    -------
    field : GaussianField
        All there were, in their order, then the clones: the same sum.
    rows : Rows
        Clones are fresh; those that they were made of are not.
    """
    chosen = _mask(field, which)
    grown, rows = _appended(field, torch.arange(len(field)), chosen.nonzero().squeeze(-1))
    halved = chosen[rows.source]
    return replace(grown, amplitudes=torch.where(halved, 0.5, 1.0) * grown.amplitudes), rows


def prune(
    field: GaussianField,
    *,
    least_emission: float = 0.0,
    sizes: tuple[float, float] = (0.0, float("inf")),
    box: tuple[ArrayLike, ArrayLike] | None = None,
) -> tuple[GaussianField, Rows]:
    """Take away Gaussians that are too dim, too small, too large, or outside of a box.

    Parameters
    ----------
    field : GaussianField
        The field of K Gaussians of which some are taken away.
    least_emission : float
        Those of a smaller amplitude go, in raw intensity.
    sizes : tuple of float
        The least smallest and the largest largest principal sigma of those that stay, in `unit`.
    box : tuple of array-like, optional
        Lower and upper corner (z, y, x, in `unit`); those with their centres outside go. A
        stack's is `Stack.box`.

    Returns
    -------
    field : GaussianField
        Those that stay, in their order.
    rows : Rows
        None is fresh.
    """
    sigmas, _ = field.principal()
    stays = field.amplitudes.detach() >= least_emission
    stays &= (sigmas[:, 2] >= sizes[0]) & (sigmas[:, 0] <= sizes[1])
    if box is not None:
        lower, upper = (torch.as_tensor(corner).to(field.means) for corner in box)
        stays &= ((field.means >= lower) & (field.means <= upper)).all(-1)
    kept = stays.nonzero().squeeze(-1)
    return _appended(field, kept, kept[:0])


def _mask(field: GaussianField, which: Tensor) -> Tensor:
    mask = torch.zeros(len(field), dtype=torch.bool, device=field.device)
    mask[which] = True
    return mask


def _appended(field: GaussianField, kept: Tensor, added: Tensor) -> tuple[GaussianField, Rows]:
    """Return the rows `kept` and, fresh, the rows `added`."""
    source = torch.cat([kept, added]).to(field.device)
    fresh = torch.arange(len(source), device=field.device) >= len(kept)
    return field.select(source), Rows(source, fresh)
