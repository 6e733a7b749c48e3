"""How rows of the log look to people and to programs: an aligned table, JSON lines, CSV.

The JSON keys are relied on by scripts; change them only together with the documentation. Pure functions: nothing is
read or printed here.
"""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edge.errors import counted, one_line
from edge.log import times
from edge.log.query import Row

if TYPE_CHECKING:
    from edge.model.decide import Decision

SCHEMA = 1
CLASSIFY_COLUMNS = (
    "schema", "photo", "sha256", "label", "confidence", "failure", "duplicate_of", "taken",
    "model_label", "model_confidence", "top", "decision", "person_label",
)  # fmt: skip
LOG_COLUMNS = (
    *CLASSIFY_COLUMNS, "id", "device", "station", "camera", "event", "bundle", "model", "runtime", "development",
    "reviewed", "reviewed_by", "damaged", "failure_code", "time_flags", "taken_original", "tries", "temperature_c",
)  # fmt: skip


def as_json(row: Row) -> dict[str, Any]:
    """One row as ``fieldmark log --json`` prints it.

    ``label`` is the person's, else the model's decided one, with ``confidence`` 1 or the model's. ``top`` holds up
    to five pairs of label and probability, the first being the most likely whatever was decided.
    """
    values = {
        "schema": SCHEMA,
        "photo": row.photo,
        "sha256": row.sha256,
        "label": row.label,
        "confidence": _rounded(row.confidence),
        "failure": row.failure,
        "duplicate_of": row.duplicate_of,
        "taken": row.taken,
        "model_label": row.model_label,
        "model_confidence": _rounded(row.model_confidence),
        "top": [[label, _rounded(chance)] for label, chance in row.top],
        "decision": row.decision,
        "person_label": row.person_label,
        "id": row.id,
        "device": row.device,
        "station": row.station,
        "camera": row.camera,
        "event": row.event,
        "bundle": row.bundle,
        "model": row.model_digest,
        "runtime": row.runtime,
        "development": row.development,
        "reviewed": row.reviewed,
        "reviewed_by": row.reviewed_by,
        "damaged": row.damaged,
        "failure_code": row.failure_code,
        "time_flags": list(row.time_flags),
        "taken_original": row.taken_original,
        "tries": row.tries,
        "temperature_c": row.temperature_c,
    }
    assert tuple(values) == LOG_COLUMNS
    return values


def answer_json(
    photo: str,
    sha256: str | None,
    taken: str | None,
    decision: Decision | None,
    *,
    failure: str | None,
    duplicate_of: str | None,
) -> dict[str, Any]:
    """One file as ``fieldmark classify --json`` prints it: the same keys as in the log, as far as they exist there."""
    confidence = _rounded(decision.confidence) if decision else None
    label = decision.label if decision else None
    values = {
        "schema": SCHEMA,
        "photo": photo,
        "sha256": sha256,
        "label": label,
        "confidence": confidence,
        "failure": failure,
        "duplicate_of": duplicate_of,
        "taken": taken,
        "model_label": label,
        "model_confidence": confidence,
        "top": [[name, _rounded(chance)] for name, chance in decision.top] if decision else [],
        "decision": decision.kind if decision else None,
        "person_label": None,
    }
    assert tuple(values) == CLASSIFY_COLUMNS
    return values


def answer_line(values: dict[str, Any]) -> str:
    """One line of ``fieldmark classify`` for people."""
    if values["failure"]:
        what = "failed: " + values["failure"]
        return one_line(f"{'-':<20}       {values['photo']}  {what}")
    perhaps = f"  perhaps {values['top'][0][0]}" if values["decision"] == "unknown" else ""
    copy = f"  copy of {values['duplicate_of']}" if values["duplicate_of"] else ""
    return one_line(f"{values['label']:<20} {values['confidence']:.2f}  {values['photo']}{perhaps}{copy}")


def json_line(values: dict[str, Any]) -> str:
    """One object on one line. Only ASCII, so that it survives every terminal and pipe."""
    return json.dumps(values, ensure_ascii=True, allow_nan=False)


def csv_lines(columns: Sequence[str], objects: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A header and one line per object, without line ends. Lists become JSON."""
    yield _csv_line(columns)
    for values in objects:
        yield _csv_line([_cell(values[column]) for column in columns])


@dataclass
class Summary:
    """Counts per label, filled while rows go by; the rows of one file, one per model, follow each other.

    Attributes:
        photos: files per label; copies of a photo are not counted again.
        events: for each label one bit per event, set where it was seen: a million events take 125 kB.
    """

    files: int = 0
    failed: int = 0
    copies: int = 0
    photos: dict[str, int] = field(default_factory=dict)
    events: dict[str, bytearray] = field(default_factory=dict)
    _file_id: int = 0
    _its_labels: set[str] = field(default_factory=set)

    def counting(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The same rows, counted as they go by."""
        for row in rows:
            self.add(row)
            yield row

    def add(self, row: Row) -> None:
        """Count a row."""
        if row.id != self._file_id:
            self._file_id, self._its_labels = row.id, set()
            self._add_file(row)
        if row.label and not row.duplicate_of and row.label not in self._its_labels:
            self._its_labels.add(row.label)
            self.photos[row.label] = self.photos.get(row.label, 0) + 1
            _set_bit(self.events.setdefault(row.label, bytearray()), row.event_number)

    def _add_file(self, row: Row) -> None:
        self.files += 1
        if row.failure:
            self.failed += 1
        elif row.duplicate_of:
            self.copies += 1

    def lines(self) -> list[str]:
        """The counts as text, the most frequent label first."""
        ranked = sorted(self.photos, key=lambda label: (-self.photos[label], label))
        cells = [
            (label, counted(self.photos[label], "photo"), counted(_bits(self.events[label]), "event"))
            for label in ranked
        ]
        end = [counted(self.files, "file")]
        if self.copies:
            end.append(f"{self.copies} of them copies")
        if self.failed:
            end.append(f"{self.failed} failed")
        return [*aligned(cells), ", ".join(end) + "."]


def _set_bit(bits: bytearray, number: int) -> None:
    if len(bits) <= number >> 3:
        bits.extend(bytes((number >> 3) + 1 - len(bits)))
    bits[number >> 3] |= 1 << (number & 7)


def _bits(bits: bytearray) -> int:
    return int.from_bytes(bits, "little").bit_count()


HEADER = ("id", "taken", "station", "label", "conf", "photo", "note")


def cells(row: Row) -> tuple[str, ...]:
    """One row of the table, under :data:`HEADER`."""
    confidence = row.model_confidence if not row.person_label else None
    return (
        str(row.id),
        row.taken_local[:19].replace("T", " "),
        row.station or "-",
        row.label or "-",
        "person" if row.person_label else "-" if confidence is None else f"{confidence:.2f}",
        row.path,
        _note(row),
    )


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, two spaces between them. What could control a terminal is only shown."""
    shown = [[one_line(cell) for cell in row] for row in rows]
    if not shown:
        return []
    widths = [max(map(_width, column)) for column in zip(*shown, strict=True)]
    return [
        "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]


def _note(row: Row) -> str:
    if row.failure:
        return f"failed: {row.failure}"
    notes = []
    if row.duplicate_of:
        notes.append(f"copy of {row.duplicate_of}")
    if row.decision == "unknown" and row.top and not row.person_label:
        notes.append(f"perhaps {row.top[0][0]}")
    if row.person_label and row.model_label not in (None, row.person_label):
        notes.append(f"the model said {row.model_label}")
    if row.damaged:
        notes.append("damaged")
    if row.taken_source == "file":
        notes.append("time: only the file's")
    notes += [f"time: {flag}" for flag in row.time_flags if flag in times.LOOKS_WRONG]
    return ", ".join(notes)


def _width(text: str) -> int:
    """Columns on a terminal: Chinese and the like take two, combining marks none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    text = str(value)
    # A spreadsheet runs what starts like a formula, and labels are written by people.
    return f"'{text}" if isinstance(value, str) and text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else text


def _csv_line(cells: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(cells)  # with these in it a cell is quoted, as by RFC 4180
    return out.getvalue().removesuffix("\r\n")
