"""Which photos are held out, and that nothing of them leaks into what is learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import DataError
from trainer.dataset import questions
from trainer.dataset.questions import Facts, Question

ASKED = ("given", "station", "later", "sequence", "group", "random")


def facts(
    labels: Sequence[int],
    *,
    groups: Sequence[int] | None = None,
    stations: Sequence[str | None] | None = None,
    days: Sequence[float | None] | None = None,
    **more: Any,
) -> Facts:
    """Photos of which nothing is known but what is given; ``days`` are times, in days since some morning."""
    n = len(labels)
    known: dict[str, Any] = {
        "labels": np.array(labels, dtype=np.intp),
        "groups": np.array(range(n) if groups is None else groups, dtype=np.intp),
        "stations": stations or [None] * n,
        "sequences": [None] * n,
        "times": [None] * n if days is None else [None if day is None else after(day) for day in days],
        "parts": [None] * n,
        "names": [f"label {i}" for i in range(max(labels) + 1)],
        "test_share": 0.2,
        "seed": 0,
    }
    return Facts(**{**known, **more})


def after(days: float) -> str:
    return (datetime(2025, 4, 1, 6) + timedelta(days=days)).isoformat()


def ask(what: Facts, split: str = "auto") -> list[Question]:
    return questions.questions(**vars(what), split=split)


def at(stations: int, photos: int) -> list[str]:
    """So many photos at each of so many stations."""
    return [f"S{i // photos + 1}" for i in range(stations * photos)]


FULL = facts(
    [i % 3 for i in range(120)],
    stations=at(6, 20),
    days=[i % 20 for i in range(120)],
    sequences=[f"q{i // 2}" for i in range(120)],
    groups=[i // 2 for i in range(120)],
)
"""Six stations, twenty days at each, three labels, sequences of two photos."""


# --- which question


def test_stations_and_times_give_two_figures_the_new_station_first() -> None:
    assert [question.name for question in ask(FULL)] == ["new station", "same stations, later"]


def no_times(what: Facts) -> Facts:
    return replace(what, times=[None] * len(what.labels))


def no_stations(what: Facts) -> Facts:
    return replace(what, stations=[None] * len(what.labels))


def no_sequences(what: Facts) -> Facts:
    return replace(what, sequences=[None] * len(what.labels))


def one_burst(what: Facts) -> Facts:
    return replace(what, groups=np.zeros(len(what.labels), np.intp))


@pytest.mark.parametrize(
    ("data", "names"),
    [
        pytest.param(no_times(FULL), ["new station"], id="stations without times"),
        pytest.param(no_stations(FULL), ["same stations, later"], id="times without stations"),
        pytest.param(no_times(no_stations(FULL)), ["new sequence"], id="sequences only"),
        pytest.param(no_sequences(no_times(no_stations(FULL))), ["new burst"], id="groups only"),
        pytest.param(one_burst(no_sequences(no_times(no_stations(FULL)))), ["random"], id="a single burst"),
        pytest.param(replace(FULL, parts=["train", "test"] * 60, groups=np.arange(120)), ["as given"], id="divided"),
        pytest.param(
            replace(FULL, parts=["train", "validation"] * 60, groups=np.arange(120)), ["as given"], id="no test part"
        ),
        pytest.param(replace(FULL, parts=["train"] * 120), ["new station", "same stations, later"], id="all in train"),
    ],
)
def test_the_hardest_question_that_the_data_can_answer_is_asked(data: Facts, names: list[str]) -> None:
    assert [question.name for question in ask(data)] == names


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("station", "new station"),
        ("later", "same stations, later"),
        ("sequence", "new sequence"),
        ("group", "new burst"),
        ("random", "random"),
    ],
)
def test_a_question_that_is_asked_for_is_the_only_one(asked: str, name: str) -> None:
    (question,) = ask(FULL, asked)
    assert question.name == name
    assert question.is_test is (name != "random")


def test_a_survey_tells_every_question_and_why_others_cannot_be_answered() -> None:
    options = questions.survey(no_stations(FULL))
    assert [option.name for option in options if option.question] == [
        "same stations, later", "new sequence", "new burst", "random",
    ]  # fmt: skip
    assert {option.name: option.why_not for option in options if not option.question} == {
        "as given": "the data set is not divided: no photo is in a test or validation part.",
        "new station": "the data set names no stations.",
    }


# --- what is promised, whatever the data

MANY = st.integers(12, 60).flatmap(
    lambda n: st.fixed_dictionaries(
        {
            "labels": st.lists(st.integers(0, 2), min_size=n, max_size=n).filter(lambda each: set(each) == {0, 1, 2}),
            "groups": st.lists(st.integers(0, n), min_size=n, max_size=n),
            "stations": st.lists(st.sampled_from([*"ABCDEFG", None]), min_size=n, max_size=n),
            "days": st.tuples(
                st.lists(st.integers(0, 99).map(lambda tenths: tenths / 10), min_size=n, max_size=n),
                st.sets(st.integers(0, n - 1), max_size=n // 10),
            ).map(lambda drawn: [None if i in drawn[1] else day for i, day in enumerate(drawn[0])]),
            "sequences": st.lists(st.sampled_from([*"pqrstuvw"]), min_size=n, max_size=n),
            "parts": st.lists(st.sampled_from(["train", "train", "validation", "test"]), min_size=n, max_size=n),
            "test_share": st.floats(0.05, 0.5),
            "seed": st.integers(0, 5),
        }
    )
)


@given(MANY, st.sampled_from(ASKED))
def test_no_photo_held_out_shares_a_burst_or_a_station_with_what_is_learned(drawn: dict[str, Any], asked: str) -> None:
    data = facts(**drawn)
    try:
        (question,) = ask(data, asked)
    except DataError:
        return
    assert not set(question.test) & set(question.learn)
    assert len(question.test) > 0
    assert (np.diff(question.test) > 0).all()
    assert (np.diff(question.learn) > 0).all()
    assert set(data.labels[question.learn]) == {0, 1, 2}
    if asked != "random":
        assert not set(data.groups[question.test]) & set(data.groups[question.learn])
    if asked == "station":
        held, learned = ({data.stations[i] for i in rows} for rows in (question.test, question.learn))
        assert not held & learned
        assert None not in held | learned
    if asked == "later":
        check_later(data, question)


def check_later(data: Facts, question: Question) -> None:
    for station in {data.stations[i] for i in question.test}:
        held, learned = (
            [data.times[i] or "" for i in rows if data.stations[i] == station]
            for rows in (question.test, question.learn)
        )
        assert "" not in held + learned
        assert max(learned, default="") <= min(held)


@given(MANY, st.sampled_from(ASKED), st.integers(2, 5))
def test_folds_inside_what_is_learned_hold_each_photo_once_and_cut_no_station_or_burst(
    drawn: dict[str, Any], asked: str, count: int
) -> None:
    data = facts(**drawn)
    try:
        (question,) = ask(data, asked)
        found = questions.folds(question, data.labels, count, 0)
    except DataError:
        return
    assert 2 <= len(found) <= count
    assert sorted(np.concatenate(found).tolist()) == question.learn.tolist()
    by_station = asked == "station" and "folds inside them" not in (question.warning or "")
    for i, fold in enumerate(found):
        rest = np.concatenate([other for j, other in enumerate(found) if j != i])
        if asked != "random":
            assert not set(data.groups[fold]) & set(data.groups[rest])
        if by_station:
            assert not {data.stations[k] for k in fold} & {data.stations[k] for k in rest}


@given(MANY)
def test_the_same_seed_holds_out_the_same_photos(drawn: dict[str, Any]) -> None:
    first, again = ([question.test.tolist() for question in ask_or_none(facts(**drawn))] for _ in range(2))
    assert first == again


def ask_or_none(data: Facts) -> list[Question]:
    try:
        return ask(data)
    except DataError:
        return []


# --- new station


@pytest.mark.parametrize("share", [0.1, 0.2, 0.35, 0.5])
def test_about_the_share_asked_for_is_held_out_with_every_label(share: float) -> None:
    random = np.random.default_rng(1)
    stations = [f"S{i}" for i in random.zipf(1.3, 4000).clip(1, 40)]
    data = facts(random.integers(0, 6, 4000).tolist(), stations=stations, test_share=share)
    (question,) = ask(data, "station")
    assert len(question.test) == pytest.approx(share * 4000, rel=0.1)
    assert set(data.labels[question.test]) == set(range(6))
    assert len(question.test) + len(question.learn) == 4000


def test_stations_are_chosen_so_that_a_rare_label_is_on_both_sides() -> None:
    """Twenty stations of deer; fox at two of them, once each."""
    stations = at(20, 10)
    labels = [1 if i in (5, 155) else 0 for i in range(200)]
    for seed in range(5):
        (question,) = ask(facts(labels, stations=stations, seed=seed), "station")
        assert (np.array(labels)[question.test] == 1).sum() == 1
        assert (np.array(labels)[question.learn] == 1).sum() == 1


def test_a_station_with_most_photos_is_never_held_out() -> None:
    stations = ["big"] * 100 + at(5, 4)
    (question,) = ask(facts([i % 2 for i in range(120)], stations=stations), "station")
    assert "big" not in {stations[i] for i in question.test}


def test_the_size_counts_more_than_that_every_label_is_held_out() -> None:
    """Only the largest station has all four labels; 10 % are asked for, and it has 52 %."""
    labels = [*[0, 1, 2, 3] * 25, *[0, 1, 2] * 7, *[0, 1, 3] * 7, *[0, 1] * 25]
    stations = ["big"] * 100 + ["S1"] * 21 + ["S2"] * 21 + ["S3"] * 25 + ["S4"] * 25
    (question,) = ask(facts(labels, stations=stations, test_share=0.1), "station")
    assert {stations[i] for i in question.test} <= {"S1", "S2"}
    assert len(question.test) == 21


def test_a_near_duplicate_at_another_station_is_left_out_of_learning_and_that_is_said() -> None:
    groups = list(range(100))
    (question,) = ask(facts([i % 2 for i in range(100)], stations=at(5, 20), groups=groups), "station")
    held, learned = int(question.test[0]), int(question.learn[0])
    groups[learned] = groups[held]
    (again,) = ask(facts([i % 2 for i in range(100)], stations=at(5, 20), groups=groups), "station")
    assert again.test.tolist() == question.test.tolist()
    assert set(question.learn) - set(again.learn) == {learned}
    assert again.warning == ("1 photo near-duplicate to one held out, or of its burst, is left out of learning.")


def test_photos_without_a_station_may_be_of_any_so_they_are_left_out() -> None:
    stations = [*at(5, 20), *[None] * 10]
    (question,) = ask(facts([i % 2 for i in range(110)], stations=stations), "station")
    assert not {*range(100, 110)} & {*question.test, *question.learn}
    assert question.warning == "10 photos without a station are left out of this question."


def test_a_label_that_is_not_held_out_is_named() -> None:
    labels = [0] * 20 + [1] * 60 + [2] * 60 + [1, 2] * 5
    stations = [*["S1"] * 10, *["S2"] * 10, *["S1"] * 60, *["S2"] * 60, *at(5, 2)]
    (question,) = ask(facts(labels, stations=[f"{s}x" if i >= 140 else s for i, s in enumerate(stations)]), "station")
    assert "None is held out of label 0, so nothing is measured there." in (question.warning or "")


def test_stations_that_share_near_duplicates_are_in_one_fold() -> None:
    groups = [*range(100)]
    groups[0] = groups[20]
    (question,) = ask(facts([i % 2 for i in range(100)], stations=at(5, 20), groups=groups, seed=1), "station")
    if {0, 20} <= set(question.learn):
        assert question.grouping[0] == question.grouping[20] == question.grouping[1] != question.grouping[99]
    else:
        assert question.grouping[1] != question.grouping[21]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(no_stations(FULL), "the data set names no stations", id="no stations"),
        pytest.param(facts([0, 1] * 40, stations=at(4, 20)), "there are 4 stations, 5 are needed", id="four stations"),
        pytest.param(
            facts([0, 1] * 50, stations=[*at(6, 5), *[None] * 70]), "known for 30 of 100 photos", id="mostly unknown"
        ),
        pytest.param(
            facts([0, 1] * 49 + [2, 2], stations=at(5, 20), names=("deer", "empty", "fox")),
            r"fox is at one station only \(S5\)\. Each label must be at 2",
            id="a label at one station",
        ),
        pytest.param(
            facts([0, 1] * 50 + [2], stations=[*at(5, 20), None], names=("deer", "empty", "fox")),
            "fox is at none",
            id="a label at no known station",
        ),
    ],
)
def test_a_new_station_that_cannot_be_had_is_refused_with_the_reason(data: Facts, said: str) -> None:
    with pytest.raises(DataError, match=said):
        ask(data, "station")


# --- same stations, later


def test_the_last_stretch_of_each_station_is_held_out() -> None:
    (question,) = ask(FULL, "later")
    assert {i % 20 for i in question.test} == {16, 17, 18, 19}
    assert len(question.test) == 24


def test_the_cut_moves_so_that_it_goes_through_no_burst() -> None:
    groups = [min(i, 15) if i < 19 else 19 for i in range(20)]  # a burst of four, 15 to 18
    (question,) = ask(facts([0, 1] * 10, days=range(20), groups=groups), "later")
    assert question.test.tolist() == [15, 16, 17, 18, 19]
    assert len(question.learn) == 15


def test_where_a_burst_must_be_cut_its_photos_are_on_the_later_side_only() -> None:
    groups = [0 if i in (2, 18) else i + 1 for i in range(20)]
    (question,) = ask(facts([0, 1] * 10, days=range(20), groups=groups, test_share=0.25), "later")
    assert 2 not in question.learn
    assert 18 in question.test


def test_a_label_seen_only_at_the_end_keeps_its_first_visit_to_learn_from() -> None:
    labels = [i % 2 for i in range(100)]
    labels[90:93] = [2, 2, 2]
    (question,) = ask(facts(labels, days=range(100), test_share=0.2), "later")
    assert question.learn.tolist() == list(range(91))


def test_photos_without_a_time_may_be_later_so_they_are_left_out() -> None:
    days = [None if i == 7 else float(i) for i in range(100)]
    (question,) = ask(facts([0, 1] * 50, days=days), "later")
    assert 7 not in {*question.test, *question.learn}
    assert (question.warning or "").startswith("1 photo without a time is left out")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(no_times(FULL), "known for 0 of 120 photos", id="no times"),
        pytest.param(facts([0, 1] * 50, days=[i / 200 for i in range(100)]), "more than one day", id="half a day"),
        pytest.param(facts([0] * 95 + [1] * 5, days=range(100)), "only 4 photos", id="a label begins at the very end"),
    ],
)
def test_a_later_stretch_that_cannot_be_had_is_refused_with_the_reason(data: Facts, said: str) -> None:
    with pytest.raises(DataError, match=said):
        ask(data, "later")


# --- as given, by group, at random


def test_the_validation_part_learns_where_there_is_a_test_part() -> None:
    parts = ["train", "validation", "test"] * 10
    (question,) = ask(facts([i // 3 % 2 for i in range(30)], parts=parts))
    assert {parts[i] for i in question.test} == {"test"}
    assert len(question.learn) == 20
    assert question.warning is None


def test_a_validation_part_is_held_out_where_there_is_no_test_part_and_that_is_said() -> None:
    (question,) = ask(facts([i // 2 % 2 for i in range(30)], parts=["train", "validation"] * 15))
    assert question.test.tolist() == list(range(1, 30, 2))
    assert question.warning == "The data set has no test part, so its validation part was held out."


def test_what_leaks_across_a_given_division_is_left_out_of_learning_and_that_is_said() -> None:
    groups = [*range(28), 3, 5]
    parts = [*["train"] * 28, "test", "test"]
    (question,) = ask(facts([0, 1] * 15, parts=parts, groups=groups))
    assert set(range(28)) - set(question.learn) == {3, 5}
    assert "2 photos near-duplicate to one held out, or of its burst, are left out" in (question.warning or "")


@pytest.mark.parametrize(
    ("labels", "groups", "parts", "said"),
    [
        pytest.param(
            [0, 1, 0, 2], [0, 1, 2, 3], ["train", "train", "test", "test"], "hare: in the test part, but without",
            id="a label in test that train lacks",
        ),
        pytest.param(
            [0, 1, 2, 0, 2], [0, 1, 2, 3, 2], ["train", "train", "train", "test", "test"], "hare: all photos to learn",
            id="all photos of a label leak",
        ),
    ],
)  # fmt: skip
def test_a_given_division_that_leaves_nothing_to_learn_a_label_from_is_refused(
    labels: list[int], groups: list[int], parts: list[str], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        ask(facts(labels, groups=groups, parts=parts, names=("deer", "fox", "hare")))


def test_a_division_that_is_not_there_cannot_be_asked_for() -> None:
    with pytest.raises(DataError, match="not divided"):
        ask(FULL, "given")


def test_sequences_that_are_not_there_cannot_be_asked_for() -> None:
    with pytest.raises(DataError, match="none of 120 photos say which sequence"):
        ask(no_sequences(FULL), "sequence")


def test_labels_of_one_burst_each_are_named_and_cannot_be_held_out_by_burst() -> None:
    data = facts([0] * 10 + [1] * 10, groups=[0] * 10 + [*range(1, 11)], names=("deer", "fox"))
    with pytest.raises(DataError, match="deer: all photos are of one burst"):
        ask(data, "group")
    (question,) = ask(data)
    assert question.name == "random"
    assert not question.is_test
    assert (question.warning or "").startswith("Held out at random, so the figure flatters: 2 of 4")


def test_a_label_with_a_single_photo_learns_and_is_not_measured() -> None:
    data = facts([0, 1] * 20 + [2], names=("deer", "fox", "hare"))
    (question,) = ask(data)
    assert question.name == "new burst"
    assert 40 in question.learn
    assert "None is held out of hare, so nothing is measured there." in (question.warning or "")


def test_one_photo_of_each_label_is_too_few_for_any_question() -> None:
    with pytest.raises(DataError, match="label 0, label 1, label 2: one photo each"):
        ask(facts([0, 1, 2]))
