"""Which photos are ready. The clock and the file events are the test's own, so nothing sleeps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from edge.agent import watch as watching
from edge.agent.config import Source
from edge.agent.lease import Look, Writer
from edge.agent.mounts import Mounts
from edge.agent.service import MOST_IDLE_S
from edge.agent.watch import Candidate, Clock, Watch, scan
from tests.fakes.camera import put

SETTLE_S = 2.0


@dataclass
class World:
    """A clock that only moves while the agent waits, file events, and things that happen meanwhile.

    Attributes:
        now_s: what both clocks say.
        script: what happens at which time: a list that it returns are paths that an event names.
        writing: files that somebody has open.
        unknown: the file system grants no leases.
    """

    now_s: float = 1_000_000.0
    script: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    writing: set[Path] = field(default_factory=set)
    unknown: bool = False
    changed_s: dict[Path, float] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)
    events_lost: bool = False
    listened_again: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = Clock(lambda: self.now_s, lambda: self.now_s)
        self.stop = Event()

    def at(self, seconds: float, happens: Callable[[], object]) -> None:
        self.script.append((1_000_000.0 + seconds, happens))
        self.script.sort(key=lambda each: each[0])

    def wait(self, timeout_s: float) -> Sequence[str]:
        assert timeout_s >= 0
        if timeout_s:
            self.waits.append(timeout_s)
        end_s = self.now_s + timeout_s
        if self.script and self.script[0][0] <= end_s:
            time_s, happens = self.script.pop(0)
            self.now_s = max(self.now_s, time_s)
            named = happens()
            return [str(path) for path in named] if isinstance(named, list) else []
        self.now_s = end_s
        return []

    def lost(self) -> bool:
        was, self.events_lost = self.events_lost, False
        return was

    def listen_again(self, folder: Path) -> str | None:
        self.listened_again.append(folder)
        return None

    def look(self, path: Path) -> Look | None:
        if not path.is_file() or path.is_symlink():
            return None
        facts = path.stat()
        writer = Writer.SOMEBODY if path in self.writing else Writer.NOBODY
        changed_s = self.changed_s.get(path, 0.0)
        return Look(facts.st_size, facts.st_mtime_ns, changed_s, Writer.UNKNOWN if self.unknown else writer)


@dataclass
class Setup:
    folder: Path
    world: World
    known: set[Candidate] = field(default_factory=set)
    said: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.watch = Watch(
            [Source(self.folder)],
            known=self.known.__contains__,
            hints=self.world,
            settle_s=SETTLE_S,
            scan_interval_s=60.0,
            clock=self.world.clock,
            look=self.world.look,
            say=self.said.append,
            **self.more,
        )

    def backlog(self, patience_s: float = 10.0) -> list[str]:
        return [self._took(each) for each in self.watch.backlog(self.world.stop, patience_s=patience_s) if each]

    def ready(self, until_s: float) -> Iterator[tuple[str, float]]:
        """Names with the second at which they came, until the clock passes ``until_s``."""
        self.world.at(until_s, self.world.stop.set)
        for each in self.watch.ready(self.world.stop):
            if each:
                yield self._took(each), self.world.now_s - 1_000_000.0

    def _took(self, candidate: Candidate) -> str:
        self.known.add(candidate)
        return candidate.text


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    folder = tmp_path / "photos"
    folder.mkdir()
    return Setup(folder, World())


def just_changed(setup: Setup, path: Path) -> Path:
    setup.world.changed_s[path] = setup.world.now_s
    return path


# The search


def test_search_is_recursive_in_the_order_of_names(setup: Setup) -> None:
    for name in ("b.jpg", "a.JPG", "DCIM/101/2.jpg", "DCIM/101/1.jpg", "DCIM/100/9.png", "c.mp4"):
        put(setup.folder / name, b"x")
    assert setup.backlog() == ["DCIM/100/9.png", "DCIM/101/1.jpg", "DCIM/101/2.jpg", "a.JPG", "b.jpg", "c.mp4"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(".hidden.jpg", id="a hidden file"),
        pytest.param("~upload.jpg", id="a temporary file"),
        pytest.param(".Trash-1000/files/a.jpg", id="a hidden folder"),
        pytest.param("$RECYCLE.BIN/a.jpg", id="a recycle bin"),
        pytest.param("#recycle/a.jpg", id="a recycle bin of a network disk"),
        pytest.param("DCIM/@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg", id="a thumbnail that a network disk has made"),
        pytest.param("notes.txt", id="no photo"),
        pytest.param("IMG_0001.JPG.part", id="an unfinished upload under a temporary name"),
        pytest.param("IMG_0001.JPG.filepart", id="an unfinished upload by WinSCP"),
        pytest.param(".in.IMG_0001.JPG.", id="an unfinished upload by ProFTPD"),
        pytest.param("IMG_0001.JPG.tmp", id="an unfinished copy"),
        pytest.param("IMG_0001.JPG~", id="an older version that an editor kept"),
    ],
)
def test_what_is_no_photo_is_left_out(setup: Setup, name: str) -> None:
    path = put(setup.folder / name, b"x")
    assert setup.backlog() == []
    setup.world.at(1, lambda: [path])  # and an event does not change that
    assert list(setup.ready(until_s=10)) == []


def test_links_are_not_followed(setup: Setup, tmp_path: Path) -> None:
    outside = put(tmp_path / "outside" / "a.jpg", b"x")
    (setup.folder / "file.jpg").symlink_to(outside)
    (setup.folder / "folder").symlink_to(outside.parent)
    (setup.folder / "round").symlink_to(setup.folder)
    assert setup.backlog() == []
    setup.world.at(1, lambda: [setup.folder / "file.jpg"])
    assert list(setup.ready(until_s=10)) == []


def test_pipe_with_the_name_of_a_photo_is_left_out(setup: Setup) -> None:
    os.mkfifo(setup.folder / "a.jpg")
    assert setup.backlog() == []


def test_name_that_is_not_utf8_is_found(setup: Setup) -> None:
    put(setup.folder / os.fsdecode(b"caf\xe9.jpg"), b"x")
    assert setup.backlog() == ["caf%E9.jpg"]


def test_time_beyond_what_the_log_can_hold_is_cut(setup: Setup) -> None:
    path = setup.folder / "a.jpg"
    path.write_bytes(b"x")
    os.utime(path, (2**36, 2**36))
    [found] = scan(Source(setup.folder), {})
    assert found.mtime_ns == 2**63 - 1


def test_folder_that_is_not_there_is_said_once_and_tried_again(setup: Setup) -> None:
    setup.folder.rmdir()
    setup.world.at(70, lambda: put(setup.folder / "a.jpg", b"x"))
    [(name, ready_s)] = setup.ready(until_s=200)
    assert name == "a.jpg"
    assert 70 <= ready_s <= 70 + watching.LOOK_S
    assert [str(setup.folder) in line for line in setup.said] == [True, True]
    assert "cannot be read" in setup.said[0]


def test_known_files_are_counted_and_not_yielded(setup: Setup) -> None:
    put(setup.folder / "a.jpg", b"x")
    assert setup.backlog() == ["a.jpg"]
    assert setup.backlog() == []
    assert setup.watch.already == 1


def test_changed_file_is_another_file(setup: Setup) -> None:
    put(setup.folder / "a.jpg", b"x")
    setup.backlog()
    put(setup.folder / "a.jpg", b"xy")
    assert setup.backlog() == ["a.jpg"]


# Ready


def test_old_file_is_ready_at_once(setup: Setup) -> None:
    put(setup.folder / "a.jpg", b"x")
    assert setup.backlog() == ["a.jpg"]
    assert setup.world.waits == []


def test_file_that_just_changed_is_ready_after_the_settle_time(setup: Setup) -> None:
    just_changed(setup, put(setup.folder / "a.jpg", b"x"))
    assert list(setup.ready(until_s=30)) == [("a.jpg", SETTLE_S)]


def test_file_that_keeps_growing_is_not_ready(setup: Setup) -> None:
    path = just_changed(setup, put(setup.folder / "a.jpg", b"x"))

    for second in range(1, 9):
        content = b"x" * (second + 1)
        setup.world.at(second, lambda content=content: just_changed(setup, put(path, content)))  # type: ignore[misc]
    [(name, ready_s)] = setup.ready(until_s=30)
    assert name == "a.jpg"
    assert 8 + SETTLE_S <= ready_s <= 8 + 2 * SETTLE_S


def test_file_with_an_open_writer_is_not_ready_however_long_it_rests(setup: Setup) -> None:
    path = put(setup.folder / "a.jpg", b"x")
    setup.world.writing.add(path)
    setup.world.at(50, setup.world.writing.clear)
    [(name, ready_s)] = setup.ready(until_s=100)
    assert name == "a.jpg"
    assert 50 <= ready_s <= 51


def test_closed_file_is_ready_at_once(setup: Setup) -> None:
    path = setup.folder / "a.jpg"
    setup.world.at(5, lambda: [just_changed(setup, put(path, b"x"))])
    assert list(setup.ready(until_s=30)) == [("a.jpg", 5.0)]


def test_event_of_a_file_that_somebody_still_writes_is_only_a_hint(setup: Setup) -> None:
    path = setup.folder / "a.jpg"
    setup.world.writing.add(path)
    setup.world.at(5, lambda: [just_changed(setup, put(path, b"x"))])
    setup.world.at(8, setup.world.writing.clear)
    [(_, ready_s)] = setup.ready(until_s=30)
    assert 8 <= ready_s <= 9


def test_empty_file_is_not_ready_when_closed_but_when_settled(setup: Setup) -> None:
    path = setup.folder / "a.jpg"
    setup.world.at(5, lambda: [just_changed(setup, put(path, b""))])
    assert list(setup.ready(until_s=30)) == [("a.jpg", 5 + SETTLE_S)]


def test_without_leases_only_the_settle_time_counts(setup: Setup) -> None:
    setup.world.unknown = True
    old = put(setup.folder / "old.jpg", b"x")
    closed = setup.folder / "closed.jpg"
    setup.world.at(5, lambda: [put(closed, b"x")])
    assert old.exists()
    assert list(setup.ready(until_s=30)) == [("old.jpg", SETTLE_S), ("closed.jpg", 5 + SETTLE_S)]


def test_clock_that_jumps_back_only_costs_the_settle_time(setup: Setup) -> None:
    path = put(setup.folder / "a.jpg", b"x")
    setup.world.changed_s[path] = setup.world.now_s + 3600
    assert list(setup.ready(until_s=30)) == [("a.jpg", SETTLE_S)]


def test_file_that_goes_away_while_it_settles_is_forgotten(setup: Setup) -> None:
    path = just_changed(setup, put(setup.folder / "a.jpg", b"x"))
    setup.world.at(1, path.unlink)
    assert list(setup.ready(until_s=30)) == []
    assert setup.watch.not_ready == 0


def test_file_that_changed_after_it_was_yielded_comes_again(setup: Setup) -> None:
    put(setup.folder / "a.jpg", b"x")
    seen = []
    for candidate in setup.watch.backlog(setup.world.stop):
        if candidate:
            seen.append(candidate.size_bytes)
            if len(seen) == 1:
                put(setup.folder / "a.jpg", b"xyz")
                setup.watch.put_back(candidate)
    assert seen == [1, 3]


def taken_early(setup: Setup, until_s: float, whole_bytes: int) -> list[tuple[int, bool, float]]:
    """Size, early and second of each file as it is yielded; those that are early and too short are put back."""
    setup.world.at(until_s, setup.world.stop.set)
    seen = []
    for each in filter(None, setup.watch.ready(setup.world.stop)):
        seen.append((each.size_bytes, each.early, setup.world.now_s - 1_000_000.0))
        if each.early and each.size_bytes < whole_bytes:
            setup.watch.put_back(each)
        else:
            setup.known.add(each)
    return seen


def test_file_that_is_closed_between_its_parts_is_early_once_and_then_settles(setup: Setup) -> None:
    path = setup.folder / "a.jpg"
    for second, size in ((5, 2), (6, 4), (7, 6)):
        content = b"x" * size
        setup.world.at(second, lambda content=content: [just_changed(setup, put(path, content))])  # type: ignore[misc]
    assert taken_early(setup, 30, whole_bytes=6) == [(2, True, 5.0), (6, False, 7 + SETTLE_S)]


def test_early_file_that_never_changes_again_comes_once_more_when_settled(setup: Setup) -> None:
    path = setup.folder / "a.jpg"
    setup.world.at(5, lambda: [just_changed(setup, put(path, b"x"))])
    assert taken_early(setup, 200, whole_bytes=9) == [(1, True, 5.0), (1, False, 5 + SETTLE_S)]


# Without events


def test_new_file_without_an_event_is_found_by_the_next_search(setup: Setup) -> None:
    setup.world.at(10, lambda: put(setup.folder / "a.jpg", b"x"))
    assert list(setup.ready(until_s=100)) == [("a.jpg", 60.0)]


def test_lost_events_lead_to_a_search_at_once(setup: Setup) -> None:
    def lose() -> None:
        put(setup.folder / "a.jpg", b"x")
        setup.world.events_lost = True

    setup.world.at(10, lose)
    assert list(setup.ready(until_s=100)) == [("a.jpg", 10.0)]


def test_stop_ends_the_search_between_two_files(setup: Setup) -> None:
    for i in range(5):
        put(setup.folder / f"{i}.jpg", b"x")
    taken = []
    for candidate in filter(None, setup.watch.ready(setup.world.stop)):
        taken.append(candidate.text)
        if len(taken) == 2:
            setup.world.stop.set()
    assert taken == ["0.jpg", "1.jpg"]


# Once


def test_backlog_waits_for_an_unfinished_file_up_to_a_bound(setup: Setup) -> None:
    put(setup.folder / "whole.jpg", b"x")
    setup.world.writing.add(put(setup.folder / "open.jpg", b"x"))
    assert setup.backlog(patience_s=7.0) == ["whole.jpg"]
    assert setup.world.now_s == 1_000_007.0
    assert setup.watch.not_ready == 1


def test_backlog_takes_a_file_that_is_finished_in_time(setup: Setup) -> None:
    setup.world.writing.add(put(setup.folder / "open.jpg", b"x"))
    setup.world.at(4, setup.world.writing.clear)
    assert setup.backlog(patience_s=7.0) == ["open.jpg"]
    assert setup.watch.not_ready == 0


def test_more_unfinished_files_than_are_remembered_are_all_taken(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MOST_PENDING", 4)
    setup.world.unknown = True  # so every file must settle
    names = [f"{i:02}.jpg" for i in range(15)]
    for name in names:
        put(setup.folder / name, b"x")
    assert setup.backlog() == names


def test_more_files_that_never_settle_than_are_remembered_do_not_loop_for_ever(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MOST_PENDING", 4)
    for i in range(15):
        setup.world.writing.add(put(setup.folder / f"{i}.jpg", b"x"))
    assert setup.backlog(patience_s=5.0) == []
    assert setup.world.now_s == 1_000_005.0


def test_waiting_for_a_long_writer_is_not_busy(setup: Setup) -> None:
    setup.world.writing.add(put(setup.folder / "open.jpg", b"x"))
    assert list(setup.ready(until_s=100)) == []
    assert len(setup.world.waits) < 250
    assert min(setup.world.waits[:-1]) > 0.0


# What goes first


def timed(setup: Setup, **mtimes: float) -> None:
    for name, seconds in mtimes.items():
        put(setup.folder / f"{name}.jpg", b"x", mtime_s=1_700_000_000 + seconds)


@pytest.mark.parametrize(("newest_first", "expected"), [(False, ["c", "a", "d", "b"]), (True, ["b", "d", "a", "c"])])
def test_backlog_comes_by_time_within_a_folder(tmp_path: Path, newest_first: bool, expected: list[str]) -> None:
    setup = Setup(tmp_path, World(), more={"newest_first": newest_first})
    timed(setup, a=20, b=40, c=10, d=30)
    assert setup.backlog() == [f"{name}.jpg" for name in expected]


def test_newest_first_takes_the_last_folder_of_a_card_first(tmp_path: Path) -> None:
    setup = Setup(tmp_path, World(), more={"newest_first": True})
    for name in ("DCIM/100EK113/IMG_0001.JPG", "DCIM/100EK113/IMG_0002.JPG", "DCIM/101EK113/IMG_0001.JPG", "new.jpg"):
        put(setup.folder / name, b"x")
    assert [name[-20:] for name in setup.backlog()] == [
        "new.jpg", "101EK113/IMG_0001.JPG"[-20:], "100EK113/IMG_0002.JPG"[-20:], "100EK113/IMG_0001.JPG"[-20:],
    ]  # fmt: skip


def took(setup: Setup, meanwhile: dict[str, Callable[[], list[Path]]], until: int) -> list[tuple[str, bool]]:
    """Names, and whether an event named them; after a photo of ``meanwhile`` was taken, something happens."""
    taken: list[tuple[str, bool]] = []
    for candidate in filter(None, setup.watch.ready(setup.world.stop)):
        setup.known.add(candidate)
        taken.append((candidate.text, candidate.live))
        if happens := meanwhile.get(candidate.text):
            setup.world.at(0, happens)
        if len(taken) == until:
            setup.world.stop.set()
    return taken


def test_new_photo_goes_before_the_rest_of_a_backlog(setup: Setup) -> None:
    timed(setup, a=1, b=2, c=3)
    meanwhile: dict[str, Callable[[], list[Path]]] = {"a.jpg": lambda: [put(setup.folder / "new.jpg", b"x")]}
    assert took(setup, meanwhile, 4) == [("a.jpg", False), ("new.jpg", True), ("b.jpg", False), ("c.jpg", False)]


def test_new_photo_that_must_settle_goes_before_the_rest_of_a_backlog_once_it_has(setup: Setup) -> None:
    timed(setup, a=1, b=2, c=3)
    new = setup.folder / "new.jpg"
    setup.world.writing.add(new)

    def written() -> list[Path]:
        setup.world.now_s += SETTLE_S
        setup.world.writing.clear()
        return []

    meanwhile = {"a.jpg": lambda: [just_changed(setup, put(new, b"x"))], "b.jpg": written}
    assert [name for name, _ in took(setup, meanwhile, 4)] == ["a.jpg", "b.jpg", "new.jpg", "c.jpg"]


def test_new_photo_goes_before_a_backlog_that_must_settle_and_so_do_those_that_settle_themselves(setup: Setup) -> None:
    """Where the kernel cannot say who writes, such as on FUSE, every photo must."""
    setup.world.unknown = True
    timed(setup, a=1, b=2, c=3, d=4)
    setup.world.at(1, lambda: [put(setup.folder / "new.jpg", b"x")])

    def another() -> list[Path]:
        setup.world.now_s += SETTLE_S
        return []

    assert [name for name, _ in took(setup, {"a.jpg": another}, 5)] == ["a.jpg", "new.jpg", "b.jpg", "c.jpg", "d.jpg"]


def test_photos_in_a_folder_that_was_just_made_go_before_the_rest_of_a_backlog(setup: Setup) -> None:
    timed(setup, a=1, b=2)

    def make() -> list[Path]:
        put(setup.folder / "102EK113" / "sub" / "1.jpg", b"x")
        return [put(setup.folder / "102EK113" / "2.jpg", b"x").parent]

    assert [name for name, _ in took(setup, {"a.jpg": make}, 4)] == [
        "a.jpg", "102EK113/sub/1.jpg", "102EK113/2.jpg", "b.jpg",
    ]  # fmt: skip


def test_event_goes_also_before_the_photos_of_a_new_folder(setup: Setup) -> None:
    timed(setup, a=1)
    folder = setup.folder / "102EK113"

    def make() -> list[Path]:
        put(folder / "1.jpg", b"x")
        return [put(folder / "2.jpg", b"x").parent]

    meanwhile = {"a.jpg": make, "102EK113/1.jpg": lambda: [put(setup.folder / "new.jpg", b"x")]}
    names = [name for name, _ in took(setup, meanwhile, 4)]
    assert names == ["a.jpg", "102EK113/1.jpg", "new.jpg", "102EK113/2.jpg"]


def test_new_folder_that_is_a_link_or_hidden_or_elsewhere_is_not_searched(setup: Setup, tmp_path: Path) -> None:
    outside = put(tmp_path / "outside" / "a.jpg", b"x").parent
    hidden = put(setup.folder / ".trash" / "a.jpg", b"x").parent
    (setup.folder / "link").symlink_to(outside)
    setup.world.at(1, lambda: [setup.folder / "link", hidden, outside])
    assert list(setup.ready(until_s=10)) == []


def test_event_of_a_path_that_cannot_be_looked_at_ends_nothing(setup: Setup) -> None:
    """On a card that fails, or in a folder that was closed to us, asking is an error; so is a name that is too long."""
    setup.world.at(1, lambda: [setup.folder / ("x" * 300), setup.folder / ("x" * 300) / "a.jpg"])
    setup.world.at(2, lambda: [put(setup.folder / "b.jpg", b"x")])
    assert list(setup.ready(until_s=10)) == [("b.jpg", 2.0)]


def test_photo_that_was_named_and_found_at_the_same_time_comes_once(setup: Setup) -> None:
    timed(setup, a=1, b=2)
    meanwhile: dict[str, Callable[[], list[Path]]] = {"a.jpg": lambda: [setup.folder / "b.jpg"]}
    setup.world.at(70, setup.world.stop.set)
    assert took(setup, meanwhile, 9) == [("a.jpg", False), ("b.jpg", True)]


def test_old_photos_are_taken_one_by_one_while_nothing_new_is_there(tmp_path: Path) -> None:
    old = [Candidate(Source(tmp_path), tmp_path / f"old{i}.jpg", f"old{i}.jpg", 1, 1, old=True) for i in range(3)]
    setup = Setup(tmp_path, World(), more={"old": iter(old)})
    timed(setup, a=1)
    meanwhile: dict[str, Callable[[], list[Path]]] = {"old0.jpg": lambda: [put(setup.folder / "new.jpg", b"x")]}
    assert [name for name, _ in took(setup, meanwhile, 5)] == [
        "a.jpg", "old0.jpg", "new.jpg", "old1.jpg", "old2.jpg",
    ]  # fmt: skip


def test_old_photos_are_part_of_a_backlog_and_its_end(tmp_path: Path) -> None:
    old = Candidate(Source(tmp_path), tmp_path / "old.jpg", "old.jpg", 1, 1, old=True)
    setup = Setup(tmp_path, World(), more={"old": iter([old])})
    timed(setup, a=1)
    assert setup.backlog() == ["a.jpg", "old.jpg"]
    setup.watch.put_back(old)
    assert setup.watch.not_ready == 0


# Before it waits


def test_whoever_takes_the_photos_is_told_before_each_wait(setup: Setup) -> None:
    timed(setup, a=1, b=2)
    setup.world.at(10, setup.world.stop.set)
    seen = []
    for candidate in setup.watch.ready(setup.world.stop):
        if candidate:
            setup.known.add(candidate)
        seen.append((candidate.text if candidate else None, len(setup.world.waits)))
    assert seen[:3] == [("a.jpg", 0), ("b.jpg", 0), (None, 0)]
    assert [waited for name, waited in seen if name is None] == list(range(len(setup.world.waits)))


def test_long_run_of_known_files_gives_time_to_finish_what_is_held(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "BREATH", 4)
    timed(setup, **{f"f{i}": i for i in range(9)})
    setup.backlog()
    assert list(setup.watch.backlog(setup.world.stop)) == [None, None]


# Pauses and times of day


def test_pause_follows_each_photo_of_a_backlog_and_none_that_is_new(tmp_path: Path) -> None:
    setup = Setup(tmp_path, World(), more={"pause_s": 5.0})
    timed(setup, a=1, b=2, c=3)
    setup.world.at(2, lambda: [put(setup.folder / "new.jpg", b"x")])
    assert list(setup.ready(until_s=20)) == [("a.jpg", 0.0), ("new.jpg", 2.0), ("b.jpg", 5.0), ("c.jpg", 10.0)]


def test_pause_follows_each_photo_of_a_backlog_that_had_to_settle(tmp_path: Path) -> None:
    setup = Setup(tmp_path, World(unknown=True), more={"pause_s": 5.0})
    timed(setup, a=1, b=2, c=3)
    setup.world.at(3, lambda: [put(setup.folder / "new.jpg", b"x")])
    assert list(setup.ready(until_s=20)) == [("a.jpg", 2.0), ("new.jpg", 7.0), ("b.jpg", 7.0), ("c.jpg", 12.0)]


def test_outside_its_hours_no_photo_is_taken_and_all_are_afterwards(tmp_path: Path) -> None:
    world = World()

    def closed_s() -> float:  # open during the first 10 s and from 100 s on
        return 100 - passed if 10 <= (passed := world.now_s - 1_000_000) < 100 else 0.0

    setup = Setup(tmp_path, world, more={"closed_s": closed_s})
    world.at(5, lambda: [put(setup.folder / "early.jpg", b"x")])
    world.at(20, lambda: [put(setup.folder / "a.jpg", b"x")])
    world.at(30, lambda: [put(setup.folder / "b.jpg", b"x")])
    assert list(setup.ready(until_s=130)) == [("early.jpg", 5.0), ("a.jpg", 100.0), ("b.jpg", 100.0)]
    assert setup.said == ["outside the hours of [power] windows: photos wait for 0 h 2 min."]


def test_hours_end_a_search_between_two_photos(tmp_path: Path) -> None:
    known: set[Candidate] = set()
    setup = Setup(tmp_path, World(), known, more={"closed_s": lambda: 50.0 if len(known) == 2 else 0.0})
    timed(setup, a=1, b=2, c=3)
    assert [name for name, _ in setup.ready(until_s=40)] == ["a.jpg", "b.jpg"]


def test_hours_end_the_files_that_have_settled_too(tmp_path: Path) -> None:
    known: set[Candidate] = set()
    world = World(unknown=True)
    setup = Setup(tmp_path, world, known, more={"closed_s": lambda: 50.0 if len(known) == 2 else 0.0})
    for name in "abc":
        put(setup.folder / f"{name}.jpg", b"x", mtime_s=world.now_s)
    assert len(list(setup.ready(until_s=40))) == 2


@pytest.mark.parametrize("more", [{"pause_s": 3600.0}, {"closed_s": lambda: 3600.0}])
def test_long_rest_is_progress_all_the_same(tmp_path: Path, more: dict[str, Any]) -> None:
    setup = Setup(tmp_path, World(), more=more)
    timed(setup, a=1, b=2)
    list(setup.ready(until_s=1000))
    assert max(setup.world.waits) <= MOST_IDLE_S


def test_backlog_asks_for_no_hours(tmp_path: Path) -> None:
    setup = Setup(tmp_path, World(), more={"closed_s": lambda: 3600.0})
    timed(setup, a=1)
    assert setup.backlog() == ["a.jpg"]


# Cards that come and go


def test_card_that_was_out_is_searched_and_listened_to_when_it_is_back(setup: Setup, tmp_path: Path) -> None:
    timed(setup, a=1)
    away = tmp_path / "away"
    setup.world.at(10, lambda: setup.folder.rename(away))
    setup.world.at(20, lambda: put(away / "b.jpg", b"x"))
    setup.world.at(30, lambda: away.rename(setup.folder))
    [first, (name, ready_s)] = setup.ready(until_s=50)
    assert (first, name) == (("a.jpg", 0.0), "b.jpg")
    assert 30 <= ready_s <= 30 + watching.LOOK_S
    assert setup.world.listened_again == [setup.folder]
    assert ["cannot be read" in line for line in setup.said] == [True, False]


def test_card_that_was_changed_between_two_looks_is_searched(setup: Setup, tmp_path: Path) -> None:
    timed(setup, a=1)
    put(tmp_path / "other" / "b.jpg", b"x")

    def change() -> None:
        setup.folder.rename(tmp_path / "away")
        (tmp_path / "other").rename(setup.folder)

    setup.world.at(10, change)
    [_, (name, ready_s)] = setup.ready(until_s=50)
    assert name == "b.jpg"
    assert 10 <= ready_s <= 10 + watching.LOOK_S


class Table(Mounts):
    """A table of mounts that changes when the test says so."""

    def __init__(self, *points: Path) -> None:
        super().__init__()
        self.points, self.has_changed = points, False

    def changed(self) -> bool:
        was, self.has_changed = self.has_changed, False
        return was

    def concern(self, folder: Path) -> bool:
        return any(folder.is_relative_to(point) for point in self.points)


@pytest.mark.parametrize("concerned", [True, False], ids=["here", "elsewhere"])
def test_card_with_the_numbers_of_the_one_before_is_searched_when_it_is_mounted(
    tmp_path: Path, concerned: bool
) -> None:
    table = Table(tmp_path / "photos" if concerned else tmp_path / "elsewhere")
    setup = Setup(put(tmp_path / "photos" / "a.jpg", b"x").parent, World(), more={"mounts": table})

    def change() -> None:
        put(setup.folder / "b.jpg", b"x")  # device and inode of the folder stay
        table.has_changed = True

    setup.world.at(10, change)
    [_, (name, ready_s)] = setup.ready(until_s=100)
    assert name == "b.jpg"
    assert ready_s <= 10 + watching.LOOK_S if concerned else ready_s == 60
    assert setup.world.listened_again == ([setup.folder] if concerned else [])
    assert setup.said == []


def test_source_that_appears_is_said_to_be_there(setup: Setup, tmp_path: Path) -> None:
    setup.folder.rmdir()
    setup = Setup(setup.folder, setup.world)
    setup.world.at(10, lambda: put(setup.folder / "a.jpg", b"x"))
    assert [name for name, _ in setup.ready(until_s=50)] == ["a.jpg"]
    assert setup.said[1:] == [f"{setup.folder}: it is there now, and searched."]


def test_folders_without_permission_are_few_lines_however_many_they_are(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_MOST_TROUBLES", 3)
    for i in range(9):
        put(setup.folder / f"f{i}" / "a.jpg", b"x")
    real = os.scandir

    def denied(folder: Path) -> Any:
        if folder != setup.folder:
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(os, "scandir", denied)
    assert setup.backlog() == []
    assert len(setup.said) == 3


def test_search_of_a_slow_card_is_not_repeated_before_ten_times_its_length(setup: Setup) -> None:
    timed(setup, a=1)
    searches: list[float] = []

    def known(candidate: Candidate) -> bool:
        searches.append(setup.world.now_s - 1_000_000)
        setup.world.now_s += 20
        return True

    setup.watch._known = known
    assert list(setup.ready(until_s=300)) == []
    assert searches == [0.0, 220.0]
