"""``napari-gaussfit spots``: the spots of a stack, found and measured, into a folder."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from napari_gaussfit.cli.overwriting import claimed, refuse_to_replace
from napari_gaussfit.cli.psf import psf_of
from napari_gaussfit.jobs.folders import SPOTS_OUTPUTS, spots_report, write_spots
from napari_gaussfit.objects.spots import Spots, SpotSettings, fit_spots, spots_table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_gaussfit.stacks.stack import Stack

__all__ = ["OUTPUTS", "run", "settings_of"]

OUTPUTS = SPOTS_OUTPUTS
"""What the command leaves in its folder."""


def settings_of(arguments: argparse.Namespace) -> SpotSettings:
    """Return what was asked for.

    Parameters
    ----------
    arguments : Namespace
        Of the command line.
    """
    return SpotSettings(
        least_size=arguments.least_size,
        largest_size=arguments.largest_size,
        false_discoveries=arguments.false_discoveries,
        likelihood=arguments.likelihood,
        psf=psf_of(arguments.psf),
    )


def run(
    stack: Stack,
    folder: Path,
    settings: SpotSettings,
    points: NDArray[Any] | None,
    *,
    also: Sequence[Path] = (),
    force: bool,
) -> None:
    """Find the spots of a stack, write the folder, and say how many there are.

    Parameters
    ----------
    stack : Stack
        The stack that is searched, one channel.
    folder : Path
        Made where there is none.
    settings : SpotSettings
        What is looked for.
    points : ndarray, shape [P, 3], or None
        Spots that are there in any case.
    also : sequence of Path
        Further files, in the formats that their names ask for.
    force : bool
        Whether files that are there are replaced.
    """
    from napari_gaussfit.formats.registry import write_fit
    from napari_gaussfit.model.field import GaussianField

    with claimed(folder):
        refuse_to_replace([folder / name for name in OUTPUTS], force=force)
        spots = fit_spots(stack, settings, points=points)
        table, report = spots_table(spots, stack.spacing), spots_report(stack, spots, settings)
        write_spots(folder, stack, table, spots.gaussians, report)
        fields = (GaussianField.from_numpy(spots.gaussians),)
        known = {"measurement": spots.measurement, "quality": spots.signal_to_noise}
        for path in also:
            write_fit(path, fields, stack.facts, **known)
    sys.stdout.write("".join(f"{line}\n" for line in _lines(folder, stack, spots, settings)))


def _lines(folder: Path, stack: Stack, spots: Spots, settings: SpotSettings) -> list[str]:
    sizes, noise = spots.sizes, spots.noise
    asked = f"FWHM {sizes.least:.3g} to {sizes.largest:.3g} {stack.unit}s asked for"
    share = f"at most {100 * settings.false_discoveries:g} in 100 of them noise"
    return [
        f"{folder}: {len(spots):,} spots, {asked}",
        f"{share}: from {spots.threshold:.1f} standard deviations",
        f"noise: variance {noise.gain:.3g} x intensity {noise.intercept:+.3g}, estimated",
        *(f"note: {note}" for note in spots.notes),
    ]
