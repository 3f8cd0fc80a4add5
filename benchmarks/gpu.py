"""CUDA kernels: checked, then timed against their floors: ``python -m benchmarks.gpu``.

Every kernel is held against the reference on fresh random inputs; then what the project promises
for a GPU is timed, by events on the device, and each kernel stands beside the least time that its
bytes and operations take. ``--floors`` prints such least times for known devices, on any
machine; ``--cost`` what they should take, by the instructions of what is compiled (two minutes).
``--small`` runs all of it on a few voxels, also in numba's simulator
(NUMBA_ENABLE_CUDASIM=1): no figures.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

from benchmarks import gpu_floors, points
from benchmarks.fields import random_field
from benchmarks.gpu_checks import Checks, views_on_box
from benchmarks.machine import describe
from benchmarks.page import write_tables
from benchmarks.stacks import DENDRITE, DataMissingError, open_stack
from benchmarks.tables import Cell, Table
from napari_gaussfit._kernels import why_not
from napari_gaussfit._kernels.cpu.spline import SplineVolume
from napari_gaussfit._kernels.cuda import backend, mip, relocation
from napari_gaussfit._kernels.cuda import device as cuda_device
from napari_gaussfit._kernels.cuda.device import SIMULATED, launch
from napari_gaussfit._kernels.geometry import Grid
from napari_gaussfit.fitting.cuda_relocation import filters_on
from napari_gaussfit.fitting.memory import predict_device_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.fields import Parameters
    from benchmarks.gpu_floors import Device, Work
    from napari_gaussfit.measure.measurement import Measurement
    from napari_gaussfit.measure.noise import Noise
    from napari_gaussfit.model.gaussians import Gaussians
    from napari_gaussfit.stacks.stack import Stack

CELLS, COPIES = (4, 8, 16), 40
"""Spots that are refined along z, y and x, and how often these stand in a stack along z."""

KEPT_PART = "measured"
"""Of a page that gets the tables of a run: the part that `--floors` writes stands beside it."""

COST_PART = "cost"

RESULTS = Path(__file__).parent / "results" / "gpu.json"
CUTOFF, SIGMA, BIN_STEP = 1e-3, 1.5, 1.5
"""Of a fit on its way: where a Gaussian is cut off, its width and the search's step in voxels."""

TARGET_PSNR, SAME_PSNR = 54.5, 0.1
PROMISES = {
    "voxelise, forward and backward": 3e-3,
    "MIPs, forward and backward": 15e-3,
    "dendrite to 54.5 dB": 1.5,
}
"""Seconds on a device like the H200."""

JUDGED_EVERY = 0.05
"""Seconds of a fit between two judgements: the promise is of a second."""

CONTEXT = 500_000_000
"""About as many bytes of a device hold CUDA itself and the kernels' code, and torch counts none."""

REFINED_A_SECOND = 1e6
"""Spots, on a device like the H200."""

LEAST_SPEEDUP = 20.0
"""Of the dense field against the batched solve."""

Row = tuple[Cell, ...]


class Bench:
    """Times calls on one device, and each kernel that they launch."""

    def __init__(self, device: torch.device, turns: int) -> None:
        self.device, self.turns = device, turns
        self.kernels: dict[str, float] = {}
        # Of a kernel in one graph, so that the graph's own start does not count.
        self._launches = 10 if device.type == "cuda" else 1

    def seconds(self, call: Callable[[], object]) -> float:
        """Median seconds of a call, replayed as a graph as a fit's steps are.

        Nothing waits for Python then, which launches a kernel in longer than many of them take.
        Kernels' own times are kept beside.
        """
        for _ in range(2):
            call()
        with self._watched():
            call()
        replay = self._replay_of(call)
        replay()
        return statistics.median(self.once(replay) for _ in range(self.turns))

    def _replay_of(self, call: Callable[[], object]) -> Callable[[], object]:
        if self.device.type != "cuda":
            return call
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph.replay

    def once(self, call: Callable[[], object]) -> float:
        """Seconds of one call, by events on the device."""
        began = self._mark()
        call()
        return self._between(began, self._mark())

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, began: Any, ended: Any) -> float:
        if self.device.type != "cuda":
            return float(ended - began)
        ended.synchronize()
        return float(began.elapsed_time(ended)) / 1e3

    @contextmanager
    def each_launch_of(self, module: Any) -> Iterator[list[float]]:
        """Gather the seconds of each launch of a module; the last of each kernel is kept."""
        found: list[float] = []

        def timed(kernel: Any, *given: Any) -> None:
            found.append(self.once(partial(launch, kernel, *given)))
            self.kernels[name_of(kernel)] = found[-1]

        module.launch = timed
        try:
            yield found
        finally:
            module.launch = launch

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Time every kernel that is launched, by itself, with what it is launched with."""

        def timed(kernel: Any, *given: Any) -> None:
            def several() -> None:
                for _ in range(self._launches):
                    launch(kernel, *given)

            launch(kernel, *given)
            replay = self._replay_of(several)
            replay()
            taken = statistics.median(self.once(replay) for _ in range(self.turns))
            self.kernels[name_of(kernel)] = taken / self._launches

        modules: tuple[Any, ...] = cuda_device, backend, relocation, mip
        for module in modules:
            module.launch = timed
        try:
            yield
        finally:
            for module in modules:
                module.launch = launch


def name_of(kernel: Any) -> str:
    """The module and name of a kernel."""
    function = kernel.fn if SIMULATED else kernel.py_func
    return f"{function.__module__.partition('._kernels.')[2]}.{function.__name__}"


class Sizes:
    """How large the inputs are."""

    def __init__(self, *, small: bool) -> None:
        self.small = small
        self.gaussians = 20 if small else 50_000
        self.side = 8 if small else 256
        self.views, self.image = (2, 12) if small else (50, 512)
        self.field, self.points = (12, 20) if small else (1_000, 500)
        self.shape = (self.side,) * 3

    def parameters(self) -> Parameters:
        """Random Gaussians in a box of voxels of size 1."""
        return random_field(self.gaussians, self.shape, SIGMA)

    def rays(self) -> list[Any]:
        """Views of that box, with as many rays that cross it as an image has pixels."""
        return views_on_box(self.views, self.image, self.shape)

    def work(self) -> dict[str, Work]:
        """What each kernel must do."""
        parameters, rays = self.parameters(), self.rays()
        # A footprint's pixels are smaller than voxels: its search goes on in steps of the latter.
        return {
            **gpu_floors.of_grid(parameters, CUTOFF, self.side**3, 1.0),
            **gpu_floors.of_views(parameters, CUTOFF, rays, BIN_STEP),
            **gpu_floors.of_targets(rays, self.side**3),
            **gpu_floors.of_points(self.field, self.points),
            **gpu_floors.of_adam(self.gaussians),
        }


def time_grid(bench: Bench, sizes: Sizes) -> Row:
    """Voxelise, and gather the gradients of all Gaussians."""
    import numpy as np

    means, cholesky, amplitudes = (p.to(bench.device) for p in sizes.parameters())
    grid = Grid(np.zeros(3, np.float32), np.ones(3, np.float32), sizes.shape)
    evaluation = backend.GridEvaluation(backend.Grids.of([grid], bench.device))
    weights = torch.ones((1, *sizes.shape), device=bench.device)

    def call() -> None:
        packed = backend.pack(means, cholesky, amplitudes, CUTOFF)
        evaluation.forward(packed)
        backend.unpack_gradient(evaluation.backward(packed, weights), packed)

    what = "voxelise, forward and backward"
    return _judged(what, f"{sizes.side}^3, {sizes.gaussians:,} Gaussians", bench.seconds(call))


def time_views(bench: Bench, sizes: Sizes) -> Row:
    """Search, climb, and gather the gradients of all Gaussians, in all views at once."""
    means, cholesky, amplitudes = (p.to(bench.device) for p in sizes.parameters())
    evaluation = backend.MipEvaluation(backend.Views.of(sizes.rays(), BIN_STEP, bench.device))

    def call() -> None:
        packed = backend.pack(means, cholesky, amplitudes, CUTOFF)
        images = evaluation.forward(packed)
        backend.unpack_gradient(evaluation.backward(packed, images), packed)

    seconds = bench.seconds(call)
    size = f"{sizes.views} views of {sizes.image}^2 rays, {sizes.gaussians:,} Gaussians"
    return _judged("MIPs, forward and backward", size, seconds)


def time_targets(bench: Bench, sizes: Sizes) -> Row:
    """The targets of all views at once: the stack where the field is largest."""
    import numpy as np

    voxels = np.random.default_rng(3).random(sizes.shape, np.float32)
    volume = backend.Volume(SplineVolume(voxels, np.ones(3, np.float32)), bench.device)
    evaluation = backend.MipEvaluation(backend.Views.of(sizes.rays(), BIN_STEP, bench.device))
    means, cholesky, amplitudes = (p.to(bench.device) for p in sizes.parameters())
    evaluation.forward(backend.pack(means, cholesky, amplitudes, CUTOFF))
    seconds = bench.seconds(lambda: evaluation.target_of([volume]))
    size = f"{sizes.views} views of {sizes.image}^2 rays, {sizes.side}^3 voxels"
    return ("targets at the maxima", size, 1e3 * seconds, None, "")


def time_relocation(bench: Bench, sizes: Sizes) -> list[Row]:
    """Where one more Gaussian would win most, and what taking each away costs."""
    import numpy as np

    residual = np.random.default_rng(5).standard_normal(sizes.shape, np.float32)
    lacks, most = torch.from_numpy(residual).to(bench.device), sizes.gaussians // 20
    filters = filters_on((1.0, 1.0, 1.0), bench.device)
    number = 6 if sizes.small else sizes.gaussians
    means, cholesky, amplitudes = (p[:number].to(bench.device) for p in sizes.parameters())
    scale = torch.ones(1, dtype=torch.float64, device=bench.device)
    places = bench.seconds(lambda: backend.sites(lacks, filters, most))
    costs = bench.seconds(lambda: backend.removal_costs(means, cholesky, amplitudes, scale))
    return [
        ("places that lack a Gaussian", f"{sizes.side}^3 voxels", 1e3 * places, None, ""),
        ("costs of taking each away", f"{number:,} Gaussians", 1e3 * costs, None, ""),
    ]


def spots_to_refine(cells: tuple[int, int, int], copies: int) -> tuple[Gaussians, Stack, Noise]:
    """Return spots where a fit leaves them, a cell each, `copies` times, and their stack."""
    import numpy as np

    from benchmarks.measurement import PITCH, SPOT, Scene, light_of, start_of, truth_of
    from napari_gaussfit.model.gaussians import Gaussians

    scene, rng = Scene("spots", SPOT, 100.0), np.random.default_rng(2)
    truth = truth_of(scene, cells, rng)
    few = start_of(scene, truth, rng)
    shifts = np.repeat(np.arange(copies) * PITCH * cells[0], len(few))
    start = Gaussians(
        np.tile(few.means, (copies, 1)) + shifts[:, None] * np.array([1.0, 0.0, 0.0]),
        np.tile(few.cholesky, (copies, 1)),
        np.tile(few.amplitudes, copies),
        few.background,
        few.unit,
    )
    stack = scene.recorded(np.tile(light_of(truth, cells), (copies, 1, 1)), rng)
    return start, stack, scene.noise


def refined_on(
    device: torch.device, start: Gaussians, stack: Stack, noise: Noise, **options: Any
) -> Measurement:
    """Refine by the kernels, whatever the device."""
    from napari_gaussfit._kernels.cuda import refinement as blocks
    from napari_gaussfit.measure import refinement

    way = blocks.Refiner(device), ()
    with patch.object(refinement, "_way", lambda *_: way):
        return refinement.refine([start], [stack], noise=noise, **options)


def time_refinement(bench: Bench, sizes: Sizes) -> Row:
    """Spots that are where a fit leaves them, refined: what kernels take, without what is sent."""
    from napari_gaussfit._kernels.cuda import refinement as blocks
    from napari_gaussfit.measure import refinement

    given = spots_to_refine((1, 1, 2), 1) if sizes.small else spots_to_refine(CELLS, COPIES)
    start, steps = given[0], 1 if sizes.small else refinement.MOST_STEPS
    for _ in range(1 if sizes.small else 3):
        with bench.each_launch_of(blocks) as seconds:
            refined_on(bench.device, *given, most_steps=steps)
    taken, size = sum(seconds), f"{len(start):,} spots, windows of 13 x 11 x 11"
    promised = len(start) / REFINED_A_SECOND
    fine = "-" if SIMULATED else "yes" if taken <= promised else "NO"
    return ("refinement", size, 1e3 * taken, 1e3 * promised, fine)


def time_points(bench: Bench, sizes: Sizes) -> Row:
    """The dense field against the batched solve, on the same device."""
    field = random_field(sizes.field, (1.0, 1.0, 1.0), points.SIGMAS["wide"])
    means, cholesky, amplitudes = (p.to(bench.device) for p in field)
    places = torch.rand(sizes.points, 3, generator=torch.Generator().manual_seed(4))
    places = places.to(bench.device)
    evaluation, weights = backend.PointEvaluation(places), torch.ones(len(places)).to(bench.device)

    def ours() -> None:
        packed = backend.pack(means, cholesky, amplitudes, points.CUTOFF)
        evaluation.forward(packed)
        backend.unpack_gradient(evaluation.backward(packed, weights), packed)

    def theirs() -> None:
        points.forward_and_backward(points.batched_solve, (means, cholesky, amplitudes), places)

    seconds = bench.seconds(ours)
    ratio = time_torch(bench, theirs) / seconds
    fine = "-" if SIMULATED else "yes" if ratio >= LEAST_SPEEDUP else "NO"
    size = f"{sizes.field:,} Gaussians at {sizes.points} points; batched solve {ratio:.0f} times"
    return ("dense field, forward and backward", size, 1e3 * seconds, None, fine)


def time_torch(bench: Bench, call: Callable[[], object]) -> float:
    """Median seconds of a call that cannot be captured: a solver that asks the device waits."""
    for _ in range(2):
        call()
    return statistics.median(bench.once(call) for _ in range(bench.turns))


def time_adam(bench: Bench, sizes: Sizes) -> Row:
    """One step of the optimiser."""
    parameters = [p.to(bench.device, copy=True) for p in sizes.parameters()]
    count = len(parameters[0])
    shapes = ((count, 10), (count, 10), (count,))
    state = [torch.zeros(shape, device=bench.device) for shape in shapes]
    gradients, rates = [torch.ones_like(p) for p in parameters], torch.full((10,), 1e-3)
    rates = rates.to(bench.device)

    def call() -> None:
        backend.adam_step(
            (parameters[0], parameters[1], parameters[2]),
            (gradients[0], gradients[1], gradients[2]),
            (state[0], state[1], state[2]),
            rates,
        )

    return ("a step of Adam", f"{count:,} Gaussians", 1e3 * bench.seconds(call), None, "")


def time_fit(device: torch.device, *, small: bool) -> list[Row]:
    """The dendrite: on the device to the promised quality, and on the CPU from the same seed."""
    from benchmarks.quality import Judge, first_at, run_fit
    from napari_gaussfit import FitSettings
    from napari_gaussfit.model.views import Views

    stack = open_stack(DENDRITE, small=small)
    ends, rows = [], []
    for name in dict.fromkeys([device.type, "cpu"]):
        settings = FitSettings(
            exactly=True,
            gaussians=10 if small else DENDRITE.gaussians,
            iterations=10 if small else None,
            device="cpu" if name == "cpu" else "cuda",
        )
        judge = Judge(stack, Views(stack, settings.views, settings.held_out))
        run_fit(stack, settings, judge)  # kernels are compiled, and the device is awake
        if name == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        moments = run_fit(stack, settings, judge, every=JUDGED_EVERY)
        ends.append(moments[-1].psnr)
        seconds = first_at(moments, TARGET_PSNR)
        size = f"on {name}, ends at {ends[-1]:.2f} dB after {moments[-1].seconds:.2f} s"
        what = "dendrite to 54.5 dB"
        if name == "cuda":
            rows.append(_judged(what, size, seconds))
            taken = (torch.cuda.max_memory_reserved() + CONTEXT) / 1e6
            predicted = predict_device_memory(stack.voxels.size, settings) / 1e6
            said = f"{predicted:,.0f} MB predicted, {taken:,.0f} MB taken"
            rows.append(("its memory on the device", said, None, None, ""))
        else:
            rows.append((what, size, None if seconds is None else 1e3 * seconds, None, ""))
    if len(ends) > 1:
        apart = max(ends) - min(ends)
        fine = "yes" if apart < SAME_PSNR else "NO"
        rows.append(("the same on both", f"{apart:.3f} dB apart at the end", None, None, fine))
    return rows


def _judged(what: str, size: str, seconds: float | None) -> Row:
    promised = PROMISES[what]
    kept = "NO" if seconds is None or seconds > promised else "yes"
    if SIMULATED:
        kept = "-"  # the simulator's time says nothing
    return (what, size, None if seconds is None else 1e3 * seconds, 1e3 * promised, kept)


def kernels_table(bench: Bench, work: dict[str, Work], device: Device | None) -> Table:
    """Each kernel's time beside its floor."""
    rows: list[Row] = []
    for name, seconds in sorted(bench.kernels.items()):
        if device is None or name not in work:
            rows.append((name, 1e3 * seconds, None, None, "-"))
            continue
        floor, by = work[name].seconds(device)
        rows.append((name, 1e3 * seconds, 1e3 * floor, seconds / floor, by))
    header = ("kernel", "ms", "floor, ms", "times its floor", "floor set by")
    note = "Ten launches in a graph each: some 0.002 ms of a time are the launch itself."
    return Table("Kernels and their floors", header, tuple(rows), (note,))


def floors_table(sizes: Sizes) -> Table:
    """Least times on known devices, by bytes and operations."""
    rows: list[Row] = []
    for name, work in sizes.work().items():
        least = [work.seconds(device) for device in gpu_floors.KNOWN]
        rows.append((name, *(1e3 * seconds for seconds, _ in least), least[0][1]))
    header = (
        "kernel",
        *(f"{d.name}, ms" for d in gpu_floors.KNOWN),
        f"on {gpu_floors.KNOWN[0].name} by",
    )
    note = (
        f"{sizes.gaussians:,} Gaussians of sigma {SIGMA:g} in {sizes.side}^3 voxels and in "
        f"{sizes.views} views; the field at points with {sizes.field:,} of them at "
        f"{sizes.points}. From data sheets: nothing here was measured."
    )
    return Table("Floors of the CUDA kernels", header, tuple(rows), (note,))


def device_at_hand(device: torch.device) -> Device | None:
    """What the device can do: its clock and multiprocessors as it says, its bandwidth measured."""
    if device.type != "cuda":
        return None
    from numba import cuda as numba_cuda

    with numba_cuda.gpus[device.index or 0]:
        processors = numba_cuda.get_current_device().MULTIPROCESSOR_COUNT
        clock = 1e3 * numba_cuda.get_current_device().CLOCK_RATE
    data = torch.empty(2**28, device=device)
    target = torch.empty_like(data)
    seconds = time_torch(Bench(device, 5), lambda: target.copy_(data))
    name = torch.cuda.get_device_name(device)
    return gpu_floors.Device(name, processors, clock, 2 * data.nbytes / seconds)


class Results:
    """Tables as they are made, printed and in a file at once: a run that breaks off leaves them."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.tables: list[Table] = []
        self._path, self._about = path, about

    def add(self, table: Table, **known: object) -> None:
        """Print a table, and write it with all before it and what else is `known`."""
        self.tables.append(table)
        print(table.text(), flush=True)
        self.keep(**known)

    def keep(self, *unfinished: Table, **known: object) -> None:
        """Write all tables, and those that are not finished yet."""
        self._about |= known | {"when": datetime.now(UTC).isoformat(timespec="seconds")}
        tables = [table.to_dict() for table in (*self.tables, *unfinished)]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        written = json.dumps(self._about | {"tables": tables}, indent=2)
        self._path.write_text(written, encoding="utf-8")


def timings(bench: Bench, sizes: Sizes, results: Results, notes: list[str]) -> Table:
    """Time all that there is, and write down each as soon as it is known."""
    rows: list[Row] = []

    def fit(bench: Bench, sizes: Sizes) -> list[Row]:
        try:
            return time_fit(bench.device, small=sizes.small)
        except DataMissingError as error:
            notes.append(str(error))
            return []

    ways: list[Callable[[Bench, Sizes], Row | list[Row]]] = [
        time_grid,
        time_views,
        time_targets,
        time_relocation,
        time_refinement,
        time_points,
        time_adam,
        fit,
    ]
    header = ("what", "size", "ms", "promised, ms", "kept")
    table = Table("What a GPU is promised for", header, (), tuple(notes))
    for way in ways:
        found = way(bench, sizes)
        rows += found if isinstance(found, list) else [found]
        table = Table(table.title, header, tuple(rows), tuple(notes))
        results.keep(table)
    return table


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--small", action="store_true", help="tiny sizes: no figures")
    parser.add_argument("--floors", action="store_true", help="least times only, on any machine")
    parser.add_argument(
        "--cost", action="store_true", help="what cards should take, on any machine"
    )
    parser.add_argument("--turns", type=int, default=15, help="turns for a median")
    parser.add_argument("--seed", type=int, help="of the checks; a new one every time by default")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to write JSON")
    parser.add_argument("--markdown", type=Path, help="page whose marked part gets the tables")
    parser.add_argument("--kept", type=Path, help="show a run that was kept instead: its JSON")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Check, time, print a table last, write JSON; 1 if a check failed, 2 without a GPU."""
    chosen = arguments(words)
    sizes = Sizes(small=chosen.small)
    command = " ".join(["python -m benchmarks.gpu", *(sys.argv[1:] if words is None else words)])
    if chosen.cost:
        from benchmarks import gpu_cost

        found = gpu_cost.tables(sizes)
        print("\n".join(table.text() for table in found))
        if chosen.markdown:
            write_tables(chosen.markdown, found, command, part=COST_PART)
        return 0
    if chosen.floors:
        table = floors_table(sizes)
        print(table.text())
        if chosen.markdown:
            write_tables(chosen.markdown, [table], command)
        return 0
    if chosen.kept:
        kept = json.loads(chosen.kept.read_text(encoding="utf-8"))
        tables = [Table.from_dict(table) for table in kept["tables"]]
        print("\n".join(table.text() for table in tables))
        if chosen.markdown:
            write_tables(chosen.markdown, tables, command, part=KEPT_PART)
        return 0 if kept["passed"] else 1
    reason = None if SIMULATED else why_not()
    if reason is not None:
        print(f"no GPU to measure on: {reason}", file=sys.stderr)
        return 2
    device = torch.device("cpu") if SIMULATED else torch.device("cuda", torch.cuda.current_device())
    name = "numba's simulator, on the CPU" if SIMULATED else torch.cuda.get_device_name(device)
    seed = secrets.randbelow(2**31) if chosen.seed is None else chosen.seed
    results = Results(chosen.json, {"device": name, "seed": seed})
    checks = Checks(device, small=chosen.small, seed=seed)
    results.add(describe())
    results.add(checks.run(), passed=checks.passed)
    bench = Bench(device, 1 if chosen.small else chosen.turns)
    notes = [f"Device: {name}. Medians of {bench.turns}, of graphs, by events on the device."]
    timed = timings(bench, sizes, results, notes)
    results.add(kernels_table(bench, sizes.work(), device_at_hand(device)))
    results.add(timed)
    tables = results.tables
    if chosen.markdown:
        write_tables(chosen.markdown, tables, command, part=KEPT_PART)
    return 0 if checks.passed else 1


if __name__ == "__main__":
    sys.exit(main())
