from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.errors import ConfigError, LogError
from edge.log import details, event_index, query, store
from edge.log.query import Filter
from edge.log.store import Detection, Failure, FileFacts, FileKey, Observation, PhotoFacts
from edge.photo import Taken
from tests.fakes.camera import BUNDLE

# name, station, local time, offset, label, confidence; no label: unreadable
PHOTOS = (
    ("a.jpg", "beech", "2024-05-01T06:00:00", "+01:00", "deer", 0.9),
    ("b.jpg", "beech", "2024-05-01T06:01:00", "+01:00", "unknown", 0.4),
    ("c.jpg", "beech", "2024-05-01T23:30:00", "+01:00", "empty", 0.8),
    ("d.jpg", "oak", "2024-05-02T00:10:00", "+01:00", "Deer", 0.6),
    ("e.jpg", None, "2024-05-02T12:00:00.250", "-07:00", "fox", 0.7),
    ("f.jpg", "oak", "2024-05-02T00:11:00", "+01:00", None, 0.0),
)


def sha(number: int) -> str:
    return str(number).ljust(64, "0")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("query") / "log.db"
    with store.open_for_writing(path) as log:
        log.add_bundle(BUNDLE)
        for i, (name, station, local, offset, label, confidence) in enumerate(PHOTOS):
            facts = FileFacts(FileKey("dev", "/photos", name, 10, i), Taken(local, offset, "exif", ()), station)
            if label is None:
                log.add_file(facts, photo=None, detection=None, failure=Failure("truncated", "cut"))
                continue
            decision = label if label in ("empty", "unknown") else "species"
            said = Detection(BUNDLE, "shades", label, confidence, decision, (("deer", confidence),), b"", False)
            log.add_file(facts, photo=PhotoFacts(sha(i), 40, 30), detection=said, failure=None)
    return path


@pytest.fixture
def connection(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(store.open_for_reading(database)) as opened:
        yield opened


def names(connection: sqlite3.Connection, wanted: Filter) -> list[str]:
    return [row.path[0] for row in query.rows(connection, wanted)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param(Filter(), "abcdef", id="everything"),
        pytest.param(Filter(species="deer"), "ad", id="one label in any case"),
        pytest.param(Filter(species="  deer\n"), "ad", id="a label as people type it"),
        pytest.param(Filter(species="empty"), "c", id="empty photos"),
        pytest.param(Filter(station="oak"), "df", id="one station"),
        pytest.param(Filter(below=0.65), "bd", id="what the model is unsure of, without failures"),
        pytest.param(Filter(below=0.6), "b", id="below does not include the value"),
        pytest.param(Filter(since="2024-05-02"), "def", id="from a day on, by the camera's clock"),
        pytest.param(Filter(until="2024-05-01"), "abc", id="the last day is included"),
        pytest.param(Filter(until="2024-05-01T06:01:00"), "a", id="the end as a time is not included"),
        pytest.param(Filter(since="2024-05-01T06:01", until="2024-05-01T23:30:00"), "b", id="between two times"),
        pytest.param(Filter(since="2024-05-01T23:00:00+00:00"), "def", id="a time with offset is a moment"),
        pytest.param(Filter(since="2024-05-02T18:59:00Z"), "e", id="other offsets are converted"),
        pytest.param(Filter(since="2024-05-02T12:00:00.25"), "e", id="from a part of a second on"),
        pytest.param(
            Filter(since="2024-05-02T12", until="2024-05-02T12:00:00.250"), "", id="before a part of a second"
        ),
        pytest.param(Filter(until="9999-12-31"), "abcdef", id="to the last day of the calendar"),
        pytest.param(Filter(newest=2), "ef", id="the newest rows in the usual order"),
        pytest.param(Filter(newest=1, station="beech"), "c", id="the newest of a station"),
        pytest.param(Filter(station="elm"), "", id="nothing"),
    ],
)
def test_filter_gives_the_rows_in_the_order_they_were_seen(
    connection: sqlite3.Connection, wanted: Filter, expected: str
) -> None:
    assert "".join(names(connection, wanted)) == expected


def test_rows_are_the_same_when_they_come_in_many_statements(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(query.rows(connection))
    for batch in (1, 2, 3, 6):
        monkeypatch.setattr(query, "_BATCH", batch)
        assert list(query.rows(connection)) == whole


@pytest.mark.parametrize("text", ["yesterday", "2024-13-01", "1.5.2024", "", "2024-05-01+01:00"])
def test_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a date or time"):
        Filter(since=text)


@pytest.mark.parametrize("name", ["species", "station"])
def test_what_no_log_can_hold_is_refused(name: str) -> None:
    values: dict[str, Any] = {name: "caf\udce9"}
    with pytest.raises(ConfigError, match=f"{name} is 'caf.*, expected text in UTF-8"):
        Filter(**values)


@pytest.mark.parametrize("newest", [1, 2, 5, 6, 7])
def test_newest_rows_are_the_same_whether_few_or_many(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, newest: int
) -> None:
    for wanted in (Filter(newest=newest), Filter(newest=newest, station="oak"), Filter(newest=newest, all_models=True)):
        few = [replace(row, event_number=0) for row in query.rows(connection, wanted)]
        with monkeypatch.context() as patch:
            patch.setattr(query, "_FEW", 0)
            patch.setattr(query, "_SPAN", 2)
            assert [replace(row, event_number=0) for row in query.rows(connection, wanted)] == few


def test_no_statement_goes_through_the_whole_log(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing is found, as of a rare species: an open read keeps the -wal file from shrinking."""
    monkeypatch.setattr(query, "_SPAN", 1)
    for few in (0, 5):
        monkeypatch.setattr(query, "_FEW", few)
        for newest in (None, 5):
            statements: list[str] = []
            connection.set_trace_callback(statements.append)
            assert list(query.rows(connection, Filter(species="lynx", newest=newest))) == []
            connection.set_trace_callback(None)
            assert len([each for each in statements if "lynx" in each]) >= 3


@pytest.mark.parametrize("typed", ["Żubr", "żubr", "ŻUBR", "Z\u0307ubr"])
def test_label_is_found_in_any_case_in_every_alphabet(database: Path, tmp_path: Path, typed: str) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(database.read_bytes())
    with store.open_for_writing(path) as log:
        log.add_review(sha(0), [Observation("Żubr")], "Ada")
    with closing(store.open_for_reading(path)) as opened:
        assert names(opened, Filter(species=typed)) == ["a"]
        assert names(opened, Filter(species=typed, newest=3)) == ["a"]


def test_photos_of_a_station_within_the_gap_share_an_event(connection: sqlite3.Connection) -> None:
    events = {row.path[0]: row.event for row in query.rows(connection)}
    assert events["a"] == events["b"]
    assert events["d"] == events["f"]
    assert len(set(events.values())) == 4
    apart = {row.path[0]: row.event for row in query.rows(connection, event_gap_s=60)}
    assert len(set(apart.values())) == 6


def test_files_copied_together_without_a_camera_s_time_are_events_of_their_own(tmp_path: Path) -> None:
    with store.open_for_writing(tmp_path / "log.db") as log:
        for i, source in enumerate(("file", "file", "name", "name")):
            taken = Taken("2024-05-01T06:00:00", "+00:00", source, ("not-exif",))
            facts = FileFacts(FileKey("dev", "/photos", f"{i}.jpg", 10, i), taken)
            log.add_file(facts, photo=None, detection=None, failure=Failure("truncated", "cut"))
    with closing(store.open_for_reading(tmp_path / "log.db")) as opened:
        first, second, third, fourth = (row.event for row in query.rows(opened))
    assert len({first, second, third}) == 3
    assert third == fourth


def test_review_list_starts_with_the_least_certain(connection: sqlite3.Connection) -> None:
    assert [row.path[0] for row in query.to_review(connection, "unreviewed")] == ["b", "d", "e", "c", "a"]
    assert [row.path[0] for row in query.to_review(connection, "unreviewed", skip=1, most=2)] == ["d", "e"]
    assert [row.path[0] for row in query.to_review(connection, "failed")] == ["f"]
    assert query.count_states(connection) == {"unreviewed": 5, "reviewed": 0, "failed": 1, "all": 6}


def test_counting_reads_no_answers(connection: sqlite3.Connection) -> None:
    """The page counts after each correction, of however many photos."""
    tables = set[str | None]()

    def reads(action: int, table: str | None, *rest: str | None) -> int:
        if action == sqlite3.SQLITE_READ:
            tables.add(table)
        return sqlite3.SQLITE_OK

    connection.set_authorizer(reads)
    query.count_states(connection)
    connection.set_authorizer(None)
    assert tables - {""} == {"file", "review"}


def test_known_labels_end_with_the_words_that_always_exist(connection: sqlite3.Connection) -> None:
    assert query.known_labels(connection) == ["deer", "fox", "empty", "person", "unknown", "setup"]


def test_totals_count_the_log(connection: sqlite3.Connection) -> None:
    found = query.totals(connection)
    assert (found.files, found.photos, found.failures, found.reviewed) == (6, 5, 1, 0)
    assert found.last_seen_utc is not None


def test_missing_row_is_refused(connection: sqlite3.Connection) -> None:
    with pytest.raises(LogError, match="no row 99") as refused:
        query.one(connection, 99)
    assert refused.value.code == "missing"


def test_details_hold_every_answer_every_review_and_the_event(tmp_path: Path, database: Path) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(database.read_bytes())
    with store.open_for_writing(path) as log:
        log.add_review(sha(1), [Observation("fox", count=2, comment="cubs")], "Ada")
    with closing(store.open_for_reading(path)) as connection:
        found = details.of_file(connection, 2, 120.0)
    assert found["label"] == "fox"
    assert [answer["label"] for answer in found["models"]] == ["unknown"]
    assert found["reviews"][0]["observations"][0]["comment"] == "cubs"
    # Of the event's two photos one is a deer at 0.9, the other was said to be a fox.
    assert (found["event_files"], found["event_label"], found["event_also"]) == (2, "fox", ["deer"])
    text = "\n".join(details.lines(found))
    assert "2 fox (cubs) by Ada" in text
    assert "unknown 0.40 by shades-1" in text


def test_event_keeps_the_name_under_which_it_was_reviewed(tmp_path: Path) -> None:
    """An earlier photo that arrives late joins it; without the review the event would be called after that one."""
    path = tmp_path / "log.db"
    with store.open_for_writing(path) as log:
        for i, local in enumerate(("06:01:00", "06:02:00", "06:00:00", "09:00:00")):
            taken = Taken(f"2024-05-01T{local}", "+01:00", "exif", ())
            facts = FileFacts(FileKey("dev", "/photos", f"{i}.jpg", 10, i), taken, "beech")
            log.add_file(facts, photo=PhotoFacts(sha(i), 40, 30), detection=None, failure=Failure("model", "broken"))
    with closing(store.open_for_reading(path)) as opened:
        assert [row.event for row in query.rows(opened)] == [sha(2)[:16]] * 3 + [sha(3)[:16]]
    with store.open_for_writing(path) as log:
        log._db.execute("INSERT INTO review (event, who, created_utc) VALUES (?, 'Ada', '')", (sha(0)[:16],))
    with closing(store.open_for_reading(path)) as opened:
        assert [row.event for row in query.rows(opened)] == [sha(0)[:16]] * 3 + [sha(3)[:16]]
        assert details.of_file(opened, 3, 120.0)["event"] == sha(0)[:16]
        assert details.of_file(opened, 3, 120.0)["event_files"] == 3


def test_events_are_the_same_when_they_are_worked_out_in_many_statements(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [(row.event, row.event_number) for row in query.rows(connection)]
    monkeypatch.setattr(event_index, "_BATCH", 1)
    assert [(row.event, row.event_number) for row in query.rows(connection)] == whole


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        # each photo: label, confidence, decision, top; None: it failed
        pytest.param([("empty", 0.9, "empty"), ("empty", 0.7, "empty")], ("empty", 0.7, []), id="all are empty"),
        pytest.param([("empty", 0.9, "empty"), None], ("unknown", 0.0, []), id="a failure is unknown, not empty"),
        pytest.param(
            [("deer", 0.8, "species"), ("fox", 0.6, "species")], ("deer", 0.4, ["fox"]), id="a second species is kept"
        ),
        pytest.param(
            [("deer", 0.8, "species"), ("person", 0.6, "species")], ("person", 0.6, ["deer"]), id="a person wins"
        ),
        pytest.param(
            [("Cervidae", 0.9, "rollup"), ("deer", 0.6, "species")], ("deer", 0.3, []), id="a roll-up is the species"
        ),
        pytest.param([("Cervidae", 0.9, "rollup"), None], ("Cervidae", 0.9, []), id="a roll-up alone counts"),
    ],
)
def test_event_shows_what_its_photos_show(
    tmp_path: Path, labels: list[tuple[str, float, str] | None], expected: tuple[str, float, list[str]]
) -> None:
    """From the rows to the verdict. A list of one label counts the others as 0, so means are over all that are not
    empty: deer 0.8 and fox 0.6 in two photos are 0.4 and 0.3."""
    path = tmp_path / "log.db"
    with store.open_for_writing(path) as log:
        log.add_bundle(BUNDLE)
        for i, said in enumerate(labels):
            taken = Taken(f"2024-05-01T06:00:{i:02}", "+01:00", "exif", ())
            facts = FileFacts(FileKey("dev", "/photos", f"{i}.jpg", 10, i), taken, "beech")
            if said is None:
                log.add_file(facts, photo=None, detection=None, failure=Failure("truncated", "cut"))
                continue
            label, confidence, decision = said
            detection = Detection(BUNDLE, "shades", label, confidence, decision, ((label, confidence),), b"", False)
            log.add_file(facts, photo=PhotoFacts(sha(i), 40, 30), detection=detection, failure=None)
    with closing(store.open_for_reading(path)) as opened:
        found = details.of_file(opened, 1, 120.0)
    assert (found["event_label"], found["event_confidence"], found["event_also"]) == expected
