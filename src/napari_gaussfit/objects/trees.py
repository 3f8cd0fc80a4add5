"""Trees of nodes with a scale each: rooted, cut into branches, pruned, sampled evenly.

Knows no field. Parents come before their children, and the nodes of a branch follow each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Indices = NDArray[np.intp]
    Mask = NDArray[np.bool_]

__all__ = ["RADIUS", "Tree", "grow", "prune", "resample", "trim"]

RADIUS = 2.0
"""Of a tube, in its scales: that of an even disc, in its sigmas."""

PRUNED = 3.0
"""The least length of a branch, in its own radii, where none is asked for."""

STEP = 0.5
"""From one node to the next, in scales."""

NARROW = 0.75
"""Times the width of a main branch below which its end is no part of it."""

SPINE = 15.0
"""The longest spine, in its radii: those of pyramidal cells are up to 3 micrometers long, and
their necks and heads 0.2 in the middle."""

NEIGHBOURS = 8
"""Nodes that are looked at for whether one lies in their tube."""


class Tree(NamedTuple):
    """A tree, or several.

    points : [N, 3]; scales : [N], about the sigma across; parents : [N], -1 for a root;
    branch : [N], from 0; a branch leaves one of a smaller number.
    """

    points: Floats
    scales: Floats
    parents: Indices
    branch: Indices

    @property
    def links(self) -> Floats:
        """The distance [N] of each node to its parent; 0 for a root."""
        away = np.linalg.norm(self.points - self.points[self.parents], axis=1)
        return np.where(self.parents < 0, 0.0, away)

    @property
    def gains(self) -> Floats:
        """What each link [N] adds to the size of a branch: its length times its width."""
        widths: Floats = (self.scales + self.scales[self.parents]) / 2
        return self.links * widths

    def runs(self) -> Iterator[tuple[int, slice]]:
        """Yield the node that each branch leaves, -1 for a main one, and which nodes are its."""
        starts = np.flatnonzero(np.diff(self.branch, prepend=-1))
        for start, end in zip(starts, np.append(starts[1:], len(self.branch)), strict=False):
            yield int(self.parents[start]), slice(int(start), int(end))


def grow(points: Floats, scales: Floats, costs: Any, certain: Mask, least: int, root: int) -> Tree:
    """Return the trees of cheapest ways from a root to all points, one for each piece.

    Parameters
    ----------
    points, scales : ndarray, shape [N, 3] and [N]
        Centres of the nodes, and the blur at which each was found.
    costs : sparse array, shape [N, N]
        Of going from one to another, symmetric; those without an entry are not neighbours.
    certain : ndarray of bool, shape [N]
        Which nodes speak for a piece.
    least : int
        How many of them a piece needs, to be kept.
    root : int
        The node that its piece is rooted at; -1 for none.

    Returns
    -------
    Tree
        Other pieces are rooted at the wider end of their main branch.
    """
    pieces, piece = connected_components(costs, directed=False)
    votes = np.bincount(piece, certain, minlength=pieces)
    rank, count = np.full(len(points), -1, np.intp), 0
    order, parents = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
    for n in np.argsort(-votes, kind="stable"):
        if votes[n] < max(least, 1):
            break
        nodes = np.flatnonzero(piece == n)
        start = root if root in nodes else _root_of(costs, nodes, scales)
        far, above = dijkstra(costs, directed=False, indices=start, return_predecessors=True)
        nodes = nodes[np.argsort(far[nodes], kind="stable")]
        rank[nodes] = count + np.arange(len(nodes))
        count += len(nodes)
        order.append(nodes)
        parents.append(np.where(above[nodes] < 0, -1, rank[np.maximum(above[nodes], 0)]))
    which = np.concatenate(order)
    return _in_branches(points[which], scales[which], np.concatenate(parents))


def _root_of(costs: Any, nodes: Indices, scales: Floats) -> int:
    """Return the wider end of the main branch."""
    ends = [int(nodes[0])]
    for _ in range(2):  # from anywhere to the farthest, and from there to the farthest again
        far = dijkstra(costs, directed=False, indices=ends[-1])
        ends.append(int(nodes[np.argmax(far[nodes])]))
    return max(ends[1:], key=lambda node: scales[node])


def _in_branches(points: Floats, scales: Floats, parents: Indices) -> Tree:
    """Cut trees into branches, each of which goes on where the way to its tip is longest.

    A way counts by its width too: the trunk goes on where a thin branch is a little longer.
    """
    tree = Tree(points, scales, parents, np.zeros(len(points), np.intp))
    gains = tree.gains
    reach, child = np.zeros(len(points)), np.full(len(points), -1, np.intp)
    for node in range(len(points) - 1, -1, -1):
        above, way = parents[node], reach[node] + gains[node]
        if above >= 0 and (child[above] < 0 or way > reach[above]):
            reach[above], child[above] = way, node
    branch, count = tree.branch, 0
    for node, above in enumerate(parents):
        if above >= 0 and child[above] == node:
            branch[node] = branch[above]
        else:
            branch[node] = count
            count += 1
    return _ordered(tree)


def _ordered(tree: Tree) -> Tree:
    """Renumber branches from 0, parents first, and put the nodes of each in a row."""
    depth, above = np.zeros(len(tree.points), np.intp), tree.parents
    while (above >= 0).any():
        depth += above >= 0
        above = np.where(above >= 0, tree.parents[above], -1)
    names, branch = np.unique(tree.branch, return_inverse=True)
    first = np.full(len(names), len(depth), np.intp)
    np.minimum.at(first, branch, depth)
    order = np.lexsort((depth, branch, first[branch]))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    parents = tree.parents[order]
    number = np.cumsum(np.diff(branch[order], prepend=branch[order[:1]]) != 0)
    return Tree(
        tree.points[order],
        tree.scales[order],
        np.where(parents < 0, -1, rank[parents]),
        number.astype(np.intp),
    )


def prune(tree: Tree, shortest: float | None) -> Tree:
    """Cut branches that are short, or within the tubes of longer ones.

    Of a branch that runs within another for a while, what lies outside hangs on where it leaves.

    Parameters
    ----------
    tree : Tree
        With nodes close together.
    shortest : float or None
        The least length of a branch, from the middle of the one that it leaves; None asks for
        three of its own radii, and for one of them outside of the other.

    Returns
    -------
    Tree
        With all main branches that are long enough.
    """
    runs = list(tree.runs())
    gains = tree.gains
    # What leaves a branch is no larger than what goes on of it: parents come first.
    sizes = np.array([gains[run].sum() for _, run in runs])
    kept, parents = np.zeros(len(tree.points), bool), tree.parents.copy()
    for n in np.argsort(-sizes, kind="stable"):
        above, run = runs[n]
        nodes, onto = _outside(tree, np.flatnonzero(kept), np.arange(run.start, run.stop))
        onto = above if onto < 0 else onto
        if not len(nodes) or (onto >= 0 and not kept[onto]):
            continue
        line = tree.points[nodes if onto < 0 else np.concatenate([[onto], nodes])]
        length = float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())
        own = RADIUS * float(np.median(tree.scales[nodes]))
        beyond = 0.0 if onto < 0 else RADIUS * float(tree.scales[onto])
        if length >= (max(PRUNED * own, own + beyond) if shortest is None else shortest):
            kept[nodes] = True
            parents[nodes[0]] = onto
    return _cut(tree._replace(parents=parents), kept)


def _outside(tree: Tree, kept: Indices, nodes: Indices) -> tuple[Indices, int]:
    """Return the longest run of nodes outside of the tubes of others, and what it hangs on.

    Returns
    -------
    nodes : ndarray of int
        Of the run; none where all lie within.
    onto : int
        The node among the others that is closest to where the run begins; -1 where it begins with
        the first of the nodes.
    """
    if not len(kept):
        return nodes, -1
    neighbours = np.arange(1, min(NEIGHBOURS, len(kept)) + 1)
    away, near = cKDTree(tree.points[kept]).query(tree.points[nodes], k=neighbours)
    covered = (away < RADIUS * tree.scales[kept][near]).any(axis=1)
    bounds = np.flatnonzero(np.diff(covered.astype(int), prepend=1, append=1))
    if not len(bounds):
        return nodes[:0], -1
    longest = int(np.argmax(bounds[1::2] - bounds[::2]))
    start, end = bounds[2 * longest : 2 * longest + 2]
    return nodes[start:end], int(kept[near[start, 0]]) if start else -1


def _cut(tree: Tree, kept: Mask) -> Tree:
    """Return the nodes that are kept; which hang on each other."""
    rank = np.cumsum(kept) - 1
    parents = tree.parents[kept]
    return _ordered(
        Tree(
            tree.points[kept],
            tree.scales[kept],
            np.where(parents < 0, -1, rank[parents]),
            tree.branch[kept],
        )
    )


def trim(tree: Tree, *, ends_only: bool) -> Tree:
    """Let main branches begin and end where the trunk does, not at the tip of a spine.

    What lies more than a radius beyond the first or the last place where another branch leaves is a
    branch of its own, where it is narrower than the trunk by `NARROW` and no longer than a spine:
    a trunk that tapers off is one trunk.

    Parameters
    ----------
    tree : Tree
        The tree whose short branches are cut off.
    ends_only : bool
        Whether all roots stay.

    Returns
    -------
    Tree
        With other roots, and more branches, where there are such ends.
    """
    parents, branch = tree.parents.copy(), tree.branch.copy()
    count = len(np.unique(branch))
    left = tree.parents[(tree.parents >= 0) & (tree.branch != tree.branch[tree.parents])]
    for above, run in tree.runs():
        forks = left[(left >= run.start) & (left < run.stop)]
        if above >= 0 or not len(forks):
            continue
        typical = NARROW * np.median(tree.scales[run])
        first, last = (
            _beyond(tree, np.arange(fork, end, step))
            for fork, end, step in (
                (forks.min(), run.start - 1, -1),
                (forks.max(), run.stop, 1),
            )
        )
        if _is_side(tree, np.arange(last + 1, run.stop), typical):
            branch[last + 1 : run.stop] = count
            count += 1
        if not ends_only and _is_side(tree, np.arange(run.start, first), typical):
            branch[run.start : first] = count
            parents[run.start : first] = np.arange(run.start + 1, first + 1)
            parents[first] = -1
            count += 1
    return _ordered(tree._replace(parents=parents, branch=branch))


def _is_side(tree: Tree, nodes: Indices, typical: float) -> bool:
    """Tell whether the end of a main branch is narrow and short, as a spine is."""
    if not len(nodes):
        return False
    own = float(np.median(tree.scales[nodes]))
    return own < typical and float(tree.links[nodes].sum()) <= SPINE * RADIUS * own


def _beyond(tree: Tree, nodes: Indices) -> int:
    """Return the last of nodes on a line that lies in the tube of the first."""
    away = np.linalg.norm(tree.points[nodes] - tree.points[nodes[0]], axis=1)
    return int(nodes[np.argmax(away >= RADIUS * tree.scales[nodes[0]]) - 1])


def resample(tree: Tree) -> Tree:
    """Return a tree with nodes at even steps along each branch, half a scale long.

    Parameters
    ----------
    tree : Tree
        The tree whose nodes are laid out anew.

    Returns
    -------
    Tree
        With the same branches.
    """
    points, scales, parents, branch = [], [], [], []
    place = np.full(len(tree.points), -1, np.intp)  # the new node nearest to each old one
    count = 0
    for number, (above, run) in enumerate(tree.runs()):
        nodes = np.arange(run.start, run.stop)
        line = nodes if above < 0 else np.concatenate([[above], nodes])
        links = np.linalg.norm(np.diff(tree.points[line], axis=0), axis=1)
        along = np.concatenate([[0.0], np.cumsum(links)])
        steps = max(1, round(along[-1] / (STEP * float(np.median(tree.scales[nodes])))))
        places = np.linspace(0.0, along[-1], steps + 1)[0 if above < 0 else 1 :]
        columns = [np.interp(places, along, tree.points[line, axis]) for axis in range(3)]
        points.append(np.stack(columns, axis=1))
        inner = along[-len(nodes) :]
        scales.append(np.interp(places, inner, tree.scales[nodes]))
        new = count + np.arange(len(places))
        parents.append(np.concatenate([[-1 if above < 0 else place[above]], new[:-1]]))
        branch.append(np.full(len(places), number))
        place[nodes] = new[np.abs(places[None] - inner[:, None]).argmin(axis=1)]
        count += len(places)
    if not points:
        return tree
    return Tree(
        np.concatenate(points),
        np.concatenate(scales),
        np.concatenate(parents).astype(np.intp),
        np.concatenate(branch).astype(np.intp),
    )
