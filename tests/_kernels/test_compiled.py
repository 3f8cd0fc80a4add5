"""A kernel compiled with older code is not used, and there is always a folder to keep it in."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from napari_gaussfit import _kernels
from napari_gaussfit._kernels import compiled
from napari_gaussfit.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(_kernels.__file__).parent
CPU = sorted(f"cpu.{path.stem}" for path in HERE.glob("cpu/[!_]*.py"))
CUDA = sorted(f"cuda.{path.stem}" for path in HERE.glob("cuda/[!_]*.py"))

PACKED_AMPLITUDE = """
import torch
from napari_gaussfit._kernels.cpu import backend, grid_kernels
one = torch.ones(1)
print(float(backend.pack(torch.zeros(1, 3), torch.zeros(1, 6), one, 1e-6)[0, 0]))
print(sum(grid_kernels.pack.stats.cache_hits.values()))
print(grid_kernels.pack.stats.cache_path)
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package alone, in a folder of its own: nothing is compiled yet."""
    shutil.copytree(
        HERE.parent, tmp_path / "lib" / HERE.parent.name, ignore=lambda *_: {"__pycache__"}
    )
    return tmp_path / "lib"


A_MIP_AND_ITS_GRADIENT = """
import hashlib
import torch
from napari_gaussfit import _kernels
from scenes import FIELDS, make_rays

leaves = FIELDS["overlapping"](seed=1).leaves(torch.float32)
image = _kernels.mip(*leaves, make_rays("orthographic", (65, 70)), cutoff=1e-4, bin_step=3)
for tensor in (image.detach(), *torch.autograd.grad(image.square().sum(), leaves)):
    print(hashlib.sha256(tensor.numpy()).hexdigest())
"""


def run(lib: Path, *command: str, before: tuple[str, ...] = (), **environment: str) -> list[str]:
    """Run Python with a copy of the package; return the lines that it printed."""
    known = os.environ | {"PYTHONPATH": str(lib)} | environment
    program = [*before, sys.executable, *command]
    done = subprocess.run(program, capture_output=True, text=True, env=known, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def kernels_in(module: Any) -> Iterator[Any]:
    """Yield what numba compiles and keeps of a module's functions."""
    for value in vars(module).values():
        ours = hasattr(value, "py_func") and value.py_func.__module__ == module.__name__
        if ours and hasattr(value._cache, "_impl"):
            yield value


def count(names: list[str]) -> int:
    """Count the kernels of modules."""
    modules = (importlib.import_module(f"{_kernels.__name__}.{name}") for name in names)
    return sum(len([*kernels_in(module)]) for module in modules)


def called_by(kernel: Any) -> Iterator[Path]:
    """Yield the files of this package whose functions a kernel calls by their names."""
    known = kernel.py_func.__globals__
    for name in kernel.py_func.__code__.co_names:
        value = getattr(known.get(name), "py_func", known.get(name))
        module = value if inspect.ismodule(value) else inspect.getmodule(value)
        file = getattr(module, "__file__", None)
        if file is not None and HERE in Path(file).parents:
            yield Path(file)


@pytest.mark.parametrize(
    "name",
    [
        *CPU,
        *(
            pytest.param(name, marks=pytest.mark.skipif(sys.platform == "darwin", reason="no CUDA"))
            for name in CUDA
        ),
    ],
)
def test_every_kernel_is_stamped_with_the_code_that_it_calls(name: str) -> None:
    module = importlib.import_module(f"napari_gaussfit._kernels.{name}")
    for kernel in kernels_in(module):
        assert isinstance(kernel._cache._impl.locator, compiled.KernelLocator), kernel
        missing = set(called_by(kernel)) - compiled.sources_of(Path(module.__file__))
        assert not missing, f"{kernel} is used although {missing} changed"


def test_every_import_of_a_kernels_source_is_found() -> None:
    for path in HERE.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        known = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                known |= {("", one.name) for one in node.names}
            elif isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                known |= {(module, one.name) for one in node.names}
        assert {*compiled.names_imported(source)} == known, path


def test_imports_are_found_however_they_are_written() -> None:
    source = (
        "import a.b as c, d  # e\n"
        "def f():\n    from .g import (  # h)\n        i as j,\n        k,\n    )\n"
        "from l \\\n    import m\n"
    )
    expected = {("", "a.b"), ("", "d"), (".g", "i"), (".g", "k"), ("l", "m")}
    assert {*compiled.names_imported(source)} == expected


def parts_of(kernel: Any) -> Iterator[Any]:
    """Yield the functions compiled by numba that a kernel calls, or they in their turn."""
    for name in kernel.py_func.__code__.co_names:
        value = kernel.py_func.__globals__.get(name)
        # A name may also be of a module's function that this one is called after.
        if hasattr(value, "py_func") and value is not kernel:
            yield value
            yield from parts_of(value)


@pytest.mark.parametrize("name", CPU)
def test_a_kernel_holds_all_that_it_calls(name: str) -> None:
    """What does not is compiled by itself too, and a copy of it, which LLVM optimises again."""
    module = importlib.import_module(f"napari_gaussfit._kernels.{name}")
    for kernel in kernels_in(module):
        for part in parts_of(kernel):
            options = part.targetoptions
            held = options.get("forceinline") or options.get("inline") == "always"
            assert held, f"{kernel} calls {part}, which is compiled by itself"


def test_the_process_that_compiles_computes_what_later_ones_do(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(HERE.parents[1]), str(Path(__file__).parent)])
    cache = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": paths}
    # Of all kernels the longest, whose parts are too large for LLVM to inline by itself.
    first, second = (run(tmp_path, "-c", A_MIP_AND_ITS_GRADIENT, **cache) for _ in range(2))
    assert first == second


def test_both_backends_have_kernels_that_are_kept() -> None:
    assert count(CPU) > 25
    if sys.platform != "darwin":
        assert count(CUDA) > 20


def test_a_kernel_is_kept_until_a_function_that_it_calls_is_changed(copy: Path) -> None:
    assert run(copy, "-c", PACKED_AMPLITUDE)[:2] == ["1.0", "0"]
    assert run(copy, "-c", PACKED_AMPLITUDE)[:2] == ["1.0", "1"]
    source = copy / "napari_gaussfit" / "_kernels" / "shared" / "gaussian.py"
    text = source.read_text(encoding="utf-8")
    old, new = "AMPLITUDE] = amplitude", "AMPLITUDE] = F(3) * amplitude"
    assert text.count(old) == 1
    source.write_text(text.replace(old, new), encoding="utf-8")
    assert run(copy, "-c", PACKED_AMPLITUDE)[:2] == ["3.0", "0"]


def test_a_change_of_device_functions_is_one_of_the_kernels_that_call_them(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = copy / "napari_gaussfit" / "_kernels"
    monkeypatch.setattr(compiled, "SOURCE", copy)
    monkeypatch.setattr(compiled, "KERNELS", kernels)

    def stamps() -> dict[str, str]:
        compiled.stamp_of.cache_clear()
        return {
            f"{path.parent.name}.{path.stem}": compiled.stamp_of(path)
            for path in kernels.glob("c*/[!_]*.py")
        }

    before = stamps()
    with (kernels / "cuda" / "device.py").open("a") as file:
        file.write("# changed\n")
    changed = {name for name, stamp in stamps().items() if stamp != before[name]}
    assert {"cuda.device", "cuda.mip_kernels", "cuda.grid_kernels"} <= changed
    assert not {name for name in changed if name.startswith("cpu.")}


@pytest.mark.skipif(os.name == "nt", reason="folders of Windows are not made read-only so")
class TestWithoutAFolderOfOurOwn:
    """A read-only installation, and a home that cannot be written: a server's, a container's."""

    @pytest.fixture
    def read_only(self, copy: Path) -> Iterator[Path]:
        folders = [copy, *(path for path in copy.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        yield copy
        for folder in folders:
            folder.chmod(0o755)

    @pytest.fixture
    def unprivileged(self) -> tuple[str, ...]:
        """What takes from root the right to write where nobody may."""
        if os.getuid() != 0:
            return ()
        return ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")

    def test_kernels_are_kept_in_a_temporary_folder_and_info_says_so(
        self,
        read_only: Path,
        unprivileged: tuple[str, ...],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        places = {"HOME": str(read_only), "TMPDIR": str(temporary), "NUMBA_CACHE_DIR": ""}
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        for hits in ("0", "1"):
            found = run(read_only, "-c", PACKED_AMPLITUDE, before=unprivileged, **places)
            assert found[:2] == ["1.0", hits]
            assert temporary in Path(found[2]).parents
        [kept] = temporary.glob("napari-gaussfit*")
        assert kept.stat().st_mode & 0o777 == 0o700
        info = "from napari_gaussfit.cli import main; main(['info'])"
        said = run(read_only, "-c", info, before=unprivileged, **places)
        [line] = [line for line in said if line.startswith("kernels")]
        assert found[2] in line
        assert "until that is cleared" in line
        assert "NUMBA_CACHE_DIR" in line

    @pytest.fixture
    def temporary(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """The folder for temporary files, as another user could have prepared it."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        compiled.temporary_folder.cache_clear()
        yield tmp_path
        compiled.temporary_folder.cache_clear()

    def test_the_same_folder_serves_again(self, temporary: Path) -> None:
        first = compiled.temporary_folder()
        compiled.temporary_folder.cache_clear()
        assert compiled.temporary_folder() == first
        assert first.parent == temporary / f"{compiled.TEMPORARY}{os.getuid()}"

    @pytest.mark.parametrize("prepared", ["open to all", "a link", "a file"])
    def test_a_folder_that_others_can_write_is_not_trusted(
        self, temporary: Path, prepared: str
    ) -> None:
        usual = temporary / f"{compiled.TEMPORARY}{os.getuid()}"
        if prepared == "open to all":
            usual.mkdir()
            usual.chmod(0o777)
        elif prepared == "a link":
            (temporary / "elsewhere").mkdir(mode=0o700)
            usual.symlink_to(temporary / "elsewhere")
        else:
            usual.touch()
        own = compiled.temporary_folder().parent
        assert own != usual
        assert own.stat().st_mode & 0o777 == 0o700
        assert compiled.is_temporary(own)

    def test_no_folder_at_all_is_one_line_that_says_what_to_set(self, temporary: Path) -> None:
        shutil.rmtree(temporary)
        with pytest.raises(OutputError, match=r"no folder for compiled .* set NUMBA_CACHE_DIR"):
            compiled.temporary_folder()
