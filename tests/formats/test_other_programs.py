"""Files for other programs: TrackMate's, as its reader takes them, and graphs, as geff does."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import zarr

from napari_gaussfit.cli import main
from napari_gaussfit.errors import OutputError
from napari_gaussfit.fitting.result import FitResult, load
from napari_gaussfit.measure.report import Report
from napari_gaussfit.stacks.ome_zarr import write_ome_zarr
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.synthetic.phantoms import neurite, nuclei, separated

if TYPE_CHECKING:
    from pathlib import Path

geff = pytest.importorskip("geff")

DIMENSIONS = {"NONE", "QUALITY", "INTENSITY", "POSITION", "LENGTH", "TIME"}
"""Of TrackMate's `Dimension`, whose other names are not used here."""


@pytest.fixture
def fit() -> FitResult:
    phantom = separated(count=5)
    return FitResult((phantom.truth,), replace(phantom.stack.facts, time=3))


def test_trackmate_xml_has_all_that_its_reader_asks_for(fit: FitResult, tmp_path: Path) -> None:
    fit.export(tmp_path / "spots.xml")
    root = ET.parse(tmp_path / "spots.xml").getroot()
    assert root.tag == "TrackMate"
    model = root.find("Model")
    assert model is not None
    assert model.attrib == {"spatialunits": "micron", "timeunits": "frame"}
    for needed in (
        "FeatureDeclarations/SpotFeatures",
        "FeatureDeclarations/EdgeFeatures",
        "FeatureDeclarations/TrackFeatures",
        "AllTracks",
        "FilteredTracks",
    ):
        assert model.find(needed) is not None, needed
    features = model.iterfind("FeatureDeclarations/SpotFeatures/Feature")
    declared = {one.attrib["feature"]: one.attrib for one in features}
    assert {one.attrib["dimension"] for one in model.iter("Feature")} <= DIMENSIONS
    [frame] = model.findall("AllSpots/SpotsInFrame")
    assert frame.attrib == {"frame": "3"}
    field = fit.field.numpy()
    for n, spot in enumerate(frame):
        attributes = dict(spot.attrib)
        assert (attributes.pop("ID"), attributes.pop("name")) == (str(n), f"ID{n}")
        assert set(attributes) == set(declared)
        values = {name: float(value) for name, value in attributes.items()}
        zyx = [values[f"POSITION_{axis}"] for axis in "ZYX"]
        np.testing.assert_allclose(zyx, field.means[n], rtol=1e-6)
        assert values["FWHM_1"] == pytest.approx(field.fwhm()[n, 0])
        assert values["RADIUS"] == pytest.approx(np.sqrt(3) * np.exp(field.log_widths[n].mean()))
        assert (values["FRAME"], values["POSITION_T"], values["VISIBILITY"]) == (3, 3, 1)
    image = root.find("Settings/ImageData")
    assert image is not None
    assert float(image.attrib["voxeldepth"]) == fit.stack.spacing[0]
    assert int(image.attrib["width"]) == fit.stack.shape[2]


def test_radius_is_that_of_a_log_detector(tmp_path: Path) -> None:
    """TrackMate's LoG detector answers most to a 3D blob of radius sqrt(3) sigma."""
    from napari_gaussfit.model.field import GaussianField

    ball = GaussianField.from_covariances([[1, 1, 1]], [0.04 * np.eye(3)], [9.0])
    facts = separated(count=1).stack.facts
    FitResult((ball,), facts).export(tmp_path / "ball.xml")
    spot = ET.parse(tmp_path / "ball.xml").getroot().find(".//Spot")
    assert spot is not None
    assert float(spot.attrib["RADIUS"]) == pytest.approx(0.2 * np.sqrt(3), rel=1e-6)


def test_trackmate_csv_has_four_lines_of_header(fit: FitResult, tmp_path: Path) -> None:
    path = tmp_path / "spots.trackmate.csv"
    fit.export(path)
    table = pd.read_csv(path, skiprows=[1, 2, 3])
    np.testing.assert_allclose(table["POSITION_X"], fit.field.numpy().means[:, 2], rtol=1e-6)
    assert list(table["LABEL"]) == [f"ID{n}" for n in range(5)]
    units = path.read_text(encoding="utf-8").splitlines()[3].split(",")
    assert units[list(table).index("POSITION_X")] == "(micron)"


def test_graph_has_covariances_as_ellipsoids(fit: FitResult, tmp_path: Path) -> None:
    fit.export(tmp_path / "spots.geff")
    # Not geff 1.3's own check of ellipsoids, which in 3D asks for an axis more than its page says.
    checks = geff.validate.data.ValidationConfig(graph=True)
    found = geff.core_io.read_to_memory(tmp_path / "spots.geff", data_validation=checks)
    nodes, about = found["node_props"], found["metadata"]
    assert about.ellipsoid == "covariance"
    assert [(axis.name, axis.unit) for axis in about.axes] == [
        ("t", "frame"), ("z", "micrometer"), ("y", "micrometer"), ("x", "micrometer"),
    ]  # fmt: skip
    field = fit.field.numpy()
    np.testing.assert_array_equal(nodes["covariance"]["values"], field.covariances)
    zyx = np.stack([nodes[axis]["values"] for axis in "zyx"], axis=1)
    np.testing.assert_array_equal(zyx, field.means)
    np.testing.assert_array_equal(nodes["amplitude"]["values"], field.amplitudes)
    assert found["edge_ids"].shape == (0, 2)


def test_graph_replaces_its_own_folder_alone(fit: FitResult, tmp_path: Path) -> None:
    path = tmp_path / "spots.geff"
    fit.export(path)
    fit.export(path)
    (path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is never removed; give another name"):
        fit.export(path)


def test_trace_is_a_graph_with_an_edge_to_each_child(tmp_path: Path) -> None:
    phantom = neurite(spines=False)
    FitResult((phantom.truth,), phantom.stack.facts).save(tmp_path / "fit.safetensors")
    tree = tmp_path / "tree.geff"
    command = ["trace", str(tmp_path / "fit.safetensors"), "-o", str(tmp_path / "out")]
    assert main([*command, "--also", str(tree)]) == 0
    graph, about = geff.read(tree)
    assert about.sphere == "radius"
    nodes = np.loadtxt(tmp_path / "out" / "trace.swc")
    assert graph.number_of_nodes() == len(nodes)
    assert sorted(graph.edges) == sorted(
        (int(parent) - 1, int(node) - 1) for node, *_, parent in nodes if parent > 0
    )


def test_cells_are_labels_of_an_ome_zarr(tmp_path: Path) -> None:
    import tifffile

    phantom = nuclei(seed=1, photons=None)
    FitResult((phantom.truth,), phantom.stack.facts).save(tmp_path / "fit.safetensors")
    path = tmp_path / "nuclei.ome.zarr"
    command = ["cells", str(tmp_path / "fit.safetensors"), "-o", str(tmp_path / "out")]
    assert main([*command, "--also", str(path)]) == 0
    import yaozarrs

    yaozarrs.validate_zarr_store(path)
    group = zarr.open_group(path, mode="r")
    assert group["labels"].attrs["ome"]["labels"] == ["objects"]
    expected = tifffile.imread(tmp_path / "out" / "labels.ome.tif")
    np.testing.assert_array_equal(group["labels/objects/0"][:], expected)
    assert Stack.open(path).spacing == pytest.approx(phantom.stack.spacing)


def test_labels_of_somebody_else_keep_a_volume_from_being_replaced(tmp_path: Path) -> None:
    volume, path = np.zeros((2, 3, 4), np.float32), tmp_path / "v.ome.zarr"
    about = {"spacing": (1.0, 1.0, 1.0), "unit": "micrometer", "name": "v"}
    write_ome_zarr(path, volume, **about, labels=volume.astype(np.int32))
    write_ome_zarr(path, volume, **about, labels=volume.astype(np.int32))
    (path / "labels" / "mine").mkdir()
    with pytest.raises(OutputError, match="is never removed"):
        write_ome_zarr(path, volume, **about)


def test_further_files_of_no_format_are_refused_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["trace", "missing.tif", "-o", str(tmp_path / "out"), "--also", "x.xls"]
    assert main(command) == 2
    assert "'.xls'; expected one of .swc (a tree" in capsys.readouterr().err


def test_reports_of_all_channels_are_in_the_fit_itself(tmp_path: Path) -> None:
    phantom = separated(count=2)
    report = Report.from_dict(
        {
            **dict.fromkeys(Report.__dataclass_fields__, 1.0),
            "stack": "one", "shape": [1, 2, 3], "spacing": [1.0, 1.0, 1.0], "unit": "micrometer",
            "gaussians": 2, "iterations": 3, "device": "cpu", "backend": "numba", "seed": 0,
            "version": "1", "converged": True, "convergence": "", "count_reason": "", "notes": [],
            "noise": "", "measured": "", "psf": "",
        }
    )  # fmt: skip
    reports = (report, replace(report, voxel_psnr=2.0))
    fit = FitResult((phantom.truth,) * 2, phantom.stack.facts, reports=reports)
    fit.save(tmp_path / "fit.safetensors")
    assert [one.voxel_psnr for one in load(tmp_path / "fit.safetensors").reports] == [1.0, 2.0]
