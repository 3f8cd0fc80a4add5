"""Groups: which Gaussians of a field make up one object, a nucleus or a cell.

Each Gaussian climbs to a mode of the field, blurred so far that an object's texture is gone. Two
modes are one object where f at the saddle between them is above a share of the lower one's peak
(persistence: H. Edelsbrunner et al., Discrete Comput. Geom. 28 (2002) 511). How far to blur, the
field tells itself: -s^2 times the Laplacian of what s blurs is largest, summed over all light, at
the radius of the objects over the root of 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import Delaunay, QhullError, cKDTree

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.objects.blurred import BlurredField

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from napari_gaussfit.model.gaussians import Gaussians

    Floats = NDArray[np.float64]
    Indices = NDArray[np.intp]

__all__ = ["GroupSettings", "Grouping", "Groups", "group", "merge", "split", "typical_radius"]

ROOT3 = float(np.sqrt(3.0))
"""Radius of an even ball, in the width at which its blob response is largest."""

BLUR = 0.8 / ROOT3
"""Width of blurring, in radii of the objects: the texture within is gone, touching ones are two."""

SADDLE = 0.97
"""Share of the lower peak from which a saddle joins two modes."""

_SCALE_STEP, _MOST_SCALES = 2**0.25, 40
_STEPS, _ARRIVED, _LONGEST_STEP = 60, 0.01, 0.5
"""Of a climb; the last two in widths of the blurring."""

_ONE_MODE = 0.3
"""Widths of the blurring within which two ends of a climb are the same."""

_BETWEEN = 7
"""Places on the line between two Gaussians, both among them, where f is looked at."""

_FINER = (1.0, 0.8, 0.6, 0.45, 0.3)
"""Parts of the blurring at which an object that is to be split is looked at, one by one."""


@dataclass(frozen=True)
class GroupSettings:
    """How Gaussians are grouped.

    Parameters
    ----------
    saddle : float
        Two modes are one object where f between them is at least this share of the lower peak, 0
        to 1: less joins more.
    radius : float or None
        About that of the objects, in the field's unit; None takes the field's own.

    Raises
    ------
    SettingsError
        If a value is outside of what it may be.
    """

    saddle: float = SADDLE
    radius: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not 0 <= self.saddle <= 1:
            raise SettingsError(f"saddle={self.saddle!r}: expected a share, 0 to 1")
        if self.radius is not None and not 0 < self.radius < np.inf:
            raise SettingsError(f"radius={self.radius!r}: expected a length above 0, or None")


@dataclass(frozen=True, eq=False)
class Groups:
    """Which object each Gaussian belongs to.

    Parameters
    ----------
    of : ndarray of int, shape [K]
        The object of each Gaussian, from 1; 0 for none.
    radius : float
        About that of the objects, in the field's unit.
    modes : ndarray of int, shape [K], or None
        The mode that each Gaussian climbs to, from 0; None where only the objects are known.
    """

    of: Indices
    radius: float
    modes: Indices | None = None

    @property
    def basins(self) -> Indices:
        """The mode of each Gaussian [K], from 0; where none are known, an object is one."""
        return self.of - 1 if self.modes is None else self.modes

    def __len__(self) -> int:
        """Return the number of objects."""
        return int(self.of.max(initial=0))


def typical_radius(gaussians: Gaussians) -> float:
    """Return the radius of the objects that most of a field's light is in.

    Parameters
    ----------
    gaussians : Gaussians
        Gaussians of a field, one at least.

    Returns
    -------
    float
        In the field's unit.
    """
    light = gaussians.integrated_intensities()
    means = gaussians.means.astype(np.float64)
    span = float(np.ptp(means, axis=0).max())
    scale = float(np.median(gaussians.principal()[0][:, 1]))
    best, response = scale, -np.inf
    for _ in range(_MOST_SCALES):
        hessian = BlurredField.of(gaussians, scale).derivatives(means).hessian
        found = float(light @ np.trace(hessian, axis1=1, axis2=2)) * -(scale**2)
        if found > response:
            best, response = scale, found
        scale *= _SCALE_STEP
        if scale > span / 4:
            break
    return ROOT3 * best


def group(gaussians: Gaussians, settings: GroupSettings | None = None) -> Groups:
    """Group the Gaussians of a field into objects.

    Parameters
    ----------
    gaussians : Gaussians
        Gaussians of the field that is divided into objects.
    settings : GroupSettings, optional
        The defaults if None.

    Returns
    -------
    Groups
        The objects with the most Gaussians first.
    """
    settings = settings or GroupSettings()
    if not len(gaussians):
        return Groups(np.empty(0, np.intp), settings.radius or 1.0)
    return Grouping(gaussians, settings.radius).at(settings.saddle)


class Grouping:
    """All groups that the Gaussians of a field may form, of which a share of saddles takes some.

    What takes long is done once, so that a slider may ask for one share after another.

    Parameters
    ----------
    gaussians : Gaussians
        Of the field, one at least.
    radius : float, optional
        About that of the objects, in the field's unit; the field's own if None.
    """

    def __init__(self, gaussians: Gaussians, radius: float | None = None) -> None:
        self.radius = radius or typical_radius(gaussians)
        self._modes = _Modes.of(gaussians, BLUR * self.radius)

    def at(self, saddle: float) -> Groups:
        """Return the groups at a share.

        Parameters
        ----------
        saddle : float
            Two modes are one object where f between them is at least this share of the lower peak.

        Returns
        -------
        Groups
            The objects with the most Gaussians first.
        """
        return self.of(self._modes.joined(saddle), self.radius)

    def of(self, objects: Indices, radius: float) -> Groups:
        """Return groups that were changed by hand, or come from elsewhere.

        Parameters
        ----------
        objects : ndarray of int, shape [K]
            The object of each Gaussian, from 1; 0 for none.
        radius : float
            About that of the objects, in the field's unit.

        Returns
        -------
        Groups
            With the modes that are known here.
        """
        return Groups(objects, radius, self._modes.mode.astype(np.intp))


def merge(groups: Groups, objects: Iterable[int]) -> Groups:
    """Make several objects one.

    Parameters
    ----------
    groups : Groups
        What they are of.
    objects : iterable of int
        Their numbers; the result has the least of them, and those above move down.

    Returns
    -------
    Groups
        With fewer objects.
    """
    chosen = _known(groups, objects)
    of = np.where(np.isin(groups.of, chosen), min(chosen), groups.of)
    return replace(groups, of=np.unique(np.append(0, of), return_inverse=True)[1][1:])


def split(groups: Groups, gaussians: Gaussians, number: int) -> Groups:
    """Split an object where f within it dips, blurred as little as it takes.

    Parameters
    ----------
    groups : Groups
        What it is of.
    gaussians : Gaussians
        The Gaussians that were grouped.
    number : int
        The object; its largest part keeps the number, the others have new ones.

    Returns
    -------
    Groups
        With more objects.

    Raises
    ------
    SettingsError
        If there is no such object, or it has but one mode however little f is blurred.
    """
    _known(groups, [number])
    own = np.flatnonzero(groups.of == number)
    for part in _FINER if len(own) > 1 else ():
        parts = _grouped(gaussians.select(own), part * BLUR * groups.radius, 1.0)
        if parts.max() > 1:
            of = groups.of.copy()
            of[own] = np.where(parts == 1, number, len(groups) + parts - 1)
            return replace(groups, of=of)
    raise SettingsError(f"object {number} has one mode only, and cannot be split")


def _known(groups: Groups, objects: Iterable[int]) -> list[int]:
    chosen = sorted(set(objects))
    wrong = [number for number in chosen if not 1 <= number <= len(groups)]
    if wrong or not chosen:
        raise SettingsError(f"objects {wrong}: expected numbers from 1 to {len(groups)}")
    return chosen


@dataclass(frozen=True, eq=False)
class _Modes:
    """The mode [K] that each Gaussian climbs to, their peaks, and the saddles between pairs."""

    mode: Indices
    peaks: Floats
    pairs: Indices
    saddles: Floats

    @classmethod
    def of(cls, gaussians: Gaussians, blur: float) -> _Modes:
        """Return those of a field blurred by a width."""
        field = BlurredField.of(gaussians, blur)
        ends, heights = _climbed(field, field.means, blur)
        close = cKDTree(ends).query_pairs(_ONE_MODE * blur, output_type="ndarray")
        count = len(ends)
        same = coo_array((np.ones(len(close)), (close[:, 0], close[:, 1])), shape=(count, count))
        modes, mode = connected_components(same, directed=False)
        peaks = np.full(modes, -np.inf)
        np.maximum.at(peaks, mode, heights)
        return cls(mode, peaks, *_saddles(field, mode))

    def joined(self, saddle: float) -> Indices:
        """Return the object [K], from 1, of each Gaussian."""
        owner = np.arange(len(self.peaks))
        for n in np.argsort(-self.saddles, kind="stable"):
            ends = owner[self.pairs[n, 0]], owner[self.pairs[n, 1]]
            low, high = sorted(ends, key=lambda one: self.peaks[one])
            if low != high and self.saddles[n] >= saddle * self.peaks[low]:
                owner[owner == low] = high
        found = owner[self.mode]
        names, of, counts = np.unique(found, return_inverse=True, return_counts=True)
        rank = np.empty(len(names), np.intp)
        rank[np.argsort(-counts, kind="stable")] = np.arange(1, len(names) + 1)
        return rank[of]


def _grouped(gaussians: Gaussians, blur: float, saddle: float) -> Indices:
    """Return the object [K], from 1, of each Gaussian in the field blurred by a width."""
    return _Modes.of(gaussians, blur).joined(saddle)


def _climbed(field: BlurredField, points: Floats, blur: float) -> tuple[Floats, Floats]:
    """Return the modes [N, 3] that points are downhill of, and f there [N]."""
    points, moving = points.copy(), np.arange(len(points))
    for _ in range(_STEPS):
        value, gradient, hessian = field.derivatives(points[moving])
        bends, axes = np.linalg.eigh(hessian)
        # Newton's step with each curvature's size, so that it leads uphill from anywhere.
        least = value[:, None] / (4 * blur**2) + 1e-30
        steps = np.einsum("bij,bi->bj", axes, gradient) / np.maximum(np.abs(bends), least)
        step = np.einsum("bij,bj->bi", axes, steps)
        length = np.linalg.norm(step, axis=1)
        points[moving] += step * np.minimum(1.0, _LONGEST_STEP * blur / (length + 1e-30))[:, None]
        moving = moving[length > _ARRIVED * blur]
        if not len(moving):
            break
    return points, field.values(points)


def _saddles(field: BlurredField, mode: Indices) -> tuple[Indices, Floats]:
    """Return pairs of modes [M, 2] that are neighbours, and f at the saddle between them [M].

    A saddle is the highest of all lines between a Gaussian of the one and a neighbour of the other,
    at the lowest place on each.
    """
    links = _neighbours(field.means)
    links = links[mode[links[:, 0]] != mode[links[:, 1]]]
    shares = np.linspace(0.0, 1.0, _BETWEEN)[:, None, None]
    a, b = field.means[links[:, 0]], field.means[links[:, 1]]
    values = field.values((a + shares * (b - a)).reshape(-1, 3)).reshape(_BETWEEN, -1)
    lowest = values.min(axis=0)
    ends = np.sort(mode[links], axis=1)
    pairs, which = np.unique(ends, axis=0, return_inverse=True)
    saddles = np.full(len(pairs), -np.inf)
    np.maximum.at(saddles, which.reshape(-1), lowest)
    return pairs.reshape(-1, 2).astype(np.intp), saddles


def _neighbours(points: Floats) -> Indices:
    """Return which points are neighbours [M, 2]: by Delaunay's tetrahedra, if there are any."""
    count = len(points)
    try:
        corners = Delaunay(points).simplices
    except (QhullError, ValueError):  # fewer than five, or all in one plane
        near = cKDTree(points).query(points, k=min(count, 9))[1].reshape(count, -1)
        links = np.stack([np.repeat(np.arange(count), near.shape[1]), near.reshape(-1)], axis=1)
        links = links[links[:, 0] != links[:, 1]]
    else:
        edges = [corners[:, [i, j]] for i in range(4) for j in range(i)]
        links = np.concatenate(edges)
    return np.unique(np.sort(links, axis=1), axis=0).astype(np.intp)
