"""Neurites: the tree of centre lines in a field, with radii.

Points on the ridges of f are joined where f between them stays high, by the tree that is shortest
so; short branches are cut; what is left is sampled evenly and moved to the middle of the structure.
Where the microscope blurs more along z than across, all that is done in z squashed until the
Gaussians are as wide as high: else each bead is a rod along z, with a ridge of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import coo_array
from scipy.spatial import cKDTree

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA, Gaussians
from napari_gaussfit.objects.blurred import BlurredField
from napari_gaussfit.objects.ridges import Ridge, find_ridges, weighted_quantile
from napari_gaussfit.objects.sections import planes_across, radii_across
from napari_gaussfit.objects.somata import Soma, find_soma
from napari_gaussfit.objects.trees import RADIUS, Tree, grow, prune, resample, trim

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Indices = NDArray[np.intp]
    Mask = NDArray[np.bool_]
    Box = tuple[Floats, Floats]
    Triple = tuple[float, float, float]

__all__ = ["SPINE_LENGTH", "Branches", "Trace", "TraceSettings", "trace"]

TOP = 95.0
"""Percentile of the ridges' strengths that stands for a bright neurite."""

CERTAIN, LEAST_CERTAIN = 4.0, 3
"""A piece is kept where so many of its points are so many times as strong as the faintest kept."""

NARROWEST = 0.1
"""Part of the Gaussians, by their amplitudes, that are as narrow as light allows."""

REACH, NEIGHBOURS = 12.0, 60
"""How far apart two points may be that are joined, in scales, as between two beads of an axon, and
how many neighbours are tried: on a line, points lie 0.6 scales apart or more."""

POWER = 1.2
"""Of the distance in what a step costs: above 1, so that ways lead over the points between."""

_BETWEEN = 7
"""Places on the line between two points, both among them, where f is looked at."""

_ROUNDS, _LONGEST_MOVE = 8, 0.25
"""Of centring: how often, and by how many scales at most."""

_EVENED = 12
"""Rounds of smoothing, as by a Gaussian of 2.4 nodes: a neurite bends no sooner than it is wide."""

SPINE_LENGTH = 3.0
"""Micrometres: spines of pyramidal cells are 0.5 to 3 long."""

UNDEFINED, SOMA_KIND = 0, 1
"""Kinds of nodes, as SWC numbers them."""

_EMPTY = Tree(np.empty((0, 3)), np.empty(0), np.empty(0, np.intp), np.empty(0, np.intp))


@dataclass(frozen=True)
class TraceSettings:
    """What a trace is asked to do.

    Parameters
    ----------
    faintest : float
        The faintest ridge that is followed, as a part of bright ones' strength, 0 to 1.
    gap : float
        Two points are joined where f between them is at least this part of f at the fainter one,
        0 to 1: lower bridges deeper gaps.
    shortest : float or None
        The least length of a branch, in the field's unit; None takes three of its radii.
    spine_length : float
        A branch without branches that is no longer than this, in the field's unit, is a spine. 0:
        there are none.
    psf_fwhm : tuple of float or None
        Full widths at half maximum (z, y, x) of the point spread function, in the field's unit, by
        which the radii are corrected; None leaves them as they are seen.
    soma : tuple of float or None
        Centre (z, y, x) and radius of a soma, in the field's unit, which becomes the root; None
        looks for a body several times as wide as the neurites.
    find_soma : bool
        Whether one is looked for.

    Raises
    ------
    SettingsError
        If a value is outside of what it may be.
    """

    faintest: float = 0.1
    gap: float = 0.1
    shortest: float | None = None
    spine_length: float = 0.0
    psf_fwhm: Triple | None = None
    soma: tuple[float, float, float, float] | None = None
    find_soma: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("faintest", "gap"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name}={getattr(self, name)!r}: expected a part, 0 to 1")
        for name, lengths in (
            ("shortest", (self.shortest or 0.0,)),
            ("spine_length", (self.spine_length,)),
            ("psf_fwhm", self.psf_fwhm or ()),
            ("soma", () if self.soma is None else (*np.abs(self.soma[:3]), self.soma[3])),
        ):
            if not all(0 <= length < np.inf for length in lengths):
                raise SettingsError(f"{name}={getattr(self, name)!r}: expected lengths from 0")


@dataclass(frozen=True, eq=False)
class Trace:
    """A tree, or several, of nodes: parents come before their children.

    Parameters
    ----------
    points : ndarray, shape [N, 3]
        In `unit`, axis order z, y, x, from the centre of the first voxel.
    radii : ndarray, shape [N]
        Radius at each node, in `unit`.
    parents : ndarray of int, shape [N]
        The node that each hangs on; -1 for a root.
    kinds : ndarray of int, shape [N]
        As SWC numbers them: 1 soma, 0 undefined.
    branch : ndarray of int, shape [N]
        The branch, a row of `branches`, that each node belongs to.
    branches : Branches
        What there is to know of each.
    unit : str
        Of lengths: "micrometer" or "pixel".
    """

    points: Floats
    radii: Floats
    parents: Indices
    kinds: Indices
    branch: Indices
    branches: Branches
    unit: str

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.points)


@dataclass(frozen=True, eq=False)
class Branches:
    """A table of branches: a row each, a column each attribute.

    A branch goes on where the thicker and longer way goes on, so that a side branch does not end
    the one that it leaves.

    Parameters
    ----------
    parent : ndarray of int, shape [M]
        The branch that it leaves; -1 for a main one.
    order : ndarray of int, shape [M]
        0 for a main one, 1 for those that leave it, and so on.
    start, end : ndarray, shape [M, 3]
        Where it leaves its parent, on the middle of that, and its tip.
    length : ndarray, shape [M]
        From start to end along the branch.
    tortuosity : ndarray, shape [M]
        The length over the distance of start and end.
    mean_radius : ndarray, shape [M]
        Over its length outside of its parent.
    volume : ndarray, shape [M]
        Of the frusta between its nodes, outside of its parent, in `unit` cubed.
    spine : ndarray of bool, shape [M]
        Whether it is a spine.
    head_width : ndarray, shape [M]
        Twice the largest radius in the outer half of a spine; NaN for others.
    from_soma : ndarray of bool, shape [M]
        Whether it begins at a soma, from whose centre its length is counted.
    """

    parent: Indices
    order: Indices
    start: Floats
    end: Floats
    length: Floats
    tortuosity: Floats
    mean_radius: Floats
    volume: Floats
    spine: NDArray[np.bool_]
    head_width: Floats
    from_soma: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of branches."""
        return len(self.length)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns of a file, by name: those of the table, points by their axes."""
        places = {"start": self.start, "end": self.end}
        return {
            "branch": np.arange(len(self)),
            "parent": self.parent,
            "order": self.order,
            **{
                f"{name}_{axis}": p[:, n]
                for name, p in places.items()
                for n, axis in enumerate("zyx")
            },
            "length": self.length,
            "tortuosity": self.tortuosity,
            "mean_radius": self.mean_radius,
            "volume": self.volume,
            "spine": self.spine,
            "head_width": self.head_width,
            "from_soma": self.from_soma,
        }


def trace(gaussians: Gaussians, box: Box, settings: TraceSettings | None = None) -> Trace:
    """Trace the neurites in a field.

    Parameters
    ----------
    gaussians : Gaussians
        Gaussians of the field whose ridge is followed.
    box : tuple of ndarray, shape [3]
        The lower and upper corner of the stack.
    settings : TraceSettings, optional
        The defaults if None.

    Returns
    -------
    Trace
        In the field's unit; without nodes where there is nothing to follow.
    """
    settings = settings or TraceSettings()
    squash = np.array([1 / _anisotropy(gaussians, settings), 1.0, 1.0])
    squashed = _scaled(gaussians, squash)
    ridge = find_ridges(squashed, (box[0] * squash, box[1] * squash))
    if not len(ridge):
        return _measured(gaussians, _EMPTY, settings, squash, None)
    soma = _soma(gaussians, replace(ridge, points=ridge.points / squash), settings)
    body = soma and soma.scaled(squash)
    # A soma is brighter than all neurites that it has.
    thin = np.ones(len(ridge), bool) if body is None else ~body.contains(ridge.points)
    if not thin.any():
        thin[:] = True
    faintest = settings.faintest * np.percentile(ridge.strengths[thin], TOP)
    brightest = ridge.strengths[thin].max()
    ridge = ridge.select(ridge.strengths >= faintest)
    certain = ridge.strengths >= min(CERTAIN * faintest, brightest)
    costs = _costs(squashed, ridge, settings.gap)
    root = _nearest_within(ridge.points, body)
    tree = grow(ridge.points, ridge.scales, costs, certain, LEAST_CERTAIN, root)
    tree = trim(prune(resample(tree), settings.shortest), ends_only=root >= 0)
    tree = _centred(squashed, tree)
    tree = tree._replace(points=tree.points / squash)
    return _measured(gaussians, tree, settings, squash, soma)


def _soma(gaussians: Gaussians, ridge: Ridge, settings: TraceSettings) -> Soma | None:
    """Return the soma that is given or found."""
    if settings.soma is not None:
        return Soma.ball(np.array(settings.soma[:3]), settings.soma[3])
    return find_soma(gaussians, ridge) if settings.find_soma else None


def _nearest_within(points: Floats, soma: Soma | None) -> int:
    """Return the point that is nearest to the centre of a soma; -1 where none is inside."""
    if soma is None or not soma.contains(points).any():
        return -1
    return int(np.argmin(np.linalg.norm(points - soma.centre, axis=1)))


def _anisotropy(gaussians: Gaussians, settings: TraceSettings) -> float:
    """Return how many times as far light spreads along z as across, 1 at least.

    Of the point spread function, where it is known; else of the narrowest Gaussians, which show it.
    """
    if settings.psf_fwhm is not None:
        z, y, x = settings.psf_fwhm
        return max(1.0, 2 * z / (y + x)) if y + x > 0 else 1.0
    covariances, weights = gaussians.covariances, np.abs(gaussians.amplitudes)
    if not len(weights):
        return 1.0
    widths = np.asarray(np.linalg.eigvalsh(covariances[:, 1:, 1:])[:, 0], np.float64)
    along = weighted_quantile(covariances[:, 0, 0], weights, NARROWEST)
    return max(1.0, float(np.sqrt(along / weighted_quantile(widths, weights, NARROWEST))))


def _scaled(gaussians: Gaussians, factors: Floats) -> Gaussians:
    """Return a field in coordinates that are multiplied by factors [3]."""
    return Gaussians.from_covariances(
        gaussians.means * factors,
        gaussians.covariances * np.outer(factors, factors),
        gaussians.amplitudes,
        unit=gaussians.unit,
    )


def _costs(gaussians: Gaussians, ridge: Ridge, gap: float) -> Any:
    """Return what joining two points costs, sparse [N, N]: their distance, more where f dips."""
    count = len(ridge)
    tree = cKDTree(ridge.points)
    away, near = tree.query(ridge.points, k=min(NEIGHBOURS + 1, count))
    first = np.repeat(np.arange(count), near.reshape(count, -1).shape[1])
    pairs = np.stack([first, near.reshape(-1)])
    away = away.reshape(-1)
    reach = REACH * np.sqrt(ridge.scales[pairs[0]] * ridge.scales[pairs[1]])
    close = (pairs[0] != pairs[1]) & (away <= reach)
    pairs, away = pairs[:, close], away[close]
    dips = _dips(gaussians, ridge, pairs)
    joined = dips >= gap
    pairs, costs = pairs[:, joined], away[joined] ** POWER / np.maximum(dips[joined], 1e-6) ** 2
    # The shorter of both directions: a sum of two would be the cost of neither.
    lower, upper = pairs.min(axis=0), pairs.max(axis=0)
    once = np.unique(lower * count + upper, return_index=True)[1]
    return coo_array((costs[once], (lower[once], upper[once])), shape=(count, count)).tocsr()


def _dips(gaussians: Gaussians, ridge: Ridge, pairs: Indices) -> Floats:
    """Return f where it is least between two points, in parts of f at the fainter one."""
    widths = ridge.scales[pairs].max(axis=0)
    dips = np.empty(len(widths))
    shares = np.linspace(0.0, 1.0, _BETWEEN)[:, None, None]
    for width in np.unique(widths):
        some = widths == width
        a, b = ridge.points[pairs[:, some]]
        places = a + shares * (b - a)
        values = BlurredField.of(gaussians, width).values(places.reshape(-1, 3))
        values = values.reshape(_BETWEEN, -1)
        ends = np.minimum(values[0], values[-1])
        dips[some] = values.min(axis=0) / np.maximum(ends, np.finfo(np.float64).tiny)
    return dips


def _centred(gaussians: Gaussians, tree: Tree) -> Tree:
    """Move nodes to the middle of the structure: uphill across the line, and kept smooth."""
    if not len(tree.points):
        return tree
    points, free = _evened(tree, tree.points), ~_in_parent(tree)
    octaves = np.round(2 * np.log2(tree.scales))
    fields = {step: BlurredField.of(gaussians, 2 ** (step / 2)) for step in np.unique(octaves)}
    before, after = _neighbours(tree)
    for _ in range(_ROUNDS):
        tangents = _unit(points[after[after]] - points[before[before]])
        move = np.zeros_like(points)
        for step, field in fields.items():
            some = free & (octaves == step)
            if some.any():
                move[some] = _uphill(field, points[some], tangents[some], 2 ** (step / 2))
        points = _evened(tree, points + move, 1)
    return tree._replace(points=_evened(tree, points))


def _evened(tree: Tree, points: Floats, rounds: int = _EVENED) -> Floats:
    """Return points moved half of the way to between their neighbours, so many times."""
    before, after = _neighbours(tree)
    inner = (before != np.arange(len(points))) & (after != np.arange(len(points)))
    for _ in range(rounds):
        between = (points[before] + points[after]) / 2
        points = np.where(inner[:, None], (points + between) / 2, points)
    return points


def _uphill(field: BlurredField, points: Floats, tangents: Floats, scale: float) -> Floats:
    """Return a step [N, 3] towards the largest f in the planes across."""
    value, gradient, hessian = field.derivatives(points)
    planes = planes_across(tangents)
    bends, axes = np.linalg.eigh(np.einsum("nia,nij,njb->nab", planes, hessian, planes))
    slopes = np.einsum("nab,nia,ni->nb", axes, planes, gradient)
    steps = slopes / np.maximum(np.abs(bends), value[:, None] / (8 * scale**2) + 1e-30)
    length = np.linalg.norm(steps, axis=1, keepdims=True)
    steps *= np.minimum(1.0, _LONGEST_MOVE * scale / (length + 1e-30))
    return np.asarray(np.einsum("nia,nab,nb->ni", planes, axes, steps))


def _neighbours(tree: Tree) -> tuple[Indices, Indices]:
    """Return the nodes before and after each along its branch, itself where there is none."""
    nodes = np.arange(len(tree.points))
    before = np.where(tree.parents < 0, nodes, tree.parents)
    goes_on = np.append(tree.branch[1:] == tree.branch[:-1], False)[: len(nodes)]
    return before, np.where(goes_on, nodes + 1, nodes)


def _in_parent(tree: Tree) -> Mask:
    """Tell which nodes lie within the tube of the branch that theirs leaves."""
    inside = np.zeros(len(tree.points), bool)
    for above, run in tree.runs():
        if above >= 0:
            away = np.cumsum(tree.links[run])
            inside[run] = away < RADIUS * tree.scales[above]
    return inside


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1), 1e-30)[:, None])


def _measured(
    gaussians: Gaussians, tree: Tree, settings: TraceSettings, squash: Floats, soma: Soma | None
) -> Trace:
    """Return a trace of a tree: radii, the soma, the table of branches."""
    inside = _in_parent(tree)
    radii = np.empty(0)
    if len(tree.points):
        before, after = _neighbours(tree)
        tangents = _unit(tree.points[after] - tree.points[before])
        psf = None
        if settings.psf_fwhm is not None:
            psf = np.diag(np.square(np.array(settings.psf_fwhm) / FWHM_PER_SIGMA))
        flat = tree.points * squash
        along = _unit(flat[after] - flat[before])
        foreign = _foreign(gaussians.means * squash, flat, along, tree.scales)
        radii = radii_across(gaussians, tree.points, tangents, tree.scales, psf, foreign)
        radii = _smoothed(tree, radii, inside)
    tree, radii, kinds = _with_soma(tree, radii, soma)
    branches = _table(tree, radii, kinds, settings.spine_length)
    return Trace(tree.points, radii, tree.parents, kinds, tree.branch, branches, gaussians.unit)


def _foreign(
    means: Floats, points: Floats, tangents: Floats, scales: Floats
) -> Callable[[int, Indices], Mask]:
    """Return what tells which Gaussians are of another line, or of this one before it bent.

    Such is one whose nearest place on all lines lies outside of the tube that goes straight on
    through a node. None is where all are: then there is nothing else to measure.
    """
    near = cKDTree(points).query(means, k=min(NEIGHBOURS, len(points)))
    away, nodes = (part.reshape(len(means), -1) for part in near)
    nearest = np.argmin(away / scales[nodes], axis=1)
    homes = points[nodes[np.arange(len(means)), nearest]]

    def elsewhere(node: int, which: Indices) -> Mask:
        aside = homes[which] - points[node]
        aside -= np.outer(aside @ tangents[node], tangents[node])
        foreign = np.linalg.norm(aside, axis=1) > RADIUS * scales[node]
        return np.asarray(foreign if not foreign.all() else np.zeros_like(foreign))

    return elsewhere


def _smoothed(tree: Tree, radii: Floats, inside: Mask) -> Floats:
    """Return medians of five radii along branches; within the parent, that of where it is left."""
    found = radii.copy()
    for _, run in tree.runs():
        own, within = radii[run], inside[run]
        if not within.all():
            own = np.where(within, own[np.argmin(within)], own)
        padded = np.pad(own, 2, mode="edge")
        found[run] = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
    return found


def _with_soma(tree: Tree, radii: Floats, soma: Soma | None) -> tuple[Tree, Floats, Indices]:
    """Make a root that lies in the soma its one node, on which all hangs that leaves it."""
    kinds = np.full(len(radii), UNDEFINED, np.intp)
    if soma is None or not len(radii):
        return tree, radii, kinds
    inside = soma.contains(tree.points)
    if not inside[0]:
        return tree, radii, kinds
    kept, parents = np.ones(len(radii), bool), tree.parents.copy()
    points, radii = tree.points.copy(), radii.copy()
    points[0], radii[0], kinds[0] = soma.centre, soma.radius, SOMA_KIND
    for node in range(1, len(radii)):
        above = parents[node]
        if above >= 0 and not kept[above]:
            parents[node] = above = 0
        kept[node] = above != 0 or not inside[node]
    rank = np.cumsum(kept) - 1
    parents = parents[kept]
    cut = Tree(
        points[kept],
        tree.scales[kept],
        np.where(parents < 0, -1, rank[parents]),
        np.unique(tree.branch[kept], return_inverse=True)[1].astype(np.intp),
    )
    return cut, radii[kept], kinds[kept]


def _table(tree: Tree, radii: Floats, kinds: Indices, spine_length: float) -> Branches:
    """Measure each branch."""
    inside, links = _in_parent(tree), tree.links
    rows = []
    has_branches = {int(tree.branch[above]) for above, _ in tree.runs() if above >= 0}
    orders: list[int] = []
    for number, (above, run) in enumerate(tree.runs()):
        parent = -1 if above < 0 else int(tree.branch[above])
        orders.append(0 if parent < 0 else orders[parent] + 1)
        start = tree.points[run.start if above < 0 else above]
        end = tree.points[run.stop - 1]
        length = float(links[run].sum())
        outside = ~inside[run] if not inside[run].all() else np.ones(run.stop - run.start, bool)
        own = radii[run].copy()
        from_soma = bool(kinds[run.start if above < 0 else above] == SOMA_KIND)
        if kinds[run.start] == SOMA_KIND and len(own) > 1:
            own[0] = own[1]  # a neurite is no cone from the soma's surface
        below = np.where(tree.parents[run] < 0, own, np.concatenate([own[:1], own[:-1]]))
        frusta = np.pi / 3 * links[run] * (own**2 + own * below + below**2)
        spine = parent >= 0 and number not in has_branches and length <= spine_length
        half = np.cumsum(links[run]) >= length / 2
        distance = float(np.linalg.norm(end - start))
        rows.append(
            (
                parent, orders[-1], start, end, length, length / distance if distance else 1.0,
                float(own[outside].mean()), float(frusta[outside].sum()), spine,
                2 * float(own[half].max()) if spine else np.nan, from_soma,
            )
        )  # fmt: skip
    columns = zip(*rows, strict=True) if rows else [()] * 11
    types = (np.intp, np.intp, *[np.float64] * 6, np.bool_, np.float64, np.bool_)
    arrays: list[Any] = [
        np.array(column, kind) for column, kind in zip(columns, types, strict=True)
    ]
    arrays[2], arrays[3] = arrays[2].reshape(-1, 3), arrays[3].reshape(-1, 3)
    return Branches(*arrays)
