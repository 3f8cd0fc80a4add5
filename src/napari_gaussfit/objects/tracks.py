"""Tracks: which objects at one time are those at the next.

Knows places alone. Where identity is known it is kept; the rest is linked by a linear assignment
(laptrack, after K. Jaqaman et al., Nat. Methods 5 (2008) 695), each axis in units of how far
objects move along it, which the places themselves tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.model.gaussians import Gaussians

    Floats = NDArray[np.float64]
    Indices = NDArray[np.int64]
    Edge = tuple[tuple[int, int], tuple[int, int]]

__all__ = ["Tracks", "joined_tables", "link", "tracks_of"]

REACH = 5.0
"""Standard deviations of the steps of all objects, beyond which no link is."""

GAP = 1
"""Times at which an object may be missed without its track ending."""

STANDING = 0.1
"""Of the median width, what an object that stands still moves by, by chance."""

TURNS = 3
"""Of telling from links how far objects move, and linking by that."""


@dataclass(frozen=True, eq=False)
class Tracks:
    """Which objects of several times are one.

    Parameters
    ----------
    times : tuple of int
        Numbers of the times, ascending.
    numbers : tuple of ndarray of int, shape [K]
        At each time, the track of each object, from 0 in the order of appearance.
    steps : ndarray, shape [3]
        Standard deviations along z, y and x of how far objects moved from a time to the next; NaN
        where there is no link.
    """

    times: tuple[int, ...]
    numbers: tuple[Indices, ...]
    steps: Floats

    def __len__(self) -> int:
        """Return the number of tracks."""
        return int(max((one.max(initial=-1) for one in self.numbers), default=-1)) + 1

    @property
    def links(self) -> int:
        """How many times an object is known from an earlier time."""
        return sum(map(len, self.numbers)) - len(self)

    def table(self) -> pd.DataFrame:
        """Return when each track begins and ends.

        Returns
        -------
        DataFrame, a row a track
            track; first and last (times); objects (times at which it was seen); born and died:
            whether it began after the first time, and ended before the last one.
        """
        count = len(self)
        first, last = np.full(count, -1), np.full(count, -1)
        objects: Indices = np.zeros(count, np.int64)
        for time, numbers in zip(self.times, self.numbers, strict=True):
            first[numbers[first[numbers] < 0]] = time
            last[numbers] = time
            objects[numbers] += 1
        begin, end = (self.times[0], self.times[-1]) if self.times else (0, 0)
        columns = {"track": np.arange(count), "first": first, "last": last, "objects": objects}
        return pd.DataFrame(columns | {"born": first > begin, "died": last < end})


def link(
    places: Sequence[Floats],
    least: Floats,
    *,
    times: Sequence[int] | None = None,
    follows: Sequence[Indices] | None = None,
    reach: float | None = None,
) -> Tracks:
    """Link objects of one time to those of the next.

    Parameters
    ----------
    places : sequence of ndarray, shape [K, 3]
        At each time z, y, x of objects, without what all of them moved by.
    least : ndarray, shape [3]
        What objects that stand still move by, by chance, along z, y and x.
    times : sequence of int, optional
        Numbers of the times; counted from 0 if None.
    follows : sequence of ndarray of int, shape [K], optional
        At each time, which object of the time before each is known to be; -1 where that is not
        known.
    reach : float, optional
        How far an object may move from one time to the next, in the places' unit; if None, by what
        objects move by.

    Returns
    -------
    Tracks
        Each object in one.
    """
    numbered = tuple(range(len(places)) if times is None else times)
    known = _known_edges(follows)
    edges = known
    scale = _steps(places, edges, least) if edges else _first_guess(places, least)
    for _ in range(TURNS):
        # A reach that is given is the only scale: farther is no link, whatever others did.
        edges = known + _linked(places, known, scale, reach)
        before, scale = scale, _steps(places, edges, least)
        if np.allclose(before, scale, rtol=0.02):
            break
    return Tracks(numbered, _numbers(places, edges), scale if edges else np.full(3, np.nan))


def _known_edges(follows: Sequence[Indices] | None) -> list[Edge]:
    if follows is None:
        return []
    return [
        ((n - 1, int(before)), (n, k))
        for n, sources in enumerate(follows)
        if n
        for k, before in enumerate(sources)
        if before >= 0
    ]


def _first_guess(places: Sequence[Floats], least: Floats) -> Floats:
    """Return the spread [3] of steps between objects that are each other's nearest."""
    moved = [np.zeros((0, 3))]
    for old, new in pairwise(places):
        if len(old) and len(new):
            there, back = cKDTree(new).query(old)[1], cKDTree(old).query(new)[1]
            mutual = np.flatnonzero(back[there] == np.arange(len(old)))
            moved.append(new[there[mutual]] - old[mutual])
    return _spread(np.concatenate(moved), least)


def _steps(places: Sequence[Floats], edges: list[Edge], least: Floats) -> Floats:
    """Return the spread [3] of the steps that links make."""
    moved = [
        places[after[0]][after[1]] - places[before[0]][before[1]]
        for before, after in edges
        if after[0] == before[0] + 1
    ]
    return _spread(np.reshape(moved, (-1, 3)), least)


def _spread(moved: Floats, least: Floats) -> Floats:
    """Return the root mean square of most of some steps, of which a few may be wrong."""
    if not len(moved):
        return np.asarray(least, np.float64)
    middle = 1.4826 * np.median(np.abs(moved), axis=0)
    within = np.abs(moved) <= np.maximum(REACH * middle, least)
    squares = np.where(within, np.square(moved), 0.0).sum(0) / np.maximum(within.sum(0), 1)
    spread: Floats = np.maximum(np.sqrt(squares), least)
    return spread


def _linked(
    places: Sequence[Floats], known: list[Edge], scale: Floats, reach: float | None
) -> list[Edge]:
    """Return links between what ends and what begins; all, where nothing is known."""
    from laptrack import LapTrack

    unit = scale if reach is None else np.full(3, reach / REACH)
    ends, begins = {before for before, _ in known}, {after for _, after in known}
    rows = [
        np.array([k for k in range(len(at)) if not {(n, k)} <= (ends & begins)], np.int64)
        for n, at in enumerate(places)
    ]
    of = [{int(k): i for i, k in enumerate(some)} for some in rows]
    if not any(map(len, rows)):
        return []
    segments = [
        ((n, of[n][k]), (m, of[m][j])) for (n, k), (m, j) in _segments(known, ends & begins)
    ]
    options: dict[str, Any] = {
        "cutoff": REACH**2,
        "gap_closing_cutoff": REACH**2,
        "gap_closing_max_frame_count": GAP + 1,
        "track_start_cost": REACH**2,
        "track_end_cost": REACH**2,
        "segment_start_cost": REACH**2,
        "segment_end_cost": REACH**2,
    }
    linker = LapTrack(**options)
    scaled = [at[some].reshape(-1, 3) / unit for at, some in zip(places, rows, strict=True)]
    tree = linker.predict(scaled, connected_edges=segments or None)
    inner_links = set(segments)
    return sorted(
        ((n, int(rows[n][i])), (m, int(rows[m][j])))
        for (n, i), (m, j) in tree.edges
        if ((n, i), (m, j)) not in inner_links
    )


def _segments(known: list[Edge], inner: set[tuple[int, int]]) -> list[Edge]:
    """Return the two ends of each run of known links."""
    after = dict(known)
    segments = []
    for begin, _ in known:
        if begin in inner:
            continue
        end = begin
        while end in after:
            end = after[end]
        segments.append((begin, end))
    return segments


def _numbers(places: Sequence[Floats], edges: list[Edge]) -> tuple[Indices, ...]:
    """Return the track of each object, in the order in which tracks begin."""
    before = {after: source for source, after in edges}
    numbers: list[Indices] = []
    count = 0
    for n, at in enumerate(places):
        own = np.empty(len(at), np.int64)
        for k in range(len(at)):
            source = before.get((n, k))
            if source is None:
                own[k], count = count, count + 1
            else:
                own[k] = numbers[source[0]][source[1]]
        numbers.append(own)
    return tuple(numbers)


def tracks_of(
    gaussians: Sequence[Gaussians],
    drifts: Sequence[Floats],
    times: Sequence[int],
    *,
    follows: Sequence[Indices] | None = None,
    reach: float | None = None,
) -> Tracks:
    """Return the tracks of Gaussians of several times.

    Parameters
    ----------
    gaussians : sequence of Gaussians
        The Gaussians of each time.
    drifts : sequence of ndarray, shape [3]
        By which all had moved since the time before.
    times : sequence of int
        The number of each time in the recording.
    follows : sequence of ndarray of int, shape [K], optional
        Which of the time before each is known to be, see `link`.
    reach : float, optional
        How far an object moves from a time to the next at most; see `link`.

    Returns
    -------
    Tracks
        Each Gaussian in one.
    """
    moved = np.cumsum(np.reshape(drifts, (-1, 3)), axis=0)
    places = [one.means - by for one, by in zip(gaussians, moved, strict=True)]
    squares = np.concatenate([np.diagonal(one.covariances, axis1=1, axis2=2) for one in gaussians])
    width = np.sqrt(np.median(squares, axis=0)) if len(squares) else np.ones(3)
    return link(places, STANDING * width, times=times, follows=follows, reach=reach)


def joined_tables(tables: Iterable[pd.DataFrame], tracks: Tracks) -> pd.DataFrame:
    """Return one table of all times, with columns time and track at the end.

    Parameters
    ----------
    tables : iterable of DataFrame
        At each time, a row an object.
    tracks : Tracks
        Which rows of the tables are the same object.

    Returns
    -------
    DataFrame
        A row an object and time.
    """
    parts = [
        table.assign(time=time, track=numbers)
        for table, time, numbers in zip(tables, tracks.times, tracks.numbers, strict=True)
    ]
    # An empty part says nothing of its columns' types.
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
