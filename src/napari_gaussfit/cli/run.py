"""Running a fit from a terminal: progress, signals, saving at intervals, and room in memory."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager, suppress
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, Any

from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.cli.printing import answer, is_news
from napari_gaussfit.fitting.progress import BAR, show
from napari_gaussfit.fitting.snapshot import FitState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tqdm import tqdm

    from napari_gaussfit.fitting.fit import Fit
    from napari_gaussfit.jobs.fit_folder import FitFolder

__all__ = ["run"]

AFTERWARDS = tuple(
    f"napari_gaussfit.{name}"
    for name in ("measure.report", "measure.measuring", "plots.comparisons", "formats.csv")
)
"""What is needed when a fit has ended."""


def run(fit: Fit, folder: FitFolder, *, resumed: bool, needed: Sequence[str] = ()) -> Exit:
    """Run a fit into its folder, which is there and claimed.

    The first SIGINT or SIGTERM ends the fit after the current step, and what it has found is
    written; a second one raises KeyboardInterrupt at once, and the last saving stays.

    Parameters
    ----------
    fit : Fit
        A fit that has not been started.
    folder : FitFolder
        The folder that the results are written to.
    resumed : bool
        Whether the folder's own results belong to this fit, so that they stay meanwhile.
    needed : sequence of str
        Modules that whoever called this needs when the fit has ended.

    Returns
    -------
    Exit
        NOT_WRITTEN where a file is missing in the end, whatever else there is.
    """
    from napari_gaussfit._kernels import fallback
    from napari_gaussfit._kernels.compiled import kernels_are_compiled
    from napari_gaussfit.cli.saving import Saving, rescue
    from napari_gaussfit.fitting.memory import memory_line
    from napari_gaussfit.jobs.fit_folder import DECONVOLVED_NAME, OUTPUTS, report_of
    from napari_gaussfit.measure.metrics import noise_leaves
    from napari_gaussfit.model.gaussians import counted

    if sys.stderr.isatty():
        sys.stderr.write(memory_line(fit.stacks, fit.settings))
        why = fallback(fit.settings.device)
        sys.stderr.write("" if why is None or not is_news(f"{why}, on stderr") else f"{why}\n")
    compiled = kernels_are_compiled()
    if not compiled:
        sys.stderr.write("compiling the kernels, once: this takes about half a minute\n")
    # Beside the kernels, which leave Python to it; begun with the first snapshot, when all that the
    # fit itself imports is there.
    # A kernel that is still to be compiled, for which all cores wait, waits for its turn.
    kernels = compiled and fit.settings.measure is not False
    loading = Thread(target=_load, args=((*AFTERWARDS, *needed), kernels), daemon=True)
    with _signals_cancel(fit):
        with _bar(fit.settings.steps) as bar:
            saving = Saving(fit, folder, own=resumed)
            for snapshot in fit:
                if loading.ident is None:
                    loading.start()
                show(bar, snapshot)
                saving.look()
        result, failed = folder.finish(fit, over_own=saving.own)
    ended, report, comparison = fit.state is FitState.FINISHED, result.report, fit.comparison()
    sys.stdout.write(
        f"{folder.path}: {counted(report.gaussians)} ({report.count_reason}), "
        f"held-out projections {report.heldout_mip_psnr:.2f} dB"
        f"{noise_leaves(report.heldout_noise_psnr, 2)}, "
        f"voxels {report.voxel_psnr:.2f} dB{noise_leaves(report.noise_psnr, 2)}, "
        f"{report.iterations} steps in {report.seconds:.1f} s"
        + ("" if comparison is None else f"; {comparison}")
        + ("" if report.converged or not ended else f"; not converged: {report.convergence}")
        + ("\n" if ended else "; interrupted, --resume goes on\n")
        + (f"psf: {report.psf}\n" if report.psf else "")
        + f"noise: {report.noise}\nmeasured: {report.measured}\n"
        + "".join(f"note: {note}\n" for note in report.notes if is_news(note))
    )
    names = (*OUTPUTS, *((DECONVOLVED_NAME,) if report.psf else ()))
    written = [name for name in names if name not in failed]
    sys.stdout.write(f"{folder.path}: wrote {', '.join(written)}\n")
    told = report_of(result)
    del told["history"]  # a row a dozen steps, which report.json has
    answer({"out": str(folder.path)} | told)
    if failed:
        rescue(fit, folder, result, failed)
        return Exit.NOT_WRITTEN
    return Exit.DONE if ended else Exit.INTERRUPTED


def _load(modules: Sequence[str], kernels: bool) -> None:  # noqa: FBT001 - by a thread
    """Import modules, and load the kernel that measures; what cannot be is told by who needs it."""
    for name in modules:
        with suppress(ImportError):
            import_module(name)
    if kernels:
        from napari_gaussfit._kernels.cpu.refinement_kernels import make_ready

        make_ready()


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
