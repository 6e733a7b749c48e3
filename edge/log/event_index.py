"""Which event each file of a log belongs to, worked out on the disk, so that a million files need no more memory.

Reads the log in short statements; :mod:`edge.log.events` says what an event is.
"""

from __future__ import annotations

import itertools
import sqlite3

from edge.log import events, scratch, times
from edge.log.events import Moment

_BATCH = 2_000

_MOMENTS = f"""
SELECT f.id, coalesce(substr(p.sha256, 1, 16), 'file-' || f.id), coalesce(f.station, f.device || ':' || f.source),
  round((coalesce(julianday({times.corrected("f")} || f.utc_offset), 0) - 2440587.5) * 86400.0, 3),
  f.taken_source <> 'file'
FROM file f LEFT JOIN photo p ON p.id = f.photo_id
WHERE f.id > ? AND NOT (f.photo_id IS NULL AND f.failure_closed_utc IS NOT NULL)
ORDER BY f.id LIMIT ?
"""

_TABLES = """
CREATE TABLE moment (file_id INTEGER PRIMARY KEY, key TEXT, place TEXT, taken_s REAL, timed INTEGER);
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
        self._number(gap_s, {row[0] for row in log.execute("SELECT event FROM review WHERE event IS NOT NULL")})
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Give the space back."""
        self._db.close()

    def of_files(self, first_id: int, last_id: int) -> dict[int, tuple[str, int]]:
        """Id and number of the event of each file in a range of rows. Numbers count the events of a log from 1."""
        found = self._db.execute(
            "SELECT file_id, id, number FROM member JOIN event USING (number) WHERE file_id BETWEEN ? AND ?",
            (first_id, last_id),
        )
        return {file_id: (event, number) for file_id, event, number in found}

    def event_with(self, file_id: int) -> events.Group:
        """The whole event of a file."""
        number = self._db.execute("SELECT number FROM member WHERE file_id = ?", (file_id,)).fetchone()[0]
        rows = self._db.execute(
            "SELECT moment.* FROM member JOIN moment USING (file_id) WHERE number = ? ORDER BY taken_s, file_id",
            (number,),
        )
        name = self._db.execute("SELECT id FROM event WHERE number = ?", (number,)).fetchone()[0]
        return events.Group(name, tuple(_moment(row) for row in rows))

    def _read(self, log: sqlite3.Connection) -> None:
        after_id = 0
        while rows := log.execute(_MOMENTS, (after_id, _BATCH)).fetchall():
            self._db.executemany("INSERT INTO moment VALUES (?, ?, ?, ?, ?)", rows)
            after_id = rows[-1][0]

    def _number(self, gap_s: float, reviewed: set[str]) -> None:
        """An event is called after its first photo, or keeps the name under which it was reviewed."""
        rows = self._db.execute("SELECT * FROM moment ORDER BY place, taken_s, file_id")
        numbered = events.numbered(map(_moment, rows), gap_s)
        kept: dict[int, str] = {}
        while some := list(itertools.islice(numbered, _BATCH)):
            self._db.executemany(
                "INSERT INTO member VALUES (?, ?)", [(moment.file_id, number) for number, moment in some]
            )
            self._db.executemany(
                "INSERT INTO event VALUES (?, ?) ON CONFLICT DO NOTHING",  # the first photo's name stays
                [(number, moment.key) for number, moment in some],
            )
            for number, moment in some:
                if moment.key in reviewed:
                    kept.setdefault(number, moment.key)
        self._db.executemany(
            "UPDATE event SET id = ? WHERE number = ?", [(key, number) for number, key in kept.items()]
        )


def _moment(row: tuple[int, str, str, float, int]) -> Moment:
    return Moment(row[0], row[1], row[2], row[3], bool(row[4]))
