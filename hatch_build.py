"""Addresses: where the project is kept, from one setting in ``pyproject.toml``.

A build puts them into the package's metadata, and makes the links of its page absolute.
``python hatch_build.py`` puts them into `CITATION.cff` and the conda recipe. Where nothing is
filled in, nothing is said.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

CHECKOUT = Path(__file__).parent

KEYS = {
    "CITATION.cff": {"repository-code": "repository", "url": "documentation"},
    "recipe/recipe.yaml": {"  repository": "repository", "  documentation": "documentation"},
}
"""Files that are read as they are, and what they call the settings, at their ends."""

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)#]+)(#[^)]*)?\)")
"""A link of README to a file: "!" of a picture, words, path, part of the page."""


def setting() -> dict[str, str]:
    """Return the addresses in ``pyproject.toml``, by their names; only those that are filled in.

    Raises
    ------
    ValueError
        If one is no address.
    """
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    return checked(project["tool"]["hatch"]["metadata"]["hooks"]["custom"])


def checked(config: dict[str, Any]) -> dict[str, str]:
    """Return those addresses of the hook's table that are filled in."""
    found = {name: config[name] for name in ("repository", "documentation") if config[name]}
    for name, address in found.items():
        if not re.fullmatch(r"https://[\w.-]+(/[\w.~-]+)*", address):
            message = (
                f"pyproject.toml: {name} = {address!r} is no address; "
                "give one that begins with https:// and ends without a slash"
            )
            raise ValueError(message)
    if found and "repository" not in found:
        message = "pyproject.toml: documentation is given without repository; give both"
        raise ValueError(message)
    return found


def project_urls(addresses: dict[str, str]) -> dict[str, str]:
    """Return what the metadata name, and the package's page shows beside the text."""
    if not addresses:
        return {}
    repository = addresses["repository"]
    pages = addresses.get("documentation", f"{repository}/blob/main/docs/index.md")
    return {
        "Repository": repository,
        "Documentation": pages,
        "Issues": f"{repository}/issues",
        "Changelog": f"{repository}/blob/main/CHANGELOG.md",
    }


def absolute(readme: str, addresses: dict[str, str], version: str) -> str:
    """Return the text of README with links and pictures of the release's own files.

    Pages of the documentation are linked to where they are served, if that is known.
    """
    if not addresses:
        return readme

    def link(found: re.Match[str]) -> str:
        picture, words, name, part = found.groups("")
        path = Path(name)
        address = f"{addresses['repository']}/{'raw' if picture else 'blob'}/v{version}/{name}"
        if "documentation" in addresses and path.parts[0] == "docs" and path.suffix == ".md":
            page = path.relative_to("docs").with_suffix(".html").as_posix()
            address = f"{addresses['documentation']}/{page}"
        return f"{picture}[{words}]({address}{part})"

    return LINK.sub(link, readme)


def filled_in(text: str, keys: dict[str, str], addresses: dict[str, str]) -> str:
    """Return a file of `KEYS` with these addresses at its end, and no others."""
    lines = [line for line in text.splitlines() if line.partition(":")[0] not in keys]
    lines += [f'{key}: "{addresses[name]}"' for key, name in keys.items() if name in addresses]
    return "\n".join(lines) + "\n"


class AddressHook(MetadataHookInterface):
    """Says where the project is kept, in the metadata and in the links of README."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in the dynamic fields."""
        addresses = checked(self.config)
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": absolute(readme, addresses, metadata["version"]),
        }
        metadata["urls"] = project_urls(addresses)


def main() -> None:
    """Put the addresses into the files of `KEYS`."""
    addresses = setting()
    for name, keys in KEYS.items():
        path = CHECKOUT / name
        path.write_text(filled_in(path.read_text("utf-8"), keys, addresses), encoding="utf-8")
        sys.stdout.write(f"{name}: {', '.join(addresses.values()) or 'no addresses'}\n")


if __name__ == "__main__":
    main()
