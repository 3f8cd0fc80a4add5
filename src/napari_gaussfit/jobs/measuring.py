"""Measuring the Gaussians of a fit that has ended, where that means something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_gaussfit.errors import GaussfitError
from napari_gaussfit.measure.measurement import summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_gaussfit.fitting.result import FitResult
    from napari_gaussfit.measure.measurement import Measurement
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["measured_after"]


def measured_after(result: FitResult, stacks: Sequence[Stack]) -> tuple[Measurement | None, str]:
    """Measure the Gaussians of a fit that has ended, where that means something or is asked for.

    Parameters
    ----------
    result : FitResult
        Whose settings say whether to measure, and what is known of the detector.
    stacks : sequence of Stack
        The fitted stack, a channel each.

    Returns
    -------
    Measurement or None
        None where it was not done.
    str
        Whether it was done, and why.
    """
    from napari_gaussfit.measure.measuring import worth_measuring

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
