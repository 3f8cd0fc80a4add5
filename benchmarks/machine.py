"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.tables import Cell, Table

PACKAGES = ("napari-gaussfit", "torch", "numba", "numpy", "scipy")


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def version_of(name: str) -> str:
    """The version of an installed package; a checkout may be measured that is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def describe() -> Table:
    """Processor, cores, memory, system, load and versions."""
    import psutil
    import torch

    from napari_gaussfit._threads import thread_count

    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "not known here"
    rows: list[tuple[Cell, ...]] = [
        ("processor", cpu_name()),
        ("cores this process may use", thread_count()),
        ("threads of plain torch", torch.get_num_threads()),
        ("memory, GB", psutil.virtual_memory().total / 1e9),
        ("system", f"{platform.system()} {platform.machine()}"),
        ("load before the run (1 minute)", load),
        ("Python", platform.python_version()),
    ]
    rows += [(name, version_of(name)) for name in PACKAGES]
    return Table("Machine", ("what", "which"), tuple(rows))
