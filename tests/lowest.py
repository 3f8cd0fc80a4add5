"""The environment of `make lowest` has the lowest versions that pyproject.toml admits.

In any other it fails, so that pytest does not collect it by itself.
"""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
HIGHER = {"torch"}  # see the Makefile
BOUNDS = {
    requirement.name: bound.version
    for requirement in map(
        Requirement, PROJECT["dependencies"] + PROJECT["optional-dependencies"]["pyqt6"]
    )
    for bound in requirement.specifier
    if bound.operator == ">="
}


@pytest.mark.parametrize("name", sorted(BOUNDS.keys() - HIGHER))
def test_the_lowest_version_that_is_admitted_is_the_one_that_is_tested(name: str) -> None:
    assert Version(version(name)) == Version(BOUNDS[name])
