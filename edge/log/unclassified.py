"""Photos that a model has not classified yet, for ``watch --reclassify``. Reads only, a page at a time, so that no
transaction lasts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from edge.log.query import reading
from edge.log.store import FileKey

_PAGE = 200


def unclassified(connection: sqlite3.Connection, device: str, model_digest: str) -> Iterator[FileKey]:
    """Files of a device that hold photos without an answer of this model, by the camera's time, the newest first.

    Raises:
        LogError: the log cannot be read.
    """
    after = ("\U0010ffff", 0)  # later than any time
    while True:
        with reading():
            page = connection.execute(
                "SELECT taken_local, f.id, source, path, size_bytes, mtime_ns FROM file f"
                " WHERE device = :device AND photo_id IS NOT NULL AND (taken_local, f.id) < (:local, :id)"
                " AND NOT EXISTS (SELECT 1 FROM classification c"
                "  WHERE c.photo_id = f.photo_id AND c.model_digest = :model)"
                " ORDER BY taken_local DESC, f.id DESC LIMIT :most",
                {"device": device, "local": after[0], "id": after[1], "model": model_digest, "most": _PAGE},
            ).fetchall()
        for row in page:
            yield FileKey(device, *row[2:])
        if len(page) < _PAGE:
            return
        after = (page[-1][0], page[-1][1])
