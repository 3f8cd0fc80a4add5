"""`napari-gaussfit trace`: the neurites in a fit, as SWC, a table of branches and a picture."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from napari_gaussfit.jobs.folders import TRACE_OUTPUTS, write_trace

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.objects.neurites import Trace
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["ALSO", "GAUSSIANS", "WRITERS", "add_options", "gaussians_for", "outputs", "write"]

SOMA = 1
"""The kind of a soma's node, as SWC numbers it."""

ALSO, WRITERS = "trace.swc, .geff", "TREE_WRITERS"
"""What else can be written, in words, and the table of formats that says so."""


GAUSSIANS = "exactly as many as the size of the signal suggests"
"""How many there are if nothing is said."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what is asked of a trace."""
    parser.add_argument(
        "--faintest", type=float, metavar="PART",
        help="faintest neurite followed, in parts of bright ones (0.1)",
    )  # fmt: skip
    parser.add_argument(
        "--gap", type=float, metavar="PART",
        help="gaps are bridged where f falls to no less than this part (0.1)",
    )  # fmt: skip
    parser.add_argument(
        "--shortest", type=float, metavar="LENGTH",
        help="shortest branch, micrometers (three of its radii)",
    )  # fmt: skip
    parser.add_argument(
        "--spine-length", type=float, metavar="LENGTH",
        help="longest spine, micrometers; 0 for none (3 where voxels have a size)",
    )  # fmt: skip
    parser.add_argument(
        "--psf-fwhm", type=float, nargs=3, metavar=("Z", "Y", "X"),
        help="microscope's resolution, micrometers, taken out of the radii (not known)",
    )  # fmt: skip
    parser.add_argument(
        "--soma", type=float, nargs=4, metavar=("Z", "Y", "X", "R"),
        help="centre and radius of a soma, micrometers: the root (looked for)",
    )  # fmt: skip
    parser.add_argument("--no-soma", action="store_true", help="look for no soma")


def outputs(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return what a trace leaves in its folder.

    Parameters
    ----------
    arguments : Namespace
        What was given to the command.
    """
    del arguments
    return TRACE_OUTPUTS


def gaussians_for(_: Stack) -> None:
    """Leave the number of Gaussians to the stack."""


def write(result: FitResult, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Trace a fit, write what was found into a folder, and say it.

    Parameters
    ----------
    result : FitResult
        The fit whose Gaussians are looked into; of one channel.
    arguments : Namespace
        With the options of `add_options`.
    folder : Path
        An existing folder, into which the files are written.

    Returns
    -------
    dict
        How many there are of what, as JSON types.
    """
    from napari_gaussfit.objects.neurites import SPINE_LENGTH, TraceSettings, trace

    stack = result.stack
    known = stack.unit == "micrometer"
    given = {
        "faintest": arguments.faintest,
        "gap": arguments.gap,
        "shortest": arguments.shortest,
        "spine_length": arguments.spine_length,
        "psf_fwhm": arguments.psf_fwhm and tuple(arguments.psf_fwhm),
        "soma": arguments.soma and tuple(arguments.soma),
        "find_soma": not arguments.no_soma,
    }
    given = {"spine_length": SPINE_LENGTH if known else 0.0} | {
        name: value for name, value in given.items() if value is not None
    }
    found = trace(result.field.numpy(), stack.box, TraceSettings(**given))
    write_trace(folder, result, found, also=arguments.also)
    sys.stdout.write(f"{folder}: {_said(found)}\n")
    if not known:
        sys.stdout.write("note: the voxels' size is not known: lengths, also in SWC, are pixels\n")
    sys.stdout.write(f"{folder}: wrote {', '.join(TRACE_OUTPUTS)}\n")
    branches = found.branches
    return {
        "branches": len(branches),
        "spines": int(branches.spine.sum()),
        "length": float(branches.length.sum()),
        "unit": found.unit,
    }


def _said(found: Trace) -> str:
    branches = found.branches
    if not len(branches):
        return "no neurite was found; --faintest 0.02 follows fainter ones"
    unit = "um" if found.unit == "micrometer" else "pixels"
    spines = int(branches.spine.sum())
    plain = len(branches) - spines
    trees = int((found.parents < 0).sum())
    soma = f"a soma of {found.radii[0]:.2f} {unit} radius, " if (found.kinds == SOMA).any() else ""
    return (
        f"{soma}{trees} tree{'s' * (trees > 1)}, "
        f"{plain} branch{'es' * (plain != 1)} and {spines} spine{'s' * (spines != 1)}, "
        f"{branches.length.sum():.1f} {unit}; the main branch is {branches.length[0]:.1f} {unit} "
        f"long, of {branches.mean_radius[0]:.2f} {unit} mean radius"
    )
