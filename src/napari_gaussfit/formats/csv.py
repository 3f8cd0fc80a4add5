"""The CSV file of the table of Gaussians, and points to begin at from any.

napari opens the file as points, since its first columns are those of napari's own points files.
The background is no Gaussian and has no row; it is in ``report.json`` and in the native format.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.errors import FormatError, SettingsError
from napari_gaussfit.files import write_columns
from napari_gaussfit.measure.table import (
    AXES,
    CHANNEL,
    COVARIANCES,
    VOXEL_AXES,
    measured_columns,
)
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.model.gaussians import FWHM_PER_SIGMA, Gaussians
from napari_gaussfit.stacks.reading import refusing
from napari_gaussfit.stacks.units import standard_unit

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from napari_gaussfit.measure.measurement import Measurement
    from napari_gaussfit.measure.psf import Psf
    from napari_gaussfit.stacks.facts import StackFacts
    from napari_gaussfit.stacks.stack import Stack

__all__ = ["read_channels", "read_csv", "read_points", "write_csv"]


_SEPARATORS = (",", ";", "\t")

_NEEDED = (*AXES, "amplitude", *COVARIANCES, "unit")
"""The columns that make a field; the others follow from them."""

_TURNED = tuple(f"axis_{n}_{axis}" for n in (1, 2, 3) for axis in AXES)
_WIDTHS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("{0}_1", "{0}_2", "{0}_3"): _TURNED,
    ("{0}_z", "{0}_y", "{0}_x"): (),
    ("{0}",): (),
}
"""Columns of widths that make covariances where there are none, {0} being sigma or fwhm, and what
they need beside them: the directions of principal axes. One width is that of a sphere."""


def write_csv(
    path: str | os.PathLike[str],
    fields: GaussianField | Sequence[GaussianField],
    spacing: Sequence[float],
    place: Mapping[str, int] | None = None,
    measurement: Measurement | None = None,
    psf: Psf | None = None,
) -> None:
    """Write the `measured_columns` of Gaussians, with all the digits that float64 has.

    Parameters
    ----------
    path : path-like
        The file to write or to replace.
    fields : GaussianField or sequence of GaussianField
        The Gaussians, of several channels a field each. Backgrounds have no column.
    spacing : sequence of float
        Distances between voxel centres (dz, dy, dx) of the stack, in the field's unit.
    place : mapping, optional
        Columns that say of all rows which ``channel`` and ``time`` they are of.
    measurement : Measurement, optional
        How well these Gaussians are known.
    psf : Psf, optional
        By which they are blurred.

    Raises
    ------
    OutputError
        If the folder does not exist.
    """
    columns = measured_columns(fields, spacing, measurement, psf)
    of_all = {name: np.full(len(columns["index"]), value) for name, value in (place or {}).items()}
    write_columns(path, columns | of_all)


def read_csv(path: str | os.PathLike[str], *, background: float = 0.0) -> GaussianField:
    """Read a field from the columns z, y, x, amplitude, cov_* and unit; others are ignored.

    In place of cov_*, widths do: sigma_1..3 or fwhm_1..3 with axis_1_z..axis_3_x; sigma_z, sigma_y,
    sigma_x or fwhm_z, .. along the axes; or one, sigma or fwhm.

    Parameters
    ----------
    path : path-like
        A file that `write_csv` wrote, or one with these columns, separated by commas, semicolons
        or tabs, in a unit that `stacks.units` knows. Decimal commas are understood.
    background : float
        In raw intensity units; the file does not tell.

    Returns
    -------
    GaussianField
        float32, on the CPU.

    Raises
    ------
    FormatError
        If there is no such file, it is no CSV, lacks a column or a number, has no row or several
        units, times or channels, or a covariance is not positive definite.
    """
    return read_channels(path, backgrounds=[background])[0]


def read_channels(
    path: str | os.PathLike[str], *, backgrounds: Sequence[float] = (0.0,)
) -> tuple[GaussianField, ...]:
    """Read the field of each channel from a table that has amplitude_0, amplitude_1, ..

    Parameters
    ----------
    path : path-like
        Path of the CSV file.
    backgrounds : sequence of float
        Of the channels, in raw intensity; the last of them counts for all that follow.

    Returns
    -------
    tuple of GaussianField
        A table with the column amplitude alone has one channel.

    Raises
    ------
    FormatError
        As for `read_csv`.
    """
    source = Path(path)
    with refusing(source, "a table of Gaussians"):
        return _channels_of(source, backgrounds)


def _channels_of(source: Path, backgrounds: Sequence[float]) -> tuple[GaussianField, ...]:
    table = _parsed(source)
    _refuse_several(source, table)
    widths = () if set(COVARIANCES) & set(table) else _widths_in(table)
    shape = (*widths, *_TURNED) if len(widths) == 3 and widths[0].endswith("1") else widths
    needed = (*AXES, "amplitude", *(shape or COVARIANCES), "unit")
    missing = [name for name in needed if name not in table]
    if missing:
        raise FormatError(
            f"{source}: lacks the columns {', '.join(missing)}; it has "
            f"{', '.join(map(str, table.columns))}, expected {', '.join(_NEEDED)} (or fwhm_z, "
            "fwhm_y, fwhm_x, or one sigma, in place of cov_*)"
        )
    found = [name for name in table if re.fullmatch(CHANNEL + "[0-9]+", str(name))]
    brightness = [f"{CHANNEL}{n}" for n in range(len(found))] or ["amplitude"]
    numbers = _checked_numbers(source, table, [*(shape or COVARIANCES), *brightness])
    unit, factor = _checked_unit(source, table)
    gaussians = Gaussians.from_covariances(
        numbers[list(AXES)].to_numpy() * factor,
        (_of_widths(numbers, widths) if widths else _covariances_in(numbers)) * factor**2,
        numbers[brightness[0]].to_numpy(),
        background=backgrounds[0],
        unit=unit,
    )
    levels = [*backgrounds, *[backgrounds[-1]] * len(brightness)]
    amplitudes = numbers[brightness].to_numpy(np.float32).T.copy()
    return tuple(
        GaussianField.from_numpy(replace(gaussians, amplitudes=one, background=level))
        for one, level in zip(amplitudes, levels, strict=False)
    )


def _widths_in(table: pd.DataFrame) -> tuple[str, ...]:
    """Return the columns of widths that make covariances; none where there are none."""
    for names, beside in _WIDTHS.items():
        for kind in ("sigma", "fwhm"):
            columns = tuple(name.format(kind) for name in names)
            if {*columns, *beside} <= set(table):
                return columns
    return ()


def _covariances_in(numbers: pd.DataFrame) -> NDArray[np.float64]:
    covariances = np.empty((len(numbers), 3, 3))
    for name, (i, j) in COVARIANCES.items():
        covariances[:, i, j] = covariances[:, j, i] = numbers[name]
    return covariances


def _of_widths(numbers: pd.DataFrame, widths: tuple[str, ...]) -> NDArray[np.float64]:
    """Return covariances [K, 3, 3] of columns of widths."""
    sigmas = numbers[list(widths)].to_numpy(np.float64)
    sigmas = np.repeat(sigmas, 3, axis=1) if len(widths) == 1 else sigmas
    if widths[0].startswith("fwhm"):
        sigmas = sigmas / FWHM_PER_SIGMA
    axes = np.broadcast_to(np.eye(3), (len(sigmas), 3, 3))
    if widths[0].endswith("1"):
        axes = numbers[list(_TURNED)].to_numpy(np.float64).reshape(-1, 3, 3)
        axes = axes / np.linalg.norm(axes, axis=2, keepdims=True)
    # Sigma = sum of sigma_n^2 e_n e_n^T over principal axes e_n.
    covariances: NDArray[np.float64] = np.einsum("kn,kni,knj->kij", sigmas**2, axes, axes)
    return covariances


def _parsed(path: Path) -> pd.DataFrame:
    """Return the cells as text: what separates them, and the mark of decimals, differ by country.

    A spreadsheet in a country that writes 0,5 saves with semicolons.
    """
    import pandas as pd  # of no use to who writes

    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        separator = max(_SEPARATORS, key=header.count)
        table = pd.read_csv(path, sep=separator, dtype=str, encoding="utf-8-sig")
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{path}: is no CSV table in UTF-8 ({error.reason}); save it as CSV UTF-8"
        ) from error
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise FormatError(f"{path}: is no CSV table: {reason}") from error
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes what is too much for row names
        raise FormatError(
            f"{path}: has more cells in a row than its {len(table.columns)} columns; where numbers "
            "are written 0,5, columns must be separated by semicolons"
        )
    return table


def _with_points(path: Path, cells: pd.DataFrame) -> pd.DataFrame:
    """Return numbers as text with decimal points, those of a file with decimal commas too."""
    comma, point = (
        any(bool(cells[name].str.contains(mark, regex=False, na=False).any()) for name in cells)
        for mark in ",."
    )
    if comma and point:
        raise FormatError(
            f"{path}: has numbers with decimal commas and with decimal points, so that 1,234 may "
            "be either; save it with one of the two and without separators of thousands"
        )
    pointed: pd.DataFrame = cells.apply(lambda column: column.str.replace(",", ".", regex=False))
    return pointed


def read_points(path: str | os.PathLike[str], stack: Stack | StackFacts) -> NDArray[np.float64]:
    """Read positions in a stack: from z, y, x in its unit, or axis-0, axis-1, axis-2 in voxels.

    Parameters
    ----------
    path : path-like
        A table that `write_csv` wrote, the file of a Points layer that napari saved, or any with
        these columns; z, y, x go first where it has both, and others are ignored.
    stack : Stack or StackFacts
        The stack in whose box the points must lie.

    Returns
    -------
    ndarray, shape [P, 3]
        z, y, x in the stack's unit.

    Raises
    ------
    FormatError
        If there is no such file, it is no CSV, has no such columns, no row, something that is no
        number, lengths in another unit, or a point outside of the stack.
    """
    source = Path(path)
    table = _parsed(source)
    in_unit = set(AXES) <= set(table)
    columns = AXES if in_unit else VOXEL_AXES
    if not set(columns) <= set(table) or (not in_unit and "axis-3" in table):
        raise FormatError(
            f"{source}: has the columns {', '.join(map(str, table.columns))}; expected z, y, x "
            "(in the stack's unit) or axis-0, axis-1, axis-2 (in voxels) for its points"
        )
    if table.empty:
        raise FormatError(f"{source}: has no row; expected a point in each")
    _refuse_several(source, table)
    unit, factor = stack.unit, 1.0
    if in_unit and "unit" in table:
        unit, factor = _checked_unit(source, table)
    if unit != stack.unit:
        raise FormatError(
            f"{source}: has points in {unit}s, the stack {stack.name!r} is in {stack.unit}s; "
            "give both in one unit (--spacing DZ DY DX)"
        )
    found = _finite(source, table, [*columns]).to_numpy(np.float64)
    spacing = np.asarray(stack.spacing, np.float64)
    points: NDArray[np.float64] = found * (factor if in_unit else spacing)
    low, high = -0.5 * spacing, (np.asarray(stack.shape) - 0.5) * spacing
    outside = np.nonzero(((points < low) | (points > high)).any(axis=1))[0]
    if len(outside):
        place, end = (", ".join(f"{n:.6g}" for n in at) for at in (points[outside[0]], high))
        raise FormatError(
            f"{source}: {len(outside)} of {len(points)} points lie outside of the stack "
            f"{stack.name!r}, the first of them in row {outside[0] + 1} at {place}, where z, y, x "
            f"end at {end} {stack.unit}s; check its unit, and that they are points of this stack"
        )
    return points


def _checked_numbers(path: Path, table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Return the columns of numbers, all of them there and finite."""
    missing = [name for name in columns if name not in table]
    if missing:
        raise FormatError(f"{path}: lacks the columns {', '.join(missing)} between its channels")
    return _finite(path, table, [*AXES, *columns])


def _finite(path: Path, table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Return some columns as numbers, all of them finite."""
    import pandas as pd

    cells = _with_points(path, table[columns])
    numbers: pd.DataFrame = cells.apply(pd.to_numeric, errors="coerce")
    bad = ~np.isfinite(numbers.to_numpy(dtype=np.float64))
    if bad.any():
        row, column = (int(where[0]) for where in np.nonzero(bad))
        name = numbers.columns[column]
        raise FormatError(
            f"{path}: has {table[name].iloc[row]!r} in column {name} of row {row + 1} of "
            f"{len(table)}; expected a finite number"
        )
    return numbers


def _refuse_several(path: Path, table: pd.DataFrame) -> None:
    """Refuse rows of several times or channels: one after the other they are no one field."""
    for name in ("time", "channel"):
        found = sorted(set(table[name].dropna())) if name in table else []
        if len(found) > 1:
            raise FormatError(
                f"{path}: has rows of {len(found)} {name}s; keep those of one, by its column {name}"
            )


def _checked_unit(path: Path, table: pd.DataFrame) -> tuple[str, float]:
    """Return the one unit that all rows share, as it is called here, and lengths' factor."""
    units = sorted({str(unit) for unit in table["unit"]})
    if len(units) != 1:
        found = f"the units {', '.join(units)}" if units else "no row"
        raise FormatError(f"{path}: has {found}; expected Gaussians of one unit")
    try:
        return standard_unit(units[0])
    except SettingsError as error:
        raise FormatError(f"{path}: {error}") from error
