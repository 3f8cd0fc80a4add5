"""What a stack of another size would take by tiles, from the log of one that was fitted.

``python -m benchmarks.tile_costs OUT`` of a folder that a fit by tiles has left.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import Cell, Table

SIZES = {"1 GB": 1e9, "100 GB": 1e11, "1 TB": 1e12, "100 TB": 1e14}
CORES = (2, 64, 1024)


@dataclass(frozen=True)
class Costs:
    """Of a tile, in seconds of a core: one that is fitted, through all stages, and one that is not.

    share : of tiles that are fitted; memory : bytes of a process; voxels : of a core; written :
    bytes of the result a fitted tile; itemsize : bytes a voxel of all channels.
    """

    fitted: float
    background: float
    reading: float
    share: float
    memory: float
    voxels: float
    written: float
    itemsize: int

    @classmethod
    def of(cls, folder: Path) -> Costs:
        """Read what a fit by tiles has noted."""
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        plan = json.loads((folder / "plan.json").read_text())
        fits = [line for line in lines if line["stage"] == "fit"]
        done = [line for line in fits if line["status"] == "done"]
        looks = [line for line in lines if line["stage"] == "look"]
        dark = [line for line in looks if line["status"] == "background"]
        later = sum(line["seconds"] for line in lines if line not in fits and line not in dark)
        edges = plan["tiles"]["edges"]
        tiles = math.prod(len(cut) - 1 for cut in edges)
        parts = sum(path.stat().st_size for path in folder.glob("*.parquet/*.parquet"))
        return cls(
            _mean(done, "seconds") + later / max(1, len(done)),
            _mean(dark, "seconds"),
            sum(line["read_seconds"] for line in lines) / tiles,
            len(done) / tiles,
            max(line["memory"] for line in lines),
            math.prod(plan["stack"][0]["shape"]) / tiles,
            parts / max(1, len(done)),
            sum(np.dtype(dtype).itemsize for dtype in plan["dtype"]),
        )

    def row(self, name: str, nbytes: float, cores: int) -> tuple[Cell, ...]:
        """What a stack of so many bytes takes on so many cores, a worker each."""
        tiles = nbytes / self.itemsize / self.voxels
        a_tile = self.share * self.fitted + (1 - self.share) * self.background + self.reading
        hours = tiles * a_tile / 3600
        written = tiles * self.share * self.written
        return (name, cores, round(tiles), hours / cores, cores * self.memory / 1e9, written / 1e9)


def _mean(lines: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([line[name] for line in lines])) if lines else 0.0


def predicted(folder: Path) -> Table:
    """The table of all sizes and cores."""
    costs = Costs.of(folder)
    rows = tuple(
        costs.row(name, nbytes, cores) for name, nbytes in SIZES.items() for cores in CORES
    )
    note = (
        f"From {folder.name}: a fitted tile {costs.fitted:.3g} s, one of background "
        f"{1e3 * costs.background:.3g} ms, reading {1e3 * costs.reading:.3g} ms a tile, "
        f"{100 * costs.share:.3g} % of tiles fitted. Storage that all workers share is not in it."
    )
    return Table(
        "What stacks of other sizes would take",
        ("stack", "cores", "tiles", "hours", "GB of memory", "GB written"),
        rows,
        (note,),
    )


def main() -> None:
    """Print the table of a folder."""
    parser = argparse.ArgumentParser("python -m benchmarks.tile_costs", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="OUT")
    print(predicted(parser.parse_args().folder).text())


if __name__ == "__main__":
    main()
