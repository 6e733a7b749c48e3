"""A damaged log is set aside whole, what is no log of ours is left alone, and the agent goes on either way."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edge.errors import LogError
from edge.log import damage, query, store
from edge.log.store import Detection, FileFacts, FileKey, PhotoFacts
from edge.photo import Taken
from tests.fakes.camera import BUNDLE

ROWS = 60


def facts(number: int) -> FileFacts:
    key = FileKey("device", "/photos", f"IMG_{number:04}.JPG", 100, number)
    return FileFacts(key, Taken("2024-05-01T06:12:09", "+01:00", "exif", ()))


def fill(path: Path, count: int = ROWS) -> None:
    with store.open_for_writing(path) as log:
        log.add_bundle(BUNDLE)
        add(log, count)


def add(log: store.Log, count: int) -> None:
    said = Detection(BUNDLE, "shades", "deer", 0.9, "species", (("deer", 0.9),), bytes(2000), False)
    with log.batch():
        for i in range(count):
            log.add_file(facts(i), photo=PhotoFacts(f"{i:064x}", 40, 30), detection=said, failure=None)


def count(path: Path) -> int:
    with closing(store.open_for_reading(path)) as connection:
        return len(list(query.rows(connection)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "log.db"
    fill(found)
    return found


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def page_of_rows(path: Path) -> None:
    """A page of the table is rubbish."""
    with closing(sqlite3.connect(path)) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'classification'").fetchone()[0]
    overwrite(path, (root - 1) * 4096, b"\xa5" * 4096)


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


def zeroed_start(path: Path) -> None:
    overwrite(path, 0, bytes(4096))


def zeros_only(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def header_text(path: Path) -> None:
    overwrite(path, 0, b"FQLite")


def other_application(path: Path) -> None:
    overwrite(path, 68, b"\x00\x00\x00\x01")


DAMAGES = [
    pytest.param(page_of_rows, id="a page of rubbish"),
    pytest.param(cut_short, id="cut short"),
    pytest.param(zeroed_start, id="the first page zeroed"),
    pytest.param(zeros_only, id="nothing but zeros"),
    pytest.param(header_text, id="a flipped bit in the header"),
    pytest.param(other_application, id="another application id over our tables"),
]


@pytest.mark.parametrize("harm", DAMAGES)
def test_damaged_log_is_set_aside_and_a_new_one_takes_rows(path: Path, harm: Callable[[Path], None]) -> None:
    harm(path)
    evidence = path.read_bytes()
    said: list[str] = []
    with damage.open_or_set_aside(path, said.append) as log:
        log.add_bundle(BUNDLE)
        add(log, 3)
    assert count(path) == 3
    [aside] = path.parent.glob("log.db.damaged-*Z")
    assert aside.read_bytes() == evidence
    [line] = said
    assert line.startswith("the log was damaged (")
    assert str(aside) in line


def test_whole_log_is_opened_with_its_rows_and_nothing_is_said(path: Path) -> None:
    said: list[str] = []
    damage.open_or_set_aside(path, said.append).close()
    assert (count(path), said) == (ROWS, [])
    assert list(path.parent.glob("*damaged*")) == []


def test_there_is_no_log_yet(tmp_path: Path) -> None:
    damage.open_or_set_aside(tmp_path / "new" / "log.db", print).close()
    assert count(tmp_path / "new" / "log.db") == 0


def test_wal_goes_with_its_damaged_log(tmp_path: Path) -> None:
    """As after a power cut: the last rows are in the -wal file only."""
    living, path = tmp_path / "living.db", tmp_path / "log.db"
    fill(living)
    with store.open_for_writing(living) as log:
        log.add_file(facts(1000), photo=PhotoFacts("f" * 64, 40, 30), detection=None, failure=None)
        for end in ("", "-wal"):
            Path(f"{path}{end}").write_bytes(Path(f"{living}{end}").read_bytes())
    page_of_rows_without_opening(path)
    evidence = [Path(f"{path}{end}").read_bytes() for end in ("", "-wal")]
    damage.open_or_set_aside(path, print).close()
    [aside] = path.parent.glob("log.db.damaged-*Z")
    assert [Path(f"{aside}{end}").read_bytes() for end in ("", "-wal")] == evidence
    assert count(path) == 0


def page_of_rows_without_opening(path: Path) -> None:
    """The last quarter is rubbish; SQLite never touches the copy, so its -wal file stays as it is."""
    size = path.stat().st_size
    overwrite(path, size // 4 * 3 // 4096 * 4096, b"\xa5" * (size // 4))


def test_second_damaged_log_of_one_second_has_its_own_name(path: Path) -> None:
    first = damage.set_aside(path)
    fill(path, 1)
    second = damage.set_aside(path)
    assert first != second
    assert first.is_file()
    assert second.is_file()


def birds(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE birds (name)")


def spreadsheet(path: Path) -> None:
    path.write_bytes(b"species,count\n" * 1000)


def newer(path: Path) -> None:
    fill(path, 1)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(birds, id="a database of another program"),
        pytest.param(spreadsheet, id="no database"),
        pytest.param(newer, id="a log of a newer Fieldmark"),
    ],
)
def test_what_is_no_log_of_ours_is_refused_and_stays_where_it_is(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "season.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(LogError):
        damage.open_or_set_aside(path, print)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["season.db"]


def test_rubbish_where_the_device_keeps_its_log_does_not_end_the_season(tmp_path: Path) -> None:
    path = store.path_below(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(os.urandom(50_000))
    damage.open_or_set_aside(path, print).close()
    assert count(path) == 0
    assert len(list(path.parent.glob("log.db.damaged-*"))) == 1


def test_check_that_takes_too_long_is_given_up_and_said(path: Path) -> None:
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(damage, "_STEPS", 1)
        damage.open_or_set_aside(path, said.append, most_s=0.0).close()
    assert count(path) == ROWS
    [line] = said
    assert "the rest was not looked at" in line


def refused(path: Path, times: int, patch: pytest.MonkeyPatch) -> None:
    """The first reads fail, as SQLite says it of a card with a bad contact."""
    connect, left = store.connect_read_only, [times]

    def failing(path: Path) -> sqlite3.Connection:
        if left[0]:
            left[0] -= 1
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR | (1 << 8)  # SQLITE_IOERR_READ
            raise error
        return connect(path)

    patch.setattr(store, "connect_read_only", failing)


def test_read_that_fails_twice_sets_no_whole_log_aside(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(path, 2, monkeypatch)
    said: list[str] = []
    damage.open_or_set_aside(path, said.append).close()
    assert (count(path), said) == (ROWS, [])
    assert list(path.parent.glob("*damaged*")) == []


def test_damage_behind_a_read_that_fails_is_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page_of_rows(path)
    refused(path, 1, monkeypatch)
    damage.open_or_set_aside(path, print).close()
    assert count(path) == 0
    assert len(list(path.parent.glob("log.db.damaged-*Z"))) == 1


def test_damage_that_only_one_look_finds_is_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own check reports a read that failed as a broken page."""
    found = iter(["Page 9: unable to get the page. error code=266"])
    monkeypatch.setattr(damage, "_quick_check", lambda *_: next(found, None))
    damage.open_or_set_aside(path, print).close()
    assert count(path) == ROWS
    assert list(path.parent.glob("*damaged*")) == []


def test_log_that_cannot_be_read_stays_and_the_agent_ends_with_a_cure(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(path, 99, monkeypatch)
    with pytest.raises(LogError, match=r"cannot be read: disk I/O error\. Start again; .* copy the log") as caught:
        damage.open_or_set_aside(path, print)
    assert caught.value.code == "unreadable"
    monkeypatch.undo()
    assert count(path) == ROWS
    assert list(path.parent.glob("*damaged*")) == []


def test_log_of_a_run_that_ended_as_it_should_is_looked_at_more_briefly(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed_s: list[float] = []

    def check(connection: object, path: Path, say: object, most_s: float) -> None:
        allowed_s.append(most_s)

    monkeypatch.setattr(damage, "_quick_check", check)
    damage.look_for_damage(path, print)
    with store.open_for_writing(path) as log:
        log.add_run("d", version="1", model_digest=None, boot_id=None, clock_ok=True)
        damage.look_for_damage(path, print)
        log.end_run()
    damage.look_for_damage(path, print)
    assert allowed_s == [damage.CHECK_MOST_S, damage.CHECK_MOST_S, damage.CHECK_AFTER_ORDER_S]
