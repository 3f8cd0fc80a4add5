"""A fit on a GPU, looked at from outside: ``python -m benchmarks.gpu_contact``.

Beside `benchmarks.gpu`, which checks kernels and times them one by one: what a step, a relocation
and a look at held-out views take in a fit, which kernels that goes to, whether the same inputs give
the same numbers bit for bit, and how long it is to a given quality. Each part is guarded, and JSON
is written after each. In numba's simulator (NUMBA_ENABLE_CUDASIM=1) all of it runs on a few voxels,
without the profile: no figures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks import quality
from benchmarks.gpu import Sizes
from benchmarks.stacks import DENDRITE, open_stack
from napari_gaussfit import Fit, FitSettings
from napari_gaussfit._kernels import why_not
from napari_gaussfit._kernels.cuda import backend as cuda
from napari_gaussfit._kernels.cuda.device import SIMULATED
from napari_gaussfit.fitting.trainer import Trainer
from napari_gaussfit.model.views import Views

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_gaussfit.settings import Device

RESULTS = Path(__file__).parent / "results" / "gpu_contact.json"
PACKAGES = (
    "torch",
    "numba",
    "numba-cuda",
    "cuda-core",
    "cuda-bindings",
    "nvidia-nvvm",
    "nvidia-nvjitlink",
    "numpy",
)
TARGET_PSNR, REPLAYS, STEPS = 54.5, 20, 120


def device() -> torch.device:
    """The GPU, or the CPU that stands for it."""
    return torch.device("cpu") if SIMULATED else torch.device("cuda", torch.cuda.current_device())


def settings(**given: Any) -> FitSettings:
    """Of the dendrite's fit on the device."""
    gaussians = 20 if SIMULATED else DENDRITE.gaussians
    where: Device = "cpu" if SIMULATED else "cuda"
    return FitSettings(exactly=True, gaussians=gaussians, device=where, **given)


def info() -> dict[str, object]:
    """Versions, the card, and why it cannot be used, if so."""
    found: dict[str, object] = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    found["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    if not SIMULATED:
        found |= {"card": torch.cuda.get_device_name(), "why not": why_not()}
    return found


def twice() -> dict[str, bool]:
    """Whether a MIP and its gradient are the same bit for bit again: if not, there is a race."""
    sizes = Sizes(small=SIMULATED)
    means, cholesky, amplitudes = (p.to(device()) for p in sizes.parameters())
    table = cuda.Views.of(sizes.rays()[:3], 1.5, device())

    def once() -> dict[str, torch.Tensor]:
        packed = cuda.pack(means, cholesky, amplitudes, 1e-3)
        evaluation = cuda.MipEvaluation(table)
        image = evaluation.forward(packed)
        gradient = evaluation.backward(packed, image)
        return {"image": image, "depth": evaluation.depth, "gradient": gradient}

    first, second = once(), once()
    return {name: bool(torch.equal(first[name], second[name])) for name in first}


def fit() -> list[dict[str, float]]:
    """A short fit, the first with all that is compiled for it, then again."""
    stack, rows = open_stack(DENDRITE, small=SIMULATED), []
    chosen = settings(iterations=6 if SIMULATED else STEPS)
    for _ in range(2):
        began = time.perf_counter()
        for snapshot in Fit(stack, chosen):
            last = snapshot
        seconds = time.perf_counter() - began
        rows.append({"seconds": seconds, "held-out": last.held_out_psnr, "voxels": last.voxel_psnr})
    return rows


def to_target() -> list[dict[str, float | None]]:
    """Seconds to `TARGET_PSNR` dB and at the end, by clock from `Fit`."""
    stack = open_stack(DENDRITE, small=SIMULATED)
    chosen = settings(iterations=6 if SIMULATED else None)
    judge, found = quality.Judge(stack, Views(stack, chosen.views, chosen.held_out)), []
    for _ in range(3):
        moments = quality.run_fit(stack, chosen, judge)
        reached = quality.first_at(moments, TARGET_PSNR)
        end = moments[-1]
        found.append({"reached": reached, "end": end.seconds, "psnr": end.psnr})
    return found


def profile() -> dict[str, object]:
    """What parts of a fit take, and which kernels its steps go to (milliseconds of 20 steps)."""
    began = time.perf_counter()
    trainer = Trainer([open_stack(DENDRITE, small=SIMULATED)], settings())
    parts: dict[str, object] = {"trainer": time.perf_counter() - began}

    def lap(name: str, call: Callable[[], object], times: int = 1) -> None:
        _wait()
        begin = time.perf_counter()
        for _ in range(times):
            call()
        _wait()
        parts[name] = (time.perf_counter() - begin) / times

    for n in range(1, 5):
        lap(f"step {n}", lambda: trainer.step(0.0))
    lap("a step, late", lambda: trainer.step(0.9), 2 if SIMULATED else REPLAYS)
    lap("held-out views, first look", trainer.held_out_psnr)
    lap("held-out views", trainer.held_out_psnr, 1 if SIMULATED else 5)
    lap("the field", lambda: trainer.field, 10)
    if not SIMULATED:
        parts["kernels"] = _kernels_of(lambda: [trainer.step(0.9) for _ in range(REPLAYS)])
    return parts


def _wait() -> None:
    if not SIMULATED:
        torch.cuda.synchronize()


def _kernels_of(call: Callable[[], object]) -> dict[str, tuple[float, int]]:
    """Milliseconds on the device, and launches, of the 25 longest kernels of a call."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    with profiled(activities=[ProfilerActivity.CUDA]) as found:
        call()
        _wait()
    rows = sorted(found.key_averages(), key=lambda row: -row.self_device_time_total)
    return {row.key[:80]: (row.self_device_time_total / 1e3, row.count) for row in rows[:25]}


PARTS: dict[str, Callable[[], object]] = {
    "info": info,
    "twice": twice,
    "fit": fit,
    "profile": profile,
    "to_target": to_target,
}


def main(words: Sequence[str] | None = None) -> int:
    """Run parts one after another; 1 if one failed."""
    parser = argparse.ArgumentParser("python -m benchmarks.gpu_contact", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to write JSON")
    chosen = parser.parse_args(words)
    found: dict[str, object] = {}
    failed = False
    for name in chosen.parts or PARTS:
        began = time.perf_counter()
        try:
            found[name] = PARTS[name]()
        except Exception as error:  # noqa: BLE001 - the parts after it are wanted all the more
            traceback.print_exc()
            found[name], failed = f"failed: {type(error).__name__}: {error}", True
        print(f"{name} ({time.perf_counter() - began:.1f} s): {found[name]}", flush=True)
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(found, indent=1, default=str), encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
