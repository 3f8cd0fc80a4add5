"""A dropped file becomes the right layers at the right scale, or one clear error and nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import zarr
from npe2 import PluginManifest
from plyfile import PlyData, PlyElement

from napari_gaussfit._napari import reader
from napari_gaussfit._napari.layers.spacing import layout_of
from napari_gaussfit._napari.reader import FIT_SUFFIXES, get_reader
from napari_gaussfit.cli import main
from napari_gaussfit.errors import FormatError, StackError
from napari_gaussfit.stacks import large
from napari_gaussfit.stacks.layout import StackLayout
from napari_gaussfit.stacks.ome_zarr import write_ome_zarr
from napari_gaussfit.stacks.readers import STACK_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

pytestmark = pytest.mark.gui

PLUGIN = "napari-gaussfit"
PIXELS = (1.0, 1.0, 1.0)

STACKS: dict[str, tuple[tuple[int, int, int], tuple[float, float, float]]] = {
    "neurites/dendrite_spines_spotspine.tif": ((41, 157, 116), (0.21, 0.06, 0.06)),
    "neurites/rivulet_axon_crop.tif": ((51, 76, 176), PIXELS),
    "spots_beads/beads_confocal_mpicbg.tif": ((41, 150, 150), (0.125, 0.02249186, 0.02249186)),
    "nuclei/nuclei_cells3d_allen.tif": ((60, 256, 256), PIXELS),
    "nuclei/nuclei_cells3d_allen_labels.tif": ((60, 256, 256), PIXELS),
    "nuclei/pollenlike_coloc_red_imagejops.tif": (
        (33, 152, 172),
        (0.6460938, 0.3282153, 0.3282153),
    ),
    "odd/derived_float64_negative.tif": ((41, 150, 150), PIXELS),
    "odd/derived_int16_signed.tif": ((41, 150, 150), PIXELS),
    "odd/derived_lzw_pred_tiled_bigtiff_be.tif": ((41, 150, 150), PIXELS),
}

NO_STACKS = (
    "hyperstack/threechannel_CYX_pyimagej.tif",
    "hyperstack/neuron_4ch_ome_bigtiff_ndev.tiff",
    "odd/hela_rgb16_imagej_bian.tif",
)

BROKEN = {
    "odd/derived_empty.tif": "is an empty file",
    "odd/derived_truncated_header8.tif": "no image in its 8 bytes",
    "odd/derived_truncated60pct.tif": "promises 41 planes",
    "odd/psf_float32_with_nan_bian.tif": "every one of its 922,500 voxels is NaN",
}

OTHERS = (
    "hyperstack/droplet_TZYX_napari_stress.tif",
    "spots_beads/puncta_nucleus_punctatools_p1.tif",
)


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[..., Any]) -> Any:
    return make_napari_viewer_proxy()


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, voxels: NDArray[Any], **options: Any) -> Path:
        path = tmp_path / name
        tifffile.imwrite(path, voxels, photometric="minisblack", **options)
        return path

    return write


def units_of(layer: Any) -> list[str]:
    return [str(unit) for unit in layer.units]


def test_every_real_file_is_in_one_of_the_lists(data_dir: Path) -> None:
    found = {path.relative_to(data_dir).as_posix() for path in data_dir.glob("*/*.tif*")}
    assert found == {*STACKS, *NO_STACKS, *BROKEN, *OTHERS}


def test_the_manifest_names_every_suffix_that_is_read() -> None:
    manifest = PluginManifest.from_distribution(PLUGIN)
    patterns = [one.filename_patterns for one in manifest.contributions.readers or ()]
    assert set(*patterns) == {f"*{one}" for one in (*STACK_SUFFIXES, *FIT_SUFFIXES)}


@pytest.mark.parametrize("name", STACKS)
def test_a_stack_is_one_layer_with_its_spacing_in_its_unit(
    viewer: Any, stack_path: Callable[[str], Path], name: str
) -> None:
    path = stack_path(name)
    shape, spacing = STACKS[name]
    [layer] = viewer.open(path, plugin=PLUGIN)
    assert layer.name == path.stem
    assert layer.data.shape == shape
    np.testing.assert_array_equal(layer.data, tifffile.imread(path))
    np.testing.assert_allclose(layer.scale, spacing, rtol=1e-6)
    assert units_of(layer) == ["pixel" if spacing == PIXELS else "micrometer"] * 3
    assert tuple(layer.axis_labels) == ("z", "y", "x")
    about = layer.metadata["napari_gaussfit"]
    assert about["source"] == str(path)
    assert about["channel"] is None
    assert any("--spacing" in note for note in about["notes"]) == (spacing == PIXELS)


def test_a_time_series_has_time_in_front(viewer: Any, stack_path: Callable[[str], Path]) -> None:
    path = stack_path("hyperstack/droplet_TZYX_napari_stress.tif")
    [layer] = viewer.open(path, plugin=PLUGIN)
    np.testing.assert_array_equal(layer.data, tifffile.imread(path))
    assert layer.data.shape == (21, 16, 30, 31)
    assert tuple(layer.scale) == (1, 1, 1, 1)
    assert units_of(layer) == ["pixel"] * 4
    assert tuple(layer.axis_labels) == ("t", "z", "y", "x")


def test_channels_are_layers_of_their_own_colours_that_add_up(
    viewer: Any, stack_path: Callable[[str], Path]
) -> None:
    path = stack_path("spots_beads/puncta_nucleus_punctatools_p1.tif")
    layers = viewer.open(path, plugin=PLUGIN)
    voxels = tifffile.imread(path)
    assert len(layers) == 3
    assert len({layer.colormap.name for layer in layers}) == 3
    for channel, layer in enumerate(layers):
        np.testing.assert_array_equal(layer.data, voxels[:, channel])
        np.testing.assert_allclose(layer.scale, (0.2, 0.11, 0.11), rtol=1e-6)
        assert units_of(layer) == ["micrometer"] * 3
        assert layer.blending == "additive"
        assert layer.name == f"{path.stem} channel {channel}"
        assert layer.metadata["napari_gaussfit"]["channel"] == channel


def test_a_series_of_named_channels_keeps_names_spacing_and_order(
    viewer: Any, written: Callable[..., Path]
) -> None:
    voxels = np.random.default_rng(0).integers(0, 99, (3, 4, 2, 5, 6)).astype(np.uint8)
    metadata = {
        "axes": "TZCYX",
        "Channel": {"Name": ["actin", "DNA"]},
        "PhysicalSizeX": 100,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.1,
        "PhysicalSizeZ": 0.3,
    }
    layers = viewer.open(written("s.ome.tif", voxels, ome=True, metadata=metadata), plugin=PLUGIN)
    assert [layer.name for layer in layers] == ["s actin", "s DNA"]
    assert [layer.colormap.name for layer in layers] == ["magenta", "green"]
    for channel, layer in enumerate(layers):
        np.testing.assert_array_equal(layer.data, voxels[:, :, channel])
        np.testing.assert_allclose(layer.scale, (1, 0.3, 0.1, 0.1))
        assert units_of(layer) == ["pixel", *["micrometer"] * 3]


def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what the user is told, as it comes."""
    said: list[str] = []
    monkeypatch.setattr("napari.utils.notifications.show_info", said.append)
    return said


def written_one_by_one(path: Path, planes: NDArray[Any], **options: Any) -> Path:
    with tifffile.TiffWriter(path, **options) as tif:
        for plane in planes:
            tif.write(plane, photometric="minisblack")
    return path


def test_planes_written_one_by_one_are_a_stack_and_the_user_is_told(
    viewer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = heard(monkeypatch)
    voxels = np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(np.uint8)
    [layer] = viewer.open(written_one_by_one(tmp_path / "pages.tif", voxels), plugin=PLUGIN)
    np.testing.assert_array_equal(layer.data, voxels)
    [note] = said
    assert "pages.tif: the file holds 4 images of one plane each; they are taken for z-pl" in note


def test_images_of_which_napari_shows_the_first_are_shown_so_and_the_user_is_told(
    viewer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = heard(monkeypatch)
    voxels = np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(np.uint8)
    path = written_one_by_one(tmp_path / "images.ome.tif", voxels, ome=True)
    [layer] = viewer.open(path, plugin=PLUGIN)
    np.testing.assert_array_equal(layer.data, voxels[0])
    [note] = said
    assert "holds 4 images and no stack" in note


def test_a_stack_that_needs_no_word_is_opened_without_one(
    viewer: Any, stack_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = heard(monkeypatch)
    viewer.open(stack_path("neurites/dendrite_spines_spotspine.tif"), plugin=PLUGIN)
    assert not said


@pytest.fixture
def two_positions(tmp_path: Path) -> tuple[Path, NDArray[Any]]:
    """Two stacks in an OME-TIFF, behind a plane of overview."""
    voxels = np.random.default_rng(0).integers(0, 99, (2, 4, 5, 6)).astype(np.uint8)
    path = tmp_path / "run.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(voxels[0, 0], photometric="minisblack", metadata={"axes": "YX"})
        for stack, step in zip(voxels, (0.3, 0.4), strict=True):
            metadata = {"axes": "ZYX", "PhysicalSizeZ": step, "PhysicalSizeY": 0.1}
            metadata["PhysicalSizeX"] = 0.1
            tif.write(stack, photometric="minisblack", metadata=metadata)
    return path, voxels


def test_positions_are_layers_of_which_the_first_is_shown(
    viewer: Any, two_positions: tuple[Path, NDArray[Any]]
) -> None:
    path, voxels = two_positions
    layers = viewer.open(path, plugin=PLUGIN)
    assert [layer.name for layer in layers] == ["run position 1", "run position 2"]
    assert [layer.visible for layer in layers] == [True, False]
    for position, layer in enumerate(layers, start=1):
        np.testing.assert_array_equal(layer.data, voxels[position - 1])
        assert layer.metadata["napari_gaussfit"]["position"] == position
        assert tuple(layer.scale) == ((0.3, 0.1, 0.1) if position == 1 else (0.4, 0.1, 0.1))
        layout = layout_of(layer)
        assert isinstance(layout, StackLayout)
        assert layout.spacing == tuple(layer.scale), "the panel asks the file for another one's"


def test_of_positions_that_take_much_of_the_memory_the_first_is_opened_and_the_user_is_told(
    viewer: Any, two_positions: tuple[Path, NDArray[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = heard(monkeypatch)
    path, voxels = two_positions
    free = type("Memory", (), {"available": 3 * voxels.nbytes})
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    [layer] = viewer.open(path, plugin=PLUGIN)
    np.testing.assert_array_equal(layer.data, voxels[0])
    assert any("position=N (--position N), N from 0 to 2, chooses another" in note for note in said)


@pytest.mark.parametrize("name", NO_STACKS)
def test_an_image_that_is_no_stack_comes_as_napari_reads_it(
    viewer: Any, stack_path: Callable[[str], Path], name: str
) -> None:
    path = stack_path(name)
    [ours] = viewer.open(path, plugin=PLUGIN)
    [napari_s] = viewer.open(path, plugin="napari")
    np.testing.assert_array_equal(ours.data, napari_s.data)
    assert ours.rgb == napari_s.rgb
    np.testing.assert_array_equal(ours.scale, napari_s.scale)


def test_files_to_be_stacked_are_stacked_as_napari_does(
    viewer: Any, written: Callable[..., Path]
) -> None:
    planes = np.random.default_rng(0).integers(0, 99, (3, 5, 6)).astype(np.uint8)
    paths = [written(f"plane{n}.tif", plane) for n, plane in enumerate(planes)]
    [layer] = viewer.open(paths, stack=True, plugin=PLUGIN)
    np.testing.assert_array_equal(layer.data, planes)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_clear_error_and_adds_nothing(
    viewer: Any, stack_path: Callable[[str], Path], name: str
) -> None:
    path = stack_path(name)
    with pytest.raises(StackError) as error:
        viewer.open(path, plugin=PLUGIN)
    assert str(error.value).startswith(f"{path}: ")
    assert BROKEN[name] in str(error.value)
    assert not viewer.layers


@pytest.mark.parametrize("name", ["a.safetensors", "a.SAFETENSORS"])
def test_a_file_that_only_looks_like_a_fit_is_refused(
    viewer: Any, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"not tensors at all")
    with pytest.raises(FormatError, match="is no safetensors file"):
        viewer.open(path, plugin=PLUGIN)
    assert not viewer.layers


def test_what_was_assumed_of_another_programs_scene_is_said(
    viewer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("napari.utils.notifications.show_info", said.append)
    names = ("x", "y", "z", "opacity", "scale_0", "scale_1", "scale_2")
    rows = np.zeros(2, [(name, "f4") for name in (*names, "rot_0", "rot_1", "rot_2", "rot_3")])
    rows["rot_0"], rows["x"] = 1, [-6, 6]
    PlyData([PlyElement.describe(rows, "vertex")]).write(tmp_path / "scene.ply")
    layers = viewer.open(tmp_path / "scene.ply", plugin=PLUGIN)
    assert "all were moved by 0 x 0 x 6" in said[0]
    np.testing.assert_allclose(layers[-1].data, [[0, 0, 0], [0, 0, 12]])


@pytest.fixture
def translated(tmp_path: Path) -> Path:
    """Two spots in a plate's image whose first voxel lies at (10, 20, 30) micrometres."""
    z, y, x = np.indices((12, 20, 24))
    voxels = 10 + sum(
        500 * np.exp(-((z - c) ** 2 / 4 + (y - r) ** 2 / 6 + (x - d) ** 2 / 6))
        for c, r, d in ((4, 6, 6), (8, 13, 16))
    )
    path = tmp_path / "plate.zarr" / "A" / "1"
    path.parent.mkdir(parents=True)
    write_ome_zarr(
        path,
        voxels,
        spacing=(0.5, 0.13, 0.14),
        unit="micrometer",
        name="spots",
        origin=(10, 20, 30),
    )
    return path


def test_an_image_in_zarr_is_opened_by_what_it_is_and_lies_where_it_says(
    viewer: Any, translated: Path
) -> None:
    [layer] = viewer.open(translated, plugin=PLUGIN)
    assert layer.name == "plate A 1"
    np.testing.assert_allclose(layer.scale, (0.5, 0.13, 0.14))
    np.testing.assert_allclose(layer.translate, (10, 20, 30))
    assert units_of(layer) == ["micrometer"] * 3


def test_a_large_zarr_is_opened_in_all_its_resolutions_and_the_finest_is_not_read(
    viewer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "LARGE", 2 * 12 * 70 * 80)
    monkeypatch.setattr(reader, "LOOKED_AT", 12 * 35 * 40)
    path, voxels = tmp_path / "big.ome.zarr", np.arange(2 * 12 * 70 * 80).reshape(2, 12, 70, 80)
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    group = zarr.open_group(path, mode="w")
    levels = []
    for n, step in enumerate((1, 2)):
        level = voxels[:, :, ::step, ::step].astype(np.uint32)
        group.create_array(str(n), data=level, chunks=(1, 4, 32, 32))
        scale = {"type": "scale", "scale": [1, 0.5, 0.1 * step, 0.1 * step]}
        levels.append({"path": str(n), "coordinateTransformations": [scale]})
    image = {"axes": axes, "datasets": levels}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}

    [(first, keywords, _), (second, _, _)] = get_reader(str(path))(str(path))  # type: ignore[misc]
    for chunk in (path / "0" / "c").rglob("*"):
        if chunk.is_file():
            chunk.unlink()
    assert [level.shape for level in first] == [(12, 70, 80), (12, 35, 40)]
    assert keywords["scale"] == (0.5, 0.1, 0.1)
    assert keywords["contrast_limits"] == (0, voxels[0, -1, -2, -2])
    np.testing.assert_array_equal(first[1], voxels[0, :, ::2, ::2])
    np.testing.assert_array_equal(second[1], voxels[1, :, ::2, ::2])
    assert not np.asarray(first[0]).any(), "was read before"

    layers = viewer.open(path, plugin=PLUGIN)
    assert [layer.multiscale for layer in layers] == [True, True]
    assert [layer.metadata["napari_gaussfit"]["channel"] for layer in layers] == [0, 1]


def test_a_large_zarr_in_a_zip_file_is_not_read_either(
    viewer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "LARGE", 12 * 70 * 80)
    voxels = np.arange(12 * 70 * 80, dtype=np.float32).reshape(12, 70, 80)
    folder = tmp_path / "big.ome.zarr"
    write_ome_zarr(folder, voxels, spacing=(0.5, 0.1, 0.1), unit="micrometer", name="big")
    path = Path(shutil.make_archive(str(folder), "zip", folder))
    shutil.rmtree(folder)

    [layer] = viewer.open(path, plugin=PLUGIN)

    assert not isinstance(layer.data, np.ndarray), "was read"
    np.testing.assert_array_equal(np.asarray(layer.data), voxels)
    np.testing.assert_allclose(layer.scale, (0.5, 0.1, 0.1))


def test_a_saved_fit_lies_upon_its_stack(viewer: Any, translated: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        "fit",
        str(translated),
        "-o",
        str(out),
        "--gaussians",
        "2",
        "--exactly",
        "--iterations",
        "60",
    ]
    assert main(command) == 0
    for name in ("fit.safetensors", "fit.ply", "fit.ome.zarr"):
        if name != "fit.safetensors":
            assert main(["export", str(out), "-o", str(out / name)]) == 0
        found = viewer.open(out / name, plugin=PLUGIN)[-1]
        np.testing.assert_allclose(found.translate, (10, 20, 30))
    [centres] = [layer for layer in viewer.layers if layer.name.endswith("centres")][:1]
    seen = sorted(centres.data_to_world(point) for point in centres.data)
    expected = [[12, 20.78, 30.84], [14, 21.69, 32.24]]
    np.testing.assert_allclose(seen, expected, atol=0.1)


def test_a_folder_that_is_no_zarr_is_left_to_others(tmp_path: Path) -> None:
    assert get_reader(str(tmp_path)) is None


@pytest.mark.parametrize("path", ["a.png", "a.n5", ["a.safetensors", "b.safetensors"]])
def test_other_files_are_left_to_others(path: Any) -> None:
    assert get_reader(path) is None


def test_a_series_that_memory_cannot_hold_is_refused_before_it_is_read(
    viewer: Any, written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written("t.tif", np.ones((3, 4, 5, 6), np.uint8), metadata={"axes": "TZYX"}, imagej=True)
    free = type("Memory", (), {"available": 3 * 4 * 5 * 6 - 1})
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    with pytest.raises(StackError, match="GB of memory"):
        viewer.open(path, plugin=PLUGIN)


class TestDropped:
    """Where this reader was chosen for ``*.tif`` and the choice remembered."""

    @pytest.fixture
    def drop(
        self, make_napari_viewer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[Path], tuple[Any, list[str]]]:
        from napari._qt.dialogs.qt_reader_dialog import QtReaderDialog
        from napari.settings import get_settings
        from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
        from qtpy.QtGui import QDropEvent

        viewer = make_napari_viewer()
        get_settings().plugins.extension2reader = {"*.tif": PLUGIN}
        asked: list[str] = []

        def cancel(dialog: QtReaderDialog) -> tuple[str, bool]:
            from qtpy.QtWidgets import QLabel

            asked.append(dialog.findChildren(QLabel)[0].text())
            return "", False

        monkeypatch.setattr(QtReaderDialog, "get_user_choices", cancel)

        def drop(path: Path) -> tuple[Any, list[str]]:
            mime = QMimeData()
            mime.setUrls([QUrl.fromLocalFile(str(path))])
            event = QDropEvent(
                QPointF(5, 5),
                Qt.DropAction.CopyAction,
                mime,
                Qt.MouseButton.LeftButton,
                Qt.KeyboardModifier.NoModifier,
            )
            viewer.window._qt_viewer.dropEvent(event)
            return viewer.layers, asked

        return drop

    def test_a_stack_opens_without_a_question(
        self, drop: Callable[[Path], Any], stack_path: Callable[[str], Path]
    ) -> None:
        layers, asked = drop(stack_path("neurites/dendrite_spines_spotspine.tif"))
        assert not asked
        np.testing.assert_allclose(layers[0].scale, (0.21, 0.06, 0.06))

    def test_a_colour_image_opens_without_a_question(
        self, drop: Callable[[Path], Any], stack_path: Callable[[str], Path]
    ) -> None:
        layers, asked = drop(stack_path("odd/hela_rgb16_imagej_bian.tif"))
        assert not asked
        assert layers[0].rgb

    def test_a_broken_file_says_once_what_is_wrong_and_adds_nothing(
        self, drop: Callable[[Path], Any], stack_path: Callable[[str], Path]
    ) -> None:
        layers, asked = drop(stack_path("odd/derived_truncated60pct.tif"))
        assert len(asked) == 1
        assert "promises 41 planes" in asked[0]
        assert not layers
