"""Measuring at the prompt: `napari-gaussfit measure`, and the end of a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.errors import GaussfitError
from napari_gaussfit.measure.measuring import worth_measuring
from napari_gaussfit.measure.table import ERRORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.measure.refinement import Measurement
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["measured_after", "summary"]


def measured_after(result: FitResult, stacks: Sequence[Stack]) -> tuple[Measurement | None, str]:
    """Measure the Gaussians of a fit that has ended, where that means something or is asked for.

    Parameters
    ----------
    result : FitResult
        Whose settings say whether to measure, and what is known of the detector.
    stacks : sequence of Stack
        What was fitted.

    Returns
    -------
    Measurement or None
        None where it was not done.
    str
        Whether it was done, and why.
    """
    wanted = None if result.settings is None else result.settings.measure
    worth, why = worth_measuring(result.field.numpy(), result.stack.spacing)
    if wanted is False:
        return None, "no: not asked for"
    if not (worth or wanted):
        return None, f"no: {why}; --measure does it all the same"
    try:
        found = result.measured(stacks).measurement
    except GaussfitError as error:
        return None, f"no: {error}"
    return found, f"yes: {summary(found)}; {why}"


def summary(found: Measurement | None) -> str:
    """Say how well Gaussians are known.

    Parameters
    ----------
    found : Measurement or None
        Of any; None where they were not measured.

    Returns
    -------
    str
        How many, typical errors, and what was assumed.
    """
    if found is None:
        return "not measured"
    errors, unit = found.errors(), found.gaussians[0].unit
    known = np.isfinite(errors["sd_z"]) & np.array([not flags for flags in found.flags], np.bool_)
    said = f"{int(known.sum()):,} of {len(found):,} Gaussians determined"
    if known.any():
        z, y, x = (float(np.median(errors[f"sd_{axis}"][known])) for axis in "zyx")
        widths = np.stack([errors[name][known] for name in ERRORS if "fwhm" in name])
        said += (
            f", in the median to {z:.2g}, {y:.2g}, {x:.2g} (z, y, x) and FWHM to "
            f"{float(np.median(widths)):.2g} {unit}s"
        )
    return "; ".join((said, *found.notes))
