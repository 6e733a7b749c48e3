"""How long each deployment lasted and when nobody watched: camera-days and dead times.

The agent's runs say when the device was alive; a photo says that the camera was. A gap between two runs of the agent is
dead time, unless the camera took a photo in it: then it was alive, and its photos came later. Runs that only drained a
backlog say nothing about the time between them. Reads only.
"""

from __future__ import annotations

import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from edge.log import query, times
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
        days: from its start to its end, or to now if that is earlier.
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
    """The effort of each deployment, as far as it has gone.

    Args:
        now: with a time zone; the end of what still goes on.

    Raises:
        LogError: the log cannot be read.
    """
    for each in deployments:
        whole = _until_now(each, now)
        with query.reading():
            photos = _photos(connection, each.station, whole)
            runs = _runs(connection, each.station)
        watched = any(run.sure and run.start < whole.end and run.end > whole.start for run in runs)
        gaps = gaps_between(runs, whole.start, whole.end) if watched else ()
        dead = tuple(gap for gap in gaps if not photos.any_in(gap))
        yield Effort(each, len(photos.taken_s), photos.first, photos.last, whole.days, dead, watched)


def unwatched(deployment: Deployment, now: datetime) -> Effort:
    """The effort where there is no log."""
    return Effort(deployment, 0, None, None, _until_now(deployment, now).days, (), watched=False)


def _until_now(deployment: Deployment, now: datetime) -> Span:
    """What is over of a deployment: its end can be planned, and nobody has watched what is to come."""
    end = now if deployment.end is None else min(deployment.end, now)
    return Span(deployment.start, max(end, deployment.start))


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
_IN_IT = f"""
SELECT taken_s, taken FROM (
  SELECT round((julianday({_TAKEN}) - {times.EPOCH_DAY}) * 86400.0, 3) AS taken_s, {_TAKEN} AS taken, f.id
  FROM file f WHERE f.station = :station AND f.duplicate_of IS NULL AND f.taken_source <> 'file')
WHERE taken_s >= :start_s AND taken_s < :end_s ORDER BY taken_s, id
"""
"""The files of a station that were taken in a span. By moments, since two cameras may have two offsets."""


@dataclass(frozen=True)
class _Photos:
    """The photos of a deployment: when each was taken, in seconds since 1970 and in this order, and the first and last
    time as text."""

    taken_s: Sequence[float]
    first: str | None
    last: str | None

    def any_in(self, gap: Span) -> bool:
        after = bisect_left(self.taken_s, gap.start.timestamp())
        return after < len(self.taken_s) and self.taken_s[after] < gap.end.timestamp()


def _photos(connection: sqlite3.Connection, station: str, span: Span) -> _Photos:
    """Read once for all gaps of a deployment: there is no index over stations."""
    values = {"station": station, "start_s": span.start.timestamp(), "end_s": span.end.timestamp()}
    taken_s, first, last = array("d"), None, None
    for seconds, text in connection.execute(_IN_IT, values):
        taken_s.append(seconds)
        first, last = first or text, text
    return _Photos(taken_s, first, last)


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
