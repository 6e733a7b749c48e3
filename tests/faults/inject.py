"""System calls that fail, or at which a program dies: strace in between.

Needs the capability ``strace``, and no root.
"""

from __future__ import annotations

import random
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.faults import power

CALLS = ("fsync", "fdatasync", "write", "pwrite64", "ftruncate", "rename", "unlink", "mkdir")
"""What changes a disk. A machine that knows one of them by another name simply never makes it."""

_CALL = re.compile(r"^\d+ +(\w+)\(.* = ")


@dataclass(frozen=True)
class Injection:
    """What goes wrong.

    Attributes:
        call: a system call, such as one of :data:`CALLS`.
        turn: at which of them, from 1.
        what: ``error=EIO``, ``error=ENOSPC`` or ``signal=KILL``.
        from_then_on: all later calls of this kind fail, too.
    """

    call: str
    turn: int
    what: str
    from_then_on: bool = False

    def __str__(self) -> str:
        return f"{self.call} {self.turn}{'+' * self.from_then_on} {self.what}"


@dataclass(frozen=True)
class Ended:
    """How a program ended, what it said on stderr, and how many of its calls were meddled with."""

    status: int
    said: list[str]
    hits: int


def sample(
    calls: Counter[str], whats: Sequence[str], count: int, rng: random.Random, *, last: bool = True
) -> list[Injection]:
    """So many different injections into a program that makes these calls; with ``last``, every second error lasts."""
    every = [
        Injection(call, turn, what) for call, total in calls.items() for turn in range(1, total + 1) for what in whats
    ]
    chosen = rng.sample(every, min(count, len(every)))
    # A disk that is full or dead stays so. Not into `write`, which also says what is wrong.
    return [
        replace(each, from_then_on=last and i % 2 == 1 and "error" in each.what and each.call != "write")
        for i, each in enumerate(chosen)
    ]


def calls_of(command: Sequence[str], paths: Sequence[Path] = (), calls: Sequence[str] = CALLS) -> Counter[str]:
    """How many of these calls a program makes, on some files only if they are named."""
    ended, lines = _traced(command, paths, calls, [])
    assert ended.status == 0, ended.said
    return Counter(match[1] for match in map(_CALL.match, lines) if match)


def run(command: Sequence[str], injection: Injection, paths: Sequence[Path] = ()) -> Ended:
    """Run a program in which something goes wrong."""
    turn = f"{injection.turn}{'+' * injection.from_then_on}"
    ended, lines = _traced(
        command, paths, [injection.call], ["-e", f"inject={injection.call}:{injection.what}:when={turn}"]
    )
    hits = sum("(INJECTED)" in line or "killed by SIGKILL" in line for line in lines)
    return Ended(ended.status, ended.said, hits)


def _traced(
    command: Sequence[str], paths: Sequence[Path], calls: Sequence[str], options: Sequence[str]
) -> tuple[Ended, list[str]]:
    only = [part for path in paths for part in ("-P", str(path))]
    with tempfile.TemporaryDirectory(prefix="fieldmark-trace-") as folder:
        trace = Path(folder) / "trace"
        tracer = ["strace", "-f", "-qq", "-a0", "-s0", "-e", f"trace={','.join(calls)}", "-o", str(trace)]
        # Without the variable, Python would write what it has compiled, too.
        status, said = power.run_to_end([*tracer, *only, *options, *command], {"PYTHONDONTWRITEBYTECODE": "1"})
        lines = trace.read_text(errors="replace").splitlines()
    return Ended(status, [line for line in said if not line.startswith("strace: ")], 0), lines
