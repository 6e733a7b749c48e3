"""From logits to an answer: hand-worked, and what must hold for any logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.model.decide import TOP, Decision, decide, probabilities

LABELS = ("deer", "empty", "person")
# ln 7, ln 2, ln 1: probabilities 0.7, 0.2, 0.1
SEVEN_TWO_ONE = (math.log(7), math.log(2), 0.0)

LOGITS = st.lists(st.floats(-300, 300, width=32), min_size=2, max_size=12)


def answer(*logits: float, temperature: float = 1.0, thresholds: tuple[float, ...] = (0.5, 0.5, 0.5)) -> Decision:
    return decide(np.array(logits, np.float32), LABELS, temperature=temperature, thresholds=thresholds)


def test_probabilities_are_those_worked_out_by_hand() -> None:
    assert probabilities(SEVEN_TWO_ONE) == pytest.approx([0.7, 0.2, 0.1])


def test_temperature_two_takes_the_square_root() -> None:
    roots = [math.sqrt(7), math.sqrt(2), 1.0]
    assert probabilities(SEVEN_TWO_ONE, 2.0) == pytest.approx([root / sum(roots) for root in roots])


def test_a_stack_of_photos_is_taken_row_by_row() -> None:
    assert probabilities([SEVEN_TWO_ONE, (0.0, 0.0, 0.0)]) == pytest.approx(np.array([[0.7, 0.2, 0.1], [1 / 3] * 3]))


def test_large_logits_do_not_overflow() -> None:
    with np.errstate(all="raise"):
        assert probabilities([3e4, 3e4]) == pytest.approx([0.5, 0.5])
        assert probabilities([700.0, 0.0]) == pytest.approx([1.0, 0.0])


def test_the_most_likely_label_is_given_with_its_probability() -> None:
    found = answer(*SEVEN_TWO_ONE)
    assert (found.label, found.kind) == ("deer", "species")
    assert found.confidence == pytest.approx(0.7)
    assert [name for name, _ in found.top] == ["deer", "empty", "person"]
    assert [chance for _, chance in found.top] == pytest.approx([0.7, 0.2, 0.1])


@pytest.mark.parametrize(
    ("logits", "label", "kind"),
    [
        pytest.param((5, 0, 0), "deer", "species", id="an animal"),
        pytest.param((0, 5, 0), "empty", "empty", id="nothing there"),
        pytest.param((0, 0, 5), "person", "species", id="a person"),
        pytest.param((0, 0.1, 0), "unknown", "unknown", id="nothing sure"),
    ],
)
def test_kinds_of_decision(logits: tuple[float, ...], label: str, kind: str) -> None:
    found = answer(*logits)
    assert (found.label, found.kind) == (label, kind)


def test_a_label_is_given_at_its_threshold_and_not_below() -> None:
    exact = answer(*SEVEN_TWO_ONE).confidence
    assert answer(*SEVEN_TWO_ONE, thresholds=(exact, 0.0, 0.0)).label == "deer"
    above = float(np.nextafter(exact, 1))
    unsure = answer(*SEVEN_TWO_ONE, thresholds=(above, 0.0, 0.0))
    assert (unsure.label, unsure.kind) == ("unknown", "unknown")
    assert unsure.confidence == exact
    assert unsure.top[0][0] == "deer"


def test_only_the_likeliest_label_s_own_threshold_counts() -> None:
    assert answer(*SEVEN_TWO_ONE, thresholds=(0.6, 0.99, 0.99)).label == "deer"
    assert answer(*SEVEN_TWO_ONE, thresholds=(0.71, 0.0, 0.0)).label == "unknown"


def test_temperature_can_turn_a_decision_into_unknown() -> None:
    assert answer(2, 0, 0).label == "deer"
    assert answer(2, 0, 0, temperature=4.0).label == "unknown"


def test_at_most_five_labels_are_told_and_ties_keep_the_order_of_labels() -> None:
    labels = [f"label {i}" for i in range(9)]
    found = decide(np.zeros(9), labels, temperature=1.0, thresholds=[0.0] * 9)
    assert [name for name, _ in found.top] == labels[:TOP]
    assert found.label == "label 0"


@given(LOGITS, st.floats(0.05, 20))
def test_probabilities_sum_to_one_and_keep_the_order_of_the_logits(logits: list[float], temperature: float) -> None:
    chances = probabilities(logits, temperature)
    assert chances.sum() == pytest.approx(1)
    assert ((chances >= 0) & (chances <= 1)).all()
    order = np.argsort(logits, kind="stable")
    assert (np.diff(chances[order]) >= 0).all()


@given(LOGITS, st.floats(-1000, 1000))
def test_a_constant_added_to_all_logits_changes_nothing(logits: list[float], constant: float) -> None:
    assert probabilities(np.array(logits) + constant) == pytest.approx(probabilities(logits), abs=1e-9)


@given(LOGITS, st.floats(0.05, 20), st.floats(0, 1))
def test_any_answer_is_consistent(logits: list[float], temperature: float, threshold: float) -> None:
    labels = [f"label {i}" for i in range(len(logits))]
    found = decide(logits, labels, temperature=temperature, thresholds=[threshold] * len(logits))
    assert found.confidence == found.top[0][1]
    assert [chance for _, chance in found.top] == sorted((chance for _, chance in found.top), reverse=True)
    assert len(found.top) == min(TOP, len(logits))
    assert (found.kind == "unknown") == (found.confidence < threshold)
