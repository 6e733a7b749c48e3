"""Photos that a model has not classified yet, for ``watch --reclassify``. Reads only, a page at a time along the index
over times, so that no statement lasts, nothing is sorted, and no more than a page is in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from edge.log import times
from edge.log.query import reading
from edge.log.store import FileKey

_PAGE = 200

_WALK = f"""
SELECT {times.moment("f")}, f.id, f.source, f.path, f.size_bytes, f.mtime_ns,
  f.device = :device AND f.photo_id IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM classification c WHERE c.photo_id = f.photo_id AND c.model_digest = :model)
FROM file f WHERE
"""
_SAME_TIME = f"{_WALK} {times.moment('f')} = :day AND f.id < :id ORDER BY f.id DESC LIMIT :most"
_EARLIER = f"{_WALK} {times.moment('f')} < :day ORDER BY {times.moment('f')} DESC, f.id DESC LIMIT :most"


def unclassified(connection: sqlite3.Connection, device: str, model_digest: str) -> Iterator[FileKey]:
    """Files of a device that hold photos without an answer of this model, by the camera's time, the newest first.

    What is written meanwhile may be left out: the model in use answers it anyway.

    Raises:
        LogError: the log cannot be read.
    """
    values = {"device": device, "model": model_digest, "day": float("inf"), "id": 0}
    while page := _page(connection, values):
        for _, _, *key, wanted in page:
            if wanted:
                yield FileKey(device, *key)
        values |= {"day": page[-1][0], "id": page[-1][1]}


def _page(connection: sqlite3.Connection, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The files that come next, wanted or not. Two statements: SQLite finds its way into the index by one comparison,
    and a camera without a clock gives thousands of files the same time."""
    with reading():
        found = connection.execute(_SAME_TIME, values | {"most": _PAGE}).fetchall()
        if len(found) < _PAGE:
            found += connection.execute(_EARLIER, values | {"most": _PAGE - len(found)}).fetchall()
    return found
