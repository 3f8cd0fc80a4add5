"""Measure, print tables, write them as JSON and into a page: ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.options import Options
from benchmarks.page import PageError, write_tables
from benchmarks.stacks import DataMissingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.tables import Table

SECTIONS = {
    "kernels": "the dendrite's step: kernels against the dense torch reference",
    "scaling": "a step's cost as Gaussians, voxels and pixels grow",
    "points": "the field at points: kernels against a loop and against batched solves",
    "volumes": "voxelising: kernels against a plain torch scatter",
    "floors": "each kernel against the machine's measured peak",
    "threads": "one thread against all cores",
    "memory": "what a fit takes against what is predicted, up to 100 x 647 x 813 voxels",
    "sizes": "minutes and memory of a fit by default, by the size of the stack",
    "imports": "what importing the package costs",
    "measurement": "refined Gaussians: errors, error bars and time against the bound and curve_fit",
    "psf": "objects whose blur is known: own widths, pairs of points, shared widths",
    "doubts": "error bars where the model does not hold; pairs of spots, beside an oracle",
    "spots": "spots found without a count: against the truth, an oracle and other programs",
    "tracks": "moving spots: links, centres against the bound, and what a time costs",
    "neurites": "traces against those of others, and against phantoms' own branches",
    "cells": "nuclei against labels, beside Otsu's threshold and a watershed",
    "evidence": "the fit's own count of Gaussians against the best fixed one, by known truths",
    "tiles": "fits by tiles: voxels beside seams, one worker against two, tiles of background",
    "tile_workers": "fits by tiles: one worker against two, in turns, on a stack of 32 tiles",
    "quality": "time to a held-out PSNR: the fit against the plain way",
    "fits": "fits of the real stacks: quality, time, memory",
}
RESULTS = Path(__file__).parent / "results" / "latest.json"


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    listing = "\n".join(f"  {name:12} {what}" for name, what in SECTIONS.items())
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description=f"Measure on this machine, in one run.\n\nsections:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="sections; all by default")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to write JSON")
    parser.add_argument("--markdown", type=Path, help="page whose marked part gets the tables")
    parser.add_argument(
        "--part", default="benchmarks", metavar="NAME", help="which marked part of the page"
    )
    parser.add_argument("--turns", type=int, default=Options.turns, help="turns for a median")
    parser.add_argument(
        "--plain-seconds",
        type=float,
        default=Options.plain_seconds,
        help="how long the plain way may go on",
    )
    parser.add_argument(
        "--small", action="store_true", help="tiny sizes, to see that all runs: no figures"
    )
    chosen = parser.parse_args(words)
    unknown = sorted(set(chosen.names) - set(SECTIONS))
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    if chosen.turns < 1:
        parser.error(f"--turns {chosen.turns}: expected 1 or more")
    if chosen.plain_seconds < 0:
        parser.error(f"--plain-seconds {chosen.plain_seconds:g}: expected 0 or more")
    return chosen


def main(words: Sequence[str] | None = None) -> int:
    """Measure what was asked for."""
    chosen = arguments(words)
    options = Options(chosen.turns, chosen.plain_seconds, chosen.small)
    from benchmarks.machine import describe

    tables = [describe()]
    print(tables[0].text(), flush=True)
    results: dict[str, object] = {"machine": tables[0].to_dict()}
    try:
        for name in chosen.names or SECTIONS:
            began = time.perf_counter()
            found: list[Table] = importlib.import_module(f"benchmarks.{name}").measure(options)
            tables += found
            results[name] = [table.to_dict() for table in found]
            print("\n".join(table.text() for table in found), flush=True)
            print(f"({name}: {time.perf_counter() - began:.0f} s)\n", flush=True)
        if chosen.markdown:
            given = sys.argv[1:] if words is None else words
            command = " ".join(["python -m benchmarks", *given])
            write_tables(chosen.markdown, tables, command, part=chosen.part)
    except (DataMissingError, PageError) as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        results["options"] = vars(options)
        results["when"] = datetime.now(UTC).isoformat(timespec="seconds")
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(results, indent=2), encoding="utf-8")
        print(f"JSON: {chosen.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
