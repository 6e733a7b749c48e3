"""Figures worked out by hand, and a temperature that is found again."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from edge.model.decide import probabilities
from trainer.evaluate import TEMPERATURES, Figures, calibration_error, figures, temperature

LABELS = ("deer", "empty", "fox", "person")


def logits(*rows: tuple[float, ...]) -> npt.NDArray[np.float32]:
    """Logits that softmax turns into these probabilities."""
    return np.log(np.array(rows, np.float32))


def measured(rows: npt.NDArray[np.float32], truth: list[int], threshold: float = 0.5) -> Figures:
    return figures(rows, np.array(truth), LABELS, temperature=1.0, thresholds=[threshold] * 4)


SIX = logits(
    (0.70, 0.10, 0.10, 0.10),  # deer, is deer
    (0.10, 0.80, 0.05, 0.05),  # empty, is a deer: the mistake that costs most
    (0.40, 0.30, 0.20, 0.10),  # deer, but unsure; is deer
    (0.10, 0.10, 0.70, 0.10),  # fox, is fox
    (0.10, 0.70, 0.10, 0.10),  # empty, is empty
    (0.10, 0.10, 0.60, 0.20),  # fox, is a person
)
TRUTH = [0, 0, 0, 2, 1, 3]


def test_shares_and_confusion() -> None:
    found = measured(SIX, TRUTH)
    assert found.n == 6
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.coverage == pytest.approx(5 / 6)
    assert found.accuracy_decided == pytest.approx(3 / 5)
    assert found.confusion == [[2, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]]


def test_precision_recall_and_f1() -> None:
    found = measured(SIX, TRUTH)
    deer, empty, fox, person = (found.per_class[label] for label in LABELS)
    assert [deer.precision, deer.recall, deer.f1] == pytest.approx([1.0, 2 / 3, 0.8])
    assert deer.n == 3
    assert (empty.precision, empty.recall, empty.n) == (0.5, 1.0, 1)
    assert (fox.precision, fox.recall) == (0.5, 1.0)
    assert (person.precision, person.recall, person.f1, person.n) == (0.0, 0.0, 0.0, 1)
    assert found.macro_f1 == pytest.approx((0.8 + 2 / 3 + 2 / 3 + 0) / 4)


def test_a_label_that_does_not_occur_is_not_in_the_mean() -> None:
    found = measured(SIX[:1], [0])
    assert found.macro_f1 == 1.0
    assert found.per_class["fox"].n == 0


@pytest.mark.parametrize(
    ("truth", "missed"),
    [
        pytest.param([0, 0, 0, 2, 1, 3], 1, id="one deer"),
        pytest.param([0, 1, 0, 2, 1, 3], 0, id="it was empty"),
        pytest.param([0, 3, 0, 2, 1, 3], 0, id="a person is no animal"),
        pytest.param([0, 2, 0, 2, 0, 3], 2, id="a fox and a deer"),
    ],
)
def test_animals_called_empty_are_counted(truth: list[int], missed: int) -> None:
    assert measured(SIX, truth).animals_called_empty == missed


def test_an_animal_that_is_left_unknown_was_not_called_empty() -> None:
    assert measured(SIX, TRUTH, threshold=0.9).animals_called_empty == 0


def test_nothing_decided_has_no_accuracy() -> None:
    found = measured(SIX, TRUTH, threshold=0.95)
    assert (found.coverage, found.accuracy_decided) == (0.0, None)


def test_temperature_reaches_decisions_and_calibration_but_not_accuracy() -> None:
    cold = figures(SIX, np.array(TRUTH), LABELS, temperature=1.0, thresholds=[0.5] * 4)
    hot = figures(SIX, np.array(TRUTH), LABELS, temperature=5.0, thresholds=[0.5] * 4)
    assert hot.accuracy == cold.accuracy
    assert hot.coverage == 0.0
    assert hot.ece != cold.ece


# --- calibration


def test_calibration_error_worked_out_by_hand() -> None:
    """15 bins: 0.88 and 0.92 share one (13/15 to 14/15), 0.62 is in another (9/15 to 10/15)."""
    chances = np.array([[0.88, 0.12], [0.92, 0.08], [0.62, 0.38], [0.62, 0.38]])
    truth = np.array([0, 1, 0, 0])
    first, second = abs(0.5 - 0.90) * 2 / 4, abs(1.0 - 0.62) * 2 / 4
    assert calibration_error(chances, truth) == pytest.approx(first + second)


def test_certainty_that_is_always_right_is_calibrated() -> None:
    assert calibration_error(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1])) == 0
    assert calibration_error(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1, 0])) == 1


def sample(n: int, true_temperature: float) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.intp]]:
    """Photos whose labels are drawn from the softmax of their logits at a temperature."""
    random = np.random.default_rng(0)
    rows = random.normal(0, 3, (n, 4)).astype(np.float32)
    chances = probabilities(rows, true_temperature)
    return rows, np.array([random.choice(4, p=row) for row in chances])


@pytest.mark.parametrize("known", [0.5, 1.0, 2.0, 5.0])
def test_a_known_temperature_is_recovered(known: float) -> None:
    rows, truth = sample(8000, known)
    assert temperature(rows, truth) == pytest.approx(known, rel=0.06)


def test_the_temperature_found_lowers_the_calibration_error() -> None:
    rows, truth = sample(3000, 3.0)
    before = calibration_error(probabilities(rows), truth)
    after = calibration_error(probabilities(rows, temperature(rows, truth)), truth)
    assert after < before / 4


@pytest.mark.parametrize("n", [6, 30, 300])
def test_a_few_photos_that_are_all_right_do_not_make_it_certain(n: int) -> None:
    """Log loss alone would choose the lowest temperature that is allowed."""
    truth = np.arange(n) % 4
    rows = (np.eye(4)[truth] * 3).astype(np.float32)
    found = temperature(rows, truth)
    assert found > TEMPERATURES[0]
    confidence = float(probabilities(rows, found).max())
    assert confidence == pytest.approx((n + 1) / (n + 4), abs=0.01)


def test_a_temperature_is_a_finite_number_in_its_range() -> None:
    for rows in (np.zeros((5, 4), np.float32), np.full((5, 4), 1e4, np.float32)):
        found = temperature(rows, np.zeros(5, dtype=np.intp))
        assert math.isfinite(found)
        assert TEMPERATURES[0] <= found <= TEMPERATURES[1]
