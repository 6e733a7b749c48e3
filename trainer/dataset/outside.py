"""Files that others wrote, read within limits: JSON, CSV tables, times, file names. Knows no format of a data set.

A label file may be damaged, or made to harm: its size is checked before it is read, every value before it is used,
and a file name in it never leads out of the data set.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NoReturn

from edge.errors import DataError, one_line

MAX_BYTES = 256 * 2**20
"""Of a label file; a million photos with boxes take about as much."""
MAX_TEXT = 200
MAX_NAME = 1000
MAX_COLUMNS = 1000
MAX_LINE = 2**20
"""Characters of one line of a table; a hundred megabytes of commas would become gigabytes of blank cells."""
_HEADER = 2**16
"""So much of a table tells its columns."""
MISSING = frozenset({"", "NA", "NaN", "nan"})
"""How tables write that a value is not there."""
_TIME = re.compile(
    r"(\d{4})[-:/](\d\d)[-:/](\d\d)[T ](\d\d?):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s?(?:(Z)|([+-])(\d\d):?(\d\d))?",
    re.ASCII,
)
_DAY_FIRST = re.compile(r"(\d\d?)\.(\d\d?)\.(\d{4})(?= )", re.ASCII)
"""With dots the day comes first everywhere; with slashes nobody can tell."""
_NO_TIME = re.compile(r"0000[-:/]00[-:/]00[T ]00:00:00", re.ASCII)
"""What a camera writes whose clock was never set."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_DRIVE = re.compile(r"[A-Za-z]:|~|/")
_EPOCH = datetime(1970, 1, 1)


# --- whole files


def read_bytes(path: Path) -> bytes:
    """A label file's bytes.

    Raises:
        DataError: it is no regular file, larger than 256 MiB, or cannot be read.
    """
    try:
        # O_NONBLOCK: a named pipe of this name must not hang the command.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise DataError(f"{path} is not a regular file. Give a label file or a folder.")
            if facts.st_size > MAX_BYTES:
                raise DataError(
                    f"{path} has {facts.st_size} bytes, at most {MAX_BYTES} are read. Divide it into smaller files.",
                    code="too large",
                )
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(facts.st_size)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(f"{str(path)!r} is not a name that a file can have.") from error


def json_object(path: Path) -> Record:
    """The one object of a JSON file. NaN, which some programs write for a missing value, is read as null.

    Raises:
        DataError: it is not JSON in UTF-8, or not an object.
    """
    try:
        value = json.loads(read_bytes(path).decode("utf-8-sig"), parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON in UTF-8 ({str(error)[:80]}). Export or copy it again.") from error
    return Record(value, str(path))


class Record:
    """One JSON object, whose values are taken by type; ``where`` begins every refusal."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise DataError(f"{where} is {_kind(value)}, expected an object. Export the file again.")
        self._value: dict[str, Any] = value
        self.where = where

    def __contains__(self, key: str) -> bool:
        return key in self._value

    def refuse(self, key: str, expected: str) -> NoReturn:
        """Raise a DataError that says where, what was found and what was expected."""
        found = self._value.get(key)
        shown = "missing" if found is None else _kind(found)
        if isinstance(found, str | int | float):  # a list may be nested too deep to show
            shown = f"{ascii(found)[:60]}"
        where = one_line(f"{self.where}: {key}")  # a key may hold anything
        raise DataError(f"{where} is {shown}, expected {expected}. Correct it or export the file again.")

    def text(self, key: str, *, longest: int = MAX_TEXT) -> str:
        """Text that is there: on one line, 1 to ``longest`` characters."""
        value = self._value.get(key)
        if not isinstance(value, str) or not _fit(value, longest):
            self.refuse(key, f"text of 1 to {longest} characters on one line")
        return value.strip()

    def identifier(self, key: str) -> str | None:
        """Text or a whole number, as text; None where it is null, blank or missing."""
        value = self._value.get(key)
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)  # pandas makes 7.0 of 7 where another line has none
        if value is None or (isinstance(value, str) and value.strip() in MISSING):
            return None
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
            return str(value)
        if not isinstance(value, str) or not _fit(value, MAX_TEXT):
            self.refuse(key, f"a whole number or text of 1 to {MAX_TEXT} characters on one line")
        return value.strip()

    def named(self, key: str) -> str:
        """An :meth:`identifier` that is there."""
        value = self.identifier(key)
        if value is None:
            self.refuse(key, "a whole number or text")
        return value

    def flag(self, key: str) -> bool:
        """True or false; false where it is null or missing."""
        value = self._value.get(key)
        if value is not None and value not in (0, 1):
            self.refuse(key, "true or false")
        return bool(value)

    def number(self, key: str) -> float | None:
        """A finite number; None where it is null or missing."""
        value = self._value.get(key)
        if value is None:
            return None
        if not _is_number(value):
            self.refuse(key, "a number")
        return float(value)

    def corners(self, key: str) -> tuple[float, float, float, float] | None:
        """Four finite numbers; None where the list is null, empty or missing."""
        value = self._value.get(key)
        if value is None or value == []:
            return None
        if not isinstance(value, list) or len(value) != 4 or not all(_is_number(each) for each in value):
            self.refuse(key, "four numbers: x, y, width, height")
        left, top, width, height = (float(each) for each in value)
        return left, top, width, height

    def raw(self, key: str) -> Any:
        """A value as it is."""
        return self._value.get(key)

    def keys(self) -> list[str]:
        """The keys, as they come."""
        return list(self._value)

    def inner(self, key: str) -> Record:
        """An object inside this one."""
        return Record(self._value.get(key), f"{self.where}: {key}")

    def records(self, key: str) -> Iterator[Record]:
        """The objects of a list that is there; each says its place in the list."""
        value = self._value.get(key)
        if not isinstance(value, list):
            self.refuse(key, "a list")
        for i, each in enumerate(value):
            yield Record(each, f"{self.where}: {key}[{i}]")


# --- tables


@dataclass(frozen=True)
class Row:
    """One line of a table: stripped cells by column name in lower case, and where it stands."""

    cells: dict[str, str]
    where: str

    def __getitem__(self, column: str) -> str:
        """The cell; blank where there is no such column or nothing in it."""
        return self.cells.get(column.lower(), "")

    def known(self, column: str) -> str | None:
        """The cell; None where it is blank or says ``NA``.

        Raises:
            DataError: it is longer than 200 characters or of several lines.
        """
        value = self[column]
        if value in MISSING:
            return None
        if not _fit(value, MAX_TEXT):
            raise DataError(
                f"{self.where}: {column} is {ascii(value)[:60]}, expected at most {MAX_TEXT} characters on one line."
            )
        return value

    def needed(self, column: str) -> str:
        """A cell that is there."""
        value = self.known(column)
        if value is None:
            raise DataError(f"{self.where}: {column} is blank. Fill it in.")
        return value


@dataclass(frozen=True)
class Table:
    """A CSV file: its column names as written, and its lines."""

    path: Path
    columns: list[str]
    rows: list[Row]

    def shown(self) -> str:
        """The column names on one line, for a message."""
        return one_line(", ".join(self.columns)[:MAX_TEXT]) or "none"

    def missing(self, *columns: str) -> list[str]:
        """Those of ``columns`` that are not there, whatever their case."""
        have = {column.lower() for column in self.columns}
        return [column for column in columns if column.lower() not in have]


def table(path: Path) -> Table:
    """Read a CSV file in UTF-8, with or without a byte order mark. Its cells are divided by commas, semicolons, as
    spreadsheets of half of Europe write them, or tabs.

    Raises:
        DataError: it is none, too large, or names a column twice.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
        reader = csv.reader(_short_lines(path, text), delimiter=_delimiter(text))
        columns = [column.strip() for column in next(reader, [])]
        names = [column.lower() for column in columns]
        _once(path, names)
        rows = [
            Row(dict(zip(names, (cell.strip() for cell in cells), strict=False)), f"{path} line {reader.line_num}")
            for cells in reader
            if any(cell.strip() for cell in cells)  # spreadsheets end in lines of nothing but commas
        ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}. Save it as CSV UTF-8, with commas.") from error
    return Table(path, columns, rows)


def header(path: Path) -> list[str]:
    """The column names in lower case of what may be a CSV file, from its beginning; none where it is not one."""
    try:
        with path.open("rb") as file:
            text = file.read(_HEADER).decode("utf-8-sig", errors="ignore")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
        return [column.strip().lower() for column in next(reader, [])]
    except (OSError, csv.Error):
        return []


def _delimiter(text: str) -> str:
    """What divides the first line into the most cells."""
    first = next(io.StringIO(text[:_HEADER], newline=""), "")
    return max(",;\t", key=lambda delimiter: len(next(csv.reader([first], delimiter=delimiter), [])))


def _short_lines(path: Path, text: str) -> Iterator[str]:
    for number, line in enumerate(io.StringIO(text, newline=""), 1):
        if len(line) > MAX_LINE:
            raise DataError(
                f"{path} line {number} has {len(line)} characters, at most {MAX_LINE} are read. "
                "Give a CSV file with a line per photo."
            )
        yield line


def _once(path: Path, names: list[str]) -> None:
    if len(names) > MAX_COLUMNS:
        raise DataError(f"{path} has {len(names)} columns, at most {MAX_COLUMNS} are read. Leave out some.")
    twice = next((name for name, count in Counter(names).items() if name and count > 1), None)
    if twice:
        raise DataError(f"{path} has the column {twice[:MAX_TEXT]!r} twice (case does not count). Rename one.")


# --- values


@dataclass(frozen=True)
class Time:
    """A time as a file wrote it.

    Attributes:
        local: ISO 8601 without offset, as the clock stood.
        utc_s: seconds since 1970 in UTC, None where no offset was written.
    """

    local: str
    utc_s: float | None


def time(text: str) -> Time | None:
    """Read ``2022-12-31T09:52:50+02:00``, ``2022-12-31 09:52:50``, EXIF's ``2022:12:31 09:52:50``,
    a spreadsheet's ``31.12.2022 09:52`` and the like.

    Returns:
        None where the text says that the time is not known: blank, ``NA``, ``0000:00:00 00:00:00``.

    Raises:
        ValueError: it is no time, or a date alone.
    """
    text = text.strip()
    if text in MISSING or _NO_TIME.fullmatch(text):
        return None
    match = _TIME.fullmatch(_DAY_FIRST.sub(lambda day: f"{day[3]}-{day[2]:0>2}-{day[1]:0>2}", text, count=1))
    if not match:
        raise ValueError("expected a time such as 2022-12-31 09:52:50")
    year, month, day, hour, minute, second, fraction, zulu, sign, hours, minutes = match.groups()
    local = datetime(*map(int, (year, month, day, hour, minute, second or "0", (fraction or "0").ljust(6, "0")[:6])))  # type: ignore[arg-type]
    offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1) if sign else timedelta()
    timezone(offset)  # refuses a day or more
    utc_s = (local - _EPOCH - offset).total_seconds() if zulu or sign else None
    return Time(local.isoformat(), utc_s)


def inside(name: str, where: str) -> str:
    """A file name that leads below the folder it is relative to, with forward slashes.

    Raises:
        DataError: it is absolute, begins with ``~``, holds ``..`` or a control character, or is too long.
    """
    # What label files written on Windows mean. A link in the folder may lead out: its owner made it.
    slashed = name.replace("\\", "/")
    parts = [part for part in slashed.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or _DRIVE.match(slashed) or not _fit(name, MAX_NAME):
        raise DataError(
            f"{where} names the file {ascii(name)[:80]}, expected a path below the data set's folder, "
            "without '..'. Correct it or leave it out."
        )
    return "/".join(parts)


def can_be_a_name(text: str) -> bool:
    """Whether a file may have this name: no control character, no half of a character, at most 1000 long."""
    return len(text) <= MAX_NAME and not _CONTROL.search(text)


def _fit(text: str, longest: int) -> bool:
    return len(text) <= longest and bool(text.strip()) and not _CONTROL.search(text)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e15 and math.isfinite(value)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
