"""What a detection log means, in plain Python: from what was written into it to what it must answer.

One rule is one function. Where its docstring begins with a sentence in quotation marks, that is the sentence of
docs/log.md that it puts into code. No SQL, and nothing of the modules that are held against it: from the log come only
the shapes of what is written and of what is asked. Made to be read, and slow; it never opens a log."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

from edge.log.query import Filter
from edge.log.store import BundleFacts, Detection, Failure, FileFacts, FileKey, PhotoFacts, TimeShift

FIXED_WORDS = ("empty", "person", "unknown", "setup")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True)
class Read:
    """What came of reading a file once, as the log is told of it, and when by the device's clock."""

    file: FileFacts
    photo: PhotoFacts | None
    detection: Detection | None
    failure: Failure | None
    seen: datetime


@dataclass(frozen=True)
class Entries:
    """Everything that was put into a log, each list in the order in which it was.

    Attributes:
        reviews: the hash of a photo, and the labels that a person gave it at one time.
        event_reviews: the names of events that a person has reviewed."""

    bundles: tuple[BundleFacts, ...]
    reads: tuple[Read, ...]
    reviews: tuple[tuple[str, tuple[str, ...]], ...]
    event_reviews: tuple[str, ...]
    shifts: tuple[TimeShift, ...]


# Files, copies, failures


@dataclass
class File:
    """A file as it stands after all reads so far."""

    id: int
    facts: FileFacts
    seen: datetime
    failure: Failure | None
    photo: PhotoFacts | None = None
    copy_of: File | None = None
    answered_for: bool = False
    tries: int = 1

    @property
    def path(self) -> str:
        """The whole path."""
        return f"{self.facts.key.source.rstrip('/')}/{self.facts.key.path}"

    @property
    def sha256(self) -> str | None:
        """Of its photo."""
        return self.photo.sha256 if self.photo else None

    @property
    def failing(self) -> bool:
        """Whether its failure is open."""
        return self.failure is not None and not self.answered_for

    @property
    def timed(self) -> bool:
        """Whether the camera said when, and not only the file."""
        return self.facts.taken.source != "file"


def files(reads: Iterable[Read]) -> list[File]:
    """“The same name with another size or time is another file”; the same file again is the same row."""
    found: dict[FileKey, File] = {}
    for read in reads:
        file = found.get(read.file.key)
        if file is None:
            file = found[read.file.key] = File(len(found) + 1, read.file, read.seen, read.failure)
        elif file.failing:
            try_again(file, read)
        take_photo(file, read, found.values())
        answer_for(read, found.values())
    return list(found.values())


def try_again(file: File, read: Read) -> None:
    """A failing file is read again: that is counted, and the last reason is the one that is shown."""
    file.tries += 1
    file.failure = read.failure or file.failure


def take_photo(file: File, read: Read, others: Iterable[File]) -> None:
    """“Several files can be the same photo; `file.duplicate_of` names the one that is no copy”: that which was the
    first to be read as this photo."""
    if read.photo is None or file.photo is not None or file.answered_for:
        return
    file.copy_of = next((each for each in others if each.sha256 == read.photo.sha256 and each.copy_of is None), None)
    file.photo = read.photo


def answer_for(read: Read, found: Iterable[File]) -> None:
    """“it failed once; a later good read (`failure_closed_by`) answers for it”: of the same photo, or, where the file
    could not be decoded, of the same path."""
    if read.photo is None or read.failure is not None:
        return
    for file in found:
        same_photo = file.sha256 == read.photo.sha256
        if file.failing and (same_photo or (file.photo is None and name(file.facts.key) == name(read.file.key))):
            file.answered_for = True


def name(key: FileKey) -> tuple[str, str, str]:
    """What a file keeps when it is written anew."""
    return key.device, key.source, key.path


def shown(file: File) -> bool:
    """“A closed failure without a photo is not shown by `fieldmark log`, since the row that closed it is.”"""
    return not (file.photo is None and file.answered_for)


def damaged(entries: Entries, sha256: str | None) -> bool:
    """Damage that was seen once stays seen."""
    return any(read.photo.damaged for read in entries.reads if read.photo and read.photo.sha256 == sha256)


# What models and people say


def answers(entries: Entries, sha256: str | None) -> list[Detection]:
    """“the answer of one model (`model_digest`) to one photo: never two”: the first stays."""
    found: dict[str, Detection] = {}
    for read in entries.reads:
        if read.detection and read.photo and read.photo.sha256 == sha256:
            found.setdefault(read.detection.bundle.model_digest, read.detection)
    return list(found.values())


def reviews(entries: Entries, sha256: str | None) -> list[list[str]]:
    """Every review of a photo, in the log's spelling, the oldest first."""
    return [[spelling(entries, label) for label in labels] for of, labels in entries.reviews if of == sha256]


def person_label(entries: Entries, sha256: str | None) -> str | None:
    """“The newest review counts, the earlier ones stay.” Of its labels the first."""
    said = reviews(entries, sha256)
    return said[-1][0] if said else None


def spelling(entries: Entries, typed: str) -> str:
    """“`empty`, `person`, `unknown`, `setup` and what the models know are written in one spelling, in whatever case
    they were typed”"""
    typed = as_typed(typed)
    known = [*FIXED_WORDS, *(label for bundle in entries.bundles for label in bundle.labels)]
    return typed if typed in known else next((each for each in known if each.casefold() == typed.casefold()), typed)


def as_typed(text: str) -> str:
    """The same words are the same text, however they are composed and spaced."""
    return " ".join(unicodedata.normalize("NFC", text).split())


# Times


def holds(shift: TimeShift, file: File) -> bool:
    """“It holds for the photos whose *uncorrected* time lies in its limits”, and “Times that are only the file's are
    left alone unless `--file-times` is given.”"""
    wrote = datetime.fromisoformat(file.facts.taken.local)
    return (
        shift.station in (None, file.facts.station)
        and shift.device in (None, file.facts.key.device)
        and shift.source in (None, file.facts.key.source)
        and (shift.since_local is None or wrote >= datetime.fromisoformat(shift.since_local))
        and (shift.until_local is None or wrote < datetime.fromisoformat(shift.until_local))
        and (shift.file_times or file.timed)
    )


def corrected(entries: Entries, file: File) -> str:
    """“several add up, and the opposite one undoes it, with the same limits”. Parts of a second stay as the camera
    wrote them."""
    wrote = file.facts.taken.local
    seconds = sum(shift.seconds for shift in entries.shifts if holds(shift, file))
    whole = datetime.fromisoformat(wrote[:19]) + timedelta(seconds=seconds)
    return whole.isoformat() + wrote[19:]


def taken(entries: Entries, file: File) -> datetime:
    """The corrected time with the camera's offset."""
    return datetime.fromisoformat(corrected(entries, file) + file.facts.taken.utc_offset)


def time_flags(
    entries: Entries, file: File, all_files: Sequence[File], starts: Mapping[str, datetime]
) -> tuple[str, ...]:
    """“The last three are computed from the corrected time, so a correction or a new deployment changes them at
    once.”"""
    found = list(file.facts.taken.flags)
    when = taken(entries, file)
    start = starts.get(file.facts.station or "")
    if is_reset(when) or (start is not None and when < start):
        found.append("clock-reset")
    if when - file.seen > future_by(file):
        found.append("future")
    if is_backwards(entries, file, all_files):
        found.append("backwards")
    return tuple(found)


def is_reset(when: datetime) -> bool:
    """“a time up to the year 2000, or of 2010-01-01, at which cameras start that lost their power”"""
    return when.year <= 2000 or (when.year, when.month, when.day) == (2010, 1, 1)


def future_by(file: File) -> timedelta:
    """“more than an hour later than the device saw the file (26 hours where the offset is assumed)”"""
    return timedelta(hours=26 if "offset-assumed" in file.facts.taken.flags else 1)


def is_backwards(entries: Entries, file: File, all_files: Sequence[File]) -> bool:
    """“the file before it in the order of names, with a lower number in the same series, was taken later”: by the
    camera's clock. Of several files with that name it is the one that was changed last."""
    folder = (file.facts.key.device, file.facts.key.source)
    before = [
        each
        for each in all_files
        if (each.facts.key.device, each.facts.key.source) == folder and each.facts.key.path < file.facts.key.path
    ]
    if not before or not file.timed:
        return False
    last = max(before, key=lambda each: (each.facts.key.path, each.facts.key.mtime_ns))
    return last.timed and follows(last, file) and clock(entries, last) > clock(entries, file)


def clock(entries: Entries, file: File) -> datetime:
    """The corrected time without its offset."""
    return datetime.fromisoformat(corrected(entries, file))


def follows(before: File, after: File) -> bool:
    """Whether two names are of one series, ``IMG_0001.jpg`` and ``IMG_0007.jpg``: all but the last digits are alike."""
    (series, number), (other, later) = series_and_number(before), series_and_number(after)
    return series == other and len(number) == len(later) and number < later


def series_and_number(file: File) -> tuple[str, str]:
    """``100/IMG_`` and ``0001`` of ``100/IMG_0001.jpg``."""
    stem = file.facts.key.path.rpartition(".")[0]
    series = stem.rstrip("0123456789")
    return series, stem[len(series) :]


# Records: the files that the log shows


@dataclass(frozen=True)
class Record:
    """A file that the log shows, and what the rules say of it by itself."""

    file: File
    place: str
    key: str
    local: str
    taken: datetime
    flags: tuple[str, ...]
    answers: tuple[Detection, ...]
    person: str | None

    @property
    def newest(self) -> Detection | None:
        """What the newest model said."""
        return self.answers[-1] if self.answers else None

    @property
    def label(self) -> str | None:
        """“the person's word, else the newest model's”"""
        return self.person or (self.newest.label if self.newest else None)


def records(entries: Entries, starts: Mapping[str, datetime]) -> list[Record]:
    """Every file that is shown, in the order in which they were first seen."""
    found = files(entries.reads)
    return [record(entries, file, found, starts) for file in found if shown(file)]


def record(entries: Entries, file: File, all_files: Sequence[File], starts: Mapping[str, datetime]) -> Record:
    """One of them."""
    return Record(
        file=file,
        place=place(file),
        key=event_key(file),
        local=corrected(entries, file),
        taken=taken(entries, file),
        flags=time_flags(entries, file, all_files, starts),
        answers=tuple(answers(entries, file.sha256)) if file.photo else (),
        person=person_label(entries, file.sha256) if file.photo else None,
    )


def place(file: File) -> str:
    """Where no station was given, the device and the folder stand for it."""
    key = file.facts.key
    return file.facts.station if file.facts.station is not None else f"{key.device}:{key.source}"


# Events


@dataclass(frozen=True)
class Event:
    """Photos that belong together, in the order of time, and the name of the event."""

    name: str
    members: tuple[Record, ...]


def event_key(file: File) -> str:
    """What an event is called that this file begins: the same for copies of a photo."""
    return file.sha256[:16] if file.sha256 else f"file-{file.id}"


def events(found: Sequence[Record], gap_s: float, reviewed: Sequence[str]) -> list[Event]:
    """“Photos of one station less than `event_gap_s` apart are one event.”"""
    groups = [group for each in sorted({each.place for each in found}) for group in at_place(found, each, gap_s)]
    return [Event(event_name(group, reviewed), tuple(group)) for group in [*groups, *by_themselves(found)]]


def at_place(found: Sequence[Record], of: str, gap_s: float) -> list[list[Record]]:
    """The photos of one place in the order of time, parted where there is a gap."""
    there = sorted((each for each in found if each.place == of and each.file.timed), key=in_time)
    groups = [there[:1]] if there else []
    for before, after in pairwise(there):
        if after.taken - before.taken < timedelta(seconds=gap_s):
            groups[-1].append(after)
        else:
            groups.append([after])
    return groups


def by_themselves(found: Sequence[Record]) -> list[list[Record]]:
    """“A photo whose time is only its file's is an event by itself”"""
    return [[each] for each in found if not each.file.timed]


def event_name(members: Sequence[Record], reviewed: Sequence[str]) -> str:
    """An event keeps the name under which it was reviewed, also when an earlier photo joins it; else its first photo
    gives the name."""
    return next((each.key for each in members if each.key in reviewed), members[0].key)


def in_time(record: Record) -> tuple[datetime, int]:
    """The order of an event's photos; at one time that of their rows."""
    return record.taken, record.file.id


class Verdict(NamedTuple):
    """What an event shows."""

    label: str
    confidence: float
    also: tuple[str, ...] = ()


class Said(NamedTuple):
    """What counts of one photo in its event; no label where it failed."""

    label: str | None
    chances: dict[str, float]
    group: bool = False


def verdict(event: Event) -> Verdict:
    """“An event is `empty` only if every photo is; a failed photo counts as unknown; `person` in any photo wins; a
    second species is kept if it passed its threshold in some photo.” Copies count once."""
    photos = [said(each) for each in {each.key: each for each in event.members}.values()]
    if all(each.label == "empty" for each in photos):
        return Verdict("empty", min(each.chances["empty"] for each in photos))
    of_animals = mean_chances([each for each in photos if each.label not in (None, "empty")])
    ranked = sorted(decided(photos), key=lambda label: (-of_animals[label], label))
    if "person" in ranked:
        ranked.remove("person")
        surest = max(each.chances["person"] for each in photos if each.label == "person")
        return Verdict("person", surest, tuple(ranked))
    if not ranked:
        return Verdict("unknown", max(of_animals.values(), default=0.0))
    return Verdict(ranked[0], of_animals[ranked[0]], tuple(ranked[1:]))


def said(record: Record) -> Said:
    """A person is sure of what is seen, and `unknown` is nothing that is seen. A model's list need not name what it
    decided, such as a group."""
    if record.person:
        return Said(record.person, {} if record.person == "unknown" else {record.person: 1.0})
    if record.newest is None:
        return Said(None, {})
    chances = dict(record.newest.top)
    if record.newest.label != "unknown":
        chances.setdefault(record.newest.label, record.newest.confidence)
    return Said(record.newest.label, chances, record.newest.decision == "rollup")


def mean_chances(photos: Sequence[Said]) -> dict[str, float]:
    """The mean of each label's probabilities; a photo that does not list a label gives it none."""
    labels = {label for each in photos for label in each.chances}
    return {label: sum(each.chances.get(label, 0.0) for each in photos) / len(photos) for label in labels}


def decided(photos: Sequence[Said]) -> set[str]:
    """“What the model was unsure of and put down as a group (`Cervidae`) counts only where no photo says more.”
    People and vehicles say nothing of an animal; `animal` is the group that says least."""
    labels = {(each.label, each.group) for each in photos if each.label not in (None, "empty", "unknown")}
    sure = {label for label, group in labels if label and not group}
    groups = {label for label, group in labels if label and group}
    if sure - {"person", "vehicle"}:
        return sure
    return sure | ((groups - {"animal"}) or groups)


# What is asked


class Line(NamedTuple):
    """What a row of the log must say: the attributes of :class:`edge.log.query.Row` with these names."""

    id: int
    photo: str
    sha256: str | None
    station: str | None
    taken: str
    taken_original: str
    time_flags: tuple[str, ...]
    duplicate_of: str | None
    failure: str | None
    failure_code: str | None
    tries: int
    damaged: bool
    model_label: str | None
    model_confidence: float | None
    decision: str | None
    top: tuple[tuple[str, float], ...]
    bundle: str | None
    person_label: str | None
    reviewed: bool
    label: str | None
    confidence: float | None
    event: str


def lines(
    entries: Entries, wanted: Filter, gap_s: float, starts: Mapping[str, datetime]
) -> tuple[list[Line], list[int]]:
    """The rows that a filter lets through in the order in which their files were first seen, and for each which event
    it is of, as a number."""
    found = records(entries, starts)
    event_of: dict[int, tuple[int, str]] = {}
    for number, event in enumerate(events(found, gap_s, entries.event_reviews)):
        event_of |= {each.file.id: (number, event.name) for each in event.members}
    told = [
        (line(entries, each, answer, event_of[each.file.id][1]), event_of[each.file.id][0])
        for each in found
        for answer in (each.answers if wanted.all_models and each.answers else [each.newest])
        if lets_through(wanted, each, answer)
    ]
    told = told if wanted.newest is None else told[-wanted.newest :]
    return [each for each, _ in told], [number for _, number in told]


def line(entries: Entries, record: Record, answer: Detection | None, event: str) -> Line:
    """A file, with what one model says of it."""
    file, camera = record.file, record.file.facts.taken
    return Line(
        id=file.id,
        photo=file.path,
        sha256=file.sha256,
        station=file.facts.station,
        taken=record.local + camera.utc_offset,
        taken_original=camera.local + camera.utc_offset,
        time_flags=record.flags,
        duplicate_of=file.copy_of.path if file.copy_of else None,
        failure=file.failure.reason if file.failure and file.failing else None,
        failure_code=file.failure.code if file.failure and file.failing else None,
        tries=file.tries,
        damaged=file.photo is not None and damaged(entries, file.sha256),
        model_label=answer.label if answer else None,
        model_confidence=answer.confidence if answer else None,
        decision=answer.decision if answer else None,
        top=answer.top if answer else (),
        bundle=answer.bundle.name if answer else None,
        person_label=record.person,
        reviewed=record.person is not None,
        label=record.person or (answer.label if answer else None),
        confidence=1.0 if record.person else answer.confidence if answer else None,
        event=event,
    )


def lets_through(wanted: Filter, record: Record, answer: Detection | None) -> bool:
    """Whether all of a filter's conditions hold, each as :class:`edge.log.query.Filter` says it."""
    label = record.person or (answer.label if answer else None)
    unsure = answer is not None and record.person is None and answer.confidence < (wanted.below or 0.0)
    return (
        (wanted.species is None or (label or "").casefold() == as_typed(wanted.species).casefold())
        and (wanted.station is None or record.file.facts.station == wanted.station)
        and (wanted.below is None or unsure)
        and (wanted.since is None or not is_before(record, datetime.fromisoformat(wanted.since)))
        and (wanted.until is None or is_before(record, end_of(wanted.until)))
    )


def end_of(until: str) -> datetime:
    """A day as the end is included, a time is not."""
    end = datetime.fromisoformat(until)
    return end + timedelta(days=1) if len(until) == len("2024-05-01") else end


def is_before(record: Record, limit: datetime) -> bool:
    """With an offset a limit is a moment; without, it is the camera's own clock, corrected."""
    return datetime.fromisoformat(record.local) < limit if limit.tzinfo is None else record.taken < limit


def independent(found: Sequence[Record], interval_s: float) -> dict[int, bool]:
    """“true if the photo before it of the same label at the same station, independent or not, was taken at least 30
    minutes earlier” - or ``interval_s``. By row; what is no record is not in it."""
    last: dict[tuple[str, str | None], datetime] = {}
    told = {}
    for each in sorted(filter(is_record_of_species, found), key=in_time):
        before = last.get((each.place, each.label))
        told[each.file.id] = before is None or each.taken - before >= timedelta(seconds=interval_s)
        last[each.place, each.label] = each.taken
    return told


def is_record_of_species(record: Record) -> bool:
    """“Empty and unknown photos, failures, copies, and times that are only the file's are no records” - nor is the
    crew at the camera."""
    nothing = (None, "empty", "unknown", "setup")
    return record.label not in nothing and record.file.copy_of is None and record.file.timed


def to_review(found: Sequence[Record], state: str) -> list[int]:
    """The rows that the review page shows in one of its states: without copies, the least certain first, and last what
    a person has decided."""
    waiting = [each for each in found if each.file.copy_of is None and is_in_state(each, state)]
    return [each.file.id for each in sorted(waiting, key=least_certain_first)]


def is_in_state(record: Record, state: str) -> bool:
    """What no person has looked at yet, what one has, what failed, or all."""
    if state == "unreviewed":
        return record.file.photo is not None and record.person is None
    if state == "reviewed":
        return record.person is not None
    return state == "all" or record.file.failing


def least_certain_first(record: Record) -> tuple[bool, float, int]:
    """What no model has answered comes before what one is unsure of."""
    return record.person is not None, record.newest.confidence if record.newest else -1.0, record.file.id


def cell(value: object) -> str:
    """“In CSV a text that a spreadsheet would take for a formula, such as a label `=1+1`, has a `'` before it.”
    Lists are JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return json.dumps(value, ensure_ascii=False)
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else str(value)
