"""How long a row has been in the log, by days on which the device knew the time.

A Pi without a network starts in 1970, or where it was switched off; the times in the rows of such days say nothing.
So once a day, while the clock is right, the newest row's number is noted: what had that number or a lower one then is
at least so old. ``var/lib/fieldmark/days.json``; losing it only makes everything look younger. Never reads a photo.
"""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edge import durable
from edge.errors import DeviceError

BELOW_ROOT = Path("var", "lib", "fieldmark", "days.json")
_MOST_DAYS = 4_000
_MAX_BYTES = 2**20
_EACH = timedelta(days=1)

Day = tuple[str, int, str]
"""When, the newest row's number, and when that row was written, which tells this log from another."""


class Days:
    """The notes of one device; one thread uses them."""

    def __init__(self, path: Path) -> None:
        """Read what there is; a file that is no such list counts as none."""
        self._path = path
        self._days = _read(path)

    def note(self, log: sqlite3.Connection, now: datetime) -> None:
        """Note the newest row, if the last note is a day old. Only while the clock is right.

        Args:
            log: open for reading.
            now: with a time zone.

        Raises:
            DeviceError: the file cannot be written.
        """
        self.forget_other_logs(log)
        # Notes from the future were made with a clock that was not right after all.
        self._days = [day for day in self._days if datetime.fromisoformat(day[0]) <= now]
        if self._days and now - datetime.fromisoformat(self._days[-1][0]) < _EACH:
            return
        row = log.execute("SELECT id, seen_utc FROM file ORDER BY id DESC LIMIT 1").fetchone()
        if row is None:
            return
        self._days = [*self._days, (now.astimezone(UTC).isoformat(), row[0], row[1])][-_MOST_DAYS:]
        try:
            durable.write_file(self._path, json.dumps(self._days).encode())
        except OSError as error:
            raise DeviceError(f"{self._path} cannot be written: {error.strerror}.", code="days") from error

    def newest_row_before(self, moment: datetime) -> int:
        """The number of a row that is as old as this, as are all before it; 0 if none is known to be."""
        return max((row for when, row, _ in self._days if datetime.fromisoformat(when) < moment), default=0)

    def forget_other_logs(self, log: sqlite3.Connection) -> None:
        """Drop the notes if this log was begun anew since: its rows have the numbers of others.

        Args:
            log: open for reading.
        """
        if not self._days:
            return
        _, row, seen_utc = self._days[-1]
        found = log.execute("SELECT seen_utc FROM file WHERE id = ?", (row,)).fetchone()
        if found is None or found[0] != seen_utc:  # this log was begun anew
            self._days = []


def _read(path: Path) -> list[Day]:
    try:
        with path.open("rb") as file:
            listed = json.loads(file.read(_MAX_BYTES))
        days = [(str(when), int(row), str(seen_utc)) for when, row, seen_utc in listed]
        return [day for day in days if datetime.fromisoformat(day[0]).tzinfo is not None]
    except (OSError, ValueError, TypeError, RecursionError):
        return []
