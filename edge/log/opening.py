"""How the log's file is opened: for writing in one place, with the settings that make its rows durable, and for reading
in one place.

Owns SQLite's settings, what tells a detection log from other files, how it grows from version to version, and SQLite's
errors as ours. Never reads or writes a row.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from edge import durable
from edge.errors import LogError
from edge.log.schema import APPLICATION_ID, MIGRATIONS

BUSY_TIMEOUT_MS = 10_000
BELOW_ROOT = Path("var", "lib", "fieldmark", "log.db")
_WAL_LIMIT_BYTES = 8 * 2**20


def path_below(root: Path) -> Path:
    """Where a device's own log lies."""
    return root / BELOW_ROOT


def connect_for_writing(path: Path, *, make: bool = True) -> sqlite3.Connection:
    """A connection that may write; the log is made where there is none, and an older one brought up to date.

    Durability is a property of the connection, not of the file, so every writer comes through here.

    Args:
        make: whether a log is made where there is none.

    Raises:
        LogError: the file is no detection log, comes from a newer Fieldmark, or cannot be opened or synced; or it is
            not there, without ``make``.
    """
    if not make:
        _check_is_there(path)
    with ours(path):
        try:
            _make_folder(path.parent)
        except OSError as error:
            raise LogError(f"{path.parent}: the log's folder cannot be made: {error.strerror}.") from error
        connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000)
        try:
            _check_kind(connection, path)
            _set(connection, path, "journal_mode", "wal")
            _set(connection, path, "synchronous", 2)  # FULL
            _set(connection, path, "foreign_keys", 1)
            _set(connection, path, "busy_timeout", BUSY_TIMEOUT_MS)
            _set(connection, path, "journal_size_limit", _WAL_LIMIT_BYTES)
            _set(connection, path, "cache_size", -1024)  # in KiB; twice as much is SQLite's own
            _migrate(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Open the log to read, also while an agent writes it. Hold no transaction for longer than a second.

    Never ``immutable``: that would not see what is still in the ``-wal`` file beside it.

    Raises:
        LogError: there is no log (code ``no log``), it may not be read, is no detection log, or comes from another
            version of Fieldmark.
    """
    _check_is_there(path)
    try:
        connection = connect_read_only(path)
        version = _check_kind(connection, path)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_CANTOPEN:
            raise LogError(f"{path}: the log cannot be read: {words(error)}") from error
        raise LogError(
            f"{path}: the log cannot be opened here. If its folder is read-only, copy the log and its `-wal` file "
            "together to a folder that you may write to, and open it there."
        ) from error
    except sqlite3.Error as error:
        raise LogError(f"{path}: the log cannot be read: {words(error)}", code=code(error)) from error
    if version < len(MIGRATIONS):
        raise LogError(f"{path}: the log has version {version}, this Fieldmark reads {len(MIGRATIONS)}. {_UPGRADE}")
    return connection


def connect_read_only(path: Path) -> sqlite3.Connection:
    """A connection that can read and nothing else, to whatever the file is. Lets SQLite's errors through."""
    connection = sqlite3.connect(f"file:{quote(os.fsencode(path.absolute()))}?mode=ro", uri=True, isolation_level=None)
    connection.execute("PRAGMA query_only = ON")
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    return connection


_UPGRADE = "Open it once for writing, as `fieldmark log correct` or `fieldmark watch` does."


def _check_is_there(path: Path) -> None:
    try:
        is_there, readable = path.is_file() and path.stat().st_size > 0, os.access(path, os.R_OK)
    except PermissionError:  # a folder on the way to it may not be entered
        is_there, readable = True, False
    if not is_there:
        raise LogError(
            f"{path}: there is no detection log. Run `fieldmark watch` first, or name one by --db.", code="no log"
        )
    if not readable:
        raise LogError(f"{path} may not be read by this user. Put `sudo -u fieldmark` before it.", code="denied")


def _make_folder(folder: Path) -> None:
    """Make the log's folder; a folder that is not synced can be gone after a power cut, with the log in it."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for made in reversed(missing):
        made.mkdir(exist_ok=True)
        durable.sync_folder(made.parent)


def _check_kind(connection: sqlite3.Connection, path: Path) -> int:
    """The log's version. Called before anything is changed, so that a foreign file stays as it is."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (application or version or tables):
        raise LogError(
            f"{path}: this SQLite file is no detection log (application id {application}). Name another by --db.",
            code="foreign",
        )
    if version > len(MIGRATIONS):
        raise LogError(
            f"{path}: the log has version {version}, this Fieldmark knows up to {len(MIGRATIONS)}. Update Fieldmark.",
            code="newer",
        )
    return version


def _set(connection: sqlite3.Connection, path: Path, name: str, value: str | int) -> None:
    """Set a pragma and read it back: SQLite ignores what it cannot do, such as WAL on some network folders."""
    connection.execute(f"PRAGMA {name} = {value}")
    found = connection.execute(f"PRAGMA {name}").fetchone()[0]
    if found != value:
        raise LogError(
            f"{path}: SQLite keeps {name} at {found} where {value} is needed, so photos could be lost at a power cut. "
            "Put the log on a local disk.",
            code="not durable",
        )


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the log to the newest version: each step and its new version number commit together."""
    while True:
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = _check_kind(connection, path)  # again, now that nobody else can be half way through
            if version == len(MIGRATIONS):
                break
            for statement in MIGRATIONS[version]:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


@contextmanager
def ours(path: Path) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise LogError(f"{path}: the log does not take this: {error}.", code="refused") from error
    except sqlite3.Error as error:
        raise LogError(f"{path}: {words(error)}", code=code(error)) from error


def words(error: sqlite3.Error) -> str:
    """An error of SQLite as sentences: what it is, and what to do where that is known."""
    return f"{error}. {CURES.get(_kind(error), '')}".rstrip()


def code(error: sqlite3.Error) -> str | None:
    """The stable word for an error of SQLite, where it has one."""
    return "damaged" if _kind(error) == sqlite3.SQLITE_CORRUPT else None


def _kind(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extension


CURES = {
    sqlite3.SQLITE_BUSY: "Another program holds the log; close it and try again.",
    sqlite3.SQLITE_FULL: "The disk is full; free some space. Nothing written before is lost.",
    sqlite3.SQLITE_READONLY: "The log may not be written by this user.",
    sqlite3.SQLITE_CANTOPEN: "Check that the folder exists and may be written by this user.",
    sqlite3.SQLITE_NOTADB: "This is no detection log; name another by --db.",
    sqlite3.SQLITE_CORRUPT: "The log is damaged. Set it and its -wal file aside; a new one is filled from the photos.",
}
