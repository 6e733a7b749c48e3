"""The events of a few files against those of the whole log, and what they cost."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import LogError
from edge.log import details, event_near, events, query, store
from edge.log.event_index import EventIndex
from edge.log.event_near import EventsNear
from edge.log.query import Filter
from edge.log.store import Failure, FileFacts, FileKey, PhotoFacts, TimeShift
from edge.photo import Taken

START = datetime(2024, 5, 1, 6)
CUT = Failure("truncated", "cut")
GAP_S = 120.0


def sha(number: int) -> str:
    return f"{number:016x}".ljust(64, "0")


def local(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat()


# "dev:/a" is also what stands for the station of files of that device and folder that have none.
PHOTO = st.tuples(
    st.sampled_from([None, "beech", "oak", "dev:/a"]),
    st.sampled_from(["dev", "other"]),
    st.sampled_from(["/a", "/b"]),
    st.one_of(st.integers(0, 900), st.sampled_from([3_600, 3_690, 7_200, -3_600])).map(lambda s: s + (s % 7) / 8),
    st.sampled_from(["+00:00", "+00:00", "+01:00", "-14:00"]),
    st.sampled_from(["exif", "exif", "name", "file"]),
    st.one_of(st.none(), st.integers(0, 12)),  # None: it does not decode; the same number: the same photo
)
LIMIT = st.one_of(st.none(), st.integers(-100, 1000).map(local))
SHIFT = st.builds(
    TimeShift,
    seconds=st.sampled_from([-3_600, -100, -1, 59, 300, 3_600, 50_400, -200 * 366 * 86_400]),
    reason=st.just("slow"),
    who=st.just("Ada"),
    station=st.sampled_from([None, "beech", "dev:/a"]),
    since_local=LIMIT,
    until_local=LIMIT,
    device=st.sampled_from([None, "dev"]),
    source=st.sampled_from([None, "/a"]),
    file_times=st.booleans(),
)


def fill(path: Path, photos: list[tuple[str | None, str, str, float, str, str, int | None]]) -> None:
    with store.open_for_writing(path) as log, log.batch():
        for i, (station, device, source, taken_s, offset, kind, number) in enumerate(photos):
            key = FileKey(device, source, f"{i}.jpg", 10, i)
            facts = FileFacts(key, Taken(local(taken_s), offset, kind, ()), station)
            photo = None if number is None else PhotoFacts(sha(number), 40, 30)
            log.add_file(facts, photo=photo, detection=None, failure=CUT)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(PHOTO, min_size=1, max_size=25),
    st.lists(SHIFT, max_size=3),
    st.lists(st.integers(0, 12), max_size=8),
    st.integers(1, 25),
    st.sampled_from([1.0, 60.0, 120.0, 5_000.0]),
)
def test_a_few_files_have_the_events_of_the_whole_log(
    photos: list[tuple[str | None, str, str, float, str, str, int | None]],
    shifts: list[TimeShift],
    reviewed: list[int],
    newest: int,
    gap_s: float,
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.db"
        fill(path, photos)
        with store.open_for_writing(path) as log:
            for shift in shifts:
                log.add_shift(shift)
            for number in reviewed:
                log._db.execute(
                    "INSERT INTO review (event, who, created_utc) VALUES (?, 'Ada', '')", (sha(number)[:16],)
                )
        with closing(store.open_for_reading(path)) as connection:
            compare(connection, newest, gap_s)


def compare(connection: sqlite3.Connection, newest: int, gap_s: float) -> None:
    """Names and members of events, for the newest rows and for each file by itself, against the whole log's."""
    whole = list(query.rows(connection, event_gap_s=gap_s))
    few = list(query.rows(connection, Filter(newest=newest), event_gap_s=gap_s))
    assert [(row.id, row.event) for row in few] == [(row.id, row.event) for row in whole[-newest:]]
    assert same_event([row.event_number for row in few]) == same_event([row.event_number for row in whole[-newest:]])
    members = defaultdict(set)
    for row in whole:
        members[row.event_number].add(row.id)
    for row in whole:
        group = EventsNear(connection, gap_s).event_with(row.id)
        assert group.id == row.event
        assert {moment.file_id for moment in group.moments} == members[row.event_number]
        assert list(events.group(group.moments, gap_s, [group.id])) == [group]


def same_event(numbers: list[int]) -> list[int]:
    """For each the place of the first of its event, whatever the numbers are."""
    return [numbers.index(number) for number in numbers]


@pytest.mark.parametrize("step_s", [1, 60, 119.9])
def test_a_long_series_is_one_event_up_to_its_ends(tmp_path: Path, step_s: float) -> None:
    photos = [("beech", "dev", "/a", i * step_s, "+00:00", "exif", i) for i in range(300)]
    apart = ("beech", "dev", "/a", 299 * step_s + GAP_S, "+00:00", "exif", 300)
    fill(tmp_path / "log.db", [*photos, apart])
    with closing(store.open_for_reading(tmp_path / "log.db")) as connection:
        found = EventsNear(connection, GAP_S).event_with(150)
        assert [moment.file_id for moment in found.moments] == list(range(1, 301))
        assert len(EventsNear(connection, GAP_S).event_with(301).moments) == 1


def test_file_that_a_later_read_answers_for_has_no_event(tmp_path: Path) -> None:
    fill(tmp_path / "log.db", [("beech", "dev", "/a", 0, "+00:00", "exif", None)])
    with store.open_for_writing(tmp_path / "log.db") as log:
        log._db.execute("UPDATE file SET failure_closed_by = 1, failure_closed_utc = ''")
    with closing(store.open_for_reading(tmp_path / "log.db")) as connection:
        near = EventsNear(connection, GAP_S)
        assert near.of_files([1, 2]) == {}
        with pytest.raises(LogError, match="no row 1"):
            near.event_with(1)


def steps(connection: sqlite3.Connection, read: Callable[[], object]) -> int:
    """What SQLite does to answer, in hundreds of its steps."""
    count = 0

    def counted() -> None:
        nonlocal count
        count += 1

    connection.set_progress_handler(counted, 100)
    read()
    connection.set_progress_handler(None, 0)
    return count


def costs(path: Path, photos: int) -> tuple[int, int]:
    """What the newest rows and the details of one file take of a log of so many photos."""
    fill(path, [(f"s{i % 3}", "dev", "/a", 50.0 * i, "+00:00", "exif", i) for i in range(photos)])
    with store.open_for_writing(path) as log:
        log.add_shift(TimeShift(3600, "slow", "Ada", since_local=local(1000)))
    with closing(store.open_for_reading(path)) as connection:
        newest = steps(connection, lambda: list(query.rows(connection, Filter(newest=5))))
        return newest, steps(connection, lambda: details.of_file(connection, photos - 20, GAP_S))


def test_what_a_few_files_cost_does_not_grow_with_the_log(tmp_path: Path) -> None:
    for small, large in zip(costs(tmp_path / "small.db", 200), costs(tmp_path / "large.db", 4_000), strict=True):
        assert large <= small + 10


def test_time_that_a_correction_moves_out_of_the_calendar_stays_as_it_was(tmp_path: Path) -> None:
    """What the camera wrote counts then, so its neighbours are found there, too."""
    path = tmp_path / "log.db"
    fill(path, [("beech", "dev", "/a", 7975 * 365.25 * 86_400 + i, "+00:00", "exif", i) for i in range(3)])
    with store.open_for_writing(path) as log:
        log.add_shift(TimeShift(200 * 365 * 86_400, "wrong", "Ada"))
    with closing(store.open_for_reading(path)) as connection:
        compare(connection, 3, GAP_S)
        assert len(EventsNear(connection, GAP_S).event_with(2).moments) == 3


def test_correction_of_a_station_is_not_for_files_without_one_though_both_are_one_place(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    fill(path, [(None, "dev", "/a", i, "+00:00", "exif", i) for i in range(3)])
    with store.open_for_writing(path) as log:
        log.add_shift(TimeShift(-3_600, "slow", "Ada", station="dev:/a"))
        log.add_shift(TimeShift(-100, "slow", "Ada"))
    with closing(store.open_for_reading(path)) as connection:
        compare(connection, 3, GAP_S)


def test_events_of_some_files_hold_no_others(tmp_path: Path) -> None:
    """Two rows that are far apart, as a rare species is, take nothing of what lies between into memory."""
    fill(tmp_path / "log.db", [("beech", "dev", "/a", i * 500, "+00:00", "exif", i) for i in range(50)])
    with closing(store.open_for_reading(tmp_path / "log.db")) as connection:
        with closing(EventIndex(connection, GAP_S)) as index:
            assert index.of_files([1, 50, 99]) == {1: (sha(0)[:16], 1), 50: (sha(49)[:16], 50)}
        assert list(event_near.EventsNear(connection, GAP_S).of_files([50, 1])) == [50, 1]
