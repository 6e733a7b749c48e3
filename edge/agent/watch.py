"""Which photos are ready: found by searching the folders, and only once nobody writes them any more.

A search of the folders is the truth: at the start, at an interval, when events were lost, and when a folder comes back
after its card was out. File events are hints that make it quick, and what they name goes before a backlog. Never reads
a photo's content, never opens the log, never moves or deletes anything, and follows no links.
"""

from __future__ import annotations

import math
import os
import stat
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

from edge import pathtext
from edge.agent.config import Source
from edge.agent.lease import Look, Writer, look
from edge.agent.mounts import Mounts
from edge.agent.service import MOST_IDLE_S
from edge.photo import is_candidate_name

MOST_PENDING = 4_000
"""So many unfinished files are remembered at a time; the others wait for the next search."""

LOOK_S = 2.0
"""How often a source is looked at: its card may have been put in, or taken out and put in again."""
BREATH = 1_000
"""After so many files that need nothing, whoever takes the photos may finish what he holds."""
_SEARCH_SHARE = 10
"""A search that takes long, on a slow card with many files, is repeated no sooner than after ten times as long."""
_MOST_TROUBLES = 100

_INT64 = 2**63 - 1
_SKIPPED_FOLDERS = frozenset(
    {"$recycle.bin", "system volume information", "lost+found"}
    # Of network disks: recycle bins, thumbnails beside the photos, older states of everything.
    | {"#recycle", "@recycle", "@eadir", "#snapshot", "@recently-snapshot"}
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may be a photo, as it was when last looked at.

    Attributes:
        path: where it is.
        text: its path below the source, as :mod:`edge.pathtext` writes it.
        early: yielded since it was just closed, before it has settled: who wrote it may open it again.
        live: named by an event, so that somebody may wait for it; not of a backlog.
        old: in the log already, and to be classified by another model.
    """

    source: Source
    path: Path
    text: str
    size_bytes: int
    mtime_ns: int
    early: bool = field(default=False, compare=False)
    live: bool = field(default=False, compare=False)
    old: bool = field(default=False, compare=False)


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
        """Paths of files that were closed or moved in since, and of new folders; returns early if there are any or the
        agent stops."""

    def lost(self) -> bool:
        """Whether events were lost since the last call, so that the folders must be searched."""

    def listen_again(self, folder: Path) -> str | None:
        """Listen to a source's folder that has come back. Returns why it cannot."""


@dataclass(slots=True)
class _Pending:
    candidate: Candidate
    since_s: float  # by the monotonic clock: size and time have been the same since
    in_parts: bool = False  # it was yielded early and was not whole, so being closed says nothing more
    named: bool = False  # by an event, so that somebody may wait for it


class Watch:
    """Yields the photos of some folders, each once it is ready, and ``None`` before it waits.

    Ready means: nobody has the file open for writing, and either it was just closed or moved in, or its size and
    time have not changed for ``settle_s``. Where the kernel cannot say who writes, only the settle time counts. A file
    that was yielded early and put back must settle.

    ``None`` is for whoever takes the photos, to finish what he holds: nothing may come for a while.

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
        newest_first: bool = False,
        pause_s: float = 0.0,
        closed_s: Callable[[], float] = lambda: 0.0,
        old: Iterator[Candidate] | None = None,
        clock: Clock = Clock(),
        look: Callable[[Path], Look | None] = look,
        mounts: Mounts | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Set up; nothing is read yet.

        Args:
            known: whether a file needs nothing more. Asked for every file at every search, so it must be quick.
            hints: file events.
            settle_s, scan_interval_s: see :mod:`edge.agent.config`.
            newest_first: order of a backlog, folder by folder; else the oldest first.
            pause_s: rest after each photo that no event named.
            closed_s: how long from now no photo may be taken, at this time of day. Not asked by :meth:`backlog`.
            old: photos to take while nothing else is ready, as they are.
            clock, look, mounts: replaced in tests.
            say: told once of each folder that cannot be read. It is tried again at every search.
        """
        self._sources = sources
        self._known = known
        self._hints = hints
        self._settle_s = settle_s
        self._interval_s = scan_interval_s
        self._newest_first = newest_first
        self._pause_s = pause_s
        self._closed_s = closed_s
        self._old = old or iter(())
        self._clock = clock
        self._look = look
        self._mounts = mounts or Mounts()
        self._pending: dict[Path, _Pending] = {}
        self._new_folders: deque[Path] = deque()
        self._full = self._all_day = False
        self._say = say
        self._troubles: dict[Path, str] = {}
        self._roots = {source.path: _identity(source.path) for source in sources}
        self.already = 0

    @property
    def not_ready(self) -> int:
        """How many files were found that are not ready yet."""
        return len(self._pending)

    @property
    def not_read(self) -> int:
        """How many folders, or files in them, the last search could not look at."""
        return len(self._troubles)

    def put_back(self, candidate: Candidate) -> None:
        """Take a file again that changed after it was yielded, or was yielded early and is not whole."""
        if not candidate.old:
            now_s = self._clock.monotonic()
            self._pending[candidate.path] = _Pending(candidate, now_s, in_parts=candidate.early, named=candidate.live)

    def ready(self, stop: Stop) -> Iterator[Candidate | None]:
        """Yield photos as they become ready, until ``stop``."""
        with self._mounts:
            yield from self._ready(stop)

    def _ready(self, stop: Stop) -> Iterator[Candidate | None]:
        while not stop.is_set():
            yield from self._while_closed(stop)
            started_s = self._clock.monotonic()
            yield from self._search(stop, all_day=False)
            now_s = self._clock.monotonic()
            again_s = now_s + max(self._interval_s, _SEARCH_SHARE * (now_s - started_s))
            if self._full:
                again_s = now_s + max(1.0, self._settle_s)
            while not stop.is_set() and not self._must_search(again_s):
                yield from self._settled(stop)
                if old := next(self._old, None):
                    yield old
                    yield from self._pause(stop)
                yield from self._fresh(stop, 0.0 if old else self._rest_s(again_s))

    def backlog(self, stop: Stop, *, patience_s: float = 10.0) -> Iterator[Candidate | None]:
        """Yield the photos that are there now, and end.

        Args:
            patience_s: so long files that are not ready yet are waited for, after all others. What is left then is
                :attr:`not_ready`, for the next time.
        """
        more = self._all_day = True
        while more and not stop.is_set():
            more = False
            for candidate in self._search_and_wait(stop, patience_s):
                # Some were left out, and there was progress, so another search finds others.
                more = more or (self._full and candidate is not None)
                yield candidate
        for candidate in self._old:
            if stop.is_set():
                return
            yield candidate

    def _search_and_wait(self, stop: Stop, patience_s: float) -> Iterator[Candidate | None]:
        yield from self._search(stop, all_day=True)
        deadline_s = self._clock.monotonic() + patience_s
        while not stop.is_set():
            yield from self._settled(stop)
            now_s = self._clock.monotonic()
            if not self._pending or now_s >= deadline_s:
                return
            yield None
            self._hints.wait(min(deadline_s, self._next_look_s(now_s)) - now_s)

    def _must_search(self, again_s: float) -> bool:
        """Whether it is time, events were lost, a source has come or gone, or the time of day forbids to go on."""
        return self._hints.lost() or self._clock.monotonic() >= again_s or self._moved() or self._closed_s() > 0

    def _moved(self) -> bool:
        """Whether another folder may be now where a source was, as after a card was changed; listen to it then."""
        moved, remounted = False, self._mounts.changed()
        for source in self._sources:
            before, now = self._roots[source.path], _identity(source.path)
            # A card in the place of another can have its numbers.
            if now == before and not (remounted and self._mounts.concern(source.path)):
                continue
            moved, self._roots[source.path] = True, now
            if now is not None:
                if now != before:
                    self._say(f"{source.path}: {'another folder is' if before else 'it is'} there now, and searched.")
                if trouble := self._hints.listen_again(source.path):
                    self._say(trouble)
        return moved

    def _rest_s(self, again_s: float) -> float:
        """How long it may wait for events."""
        now_s = self._clock.monotonic()
        return max(0.0, min(again_s, self._next_look_s(now_s), now_s + LOOK_S) - now_s)

    def _while_closed(self, stop: Stop) -> Iterator[None]:
        """Wait for the time of day at which photos may be taken; what events name meanwhile, the search finds."""
        said = False
        while not stop.is_set() and (closed_s := self._closed_s()) > 0:
            if not said:
                hours, minutes = divmod(math.ceil(closed_s / 60), 60)
                self._say(f"outside the hours of [power] windows: photos wait for {hours} h {minutes} min.")
            said = True
            yield None
            self._hints.wait(min(closed_s, MOST_IDLE_S))  # the clock may be set meanwhile

    def _pause(self, stop: Stop) -> Iterator[Candidate | None]:
        if self._pause_s <= 0:
            return
        end_s = self._clock.monotonic() + self._pause_s
        while not stop.is_set() and (left_s := end_s - self._clock.monotonic()) > 0:
            yield from self._fresh(stop, min(left_s, MOST_IDLE_S))  # who rests for an hour still lives

    def _search(self, stop: Stop, *, all_day: bool) -> Iterator[Candidate | None]:
        """Go through all folders. What events name meanwhile goes before the next photo."""
        self._full, self.already = False, 0
        before, self._troubles = self._troubles, {}
        for source in self._sources:
            for candidate in scan(source, self._troubles, newest_first=self._newest_first):
                if stop.is_set() or not (all_day or self._closed_s() <= 0):
                    return
                yield from self._visit(candidate, stop)
        for folder, reason in self._troubles.items():
            if before.get(folder) != reason:
                self._say(f"{folder} cannot be read: {reason}. It is tried again at each search.")

    def _visit(self, candidate: Candidate, stop: Stop) -> Iterator[Candidate | None]:
        """A file that a search has found."""
        if self._known(candidate):
            self.already += 1
            self._pending.pop(candidate.path, None)
            if self.already % BREATH == 0:
                yield None
        elif candidate.path not in self._pending and len(self._pending) >= MOST_PENDING:
            self._full = True
        else:
            for ready in self._check(candidate, closed=False):
                yield from self._settled(stop)
                yield from self._of_backlog(ready, stop)

    def _fresh(self, stop: Stop, timeout_s: float) -> Iterator[Candidate | None]:
        """What events have named, and for a new folder all that is in it: files can be in it before the kernel tells
        of them."""
        if timeout_s > 0:
            yield None
        yield from self._hinted(self._hints.wait(timeout_s))
        while self._new_folders:
            for candidate in self._below(self._new_folders.popleft()):
                if stop.is_set():
                    return
                yield from self._hinted(self._hints.wait(0.0))
                if not self._known(candidate):
                    yield from self._check(candidate, closed=True)

    def _hinted(self, paths: Sequence[str]) -> Iterator[Candidate]:
        """Files that events named. Folders are put aside, since many photos may be in them."""
        for path in map(Path, paths):
            if candidate := self._find(path):
                if self._known(candidate):
                    self._pending.pop(candidate.path, None)
                else:
                    yield from self._check(candidate, closed=True)
            elif path not in self._new_folders and _is_folder(path):
                self._new_folders.append(path)

    def _below(self, folder: Path) -> Iterator[Candidate]:
        source = self._source_of(folder)
        if source is not None and all(map(_is_searched, folder.relative_to(source.path).parts)):
            yield from scan(source, self._troubles, below=folder, newest_first=self._newest_first)

    def _settled(self, stop: Stop) -> Iterator[Candidate | None]:
        """Look again at the unfinished files that may have settled by now. Where the kernel cannot say who writes, all
        of a backlog must settle."""
        yield from self._settled_of(stop, named=True)
        yield from self._settled_of(stop, named=False)

    def _settled_of(self, stop: Stop, *, named: bool) -> Iterator[Candidate | None]:
        now_s = self._clock.monotonic()
        due = [
            each for each in self._pending.values() if each.named is named and now_s >= each.since_s + self._settle_s
        ]
        for pending in due:
            if stop.is_set() or not (self._all_day or self._closed_s() <= 0):
                return
            if self._pending.get(pending.candidate.path) is pending:  # else an event has named it meanwhile
                for ready in self._check(pending.candidate, closed=False):
                    yield from (ready,) if named else self._of_backlog(ready, stop)

    def _of_backlog(self, ready: Candidate, stop: Stop) -> Iterator[Candidate | None]:
        """A photo that no event named: after those that events have named, and before a rest."""
        yield from self._fresh(stop, 0.0)
        yield from self._settled_of(stop, named=True)
        if not self._known(ready):  # an event may have named it just now
            yield ready
            yield from self._pause(stop)

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
            named = pending is not None and pending.named
            pending = self._pending[candidate.path] = _Pending(now, self._clock.monotonic(), in_parts, named)
        pending.named = pending.named or closed
        if found.writer is Writer.SOMEBODY:
            return
        settled = self._has_settled(found, pending)
        if settled or (closed and _may_be_early(found, pending)):
            del self._pending[candidate.path]
            if not self._known(now):
                yield replace(now, early=not settled, live=closed)

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
        source = self._source_of(path)
        if source is None or not is_candidate_name(path.name):
            return None
        below = path.relative_to(source.path)
        if not all(map(_is_searched, below.parts[:-1])):
            return None
        try:
            facts = path.lstat()
        except OSError:  # gone meanwhile
            return None
        return _candidate(source, str(below), facts.st_size, facts.st_mtime_ns)

    def _source_of(self, path: Path) -> Source | None:
        return next((source for source in self._sources if path.is_relative_to(source.path)), None)


def _may_be_early(found: Look, pending: _Pending) -> bool:
    """Whether a file that was just closed may be whole. An empty one is most often about to be filled."""
    return found.writer is Writer.NOBODY and found.size_bytes > 0 and not pending.in_parts


def _is_folder(path: Path) -> bool:
    """Whether it is a folder, and no link to one; also on a card that fails, or where nobody lets us look."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _identity(folder: Path) -> tuple[int, int] | None:
    """Which folder this is, whatever its name; None where there is none."""
    try:
        facts = os.stat(folder)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def again(candidate: Candidate) -> Candidate | None:
    """The file as it is now; None where it is gone."""
    try:
        facts = candidate.path.lstat()
    except OSError:
        return None
    return replace(candidate, size_bytes=facts.st_size, mtime_ns=_int64(facts.st_mtime_ns))


def scan(
    source: Source, troubles: dict[Path, str], *, below: Path | None = None, newest_first: bool = False
) -> Iterator[Candidate]:
    """Every candidate below a source, folder by folder, without following links.

    Of a folder its folders come first, by name, then its files by time, of one time by name; ``newest_first`` turns all
    of that round. Holds the names of one folder per level, not of the whole tree.

    Args:
        troubles: takes the folders that could not be read, with the reason.
        below: only what is in this folder of the source.
        newest_first: as cameras number their folders and files; else the oldest first.
    """
    start = "" if below is None or below == source.path else f"{below.relative_to(source.path)}/"
    waiting = [(start, _listing(source.path / start, troubles, newest_first))]
    while waiting:
        prefix, entries = waiting[-1]
        entry = next(entries, None)
        if entry is None:
            waiting.pop()
        elif entry.size_bytes == _FOLDER:
            prefix = f"{prefix}{entry.name}/"
            waiting.append((prefix, _listing(source.path / prefix, troubles, newest_first)))
        else:
            yield _candidate(source, prefix + entry.name, entry.size_bytes, entry.mtime_ns)


_FOLDER = -1


class _Entry(NamedTuple):
    name: str
    size_bytes: int  # or _FOLDER
    mtime_ns: int


def _listing(folder: Path, troubles: dict[Path, str], newest_first: bool) -> Iterator[_Entry]:
    """What a search wants of a folder, in order. Holds 100,000 entries in some 12 MB, of which the names have most."""
    names = _names(folder, troubles)
    names.sort(reverse=newest_first)
    sizes, times = array("q"), array("q")
    for name in names:
        size, time_ns = _size_and_time(folder, name, troubles)
        sizes.append(size)
        times.append(time_ns)
    for i in _in_order(times, newest_first):
        if sizes[i] != _GONE:
            yield _Entry(names[i], sizes[i], times[i])


_GONE = -2


def _names(folder: Path, troubles: dict[Path, str]) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if _is_wanted(entry)]
    except OSError as error:  # the card was pulled, or a folder is not for us
        _note(troubles, folder, error)
        return []


def _is_wanted(entry: os.DirEntry[str]) -> bool:
    if is_candidate_name(entry.name):
        return entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)
    return _is_searched(entry.name) and entry.is_dir(follow_symlinks=False)


def _size_and_time(folder: Path, name: str, troubles: dict[Path, str]) -> tuple[int, int]:
    try:
        facts = os.lstat(f"{folder}/{name}")
    except FileNotFoundError:
        return _GONE, 0
    except OSError as error:  # a failing card
        _note(troubles, folder / name, error)
        return _GONE, 0
    if stat.S_ISDIR(facts.st_mode):
        return _FOLDER, -_INT64  # its own time says little: copying makes a new one, FAT keeps the first
    return facts.st_size, _int64(facts.st_mtime_ns)


def _note(troubles: dict[Path, str], path: Path, error: OSError) -> None:
    if len(troubles) < _MOST_TROUBLES:
        troubles[path] = error.strerror or str(error)


def _in_order(times: array[int], newest_first: bool) -> Sequence[int]:
    """Places by time, of one time as they are. Most folders are in order by name already."""
    places = range(len(times))
    pairs = zip(times, islice(times, 1, None), strict=False)
    if all(before >= after if newest_first else before <= after for before, after in pairs):
        return places
    return array("l", sorted(places, key=times.__getitem__, reverse=newest_first))


def _is_searched(folder: str) -> bool:
    return not folder.startswith(".") and folder.lower() not in _SKIPPED_FOLDERS


def _candidate(source: Source, below: str, size_bytes: int, mtime_ns: int) -> Candidate:
    text = below if below.isascii() and "%" not in below else pathtext.to_text(below)
    return Candidate(source, source.path / below, text, size_bytes, _int64(mtime_ns))


def _int64(mtime_ns: int) -> int:
    """SQLite's integers end in the year 2262; file systems go on."""
    return max(-_INT64, min(_INT64, mtime_ns))
