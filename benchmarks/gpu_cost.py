"""What CUDA kernels should take on known cards, from their compiled code, on no GPU at all.

Kernels are compiled to PTX and run as they are compiled on the inputs of `gpu`, some blocks of each
(`gpu_code`): that tells how many instructions warps execute, and which units of a multiprocessor do
them. A card takes at least as long as its busiest unit, or as the bytes that must move. What a
kernel takes beyond that, waiting, only a measurement tells: the H200's kept one stands beside.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks import gpu_code
from benchmarks.tables import Table
from napari_gaussfit._kernels.cpu import backend as cpu
from napari_gaussfit._kernels.cuda import backend, mip, refinement, relocation
from napari_gaussfit._kernels.cuda import device as cuda_device
from napari_gaussfit._kernels.geometry import Grid
from napari_gaussfit.fitting.cuda_relocation import filters_on

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numba.cuda.codegen import CUDACodeLibrary

    from benchmarks.gpu import Sizes
    from benchmarks.gpu_floors import Work
    from benchmarks.tables import Cell

CAPABILITY = "9.0"
SOME = 48
"""Blocks that are run of a kernel whose results nothing else needs, evenly spread."""
WHOLE = {"pack", "bound", "project", "list_cells", "list_small_cells"}
"""Kernels whose results others need: all of their blocks are run."""
MEASURED = Path(__file__).parent / "results-gpu" / "h200-benchmarks.json"
VIEWS = "50 views of 512^2 rays, forward and backward"


@dataclass(frozen=True)
class Card:
    """What a card does at most.

    Parameters
    ----------
    name : str
        As its maker has it.
    processors : int
        Multiprocessors.
    clock : float
        Of the boost, in Hz.
    bandwidth : float
        Of its memory, in bytes a second.
    rates : dict of str to float
        Instructions of a warp that a multiprocessor ends in a cycle, by unit; "any" of all.
    """

    name: str
    processors: int
    clock: float
    bandwidth: float
    rates: dict[str, float]

    def seconds(self, counts: Counter[str], moved: float) -> tuple[float, str]:
        """Return the least time of what warps execute and of the bytes moved, and what takes it."""
        cycles = {unit: counts[unit] / rate for unit, rate in self.rates.items() if unit != "any"}
        cycles["all instructions"] = sum(counts.values()) / self.rates["any"]
        ways = {unit: n / (self.processors * self.clock) for unit, n in cycles.items()}
        ways["bytes"] = moved / self.bandwidth
        longest = max(ways, key=lambda way: ways[way])
        return ways[longest], longest


def _rates(single: float, double: float) -> dict[str, float]:
    """Return rates of a multiprocessor, of which most are the same on all cards."""
    return {
        "any": 4.0,
        "single": single,
        "integer": 2.0,
        "special": 0.5,
        "double": double,
        "shared": 1.0,
        "global": 1.0,
    }


# Arithmetic a cycle: the table "Arithmetic Instructions" of NVIDIA's CUDA C++ Programming Guide, by
# compute capability. Multiprocessors, boost clocks and bandwidths: NVIDIA's data sheets.
CARDS = (
    Card("T4", 40, 1.59e9, 0.32e12, _rates(2.0, 2 / 32)),
    Card("A100 SXM 80 GB", 108, 1.41e9, 2.039e12, _rates(2.0, 1.0)),
    Card("H100 SXM", 132, 1.98e9, 3.35e12, _rates(4.0, 2.0)),
    Card("RTX 4090", 128, 2.52e9, 1.008e12, _rates(4.0, 2 / 32)),
    Card("H200 SXM", 132, 1.98e9, 4.8e12, _rates(4.0, 2.0)),
)


@dataclass
class Counting:
    """Runs what is launched, and keeps what it takes.

    Parameters
    ----------
    some : int
        Blocks that are run of a kernel whose results nothing else needs.
    """

    some: int = SOME
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    scale: float = 1.0
    _programs: dict[Any, gpu_code.Program] = field(default_factory=dict)
    _libraries: dict[Any, tuple[CUDACodeLibrary, int]] = field(default_factory=dict)

    def launch(
        self, kernel: Any, blocks: Sequence[int], threads: int | tuple[int, int], *given: Any
    ) -> None:
        """Run a kernel's blocks, or some of them, in place of `device.launch`."""
        if min(blocks) == 0:
            return
        if kernel not in self._programs:
            library = gpu_code.library_of(kernel, tuple(map(gpu_code.numba_type, given)))
            self._programs[kernel] = gpu_code.Program(gpu_code.ptx_of(library, CAPABILITY))
            self._libraries[kernel] = library, int(np.prod(threads))
        side = threads if isinstance(threads, tuple) else (threads,)
        launch = gpu_code.Launch(self._programs[kernel], blocks, side, given)
        name = name_of(kernel)
        found = launch.run(None if kernel.py_func.__name__ in WHOLE else self.some)
        scaled = Counter({unit: number * self.scale for unit, number in found.items()})
        self.counts.setdefault(name, Counter())
        self.counts[name] += scaled

    def linked(self) -> Table:
        """Return what blocks of the kernels that were launched take, as they are linked."""
        rows = []
        for kernel, (library, threads) in self._libraries.items():
            taken = gpu_code.resources_of(library, CAPABILITY)
            blocks = taken.blocks(threads)
            rows.append((name_of(kernel), threads, taken.registers, taken.shared, blocks))
        header = (
            "kernel",
            "threads of a block",
            "registers of a thread",
            "bytes of shared memory",
            "blocks at a time",
        )
        note = "At a time: on a multiprocessor of an H100, by its registers and its shared memory."
        return Table("Kernels as they are linked", header, tuple(sorted(rows)), (note,))

    @contextmanager
    def watched(self, scale: float = 1.0) -> Iterator[None]:
        """Run launches here; what they take counts `scale` times."""
        modules: tuple[Any, ...] = cuda_device, backend, relocation, mip, refinement
        before = [module.launch for module in modules]
        self.scale = scale
        for module in modules:
            module.launch = self.launch
        try:
            yield
        finally:
            for module, one in zip(modules, before, strict=True):
                module.launch = one


def name_of(kernel: Any) -> str:
    """Return a kernel's name, with its module's."""
    module = kernel.py_func.__module__.partition("._kernels.")[2]
    return f"{module}.{kernel.py_func.__name__}"


def count(sizes: Sizes, some: int = SOME) -> Counting:
    """Return what all kernels of `gpu` execute, on its inputs."""
    gpu_code.pretend(CAPABILITY)
    found = Counting(some)
    _count_views(found, sizes)
    _count_grid(found, sizes)
    _count_points(found, sizes)
    with found.watched():
        residual = np.random.default_rng(5).standard_normal(sizes.shape, np.float32)
        filters = filters_on((1.0, 1.0, 1.0), torch.device("cpu"))
        backend.sites(torch.from_numpy(residual), filters, sizes.gaussians // 20)
    _count_refinement(found, sizes)
    return found


def _count_views(found: Counting, sizes: Sizes) -> None:
    """Of one view, as often as there are views: they stand around the box."""
    parameters, rays = sizes.parameters(), sizes.rays()
    view = rays[len(rays) // 7]
    with found.watched():
        packed = backend.pack(*parameters, 1e-3)
    with found.watched(len(rays)):
        evaluation = backend.MipEvaluation(backend.Views.of([view], 1.5, packed.device))
        evaluation.forward(packed)
        # Of some blocks alone depths are known: all, as the CPU finds them.
        own = cpu.MipEvaluation(view, 1.5)
        own.forward(cpu.pack(*parameters, 1e-3))
        evaluation.depth[0] = torch.as_tensor(np.array(own.depth)[:, : view.shape[1]])
    # A block gathers over all views: its start is made once, of 50 here.
    with found.watched(len(rays)):
        moments = evaluation.backward(packed, torch.ones_like(evaluation.depth))
    with found.watched():
        backend.unpack_gradient(moments, packed)


def _count_grid(found: Counting, sizes: Sizes) -> None:
    parameters = sizes.parameters()
    grid = Grid(np.zeros(3, np.float32), np.ones(3, np.float32), sizes.shape)
    evaluation = backend.GridEvaluation(backend.Grids.of([grid], torch.device("cpu")))
    # Lists are of views: those of one grid are a small part.
    of_views = found.counts.pop("cuda.device.list_cells", Counter())
    packed = torch.from_numpy(cpu.pack(*parameters, 1e-3))[None]
    with found.watched():
        evaluation.forward(packed)
        evaluation.backward(packed, torch.ones((1, *sizes.shape)))
    found.counts["cuda.device.list_cells"] = of_views


def _count_points(found: Counting, sizes: Sizes) -> None:
    from benchmarks import points
    from benchmarks.fields import random_field

    parameters = random_field(sizes.field, (1.0, 1.0, 1.0), points.SIGMAS["wide"])
    places = torch.rand(sizes.points, 3, generator=torch.Generator().manual_seed(4))
    evaluation = backend.PointEvaluation(places)
    packed = torch.from_numpy(cpu.pack(*parameters, points.CUTOFF))[None]
    count = sizes.gaussians
    shapes = ((count, 10), (count, 10), (count,))
    with found.watched():
        evaluation.forward(packed)
        evaluation.backward(packed, torch.ones(len(places)))
        means, cholesky, amplitudes = sizes.parameters()
        first, second, age = (torch.zeros(shape) for shape in shapes)
        backend.adam_step(
            (means, cholesky, amplitudes),
            (torch.ones(count, 3), torch.ones(count, 6), torch.ones(count)),
            (first, second, age),
            torch.full((10,), 1e-3),
        )


def _count_refinement(found: Counting, sizes: Sizes) -> None:
    """Of a few spots, as often as `gpu` has as many."""
    from benchmarks.gpu import CELLS, COPIES, refined_on, spots_to_refine

    start, stack, noise = spots_to_refine((1, 1, 1) if sizes.small else (1, 2, 4), 1)
    with found.watched(1.0 if sizes.small else COPIES * np.prod(CELLS) / len(start)):
        refined_on(torch.device("cpu"), start, stack, noise)


def measured() -> dict[str, float]:
    """Return the seconds that each kernel took on the H200, as kept."""
    kept = json.loads(MEASURED.read_text(encoding="utf-8"))
    [table] = [t for t in kept["tables"] if t["title"] == "Kernels and their floors"]
    return {row["kernel"]: row["ms"] / 1e3 for row in table["rows"]}


OF_VIEWS = (
    "cuda.mip_kernels.project",
    "cuda.device.list_cells",
    "cuda.mip_kernels.list_small_cells",
    "cuda.mode_kernels.find_modes",
    "cuda.mip_kernels.gather_moments",
)


def tables(sizes: Sizes, some: int = SOME) -> list[Table]:
    """Return what kernels should take, and views all together."""
    counting, work, took = count(sizes, some), sizes.work(), measured()
    found = counting.counts
    rows: list[tuple[Cell, ...]] = []
    for name in sorted(found):
        counts, moved = found[name], work[name].moved if name in work else 0.0
        least = [card.seconds(counts, moved) for card in CARDS]
        real = took.get(name)
        rows.append(
            (
                name,
                sum(counts.values()) / 1e6,
                *(1e3 * seconds for seconds, _ in least[:-1]),
                least[2][1],
                1e3 * least[-1][0],
                None if real is None else 1e3 * real,
                None if real is None else real / least[-1][0],
            )
        )
    header = (
        "kernel",
        "million instructions of warps",
        *(f"{card.name}, ms" for card in CARDS[:-1]),
        "on the H100 by",
        "H200, ms",
        "H200 took, ms",
        "times that",
    )
    note = (
        f"{sizes.gaussians:,} Gaussians in {sizes.side}^3 voxels and in {sizes.views} views of "
        f"{sizes.image}^2 rays; the field at points with {sizes.field:,} of them at "
        f"{sizes.points}. Times at full rates: nothing here was measured but what the H200 took, "
        "of some kernels at an earlier state (`benchmarks/results-gpu`). Where it took "
        "less, an assembler saves more of the arithmetic of addresses than is counted."
    )
    return [
        Table("Kernels by their instructions", header, tuple(rows), (note,)),
        _views_table(found, work, took),
        counting.linked(),
    ]


def _views_table(
    found: dict[str, Counter[str]], work: dict[str, Work], took: dict[str, float]
) -> Table:
    """Return what views take all together, also if each kernel waits as it did on the H200."""
    rows: list[tuple[Cell, ...]] = []
    for card in CARDS:
        least = expected = 0.0
        for name in OF_VIEWS:
            counts, moved = found[name], work[name].moved if name in work else 0.0
            seconds, _ = card.seconds(counts, moved)
            least += seconds
            expected += seconds * took[name] / CARDS[-1].seconds(counts, moved)[0]
        rows.append((card.name, 1e3 * least, 1e3 * expected))
    header = ("card", "at full rates, ms", "waiting as on the H200, ms")
    return Table(VIEWS, header, tuple(rows), ())
