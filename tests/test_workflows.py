"""What CI is told to run is there, and on what the package says that it runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

CHECKOUT = Path(__file__).parents[1]
WORKFLOWS = sorted((CHECKOUT / ".github" / "workflows").glob("*.yml"))
PROJECT: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]

SYSTEMS = {"POSIX :: Linux": "ubuntu", "Microsoft :: Windows": "windows", "MacOS": "macos"}


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def classified(kind: str) -> set[str]:
    """Return what the package's classifiers of a kind say."""
    return {line.removeprefix(kind) for line in PROJECT["classifiers"] if line.startswith(kind)}


def targets() -> set[str]:
    text = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))


def test_every_system_and_python_that_is_promised_is_tested() -> None:
    matrix = read(CHECKOUT / ".github" / "workflows" / "tests.yml")["jobs"]["test"]["strategy"]
    systems = {name.partition("-")[0] for name in matrix["matrix"]["os"]}
    assert systems == {SYSTEMS[name] for name in classified("Operating System :: ")}
    versions = classified("Programming Language :: Python :: 3.")
    assert set(matrix["matrix"]["python"]) == {f"3.{minor}" for minor in versions}
    assert PROJECT["requires-python"] == f">=3.{min(versions, key=int)}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_what_the_makefile_has_and_may_not_run_for_ever(path: Path) -> None:
    for name, job in read(path)["jobs"].items():
        assert job["timeout-minutes"] <= 180, name
        for step in job["steps"]:
            called = set(re.findall(r"\bmake ([a-z-]+)", step.get("run", "")))
            assert called <= targets(), name


def test_the_tests_that_make_names_are_there() -> None:
    text = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"\btests/[\w/.]+", text))
    assert named
    assert not {path for path in named if not (CHECKOUT / path).exists()}


def test_tests_of_one_file_run_in_one_process(tmp_path: Path) -> None:
    """They share what they fit; xdist's groups, which once said so, did nothing with pytest 9.2."""
    text = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    [options] = re.findall(
        r"^SIDE_BY_SIDE := -n logical --maxprocesses 4 (.+)$", text, re.MULTILINE
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    for name in "abc":
        (tmp_path / f"test_{name}.py").write_text(
            "import os, pytest\n"
            "@pytest.mark.parametrize('n', range(5))\n"
            f"def test(n): open('{name}', 'a').write(f'{{os.getpid()}}\\n')\n"
        )
    subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "xdist", "-n", "2", *options.split(), "."],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    processes = [(tmp_path / name).read_text().split() for name in "abc"]
    assert [len(of_file) for of_file in processes] == [5, 5, 5]
    assert [len(set(of_file)) for of_file in processes] == [1, 1, 1]
    assert len(set().union(*processes)) == 2


def test_only_the_release_may_publish() -> None:
    for path in WORKFLOWS:
        content = read(path)
        assert content["permissions"] == {"contents": "read"}, path.name
        allowed = {name for name, job in content["jobs"].items() if "permissions" in job}
        assert allowed == ({"publish"} if path.name == "release.yml" else set()), path.name


def test_what_is_cited_is_this_version() -> None:
    citation = read(CHECKOUT / "CITATION.cff")
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [
        author["name"] for author in PROJECT["authors"]
    ]


def test_the_conda_recipe_asks_for_what_the_package_does() -> None:
    recipe = read(CHECKOUT / "recipe" / "recipe.yaml")
    assert recipe["context"]["version"] == PROJECT["version"]
    assert recipe["about"]["summary"] == PROJECT["description"]
    assert recipe["about"]["license"] == PROJECT["license"]
    [command] = recipe["build"]["python"]["entry_points"]
    assert dict([command.split(" = ")]) == PROJECT["scripts"]
    own_names = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
    expected = {"python " + PROJECT["requires-python"]}
    for requirement in PROJECT["dependencies"]:
        name, least = requirement.split(">=")
        expected.add(f"{own_names.get(name, name)} >={least}")
    assert set(recipe["requirements"]["run"]) == expected
