"""The agent as a process of its own: ``python -P -m edge.agent.process PLAN``.

``fieldmark watch`` checks everything, makes the plan, and becomes this process, which has no command-line library and
no cryptography in its memory: 16 MiB that matter on a small device. Says on stderr how it gets on.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from edge.agent.loop import Done, Model, Outcome
from edge.agent.plan import Plan, from_text
from edge.agent.run import Result, run
from edge.errors import FieldmarkError, counted, one_line
from edge.streams import open_what_is_closed

DEBUG_VARIABLE = "FIELDMARK_DEBUG"
FAILED, AGAIN, INTERRUPTED = 1, 75, 130
"""``AGAIN``: start it again, another bundle was installed (``EX_TEMPFAIL``; the unit calls it no failure)."""


def carry_out(plan: Plan, *, as_json: bool) -> Result:
    """Run a plan and say how it went.

    Raises:
        FieldmarkError: as :func:`edge.agent.run.run`.
    """
    progress = Progress(once=plan.once)
    try:
        result = run(plan, started=progress.started, done=progress.done, say=progress.say)
    finally:
        progress.clear()
    if as_json:
        left = {"already": result.already, "not_ready": result.not_ready, "not_read": result.not_read}
        sys.stdout.write(json.dumps({"schema": 1, "log": os.fspath(plan.log), **result.outcomes, **left}) + "\n")
        sys.stdout.flush()
    for line in result_lines(result, plan.log):
        progress.say(line)
    return result


class Progress:
    """Says on stderr how the agent gets on: a line per photo, or with ``once`` one line that is written over."""

    def __init__(self, *, once: bool) -> None:
        self._quiet = once
        self._over = once and sys.stderr.isatty()
        self._count = 0

    def started(self, model: Model) -> None:
        """Told of the model before the first photo."""
        key = ", signed with a development key" if model.development else ""
        self.say(f"bundle {model.bundle.name}{key}, on {model.classifier.runtime}.")

    def done(self, done: Done) -> None:
        """Told of each file."""
        self._count += 1
        if done.outcome is Outcome.FAILED or not self._quiet:
            self.say(f"{done.candidate.text}: {_what(done)}")
        if self._over:
            _tell(f"\r{self._count} photos")

    def say(self, line: str) -> None:
        """One line, under what was written over."""
        self.clear()
        _tell(one_line(line) + "\n")

    def clear(self) -> None:
        """Wipe the line that is written over."""
        if self._over:
            _tell("\r\x1b[K")


def result_lines(result: Result, log: Path) -> list[str]:
    """How a run ended, for people."""
    counts = result.outcomes
    rows = counts["classified"] + counts["duplicate"] + counts["failed"]
    lines = [
        f"{counted(rows, 'file')} taken into {log}: {counts['classified']} classified, {counts['duplicate']} copies, "
        f"{counts['failed']} failed; {result.already} were in it before."
    ]
    if again := counts["reclassified"]:
        lines.append(f"{counted(again, 'photo')} that the log had already, classified by this model too.")
    if result.not_read:
        lines.append(f"{counted(result.not_read, 'path')} could not be read, see above.")
    if result.not_ready:
        lines.append(f"{counted(result.not_ready, 'unfinished file')} left for the next time.")
    if result.stopped and not result.superseded:
        lines.append("Stopped as asked; the next start goes on from here.")
    return lines


def main(arguments: list[str]) -> int:
    """The process. The one place in it where an exception ends as a line and a code."""
    open_what_is_closed()
    try:
        plan, as_json = from_text(arguments[0])
        os.nice(plan.power.nice)
        return AGAIN if carry_out(plan, as_json=as_json).superseded else 0
    except KeyboardInterrupt:  # before the first photo; later it is a wish to stop
        return INTERRUPTED
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exc()
        line = str(error) if isinstance(error, FieldmarkError) else f"unexpected {type(error).__name__}: {error}."
        _tell(f"fieldmark: {one_line(line)}\n")
        return FAILED


def _tell(text: str) -> None:
    """On stderr. Where nobody listens any more, or its disk is full, the photos go on all the same."""
    with suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _what(done: Done) -> str:
    if done.label is not None and done.confidence is not None:
        damaged = f", damaged: {done.reason}" if done.reason else ""
        return f"{done.label} {done.confidence:.2f}{damaged}"
    if done.outcome is Outcome.DUPLICATE:
        return "a copy of a photo that is in the log"
    return f"{done.outcome.value}: {done.reason}"


if __name__ == "__main__":
    os.chdir("/")  # a folder that a process stands in cannot be unmounted; a plan's paths are whole
    sys.exit(main(sys.argv[1:]))
