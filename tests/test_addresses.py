"""Where the project is kept is said in one place, and nowhere is something else said."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

GIVEN = {
    "repository": "https://example.org/lab/fits",
    "documentation": "https://fits.example.org/en",
}


@pytest.fixture(scope="module")
def build(checkout: Path) -> Any:
    """The build hook."""
    spec = importlib.util.spec_from_file_location("hatch_build", checkout / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def metadata(build: Any, checkout: Path, config: dict[str, str]) -> dict[str, Any]:
    """What a build makes of a setting."""
    filled: dict[str, Any] = {"version": "1.2.3"}
    build.AddressHook(str(checkout), config).update(filled)
    return filled


def test_nothing_is_said_of_addresses_that_are_not_filled_in(build: Any, checkout: Path) -> None:
    made = metadata(build, checkout, {"repository": "", "documentation": ""})
    assert made["urls"] == {}
    assert made["readme"]["text"] == (checkout / "README.md").read_text(encoding="utf-8")


def test_the_packages_page_shows_pictures_of_the_release(build: Any, checkout: Path) -> None:
    page = metadata(build, checkout, GIVEN | {"documentation": ""})["readme"]["text"]
    assert "](https://example.org/lab/fits/raw/v1.2.3/docs/images/finished-2d.png)" in page
    assert "](https://example.org/lab/fits/blob/v1.2.3/docs/gpu.md)" in page


def test_the_packages_page_links_to_the_documentation_that_is_served(
    build: Any, checkout: Path
) -> None:
    page = metadata(build, checkout, GIVEN)["readme"]["text"]
    assert "](https://fits.example.org/en/scale.html)" in page
    assert "](https://example.org/lab/fits/blob/v1.2.3/CONTRIBUTING.md)" in page
    assert not re.findall(r"\]\((?!https://)[^)]*\)", page), "no link is left that leads nowhere"


def test_the_metadata_name_repository_documentation_and_issues(build: Any, checkout: Path) -> None:
    assert metadata(build, checkout, GIVEN)["urls"] == {
        "Repository": "https://example.org/lab/fits",
        "Documentation": "https://fits.example.org/en",
        "Issues": "https://example.org/lab/fits/issues",
        "Changelog": "https://example.org/lab/fits/blob/main/CHANGELOG.md",
    }


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"repository": "example.org/lab", "documentation": ""}, "https://"),
        ({"repository": "https://example.org/lab/", "documentation": ""}, "without a slash"),
        ({"repository": "", "documentation": "https://example.org"}, "give both"),
    ],
)
def test_what_is_no_address_is_refused(build: Any, config: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        build.checked(config)


def test_citation_and_recipe_agree_with_the_setting(build: Any, checkout: Path) -> None:
    for name, keys in build.KEYS.items():
        text = (checkout / name).read_text(encoding="utf-8")
        assert text == build.filled_in(text, keys, build.setting()), (
            f"{name}: run python hatch_build.py"
        )


def test_citation_and_recipe_take_the_addresses_and_lose_them(build: Any, checkout: Path) -> None:
    for name, keys in build.KEYS.items():
        text = (checkout / name).read_text(encoding="utf-8")
        bare = build.filled_in(text, keys, {})
        filled = build.filled_in(bare, keys, GIVEN)
        content = yaml.safe_load(filled)
        named = content.get("about", content)
        assert {named[key.strip()]: None for key in keys} == dict.fromkeys(GIVEN.values())
        assert build.filled_in(filled, keys, {}) == bare
