"""Does what `attacked.outcomes` asks for, command by command, and says how each ended.

A line on stdin is ``[number, path, command]`` in JSON, one on stdout ``[number, code, said]``; the
number goes out alone before the command begins.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import warnings
from pathlib import Path

from napari_gaussfit import cli
from napari_gaussfit.errors import GaussfitError

STACK = Path(sys.argv[1])


def arguments(command: str, path: Path, out: Path) -> list[str]:
    """The command line of a command's short name."""
    name, *_ = command.split()
    with_stack = ["--stack", str(STACK)] if path.suffix in {".csv", ".pt"} else []
    return {
        "info": ["info", str(path)],
        "view": ["render", str(path), "-o", str(out / "view.tif")],
        "picture": ["render", str(path), "-o", str(out / "picture.png"), "--azimuth", "30"],
        "table": ["export", str(path), "-o", str(out / "table.csv"), *with_stack],
        "scene": ["export", str(path), "-o", str(out / "scene.ply"), *with_stack],
        "volume": ["export", str(path), "-o", str(out / "volume.ome.tif"), *with_stack],
    }[name]


def resume(path: Path) -> int:
    """Go on from a fit for the steps that it lacks; what the command line does, without results."""
    from napari_gaussfit.fitting.fit import Fit
    from napari_gaussfit.jobs.fit_folder import FitFolder, is_finished, resumed_settings
    from napari_gaussfit.stacks.stack import Stack

    stack = Stack.open(STACK)
    try:
        saved = FitFolder(path.parent, (stack,)).saved()
        settings = resumed_settings(saved, {})
        if not is_finished(saved, settings):
            fit = Fit(stack, settings)
            fit.restore(saved)
            for _ in fit:
                pass
    except GaussfitError as error:
        sys.stderr.write(f"napari-gaussfit: error: {error}\n")
        return 2
    return 0


def run(command: str, path: Path) -> int:
    if command == "resume":
        return resume(path)
    with tempfile.TemporaryDirectory() as out:
        return cli.main(arguments(command, path, Path(out)))


def tell(answer: list[object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    warnings.simplefilter("always")
    for line in sys.stdin:
        number, path, command = json.loads(line)
        tell([number])
        said = io.StringIO()
        code: int | str
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
                code = run(command, Path(path))
        except BaseException as error:  # noqa: BLE001 - which is what must not come
            code = f"{type(error).__name__}: {error}"[:200]
        tell([number, code, said.getvalue()])


if __name__ == "__main__":
    main()
