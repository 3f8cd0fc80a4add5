"""``napari-gaussfit render``: a projection or the volume of a fit."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_gaussfit.cli import tiles
from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.cli.inputs import loaded
from napari_gaussfit.cli.options import add_force, add_manner
from napari_gaussfit.cli.overwriting import refuse_to_destroy
from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    import argparse

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.model.camera import Camera
    from napari_gaussfit.stacks.facts import StackFacts

__all__ = ["add_parser", "run"]

LARGEST_PICTURE = 2048
"""Pixels a side, at most, of a view that is no axis's."""

MOST_PIXELS = 2**28
"""Of a view along an axis: 16,384 x 16,384, which takes seconds and a few GB of memory."""


EXAMPLES = """\
examples:
  napari-gaussfit render out -o view.png --azimuth 30 --elevation 20
  napari-gaussfit render out -o top.tif --view z --mode mip
  napari-gaussfit render out -o volume.ome.tif --volume"""


def add_parser(commands: Any) -> None:
    """Add the command to a command line."""
    render = commands.add_parser(
        "render", help="write a projection or the volume of a fit", epilog=EXAMPLES
    )
    render.add_argument("fit", metavar="FIT", type=Path, help="fit.safetensors, or its folder")
    render.add_argument(
        "-o", "--out", metavar="IMAGE", type=Path, required=True,
        help=".tif (raw intensity) or .png (to look at)",
    )  # fmt: skip
    render.add_argument("--view", choices=("z", "y", "x"), help="axis to look along (z)")
    render.add_argument(
        "--azimuth", type=float, metavar="A", help="degrees about y, from z (0 beside an elevation)"
    )
    render.add_argument(
        "--elevation", type=float, metavar="E", help="degrees towards y (0 beside an azimuth)"
    )
    render.add_argument("--mode", choices=("mip", "soft-mip", "sum"), help="projection (mip)")
    render.add_argument(
        "--volume", action="store_true", help="all voxels, as an OME-TIFF or OME-Zarr"
    )
    render.add_argument(
        "--deconvolved", action="store_true", help="without the blur of the PSF it was fitted with"
    )
    render.add_argument(
        "--sampling", type=float, nargs=3, metavar=("DZ", "DY", "DX"),
        help="micrometers a voxel of what is written (the stack's)",
    )  # fmt: skip
    add_force(render)
    add_manner(render, json=False)
    render.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write what a fit looks like, and return the exit code."""
    from napari_gaussfit.formats.image import checked_image_path, write_image
    from napari_gaussfit.formats.registry import VOLUME_SUFFIXES

    angles = arguments.azimuth is not None or arguments.elevation is not None
    if arguments.volume:
        if angles or arguments.view or arguments.mode:
            raise SettingsError("--volume has neither view, angles nor mode; leave these out")
        if arguments.out.suffix.lower() not in VOLUME_SUFFIXES:
            raise SettingsError(
                f"--volume {arguments.out}: expected a name that ends in .ome.tif or .ome.zarr"
            )
        refuse_to_destroy(arguments)
        as_fitted = arguments.sampling is None and not arguments.deconvolved
        if not (as_fitted and tiles.exported(arguments.fit, arguments.out)):
            _rendered(arguments).export(arguments.out)
        sys.stdout.write(f"wrote {arguments.out}\n")
        return Exit.DONE
    if angles and arguments.view:
        raise SettingsError("--view and --azimuth, --elevation are two ways to say it; choose one")
    target = checked_image_path(arguments.out)
    refuse_to_destroy(arguments)
    saved = _rendered(arguments)
    camera = _camera(arguments, saved.stack, square=angles or target.suffix.lower() == ".png")
    image = saved.render(camera, mode=arguments.mode or "mip")
    write_image(target, image, pixel=camera.pixel, unit=saved.stack.unit)
    sys.stdout.write(f"wrote {target}\n")
    return Exit.DONE


def _rendered(arguments: argparse.Namespace) -> FitResult:
    """Return the fit to render, without its blur and in other voxels where that is asked for."""
    from napari_gaussfit.fitting.result import FitResult

    saved = loaded(arguments.fit)
    if arguments.deconvolved:
        return saved.deconvolved(arguments.sampling)
    if arguments.sampling is None:
        return saved
    return FitResult(saved.fields, saved.stack.sampled(arguments.sampling))


def _camera(arguments: argparse.Namespace, stack: StackFacts, *, square: bool) -> Camera:
    """Return the view asked for; along an axis, its pixels are the voxels' unless `square`."""
    from napari_gaussfit.model.camera import AXIS_NAMES, axis_view, orbit_view

    finest = min(stack.spacing)
    if arguments.azimuth is not None or arguments.elevation is not None:
        return orbit_view(
            stack.box, arguments.azimuth or 0.0, arguments.elevation or 0.0, finest,
            largest_side=LARGEST_PICTURE,
        )  # fmt: skip
    axis = arguments.view or "z"
    along = axis_view(stack.shape, stack.spacing, AXIS_NAMES.index(axis))
    rows, columns = along.shape
    if square:
        rows, columns = (
            math.ceil(n * size / finest) for n, size in zip(along.shape, along.pixel, strict=True)
        )
    if rows * columns > MOST_PIXELS:
        raise SettingsError(
            f"--view {axis}: the view along {axis} has {rows:,} x {columns:,} pixels, more than "
            f"{MOST_PIXELS:,}; look from an angle (--azimuth 0), at {LARGEST_PICTURE} a side"
        )
    if not square:
        return along
    return replace(along, shape=(rows, columns), pixel=(finest, finest), axis=None)
