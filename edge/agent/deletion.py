"""Originals that a policy of the owner lets go. Without such a policy, nothing here deletes anything.

The row comes first: a deletion is planned in the log, durably, then done, then said to be done; after a power cut an
unfinished one is finished or dropped. Right before it, the file is looked at again, without following a link: it must
lie in its source, be a plain file, and hold the very content that was classified. Never deletes a row or a folder.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

from edge import pathtext
from edge.agent.config_upkeep import Delete
from edge.agent.days import Days
from edge.errors import LogError
from edge.log import store
from edge.log.store import FileKey, Log
from edge.photo import MAX_BYTES

MOST_AT_ONCE, MOST_S = 50, 5.0
"""So many originals, or those of so long a time, are one round: each is read whole before, from a card that may be
slow, and meanwhile nobody looks for photos or hears SIGTERM."""
_ROWS_AT_ONCE = 5_000
_BLOCK = 2**20


@dataclass(frozen=True, slots=True)
class Chosen:
    """A file that a policy lets go, as the log knows it.

    Attributes:
        why: in words, for the row.
    """

    file_id: int
    key: FileKey
    sha256: str
    why: str


@dataclass(frozen=True, slots=True)
class Deletions:
    """What one round did; ``kept`` says of files that a policy lets go why they are still there."""

    deleted: int = 0
    freed_bytes: int = 0
    kept: tuple[str, ...] = ()


def choose(log: sqlite3.Connection, policy: Delete, device: str, *, after_id: int, up_to_id: int) -> list[Chosen]:
    """Files of this device that a policy lets go, in the order of their rows; at most :data:`MOST_AT_ONCE`.

    The newest review goes before the newest model's answer: what a person called a fox is no empty frame. A photo that
    is damaged, or of which any try failed, is kept.

    Args:
        log: open for reading.
        after_id, up_to_id: only rows after the first and up to the second; they are old enough.
    """
    rows = log.execute(
        _CHOSEN,
        {
            "device": device, "after_id": after_id, "up_to_id": up_to_id, "most": MOST_AT_ONCE,
            "label": policy.label, "above": policy.above, "reviewed": policy.reviewed,
        },
    ).fetchall()  # fmt: skip
    return [Chosen(row[0], FileKey(device, *row[1:5]), row[5], _why(policy, row[6], row[7], row[8])) for row in rows]


def count(log: sqlite3.Connection, policy: Delete, device: str) -> int:
    """How many originals a policy would let go if all were old enough, for an owner who wants to know before.

    Args:
        log: open for reading.
    """
    found, after_id = 0, 0
    while chosen := choose(log, policy, device, after_id=after_id, up_to_id=2**62):
        found, after_id = found + len(chosen), chosen[-1].file_id
    return found


# An event that a person reviewed as a whole does not say what is in one photo, so only reviews of photos count.
_CHOSEN = """
SELECT f.id, f.source, f.path, f.size_bytes, f.mtime_ns, p.sha256, o.label, c.confidence, f.seen_utc
FROM file f
JOIN photo p ON p.id = f.photo_id
JOIN classification c ON c.id = (SELECT max(id) FROM classification WHERE photo_id = p.id)
LEFT JOIN review r ON r.id = (SELECT max(id) FROM review WHERE photo_id = p.id)
LEFT JOIN observation o ON o.id = (SELECT min(id) FROM observation WHERE review_id = r.id)
WHERE f.id > :after_id AND f.id <= :up_to_id AND f.device = :device AND NOT p.damaged
  AND (f.failure_code IS NULL OR f.failure_closed_utc IS NOT NULL)
  AND coalesce(o.label, c.label) = :label
  AND (SELECT count(*) FROM observation WHERE review_id = r.id) <= 1
  AND (o.label IS NOT NULL OR (NOT :reviewed AND c.confidence >= coalesce(:above, 0)))
  AND NOT EXISTS (SELECT 1 FROM deletion d WHERE d.file_id = f.id AND d.dropped_utc IS NULL)
ORDER BY f.id LIMIT :most
"""


def _why(policy: Delete, person: str | None, confidence: float, seen_utc: str) -> str:
    said = f"a person said {person}" if person else f"{policy.label} {confidence:.3f}"
    copied = f", copied to {pathtext.to_text(policy.copied_to)}" if policy.copied_to else ""
    return f"{said}, logged {seen_utc[:10]}{copied}"


class Deleter:
    """Carries out the policies, a few files at a time."""

    def __init__(
        self,
        log: Log,
        device: str,
        policies: Sequence[Delete],
        sources: Sequence[Path],
        days: Days,
        *,
        say: Callable[[str], None] = lambda line: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up, and finish or drop what an earlier run planned.

        Args:
            log: open for writing.
            sources: the folders of this run. What lies elsewhere is kept.
            days: how old a row is.
            say: told of each deletion, and once of each reason for which files are kept.
            monotonic: replaced in tests.

        Raises:
            LogError: the log cannot be written.
        """
        self._log, self._device, self._policies, self._say = log, device, policies, say
        self._days, self._monotonic = days, monotonic
        self._sources = {pathtext.to_text(source): source for source in sources}
        self._said: set[str] = set()
        self._stuck: set[int] = set()  # files of which a deletion failed: each try is two rows
        self._after: dict[str, int] = {}
        self._settle_planned()

    def round(self, now: datetime, *, clock_ok: bool, note: bool = True) -> Deletions:
        """Delete at most :data:`MOST_AT_ONCE` originals of each policy, for at most about :data:`MOST_S`; call it while
        no photo waits, some minutes apart.

        Args:
            now: with a time zone.
            clock_ok: whether the device knows the time. Without, nothing is old.
            note: whether the day may be noted; False where nothing is to be written but the log.

        Raises:
            LogError: the log cannot be read or written.
            DeviceError: the notes of days cannot be written.
        """
        if not clock_ok:
            return Deletions()
        deleted, freed_bytes, kept = set[int](), 0, list[str]()
        end_s = self._monotonic() + MOST_S
        chosen_now = self._next(now, note=note)
        for number, (policy, chosen) in enumerate(chosen_now):
            if self._monotonic() >= end_s:
                self._go_on_with(chosen_now[number:])
                break
            if chosen.file_id in deleted or chosen.file_id in self._stuck:
                continue
            trouble = self._delete(policy, chosen)
            if trouble:
                kept.append(f"{chosen.key.path}: {trouble}")
                self._say_once(f"policy {policy.name!r} keeps {chosen.key.path}: {trouble}.")
            else:
                deleted.add(chosen.file_id)
                freed_bytes += chosen.key.size_bytes
                self._say(f"{chosen.key.path} deleted by policy {policy.name!r}: {chosen.why}.")
        return Deletions(len(deleted), freed_bytes, tuple(kept))

    def _next(self, now: datetime, *, note: bool) -> list[tuple[Delete, Chosen]]:
        """The next files of each policy. One that is kept is asked again when all others were."""
        with closing(store.open_for_reading(self._log.path)) as connection:
            try:
                self._days.forget_other_logs(connection)
                if note:
                    self._days.note(connection, now)
                return [(each, chosen) for each in self._policies for chosen in self._next_of(each, connection, now)]
            except sqlite3.Error as error:
                raise LogError(f"{self._log.path}: the log cannot be read: {error}.") from error

    def _next_of(self, policy: Delete, connection: sqlite3.Connection, now: datetime) -> list[Chosen]:
        """Looks through some rows; the next call goes on from there, and after the last begins anew."""
        after_id = self._after.get(policy.name, 0)
        old_id = self._days.newest_row_before(now - timedelta(days=policy.older_days))
        up_to_id = min(old_id, after_id + _ROWS_AT_ONCE)
        found = choose(connection, policy, self._device, after_id=after_id, up_to_id=up_to_id)
        reached = found[-1].file_id if len(found) == MOST_AT_ONCE else up_to_id
        self._after[policy.name] = reached if reached < old_id else 0
        return found

    def _go_on_with(self, left: list[tuple[Delete, Chosen]]) -> None:
        """Have the next round begin with what this one had no time for."""
        for policy, chosen in reversed(left):
            self._after[policy.name] = chosen.file_id - 1

    def _delete(self, policy: Delete, chosen: Chosen) -> str | None:
        """Delete one file, or say why it is kept."""
        try:
            with _opened(self._sources, chosen.key) as found:
                found.check_may_go()
                found.check(chosen.sha256)
                copied_to = _copy(policy, chosen, found) if policy.copied_to else None
                self._check_still_goes(policy, chosen)
                planned = self._log.plan_deletion(
                    chosen.file_id, policy=policy.name, why=chosen.why, copied_to=copied_to
                )
                try:
                    found.delete()
                except _Kept as error:
                    self._log.deletion_dropped(planned, str(error))
                    self._stuck.add(chosen.file_id)
                    raise
                self._log.deletion_done(planned)
        except _Kept as error:
            return str(error)
        return None

    def _check_still_goes(self, policy: Delete, chosen: Chosen) -> None:
        """That nobody has reviewed it since it was chosen: reading it, and its copy, can take a while."""
        with closing(store.open_for_reading(self._log.path)) as connection:
            try:
                one = choose(connection, policy, self._device, after_id=chosen.file_id - 1, up_to_id=chosen.file_id)
            except sqlite3.Error as error:
                raise LogError(f"{self._log.path}: the log cannot be read: {error}.") from error
        if chosen not in one:
            raise _Kept("the log says something else of it since it was chosen")

    def _settle_planned(self) -> None:
        """What a power cut left between its plan and its end: said done if the file is gone, else dropped. A policy
        that still lets it go plans it anew."""
        for planned in self._log.planned_deletions():
            source = self._sources.get(planned.key.source)
            if source is None or not source.is_dir():
                continue  # a card that is not here now; the file on it may be gone or not
            if os.path.lexists(source / pathtext.from_text(planned.key.path)):
                self._log.deletion_dropped(planned.id, "interrupted before the file was deleted")
            else:
                self._log.deletion_done(planned.id)

    def _say_once(self, line: str) -> None:
        if line not in self._said and len(self._said) < 1000:
            self._said.add(line)
            self._say(line)


class _Kept(Exception):
    """Why a file is kept; never leaves this module."""


@dataclass(frozen=True, slots=True)
class _Found:
    """An open file and the open folder that it lies in: what is deleted is what was looked at."""

    descriptor: int
    folder: int
    name: str
    facts: os.stat_result

    def check(self, sha256: str) -> None:
        """That it holds what was classified."""
        if _digest(self.descriptor, self.facts.st_size) != sha256:
            raise _Kept("it has another content than when it was logged")

    def sync(self) -> None:
        """Have it on the disk, whoever wrote it: a power cut must not take the copy after the original."""
        try:
            os.fsync(self.descriptor)
            os.fsync(self.folder)
        except OSError as error:
            raise _Kept(f"it cannot be synced: {error.strerror}") from error

    def check_may_go(self) -> None:
        """That its folder can be written, so that no plan is made in vain each time."""
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=self.folder):
            raise _Kept("its folder may not be written by this user, or is mounted read-only")

    def delete(self) -> None:
        """Delete it, if the name still means the same file."""
        try:
            now = os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
            if _same(now) != _same(self.facts):
                raise _Kept("it changed meanwhile")
            os.unlink(self.name, dir_fd=self.folder)
            os.fsync(self.folder)
        except OSError as error:
            raise _Kept(f"it cannot be deleted: {error.strerror}") from error


def _same(facts: os.stat_result) -> tuple[int, ...]:
    return facts.st_dev, facts.st_ino, facts.st_mode, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


@contextmanager
def _opened(sources: Mapping[str, Path], key: FileKey) -> Iterator[_Found]:
    """A logged file, folder by folder from its source, none of which may be a link."""
    if key.source not in sources:
        raise _Kept("its source is not watched now")
    parts = PurePosixPath(pathtext.from_text(key.path)).parts
    if not parts or {"..", "/", "//"} & set(parts):
        raise _Kept("its path leaves the source")
    *folders, name = parts
    opened: list[int] = []
    try:
        try:
            opened.append(os.open(sources[key.source], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            for folder in folders:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                opened.append(os.open(folder, flags, dir_fd=opened[-1]))
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            opened.append(os.open(name, flags, dir_fd=opened[-1]))
            facts = os.fstat(opened[-1])
        except (OSError, ValueError) as error:
            raise _Kept(f"it cannot be opened: {getattr(error, 'strerror', None) or error}") from error
        if not stat.S_ISREG(facts.st_mode):
            raise _Kept("it is no plain file")
        if facts.st_size != key.size_bytes or facts.st_size > MAX_BYTES:
            raise _Kept("it has another size than when it was logged")
        yield _Found(opened[-1], opened[-2], name, facts)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _copy(policy: Delete, chosen: Chosen, found: _Found) -> str:
    """The path of a copy with the same content, that is another file."""
    assert policy.copied_to is not None
    place = pathtext.to_text(policy.copied_to)
    key = FileKey("", place, chosen.key.path, chosen.key.size_bytes, 0)
    try:
        with _opened({place: policy.copied_to}, key) as copy:
            if (copy.facts.st_dev, copy.facts.st_ino) == (found.facts.st_dev, found.facts.st_ino):
                raise _Kept("the copy is the file itself, under another name")
            copy.check(chosen.sha256)
            copy.sync()
    except _Kept as error:
        raise _Kept(f"there is no copy of it in {place}: {error}") from error
    return f"{place.rstrip('/')}/{chosen.key.path}"


def _digest(descriptor: int, length_bytes: int) -> str:
    digest = hashlib.sha256()
    at = 0
    try:
        while block := os.pread(descriptor, _BLOCK, at):
            digest.update(block)
            at += len(block)
    except OSError as error:  # a failing card
        raise _Kept(f"it cannot be read: {error.strerror}") from error
    return digest.hexdigest() if at == length_bytes else ""
