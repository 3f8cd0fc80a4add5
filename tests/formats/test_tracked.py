"""Tracks for other programs: TrackMate's file and graphs, read by readers that are not ours."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from napari_gaussfit.cli import main
from napari_gaussfit.formats.registry import TRACK_WRITERS
from napari_gaussfit.formats.tracked import Tracked
from napari_gaussfit.model.gaussians import Gaussians
from napari_gaussfit.stacks.facts import StackFacts

if TYPE_CHECKING:
    from pathlib import Path

geff = pytest.importorskip("geff")

FACTS = StackFacts("cell.tif", (10, 40, 50), (0.3, 0.1, 0.1))
TIMES = np.array([0, 0, 1, 1, 3, 3, 3])
TRACKS = np.array([0, 1, 1, 0, 0, 2, 1])
LINKS = {(0, 3), (3, 4), (1, 2), (2, 6)}
"""Of rows; 5 is alone in its track, and at time 2 nothing is seen."""


@pytest.fixture
def tracked() -> Tracked:
    rng = np.random.default_rng(0)
    means = rng.uniform(0.5, 2.5, (7, 3))
    covariances = np.broadcast_to(np.diag([0.09, 0.02, 0.01]), (7, 3, 3))
    gaussians = Gaussians.from_covariances(means, covariances, rng.uniform(5, 9, 7))
    return Tracked(gaussians, TIMES, TRACKS, np.arange(7.0))


def write(path: Path, tracked: Tracked) -> Path:
    suffix = "".join(path.suffixes)
    TRACK_WRITERS[suffix][1](path, tracked, FACTS)
    return path


def test_an_edge_leads_to_the_next_of_a_track(tracked: Tracked) -> None:
    assert {tuple(edge) for edge in tracked.edges.tolist()} == LINKS


def test_trackmate_xml_has_every_spot_and_every_edge(tracked: Tracked, tmp_path: Path) -> None:
    root = ET.parse(write(tmp_path / "tracks.xml", tracked)).getroot()
    frames = {
        int(frame.attrib["frame"]): [int(spot.attrib["ID"]) for spot in frame]
        for frame in root.iterfind("Model/AllSpots/SpotsInFrame")
    }
    assert frames == {0: [0, 1], 1: [2, 3], 2: [], 3: [4, 5, 6]}
    edges = {
        (int(e.attrib["SPOT_SOURCE_ID"]), int(e.attrib["SPOT_TARGET_ID"]))
        for e in root.iter("Edge")
    }
    assert edges == LINKS
    first, second = root.iterfind("Model/AllTracks/Track")
    assert (first.attrib["TRACK_ID"], second.attrib["TRACK_ID"]) == ("0", "1")
    assert (first.attrib["NUMBER_SPOTS"], first.attrib["TRACK_DURATION"]) == ("3", "3.0")
    shown = [one.attrib["TRACK_ID"] for one in root.iterfind("Model/FilteredTracks/TrackID")]
    assert shown == ["0", "1"]
    image = root.find("Settings/ImageData")
    assert image is not None
    assert image.attrib["nframes"] == "4"


@pytest.mark.filterwarnings("ignore")  # of its own libraries
def test_geffs_own_reader_of_trackmate_xml_finds_the_same_graph(
    tracked: Tracked, tmp_path: Path
) -> None:
    from geff.convert import from_trackmate_xml_to_geff

    path = write(tmp_path / "tracks.xml", tracked)
    from_trackmate_xml_to_geff(path, tmp_path / "converted.geff")
    found = geff.core_io.read_to_memory(tmp_path / "converted.geff")
    assert {tuple(map(int, edge)) for edge in found["edge_ids"]} == LINKS
    ids = found["node_ids"].astype(int)
    nodes = found["node_props"]
    zyx = np.stack([nodes[f"POSITION_{axis}"]["values"] for axis in "ZYX"], axis=1)
    np.testing.assert_allclose(zyx, tracked.gaussians.means[ids], rtol=1e-6)
    np.testing.assert_array_equal(nodes["FRAME"]["values"], TIMES[ids])


def test_a_graph_has_a_time_axis_and_the_tracks_as_edges(tracked: Tracked, tmp_path: Path) -> None:
    path = write(tmp_path / "tracks.geff", tracked)
    checks = geff.validate.data.ValidationConfig(graph=True, tracklet=True, lineage=True)
    found = geff.core_io.read_to_memory(path, data_validation=checks)
    assert {tuple(map(int, edge)) for edge in found["edge_ids"]} == LINKS
    about = found["metadata"]
    assert (about.axes[0].name, about.axes[0].type) == ("t", "time")
    assert about.track_node_props == {"tracklet": "track", "lineage": "track"}
    np.testing.assert_array_equal(found["node_props"]["t"]["values"], TIMES)
    np.testing.assert_array_equal(found["node_props"]["track"]["values"], TRACKS)


def test_trackmates_table_tells_the_track_of_each_spot(tracked: Tracked, tmp_path: Path) -> None:
    path = tmp_path / "tracks.trackmate.csv"
    TRACK_WRITERS[".trackmate.csv"][1](path, tracked, FACTS)
    table = pd.read_csv(path, skiprows=[1, 2, 3])
    assert table["TRACK_ID"].tolist() == TRACKS.tolist()
    assert table["FRAME"].tolist() == TIMES.tolist()


def test_further_files_of_one_time_are_not_asked_of_a_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", str(tmp_path / "no.tif"), "-o", str(tmp_path / "out")]
    assert main([*words, "--also", str(tmp_path / "a.xml")]) == 2
    assert "--also is of several times" in capsys.readouterr().err
