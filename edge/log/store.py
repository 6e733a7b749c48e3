"""The detection log: one SQLite file, and every write to it.

One photo is one transaction, durable when the call returns (WAL and ``synchronous=FULL``, set in
:mod:`edge.log.opening`). Never decides what is in a photo, never deletes a row.
"""

from __future__ import annotations

import getpass
import json
import sqlite3
import time
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

from edge.errors import LogError
from edge.log import events, opening, times
from edge.log.opening import BELOW_ROOT as BELOW_ROOT
from edge.log.opening import BUSY_TIMEOUT_MS as BUSY_TIMEOUT_MS
from edge.log.opening import connect_read_only as connect_read_only
from edge.log.opening import open_for_reading as open_for_reading
from edge.log.opening import path_below as path_below
from edge.photo import Taken

MOST_WORDS, MOST_COMMENT = 100, 1000
MOST_COUNT = 9999

RETRY_AFTER_S = (60, 600, 3600)
"""How long after the first, second and third failure a file is tried again; then at each start of the agent."""
MOST_TRIES = 8
"""After so many tries with one model a failure is final, until another model comes."""
MOST_IN_BATCH, MOST_BATCH_S = 64, 2.0
"""A batch that grows beyond this is committed in parts, so that others who write wait no longer."""


@dataclass(frozen=True, slots=True)
class FileKey:
    """What makes a file the same file: ``source`` and ``path`` as :mod:`edge.pathtext` writes them."""

    device: str
    source: str
    path: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file and what is known without its content."""

    key: FileKey
    taken: Taken
    station: str | None = None
    camera: str | None = None


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """A photo's content.

    Attributes:
        sha256: in hex.
        width, height: stored size in pixels.
        camera_make, camera_model, camera_serial, temperature_c: as the camera wrote them.
        damaged: decodes, but is visibly damaged. Written again, False leaves what is in the log.
        burst: its number in its burst, from 1, where the camera says it.
        preview: what became of its preview: ``none`` (not made this time), ``kept``, ``blurred``, ``withheld`` (a
            person) or ``released`` (for space). Written again, ``none`` leaves what is in the log.
    """

    sha256: str
    width: int
    height: int
    camera_make: str | None = None
    camera_model: str | None = None
    damaged: bool = False
    camera_serial: str | None = None
    temperature_c: float | None = None
    burst: int | None = None
    preview: str = "none"


@dataclass(frozen=True, slots=True)
class BundleFacts:
    """A bundle as the log keeps it.

    Attributes:
        digest: SHA-256 of the manifest's bytes, hex.
        name: ``NAME-SEQUENCE``.
        model_digest: SHA-256 of the ``.tflite``, hex.
        labels: C names in the order of the logits.
        thresholds: C probabilities.
    """

    digest: str
    name: str
    model_digest: str
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    temperature: float


@dataclass(frozen=True, slots=True)
class Detection:
    """What a model says of a photo.

    Attributes:
        bundle: must be in the log already, see :meth:`Log.add_bundle`.
        label: the decided one.
        confidence: 0 to 1.
        decision: ``species``, ``rollup``, ``unknown`` or ``empty``.
        top: at most five (label, probability) pairs, most likely first.
        logits: little-endian float32, one per label.
        development: whether the bundle is signed with a development key.
    """

    bundle: BundleFacts
    runtime: str
    label: str
    confidence: float
    decision: str
    top: tuple[tuple[str, float], ...]
    logits: bytes
    development: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no detection.

    Attributes:
        code: the stable word of the error.
        reason: its message.
        retry: whether another try may go better although the file is the same; see :data:`RETRY_AFTER_S`.
        sha256: of the bytes, where they were read.
        model_digest: of the model in use; with another one the tries are counted anew.
    """

    code: str
    reason: str
    retry: bool = False
    sha256: str | None = None
    model_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """One thing that a person saw: a label (also ``empty``, ``unknown``, ``setup``) and how many, 1 to 9999."""

    label: str
    count: int = 1
    sex: str | None = None
    life_stage: str | None = None
    behaviour: str | None = None
    individual: str | None = None
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A file's row.

    Attributes:
        retry: whether it failed in a way that deserves another try.
        tries: how often it was read.
        next_try_utc: of a failure that is tried again in this run, else None.
    """

    file_id: int
    retry: bool
    tries: int = 1
    next_try_utc: str | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """A failed file whose next try is due."""

    file_id: int
    key: FileKey
    tries: int


@dataclass(frozen=True, slots=True)
class Alert:
    """A message about a photo; of several with one ``key`` only the first is kept and sent."""

    key: str
    channel: str
    text: str


@dataclass(frozen=True, slots=True)
class PendingAlert:
    """An :class:`Alert` that is to be sent now; ``tries`` counts those that failed."""

    id: int
    key: str
    channel: str
    text: str
    tries: int
    created_utc: str


@dataclass(frozen=True, slots=True)
class PlannedDeletion:
    """A deletion that was planned and neither done nor dropped, such as one that a power cut interrupted."""

    id: int
    file_id: int
    key: FileKey
    policy: str
    copied_to: str | None


@dataclass(frozen=True, slots=True)
class TimeShift:
    """A correction of a camera's clock; what is None holds for all.

    Attributes:
        seconds: added to the time that the camera wrote.
        since_local, until_local: the uncorrected times for which it holds, ISO 8601 without offset; the end is out.
        file_times: whether also times that are only the file's are corrected.
    """

    seconds: int
    reason: str
    who: str
    station: str | None = None
    since_local: str | None = None
    until_local: str | None = None
    device: str | None = None
    source: str | None = None
    file_times: bool = False


@dataclass(frozen=True, slots=True)
class _Run:
    """A row of ``agent_run``, and what a heartbeat needs to begin another."""

    id: int
    facts: dict[str, str | int | None]


@dataclass(slots=True)
class _Batch:
    """What is open of a batch: files since the last commit, since when, and whether SQLite gave some of them up."""

    files: int = 0
    began_s: float = field(default_factory=time.monotonic)
    broken: bool = False


def clean_words(text: str, what: str, most: int = MOST_WORDS) -> str:
    """What a person typed, so that the same words are the same text: composed characters, single spaces.

    Raises:
        LogError: nothing is left, it is longer than ``most`` characters, or holds what cannot be printed.
    """
    words = " ".join(unicodedata.normalize("NFC", text).split())
    if not 1 <= len(words) <= most or not words.isprintable():
        raise LogError(f"{what} is {ascii(text)[:120]}, expected 1 to {most} printable characters.", code="words")
    return words


def _clean(seen: Observation) -> Observation:
    """All but the label, which :meth:`Log.spelling` cleans."""
    if not 1 <= seen.count <= MOST_COUNT:
        raise LogError(f"the count is {seen.count}, expected 1 to {MOST_COUNT}.", code="count")
    comment = None if seen.comment is None else clean_words(seen.comment, "the comment", MOST_COMMENT)
    return replace(seen, comment=comment)


def user_name() -> str:
    """Who is at this machine, for reviews that do not say it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a user id without a name
        return "unknown"


class Log:
    """The log, open for writing. Make one with :func:`open_for_writing`; one thread uses it."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self.path = path
        self._batch: _Batch | None = None
        self._run: _Run | None = None

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was committed is on the disk already."""
        self._db.close()

    def check(self) -> None:
        """Read the whole file and see that its pages fit together.

        Raises:
            LogError: with code ``damaged``, or the file cannot be read.
        """
        with opening.ours(self.path):
            found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise LogError(f"{self.path}: {found}. {opening.CURES[sqlite3.SQLITE_CORRUPT]}", code="damaged")

    def seen(self, key: FileKey) -> Seen | None:
        """The row of this very file (same name, size and time), or None.

        Raises:
            LogError: the log cannot be read.
        """
        with opening.ours(self.path):
            row = self._db.execute(
                "SELECT id, failure_retry AND failure_closed_utc IS NULL, tries, next_try_utc FROM file"
                " WHERE device = ? AND source = ? AND path = ? AND size_bytes = ? AND mtime_ns = ?",
                (key.device, key.source, key.path, key.size_bytes, key.mtime_ns),
            ).fetchone()
        return Seen(row[0], bool(row[1]), *row[2:]) if row else None

    def sources(self, device: str) -> list[str]:
        """The folders of which a device has rows. From one to the next by the index, since DISTINCT reads all rows."""
        with opening.ours(self.path):
            rows = self._db.execute(
                "WITH RECURSIVE folder(source) AS (SELECT min(source) FROM file WHERE device = :device"
                " UNION ALL SELECT (SELECT min(source) FROM file WHERE device = :device AND source > folder.source)"
                " FROM folder WHERE source IS NOT NULL) SELECT source FROM folder WHERE source IS NOT NULL",
                {"device": device},
            )
            return [row[0] for row in rows]

    def retries(self, model_digest: str | None = None) -> set[int]:
        """Ids of the files that deserve another try at the start of a run.

        Args:
            model_digest: of the model in use; what was tried :data:`MOST_TRIES` times with another one is tried too.
                So is what could not be read for want of rights, which change neither size nor time.
        """
        with opening.ours(self.path):
            rows = self._db.execute(
                "SELECT id FROM file WHERE failure_code IS NOT NULL AND failure_closed_utc IS NULL AND failure_retry"
                " AND (tries < :most OR failure_code = 'denied' OR tried_model <> :model)",
                {"most": MOST_TRIES, "model": model_digest},
            )
            return {row[0] for row in rows}

    def due(self, now: datetime, most: int = 100) -> list[Due]:
        """Failed files whose next try is due, those that wait longest first.

        Args:
            now: with a time zone.
        """
        with opening.ours(self.path):
            rows = self._db.execute(
                "SELECT id, tries, device, source, path, size_bytes, mtime_ns FROM file"
                " WHERE next_try_utc <= ? ORDER BY next_try_utc LIMIT ?",
                (_text(now), most),
            ).fetchall()
        return [Due(row[0], FileKey(*row[2:]), row[1]) for row in rows]

    def classified(self, sha256: str, model_digest: str | None = None) -> bool:
        """Whether this model, or without one some model, has classified this content."""
        with opening.ours(self.path):
            row = self._db.execute(
                "SELECT 1 FROM photo JOIN classification ON photo_id = photo.id"
                " WHERE sha256 = :sha256 AND (:model IS NULL OR model_digest = :model) LIMIT 1",
                {"sha256": sha256, "model": model_digest},
            ).fetchone()
        return row is not None

    def add_bundle(self, bundle: BundleFacts) -> None:
        """Note a bundle before the first detection made with it; again does nothing."""
        with self._transaction():
            self._insert(
                "bundle",
                digest=bundle.digest,
                name=bundle.name,
                model_digest=bundle.model_digest,
                labels=json.dumps(bundle.labels, ensure_ascii=False),
                thresholds=json.dumps(bundle.thresholds),
                temperature=bundle.temperature,
            )

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Write several files together: one sync for all of them, for a backlog. Durable when the block ends, and not
        before. A file that the log refuses takes no other with it; any other error ends the block and undoes what was
        not committed yet.

        Decide first and write then: from the first file on the block holds the log against others who write.

        Raises:
            LogError: the log cannot be written. Take every file of the block again; what is in the log stays one row.
        """
        if self._batch is not None:
            raise LogError(f"{self.path}: a batch was begun inside another.", code="batch")
        self._batch = _Batch()
        try:
            yield
            with opening.ours(self.path):
                self._end_part(self._batch)
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        finally:
            self._batch = None

    def add_file(
        self,
        file: FileFacts,
        *,
        photo: PhotoFacts | None,
        detection: Detection | None,
        failure: Failure | None,
        alerts: Sequence[Alert] = (),
    ) -> int:
        """Write what became of one file, in one transaction that is durable on return, or in a batch at its end.

        With a photo alone, the file is another copy of a photo that is in the log already. Writing the same file
        again adds no row; it can only close the failure of the earlier try, or count another try.

        Args:
            alerts: messages about the photo, to be sent some time later. One whose key is there already is left out.

        Returns:
            The id of the file's row.

        Raises:
            LogError: the log cannot be written. Nothing of this file is in it then.
        """
        with self._transaction():
            photo_id = self._photo(photo) if photo else None
            file_id = self._file(file, photo_id, failure)
            if photo_id is not None and detection:
                self._classification(photo_id, detection)
            if photo_id is not None and not failure:
                self._close_failures(file_id, file.key, photo_id)
            now = _now_utc()
            for alert in alerts:
                self._insert("alert", **asdict(alert), photo_id=photo_id, created_utc=now, next_try_utc=now)
        return file_id

    def add_review(self, photo_sha256: str, observations: Sequence[Observation], who: str) -> int:
        """Write what a person saw in a photo. The newest review counts; earlier ones stay.

        Returns:
            The review's id.

        Raises:
            LogError: no observation, a count outside 1 to 9999, a label or comment that is empty or too long, or no
                such photo.
        """
        if not observations:
            raise LogError("a review needs at least one observation; write `empty` where nothing is to be seen.")
        observations = [replace(_clean(each), label=self.spelling(each.label)) for each in observations]
        who = clean_words(who, "who reviewed")
        with self._transaction():
            photo = self._db.execute("SELECT id FROM photo WHERE sha256 = ?", (photo_sha256,)).fetchone()
            if photo is None:
                raise LogError(f"{self.path}: there is no photo {photo_sha256[:12]} in this log.", code="missing")
            review = self._insert("review", photo_id=photo[0], who=who, created_utc=_now_utc())
            for observation in observations:
                self._insert("observation", review_id=review, **asdict(observation))
        return review

    def spelling(self, label: str) -> str:
        """A label that a person typed, in its one spelling: that of the fixed words, else of a model of this log, in
        whatever case it was typed; else as it was typed. ``Person`` would not be the person that events look for.

        Raises:
            LogError: it is empty or too long, or the log cannot be read.
        """
        label = clean_words(label, "the label")
        with opening.ours(self.path):
            rows = self._db.execute("SELECT labels FROM bundle").fetchall()
        known = [*events.ALWAYS, *(name for row in rows for name in json.loads(row[0]))]
        if label in known:
            return label
        return next((name for name in known if name.casefold() == label.casefold()), label)

    def set_preview(self, photo_sha256: str, state: str) -> None:
        """Write what became of a photo's preview, in the words of :class:`PhotoFacts`."""
        with self._transaction():
            self._db.execute("UPDATE photo SET preview = ? WHERE sha256 = ?", (state, photo_sha256))

    def add_shift(self, shift: TimeShift) -> int:
        """Write a correction of a camera's clock. Several add up; the opposite one undoes it.

        Returns:
            Its id.

        Raises:
            LogError: the reason or name is empty or too long.
        """
        words = {"reason": clean_words(shift.reason, "the reason", MOST_COMMENT), "who": clean_words(shift.who, "who")}
        with self._transaction():
            return self._insert("time_shift", **asdict(shift) | words, created_utc=_now_utc())

    def corrected(self, file: FileFacts) -> Taken:
        """When a file was taken, by all corrections that hold for it; it need not be in the log yet.

        Raises:
            LogError: the log cannot be read.
        """
        key, taken = file.key, file.taken
        with opening.ours(self.path):
            row = self._db.execute(
                f"SELECT {times.corrected('f')} FROM (SELECT ? AS taken_local, ? AS taken_source, ? AS station,"
                " ? AS device, ? AS source) f",
                (taken.local, taken.source, file.station, key.device, key.source),
            ).fetchone()
        return replace(taken, local=row[0])

    # What the agent did and will do

    def add_run(
        self,
        device: str,
        *,
        version: str,
        model_digest: str | None,
        boot_id: str | None,
        clock_ok: bool,
        once: bool = False,
    ) -> int:
        """Write that the agent has started. What lies between the runs of ``watch`` is dead time.

        Args:
            clock_ok: whether the device knows the time; without, nothing follows from the run's times.
            once: the run only drains a backlog, so that its end says nothing about the time after it.

        Returns:
            The run's id.
        """
        facts: dict[str, str | int | None] = {"device": device, "version": version, "model_digest": model_digest}
        facts |= {"boot_id": boot_id, "clock_ok": clock_ok, "once": once}
        with self._transaction():
            now = _now_utc()
            run_id = self._insert("agent_run", **facts, started_utc=now, alive_utc=now)
        self._run = _Run(run_id, facts)
        return run_id

    def heartbeat(self, *, clock_ok: bool) -> None:
        """Write that the run goes on. Each is a synced write: once in some minutes is enough.

        Where the device has learned the time since, or lost it, another run begins, since the earlier times mean
        something else. Does nothing before :meth:`add_run`.
        """
        if self._run is None:
            return
        if bool(self._run.facts["clock_ok"]) == clock_ok:
            self._write("UPDATE agent_run SET alive_utc = ? WHERE id = ?", _now_utc(), self._run.id)
            return
        facts = self._run.facts | {"clock_ok": clock_ok}
        with self._transaction():
            now = _now_utc()
            run_id = self._insert("agent_run", **facts, started_utc=now, alive_utc=now)
        self._run = _Run(run_id, facts)

    def end_run(self) -> None:
        """Write that the run ends as it should."""
        if self._run is not None:
            now = _now_utc()
            self._write("UPDATE agent_run SET alive_utc = ?, ended_utc = ? WHERE id = ?", now, now, self._run.id)
            self._run = None

    def pending_alerts(self, now: datetime, most: int = 100, *, but: Collection[str] = ()) -> list[PendingAlert]:
        """Messages that are to be sent now, those that wait longest first.

        Args:
            now: with a time zone.
            but: channels to leave out, so that many messages of one that rests hide nobody else's behind ``most``.
        """
        with opening.ours(self.path):
            rows = self._db.execute(
                "SELECT id, key, channel, text, tries, created_utc FROM alert"
                f" WHERE sent_utc IS NULL AND next_try_utc <= ? AND channel NOT IN ({', '.join('?' for _ in but)})"
                " ORDER BY next_try_utc, id LIMIT ?",
                (_text(now), *but, most),
            ).fetchall()
        return [PendingAlert(*row) for row in rows]

    def alert_sent(self, alert_id: int) -> None:
        """Write that a message has arrived."""
        self._write("UPDATE alert SET sent_utc = ?, last_error = NULL WHERE id = ?", _now_utc(), alert_id)

    def alert_failed(self, alert_id: int, error: str, next_try: datetime) -> None:
        """Write that a message did not arrive, and when it is tried again."""
        self._write(
            "UPDATE alert SET tries = tries + 1, last_error = ?, next_try_utc = ? WHERE id = ?",
            error[:MOST_COMMENT], _text(next_try), alert_id,
        )  # fmt: skip

    def plan_deletion(self, file_id: int, *, policy: str, why: str, copied_to: str | None = None) -> int:
        """Write that an original is about to be deleted; durable on return, and only then may it be deleted.

        Returns:
            The deletion's id. Planned again, the same one.

        Raises:
            LogError: there is no such file row.
        """
        with self._transaction():
            self._insert(
                "deletion", file_id=file_id, policy=policy, why=why, copied_to=copied_to, planned_utc=_now_utc()
            )
            row = self._db.execute(
                "SELECT id FROM deletion WHERE file_id = ? AND dropped_utc IS NULL", (file_id,)
            ).fetchone()
        return int(row[0])

    def deletion_done(self, deletion_id: int) -> None:
        """Write that the original is gone."""
        self._write("UPDATE deletion SET done_utc = ? WHERE id = ? AND dropped_utc IS NULL", _now_utc(), deletion_id)

    def deletion_dropped(self, deletion_id: int, why: str) -> None:
        """Write that the original was not deleted after all, such as since it has changed meanwhile."""
        self._write(
            "UPDATE deletion SET dropped_utc = ?, dropped_why = ? WHERE id = ? AND done_utc IS NULL",
            _now_utc(), why, deletion_id,
        )  # fmt: skip

    def planned_deletions(self) -> list[PlannedDeletion]:
        """Deletions that were neither done nor dropped. At a start: do or drop each of them first."""
        with opening.ours(self.path):
            rows = self._db.execute(
                "SELECT d.id, f.id, policy, copied_to, device, source, path, size_bytes, mtime_ns"
                " FROM deletion d JOIN file f ON f.id = file_id"
                " WHERE done_utc IS NULL AND dropped_utc IS NULL ORDER BY d.id"
            ).fetchall()
        return [PlannedDeletion(row[0], row[1], FileKey(*row[4:]), row[2], row[3]) for row in rows]

    def checkpoint_if_idle(self) -> bool:
        """Move what is in the ``-wal`` file into the log and empty it. Waits for nobody: while somebody reads or
        writes, nothing happens. Rows are durable without it; call it while no photo waits.

        Returns:
            Whether the ``-wal`` file is empty now.
        """
        if self._batch is not None:
            return False
        with opening.ours(self.path):
            self._db.execute("PRAGMA busy_timeout = 0")
            try:
                busy = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise
                busy = 1
            finally:
                self._db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        return not busy

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with opening.ours(self.path):
            if self._batch is not None:
                with self._part(self._batch):
                    yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk can have ended it already
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _part(self, batch: _Batch) -> Iterator[None]:
        """One file of a batch: all of it or nothing, without the others."""
        self._check_whole(batch)
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")
            batch.files, batch.began_s = 0, time.monotonic()
        self._db.execute("SAVEPOINT one")
        try:
            yield
        except BaseException:
            batch.broken = not self._db.in_transaction  # a full disk takes the others with it
            if not batch.broken:
                self._db.execute("ROLLBACK TO one")
                self._db.execute("RELEASE one")
            raise
        self._db.execute("RELEASE one")
        batch.files += 1
        if batch.files >= MOST_IN_BATCH or time.monotonic() - batch.began_s >= MOST_BATCH_S:
            self._end_part(batch)

    def _end_part(self, batch: _Batch) -> None:
        self._check_whole(batch)
        if self._db.in_transaction:
            self._db.execute("COMMIT")

    def _check_whole(self, batch: _Batch) -> None:
        if batch.broken:
            raise LogError(
                f"{self.path}: the batch was undone by an earlier error. Take its files again.", code="batch"
            )

    def _write(self, statement: str, *values: str | int | None) -> None:
        with self._transaction():
            self._db.execute(statement, values)

    def _insert(self, table: str, **values: str | int | float | bytes | None) -> int:
        """Insert a row, or leave the one that is there. Table and column names come from this file alone."""
        names = ", ".join(values)
        places = ", ".join(f":{name}" for name in values)
        # DO NOTHING, not OR IGNORE: the latter would also swallow broken checks and missing values.
        cursor = self._db.execute(f"INSERT INTO {table} ({names}) VALUES ({places}) ON CONFLICT DO NOTHING", values)
        return cursor.lastrowid or 0

    def _photo(self, photo: PhotoFacts) -> int:
        self._insert("photo", **asdict(photo))
        row = self._db.execute("SELECT id, preview, damaged FROM photo WHERE sha256 = ?", (photo.sha256,)).fetchone()
        if photo.preview not in ("none", row[1]):  # made later, or anew for another model's answer
            self._db.execute("UPDATE photo SET preview = ? WHERE id = ?", (photo.preview, row[0]))
        if photo.damaged and not row[2]:  # damage is looked for once a model has answered, which can be later
            self._db.execute("UPDATE photo SET damaged = 1 WHERE id = ?", (row[0],))
        return int(row[0])

    def _file(self, file: FileFacts, photo_id: int | None, failure: Failure | None) -> int:
        known = self.seen(file.key)
        if known:
            self._try_again(known, photo_id, failure)
            return known.file_id
        taken = file.taken
        return self._insert(
            "file",
            **asdict(file.key),
            station=file.station,
            camera=file.camera,
            taken_local=taken.local,
            utc_offset=taken.utc_offset,
            taken_source=taken.source,
            time_flags=" ".join(taken.flags),
            photo_id=photo_id,
            duplicate_of=self._first_file(photo_id),
            **_failure_columns(failure, tries=1),
            seen_utc=_now_utc(),
        )

    def _try_again(self, known: Seen, photo_id: int | None, failure: Failure | None) -> None:
        """Bring the row of a failed file up to date. A row that is good already stays as it is."""
        open_failure = "WHERE id = :file_id AND failure_code IS NOT NULL AND failure_closed_utc IS NULL"
        if photo_id is not None:  # where it was known already, this file can be the one that others are copies of
            self._db.execute(
                f"UPDATE file SET photo_id = :photo_id, duplicate_of = :first {open_failure}"
                " AND photo_id IS NOT :photo_id",
                {"photo_id": photo_id, "first": self._first_file(photo_id), "file_id": known.file_id},
            )
        if failure is None:
            self._db.execute(f"UPDATE file SET tries = tries + 1 {open_failure}", {"file_id": known.file_id})
            return
        tried = self._db.execute("SELECT tried_model FROM file WHERE id = ?", (known.file_id,)).fetchone()[0]
        tries = known.tries + 1 if tried in (None, failure.model_digest) else 1
        columns = _failure_columns(failure, tries)
        assignments = ", ".join(f"{name} = :{name}" for name in columns)
        self._db.execute(f"UPDATE file SET {assignments} {open_failure}", columns | {"file_id": known.file_id})

    def _first_file(self, photo_id: int | None) -> int | None:
        """The one file of a photo that is a copy of no other."""
        found = self._db.execute(
            "SELECT min(id) FROM file WHERE photo_id = ? AND duplicate_of IS NULL", (photo_id,)
        ).fetchone()
        return None if found[0] is None else int(found[0])

    def _classification(self, photo_id: int, detection: Detection) -> None:
        self._insert(
            "classification",
            photo_id=photo_id,
            model_digest=detection.bundle.model_digest,
            bundle_digest=detection.bundle.digest,
            runtime=detection.runtime,
            label=detection.label,
            confidence=detection.confidence,
            decision=detection.decision,
            top=json.dumps(detection.top, ensure_ascii=False),
            logits=detection.logits,
            development=detection.development,
            created_utc=_now_utc(),
        )

    def _close_failures(self, file_id: int, key: FileKey, photo_id: int) -> None:
        """A good read ends the failures of unreadable files at the same path, and of copies of the same photo."""
        self._db.execute(
            "UPDATE file SET failure_closed_by = :file_id, failure_closed_utc = :now, next_try_utc = NULL"
            " WHERE failure_code IS NOT NULL AND failure_closed_utc IS NULL AND (photo_id = :photo_id"
            " OR (photo_id IS NULL AND device = :device AND source = :source AND path = :path))",
            {"file_id": file_id, "photo_id": photo_id, "now": _now_utc()}
            | {"device": key.device, "source": key.source, "path": key.path},
        )


def open_for_writing(path: Path, *, make: bool = True) -> Log:
    """Open the log, make it where there is none, and bring an older one up to date.

    Args:
        make: whether a log is made where there is none.

    Raises:
        LogError: the file is no detection log, comes from a newer Fieldmark, or cannot be opened or synced; or it is
            not there, without ``make``.
    """
    return Log(opening.connect_for_writing(path, make=make), path)


def _failure_columns(failure: Failure | None, tries: int) -> dict[str, str | int | None]:
    """The columns of a file that tell of its failure; ``tries`` counts this one."""
    if failure is None:
        return {"tries": tries}
    waits = failure.retry and tries <= len(RETRY_AFTER_S)
    return {
        "failure_code": failure.code,
        "failure_reason": failure.reason,
        "failure_retry": int(failure.retry),
        "sha256": failure.sha256,
        "tries": tries,
        "next_try_utc": _text(datetime.now(UTC) + timedelta(seconds=RETRY_AFTER_S[tries - 1])) if waits else None,
        "tried_model": failure.model_digest,
    }


def _now_utc() -> str:
    return _text(datetime.now(UTC))


def _text(moment: datetime) -> str:
    """A time as the log keeps it, so that texts compare as times do."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")
