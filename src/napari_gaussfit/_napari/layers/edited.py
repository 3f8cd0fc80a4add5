"""An edited Points layer as Gaussians again. Knows no viewer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit._napari.layers.placement import METADATA
from napari_gaussfit.errors import SettingsError
from napari_gaussfit.measure.measurement import EDITED
from napari_gaussfit.measure.table import CHANNEL, FLAGS, GOODNESS, measurements
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import Gaussians

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from napari.layers import Points
    from numpy.typing import NDArray

    from napari_gaussfit.fitting.result import FitResult

    Floats = NDArray[np.float64]

__all__ = ["fields_of_points", "fit_of_layer", "fit_of_points", "known_features", "untouched"]

_SHAPE_COLUMNS = ("cov_zz", "cov_zy", "cov_zx", "cov_yy", "cov_yx", "cov_xx")
_MATRIX_OF_COLUMNS = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])
"""Which of the columns stands where in a covariance."""


def fields_of_points(
    data: Floats, features: pd.DataFrame, fit: FitResult
) -> tuple[GaussianField, ...]:
    """Return the Gaussians of each channel that an edited set of points stands for.

    Parameters
    ----------
    data : ndarray, shape [P, 3]
        The points, in voxels.
    features : DataFrame, P rows
        Columns ``amplitude``, of further channels ``amplitude_1`` and so on, and ``cov_*``: a moved
        point keeps them, and an added one has what napari copied to it, or the median where it
        copied nothing.
    fit : FitResult
        The fit that the points were made of; its own fields are returned if nothing was edited.

    Raises
    ------
    SettingsError
        If the features lack a column, or hold no covariance that is one.
    """
    brightness = _brightness(fit)
    wanted = [*brightness, *_SHAPE_COLUMNS]
    missing = [column for column in wanted if column not in features]
    if missing:
        message = f"the points lack the features {', '.join(missing)}; take a layer of fitted ones"
        raise SettingsError(message)
    numbers = features[wanted].astype(np.float64)
    made_of = measurements(fit.measured_fields, fit.stack.spacing)
    unedited = len(data) == len(made_of) and (
        np.array_equal(data, made_of[["axis-0", "axis-1", "axis-2"]])
        and np.array_equal(numbers, made_of[wanted])
    )
    if unedited:
        return fit.fields
    numbers = numbers.fillna(numbers.median()).dropna()
    if len(numbers) < len(data):
        message = "no point has an amplitude and a covariance; take a layer of fitted ones"
        raise SettingsError(message)
    gaussians = Gaussians.from_covariances(
        np.asarray(data, np.float64) * np.asarray(fit.stack.spacing),
        numbers[list(_SHAPE_COLUMNS)].to_numpy()[:, _MATRIX_OF_COLUMNS],
        numbers["amplitude"].to_numpy(),
        background=fit.field.background,
        unit=fit.field.unit,
    )
    return tuple(
        GaussianField.from_numpy(
            replace(
                gaussians,
                amplitudes=numbers[column].to_numpy(np.float32),
                background=known.background,
            )
        )
        for column, known in zip(brightness, fit.fields, strict=True)
    )


def untouched(data: Floats, features: pd.DataFrame, fit: FitResult) -> NDArray[np.intp]:
    """Return which of a fit's Gaussians each point still is, -1 where it was changed or is new.

    Parameters
    ----------
    data, features, fit
        As for `fields_of_points`; points are known by the feature ``index``.
    """
    wanted = [*_brightness(fit), *_SHAPE_COLUMNS]
    made_of = measurements(fit.measured_fields, fit.stack.spacing)
    known = len(made_of) > 0 and {"index", *wanted} <= set(features)
    index = features["index"].to_numpy(np.float64) if known else np.full(len(data), -1.0)
    there = (index >= 0) & (index < len(made_of))
    if not there.any():
        return np.full(len(data), -1)
    rows = np.where(there, index, 0).astype(np.intp)
    before = made_of.iloc[rows]
    places = np.asarray(data)[:, -3:]
    same = (places == before[["axis-0", "axis-1", "axis-2"]].to_numpy()).all(axis=1)
    same &= (features[wanted].to_numpy(np.float64) == before[wanted].to_numpy()).all(axis=1)
    first = np.zeros(len(data), bool)  # a copy is new
    first[np.unique(rows, return_index=True)[1]] = True
    return np.where(there & same & first, rows, -1)


def known_features(points: Points) -> pd.DataFrame:
    """Return the features of points that carry a fit, with error bars where nobody touched."""
    fit: FitResult | None = points.metadata.get(METADATA, {}).get("fit")
    table: pd.DataFrame = points.features.copy()
    known = [name for name in table.columns if str(name).startswith("sd_") or name == GOODNESS]
    if fit is None or fit.measurement is None:
        return table.drop(columns=[*known, FLAGS], errors="ignore")
    others = untouched(points.data, table, fit) < 0
    table.loc[others, known] = np.nan
    table.loc[others, FLAGS] = EDITED
    return table


def _brightness(fit: FitResult) -> list[str]:
    """Return the columns of the amplitudes of a fit's channels."""
    return ["amplitude", *(f"{CHANNEL}{n}" for n in range(1, len(fit.fields)))]


def fit_of_points(data: Floats, keywords: Mapping[str, Any]) -> FitResult:
    """Return the fit that a Points layer carries, as its points are now.

    Parameters
    ----------
    data : ndarray, shape [P, 3]
        The points, in voxels.
    keywords : mapping
        The layer's ``metadata``, ``features`` and ``name``, as in its layer data tuple.

    Returns
    -------
    FitResult
        The very one that was put in if nothing was edited. Else without report and optimiser
        state, which belong to the points as they were; error bars are left where nobody touched.

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
    fit: FitResult = carried["fit"]
    fields = fields_of_points(data, keywords["features"], fit)
    if fields is fit.fields:
        return fit
    found = fit.measurement
    if found is not None:
        own = [field.numpy() for field in fields]
        found = found.edited(own, untouched(data, keywords["features"], fit))
        fields = found.fields
    return replace(fit, fields=fields, reports=(), state={}, measurement=found)


def fit_of_layer(points: Points) -> FitResult:
    """Return the fit that a Points layer of a viewer carries; see `fit_of_points`."""
    keywords = {"metadata": points.metadata, "features": points.features, "name": points.name}
    return fit_of_points(points.data, keywords)
