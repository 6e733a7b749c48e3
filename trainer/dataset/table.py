"""A CSV file with a line per photo. Never opens a photo, and leaves it to others to find that one is not there."""

from __future__ import annotations

import os
from pathlib import Path

from edge import pathtext
from edge.errors import DataError
from trainer.dataset import outside
from trainer.dataset.found import PARTS, DataSet, composed
from trainer.dataset.outside import Row, Table
from trainer.dataset.samples import Sample

COLUMNS = {
    "file": ("file", "filepath", "file_path", "file_name", "filename", "path", "photo", "image"),
    "label": ("label", "species", "class", "category"),
    "station": ("station", "location", "locationid", "location_id", "site"),
    "sequence": ("sequence", "seq_id", "sequence_id", "burst", "event"),
    "taken": ("taken", "datetime", "date_time", "datetimeoriginal", "timestamp", "time"),
    "part": ("part", "split", "set"),
    "source": ("source", "name_source"),
}
"""What is read, and what people call it, in lower case; of several the first is taken."""
_PACKAGE = "datapackage.json"


def read(path: Path, *, sequence_column: str | None = None) -> DataSet:
    """Read a CSV file.

    Args:
        path: columns as in :data:`COLUMNS`, whatever their case; ``file`` and ``label`` must be there. Files are
            relative to the CSV file's folder.
        sequence_column: a column, by another name, that says which photos belong together.

    Raises:
        DataError: a column is missing, or a line holds what cannot be read.
    """
    found = outside.table(path)
    used, notes = _columns(found, sequence_column)
    return DataSet([_sample(row, used, path.parent) for row in found.rows], [], notes)


def looks_like_one(path: Path) -> bool:
    """Whether a file's first line names a column for files and one for labels."""
    columns = outside.header(path)
    return all(any(name in columns for name in COLUMNS[role]) for role in ("file", "label"))


def _columns(found: Table, sequence_column: str | None) -> tuple[dict[str, str], list[str]]:
    """The column to use for each role, and what to say where there was a choice."""
    columns = [column.lower() for column in found.columns]
    used: dict[str, str] = {}
    notes: list[str] = []
    for role, names in COLUMNS.items():
        present = [name for name in names if name in columns]
        if role == "sequence" and sequence_column:
            present = [sequence_column.lower()] * (sequence_column.lower() in columns)
        if present:
            used[role] = present[0]
        if len(present) > 1:
            notes.append(
                f"{found.path}: the {role} is read from the column {present[0]}, not {', '.join(present[1:])}."
            )
    wanted = ["file", "label"] + (["sequence"] if sequence_column else [])
    missing = [sequence_column if role == "sequence" else role for role in wanted if role not in used]
    if missing:
        raise DataError(_no_column(found, [str(name) for name in missing]))
    return used, notes


def _no_column(found: Table, missing: list[str]) -> str:
    text = f"{found.path} has no column {', '.join(missing)}; found {found.shown()}."
    if (found.path.parent / _PACKAGE).is_file():
        return f"{text} It seems to belong to a Camtrap DP package: give {found.path.parent / _PACKAGE}."
    accepted = "; ".join(f"{role} may be called {', '.join(COLUMNS[role][1:])}" for role in missing if role in COLUMNS)
    return f"{text} {accepted[:1].upper()}{accepted[1:]}." if accepted else text


def _sample(row: Row, used: dict[str, str], folder: Path) -> Sample:
    def known(role: str) -> str | None:
        return row.known(used[role]) if role in used else None

    name, label = _file(row[used["file"]], folder), known("label")
    if not outside.can_be_a_name(name):
        raise DataError(f"{row.where} names the file {ascii(name)[:80]}, which no file is called. Correct it.")
    if not name or not label:
        lacks, has = ("label", "file") if name else ("file", "label")
        raise DataError(
            f"{row.where} is without a {lacks}, its {has} is {ascii(row[used[has]])[:80]}. Fill it in, or take the "
            "line out."
        )
    return Sample(
        path=folder / name,
        name=pathtext.to_text(name),
        label=composed(label),
        station=known("station"),
        sequence=known("sequence"),
        taken=_taken(row, used["taken"]) if "taken" in used else None,
        part=_part(row, used["part"]) if "part" in used else None,
        source=known("source"),
    )


def _file(name: str, folder: Path) -> str:
    """With forward slashes, if it was written on Windows; here a file's name may hold backslashes."""
    return name.replace("\\", "/") if "\\" in name and not os.path.lexists(folder / name) else name


def _taken(row: Row, column: str) -> str | None:
    text = row[column]
    if column == "time" and row["date"]:  # two columns, as spreadsheets and camtrapR have them
        text = f"{row['date']} {text}"
    try:
        time = outside.time(text)
    except ValueError as error:
        raise DataError(
            f"{row.where}: {column} is {ascii(text)[:60]}, expected a time such as 2022-12-31 09:52:50 "
            "or 31.12.2022 09:52:50. "
            "Correct it, or leave it blank where it is not known."
        ) from error
    return time.local if time else None


def _part(row: Row, column: str) -> str | None:
    text = row[column]
    if text in outside.MISSING:
        return None
    if text.casefold() not in PARTS:
        raise DataError(
            f"{row.where}: {column} is {ascii(text)[:60]}, expected train, val or test. "
            "Correct it, or rename the column if it means something else."
        )
    return PARTS[text.casefold()]
