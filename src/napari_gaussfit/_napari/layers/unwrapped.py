"""Layers as they are: a panel's viewer hands each out in a wrapping, and in another one every time.

Two wrappings of a layer are equal, and neither the same object nor of one `id`. Knows no layer.
"""

from __future__ import annotations

from typing import TypeVar

__all__ = ["is_same", "unwrapped"]

T = TypeVar("T")


def unwrapped(thing: T) -> T:
    """Return a layer or viewer as it is, however it came."""
    found: T = getattr(thing, "__wrapped__", thing)
    return found


def is_same(one: object, other: object) -> bool:
    """Tell whether two are one layer, whichever of them is wrapped."""
    return unwrapped(one) is unwrapped(other)
