"""Public names say what they take, give and raise, and their examples are true."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from numpydoc.docscrape import NumpyDocString
from numpydoc.validate import validate

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "napari_gaussfit"

REFERENCE = Path(__file__).parents[1] / "docs" / "api" / "index.md"

SOURCE = Path(__file__).parents[1] / "src" / PACKAGE

SOURCES = sorted(SOURCE.rglob("*.py"))

LISTED = re.compile(r"^   ([a-z][\w.]*)$", re.MULTILINE)

MODULES = [f"{PACKAGE}.{name}" for name in LISTED.findall(REFERENCE.read_text(encoding="utf-8"))]
"""The public modules: those that have a page in the reference."""

RULES = {
    "GL06": "a section that numpydoc knows",
    "GL07": "sections in numpydoc's order",
    "GL08": "a docstring",
    "GL09": "deprecation warnings in their place",
    "SS01": "a summary",
    "SS03": "a summary that ends with a period",
    "SS04": "a summary without leading spaces",
    "SS05": "a summary that says what to do, not what is done",
    "PR01": "all parameters",
    "PR02": "no parameter that there is not",
    "PR03": "parameters in their order",
    "PR04": "a type for each parameter",
    "PR05": "a type without a period",
    "PR06": "types by their Python names",
    "PR07": "a description for each parameter",
    "PR09": "descriptions that end with a period",
    "PR10": "a space before the colon",
    "RT01": "what is returned, where there are parameters; else the summary says it",
    "RT03": "a description of what is returned",
    "RT05": "a description of what is returned that ends with a period",
    "YD01": "what is yielded",
}
"""What numpydoc's validation must not miss.

Not asked for: examples (EX01), see-also sections (SA01) and extended summaries (ES01) everywhere,
and capitals where a symbol of the formulas begins a line (SS02, PR08, RT04).
"""


def public_objects(module_name: str) -> Iterator[tuple[str, Any]]:
    """Yield a module's own public classes, functions, methods and properties, by full name."""
    module = importlib.import_module(module_name)
    for name, thing in vars(module).items():
        ours = getattr(thing, "__module__", None) == module_name
        if name.startswith("_") or not ours or not (inspect.isclass(thing) or callable(thing)):
            continue
        if inspect.isclass(thing) or inspect.isfunction(thing):
            yield f"{module_name}.{name}", thing
        if inspect.isclass(thing) and Protocol not in thing.__bases__:
            for member, value in vars(thing).items():
                if not member.startswith("_") and (
                    inspect.isfunction(value)
                    or isinstance(value, (property, classmethod, staticmethod))
                ):
                    yield f"{module_name}.{name}.{member}", value


OBJECTS = {name: thing for module in MODULES for name, thing in public_objects(module)}


def takes_parameters(thing: Any) -> bool:
    """Tell whether a function has parameters beside self or cls."""
    if isinstance(thing, property):
        return False
    function = getattr(thing, "__func__", thing)
    return bool(set(inspect.signature(function).parameters) - {"self", "cls"})


def asked_of(thing: Any) -> set[str]:
    """Return the rules that hold for an object."""
    rules = set(RULES)
    if inspect.isclass(thing) and (issubclass(thing, Enum) or Protocol in thing.__bases__):
        rules -= {"PR01"}  # nobody calls them
    if not inspect.isclass(thing) and not takes_parameters(thing):
        rules -= {"RT01"}
    return rules


@pytest.mark.parametrize("name", OBJECTS)
def test_docstring_is_complete(name: str) -> None:
    rules = asked_of(OBJECTS[name])
    missed = [f"{code}: {text}" for code, text in validate(name)["errors"] if code in rules]
    assert not missed, f"{name}: {'; '.join(missed)}"


def described(path: Path) -> Iterator[tuple[str, str]]:
    """Yield a module's parameters and attributes, private ones too, with what is said of them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            sections = NumpyDocString(ast.get_docstring(node) or "")
            for line in (*sections["Parameters"], *sections["Attributes"]):
                yield f"{path.name}: {node.name}, {line.name}", " ".join(line.desc)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_what_is_said_of_a_parameter_is_more_than_its_name(path: Path) -> None:
    short = {name: text for name, text in described(path) if text and len(text.split()) <= 3}
    assert not short


@pytest.mark.parametrize("name", [PACKAGE, *MODULES])
def test_module_says_what_it_is_for(name: str) -> None:
    words = (importlib.import_module(name).__doc__ or "").split()
    assert len(words) >= 5, f"{name}: {' '.join(words)!r}"


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name: str) -> None:
    failed, _ = doctest.testmod(
        importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert not failed, f"{name}: {failed} examples give something else, see above"


def test_there_are_examples_to_try() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = sum(len(t.examples) for m in MODULES for t in finder.find(importlib.import_module(m)))
    assert found >= 10, f"{found} lines of examples in all public modules"


def test_what_the_package_exports_is_in_the_reference() -> None:
    package = importlib.import_module(PACKAGE)
    offered = {name: getattr(package, name) for name in package.__all__}
    homes = {
        name: thing.__name__ if inspect.ismodule(thing) else thing.__module__
        for name, thing in offered.items()
    }
    missing = {name: home for name, home in homes.items() if home not in MODULES}
    assert not missing, f"these modules have no page: {missing}"
