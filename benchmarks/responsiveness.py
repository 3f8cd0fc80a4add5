"""How fluent napari stays while a fit runs, and what its live layers cost the fit.

    xvfb-run -a -s "-screen 0 1280x1024x24" python -m benchmarks.responsiveness \
        [--seconds 10] [--markdown docs/performance.md]

A 10 ms timer in the GUI's thread notes when it rings, from the press of Fit on: what lies between
two rings beyond that is time in which the window does not answer. The fit's speed with live layers
is set against that of the same steps in a process without any window, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from benchmarks.machine import describe
from benchmarks.page import write_tables
from benchmarks.tables import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_gaussfit import FitSettings, Stack
    from napari_gaussfit._napari.panel.panel import GaussianFitPanel

SIZE = 1200, 900
TICK_MS = 10
OPEN_MS = 10_000
"""That the panel has been open before Fit is pressed: its process is ready by then."""

FROM_STEP, TO_STEP = 100, 1200
"""The steps that are timed: the views are all made by then."""

TURNS = 2
"""The fit's speed is measured as often: a machine is not as fast in one minute as in the next."""

LONGEST: Literal["fine"] = "fine"
"""The quality with the most steps, so that a fit goes on for as long as it is watched."""

FEW, MANY = 2000, 50_000

HEADLESS = """
import sys
from benchmarks.responsiveness import settings, stack
from napari_gaussfit import Fit
fit = Fit(stack(), settings(int(sys.argv[1])))
for snapshot in fit:
    if snapshot.iteration >= int(sys.argv[2]):
        fit.cancel()
print("seconds", *fit.history["seconds"])
"""


@dataclass(frozen=True)
class Watched:
    """A fit that was watched: gaps of the timer in ms, what came a second, seconds to the first."""

    p50: float
    p95: float
    worst: float
    updates: float
    pictures: float
    steps: float
    moving: float


def stack() -> Stack:
    """The dendrite where the real stacks are, else a phantom."""
    from napari_gaussfit import Stack
    from napari_gaussfit.synthetic.phantoms import neurite

    folder = Path(os.environ.get("GAUSSFIT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    path = folder / "neurites" / "dendrite_spines_spotspine.tif"
    return Stack.open(path) if path.exists() else neurite().stack


def settings(gaussians: int) -> FitSettings:
    """A fit that goes on for as long as it is watched."""
    from napari_gaussfit import FitSettings

    return FitSettings(exactly=True, gaussians=gaussians, quality=LONGEST)


def speed(seconds: list[float]) -> float:
    """Steps a second between two steps, of a history's times (one every ten steps)."""
    first, last = seconds[FROM_STEP // 10 - 1], seconds[TO_STEP // 10 - 1]
    return (TO_STEP - FROM_STEP) / (last - first)


def headless(gaussians: int) -> float:
    """Steps a second of a fit that nobody watches."""
    command = [sys.executable, "-c", HEADLESS, str(gaussians), str(TO_STEP + 10)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return speed([float(word) for word in output.split()[1:]])


def viewer_with_panel() -> tuple[Any, GaussianFitPanel, float]:
    """A window with the stack and the panel, and the seconds that the panel took to open."""
    import napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    one = stack()
    viewer.add_image(
        one.voxels,
        name=one.name,
        scale=one.spacing,
        units=(one.unit,) * 3,
        axis_labels=("z", "y", "x"),
    )
    let_live(500)
    began = time.perf_counter()
    _, panel = viewer.window.add_plugin_dock_widget("napari-gaussfit", "Gaussian fit")
    QApplication.processEvents()
    return viewer, panel, time.perf_counter() - began


def watch(panel: GaussianFitPanel, gaussians: int, seconds: float, steps: int) -> Watched:
    """Fit from the press of the button on, for so long and at least so many steps."""
    from qtpy.QtCore import Qt, QTimer

    wait_for(panel.run.buttons["Fit"].isEnabled)
    let_live(OPEN_MS)
    panel.model.settings = settings(gaussians)
    rings: list[float] = []
    updates: list[float] = []
    pictures: list[float] = []

    def note_update(_news: object) -> None:
        updates.append(time.perf_counter())

    def note_picture(_mips: object) -> None:
        pictures.append(time.perf_counter())

    timer = QTimer()
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.timeout.connect(lambda: rings.append(time.perf_counter()))
    panel.worker.updated.connect(note_update)
    panel.worker.mips_changed.connect(note_picture)
    timer.start(TICK_MS)
    rings.append(time.perf_counter())
    began = rings[0]
    panel.start_fit()
    wait_for(lambda: len(updates) > 1)
    let_live(int(1000 * seconds))
    timer.stop()
    panel.worker.updated.disconnect(note_update)
    panel.worker.mips_changed.disconnect(note_picture)
    history = panel.worker.news.history
    wait_for(lambda: not steps or history["iteration"][-1:] >= [steps], 600)
    panel.worker.stop()
    wait_for(lambda: not panel.worker.phase.active)
    found = 1000 * np.diff(rings)
    return Watched(
        float(np.percentile(found, 50)),
        float(np.percentile(found, 95)),
        float(found.max()),
        _rate(updates),
        _rate(pictures),
        speed(history["seconds"]) if steps else float("nan"),
        updates[1] - began,
    )


def _rate(times: list[float]) -> float:
    """How many came a second."""
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0


def let_live(milliseconds: int) -> None:
    """Let the window live for a while."""
    from qtpy.QtTest import QTest

    # Of PyQt's types it is a method of an object.
    QTest.qWait(milliseconds)  # type: ignore[call-arg, arg-type]


def wait_for(is_so: Callable[[], object], seconds: float = 120) -> None:
    """Let the window live until something is so."""
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError
        let_live(20)


def measure(seconds: float) -> list[Table]:
    """Watch a fit of few and one of many Gaussians."""
    viewer, panel, opening = viewer_with_panel()
    many = watch(panel, MANY, seconds, 0)
    alone, watched = [headless(FEW)], []
    for _ in range(TURNS):
        watched.append(watch(panel, FEW, seconds, TO_STEP))
        alone.append(headless(FEW))
    viewer.close()
    live = [one.steps for one in watched]
    rows = (
        _row(f"gap at {FEW:,}, median, ms", max(one.p50 for one in watched), None),
        _row(f"gap at {FEW:,}, 95th percentile, ms", max(one.p95 for one in watched), 80.0),
        _row(f"gap at {FEW:,}, worst, ms", max(one.worst for one in watched), 300.0),
        _row(f"gap at {MANY:,}, 95th percentile, ms", many.p95, None),
        _row(f"gap at {MANY:,}, worst, ms", many.worst, 1000.0),
        _row(
            f"updates a second at {FEW:,}",
            min(one.updates for one in watched),
            5.0,
            at_least=True,
        ),
        _row(f"updates a second at {MANY:,}", many.updates, 5.0, at_least=True),
        _row(f"pictures a second at {FEW:,}", min(one.pictures for one in watched), None),
        _row(f"pictures a second at {MANY:,}", many.pictures, None),
        _row("steps a second, without live layers", float(np.mean(alone)), None),
        _row("steps a second, with live layers", float(np.mean(live)), None),
        _row(
            "speed kept with live layers",
            float(np.mean(live) / np.mean(alone)),
            0.9,
            at_least=True,
        ),
        _row("the panel opens, s", opening, 0.5),
        _row("from Fit to centres that move, s", max(one.moving for one in watched), 0.5),
    )
    note = (
        f"From the press of Fit on, {seconds:g} s of each fit beyond its first update; window "
        f"{SIZE[0]} x {SIZE[1]}, software GL where the machine has no other. The panel's time is "
        "that of its first opening, beyond the import of napari. Of the fit at "
        f"{FEW:,}, the worst of {TURNS} runs; its speed is the mean over steps {FROM_STEP} to "
        f"{TO_STEP:,} of these, and of {TURNS + 1} runs without live layers in between and around "
        f"({', '.join(f'{one:.1f}' for one in alone)}; with: "
        f"{', '.join(f'{one:.1f}' for one in live)})."
    )
    return [
        Table(
            "Responsiveness", ("what", "measured", "aimed at", "holds"), rows, (note, *_priority())
        )
    ]


def _priority() -> tuple[str, ...]:
    """Say where this session goes before (or after) the machine's other work."""
    group = Path("/proc/self/autogroup")
    nice = int(group.read_text().split()[-1]) if group.exists() else 0
    if nice == 0:
        return ()
    order = "before" if nice < 0 else "after"
    return (f"The session went {order} the machine's other work (autogroup nice {nice}).",)


def _row(
    what: str, found: float, aim: float | None, *, at_least: bool = False
) -> tuple[str, float, str, str]:
    if aim is None:
        return what, found, "-", "-"
    holds = found >= aim if at_least else found <= aim
    return what, found, f"{'>=' if at_least else '<='} {aim:g}", "yes" if holds else "NO"


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.responsiveness", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path, help="page whose marked part gets the tables")
    options = parser.parse_args()
    os.environ.setdefault("XDG_CONFIG_HOME", tempfile.mkdtemp(prefix="gaussfit-bench-"))
    tables = [describe(), *measure(options.seconds)]
    print("\n".join(table.text() for table in tables))
    if options.json:
        options.json.write_text(json.dumps([table.to_dict() for table in tables], indent=2))
    if options.markdown:
        command = " ".join(["python -m benchmarks.responsiveness", *sys.argv[1:]])
        write_tables(options.markdown, tables, command, part="responsiveness")


if __name__ == "__main__":
    main()
