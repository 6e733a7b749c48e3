from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.model.bundle import Label
from edge.model.decide import UNKNOWN, decide, probabilities
from edge.model.taxonomy import taxonomy
from tests.trainer.answers import answered
from trainer.answered import Answered, decided, is_right

LABELS = ("deer", "empty", "fox")


@given(
    st.lists(st.lists(st.floats(-30, 30, width=32), min_size=3, max_size=3), min_size=1, max_size=20),
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
    st.floats(0.25, 10),
)
def test_all_photos_at_once_are_decided_as_the_device_decides_each(
    rows: list[list[float]], thresholds: list[float], temperature: float
) -> None:
    logits = np.array(rows, np.float32)
    names = [*LABELS, UNKNOWN]
    found = [names[i] for i in decided(probabilities(logits, temperature), thresholds)]
    one_by_one = [decide(row, LABELS, temperature=temperature, thresholds=thresholds).label for row in logits]
    assert found == one_by_one


def test_a_label_that_just_reaches_its_threshold_is_given() -> None:
    assert decided(np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]), [0.5, 0.51, 0.5]).tolist() == [0, -1]


def test_some_photos_keep_all_that_is_known_of_them() -> None:
    photos = [("deer", (0.7, 0.2, 0.1)), ("empty", (0.2, 0.7, 0.1)), ("fox", (0.2, 0.2, 0.6))]
    whole = answered(LABELS, photos, groups=[4, 5, 6], stations=["A", None, "B"], infrared=[True, False, True])
    for part in (whole.take([2, 0]), whole.take(np.array([True, False, True])).take([1, 0])):
        assert [part.labels[i] for i in part.truth] == ["fox", "deer"]
        assert (part.groups.tolist(), part.stations, part.infrared.tolist()) == ([6, 4], ["B", "A"], [True, True])
        assert part.names == ["2.jpg", "0.jpg"]
        assert part.chances(1.0).argmax(axis=1).tolist() == [2, 0]


def test_columns_of_different_lengths_are_refused() -> None:
    whole = answered(LABELS, [("deer", (0.7, 0.2, 0.1))] * 2)
    with pytest.raises(ValueError, match="expected"):
        Answered(**{**vars(whole), "names": ["0.jpg"]})
    with pytest.raises(ValueError, match="expected"):
        Answered(**{**vars(whole), "labels": ("deer", "empty")})


def test_a_taxon_is_right_for_the_labels_under_it_and_unknown_for_none() -> None:
    taxa = taxonomy([Label(name, animal=name != "empty") for name in LABELS])
    animal = len(LABELS)
    found, truth = np.array([0, 0, animal, animal, animal, -1]), np.array([0, 2, 0, 2, 1, 0])
    assert is_right(found, truth, len(LABELS), taxa).tolist() == [True, False, True, True, False, False]
    assert is_right(found, truth, len(LABELS)).tolist() == [True, False, False, False, False, False]
