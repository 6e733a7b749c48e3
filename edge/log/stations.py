"""Stations and deployments: ``deployments.csv`` in the columns of Camtrap DP 1.0, as a spreadsheet leaves it.

Owns how that file is read, checked and written. A deployment that still goes on has no end here; an export gives it
one. Never keeps coordinates anywhere else, and never guesses a value.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from edge import durable
from edge.errors import ConfigError, nearest
from edge.log import times

FILE = Path("etc", "fieldmark", "deployments.csv")
MAX_BYTES = 4 * 2**20
MODE = 0o600
"""Where the cameras stand is worth stealing, and so is what they see."""

_MOST_TEXT = 1000
_YEARS = range(1900, 2200)
_MISSING = frozenset({"", "NA", "NaN", "nan"})
_BOM = b"\xef\xbb\xbf"
_FEATURES = (
    "roadPaved", "roadDirt", "trailHiking", "trailGame", "roadUnderpass", "roadOverpass", "roadBridge", "culvert",
    "burrow", "nestSite", "carcass", "waterSource", "fruitingTree",
)  # fmt: skip


@dataclass(frozen=True)
class Deployment:
    """One period of one camera at one station.

    Attributes:
        id: unique.
        station: Camtrap DP's ``locationID``, and the word of ``station`` in the settings.
        latitude, longitude: degrees, WGS84.
        start, end: with a time zone; no end while it goes on.
        other: the other columns that are filled, as text in Camtrap DP's spelling.
    """

    id: str
    station: str
    latitude: float
    longitude: float
    start: datetime
    end: datetime | None = None
    other: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str | None:
        """The station's name for people."""
        return self.other.get("locationName")

    @property
    def camera(self) -> str | None:
        """Which camera it is."""
        return self.other.get("cameraID")

    def holds(self, moment: datetime) -> bool:
        """Whether a time lies in it; its end does not."""
        return self.start <= moment and (self.end is None or moment < self.end)


@dataclass(frozen=True)
class Table:
    """The file as it was read: its deployments, and how it is written."""

    path: Path
    deployments: tuple[Deployment, ...] = ()
    delimiter: str = ","
    bom: bool = False


def path_below(root: Path) -> Path:
    """Where a device's deployments lie."""
    return root / FILE


def read(path: Path) -> Table:
    """Read and check the deployments; none where there is no file.

    Raises:
        ConfigError: with file, line and column: what is there and what is expected.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Table(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.", code="unreadable") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: more than {MAX_BYTES} bytes. Deployments are some lines.")
    return parse(data, path)


def parse(data: bytes, path: Path) -> Table:
    """:func:`read`, of bytes."""
    try:
        text = data.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8. In a spreadsheet, save it as `CSV UTF-8`.") from error
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    lines = _lines(text, delimiter, path)
    number, names = next(lines, (1, []))
    _check_header(names, f"{path}:{number}")
    found: list[Deployment] = []
    wheres: list[str] = []
    for number, cells in lines:
        wheres.append(f"{path}:{number}")
        found.append(_deployment(names, cells, wheres[-1], decimal_comma=delimiter == ";"))
    _check(found, wheres)
    return Table(path, tuple(found), delimiter, data.startswith(_BOM))


def write(table: Table) -> None:
    """Write the deployments as they were found: with the same delimiter and, for a spreadsheet with semicolons, decimal
    commas. The file belongs to whom the folder belongs, and nobody else reads it.

    Raises:
        ConfigError: the file cannot be written.
    """
    out = io.StringIO()
    writer = csv.writer(out, delimiter=table.delimiter, lineterminator="\r\n" if table.bom else "\n")
    writer.writerow(COLUMNS)
    comma = table.delimiter == ";"
    for each in table.deployments:
        writer.writerow(_cells(each, decimal_comma=comma))
    data = (_BOM if table.bom else b"") + out.getvalue().encode()
    parse(data, table.path)  # what is written can be read again, or is not written
    try:
        table.path.parent.mkdir(parents=True, exist_ok=True)
        durable.write_file(table.path, data, mode=MODE)
        with suppress(PermissionError):  # without root the file is ours anyway
            owner = table.path.parent.stat()
            os.chown(table.path, owner.st_uid, owner.st_gid)
    except OSError as error:
        raise ConfigError(f"{table.path}: cannot be written: {error.strerror}.") from error


def add(table: Table, new: Deployment) -> Table:
    """The table with one more deployment. Its id is made from station and day where it has none.

    Raises:
        ConfigError: the id is taken, or another deployment of this camera at the station is not over by then.
    """
    if not new.id:
        new = replace(new, id=_free_id(new, {each.id for each in table.deployments}))
    found = [*table.deployments, new]
    _check(found, [str(table.path)] * len(found))
    return replace(table, deployments=tuple(found))


def close(table: Table, station: str, end: datetime, why: str, camera: str | None = None) -> tuple[Table, Deployment]:
    """The table with the station's open deployment ended, and that deployment.

    Args:
        why: noted in ``deploymentComments``.
        camera: which one, where several stand there.

    Raises:
        ConfigError: there is no open deployment, or more than one, or it begins later.
    """
    found = [each for each in table.deployments if each.station == station and each.end is None]
    found = [each for each in found if camera in (None, each.camera)]
    if len(found) != 1:
        stations = sorted({each.station for each in table.deployments if each.end is None})
        problem = f"{len(found)} open deployments; say which --camera" if found else "no open deployment"
        raise ConfigError(f"{table.path}: {station!r} has {problem}. Open are: {', '.join(stations) or 'none'}.")
    before = found[0]
    if end <= before.start:
        raise ConfigError(
            f"{table.path}: {before.id} began at {_time(before.start)}, the end {_time(end)} is not later."
        )
    comments = " | ".join(filter(None, (before.other.get("deploymentComments"), why)))
    closed = replace(before, end=end, other=before.other | {"deploymentComments": comments})
    changed = tuple(closed if each is before else each for each in table.deployments)
    return replace(table, deployments=changed), closed


def going_on(closed: Deployment, table: Table) -> Deployment:
    """The deployment that begins where a closed one ends: same camera and place."""
    assert closed.end is not None
    other = {name: text for name, text in closed.other.items() if name not in ("deploymentComments", "timestampIssues")}
    new = replace(closed, id="", start=closed.end, end=None, other=other)
    return replace(new, id=_free_id(new, {each.id for each in table.deployments}))


def starts(table: Table) -> dict[str, datetime]:
    """When the first deployment of each station began."""
    found: dict[str, datetime] = {}
    for each in table.deployments:
        found[each.station] = min(each.start, found.get(each.station, each.start))
    return found


def moment(text: str, where: str) -> datetime:
    """A time with its offset.

    Raises:
        ConfigError: it is none, or has no offset.
    """
    found = times.parse(text, where, "a time such as 2024-05-01T10:00:00+01:00")
    if found.year not in _YEARS:  # a slip, or the end of time instead of an empty cell
        raise ConfigError(f"{where} is {text!r}, expected a year from {_YEARS[0]} to {_YEARS[-1]}.")
    if found.tzinfo is None:
        whole = text if len(text) > len("2024-05-01") else f"{text}T00:00"
        raise ConfigError(
            f"{where} is {text!r}, without its offset from UTC. Add it: {whole}+01:00, or Z for UTC itself."
        )
    return found.replace(microsecond=0)


def _lines(text: str, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines that are not blank, each with its number and its cells."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise ConfigError(f"{path}:{reader.line_num}: this is no CSV: {error}.") from error


def _check_header(names: list[str], where: str) -> None:
    while names and not names[-1]:  # spreadsheets keep empty columns
        names.pop()
    for name in names:
        if name not in COLUMNS:
            near = nearest(name, COLUMNS)
            raise ConfigError(f"{where}: {name!r} is no column of Camtrap DP. The nearest is {near}.", code="column")
        if names.count(name) > 1:
            raise ConfigError(f"{where}: there are two columns {name}.", code="column")
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise ConfigError(f"{where}: the header lacks {', '.join(missing)}.", code="column")


def _deployment(names: Sequence[str], cells: list[str], where: str, *, decimal_comma: bool) -> Deployment:
    if any(cells[len(names) :]):
        raise ConfigError(f"{where}: {len(cells)} cells, but the header has {len(names)}. Is a comma not quoted?")
    texts = {name: cell for name, cell in zip(names, cells, strict=False) if cell not in _MISSING}
    for name in REQUIRED:
        if name not in texts and name != "deploymentEnd":
            raise ConfigError(f"{where}: {name} is empty, expected {COLUMNS[name].expected}.")
    for name, text in texts.items():
        if decimal_comma and COLUMNS[name].number:
            texts[name] = text.replace(",", ".")
        if COLUMNS[name] is _YES_OR_NO:
            texts[name] = text.lower()  # spreadsheets write TRUE
        COLUMNS[name].check(texts[name], f"{where}: {name}")
    start = moment(texts.pop("deploymentStart"), f"{where}: deploymentStart")
    end = texts.pop("deploymentEnd", None)
    return Deployment(
        id=texts.pop("deploymentID"),
        station=texts.pop("locationID"),
        latitude=float(texts.pop("latitude")),
        longitude=float(texts.pop("longitude")),
        start=start,
        end=None if end is None else moment(end, f"{where}: deploymentEnd"),
        other=texts,
    )


def _check(deployments: Sequence[Deployment], wheres: Sequence[str]) -> None:
    """Each deployment by itself and beside the others; ``wheres`` say where each was read."""
    taken: set[str] = set()
    for each, where in zip(deployments, wheres, strict=True):
        if each.end is not None and each.end <= each.start:
            raise ConfigError(f"{where}: deploymentEnd {_time(each.end)} is not later than deploymentStart.")
        if each.id in taken:
            raise ConfigError(f"{where}: deploymentID {each.id!r} is there already. Each deployment has its own.")
        taken.add(each.id)
    by_place = sorted(zip(deployments, wheres, strict=True), key=lambda pair: (*_place(pair[0]), pair[0].start))
    for (before, _), (after, where) in pairwise(by_place):
        if _place(before) == _place(after) and (before.end is None or after.start < before.end):
            raise ConfigError(
                f"{where}: {after.id} overlaps {before.id} at the same station with the same camera. "
                "Close the earlier one, or give each camera its cameraID."
            )


def _place(each: Deployment) -> tuple[str, str]:
    return each.station, each.camera or ""


def _free_id(new: Deployment, taken: set[str]) -> str:
    base = f"{new.station} {new.start.date().isoformat()}"
    names = (base if number == 1 else f"{base} {number}" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def _cells(each: Deployment, *, decimal_comma: bool) -> list[str]:
    values = {
        **each.other,
        "deploymentID": each.id,
        "locationID": each.station,
        "latitude": _number(each.latitude),
        "longitude": _number(each.longitude),
        "deploymentStart": _time(each.start),
        "deploymentEnd": _time(each.end) if each.end else "",
    }
    cells = [(name, values.get(name, "")) for name in COLUMNS]
    return [text.replace(".", ",") if decimal_comma and COLUMNS[name].number else text for name, text in cells]


def _number(value: float) -> str:
    return f"{value:.7f}".rstrip("0").rstrip(".")


def _time(value: datetime) -> str:
    return value.isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Column:
    """What may stand in a column.

    Attributes:
        expected: in words.
        allows: whether a text is allowed.
        number: whether it is one, so that a spreadsheet may write it with a decimal comma.
    """

    expected: str
    allows: Callable[[str], bool]
    number: bool = False

    def check(self, text: str, where: str) -> None:
        """Raise :class:`edge.errors.ConfigError` for what is not allowed."""
        if not self.allows(text):
            raise ConfigError(f"{where} is {text[:80]!r}, expected {self.expected}.")


def _between(low: float, high: float, *, whole: bool = False) -> Column:
    pattern = r"[+-]?\d{1,9}" if whole else r"[+-]?\d{1,9}(\.\d{1,15})?"
    kind = "a whole number" if whole else "a number"
    bounds = f"of at least {low}" if high == _ANY else f"from {low} to {high}"
    return Column(
        f"{kind} {bounds}",
        lambda text: bool(re.fullmatch(pattern, text, re.ASCII)) and low <= float(text) <= high,
        number=not whole,
    )


def _words(most: int = _MOST_TEXT) -> Column:
    return Column(f"1 to {most} printable characters", lambda text: len(text) <= most and text.isprintable())


def _one_of(*words: str) -> Column:
    return Column("one of " + ", ".join(words), lambda text: text in words)


_ANY = float("inf")
_TIME = Column("a time such as 2024-05-01T10:00:00+01:00", lambda text: True)  # moment() says more of what is wrong
_TEXT, _YES_OR_NO = _words(), _one_of("true", "false")
COLUMNS: dict[str, Column] = {
    "deploymentID": _words(200),
    "locationID": _words(200),
    "locationName": _words(200),
    "latitude": _between(-90, 90),
    "longitude": _between(-180, 180),
    "coordinateUncertainty": _between(1, _ANY, whole=True),
    "deploymentStart": _TIME,
    "deploymentEnd": _TIME,
    "setupBy": _TEXT,
    "cameraID": _words(200),
    "cameraModel": _TEXT,
    "cameraDelay": _between(0, _ANY, whole=True),
    "cameraHeight": _between(0, _ANY),
    "cameraDepth": _between(0, _ANY),
    "cameraTilt": _between(-90, 90, whole=True),
    "cameraHeading": _between(0, 360, whole=True),
    "detectionDistance": _between(0, _ANY),
    "timestampIssues": _YES_OR_NO,
    "baitUse": _YES_OR_NO,
    "featureType": _one_of(*_FEATURES),
    "habitat": _TEXT,
    "deploymentGroups": _TEXT,
    "deploymentTags": _TEXT,
    "deploymentComments": _TEXT,
}
"""The columns of Camtrap DP 1.0.2, in its order."""
REQUIRED = ("deploymentID", "locationID", "latitude", "longitude", "deploymentStart", "deploymentEnd")
"""Those that each deployment has; the last may be empty."""
