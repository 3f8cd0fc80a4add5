"""Files under attack, read in child processes: a crash or a hang is the file's, not pytest's."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHILD = Path(__file__).with_name("attacked_child.py")

MOST_SECONDS = 20.0
"""That a command may take on a file, whatever it holds."""

COMPILING_SECONDS = 300.0
"""That the first command may take, which compiles what is not compiled yet."""

MOST_CHARACTERS = 500


@dataclass(frozen=True)
class Outcome:
    """How a command ended on a file: its exit code, or what it should not have ended in."""

    path: Path
    command: str
    code: int | str
    said: str
    seconds: float

    @property
    def wrong(self) -> str:
        """What is not as it should be; nothing where it is."""
        if self.seconds > MOST_SECONDS:
            return f"took {self.seconds:.1f} s"
        if self.code not in {0, 2}:
            return f"ended in {self.code}"
        lines = [line for line in self.said.splitlines() if not line.startswith("note: ")]
        if self.code == 0:
            return f"read, and said {lines}" if lines else ""
        if len(lines) != 1 or not lines[0].startswith("napari-gaussfit: error: "):
            return f"said {lines}"
        return "" if len(lines[0]) < MOST_CHARACTERS else f"said {len(lines[0])} characters"

    @property
    def row(self) -> str:
        """A line of the table."""
        end = self.wrong or {0: "read", 2: "refused"}[int(self.code)]
        return f"{self.path.name:<34} {self.command:<8} {self.seconds:5.1f} s  {end}"


def outcomes(
    tasks: Sequence[tuple[Path, str]], stack: Path, warm_up: tuple[Path, str]
) -> Iterator[Outcome]:
    """Do each task, a file and a command, in a child that lives until one ends or holds it.

    Parameters
    ----------
    tasks : sequence of tuple
        Files and commands, see `attacked_child.arguments`.
    stack : Path
        For commands that need one.
    warm_up : tuple
        A task that a child does first, so that no other's time is that of compiling.
    """
    done = 0
    while done < len(tasks):
        for outcome in _in_one_child([warm_up, *tasks[done:]], stack):
            if outcome.path == warm_up[0]:
                assert outcome.code == 0, f"{outcome.code}: {outcome.said}"
                continue
            done += 1
            yield outcome


def _in_one_child(tasks: Sequence[tuple[Path, str]], stack: Path) -> Iterator[Outcome]:
    """Do tasks until all are done, or one has ended the child or was ended with it."""
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(stack)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    lines: queue.Queue[bytes] = queue.Queue()
    out = child.stdout

    def read() -> None:
        for line in out:
            lines.put(line)
        lines.put(b"")

    threading.Thread(target=read, daemon=True).start()
    try:
        for number, (path, command) in enumerate(tasks):
            limit = MOST_SECONDS if number else COMPILING_SECONDS
            try:
                child.stdin.write(json.dumps([number, str(path), command]).encode() + b"\n")
                child.stdin.flush()
                began = time.perf_counter()
                answer: list[Any] = [number]
                while len(answer) == 1:
                    left = began + limit - time.perf_counter()
                    answer = json.loads(lines.get(timeout=max(left, 0.0)))
            except queue.Empty:
                yield Outcome(path, command, f"a hang of {limit:g} s", "", limit)
                return
            except (json.JSONDecodeError, OSError):
                yield Outcome(path, command, f"a crash, {child.wait()}", "", 0.0)
                return
            _, code, said = answer
            yield Outcome(path, command, code, said, time.perf_counter() - began)
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
