"""A private database on the disk for what is too large for memory and is gone when it is closed.

SQLite keeps the first megabytes in memory and the rest in a nameless file where ``SQLITE_TMPDIR``, ``TMPDIR`` or
``/var/tmp`` lie. Never the log itself.
"""

from __future__ import annotations

import sqlite3

CACHE_KIB = 4_096


def make() -> sqlite3.Connection:
    """An empty one. Nothing in it survives, so nothing is synced; without a journal there is no going back either."""
    connection = sqlite3.connect("", isolation_level=None)
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA temp_store = FILE")
    return connection
