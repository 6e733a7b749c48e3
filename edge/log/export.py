"""The log as a file for other programs. Streams: a million rows need no more memory than ten thousand. Reads only."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from edge import durable
from edge.errors import LogError
from edge.log import query, table
from edge.log.events import EVENT_GAP_S
from edge.log.independence import Independence
from edge.log.query import EVERYTHING, Filter, Starts

INDEPENDENT = "independent"
_SQLITE = b"SQLite format 3\0"


def csv_lines(
    connection: sqlite3.Connection,
    wanted: Filter = EVERYTHING,
    *,
    event_gap_s: float = EVENT_GAP_S,
    starts: Starts | None = None,
    independence_s: float | None = None,
) -> Iterator[str]:
    """A header and one line per row, without line ends, in the columns of ``fieldmark log --csv``.

    Args:
        independence_s: adds a column ``independent``, worked out on the whole log and not on ``wanted`` alone: true,
            false, or nothing for what is no record of a species.
    """
    found = query.rows(connection, wanted, event_gap_s=event_gap_s, starts=starts)
    if independence_s is None:
        yield from table.csv_lines(table.LOG_COLUMNS, map(table.as_json, found))
        return
    with closing(Independence(connection, independence_s)) as apart:
        objects: Iterator[dict[str, Any]] = (table.as_json(row) | {INDEPENDENT: apart.of(row.id)} for row in found)
        yield from table.csv_lines((*table.LOG_COLUMNS, INDEPENDENT), objects)


def write_csv(path: Path, lines: Iterator[str], *, replace: bool = False) -> int:
    """Put the lines into a file, whole or not at all.

    Returns:
        How many rows, without the header.

    Raises:
        LogError: the file is there and ``replace`` is not given, it is what is not to be replaced, such as a log, or
            it cannot be written.
    """
    _check_target(path, replace)
    count = -1

    def chunks() -> Iterator[bytes]:
        nonlocal count
        for line in lines:
            count += 1
            yield f"{line}\r\n".encode()  # RFC 4180

    try:
        durable.write_chunks(path, chunks())
    except OSError as error:
        raise LogError(f"{path}: cannot be written: {error.strerror}.") from error
    return count


def _check_target(path: Path, replace: bool) -> None:
    """Whether a file may be made here, or be replaced: never a log or what lies beside one, a folder or a device."""
    try:
        if not os.path.lexists(path):
            return
        if path.is_symlink() or not path.is_file():
            raise LogError(f"{path} is no plain file. Name another.", code="target")
        with path.open("rb") as file:
            start = file.read(len(_SQLITE))
    except OSError as error:
        raise LogError(f"{path}: cannot be written: {error.strerror}.") from error
    if start == _SQLITE or path.name.endswith(("-wal", "-shm")):
        raise LogError(f"{path} is a log or a part of one. Name another file.", code="target")
    if not replace:
        raise LogError(f"{path} is there already. Name another file, or add --replace.", code="exists")
