"""How much room is left beside the log, and what is given up when it goes: a ladder with hysteresis.

Less than ``warn_mb``: said. Less than ``stop_previews_mb``: no more previews. Less than ``stop_mb``: the ballast file
is deleted, which was only there for this; and when that is used up as well, nothing is written any more but the log.
Photos are classified and logged on each step. Never touches a photo or the log.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.agent.config_upkeep import Space
from edge.errors import DeviceError

MB = 1_000_000
BALLAST_BELOW_ROOT = Path("var", "lib", "fieldmark", "ballast")
_BETTER_BY = 1.1
"""A level is left for a better one only with a tenth more than it needs, so that it does not flicker."""
_FEW_FILES = 1_000
_CHUNK = b"\0" * 2**16


class Level(enum.IntEnum):
    """What may still be written; a higher one allows less."""

    PLENTY = 0
    WARN = 1
    NO_PREVIEWS = 2
    ONLY_LOG = 3

    @property
    def word(self) -> str:
        """For people and for JSON."""
        return ("plenty", "low", "no previews", "only the log")[self]


@dataclass(frozen=True, slots=True)
class Room:
    """What a file system says of itself; ``free_files`` is None where it has no fixed number of them."""

    free_bytes: int
    free_files: int | None
    read_only: bool


def next_level(level: Level, room: Room, space: Space) -> Level:
    """The level after ``level``: worse at once, better only with a margin."""
    best = Level.PLENTY
    for worse, limit_mb in _limits(space):
        needed_bytes = limit_mb * MB * (_BETTER_BY if level >= worse else 1)
        if room.free_bytes < needed_bytes:
            best = worse
    if room.free_files is not None and room.free_files < _FEW_FILES:
        best = max(best, Level.NO_PREVIEWS)
    return best


def _limits(space: Space) -> tuple[tuple[Level, int], ...]:
    return (
        (Level.WARN, space.warn_mb),
        (Level.NO_PREVIEWS, space.stop_previews_mb),
        (Level.ONLY_LOG, space.stop_mb),
    )


def room(folder: Path) -> Room:
    """What is left on the file system of a folder, for users who are not root.

    Raises:
        DeviceError: the folder is not there.
    """
    try:
        facts = os.statvfs(folder)
    except OSError as error:
        raise DeviceError(f"{folder}: its free space cannot be read: {error.strerror}.", code="space") from error
    return Room(
        facts.f_bavail * facts.f_frsize,
        facts.f_favail if facts.f_files else None,
        bool(facts.f_flag & os.ST_RDONLY),
    )


class Guard:
    """Watches over the space of one file system and owns the ballast file on it.

    Attributes:
        level: as last looked at.
        room: as last looked at.
    """

    def __init__(
        self,
        folder: Path,
        space: Space,
        *,
        ballast: Path | None = None,
        lay_down: bool = True,
        look: Callable[[Path], Room] = room,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Set up and look once.

        Args:
            folder: of the log.
            ballast: the file; on the same file system. None where there is no place for one.
            lay_down: whether the file is made where there is plenty; one that is there is given up all the same.
            look: replaced in tests.
            say: told when the level changes.

        Raises:
            DeviceError: the folder is not there.
        """
        self._folder, self._space, self._look, self._say = folder, space, look, say
        self._ballast, self._may_lay_down = ballast, lay_down
        self._trouble: str | None = None  # with the ballast file, as last said
        self.level = Level.PLENTY
        self.room = look(folder)
        self.check()

    def check(self) -> Level:
        """Look again; a few microseconds. Gives up the ballast where it must, and lays it down again where there is
        plenty.

        Raises:
            DeviceError: the folder is gone.
        """
        before, level = self.level, self._read(self.level)
        if level is Level.ONLY_LOG and self._give_up():
            self._say(f"only {self.room.free_bytes // MB} MB were free beside the log: the ballast file was given up.")
            level = self._read(before)  # what it held counts at once, without the margin for getting better
        self.level = level
        if level != before:
            self._say(_sentence(level, self.room))
        if level is Level.PLENTY:
            self._lay_down()
        return level

    @property
    def previews(self) -> bool:
        """Whether previews may be written."""
        return self.level < Level.NO_PREVIEWS

    @property
    def anything(self) -> bool:
        """Whether anything but the log may be written."""
        return self.level < Level.ONLY_LOG

    @property
    def ballast_bytes(self) -> int:
        """How much there still is to give up."""
        try:
            return self._ballast.lstat().st_size if self._ballast else 0
        except OSError:
            return 0

    def as_json(self) -> dict[str, object]:
        """For the status file."""
        return {
            "free_bytes": self.room.free_bytes,
            "free_files": self.room.free_files,
            "read_only": self.room.read_only,
            "level": self.level.word,
            "ballast_bytes": self.ballast_bytes,
        }

    def _read(self, level: Level) -> Level:
        self.room = self._look(self._folder)
        return next_level(level, self.room, self._space)

    def _give_up(self) -> bool:
        return self._ballast is not None and _unlink(self._ballast, self._say_once)

    def _lay_down(self) -> None:
        """Make the ballast file where that leaves plenty. One that is half made, as after a power cut, is made anew."""
        if self._ballast is None or not self._may_lay_down:
            return
        length_bytes = self._space.ballast_mb * MB
        missing_bytes = length_bytes - self.ballast_bytes
        if missing_bytes == 0 or self.room.free_bytes - missing_bytes < self._space.warn_mb * MB * _BETTER_BY:
            return
        try:
            self._ballast.unlink(missing_ok=True)
            if length_bytes:
                _fill(self._ballast, length_bytes)
        except OSError as error:
            self._say_once(f"{self._ballast}: the ballast file cannot be made: {error.strerror}.")

    def _say_once(self, line: str) -> None:
        """It is tried again each time, and that is every few seconds, for months."""
        if line != self._trouble:
            self._say(line)
        self._trouble = line


def give_way(
    log: Path,
    ballast: Path,
    space: Space,
    *,
    look: Callable[[Path], Room] = room,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Give up the ballast file before the log is opened, if that is what it is for now: on a full disk SQLite cannot
    even open a log, and an agent that ended there would end at each start again.

    Args:
        log: the log's file, perhaps not there yet.
    """
    try:
        low = next_level(Level.PLENTY, look(log.parent), space) is Level.ONLY_LOG
    except DeviceError:  # there is no such folder; whoever opens the log says so
        return
    if low and ballast.parent == log.parent and _unlink(ballast, say):
        say(f"{log.parent} is all but full: the ballast file was given up.")


def _unlink(ballast: Path, say: Callable[[str], None]) -> bool:
    try:
        ballast.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        say(f"{ballast}: the ballast file cannot be deleted: {error.strerror}.")
        return False
    return True


def _fill(path: Path, length_bytes: int) -> None:
    """A file that really takes its space."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, length_bytes)
    except OSError:  # a file system that cannot promise space
        for _ in range(0, length_bytes, len(_CHUNK)):
            os.write(descriptor, _CHUNK)
        os.ftruncate(descriptor, length_bytes)
    finally:
        os.close(descriptor)


def _sentence(level: Level, room: Room) -> str:
    free = f"{room.free_bytes // MB} MB are free beside the log"
    match level:
        case Level.PLENTY:
            return f"{free}: plenty again."
        case Level.WARN:
            return f"{free}, which is little. Free some, or take the log and its previews home."
        case Level.NO_PREVIEWS:
            return f"{free}: no more previews are made. Photos are logged as before."
        case Level.ONLY_LOG:
            return f"{free}: nothing is written any more but the log. Free some space."
