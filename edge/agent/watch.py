"""Which photos are ready: found by searching the folders, and only once nobody writes them any more.

A search of the folders is the truth, at the start and at an interval; file events are hints that make it quick. Never
reads a photo's content, never opens the log, never moves or deletes anything, and follows no links.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from edge import pathtext
from edge.agent.config import Source
from edge.agent.lease import Look, Writer, look
from edge.photo import is_candidate

MOST_PENDING = 4_000
"""So many unfinished files are remembered at a time; the others wait for the next search."""

_INT64 = 2**63 - 1
_SKIPPED_FOLDERS = frozenset({"$recycle.bin", "system volume information", "lost+found"})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may be a photo, as it was when last looked at.

    Attributes:
        path: where it is.
        text: its path below the source, as :mod:`edge.pathtext` writes it.
        early: yielded since it was just closed, before it has settled: who wrote it may open it again.
    """

    source: Source
    path: Path
    text: str
    size_bytes: int
    mtime_ns: int
    early: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, so that a test can have its own: ``monotonic`` for waiting, ``wall`` to compare with file times."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


class Stop(Protocol):
    """Something that says when to stop, such as ``threading.Event``."""

    def is_set(self) -> bool:
        """Whether to stop."""


class Hints(Protocol):
    """Where file events come from. :class:`edge.agent.hints.FileEvents` is the real one."""

    def wait(self, timeout_s: float) -> Sequence[str]:
        """Paths of files that were closed or moved in since; returns early if there are any or the agent stops."""

    def lost(self) -> bool:
        """Whether events were lost since the last call, so that the folders must be searched."""


@dataclass(slots=True)
class _Pending:
    candidate: Candidate
    since_s: float  # by the monotonic clock: size and time have been the same since
    in_parts: bool = False  # it was yielded early and was not whole, so being closed says nothing more


class Watch:
    """Yields the photos of some folders, each once it is ready.

    Ready means: nobody has the file open for writing, and either it was just closed or moved in, or its size and
    time have not changed for ``settle_s``. Where the kernel cannot say who writes, only the settle time counts. A file
    that was yielded early and put back must settle.

    Attributes:
        already: how many files the last search found that need nothing more.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        known: Callable[[Candidate], bool],
        hints: Hints,
        settle_s: float,
        scan_interval_s: float = 60.0,
        clock: Clock = Clock(),
        look: Callable[[Path], Look | None] = look,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Set up; nothing is read yet.

        Args:
            known: whether a file needs nothing more. Asked for every file at every search, so it must be quick.
            hints: file events.
            settle_s, scan_interval_s: see :mod:`edge.agent.config`.
            clock, look: replaced in tests.
            say: told once of each folder that cannot be read. It is tried again at every search.
        """
        self._sources = sources
        self._known = known
        self._hints = hints
        self._settle_s = settle_s
        self._interval_s = scan_interval_s
        self._clock = clock
        self._look = look
        self._pending: dict[Path, _Pending] = {}
        self._full = False
        self._say = say
        self._troubles: dict[Path, str] = {}
        self.already = 0

    @property
    def not_ready(self) -> int:
        """How many files were found that are not ready yet."""
        return len(self._pending)

    def put_back(self, candidate: Candidate) -> None:
        """Take a file again that changed after it was yielded, or was yielded early and is not whole."""
        self._pending[candidate.path] = _Pending(candidate, self._clock.monotonic(), in_parts=candidate.early)

    def ready(self, stop: Stop) -> Iterator[Candidate]:
        """Yield photos as they become ready, until ``stop``."""
        while not stop.is_set():
            yield from self._search(stop)
            again_s = self._clock.monotonic() + (max(1.0, self._settle_s) if self._full else self._interval_s)
            while not stop.is_set() and not self._hints.lost():
                yield from self._settled(stop)
                now_s = self._clock.monotonic()
                if now_s >= again_s or stop.is_set():
                    break
                for path in self._hints.wait(min(again_s, self._next_look_s(now_s)) - now_s):
                    yield from self._hinted(path)

    def backlog(self, stop: Stop, *, patience_s: float = 10.0) -> Iterator[Candidate]:
        """Yield the photos that are there now, and end.

        Args:
            patience_s: so long files that are not ready yet are waited for, after all others. What is left then is
                :attr:`not_ready`, for the next time.
        """
        more = True
        while more and not stop.is_set():
            more = False
            for candidate in self._search_and_wait(stop, patience_s):
                more = self._full  # some were left out, and there was progress, so another search finds others
                yield candidate

    def _search_and_wait(self, stop: Stop, patience_s: float) -> Iterator[Candidate]:
        yield from self._search(stop)
        deadline_s = self._clock.monotonic() + patience_s
        while not stop.is_set():
            yield from self._settled(stop)
            now_s = self._clock.monotonic()
            if not self._pending or now_s >= deadline_s:
                return
            self._hints.wait(min(deadline_s, self._next_look_s(now_s)) - now_s)

    def _search(self, stop: Stop) -> Iterator[Candidate]:
        """Go through all folders."""
        self._full, self.already = False, 0
        before, self._troubles = self._troubles, {}
        for source in self._sources:
            for candidate in scan(source, self._troubles):
                if stop.is_set():
                    return
                if self._known(candidate):
                    self.already += 1
                    self._pending.pop(candidate.path, None)
                elif candidate.path not in self._pending and len(self._pending) >= MOST_PENDING:
                    self._full = True
                else:
                    yield from self._check(candidate, closed=False)
        for folder, reason in self._troubles.items():
            if before.get(folder) != reason:
                self._say(f"{folder} cannot be read: {reason}. It is tried again at each search.")

    def _settled(self, stop: Stop) -> Iterator[Candidate]:
        """Look again at the unfinished files that may have settled by now."""
        now_s = self._clock.monotonic()
        due = [each.candidate for each in self._pending.values() if now_s >= each.since_s + self._settle_s]
        for candidate in due:
            if stop.is_set():
                return
            yield from self._check(candidate, closed=False)

    def _hinted(self, path: str) -> Iterator[Candidate]:
        """A file that an event named."""
        if candidate := self._find(Path(path)):
            if self._known(candidate):
                self._pending.pop(candidate.path, None)
            else:
                yield from self._check(candidate, closed=True)

    def _check(self, candidate: Candidate, *, closed: bool) -> Iterator[Candidate]:
        """Yield a file if it is ready, else remember it."""
        found = self._look(candidate.path)
        if found is None:  # gone
            self._pending.pop(candidate.path, None)
            return
        now = replace(candidate, size_bytes=found.size_bytes, mtime_ns=_int64(found.mtime_ns))
        pending = self._pending.get(candidate.path)
        if pending is None or pending.candidate != now:
            in_parts = pending is not None and pending.in_parts
            pending = self._pending[candidate.path] = _Pending(now, self._clock.monotonic(), in_parts)
        if found.writer is Writer.SOMEBODY:
            return
        settled = self._has_settled(found, pending)
        if settled or (closed and _may_be_early(found, pending)):
            del self._pending[candidate.path]
            if not self._known(now):
                yield replace(now, early=not settled)

    def _has_settled(self, found: Look, pending: _Pending) -> bool:
        if self._clock.monotonic() - pending.since_s >= self._settle_s:
            return True
        return found.writer is Writer.NOBODY and self._clock.wall() - found.changed_s >= self._settle_s

    def _next_look_s(self, now_s: float) -> float:
        """When the next unfinished file may have settled; never at once, so that a long writer costs nothing."""
        soonest_s = min((each.since_s for each in self._pending.values()), default=float("inf")) + self._settle_s
        return max(soonest_s, now_s + max(0.25, self._settle_s / 4))

    def _find(self, path: Path) -> Candidate | None:
        """A file by its path, if a search would find it too."""
        for source in self._sources:
            if path.is_relative_to(source.path):
                below = path.relative_to(source.path)
                if not is_candidate(path) or not all(map(_is_searched, below.parts[:-1])):
                    return None
                try:
                    return _candidate(source, path, str(below), path.lstat())
                except OSError:  # gone meanwhile
                    return None
        return None


def _may_be_early(found: Look, pending: _Pending) -> bool:
    """Whether a file that was just closed may be whole. An empty one is most often about to be filled."""
    return found.writer is Writer.NOBODY and found.size_bytes > 0 and not pending.in_parts


def again(candidate: Candidate) -> Candidate | None:
    """The file as it is now; None where it is gone."""
    try:
        facts = candidate.path.lstat()
    except OSError:
        return None
    return replace(candidate, size_bytes=facts.st_size, mtime_ns=_int64(facts.st_mtime_ns))


def scan(source: Source, troubles: dict[Path, str]) -> Iterator[Candidate]:
    """Every candidate below a source, folder by folder in the order of names, without following links.

    Holds the names of one folder per level, not of the whole tree.

    Args:
        troubles: takes the folders that could not be read, with the reason.
    """
    waiting = [("", _entries(source.path, troubles))]
    while waiting:
        prefix, entries = waiting[-1]
        entry = next(entries, None)
        if entry is None:
            waiting.pop()
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                if _is_searched(entry.name):
                    waiting.append((f"{prefix}{entry.name}/", _entries(Path(entry.path), troubles)))
            elif is_candidate(path := Path(entry.path)) and entry.is_file(follow_symlinks=False):
                yield _candidate(source, path, prefix + entry.name, entry.stat(follow_symlinks=False))
        except FileNotFoundError:
            continue  # gone meanwhile
        except OSError as error:  # a failing card
            troubles[Path(entry.path)] = error.strerror or str(error)


def _entries(folder: Path, troubles: dict[Path, str]) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return iter(sorted(entries, key=lambda entry: entry.name))
    except OSError as error:  # the card was pulled, or a folder is not for us
        troubles[folder] = error.strerror or str(error)
        return iter(())


def _is_searched(folder: str) -> bool:
    return not folder.startswith(".") and folder.lower() not in _SKIPPED_FOLDERS


def _candidate(source: Source, path: Path, below: str, facts: os.stat_result) -> Candidate:
    return Candidate(source, path, pathtext.to_text(below), facts.st_size, _int64(facts.st_mtime_ns))


def _int64(mtime_ns: int) -> int:
    """SQLite's integers end in the year 2262; file systems go on."""
    return max(-_INT64, min(_INT64, mtime_ns))
