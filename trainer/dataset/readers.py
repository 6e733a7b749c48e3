"""Reads data sets as people have them into samples: a folder per class, or a CSV file. Never opens a photo."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from edge.errors import DataError
from edge.photo import is_candidate
from trainer.dataset.samples import Sample

MAX_LABELS = 1000
MAX_LABEL_LENGTH = 100
"""As in a bundle: a training must not end in labels that its export refuses."""
_STATION_COLUMNS = ("station", "location")
_SEQUENCE_COLUMNS = ("sequence", "seq_id")


def read(data: Path, *, sequence_column: str | None = None) -> list[Sample]:
    """Read a data set.

    Args:
        data: a folder with one folder per class, or a CSV file with the columns ``file`` and ``label`` and, if
            known, ``station`` and ``sequence``; files are relative to the CSV file's folder.
        sequence_column: a CSV column, by another name, that says which photos belong together.

    Returns:
        The samples, in a stable order.

    Raises:
        DataError: nothing is there, a column is missing, or there are fewer than two labels.
    """
    if not data.exists():
        raise DataError(f"{data} does not exist. Give a folder with one folder per class, or a CSV file.")
    if data.is_dir():
        if sequence_column:
            raise DataError(f"{data} is a folder; --sequence-column names a column of a CSV file.")
        samples = _folders(data)
    else:
        samples = _csv(data, sequence_column)
    return _checked(samples, data)


def _folders(data: Path) -> list[Sample]:
    samples = []
    for folder in sorted(path for path in data.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        if not any(map(is_candidate, files)):
            raise DataError(f"{folder} holds no photos. Add some, or remove the folder: it would be a label.")
        samples += [Sample(path, path.relative_to(data).as_posix(), folder.name) for path in files]
    return samples


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
        name=name,
        label=row["label"].strip(),
        station=(row[station].strip() or None) if station else None,
        sequence=(row[sequence].strip() or None) if sequence else None,
    )


def _first(columns: Sequence[str], known: tuple[str, ...]) -> str | None:
    return next((column for column in known if column in columns), None)


def _checked(samples: list[Sample], data: Path) -> list[Sample]:
    labels = sorted({sample.label for sample in samples})
    if len(labels) < 2:
        raise DataError(
            f"{data} has {len(labels)} label{'' if len(labels) == 1 else 's'}, at least 2 are needed. "
            "Expected a folder per class, such as deer/ fox/ empty/."
        )
    if "" in labels:
        raise DataError(f"{data} has a photo without a label.")
    if not all(sample.name for sample in samples):
        raise DataError(f"{data} has a line without a file.")
    for label in labels:
        if len(label) > MAX_LABEL_LENGTH or not label.isprintable():
            raise DataError(
                f"{data} has the label {label[:MAX_LABEL_LENGTH]!r}; a label is at most {MAX_LABEL_LENGTH} characters "
                "on one line. Rename it."
            )
    if len(labels) > MAX_LABELS:
        raise DataError(f"{data} has {len(labels)} labels, at most {MAX_LABELS} are trained.")
    folded: dict[str, str] = {}
    for label in labels:
        other = folded.setdefault(label.casefold(), label)
        if other != label:
            raise DataError(f"{data} has labels {other!r} and {label!r}, which differ only in case. Rename one.")
    return samples
