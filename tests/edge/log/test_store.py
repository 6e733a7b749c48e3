from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import LogError
from edge.log import opening, query, store
from edge.log.schema import APPLICATION_ID, MIGRATIONS
from edge.log.store import Detection, Failure, FileFacts, FileKey, Log, Observation, PhotoFacts
from edge.photo import Taken
from tests.fakes.camera import BUNDLE

DATA = Path(__file__).parent / "data"
TAKEN = Taken("2024-05-01T06:12:09", "+01:00", "exif", ())
KEY = FileKey("device", "/photos", "IMG_0001.JPG", 100, 5)
FILE = FileFacts(KEY, TAKEN, station="beech")
PHOTO = PhotoFacts("ab" * 32, 4000, 3000, "Reconyx", "HP2X")
DEER = Detection(BUNDLE, "shades", "deer", 0.9, "species", (("deer", 0.9), ("fox", 0.1)), b"\0" * 12, True)
TRUNCATED = Failure("truncated", "the photo is truncated", sha256="cd" * 32)
BROKEN = Failure("model", "the runtime failed", retry=True)


def other(**changes: Any) -> FileFacts:
    return replace(FILE, key=replace(KEY, **changes))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(path: Path) -> Any:
    with store.open_for_writing(path) as opened:
        opened.add_bundle(BUNDLE)
        yield opened


def pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def count(path: Path, table: str) -> int:
    with closing(store.open_for_reading(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def shown(path: Path) -> list[query.Row]:
    with closing(store.open_for_reading(path)) as connection:
        return list(query.rows(connection))


# Opening


def test_every_writer_gets_wal_full_sync_and_foreign_keys(log: Log, path: Path) -> None:
    with store.open_for_writing(path) as second:
        for opened in (log, second):
            settings = [pragma(opened._db, name) for name in ("journal_mode", "synchronous", "foreign_keys")]
            assert settings == ["wal", 2, 1]
            assert pragma(opened._db, "busy_timeout") == store.BUSY_TIMEOUT_MS


def test_new_log_carries_our_application_id_and_version(log: Log) -> None:
    assert pragma(log._db, "application_id") == APPLICATION_ID
    assert pragma(log._db, "user_version") == len(MIGRATIONS)


def test_log_folder_is_made(tmp_path: Path) -> None:
    deep = tmp_path / "var" / "lib" / "log.db"
    store.open_for_writing(deep).close()
    assert deep.is_file()


def test_settings_that_do_not_hold_are_refused(path: Path) -> None:
    with closing(sqlite3.connect(":memory:")) as memory, pytest.raises(LogError, match="keeps journal_mode at memory"):
        opening._set(memory, path, "journal_mode", "wal")


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE birds (name)")


def of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 7")
        connection.execute("VACUUM")


def newer(path: Path) -> None:
    store.open_for_writing(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")


def no_database(path: Path) -> None:
    path.write_bytes(b"species,count\n" * 1000)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        pytest.param(foreign, "foreign", id="a SQLite file with other tables"),
        pytest.param(of_another_program, "foreign", id="a SQLite file of another program"),
        pytest.param(newer, "newer", id="a log of a newer Fieldmark"),
        pytest.param(no_database, "log", id="no SQLite file"),
    ],
)
@pytest.mark.parametrize("opens", [store.open_for_writing, store.open_for_reading])
def test_what_is_no_log_of_ours_is_refused_and_stays_as_it_was(
    path: Path, make: Callable[[Path], None], code: str, opens: Callable[[Path], object]
) -> None:
    make(path)
    before = path.read_bytes()
    with pytest.raises(LogError) as refused:
        opens(path)
    assert refused.value.code == code
    assert str(path) in str(refused.value)
    assert path.read_bytes() == before


def test_reading_a_log_that_is_not_there_makes_none(path: Path) -> None:
    with pytest.raises(LogError, match="there is no detection log"):
        store.open_for_reading(path)
    assert not path.exists()


def test_empty_file_is_no_log_but_where_one_may_be_made(path: Path) -> None:
    """As a first start leaves it that lost its power, or as another program's."""
    path.touch()
    for opens in (store.open_for_reading, lambda path: store.open_for_writing(path, make=False)):
        with pytest.raises(LogError, match="there is no detection log") as refused:
            opens(path)
        assert (refused.value.code, path.stat().st_size) == ("no log", 0)
    store.open_for_writing(path).close()
    store.open_for_reading(path).close()


def test_reader_sees_what_is_only_in_the_wal_of_a_living_writer(log: Log, path: Path) -> None:
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    assert os.path.getsize(f"{path}-wal") > 0
    assert [row.label for row in shown(path)] == ["deer"]


def test_log_and_wal_copied_together_hold_every_row(log: Log, path: Path, tmp_path: Path) -> None:
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    copy = tmp_path / "copy" / "log.db"
    copy.parent.mkdir()
    for end in ("", "-wal"):
        Path(f"{copy}{end}").write_bytes(Path(f"{path}{end}").read_bytes())
    assert [row.label for row in shown(copy)] == ["deer"]


def test_reader_cannot_write(log: Log, path: Path) -> None:
    with closing(store.open_for_reading(path)) as connection, pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM file")


# Migrations


def test_migration_and_its_version_commit_together(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.open_for_writing(path).close()
    broken = (*MIGRATIONS, ("CREATE TABLE half (a)", "THIS IS NO SQL"))
    monkeypatch.setattr(opening, "MIGRATIONS", broken)
    with pytest.raises(LogError):
        store.open_for_writing(path)
    with closing(sqlite3.connect(path)) as connection:
        assert pragma(connection, "user_version") == len(MIGRATIONS)
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").fetchone() == (0,)


def test_older_log_is_brought_up_to_date_and_keeps_its_rows(
    log: Log, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    log.close()
    monkeypatch.setattr(opening, "MIGRATIONS", (*MIGRATIONS, ("ALTER TABLE file ADD COLUMN weather TEXT",)))
    with pytest.raises(LogError, match="version"):
        store.open_for_reading(path)
    with store.open_for_writing(path) as upgraded:
        assert pragma(upgraded._db, "user_version") == len(MIGRATIONS) + 1
        assert upgraded._db.execute("SELECT path, weather FROM file").fetchall() == [("IMG_0001.JPG", None)]


def every_earlier_version() -> list[int]:
    return list(range(1, len(MIGRATIONS)))


@pytest.mark.parametrize("version", every_earlier_version())
def test_log_of_each_earlier_version_is_upgraded_with_every_row(path: Path, version: int) -> None:
    """The dumps were written by the code of their version."""
    dump = (DATA / f"version-{version}.sql").read_text("utf-8")
    with closing(sqlite3.connect(path)) as old:
        old.executescript(dump)
        assert pragma(old, "user_version") == version
        before = everything(old)
    store.open_for_writing(path).close()
    with closing(store.open_for_reading(path)) as upgraded:
        assert pragma(upgraded, "user_version") == len(MIGRATIONS)
        assert upgraded.execute("PRAGMA foreign_key_check").fetchall() == []
        assert upgraded.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        after = everything(upgraded)
    for table, rows in before.items():
        assert [{name: row[name] for name in old} for row, old in zip(after[table], rows, strict=True)] == rows


def everything(connection: sqlite3.Connection) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, by column."""
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
    found = {}
    for table in tables:
        cursor = connection.execute(f"SELECT * FROM {table} ORDER BY 1")
        names = [column[0] for column in cursor.description]
        found[table] = [dict(zip(names, row, strict=True)) for row in cursor]
    return found


def test_log_of_version_1_reads_as_it_did_and_takes_new_rows(path: Path) -> None:
    with closing(sqlite3.connect(path)) as old:
        old.executescript((DATA / "version-1.sql").read_text("utf-8"))
    with store.open_for_writing(path) as log:
        assert log.retries() == {7}
        log.add_bundle(BUNDLE)
        log.add_file(other(path="new.JPG"), photo=PHOTO, detection=DEER, failure=None)
    rows = {row.path: row for row in shown(path)}
    assert rows["IMG_0001.JPG"].label == "roe deer"
    assert rows["IMG_0002.JPG"].taken == rows["IMG_0002.JPG"].taken_original == "2026-05-01T06:00:01.250+01:00"
    assert (rows["IMG_0003.JPG"].failure_code, rows["IMG_0003.JPG"].tries) == ("truncated", 1)
    assert (rows["IMG_0004.JPG"].label, rows["IMG_0004.JPG"].preview) == ("fox", "none")
    assert rows["new.JPG"].label == "deer"
    assert len(rows) == 7  # the failure that a later read closed is not shown


# Files


def test_detection_is_one_file_one_photo_one_classification(log: Log, path: Path) -> None:
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    [row] = shown(path)
    assert (row.label, row.confidence, row.decision, row.top) == ("deer", 0.9, "species", DEER.top)
    assert (row.photo, row.taken, row.station) == ("/photos/IMG_0001.JPG", "2024-05-01T06:12:09+01:00", "beech")
    assert (row.bundle, row.runtime, row.development) == ("shades-1", "shades", True)
    assert (row.width, row.height, row.camera_make) == (4000, 3000, "Reconyx")
    assert (row.failure, row.duplicate_of, row.person_label, row.damaged) == (None, None, None, False)


def test_same_file_again_adds_nothing(log: Log, path: Path) -> None:
    first = log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    assert log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None) == first
    assert [count(path, table) for table in ("file", "photo", "classification")] == [1, 1, 1]


def test_failure_never_overwrites_a_good_row(log: Log, path: Path) -> None:
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    log.add_file(FILE, photo=None, detection=None, failure=TRUNCATED)
    assert [(row.label, row.failure) for row in shown(path)] == [("deer", None)]


def test_second_file_with_the_same_content_is_a_row_that_names_the_first(log: Log, path: Path) -> None:
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    log.add_file(other(path="copy/IMG_0001.JPG"), photo=PHOTO, detection=None, failure=None)
    log.add_file(other(path="again.JPG"), photo=PHOTO, detection=None, failure=None)
    assert [row.duplicate_of for row in shown(path)] == [None, "/photos/IMG_0001.JPG", "/photos/IMG_0001.JPG"]
    assert {row.label for row in shown(path)} == {"deer"}
    assert count(path, "classification") == 1


def copies(log: Log) -> list[int | None]:
    return [row[0] for row in log._db.execute("SELECT duplicate_of FROM file ORDER BY id")]


def test_first_file_that_is_tried_again_stays_the_first(log: Log) -> None:
    """Two files that were copies of each other would both be left out wherever copies are."""
    log.add_file(FILE, photo=PHOTO, detection=None, failure=BROKEN)
    log.add_file(other(path="copy.JPG"), photo=PHOTO, detection=None, failure=BROKEN)
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    assert copies(log) == [None, 1]
    assert query.count_states(log._db)["unreviewed"] == 1


def test_copy_that_cannot_be_read_any_more_stays_a_copy(log: Log) -> None:
    for name in ("IMG_0001.JPG", "copy.JPG"):
        log.add_file(other(path=name), photo=PHOTO, detection=None, failure=BROKEN)
    log.add_file(other(path="copy.JPG"), photo=None, detection=None, failure=Failure("denied", "no rights", retry=True))
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    assert copies(log) == [None, 1]


def test_file_that_is_read_at_last_is_a_copy_of_the_one_that_was_read_before(log: Log) -> None:
    log.add_file(FILE, photo=None, detection=None, failure=Failure("denied", "no rights", retry=True))
    log.add_file(other(path="copy.JPG"), photo=PHOTO, detection=DEER, failure=None)
    log.add_file(FILE, photo=PHOTO, detection=None, failure=None)
    log.add_file(other(path="late.JPG"), photo=PHOTO, detection=None, failure=None)
    assert copies(log) == [2, None, 2]


READS = st.tuples(st.sampled_from(["a", "b", "c", "d"]), st.sampled_from(["good", "broken", "denied"]))


@settings(max_examples=40, deadline=None)
@given(st.lists(READS, max_size=12))
def test_of_the_files_of_a_photo_always_one_is_no_copy(reads: list[tuple[str, str]]) -> None:
    """Whatever fails and is tried again in whatever order: a, b and c have one content, d has another."""
    with TemporaryDirectory() as folder, store.open_for_writing(Path(folder) / "log.db") as log:
        log.add_bundle(BUNDLE)
        for name, outcome in reads:
            photo = None if outcome == "denied" else replace(PHOTO, sha256=("cd" if name == "d" else "ab") * 32)
            failure = {"broken": BROKEN, "denied": Failure("denied", "no rights", retry=True)}.get(outcome)
            log.add_file(other(path=name), photo=photo, detection=None if failure else DEER, failure=failure)
        rows = log._db.execute("SELECT photo_id, id, duplicate_of FROM file WHERE photo_id IS NOT NULL").fetchall()
        for photo_id in {row[0] for row in rows}:
            of_it = {file_id: first for photo, file_id, first in rows if photo == photo_id}
            [one] = [file_id for file_id, first in of_it.items() if first is None]
            assert set(of_it.values()) <= {None, one}


def test_other_model_adds_its_answer_and_the_newest_is_shown(log: Log, path: Path) -> None:
    newer = replace(BUNDLE, digest="b2" * 32, name="shades-2", model_digest="a2" * 32)
    log.add_bundle(newer)
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    log.add_file(FILE, photo=PHOTO, detection=replace(DEER, bundle=newer, label="fox"), failure=None)
    assert [(row.label, row.bundle) for row in shown(path)] == [("fox", "shades-2")]
    with closing(store.open_for_reading(path)) as connection:
        both = query.rows(connection, query.Filter(all_models=True))
        assert [row.model_label for row in both] == ["deer", "fox"]


def test_unreadable_file_is_a_row_with_its_reason(log: Log, path: Path) -> None:
    log.add_file(FILE, photo=None, detection=None, failure=TRUNCATED)
    [row] = shown(path)
    assert (row.label, row.confidence, row.failure_code, row.failure) == (
        None, None, "truncated", "the photo is truncated",
    )  # fmt: skip
    assert row.sha256 == TRUNCATED.sha256
    assert row.taken == TAKEN.iso


def test_good_read_of_the_same_path_closes_the_failure_and_answers_for_it(log: Log, path: Path) -> None:
    failed = log.add_file(FILE, photo=None, detection=None, failure=TRUNCATED)
    whole = log.add_file(other(size_bytes=200), photo=PHOTO, detection=DEER, failure=None)
    assert [(row.id, row.failure) for row in shown(path)] == [(whole, None)]
    with closing(store.open_for_reading(path)) as connection:
        kept = connection.execute("SELECT failure_code, failure_closed_by FROM file WHERE id = ?", (failed,)).fetchone()
    assert kept == ("truncated", whole)


def test_good_read_of_another_path_closes_nothing(log: Log, path: Path) -> None:
    log.add_file(FILE, photo=None, detection=None, failure=TRUNCATED)
    log.add_file(other(path="IMG_0002.JPG"), photo=PHOTO, detection=DEER, failure=None)
    assert [row.failure_code for row in shown(path)] == ["truncated", None]


def test_failed_inference_is_no_detection_and_is_offered_for_another_try(log: Log, path: Path) -> None:
    failed = log.add_file(FILE, photo=PHOTO, detection=None, failure=BROKEN)
    [row] = shown(path)
    assert (row.label, row.decision, row.failure_code) == (None, None, "model")
    assert log.retries() == {failed}
    seen = log.seen(KEY)
    assert seen is not None
    assert (seen.file_id, seen.retry, seen.tries) == (failed, True, 1)


def test_later_inference_closes_the_failure_of_the_file_and_of_its_copies(log: Log, path: Path) -> None:
    for name in ("IMG_0001.JPG", "copy.JPG"):
        log.add_file(other(path=name), photo=PHOTO, detection=None, failure=BROKEN)
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    assert [(row.label, row.failure) for row in shown(path)] == [("deer", None), ("deer", None)]
    assert log.retries() == set()
    assert log.seen(KEY) == store.Seen(1, retry=False, tries=2)


def test_second_failure_of_the_same_file_replaces_the_reason(log: Log, path: Path) -> None:
    log.add_file(FILE, photo=None, detection=None, failure=Failure("denied", "may not be read", retry=True))
    log.add_file(FILE, photo=None, detection=None, failure=TRUNCATED)
    assert [(row.failure_code, row.sha256) for row in shown(path)] == [("truncated", TRUNCATED.sha256)]
    assert log.retries() == set()


def test_what_the_log_refuses_leaves_nothing_of_the_file(log: Log, path: Path) -> None:
    with pytest.raises(LogError, match="does not take this"):
        log.add_file(FILE, photo=PHOTO, detection=replace(DEER, confidence=1.5), failure=None)
    assert [count(path, table) for table in ("file", "photo", "classification")] == [0, 0, 0]
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)  # and the log goes on
    assert count(path, "file") == 1


def test_detection_of_an_unknown_bundle_is_refused(log: Log) -> None:
    unknown = replace(BUNDLE, digest="ff" * 32)
    with pytest.raises(LogError, match="FOREIGN KEY"):
        log.add_file(FILE, photo=PHOTO, detection=replace(DEER, bundle=unknown), failure=None)


def test_two_agents_on_one_log_add_each_file_once(log: Log, path: Path) -> None:
    names = [f"IMG_{i:04}.JPG" for i in range(100)]
    troubles: list[Exception] = []

    def agent() -> None:
        try:
            with store.open_for_writing(path) as mine:
                for name in names:
                    mine.add_file(other(path=name), photo=PHOTO, detection=DEER, failure=None)
                    mine.add_file(other(path=f"cut-{name}"), photo=None, detection=None, failure=TRUNCATED)
        except LogError as error:
            troubles.append(error)

    threads = [threading.Thread(target=agent) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []
    assert (count(path, "file"), count(path, "classification")) == (200, 1)


def test_folders_of_a_device_are_listed_once_each(log: Log) -> None:
    assert log.sources("device") == []
    for device, source in (("device", "/b"), ("device", "/a"), ("device", "/b"), ("other", "/c")):
        for name in ("1.JPG", "2.JPG"):
            log.add_file(other(device=device, source=source, path=name), photo=PHOTO, detection=DEER, failure=None)
    assert log.sources("device") == ["/a", "/b"]


# Several tries


NOT_WHOLE = Failure("truncated", "the photo is truncated", retry=True, model_digest="a1" * 32)


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def test_failing_file_is_due_after_a_minute_ten_minutes_an_hour_and_then_at_the_next_start(log: Log) -> None:
    for tries, after_s in enumerate(store.RETRY_AFTER_S, 1):
        file_id = log.add_file(FILE, photo=None, detection=None, failure=NOT_WHOLE)
        assert log.due(soon(after_s - 5)) == []
        assert log.due(soon(after_s + 5)) == [store.Due(file_id, KEY, tries)]
    log.add_file(FILE, photo=None, detection=None, failure=NOT_WHOLE)
    assert log.due(soon(1e9)) == []
    assert log.retries() == {file_id}


def test_failure_is_final_after_the_last_try_and_says_how_many(log: Log, path: Path) -> None:
    for _ in range(store.MOST_TRIES):
        assert log.retries("a1" * 32) or not count(path, "file")
        log.add_file(FILE, photo=None, detection=None, failure=NOT_WHOLE)
    assert log.retries("a1" * 32) == set()
    assert [(row.failure_code, row.tries) for row in shown(path)] == [("truncated", store.MOST_TRIES)]


def test_another_model_tries_a_final_failure_again_and_counts_anew(log: Log, path: Path) -> None:
    for _ in range(store.MOST_TRIES):
        file_id = log.add_file(FILE, photo=PHOTO, detection=None, failure=replace(BROKEN, model_digest="a1" * 32))
    assert log.retries("a2" * 32) == {file_id}
    log.add_file(FILE, photo=PHOTO, detection=None, failure=replace(BROKEN, model_digest="a2" * 32))
    assert [row.tries for row in shown(path)] == [1]
    assert log.due(soon(61)) == [store.Due(file_id, KEY, 1)]


def test_file_without_rights_is_tried_at_each_start_since_nothing_tells_when_they_change(log: Log) -> None:
    for _ in range(store.MOST_TRIES + 1):
        file_id = log.add_file(
            FILE, photo=None, detection=None, failure=Failure("denied", "no rights", True, model_digest="a1" * 32)
        )
    assert log.retries("a1" * 32) == {file_id}


def test_video_is_never_tried_again(log: Log) -> None:
    log.add_file(FILE, photo=None, detection=None, failure=Failure("video", "a video", model_digest="a1" * 32))
    assert log.retries("a2" * 32) == set()
    assert log.due(soon(1e9)) == []


def test_good_read_ends_the_tries(log: Log, path: Path) -> None:
    log.add_file(FILE, photo=None, detection=None, failure=NOT_WHOLE)
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    assert log.due(soon(1e9)) == []
    assert log.retries() == set()
    assert [(row.label, row.failure, row.tries) for row in shown(path)] == [("deer", None, 2)]


def test_photo_is_classified_once_by_each_model(log: Log) -> None:
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    assert log.classified(PHOTO.sha256)
    assert log.classified(PHOTO.sha256, BUNDLE.model_digest)
    assert not log.classified(PHOTO.sha256, "ff" * 32)
    assert not log.classified("ff" * 32)


# Batches


def test_batch_is_seen_by_others_only_when_it_ends(log: Log, path: Path) -> None:
    with log.batch():
        for i in range(3):
            log.add_file(other(path=f"{i}.JPG"), photo=PHOTO, detection=DEER, failure=None)
        assert count(path, "file") == 0
    assert count(path, "file") == 3


def test_batch_is_one_sync_and_not_one_per_photo(log: Log) -> None:
    begun: list[str] = []
    log._db.set_trace_callback(begun.append)
    with log.batch():
        for i in range(10):
            log.add_file(other(path=f"{i}.JPG"), photo=PHOTO, detection=DEER, failure=None)
    assert begun.count("COMMIT") == 1


def test_large_batch_is_committed_in_parts(log: Log, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST_IN_BATCH", 4)
    with log.batch():
        for i in range(6):
            log.add_file(other(path=f"{i}.JPG"), photo=PHOTO, detection=DEER, failure=None)
        assert count(path, "file") == 4
    assert count(path, "file") == 6


def test_slow_batch_is_committed_in_parts(log: Log, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST_BATCH_S", 0.0)
    with log.batch():
        log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
        assert count(path, "file") == 1


def test_file_that_the_log_refuses_takes_no_other_of_its_batch_with_it(log: Log, path: Path) -> None:
    with log.batch():
        log.add_file(other(path="1.JPG"), photo=PHOTO, detection=DEER, failure=None)
        with pytest.raises(LogError, match="does not take this"):
            log.add_file(
                other(path="2.JPG"), photo=replace(PHOTO, sha256="99" * 32),
                detection=replace(DEER, confidence=7), failure=None,
            )  # fmt: skip
        log.add_file(other(path="3.JPG"), photo=PHOTO, detection=DEER, failure=None)
    assert [row.path for row in shown(path)] == ["1.JPG", "3.JPG"]
    assert count(path, "photo") == 1


def test_error_in_a_batch_undoes_it(log: Log, path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), log.batch():  # noqa: PT012
        log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
        raise KeyboardInterrupt
    assert count(path, "file") == 0
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    assert count(path, "file") == 1


def test_batch_that_sqlite_gave_up_never_ends_as_if_it_were_durable(log: Log, path: Path) -> None:
    """A full disk ends the whole transaction, also the files before."""
    log._db.execute("PRAGMA max_page_count = 40")
    bulky = replace(DEER, logits=b"x" * 60_000)
    with pytest.raises(LogError) as refused, log.batch():  # noqa: PT012
        for i in range(20):
            with suppress(LogError):  # a caller that goes on all the same
                log.add_file(
                    other(path=f"{i}.JPG"), photo=replace(PHOTO, sha256=f"{i:064x}"), detection=bulky, failure=None
                )
    assert refused.value.code == "batch"
    assert count(path, "file") == 0


def test_batch_in_a_batch_is_refused(log: Log) -> None:
    with log.batch(), pytest.raises(LogError, match="inside another"), log.batch():
        pass


# Runs of the agent


def runs(path: Path) -> list[tuple[Any, ...]]:
    with closing(store.open_for_reading(path)) as connection:
        return connection.execute(
            "SELECT device, clock_ok, once, ended_utc IS NOT NULL, alive_utc >= started_utc FROM agent_run ORDER BY id"
        ).fetchall()


def test_run_begins_lives_and_ends(log: Log, path: Path) -> None:
    log.heartbeat(clock_ok=True)  # before a run: nothing
    log.add_run("d", version="1", model_digest="a1" * 32, boot_id="b", clock_ok=True)
    log.heartbeat(clock_ok=True)
    assert runs(path) == [("d", 1, 0, 0, 1)]
    log.end_run()
    log.end_run()
    assert runs(path) == [("d", 1, 0, 1, 1)]


def test_another_run_begins_once_the_device_knows_the_time(log: Log, path: Path) -> None:
    log.add_run("d", version="1", model_digest=None, boot_id=None, clock_ok=False, once=True)
    log.heartbeat(clock_ok=True)
    assert runs(path) == [("d", 0, 1, 0, 1), ("d", 1, 1, 0, 1)]


# Messages


HELLO = store.Alert("deer:beech:1", "mqtt", "a deer at beech")


def test_alert_is_stored_with_its_photo_and_sent_once(log: Log) -> None:
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None, alerts=[HELLO])
    log.add_file(other(path="b.JPG"), photo=PHOTO, detection=None, failure=None, alerts=[HELLO])
    [pending] = log.pending_alerts(soon(1))
    assert (pending.key, pending.channel, pending.text, pending.tries) == (HELLO.key, "mqtt", HELLO.text, 0)
    log.alert_sent(pending.id)
    assert log.pending_alerts(soon(1e9)) == []
    log.add_file(other(path="c.JPG"), photo=PHOTO, detection=None, failure=None, alerts=[HELLO])
    assert log.pending_alerts(soon(1e9)) == []


def test_alert_that_failed_waits_for_its_next_try(log: Log) -> None:
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None, alerts=[HELLO])
    [pending] = log.pending_alerts(soon(1))
    log.alert_failed(pending.id, "no network", soon(600))
    assert log.pending_alerts(soon(500)) == []
    assert [again.tries for again in log.pending_alerts(soon(700))] == [1]


def test_waiting_alerts_of_a_broken_channel_hide_no_others(log: Log) -> None:
    many = [store.Alert(f"fox:oak:{i}", "radio", "a fox") for i in range(20)]
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None, alerts=[*many, HELLO])
    assert {each.channel for each in log.pending_alerts(soon(1), 10)} == {"radio"}
    assert [each.key for each in log.pending_alerts(soon(1), 10, but=["radio"])] == [HELLO.key]
    assert log.pending_alerts(soon(1), but={"radio", "mqtt", "nobody's"}) == []
    assert len(log.pending_alerts(soon(1))) == 21


def test_alert_of_a_row_that_is_refused_is_not_sent(log: Log) -> None:
    with pytest.raises(LogError):
        log.add_file(FILE, photo=PHOTO, detection=replace(DEER, confidence=2), failure=None, alerts=[HELLO])
    assert log.pending_alerts(soon(1e9)) == []


# Deletions


def test_deletion_is_planned_before_it_is_done(log: Log, path: Path) -> None:
    file_id = log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    planned = log.plan_deletion(file_id, policy="empty-90d", why="empty 0.99", copied_to="/mnt/stick")
    assert log.plan_deletion(file_id, policy="empty-90d", why="again") == planned
    assert log.planned_deletions() == [store.PlannedDeletion(planned, file_id, KEY, "empty-90d", "/mnt/stick")]
    log.deletion_done(planned)
    assert log.planned_deletions() == []
    assert count(path, "deletion") == 1


def test_dropped_deletion_stays_as_a_row_and_can_be_planned_again(log: Log, path: Path) -> None:
    file_id = log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    first = log.plan_deletion(file_id, policy="p", why="old")
    log.deletion_dropped(first, "it has changed")
    log.deletion_done(first)  # too late
    second = log.plan_deletion(file_id, policy="p", why="old")
    assert second != first
    with closing(store.open_for_reading(path)) as connection:
        found = connection.execute("SELECT done_utc, dropped_why FROM deletion ORDER BY id").fetchall()
    assert found == [(None, "it has changed"), (None, None)]


def test_deletion_of_no_row_is_refused(log: Log) -> None:
    with pytest.raises(LogError, match="FOREIGN KEY"):
        log.plan_deletion(99, policy="p", why="old")


# Previews and the wal


def test_preview_is_noted_with_the_photo_or_later(log: Log, path: Path) -> None:
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    log.add_file(FILE, photo=replace(PHOTO, preview="kept"), detection=None, failure=None)
    assert [row.preview for row in shown(path)] == ["kept"]
    log.set_preview(PHOTO.sha256, "released")
    log.add_file(other(path="copy.JPG"), photo=PHOTO, detection=None, failure=None)
    assert {row.preview for row in shown(path)} == {"released"}
    with pytest.raises(LogError):
        log.set_preview(PHOTO.sha256, "eaten")


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        pytest.param("kept", "blurred", "blurred", id="the other model sees a person"),
        pytest.param("kept", "withheld", "withheld", id="a person, of whom none is to be made"),
        pytest.param("blurred", "kept", "kept", id="the other model sees nobody"),
        pytest.param("released", "kept", "kept", id="it was released, and is made anew"),
        pytest.param("kept", "none", "kept", id="none was made this time, and the first is still there"),
    ],
)
def test_preview_is_what_was_made_for_the_newest_model(
    log: Log, path: Path, before: str, now: str, expected: str
) -> None:
    log.add_file(FILE, photo=replace(PHOTO, preview=before), detection=DEER, failure=None)
    log.add_bundle(replace(BUNDLE, digest="b2" * 32, model_digest="a2" * 32))
    newer = replace(DEER, bundle=replace(BUNDLE, digest="b2" * 32, model_digest="a2" * 32), label="fox")
    log.add_file(FILE, photo=replace(PHOTO, preview=now), detection=newer, failure=None)
    assert [(row.label, row.preview) for row in shown(path)] == [("fox", expected)]


def test_damage_that_is_found_at_a_later_try_is_kept(log: Log, path: Path) -> None:
    """Damage is looked for after the model has answered; at the first try it failed."""
    log.add_file(FILE, photo=PHOTO, detection=None, failure=BROKEN)
    log.add_file(FILE, photo=replace(PHOTO, damaged=True), detection=DEER, failure=None)
    log.add_file(other(path="copy.JPG"), photo=PHOTO, detection=None, failure=None)
    assert [row.damaged for row in shown(path)] == [True, True]


def test_checkpoint_empties_the_wal_and_loses_nothing(log: Log, path: Path) -> None:
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    assert log.checkpoint_if_idle()
    assert os.path.getsize(f"{path}-wal") == 0
    assert [row.label for row in shown(path)] == ["deer"]
    assert pragma(log._db, "busy_timeout") == store.BUSY_TIMEOUT_MS


def test_checkpoint_waits_for_no_reader_and_no_writer(log: Log, path: Path) -> None:
    with closing(store.open_for_reading(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM file").fetchall()
        log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
        start_s = time.monotonic()
        assert not log.checkpoint_if_idle()
        assert time.monotonic() - start_s < store.BUSY_TIMEOUT_MS / 2000
        reader.execute("COMMIT")
    assert log.checkpoint_if_idle()


def test_checkpoint_in_a_batch_does_nothing(log: Log) -> None:
    with log.batch():
        log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
        assert not log.checkpoint_if_idle()


# Reviews


def test_newest_review_counts_and_the_model_stays_beside_it(log: Log, path: Path) -> None:
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    log.add_review(PHOTO.sha256, [Observation("fox")], "Ada")
    log.add_review(PHOTO.sha256, [Observation("roe deer", count=2, sex="female"), Observation("fox")], "Grace")
    [row] = shown(path)
    assert (row.label, row.confidence, row.reviewed_by) == ("roe deer", 1.0, "Grace")
    assert (row.model_label, row.model_confidence) == ("deer", 0.9)
    with closing(store.open_for_reading(path)) as connection:
        history = query.reviews(connection, row.photo_id)
    assert [[seen["label"] for seen in each["observations"]] for each in history] == [["fox"], ["roe deer", "fox"]]
    assert (history[1]["observations"][0]["count"], history[1]["observations"][0]["sex"]) == (2, "female")


def test_same_words_are_the_same_label_however_they_were_typed(log: Log, path: Path) -> None:
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    log.add_review(PHOTO.sha256, [Observation("  Mufflon \u0061\u0308lter ")], "Ada")
    assert shown(path)[0].person_label == "Mufflon \u00e4lter"


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        pytest.param("Person", "person", id="a word with a fixed spelling"),
        pytest.param(" EMPTY", "empty", id="a word that no model of this log says"),
        pytest.param("Fox", "fox", id="a label of a model"),
        pytest.param("Roe deer", "Roe deer", id="a label that nobody knows"),
    ],
)
def test_label_has_one_spelling_in_whatever_case_it_was_typed(log: Log, path: Path, typed: str, kept: str) -> None:
    """Else the photo of a ``Person`` would be an animal to events, exports and whoever counts."""
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    log.add_review(PHOTO.sha256, [Observation(typed)], "Ada")
    assert (log.spelling(typed), shown(path)[0].person_label) == (kept, kept)


@pytest.mark.parametrize(
    "observations",
    [
        pytest.param([], id="no observation"),
        pytest.param([Observation("")], id="no label"),
        pytest.param([Observation(" \t ")], id="a label of spaces"),
        pytest.param([Observation("deer\x1b[2J")], id="a label that controls the terminal"),
        pytest.param([Observation("x" * 101)], id="a label that is too long"),
        pytest.param([Observation("deer", count=0)], id="a count of nothing"),
        pytest.param([Observation("deer", count=10**20)], id="a count that no file can hold"),
        pytest.param([Observation("deer", comment="\udcff")], id="a comment that is no text"),
        pytest.param([Observation("deer", comment="a\x1b[2J")], id="a comment that controls the terminal"),
        pytest.param([Observation("deer", comment="x" * 1001)], id="a comment that is too long"),
        pytest.param([Observation("deer", comment=" ")], id="a comment of nothing"),
        pytest.param([Observation("deer"), Observation("fox", count=-1)], id="a second observation that is wrong"),
    ],
)
def test_review_that_makes_no_sense_leaves_nothing(log: Log, path: Path, observations: list[Observation]) -> None:
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    with pytest.raises(LogError):
        log.add_review(PHOTO.sha256, observations, "Ada")
    assert (count(path, "review"), count(path, "observation")) == (0, 0)


def test_review_of_an_unknown_photo_is_refused(log: Log) -> None:
    with pytest.raises(LogError, match="no photo 999999999999"):
        log.add_review("9" * 64, [Observation("deer")], "Ada")


def test_review_of_a_whole_event_has_its_place(log: Log) -> None:
    log._db.execute("INSERT INTO review (event, who, created_utc) VALUES ('e', 'Ada', '2024-05-01T00:00:00Z')")
    with pytest.raises(sqlite3.IntegrityError):  # on neither
        log._db.execute("INSERT INTO review (who, created_utc) VALUES ('Ada', '2024-05-01T00:00:00Z')")


def test_log_of_another_user_says_how_to_read_it(path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything
    with pytest.raises(LogError, match="sudo -u fieldmark"):
        store.open_for_reading(path)


def test_log_in_a_folder_that_may_not_be_entered_says_how_to_read_it(
    path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_file", denied)  # root may enter everything
    with pytest.raises(LogError, match="sudo -u fieldmark") as refused:
        store.open_for_reading(path)
    assert refused.value.code == "denied"
