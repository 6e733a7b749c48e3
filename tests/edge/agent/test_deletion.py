from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge import pathtext
from edge.agent.config_upkeep import Delete
from edge.agent.days import Days
from edge.agent.deletion import Deleter, Deletions, count
from edge.log import store
from edge.log.store import Detection, FileFacts, FileKey, Observation, PhotoFacts
from edge.photo import Taken
from tests.fakes.camera import BUNDLE, put

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=31)
POLICY = Delete("old empties", "empty", 30, above=0.9)


@dataclass
class Place:
    """A source with logged photos, whose rows are old at :data:`LATER`."""

    folder: Path
    policies: list[Delete] = field(default_factory=lambda: [POLICY])
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source = self.folder / "photos"
        self.source.mkdir()
        self.log = store.open_for_writing(self.folder / "log.db")
        self.log.add_bundle(BUNDLE)

    def add(self, name: str, *, label: str = "empty", confidence: float = 0.95, damaged: bool = False) -> Path:
        path = put(self.source / name, f"content of {name}".encode())
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        detection = Detection(BUNDLE, "shades", label, confidence, "species", ((label, confidence),), b"", True)
        file = FileFacts(self.key(path), Taken("2024-05-01T06:12:09", "+00:00", "exif", ()))
        photo = PhotoFacts(sha256, 4, 4, damaged=damaged)
        self.log.add_file(file, photo=photo, detection=detection, failure=None)
        return path

    def key(self, path: Path) -> FileKey:
        facts = path.stat()
        below = pathtext.to_text(str(path.relative_to(self.source)))
        return FileKey("device", pathtext.to_text(self.source), below, facts.st_size, facts.st_mtime_ns)

    def note_day(self, when: datetime = NOW) -> None:
        with closing(store.open_for_reading(self.log.path)) as connection:
            Days(self.folder / "days.json").note(connection, when)

    def deleter(self) -> Deleter:
        days = Days(self.folder / "days.json")
        return Deleter(self.log, "device", self.policies, [self.source], days, say=self.said.append)

    def round(self, now: datetime = LATER, *, clock_ok: bool = True) -> Deletions:
        return self.deleter().round(now, clock_ok=clock_ok)

    def deletions(self) -> list[tuple[str, bool, str | None]]:
        with closing(store.open_for_reading(self.log.path)) as connection:
            return connection.execute(
                "SELECT policy, done_utc IS NOT NULL, dropped_why FROM deletion ORDER BY id"
            ).fetchall()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path)
    yield found
    found.log.close()


def test_old_empty_photo_goes_and_leaves_a_row(place: Place) -> None:
    gone, fox = place.add("DCIM/a.jpg"), place.add("DCIM/b.jpg", label="fox")
    place.note_day()
    assert place.round().deleted == 1
    assert (gone.exists(), fox.exists()) == (False, True)
    assert place.deletions() == [("old empties", True, None)]
    assert "DCIM/a.jpg deleted by policy 'old empties'" in place.said[0]


def test_without_a_policy_nothing_goes(place: Place) -> None:
    path = place.add("a.jpg")
    place.policies = []
    place.note_day()
    assert place.round() == Deletions()
    assert path.exists()


def test_second_round_finds_nothing(place: Place) -> None:
    place.add("a.jpg")
    place.note_day()
    assert [place.round().deleted, place.round().deleted] == [1, 0]
    assert len(place.deletions()) == 1


# How old


def test_photo_that_is_not_old_enough_stays(place: Place) -> None:
    path = place.add("a.jpg")
    place.note_day()
    assert place.round(NOW + timedelta(days=29)).deleted == 0
    assert path.exists()


def test_photo_logged_after_the_day_that_was_noted_stays(place: Place) -> None:
    place.add("a.jpg")
    place.note_day()
    path = place.add("b.jpg")
    assert place.round().deleted == 1
    assert path.exists()


def test_row_whose_time_is_of_1970_is_not_old_for_that(place: Place) -> None:
    """A Pi without a clock wrote it; only the days on which the clock was right count."""
    path = place.add("a.jpg")
    place.log._db.execute("UPDATE file SET seen_utc = '1970-01-01T00:00:10.000+00:00'")
    assert place.round().deleted == 0
    assert path.exists()


def test_while_the_clock_is_wrong_nothing_is_old(place: Place) -> None:
    path = place.add("a.jpg")
    place.note_day()
    assert place.round(clock_ok=False).deleted == 0
    assert path.exists()


def test_notes_of_a_log_that_was_begun_anew_say_nothing(place: Place) -> None:
    place.add("a.jpg")
    place.note_day()
    place.log.close()
    shutil.move(place.folder / "log.db", place.folder / "log.db.damaged")
    for end in ("-wal", "-shm"):
        (place.folder / f"log.db{end}").unlink(missing_ok=True)
    place.log = store.open_for_writing(place.folder / "log.db")
    place.log.add_bundle(BUNDLE)
    path = place.add("a.jpg")
    assert place.round().deleted == 0
    assert path.exists()


def test_notes_of_another_log_say_nothing_on_a_full_disk_either(place: Place) -> None:
    """Where nothing may be written but the log, no day is noted; then the old notes spoke for the new log's rows."""
    for i in range(3):
        place.add(f"{i}.jpg")
    place.note_day()
    place.log.close()
    (place.folder / "log.db").unlink()  # as if it had been set aside
    place.log = store.open_for_writing(place.folder / "log.db")
    place.log.add_bundle(BUNDLE)
    young = place.add("young.jpg")
    assert place.deleter().round(LATER, clock_ok=True, note=False) == Deletions()
    assert young.exists()


def test_day_noted_by_a_clock_of_2040_is_forgotten(place: Place) -> None:
    path = place.add("a.jpg")
    place.note_day(datetime(2040, 1, 1, tzinfo=UTC))
    place.note_day()
    assert place.round(NOW + timedelta(days=1)).deleted == 0
    assert place.round().deleted == 1
    assert not path.exists()


def test_damaged_notes_only_make_everything_younger(place: Place) -> None:
    path = place.add("a.jpg")
    (place.folder / "days.json").write_text('[["yesterday", 1, "x"]]')
    assert place.round().deleted == 0
    assert path.exists()


# Which


def test_unsure_answer_stays(place: Place) -> None:
    path = place.add("a.jpg", confidence=0.85)
    place.note_day()
    assert place.round().deleted == 0
    assert path.exists()


def test_damaged_photo_stays(place: Place) -> None:
    path = place.add("a.jpg", damaged=True)
    place.note_day()
    assert place.round().deleted == 0
    assert path.exists()


def review(place: Place, path: Path, *labels: str) -> None:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    place.log.add_review(sha256, [Observation(label) for label in labels], "Ada")


def test_person_who_saw_a_fox_keeps_the_photo(place: Place) -> None:
    path = place.add("a.jpg")
    review(place, path, "fox")
    place.note_day()
    assert place.round().deleted == 0


def test_person_who_saw_a_second_animal_keeps_the_photo(place: Place) -> None:
    path = place.add("a.jpg", label="deer")
    review(place, path, "deer", "fox")
    place.policies = [replace(POLICY, label="deer")]
    place.note_day()
    assert place.round().deleted == 0


def test_reviewed_policy_takes_only_what_a_person_has_seen(place: Place) -> None:
    seen, unseen = place.add("a.jpg", label="unknown", confidence=0.3), place.add("b.jpg")
    review(place, seen, "empty")
    place.policies = [replace(POLICY, above=None, reviewed=True)]
    place.note_day()
    assert place.round().deleted == 1
    assert (seen.exists(), unseen.exists()) == (False, True)


def test_person_who_names_a_fox_while_the_photo_is_read_keeps_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place.add("a.jpg")
    place.note_day()
    pread = os.pread

    def read_and_review(descriptor: int, length: int, at: int) -> bytes:
        if at == 0:
            review(place, path, "fox")
        return pread(descriptor, length, at)

    monkeypatch.setattr(os, "pread", read_and_review)
    [kept] = place.round().kept
    assert "says something else of it" in kept
    assert path.exists()
    assert place.deletions() == []


# Where a copy is asked for


def copied(place: Place) -> Path:
    copies = place.folder / "copies"
    copies.mkdir(exist_ok=True)
    place.policies = [replace(POLICY, copied_to=copies)]
    return copies


def test_photo_with_a_copy_goes_and_the_row_says_where_it_is(place: Place) -> None:
    path = place.add("DCIM/a.jpg")
    copies = copied(place)
    put(copies / "DCIM/a.jpg", path.read_bytes(), mtime_s=5)
    place.note_day()
    assert place.round().deleted == 1
    with closing(store.open_for_reading(place.log.path)) as connection:
        [(where,)] = connection.execute("SELECT copied_to FROM deletion").fetchall()
    assert Path(where).read_bytes() == b"content of DCIM/a.jpg"


def no_copy(path: Path, copy: Path) -> None:
    pass


def other_copy(path: Path, copy: Path) -> None:
    put(copy, b"X" * path.stat().st_size)


def hard_link(path: Path, copy: Path) -> None:
    os.link(path, copy)


def soft_link(path: Path, copy: Path) -> None:
    copy.symlink_to(path)


@pytest.mark.parametrize("copy", [no_copy, other_copy, hard_link, soft_link])
def test_without_a_real_copy_the_photo_stays(place: Place, copy: Callable[[Path, Path], None]) -> None:
    path = place.add("a.jpg")
    copy(path, copied(place) / "a.jpg")
    place.note_day()
    done = place.round()
    assert done.deleted == 0
    assert "there is no copy of it" in done.kept[0]
    assert path.exists()
    assert place.deletions() == []


# What the file has become meanwhile


def changed(path: Path) -> None:
    put(path, b"X" * path.stat().st_size)


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def folder_link(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.symlink_to("elsewhere")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (changed, "another content"), (longer, "another size"), (link, "cannot be opened"),
        (folder_link, "cannot be opened"), (folder, "no plain file"), (pipe, "no plain file"),
        (Path.unlink, "cannot be opened"),
    ],
)  # fmt: skip
def test_what_is_not_the_logged_photo_any_more_stays(place: Place, change: Callable[[Path], None], why: str) -> None:
    path = place.add("DCIM/a.jpg")
    place.note_day()
    change(path)
    before = sorted(each.name for each in place.source.rglob("*"))
    done = place.round()
    assert (done.deleted, len(done.kept)) == (0, 1)
    assert why in done.kept[0]
    assert sorted(each.name for each in place.source.rglob("*")) == before
    assert place.deletions() == []


def test_path_that_leaves_the_source_stays(place: Place) -> None:
    outside = put(place.folder / "outside.jpg", b"content of a.jpg")
    place.add("a.jpg")
    place.log._db.execute("UPDATE file SET path = '../outside.jpg'")
    place.note_day()
    assert "leaves the source" in place.round().kept[0]
    assert outside.exists()


def test_source_that_is_not_watched_is_left_alone(place: Place) -> None:
    path = place.add("a.jpg")
    place.log._db.execute("UPDATE file SET source = '/other'")
    place.note_day()
    assert "not watched" in place.round().kept[0]
    assert path.exists()


def test_file_that_changes_between_plan_and_deletion_stays_and_the_plan_is_dropped(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place.add("a.jpg")
    place.note_day()
    plan = store.Log.plan_deletion

    def plan_and_change(log: store.Log, file_id: int, **words: str) -> int:
        planned = plan(log, file_id, **words)
        put(path.with_name("new"), b"another photo").rename(path)
        return planned

    monkeypatch.setattr(store.Log, "plan_deletion", plan_and_change)
    assert place.round().deleted == 0
    assert path.read_bytes() == b"another photo"
    assert place.deletions() == [("old empties", False, "it changed meanwhile")]


# Power cuts


def test_cut_before_the_deletion_drops_the_plan_and_plans_again(place: Place) -> None:
    path = place.add("a.jpg")
    place.note_day()
    place.log.plan_deletion(1, policy="old empties", why="empty")
    assert place.round().deleted == 1
    assert not path.exists()
    assert place.deletions() == [
        ("old empties", False, "interrupted before the file was deleted"),
        ("old empties", True, None),
    ]


def test_cut_after_the_deletion_says_it_done(place: Place) -> None:
    path = place.add("a.jpg")
    place.log.plan_deletion(1, policy="old empties", why="empty")
    path.unlink()
    place.deleter()
    assert place.deletions() == [("old empties", True, None)]


def test_plan_for_a_card_that_is_not_here_waits(place: Place) -> None:
    place.add("a.jpg")
    place.log.plan_deletion(1, policy="old empties", why="empty")
    shutil.rmtree(place.source)
    place.deleter()
    assert place.deletions() == [("old empties", False, None)]


def test_row_is_durable_before_the_file_goes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place.add("a.jpg")
    place.note_day()
    seen = []
    unlink = os.unlink

    def spy(name: str, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None:
            seen.append((name, place.deletions()))  # by a reader of its own
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", spy)
    place.round()
    assert seen == [("a.jpg", [("old empties", False, None)])]
    assert not path.exists()


def test_many_files_go_a_few_at_a_time_and_those_that_stay_hold_nobody_up(place: Place) -> None:
    with place.log.batch():
        paths = [place.add(f"{number}.jpg") for number in range(120)]
    for path in paths[:60]:
        changed(path)
    place.note_day()
    deleter = place.deleter()
    assert [deleter.round(LATER, clock_ok=True).deleted for _ in range(4)] == [0, 40, 20, 0]
    assert sum(path.exists() for path in paths) == 60


def test_file_that_the_system_keeps_is_planned_once_and_not_every_ten_minutes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that is immutable, or somebody else's in a folder like /tmp."""
    path = place.add("a.jpg")
    place.note_day()
    unlink = os.unlink

    def refused(name: str, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None:
            raise PermissionError(1, "Operation not permitted")
        unlink(name)

    monkeypatch.setattr(os, "unlink", refused)
    deleter = place.deleter()
    for _ in range(3):
        assert deleter.round(LATER, clock_ok=True).deleted == 0
    assert path.exists()
    assert place.deletions() == [("old empties", False, "it cannot be deleted: Operation not permitted")]


def test_photo_on_a_card_that_is_read_only_is_not_read_in_vain(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.add("a.jpg")
    place.note_day()
    monkeypatch.setattr(os, "access", lambda path, mode, *, dir_fd=None: dir_fd is None)
    monkeypatch.setattr(os, "pread", lambda *_: pytest.fail("it is read"))
    assert "mounted read-only" in place.round().kept[0]


def test_copy_is_on_the_disk_before_the_original_goes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place.add("a.jpg")
    copy = put(copied(place) / "a.jpg", path.read_bytes())
    place.note_day()
    synced: list[int] = []
    fsync, unlink = os.fsync, os.unlink
    wanted = {copy.stat().st_ino, copy.parent.stat().st_ino}

    def sync(number: int) -> None:
        synced.append(os.fstat(number).st_ino)
        fsync(number)

    def check(name: str, *, dir_fd: int | None = None) -> None:
        assert dir_fd is None or wanted <= set(synced)
        unlink(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "unlink", check)
    assert place.round().deleted == 1


def test_copy_that_cannot_be_synced_is_none(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place.add("a.jpg")
    copy = put(copied(place) / "a.jpg", path.read_bytes()).stat().st_ino
    place.note_day()
    fsync = os.fsync

    def fails(number: int) -> None:
        if os.fstat(number).st_ino == copy:
            raise OSError(5, "Input/output error")
        fsync(number)

    monkeypatch.setattr(os, "fsync", fails)
    [kept] = place.round().kept
    assert "cannot be synced: Input/output error" in kept
    assert path.exists()


def test_round_on_a_slow_card_ends_soon_and_the_next_goes_on_there(place: Place) -> None:
    paths = [place.add(f"{number}.jpg") for number in range(6)]
    for path in paths[:2]:
        changed(path)
    place.note_day()
    now_s = 0.0

    def monotonic() -> float:
        nonlocal now_s
        now_s += 2.0
        return now_s

    days = Days(place.folder / "days.json")
    deleter = Deleter(place.log, "device", place.policies, [place.source], days, monotonic=monotonic)
    rounds = [deleter.round(LATER, clock_ok=True) for _ in range(3)]
    assert [(each.deleted, len(each.kept)) for each in rounds] == [(0, 2), (2, 0), (2, 0)]


def test_what_one_policy_keeps_another_may_let_go(place: Place) -> None:
    path = place.add("a.jpg", confidence=0.99)
    copied(place)
    place.policies.append(replace(POLICY, name="very sure", above=0.98))
    place.note_day()
    assert place.round().deleted == 1
    assert not path.exists()
    assert place.deletions() == [("very sure", True, None)]


def test_owner_can_ask_what_a_policy_would_do(place: Place) -> None:
    with place.log.batch():
        for number in range(120):
            place.add(f"{number}.jpg", confidence=0.8 + 0.15 * (number % 2))
    with closing(store.open_for_reading(place.log.path)) as connection:
        assert count(connection, POLICY, "device") == 60
        assert count(connection, replace(POLICY, label="fox"), "device") == 0
    assert len(list(place.source.iterdir())) == 120
