"""TimeSeries: the times of a recording, each read when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_gaussfit.errors import SettingsError, StackError
from napari_gaussfit.stacks.readers import read_layout
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["TimeSeries"]


@dataclass(frozen=True, eq=False)
class TimeSeries:
    """Stacks of one recording at several times, of one shape and spacing.

    Made by `TimeSeries.open` of a file, whose times are read one after the other, or by
    `TimeSeries.from_stacks` of stacks in memory.

    Parameters
    ----------
    times : tuple of int
        Numbers of the times, ascending.
    read : callable
        Of a place in `times`, the stacks of all channels then.
    notes : tuple of str
        What was assumed as times were chosen.
    """

    times: tuple[int, ...]
    read: Callable[[int], tuple[Stack, ...]]
    notes: tuple[str, ...] = ()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        times: slice | Sequence[int] | None = None,
        *,
        channels: Sequence[int | str] | None = None,
        **options: Any,
    ) -> TimeSeries:
        """Choose times of a file; voxels are read later, time by time.

        Parameters
        ----------
        path : path-like
            The file or folder, as `Stack.open` takes it.
        times : slice or sequence of int, optional
            Which ones, from 0; all by default.
        channels : sequence of int or str, optional
            Which ones, fitted together; must be given where the file has several.
        **options
            ``position``, ``spacing`` and ``fill_nan`` of `Stack.open`.

        Returns
        -------
        TimeSeries
            In the order of time.

        Raises
        ------
        StackError, StackNotFoundError
            If there is no such file, time or channel.
        """
        layout = read_layout(path, position=options.get("position"))
        chosen, notes = _chosen(str(path), layout.times, times)
        wanted = tuple(channels) if channels else (None,)
        for channel in wanted:
            layout.choose(channel, chosen[0])
        several = layout.times > 1

        def read(n: int) -> tuple[Stack, ...]:
            time = chosen[n] if several else None
            return tuple(
                Stack.open(path, channel=channel, time=time, **options) for channel in wanted
            )

        return cls(chosen, read, notes)

    @classmethod
    def from_stacks(cls, stacks: Sequence[Stack | Sequence[Stack]]) -> TimeSeries:
        """Return a series of stacks that are at hand.

        Parameters
        ----------
        stacks : sequence of Stack or of sequence of Stack
            One time after the other; of several channels, a sequence of stacks a time. Times are
            counted from 0.

        Returns
        -------
        TimeSeries
            Of these.

        Raises
        ------
        SettingsError
            If there is none, or they differ in shape, spacing or channels.
        """
        listed = tuple(tuple([one] if isinstance(one, Stack) else one) for one in stacks)
        if not listed:
            raise SettingsError("there is no time to fit; give a stack for each")
        first = _described(listed[0])
        for n, one in enumerate(listed):
            if _described(one) != first:
                raise SettingsError(
                    f"time {n} has {_described(one)}, time 0 has {first}; give times of one "
                    "recording"
                )
        return cls(tuple(range(len(listed))), listed.__getitem__)

    def __len__(self) -> int:
        """Return the number of times."""
        return len(self.times)

    def __iter__(self) -> Iterator[tuple[Stack, ...]]:
        """Yield the channels at each time."""
        return (self.read(n) for n in range(len(self)))


def _chosen(
    label: str, count: int, times: slice | Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return numbers of times, ascending, and a note where fewer are there than were asked for."""
    if times is None:
        return tuple(range(count)), ()
    if not isinstance(times, slice):
        return _listed(label, count, times), ()
    chosen = tuple(range(count))[times]
    if not chosen:
        raise StackError(
            f"{label}: has {count} time point{'s' * (count != 1)}, none of which is in "
            f"{_words(times)}; choose some of 0:{count}"
        )
    if times.stop is not None and times.stop > count:
        beyond = f"{_words(times)} reaches beyond the {count} time points of {label}"
        return chosen, (f"{beyond}; the last that is taken is {chosen[-1]}",)
    return chosen, ()


def _listed(label: str, count: int, times: Sequence[int]) -> tuple[int, ...]:
    chosen = tuple(sorted(set(times)))
    if not chosen or not 0 <= chosen[0] <= chosen[-1] < count:
        raise StackError(
            f"{label}: times {list(times)} are not all in the file, which has {count}; choose some "
            f"from 0 to {count - 1}"
        )
    return chosen


def _words(times: slice) -> str:
    parts = [times.start, times.stop, *([] if times.step is None else [times.step])]
    return ":".join("" if part is None else str(part) for part in parts)


def _described(stacks: Sequence[Stack]) -> str:
    first = stacks[0]
    return f"{len(stacks)} channel(s) of {first.shape} voxels of {first.spacing} {first.unit}"
