"""Reading the log: one :class:`Row` per file, with what the model and the person say of it.

Reads rows in short statements, each over a few thousand files at most, since an open read keeps the ``-wal`` file from
shrinking, and holds a few hundred of them. A time is what the camera wrote with the corrections of its clock. Never
writes.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from edge.errors import LogError
from edge.log import events, opening, times
from edge.log.event_index import EventIndex
from edge.log.event_near import EventsNear

_BATCH, _SPAN = 500, 5_000
_FEW = 5_000
"""Of at most so many rows the events are worked out one by one, of more those of the whole log."""
_DEFAULTS: dict[str, Any] = {"all_models": False, "first_id": 0, "last_id": 2**63 - 1}

Starts = Mapping[str, datetime]
"""When the first deployment of each station began; an earlier time is a clock that was reset."""


@dataclass(frozen=True, slots=True)
class Row:
    """One file, or with ``all_models`` one file and model.

    Attributes:
        id: of the file in this log.
        source, path: as :mod:`edge.pathtext` writes them.
        taken_local: by the camera's clock, corrected; ISO 8601 without offset.
        original_local: as the camera wrote it.
        utc_offset, taken_source: see :class:`edge.photo.Taken`.
        time_flags: those of :class:`edge.photo.Taken`, and those of :mod:`edge.log.times`.
        failure_code, failure: None where there is a detection, or a later good read.
        tries: how often the file was read; more than once only after a failure.
        preview, burst, camera_serial, temperature_c: see :class:`edge.log.store.PhotoFacts`.
        duplicate_of: path of the first file with the same content.
        model_label, model_confidence, decision, top: the newest model's; None and empty where it failed.
        person_label: the first observation's of the newest review.
        event: the id of the event the photo belongs to.
        event_number: the events of a log counted from 1; means nothing beyond one query.
        damaged: decodes, but is visibly damaged.
    """

    id: int
    device: str
    source: str
    path: str
    station: str | None
    camera: str | None
    taken_local: str
    original_local: str
    utc_offset: str
    taken_source: str
    time_flags: tuple[str, ...]
    photo_id: int | None
    sha256: str | None
    width: int | None
    height: int | None
    camera_make: str | None
    camera_model: str | None
    camera_serial: str | None
    temperature_c: float | None
    burst: int | None
    preview: str
    damaged: bool
    duplicate_of: str | None
    failure_code: str | None
    failure: str | None
    tries: int
    classification_id: int
    model_label: str | None
    model_confidence: float | None
    decision: str | None
    top: tuple[tuple[str, float], ...]
    model_digest: str | None
    bundle_digest: str | None
    bundle: str | None
    runtime: str | None
    development: bool
    classified_utc: str | None
    review_id: int | None
    reviewed_by: str | None
    reviewed_utc: str | None
    person_label: str | None
    event: str | None = None
    event_number: int = 0

    @property
    def photo(self) -> str:
        """The whole path."""
        return join(self.source, self.path)

    @property
    def taken(self) -> str:
        """The corrected time, ISO 8601 with offset."""
        return self.taken_local + self.utc_offset

    @property
    def taken_original(self) -> str:
        """The time as the camera wrote it, ISO 8601 with offset."""
        return self.original_local + self.utc_offset

    @property
    def reviewed(self) -> bool:
        """Whether a person has looked at the photo."""
        return self.review_id is not None

    @property
    def label(self) -> str | None:
        """The person's label, else the model's."""
        return self.person_label or self.model_label

    @property
    def confidence(self) -> float | None:
        """The model's probability, 0 to 1; 1 where a person said the label."""
        return 1.0 if self.person_label else self.model_confidence


@dataclass(frozen=True)
class Filter:
    """Which rows; everything None or False means all.

    Attributes:
        species: a label, any case, as people type it.
        since, until: ISO 8601. A time as ``until`` is excluded, a day is included. Without an offset they are the
            camera's own clock, corrected.
        below: only detections that no person has decided, with a confidence below this.
        newest: at most so many rows, the last ones written.
        all_models: one row per model instead of the newest model's.
    """

    species: str | None = None
    station: str | None = None
    since: str | None = None
    until: str | None = None
    below: float | None = None
    newest: int | None = None
    all_models: bool = False

    def __post_init__(self) -> None:
        """Refuse a time that is none, and what no log can hold: :class:`edge.errors.ConfigError`."""
        for name in ("since", "until"):
            if (text := getattr(self, name)) is not None:
                _moment(text, name)
        for name in ("species", "station"):
            if (text := getattr(self, name)) is not None:
                times.check_text(text, name)


EVERYTHING = Filter()

STATES = {
    "unreviewed": "photo_id IS NOT NULL AND review_id IS NULL",
    "reviewed": "review_id IS NOT NULL",
    "failed": "failure IS NOT NULL",
    "all": "1",
}
"""Sets of photos that the review page shows, as conditions."""


def join(source: str, path: str) -> str:
    """A source folder and a path below it as one path."""
    return f"{source.rstrip('/')}/{path}"


# An unreadable file whose path was read well later is answered for by that later row.
_SHOWN = "NOT (f.photo_id IS NULL AND f.failure_closed_utc IS NOT NULL)"

# e is the file before this one in the order of names, see times.is_backwards.
_ROWS = f"""
SELECT f.id, f.device, f.source, f.path, f.station, f.camera, {times.corrected("f")} AS taken_local,
  f.taken_local AS original_local, f.utc_offset, f.taken_source, f.time_flags, f.seen_utc,
  e.path AS path_before, iif(e.taken_source = 'file', NULL, {times.corrected("e")}) AS local_before,
  f.photo_id, coalesce(p.sha256, f.sha256) AS sha256, p.width, p.height, p.camera_make, p.camera_model,
  p.camera_serial, p.temperature_c, p.burst, coalesce(p.preview, 'none') AS preview, f.tries,
  coalesce(p.damaged, 0) AS damaged, f.duplicate_of AS first_id, rtrim(d.source, '/') || '/' || d.path AS duplicate_of,
  iif(f.failure_closed_utc IS NULL, f.failure_code, NULL) AS failure_code,
  iif(f.failure_closed_utc IS NULL, f.failure_reason, NULL) AS failure,
  coalesce(c.id, 0) AS classification_id, c.label AS model_label, c.confidence AS model_confidence, c.decision, c.top,
  c.model_digest, c.bundle_digest, b.name AS bundle, c.runtime, coalesce(c.development, 0) AS development,
  c.created_utc AS classified_utc, r.id AS review_id, r.who AS reviewed_by, r.created_utc AS reviewed_utc,
  (SELECT label FROM observation WHERE review_id = r.id ORDER BY id LIMIT 1) AS person_label
FROM file f
LEFT JOIN photo p ON p.id = f.photo_id
LEFT JOIN file d ON d.id = f.duplicate_of
LEFT JOIN file e ON e.id = (SELECT x.id FROM file x WHERE x.device = f.device AND x.source = f.source
  AND x.path < f.path ORDER BY x.path DESC, x.size_bytes DESC, x.mtime_ns DESC LIMIT 1)
LEFT JOIN classification c ON c.photo_id = f.photo_id
  AND (:all_models OR c.id = (SELECT max(id) FROM classification WHERE photo_id = f.photo_id))
LEFT JOIN bundle b ON b.digest = c.bundle_digest
LEFT JOIN review r ON r.id = (SELECT max(id) FROM review WHERE photo_id = f.photo_id)
WHERE f.id BETWEEN :first_id AND :last_id AND {_SHOWN}
"""

_LABELS = f"""
SELECT id, coalesce(station, device || ':' || source), coalesce(person_label, model_label) AS label,
  (julianday(taken_local || utc_offset) - {times.EPOCH_DAY}) * 86400.0
FROM ({_ROWS}) WHERE first_id IS NULL AND taken_source <> 'file' AND label IS NOT NULL
ORDER BY id
"""


def rows(
    connection: sqlite3.Connection,
    wanted: Filter = EVERYTHING,
    *,
    event_gap_s: float = events.EVENT_GAP_S,
    starts: Starts | None = None,
) -> Iterator[Row]:
    """The files of a log in the order in which they were first seen, with their events.

    Args:
        event_gap_s: see :func:`edge.log.events.group`.
        starts: of the stations, where they are known, for the flags.

    Raises:
        LogError: the log cannot be read.
    """
    where, values = _where(wanted)
    connection.create_function("folded", 1, _folded, deterministic=True)
    last_id = _last_id(connection)
    if wanted.newest is not None and wanted.newest <= _FEW:
        beyond = _Beyond(starts or {}, EventsNear(connection, event_gap_s))
        yield from _newest(connection, where, values, beyond, last_id)
        return
    with reading():
        index = EventIndex(connection, event_gap_s)
    with closing(index):
        after = (0, -1) if wanted.newest is None else _before_newest(connection, where, values, last_id)
        blocks = _batches(connection, where, values, _Beyond(starts or {}, index), after, last_id)
        yield from itertools.islice(itertools.chain.from_iterable(blocks), wanted.newest)


def labels(connection: sqlite3.Connection) -> Iterator[list[tuple[int, str, str, float]]]:
    """Id, place, label (a person's first) and time of every file with a label, copies left out, some at a time.

    The time is in seconds since 1970, by the camera; files of which only their own time is known are left out.
    """
    for span in reversed(list(_spans_back(_last_id(connection)))):
        with reading():
            found = connection.execute(_LABELS, _DEFAULTS | span).fetchall()
        yield found


def shots(connection: sqlite3.Connection, event: events.Group) -> list[events.Shot]:
    """What is said of each photo of an event."""
    return [
        _shot(moment.key, row) for moment in event.moments for row in _fetch(connection, _ROWS, _only(moment.file_id))
    ]


def _shot(key: str, row: Row) -> events.Shot:
    if row.person_label:
        return events.Shot(key, row.person_label, 1.0)
    return events.Shot(key, row.model_label, row.model_confidence or 0.0, row.top, row.decision == "rollup")


def to_review(connection: sqlite3.Connection, state: str, *, skip: int = 0, most: int = 20) -> list[Row]:
    """Photos for a person to look at, the least certain first; copies of a photo are left out.

    Args:
        state: a key of :data:`STATES`.
        skip, most: for paging.
    """
    return _fetch(
        connection,
        f"SELECT * FROM ({_ROWS}) WHERE first_id IS NULL AND {STATES[state]}"
        " ORDER BY person_label IS NOT NULL, model_confidence, id LIMIT :most OFFSET :skip",
        _DEFAULTS | {"most": most, "skip": skip},
    )


def count_states(connection: sqlite3.Connection) -> dict[str, int]:
    """How many photos are in each of :data:`STATES`: counted anew after each correction, so no more than that is
    read of a row."""
    sums = ", ".join(f"coalesce(sum({condition}), 0)" for condition in STATES.values())
    with reading():
        found = connection.execute(
            f"SELECT {sums} FROM (SELECT f.photo_id,"
            " iif(f.failure_closed_utc IS NULL, f.failure_reason, NULL) AS failure,"
            " (SELECT max(id) FROM review WHERE photo_id = f.photo_id) AS review_id"
            f" FROM file f WHERE f.duplicate_of IS NULL AND {_SHOWN})"
        ).fetchone()
    return dict(zip(STATES, found, strict=True))


def one(connection: sqlite3.Connection, file_id: int, starts: Starts | None = None) -> Row:
    """One file's row, with the newest model's answer and without its event.

    Raises:
        LogError: there is no such row.
    """
    found = _fetch(connection, _ROWS, _only(file_id), _Beyond(starts or {}))
    if not found:
        raise LogError(f"the log has no row {file_id}. `fieldmark log` lists them.", code="missing")
    return found[0]


def answers(connection: sqlite3.Connection, photo_id: int | None) -> list[dict[str, Any]]:
    """What each model said of a photo, the newest last."""
    found = dicts(
        connection,
        "SELECT label, confidence, decision, top, b.name AS bundle, bundle_digest, c.model_digest AS model, runtime,"
        " development, created_utc FROM classification c JOIN bundle b ON b.digest = bundle_digest"
        " WHERE photo_id = ? ORDER BY c.id",
        photo_id,
    )
    return [each | {"top": json.loads(each["top"]), "development": bool(each["development"])} for each in found]


def reviews(connection: sqlite3.Connection, photo_id: int | None) -> list[dict[str, Any]]:
    """What people said of a photo, the newest last; observations as in :class:`edge.log.store.Observation`."""
    found = dicts(connection, "SELECT id, who, created_utc FROM review WHERE photo_id = ? ORDER BY id", photo_id)
    seen = (
        "SELECT label, count, sex, life_stage, behaviour, individual, comment FROM observation"
        " WHERE review_id = ? ORDER BY id"
    )
    return [each | {"observations": dicts(connection, seen, each["id"])} for each in found]


def known_labels(connection: sqlite3.Connection) -> list[str]:
    """Every label that a model of this log can say or a person has said, and the words that always exist."""
    with reading():
        from_models = connection.execute("SELECT labels FROM bundle").fetchall()
        from_people = connection.execute("SELECT DISTINCT label FROM observation").fetchall()
    labels = {label for row in from_models for label in json.loads(row[0])} | {row[0] for row in from_people}
    return sorted(labels - set(events.ALWAYS), key=str.casefold) + list(events.ALWAYS)


@dataclass(frozen=True)
class Totals:
    """How a log stands: files, different photos, open failures, reviewed photos, the newest row's time."""

    files: int
    photos: int
    failures: int
    reviewed: int
    last_seen_utc: str | None


def totals(connection: sqlite3.Connection) -> Totals:
    """Count a log."""
    with reading():
        found = connection.execute(
            "SELECT count(*), count(DISTINCT photo_id),"
            " coalesce(sum(failure_code IS NOT NULL AND failure_closed_utc IS NULL), 0),"
            " (SELECT count(DISTINCT photo_id) FROM review WHERE photo_id IS NOT NULL), max(seen_utc) FROM file"
            " WHERE NOT (photo_id IS NULL AND failure_closed_utc IS NOT NULL)"
        ).fetchone()
    return Totals(*found)


@contextmanager
def reading() -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise LogError(f"the log cannot be read: {opening.words(error)}", code=opening.code(error)) from error


@dataclass(frozen=True, slots=True)
class _Beyond:
    """What rows take from beyond their own columns."""

    starts: Starts
    events: EventIndex | EventsNear | None = None


def _only(file_id: int) -> dict[str, Any]:
    return _DEFAULTS | {"first_id": file_id, "last_id": file_id}


def _batches(
    connection: sqlite3.Connection,
    where: str,
    values: dict[str, Any],
    beyond: _Beyond,
    after: tuple[int, int],
    last_id: int,
) -> Iterator[list[Row]]:
    """All rows after a row and model, in statements that are over quickly, also where only a few rows are wanted. What
    is written meanwhile is left out, since its event is not known."""
    while after[0] <= last_id:
        span_end = after[0] + _SPAN
        found = _fetch(
            connection,
            f"SELECT * FROM ({_ROWS}) WHERE (id > :first_id OR classification_id > :after_model) AND {where}"
            " ORDER BY id, classification_id LIMIT :most",
            values | {"first_id": after[0], "last_id": min(span_end, last_id), "after_model": after[1], "most": _BATCH},
            beyond,
        )
        yield found
        after = (found[-1].id, found[-1].classification_id) if len(found) == _BATCH else (span_end + 1, -1)


def _last_id(connection: sqlite3.Connection) -> int:
    with reading():
        return int(connection.execute("SELECT coalesce(max(id), 0) FROM file").fetchone()[0])


def _spans_back(last_id: int) -> Iterator[dict[str, int]]:
    """The rows of a log in spans that one statement reads quickly, the last ones first."""
    for end in range(last_id, 0, -_SPAN):
        yield {"first_id": max(end - _SPAN + 1, 1), "last_id": end}


def _before_newest(connection: sqlite3.Connection, where: str, values: dict[str, Any], last_id: int) -> tuple[int, int]:
    """After which row and model the newest ones begin."""
    first, left = (1, 0), values["newest"]
    statement = (
        f"SELECT id, classification_id FROM ({_ROWS}) WHERE {where}"
        " ORDER BY id DESC, classification_id DESC LIMIT :newest"
    )
    for span in _spans_back(last_id):
        with reading():
            found = connection.execute(statement, values | span | {"newest": left}).fetchall()
        first, left = found[-1] if found else first, left - len(found)
        if not left:
            break
    return first[0], first[1] - 1


def _newest(
    connection: sqlite3.Connection, where: str, values: dict[str, Any], beyond: _Beyond, last_id: int
) -> list[Row]:
    statement = f"SELECT * FROM ({_ROWS}) WHERE {where} ORDER BY id DESC, classification_id DESC LIMIT :newest"
    found: list[Row] = []
    for span in _spans_back(last_id):
        found += _fetch(connection, statement, values | span | {"newest": values["newest"] - len(found)}, beyond)
        if len(found) == values["newest"]:
            break
    return found[::-1]


def _fetch(
    connection: sqlite3.Connection, statement: str, values: dict[str, Any], beyond: _Beyond | None = None
) -> list[Row]:
    beyond = beyond or _Beyond({})
    with reading():
        cursor = connection.execute(statement, values)
        names = [column[0] for column in cursor.description]
        found = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        event_of = beyond.events.of_files(each["id"] for each in found) if beyond.events else {}
    return [_row(each, beyond.starts, event_of) for each in found]


def dicts(connection: sqlite3.Connection, statement: str, value: int | None) -> list[dict[str, Any]]:
    """The rows of a statement with one value, each by column."""
    with reading():
        cursor = connection.execute(statement, (value,))
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _row(found: dict[str, Any], starts: Starts, event_of: dict[int, tuple[str, int]]) -> Row:
    found.pop("first_id")
    found["event"], found["event_number"] = event_of.get(found["id"], (None, 0))
    found["time_flags"] = _flags(found, starts)
    found["top"] = tuple((label, chance) for label, chance in json.loads(found["top"] or "[]"))
    found["damaged"], found["development"] = bool(found["damaged"]), bool(found["development"])
    return Row(**found)


def _flags(found: dict[str, Any], starts: Starts) -> tuple[str, ...]:
    """The flags that were written and those that follow from the other columns, of which some serve only for this."""
    written = tuple(found["time_flags"].split())
    seen_utc, path_before, local_before = (found.pop(name) for name in ("seen_utc", "path_before", "local_before"))
    local, first = found["taken_local"], starts.get(found["station"] or "")
    computed = times.flags(
        local=local, utc_offset=found["utc_offset"], written=written, seen_utc=seen_utc, starts=first
    )
    if found["taken_source"] != "file" and times.is_backwards(found["path"], local, path_before, local_before):
        computed += (times.BACKWARDS,)
    return written + computed


def _where(wanted: Filter) -> tuple[str, dict[str, Any]]:
    """The conditions of a filter over the columns of ``_ROWS``, and their values."""
    values = _DEFAULTS | {"all_models": wanted.all_models, "newest": wanted.newest}
    terms = ["1"]
    if wanted.species is not None:
        terms.append("folded(coalesce(person_label, model_label)) = :species")
        values["species"] = _folded(" ".join(unicodedata.normalize("NFC", wanted.species).split()))
    if wanted.station is not None:
        terms.append("station = :station")
        values["station"] = wanted.station
    if wanted.below is not None:
        terms.append("person_label IS NULL AND model_confidence < :below")
        values["below"] = wanted.below
    if wanted.since is not None:
        terms.append(_time(wanted.since, ">=", "since", values))
    if wanted.until is not None:
        terms.append(_time(wanted.until, "<", "until", values))
    return " AND ".join(terms), values


def _folded(label: str | None) -> str | None:
    """A label without its case, in every alphabet: SQLite's own NOCASE knows the letters of English alone."""
    return label and label.casefold()


def _moment(text: str, name: str) -> datetime:
    return times.parse(text, name, "a date or time such as 2024-05-01 or 2024-05-01T06:00")


def _time(text: str, comparison: str, name: str, values: dict[str, Any]) -> str:
    """A condition on the time. A day alone, as the end, means that this day is still in."""
    moment = _moment(text, name)
    if name == "until" and len(text) <= len("2024-05-01"):
        try:
            moment += timedelta(days=1)
        except OverflowError:  # the calendar's last day
            moment = datetime.max
    values[name] = times.as_camera(moment) if moment.tzinfo is None else moment.isoformat()
    if moment.tzinfo is None:
        return f"taken_local {comparison} :{name}"
    return f"julianday(taken_local || utc_offset) {comparison} julianday(:{name})"
