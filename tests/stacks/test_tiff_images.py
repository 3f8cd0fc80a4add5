"""Which images a TIFF holds: positions, planes written one by one, volumes, ended acquisitions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from microscope_files import ome_xml, write_lsm, write_micromanager, write_scanimage, write_stk

from napari_gaussfit.stacks.readers import read_layout
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 4000, (5, 12, 10)).astype(np.uint16)
"""A stack without any symmetry that could hide a swap of axes."""

ALL_AXES = RNG.integers(0, 4000, (2, 3, 5, 2, 12, 10)).astype(np.uint16)
"""R, T, Z, C, Y, X."""

SPACING = (0.5, 0.26, 0.13)
SQUARE = (0.5, 0.13, 0.13)
SIZES = {"X": 10, "Y": 12, "Z": 5}


def planes(
    voxels: np.ndarray, positions: range | None = None
) -> list[tuple[tuple[int, int, int, int], np.ndarray]]:
    """Return the planes of R, T, Z, C, Y, X as Micro-Manager orders them, time outside."""
    count, times, slices, channels = voxels.shape[:4]
    return [
        ((c, z, t, r), voxels[r, t, z, c])
        for t in range(times)
        for r in positions or range(count)
        for z in range(slices)
        for c in range(channels)
    ]


class TestMicroManager:
    PROMISED = {"Frames": 3, "Slices": 5, "Channels": 2, "Positions": 2}  # noqa: RUF012

    def test_a_position_a_channel_and_a_time_are_picked_out(self, tmp_path: Path) -> None:
        path = write_micromanager(tmp_path / "run_MMStack.ome.tif", planes(ALL_AXES), self.PROMISED)
        for position in (0, 1):
            stack = Stack.open(path, position=position, channel=1, time=2)
            np.testing.assert_array_equal(stack.voxels, ALL_AXES[position, 2, :, 1])
            assert (stack.position, stack.channel, stack.time) == (position, 1, 2)

    def test_without_a_choice_the_first_position_is_taken_and_said(self, tmp_path: Path) -> None:
        path = write_micromanager(tmp_path / "run_MMStack.ome.tif", planes(ALL_AXES), self.PROMISED)
        stack = Stack.open(path, channel=0, time=0)
        np.testing.assert_array_equal(stack.voxels, ALL_AXES[0, 0, :, 0])
        assert any(
            "position=N (--position N), N from 0 to 1, chooses another" in one
            for one in stack.notes
        )
        assert not Stack.open(path, channel=0, time=0, position=0, spacing=SPACING).notes

    @pytest.mark.parametrize("position", [-1, 2])
    def test_a_position_that_is_not_there_is_refused(
        self, refusal: Callable[..., str], tmp_path: Path, position: int
    ) -> None:
        path = write_micromanager(tmp_path / "run_MMStack.ome.tif", planes(ALL_AXES), self.PROMISED)
        text = refusal(path, position=position, channel=0, time=0)
        assert f"position={position}" in text
        assert "2 images; choose position=N (--position N), N from 0 to 1" in text

    def test_of_a_set_with_a_file_for_each_position_the_files_own_is_taken(
        self, tmp_path: Path
    ) -> None:
        for position in (0, 1):
            written = planes(ALL_AXES, range(position, position + 1))
            path = tmp_path / f"run_MMStack_Pos{position}.ome.tif"
            write_micromanager(path, written, self.PROMISED)
        for position in (0, 1):
            path = tmp_path / f"run_MMStack_Pos{position}.ome.tif"
            stack = Stack.open(path, channel=1, time=0)
            np.testing.assert_array_equal(stack.voxels, ALL_AXES[position, 0, :, 1])
            assert any(f"position {position} is taken" in note for note in stack.notes)

    def test_an_acquisition_that_was_ended_gives_its_whole_time_points(
        self, refusal: Callable[..., str], tmp_path: Path
    ) -> None:
        recorded = planes(ALL_AXES[:1])[: 2 * 10 + 7]
        promised = self.PROMISED | {"Positions": 1}
        path = write_micromanager(tmp_path / "run_MMStack.ome.tif", recorded, promised)
        assert read_layout(path).times == 2
        stack = Stack.open(path, channel=1, time=1)
        np.testing.assert_array_equal(stack.voxels, ALL_AXES[0, 1, :, 1])
        assert any("of 3 time points the first 2 are whole" in note for note in stack.notes)
        assert "2 time points" in refusal(path, channel=1, time=2)

    def test_where_one_time_point_is_whole_no_time_is_asked_for(self, tmp_path: Path) -> None:
        recorded = planes(ALL_AXES[:1])[:13]
        promised = self.PROMISED | {"Positions": 1}
        path = write_micromanager(tmp_path / "run_MMStack.ome.tif", recorded, promised)
        stack = Stack.open(path, channel=0)
        np.testing.assert_array_equal(stack.voxels, ALL_AXES[0, 0, :, 0])
        assert any("of 3 time points the first 1 are whole" in note for note in stack.notes)

    def test_slices_that_were_not_recorded_are_said(self, tmp_path: Path) -> None:
        recorded = planes(ALL_AXES[:1, :1, :, :1])[:3]
        path = write_micromanager(tmp_path / "run_MMStack.ome.tif", recorded, {"Slices": 5})
        stack = Stack.open(path)
        np.testing.assert_array_equal(stack.voxels, ALL_AXES[0, 0, :3, 0])
        assert any("5 z-planes were to be recorded, the file holds 3" in n for n in stack.notes)

    @pytest.mark.parametrize(
        ("texts", "spacing"),
        [
            ({"xml": ome_xml(SIZES)}, SPACING),
            ({"xml": ome_xml(SIZES), "imagej": "ImageJ=1\nunit=um\nspacing=9\n"}, SPACING),
            ({"imagej": "ImageJ=1.51s\nimages=5\nslices=5\nunit=um\nspacing=0.5\n"}, SQUARE),
            ({}, SQUARE),
        ],
        ids=["ome", "ome-before-imagej", "imagej", "summary"],
    )
    def test_its_spacing_is_known_however_it_is_written(
        self, tmp_path: Path, texts: dict[str, str], spacing: tuple[float, float, float]
    ) -> None:
        promised = {"Slices": 5}
        if not texts:
            promised |= {"z-step_um": 0.5, "PixelSize_um": 0.13}
        path = tmp_path / "run_MMStack.ome.tif"
        stack = Stack.open(
            write_micromanager(path, planes(NOISE[None, None, :, None]), promised, **texts)
        )
        np.testing.assert_array_equal(stack.voxels, NOISE)
        assert stack.spacing == pytest.approx(spacing, rel=1e-5)
        assert stack.notes == ()


class TestMetaMorph:
    @pytest.mark.parametrize("name", ["stack.tif", "stack.stk", "stack.STK"])
    @pytest.mark.parametrize("unit", [b"um\0", b"um", b"microns\0"])
    def test_planes_and_sizes_are_those_of_the_uic_tags(
        self, tmp_path: Path, name: str, unit: bytes
    ) -> None:
        stack = Stack.open(write_stk(tmp_path / name, NOISE, distances=[0.5] * 5, unit=unit))
        np.testing.assert_array_equal(stack.voxels, NOISE)
        assert stack.spacing == pytest.approx(SPACING)
        assert stack.notes == ()

    def test_the_first_plane_may_lie_at_no_distance(self, tmp_path: Path) -> None:
        distances = [0, 0.5, 0.5, 0.5, 0.5]
        stack = Stack.open(write_stk(tmp_path / "stack.stk", NOISE, distances=distances))
        np.testing.assert_array_equal(stack.voxels, NOISE)
        assert stack.spacing == pytest.approx(SPACING)

    def test_planes_at_one_place_are_times(
        self, refusal: Callable[..., str], tmp_path: Path
    ) -> None:
        path = write_stk(tmp_path / "stack.stk", NOISE, distances=[0] * 5)
        assert "5 time points but no z axis" in refusal(path)


def test_an_lsm_is_read_without_its_thumbnails(tmp_path: Path) -> None:
    stack = Stack.open(write_lsm(tmp_path / "stack.lsm", NOISE))
    np.testing.assert_array_equal(stack.voxels, NOISE)
    assert stack.spacing == pytest.approx(SPACING)
    assert stack.notes == ()


class TestScanImage:
    PAGES = ALL_AXES[0].reshape(-1, 12, 10).astype(np.int16)  # volumes, slices, channels

    def settings(self, **more: Any) -> dict[str, Any]:
        return {
            "hChannels.channelSave": "[1;3]",
            "hStackManager.framesPerSlice": 1,
            "hStackManager.numSlices": 5,
            "hStackManager.stackZStepSize": 2.5,
            **{name.replace("__", "."): value for name, value in more.items()},
        }

    def test_volumes_slices_and_channels_are_told_apart(self, tmp_path: Path) -> None:
        stack = Stack.open(
            write_scanimage(tmp_path / "scan.tif", self.PAGES, self.settings()), channel=1, time=2
        )
        np.testing.assert_array_equal(stack.voxels, ALL_AXES[0, 2, :, 1])
        [note] = stack.notes
        assert "dz=2.5 micrometer but no dy, dx" in note

    def test_frames_of_a_slice_are_times(self, tmp_path: Path) -> None:
        pages = ALL_AXES[0].transpose(1, 0, 2, 3, 4).reshape(-1, 12, 10).astype(np.int16)
        path = write_scanimage(
            tmp_path / "scan.tif", pages, self.settings(hStackManager__framesPerSlice=3)
        )
        for time in range(3):
            stack = Stack.open(path, channel=0, time=time)
            np.testing.assert_array_equal(stack.voxels, ALL_AXES[0, time, :, 0])

    def test_frames_that_were_averaged_are_one(self, tmp_path: Path) -> None:
        averaged = self.settings(
            hStackManager__framesPerSlice=3, hScan2D__logAverageFactor=3, hChannels__channelSave=2
        )
        stack = Stack.open(
            write_scanimage(tmp_path / "scan.tif", ALL_AXES[0, 0, :, 0].astype(np.int16), averaged)
        )
        np.testing.assert_array_equal(stack.voxels, ALL_AXES[0, 0, :, 0])

    @pytest.mark.parametrize(
        ("pages", "said", "times"),
        [
            (14, "4 pages after the last whole volume are left out", 1),
            (24, "4 pages after the last whole volume are left out", 2),
            (6, "to record 5 slices, the file holds 3", 1),
        ],
    )
    def test_a_volume_that_was_not_finished_is_left_out_with_a_note(
        self, tmp_path: Path, pages: int, said: str, times: int
    ) -> None:
        path = write_scanimage(tmp_path / "scan.tif", self.PAGES[:pages], self.settings())
        layout = read_layout(path)
        assert layout.times == times
        assert any(said in note for note in layout.notes)
        stack = Stack.open(path, channel=1, time=0 if times > 1 else None)
        np.testing.assert_array_equal(stack.voxels, ALL_AXES[0, 0, : min(pages // 2, 5), 1])

    def test_settings_that_cannot_be_read_are_said(self, tmp_path: Path) -> None:
        stack = Stack.open(write_scanimage(tmp_path / "scan.tif", self.PAGES, {}))
        assert any("ScanImage's settings cannot be read" in note for note in stack.notes)


class TestPlanesWrittenOneByOne:
    def written(self, path: Path, planes: list[np.ndarray], **options: Any) -> Path:
        with tifffile.TiffWriter(path, **options) as tif:
            for plane in planes:
                tif.write(plane, photometric="minisblack")
        return path

    @pytest.mark.parametrize("count", [2, 5])
    def test_they_are_a_stack_with_a_note(self, tmp_path: Path, count: int) -> None:
        stack = Stack.open(self.written(tmp_path / "pages.tif", list(NOISE[:count])))
        np.testing.assert_array_equal(stack.voxels, NOISE[:count])
        note = f"holds {count} images of one plane each; they are taken for z-planes"
        assert any(note in one for one in stack.notes)

    def test_planes_of_two_sizes_are_no_stack(
        self, refusal: Callable[..., str], tmp_path: Path
    ) -> None:
        path = self.written(tmp_path / "pages.tif", [NOISE[0], NOISE[1, :4]])
        assert "holds 2 images and no stack" in refusal(path)

    def test_images_that_ome_xml_tells_apart_are_no_stack(
        self, refusal: Callable[..., str], tmp_path: Path
    ) -> None:
        path = self.written(tmp_path / "pages.ome.tif", list(NOISE), ome=True)
        assert "holds 5 images and no stack; the first is a single 2D image" in refusal(path)

    def test_a_page_that_is_cut_short_is_refused(
        self, refusal: Callable[..., str], tmp_path: Path
    ) -> None:
        path = self.written(tmp_path / "pages.tif", list(NOISE))
        path.write_bytes(path.read_bytes()[:-20])
        assert "cut short" in refusal(path)


def test_an_imagej_description_that_cannot_be_followed_is_said(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    words = "ImageJ=1.53t\nimages=5\nchannels=0\nslices=5\n"
    tifffile.imwrite(path, NOISE, photometric="minisblack", metadata=None, description=words)
    stack = Stack.open(path)
    np.testing.assert_array_equal(stack.voxels, NOISE)
    assert any("ImageJ's description cannot be followed" in note for note in stack.notes)


class TestOmeXml:
    PAGES = np.stack([NOISE, NOISE[::-1]], 1).reshape(-1, 12, 10)  # z, c
    ZC = SIZES | {"C": 2}

    def written(self, path: Path, xml: str) -> Path:
        tifffile.imwrite(
            path, self.PAGES, photometric="minisblack", metadata=None, description=xml.encode()
        )
        return path

    def test_a_lone_ampersand_is_read_as_meant(self, tmp_path: Path) -> None:
        xml = ome_xml(self.ZC, order="XYCZT", more='<TiffData IFD="0" PlaneCount="10"/>')
        xml = xml.replace('ID="Image:0"', 'ID="Image:0" Name="DAPI & GFP"')
        stack = Stack.open(self.written(tmp_path / "a.ome.tif", xml), channel=1)
        np.testing.assert_array_equal(stack.voxels, NOISE[::-1])
        assert stack.spacing == SPACING
        [note] = stack.notes
        assert "OME-XML is not well-formed (an & stands alone)" in note

    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (("<Image ", "<Image <"), "OME-XML cannot be followed (OME series raised ParseError"),
            (("</OME>", "</OME"), "OME-XML is cut off"),
            (('IFD="0"', 'IFD="50"'), "OME-XML cannot be followed"),
            (('SizeX="10"', 'SizeX="11"'), "OME-XML cannot be followed"),
        ],
    )
    def test_what_cannot_be_followed_is_refused_and_never_taken_for_planes(
        self, refusal: Callable[..., str], tmp_path: Path, spoil: tuple[str, str], said: str
    ) -> None:
        xml = ome_xml(self.ZC, order="XYCZT", more='<TiffData IFD="0" PlaneCount="10"/>')
        assert said in refusal(self.written(tmp_path / "a.ome.tif", xml.replace(*spoil)))

    def test_without_places_of_planes_their_order_counts_and_is_said(self, tmp_path: Path) -> None:
        path = self.written(tmp_path / "a.ome.tif", ome_xml(self.ZC, order="XYCZT"))
        stack = Stack.open(path, channel=1)
        np.testing.assert_array_equal(stack.voxels, NOISE[::-1])
        assert any("in its order, XYCZT" in note for note in stack.notes)

    def test_time_points_whose_planes_are_nowhere_are_left_out(self, tmp_path: Path) -> None:
        sizes = SIZES | {"T": 3}
        more = '<TiffData IFD="0" PlaneCount="5"/><TiffData IFD="5" FirstT="1" PlaneCount="5"/>'
        stack = Stack.open(self.written(tmp_path / "a.ome.tif", ome_xml(sizes, more=more)), time=1)
        np.testing.assert_array_equal(stack.voxels, self.PAGES[5:])
        assert any("of 3 time points the first 2 are whole" in note for note in stack.notes)


class TestCompanionFile:
    def written(self, folder: Path, *, companion: bool = True) -> tuple[Path, Path]:
        """Write a set of two files, a channel each, described by a third."""
        paths = (folder / "c0.ome.tif", folder / "c1.ome.tif")
        for number, path in enumerate(paths):
            apart = (
                f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="u:{number}">'
                '<BinaryOnly MetadataFile="set.companion.ome" UUID="u:9"/></OME>'
            )
            tifffile.imwrite(
                path,
                ALL_AXES[0, 0, :, number],
                photometric="minisblack",
                metadata=None,
                description=apart.encode(),
            )
        more = "".join(
            f'<TiffData IFD="0" FirstC="{n}" PlaneCount="5">'
            f'<UUID FileName="{path.name}">u:{n}</UUID></TiffData>'
            for n, path in enumerate(paths)
        )
        if companion:
            (folder / "set.companion.ome").write_text(ome_xml(SIZES | {"C": 2}, more=more), "utf-8")
        return paths

    @pytest.mark.parametrize("opened", [0, 1])
    def test_any_file_of_a_set_opens_the_set(self, tmp_path: Path, opened: int) -> None:
        path = self.written(tmp_path)[opened]
        for channel in (0, 1):
            stack = Stack.open(path, channel=channel)
            np.testing.assert_array_equal(stack.voxels, ALL_AXES[0, 0, :, channel])
            assert (stack.spacing, stack.notes) == (SPACING, ())

    def test_where_it_is_missing_it_is_named(
        self, refusal: Callable[..., str], tmp_path: Path
    ) -> None:
        path, _ = self.written(tmp_path, companion=False)
        assert "described in set.companion.ome, which is not there" in refusal(path)

    def test_where_another_file_of_the_set_is_missing_that_is_named(
        self, refusal: Callable[..., str], tmp_path: Path
    ) -> None:
        path, other = self.written(tmp_path)
        other.unlink()
        text = refusal(path, channel=0)
        assert "promises 10 planes" in text
        assert "c1.ome.tif is missing; copy it beside this file" in text

    def test_where_it_is_no_ome_xml_it_is_named(
        self, refusal: Callable[..., str], tmp_path: Path
    ) -> None:
        path, _ = self.written(tmp_path)
        (tmp_path / "set.companion.ome").write_text("hello", "utf-8")
        assert re.search("set.companion.ome.* holds no OME-XML", refusal(path))
