"""What the agent does with a log that is damaged: sets it aside as evidence and starts a new one.

The new log is filled by the search of the folders; what people said stays in the one set aside. Never deletes, never
repairs, and never touches a file that is no detection log.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from edge import durable
from edge.errors import LogError
from edge.log import store
from edge.log.schema import APPLICATION_ID
from edge.log.store import Log

CHECK_MOST_S, CHECK_AFTER_ORDER_S = 30.0, 3.0
"""So long a start reads the log for damage; the second where the last run ended as it should, as on a device that wakes
every hour. The rest of a log that is larger is left to ``fieldmark check``."""

_STEPS = 10_000
_LOOKED_AT_BYTES = 2**20
_OURS = (b"CREATE TABLE classification (", b"model_digest TEXT NOT NULL")
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_LOOKS, _TIMES_SEEN = 3, 2
"""Damage is what was seen twice: a read that fails once can look like a page that is broken."""


def open_or_set_aside(path: Path, say: Callable[[str], None], *, most_s: float = CHECK_MOST_S) -> Log:
    """Open the log for the agent: whole as far as could be seen, or a new one in the place of a damaged one.

    Args:
        say: told, in one line, of damage and of a check that was not finished.
        most_s: seconds that the check may take.

    Raises:
        LogError: it cannot be opened, read or made, belongs to another program, or to a newer Fieldmark.
    """
    trouble = look_for_damage(path, say, most_s=most_s)
    if trouble is not None:
        aside = set_aside(path)
        say(f"the log was damaged ({trouble}). It is kept as {aside}; a new one is filled from the photos.")
    return store.open_for_writing(path)


def look_for_damage(path: Path, say: Callable[[str], None], *, most_s: float = CHECK_MOST_S) -> str | None:
    """What is wrong with a log; None where nothing was found, or where there is no log of ours to look at.

    Opens it read-only: closing the last connection that may write would put the ``-wal`` file's pages into the
    damaged log, and remove the evidence. A read that the system refuses says nothing of the log: it is looked at again,
    as after any trouble.

    Raises:
        LogError: with code ``unreadable``: it could not be read in three tries.
    """
    if not path.is_file() or path.stat().st_size == 0:
        return None
    troubles: list[str] = []
    for _ in range(_LOOKS):
        try:
            trouble = _look(path, say, most_s)
        except sqlite3.OperationalError as error:
            refused = error
            continue
        if trouble is None:
            return None
        troubles.append(trouble)
        if len(troubles) == _TIMES_SEEN:
            return trouble
    if os.statvfs(path.parent).f_bavail == 0:  # SQLite has no room for the file that its readers share
        cure = "The disk is full: make room and start again."
    else:
        cure = "Start again; if it stays, the card is failing: copy the log and its -wal file to another."
    raise LogError(f"{path}: the log cannot be read: {refused}. {cure}", code="unreadable") from refused


def _look(path: Path, say: Callable[[str], None], most_s: float) -> str | None:
    """One look, by a connection of its own.

    Raises:
        sqlite3.OperationalError: a read failed.
    """
    try:
        with closing(store.connect_read_only(path)) as connection:
            if _ended_in_order(connection):
                most_s = min(most_s, CHECK_AFTER_ORDER_S)
            found = _quick_check(connection, path, say, most_s)
            application = connection.execute("PRAGMA application_id").fetchone()[0]
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extension
        if code == sqlite3.SQLITE_IOERR:
            raise
        return str(error) if code in _BROKEN and _was_ours(path) else None
    if application != APPLICATION_ID:
        return f"its application id is {application}" if _holds_our_tables(_start(path)) else None
    return found


def set_aside(path: Path) -> Path:
    """Rename a log, together with its ``-wal`` and ``-shm`` files, to ``NAME.damaged-TIME``.

    Raises:
        LogError: the folder cannot be written.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    count = 1
    while aside.exists():
        count += 1
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{count}")
    try:
        # The log itself goes last: SQLite would delete a -wal file that it finds beside no log.
        for end in ("-shm", "-wal", ""):
            if os.path.lexists(f"{path}{end}"):
                os.rename(f"{path}{end}", f"{aside}{end}")
        durable.sync_folder(path.parent)
    except OSError as error:
        raise LogError(f"{path}: the damaged log cannot be set aside: {error.strerror}. Move it away.") from error
    return aside


def _ended_in_order(connection: sqlite3.Connection) -> bool:
    """Whether the last run said that it ends. A log that is damaged just there is found damaged by the check."""
    try:
        last = connection.execute("SELECT ended_utc FROM agent_run ORDER BY id DESC LIMIT 1").fetchone()
    except sqlite3.Error:
        return False
    return last is not None and last[0] is not None


def _quick_check(connection: sqlite3.Connection, path: Path, say: Callable[[str], None], most_s: float) -> str | None:
    """The first thing that is wrong, looked for during ``most_s``."""
    end_s = time.monotonic() + most_s
    connection.set_progress_handler(lambda: int(time.monotonic() > end_s), _STEPS)
    try:
        found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        megabytes = path.stat().st_size / 1e6
        say(
            f"the log has {megabytes:.0f} MB and was read for {most_s:g} s without a fault; the rest was not looked at."
        )
        return None
    finally:
        connection.set_progress_handler(None, 0)
    return None if found == "ok" else " ".join(found.split())[:200]


def _was_ours(path: Path) -> bool:
    """Whether a file that SQLite may not even know any more was a detection log: it lies where a device keeps its own,
    holds the text of our tables, or nothing but zeros, as a power cut can leave it."""
    if path.absolute().parts[-len(store.BELOW_ROOT.parts) :] == store.BELOW_ROOT.parts:
        return True
    start = _start(path)
    return _holds_our_tables(start) or not start.strip(b"\0")


def _holds_our_tables(start: bytes) -> bool:
    return all(text in start for text in _OURS)


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LOOKED_AT_BYTES)
    except OSError:
        return b""
