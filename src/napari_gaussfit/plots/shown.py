"""What gaussians.png shows of Gaussians, as arrays: no torch and no matplotlib is needed for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_gaussfit.model.field import GaussianField

    Floats = NDArray[np.floating]

__all__ = ["Shown"]


@dataclass(frozen=True, eq=False)
class Shown:
    """What is drawn of Gaussians.

    Parameters
    ----------
    means : ndarray, shape [K, 3]
        Centres (z, y, x), in the unit.
    amplitudes : ndarray, shape [K]
        Of each Gaussian, in raw intensity.
    sigmas : ndarray, shape [K, 3]
        Of the principal axes, the longest first, in the unit.
    unit : str
        Of lengths: "micrometer" or "pixel".
    """

    means: Floats
    amplitudes: Floats
    sigmas: Floats
    unit: str

    @classmethod
    def of(cls, field: GaussianField) -> Shown:
        """Return what is drawn of a field.

        Parameters
        ----------
        field : GaussianField
            The Gaussians, which may be on any device.
        """
        means, amplitudes, sigmas = (
            one.detach().cpu().numpy()
            for one in (field.means, field.amplitudes, field.principal()[0])
        )
        return cls(means, amplitudes, sigmas, field.unit)
