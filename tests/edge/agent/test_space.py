from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.agent import space
from edge.agent.config_upkeep import Space
from edge.agent.space import MB, Guard, Level, Room, next_level

LIMITS = Space(warn_mb=1000, stop_previews_mb=500, stop_mb=100, ballast_mb=1)


def free(megabytes: float, files: int | None = None) -> Room:
    return Room(int(megabytes * MB), files, False)


class Disk:
    """A disk that loses space when told, and gives back the ballast's."""

    def __init__(self, folder: Path, megabytes: float) -> None:
        self.megabytes, self.ballast, self.said = megabytes, folder / "ballast", list[str]()
        self.guard = Guard(folder, LIMITS, ballast=self.ballast, look=self.look, say=self.said.append)

    def look(self, folder: Path) -> Room:
        return free(self.megabytes - (1 if self.ballast.exists() else 0))


def test_each_level_begins_below_its_limit() -> None:
    levels = [next_level(Level.PLENTY, free(mb), LIMITS) for mb in (1000, 999, 500, 499, 100, 99, 0)]
    assert [level.value for level in levels] == [0, 1, 1, 2, 2, 3, 3]


def test_level_is_left_only_with_a_margin() -> None:
    assert next_level(Level.ONLY_LOG, free(105), LIMITS) is Level.ONLY_LOG
    assert next_level(Level.ONLY_LOG, free(111), LIMITS) is Level.NO_PREVIEWS
    assert next_level(Level.WARN, free(1050), LIMITS) is Level.WARN
    assert next_level(Level.WARN, free(1101), LIMITS) is Level.PLENTY


def test_disk_that_wavers_around_a_limit_changes_the_level_once() -> None:
    levels = list(
        itertools.accumulate(
            (free(mb) for mb in (501, 499, 501, 498, 502, 499)),
            lambda level, room: next_level(level, room, LIMITS),
            initial=Level.PLENTY,
        )
    )
    assert levels[2:] == [Level.NO_PREVIEWS] * 5


def test_few_free_inodes_stop_previews_and_a_file_system_without_a_number_of_them_does_not() -> None:
    assert next_level(Level.PLENTY, free(9000, 999), LIMITS) is Level.NO_PREVIEWS
    assert next_level(Level.PLENTY, free(9000, 1000), LIMITS) is Level.PLENTY
    assert next_level(Level.PLENTY, free(9000, None), LIMITS) is Level.PLENTY


@given(st.sampled_from(Level), st.floats(0, 3000), st.floats(0, 3000))
def test_more_space_is_never_a_worse_level(level: Level, one: float, other: float) -> None:
    little, much = sorted((one, other))
    assert next_level(level, free(much), LIMITS) <= next_level(level, free(little), LIMITS)


@given(st.sampled_from(Level), st.floats(0, 3000))
def test_a_level_is_stable_under_the_same_space(level: Level, megabytes: float) -> None:
    once = next_level(level, free(megabytes), LIMITS)
    assert next_level(once, free(megabytes), LIMITS) is once


def test_ballast_takes_its_space_and_is_given_up_before_writing_stops(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 2000)
    assert disk.ballast.stat().st_size == MB
    assert disk.ballast.stat().st_blocks * 512 >= MB  # not a hole
    disk.megabytes = 99
    assert disk.guard.check() is Level.ONLY_LOG
    assert not disk.ballast.exists()
    assert "given up" in " ".join(disk.said)
    assert (disk.guard.previews, disk.guard.anything) == (False, False)


def test_ballast_that_saves_the_day_lets_writing_go_on(tmp_path: Path) -> None:
    limits = Space(warn_mb=20, stop_previews_mb=10, stop_mb=5, ballast_mb=2)
    megabytes = 100.0
    ballast = tmp_path / "ballast"
    guard = Guard(tmp_path, limits, ballast=ballast, look=lambda folder: free(megabytes - 2 * ballast.exists()))
    megabytes = 5.2  # 3.2 with the ballast; a level is left with a margin, but this one was not entered
    assert guard.check() is Level.NO_PREVIEWS
    assert guard.anything
    assert not ballast.exists()


def test_ballast_comes_back_only_where_it_leaves_plenty(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 50)
    assert not disk.ballast.exists()
    disk.megabytes = 1100.5
    assert disk.guard.check() is Level.PLENTY
    assert not disk.ballast.exists()
    disk.megabytes = 1200
    disk.guard.check()
    assert disk.ballast.stat().st_size == MB


def test_half_a_ballast_of_a_power_cut_is_made_whole(tmp_path: Path) -> None:
    (tmp_path / "ballast").write_bytes(b"x" * 10)
    assert Disk(tmp_path, 5000).ballast.stat().st_size == MB


def test_ballast_is_no_link(tmp_path: Path) -> None:
    other = tmp_path / "precious"
    other.write_bytes(b"photo")
    (tmp_path / "ballast").symlink_to(other)
    disk = Disk(tmp_path, 5000)
    assert not disk.ballast.is_symlink()
    disk.megabytes = 1
    disk.guard.check()
    assert other.read_bytes() == b"photo"


def test_ballast_that_cannot_be_made_is_said_once_and_tried_again(tmp_path: Path) -> None:
    """The disk is looked at every few seconds, for months."""
    (tmp_path / "ballast").mkdir()
    disk = Disk(tmp_path, 5000)
    for _ in range(3):
        disk.guard.check()
    assert [line for line in disk.said if "cannot be made" in line] == disk.said[:1]
    assert len(disk.said) == 1
    (tmp_path / "ballast").rmdir()
    disk.guard.check()
    assert disk.ballast.stat().st_size == MB


def test_each_change_of_level_is_said_once(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 2000)
    for megabytes in (800, 790, 400, 390, 2000):
        disk.megabytes = megabytes
        disk.guard.check()
    assert [line.split(" beside the log")[1][:10] for line in disk.said] == [", which is", ": no more ", ": plenty a"]


def test_room_is_what_the_file_system_says(tmp_path: Path) -> None:
    found = space.room(tmp_path)
    assert found.free_bytes > 0
    assert not found.read_only


def test_guard_of_a_real_folder_tells_it_as_json(tmp_path: Path) -> None:
    found = Guard(tmp_path, Space(0, 0, 0, 0)).as_json()
    assert (found["level"], found["ballast_bytes"]) == ("plenty", 0)
    assert list(tmp_path.iterdir()) == []


def test_ballast_that_is_not_to_be_made_is_given_up_all_the_same(tmp_path: Path) -> None:
    ballast = tmp_path / "ballast"
    ballast.write_bytes(b"x")
    Guard(tmp_path, LIMITS, ballast=ballast, lay_down=False, look=lambda folder: free(5000))
    assert ballast.stat().st_size == 1
    Guard(tmp_path, LIMITS, ballast=ballast, lay_down=False, look=lambda folder: free(1))
    assert not ballast.exists()


@pytest.mark.parametrize(("megabytes", "stays"), [(99, False), (101, True)])
def test_ballast_gives_way_before_a_log_is_opened_on_a_full_disk(tmp_path: Path, megabytes: float, stays: bool) -> None:
    ballast, said = tmp_path / "ballast", list[str]()
    ballast.write_bytes(b"x")
    look = lambda folder: free(megabytes)  # noqa: E731
    space.give_way(tmp_path / "log.db", ballast, LIMITS, look=look, say=said.append)
    assert ballast.exists() is stays
    assert len(said) == (not stays)
    space.give_way(tmp_path / "log.db", ballast, LIMITS, look=look, say=said.append)
    assert len(said) == (not stays)


def test_ballast_on_another_disk_than_the_log_or_without_a_folder_is_left_alone(tmp_path: Path) -> None:
    ballast = tmp_path / "ballast"
    ballast.write_bytes(b"x")
    space.give_way(tmp_path / "other" / "log.db", ballast, LIMITS)
    (tmp_path / "other").mkdir()
    space.give_way(tmp_path / "other" / "log.db", ballast, LIMITS, look=lambda folder: free(1))
    assert ballast.exists()
