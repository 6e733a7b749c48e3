"""Which event a few files of a log belong to: the same as :mod:`edge.log.event_index` says, but only the photos around
them are read, whatever the size of the log.

Photos around a moment are found by the index over uncorrected times, so each sum that the corrections of a clock can
have at a station is looked for. Reads in short statements, never writes.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edge.errors import LogError
from edge.log import times
from edge.log.event_index import MOMENTS, PLACE, moment
from edge.log.events import Group, Moment

_DAY_S = 86_400.0
_SLACK_S = 1.0
"""More than SQLite's arithmetic of days is off; what is found is compared exactly afterwards."""

_ONE = f"{MOMENTS} AND f.id = ?"
_AROUND = f"{MOMENTS} AND {times.moment('f')} BETWEEN ? AND ? AND {PLACE} = ? AND f.taken_source <> 'file'"

_Found = tuple[Moment, bool]
"""A photo, and whether an event was reviewed under its key."""


@dataclass(frozen=True, slots=True)
class _Event:
    """An event and the time that it takes, seconds since 1970. Its number is the row of its first photo."""

    name: str
    number: int
    first_s: float
    last_s: float


class EventsNear:
    """The events of some files. Holds no file and no transaction."""

    def __init__(self, log: sqlite3.Connection, gap_s: float) -> None:
        """Set up; nothing is read yet.

        Args:
            gap_s: see :func:`edge.log.events.group`; more than nothing.
        """
        self._log, self._gap_s = log, gap_s
        self._known: dict[str, list[_Event]] = {}
        self._sums: dict[str, list[int]] = {}

    def of_files(self, file_ids: Iterable[int]) -> dict[int, tuple[str, int]]:
        """Id and number of the event of each file. Numbers tell events apart and mean nothing else."""
        found = {}
        for file_id in dict.fromkeys(file_ids):
            seed = self._one(file_id)
            if seed is not None:
                event = self._event(seed)
                found[file_id] = (event.name, event.number)
        return found

    def event_with(self, file_id: int) -> Group:
        """The whole event of a file.

        Raises:
            LogError: there is no such row, or a later good read answers for it.
        """
        seed = self._one(file_id)
        if seed is None:
            raise LogError(f"the log has no row {file_id} that is shown. `fieldmark log` lists them.", code="missing")
        if not seed.timed:
            return Group(seed.key, (seed,))
        event = self._event(seed)
        members = self._between(seed.place, event.first_s, event.last_s)
        return Group(event.name, tuple(each for each, _ in members))

    def _one(self, file_id: int) -> Moment | None:
        row = self._log.execute(_ONE, (file_id,)).fetchone()
        return moment(row) if row else None

    def _event(self, seed: Moment) -> _Event:
        if not seed.timed:
            return _Event(seed.key, seed.file_id, seed.taken_s, seed.taken_s)
        known = self._known.setdefault(seed.place, [])
        for event in reversed(known):  # files come in the order of events, or nearly
            if event.first_s <= seed.taken_s <= event.last_s:
                return event
        first_s, last_s = self._reach(seed, -1), self._reach(seed, 1)
        members = self._between(seed.place, first_s, last_s)
        name = next((each.key for each, reviewed in members if reviewed), members[0][0].key)
        known.append(_Event(name, members[0][0].file_id, first_s, last_s))
        return known[-1]

    def _reach(self, seed: Moment, way: int) -> float:
        """The time of the event's last photo, or with ``way`` -1 of its first."""
        edge_s, width_s = seed.taken_s, self._gap_s
        while True:
            end_s = edge_s + way * width_s
            found = [each.taken_s for each, _ in self._between(seed.place, min(edge_s, end_s), max(edge_s, end_s))]
            for taken_s in found[::way]:
                if abs(taken_s - edge_s) >= self._gap_s:
                    return edge_s
                edge_s = taken_s
            if abs(end_s - edge_s) >= self._gap_s:
                return edge_s
            width_s = min(2 * width_s, max(2 * self._gap_s, _DAY_S))  # a long series, such as one photo a minute

    def _between(self, place: str, first_s: float, last_s: float) -> list[_Found]:
        """The photos of a place with a time of their own, corrected, from ``first_s`` to ``last_s``, in that order."""
        found: dict[int, _Found] = {}
        for total_s in self._sums_of(place):
            days = (_day(first_s - total_s - _SLACK_S), _day(last_s - total_s + _SLACK_S))
            for row in self._log.execute(_AROUND, (*days, place)).fetchall():
                if first_s <= row[3] <= last_s:
                    found[row[0]] = moment(row), bool(row[5])
        return sorted(found.values(), key=lambda each: (each[0].taken_s, each[0].file_id))

    def _sums_of(self, place: str) -> list[int]:
        if place not in self._sums:
            self._sums[place] = sorted({0, *self._each_sum(place)})
        return self._sums[place]

    def _each_sum(self, place: str) -> Iterator[int]:
        """What the corrections can add up to at a place; some more do no harm, as one that holds for no photo."""
        shifts = self._log.execute(
            "SELECT device, source, station, since_local, until_local, seconds FROM time_shift"
            " WHERE station IS NULL OR station = ?",
            (place,),
        ).fetchall()
        # None is a device, folder or station that no correction names: a place can be files without a station, too.
        devices, sources, stations = ({None, *(row[i] for row in shifts)} for i in range(3))
        starts = {"", *(row[3] for row in shifts if row[3]), *(row[4] for row in shifts if row[4])}
        for device, source, station, start in itertools.product(devices, sources, stations, starts):
            yield sum(
                seconds
                for of_device, of_source, of_station, since, until, seconds in shifts
                if of_device in (None, device) and of_source in (None, source) and of_station in (None, station)
                if (since is None or start >= since) and (until is None or start < until)
            )


def _day(seconds: float) -> float:
    return seconds / _DAY_S + times.EPOCH_DAY
