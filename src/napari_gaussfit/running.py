"""Running a fit from a terminal: progress, signals, saving at intervals, and room in memory."""

from __future__ import annotations

import math
import signal
import sys
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_gaussfit.errors import StackError
from napari_gaussfit.fitting import FitState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tqdm import tqdm

    from napari_gaussfit.fitting import Fit, Snapshot
    from napari_gaussfit.output import FitFolder

__all__ = ["Ending", "kernels_are_compiled", "refuse_what_memory_cannot_hold", "run"]

BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"


class Ending(IntEnum):
    """How a run ended; the value is the exit code."""

    DONE = 0
    NOT_WRITTEN = 3
    INTERRUPTED = 130


def run(fit: Fit, folder: FitFolder, *, resumed: bool) -> Ending:
    """Run a fit into its folder, which is there and claimed.

    The first SIGINT or SIGTERM ends the fit after the current step, and what it has found is
    written; a second one raises KeyboardInterrupt at once, and the last saving stays.

    Parameters
    ----------
    fit : Fit
        An idle fit.
    folder : FitFolder
        Where to write.
    resumed : bool
        Whether the folder's own results belong to this fit, so that they stay meanwhile.

    Returns
    -------
    Ending
        NOT_WRITTEN where a file is missing in the end, whatever else there is.
    """
    from napari_gaussfit.saving import Saving, rescue

    if sys.stderr.isatty():
        sys.stderr.write(_memory_line(fit))
    if not kernels_are_compiled():
        sys.stderr.write("compiling the kernels, once: this takes about half a minute\n")
    with _signals_cancel(fit):
        with _bar(fit.settings.steps) as bar:
            saving = Saving(fit, folder, own=resumed)
            for snapshot in fit:
                _show(bar, snapshot)
                saving.look()
        result, failed = folder.finish(fit, over_own=saving.own)
    ended, report, comparison = fit.state is FitState.FINISHED, result.report, fit.comparison()
    sys.stdout.write(
        f"{folder.path}: {report.gaussians:,} Gaussians, "
        f"held-out projections {report.heldout_mip_psnr:.2f} dB "
        f"(noise leaves {report.heldout_noise_psnr:.2f}), "
        f"voxels {report.voxel_psnr:.2f} dB (noise leaves {report.noise_psnr:.2f}), "
        f"{report.iterations} steps in {report.seconds:.1f} s"
        + ("" if comparison is None else f"; {comparison}")
        + ("" if report.converged or not ended else f"; not converged: {report.convergence}")
        + ("\n" if ended else "; interrupted, --resume goes on\n")
        + "".join(f"note: {note}\n" for note in report.notes)
    )
    if failed:
        rescue(fit, folder, result, failed)
        return Ending.NOT_WRITTEN
    return Ending.DONE if ended else Ending.INTERRUPTED


def _memory_line(fit: Fit) -> str:
    import psutil

    from napari_gaussfit.memory import predict_memory

    voxels = sum(stack.voxels.size for stack in fit.stacks)
    needed = predict_memory(voxels, sum(stack.nbytes for stack in fit.stacks), fit.settings)
    available = psutil.virtual_memory().available
    return f"takes about {needed / 1e9:.2g} GB of memory; {available / 1e9:.2g} GB are free\n"


@contextmanager
def _signals_cancel(fit: Fit) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM cancel the fit, and the second one interrupt."""

    def heed(*_: object) -> None:
        for number in before:
            signal.signal(number, signal.default_int_handler)
        fit.cancel()

    before: dict[signal.Signals, Any] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, heed)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _bar(steps: int) -> tqdm[Any]:
    from tqdm import tqdm

    # disable=None: silent where stderr is no terminal.
    return tqdm(total=steps, bar_format=BAR, file=sys.stderr, disable=None, dynamic_ncols=True)


def _show(bar: tqdm[Any], snapshot: Snapshot) -> None:
    psnr, left = snapshot.held_out_psnr, snapshot.seconds_left
    quality = "" if math.isnan(psnr) else f"held-out {psnr:.1f} dB, "
    when = "" if math.isnan(left) else f", {bar.format_interval(left)} left"
    bar.set_postfix_str(f"{quality}{len(snapshot.field):,} Gaussians{when}", refresh=False)
    bar.update(snapshot.iteration - bar.n)
    bar.refresh()


def kernels_are_compiled() -> bool:
    """Tell whether Numba's cache holds the kernel that takes longest, newer than its sources."""
    from napari_gaussfit._kernels import compiled, cpu_modes

    sources = compiled.sources_of(Path(cpu_modes.__file__))
    cache = Path(str(cpu_modes.find_modes.stats.cache_path))
    newest = max((f.stat().st_mtime for f in cache.glob("cpu_modes.find_modes-*.nbi")), default=0)
    return newest > max(source.stat().st_mtime for source in sources)


def refuse_what_memory_cannot_hold(label: str, shape: tuple[int, int, int], nbytes: int) -> None:
    """Check, before its voxels are read, that the fit of a stack has room.

    Parameters
    ----------
    label : str
        The stack, for the message.
    shape : tuple of int
        Its voxels, z, y, x.
    nbytes : int
        Its size as it is stored.

    Raises
    ------
    StackError
        If it has not.
    """
    import psutil

    from napari_gaussfit.memory import PROCESS, predict_memory
    from napari_gaussfit.settings import FitSettings

    voxels = math.prod(shape)
    needed = predict_memory(voxels, nbytes, FitSettings()) - PROCESS  # which is there already
    available = int(psutil.virtual_memory().available)
    if needed > available:
        raise StackError(
            f"{label}: its {voxels:,} voxels ({' x '.join(map(str, shape))}) need about "
            f"{needed / 1e9:.3g} GB of memory to be fitted, {available / 1e9:.3g} GB are free; "
            "crop or bin the stack, or close other programs"
        )
