"""The CUDA backend without a GPU: in the simulator, as PTX, and its word on why it is not used."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from napari_gaussfit import _kernels
from napari_gaussfit._kernels import cuda as gpu
from napari_gaussfit._kernels.cuda import device
from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
CAPABILITIES = ("7.5", "9.0", "12.0")


def run(*command: str, **environment: str) -> str:
    """Run Python with the tests' folder on its path and return what it printed."""
    paths = [str(HERE), str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    known = os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | environment
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=known, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return done.stdout


where_numba_cuda_is = pytest.mark.skipif(
    sys.platform == "darwin", reason="numba-cuda and NVVM are for Linux and Windows"
)


@where_numba_cuda_is
@pytest.mark.slow
def test_every_kernel_agrees_with_the_reference_in_the_simulator() -> None:
    """All of `simulated.py`; what fails there is printed here."""
    options = ["-q", "-x", "-p", "no:cacheprovider", "--durations=5"]
    said = run("-m", "pytest", str(HERE / "simulated.py"), *options, NUMBA_ENABLE_CUDASIM="1")
    assert " passed" in said, said
    assert "skipped" not in said, said


@pytest.fixture(scope="module")
def compiled() -> str:
    """What `ptx.py` says: numba's part of it is the same for all GPUs, and done once."""
    return run(str(HERE / "ptx.py"), *CAPABILITIES)


@where_numba_cuda_is
@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_kernel_compiles_to_ptx_without_f64(capability: str, compiled: str) -> None:
    """On no GPU at all; `ptx.py` says which kernel has what it should not have."""
    assert compiled.count(f" for {capability} ok\n") > 20, compiled


@where_numba_cuda_is
@pytest.mark.slow
def test_every_kernel_is_linked_and_its_block_has_room(compiled: str) -> None:
    """In shared memory, of which a kernel may have 48 KB, and threads in their registers."""
    assert compiled.count(" linked: ") == compiled.count(f" for {CAPABILITIES[0]} ok\n"), compiled


@where_numba_cuda_is
@pytest.mark.slow
def test_compiled_code_computes_what_the_cpu_does(compiled: str) -> None:
    """Its PTX, run instruction by instruction: by nothing of numba's simulator."""
    assert compiled.count(" as compiled ok\n") == 4, compiled


@where_numba_cuda_is
def test_numba_is_given_one_object_for_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps what it prepares of launches by it."""
    from numba import cuda

    monkeypatch.setattr(cuda, "external_stream", lambda _: object())
    device._stream.cache_clear()
    first = device._stream(0, 7)
    assert device._stream(0, 7) is first
    assert device._stream(0, 8) is not first
    assert device._stream(1, 7) is not first
    device._stream.cache_clear()


@pytest.fixture
def fresh() -> Iterator[None]:
    """Reasons are kept between calls: ask anew, and let nobody else believe what is pretended."""
    gpu.why_not.cache_clear()
    yield
    gpu.why_not.cache_clear()


@pytest.mark.usefixtures("fresh")
class TestWhyNot:
    """Each reason says what is missing and what to install."""

    @pytest.fixture(autouse=True)
    def pretended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A torch that sees a GPU, as far as it is asked."""
        monkeypatch.setattr(torch.version, "cuda", "12.8")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Thing 1")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))

    def test_torch_where_numba_cuda_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.version, "cuda", None)
        with pytest.raises(SettingsError, match=r"built without CUDA; install a CUDA build"):
            _kernels.device_named("cuda")

    def test_no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(SettingsError, match=r"no NVIDIA GPU; check that `nvidia-smi` lists"):
            _kernels.device_named("cuda")

    def test_no_such_gpu(self) -> None:
        with pytest.raises(SettingsError, match=r"there is no GPU 3: torch sees 1"):
            _kernels.device_named("cuda:3")

    def test_an_old_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 1))
        with pytest.raises(SettingsError, match=r"Thing 1 has compute capability 6\.1; 7\.5 or"):
            _kernels.device_named("cuda")

    def test_no_numba_cuda(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu, "find_spec", lambda _: None)
        with pytest.raises(SettingsError, match=r"install napari-gaussfit\[cuda12\]"):
            _kernels.device_named("cuda")

    @where_numba_cuda_is
    def test_a_kernel_that_does_not_run(self) -> None:
        """As here, where the GPU is only pretended."""
        with pytest.raises(SettingsError, match=r"a first kernel did not run on Thing 1 \("):
            _kernels.device_named("cuda")

    @pytest.mark.parametrize(
        ("packages", "advice"),
        [
            (
                {"nvidia-nvvm": "13.5.37", "nvidia-nvjitlink": "13.0.88"},
                (
                    "nvidia-nvvm 13.5.37 compiles for a newer CUDA than nvidia-nvjitlink 13.0.88 "
                    'links: run pip install "nvidia-nvvm==13.0.*"'
                ),
            ),
            (
                {"nvidia-cuda-nvcc-cu12": "12.9.86", "nvidia-nvjitlink-cu12": "12.8.93"},
                (
                    "nvidia-cuda-nvcc-cu12 12.9.86 compiles for a newer CUDA than "
                    "nvidia-nvjitlink-cu12 12.8.93 links: run pip install "
                    '"nvidia-cuda-nvcc-cu12==12.8.*"'
                ),
            ),
            (
                {"numpy": "2.5.0", "numba-cuda": "0.30.4"},
                'numba-cuda 0.30.4 does not work with numpy 2.5.0: run pip install "numpy<2.5"',
            ),
            ({"numpy": "2.4.6", "numba-cuda": "0.30.4"}, "update the driver, or install"),
            (
                {"nvidia-nvvm": "13.5.37", "nvidia-nvjitlink": "13.5.37"},
                "update the driver, or install",
            ),
            (
                {"nvidia-nvvm": "13.5.37", "nvidia-nvjitlink": "13.10.1"},
                "update the driver, or install",
            ),
            ({"nvidia-nvjitlink": "13.0.88"}, "update the driver, or install"),
        ],
    )
    def test_packages_that_do_not_work_together(
        self, monkeypatch: pytest.MonkeyPatch, packages: dict[str, str], advice: str
    ) -> None:
        def version(name: str) -> str:
            if name not in packages:
                raise PackageNotFoundError(name)
            return packages[name]

        monkeypatch.setattr(gpu, "version", version)

        def fail(_: object) -> None:
            message = "ERROR_INVALID_PTX"
            raise RuntimeError(message)

        monkeypatch.setattr(gpu, "_try", fail)
        with pytest.raises(SettingsError, match=r"Thing 1 \(ERROR_INVALID_PTX\); ") as refused:
            _kernels.device_named("cuda")
        assert advice in str(refused.value)

    def test_auto_falls_back_to_the_cpu_and_says_why(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert _kernels.device_named("auto") == torch.device("cpu")
        said = _kernels.fallback("auto")
        assert said is not None
        assert said.startswith("device auto is the CPU here: torch sees no NVIDIA GPU; check that")
        assert _kernels.fallback("cpu") is None, "it was asked for"

    def test_auto_takes_cuda_once_a_kernel_has_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu, "_try", lambda _: None)
        assert _kernels.device_named("auto") == torch.device("cuda")
        assert _kernels.fallback("auto") is None
        assert _kernels.backend_name(torch.device("cuda", 0)) == "numba-cuda"


@pytest.mark.parametrize("name", ["tpu", "cuda:one", "mps"])
def test_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=r"expected 'auto', 'cpu', 'cuda'|expected 'cpu'"):
        _kernels.device_named(name)
