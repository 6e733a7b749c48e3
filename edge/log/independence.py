"""Which photos are independent records of a species, as analyses count them: a setting of reports and exports, and
never of events.

A photo is independent if the one before of the same label at the same station was taken at least the interval earlier.
Empty and unknown photos, failures, copies and photos of which only the file's time is known are no records.
Works on the disk, so that a million rows need no more memory. Never writes into the log.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

from edge.errors import ConfigError
from edge.log import query, scratch

MOST_S = 366 * 86_400.0
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_NO_SPECIES = frozenset({"empty", "unknown", "setup"})


def interval_s(text: str) -> float:
    """An interval such as ``30m``, ``1h`` or ``90s`` in seconds.

    Raises:
        ConfigError: it is none, or longer than a year.
    """
    match = re.fullmatch(r"(\d{1,8})([smhd])", text, re.ASCII)
    found = int(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < found <= MOST_S:
        raise ConfigError(f"the interval is {text!r}, expected one such as 30m, 1h or 90s, of at most a year.")
    return found


class Independence:
    """Says of each row of a log, as it was when this was made, whether it is independent. Close it."""

    def __init__(self, log: sqlite3.Connection, interval_s: float) -> None:
        """Read all labels and times, and work it out.

        Args:
            interval_s: seconds; a photo exactly so much later than the one before is independent.
        """
        self._interval_s = interval_s
        self._db = scratch.make()
        self._db.execute("CREATE TABLE record (file_id INTEGER PRIMARY KEY, place TEXT, label TEXT, taken_s REAL)")
        self._db.execute("CREATE TABLE independent (file_id INTEGER PRIMARY KEY, yes INTEGER)")
        self._db.execute("BEGIN")
        for some in query.labels(log):
            self._db.executemany(
                "INSERT INTO record VALUES (?, ?, ?, ?)",
                (each for each in some if each[2].casefold() not in _NO_SPECIES),
            )
        records = self._db.execute("SELECT * FROM record ORDER BY place, label, taken_s, file_id")
        self._db.executemany("INSERT INTO independent VALUES (?, ?)", self._apart(records))
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Give the space back."""
        self._db.close()

    def of(self, file_id: int) -> bool | None:
        """Whether a row is independent; None for what is no record of a species."""
        row = self._db.execute("SELECT yes FROM independent WHERE file_id = ?", (file_id,)).fetchone()
        return None if row is None else bool(row[0])

    def _apart(self, records: sqlite3.Cursor) -> Iterator[tuple[int, bool]]:
        last: tuple[str, str, float | None] | None = None
        for file_id, place, label, taken_s in records:
            # A hundredth of a second is what julianday may be off.
            before_s = last[2] if last and last[:2] == (place, label) else None
            yield file_id, before_s is None or taken_s is None or taken_s - before_s >= self._interval_s - 0.01
            last = (place, label, taken_s)
