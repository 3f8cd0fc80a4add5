"""What importing the package costs before anything is used."""

from __future__ import annotations

import statistics
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.tables import Cell, Table

if TYPE_CHECKING:
    from benchmarks.options import Options

PROGRAM = """
import time
began = time.perf_counter()
import {module}
print(time.perf_counter() - began)
"""
MODULES = ("napari_gaussfit", "napari_gaussfit.fitting.fit", "torch")


def seconds_to_import(module: str) -> float:
    """Time an import in a new interpreter."""
    program = PROGRAM.format(module=module)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def measure(options: Options) -> list[Table]:
    """Import in turns, each time in a new interpreter."""
    turns = options.pick(options.turns, 1)
    taken: dict[str, list[float]] = {module: [] for module in MODULES}
    for _ in range(turns):
        for module in MODULES:
            taken[module].append(seconds_to_import(module))
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (f"import {module}", 1e3 * statistics.median(seconds)) for module, seconds in taken.items()
    )
    return [Table("Imports", ("what", "ms"), rows)]
