"""The folder that a fit by tiles leaves: Gaussians in Parquet, a part a tile, and an index.

``gaussians.parquet`` opens as it is in pandas, polars, dask and duckdb; its columns are those of
the CSV, positions from the first voxel of the whole stack. ``tiles.parquet`` has a row a tile, with
the box that its Gaussians reach into; ``index.json`` what was fitted, how, and how well.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_gaussfit.errors import FormatError, OutputError, SettingsError
from napari_gaussfit.files import replacing, write_json
from napari_gaussfit.measure.table import AXES, CHANNEL, COVARIANCES, VOXEL_AXES
from napari_gaussfit.model.field import GaussianField
from napari_gaussfit.stacks.facts import StackFacts
from napari_gaussfit.stacks.reading import parsed_json, refusing

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd

    Region = tuple[tuple[int, int, int], tuple[int, int, int]]

__all__ = [
    "INDEX_NAME",
    "OBJECTS_NAME",
    "PARTS_NAME",
    "REACH",
    "REACH_SIGMAS",
    "TILES_NAME",
    "WIDE_PART",
    "holds_tiles",
    "numbered",
    "placed",
    "read_index",
    "read_region",
    "read_tables",
    "require_pyarrow",
    "write_index",
    "write_table",
    "write_tiles",
]

PARTS_NAME, OBJECTS_NAME = "gaussians.parquet", "objects.parquet"
"""Folders of tables: of the Gaussians of a fit, or of spots, one Gaussian each."""

WIDE_PART = "wide.parquet"
"""The part of the Gaussians that are wider than tiles see."""

TILES_NAME, INDEX_NAME = "tiles.parquet", "index.json"

FORMAT = "napari-gaussfit tiles"
VERSION = 1

REACH_SIGMAS = 5.0
"""Sigmas within which a Gaussian counts: beyond, 4 millionths of its amplitude are left."""

REACH = ("low_z", "low_y", "low_x", "high_z", "high_y", "high_x")
"""Columns of ``tiles.parquet``: the box in voxels that a part's Gaussians reach into."""


def require_pyarrow() -> None:
    """Refuse to begin without what writes Parquet.

    Raises
    ------
    OutputError
        If it is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise OutputError(
            "the result of a fit by tiles is written as Parquet, and pyarrow is not installed; "
            "install napari-gaussfit[scale]"
        ) from error


def numbered(channel: int) -> str:
    """Return what names of numbers of a channel end in: nothing of the first.

    Parameters
    ----------
    channel : int
        The number of the channel, from 0.
    """
    return f"_{channel}" if channel else ""


def placed(table: pd.DataFrame, first: Sequence[int], spacing: Sequence[float]) -> pd.DataFrame:
    """Return a table whose positions count from the first voxel of the stack.

    Parameters
    ----------
    table : DataFrame
        Positions from the voxel `first`; changed in place.
    first : sequence of int
        That voxel (z, y, x) of the stack.
    spacing : sequence of float
        The distance between voxel centres along z, y and x, in the stack's unit.
    """
    for axis, voxel_axis, n, step in zip(AXES, VOXEL_AXES, first, spacing, strict=True):
        table[axis] += n * step
        table[voxel_axis] += n
    return table


def write_tiles(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the table of tiles.

    Parameters
    ----------
    folder : Path
        The folder that holds the result's tables and index.
    rows : sequence of mapping
        A row a tile, with equal names.
    """
    import pandas as pd

    write_table(folder / TILES_NAME, pd.DataFrame([*rows]))


def write_table(path: str | os.PathLike[str], table: pd.DataFrame) -> None:
    """Write a table as Parquet.

    Parameters
    ----------
    path : path-like
        The file to write or to replace.
    table : DataFrame
        Its index is not kept.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), temporary)


def write_index(
    folder: Path,
    stack: StackFacts,
    settings: Mapping[str, Any],
    report: Mapping[str, Any],
    *,
    parts: str = PARTS_NAME,
    psf: Mapping[str, Any] | None = None,
) -> None:
    """Write what was fitted, how and how well; last of all, since it says that all is there.

    Parameters
    ----------
    folder : Path
        The folder that holds the result's tables and index.
    stack : StackFacts
        Name, size and place of the stack that was fitted.
    settings : mapping
        Of each tile's fit.
    report : mapping
        JSON types; ``background`` among them, and ``other_channels`` with theirs.
    parts : str
        Name of the folder of tables.
    psf : mapping, optional
        The point spread function that was fitted with, as `Psf.to_dict` has it.
    """
    facts = {name: value for name, value in asdict(stack).items() if name != "value_range"}
    content = {
        "format": FORMAT,
        "version": VERSION,
        "stack": facts,
        "settings": dict(settings),
        "report": dict(report),
        "parts": parts,
        "psf": psf,
    }
    write_json(folder / INDEX_NAME, content)


def holds_tiles(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is the folder of a fit by tiles that has ended.

    Parameters
    ----------
    path : path-like
        A folder or anything else.
    """
    return (Path(path) / INDEX_NAME).is_file() and (Path(path) / TILES_NAME).is_file()


def read_index(path: str | os.PathLike[str]) -> tuple[StackFacts, dict[str, Any], dict[str, Any]]:
    """Read what was fitted, how and how well.

    Parameters
    ----------
    path : path-like
        Folder of a fit by tiles.

    Returns
    -------
    StackFacts
        The whole stack.
    dict
        The settings.
    dict
        The report.

    Raises
    ------
    FormatError
        If it is no such folder.
    """
    index = Path(path) / INDEX_NAME
    with refusing(index, "the index of a fit by tiles"):
        content = _content(index)
        facts = content["stack"]
        for name in ("shape", "spacing", "origin"):
            facts[name] = tuple(facts[name])
        return StackFacts(**facts), content["settings"], content["report"]


def _content(index: Path) -> dict[str, Any]:
    content = parsed_json(index.read_text(encoding="utf-8"))
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise FormatError(
            f"{index}: is {content.get('format')!r} of version {content.get('version')!r}; "
            f"expected {FORMAT!r} of version {VERSION}"
        )
    if content.get("parts") not in (PARTS_NAME, OBJECTS_NAME):
        raise FormatError(f"{index}: names no folder of tables; expected {PARTS_NAME}")
    return content


def read_tables(
    path: str | os.PathLike[str], region: Region | None = None, *, wide: bool | None = None
) -> Iterator[pd.DataFrame]:
    """Yield the tables of tiles, of those alone whose Gaussians reach into a region.

    Parameters
    ----------
    path : path-like
        Folder of a fit by tiles.
    region : tuple of two tuples of int, optional
        Its first voxel (z, y, x), and the one behind its last.
    wide : bool, optional
        Whether only what is wider than tiles see, or only the rest; all if None.

    Yields
    ------
    DataFrame
        Some rows may reach nowhere near.
    """
    import pandas as pd

    require_pyarrow()
    folder = Path(path)
    with refusing(folder / INDEX_NAME, "the index of a fit by tiles"):
        parts = _content(folder / INDEX_NAME)["parts"]
    with refusing(folder / TILES_NAME, "a table of tiles"):
        written = (folder / TILES_NAME).stat()
        tiles = _tiles(folder / TILES_NAME, (written.st_mtime_ns, written.st_size))
        chosen = tiles["gaussians"].to_numpy() > 0
        if wide is not None:
            chosen &= (tiles["part"] == WIDE_PART).to_numpy() == wide
        if region is not None:
            (low, high), reach = region, tiles[[*REACH]].to_numpy(np.float64)
            chosen &= ((reach[:, 3:] >= low) & (reach[:, :3] <= high)).all(1)
    for name in tiles["part"].to_numpy()[chosen]:
        part = folder / parts / str(name)
        with refusing(part, "a table of Gaussians"):
            yield pd.read_parquet(part)


@lru_cache(maxsize=2)
def _tiles(path: Path, _version: tuple[int, int]) -> pd.DataFrame:
    """Return the table of tiles, which nobody changes, as it was written then.

    A volume is made of about as many boxes as there are tiles, and each asks for those near it.
    """
    import pandas as pd

    return pd.read_parquet(path)


def read_region(
    path: str | os.PathLike[str], region: Region | None = None, *, wide: bool | None = None
) -> dict[str, Any]:
    """Read the Gaussians that reach into a region, as if it had been a stack of its own.

    Parameters
    ----------
    path : path-like
        Folder of a fit by tiles.
    region : tuple of two tuples of int, optional
        Its first voxel (z, y, x), and the one behind its last; all of the stack by default.
    wide : bool, optional
        Whether to read what is wider than a tile, as for `read_tables`.

    Returns
    -------
    dict
        ``fields``, ``stack``, ``settings``, ``notes`` and ``psf``; positions count from the
        region's first voxel.

    Raises
    ------
    FormatError
        If it is no such folder, or a part of it is missing or damaged.
    SettingsError
        If the region is none of the stack.
    """
    import pandas as pd

    whole, settings, report = read_index(path)
    first, end = region or ((0, 0, 0), whole.shape)
    inside = all(
        0 <= a < b <= n and b - a > 1 for a, b, n in zip(first, end, whole.shape, strict=True)
    )
    if not inside:
        raise SettingsError(
            f"region={region}: expected the first voxel (z, y, x) and the one behind the last, two "
            f"or more along each axis, in a stack of {' x '.join(map(str, whole.shape))}"
        )
    step = np.asarray(whole.spacing)
    tables = [*read_tables(path, region, wide=wide)]
    table = pd.concat(tables) if tables else pd.DataFrame(columns=_columns(report))
    covariances = np.empty((len(table), 3, 3))
    for name, (i, j) in COVARIANCES.items():
        covariances[:, i, j] = covariances[:, j, i] = table[name]
    means = table[[*AXES]].to_numpy(np.float64) - np.asarray(first) * step
    reach = REACH_SIGMAS * np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    size = np.subtract(end, first) * step
    near = ((means + reach >= -0.5 * step) & (means - reach <= size - 0.5 * step)).all(1)
    others = report.get("other_channels", [])
    backgrounds = [report["background"], *(one["background"] for one in others)]
    several = len(backgrounds) > 1
    fields = tuple(
        GaussianField.from_covariances(
            means[near],
            covariances[near],
            table[f"{CHANNEL}{n}" if several else "amplitude"].to_numpy(np.float64)[near],
            background=background,
            unit=whole.unit,
        )
        for n, background in enumerate(backgrounds)
    )
    oz, oy, ox = (np.asarray(whole.origin) + np.asarray(first) * step).tolist()
    z, y, x = (b - a for a, b in zip(first, end, strict=True))
    stack = replace(whole, shape=(z, y, x), origin=(oz, oy, ox))
    failed = report["failed"]
    notes = (f"{len(failed)} tiles failed and hold nothing",) if failed else ()
    with refusing(Path(path) / INDEX_NAME, "the index of a fit by tiles"):
        psf = _content(Path(path) / INDEX_NAME).get("psf")
    return {"fields": fields, "stack": stack, "settings": settings, "notes": notes, "psf": psf}


def _columns(report: Mapping[str, Any]) -> list[str]:
    """Return the columns that are read of a table, of which there is none."""
    channels = range(1 + len(report.get("other_channels", [])))
    return [*AXES, *COVARIANCES, "amplitude", *(f"{CHANNEL}{n}" for n in channels)]
