"""Reads data sets as people have them into samples: a folder per class, or a CSV file. Never opens a photo."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge import pathtext
from edge.errors import DataError
from edge.model.decide import EMPTY, PERSON, UNKNOWN
from edge.photo import is_candidate
from trainer.dataset.samples import Sample, Unreadable

MAX_LABELS = 1000
MAX_LABEL_LENGTH = 100
"""As in a bundle: a training must not end in labels that its export refuses."""
_STATION_COLUMNS = ("station", "location")
_SEQUENCE_COLUMNS = ("sequence", "seq_id")
_DECISIONS = (UNKNOWN, "setup")
"""What a device says of a photo that is of no class; a class of that name could not be told from it."""
_NOTES = frozenset({".csv", ".json", ".md", ".txt"})
"""Endings of files that people keep beside the folders, and that nobody takes for photos."""


@dataclass(frozen=True)
class DataSet:
    """The samples, and what lies in the data folder but is no sample: folders without photos, loose or odd files."""

    samples: list[Sample]
    left_out: list[Unreadable]


def read(data: Path, *, sequence_column: str | None = None) -> list[Sample]:
    """The samples of :func:`scan`."""
    return scan(data, sequence_column=sequence_column).samples


def scan(data: Path, *, sequence_column: str | None = None) -> DataSet:
    """Read a data set.

    Args:
        data: a folder with one folder per class, or a CSV file with the columns ``file`` and ``label`` and, if
            known, ``station`` and ``sequence``; files are relative to the CSV file's folder.
        sequence_column: a CSV column, by another name, that says which photos belong together.

    Returns:
        The samples and what was left out, in a stable order.

    Raises:
        DataError: nothing is there, a column is missing, or a label cannot be one.
    """
    if not data.exists():
        raise DataError(f"{data} does not exist. Give a folder with one folder per class, or a CSV file.")
    if data.is_dir():
        if sequence_column:
            raise DataError(f"{data} is a folder; --sequence-column names a column of a CSV file.")
        found = _folders(data)
    else:
        found = DataSet(_csv(data, sequence_column), [])
    _check(found.samples, data)
    return found


def check_trainable(found: DataSet, data: Path) -> None:
    """Check that there is something to tell apart.

    Raises:
        DataError: there are fewer than two labels.
    """
    labels = sorted({sample.label for sample in found.samples})
    if len(labels) < 2:
        bare = "".join(f" {each.reason}" for each in found.left_out if each.code == "no photos")
        raise DataError(
            f"{data} has {len(labels)} label{'' if len(labels) == 1 else 's'}, at least 2 are needed. "
            f"Expected a folder per class, such as deer/ fox/ empty/.{bare}"
        )


def _folders(data: Path) -> DataSet:
    samples, left_out = [], []
    for path in _entries(data):
        if not path.is_dir():
            left_out += _loose(path)
            continue
        files = _files(path)
        if not any(is_candidate(file) and file.is_file() for file in files):
            left_out.append(_left_out(path, data, "", "no photos", "holds no photos, so it is no label."))
            continue
        for file in files:
            if file.is_file():
                samples.append(Sample(file, _name(file, data), path.name))
            else:  # a named pipe would never end, a link to nothing has nothing
                left_out.append(_left_out(file, data, path.name, "not a file", "is not a file."))
    return DataSet(samples, left_out)


def _entries(data: Path) -> list[Path]:
    try:
        return sorted(path for path in data.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{data} cannot be read: {error.strerror}.") from error


def _files(folder: Path) -> list[Path]:
    """All that is below a folder but folders, and nothing that is hidden or in a hidden folder."""
    below = (path for path in folder.rglob("*") if not path.is_dir())
    return sorted(path for path in below if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _loose(path: Path) -> list[Unreadable]:
    if path.suffix.lower() in _NOTES or path.stem.casefold() == "readme":
        return []
    reason = "lies beside the folders, so it has no label. Move it into one."
    return [_left_out(path, path.parent, "", "no label", reason)]


def _left_out(path: Path, data: Path, label: str, code: str, reason: str) -> Unreadable:
    name = _name(path, data)
    return Unreadable(name, label, code, f"{name} {reason}")


def _name(path: Path, data: Path) -> str:
    return pathtext.to_text(path.relative_to(data).as_posix())


def _csv(data: Path, sequence_column: str | None) -> list[Sample]:
    try:
        with data.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            columns = reader.fieldnames or []
            wanted = ["file", "label"] + ([sequence_column] if sequence_column else [])
            missing = [column for column in wanted if column not in columns]
            if missing:
                raise DataError(f"{data} has no column {', '.join(missing)}; found {', '.join(columns) or 'none'}.")
            sequence = sequence_column or _first(columns, _SEQUENCE_COLUMNS)
            station = _first(columns, _STATION_COLUMNS)
            return [_row(data.parent, row, station, sequence) for row in reader]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DataError(f"{data} is not a CSV file in UTF-8: {error}.") from error


def _row(folder: Path, row: dict[str, str], station: str | None, sequence: str | None) -> Sample:
    name = row["file"].strip()
    return Sample(
        path=folder / name,
        name=pathtext.to_text(name),
        label=row["label"].strip(),
        station=(row[station].strip() or None) if station else None,
        sequence=(row[sequence].strip() or None) if sequence else None,
    )


def _first(columns: Sequence[str], known: tuple[str, ...]) -> str | None:
    return next((column for column in known if column in columns), None)


def _check(samples: list[Sample], data: Path) -> None:
    labels = sorted({sample.label for sample in samples})
    if not labels:
        raise DataError(
            f"{data} has 0 labels. Expected a folder per class with photos in it, such as deer/ fox/ empty/."
        )
    if "" in labels:
        raise DataError(f"{data} has a photo without a label.")
    if not all(sample.name for sample in samples):
        raise DataError(f"{data} has a line without a file.")
    for label in labels:
        fault = _label_fault(label)
        if fault:
            raise DataError(f"{data} has the label {label[:MAX_LABEL_LENGTH]!r}; {fault}")
    if len(labels) > MAX_LABELS:
        raise DataError(f"{data} has {len(labels)} labels, at most {MAX_LABELS} are trained.")
    folded: dict[str, str] = {}
    for label in labels:
        other = folded.setdefault(label.casefold(), label)
        if other != label:
            raise DataError(f"{data} has labels {other!r} and {label!r}, which differ only in case. Rename one.")


def _label_fault(label: str) -> str | None:
    """Why a label cannot be one, and what to do, or None."""
    if len(label) > MAX_LABEL_LENGTH or not label.isprintable():
        return f"a label is at most {MAX_LABEL_LENGTH} characters on one line. Rename it."
    if label != label.strip():
        return "a label neither begins nor ends with a space. Rename it."
    if label.casefold() in _DECISIONS:
        return "that is what a device says of a photo of no class. Rename it, or leave it out."
    for meant in (EMPTY, PERSON):
        if label.casefold() == meant and label != meant:
            return f"a device knows only {meant!r}, in lower case. Rename it to {meant!r}."
    return None
