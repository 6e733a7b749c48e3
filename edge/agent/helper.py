"""A second pair of hands for a backlog: a thread with a classifier of its own.

Pillow and the runtime let other threads run while they work, so two photos are decoded and classified at a time. A
helper never writes: what it found goes back to the one thread that owns the log.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from edge.agent.examine import Examiner, Finding
from edge.agent.watch import Candidate
from edge.errors import LogError
from edge.log import store

MOST_GIVEN = 2
"""One photo in hand and one name waiting, so that a helper never waits for whoever gives it photos."""


Found = queue.SimpleQueue[tuple["Helper", Finding]]


class Helper:
    """Examines the photos that it is given, in their order."""

    def __init__(self, examiner: Examiner, log: Path, found: Found) -> None:
        """Start.

        Args:
            examiner: with a classifier for this helper alone. What needs no classification it asks the log.
            log: an open log's file; it is only read, for copies.
            found: takes itself and each photo's finding.
        """
        self._examiner, self._log, self._found = examiner, log, found
        self._given: queue.SimpleQueue[Candidate | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="fieldmark-helper", daemon=True)
        self._thread.start()

    def give(self, candidate: Candidate) -> None:
        """A photo to examine."""
        self._given.put(candidate)

    def close(self) -> None:
        """End after the photos that were given."""
        self._given.put(None)
        self._thread.join()

    @property
    def works(self) -> bool:
        """Whether it has not been closed."""
        return self._thread.is_alive()

    def _work(self) -> None:
        log = self._reader()

        def classified(candidate: Candidate, sha256: str) -> bool:
            with suppress(LogError):
                return log is not None and not candidate.old and log.classified(sha256)
            return False

        examiner = replace(self._examiner, classified=classified)
        while candidate := self._given.get():
            self._found.put((self, examiner.examine(candidate)))
        if log:
            log.close()

    def _reader(self) -> store.Log | None:
        with suppress(sqlite3.Error):
            return store.Log(store.connect_read_only(self._log), self._log)
        return None  # copies are classified once more then, and found out when they are written
