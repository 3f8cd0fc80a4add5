"""SWC: a tree of nodes with radii, a line each, that programs for neurons read.

``node kind x y z radius parent``, in micrometres, a parent before its children and -1 for none
(R. C. Cannon et al., J. Neurosci. Methods 84 (1998) 49).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.errors import FormatError
from napari_gaussfit.files import replacing

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Indices = NDArray[np.intp]

__all__ = ["read_swc", "write_swc"]

_COLUMNS = 7


def write_swc(
    path: str | os.PathLike[str],
    points: Floats,
    radii: Floats,
    parents: Indices,
    kinds: Indices,
    *,
    comments: Sequence[str] = (),
) -> None:
    """Write trees as SWC.

    Parameters
    ----------
    path : path-like
        The file to write or to replace.
    points : ndarray, shape [N, 3]
        In micrometres, axis order z, y, x.
    radii : ndarray, shape [N]
        Radius at each node, in micrometres.
    parents : ndarray of int, shape [N]
        The node before that each hangs on, from 0; -1 for a root.
    kinds : ndarray of int, shape [N]
        1 soma, 2 axon, 3 dendrite, 0 undefined.
    comments : sequence of str
        Lines to begin with.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    lines = [*(f"# {comment}" for comment in comments), "# node kind x y z radius parent"]
    for n, (point, radius, parent, kind) in enumerate(
        zip(points, radii, parents, kinds, strict=True), 1
    ):
        z, y, x = point
        above = parent + 1 if parent >= 0 else -1
        lines.append(f"{n} {kind} {x:.6g} {y:.6g} {z:.6g} {radius:.6g} {above}")
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_swc(path: str | os.PathLike[str]) -> tuple[Floats, Floats, Indices, Indices]:
    """Read trees from SWC.

    Parameters
    ----------
    path : path-like
        The file; nodes may have any numbers, in any order.

    Returns
    -------
    points : ndarray, shape [N, 3]
        Axis order z, y, x, as the file has them.
    radii : ndarray, shape [N]
        As the file has them.
    parents : ndarray of int, shape [N]
        From 0, -1 for a root.
    kinds : ndarray of int, shape [N]
        As the file has them.

    Raises
    ------
    FormatError
        If there is no such file, or a line is no node, or names a parent that there is not.
    """
    rows: list[list[float]] = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            for number, line in enumerate(file, 1):
                words = line.split("#")[0].split()
                if words:
                    rows.append(_node(words, f"{path}: line {number}"))
    except FileNotFoundError as error:
        raise FormatError(f"{path}: there is no such file; check the path") from error
    table = np.array(rows).reshape(-1, _COLUMNS)
    place = {int(node): n for n, node in enumerate(table[:, 0])}
    parents = [-1 if above < 0 else place.get(int(above), -2) for above in table[:, 6]]
    if -2 in parents:
        above = int(table[parents.index(-2), 6])
        raise FormatError(f"{path}: a node hangs on node {above}, which is not there")
    return table[:, [4, 3, 2]], table[:, 5], np.array(parents, np.intp), table[:, 1].astype(np.intp)


def _node(words: list[str], where: str) -> list[float]:
    try:
        numbers = [float(word) for word in words[:_COLUMNS]]
    except ValueError:
        numbers = []
    if len(numbers) != _COLUMNS or not np.isfinite(numbers).all():
        raise FormatError(f"{where}: expected seven numbers: node kind x y z radius parent")
    return numbers
