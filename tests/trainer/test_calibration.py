"""Calibration photos: balanced over classes, light and stations; and the record that the gate judges them by."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.model.spec import InputSpec
from trainer.cache import ArrayCache
from trainer.calibration import CalibrationRecord, calibration, representative
from trainer.pixels import PixelStack


def test_each_class_gives_as_many_as_the_others() -> None:
    labels = np.array([0] * 900 + [1] * 80 + [2] * 70)
    chosen = calibration(labels, np.arange(1050), 0, 200)
    assert Counter(labels[chosen].tolist()) == {0: 67, 1: 67, 2: 66}


def test_a_rare_class_gives_all_and_the_others_the_rest() -> None:
    labels = np.array([0] * 900 + [1] * 3)
    assert Counter(labels[calibration(labels, np.arange(903), 0, 200)].tolist()) == {0: 197, 1: 3}


def test_a_directory_walk_would_have_taken_one_class() -> None:
    """Control: the first 200 are all of class 0."""
    labels = np.sort(np.arange(900) % 3)
    assert set(labels[:200]) == {0}
    assert set(labels[calibration(labels, np.arange(900), 0, 200)]) == {0, 1, 2}


def test_within_a_class_rare_infrared_photos_are_half_and_without_being_told_they_are_rare() -> None:
    labels, infrared = np.zeros(1000, np.intp), np.arange(1000) % 20 == 0
    chosen = calibration(labels, np.arange(1000), 0, 100, infrared=infrared)
    assert int(infrared[chosen].sum()) == 50
    untold = calibration(labels, np.arange(1000), 0, 100)
    assert int(infrared[untold].sum()) < 20


def test_within_a_class_a_busy_station_gives_no_more_than_a_quiet_one() -> None:
    labels = np.repeat([0, 1], 500)
    stations = [("A" if i % 25 else "B") if i % 10 else None for i in range(1000)]
    chosen = calibration(labels, np.arange(1000), 0, 60, stations=stations)
    for label in (0, 1):
        counts = Counter(stations[i] for i in chosen if labels[i] == label)
        assert set(counts.values()) == {10}, "A, B and the photos of no known station"


def test_infrared_photos_of_every_station_are_among_them() -> None:
    labels, infrared = np.zeros(800, np.intp), np.arange(800) % 2 == 0
    stations = ["ABCD"[i // 2 % 4] for i in range(800)]
    chosen = calibration(labels, np.arange(800), 0, 40, stations=stations, infrared=infrared)
    assert set(Counter((stations[i], bool(infrared[i])) for i in chosen).values()) == {5}


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.sampled_from("AB")), min_size=1, max_size=300),
    st.integers(0, 3),
    st.sets(st.integers(0, 299), max_size=200),
)
def test_any_choice_is_of_the_candidates_without_repeats_and_balanced(
    drawn: list[tuple[int, bool, str]], seed: int, left_out: set[int]
) -> None:
    labels, infrared = np.array([each[0] for each in drawn]), np.array([each[1] for each in drawn])
    candidates = np.array([i for i in range(len(labels)) if i not in left_out], dtype=np.intp)
    chosen = calibration(labels, candidates, seed, 100, stations=[each[2] for each in drawn], infrared=infrared)
    assert len(chosen) == min(len(candidates), 100)
    assert len(set(chosen.tolist())) == len(chosen)
    assert set(chosen.tolist()) <= set(candidates.tolist())
    there, taken = Counter(labels[candidates].tolist()), Counter(labels[chosen].tolist())
    most = max(taken.values(), default=0)
    assert all(taken[label] >= min(there[label], most - 1) for label in there)


def test_the_same_seed_chooses_the_same_photos() -> None:
    labels = np.arange(900) % 3
    first, same, other = (calibration(labels, np.arange(900), seed, 200).tolist() for seed in (1, 1, 2))
    assert first == same
    assert first != other


def test_the_record_counts_label_station_and_light_and_says_how_bright_they_are() -> None:
    pixels = np.stack([np.full((2, 2, 3), value, np.uint8) for value in (0, 10, 20, 200)])
    record = CalibrationRecord.of(
        pixels,
        np.array([0, 1, 1, 1]),
        np.array([0, 1, 2]),
        stations=["S1", None, "S1", "S2"],
        infrared=np.array([True, True, False, False]),
        names=("deer", "fox"),
    )
    assert record == CalibrationRecord(3, {"deer": 1, "fox": 2}, {"": 1, "S1": 2}, {"day": 1, "infrared": 2}, 10.0)


def test_a_record_of_nothing_known_has_no_stations_and_no_light() -> None:
    record = CalibrationRecord.of(np.zeros((1, 2, 2, 3), np.uint8), np.array([4]), np.array([0]))
    assert (record.by_label, record.by_station, record.by_light) == ({"4": 1}, {}, {})


def test_photos_are_given_one_by_one_in_the_order_asked(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path, (4, 6, 3), np.uint8)
    for i in range(3):
        cache.put(f"k{i}", np.full((4, 6, 3), 100 + i, np.uint8))
    stack = PixelStack(cache, ["k0", "k1", "k2"], InputSpec(4, 6))
    given_to_it = list(representative(stack, np.array([2, 0])))
    assert [each.max() for each in given_to_it] == [102, 100]
    assert {(each.shape, each.dtype.name) for each in given_to_it} == {((1, 4, 6, 3), "uint8")}
