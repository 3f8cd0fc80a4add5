"""Stacks come from OME-Zarr of both versions, and a written volume is valid to others."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import ome_zarr_io
import pytest
import zarr

from napari_gaussfit.errors import OutputError, StackError, StackNotFoundError
from napari_gaussfit.io.ome_zarr import write_ome_zarr
from napari_gaussfit.stack import Stack, read_layout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

VOLUME = np.random.default_rng(0).normal(size=(4, 6, 5))
SPACING = (0.21, 0.06, 0.05)

TYPES = {"c": "channel", "t": "time"}


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "render.ome.zarr"
    write_ome_zarr(path, VOLUME, spacing=SPACING, unit="micrometer", name="cell")
    return path


def metadata(axes: str, scale: tuple[float, ...], unit: str | None) -> dict[str, Any]:
    """What OME-Zarr says of an image in two resolutions, in either version."""
    named = [
        {"name": axis, "type": TYPES.get(axis, "space")}
        | ({"unit": unit} if unit and axis in "zyx" else {})
        for axis in axes
    ]
    coarse = [2 * step if axis in "yx" else step for axis, step in zip(axes, scale, strict=True)]
    datasets = [
        {"path": path, "coordinateTransformations": [{"type": "scale", "scale": list(steps)}]}
        for path, steps in (("s0", scale), ("s1", coarse))
    ]
    return {"multiscales": [{"axes": named, "datasets": datasets}]}


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Write an OME-Zarr by zarr and json alone, as another program would."""

    def write(
        voxels: NDArray[Any],
        axes: str,
        scale: tuple[float, ...],
        *,
        version: str = "0.4",
        unit: str | None = "micrometer",
        **more: Any,
    ) -> Path:
        path = tmp_path / f"other-{version}.zarr"
        group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
        group.create_array("s0", data=voxels)
        group.create_array("s1", data=np.ascontiguousarray(voxels[..., ::2, ::2]))
        ome = metadata(axes, scale, unit) | more
        if version == "0.4":
            ome["multiscales"][0]["version"] = version
            group.attrs.update(ome)
        else:
            group.attrs["ome"] = {"version": version, **ome}
        return path

    return write


def test_a_written_volume_reads_back_with_its_spacing(volume: Path) -> None:
    stack = Stack.open(volume)
    np.testing.assert_array_equal(stack.voxels, VOLUME.astype(np.float32))
    assert stack.voxels.dtype == np.float32
    assert (stack.spacing, stack.unit, stack.notes) == (SPACING, "micrometer", ())
    assert stack.name == "render"


def test_a_written_volume_is_valid_by_the_schemas_of_ome(volume: Path) -> None:
    found = ome_zarr_io.validate(volume)
    assert not found.errors, found.errors


def test_another_library_reads_the_voxels_and_their_sizes(volume: Path) -> None:
    size = ome_zarr_io.Reader(volume).get_voxel_size()
    assert tuple(size[axis] for axis in "zyx") == SPACING


def test_the_metadata_have_name_axes_and_units(volume: Path) -> None:
    ome = json.loads((volume / "zarr.json").read_text())["attributes"]["ome"]
    [multiscale] = ome["multiscales"]
    assert (ome["version"], multiscale["name"]) == ("0.5", "cell")
    found = [(axis["name"], axis["type"], axis["unit"]) for axis in multiscale["axes"]]
    assert found == [(axis, "space", "micrometer") for axis in "zyx"]


def test_a_volume_in_pixels_reads_back_in_pixels(tmp_path: Path) -> None:
    path = tmp_path / "render.zarr"
    write_ome_zarr(path, VOLUME, spacing=(1, 1, 1), unit="pixel", name="cell")
    stack = Stack.open(path)
    assert (stack.spacing, stack.unit) == ((1, 1, 1), "pixel")
    assert "no unit" in stack.notes[0]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_finest_resolution_of_either_version_is_read(
    written: Callable[..., Path], version: str
) -> None:
    voxels = np.random.default_rng(1).integers(0, 999, (3, 8, 10)).astype(">u2")
    path = written(voxels, "zyx", (500.0, 100.0, 110.0), version=version, unit="nanometer")
    stack = Stack.open(path)
    np.testing.assert_array_equal(stack.voxels, voxels)
    assert stack.voxels.dtype == np.dtype("=u2")
    np.testing.assert_allclose(stack.spacing, (0.5, 0.1, 0.11))
    assert read_layout(path).container == f"OME-Zarr {version}"


def test_a_scale_for_all_resolutions_counts_too(written: Callable[..., Path]) -> None:
    path = written(VOLUME, "zyx", (2.0, 1.0, 1.0))
    attributes = json.loads((path / ".zattrs").read_text())
    whole = [{"type": "scale", "scale": [0.1, 0.2, 0.3]}]
    attributes["multiscales"][0]["coordinateTransformations"] = whole
    (path / ".zattrs").write_text(json.dumps(attributes))
    np.testing.assert_allclose(Stack.open(path).spacing, (0.2, 0.2, 0.3))


def test_channel_and_time_are_chosen_and_named(written: Callable[..., Path]) -> None:
    voxels = np.random.default_rng(1).integers(0, 99, (3, 2, 4, 6, 8)).astype(np.uint8)
    channels = [{"label": name, "color": "FF0000"} for name in ("DAPI", "GFP")]
    for channel in channels:
        channel["window"] = {"start": 0, "end": 9, "min": 0, "max": 9}  # type: ignore[assignment]
    path = written(voxels, "tczyx", (1, 1, 0.3, 0.1, 0.1), omero={"channels": channels})
    layout = read_layout(path)
    assert (layout.axes, layout.shape) == ("TCZYX", voxels.shape)
    with pytest.raises(StackError, match=r"2 channels \(0 DAPI, 1 GFP\) and 3 time points"):
        Stack.open(path)
    stack = Stack.open(path, channel=1, time=2)
    np.testing.assert_array_equal(stack.voxels, voxels[2, 1])
    assert (stack.channel, stack.time) == (1, 2)


def test_axes_of_one_voxel_are_no_choice(written: Callable[..., Path]) -> None:
    voxels = VOLUME[None, None]
    stack = Stack.open(written(voxels, "tczyx", (1, 1, 0.3, 0.1, 0.1)))
    np.testing.assert_array_equal(stack.voxels, VOLUME)


def test_the_first_image_of_a_converted_file_is_read(volume: Path, tmp_path: Path) -> None:
    outer = tmp_path / "converted.zarr"
    group = zarr.open_group(outer, mode="w", zarr_format=3)
    group.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    shutil.copytree(volume, outer / "0")
    stack = Stack.open(outer)
    assert stack.spacing == SPACING
    assert "first is taken" in stack.notes[0]


def test_what_is_no_image_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    plate = tmp_path / "plate.zarr"
    zarr.open_group(plate, mode="w", zarr_format=3).attrs["ome"] = {"plate": {}, "version": "0.5"}
    assert "has plate, version; expected multiscales" in refusal(plate)
    empty = tmp_path / "empty.zarr"
    empty.mkdir()
    assert "expected a folder that holds a Zarr group" in refusal(empty)
    with pytest.raises(StackNotFoundError, match="no such folder"):
        Stack.open(tmp_path / "missing.zarr")


def test_metadata_that_are_not_valid_are_named(
    written: Callable[..., Path], refusal: Callable[..., str]
) -> None:
    path = written(VOLUME, "zyx", (0.3, 0.1, 0.1))
    attributes = json.loads((path / ".zattrs").read_text())
    attributes["multiscales"][0]["axes"].pop()
    (path / ".zattrs").write_text(json.dumps(attributes))
    assert "does not match the number of axes (2)" in refusal(path)


def test_an_array_that_is_missing_or_broken_is_refused(
    volume: Path, refusal: Callable[..., str]
) -> None:
    [chunk] = (path for path in (volume / "0" / "c").rglob("*") if path.is_file())
    chunk.write_bytes(b"nonsense")
    assert "cannot be decoded" in refusal(volume)
    shutil.rmtree(volume / "0")
    assert "cannot be read as an OME-Zarr" in refusal(volume)


def test_an_earlier_volume_is_replaced_and_nothing_else_is(volume: Path) -> None:
    write_ome_zarr(volume, VOLUME + 1, spacing=SPACING, unit="micrometer", name="cell")
    np.testing.assert_array_equal(Stack.open(volume).voxels, (VOLUME + 1).astype(np.float32))
    assert list(volume.parent.iterdir()) == [volume]
    mine = volume.parent / "mine.zarr"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="no Zarr group; give another name"):
        write_ome_zarr(mine, VOLUME, spacing=SPACING, unit="micrometer", name="cell")
    assert (mine / "thesis.txt").read_text() == "mine"


def test_a_failed_write_leaves_the_old_folder(
    volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaozarrs.write.v05

    def fill_the_disk(path: Path, *_: object, **__: object) -> None:
        path.mkdir()
        (path / "zarr.json").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(yaozarrs.write.v05, "write_image", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        write_ome_zarr(volume, VOLUME + 1, spacing=SPACING, unit="micrometer", name="cell")
    monkeypatch.undo()
    np.testing.assert_array_equal(Stack.open(volume).voxels, VOLUME.astype(np.float32))
    assert list(volume.parent.iterdir()) == [volume]
