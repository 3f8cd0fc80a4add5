"""Many files at the prompt: what ``fit``, ``spots``, ``cells`` and ``trace`` do with several."""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING

from napari_gaussfit.cli.drawing import drawing
from napari_gaussfit.cli.exits import Exit
from napari_gaussfit.cli.printing import answer, answering_elsewhere, complain, saying_once
from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_gaussfit.cli.options import Parser
    from napari_gaussfit.jobs.batch import Batch, Item, Row

__all__ = ["offer"]


def offer(
    parser: Parser,
    single: Callable[[Namespace], int],
    of: str,
    *,
    fits: bool = False,
    always: bool = False,
) -> None:
    """Let a command take several files.

    Parameters
    ----------
    parser : Parser
        Of the command, whose positional argument is ``stacks``.
    single : callable
        That does one file, ``arguments.stack``.
    of : str
        What is looked for, in words.
    fits : bool
        Whether fits can be given in place of stacks.
    always : bool
        Whether one file is a batch too.
    """

    def run(arguments: Namespace) -> int:
        from napari_gaussfit.jobs.batch import is_several

        arguments.asked = parser.asked(arguments)
        if always or is_several(arguments.stacks):
            return _run_several(arguments, single, of, fits=fits)
        [arguments.stack] = arguments.stacks
        return single(arguments)

    parser.set_defaults(run=run, parser=parser)


def _run_several(
    arguments: Namespace, single: Callable[[Namespace], int], of: str, *, fits: bool
) -> int:
    from napari_gaussfit.jobs.batch import SUMMARY_NAME, Batch, RowState, expanded, items_of
    from napari_gaussfit.jobs.fit_folder import checked_folder
    from napari_gaussfit.jobs.overwriting import claimed, refuse_to_replace

    for name in ("also", "refine"):
        if getattr(arguments, name, None):
            raise SettingsError(f"--{name} is of one file; leave it out, or give one")
    out = checked_folder(arguments.out)
    items = items_of(expanded(arguments.stacks, fits=fits), out)
    refuse_to_replace([out / SUMMARY_NAME], inputs=[item.path for item in items], force=True)
    batch = Batch(items, out, arguments.asked, resume=arguments.resume, force=arguments.force)
    code = Exit.DONE
    with claimed(out), drawing(), saying_once():
        try:
            batch.run(
                lambda item, goes_on: _done(item, arguments, single, of, goes_on=goes_on),
                lambda n, row: _told(batch, n, row),
            )
        except KeyboardInterrupt:
            code = Exit.INTERRUPTED
    if batch.count(RowState.STOPPED):
        code = Exit.INTERRUPTED
    elif batch.count(RowState.FAILED):
        code = Exit.NOT_WRITTEN
    counts = ", ".join(f"{batch.count(state)} {state}" for state in RowState if batch.count(state))
    sys.stdout.write(f"{out / SUMMARY_NAME}: {len(items)} files, {counts}\n")
    if code == Exit.INTERRUPTED:
        sys.stdout.write("interrupted, --resume goes on\n")
    answer({"out": str(out), "files": [asdict(row) for row in batch.rows]})
    return code


def _done(
    item: Item,
    arguments: Namespace,
    single: Callable[[Namespace], int],
    of: str,
    *,
    goes_on: bool,
) -> Row:
    """Do one file as its command does, and return its figures."""
    from napari_gaussfit.errors import OutputError
    from napari_gaussfit.jobs.batch import Stopped, figures_of

    given = {**vars(arguments), "stack": item.path, "out": item.folder}
    # What an earlier run has left there is of the same settings, or has been refused.
    given |= {"resume": goes_on, "force": arguments.force or goes_on}
    with answering_elsewhere():
        code = single(Namespace(**given))
    if code == Exit.INTERRUPTED:
        raise Stopped
    if code != Exit.DONE:
        raise OutputError(f"{item.folder}: not all could be written, see above")
    return figures_of(item.folder, of)


def _told(batch: Batch, n: int, row: Row | None) -> None:
    from napari_gaussfit.jobs.batch import RowState

    name = batch.rows[n].file
    if row is None:
        sys.stderr.write(f"[{n + 1}/{len(batch.items)}] {name}\n")
    elif row.state is RowState.FAILED:
        complain(f"napari-gaussfit: error: {row.error}")
    elif row.state is RowState.KEPT:
        sys.stdout.write(f"{batch.out / row.folder}: done before\n")
