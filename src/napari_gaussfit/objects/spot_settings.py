"""What is asked of a search for spots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.measure.psf import Psf
    from napari_gaussfit.measure.refinement import Likelihood

__all__ = ["SpotSettings"]


@dataclass(frozen=True)
class SpotSettings:
    """What is looked for.

    Parameters
    ----------
    least_size, largest_size : float, optional
        FWHM across the optical axis in the stack's unit; if None, of 2 voxels, and of 6 or 0.6
        micrometres, whichever is more.
    false_discoveries : float, default 0.01
        Share of the spots that may be noise.
    likelihood : {"poisson", "squared"}
        The noise that is assumed in the refinement, as for `measure`.
    noise : Noise, optional
        Estimated if None: from neighbours, then from what the spots leave.
    psf : Psf, optional
        What light makes of a point. All spots are points then, and two are told apart where they
        are closer than free widths allow; for likelihood "poisson" alone.
    """

    least_size: float | None = None
    largest_size: float | None = None
    false_discoveries: float = 0.01
    likelihood: Likelihood = "poisson"
    noise: Noise | None = None
    psf: Psf | None = None
