"""Progress of long work on standard error: bars on a terminal, one line per step elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn


class Steps:
    """Names, times and shows the steps of a command.

    Attributes:
        seconds: step -> how long it took, for reports.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self.seconds: dict[str, float] = {}

    def say(self, text: str) -> None:
        """One line for the person."""
        self._console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Show one step while it runs.

        Args:
            name: what is done, as a person would say it.
            total: how many of it, if known.

        Yields:
            A function to call with the number done since the last call, from any thread.
        """
        start = time.perf_counter()
        bar = Progress(
            *(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        with bar:
            task = bar.add_task(name, total=total)
            yield lambda count: bar.advance(task, count)
        spent_s = time.perf_counter() - start
        self.seconds[name] = round(self.seconds.get(name, 0.0) + spent_s, 2)
        count = f", {total}" if total else ""
        self.say(f"  {name}{count}: {spent_s:.1f} s")
