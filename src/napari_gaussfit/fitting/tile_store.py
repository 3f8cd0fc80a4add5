"""The working files of a fit by tiles: what each task has found, and a log of those that ended.

A file is written once, whole, under a name that says what it depends on; so a run that was killed
goes on with what is there, and what is there cannot be of other settings.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import FormatError
from napari_gaussfit.files import replacing
from napari_gaussfit.fitting.placed import Placed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    Place = tuple[int, int, int]

__all__ = ["LOG_NAME", "Outcome", "Stage", "Status", "TileStore", "digest_of"]

LOG_NAME = "log.jsonl"
"""A line a task: what came of it, and what it took. The one file that no two runs have alike."""

_GAUSSIANS = ("means", "cholesky", "amplitudes")


class Stage(StrEnum):
    """What is done in turn, in all tiles each."""

    LOOK = "look"
    WIDE = "wide"
    FIT = "fit"
    SEAMS = "seams"
    MEASURE = "measure"
    WRITE = "write"


class Status(StrEnum):
    """How a task ended."""

    DONE = "done"
    BACKGROUND = "background"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    Parameters
    ----------
    status : Status
        Whether it was done, there was nothing but background, or it failed each time.
    gaussians : int
        Number of Gaussians in the file that it has written; there is none where it is 0.
    numbers : dict of float
        What was measured in the tile.
    error : str
        Why the tile failed, empty where it did not.
    seconds : float
        It took, reading not counted.
    read_seconds : float
        How long reading the tile's voxels took.
    memory : int
        Bytes that its process had in memory at most until then.
    file : bool
        Whether it has written a file, of which there are no Gaussians.
    began : float
        When its worker began it, in seconds since 1970.
    worker : str
        Which process did it: the machine's name and the process' number there.
    """

    status: Status
    gaussians: int = 0
    numbers: dict[str, float] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0
    read_seconds: float = 0.0
    memory: int = 0
    file: bool = False
    began: float = 0.0
    worker: str = ""

    @property
    def left_file(self) -> bool:
        """Whether it has written a file."""
        return self.file or self.gaussians > 0


@dataclass(frozen=True)
class TileStore:
    """A folder of working files.

    Parameters
    ----------
    folder : Path
        All workers must be able to read and write it.
    suffix : str
        What the names of the files end with.
    """

    folder: Path
    suffix: str = ".safetensors"

    @property
    def log_path(self) -> Path:
        """The log."""
        return self.folder / LOG_NAME

    def path(self, stage: Stage, place: Place, key: str) -> Path:
        """Return the file of a task.

        Parameters
        ----------
        stage : Stage
            The stage of the work: a colour of tiles, or the seams.
        place : tuple of int
            Where the tile lies among all tiles, along z, y, x.
        key : str
            What it depends on.
        """
        name = "-".join(f"{n:04d}" for n in place)
        return self.folder / f"{stage}-{name}-{key}{self.suffix}"

    def save(
        self, path: Path, found: Placed, arrays: Mapping[str, NDArray[Any]] | None = None
    ) -> None:
        """Write Gaussians.

        Parameters
        ----------
        path : Path
            Where the file goes, as `path` returns it.
        found : Placed
            The Gaussians that the tile commits.
        arrays : mapping of ndarray, optional
            What else is known of them; ``owners`` [K, 4] says whose place they take: the place of
            the tile, and the row there.
        """
        from safetensors.numpy import save_file

        numbers: dict[str, NDArray[Any]] = {name: getattr(found, name) for name in _GAUSSIANS}
        numbers |= arrays or {}
        contiguous = {name: np.ascontiguousarray(array) for name, array in numbers.items()}
        with replacing(path) as temporary:
            save_file(contiguous, temporary)

    def load(self, path: Path) -> tuple[Placed, dict[str, NDArray[Any]]]:
        """Read Gaussians and what else is known of them.

        Parameters
        ----------
        path : Path
            A file that `save` has written.

        Returns
        -------
        Placed
            The Gaussians.
        dict of ndarray
            What was given beside them.

        Raises
        ------
        FormatError
            If it is not there, or no such file.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            arrays = load_file(path)
            found = Placed(*(arrays.pop(name) for name in _GAUSSIANS))
        except (OSError, SafetensorError, KeyError) as error:
            raise FormatError(
                f"{path}: a working file of the fit is missing or damaged; remove it and its "
                "folder's log, then --resume fits its tile again"
            ) from error
        return found, arrays

    def log(self, key: str, stage: Stage, place: Place, outcome: Outcome) -> None:
        """Note that a task has ended.

        Parameters
        ----------
        key : str
            What it depends on.
        stage, place : Stage, tuple of int
            Which task it was.
        outcome : Outcome
            What came of it.
        """
        line = json.dumps({"key": key, "stage": stage, "place": place, **asdict(outcome)})
        with self.log_path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def ended(self) -> dict[str, Outcome]:
        """Return what came of the tasks that were done, by key; failed ones are tried again."""
        found: dict[str, Outcome] = {}
        if not self.log_path.is_file():
            return found
        for line in self.log_path.read_text(encoding="utf-8").splitlines():
            try:
                words = json.loads(line)
            except ValueError:
                continue  # cut short as the run was killed
            key, stage, place = words.pop("key"), Stage(words.pop("stage")), words.pop("place")
            outcome = Outcome(**(words | {"status": Status(words["status"])}))
            if outcome.status is Status.FAILED:
                continue
            written = stage is not Stage.WRITE and outcome.left_file
            if not written or self.path(stage, (place[0], place[1], place[2]), key).is_file():
                found[key] = outcome
        return found


def digest_of(parts: Iterable[object]) -> str:
    """Return a checksum of what a result depends on.

    Parameters
    ----------
    parts : iterable of object
        JSON types, or what prints itself whole.
    """
    text = json.dumps([*parts], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
