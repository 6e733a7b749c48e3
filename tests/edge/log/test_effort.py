"""Camera-days and dead times, each case worked by hand."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.log import effort, store
from edge.log.effort import Span, gaps_between
from edge.log.stations import Deployment
from edge.log.store import Failure, FileFacts, FileKey
from edge.photo import Taken

DAY = timedelta(days=1)
START = datetime(2026, 5, 1, 12, tzinfo=UTC)
BEECH = Deployment("d", "beech", 1.0, 2.0, START, START + 10 * DAY)


def run(begins: float, ends: float, *, sure: bool = True) -> Span:
    """A run, in days after the start."""
    return Span(START + begins * DAY, START + ends * DAY, sure)


def gaps(*runs: Span, days: float = 10) -> list[tuple[float, float, bool]]:
    found = gaps_between(runs, START, START + days * DAY)
    return [((gap.start - START) / DAY, (gap.end - START) / DAY, gap.sure) for gap in found]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        pytest.param([run(0, 10)], [], id="one run all the time"),
        pytest.param([run(-5, 20)], [], id="a run that is longer"),
        pytest.param([run(0, 4), run(6, 10)], [(4, 6, True)], id="two days without power"),
        pytest.param([run(0, 4), run(4.04, 10)], [], id="a restart"),
        pytest.param([run(0, 3)], [(3, 10, True)], id="it never came back"),
        pytest.param([run(2, 10)], [(0, 2, True)], id="it came two days late"),
        pytest.param([run(-9, -8), run(1, 10)], [(0, 1, True)], id="a run before the deployment"),
        pytest.param([run(0, 9), run(11, 20)], [(9, 10, True)], id="a run after the deployment"),
        pytest.param([run(0, 5), run(3, 4), run(4, 10)], [], id="runs that overlap"),
        pytest.param([run(0, 2), run(-90, -89, sure=False), run(6, 10)], [(2, 6, False)], id="a run without a clock"),
        pytest.param([run(0, 2), run(1, 0.5), run(6, 10)], [(2, 6, False)], id="a run whose clock was set back"),
        pytest.param([], [(0, 10, True)], id="none"),
    ],
)  # fmt: skip
def test_dead_is_what_lies_between_the_runs(runs: list[Span], expected: list[tuple[float, float, bool]]) -> None:
    rounded = [(round(begins, 6), round(ends, 6), sure) for begins, ends, sure in gaps(*runs)]
    assert rounded == expected


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The agent ran on days 0 to 4, 6 to 7 and 9 to 10; a photo was taken on day 5, and one on day 9.5."""
    found = tmp_path / "log.db"
    with store.open_for_writing(found) as log:
        for days in (1, 5, 9.5):
            local = (START + days * DAY).replace(tzinfo=None).isoformat()
            key = FileKey("dev", "/photos", f"{days}.JPG", 10, 1)
            facts = FileFacts(key, Taken(local, "+00:00", "exif", ()), "beech")
            log.add_file(facts, photo=None, detection=None, failure=Failure("truncated", "cut"))
        for begins, ends, once in ((0, 4, 0), (6, 7, 0), (7.5, 7.6, 1), (9, 10, 0)):
            log.add_run("dev", version="1", model_digest=None, boot_id=None, clock_ok=True, once=bool(once))
            times = [(START + days * DAY).isoformat() for days in (begins, ends)]
            log._db.execute("UPDATE agent_run SET started_utc = ?, alive_utc = ? WHERE id = last_insert_rowid()", times)
    return found


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(store.open_for_reading(path)) as opened:
        yield opened


def test_gap_in_which_the_camera_took_photos_is_not_dead(connection: sqlite3.Connection) -> None:
    """Days 4 to 6 hold a photo, days 7 to 9 none; a run that only drained a backlog fills no gap."""
    [found] = effort.of(connection, [BEECH], START + 99 * DAY)
    assert [((gap.start - START) / DAY, (gap.end - START) / DAY) for gap in found.dead] == [(7, 9)]
    assert (found.days, found.dead_days, found.camera_days, found.watched) == (10, 2, 8, True)
    assert (found.photos, found.first_photo, found.last_photo) == (
        3, "2026-05-02T12:00:00+00:00", "2026-05-11T00:00:00+00:00",
    )  # fmt: skip


def test_open_deployment_lasts_until_now(connection: sqlite3.Connection) -> None:
    goes_on = Deployment("d", "beech", 1.0, 2.0, START)
    [found] = effort.of(connection, [goes_on], START + 12 * DAY)
    assert (found.days, found.dead_days) == (12, 4)
    assert effort.as_json(found)["end"] is None


def test_end_that_is_planned_counts_no_day_that_is_still_to_come(connection: sqlite3.Connection) -> None:
    planned = Deployment("d", "beech", 1.0, 2.0, START, START + 100 * DAY)
    now = START + 12 * DAY
    [found] = effort.of(connection, [planned], now)
    assert (found.days, found.dead_days) == (12, 4)
    assert effort.unwatched(planned, now).days == 12
    assert effort.unwatched(planned, START - DAY).days == 0


def test_many_gaps_cost_no_more_than_one(connection: sqlite3.Connection, path: Path) -> None:
    """A device that sleeps every night has hundreds; the log is read once, not once for each."""

    def reads() -> int:
        statements: list[str] = []
        connection.set_trace_callback(statements.append)
        [_] = effort.of(connection, [BEECH], START + 99 * DAY)
        connection.set_trace_callback(None)
        return len(statements)

    before = reads()
    with store.open_for_writing(path) as log:
        log._db.execute("DELETE FROM agent_run")
        for hours in range(0, 240, 3):
            log.add_run("dev", version="1", model_digest=None, boot_id=None, clock_ok=True)
            at = (START + timedelta(hours=hours)).isoformat()
            log._db.execute(
                "UPDATE agent_run SET started_utc = ?, alive_utc = ? WHERE id = last_insert_rowid()", (at, at)
            )
    [found] = effort.of(connection, [BEECH], START + 99 * DAY)
    assert len(found.dead) > 70
    assert reads() == before


def test_without_any_run_nothing_is_known_of_dead_times(connection: sqlite3.Connection) -> None:
    earlier = Deployment("d", "beech", 1.0, 2.0, START - 30 * DAY, START - 20 * DAY)
    [found] = effort.of(connection, [earlier], START)
    assert (found.watched, found.dead, found.camera_days, found.photos) == (False, (), 10, 0)
    assert effort.as_json(found)["dead_days"] is None


def test_runs_of_another_device_are_not_the_stations(connection: sqlite3.Connection, path: Path) -> None:
    with store.open_for_writing(path) as log:
        log.add_run("other", version="1", model_digest=None, boot_id=None, clock_ok=True)
        log._db.execute(
            "UPDATE agent_run SET started_utc = ?, alive_utc = ? WHERE device = 'other'",
            (START.isoformat(), (START + 10 * DAY).isoformat()),
        )
    [found] = effort.of(connection, [BEECH], START + 99 * DAY)
    assert found.dead_days == 2


def test_first_and_last_photo_go_by_the_moment_where_two_cameras_have_two_offsets(path: Path) -> None:
    """As text ``07:00+02:00`` comes after ``06:30+00:00``, and is the earlier moment."""
    with store.open_for_writing(path) as log:
        for name, local, offset in (
            ("a", "2026-05-02T06:30:00", "+00:00"),
            ("b", "2026-05-02T07:00:00", "+02:00"),
            ("c", "2026-05-03T22:30:00", "-05:00"),
            ("d", "2026-05-03T23:00:00", "+00:00"),
        ):
            facts = FileFacts(FileKey("dev", "/photos", name, 10, 1), Taken(local, offset, "exif", ()), "oak")
            log.add_file(facts, photo=None, detection=None, failure=Failure("truncated", "cut"))
    oak = Deployment("o", "oak", 1.0, 2.0, START, START + 10 * DAY)
    with closing(store.open_for_reading(path)) as connection:
        [found] = effort.of(connection, [oak], START + 20 * DAY)
    assert (found.photos, found.first_photo, found.last_photo) == (
        4, "2026-05-02T07:00:00+02:00", "2026-05-03T22:30:00-05:00",
    )  # fmt: skip
