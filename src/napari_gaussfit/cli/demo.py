"""The demo: Gaussians that are known, a stack of them with noise, and how well a fit finds them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_gaussfit.cli.drawing import drawing
from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.cli.fit import begin
from napari_gaussfit.cli.options import add_force, add_manner
from napari_gaussfit.settings import FitSettings

if TYPE_CHECKING:
    import argparse

    from napari_gaussfit.jobs.drawing import Drawer
    from napari_gaussfit.synthetic.phantoms import Phantom

__all__ = [
    "STACK_NAME",
    "TRUTH_NAME",
    "add_parser",
    "compare",
    "has_screen",
    "problem",
    "run",
    "show",
]

DEMO_FOLDER = "napari-gaussfit-demo"

PHOTONS = 500.0
"""Light at the brightest voxel: that of a good confocal recording."""

STACK_NAME, TRUTH_NAME = "stack.ome.tif", "truth.csv"

COMPARED_WITH = ("napari_gaussfit.stacks.tiff", "scipy.optimize")
"""Modules that `compare` needs."""


def add_parser(commands: Any) -> None:
    """Add the command to a command line."""
    demo = commands.add_parser(
        "demo", help="fit a built-in phantom and compare with the truth",
        epilog="examples:\n  napari-gaussfit demo -o demo-output",
    )  # fmt: skip
    demo.add_argument(
        "-o",
        "--out",
        metavar="OUT",
        type=Path,
        default=Path(DEMO_FOLDER),
        help=f"folder to write ({DEMO_FOLDER})",
    )
    add_force(demo)
    add_manner(demo, json=False)
    demo.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Fit the phantom, compare, and return the exit code."""
    with drawing() as drawer:
        return _run(arguments, drawer)


def _run(arguments: argparse.Namespace, drawer: Drawer | None) -> int:
    from napari_gaussfit.fitting.fit import Fit
    from napari_gaussfit.jobs.fit_folder import REPLACED, FitFolder, checked_folder
    from napari_gaussfit.jobs.overwriting import refuse_to_replace

    folder = checked_folder(arguments.out)
    written = (STACK_NAME, TRUTH_NAME, *REPLACED)
    refuse_to_replace([folder / name for name in written], force=arguments.force)
    phantom, settings = problem()
    fit = Fit(phantom.stack, settings)
    place = FitFolder(folder, (phantom.stack,), drawer=drawer)
    code = begin(fit, place, force=arguments.force, needed=COMPARED_WITH)
    if code == Exit.DONE:
        compare(folder, phantom)
        show(folder)
    return code


def problem() -> tuple[Phantom, FitSettings]:
    """Return a stack of known Gaussians that do not overlap, and settings to find as many."""
    from napari_gaussfit.synthetic.phantoms import separated

    phantom = separated(photons=PHOTONS)
    return phantom, FitSettings(gaussians=len(phantom.truth), exactly=True)


def compare(folder: Path, phantom: Phantom) -> None:
    """Print how far the fit in a folder is from the truth, and write stack and truth beside it."""
    import numpy as np

    from napari_gaussfit.fitting.result import load
    from napari_gaussfit.formats.csv import write_csv
    from napari_gaussfit.formats.registry import FIT_NAME
    from napari_gaussfit.stacks.tiff import write_ome_tiff
    from napari_gaussfit.synthetic.recovery import errors_of

    stack = phantom.stack
    write_ome_tiff(
        folder / STACK_NAME, stack.voxels, spacing=stack.spacing, unit=stack.unit, name=stack.name
    )
    write_csv(folder / TRUTH_NAME, phantom.truth, stack.spacing)
    errors = errors_of(load(folder / FIT_NAME).field, phantom.truth)
    lines = (
        ("centre", errors["centre"] * 1000, "nm"),
        ("width", errors["width"] * 100, "%"),
        ("amplitude", errors["amplitude"] * 100, "%"),
    )
    voxel = " x ".join(f"{1000 * d:.0f}" for d in stack.spacing)
    sys.stdout.write(
        f"{len(phantom.truth)} true Gaussians in voxels of {voxel} nm; errors of those found:\n"
    )
    for name, values, unit in lines:
        sys.stdout.write(
            f"  {name:<10} median {np.median(values):.2g} {unit}, "
            f"95th percentile {np.percentile(values, 95):.2g} {unit}\n"
        )
    names = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file()))
    sys.stdout.write(f"{folder} holds {names}\n")


def has_screen() -> bool:
    """Tell whether a person sits before a screen: a terminal, and a window system behind it."""
    if not sys.stdout.isatty() or os.environ.get("CI"):
        return False
    named = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(named) or platform.system() != "Linux"


def show(folder: Path) -> None:
    """Open the stack and the centres found in napari, where there is a screen."""
    if not has_screen():
        return
    from napari_gaussfit.jobs.fit_folder import TABLE_NAME

    files = [str(folder / STACK_NAME), str(folder / TABLE_NAME)]
    # A process of its own: the command line imports neither napari nor Qt. -P: what lies in the
    # working folder is not imported.
    command = [sys.executable, "-P", "-m", "napari", "--plugin", "napari", *files]
    subprocess.run(command, check=False)
