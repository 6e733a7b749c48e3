from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.errors import LogError
from edge.log import query, store
from edge.log.schema import APPLICATION_ID, MIGRATIONS
from edge.log.store import Detection, Failure, FileFacts, FileKey, Log, Observation, PhotoFacts
from edge.photo import Taken
from tests.fakes.camera import BUNDLE

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
        store._set(memory, path, "journal_mode", "wal")


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
    monkeypatch.setattr(store, "MIGRATIONS", broken)
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
    monkeypatch.setattr(store, "MIGRATIONS", (*MIGRATIONS, ("ALTER TABLE file ADD COLUMN weather TEXT",)))
    with pytest.raises(LogError, match="version"):
        store.open_for_reading(path)
    with store.open_for_writing(path) as upgraded:
        assert pragma(upgraded._db, "user_version") == len(MIGRATIONS) + 1
        assert upgraded._db.execute("SELECT path, weather FROM file").fetchall() == [("IMG_0001.JPG", None)]


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
    assert log.seen(KEY) == store.Seen(failed, retry=True)


def test_later_inference_closes_the_failure_of_the_file_and_of_its_copies(log: Log, path: Path) -> None:
    for name in ("IMG_0001.JPG", "copy.JPG"):
        log.add_file(other(path=name), photo=PHOTO, detection=None, failure=BROKEN)
    log.add_file(FILE, photo=PHOTO, detection=DEER, failure=None)
    assert [(row.label, row.failure) for row in shown(path)] == [("deer", None), ("deer", None)]
    assert log.retries() == set()
    assert log.seen(KEY) == store.Seen(1, retry=False)


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
