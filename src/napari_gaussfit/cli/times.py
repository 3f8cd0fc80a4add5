"""Several times at the prompt: `--time all` and `--time 0:30:2` of ``fit`` and ``spots``.

Each time is written as it is done, into a folder of its own, from which a run that was killed goes
on; the table of all times, with their tracks, comes at the end.
"""

from __future__ import annotations

import math
import shutil
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_gaussfit.cli.printing import answer
from napari_gaussfit.errors import OutputError
from napari_gaussfit.jobs.fit_folder import FIT_NAME, REPORT_NAME
from napari_gaussfit.jobs.overwriting import claimed, refuse_to_replace
from napari_gaussfit.jobs.settings_file import SETTINGS_NAME
from napari_gaussfit.jobs.time_folder import (
    PICTURE_NAME,
    TIMES_NAME,
    TRACKS_NAME,
    tracks_report,
    write_times,
)
from napari_gaussfit.stacks.time_series import TimeSeries

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pandas as pd
    from tqdm import tqdm

    from napari_gaussfit.jobs.time_folder import Seen
    from napari_gaussfit.objects.tracks import Tracks

__all__ = [
    "Target",
    "TimesFolder",
    "read_table",
    "say_tracks",
    "series_of",
    "tell",
    "time_bar",
]

_TEXT, _WHOLE = ("flags", "unit"), ("index", "neighbours", "channel", "time")
"""Columns of tables that are no real numbers."""


def series_of(arguments: argparse.Namespace) -> TimeSeries:
    """Return the times that were asked for, and say what was assumed.

    Parameters
    ----------
    arguments : Namespace
        Of the command line.
    """
    series = TimeSeries.open(
        arguments.stack,
        arguments.time,
        channels=arguments.channel,
        position=arguments.position,
        spacing=arguments.spacing,
        fill_nan=arguments.fill_nan,
    )
    notes = (note for stack in series.read(0) for note in stack.notes)
    for note in dict.fromkeys((*series.notes, *notes)):
        sys.stderr.write(f"note: {note}\n")
    return series


@dataclass(frozen=True)
class Target:
    """Where results go.

    Parameters
    ----------
    path : Path
        The folder, which may hold the times that were done before a kill.
    inputs : sequence of Path
        Files that are read, and never written over.
    force, resume : bool
        Whether what is there is replaced, or gone on from.
    also : sequence of Path
        Further files, in the formats that their names ask for.
    """

    path: Path
    inputs: Sequence[Path]
    force: bool
    resume: bool
    also: Sequence[Path] = ()


@dataclass(frozen=True)
class TimesFolder:
    """OUT of several times."""

    target: Target
    table: str

    @property
    def path(self) -> Path:
        """The folder."""
        return self.target.path

    @property
    def outputs(self) -> tuple[Path, ...]:
        """What is there in the end."""
        names = (self.table, REPORT_NAME, TRACKS_NAME, PICTURE_NAME)
        return tuple(self.path / name for name in names)

    def of(self, time: int) -> Path:
        """Return the folder of a time."""
        return self.path / TIMES_NAME / f"{time:04d}"

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep others from writing into it; refuse to write over what is there."""
        self._refuse()
        with claimed(self.path):
            self._refuse()  # once more: another run may have ended there since
            if not self.target.resume:
                self.clear()
            yield

    def _refuse(self) -> None:
        instead = ", --resume goes on with it" * (self.path / TIMES_NAME).is_dir()
        targets = [*self.outputs, self.path / TIMES_NAME, self.path / FIT_NAME]
        force = self.target.force or self.target.resume
        refuse_to_replace(targets, inputs=self.target.inputs, force=force, instead=instead)

    def clear(self) -> None:
        """Remove what an earlier run has left, which the new one replaces."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.path / TIMES_NAME)
        for path in (*self.outputs, self.path / FIT_NAME):
            path.unlink(missing_ok=True)

    def write(
        self, table: pd.DataFrame, tracks: Tracks, report: dict[str, Any], seen: Seen
    ) -> None:
        """Write the tables, the report and the picture of all times."""
        from napari_gaussfit.formats.registry import TRACK_WRITERS, writer_of
        from napari_gaussfit.formats.tracked import Tracked

        facts = seen.stack.facts
        write_times(self.path, self.table, table, tracks, report, (seen.projection, facts))
        for path in self.target.also:
            writer_of(path, TRACK_WRITERS)(path, Tracked.of_table(table, facts.unit), facts)
        answer({"out": str(self.path)} | report | tracks_report(tracks))


def time_bar(times: int) -> tqdm[Any]:
    """Return a bar of so many times."""
    from tqdm import tqdm

    # disable=None: silent where stderr is no terminal.
    return tqdm(total=times, unit="time", file=sys.stderr, disable=None, dynamic_ncols=True)


def tell(bar: tqdm[Any], line: str) -> None:
    """Say a line beside a bar."""
    bar.clear()
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def say_tracks(path: Path, what: str, table: pd.DataFrame, tracks: Tracks) -> None:
    """Say how many there are of something, and in how many tracks."""
    found = tracks_report(tracks)
    sys.stdout.write(
        f"{path}: {len(table):,} {what} at {len(tracks.times)} times in {found['tracks']:,} "
        f"tracks; {found['born']:,} began and {found['died']:,} ended on the way\n"
        f"{path}: wrote the table of all times, {TRACKS_NAME}, {PICTURE_NAME}, {REPORT_NAME}, "
        f"{SETTINGS_NAME}, and a folder a time in {TIMES_NAME}\n"
    )


def read_table(path: Path) -> pd.DataFrame:
    """Read a table that `write_table` wrote, to the bit."""
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be read again: {error}") from error
    # One by one: pandas' own parser may be off by the last bit.
    kinds: dict[str, Any] = dict.fromkeys(_TEXT, str) | dict.fromkeys(_WHOLE, int)
    return pd.DataFrame(
        {
            name: [kinds.get(name, _number)(text) for text in column]
            for name, column in zip(table.columns.astype(str), table.to_numpy().T, strict=True)
        }
    )


def _number(text: str) -> float:
    return float(text) if text else math.nan
