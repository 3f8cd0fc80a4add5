"""The command line: its commands, and what ends them.

Exit codes are those of `exits.Exit`. Heavy imports stand inside the functions of the commands'
modules, so that ``--help`` answers at once.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from napari_gaussfit.cli import (
    batch,
    completion,
    demo,
    export,
    fit,
    found,
    info,
    measure,
    psf,
    render,
    spots,
)
from napari_gaussfit.cli.drawing import drawing_apart
from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.cli.options import Parser
from napari_gaussfit.cli.printing import complain, printing, say_as_asked
from napari_gaussfit.errors import GaussfitError, IncompleteError
from napari_gaussfit.jobs.kept_memory import keep_freed_memory

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

__all__ = ["PROGRAM", "main", "parser", "program"]

PROGRAM = "napari-gaussfit"

ABOUT = "Fit 3D Gaussians to fluorescence stacks, and find spots, cells and neurites in them."

EXAMPLES = """\
examples:
  napari-gaussfit info stack.tif
  napari-gaussfit fit stack.tif -o out
  napari-gaussfit spots stack.tif -o spots

napari-gaussfit COMMAND --help tells the options of a command, their defaults and examples.
Exit codes: 0 done, 2 bad input or settings, 3 something could not be written or failed, 130
interrupted, with what was found so far saved."""


COLLECTED_AFTER = 100_000
"""Objects that come before Python looks which of them are reached in circles alone; 700 or 2,000
where nobody says otherwise."""


def program() -> int:
    """Run the command line in a process of its own, which ends with it at once.

    To let go of a million objects one after another takes a sixth of a second, and is of no use to
    anybody: the system takes back all of their memory. What is to be done at the end is done. What
    is let go of meanwhile is kept for what comes next.

    Returns
    -------
    int
        The exit code. Whoever calls this is to end by it.
    """
    keep_freed_memory()
    ended: list[int] = []
    atexit.register(_leave, ended)  # the first that is registered is the last that is called
    ended.append(main())
    return ended[0]


def _leave(ended: list[int]) -> None:
    """End the process, where a command has returned its exit code."""
    if ended:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(ended[0])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; the process's own by default.
    """
    alone = argv is None
    with _seldom_collecting() if alone else nullcontext(), printing() as out:
        with drawing_apart() if alone else nullcontext():
            code = _ran(argv)
        out.flush()
        # Who reads no further, as `head` does, has what was asked for.
        if out.error is None or isinstance(out.error, BrokenPipeError):
            return code
        _say(f"error: what was to be printed cannot be: {out.error.strerror}")
        return code or Exit.NOT_WRITTEN


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Look seldom for what cannot be reached any more, and not at all as the process ends.

    A million objects come by imports and stay: looking through them again and again takes a sixth
    of the imports' time, and at the end half a second.
    """
    gc.set_threshold(COLLECTED_AFTER)
    try:
        yield
    finally:
        gc.freeze()


def _ran(argv: Sequence[str] | None) -> int:
    """Run a command; say what ends it, and return the exit code."""
    program = parser()
    arguments = program.parse_args(argv)
    try:
        if getattr(arguments, "settings", None) is not None:
            arguments.parser.take_settings(arguments.settings)
            arguments = program.parse_args(argv)
        say_as_asked(
            quiet=arguments.quiet, json=getattr(arguments, "json", False), verbose=arguments.verbose
        )
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        _say("interrupted")
        return Exit.INTERRUPTED
    except IncompleteError as error:
        _say(f"error: {error}")
        return Exit.NOT_WRITTEN
    except (GaussfitError, OSError) as error:
        _say(f"error: {' '.join(str(error).split())}")
        return Exit.BAD_INPUT
    except MemoryError:
        _say("error: there is not enough memory; crop or bin the stack, or close other programs")
        return Exit.BAD_INPUT


def _say(line: str) -> None:
    complain(f"{PROGRAM}: {line}")


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    from napari_gaussfit import __version__

    program = Parser(prog=PROGRAM, description=ABOUT, epilog=EXAMPLES)
    program.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = program.add_subparsers(required=True, metavar="COMMAND")
    fit.add_parser(commands)
    batch.add_parser(commands)
    found.add_parsers(commands)
    for command in (spots, render, export, info, measure, psf, demo, completion):
        command.add_parser(commands)
    return program
