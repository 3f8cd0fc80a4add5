"""The backend for NVIDIA GPUs, numba-cuda, and the GPU itself as torch sees it.

Whether one can be used, and if not, what to do; what memory is free; work that is replayed.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from napari_gaussfit.errors import OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator


LEAST_CAPABILITY = (7, 5)
"""The oldest GPUs (Turing) that every kernel is compiled for in the tests."""

FIRST_NUMPY_WITHOUT = (2, 5)
"""The first numpy without `row_stack`, which numba-cuda up to 0.30.4 asks for at its first kernel;
it is maintained no further."""

COMPILERS_AND_LINKERS = (
    ("nvidia-nvvm", "nvidia-nvjitlink"),
    ("nvidia-cuda-nvcc-cu12", "nvidia-nvjitlink-cu12"),
)
"""Packages of NVVM, which compiles to PTX, and of nvJitLink, which links PTX of its own CUDA and of
older ones; of CUDA 13 and 12."""


@functools.cache
def why_not(index: int | None = None) -> str | None:
    """Return why CUDA cannot be used and what to do, None if it can: then a kernel has run."""
    reason = _why_torch_cannot(index)
    if reason is not None:
        return reason
    extra = f"cuda{str(torch.version.cuda).split('.', maxsplit=1)[0]}"
    if find_spec("numba_cuda") is None:
        return (
            f"numba-cuda is not installed; install napari-gaussfit[{extra}], as torch here is "
            f"built for CUDA {torch.version.cuda}"
        )
    try:
        _try(torch.device("cuda", torch.cuda.current_device() if index is None else index))
    # Drivers, linkers and compilers fail in ways of their own, and any of them means no.
    except Exception as error:  # noqa: BLE001
        lines = str(error).strip().splitlines() or [type(error).__name__]
        advice = _which_do_not_fit() or (
            f"update the driver, or install napari-gaussfit[{extra}] anew"
        )
        return (
            f"a first kernel did not run on {torch.cuda.get_device_name(index)} ({lines[0]}); "
            f"{advice}"
        )
    return None


def _why_torch_cannot(index: int | None) -> str | None:
    if torch.version.cuda is None:
        return (
            f"this torch ({torch.__version__}) is built without CUDA; install a CUDA build of "
            "torch (see pytorch.org) and napari-gaussfit[cuda12] or napari-gaussfit[cuda13]"
        )
    if not torch.cuda.is_available():
        return (
            "torch sees no NVIDIA GPU; check that `nvidia-smi` lists one, and that its driver is "
            f"new enough for CUDA {torch.version.cuda}"
        )
    if index is not None and index >= torch.cuda.device_count():
        return f"there is no GPU {index}: torch sees {torch.cuda.device_count()}, counted from 0"
    capability = torch.cuda.get_device_capability(index)
    if capability < LEAST_CAPABILITY:
        have, need = ("{}.{}".format(*c) for c in (capability, LEAST_CAPABILITY))
        name = torch.cuda.get_device_name(index)
        return f"{name} has compute capability {have}; {need} or newer is needed"
    return None


def _which_do_not_fit() -> str | None:
    """Return which two of the installed packages do not work together, and what to do."""
    numpy = _release("numpy")
    if numpy is not None and numpy >= FIRST_NUMPY_WITHOUT:
        return (
            f"numba-cuda {_named('numba-cuda')} does not work with numpy {_named('numpy')}: run "
            'pip install "numpy<{}.{}"'.format(*FIRST_NUMPY_WITHOUT)
        )
    for compiler, linker in COMPILERS_AND_LINKERS:
        newest, linked = _release(compiler), _release(linker)
        if newest is not None and linked is not None and newest > linked:
            return (
                f"{compiler} {_named(compiler)} compiles for a newer CUDA than {linker} "
                f'{_named(linker)} links: run pip install "{compiler}=={linked[0]}.{linked[1]}.*"'
            )
    return None


def _named(package: str) -> str:
    """Return an installed package's version, as it is written."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "of no package"


def _release(package: str) -> tuple[int, int] | None:
    """Return the first two numbers of a package's version; None where it is not installed."""
    try:
        major, minor = version(package).split(".")[:2]
    except PackageNotFoundError:  # of another CUDA, or not from packages
        return None
    return int(major), int(minor)


def _try(device: torch.device) -> None:
    """Pack one Gaussian whose record is known, or raise."""
    from napari_gaussfit._kernels.cuda import backend
    from napari_gaussfit._kernels.shared.gaussian import RADIUS2

    ones = torch.ones(1, device=device)
    packed = backend.pack(ones.expand(1, 3), 0 * ones.expand(1, 6), ones, 0.25)
    found = float(packed[0, 0, RADIUS2])
    if abs(found - 2.0) > 1e-5:
        message = f"its result is {found}, expected 2"
        raise RuntimeError(message)


def free_memory(device: torch.device) -> tuple[int, int]:
    """Return the bytes of a device that a fit may have, and all of them.

    What torch holds in reserve and nobody uses counts as free.
    """
    free, total = torch.cuda.mem_get_info(device)
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + reserve, total


def name_of(device: torch.device) -> str:
    """Return what a GPU calls itself, or a device's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


@contextmanager
def room_on(device: torch.device) -> Iterator[None]:
    """Turn torch's error where memory of a device runs out into ours.

    Raises
    ------
    OutOfMemoryError
        If it does.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise no_room(device) from error


def no_room(device: torch.device, needed: int | None = None) -> OutOfMemoryError:
    """Return the error that says how much memory there is, and what to do.

    `needed` is in bytes, where it is known.
    """
    name, there = name_of(device), ""
    if device.type == "cuda":
        free, total = free_memory(device)
        there = f", where {free / 1e9:.2g} of {total / 1e9:.2g} GB are free"
    wanted = "no room is left" if needed is None else f"about {needed / 1e9:.2g} GB are needed"
    return OutOfMemoryError(
        f"{wanted} on {name}{there}; crop or bin the stack, ask for fewer Gaussians, close what "
        "else uses the GPU, or use device='cpu'"
    )


class Graphs:
    """Runs work of several kinds: each kind once as it is, then captured, then replayed.

    Work of a kind must do the same operations each time, on memory that stays where it is, and
    leave there what it found. Elsewhere than on a CUDA device, as in the simulator, all runs as it
    is.

    Parameters
    ----------
    device : torch.device
        Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._captures = device.type == "cuda"
        self._known: dict[Hashable, torch.cuda.CUDAGraph | None] = {}

    def forget(self, kind: Hashable) -> None:
        """Forget a kind of work: it is of another shape from now on."""
        self._known.pop(kind, None)

    def run(self, kind: Hashable, work: Callable[[], None]) -> None:
        """Do work of a kind; returns when it is on its way.

        The first time compiles kernels and sends constants, neither of which a graph can hold.
        """
        if not self._captures or kind not in self._known:
            work()
            self._known[kind] = None
            return
        graph = self._known[kind]
        if graph is None:
            graph = self._known[kind] = _captured(work)
        graph.replay()


def _captured(work: Callable[[], None]) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    # Other threads (a viewer's, say) may allocate meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph
