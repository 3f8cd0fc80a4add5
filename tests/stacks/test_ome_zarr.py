"""Stacks come from OME-Zarr of both versions, and a written volume is valid to others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ome_zarr_io
import pytest
import zarr

from napari_gaussfit.errors import OutputError, StackError, StackNotFoundError
from napari_gaussfit.stacks.ome_zarr import write_ome_zarr
from napari_gaussfit.stacks.readers import read_layout
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable

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


@pytest.mark.parametrize("listed", [None, ["b", "a"]])
def test_the_images_of_a_converted_file_can_be_chosen(
    tmp_path: Path, refusal: Callable[..., str], listed: list[str] | None
) -> None:
    outer = tmp_path / "converted.zarr"
    group = zarr.open_group(outer, mode="w", zarr_format=3)
    group.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    if listed:
        group.create_group("OME").attrs["ome"] = {"version": "0.5", "series": listed}
    for n, name in enumerate(listed or ["0", "1"]):
        write_ome_zarr(outer / name, VOLUME + n, spacing=SPACING, unit="micrometer", name=name)
    stack = Stack.open(outer)
    np.testing.assert_array_equal(stack.voxels, VOLUME.astype(np.float32))
    assert "holds 2 images, of which 0 is taken; position=0, 1" in stack.notes[0]
    second = Stack.open(outer, position=1)
    np.testing.assert_array_equal(second.voxels, (VOLUME + 1).astype(np.float32))
    assert not second.notes
    assert "which has 2 images; choose position=0, 1" in refusal(outer, position=2)
    again = Stack.open(outer / (listed or ["0", "1"])[1])
    np.testing.assert_array_equal(again.voxels, second.voxels)


def test_the_stack_of_a_converted_file_is_found_beside_its_overview(tmp_path: Path) -> None:
    outer = tmp_path / "slide.zarr"
    group = zarr.open_group(outer, mode="w", zarr_format=3)
    group.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    for name, volume in (("0", VOLUME[:1]), ("1", VOLUME)):
        write_ome_zarr(outer / name, volume, spacing=SPACING, unit="micrometer", name=name)
    stack = Stack.open(outer)
    np.testing.assert_array_equal(stack.voxels, VOLUME.astype(np.float32))
    assert read_layout(outer).positions == (1,)


def test_what_is_no_image_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    plate = tmp_path / "plate.zarr"
    zarr.open_group(plate, mode="w", zarr_format=3).attrs["ome"] = {"plate": {}, "version": "0.5"}
    assert "without an image (its metadata have plate, version)" in refusal(plate)
    empty = tmp_path / "empty.zarr"
    empty.mkdir()
    assert "expected a folder or a zip file that holds a Zarr image" in refusal(empty)
    with pytest.raises(StackNotFoundError, match="no such file or folder"):
        Stack.open(tmp_path / "missing.zarr")


def test_metadata_that_are_not_valid_are_named(
    written: Callable[..., Path], refusal: Callable[..., str]
) -> None:
    path = written(VOLUME, "zyx", (0.3, 0.1, 0.1))
    attributes = json.loads((path / ".zattrs").read_text())
    attributes["multiscales"][0]["axes"].pop()
    (path / ".zattrs").write_text(json.dumps(attributes))
    place = "multiscales[0].datasets[0].coordinateTransformations[0].scale"
    assert f"{place} has 3 numbers for 2 axes" in refusal(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"multiscales": []}, "multiscales is empty"),
        ({"multiscales": {}}, "multiscales is {}; expected a list"),
        ({"multiscales": [{"axes": []}]}, "multiscales[0].datasets is missing; expected a list"),
        ({"multiscales": [{"datasets": [{"path": "s0"}]}]}, "multiscales[0].axes is missing"),
    ],
)
def test_what_is_missing_of_the_metadata_is_named(
    written: Callable[..., Path], refusal: Callable[..., str], change: dict[str, Any], said: str
) -> None:
    path = written(VOLUME, "zyx", (0.3, 0.1, 0.1))
    (path / ".zattrs").write_text(json.dumps(change))
    assert said in refusal(path)


def test_an_array_that_is_missing_or_broken_is_refused(
    volume: Path, refusal: Callable[..., str]
) -> None:
    [chunk] = (path for path in (volume / "0" / "c").rglob("*") if path.is_file())
    chunk.write_bytes(b"nonsense")
    assert "cannot be decoded" in refusal(volume)
    shutil.rmtree(volume / "0")
    assert "its resolution 0 is missing" in refusal(volume)


def test_an_earlier_volume_is_replaced_and_nothing_else_is(volume: Path) -> None:
    write_ome_zarr(volume, VOLUME + 1, spacing=SPACING, unit="micrometer", name="cell")
    np.testing.assert_array_equal(Stack.open(volume).voxels, (VOLUME + 1).astype(np.float32))
    assert list(volume.parent.iterdir()) == [volume]
    mine = volume.parent / "mine.zarr"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="never removed; give another name"):
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
    with pytest.raises(OSError, match="there is no room for it"):
        write_ome_zarr(volume, VOLUME + 1, spacing=SPACING, unit="micrometer", name="cell")
    monkeypatch.undo()
    np.testing.assert_array_equal(Stack.open(volume).voxels, VOLUME.astype(np.float32))
    assert list(volume.parent.iterdir()) == [volume]


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Change the metadata of an image of version 0.4, as another writer would have them."""
    attributes = json.loads((path / ".zattrs").read_text())
    change(attributes)
    (path / ".zattrs").write_text(json.dumps(attributes))
    return path


def plate_of(tmp_path: Path) -> Path:
    path = tmp_path / "plate.zarr"
    plate = zarr.open_group(path, mode="w", zarr_format=2)
    plate.attrs["plate"] = {"version": "0.4", "wells": [{"path": "B/07"}]}
    well = plate.create_group("B/07")
    well.attrs["well"] = {"version": "0.4", "images": [{"path": "0"}]}
    image = well.create_group("0")
    image.create_array("s0", data=VOLUME)
    image.create_array("s1", data=VOLUME)
    image.attrs.update(metadata("zyx", SPACING, "micrometer"))
    labels = image.create_group("labels")
    labels.attrs["labels"] = ["cells"]
    cells = labels.create_group("cells")
    cells.create_array("s0", data=(VOLUME > 0).astype(np.uint8))
    cells.create_array("s1", data=(VOLUME > 0).astype(np.uint8))
    cells.attrs.update(metadata("zyx", SPACING, "micrometer"))
    return path


@pytest.mark.parametrize("zipped", [False, True])
def test_what_an_error_tells_to_give_can_be_given(
    tmp_path: Path, refusal: Callable[..., str], zipped: bool
) -> None:
    path = plate_of(tmp_path)
    if zipped:
        path = Path(
            shutil.make_archive(str(tmp_path / "plate.zarr"), "zip", tmp_path, "plate.zarr")
        )
    assert f"is a plate of 1 well, not an image; give one of its images: {path}/B/07/0" in refusal(
        path
    )
    assert f"is a well, not an image; give one of its images: {path}/B/07/0" in refusal(
        path / "B" / "07"
    )
    stack = Stack.open(path / "B" / "07" / "0")
    np.testing.assert_array_equal(stack.voxels, VOLUME)
    assert (stack.spacing, stack.name, stack.notes) == (SPACING, "plate B 07 0", ())
    assert f"give one of its images: {path}/B/07/0/labels/cells" in refusal(
        path / "B" / "07" / "0" / "labels"
    )
    cells = Stack.open(path / "B" / "07" / "0" / "labels" / "cells")
    np.testing.assert_array_equal(cells.voxels, VOLUME > 0)
    coarser = Stack.open(path / "B" / "07" / "0" / "s1")
    assert coarser.spacing == (SPACING[0], 2 * SPACING[1], 2 * SPACING[2])


def test_a_path_may_begin_inside_of_a_zarr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(plate_of(tmp_path))
    assert Stack.open("B/07/0").name == "plate B 07 0"
    monkeypatch.chdir("B/07/0")
    assert Stack.open(".").name == "plate B 07 0"
    np.testing.assert_array_equal(Stack.open("labels/cells").voxels, VOLUME > 0)
    monkeypatch.chdir("labels")
    assert Stack.open("../../0").name == "plate B 07 0"


@pytest.mark.parametrize("name", ["image.ozx", "image.ome.zarr.zip", "image.zip"])
def test_an_image_in_a_zip_file_is_read(volume: Path, tmp_path: Path, name: str) -> None:
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", volume))
    stack = Stack.open(packed.rename(tmp_path / name))
    np.testing.assert_array_equal(stack.voxels, VOLUME.astype(np.float32))
    assert (stack.spacing, stack.name, stack.notes) == (SPACING, "image", ())


def test_a_plain_array_is_a_stack_with_a_note(tmp_path: Path, refusal: Callable[..., str]) -> None:
    zarr.save_array(tmp_path / "plain", VOLUME)
    stack = Stack.open(tmp_path / "plain")
    np.testing.assert_array_equal(stack.voxels, VOLUME)
    assert (stack.spacing, stack.unit, stack.name) == ((1, 1, 1), "pixel", "plain")
    assert "plain Zarr array" in stack.notes[0]
    assert "4 pages have no axis name" in stack.notes[1]
    zarr.save_array(tmp_path / "five.zarr", np.stack([VOLUME, VOLUME]))
    assert "cannot tell which axis is which" in refusal(tmp_path / "five.zarr")
    named = zarr.create_array(
        tmp_path / "named.zarr", data=VOLUME.transpose(2, 0, 1), dimension_names=["x", "z", "y"]
    )
    assert named.ndim == 3
    np.testing.assert_array_equal(Stack.open(tmp_path / "named.zarr").voxels, VOLUME)


def test_the_finest_resolution_is_read_wherever_it_is_listed(
    written: Callable[..., Path],
) -> None:
    path = written(VOLUME, "zyx", SPACING)
    changed(path, lambda ome: ome["multiscales"][0]["datasets"].reverse())
    stack = Stack.open(path)
    np.testing.assert_array_equal(stack.voxels, VOLUME)
    assert stack.spacing == SPACING


@pytest.mark.parametrize(
    "omero",
    [
        None,
        {"channels": [{"label": "DAPI"}, {"label": "GFP", "color": None, "window": None}]},
        {"channels": [{"label": "DAPI", "window": {"min": 0}}, {"label": "GFP", "active": "yes"}]},
        {"rdefs": {}},
    ],
)
def test_how_a_channel_is_displayed_does_not_matter(
    written: Callable[..., Path], omero: dict[str, Any] | None
) -> None:
    path = written(np.stack([VOLUME, VOLUME + 1]), "czyx", (1, *SPACING), omero=omero)
    layout = read_layout(path)
    assert layout.channel_names == (("DAPI", "GFP") if omero and "channels" in omero else ())
    np.testing.assert_array_equal(Stack.open(path, channel=1).voxels, VOLUME + 1)


@pytest.mark.parametrize(
    "axes",
    [
        [{"name": name, "type": "space", "unit": "micrometer"} for name in "ZYX"],
        [{"name": name, "unit": "micrometer"} for name in "zyx"],
        [{"name": name, "type": "space", "unit": "um"} for name in "zyx"],
        [{"name": name, "type": "space", "unit": "\N{MICRO SIGN}m"} for name in "zyx"],
    ],
)
def test_axes_are_read_as_they_are_meant(
    written: Callable[..., Path], axes: list[dict[str, str]]
) -> None:
    path = changed(
        written(VOLUME, "zyx", SPACING), lambda ome: ome["multiscales"][0].update(axes=axes)
    )
    stack = Stack.open(path)
    assert (stack.shape, stack.spacing, stack.notes) == (VOLUME.shape, SPACING, ())


def test_axes_of_one_name_are_refused(
    written: Callable[..., Path], refusal: Callable[..., str]
) -> None:
    path = written(VOLUME, "zyx", SPACING)
    changed(path, lambda ome: ome["multiscales"][0]["axes"][0].update(name="x"))
    assert "has several axes called x" in refusal(path)


def test_proportions_without_a_unit_are_kept_and_offered_as_micrometers(
    written: Callable[..., Path],
) -> None:
    stack = Stack.open(written(VOLUME, "zyx", SPACING, unit=None))
    assert (stack.spacing, stack.unit) == (SPACING, "pixel")
    [note] = stack.notes
    assert "--spacing 0.21 0.06 0.05" in note


def test_a_negative_scale_is_taken_without_its_sign_and_said(
    written: Callable[..., Path],
) -> None:
    stack = Stack.open(written(VOLUME, "zyx", (-0.21, 0.06, 0.05)))
    assert (stack.spacing, stack.unit) == (SPACING, "micrometer")
    assert "scale is -0.21 along z; its absolute value is taken" in stack.notes[0]


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_leaves_the_spacing_unknown(
    written: Callable[..., Path], scale: float
) -> None:
    def spoil(ome: dict[str, Any]) -> None:
        [scaled] = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]
        scaled["scale"][0] = scale

    # By hand: older versions of zarr write no NaN, but read it.
    stack = Stack.open(changed(written(VOLUME, "zyx", SPACING), spoil))
    assert (stack.spacing, stack.unit) == ((1, 1, 1), "pixel")
    assert f"no dz (its scale is {scale:g} along z)" in stack.notes[0]
    assert "--spacing DZ 0.06 0.05" in stack.notes[0]


def test_a_translation_that_is_none_is_said(written: Callable[..., Path]) -> None:
    moved = {"type": "translation", "translation": [float("nan"), 1.0, 2.0]}

    def move(ome: dict[str, Any]) -> None:
        ome["multiscales"][0]["datasets"][0]["coordinateTransformations"].append(moved)

    stack = Stack.open(changed(written(VOLUME, "zyx", SPACING), move))
    assert stack.origin == (0, 1, 2)
    assert "translation is nan along z; it is taken for 0" in stack.notes[0]


def test_a_translation_is_where_the_first_voxel_lies(written: Callable[..., Path]) -> None:
    path = written(VOLUME, "zyx", (500.0, 100.0, 110.0), unit="nanometer")

    def move(ome: dict[str, Any]) -> None:
        [image] = ome["multiscales"]
        moved = {"type": "translation", "translation": [10_000, 20_000, -30_000]}
        image["datasets"][0]["coordinateTransformations"].append(moved)
        image["coordinateTransformations"] = [{"type": "scale", "scale": [1, 2, 1]}]

    stack = Stack.open(changed(path, move))
    np.testing.assert_allclose(stack.spacing, (0.5, 0.2, 0.11))
    np.testing.assert_allclose(stack.origin, (10, 40, -30))


def test_a_written_volume_lies_where_its_stack_lies(tmp_path: Path) -> None:
    path = tmp_path / "render.zarr"
    write_ome_zarr(
        path, VOLUME, spacing=SPACING, unit="micrometer", name="cell", origin=(1.0, -2.0, 3.0)
    )
    assert Stack.open(path).origin == (1, -2, 3)
    found = ome_zarr_io.validate(path)
    assert not found.errors, found.errors
