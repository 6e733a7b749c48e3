"""The real file events of this machine. Waiting ends with the event; the long timeouts are only for a lost one."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edge.agent import hints
from edge.agent.hints import FileEvents

LONG_S = 20.0


@pytest.fixture
def events(tmp_path: Path) -> Iterator[FileEvents]:
    with closing(FileEvents()) as listening:
        assert listening.listen([tmp_path]) == []
        yield listening


def wait_for(events: FileEvents, path: Path) -> bool:
    """Whether an event names the path before too long."""
    for _ in range(50):
        found = events.wait(LONG_S)
        if str(path) in found:
            return True
        if not found and not events.lost():
            return False
    return False


def test_closed_file_is_named(events: FileEvents, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    assert wait_for(events, path)


def test_file_moved_within_the_folder_is_named_by_its_new_name(events: FileEvents, tmp_path: Path) -> None:
    part, path = tmp_path / "a.jpg.part", tmp_path / "a.jpg"
    part.write_bytes(b"x")
    part.rename(path)
    assert wait_for(events, path)


def test_file_moved_in_from_elsewhere_is_named(
    events: FileEvents, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "a.jpg"
    outside.write_bytes(b"x")
    outside.rename(tmp_path / "a.jpg")
    assert wait_for(events, tmp_path / "a.jpg")


def test_name_that_is_not_utf8_is_named(events: FileEvents, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    path.write_bytes(b"x")
    assert wait_for(events, path)


def test_new_folder_is_named_and_so_is_what_is_put_into_it(events: FileEvents, tmp_path: Path) -> None:
    (tmp_path / "DCIM").mkdir()
    assert wait_for(events, tmp_path / "DCIM")
    (tmp_path / "DCIM" / "a.jpg").write_bytes(b"x")
    assert wait_for(events, tmp_path / "DCIM" / "a.jpg")


def test_folder_that_was_taken_away_and_came_back_is_listened_to_again(events: FileEvents, tmp_path: Path) -> None:
    folder = tmp_path / "card"
    with closing(FileEvents()) as listening:
        folder.mkdir()
        assert listening.listen([folder]) == []
        folder.rename(tmp_path / "another card")
        folder.mkdir()
        (folder / "a.jpg").write_bytes(b"x")
        assert listening.listen_again(folder) is None
        (folder / "b.jpg").write_bytes(b"x")
        assert wait_for(listening, folder / "b.jpg")


def test_folder_that_was_made_anew_in_its_old_place_is_listened_to_again(tmp_path: Path) -> None:
    """It can have the number of the one before, so that nothing but the silence tells."""
    folder = tmp_path / "upload"
    folder.mkdir()
    with closing(FileEvents()) as listening:
        assert listening.listen([folder]) == []
        threads = list(listening._observer.emitters)
        folder.rmdir()
        folder.mkdir()
        for thread in threads:
            thread.join(LONG_S)
        assert listening.lost()  # and so it is searched for what came meanwhile
        assert not listening.lost()
        (folder / "a.jpg").write_bytes(b"x")
        assert wait_for(listening, folder / "a.jpg")


def test_folder_that_is_silent_again_soon_is_not_searched_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(FileEvents()) as listening:
        listening.listen([tmp_path])
        for deaf_s, lost in ((60.0, [True, False, False]), (0.0, [True, True, True])):
            monkeypatch.setattr(hints, "DEAF_S", deaf_s)
            found = []
            for _ in lost:
                for thread in list(listening._observer.emitters):
                    thread.stop()
                    thread.join(LONG_S)
                found.append(listening.lost())
            assert found == lost


def test_nobody_listens_again_who_did_not_listen(tmp_path: Path) -> None:
    with closing(FileEvents()) as listening:
        assert listening.listen_again(tmp_path) is None
        (tmp_path / "a.jpg").write_bytes(b"x")
        assert listening.wait(0.05) == []


def test_overflow_that_the_library_only_logs_is_a_loss(events: FileEvents) -> None:
    logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed; filesystem events were lost")
    assert events.wait(LONG_S) == []  # and ends a wait
    assert events.lost()
    assert not events.lost()


def test_what_the_library_warns_of_is_not_in_the_journal(tmp_path: Path) -> None:
    """Such as "Callback with id … already exists", where a camera makes folders in folders."""
    with closing(FileEvents()) as listening, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        listening.listen([tmp_path])
        warnings.warn_explicit("it", RuntimeWarning, "inotify.py", 365, module="watchdog.observers.inotify")
    assert said == []


def test_wake_from_another_thread_ends_a_wait(tmp_path: Path) -> None:
    with closing(FileEvents()) as listening:
        waker = threading.Timer(0.01, listening.wake)
        waker.start()
        assert listening.wait(LONG_S) == []
        waker.join()


def test_wait_ends_by_itself(tmp_path: Path) -> None:
    with closing(FileEvents()) as listening:
        assert listening.wait(0.0) == []


def test_events_beyond_the_bound_are_lost_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "MOST_QUEUED", 2)
    with closing(FileEvents()) as listening:
        for i in range(3):
            listening._put(f"/photos/{i}.jpg")
        assert listening.wait(0.0) == ["/photos/0.jpg", "/photos/1.jpg"]
        assert listening.lost()


def test_folder_that_is_not_there_is_listened_to_once_it_is(tmp_path: Path) -> None:
    card = tmp_path / "no card"
    with closing(FileEvents()) as listening:
        assert listening.listen([card]) == []  # the search says that it is not there
        card.mkdir()
        assert listening.listen_again(card) is None
        (card / "a.jpg").write_bytes(b"x")
        assert wait_for(listening, card / "a.jpg")


def test_folder_without_events_is_a_trouble_and_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(FileEvents()) as listening:
        schedule = listening._observer.schedule

        def limited(handler: object, path: str, **options: object) -> object:
            if path.endswith("large"):
                raise OSError(28, "inotify watch limit reached")
            return schedule(handler, path, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(listening._observer, "schedule", limited)
        [trouble] = listening.listen([tmp_path / "large", tmp_path])
        assert (
            trouble
            == f"{tmp_path / 'large'}: no file events here (inotify watch limit reached); it is searched at intervals."
        )
        (tmp_path / "a.jpg").write_bytes(b"x")
        assert wait_for(listening, tmp_path / "a.jpg")
