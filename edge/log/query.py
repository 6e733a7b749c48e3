"""Reading the log: one :class:`Row` per file, with what the model and the person say of it.

Reads rows in short statements of a few hundred, since an open read keeps the ``-wal`` file from shrinking. Only the
times of all files are read at once, for the events. Never writes.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from edge.errors import ConfigError, LogError
from edge.log import events

_BATCH = 500
_DEFAULTS: dict[str, Any] = {"all_models": False, "after_id": 0, "file_id": None}


@dataclass(frozen=True, slots=True)
class Row:
    """One file, or with ``all_models`` one file and model.

    Attributes:
        id: of the file in this log.
        source, path: as :mod:`edge.pathtext` writes them.
        taken_local, utc_offset, taken_source, time_flags: see :class:`edge.photo.Taken`.
        failure_code, failure: None where there is a detection, or a later good read.
        duplicate_of: path of the first file with the same content.
        model_label, model_confidence, decision, top: the newest model's; None and empty where it failed.
        person_label: the first observation's of the newest review.
        event: the id of the event the photo belongs to.
        damaged: decodes, but is visibly damaged.
    """

    id: int
    device: str
    source: str
    path: str
    station: str | None
    camera: str | None
    taken_local: str
    utc_offset: str
    taken_source: str
    time_flags: tuple[str, ...]
    photo_id: int | None
    sha256: str | None
    width: int | None
    height: int | None
    camera_make: str | None
    camera_model: str | None
    damaged: bool
    duplicate_of: str | None
    failure_code: str | None
    failure: str | None
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

    @property
    def photo(self) -> str:
        """The whole path."""
        return join(self.source, self.path)

    @property
    def taken(self) -> str:
        """ISO 8601 with offset."""
        return self.taken_local + self.utc_offset

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
        species: a label, any case.
        since, until: ISO 8601. A time as ``until`` is excluded, a day is included. Without an offset they are the
            camera's own clock.
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
        """Refuse a time that is none: :class:`edge.errors.ConfigError`."""
        for name in ("since", "until"):
            if text := getattr(self, name):
                _moment(text, name)


EVERYTHING = Filter()

STATES = {
    "unreviewed": "photo_id IS NOT NULL AND review_id IS NULL",
    "reviewed": "review_id IS NOT NULL",
    "failed": "failure IS NOT NULL",
    "all": "1",
}
"""Sets of photos that the review page shows, as conditions."""

ALWAYS = (events.EMPTY, events.PERSON, "unknown", "setup")
"""Labels that a person can give whatever the model knows; ``setup`` is the crew at the camera."""


def join(source: str, path: str) -> str:
    """A source folder and a path below it as one path."""
    return f"{source.rstrip('/')}/{path}"


# The last line: an unreadable file whose path was read well later is answered for by that later row.
_ROWS = """
SELECT f.id, f.device, f.source, f.path, f.station, f.camera, f.taken_local, f.utc_offset, f.taken_source,
  f.time_flags, f.photo_id, coalesce(p.sha256, f.sha256) AS sha256, p.width, p.height, p.camera_make, p.camera_model,
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
LEFT JOIN classification c ON c.photo_id = f.photo_id
  AND (:all_models OR c.id = (SELECT max(id) FROM classification WHERE photo_id = f.photo_id))
LEFT JOIN bundle b ON b.digest = c.bundle_digest
LEFT JOIN review r ON r.id = (SELECT max(id) FROM review WHERE photo_id = f.photo_id)
WHERE f.id >= :after_id AND (:file_id IS NULL OR f.id = :file_id)
  AND NOT (f.photo_id IS NULL AND f.failure_closed_utc IS NOT NULL)
"""

_MOMENTS = """
SELECT f.id, coalesce(substr(p.sha256, 1, 16), 'file-' || f.id), coalesce(f.station, f.device || ':' || f.source),
  round((coalesce(julianday(f.taken_local || f.utc_offset), 0) - 2440587.5) * 86400.0, 3) AS taken_s,
  f.taken_source <> 'file'
FROM file f LEFT JOIN photo p ON p.id = f.photo_id
WHERE NOT (f.photo_id IS NULL AND f.failure_closed_utc IS NOT NULL)
ORDER BY 3, taken_s, f.id
"""


def rows(
    connection: sqlite3.Connection, wanted: Filter = EVERYTHING, *, event_gap_s: float = events.EVENT_GAP_S
) -> Iterator[Row]:
    """The files of a log in the order in which they were first seen.

    Args:
        event_gap_s: see :func:`edge.log.events.group`.

    Raises:
        LogError: the log cannot be read.
    """
    where, values = _where(wanted)
    event_of = {moment.file_id: event.id for event in groups(connection, event_gap_s) for moment in event.moments}
    found = _newest(connection, where, values) if wanted.newest is not None else _batches(connection, where, values)
    for row in found:
        yield replace(row, event=event_of.get(row.id))


def groups(connection: sqlite3.Connection, event_gap_s: float = events.EVENT_GAP_S) -> Iterator[events.Group]:
    """The events of a log, station by station. Holds a :class:`edge.log.events.Moment` of every file."""
    with reading():
        reviewed = {row[0] for row in connection.execute("SELECT event FROM review WHERE event IS NOT NULL")}
        found = connection.execute(_MOMENTS).fetchall()
    return events.group((events.Moment(*row) for row in found), event_gap_s, reviewed)


def shots(connection: sqlite3.Connection, event: events.Group) -> list[events.Shot]:
    """What is said of each photo of an event."""
    return [
        events.Shot(moment.key, row.label, row.confidence or 0.0, () if row.person_label else row.top)
        for moment in event.moments
        for row in _fetch(connection, _ROWS, _DEFAULTS | {"file_id": moment.file_id})
    ]


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
    """How many photos are in each of :data:`STATES`."""
    sums = ", ".join(f"coalesce(sum({condition}), 0)" for condition in STATES.values())
    with reading():
        found = connection.execute(f"SELECT {sums} FROM ({_ROWS}) WHERE first_id IS NULL", _DEFAULTS).fetchone()
    return dict(zip(STATES, found, strict=True))


def one(connection: sqlite3.Connection, file_id: int) -> Row:
    """One file's row, with the newest model's answer and without its event.

    Raises:
        LogError: there is no such row.
    """
    found = _fetch(connection, _ROWS, _DEFAULTS | {"file_id": file_id})
    if not found:
        raise LogError(f"the log has no row {file_id}. `fieldmark log` lists them.", code="missing")
    return found[0]


def answers(connection: sqlite3.Connection, photo_id: int | None) -> list[dict[str, Any]]:
    """What each model said of a photo, the newest last."""
    found = _dicts(
        connection,
        "SELECT label, confidence, decision, top, b.name AS bundle, bundle_digest, c.model_digest AS model, runtime,"
        " development, created_utc FROM classification c JOIN bundle b ON b.digest = bundle_digest"
        " WHERE photo_id = ? ORDER BY c.id",
        photo_id,
    )
    return [each | {"top": json.loads(each["top"]), "development": bool(each["development"])} for each in found]


def reviews(connection: sqlite3.Connection, photo_id: int | None) -> list[dict[str, Any]]:
    """What people said of a photo, the newest last; observations as in :class:`edge.log.store.Observation`."""
    found = _dicts(connection, "SELECT id, who, created_utc FROM review WHERE photo_id = ? ORDER BY id", photo_id)
    seen = (
        "SELECT label, count, sex, life_stage, behaviour, individual, comment FROM observation"
        " WHERE review_id = ? ORDER BY id"
    )
    return [each | {"observations": _dicts(connection, seen, each["id"])} for each in found]


def known_labels(connection: sqlite3.Connection) -> list[str]:
    """Every label that a model of this log can say or a person has said, and the words that always exist."""
    with reading():
        from_models = connection.execute("SELECT labels FROM bundle").fetchall()
        from_people = connection.execute("SELECT DISTINCT label FROM observation").fetchall()
    labels = {label for row in from_models for label in json.loads(row[0])} | {row[0] for row in from_people}
    return sorted(labels - set(ALWAYS), key=str.casefold) + list(ALWAYS)


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
        raise LogError(f"the log cannot be read: {error}.") from error


def _batches(connection: sqlite3.Connection, where: str, values: dict[str, Any]) -> Iterator[Row]:
    """All rows, in statements that are over quickly."""
    after_id, after_model = 0, -1
    while True:
        found = _fetch(
            connection,
            f"SELECT * FROM ({_ROWS}) WHERE (id > :after_id OR classification_id > :after_model) AND {where}"
            " ORDER BY id, classification_id LIMIT :most",
            values | {"after_id": after_id, "after_model": after_model, "most": _BATCH},
        )
        yield from found
        if len(found) < _BATCH:
            return
        after_id, after_model = found[-1].id, found[-1].classification_id


def _newest(connection: sqlite3.Connection, where: str, values: dict[str, Any]) -> Iterator[Row]:
    found = _fetch(
        connection,
        f"SELECT * FROM ({_ROWS}) WHERE {where} ORDER BY id DESC, classification_id DESC LIMIT :newest",
        values,
    )
    return reversed(found)


def _fetch(connection: sqlite3.Connection, statement: str, values: dict[str, Any]) -> list[Row]:
    with reading():
        cursor = connection.execute(statement, values)
        names = [column[0] for column in cursor.description]
        return [_row(dict(zip(names, row, strict=True))) for row in cursor.fetchall()]


def _dicts(connection: sqlite3.Connection, statement: str, value: int | None) -> list[dict[str, Any]]:
    with reading():
        cursor = connection.execute(statement, (value,))
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _row(found: dict[str, Any]) -> Row:
    found.pop("first_id")
    found["time_flags"] = tuple(found["time_flags"].split())
    found["top"] = tuple((label, chance) for label, chance in json.loads(found["top"] or "[]"))
    found["damaged"], found["development"] = bool(found["damaged"]), bool(found["development"])
    return Row(**found)


def _where(wanted: Filter) -> tuple[str, dict[str, Any]]:
    """The conditions of a filter over the columns of ``_ROWS``, and their values."""
    values = _DEFAULTS | {"all_models": wanted.all_models, "newest": wanted.newest}
    terms = ["1"]
    if wanted.species is not None:
        terms.append("coalesce(person_label, model_label) = :species COLLATE NOCASE")
        values["species"] = wanted.species
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


def _moment(text: str, name: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{name} is {text!r}, expected a date or time such as 2024-05-01 or 2024-05-01T06:00."
        ) from error


def _time(text: str, comparison: str, name: str, values: dict[str, Any]) -> str:
    """A condition on the time. A day alone, as the end, means that this day is still in."""
    moment = _moment(text, name)
    if name == "until" and len(text) <= len("2024-05-01"):
        try:
            moment += timedelta(days=1)
        except OverflowError:  # the calendar's last day
            moment = datetime.max
    values[name] = moment.isoformat()
    if moment.tzinfo is None:
        return f"taken_local {comparison} :{name}"
    return f"julianday(taken_local || utc_offset) {comparison} julianday(:{name})"
