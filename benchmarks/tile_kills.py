"""Kills of workers or of a whole fit by tiles, at random moments: it must end in the same bytes.

``python -m benchmarks.tile_kills --kills 100 --seed 0``
"""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from napari_gaussfit.stacks.ome_zarr import write_ome_zarr
from napari_gaussfit.synthetic import phantoms

LOG = "log.jsonl"
"""The one file that no two runs have alike."""

OPTIONS = ("--tile", "24", "32", "32", "--iterations", "30", "--device", "cpu", "--workers", "2")


def digests(folder: Path) -> dict[str, str]:
    """Return a checksum of each file of a result."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOG
    }


def start(source: Path, out: Path) -> subprocess.Popen[bytes]:
    """Begin a fit, or go on with it."""
    command = [sys.executable, "-m", "napari_gaussfit.cli", "fit", str(source), "-o", str(out)]
    return subprocess.Popen(
        [*command, *OPTIONS, "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def kill(process: subprocess.Popen[bytes], chance: random.Random) -> str:
    """Kill one of a fit's workers, or all of it with them, and say which."""
    whole = psutil.Process(process.pid)
    workers = whole.children(recursive=True)
    if workers and chance.random() < 0.5:
        chance.choice(workers).kill()
        return "a worker"
    for one in [*workers, whole]:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
    return "all"


def run(folder: Path, kills: int, seed: int) -> int:
    """Return how many results differed."""
    chance, source = random.Random(seed), folder / "stack.ome.zarr"
    stack = phantoms.neurite(shape=(24, 64, 64), seed=2).stack
    write_ome_zarr(source, stack.voxels, spacing=stack.spacing, unit="micrometer", name="neurite")
    began = time.monotonic()
    if start(source, folder / "undisturbed").wait():
        raise SystemExit("the fit fails without any kill")
    usual, expected = time.monotonic() - began, digests(folder / "undisturbed")
    done = results = wrong = 0
    while done < kills:
        out = folder / f"killed-{results}"
        before, began, process = done, time.monotonic(), start(source, out)
        while process.poll() is None:
            try:
                process.wait(chance.uniform(0, usual))
            except subprocess.TimeoutExpired:
                done += 1
                if kill(process, chance) == "all":
                    process = start(source, out)
                if done >= kills:
                    break
        if process.wait():
            raise SystemExit(f"{out}: ended with {process.returncode}")
        results += 1
        if done == before:
            # The first run compiles, and whatever else the machine did may have ended since.
            usual = min(usual, time.monotonic() - began)
        same = digests(out) == expected
        wrong += not same
        print(f"{done} kills, {results} results, {wrong} differ", flush=True)
    return wrong


def main() -> None:
    """Print how it went; exit with 1 where bytes differ."""
    parser = argparse.ArgumentParser("python -m benchmarks.tile_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        raise SystemExit(run(Path(scratch), given.kills, given.seed) > 0)


if __name__ == "__main__":
    main()
