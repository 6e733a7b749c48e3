"""Corrections of a camera's clock: checked, shown before they are written, listed. The log keeps what the camera wrote;
:mod:`edge.log.times` has what every query adds. Writes nothing itself."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

from edge.errors import ConfigError
from edge.log import query, times
from edge.log.store import TimeShift

_DAY = len("2024-05-01")


@dataclass(frozen=True)
class Touched:
    """Which files a correction is for: how many, and the time of the first, as it is now and as it will be."""

    files: int
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Written:
    """A correction that is in the log."""

    id: int
    shift: TimeShift
    created_utc: str


def make(
    *,
    by: str,
    station: str | None,
    since: str | None,
    until: str | None,
    reason: str,
    who: str,
    file_times: bool = False,
) -> TimeShift:
    """A correction from words.

    Args:
        by: see :func:`edge.log.times.seconds`.
        since, until: by the camera's clock as it was, without offset. A day as the end is included, a time is not.

    Raises:
        ConfigError: one of them makes no sense.
    """
    if station is not None:
        times.check_text(station, "--station")
    shift = TimeShift(
        times.seconds(by),
        reason,
        who,
        station=station,
        since_local=None if since is None else _local(since, "--since"),
        until_local=None if until is None else _local(until, "--until", end=True),
        file_times=file_times,
    )
    if shift.since_local and shift.until_local and shift.until_local <= shift.since_local:
        raise ConfigError(f"--until {until} is not later than --since {since}.")
    return shift


def touched(connection: sqlite3.Connection, shift: TimeShift) -> Touched:
    """What a correction will do.

    Raises:
        ConfigError: it goes beyond the calendar.
        LogError: the log cannot be read.
    """
    with query.reading():
        count, before = connection.execute(
            f"SELECT count(*), min({times.corrected('f')}) FROM file f WHERE (:station IS NULL OR station = :station)"
            " AND (:device IS NULL OR device = :device) AND (:source IS NULL OR source = :source)"
            " AND (:since_local IS NULL OR taken_local >= :since_local)"
            " AND (:until_local IS NULL OR taken_local < :until_local) AND (:file_times OR taken_source <> 'file')",
            asdict(shift),
        ).fetchone()
    if before is None:
        return Touched(0, None, None)
    try:
        after = datetime.fromisoformat(before) + timedelta(seconds=shift.seconds)
    except OverflowError as error:
        raise ConfigError(f"{before} and {times.difference(shift.seconds)} is no time any more.") from error
    return Touched(count, before, after.isoformat())


def listed(connection: sqlite3.Connection) -> list[Written]:
    """Every correction, the oldest first.

    Raises:
        LogError: the log cannot be read.
    """
    with query.reading():
        rows = connection.execute(
            "SELECT id, created_utc, file_times, seconds, reason, who, station, since_local, until_local, device,"
            " source FROM time_shift ORDER BY id"
        ).fetchall()
    return [Written(row[0], replace(TimeShift(*row[3:]), file_times=bool(row[2])), row[1]) for row in rows]


def _local(text: str, name: str, *, end: bool = False) -> str:
    try:
        found = times.parse(text, name, "a day or time such as 2024-05-01T06:00")
        if end and len(text) <= _DAY:
            found += timedelta(days=1)
    except OverflowError as error:
        raise ConfigError(f"{name} is {text!r}, the calendar's last day; leave it out.") from error
    if found.tzinfo is not None:
        raise ConfigError(f"{name} is {text!r}; leave the offset out: it is the camera's own clock as it was.")
    return times.as_camera(found)
