"""Workers of dask: the same bytes from two processes as from none, also where one is killed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil
import pytest
from distributed import Client, LocalCluster
from test_fit_tiles import contents

from napari_gaussfit.fitting.fit_tiles import TileProgress, fit_tiles
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.ome_zarr import write_ome_zarr
from napari_gaussfit.synthetic import phantoms

if TYPE_CHECKING:
    from pathlib import Path

TILE = (24, 32, 32)
SETTINGS = FitSettings(iterations=40, device="cpu")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    stack = phantoms.neurite(shape=(24, 64, 96), seed=2).stack
    path = tmp_path / "big.ome.zarr"
    write_ome_zarr(path, stack.voxels, spacing=stack.spacing, unit="micrometer", name="big")
    return path


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_leave_the_same_bytes(
    source: Path, tmp_path: Path
) -> None:
    fit_tiles(source, tmp_path / "alone", SETTINGS, tile=TILE)
    killed: list[int] = []

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):

        def kill(progress: TileProgress) -> None:
            if progress.done == 2 and not killed:
                [pid, *_] = client.run(os.getpid).values()
                killed.append(pid)
                psutil.Process(pid).kill()

        report = fit_tiles(
            source, tmp_path / "together", SETTINGS, tile=TILE, client=client, progress=kill
        )

    assert killed
    assert report.failed == ()
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")
