from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edge.log import store, unclassified
from edge.log.store import Detection, Failure, FileFacts, FileKey, PhotoFacts
from edge.photo import Taken
from tests.fakes.camera import BUNDLE

MODEL = BUNDLE.model_digest
DEER = Detection(BUNDLE, "shades", "deer", 0.9, "species", (("deer", 0.9),), b"", False)
TIMES = ("2024-05-01T06:00:00", "2000-01-01T00:00:00", "2024-05-03T06:00:00.250")


def add(log: store.Log, number: int, local: str, *, device: str = "dev", answered: bool = False) -> None:
    facts = FileFacts(FileKey(device, "/photos", f"{number}.jpg", 10, number), Taken(local, "+01:00", "exif", ()))
    failure = None if answered else Failure("model", "broken")
    photo = PhotoFacts(f"{number:064x}", 40, 30)
    log.add_file(facts, photo=photo, detection=DEER if answered else None, failure=failure)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """300 photos at three times, of which every third is answered; one of another device; one that does not decode."""
    found = tmp_path / "log.db"
    with store.open_for_writing(found) as log:
        log.add_bundle(BUNDLE)
        with log.batch():
            for i in range(300):
                add(log, i, TIMES[i // 7 % 3], answered=i % 3 == 0)
            add(log, 900, TIMES[0], device="other")
            cut = FileFacts(FileKey("dev", "/photos", "cut.jpg", 10, 1), Taken(TIMES[0], "+01:00", "exif", ()))
            log.add_file(cut, photo=None, detection=None, failure=Failure("truncated", "cut"))
    return found


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(store.open_for_reading(path)) as opened:
        yield opened


def numbers(connection: sqlite3.Connection, model: str = MODEL) -> list[int]:
    return [key.mtime_ns for key in unclassified.unclassified(connection, "dev", model)]


@pytest.mark.parametrize("page", [1, 2, 7, 200, 1000])
def test_every_photo_without_an_answer_comes_once_the_newest_first(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(unclassified, "_PAGE", page)
    wanted = [i for i in range(300) if i % 3]
    assert numbers(connection) == sorted(wanted, key=lambda i: (TIMES[i // 7 % 3], i), reverse=True)
    assert sorted(numbers(connection, "another")) == list(range(300))


def test_answers_and_files_that_are_written_meanwhile_disturb_nothing(
    path: Path, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent answers each photo while the next are read, and new ones come in, also old ones of a late card."""
    monkeypatch.setattr(unclassified, "_PAGE", 10)
    expected = numbers(connection)
    found = []
    with store.open_for_writing(path) as log:
        for key in unclassified.unclassified(connection, "dev", MODEL):
            found.append(key.mtime_ns)
            if len(found) % 20 == 0:
                photo = PhotoFacts(f"{key.mtime_ns:064x}", 40, 30)
                facts = FileFacts(key, Taken(TIMES[0], "+01:00", "exif", ()))
                log.add_file(facts, photo=photo, detection=DEER, failure=None)
                add(log, 1000 + len(found), TIMES[1 + len(found) // 20 % 2])
    assert [number for number in found if number < 1000] == expected
    assert len(found) == len(set(found))


def test_all_pages_together_are_one_walk_and_no_sort(connection: sqlite3.Connection) -> None:
    for statement in (unclassified._SAME_TIME, unclassified._EARLIER):
        values = {"device": "dev", "model": MODEL, "day": 1.0, "id": 1, "most": 10}
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
        assert plan[0].startswith("SEARCH f USING INDEX file_by_time")
        assert not any("TEMP B-TREE" in step or step.startswith("SCAN") for step in plan)


@pytest.mark.parametrize("page", [10, 100])
def test_a_walk_costs_the_same_whatever_the_page(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    """In pages of 10 it was once sorted 30 times."""
    costs = []
    for each in (page, 1000):
        monkeypatch.setattr(unclassified, "_PAGE", each)
        count = [0]

        def counted(count: list[int] = count) -> None:
            count[0] += 1

        connection.set_progress_handler(counted, 10)
        assert len(numbers(connection)) == 200
        connection.set_progress_handler(None, 0)
        costs += count
    assert costs[0] < 2 * costs[1]
