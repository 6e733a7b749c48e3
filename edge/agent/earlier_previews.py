"""Previews of people from before the settings, or a person who looked, said so: blurred or removed afterwards.

Goes once through the log at each start, a part at a time. Needs no original and never touches one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from edge import photo as photos
from edge.agent.config_upkeep import People
from edge.agent.people import PERSON, Treatment, treatment
from edge.agent.previews import Previews, render
from edge.errors import LogError, PhotoError
from edge.log import store
from edge.log.store import Log

_ROWS_AT_ONCE, _MOST_AT_ONCE = 5_000, 50
_STRICTER = {"kept": (Treatment.BLUR, Treatment.WITHHOLD), "blurred": (Treatment.WITHHOLD,)}

_NAMED = f"""
SELECT 1 FROM photo p JOIN review r ON r.photo_id = p.id JOIN observation o ON o.review_id = r.id
WHERE p.sha256 = ? AND o.label = '{PERSON}'
"""
_PHOTOS = f"""
SELECT p.id, p.sha256, p.preview, c.label, c.top, EXISTS (
  SELECT 1 FROM review r JOIN observation o ON o.review_id = r.id WHERE r.photo_id = p.id AND o.label = '{PERSON}')
FROM photo p JOIN classification c ON c.id = (SELECT max(id) FROM classification WHERE photo_id = p.id)
WHERE p.id > ? AND p.id <= ? AND p.preview IN ('kept', 'blurred')
  AND (c.top LIKE '%"{PERSON}"%' OR EXISTS (SELECT 1 FROM review WHERE photo_id = p.id))
ORDER BY p.id
"""


def names_person(log: Path, sha256: str) -> bool:
    """Whether somebody who looked at a photo has named a person in it, whatever a model says.

    Args:
        log: the log's file.

    Raises:
        LogError: the log cannot be read.
    """
    with closing(store.open_for_reading(log)) as connection:
        try:
            return connection.execute(_NAMED, (sha256,)).fetchone() is not None
        except sqlite3.Error as error:
            raise LogError(f"{log}: the log cannot be read: {error}.") from error


class EarlierPreviews:
    """Treats them as the settings say now."""

    def __init__(self, log: Log, previews: Previews, people: People) -> None:
        """Set up; nothing is read yet.

        Args:
            log: open for writing.
        """
        self._log, self._previews, self._people = log, previews, people
        self._after: int | None = None if people.preview == "keep" else 0

    @property
    def done(self) -> bool:
        """Whether all were looked at."""
        return self._after is None

    def round(self) -> int:
        """Treat some of them; call it while no photo waits.

        Returns:
            How many were blurred or removed.

        Raises:
            LogError: the log cannot be read or written.
            DeviceError: a preview cannot be written.
        """
        chosen = list(self._next())
        if chosen:
            with self._log.batch():
                for sha256, wanted in chosen:
                    self._log.set_preview(sha256, self._treat(sha256, wanted))
        return len(chosen)

    def _next(self) -> Iterator[tuple[str, Treatment]]:
        if self._after is None:
            return
        up_to, found = self._after + _ROWS_AT_ONCE, 0
        with closing(store.open_for_reading(self._log.path)) as connection:
            try:
                rows = connection.execute(_PHOTOS, (self._after, up_to)).fetchall()
                last = connection.execute("SELECT max(id) FROM photo").fetchone()[0] or 0
            except sqlite3.Error as error:
                raise LogError(f"{self._log.path}: the log cannot be read: {error}.") from error
        for photo_id, sha256, state, label, top, said in rows:
            wanted = treatment(PERSON if said else label, json.loads(top), self._people)
            if wanted in _STRICTER[state]:
                yield sha256, wanted
                found += 1
                if found == _MOST_AT_ONCE:
                    self._after = photo_id
                    return
        self._after = up_to if up_to < last else None

    def _treat(self, sha256: str, wanted: Treatment) -> str:
        """What became of it, for the log. The row comes after: a cut between them does it again."""
        if wanted is Treatment.BLUR:
            try:
                data = render(photos.open_image(self._previews.path(sha256).read_bytes()), wanted)
            except (OSError, PhotoError):  # it is not there, or broken
                data = None
            if data is not None:
                self._previews.put(sha256, data)
                return str(wanted.value)
        self._previews.remove(sha256)
        return str(Treatment.WITHHOLD.value)
