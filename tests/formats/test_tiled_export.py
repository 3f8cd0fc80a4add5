"""What a fit by tiles is exported as: the table whole, the volume in several resolutions."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from yaozarrs import validate_zarr_store

from napari_gaussfit import _threads
from napari_gaussfit.cli.commands import main
from napari_gaussfit.errors import OutputError, SettingsError
from napari_gaussfit.fitting.fit_tiles import fit_tiles
from napari_gaussfit.fitting.result import load
from napari_gaussfit.formats import tiled_export
from napari_gaussfit.formats.tiled_export import export_table, export_volume
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks import ome_zarr
from napari_gaussfit.stacks.lazy import LazyStack
from napari_gaussfit.stacks.ome_zarr import written_by_boxes
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.synthetic import phantoms

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tiles") / "out"
    neurite = phantoms.neurite(shape=(24, 64, 64), seed=2).stack
    dark = np.random.default_rng(0).poisson(100, (24, 64, 65)).astype(np.uint16)
    voxels = np.concatenate([neurite.voxels, dark], axis=2)
    stack = Stack.from_array(voxels, spacing=neurite.spacing, name="neurite")
    fit_tiles(stack, out, FitSettings(iterations=20, device="cpu"), tile=(24, 32, 48))
    return out


def test_the_table_is_that_of_all_gaussians(fitted: Path, tmp_path: Path) -> None:
    export_table(fitted, tmp_path / "parts.csv")
    load(fitted).export(tmp_path / "whole.csv")

    parts, whole = (pd.read_csv(tmp_path / name) for name in ("parts.csv", "whole.csv"))
    assert [*parts.columns] == [*whole.columns]
    assert parts["index"].tolist() == whole["index"].tolist()
    numbers = ["z", "y", "x", "amplitude", "sigma_1", "fwhm_3", "axis-2"]
    assert np.allclose(parts[numbers], whole[numbers], rtol=1e-5, atol=1e-5)


def test_the_volume_is_the_field_and_each_resolution_the_means_of_the_one_before(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled_export, "BOX", 32)
    monkeypatch.setattr(ome_zarr, "CHUNK", 32)
    path = tmp_path / "volume.ome.zarr"
    export_volume(fitted, path)

    validate_zarr_store(path)
    whole = load(fitted)
    volume = Stack.open(path)
    assert volume.spacing == whole.stack.spacing
    assert np.abs(volume.voxels - whole.voxelise()).max() < 1e-3 * np.ptp(volume.voxels)
    second, third = LazyStack.open(path / "1"), LazyStack.open(path / "2")
    assert (second.shape, third.shape) == ((12, 32, 65), (6, 16, 33))
    assert second.spacing == pytest.approx(np.multiply(2, volume.spacing))
    assert second.facts.origin == pytest.approx(np.multiply(0.5, volume.spacing))
    halves = volume.voxels[:, :, :128].reshape(12, 2, 32, 2, 64, 2).mean((1, 3, 5))
    assert np.allclose(second.read((0, 0, 0), (12, 32, 64)), halves, rtol=1e-5)
    last = volume.voxels[:, :, 128:].reshape(12, 2, 32, 2).mean((1, 3))
    assert np.allclose(second.read((0, 0, 64), (12, 32, 65))[..., 0], last, rtol=1e-5)


def test_by_several_threads_the_bytes_are_those_by_one(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled_export, "BOX", 16)
    monkeypatch.setattr(ome_zarr, "CHUNK", 8)
    monkeypatch.setattr(_threads, "thread_count", lambda: 1)
    export_volume(fitted, tmp_path / "by-one.ome.zarr")
    told: list[tuple[int, int]] = []
    threads = set()

    def tell(done: int, of: int) -> None:
        told.append((done, of))
        threads.add(threading.get_ident())

    monkeypatch.setattr(_threads, "thread_count", lambda: 4)
    export_volume(fitted, tmp_path / "by-four.ome.zarr", progress=tell)

    assert told == [(n, 2 * 4 * 9) for n in range(1, 2 * 4 * 9 + 1)]
    assert len(threads) > 1
    assert files(tmp_path / "by-one.ome.zarr") == files(tmp_path / "by-four.ome.zarr")


def files(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each file in a folder."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_volume_that_cannot_be_written_whole_leaves_the_one_before(
    fitted: Path, tmp_path: Path
) -> None:
    path = tmp_path / "volume.ome.zarr"
    export_volume(fitted, path)
    before = files(path)

    def interrupt(_done: int, _of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_volume(fitted, path, progress=interrupt)

    assert files(path) == before
    assert [*tmp_path.iterdir()] == [path]


def test_a_volume_of_several_resolutions_is_replaced_unless_anyone_added_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ome_zarr, "CHUNK", 8)
    path = tmp_path / "volume.ome.zarr"

    def write() -> None:
        with written_by_boxes(
            path, (9, 10, 11), dtype=np.uint16, spacing=(1, 1, 1), unit="pixel", name="v"
        ) as array:
            array[:] = 7

    write()
    write()
    (path / "2").mkdir()
    with pytest.raises(OutputError, match="more in it than a volume"):
        write()


def test_the_command_line_exports_by_boxes(fitted: Path, tmp_path: Path) -> None:
    assert main(["export", str(fitted), "-o", str(tmp_path / "a.csv")]) == 0
    assert main(["render", str(fitted), "--volume", "-o", str(tmp_path / "b.ome.zarr")]) == 0

    count = len(pd.read_parquet(fitted / "gaussians.parquet"))
    assert len(pd.read_csv(tmp_path / "a.csv")) == count
    assert (tmp_path / "b.ome.zarr" / "1").is_dir()


def test_another_sampling_is_had_of_a_fit_by_tiles_too(fitted: Path, tmp_path: Path) -> None:
    dz, dy, dx = load(fitted).stack.spacing
    command = ["render", str(fitted), "--volume", "-o", str(tmp_path / "fine.ome.zarr")]

    assert main([*command, "--sampling", str(dz / 2), str(dy), str(dx)]) == 0

    fine = LazyStack.open(tmp_path / "fine.ome.zarr")
    assert (fine.shape, fine.spacing) == ((47, 64, 129), pytest.approx((dz / 2, dy, dx)))


def test_the_residual_is_the_stack_minus_the_field_box_by_box(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled_export, "BOX", 32)
    monkeypatch.setattr(ome_zarr, "CHUNK", 32)
    result = load(fitted)
    voxels = np.random.default_rng(0).integers(0, 4000, result.stack.shape).astype(np.uint16)
    source, out = tmp_path / "stack.ome.zarr", tmp_path / "residual.ome.zarr"
    options = {"spacing": result.stack.spacing, "unit": "micrometer", "name": "stack"}
    ome_zarr.write_ome_zarr(source, voxels, **options)

    assert main(["export", str(fitted), "--residual", "--stack", str(source), "-o", str(out)]) == 0

    validate_zarr_store(out)
    found = LazyStack.open(out).read((0, 0, 0), result.stack.shape)
    assert np.allclose(found, voxels - result.voxelise(), atol=1e-2)
    ome_zarr.write_ome_zarr(tmp_path / "other.ome.zarr", voxels[:20], **options)
    command = ["export", str(fitted), "--residual", "--stack", str(tmp_path / "other.ome.zarr")]
    assert main([*command, "-o", str(tmp_path / "no.ome.zarr")]) == 2


def test_of_several_channels_the_volume_and_what_is_left_have_an_axis_of_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled_export, "BOX", 16)
    monkeypatch.setattr(ome_zarr, "CHUNK", 16)
    stack = phantoms.neurite(shape=(12, 40, 48), seed=2).stack
    other = Stack.from_array(stack.voxels // 2, spacing=stack.spacing, name="half")
    out, volume, rest = (tmp_path / name for name in ("fit", "volume.ome.zarr", "rest.ome.zarr"))
    settings = FitSettings(iterations=10, device="cpu")
    fit_tiles([stack, other], out, settings, tile=(12, 40, 24))
    whole = load(out)

    assert main(["export", str(out), "-o", str(volume)]) == 0
    validate_zarr_store(volume)
    for channel, field in enumerate(whole.fields):
        found = LazyStack.open(volume, channel=channel)
        expected = field.voxelise(whole.stack.shape, whole.stack.spacing).numpy()
        assert np.abs(found.read((0, 0, 0), found.shape) - expected).max() < 1e-2
        assert found.spacing == stack.spacing
        second = LazyStack.open(volume / "1", channel=channel)
        halves = expected.reshape(6, 2, 20, 2, 24, 2).mean((1, 3, 5))
        assert np.allclose(second.read((0, 0, 0), second.shape), halves, atol=1e-2)

    export_volume(out, rest, [LazyStack.of_stack(stack), LazyStack.of_stack(other)])
    left = LazyStack.open(rest, channel=1).read((0, 0, 0), (12, 40, 48))
    expected = whole.fields[1].voxelise(whole.stack.shape, whole.stack.spacing).numpy()
    assert np.allclose(left, other.voxels - expected, atol=1e-2)
    with pytest.raises(SettingsError, match="1 of its channels are given, the fit is of 2"):
        export_volume(out, tmp_path / "no.ome.zarr", [LazyStack.of_stack(stack)])
