"""A bar of progress, in a terminal or a notebook."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from napari_gaussfit.model.gaussians import counted

if TYPE_CHECKING:
    from tqdm import tqdm

    from napari_gaussfit.fitting.snapshot import Snapshot

__all__ = ["BAR", "show"]

BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
"""Of tqdm; what is left of the time is told by the fit, whose steps differ in length."""


def show(bar: tqdm[Any], snapshot: Snapshot) -> None:
    """Set a bar to where a fit is.

    Parameters
    ----------
    bar : tqdm
        Of all its steps.
    snapshot : Snapshot
        How far the fit is, and how good.
    """
    psnr, left = snapshot.held_out_psnr, snapshot.seconds_left
    quality = "" if math.isnan(psnr) else f"held-out {psnr:.1f} dB, "
    when = "" if math.isnan(left) else f", {bar.format_interval(left)} left"
    bar.set_postfix_str(f"{quality}{counted(len(snapshot.field))}{when}", refresh=False)
    bar.update(snapshot.iteration - bar.n)
    bar.refresh()
