"""SWC files are what other programs for neurons read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_gaussfit.errors import FormatError
from napari_gaussfit.formats.swc import read_swc, write_swc

if TYPE_CHECKING:
    from pathlib import Path

POINTS = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 2.5], [3.5, 2.0, 4.0], [3.0, 4.0, 2.5]])
RADII = np.array([1.0, 0.5, 0.4, 0.3])
PARENTS = np.array([-1, 0, 1, 1])
KINDS = np.array([1, 0, 0, 0])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "trace.swc"
    write_swc(file, POINTS, RADII, PARENTS, KINDS, comments=["a dendrite"])
    return file


def test_a_line_is_node_kind_x_y_z_radius_parent(path: Path) -> None:
    assert path.read_text().splitlines() == [
        "# a dendrite",
        "# node kind x y z radius parent",
        "1 1 1 2 3 1 -1",
        "2 0 2.5 2 3 0.5 1",
        "3 0 4 2 3.5 0.4 2",
        "4 0 2.5 4 3 0.3 2",
    ]


def test_what_is_written_is_read_again(path: Path) -> None:
    points, radii, parents, kinds = read_swc(path)
    np.testing.assert_allclose(points, POINTS)
    np.testing.assert_allclose(radii, RADII)
    np.testing.assert_array_equal(parents, PARENTS)
    np.testing.assert_array_equal(kinds, KINDS)


def test_another_program_reads_the_same_tree(path: Path) -> None:
    morphio = pytest.importorskip("morphio")
    neuron = morphio.Morphology(str(path))
    np.testing.assert_allclose(neuron.soma.center, POINTS[0, ::-1], rtol=1e-6)
    assert [len(section.children) for section in neuron.root_sections] == [2]
    tips = sorted(tuple(section.points[-1]) for section in neuron.iter() if not section.children)
    np.testing.assert_allclose(tips, [POINTS[3, ::-1], POINTS[2, ::-1]], rtol=1e-6)
    np.testing.assert_allclose(neuron.diameters, 2 * RADII[[1, 1, 2, 1, 3]], rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1 0 0 0 0 1", "line 1: expected seven numbers"),
        ("1 0 0 0 nan 1 -1", "line 1: expected seven numbers"),
        ("1 0 0 0 0 1 -1\n2 0 0 0 0 1 9", "hangs on node 9, which is not there"),
    ],
)
def test_what_is_no_tree_is_refused(tmp_path: Path, text: str, what: str) -> None:
    file = tmp_path / "bad.swc"
    file.write_text(text)
    with pytest.raises(FormatError, match=what):
        read_swc(file)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        read_swc(tmp_path / "none.swc")
