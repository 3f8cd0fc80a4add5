"""The table of a field's Gaussians, a row each.

The background is no Gaussian and has no row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.measure.deblurred import object_columns
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA, Gaussians

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from napari_gaussfit.measure.measurement import Measurement
    from napari_gaussfit.measure.psf import Psf
    from napari_gaussfit.model.field import GaussianField

__all__ = [
    "AXES",
    "CHANNEL",
    "COVARIANCES",
    "ERRORS",
    "FLAGS",
    "GOODNESS",
    "VOXEL_AXES",
    "error_columns",
    "gaussians_of",
    "measured_columns",
    "measurements",
]


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


ERRORS = {
    f"sd_{name}": name
    for name in (*AXES, "amplitude", "integrated_intensity", *(f"fwhm_{n}" for n in "123zyx"))
}
"""The columns of standard deviations, and whose they are."""


GOODNESS, FLAGS = "reduced_chi2", "flags"
"""The columns that say how well a Gaussian describes its part of the stack, and what keeps its
numbers from being trusted."""


def error_columns(
    count: int, measurement: Measurement | None = None, channels: int = 1
) -> dict[str, NDArray[np.generic]]:
    """Return the columns of error bars, the same in every table of Gaussians or spots.

    Parameters
    ----------
    count : int
        The number K of rows.
    measurement : Measurement, optional
        Of these K Gaussians, in this order; where there is none, the columns are empty.
    channels : int, default 1
        How many there are; several have columns of their own, numbered from 0.

    Returns
    -------
    dict of str to ndarray, shape [K]
        The standard deviations `ERRORS`, in the units of what they are of, NaN where they are not
        known; reduced_chi2, NaN where it is not; flags, words between semicolons. Of several
        channels also sd_amplitude_0, sd_integrated_intensity_0, sd_amplitude_1, ..
    """
    nothing: NDArray[np.float64] = np.full(count, np.nan)
    known = {} if measurement is None else measurement.errors()
    columns: dict[str, NDArray[np.generic]] = {name: known.get(name, nothing) for name in ERRORS}
    for n in range(channels if channels > 1 else 0):
        for name in ("sd_amplitude", "sd_integrated_intensity"):
            columns[f"{name}_{n}"] = known.get(f"{name}_{n}" if n else name, nothing)
    columns[GOODNESS] = nothing if measurement is None else measurement.reduced_chi2
    flags = ("",) * count if measurement is None else measurement.flags
    columns[FLAGS] = np.array(flags, dtype=object)
    return columns


def measurements(
    fields: GaussianField | Sequence[GaussianField],
    spacing: Sequence[float],
    measurement: Measurement | None = None,
    psf: Psf | None = None,
) -> pd.DataFrame:
    """Return what there is to know of each Gaussian, a row each.

    Parameters
    ----------
    fields : GaussianField or sequence of GaussianField
        K Gaussians; of several channels a field each, with the same means and covariances.
    spacing : sequence of float
        Distances between voxel centres (dz, dy, dx) of the stack, in the field's unit.
    measurement : Measurement, optional
        What is known of how well these Gaussians are known.
    psf : Psf, optional
        By which objects are blurred; the measurement's if None.

    Returns
    -------
    DataFrame, K rows
        The `measured_columns`.
    """
    import pandas as pd  # which a window takes a third of a second to load

    return pd.DataFrame(measured_columns(fields, spacing, measurement, psf))


def measured_columns(
    fields: GaussianField | Sequence[GaussianField],
    spacing: Sequence[float],
    measurement: Measurement | None = None,
    psf: Psf | None = None,
) -> dict[str, NDArray[np.generic]]:
    """Return the columns of `measurements`, without pandas.

    Parameters
    ----------
    fields : GaussianField or sequence of GaussianField
        K Gaussians; of several channels a field each, with the same means and covariances.
    spacing : sequence of float
        Distances between voxel centres (dz, dy, dx) of the stack, in the field's unit.
    measurement : Measurement, optional
        What is known of how well these Gaussians are known.
    psf : Psf, optional
        By which objects are blurred; the measurement's if None.

    Returns
    -------
    dict of str to ndarray, shape [K]
        index; axis-0, axis-1, axis-2 (centre in pixels, z y x); z, y, x (centre in `unit`);
        amplitude (raw intensity); cov_zz, cov_zy, cov_zx, cov_yy, cov_yx, cov_xx (`unit`
        squared); sigma_1..3 and fwhm_1..3 (along the principal axes, descending, in `unit`; those
        of a measurement are its `principal_widths`);
        fwhm_z, fwhm_y, fwhm_x (along these axes);
        axis_1_z, axis_1_y, axis_1_x, .. axis_3_x (these axes' unit vectors, in either direction);
        integrated_intensity (raw intensity times `unit` cubed); where there are several
        channels, amplitude_0, integrated_intensity_0, amplitude_1, .. of each, beside those of
        the first under the names above; the `error_columns`; with a point spread function the
        `object_columns`; unit. In float64.
    """
    channels = tuple(fields) if isinstance(fields, (list, tuple)) else (fields,)
    field = channels[0]
    gaussians = field.numpy()
    means, covariances = gaussians.means.astype(np.float64), gaussians.covariances
    sigmas, axes = gaussians.principal()
    if measurement is not None:
        sigmas, _ = measurement.principal_widths
    pixels = means / np.asarray(spacing, dtype=np.float64)
    columns: dict[str, NDArray[np.generic]] = {"index": np.arange(len(field))}
    columns |= {axis: pixels[:, n] for n, axis in enumerate(VOXEL_AXES)}
    columns |= {axis: means[:, n] for n, axis in enumerate(AXES)}
    columns["amplitude"] = gaussians.amplitudes.astype(np.float64)
    columns |= {name: covariances[:, i, j] for name, (i, j) in COVARIANCES.items()}
    columns |= {f"sigma_{n + 1}": sigmas[:, n] for n in range(3)}
    columns |= {f"fwhm_{n + 1}": FWHM_PER_SIGMA * sigmas[:, n] for n in range(3)}
    columns |= {
        f"fwhm_{axis}": FWHM_PER_SIGMA * np.sqrt(covariances[:, n, n])
        for n, axis in enumerate(AXES)
    }
    columns |= {
        f"axis_{n + 1}_{axis}": axes[:, n, i] for n in range(3) for i, axis in enumerate(AXES)
    }
    columns["integrated_intensity"] = gaussians.integrated_intensities()
    for n, channel in enumerate(channels if len(channels) > 1 else ()):
        columns[f"{CHANNEL}{n}"] = channel.numpy().amplitudes.astype(np.float64)
        columns[f"integrated_intensity_{n}"] = channel.numpy().integrated_intensities()
    columns |= error_columns(len(field), measurement, len(channels))
    psf = measurement.psf if psf is None and measurement is not None else psf
    if psf is not None:
        columns |= object_columns(gaussians, psf, measurement)
    columns["unit"] = np.full(len(field), field.unit, dtype=object)
    return columns


def gaussians_of(table: pd.DataFrame, unit: str) -> Gaussians:
    """Return the Gaussians of a table; the background is not in it.

    Parameters
    ----------
    table : DataFrame
        With the columns of `measurements`, a row a Gaussian.
    unit : str
        The unit of length of the table.

    Returns
    -------
    Gaussians
        Of the first channel.
    """
    covariances = np.zeros((len(table), 3, 3))
    for name, (i, j) in COVARIANCES.items():
        covariances[:, i, j] = covariances[:, j, i] = table[name]
    means = table[list(AXES)].to_numpy(np.float64)
    return Gaussians.from_covariances(means, covariances, table["amplitude"], unit=unit)
