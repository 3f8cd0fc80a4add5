"""The real stacks that are fitted, and what stands in for them where they are not at hand."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_gaussfit.stacks.stack import Stack


@dataclass(frozen=True)
class Task:
    """A stack to fit, with how many Gaussians; `spacing` in place of what the file says."""

    name: str
    path: str
    gaussians: int
    spacing: tuple[float, float, float] | None = None


DENDRITE = Task("dendrite", "neurites/dendrite_spines_spotspine.tif", 2_000)
BEADS = Task("beads", "spots_beads/beads_confocal_mpicbg.tif", 200)
NUCLEI = Task("nuclei", "nuclei/nuclei_cells3d_allen.tif", 8_000, (0.29, 0.26, 0.26))


class DataMissingError(Exception):
    """The real stacks are not where they were looked for."""


def data_folder() -> Path:
    """Where the real stacks are: GAUSSFIT_DATA, or ../shared/data beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("GAUSSFIT_DATA", beside))


def open_stack(task: Task, *, small: bool = False) -> Stack:
    """Open a task's stack; `small` gives a phantom of a few thousand voxels instead."""
    from napari_gaussfit import Stack

    if small:
        from napari_gaussfit.synthetic.phantoms import neurite

        return neurite(shape=(10, 24, 24)).stack
    path = data_folder() / task.path
    if not path.is_file():
        message = f"{path} is no file: set GAUSSFIT_DATA to the folder of real stacks"
        raise DataMissingError(message)
    return Stack.open(path, spacing=task.spacing)
