"""Events, each case worked by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.log.events import Moment, Shot, Verdict, group, numbered, verdict


def moments(*times_s: float, place: str = "beech") -> list[Moment]:
    return [Moment(i, f"key{i}", place, time_s) for i, time_s in enumerate(times_s, 1)]


def ids(found: list[Moment], gap_s: float = 120.0, reviewed: tuple[str, ...] = ()) -> list[tuple[str, list[int]]]:
    return [(event.id, [moment.file_id for moment in event.moments]) for event in group(found, gap_s, reviewed)]


# Grouping


def test_photos_closer_than_the_gap_to_the_one_before_are_one_event() -> None:
    assert ids(moments(0, 100, 200, 300)) == [("key1", [1, 2, 3, 4])]


def test_photos_exactly_the_gap_apart_are_two_events() -> None:
    assert ids(moments(0, 119.9, 239.9)) == [("key1", [1, 2]), ("key3", [3])]


def test_two_stations_at_the_same_time_are_two_events() -> None:
    both = [*moments(0, 1), Moment(7, "key7", "oak", 0.5)]
    assert ids(both) == [("key1", [1, 2]), ("key7", [7])]


def test_photo_without_a_time_of_its_own_is_an_event_of_its_own() -> None:
    """Two photos of the camera 100 s apart; three files that were copied together 50 s after the first."""
    copied = [Moment(number, f"key{number}", "beech", 50.0, timed=False) for number in (7, 8, 9)]
    first, last = moments(0, 100)
    assert sorted(ids([first, *copied, last])) == [
        ("key1", [1, 2]), ("key7", [7]), ("key8", [8]), ("key9", [9]),
    ]  # fmt: skip


def test_no_photo_is_no_event() -> None:
    assert ids([]) == []


def test_a_late_earlier_photo_joins_a_reviewed_event_without_renaming_it() -> None:
    late = [Moment(9, "late", "beech", -50.0), *moments(0, 100)]
    assert ids(late) == [("late", [9, 1, 2])]
    assert ids(late, reviewed=("key1",)) == [("key1", [9, 1, 2])]


@given(st.lists(st.floats(0, 1e6), max_size=30), st.floats(1, 1000))
def test_every_photo_is_in_exactly_one_event_and_gaps_lie_between_events_only(times: list[float], gap_s: float) -> None:
    found = moments(*sorted(times))
    events = list(group(found, gap_s))
    assert [moment for event in events for moment in event.moments] == found
    for event in events:
        seconds = [moment.taken_s for moment in event.moments]
        assert all(after - before < gap_s for before, after in pairwise(seconds))
    for before, after in pairwise(events):
        assert after.moments[0].taken_s - before.moments[-1].taken_s >= gap_s


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 400), st.booleans()), max_size=30))
def test_numbers_say_the_same_as_groups(found: list[tuple[str, int, bool]]) -> None:
    photos = [
        Moment(i, f"key{i}", place, float(at), timed=timed) for i, (place, at, timed) in enumerate(sorted(found), 1)
    ]
    by_number: dict[int, list[int]] = {}
    for number, moment in numbered(photos, 120.0):
        by_number.setdefault(number, []).append(moment.file_id)
    assert list(by_number) == sorted(by_number)
    assert sorted(by_number.values()) == sorted([moment.file_id for moment in event.moments] for event in group(photos))


# What an event shows


def shot(key: str, label: str | None, *top: tuple[str, float]) -> Shot:
    return Shot(key, label, top[0][1] if top else 0.0, top)


EMPTY_1 = shot("e1", "empty", ("empty", 0.9), ("deer", 0.1))
EMPTY_2 = shot("e2", "empty", ("empty", 0.7), ("fox", 0.3))
DEER = shot("d", "deer", ("deer", 0.8), ("fox", 0.2))
FOX = shot("f", "fox", ("fox", 0.6), ("deer", 0.4))
UNSURE = shot("u", "unknown", ("fox", 0.4), ("deer", 0.3), ("empty", 0.3))
PERSON = shot("p", "person", ("person", 0.55), ("deer", 0.45))
FAILED = shot("x", None)
SAID_FOX = Shot("s", "fox", 1.0)


@pytest.mark.parametrize(
    ("shots", "expected"),
    [
        pytest.param([EMPTY_1, EMPTY_2], Verdict("empty", 0.7), id="all empty is empty, as sure as the least sure"),
        pytest.param([EMPTY_1, DEER], Verdict("deer", 0.8), id="one animal among empty photos is the animal"),
        # deer (0.8 + 0.4) / 2, fox (0.2 + 0.6) / 2
        pytest.param([DEER, FOX], Verdict("deer", 0.6, ("fox",)), id="a second species is kept"),
        # fox (0.2 + 0.6 + 0.4) / 3, deer (0.8 + 0.4 + 0.3) / 3
        pytest.param([DEER, FOX, UNSURE], Verdict("deer", 0.5, ("fox",)), id="an unsure photo is pooled too"),
        # deer 0.8 / 2 + 0.3 / 2; fox passed nowhere
        pytest.param([DEER, UNSURE], Verdict("deer", 0.55), id="a label that passed nowhere is not kept"),
        pytest.param([UNSURE, EMPTY_1], Verdict("unknown", 0.4), id="nothing passed but not all is empty: unknown"),
        pytest.param([DEER, PERSON], Verdict("person", 0.55, ("deer",)), id="a person in any photo wins"),
        pytest.param([EMPTY_1, FAILED], Verdict("unknown", 0.0), id="a failed photo keeps an event from being empty"),
        pytest.param([DEER, FAILED], Verdict("deer", 0.8), id="a failed photo lowers nobody's probability"),
        pytest.param([FAILED], Verdict("unknown", 0.0), id="only failures are unknown"),
        pytest.param([], Verdict("unknown", 0.0), id="nothing is unknown"),
        pytest.param([DEER, DEER], Verdict("deer", 0.8), id="copies of a photo count once"),
        # fox (1 + 0.2) / 2, deer (0 + 0.8) / 2
        pytest.param([SAID_FOX, DEER], Verdict("fox", 0.6, ("deer",)), id="a person's label counts as certain"),
    ],
)
def test_what_an_event_shows(shots: list[Shot], expected: Verdict) -> None:
    found = verdict(shots)
    assert (found.label, found.also) == (expected.label, expected.also)
    assert found.confidence == pytest.approx(expected.confidence)


CANID = Shot("c", "Canidae", 0.9, (("fox", 0.6), ("dog", 0.3)), rolled_up=True)
ANIMAL = Shot("a", "animal", 0.95, (("deer", 0.5), ("fox", 0.45)), rolled_up=True)


@pytest.mark.parametrize(
    ("shots", "expected"),
    [
        pytest.param([CANID, EMPTY_1], Verdict("Canidae", 0.9), id="a taxon among empty photos is the event's label"),
        # fox (0.6 + 0.6) / 2
        pytest.param([CANID, FOX], Verdict("fox", 0.6), id="a species says more than its taxon"),
        # Canidae 0.9 / 2, though animal 0.95 / 2
        pytest.param([ANIMAL, CANID], Verdict("Canidae", 0.45), id="a taxon says more than animal"),
        pytest.param([ANIMAL, UNSURE], Verdict("animal", 0.475), id="animal says more than unknown"),
        pytest.param([PERSON, ANIMAL], Verdict("person", 0.55, ("animal",)), id="a person hides no animal"),
        pytest.param(
            [shot("v", "vehicle", ("vehicle", 0.9)), ANIMAL], Verdict("animal", 0.475, ("vehicle",)),
            id="nor does a car, and the likelier of the two comes first",
        ),
    ],
)  # fmt: skip
def test_what_an_event_with_roll_ups_shows(shots: list[Shot], expected: Verdict) -> None:
    found = verdict(shots)
    assert (found.label, found.also) == (expected.label, expected.also)
    assert found.confidence == pytest.approx(expected.confidence)


def test_a_label_outside_the_top_list_counts_with_its_confidence() -> None:
    rolled_up = Shot("r", "canine", 0.9, (("fox", 0.5), ("dog", 0.4)))
    assert verdict([rolled_up]) == Verdict("canine", 0.9)
