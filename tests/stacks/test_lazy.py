"""Stacks that are read box by box: what is read, from which files, and the sample beforehand."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import zarr

from napari_gaussfit.errors import SettingsError, StackError
from napari_gaussfit.stacks import lazy
from napari_gaussfit.stacks.lazy import LazyStack
from napari_gaussfit.stacks.ome_zarr import write_ome_zarr
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from numpy.typing import NDArray

BOX = ((2, 3, 5), (9, 14, 11))


@pytest.fixture
def voxels() -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 4000, (12, 20, 16)).astype(np.uint16)


class Counted:
    """An array that counts the voxels it is asked for."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array, self.shape, self.dtype, self.asked = array, array.shape, array.dtype, 0

    def __getitem__(self, box: Any) -> NDArray[Any]:
        part = self.array[box]
        self.asked += part.size
        return part


def box_of(array: NDArray[Any]) -> NDArray[Any]:
    return array[2:9, 3:14, 5:11]


def test_a_box_reads_no_voxel_beside_it(voxels: NDArray[np.uint16]) -> None:
    counted = Counted(voxels)
    stack = LazyStack.from_array(counted, spacing=(0.3, 0.1, 0.1))

    assert counted.asked == 0
    assert np.array_equal(stack.read(*BOX), box_of(voxels))
    assert counted.asked == box_of(voxels).size


def test_a_zip_file_is_read_by_chunks_and_opened_once(
    tmp_path: Path, voxels: NDArray[np.uint16], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, opened = tmp_path / "big.ome.zarr", [0]
    array = zarr.create_array(folder, data=voxels, chunks=(4, 4, 4), dimension_names=[*"zyx"])
    chunks = len([path for path in (folder / "c").rglob("*") if path.is_file()])
    for path in (folder / "c" / "2").rglob("*"):
        if path.is_file():
            path.unlink()
    zipped = Path(shutil.make_archive(str(folder), "zip", folder))
    shutil.rmtree(folder)

    class Counting(zarr.storage.ZipStore):
        def __init__(self, *given: Any, **more: Any) -> None:
            opened.append(1)
            super().__init__(*given, **more)

    monkeypatch.setattr(zarr.storage, "ZipStore", Counting)

    stack = pickle.loads(pickle.dumps(LazyStack.open(zipped)))  # noqa: S301 - our own
    before = len(opened)
    for first in range(0, 8, 2):
        box = stack.read((first, 3, 5), (first + 2, 14, 11))
        assert np.array_equal(box, voxels[first : first + 2, 3:14, 5:11])

    assert len(opened) == before + 1
    assert chunks == array.nchunks == 60
    assert not stack.read((8, 0, 0), (12, 20, 16)).any(), "what is not there is not looked for"


def test_a_part_is_a_stack_whose_first_voxel_lies_where_it_lay(
    tmp_path: Path, voxels: NDArray[np.uint16]
) -> None:
    path = tmp_path / "big.ome.zarr"
    write_ome_zarr(
        path, voxels, spacing=(0.3, 0.1, 0.1), unit="micrometer", name="big", origin=(1, 2, 3)
    )
    part = pickle.loads(pickle.dumps(LazyStack.open(path).part(*BOX)))  # noqa: S301

    assert part.shape == (7, 11, 6)
    assert part.facts.origin == pytest.approx((1.6, 2.3, 3.5))
    assert np.array_equal(part.read((0, 0, 0), part.shape), box_of(voxels))
    assert np.array_equal(part.read((1, 2, 3), (7, 11, 6)), box_of(voxels)[1:, 2:, 3:])
    again = part.part((1, 2, 3), (5, 6, 6))
    assert np.array_equal(again.read((0, 0, 0), again.shape), voxels[3:7, 5:9, 8:11])
    with pytest.raises(SettingsError, match=r"in a stack of 7 x 11 x 6"):
        part.part((0, 0, 0), (8, 11, 6))
    with pytest.raises(SettingsError, match="two or more along each axis"):
        part.part((0, 0, 0), (1, 11, 6))


def test_a_box_of_an_ome_zarr_reads_only_its_chunks(
    tmp_path: Path, voxels: NDArray[np.uint16]
) -> None:
    path = tmp_path / "big.zarr"
    zarr.create_array(path, data=voxels, chunks=(4, 10, 8))
    stack = LazyStack.open(path)
    # What lies in a chunk that cannot be read any more is in no box that does not touch it.
    for chunk in (path / "c" / "2").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"gone")

    assert np.array_equal(stack.read((0, 0, 0), (8, 20, 16)), voxels[:8])
    with pytest.raises(StackError, match="cannot be decoded"):
        stack.read((8, 0, 0), (12, 20, 16))


def test_an_ome_zarr_has_the_place_that_its_file_gives(
    tmp_path: Path, voxels: NDArray[np.uint16]
) -> None:
    path = tmp_path / "big.ome.zarr"
    write_ome_zarr(
        path, voxels, spacing=(0.3, 0.1, 0.2), unit="micrometer", name="big", origin=(1, 2, 3)
    )
    stack, whole = LazyStack.open(path), Stack.open(path)

    assert stack.facts == whole.facts
    assert np.array_equal(stack.read(*BOX), box_of(whole.voxels))
    again = pickle.loads(pickle.dumps(stack))  # noqa: S301 - as dask sends it
    assert np.array_equal(again.read(*BOX), box_of(whole.voxels))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_is_read_by_planes(
    tmp_path: Path, voxels: NDArray[np.uint16], compression: str | None
) -> None:
    path = tmp_path / "stack.tif"
    both = np.stack([voxels, voxels + 1], axis=1)
    tifffile.imwrite(path, both, imagej=compression is None, compression=compression,
                     metadata={"axes": "ZCYX"}, ome=compression is not None)  # fmt: skip
    stack = LazyStack.open(path, channel=1)

    assert stack.shape == voxels.shape
    assert np.array_equal(stack.read(*BOX), box_of(voxels + 1))


def test_a_plain_tiff_is_parsed_once_and_again_where_it_was_replaced(
    tmp_path: Path, voxels: NDArray[np.uint16], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, voxels, imagej=True, metadata={"axes": "ZYX"})
    stack, opened = LazyStack.open(path), []
    parse = tifffile.TiffFile.__init__

    def counted(file: Any, *args: Any, **options: Any) -> None:
        opened.append(file)
        parse(file, *args, **options)

    monkeypatch.setattr(tifffile.TiffFile, "__init__", counted)
    for _ in range(3):
        again = pickle.loads(pickle.dumps(stack))  # noqa: S301 - as dask sends it
        assert np.array_equal(again.read(*BOX), box_of(voxels))
    assert len(opened) == 1

    tifffile.imwrite(tmp_path / "new.tif", voxels + 1, imagej=True, metadata={"axes": "ZYX"})
    (tmp_path / "new.tif").replace(path)
    assert np.array_equal(stack.read(*BOX), box_of(voxels + 1))


def test_a_channel_must_be_chosen_where_there_are_several(
    tmp_path: Path, voxels: NDArray[np.uint16]
) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.stack([voxels, voxels], 1), imagej=True, metadata={"axes": "ZCYX"})

    with pytest.raises(StackError, match="2 channels; choose channel"):
        LazyStack.open(path)


def test_nan_is_refused_where_it_is_read_or_filled() -> None:
    voxels = np.zeros((8, 8, 8), np.float32)
    voxels[6, 6, 6] = np.nan
    stack = LazyStack.from_array(voxels)

    stack.read((0, 0, 0), (4, 8, 8))
    with pytest.raises(StackError, match=r"at voxel 4, 0, 0: 1 of 256 voxels .*--fill-nan 0"):
        stack.read((4, 0, 0), (8, 8, 8))
    assert LazyStack.from_array(voxels, fill_nan=7).read((4, 0, 0), (8, 8, 8))[2, 6, 6] == 7


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4)), "has shape 3 x 4; expected three axes"),
        (np.zeros((3, 4, 5), complex), "type complex128"),
    ],
)
def test_what_is_no_stack_is_refused(array: NDArray[Any], message: str) -> None:
    with pytest.raises(StackError, match=message):
        LazyStack.from_array(array)
    with pytest.raises(SettingsError, match="spacing"):
        LazyStack.from_array(np.zeros((3, 4, 5)), spacing=(1, 2))


def test_a_sample_of_a_small_stack_is_all_of_it(voxels: NDArray[np.uint16]) -> None:
    sample = LazyStack.from_array(voxels).sample()

    assert sample.words == "all of its voxels"
    assert sample.value_range == (voxels.min(), voxels.max())


def test_a_sample_says_how_it_was_drawn_and_is_spread_evenly(
    monkeypatch: pytest.MonkeyPatch, voxels: NDArray[np.uint16]
) -> None:
    monkeypatch.setattr(lazy, "SAMPLE_BOX", 4)
    monkeypatch.setattr(lazy, "SAMPLE_BOXES", 2)
    counted = Counted(voxels)

    sample = LazyStack.from_array(counted).sample()

    assert sample.words == (
        "a sample of 512 of its 3,840 voxels: 8 boxes of 4 x 4 x 4, spread evenly"
    )
    assert counted.asked == 512
    assert np.array_equal(sample.boxes[0], voxels[1:5, 3:7, 2:6])
    assert np.array_equal(sample.boxes[-1], voxels[7:11, 13:17, 10:14])
    again = LazyStack.from_array(voxels).sample()
    assert again.digest == sample.digest
    assert LazyStack.from_array(voxels[::-1]).sample().digest != sample.digest
