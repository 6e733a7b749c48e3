"""Photos on the disk against rows in the log: is anything lost, is anything twice.

Streams: holds neither the files nor the rows. Reads only, and no photo's content but that of files that are not what
their row says. Never repairs: the next run of the agent does.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from edge import pathtext
from edge.log import query

_BATCH = 500

LOST = frozenset({"missing", "changed", "unclassified", "folder not read"})
DOUBLE = frozenset({"twice", "answered twice"})
NOTED = frozenset({"gone", "source not there", "preview without photo", "preview missing"})
"""Kinds of findings. The first two sets make an audit fail.

``missing``: a file without a row. ``changed``: its row is of another size or time, and its content is in no row.
``unclassified``: a photo with neither an answer nor a failure. ``twice``: a file with more than one row. ``answered
twice``: more than one answer of one model. ``gone``: a row whose file is not there, without a deletion by a policy.
"""


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A file that gets a row: the folder as the log names it, and the path below; :mod:`edge.pathtext` writes both."""

    source: str
    path: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be, or worth knowing; ``kind`` is of :data:`LOST`, :data:`DOUBLE` or
    :data:`NOTED`."""

    kind: str
    what: str

    @property
    def fails(self) -> bool:
        """Whether something is lost or double."""
        return self.kind in LOST | DOUBLE


class Audit:
    """One audit; :meth:`run` yields what it finds and fills the counts.

    Attributes:
        counts: files on the disk, rows, deletions and the findings of each kind.
        failures: open failures by code.
    """

    def __init__(
        self, log: sqlite3.Connection, *, here: Callable[[str], Path], digest: Callable[[Path], str | None]
    ) -> None:
        """Set up; nothing is read yet.

        Args:
            here: where a path of the log lies on this machine, whether it is there or not.
            digest: SHA-256 of a file in hex, or None where it cannot be read.
        """
        self._log, self._here, self._digest = log, here, digest
        self.counts: Counter[str] = Counter()
        self.failures: dict[str, int] = {}

    @property
    def passed(self) -> bool:
        """Whether nothing is lost and nothing is double."""
        return not any(self.counts[kind] for kind in LOST | DOUBLE)

    def failed_words(self) -> str:
        """What is lost or double, in words."""
        return ", ".join(f"{self.counts[kind]} {kind}" for kind in sorted(LOST | DOUBLE) if self.counts[kind])

    def lines(self) -> list[str]:
        """The counts as text."""
        failed = ", ".join(f"{count} {code}" for code, count in self.failures.items())
        found = [f"{self.counts['files']} files on the disk, {self.counts['rows']} rows"]
        found += [
            f"{self.counts[name]} {name}" for name in ("touched", "deleted by policy", "previews") if self.counts[name]
        ]
        found += [f"failed: {failed}"] if failed else []
        return [", ".join(found) + ".", "Nothing lost, nothing twice." if self.passed else f"{self.failed_words()}."]

    def run(
        self, found: Iterable[OnDisk], previews: Path, troubles: Mapping[Path, str] = MappingProxyType({})
    ) -> Iterator[Finding]:
        """Compare.

        Args:
            found: every file below the sources; ``source`` is one of the log's or a new one.
            previews: the folder of the previews; it may not be there.
            troubles: folders that could not be read, filled while ``found`` is read.

        Raises:
            LogError: the log cannot be read.
        """
        with query.reading():
            for finding in self._all(found, previews, troubles):
                self.counts[finding.kind] += 1
                yield finding

    def _all(self, found: Iterable[OnDisk], previews: Path, troubles: Mapping[Path, str]) -> Iterator[Finding]:
        places = self._log.execute("SELECT DISTINCT device, source FROM file ORDER BY source, device").fetchall()
        for file in found:
            self.counts["files"] += 1
            yield from self._file(file, places)
        for path, reason in troubles.items():
            yield Finding("folder not read", f"{pathtext.to_text(path)}: {reason}")
        yield from self._rows()
        yield from self._photos()
        yield from self._previews(previews)
        self.failures = dict(
            self._log.execute(
                "SELECT failure_code, count(*) FROM file WHERE failure_code IS NOT NULL AND failure_closed_utc IS NULL"
                " GROUP BY 1 ORDER BY 1"
            )
        )

    def _file(self, file: OnDisk, places: list[tuple[str, str]]) -> Iterator[Finding]:
        """One file against the rows of its path, in whatever source and by whatever device they were written."""
        whole = _join(file.source, file.path)
        rows = [row for device, source in places for row in self._rows_of(device, source, whole)]
        exact = sum((size, mtime) == (file.size_bytes, file.mtime_ns) for _, size, mtime in rows)
        if exact > 1:
            yield Finding("twice", f"{whole}: {exact} rows")
        elif not rows:
            yield Finding("missing", whole)
        elif not exact and not self._is_known(whole):
            yield Finding("changed", whole)

    def _rows_of(self, device: str, source: str, whole: str) -> list[tuple[int, int, int]]:
        start = source.rstrip("/") + "/"
        if not whole.startswith(start):
            return []
        return self._log.execute(
            "SELECT id, size_bytes, mtime_ns FROM file WHERE device = ? AND source = ? AND path = ?",
            (device, source, whole.removeprefix(start)),
        ).fetchall()

    def _is_known(self, whole: str) -> bool:
        """Whether a file's content is in the log, though its time is another: copied, or on a card whose times
        are local ones."""
        sha256 = self._digest(self._here(whole))
        row = self._log.execute("SELECT 1 FROM photo WHERE sha256 = ?", (sha256,)).fetchone()
        if row is not None:
            self.counts["touched"] += 1
        return row is not None

    def _rows(self) -> Iterator[Finding]:
        """Every row against the disk."""
        folders: dict[str, Path | None] = {}
        after_id = 0
        while rows := self._log.execute(_FILES, (after_id, _BATCH)).fetchall():
            after_id = rows[-1][0]
            for _, source, path, deleted in rows:
                self.counts["rows"] += 1
                if source not in folders:
                    lies = self._here(source)
                    folders[source] = lies if lies.is_dir() else None  # a card that was taken out
                    if not lies.is_dir():
                        yield Finding("source not there", source)
                folder = folders[source]
                if folder is not None and not os.path.lexists(folder / pathtext.from_text(path)):
                    if deleted:
                        self.counts["deleted by policy"] += 1
                    else:
                        yield Finding("gone", _join(source, path))

    def _photos(self) -> Iterator[Finding]:
        after_id = 0
        while rows := self._log.execute(_UNCLASSIFIED, (after_id, _BATCH)).fetchall():
            after_id = rows[-1][0]
            yield from (
                Finding("unclassified", f"{_join(source, path)} (row {row_id})") for _, source, path, row_id in rows
            )
        # Not through the index that forbids it: it may be what is damaged.
        for photo_id, model in self._log.execute(
            "SELECT photo_id, model_digest FROM classification NOT INDEXED GROUP BY 1, 2 HAVING count(*) > 1"
        ).fetchall():
            yield Finding("answered twice", f"photo {photo_id} by model {model[:16]}")

    def _previews(self, previews: Path) -> Iterator[Finding]:
        for path in _files_two_deep(previews):
            self.counts["previews"] += 1
            row = self._log.execute("SELECT 1 FROM photo WHERE sha256 = ?", (path.stem,)).fetchone()
            if row is None:
                yield Finding("preview without photo", str(path))
        after_id = 0
        while rows := self._log.execute(_WITH_PREVIEW, (after_id, _BATCH)).fetchall():
            after_id = rows[-1][0]
            for _, sha256 in rows:
                if not (previews / sha256[:2] / f"{sha256}.jpg").is_file():
                    yield Finding("preview missing", sha256)


_FILES = """
SELECT f.id, f.source, f.path, d.id IS NOT NULL
FROM file f LEFT JOIN deletion d ON d.file_id = f.id AND d.dropped_utc IS NULL
WHERE f.id > ? ORDER BY f.id LIMIT ?
"""
_UNCLASSIFIED = """
SELECT p.id, f.source, f.path, f.id
FROM photo p LEFT JOIN file f ON f.id = (SELECT min(id) FROM file WHERE photo_id = p.id)
WHERE p.id > ? AND NOT EXISTS (SELECT 1 FROM classification WHERE photo_id = p.id)
  AND NOT EXISTS (SELECT 1 FROM file x WHERE x.photo_id = p.id AND x.failure_code IS NOT NULL
    AND x.failure_closed_utc IS NULL)
ORDER BY p.id LIMIT ?
"""
_WITH_PREVIEW = "SELECT id, sha256 FROM photo WHERE id > ? AND preview IN ('kept', 'blurred') ORDER BY id LIMIT ?"


def _files_two_deep(folder: Path) -> Iterator[Path]:
    """``ab/NAME.jpg`` below a folder, one folder's names at a time."""
    try:
        below = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except OSError:  # there are none yet
        return
    for name in below:
        with os.scandir(folder / name) as entries:
            yield from (Path(entry.path) for entry in entries if entry.name.endswith(".jpg"))


def _join(source: str | None, path: str | None) -> str:
    return f"{(source or '').rstrip('/')}/{path or ''}"
