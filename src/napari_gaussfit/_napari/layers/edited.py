"""An edited Points layer as a field of Gaussians again. Knows no viewer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._napari.layers.gaussians import METADATA
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.table import measurements
from napari_gaussfit.model.field import GaussianField

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from napari.layers import Points
    from numpy.typing import NDArray

    from napari_gaussfit.model.result import SavedFit

    Floats = NDArray[np.float64]

__all__ = ["field_of_points", "fit_of_layer", "fit_of_points"]

_SHAPE_COLUMNS = ("cov_zz", "cov_zy", "cov_zx", "cov_yy", "cov_yx", "cov_xx")
_MATRIX_OF_COLUMNS = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])
"""Which of the columns stands where in a covariance."""


def field_of_points(
    data: Floats, features: pd.DataFrame, fit: SavedFit, *, spacing: Sequence[float] | None = None
) -> GaussianField:
    """Return the field that an edited set of points stands for.

    Parameters
    ----------
    data : ndarray, shape [P, 3]
        The points, in voxels.
    features : DataFrame, P rows
        Of them ``amplitude`` and ``cov_*`` are read: a moved point keeps both, and an added one
        has what napari copied to it, or the median where it copied nothing.
    fit : SavedFit
        What the points were made of; its own field is returned where nothing was edited.
    spacing : sequence of float, optional
        (dz, dy, dx) of a voxel, where it is not the fit's.

    Raises
    ------
    SettingsError
        If the features lack a column, or hold no covariance that is one.
    """
    wanted = ("amplitude", *_SHAPE_COLUMNS)
    missing = [column for column in wanted if column not in features]
    if missing:
        message = f"the points lack the features {', '.join(missing)}; take a layer of fitted ones"
        raise SettingsError(message)
    voxel = np.asarray(fit.spacing if spacing is None else spacing, np.float64)
    numbers = features[list(wanted)].astype(np.float64)
    made_of = measurements(fit.field, tuple(voxel))
    unedited = len(data) == len(made_of) and (
        np.array_equal(data, made_of[["axis-0", "axis-1", "axis-2"]])
        and np.array_equal(numbers, made_of[list(wanted)])
    )
    if unedited:
        return fit.field
    numbers = numbers.fillna(numbers.median()).dropna()
    if len(numbers) < len(data):
        message = "no point has an amplitude and a covariance; take a layer of fitted ones"
        raise SettingsError(message)
    covariances = numbers[list(_SHAPE_COLUMNS)].to_numpy()[:, _MATRIX_OF_COLUMNS]
    return GaussianField.from_covariances(
        np.asarray(data, np.float64) * voxel,
        covariances,
        numbers["amplitude"].to_numpy(),
        background=fit.field.background,
        unit=fit.field.unit,
    )


def fit_of_points(data: Floats, keywords: Mapping[str, Any]) -> SavedFit:
    """Return the fit that a Points layer carries, as its points are now.

    Parameters
    ----------
    data : ndarray, shape [P, 3]
        The points, in voxels.
    keywords : mapping
        The layer's ``metadata``, ``features`` and ``name``, as in its layer data tuple.

    Returns
    -------
    SavedFit
        The very one that was put in if nothing was edited. Else without report and optimiser
        state, which belong to the points as they were.

    Raises
    ------
    SettingsError
        If the layer carries no fit.
    """
    carried = keywords.get("metadata", {}).get(METADATA, {})
    if "fit" not in carried:
        message = (
            f"layer {keywords.get('name')!r} carries no fit; "
            "select the points that a fit made, or that a saved fit brought"
        )
        raise SettingsError(message)
    fit: SavedFit = carried["fit"]
    field = field_of_points(data, keywords["features"], fit)
    others = _other_channels(field, keywords["features"], fit)
    unedited = field is fit.field and all(
        np.array_equal(found.numpy().amplitudes, known.numpy().amplitudes)
        for found, known in zip(others, fit.others, strict=True)
    )
    return fit if unedited else replace(fit, field=field, others=others, report=None, state={})


def _other_channels(
    field: GaussianField, features: pd.DataFrame, fit: SavedFit
) -> tuple[GaussianField, ...]:
    """Return the channels after the first of an edited field, lit by ``amplitude_1``, and so on."""
    if not fit.others:
        return ()
    names = [f"amplitude_{n}" for n in range(1, len(fit.channels))]
    missing = [name for name in names if name not in features]
    if missing:
        message = f"the points lack the features {', '.join(missing)}; take a layer of fitted ones"
        raise SettingsError(message)
    numbers = features[names].astype(np.float64)
    brightness = numbers.fillna(numbers.median()).to_numpy(np.float32)
    return tuple(
        GaussianField.from_numpy(
            replace(field.numpy(), amplitudes=lit, background=known.background)
        )
        for lit, known in zip(brightness.T.copy(), fit.others, strict=True)
    )


def fit_of_layer(points: Points) -> SavedFit:
    """Return the fit that a Points layer of a viewer carries; see `fit_of_points`."""
    keywords = {"metadata": points.metadata, "features": points.features, "name": points.name}
    return fit_of_points(points.data, keywords)
