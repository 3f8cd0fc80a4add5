"""How points look: sizes and colours go with what is found, unless a person has chosen others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from napari_gaussfit._napari.layers.unwrapped import unwrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari.layers import Points
    from numpy.typing import NDArray

__all__ = ["LOOKS", "move_points", "remember_looks"]

LOOKS = ("size", "face_color", "border_color")
"""Of each point by itself."""

_AS_IT_IS: Any = object()
"""Stands for a look that is not touched."""

_PUT: WeakKeyDictionary[Points, dict[str, NDArray[Any]]] = WeakKeyDictionary()
"""How points were made to look last."""


def remember_looks(points: Points, names: Iterable[str] = LOOKS) -> None:
    """Take the looks that points have now for those that they were given, and no person's."""
    points = unwrapped(points)
    known = _PUT.setdefault(points, {})
    for name in names:
        known[name] = np.array(getattr(points, name))


def move_points(points: Points, move: Callable[[], None], places: Any, **looks: Any) -> None:
    """Give points other places, and looks where no person has chosen others.

    A look that a person has chosen for all points is that of all that there will be. One that they
    have chosen for some stays while points stay where they are, as when a panel is opened again.

    Parameters
    ----------
    points : napari.layers.Points
        The layer, which may have other points than it was given: a person adds and deletes some.
    move : callable
        Sets the layer's data.
    places : array-like, shape [K, N]
        To what it sets them.
    **looks
        Those of `LOOKS` that go with the places, as napari takes them.
    """
    points = unwrapped(points)
    stay = np.array_equal(points.data, places)
    chosen = {name: _chosen(points, name, stay=stay) for name in LOOKS}
    move()
    for name, look in chosen.items():
        if look is not None:
            if look is not _AS_IT_IS and not stay and len(places):
                setattr(points, name, look)
        elif name in looks:
            setattr(points, name, looks[name])
            remember_looks(points, [name])


def _chosen(points: Points, name: str, *, stay: bool) -> Any:
    """Return a look that a person has chosen for all points, None where they have chosen none."""
    if str(getattr(points, f"{name}_mode", "direct")) != "direct":
        return _AS_IT_IS  # napari colours them by a feature.
    now, put = np.asarray(getattr(points, name)), _PUT.get(points, {}).get(name)
    if put is None or not len(now) or np.array_equal(now, put):
        return None
    if (now == now[0]).all():
        alike = put == now[0]
        return None if alike.reshape(len(put), -1).all(axis=1).any() else now[0]
    if not stay or len(now) > len(put):
        return None  # Points were added by hand, with what napari gave them.
    others = {row.tobytes() for row in now} - {row.tobytes() for row in put}
    return _AS_IT_IS if others else None
