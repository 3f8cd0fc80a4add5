"""Spacing and unit as ImageJ, OME-XML and resolution tags give them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


NOISE = np.random.default_rng(0).integers(0, 4000, (5, 12, 10)).astype(np.uint16)


@pytest.mark.parametrize(
    ("unit", "micrometers"),
    [
        ("um", 1),
        ("micron", 1),
        ("\\u00B5m", 1),
        ("nm", 1e-3),
        ("mm", 1e3),
        ("cm", 1e4),
        ("inch", 25400),
    ],
)
def test_imagej_spacing_becomes_micrometers(
    written: Callable[..., Path], unit: str, micrometers: float
) -> None:
    path = written(
        NOISE,
        imagej=True,
        resolution=(5 * micrometers, 4 * micrometers),
        metadata={"axes": "ZYX", "spacing": 0.5 / micrometers, "unit": unit},
    )
    stack = Stack.open(path)
    assert stack.spacing == pytest.approx((0.5, 0.25, 0.2))
    assert (stack.unit, stack.notes) == ("micrometer", ())


def test_imagej_may_write_the_micro_sign_in_latin_1(written: Callable[..., Path]) -> None:
    metadata = {"axes": "ZYX", "spacing": 0.5, "unit": "um"}
    path = written(NOISE, imagej=True, resolution=(5, 5), metadata=metadata)
    path.write_bytes(path.read_bytes().replace(b"unit=um", b"unit=\xb5m"))
    assert Stack.open(path).spacing == pytest.approx((0.5, 0.2, 0.2))


def test_imagej_may_give_z_a_unit_of_its_own(written: Callable[..., Path]) -> None:
    path = written(
        NOISE,
        imagej=True,
        resolution=(5, 5),
        metadata={"axes": "ZYX", "spacing": 500, "unit": "um", "zunit": "nm"},
    )
    assert Stack.open(path).spacing == pytest.approx((0.5, 0.2, 0.2))


@pytest.mark.parametrize(
    ("unit", "micrometers"),
    [("nm", 1e-3), ("µm", 1), ("mm", 1e3), ("cm", 1e4), ("Å", 1e-4), ("m", 1e6), (None, 1)],
)
def test_ome_spacing_becomes_micrometers(
    written: Callable[..., Path], unit: str | None, micrometers: float
) -> None:
    metadata: dict[str, Any] = {"axes": "ZYX"}
    for axis, size in (("Z", 0.5), ("Y", 0.25), ("X", 0.2)):
        metadata[f"PhysicalSize{axis}"] = size / micrometers
        if unit is not None:
            metadata[f"PhysicalSize{axis}Unit"] = unit
    stack = Stack.open(written(NOISE, ome=True, metadata=metadata))
    assert stack.spacing == pytest.approx((0.5, 0.25, 0.2))
    assert (stack.unit, stack.notes) == ("micrometer", ())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no voxel size"),
        ({"resolution": (1, 1)}, "no voxel size"),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, "no voxel size"),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, "no voxel size"),
        ({"resolution": (72 / 2.54, 72 / 2.54), "resolutionunit": "CENTIMETER"}, "no voxel size"),
        ({"resolution": (0, 0)}, "no voxel size"),
        (
            {"resolution": (1e5, 1e5), "resolutionunit": "CENTIMETER"},
            "spacing=(dz, 0.1, 0.1) (--spacing DZ 0.1 0.1)",
        ),
        (
            {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 0.5, "unit": "um"}},
            "spacing=(0.5, dy, dx) (--spacing 0.5 DY DX)",
        ),
        (
            {"imagej": True, "resolution": (5, 4), "metadata": {"axes": "ZYX", "unit": "um"}},
            "ImageJ leaves out a z step of exactly 1 um",
        ),
        (
            {
                "ome": True,
                "metadata": {"axes": "ZYX", "PhysicalSizeX": 0.2, "PhysicalSizeY": 0.3},
            },
            "spacing=(dz, 0.3, 0.2) (--spacing DZ 0.3 0.2)",
        ),
    ],
    ids=str,
)
def test_a_spacing_not_wholly_known_is_none_and_the_note_says_what_settles_it(
    written: Callable[..., Path], options: dict[str, Any], said: str
) -> None:
    stack = Stack.open(written(NOISE, **{"metadata": {"axes": "ZYX"}, **options}))
    assert (stack.spacing, stack.unit) == ((1, 1, 1), "pixel")
    [note] = stack.notes
    assert said in note
    assert "--spacing" in note


@pytest.mark.parametrize(
    ("options", "proportions"),
    [
        ({"imagej": True, "metadata": {"axes": "ZYX", "spacing": 3.5}}, (3.5, 1, 1)),
        (
            {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 3.5, "unit": "pixel"}},
            (3.5, 1, 1),
        ),
        (
            {
                "imagej": True,
                "resolution": (5, 4),
                "metadata": {"axes": "ZYX", "spacing": 2, "unit": "furlong"},
            },
            (2, 0.25, 0.2),
        ),
        (
            {
                "ome": True,
                "metadata": {
                    "axes": "ZYX",
                    **{f"PhysicalSize{axis}": n for axis, n in zip("ZYX", (4, 1, 2), strict=True)},
                    **{f"PhysicalSize{axis}Unit": "reference frame" for axis in "ZYX"},
                },
            },
            (4, 1, 2),
        ),
    ],
    ids=["imagej", "imagej-pixel", "imagej-furlong", "ome-reference-frame"],
)
def test_proportions_without_a_unit_are_kept_and_offered_with_the_option_that_gives_one(
    written: Callable[..., Path], options: dict[str, Any], proportions: tuple[float, float, float]
) -> None:
    path = written(NOISE, **options)
    stack = Stack.open(path)
    assert (stack.spacing, stack.unit) == (proportions, "pixel")
    [note] = stack.notes
    assert "--spacing {:g} {:g} {:g}".format(*proportions) in note
    assert ("'furlong', is no length" in note) == ("furlong" in str(options))
    given = Stack.open(path, spacing=proportions)
    assert (given.unit, given.notes) == ("micrometer", ())


@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m", "nm"])
@pytest.mark.parametrize("tag", ["CENTIMETER", "INCH", "NONE"])
def test_resolution_tags_are_in_their_own_unit_where_the_description_has_another(
    written: Callable[..., Path], unit: str, tag: str
) -> None:
    tagged = {"CENTIMETER": 1e4, "INCH": 25400, "NONE": 1e-3 if unit == "nm" else 1}[tag]
    spacing = 500 if unit == "nm" else 0.5
    stack = Stack.open(
        written(
            NOISE,
            description=f"ImageJ=1.52a\nimages=5\nslices=5\nunit={unit}\nspacing={spacing}\n",
            metadata=None,
            resolution=(tagged / 0.13, tagged / 0.26),
            resolutionunit=tag,
        )
    )
    # Tags are fractions; older versions of the program that writes them here round more.
    assert stack.spacing == pytest.approx((0.5, 0.26, 0.13), rel=1e-5)
    # ImageJ itself does not look at inches, so that which of the two was taken is said.
    assert [f"in {unit} by its description, in inch" in note for note in stack.notes] == [True] * (
        tag == "INCH"
    )


def test_tags_that_only_claim_to_be_in_centimetres_are_in_the_descriptions_unit_with_a_note(
    written: Callable[..., Path],
) -> None:
    stack = Stack.open(
        written(
            NOISE,
            description="ImageJ=1.52a\nimages=5\nslices=5\nunit=um\nspacing=0.5\n",
            metadata=None,
            resolution=(1 / 0.13, 1 / 0.13),
            resolutionunit="CENTIMETER",
        )
    )
    assert stack.spacing == pytest.approx((0.5, 0.13, 0.13))
    [note] = stack.notes
    assert "in um by its description, in cm by its tags; um was taken" in note


@pytest.mark.parametrize(("kind", "code"), [("f", 11), ("I", 4)])
def test_resolution_tags_may_be_one_number_for_a_fraction(
    written: Callable[..., Path], kind: str, code: int
) -> None:
    path = written(NOISE, metadata=None, resolution=(9, 9), resolutionunit="CENTIMETER")
    with tifffile.TiffFile(path) as tif:
        entries = [tif.pages[0].tags[tag].offset for tag in (282, 283)]
    content = bytearray(path.read_bytes())
    for entry in entries:
        struct.pack_into(f"<HI{kind}", content, entry + 2, code, 1, 80000)
    path.write_bytes(content)
    [pages, note] = Stack.open(path).notes
    assert "--spacing DZ 0.125 0.125" in note
    assert "z-planes" in pages


@pytest.mark.parametrize("resolution", [(0, 0), (1, 0)])
def test_a_resolution_that_is_no_number_is_none(
    written: Callable[..., Path], resolution: tuple[int, int]
) -> None:
    path = written(NOISE, metadata=None, resolution=(9, 9), resolutionunit="CENTIMETER")
    with tifffile.TiffFile(path) as tif:
        places = [tif.pages[0].tags[tag].valueoffset for tag in (282, 283)]
    content = bytearray(path.read_bytes())
    for place in places:
        struct.pack_into("<II", content, place, *resolution)
    path.write_bytes(content)
    assert any("gives no voxel size" in note for note in Stack.open(path).notes)


def test_imagej_takes_the_sign_off_a_spacing(written: Callable[..., Path]) -> None:
    metadata = {"axes": "ZYX", "spacing": -0.5, "unit": "um"}
    stack = Stack.open(written(NOISE, imagej=True, resolution=(5, 5), metadata=metadata))
    assert stack.spacing == pytest.approx((0.5, 0.2, 0.2))
    assert stack.notes == ()


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((0.5, 1.3e-5, 1.3e-5), "1.3e-05 micrometer is less than a nanometer"),
        ((2000, 100, 100), "2e+03 micrometer is more than a millimeter"),
        ((0.5, 0.13, 0.001), "one side is 500 times another"),
    ],
)
def test_a_voxel_that_can_hardly_be_one_is_taken_with_a_word(
    written: Callable[..., Path], sizes: tuple[float, float, float], said: str
) -> None:
    metadata = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", sizes, strict=True)}
    stack = Stack.open(written(NOISE, ome=True, metadata={"axes": "ZYX", **metadata}))
    assert stack.spacing == pytest.approx(sizes)
    [note] = stack.notes
    assert said in note
    assert "--spacing DZ DY DX" in note


def test_a_voxel_of_one_micrometer_is_believed_but_questioned(
    written: Callable[..., Path],
) -> None:
    sizes = dict.fromkeys(("PhysicalSizeZ", "PhysicalSizeY", "PhysicalSizeX"), 1.0)
    stack = Stack.open(written(NOISE, ome=True, metadata={"axes": "ZYX", **sizes}))
    assert stack.unit == "micrometer"
    assert any("--spacing" in note for note in stack.notes)


def test_a_given_spacing_overrides_that_of_the_file(written: Callable[..., Path]) -> None:
    path = written(
        NOISE, imagej=True, resolution=(5, 4), metadata={"axes": "ZYX", "spacing": 2, "unit": "um"}
    )
    assert Stack.open(path, spacing=(3, 2, 1)).spacing == (3, 2, 1)


def test_a_given_spacing_settles_the_note(written: Callable[..., Path]) -> None:
    stack = Stack.open(written(NOISE, metadata={"axes": "ZYX"}), spacing=(3, 2, 1))
    assert (stack.spacing, stack.unit, stack.notes) == ((3, 2, 1), "micrometer", ())
