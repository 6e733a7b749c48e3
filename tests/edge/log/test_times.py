"""Corrected times and what looks wrong about a time."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ConfigError, LogError
from edge.log import details, query, shifts, store, table, times
from edge.log.query import Filter
from edge.log.store import Failure, FileFacts, FileKey, TimeShift
from edge.photo import Taken

CUT = Failure("truncated", "cut")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Three photos of the beech, one of the oak, one whose time is only its file's."""
    found = tmp_path / "log.db"
    with store.open_for_writing(found) as log:
        for name, station, local, source in (
            ("IMG_0001.JPG", "beech", "2024-05-01T06:00:00", "exif"),
            ("IMG_0002.JPG", "beech", "2024-05-02T23:59:59.250", "exif"),
            ("IMG_0003.JPG", "beech", "2024-05-03T00:00:00", "name"),
            ("oak.JPG", "oak", "2024-05-02T12:00:00", "exif"),
            ("scan.JPG", "beech", "2024-05-02T12:00:00", "file"),
        ):
            key = FileKey("dev", "/photos", name, 10, 1)
            log.add_file(
                FileFacts(key, Taken(local, "+01:00", source, ()), station), photo=None, detection=None, failure=CUT
            )
    return found


def correct(path: Path, by: str, **limits: str | bool | None) -> None:
    words: dict[str, str | None] = {"station": "beech", "since": None, "until": None}
    file_times = bool(limits.pop("file_times", False))
    words |= {name: None if value is None else str(value) for name, value in limits.items()}
    made = shifts.make(
        by=by, reason="the clock was wrong", who="Ada", file_times=file_times, station=words["station"],
        since=words["since"], until=words["until"],
    )  # fmt: skip
    with store.open_for_writing(path) as log:
        log.add_shift(made)


def shown(path: Path, wanted: Filter = query.EVERYTHING) -> dict[str, str]:
    with closing(store.open_for_reading(path)) as connection:
        return {row.path: row.taken_local for row in query.rows(connection, wanted)}


def test_correction_moves_what_the_camera_wrote_and_nothing_else(path: Path) -> None:
    correct(path, "+1d01:00:01")
    assert shown(path) == {
        "IMG_0001.JPG": "2024-05-02T07:00:01",
        "IMG_0002.JPG": "2024-05-04T01:00:00.250",
        "IMG_0003.JPG": "2024-05-04T01:00:01",
        "oak.JPG": "2024-05-02T12:00:00",  # another station
        "scan.JPG": "2024-05-02T12:00:00",  # not the camera's time
    }


def test_original_stands_beside_the_corrected_time(path: Path) -> None:
    correct(path, "-00:00:30")
    with closing(store.open_for_reading(path)) as connection:
        values = table.as_json(query.one(connection, 2))
        lines = details.lines(details.of_file(connection, 2, 120.0))
    assert (values["taken"], values["taken_original"]) == (
        "2024-05-02T23:59:29.250+01:00",
        "2024-05-02T23:59:59.250+01:00",
    )
    assert any("the camera wrote 2024-05-02T23:59:59.250+01:00" in line for line in lines)
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT taken_local FROM file WHERE id = 2").fetchone() == ("2024-05-02T23:59:59.250",)


def test_opposite_correction_undoes_it(path: Path) -> None:
    before = shown(path)
    correct(path, "+400d03:02:01", since="2024-05-02")
    assert shown(path) != before
    correct(path, "-400d03:02:01", since="2024-05-02")
    assert shown(path) == before


def test_several_corrections_add_up_and_hold_for_the_uncorrected_time(path: Path) -> None:
    """The second is for the time as the camera wrote it, wherever the first has moved it."""
    correct(path, "+30d", until="2024-05-02")
    correct(path, "+01:00:00", until="2024-05-02", since="2024-05-02")
    assert shown(path)["IMG_0001.JPG"] == "2024-05-31T06:00:00"
    assert shown(path)["IMG_0002.JPG"] == "2024-06-02T00:59:59.250"
    assert shown(path)["IMG_0003.JPG"] == "2024-05-03T00:00:00"


@pytest.mark.parametrize(
    ("limits", "moved"),
    [
        pytest.param({"since": "2024-05-03"}, ["IMG_0003.JPG"], id="from a day on"),
        pytest.param(
            {"since": "2024-05-02T23:59:59.25"}, ["IMG_0002.JPG", "IMG_0003.JPG"], id="from a part of a second on"
        ),
        pytest.param({"until": "2024-05-01"}, ["IMG_0001.JPG"], id="the last day is included"),
        pytest.param({"until": "2024-05-03T00:00:00"}, ["IMG_0001.JPG", "IMG_0002.JPG"], id="the end as a time is not"),
        pytest.param({"station": "oak"}, ["oak.JPG"], id="another station"),
        pytest.param(
            {"station": None}, ["IMG_0001.JPG", "IMG_0002.JPG", "IMG_0003.JPG", "oak.JPG"], id="every station"
        ),
        pytest.param({"since": "2024-05-02", "until": "2024-05-02", "file_times": True},
                     ["IMG_0002.JPG", "scan.JPG"], id="times of files too"),
    ],
)  # fmt: skip
def test_correction_holds_for_what_is_named(path: Path, limits: dict[str, str | bool | None], moved: list[str]) -> None:
    before = shown(path)
    correct(path, "+00:10:00", **limits)
    assert sorted(name for name, local in shown(path).items() if local != before[name]) == moved


def test_filters_and_events_use_the_corrected_time(path: Path) -> None:
    """Moved by 18 h, the first photo lies 20 s before the second."""
    correct(path, "+1d17:59:39.25"[:-3], until="2024-05-01")
    assert shown(path)["IMG_0001.JPG"] == "2024-05-02T23:59:39"
    assert set(shown(path, Filter(since="2024-05-02T23:00:00", until="2024-05-02"))) == {"IMG_0001.JPG", "IMG_0002.JPG"}
    with closing(store.open_for_reading(path)) as connection:
        events = {row.path: row.event for row in query.rows(connection)}
    assert events["IMG_0001.JPG"] == events["IMG_0002.JPG"] == events["IMG_0003.JPG"]
    assert events["scan.JPG"] != events["IMG_0001.JPG"]


def test_correction_is_shown_before_it_is_made_and_listed_after(path: Path) -> None:
    made = shifts.make(by="-00:30:00", station="beech", since=None, until=None, reason="slow", who="Ada")
    with closing(store.open_for_reading(path)) as connection:
        assert shifts.touched(connection, made) == shifts.Touched(3, "2024-05-01T06:00:00", "2024-05-01T05:30:00")
        assert shifts.touched(connection, replace(made, station="elm")).files == 0
    with store.open_for_writing(path) as log:
        log.add_shift(made)
    with closing(store.open_for_reading(path)) as connection:
        assert [each.shift for each in shifts.listed(connection)] == [made]


@pytest.mark.parametrize("reason", ["", " ", "x\x1b[2J", "x" * 1001])
def test_correction_without_a_reason_is_refused(path: Path, reason: str) -> None:
    with store.open_for_writing(path) as log, pytest.raises(LogError, match="the reason is"):
        log.add_shift(TimeShift(60, reason, "Ada"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+01:00:00", 3600), ("-01:00", -3600), ("+1d", 86_400), ("-2d00:00:01", -172_801), ("+00:00:01", 1),
        ("+36:30", 131_400),
    ],
)  # fmt: skip
def test_difference_is_read(text: str, expected: int) -> None:
    assert times.seconds(text) == expected


@pytest.mark.parametrize("text", ["1:00:00", "+1", "+", "-00:00:00", "+1h", "+01:60:00", "+1d1", "+99999d", "+٣d", ""])
def test_what_is_no_difference_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="the difference is"):
        times.seconds(text)


@given(st.integers(-times.MOST_SHIFT_S, times.MOST_SHIFT_S).filter(bool))
def test_difference_reads_back(total_s: int) -> None:
    assert times.seconds(times.difference(total_s)) == total_s


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)),
    st.sampled_from(["", ".5", ".123456"]),
    st.integers(-(10**9), 10**9),
)
def test_sql_adds_as_python_does(moment: datetime, fraction: str, shift_s: int) -> None:
    local = moment.replace(microsecond=0).isoformat()
    with closing(sqlite3.connect(":memory:")) as memory:
        columns = "station, device, source, since_local, until_local, file_times, seconds"
        memory.execute(f"CREATE TABLE time_shift ({columns})")
        memory.execute("INSERT INTO time_shift VALUES (NULL, NULL, NULL, NULL, NULL, 0, ?)", (shift_s,))
        memory.execute("CREATE TABLE file (station, device, source, taken_local, taken_source)")
        memory.execute("INSERT INTO file VALUES (NULL, 'd', 's', ?, 'exif')", (local + fraction,))
        [(found,)] = memory.execute(f"SELECT {times.corrected('f')} FROM file f")
    expected = moment.replace(microsecond=0) + timedelta(seconds=shift_s)
    assert found == expected.isoformat() + fraction


@pytest.mark.parametrize(
    "make",
    [
        pytest.param({"since": "2024-05-01T06:00+01:00"}, id="a time with an offset"),
        pytest.param({"until": "yesterday"}, id="no time"),
        pytest.param({"until": "9999-12-31"}, id="the end of the calendar"),
        pytest.param({"since": "2024-05-02", "until": "2024-05-01"}, id="the end before the start"),
        pytest.param({"station": "caf\udce9"}, id="a station in another encoding"),
    ],
)
def test_limits_that_make_no_sense_are_refused(make: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=re.compile("--since|--until|--station")):
        shifts.make(
            by="+01:00", station=make.get("station"), since=make.get("since"), until=make.get("until"),
            reason="r", who="w",
        )  # fmt: skip


# Flags

SEEN = "2026-05-01T05:00:00.000+00:00"
STARTS = datetime(2026, 4, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        pytest.param("2026-04-30T06:00:00", (), id="an ordinary time"),
        pytest.param("1970-01-01T00:03:00", ("clock-reset",), id="1970"),
        pytest.param("1980-01-05T10:00:00", ("clock-reset",), id="some days after 1980 began"),
        pytest.param("2000-01-01T00:00:00", ("clock-reset",), id="2000"),
        pytest.param("2010-01-01T00:03:00", ("clock-reset",), id="2010"),
        pytest.param("2010-07-01T00:03:00", (), id="an old photo", marks=()),
        pytest.param("2026-05-01T06:59:59", (), id="within the hour that clocks may differ"),
        pytest.param("2026-05-01T07:00:01", ("future",), id="later than it was seen"),
        pytest.param("2040-01-01T00:00:00", ("future",), id="years later"),
    ],
)
def test_time_that_looks_wrong_is_flagged(local: str, expected: tuple[str, ...]) -> None:
    assert times.flags(local=local, utc_offset="+01:00", written=(), seen_utc=SEEN) == expected


def test_time_before_the_first_deployment_is_a_reset_clock() -> None:
    for local, expected in (("2026-04-01T10:59:59", ("clock-reset",)), ("2026-04-01T11:00:00", ())):
        assert times.flags(local=local, utc_offset="+01:00", written=(), seen_utc=SEEN, starts=STARTS) == expected


def test_future_is_flagged_west_of_greenwich_where_the_day_is_still_the_one_before() -> None:
    for seen, expected in (("01:00", (times.FUTURE,)), ("04:00", ())):
        found = times.flags(  # 04:30 UTC on the second
            local="2026-05-01T23:30:00", utc_offset="-05:00", written=(), seen_utc=f"2026-05-02T{seen}:00.000+00:00"
        )
        assert found == expected


def test_where_nobody_said_the_offset_a_day_is_forgiven() -> None:
    assumed = ("offset-assumed",)
    for local, expected in (("2026-05-02T06:59:59", ()), ("2026-05-02T07:00:01", ("future",))):
        assert times.flags(local=local, utc_offset="+00:00", written=assumed, seen_utc=SEEN) == expected


def test_device_that_did_not_know_the_time_calls_nothing_future() -> None:
    early = "1970-01-01T00:10:00.000+00:00"
    assert times.flags(local="2026-05-01T06:00:00", utc_offset="+01:00", written=(), seen_utc=early) == ()


@pytest.mark.parametrize(
    ("path", "local", "path_before", "local_before", "expected"),
    [
        pytest.param("D/IMG_0002.JPG", "2026-05-01T06", "D/IMG_0001.JPG", "2026-05-01T07", True, id="set back"),
        pytest.param("D/IMG_0002.JPG", "2026-05-01T07", "D/IMG_0001.JPG", "2026-05-01T07", False, id="one second"),
        pytest.param("E/IMG_0001.JPG", "2026-05-01T06", "D/IMG_9999.JPG", "2026-05-01T07", False, id="other folder"),
        pytest.param("D/IMG_0002.JPG", "2026-05-01T06", "D/DSC_0001.JPG", "2026-05-01T07", False, id="other series"),
        pytest.param("D/IMG_10.JPG", "2026-05-01T06", "D/IMG_9.JPG", "2026-05-01T07", False, id="names without zeros"),
        pytest.param("D/fox.JPG", "2026-05-01T06", "D/deer.JPG", "2026-05-01T07", False, id="no counter"),
        pytest.param("D/IMG_0001.JPG", "2026-05-01T06", None, None, False, id="the first"),
    ],
)
def test_later_counter_with_an_earlier_time_is_backwards(
    path: str, local: str, path_before: str | None, local_before: str | None, expected: bool
) -> None:
    assert times.is_backwards(path, local, path_before, local_before) is expected


def test_log_flags_what_a_reset_clock_did_until_it_is_corrected(path: Path) -> None:
    with store.open_for_writing(path) as log:
        late = FileFacts(FileKey("dev", "/photos", "IMG_0004.JPG", 10, 1), Taken("2000-01-01T00:01:00", "+01:00", "exif", ()), "beech")  # fmt: skip  # noqa: E501
        log.add_file(late, photo=None, detection=None, failure=CUT)
    with closing(store.open_for_reading(path)) as connection:
        flags = {row.path: row.time_flags for row in query.rows(connection)}
    assert flags["IMG_0004.JPG"] == ("clock-reset", "backwards")
    assert {flags[name] for name in flags if name != "IMG_0004.JPG"} == {()}
    correct(path, "+8889d10:00:00", until="2000-12-31")
    with closing(store.open_for_reading(path)) as connection:
        row = query.one(connection, 6, {"beech": datetime(2024, 5, 1, tzinfo=UTC)})
    assert (row.taken_local, row.time_flags) == ("2024-05-03T10:01:00", ())


def test_photo_from_before_its_station_is_flagged_in_the_log(path: Path) -> None:
    with closing(store.open_for_reading(path)) as connection:
        rows = query.rows(connection, starts={"beech": datetime(2024, 5, 1, 6, tzinfo=UTC)})
        assert {row.path for row in rows if row.time_flags} == {"IMG_0001.JPG"}
