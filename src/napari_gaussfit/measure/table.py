"""The table of a field's Gaussians, a row each.

The background is no Gaussian and has no row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_gaussfit.model.field import GaussianField

__all__ = ["AXES", "CHANNEL", "COVARIANCES", "VOXEL_AXES", "measurements"]


AXES = ("z", "y", "x")


VOXEL_AXES = ("axis-0", "axis-1", "axis-2")
"""The columns of napari's points files, here of the same positions in voxels."""


COVARIANCES = {
    "cov_zz": (0, 0),
    "cov_zy": (0, 1),
    "cov_zx": (0, 2),
    "cov_yy": (1, 1),
    "cov_yx": (1, 2),
    "cov_xx": (2, 2),
}


CHANNEL = "amplitude_"
"""What the columns of the amplitudes of several channels begin with; their numbers follow."""


def measurements(
    field: GaussianField, spacing: Sequence[float], others: Sequence[GaussianField] = ()
) -> pd.DataFrame:
    """Return what there is to know of each Gaussian, a row each.

    Parameters
    ----------
    field : GaussianField
        K Gaussians.
    spacing : sequence of float
        (dz, dy, dx) of the stack, in the field's unit.
    others : sequence of GaussianField
        Of several channels, those after the first, which is `field`.

    Returns
    -------
    DataFrame, K rows
        index; axis-0, axis-1, axis-2 (centre in pixels, z y x); z, y, x (centre in `unit`);
        amplitude (raw intensity); cov_zz, cov_zy, cov_zx, cov_yy, cov_yx, cov_xx (`unit`
        squared); sigma_1..3 and fwhm_1..3 (along the principal axes, descending, in `unit`);
        axis_1_z, axis_1_y, axis_1_x, .. axis_3_x (these axes' unit vectors, in either direction);
        integrated_intensity (raw intensity times `unit` cubed); where there are several
        channels, amplitude_0, integrated_intensity_0, amplitude_1, .. of each, beside those of
        the first under the names above; unit. In float64.
    """
    gaussians = field.numpy()
    means, covariances = gaussians.means.astype(np.float64), gaussians.covariances
    sigmas, axes = gaussians.principal()
    pixels = means / np.asarray(spacing, dtype=np.float64)
    columns: dict[str, NDArray[np.generic]] = {"index": np.arange(len(field))}
    columns |= {axis: pixels[:, n] for n, axis in enumerate(VOXEL_AXES)}
    columns |= {axis: means[:, n] for n, axis in enumerate(AXES)}
    columns["amplitude"] = gaussians.amplitudes.astype(np.float64)
    columns |= {name: covariances[:, i, j] for name, (i, j) in COVARIANCES.items()}
    columns |= {f"sigma_{n + 1}": sigmas[:, n] for n in range(3)}
    columns |= {f"fwhm_{n + 1}": FWHM_PER_SIGMA * sigmas[:, n] for n in range(3)}
    columns |= {
        f"axis_{n + 1}_{axis}": axes[:, n, i] for n in range(3) for i, axis in enumerate(AXES)
    }
    columns["integrated_intensity"] = gaussians.integrated_intensities()
    for n, channel in enumerate((field, *others) if others else ()):
        columns[f"{CHANNEL}{n}"] = channel.numpy().amplitudes.astype(np.float64)
        columns[f"integrated_intensity_{n}"] = channel.numpy().integrated_intensities()
    return pd.DataFrame(columns).assign(unit=field.unit)
