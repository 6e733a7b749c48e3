"""How long each deployment lasted and when nobody watched: camera-days and dead times.

The agent's runs say when the device was alive; a photo says that the camera was. A gap between two runs of the agent is
dead time, unless the camera took a photo in it: then it was alive, and its photos came later. Runs that only drained a
backlog say nothing about the time between them. Reads only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from edge.log import times
from edge.log.stations import Deployment

LEAST_GAP_S = 3600.0
"""A shorter gap is a restart or a new battery."""
_DAY_S = 86_400.0


@dataclass(frozen=True)
class Span:
    """A time from ``start`` to ``end``, with time zones; ``sure`` is False where the device did not know the time."""

    start: datetime
    end: datetime
    sure: bool = True

    @property
    def days(self) -> float:
        """How long it is."""
        return (self.end - self.start).total_seconds() / _DAY_S


@dataclass(frozen=True)
class Effort:
    """What came of one deployment.

    Attributes:
        photos: files of the station that were taken in it, copies not counted.
        first_photo, last_photo: ISO 8601 with offset; None without any.
        days: from its start to its end, or to now.
        dead: times in which no agent ran and no photo was taken.
        watched: whether an agent ran in it at all; without, nothing is known of dead times.
    """

    deployment: Deployment
    photos: int
    first_photo: str | None
    last_photo: str | None
    days: float
    dead: tuple[Span, ...]
    watched: bool

    @property
    def dead_days(self) -> float:
        """Dead times together, those alone that are sure."""
        return sum(span.days for span in self.dead if span.sure)

    @property
    def camera_days(self) -> float:
        """Days without the dead times."""
        return self.days - self.dead_days


def of(connection: sqlite3.Connection, deployments: Iterable[Deployment], now: datetime) -> Iterator[Effort]:
    """The effort of each deployment.

    Args:
        now: with a time zone; the end of what still goes on.
    """
    for each in deployments:
        end = each.end or max(now, each.start)
        photos, first, last = _photos(connection, each.station, each.start, end)
        dead, watched = _dead(connection, each, end)
        days = Span(each.start, end).days
        yield Effort(each, photos, first, last, days, dead, watched)


def unwatched(deployment: Deployment, now: datetime) -> Effort:
    """The effort where there is no log."""
    days = Span(deployment.start, deployment.end or max(now, deployment.start)).days
    return Effort(deployment, 0, None, None, days, (), watched=False)


def deployment_json(each: Deployment) -> dict[str, Any]:
    """A deployment as JSON values; without coordinates, which stay in their file."""
    return {
        "deployment": each.id,
        "station": each.station,
        "name": each.name,
        "camera": each.camera,
        "start": each.start.isoformat(),
        "end": each.end.isoformat() if each.end else None,
    }


def as_json(each: Effort) -> dict[str, Any]:
    """One line of ``fieldmark station list --json``; ``dead_days`` is None where nothing is known of dead times."""
    return deployment_json(each.deployment) | {
        "photos": each.photos,
        "first_photo": each.first_photo,
        "last_photo": each.last_photo,
        "days": round(each.days, 3),
        "camera_days": round(each.camera_days, 3),
        "dead_days": round(each.dead_days, 3) if each.watched else None,
        "dead": [
            {"start": span.start.isoformat(), "end": span.end.isoformat(), "sure": span.sure} for span in each.dead
        ],
    }


_TAKEN = f"{times.corrected('f')} || f.utc_offset"
_IN_IT = f"""file f WHERE f.station = :station AND f.duplicate_of IS NULL AND f.taken_source <> 'file'
  AND julianday({_TAKEN}) >= julianday(:start) AND julianday({_TAKEN}) < julianday(:end)"""
"""The files of a station that were taken in a span. By moments, since two cameras may have two offsets."""


def _photos(
    connection: sqlite3.Connection, station: str, start: datetime, end: datetime
) -> tuple[int, str | None, str | None]:
    span = {"station": station, "start": start.isoformat(), "end": end.isoformat()}
    # Beside a lone min() or max() SQLite takes the other columns from the row that has it.
    count, first, _ = connection.execute(
        f"SELECT count(*), {_TAKEN}, min(julianday({_TAKEN})) FROM {_IN_IT}", span
    ).fetchone()
    last, _ = connection.execute(f"SELECT {_TAKEN}, max(julianday({_TAKEN})) FROM {_IN_IT}", span).fetchone()
    return count, first, last


def _any(connection: sqlite3.Connection, station: str, gap: Span) -> bool:
    span = {"station": station, "start": gap.start.isoformat(), "end": gap.end.isoformat()}
    return bool(connection.execute(f"SELECT EXISTS (SELECT 1 FROM {_IN_IT})", span).fetchone()[0])


def _dead(connection: sqlite3.Connection, deployment: Deployment, end: datetime) -> tuple[tuple[Span, ...], bool]:
    runs = _runs(connection, deployment.station)
    if not any(run.sure and run.start < end and run.end > deployment.start for run in runs):
        return (), False
    gaps = gaps_between(runs, deployment.start, end)
    return tuple(gap for gap in gaps if not _any(connection, deployment.station, gap)), True


def _runs(connection: sqlite3.Connection, station: str) -> list[Span]:
    """The agent's runs on the devices that saw this station, in the order in which they were."""
    rows = connection.execute(
        "SELECT started_utc, alive_utc, clock_ok FROM agent_run WHERE NOT once AND (device IN"
        " (SELECT DISTINCT device FROM file WHERE station = :station)"
        " OR NOT EXISTS (SELECT 1 FROM file WHERE station = :station)) ORDER BY id",
        {"station": station},
    )
    return [Span(datetime.fromisoformat(start), datetime.fromisoformat(alive), bool(ok)) for start, alive, ok in rows]


def gaps_between(runs: Sequence[Span], start: datetime, end: datetime) -> Iterator[Span]:
    """The times from ``start`` to ``end`` in which none of ``runs`` was, if they are long enough.

    A run that did not know the time lies somewhere in the gap around it, which is then not sure.
    """
    reached, sure = start, True
    for run in runs:
        if not run.sure or run.end < run.start:
            sure = False
            continue
        if run.end <= reached:
            continue
        yield from _gap(reached, min(run.start, end), sure)
        if run.start >= end:
            return
        reached, sure = run.end, True
    yield from _gap(reached, end, sure)


def _gap(start: datetime, end: datetime, sure: bool) -> Iterator[Span]:
    if (end - start).total_seconds() >= LEAST_GAP_S:
        yield Span(start.astimezone(UTC), end.astimezone(UTC), sure)
