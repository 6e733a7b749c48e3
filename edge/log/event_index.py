"""Which event each file of a log belongs to, worked out on the disk, so that a million files need no more memory.

For a whole log; :mod:`edge.log.event_near` says the same of a few files. Reads the log in short statements;
:mod:`edge.log.events` says what an event is.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable

from edge.log import events, scratch, times
from edge.log.events import Moment

_BATCH = 2_000

_KEY = "coalesce(substr(p.sha256, 1, 16), 'file-' || f.id)"
PLACE = "coalesce(f.station, f.device || ':' || f.source)"
MOMENTS = f"""
SELECT f.id, {_KEY}, {PLACE},
  round((coalesce(julianday({times.corrected("f")} || f.utc_offset), 0) - {times.EPOCH_DAY}) * 86400.0, 3),
  f.taken_source <> 'file', EXISTS (SELECT 1 FROM review WHERE event = {_KEY})
FROM file f LEFT JOIN photo p ON p.id = f.photo_id
WHERE NOT (f.photo_id IS NULL AND f.failure_closed_utc IS NOT NULL)
"""
"""The columns of a :class:`Moment`, and whether an event was reviewed under its key."""

_TABLES = """
CREATE TABLE moment (
  file_id INTEGER PRIMARY KEY, key TEXT, place TEXT, taken_s REAL, timed INTEGER, reviewed INTEGER);
CREATE TABLE member (file_id INTEGER PRIMARY KEY, number INTEGER);
CREATE TABLE event (number INTEGER PRIMARY KEY, id TEXT);
"""


class EventIndex:
    """The events of a log as it was when this was made. Close it."""

    def __init__(self, log: sqlite3.Connection, gap_s: float) -> None:
        """Read the times of all files and put them into events.

        Args:
            gap_s: see :func:`edge.log.events.group`.
        """
        self._db = scratch.make()
        self._db.executescript(_TABLES)
        self._db.execute("BEGIN")
        self._read(log)
        self._number(gap_s)
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Give the space back."""
        self._db.close()

    def of_files(self, file_ids: Iterable[int]) -> dict[int, tuple[str, int]]:
        """Id and number of the event of each file. Numbers count the events of a log from 1."""
        found = {}
        for file_id in file_ids:
            row = self._db.execute(
                "SELECT id, number FROM member JOIN event USING (number) WHERE file_id = ?", (file_id,)
            ).fetchone()
            if row is not None:  # else it was written since this was made
                found[file_id] = (row[0], row[1])
        return found

    def _read(self, log: sqlite3.Connection) -> None:
        after_id = 0
        while rows := log.execute(f"{MOMENTS} AND f.id > ? ORDER BY f.id LIMIT ?", (after_id, _BATCH)).fetchall():
            self._db.executemany("INSERT INTO moment VALUES (?, ?, ?, ?, ?, ?)", rows)
            after_id = rows[-1][0]

    def _number(self, gap_s: float) -> None:
        """An event is called after its first photo, or keeps the name under which it was reviewed."""
        rows = self._db.execute("SELECT * FROM moment ORDER BY place, taken_s, file_id")
        numbered = events.numbered(map(moment, rows), gap_s)
        while some := list(itertools.islice(numbered, _BATCH)):
            self._db.executemany(
                "INSERT INTO member VALUES (?, ?)", [(moment.file_id, number) for number, moment in some]
            )
            self._db.executemany(
                "INSERT INTO event VALUES (?, ?) ON CONFLICT DO NOTHING",  # the first photo's name stays
                [(number, moment.key) for number, moment in some],
            )
        for number, key in self._db.execute(_REVIEWED).fetchall():
            self._db.execute("UPDATE event SET id = ? WHERE number = ?", (key, number))


_REVIEWED = """
SELECT number, key FROM moment JOIN member USING (file_id) WHERE reviewed ORDER BY number, taken_s DESC, file_id DESC
"""
"""The first photo last, so that its name stays."""


def moment(row: tuple[int, str, str, float, int, int]) -> Moment:
    """A row of :data:`MOMENTS`."""
    return Moment(row[0], row[1], row[2], row[3], bool(row[4]))
