"""Files that were once read wrongly are read rightly by the library, by `info` and in napari.

They lie in ``cases`` beside the real stacks, each with what is right in an ``.expected.txt``. A row
of the table says it in numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_gaussfit.cli import main
from napari_gaussfit.errors import StackError
from napari_gaussfit.fitting.result import load
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from pathlib import Path

SPACING = (0.5, 0.13, 0.13)
PIXELS = (1.0, 1.0, 1.0)
SUFFIXES = (".tif", ".tiff", ".zarr")
"""Files with these have a row in the table."""


@dataclass(frozen=True)
class Case:
    """What a file holds.

    Parameters
    ----------
    name : str
        Its path in the folder of cases.
    spacing : tuple of float
        (dz, dy, dx), in micrometres unless it is in pixels.
    unit : str
        "micrometer" or "pixel".
    said : tuple of str
        Patterns that are found in the notes; without any, there are none.
    options : dict
        Channel, time and position to read.
    brightest : tuple of int
        The voxel (z, y, x) of the brightest spot; that of another channel lies elsewhere.
    layer : int
        Which of napari's layers that is.
    """

    name: str
    spacing: tuple[float, float, float] = SPACING
    unit: str = "micrometer"
    said: tuple[str, ...] = ()
    options: dict[str, int] = field(default_factory=dict)
    brightest: tuple[int, int, int] = (4, 10, 28)
    layer: int = 0

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{name} {n}" for name, n in self.options.items())])

    @property
    def arguments(self) -> list[str]:
        """The options, as a command line has them."""
        return [word for name, n in self.options.items() for word in (f"--{name}", str(n))]


OTHER_CHANNEL = (6, 5, 5)
"""Where the second channel is brightest."""

CASES = [
    Case("ij_um_but_tags_cm.tif"),
    Case("run_1_MMStack_Pos0.ome.tif"),
    Case("ij_negative_spacing.tif"),
    Case("metamorph_stk_named.tif"),
    Case("ij_unit_pixel_spacing3.5.tif", (3.5, 1, 1), "pixel", (r"--spacing 3\.5 1 1",)),
    Case("page_by_page_append.tif", PIXELS, "pixel", ("holds 12 images of one plane each",)),
    *(
        Case(name, said=said, options={"channel": n}, brightest=spot, layer=n)
        for name, said in (
            ("ome_bad_xml_ampersand.ome.tif", ("OME-XML is not well-formed",)),
            ("plain_ZC.ome.tiff", ()),
        )
        for n, spot in enumerate([(4, 10, 28), OTHER_CHANNEL])
    ),
    Case(
        "scanimage_big_zc.tif", PIXELS, "pixel", (r"dz=2 micrometer .*--spacing 2 DY DX",),
        {"channel": 1}, OTHER_CHANNEL, 1,
    ),
    Case("mm_pos/run_1_MMStack.ome.tif", options={"position": 0}),
    Case("mm_pos/run_1_MMStack.ome.tif", options={"position": 1}, layer=1),
    *(
        Case(f"omero_no_{what}.zarr", options={"channel": n}, brightest=spot, layer=n)
        for what in ("color", "window")
        for n, spot in enumerate([(4, 10, 28), OTHER_CHANNEL])
    ),
    Case("plate.zarr/A/1/0"),
    Case("with_labels.zarr/labels/spots", brightest=(1, 10, 28)),
    Case("upper_names.zarr"),
    Case("translated.zarr"),
    Case("no_units.zarr", unit="pixel", said=(r"--spacing 0\.5 0\.13 0\.13",)),
    Case("negative_scale.zarr", said=(r"scale is -0\.5 along z; its absolute value is taken",)),
    Case("zero_scale.zarr", PIXELS, "pixel", (r"no dz \(its scale is 0 along z\)",)),
]  # fmt: skip


@pytest.fixture(scope="module")
def cases(data_dir: Path) -> Path:
    """The folder of files that were read wrongly; without it the test is skipped."""
    folder = data_dir.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"needs the files that were read wrongly, in {folder}")
    return folder


def test_every_file_is_in_the_table(cases: Path) -> None:
    expected = [path.relative_to(cases).as_posix() for path in cases.rglob("*.expected.txt")]
    files = {name.removesuffix(".expected.txt") for name in expected}
    inside = re.compile(r"(?<=\.zarr)/.*")
    assert {name for name in files if name.endswith(SUFFIXES)} == {
        inside.sub("", case.name) for case in CASES
    }


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_library_reads_what_is_right(cases: Path, case: Case) -> None:
    stack = Stack.open(cases / case.name, **case.options)
    assert stack.shape == (12, 32, 40)
    assert stack.unit == case.unit
    assert stack.spacing == pytest.approx(case.spacing, rel=1e-5)
    brightest = np.unravel_index(stack.voxels.argmax(), stack.shape)
    assert np.abs(np.subtract(brightest, case.brightest)).max() <= 1
    for pattern in case.said:
        assert any(re.search(pattern, note) for note in stack.notes), stack.notes
    assert case.said or not stack.notes, stack.notes


@pytest.mark.parametrize("case", CASES, ids=str)
def test_info_says_what_is_right(
    cases: Path, case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(cases / case.name), *case.arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = dict(line.split(maxsplit=1) for line in lines)
    *sizes, unit = found["spacing"].replace(" x ", " ").split()
    assert [float(size) for size in sizes] == pytest.approx(case.spacing, rel=1e-5)
    assert unit == case.unit
    assert found["shape"].startswith("12 x 32 x 40 voxels")
    notes = [line.split(maxsplit=1)[1] for line in lines if line.startswith("note ")]
    for pattern in case.said:
        assert any(re.search(pattern, note) for note in notes), notes
    assert case.said or not notes, notes


@pytest.mark.gui
@pytest.mark.parametrize("case", CASES, ids=str)
def test_napari_shows_what_is_right(
    cases: Path, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_gaussfit._napari.reader import get_reader

    monkeypatch.setattr("napari.utils.notifications.show_info", lambda _: None)
    path = str(cases / case.name)
    read = get_reader(path)
    assert read is not None
    voxels, keywords, kind = read(path)[case.layer]
    about: dict[str, Any] = keywords["metadata"]["napari_gaussfit"]
    stack = Stack.open(path, **case.options)
    assert kind == "image"
    np.testing.assert_array_equal(voxels, stack.voxels)
    assert keywords["scale"] == pytest.approx(case.spacing, rel=1e-5)
    assert tuple(keywords["units"]) == (case.unit,) * 3
    assert about["notes"] == stack.notes


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "mm_pos/run_1_MMStack.ome.tif",
            r"position=N \(--position N\), N from 0 to 1, chooses another",
        ),
        (
            "plain_ZC.ome.tiff",
            r"2 channels \(0 DAPI, 1 GFP\); choose channel=N \(--channel N\)",
        ),
        ("ome_bad_xml_ampersand.ome.tif", r"OME-XML is not well-formed"),
        (
            "scanimage_big_zc.tif",
            r"has 2 channels; choose channel=N \(--channel N\)",
        ),
    ],
)
def test_info_says_what_is_to_be_chosen(
    cases: Path, name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(cases / name)]) == 0
    assert re.search(said, capsys.readouterr().out)


def test_an_image_of_a_set_is_refused_without_its_companion(cases: Path, tmp_path: Path) -> None:
    alone = tmp_path / "plain_ZC.ome.tiff"
    alone.write_bytes((cases / "plain_ZC.ome.tiff").read_bytes())
    with pytest.raises(StackError, match=r"plain\.companion\.ome, which is not there"):
        Stack.open(alone, channel=0)


def test_a_translated_image_lies_where_it_says(cases: Path) -> None:
    from napari_gaussfit._napari.reader import get_reader

    path = cases / "translated.zarr"
    assert Stack.open(path).origin == (10, 20, 30)
    read = get_reader(str(path))
    assert read is not None
    [(_, keywords, _)] = read(str(path))
    assert keywords["translate"] == (10, 20, 30)


def test_a_plate_names_the_image_to_give(cases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(cases / "plate.zarr")]) == 2
    image = cases / "plate.zarr" / "A" / "1" / "0"
    assert f"give one of its images: {image}" in capsys.readouterr().err


def test_a_scene_about_the_origin_lies_in_its_stack(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = load(cases / "centred_negative.ply")
    means = fit.field.means.numpy()
    lower, upper = fit.stack.box
    assert (lower <= means).all()
    assert (means <= upper).all()
    assert main(["info", str(cases / "centred_negative.ply")]) == 0
    assert "all were moved by" in capsys.readouterr().out
