"""A written volume is an OME-TIFF that others read, and that is never seen half written."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import ome_types
import pytest
import tifffile

from napari_gaussfit.errors import OutputError
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.stacks.tiff import write_ome_tiff

if TYPE_CHECKING:
    from pathlib import Path

VOLUME = np.random.default_rng(0).normal(size=(4, 6, 5))
SPACING = (0.21, 0.06, 0.05)


def test_a_written_volume_reads_back_with_its_spacing(tmp_path: Path) -> None:
    path = tmp_path / "render.ome.tif"
    write_ome_tiff(path, VOLUME, spacing=SPACING, unit="micrometer", name="cell")
    stack = Stack.open(path)
    np.testing.assert_array_equal(stack.voxels, VOLUME.astype(np.float32))
    assert stack.voxels.dtype == np.float32
    assert (stack.spacing, stack.unit, stack.notes) == (SPACING, "micrometer", ())


def test_the_ome_metadata_has_name_sizes_and_units(tmp_path: Path) -> None:
    path = tmp_path / "render.ome.tif"
    write_ome_tiff(path, VOLUME, spacing=SPACING, unit="micrometer", name="cell")
    with tifffile.TiffFile(path) as tif:
        xml = tif.ome_metadata
    assert xml is not None
    root = ET.fromstring(xml)
    image = next(element for element in root if element.tag.endswith("Image"))
    pixels = next(element for element in image if element.tag.endswith("Pixels"))
    assert image.get("Name") == "cell"
    assert (pixels.get("SizeZ"), pixels.get("SizeY"), pixels.get("SizeX")) == ("4", "6", "5")
    for axis, size in zip("ZYX", SPACING, strict=True):
        assert float(pixels.get(f"PhysicalSize{axis}", "nan")) == size
        assert pixels.get(f"PhysicalSize{axis}Unit") == "µm"


def test_another_library_reads_the_physical_sizes(tmp_path: Path) -> None:
    path = tmp_path / "render.ome.tif"
    write_ome_tiff(path, VOLUME, spacing=SPACING, unit="micrometer", name="cell")
    pixels = ome_types.from_tiff(path).images[0].pixels
    sizes = [getattr(pixels, f"physical_size_{axis}_quantity") for axis in "zyx"]
    found = tuple(size.to("micrometer").magnitude for size in sizes)
    assert found == pytest.approx(SPACING, rel=1e-12), f"{found} micrometers"
    assert (pixels.size_z, pixels.size_y, pixels.size_x) == VOLUME.shape


def test_a_volume_in_pixels_reads_back_in_pixels(tmp_path: Path) -> None:
    path = tmp_path / "render.ome.tif"
    write_ome_tiff(path, VOLUME, spacing=(1, 1, 1), unit="pixel", name="cell")
    stack = Stack.open(path)
    assert (stack.spacing, stack.unit) == ((1, 1, 1), "pixel")


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "render.ome.tif"
    path.write_bytes(b"old")

    def fill_the_disk(file: Path, *_: object, **__: object) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", fill_the_disk)
    with pytest.raises(OSError, match="there is no room for it"):
        write_ome_tiff(path, VOLUME, spacing=SPACING, unit="micrometer", name="cell")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        write_ome_tiff(
            tmp_path / "no" / "render.tif", VOLUME, spacing=SPACING, unit="micrometer", name="cell"
        )
