"""Camtrap DP 1.0 packages: deployments, media and observations as a data set. Never opens a photo."""

from __future__ import annotations

import bisect
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from edge import pathtext
from edge.errors import DataError
from edge.model.decide import EMPTY, PERSON
from trainer.dataset import outside
from trainer.dataset.coco import clipped
from trainer.dataset.found import UNLABELLED, DataSet, left_out, own_spelling, two_labels
from trainer.dataset.outside import Record, Row, Table, Time
from trainer.dataset.samples import Box, Sample, Unreadable

PACKAGE = "datapackage.json"
_PROFILE, _VERSION = "camtrap-dp", "/1."
_COLUMNS = {
    "deployments": ("deploymentID",),
    "media": ("mediaID", "deploymentID", "timestamp", "filePath", "fileMediatype"),
    "observations": ("observationID", "deploymentID", "observationLevel", "observationType"),
}
_LABELS = {"human": PERSON, "vehicle": "vehicle", "blank": EMPTY, "unknown": "", "unclassified": ""}
_BOX = ("bboxX", "bboxY", "bboxWidth", "bboxHeight")
_WEB = ("http://", "https://", "ftp://", "s3://", "gs://")
_END_SLACK_S = 1.0
"""An event's end is written in whole seconds, and its last photo may be later by a fraction."""


@dataclass(frozen=True)
class Observation:
    """One line of the observations: ``label`` is blank where it says that nobody knows."""

    label: str
    event: str | None
    set_up: bool
    by_machine: bool
    box: Box | None


@dataclass
class _Events:
    """The event-level observations of one deployment, by time."""

    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    latest_end: list[float] = field(default_factory=list)
    found: list[Observation] = field(default_factory=list)

    @classmethod
    def of(cls, lines: list[tuple[float, float, Observation]]) -> _Events:
        events = cls()
        for start, end, observation in sorted(lines, key=lambda line: line[:2]):
            events.starts.append(start)
            events.ends.append(end)
            events.latest_end.append(max(end, events.latest_end[-1] if events.latest_end else end))
            events.found.append(observation)
        return events

    def at(self, utc_s: float) -> list[Observation]:
        """All whose start and end enclose a moment."""
        covering = []
        i = bisect.bisect_right(self.starts, utc_s) - 1
        while i >= 0 and utc_s < self.latest_end[i] + _END_SLACK_S:
            if utc_s < self.ends[i] + _END_SLACK_S:
                covering.append(self.found[i])
            i -= 1
        return covering


@dataclass(frozen=True)
class _Said:
    """All observations: of single media by their identifier, of events by deployment."""

    media: dict[str, list[Observation]]
    events: dict[str, _Events]


def is_one(path: Path) -> bool:
    """Whether a JSON file is the description of a data package, by its name."""
    return path.name == PACKAGE


def read(path: Path) -> DataSet:
    """Read a package.

    Labels are scientific names, ``person``, ``vehicle`` and ``empty``. What was said of a single photo goes before what
    was said of its event, and a person's word before a machine's.

    Args:
        path: its ``datapackage.json``.

    Raises:
        DataError: it is no Camtrap DP 1 package, a table lacks a column, a value cannot be read, a file path leads out
            of the package, or none of the photos is there.
    """
    tables = _tables(path)
    stations = _stations(tables["deployments"])
    said = _observations(tables["observations"])
    samples: list[Sample] = []
    rest: list[Unreadable] = []
    seen: set[str] = set()
    machine = 0
    for row in tables["media"].rows:
        identifier, deployment = row.needed("mediaID"), row.needed("deploymentID")
        if identifier in seen:
            raise DataError(f"{row.where}: the mediaID {identifier} is there twice. Export the package again.")
        if deployment not in stations:
            raise DataError(f"{row.where}: the deployment {deployment} is not in the deployments. Export it again.")
        seen.add(identifier)
        observations, event, when = _said_of(row, said)
        one = _sample(row, observations, path.parent)
        if isinstance(one, Unreadable):
            rest.append(one)
            continue
        machine += all(each.by_machine for each in observations)
        station = stations[deployment] or deployment
        boxes = tuple(each.box for each in observations if each.box and one.label != EMPTY)
        samples.append(
            Sample(one.path, one.name, one.label, station=station, sequence=event, taken=when.local, boxes=boxes)
        )
    _some_are_there(path, samples, rest)
    return DataSet(samples, rest, _notes(path, samples, rest, machine))


# --- the package's files


def _tables(path: Path) -> dict[str, Table]:
    package = outside.json_object(path)
    profile = package.raw("profile")
    if not isinstance(profile, str) or _PROFILE not in profile or _VERSION not in profile:
        raise DataError(
            f"{path}: the profile is {ascii(profile)[:120]}, expected that of Camtrap DP 1. Export the package anew."
        )
    paths = {}
    for resource in package.records("resources"):
        name = resource.raw("name")
        if isinstance(name, str) and name in _COLUMNS:
            paths[name] = _resource(resource, path.parent)
    lacking = [name for name in _COLUMNS if name not in paths]
    if lacking:
        raise DataError(f"{path} lists no {lacking[0]} among its resources. Export the package again.")
    return {name: _table(paths[name], columns) for name, columns in _COLUMNS.items()}


def _resource(resource: Record, folder: Path) -> Path:
    value = resource.raw("path")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or value.startswith(_WEB):
        resource.refuse("path", "the name of one CSV file beside datapackage.json")
    if value.endswith((".gz", ".zip")):
        raise DataError(
            f"{resource.where}: {ascii(value)[:80]} is packed, expected CSV. Unpack it, and correct its path."
        )
    return folder / outside.inside(value, resource.where)


def _stations(deployments: Table) -> dict[str, str | None]:
    """The place of each deployment, where it is said."""
    stations: dict[str, str | None] = {}
    for row in deployments.rows:
        deployment = row.needed("deploymentID")
        if deployment in stations:
            raise DataError(f"{row.where}: the deploymentID {deployment} is there twice. Export the package again.")
        stations[deployment] = row.known("locationID")
    return stations


def _table(path: Path, columns: Iterable[str]) -> Table:
    found = outside.table(path)
    missing = found.missing(*columns)
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; found {found.shown()}. Export the package again.")
    return found


# --- observations


def _observations(found: Table) -> _Said:
    media: dict[str, list[Observation]] = defaultdict(list)
    events: dict[str, list[tuple[float, float, Observation]]] = defaultdict(list)
    for row in found.rows:
        level = row["observationLevel"]
        if level == "media":
            media[row.needed("mediaID")].append(_observation(row))
        elif level == "event":
            start, end = _moment(row, "eventStart"), _moment(row, "eventEnd")
            events[row.needed("deploymentID")].append((start, end, _observation(row)))
        else:
            raise DataError(
                f"{row.where}: observationLevel is {ascii(level)[:40]}, expected media or event. Correct it."
            )
    return _Said(dict(media), {deployment: _Events.of(lines) for deployment, lines in events.items()})


def _observation(row: Row) -> Observation:
    kind = row["observationType"]
    if kind == "animal":
        label = row.known("scientificName") or ""
        label = "" if label.casefold() in UNLABELLED else own_spelling(label)
    elif kind in _LABELS:
        label = _LABELS[kind]
    else:
        expected = ", ".join(["animal", *_LABELS])
        raise DataError(f"{row.where}: observationType is {ascii(kind)[:40]}, expected one of {expected}. Correct it.")
    set_up = row.known("cameraSetupType") is not None
    return Observation(label, row.known("eventID"), set_up, row["classificationMethod"] == "machine", _box(row))


def _box(row: Row) -> Box | None:
    texts = [row.known(column) for column in _BOX]
    if not all(texts):
        return None
    try:
        x, y, width, height = (float(text or "") for text in texts)
    except ValueError as error:
        raise DataError(f"{row.where}: a bbox column holds no number. Correct it.") from error
    if not all(0 <= value <= 1 for value in (x, y, width, height)):
        raise DataError(f"{row.where}: bbox is {x}, {y}, {width}, {height}, expected shares from 0 to 1. Correct it.")
    return clipped(x, y, width, height)


def _said_of(media: Row, said: _Said) -> tuple[list[Observation], str | None, Time]:
    """What counts of one medium, the event it belongs to, and when it was taken."""
    when = _time(media, "timestamp")
    events = said.events.get(media["deploymentID"])
    of_event = events.at(when.utc_s) if events and when.utc_s is not None else []
    of_media = said.media.get(media["mediaID"], [])
    event = next((each.event for each in of_media + of_event if each.event), None)
    observations = of_media or of_event
    people = [each for each in observations if not each.by_machine]
    return people or observations, event, when


def _moment(row: Row, column: str) -> float:
    moment = _time(row, column).utc_s
    assert moment is not None  # _time refuses what has no offset
    return moment


def _time(row: Row, column: str) -> Time:
    try:
        time = outside.time(row[column])
    except ValueError:
        time = None
    if time is None or time.utc_s is None:
        raise DataError(
            f"{row.where}: {column} is {ascii(row[column])[:40]}, expected a time with its offset such as "
            "2020-05-30T04:57:37+02:00. Correct it."
        )
    return time


# --- media


def _sample(row: Row, observations: list[Observation], folder: Path) -> Sample | Unreadable:
    """The file and its label, or why it has none that can be used."""
    written = row["filePath"]
    if written.lower().startswith(_WEB):
        name = pathtext.to_text(written[: outside.MAX_NAME])
        return left_out(name, "", "not here", "is on the web, not on this machine. Download it and set its filePath.")
    inside = outside.inside(written, row.where)
    name = pathtext.to_text(inside)
    labels = {each.label for each in observations if each.label}
    label = next(iter(labels)) if len(labels) == 1 else ""
    if not row["fileMediatype"].startswith("image/"):
        return left_out(name, label, "not a photo", f"is {ascii(row['fileMediatype'])[:40]}, not a photo.")
    if any(each.set_up for each in observations):
        return left_out(name, "", "setup", "was taken while the camera was set up or calibrated.")
    if not labels:
        return left_out(name, "", "no label", "has no label in the observations, or one that says unknown.")
    if not label:
        return two_labels(name, labels)
    path = folder / inside
    if not os.path.isfile(path):
        return left_out(name, label, "missing", "is named in the media, but is not there.")
    return Sample(path, name, label)


def _some_are_there(path: Path, samples: list[Sample], rest: list[Unreadable]) -> None:
    absent = [each for each in rest if each.code in ("missing", "not here")]
    if absent and not samples:
        raise DataError(
            f"{path} names {len(absent)} photos and none of them is on this machine; {absent[0].reason} "
            f"Put them below {path.parent}."
        )


def _notes(path: Path, samples: list[Sample], rest: list[Unreadable], machine: int) -> list[str]:
    notes = []
    for code, what in (("not here", "are on the web, not on this machine"), ("missing", "are not there")):
        count = sum(each.code == code for each in rest)
        if count:
            notes.append(f"{path}: {count} of {len(samples) + len(rest)} media {what}, and are left out.")
    if machine:
        notes.append(f"{path}: the labels of {machine} of {len(samples)} photos were given by a machine, not a person.")
    return notes
