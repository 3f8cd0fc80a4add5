"""Every TIFF ends in the right stack, or in one line that says what is wrong with it."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
import tifffile

from napari_gaussfit.errors import StackError
from napari_gaussfit.stacks.readers import read_layout
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 4000, (5, 12, 10)).astype(np.uint16)
"""A stack without any symmetry that could hide a swap of axes."""

ALL_AXES = RNG.integers(0, 4000, (3, 5, 2, 12, 10)).astype(np.uint16)
"""T, Z, C, Y, X."""


REAL_STACKS = [
    ("neurites/dendrite_spines_spotspine.tif", (41, 157, 116), "u1", (0.21, 0.06, 0.06), {}),
    ("neurites/rivulet_axon_crop.tif", (51, 76, 176), "u1", None, {}),
    ("spots_beads/beads_confocal_mpicbg.tif", (41, 150, 150), "u1", (0.125, 0.02249, 0.02249), {}),
    (
        "spots_beads/puncta_nucleus_punctatools_p1.tif",
        (5, 326, 326),
        "u2",
        (0.2, 0.11, 0.11),
        {"channel": 1},
    ),
    ("nuclei/nuclei_cells3d_allen.tif", (60, 256, 256), "u2", None, {}),
    ("nuclei/nuclei_cells3d_allen_labels.tif", (60, 256, 256), "u4", None, {}),
    ("nuclei/pollenlike_coloc_red_imagejops.tif", (33, 152, 172), "u1", (0.646, 0.328, 0.328), {}),
    ("hyperstack/droplet_TZYX_napari_stress.tif", (16, 30, 31), "u1", None, {"time": 20}),
    ("odd/derived_float64_negative.tif", (41, 150, 150), "f8", None, {}),
    ("odd/derived_int16_signed.tif", (41, 150, 150), "i2", None, {}),
    ("odd/derived_lzw_pred_tiled_bigtiff_be.tif", (41, 150, 150), "u2", None, {}),
]


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "spacing", "choice"),
    REAL_STACKS,
    ids=[row[0] for row in REAL_STACKS],
)
def test_a_real_stack_has_its_shape_type_and_spacing(
    stack_path: Callable[[str], Path],
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    spacing: tuple[float, float, float] | None,
    choice: dict[str, int],
) -> None:
    stack = Stack.open(stack_path(name), **choice)
    assert stack.shape == shape
    assert stack.voxels.dtype == np.dtype(dtype)
    assert stack.unit == ("micrometer" if spacing else "pixel")
    assert stack.spacing == pytest.approx(spacing or (1, 1, 1), rel=2e-3)
    assert stack.source == stack_path(name)
    assert (stack.channel, stack.time) == (choice.get("channel"), choice.get("time"))


REAL_REFUSALS = [
    (
        "hyperstack/droplet_TZYX_napari_stress.tif",
        ["21 time points", "time=N (--time N), N from 0 to 20"],
    ),
    (
        "hyperstack/neuron_4ch_ome_bigtiff_ndev.tiff",
        ["4 channels but no z axis", "CYX", "4 x 623 x 502"],
    ),
    ("hyperstack/threechannel_CYX_pyimagej.tif", ["3 channels but no z axis", "CYX"]),
    (
        "spots_beads/puncta_nucleus_punctatools_p1.tif",
        ["3 channels", "channel=N (--channel N), N from 0 to 2"],
    ),
    ("odd/derived_empty.tif", ["empty file (0 bytes)"]),
    ("odd/derived_truncated60pct.tif", ["ImageJ metadata promises 41 planes", "holds 24"]),
    ("odd/derived_truncated_header8.tif", ["no image in its 8 bytes", "cut short"]),
    ("odd/hela_rgb16_imagej_bian.tif", ["colour (RGB)", "512 x 672 x 3"]),
    ("odd/psf_float32_with_nan_bian.tif", ["every one of its 922,500 voxels is NaN"]),
]


@pytest.mark.parametrize(("name", "said"), REAL_REFUSALS, ids=[row[0] for row in REAL_REFUSALS])
def test_a_real_file_that_is_no_stack_is_refused_in_one_line(
    refusal: Callable[..., str], stack_path: Callable[[str], Path], name: str, said: list[str]
) -> None:
    text = refusal(stack_path(name))
    for words in said:
        assert words in text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("neurites/rivulet_axon_crop.tif", "51 pages have no axis name"),
        ("nuclei/nuclei_cells3d_allen.tif", "60 pages have no axis name"),
        ("nuclei/nuclei_cells3d_allen.tif", "--spacing DZ DY DX"),
    ],
)
def test_what_was_assumed_of_a_real_stack_is_said(
    stack_path: Callable[[str], Path], name: str, said: str
) -> None:
    assert any(said in note for note in Stack.open(stack_path(name)).notes)


def test_a_real_stack_with_named_axes_and_spacing_needs_no_note(
    stack_path: Callable[[str], Path],
) -> None:
    assert Stack.open(stack_path("neurites/dendrite_spines_spotspine.tif")).notes == ()


def test_a_files_layout_is_known_without_its_voxels(
    stack_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("voxels were read")

    monkeypatch.setattr(tifffile.TiffFile, "asarray", refuse)
    monkeypatch.setattr(np, "memmap", refuse)
    layout = read_layout(stack_path("spots_beads/puncta_nucleus_punctatools_p1.tif"))
    assert (layout.axes, layout.shape) == ("ZCYX", (5, 3, 326, 326))
    assert (layout.channels, layout.times, layout.stack_shape) == (3, 1, (5, 326, 326))
    assert layout.spacing == pytest.approx((0.2, 0.11, 0.11))
    assert (layout.unit, layout.container) == ("micrometer", "ImageJ TIFF")


@pytest.mark.parametrize(
    "options",
    [
        {"metadata": None},
        {"metadata": None, "byteorder": ">"},
        {"metadata": {"axes": "ZYX"}},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"imagej": True, "compression": "zlib", "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "bigtiff": True, "compression": "zstd", "metadata": {"axes": "ZYX"}},
        {"bigtiff": True, "byteorder": ">", "compression": "lzw", "predictor": True},
        {"tile": (16, 16), "compression": "zlib"},
        {"tile": (16, 16), "compression": "lzma", "metadata": None},
        {"rowsperstrip": 5, "compression": "packbits"},
        {"volumetric": True, "tile": (16, 16, 16), "compression": "deflate"},
    ],
    ids=str,
)
def test_however_they_are_stored_the_voxels_are_the_same(
    written: Callable[..., Path], options: dict[str, Any]
) -> None:
    stack = Stack.open(written(NOISE, **options))
    np.testing.assert_array_equal(stack.voxels, NOISE)
    assert stack.voxels.dtype == np.uint16
    assert stack.voxels.dtype.isnative


@pytest.mark.parametrize("dtype", ["i1", "i4", "i8", "u8", "f2", "f4", "f8", "?"])
def test_any_integer_or_real_type_is_read(written: Callable[..., Path], dtype: str) -> None:
    voxels = (NOISE > 2000) if dtype == "?" else (NOISE - 2000.0).astype(dtype)
    stack = Stack.open(written(voxels))
    assert stack.voxels.dtype == (np.uint8 if dtype == "?" else np.dtype(dtype))
    np.testing.assert_array_equal(stack.voxels, voxels)


def test_complex_voxels_are_refused(
    refusal: Callable[..., str], written: Callable[..., Path]
) -> None:
    assert "complex64" in refusal(written(NOISE.astype(np.complex64)))


@pytest.mark.parametrize(
    "options",
    [
        {"imagej": True},
        {"imagej": True, "compression": "zlib"},
        {"ome": True},
        {"ome": True, "compression": "zstd", "tile": (16, 16)},
        {"compression": "lzw"},
        {"volumetric": True, "tile": (1, 16, 16), "compression": "zlib"},
    ],
    ids=str,
)
@pytest.mark.parametrize(("channel", "time"), [(0, 0), (1, 0), (0, 2), (1, 2)])
def test_a_channel_and_a_time_are_picked_out(
    written: Callable[..., Path], options: dict[str, Any], channel: int, time: int
) -> None:
    path = written(ALL_AXES, metadata={"axes": "TZCYX"}, **options)
    stack = Stack.open(path, channel=channel, time=time)
    np.testing.assert_array_equal(stack.voxels, ALL_AXES[time, :, channel])
    assert (stack.channel, stack.time) == (channel, time)


@pytest.mark.parametrize("axes", ["TZCYX", "CZTYX", "ZTCYX", "CTZYX"])
def test_the_order_of_axes_in_the_file_does_not_matter(
    written: Callable[..., Path], axes: str
) -> None:
    reordered = ALL_AXES.transpose(["TZCYX".index(axis) for axis in axes])
    path = written(reordered, metadata={"axes": axes})
    np.testing.assert_array_equal(Stack.open(path, channel=1, time=2).voxels, ALL_AXES[2, :, 1])


def test_pages_along_another_axis_are_turned_to_zyx(written: Callable[..., Path]) -> None:
    path = written(NOISE.transpose(2, 1, 0), metadata={"axes": "XYZ"})
    np.testing.assert_array_equal(Stack.open(path).voxels, NOISE)


def test_only_the_pages_of_the_chosen_channel_are_decoded(
    written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(ALL_AXES, compression="zlib", ome=True, metadata={"axes": "TZCYX"})
    keys: list[list[int]] = []
    asarray = tifffile.TiffPageSeries.asarray

    def remembering(series: tifffile.TiffPageSeries, **options: Any) -> NDArray[Any]:
        keys.append(options["key"])
        return asarray(series, **options)

    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", remembering)
    Stack.open(path, channel=1, time=2)
    assert keys == [[21, 23, 25, 27, 29]]


WAYS_TO_WRITE: dict[str, dict[str, Any]] = {
    "imagej": {"imagej": True, "resolution": (5, 4), "metadata": {"axes": "ZYX", "spacing": 2}},
    "imagej-zlib": {"imagej": True, "compression": "zlib", "metadata": {"axes": "ZYX"}},
    "ome": {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeZ": 2.0}},
    "ome-zlib": {"ome": True, "compression": "zlib", "metadata": {"axes": "ZYX"}},
    "shaped": {"metadata": {"axes": "ZYX"}},
    "shaped-tiles": {"compression": "lzw", "tile": (16, 16), "metadata": {"axes": "ZYX"}},
    "volume": {"volumetric": True, "tile": (4, 16, 16), "compression": "zlib"},
    "plain": {"metadata": None},
    "plain-bigtiff": {"metadata": None, "bigtiff": True, "byteorder": ">"},
}


@pytest.mark.parametrize("way", WAYS_TO_WRITE)
def test_a_file_cut_anywhere_is_refused_or_read_whole(
    written: Callable[..., Path], way: str
) -> None:
    path = written(NOISE, **WAYS_TO_WRITE[way])
    whole = path.read_bytes()
    complete = Stack.open(path)
    refused = 0
    cuts = np.unique(np.r_[1:420:3, np.linspace(420, len(whole), 60), -60:0] % len(whole))
    for cut in cuts.astype(int):
        path.write_bytes(whole[:cut])
        try:
            stack = Stack.open(path)
        except StackError:
            refused += 1
            continue
        what = f"{cut} of {len(whole)} bytes were read as a whole file"
        np.testing.assert_array_equal(stack.voxels, complete.voxels, err_msg=what)
        assert stack.spacing == complete.spacing, what
    assert refused > 0.6 * len(cuts)


def test_an_imagej_file_with_fewer_planes_than_it_promises_says_so(
    refusal: Callable[..., str],
    written: Callable[..., Path],
) -> None:
    path = written(NOISE, imagej=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as tif:
        start = tif.pages[0].dataoffsets[0]
    path.write_bytes(path.read_bytes()[: start + 3 * NOISE[0].nbytes - 1])
    text = refusal(path)
    assert "ImageJ metadata promises 5 planes of 12 x 10 uint16, the file holds 2" in text


def test_an_ome_file_whose_planes_lie_in_a_missing_file_is_refused(
    refusal: Callable[..., str], tmp_path: Path
) -> None:
    path = tmp_path / "first.ome.tif"
    tifffile.imwrite(path, NOISE, ome=True, photometric="minisblack", metadata={"axes": "ZYX"})
    xml = tifffile.tiffcomment(path).replace('SizeZ="5"', 'SizeZ="8"')
    tifffile.tiffcomment(path, xml.encode())
    assert "promises 8 planes of 12 x 10 uint16, the file holds 5" in refusal(path)


def test_a_damaged_strip_is_refused(
    refusal: Callable[..., str], written: Callable[..., Path]
) -> None:
    path = written(NOISE, compression="zlib", metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[3].dataoffsets[0], tif.pages[3].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = b"\xff" * count
    path.write_bytes(content)
    assert "damaged" in refusal(path)


def test_memory_that_runs_out_while_reading_is_said(
    refusal: Callable[..., str], written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", run_out)
    path = written(NOISE, compression="zlib", metadata={"axes": "ZYX"})
    assert "more memory than there is" in refusal(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty file (0 bytes)"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "is not a TIFF"),
        (b"hello", "is not a TIFF"),
        (b"II*\0", "TIFF"),
        (b"II*\0\x08\0\0\0", "no image in its 8 bytes"),
        (b"MM\0*\0\0\0\x08\xff\xff\xff\xff", "TIFF"),
        (b"II*\0" + bytes(60), "TIFF"),
    ],
)
def test_what_is_no_tiff_is_refused(
    refusal: Callable[..., str], tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "odd.tif"
    path.write_bytes(content)
    assert said in refusal(path)


def test_a_file_that_may_not_be_read_is_refused(
    refusal: Callable[..., str], written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(NOISE)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    assert "may not be read" in refusal(path)


def test_voxels_that_are_no_numbers_are_refused_with_their_count_or_filled(
    refusal: Callable[..., str],
    written: Callable[..., Path],
) -> None:
    voxels = NOISE.astype(np.float32)
    voxels[2, 3, 4:7] = np.nan
    path = written(voxels)
    assert "3 of 600 voxels (0.5 %) are NaN" in refusal(path)
    assert Stack.open(path, fill_nan=0).voxels[2, 3, 4] == 0


def test_a_constant_stack_is_refused(
    refusal: Callable[..., str], written: Callable[..., Path]
) -> None:
    assert "is 7 in every voxel" in refusal(written(np.full((3, 12, 10), 7, np.uint8)))


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"volumetric": True, "tile": (16, 16, 16)}]
)
def test_a_stack_beyond_memory_is_refused_with_both_figures_before_it_is_decoded(
    refusal: Callable[..., str],
    written: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    path = written(NOISE, metadata={"axes": "ZYX"}, **options)
    needed = NOISE.nbytes + 4 * NOISE.size
    for available, enough in ((needed - 1, False), (needed, True)):
        monkeypatch.setattr(
            psutil, "virtual_memory", lambda free=available: SimpleNamespace(available=free)
        )
        if enough:
            assert Stack.open(path).shape == NOISE.shape
        else:
            text = refusal(path)
            assert f"needs {needed / 1e9:.3g} GB" in text
            assert f"{available / 1e9:.3g} GB are free" in text


@pytest.mark.parametrize("way", WAYS_TO_WRITE)
def test_nothing_is_printed_about_a_damaged_file(
    refusal: Callable[..., str],
    written: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    way: str,
) -> None:
    path = written(NOISE, **WAYS_TO_WRITE[way])
    path.write_bytes(path.read_bytes()[:-700])
    with caplog.at_level(logging.DEBUG):
        refusal(path)
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.name == "tifffile"] == []


def test_tifffile_speaks_again_after_reading(
    written: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    Stack.open(written(NOISE))
    logging.getLogger("tifffile").warning("heard")
    assert "heard" in caplog.text
