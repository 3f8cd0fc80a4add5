"""Spacing and unit as ImageJ, OME-XML and resolution tags give them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_gaussfit.stack import Stack

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
        resolution=(5, 4),
        metadata={"axes": "ZYX", "spacing": 0.5, "unit": unit},
    )
    stack = Stack.open(path)
    assert stack.spacing == pytest.approx(
        (0.5 * micrometers, 0.25 * micrometers, 0.2 * micrometers)
    )
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
        metadata[f"PhysicalSize{axis}"] = size
        if unit is not None:
            metadata[f"PhysicalSize{axis}Unit"] = unit
    stack = Stack.open(written(NOISE, ome=True, metadata=metadata))
    assert stack.spacing == pytest.approx(
        (0.5 * micrometers, 0.25 * micrometers, 0.2 * micrometers)
    )
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
                "imagej": True,
                "resolution": (5, 4),
                "metadata": {"axes": "ZYX", "spacing": 2, "unit": "pixel"},
            },
            "no voxel size, so",
        ),
        (
            {
                "imagej": True,
                "resolution": (5, 4),
                "metadata": {"axes": "ZYX", "spacing": 2, "unit": "furlong"},
            },
            "its unit, 'furlong', is no length",
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
