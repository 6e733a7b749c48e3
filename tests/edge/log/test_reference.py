"""The log's SQL against what docs/log.md says, as :mod:`tests.edge.log.reference` has it in plain Python.

Each claim is held for many random logs. Whether that would notice an error is tested, too: for every log in
:data:`BROKEN` the comparison must find what is wrong with it.
"""

from __future__ import annotations

import csv
import inspect
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import pytest

from edge.log import details, event_index, event_near, events, export, independence, query, store, table, times
from edge.log.query import EVERYTHING, Filter
from tests import scale
from tests.edge.log import random_logs, reference
from tests.edge.log.reference import Entries, Event, Line, Record

ROOT = Path(__file__).resolve().parents[3]
KEPT = 200
"""So many logs are made once for all claims; a night's would fill the disk."""


@dataclass(frozen=True)
class Case:
    """A random log, open, and what was put into it. What is asked of it follows from the seed, too."""

    log: sqlite3.Connection
    put: Entries
    starts: Mapping[str, datetime]
    gap_s: float
    random: Random

    def records(self) -> list[Record]:
        return reference.records(self.put, self.starts)

    def events(self) -> list[Event]:
        return reference.events(self.records(), self.gap_s, self.put.event_reviews)

    def lines(self, wanted: Filter) -> tuple[list[Line], list[int]]:
        return reference.lines(self.put, wanted, self.gap_s, self.starts)

    def rows(self, wanted: Filter) -> list[query.Row]:
        return list(query.rows(self.log, wanted, event_gap_s=self.gap_s, starts=self.starts))


Claim = Callable[[Case], None]


@contextmanager
def case_of(seed: int, folder: Path) -> Iterator[Case]:
    put, random = random_logs.entries(seed), Random(f"questions {seed}")
    path = folder / f"{seed}.db"
    if not path.exists():
        random_logs.write(path, put)
    with closing(store.open_for_reading(path)) as log:
        yield Case(log, put, random_logs.starts(seed), random.choice(random_logs.GAPS_S), random)
    if seed >= KEPT:
        path.unlink()


def hold(claim: Claim, folder: Path, logs: int) -> None:
    """Compare so many logs; a difference says of which seed it is."""
    for seed in range(logs):
        with case_of(seed, folder) as case:
            try:
                claim(case)
            except Exception as error:
                error.add_note(f"This is {claim.__name__} with random_logs.entries({seed}).")
                raise


# What is claimed


def rows_that_a_filter_lets_through(case: Case) -> None:
    for wanted in (EVERYTHING, *(random_logs.question(case.random, case.put) for _ in range(4))):
        case = replace(case, gap_s=case.random.choice(random_logs.GAPS_S))
        expected, numbers = case.lines(wanted)
        found = case.rows(wanted)
        assert [as_line(row) for row in found] == expected, wanted
        assert same_event(row.event_number for row in found) == same_event(numbers), wanted


def newest_rows_whether_few_or_many_are_read(case: Case) -> None:
    for wanted in (EVERYTHING, random_logs.question(case.random, case.put)):
        expected, numbers = case.lines(wanted)
        for newest in range(1, len(expected) + 2):
            for few in (query._FEW, 0):  # up to so many are found backwards, more in the rows of the whole log
                sizes: dict[str, Any] = {
                    "_FEW": few,
                    "_BATCH": case.random.choice([1, 2, 500]),
                    "_SPAN": case.random.choice([1, 2, 7]),
                }
                with mock.patch.multiple(query, **sizes):
                    found = case.rows(replace(wanted, newest=newest))
                assert [as_line(row) for row in found] == expected[-newest:], (wanted, newest, sizes)
                assert same_event(row.event_number for row in found) == same_event(numbers[-newest:])


def the_event_of_each_file_and_what_it_shows(case: Case) -> None:
    for event in case.events():
        label, confidence, also = reference.verdict(event)
        ids = [member.file.id for member in event.members]
        for member in event.members:
            near = event_near.EventsNear(case.log, case.gap_s).event_with(member.file.id)
            assert (near.id, [moment.file_id for moment in near.moments]) == (event.name, ids)
            found = details.of_file(case.log, member.file.id, case.gap_s, case.starts)
            assert (found["event"], found["event_files"]) == (event.name, len(ids))
            assert (found["event_label"], tuple(found["event_also"])) == (label, also), member.file.id
            assert found["event_confidence"] == pytest.approx(confidence, abs=1e-6)


def the_history_of_each_file(case: Case) -> None:
    records = case.records()
    for record in records:
        file = record.file
        found = details.of_file(case.log, file.id, case.gap_s, case.starts)
        others = [each.file for each in records if each.file.photo and each.file.id != file.id]
        holding = [i for i, shift in enumerate(case.put.shifts, 1) if reference.holds(shift, file)]
        assert found["copies"] == [each.path for each in others if each.sha256 == file.sha256]
        assert [each["id"] for each in found["time_shifts"]] == holding
        assert [each["label"] for each in found["models"]] == [each.label for each in record.answers]
        said = [[seen["label"] for seen in review["observations"]] for review in found["reviews"]]
        assert said == reference.reviews(case.put, file.sha256)


def independent_records_of_a_species(case: Case) -> None:
    for interval_s in random_logs.INTERVALS_S:
        expected = reference.independent(case.records(), interval_s)
        with closing(independence.Independence(case.log, interval_s)) as found:
            for file in reference.files(case.put.reads):
                assert found.of(file.id) == expected.get(file.id), (file.id, interval_s)


def the_review_page_and_its_counts(case: Case) -> None:
    expected = {state: reference.to_review(case.records(), state) for state in query.STATES}
    assert query.count_states(case.log) == {state: len(ids) for state, ids in expected.items()}
    files, shas = [each.file for each in case.records()], {sha256 for sha256, _ in case.put.reviews}
    totals = query.totals(case.log)
    assert (totals.files, totals.failures) == (len(files), sum(file.failing for file in files))
    assert (totals.photos, totals.reviewed) == (len({file.sha256 for file in files} - {None}), len(shas))
    most = case.random.choice([1, 2, 3, 20])
    for state, ids in expected.items():
        pages = [query.to_review(case.log, state, skip=skip, most=most) for skip in range(0, len(ids) + 1, most)]
        assert [[row.id for row in page] for page in pages] == [ids[i : i + most] for i in range(0, len(ids) + 1, most)]


def the_counts_under_the_table(case: Case) -> None:
    wanted = random_logs.question(case.random, case.put)
    summary = table.Summary()
    list(summary.counting(case.rows(wanted)))
    told = list(zip(*case.lines(wanted), strict=True))
    labelled = [(line, event) for line, event in told if line.label and not line.duplicate_of]
    photos = {(line.label, line.id) for line, _ in labelled}
    its_events = {(line.label, event) for line, event in labelled}
    assert summary.photos == Counter(label for label, _ in photos)
    assert {label: bits_of(summary.events[label]) for label in summary.events} == Counter(
        label for label, _ in its_events
    )
    files = {line.id: line for line, _ in told}.values()
    assert (summary.files, summary.failed) == (len(files), sum(line.failure is not None for line in files))
    assert summary.copies == sum(line.failure is None and line.duplicate_of is not None for line in files)


def the_exported_cells(case: Case) -> None:
    wanted, interval_s = random_logs.question(case.random, case.put), case.random.choice(random_logs.INTERVALS_S)
    apart = reference.independent(case.records(), interval_s)
    found = csv.DictReader(
        export.csv_lines(case.log, wanted, event_gap_s=case.gap_s, starts=case.starts, independence_s=interval_s)
    )
    told = [line._asdict() | {"independent": apart.get(line.id)} for line in case.lines(wanted)[0]]
    expected = [{name: reference.cell(cell) for name, cell in line.items()} for line in told]
    names = (*Line._fields, "independent")
    assert [{name: row[name] for name in names if name in row} for row in found] == [
        {name: row[name] for name in names if name in table.LOG_COLUMNS or name == "independent"} for row in expected
    ]


CLAIMS: list[Claim] = [
    rows_that_a_filter_lets_through,
    newest_rows_whether_few_or_many_are_read,
    the_event_of_each_file_and_what_it_shows,
    the_history_of_each_file,
    independent_records_of_a_species,
    the_review_page_and_its_counts,
    the_counts_under_the_table,
    the_exported_cells,
]


def as_line(row: query.Row) -> Line:
    return Line(**{name: getattr(row, name) for name in Line._fields})


def same_event(numbers: Iterable[int]) -> list[int]:
    """For each the place of the first of its event, whatever the numbers are."""
    numbers = list(numbers)
    return [numbers.index(number) for number in numbers]


def bits_of(bits: bytearray) -> int:
    return sum(byte.bit_count() for byte in bits)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__.replace("_", " "))
def test_log_answers_as_the_reference_does(claim: Claim, folder: Path) -> None:
    hold(claim, folder, scale.count("reference_logs"))


# Whether an error would be noticed

Change = Callable[[pytest.MonkeyPatch], None]


class Broken(NamedTuple):
    """A log with one rule broken, and the claim that does not hold of it."""

    change: Change
    claim: Claim


def sql(module: ModuleType, name: str, right: str, wrong: str) -> Change:
    """Other words in a statement."""

    def change(patch: pytest.MonkeyPatch) -> None:
        statement = getattr(module, name)
        assert right in statement, f"{name} has no {right!r} any more: break it in another way"
        patch.setattr(module, name, statement.replace(right, wrong))

    return change


def value(owner: object, name: str, wrong: object) -> Change:
    """Another value or function."""
    return lambda patch: patch.setattr(owner, name, wrong)


def numbered_with_the_gap_in(moments: Iterable[events.Moment], gap_s: float) -> Iterator[tuple[int, events.Moment]]:
    return _numbered(moments, gap_s + 0.001)


def until_and_no_further(text: str, comparison: str, name: str, values: dict[str, Any]) -> str:
    return _time(text, comparison, name, values).replace("<", "<=")


def one_row_too_late(*asked: Any) -> tuple[int, int]:
    row, model = _before_newest(*asked)
    return row, model + 1


def spans_with_a_hole(last_id: int) -> Iterator[dict[str, int]]:
    return (span | {"first_id": span["first_id"] + (span["first_id"] > 1)} for span in _spans_back(last_id))


def interval_too_long(self: independence.Independence, log: sqlite3.Connection, interval_s: float) -> None:
    _independence(self, log, interval_s + 0.02)


_numbered, _time, _independence = events.numbered, query._time, independence.Independence.__init__
_before_newest, _spans_back = query._before_newest, query._spans_back

BROKEN = {
    "photos exactly the gap apart are one event": Broken(
        value(events, "numbered", numbered_with_the_gap_in), rows_that_a_filter_lets_through
    ),
    "a photo with only its file's time joins an event": Broken(
        sql(event_index, "MOMENTS", "f.taken_source <> 'file'", "1"), rows_that_a_filter_lets_through
    ),
    "an event forgets the name under which it was reviewed": Broken(
        sql(event_index, "_REVIEWED", "WHERE reviewed", "WHERE 0"), rows_that_a_filter_lets_through
    ),
    "an event ends with the photo that was asked for": Broken(
        value(event_near.EventsNear, "_reach", lambda near, seed, way: seed.taken_s),
        the_event_of_each_file_and_what_it_shows,
    ),
    "a person in a photo of an event does not win": Broken(
        value(events, "PERSON", "nobody"), the_event_of_each_file_and_what_it_shows
    ),
    "a group counts beside its species": Broken(
        value(events, "_most_precise", lambda shots: {shot.label for shot in shots}),
        the_event_of_each_file_and_what_it_shows,
    ),
    "a correction of one station holds for all": Broken(
        sql(query, "_ROWS", "s.station = f.station", "1"), rows_that_a_filter_lets_through
    ),
    "the end of a correction is in": Broken(
        sql(query, "_ROWS", "f.taken_local < s.until_local", "f.taken_local <= s.until_local"),
        rows_that_a_filter_lets_through,
    ),
    "only the largest correction counts": Broken(
        sql(query, "_ROWS", "sum(s.seconds)", "max(s.seconds)"), rows_that_a_filter_lets_through
    ),
    "a clock that was set back is not noticed": Broken(
        value(times, "is_backwards", lambda *names: False), rows_that_a_filter_lets_through
    ),
    "an assumed offset has an hour and not 26": Broken(
        value(times, "_FUTURE_BY", dict.fromkeys((True, False), times._FUTURE_BY[False])),
        rows_that_a_filter_lets_through,
    ),
    "the first model counts and not the newest": Broken(
        sql(query, "_ROWS", "max(id) FROM classification", "min(id) FROM classification"),
        rows_that_a_filter_lets_through,
    ),
    "the first review counts and not the newest": Broken(
        sql(query, "_ROWS", "max(id) FROM review", "min(id) FROM review"), rows_that_a_filter_lets_through
    ),
    "a failure that a later read answered for is shown": Broken(
        sql(query, "_ROWS", query._SHOWN, "1"), rows_that_a_filter_lets_through
    ),
    "the end of a filter is in": Broken(value(query, "_time", until_and_no_further), rows_that_a_filter_lets_through),
    "the newest rows begin one too late": Broken(
        value(query, "_before_newest", one_row_too_late), newest_rows_whether_few_or_many_are_read
    ),
    "a row between two spans is left out": Broken(
        value(query, "_spans_back", spans_with_a_hole), newest_rows_whether_few_or_many_are_read
    ),
    "copies are records of a species": Broken(
        sql(query, "_LABELS", "first_id IS NULL AND", ""), independent_records_of_a_species
    ),
    "an independent photo is later than the interval": Broken(
        value(independence.Independence, "__init__", interval_too_long), independent_records_of_a_species
    ),
    "a formula is exported as it is": Broken(value(table, "_cell", str), the_exported_cells),
    "a good read answers for no failure": Broken(
        value(store.Log, "_close_failures", lambda *facts: None), rows_that_a_filter_lets_through
    ),
    "no file is a copy": Broken(value(store.Log, "_first_file", lambda *facts: None), the_review_page_and_its_counts),
    "a label stays as it was typed": Broken(
        value(store.Log, "spelling", lambda self, label: label), rows_that_a_filter_lets_through
    ),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_comparison_finds_that(broken: Broken, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken.change(monkeypatch)
    with pytest.raises(AssertionError):
        hold(broken.claim, tmp_path, scale.COUNTS["reference_logs"].test)


def test_random_logs_hold_what_the_rules_are_about() -> None:
    found = Counter(fact for seed in range(scale.COUNTS["reference_logs"].test) for fact in set(facts_of(seed)))
    assert [fact for fact in FACTS if found[fact] < 3] == [], found


FACTS = (
    *("copy", "copy at another station", "failure", "failing photo", "read again", "answered for", "not shown"),
    *("two models", "one model in two bundles", "rollup", "unknown", "empty", "species", "reviewed again", "damaged"),
    *("corrected", "corrected twice", "clock-reset", "future", "backwards", "offset-assumed", "not-exif"),
    *(
        "event of several",
        "event of two species",
        "event with copies",
        "event that keeps its name",
    ),
)


def facts_of(seed: int) -> Iterator[str]:
    """What is in a log that some rule is about."""
    put = random_logs.entries(seed)
    for file in reference.files(put.reads):
        yield from (name for name, is_so in facts_of_file(put, file) if is_so)
    records = reference.records(put, random_logs.starts(seed))
    for record in records:
        yield from record.flags
        yield from (answer.decision for answer in record.answers)
    for event in reference.events(records, 120.0, put.event_reviews):
        yield from (name for name, is_so in facts_of_event(event) if is_so)
    bundles = {(read.photo.sha256, read.detection.bundle) for read in put.reads if read.photo and read.detection}
    models = {(sha256, bundle.model_digest) for sha256, bundle in bundles}
    yield from ["one model in two bundles"] * (len(models) < len(bundles))
    yield from ["reviewed again"] * (len({sha256 for sha256, _ in put.reviews}) < len(put.reviews))


def facts_of_file(put: Entries, file: reference.File) -> Iterator[tuple[str, bool]]:
    yield "copy", file.copy_of is not None
    yield "copy at another station", bool(file.copy_of and file.copy_of.facts.station != file.facts.station)
    yield "failure", file.failing
    yield "failing photo", file.failing and file.photo is not None
    yield "read again", file.tries > 1
    yield "answered for", file.answered_for
    yield "not shown", not reference.shown(file)
    yield "two models", len(reference.answers(put, file.sha256)) > 1
    yield "damaged", reference.damaged(put, file.sha256)
    holding = [shift for shift in put.shifts if reference.holds(shift, file)]
    yield "corrected", len(holding) > 0
    yield "corrected twice", len(holding) > 1


def facts_of_event(event: Event) -> Iterator[tuple[str, bool]]:
    keys = {member.key for member in event.members}
    yield "event of several", len(keys) > 2
    yield "event of two species", len(reference.verdict(event).also) > 0
    yield "event with copies", len(keys) < len(event.members)
    yield "event that keeps its name", event.name != event.members[0].key


def test_every_sentence_of_the_reference_stands_in_the_documentation() -> None:
    page = " ".join((ROOT / "docs" / "log.md").read_text(encoding="utf-8").split())
    sentences = re.findall("“(.+?)”", " ".join(inspect.getsource(reference).split()))
    assert len(sentences) > 20
    assert [words for words in sentences if words not in page] == []
