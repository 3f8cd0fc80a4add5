"""The package itself: what an import costs, what it ships, which part knows which."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections import Counter
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "napari_gaussfit"
IMPORT_BUDGET_S = 0.1
HEAVY = {"torch", "numba", "napari", "scipy", "skimage", "tifffile", "pandas", "matplotlib"}
QT = {"qtpy", "PyQt5", "PyQt6", "PySide2", "PySide6", "pyqtgraph", "superqt"}
GUI = QT | {"napari", "magicgui", "vispy"}

# From the top down. What a layer imports, directly or through others, stands below it.
LAYERS = {
    PACKAGE: [
        {"__main__"},
        {"_napari", "cli"},
        {"jobs"},
        {"synthetic", "plots"},
        {"objects"},
        {"fitting"},
        {"formats"},
        {"measure"},
        {"model"},
        {"stacks"},
        {"_kernels"},
        {"files", "settings"},
        {"errors", "_limits", "_threads"},
    ],
    f"{PACKAGE}._napari": [{"panel"}, {"worker", "reader", "writer", "samples"}, {"layers"}],
}

ROOMS = [
    *LAYERS,
    *(f"{PACKAGE}.{part}" for layer in LAYERS[PACKAGE][2:10] for part in sorted(layer)),
    *(f"{PACKAGE}._napari.{part}" for part in ("panel", "layers")),
]
"""Packages in which no module imports itself through others. In `_kernels` the face picks a backend
that takes shapes from beside it."""


def run(*command: str | Path) -> str:
    """Run a program in a process of its own and return what it printed."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (
        f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}"
    )
    return done.stdout


@dataclass(frozen=True)
class Wheel:
    """The built wheel, and an environment in which it is installed."""

    files: frozenset[str]
    python: Path
    home: Path

    def run(self, *arguments: str) -> str:
        """Run Python there, deaf to what PYTHONPATH would lend it."""
        return run(self.python, "-I", *arguments)


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """Build the wheel and install it alone, with its dependencies lent by this environment."""
    built = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", built, checkout)
    [archive] = built.glob("*.whl")

    home = tmp_path_factory.mktemp("home")
    builder = venv.EnvBuilder(with_pip=False)
    builder.create(home)
    python = Path(builder.ensure_directories(home).env_exe)
    # A folder that a .pth file adds has its own .pth files left unread, so the editable install
    # in this environment cannot stand in for the wheel.
    site_packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    lent = Path(site_packages.strip()) / "lent.pth"
    lent.write_text(sysconfig.get_path("purelib"))
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", archive)

    with zipfile.ZipFile(archive) as contents:
        return Wheel(frozenset(contents.namelist()), python, home)


def imports_of(path: Path, root: Path) -> Iterator[str]:
    """Yield the full names of all modules that a file imports, also inside functions."""
    package = [*path.relative_to(root).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def distributions(requirements: list[str]) -> set[str]:
    """Return the names of required distributions, as an index spells them."""
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def distributions_imported_below(folder: Path) -> set[str]:
    """Return the distributions that the modules in a folder import, also inside functions."""
    offered = packages_distributions()
    tops = {
        name.partition(".")[0] for path in folder.rglob("*.py") for name in imports_of(path, folder)
    }
    own = {path.stem for path in folder.rglob("*.py")} | {folder.name, PACKAGE}
    return {
        canonicalize_name(distribution)
        for top in tops - own - sys.stdlib_module_names
        for distribution in offered.get(top, [top])
    }


def part_of(module: str, package: str) -> str:
    """Name the part of a package that holds a module: ``formats.csv`` is in ``formats``."""
    return module.removeprefix(package).removeprefix(".").partition(".")[0]


def parts_imported_by_parts(root: Path, package: str = PACKAGE) -> dict[str, set[str]]:
    """Say for each part of a package which other parts it imports.

    A name taken from the package's face, as in ``from napari_gaussfit import Stack``, counts as an
    import of the face (``__init__``), and so of all that the face offers.
    """
    paths = {
        path: part_of(".".join(path.relative_to(root).with_suffix("").parts), package)
        for path in sorted(root.joinpath(*package.split(".")).rglob("*.py"))
    }
    graph: dict[str, set[str]] = {part: set() for part in paths.values()}
    for path, part in paths.items():
        inside = {
            part_of(name, package) for name in imports_of(path, root) if is_inside(name, package)
        }
        graph[part] |= {name if name in graph else "__init__" for name in inside}
    return {part: below - {part} for part, below in graph.items()}


def is_inside(module: str, package: str) -> bool:
    """Tell whether an import is of a package, its version aside: anyone may name that."""
    return f"{module}.".startswith(f"{package}.") and module != f"{PACKAGE}.__version__"


def reached_from(part: str, graph: dict[str, set[str]]) -> set[str]:
    """Collect the parts that a part imports, directly or through others."""
    reached: set[str] = set()
    ahead = [part]
    while ahead:
        fresh = graph.get(ahead.pop(), set()) - reached
        reached |= fresh
        ahead += fresh
    return reached


@pytest.fixture(scope="module")
def source(checkout: Path) -> Path:
    return checkout / "src"


def test_import_takes_less_than_a_tenth_of_a_second() -> None:
    """Of work, at best: what else the machine is busy with is not the package's."""

    def seconds(program: str) -> float:
        return float(
            run(sys.executable, "-c", f"{program}; import time; print(time.process_time())")
        )

    runs = [(seconds("pass"), seconds(f"import {PACKAGE}")) for _ in range(5)]
    bare, with_import = (min(times) for times in zip(*runs, strict=True))
    cost = with_import - bare
    assert cost < IMPORT_BUDGET_S, f"import {PACKAGE} takes {cost:.3f} s"


def test_import_loads_no_library_that_is_not_used_yet() -> None:
    loaded = run(sys.executable, "-c", f"import {PACKAGE}, sys; print(*sys.modules)").split()
    early = (HEAVY | GUI) & set(loaded)
    assert not early, f"import {PACKAGE} loads {sorted(early)}"


def test_every_public_name_loads() -> None:
    package = importlib.import_module(PACKAGE)
    assert {name for name in package.__all__ if not hasattr(package, name)} == set()
    assert set(package.__all__) <= set(dir(package))


def test_version_is_that_of_the_metadata(checkout: Path) -> None:
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    assert importlib.import_module(PACKAGE).__version__ == project["version"]


def test_manifest_is_valid_in_this_environment() -> None:
    assert "valid!" in run(sys.executable, "-m", "npe2", "validate", "--imports", PACKAGE)


def test_manifest_says_where_the_plugin_is_to_be_found() -> None:
    from npe2 import PluginManifest

    manifest = PluginManifest.from_distribution("napari-gaussfit")
    found = {str(one) for one in manifest.categories}
    assert found == {"Measurement", "Image Processing", "Visualization", "IO"}


def test_the_icon_is_a_picture_that_the_wheel_holds(wheel: Wheel, source: Path) -> None:
    text = (source / PACKAGE / "napari.yaml").read_text(encoding="utf-8")
    package, _, name = yaml.safe_load(text)["icon"].partition(":")
    path = f"{package.replace('.', '/')}/{name}"
    assert path in wheel.files
    assert ET.parse(source / path).getroot().tag.endswith("svg")


def test_manifest_at_the_top_is_the_packages_own(checkout: Path, source: Path) -> None:
    assert (checkout / "napari.yaml").samefile(source / PACKAGE / "napari.yaml")


def test_manifest_is_valid_in_the_wheel(wheel: Wheel) -> None:
    assert "valid!" in wheel.run("-m", "npe2", "validate", "--imports", PACKAGE)


def test_wheel_installs_the_package_and_not_the_checkout(wheel: Wheel) -> None:
    place = wheel.run("-c", f"import {PACKAGE}; print({PACKAGE}.__file__)").strip()
    assert Path(place).is_relative_to(wheel.home)


def test_wheel_ships_every_module_its_types_and_its_licence(wheel: Wheel, source: Path) -> None:
    wanted = {path.relative_to(source).as_posix() for path in (source / PACKAGE).rglob("*.py")}
    wanted |= {f"{PACKAGE}/py.typed", f"{PACKAGE}/napari.yaml"}
    assert wanted <= wheel.files, f"left out of the wheel: {sorted(wanted - wheel.files)}"
    assert any(name.endswith("licenses/LICENSE") for name in wheel.files)


def test_nothing_that_is_built_is_kept(checkout: Path) -> None:
    if not (checkout / ".git").exists():
        pytest.skip("needs a git checkout")
    kept = run("git", "-C", checkout, "ls-files", "--cached", "--ignored", "--exclude-standard")
    assert not kept, f"git has what .gitignore names: {kept.split()[:5]}"


def test_what_is_imported_is_declared(checkout: Path, source: Path) -> None:
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = distributions(project["dependencies"])
    optional = distributions(extras["cuda13"] + extras["scale"] + extras["completion"])
    imported = distributions_imported_below(source)
    assert imported <= declared | optional, f"undeclared: {imported - declared - optional}"
    assert declared - imported == {"imagecodecs"}, "all are imported, and what tifffile asks for"

    tested = distributions_imported_below(checkout / "tests") - {"benchmarks"}
    assert tested <= declared | distributions(extras["test"] + extras["mlir"]), tested


def test_only_the_napari_layer_imports_napari_or_qt(source: Path) -> None:
    offences = [
        f"{path.relative_to(source)} imports {name}"
        for path in sorted((source / PACKAGE).rglob("*.py"))
        if "_napari" not in path.parts
        for name in imports_of(path, source)
        if name.partition(".")[0] in GUI
    ]
    assert not offences, offences


@pytest.mark.parametrize("package", LAYERS)
def test_imports_run_downwards(source: Path, package: str) -> None:
    graph = parts_imported_by_parts(source, package)
    above: set[str] = set()
    for layer in LAYERS[package]:
        for part in layer:
            upwards = above & reached_from(part, graph)
            assert not upwards, f"{part} reaches {sorted(upwards)}, which stand above it"
        above |= layer
    assert above == set(graph) - {"__init__"}, "every part has its layer"


@pytest.mark.parametrize("package", ROOMS)
def test_no_two_parts_import_each_other(source: Path, package: str) -> None:
    try:
        TopologicalSorter(parts_imported_by_parts(source, package)).prepare()
    except CycleError as error:
        pytest.fail(f"imports go round: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(("folder", "most"), [(".", 7), ("_kernels", 5), ("_napari", 5)])
def test_few_modules_lie_in_no_folder_of_their_own(source: Path, folder: str, most: int) -> None:
    assert len(list((source / PACKAGE / folder).glob("*.py"))) <= most


def test_no_two_tests_have_one_name(checkout: Path) -> None:
    """Pytest would collect but one of them, and end."""
    names = Counter(path.name for path in (checkout / "tests").rglob("test_*.py"))
    assert not [name for name, count in names.items() if count > 1]


def test_every_kind_of_import_counts_for_the_layers(tmp_path: Path) -> None:
    package = tmp_path / PACKAGE
    (package / "io").mkdir(parents=True)
    for name, text in {
        "__init__.py": "if TYPE_CHECKING:\n    from .stack import Stack",
        "field.py": f"from {PACKAGE} import __version__",
        "stack.py": f"from {PACKAGE} import field",
        "camera.py": "def late():\n    from .stack import Stack",
        "io/csv.py": f"import os\nfrom ..camera import Camera\nimport {PACKAGE}.field",
        "cli.py": f"from {PACKAGE} import Stack",
    }.items():
        (package / name).write_text(text)

    graph = parts_imported_by_parts(tmp_path)

    assert graph == {
        "__init__": {"stack"},
        "cli": {"__init__"},
        "field": set(),
        "stack": {"field"},
        "camera": {"stack"},
        "io": {"camera", "field"},
    }
    assert reached_from("io", graph) == {"camera", "stack", "field"}
    assert reached_from("cli", graph) == {"__init__", "stack", "field"}


def test_the_windows_process_loads_no_torch(source: Path) -> None:
    """Where torch cannot be loaded beside Qt, the panel opens all the same; a fit has its own."""
    package = source / PACKAGE
    parts = [*(package / "_napari").rglob("*.py"), *(package / "jobs").glob("*.py")]
    names = [".".join(path.relative_to(source).with_suffix("").parts) for path in parts]
    modules = ", ".join(name.removesuffix(".__init__") for name in names)
    loaded = run(sys.executable, "-c", f"import sys, {modules}; print(*sys.modules)").split()
    assert f"{PACKAGE}.model.field" in loaded
    assert "torch" not in loaded
