"""Figures worked out by hand, and a temperature that is found again."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.model.bundle import Label
from edge.model.decide import decide, probabilities
from edge.model.taxonomy import taxonomy
from tests.trainer.answers import answered
from trainer.evaluate import (
    TEMPERATURES,
    Evaluation,
    Figures,
    calibration_error,
    curve,
    evaluate,
    figures,
    suspicious,
    temperature,
)
from trainer.interval import wilson

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


def test_a_taxon_is_decided_and_right_if_the_true_label_lies_under_it() -> None:
    """Of SIX the third is unsure of deer 0.4 or fox 0.2, and the fourth of fox 0.7 or deer 0.1. At 0.6 and with
    thresholds of 0.75, Mammalia is said of photos 1 (0.8), 3 (0.6), 4 (0.8) and 6 (0.7), which is a person."""
    taxa = taxonomy([Label(name, taxon_class="Mammalia", animal=name in ("deer", "fox")) for name in LABELS])
    found = figures(
        SIX, np.array(TRUTH), LABELS, temperature=1.0, thresholds=[0.75] * 4, taxonomy=taxa, rollup=0.6 - 1e-6
    )
    assert (found.rolled_up, found.rolled_up_right) == (4, 3)
    assert found.coverage == pytest.approx(5 / 6), "photo 2 is called empty, photo 5 is unknown"
    assert found.accuracy_decided == pytest.approx(3 / 5)
    assert found.accuracy == measured(SIX, TRUTH).accuracy, "which is of the most likely label"


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0.3, 3))
def test_figures_are_those_of_what_the_device_decides(seed: int, rollup: float, temperature: float) -> None:
    random = np.random.default_rng(seed)
    names = ("deer", "empty", "fox", "person", "roe", "other")
    taxa = taxonomy(
        [Label(name, genus=name[0], taxon_class="M", animal=name in ("deer", "fox", "roe")) for name in names]
    )
    scores, truth = random.normal(0, 2, (40, 6)).astype(np.float32), random.integers(0, 6, 40)
    thresholds = random.uniform(0, 1, 6).tolist()
    found = figures(scores, truth, names, temperature=temperature, thresholds=thresholds, taxonomy=taxa, rollup=rollup)
    under = {taxon.name: [names[i] for i in taxon.members] for taxon in taxa.taxa}
    each = [
        decide(row, names, temperature=temperature, thresholds=thresholds, taxonomy=taxa, rollup=rollup)
        for row in scores
    ]
    said = [(one.label, names[i]) for one, i in zip(each, truth, strict=True) if one.kind != "unknown"]
    right = [label == true or true in under.get(label, ()) for label, true in said]
    assert found.coverage == len(said) / 40
    assert found.accuracy_decided == (None if not said else pytest.approx(sum(right) / len(said)))
    assert found.rolled_up == sum(one.kind == "rollup" for one in each)
    lost = [one.kind == "empty" and names[i] not in ("empty", "person") for one, i in zip(each, truth, strict=True)]
    assert found.animals_called_empty == sum(lost)


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
    assert confidence == pytest.approx((n + 0.5) / (n + 2), abs=0.01)


def test_a_temperature_is_a_finite_number_in_its_range() -> None:
    for rows in (np.zeros((5, 4), np.float32), np.full((5, 4), 1e4, np.float32)):
        found = temperature(rows, np.zeros(5, dtype=np.intp))
        assert math.isfinite(found)
        assert TEMPERATURES[0] <= found <= TEMPERATURES[1]


# --- everything at once

PHOTOS = [
    ("deer", (0.70, 0.10, 0.10, 0.10)),
    ("deer", (0.10, 0.80, 0.05, 0.05)),
    ("deer", (0.40, 0.30, 0.20, 0.10)),
    ("fox", (0.10, 0.10, 0.70, 0.10)),
    ("empty", (0.10, 0.70, 0.10, 0.10)),
    ("person", (0.10, 0.10, 0.60, 0.20)),
]


def whole() -> Evaluation:
    photos = answered(
        LABELS,
        PHOTOS,
        groups=[0, 0, 1, 2, 3, 4],
        stations=["beech", "beech", "oak", "oak", None, "beech"],
        infrared=[True, True, False, False, False, False],
    )
    return evaluate(photos, temperature=1.0, thresholds=[0.5] * 4)


def test_an_evaluation_is_json_and_holds_today_s_figures() -> None:
    found = json.loads(json.dumps(asdict(whole()), allow_nan=False))
    for name in ("n", "accuracy", "macro_f1", "per_class", "ece", "coverage", "accuracy_decided", "confusion"):
        assert name in found["figures"]
    assert found["figures"]["animals_called_empty"] == 1
    assert found["figures"] == json.loads(json.dumps(asdict(whole().figures)))


def test_macro_means_are_over_the_labels_that_occur() -> None:
    found = whole().figures
    assert found.macro_precision == pytest.approx((1 + 0.5 + 0.5 + 0) / 4)
    assert found.macro_recall == pytest.approx((2 / 3 + 1 + 1 + 0) / 4)
    two = measured(SIX[:2], TRUTH[:2])
    assert (two.macro_precision, two.macro_recall) == (1.0, 0.5)


def test_intervals_are_wilson_s_and_wider_where_photos_come_in_bursts() -> None:
    found = measured(SIX, TRUTH)
    assert found.accuracy_interval == wilson(4, 6)
    assert found.per_class["deer"].recall_interval == wilson(2, 3)
    alike = figures(
        np.repeat(SIX, 5, axis=0), np.repeat(TRUTH, 5), LABELS,
        temperature=1.0, thresholds=[0.5] * 4, groups=np.repeat(np.arange(6), 5),
    )  # fmt: skip
    assert alike.accuracy_interval[0] < wilson(20, 30)[0]
    bursts = answered(LABELS, [photo for photo in PHOTOS for _ in range(5)], groups=[i // 5 for i in range(30)])
    assert evaluate(bursts, temperature=1.0, thresholds=[0.5] * 4).figures.accuracy_interval == alike.accuracy_interval


def test_a_label_without_photos_has_an_open_interval() -> None:
    assert measured(SIX[:1], [0]).per_class["fox"].recall_interval == (0.0, 1.0)


def test_parts_by_station_and_light() -> None:
    found = whole()
    assert [(part.name, part.right, part.n) for part in found.by_station] == [("beech", 1, 3), ("oak", 2, 2)]
    assert [(part.name, part.accuracy) for part in found.by_light] == [("day", 0.75), ("infrared", 0.5)]
    assert found.by_source == ()


def test_the_curve_runs_from_the_surest_answers_to_all_of_them() -> None:
    chances = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.3, 0.7], [0.6, 0.4]])
    points = curve(chances, np.array([1, 1, 0, 1, 1]))
    assert [point.confidence for point in points] == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert [point.coverage for point in points] == pytest.approx([1 / 5, 2 / 5, 4 / 5, 1])  # two are equally sure
    assert [point.accuracy for point in points] == pytest.approx([0, 1 / 2, 3 / 4, 3 / 5])


def test_a_curve_of_many_photos_is_thinned_and_keeps_its_ends() -> None:
    rows, truth = sample(3000, 1.0)
    points = curve(probabilities(rows), truth)
    assert len(points) <= 100
    assert [points[0].coverage, points[-1].coverage] == pytest.approx([1 / 3000, 1.0])


def test_bins_of_confidence_hold_every_photo() -> None:
    bins = whole().reliability
    assert [(each.n, round(each.confidence, 2), each.accuracy) for each in bins] == [
        (1, 0.4, 1.0), (1, 0.6, 0.0), (3, 0.7, 1.0), (1, 0.8, 0.0),
    ]  # fmt: skip


def test_mistakes_are_the_surest_first_and_say_which_photo() -> None:
    found = whole().mistakes
    assert [(each.index, each.name, each.truth, each.answer) for each in found] == [
        (1, "1.jpg", "deer", "empty"),
        (5, "5.jpg", "person", "fox"),
    ]
    assert [each.confidence for each in found] == pytest.approx([0.8, 0.6])
    assert [each.truth_chance for each in found] == pytest.approx([0.1, 0.2])


def test_a_label_is_suspicious_where_the_model_is_as_sure_of_another_as_it_usually_is() -> None:
    """It is 70 % sure of ``empty`` where that is right, and 80 % on a photo that a person calls deer."""
    assert [each.name for each in whole().suspicious] == ["1.jpg"]


def test_switched_labels_are_found_among_the_suspicious() -> None:
    rows, truth = sample(600, 0.5)
    switched = [3, 77, 301]
    truth[switched] = (probabilities(rows)[switched].argmax(axis=1) + 1) % 4
    rows[switched] *= 3
    photos = answered(LABELS, [(LABELS[i], row) for i, row in zip(truth, probabilities(rows), strict=True)])
    found = suspicious(photos, photos.chances(1.0))
    assert set(switched) <= {each.index for each in found}
    assert len(found) < 60


def test_what_the_label_empty_costs_is_part_of_it() -> None:
    found = whole().emptied
    assert found is not None
    assert (found.animals.events, found.animals.missed) == (3, 0)  # the other photo of the deer's burst was seen
    assert evaluate(answered(("a", "b"), [("a", (0.9, 0.1))]), temperature=1.0, thresholds=[0.5] * 2).emptied is None


def test_the_temperature_s_worth_is_the_difference_of_two_errors() -> None:
    rows, truth = sample(2000, 3.0)
    photos = answered(LABELS, [(LABELS[i], row) for i, row in zip(truth, probabilities(rows), strict=True)])
    found = evaluate(photos, temperature=3.0, thresholds=[0.5] * 4)
    assert found.figures.ece < found.ece_raw / 4
