"""A row's figures, and the sentence with which each way of being worse is refused; numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from edge.model import run
from trainer.gate import About, Held, Limits, Row, compare

N, CLASSES = 400, 3
HOLDOUT = np.arange(0, N, 4)  # 100 photos
RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.permutation(np.arange(N) % CLASSES).astype(np.intp)
Logits = npt.NDArray[np.float32]
REFERENCE: Logits = (np.eye(CLASSES)[TRUTH] * 6 + RANDOM.normal(0, 0.5, (N, CLASSES))).astype(np.float32)
ABOUT = About(labels=("deer", "empty", "fox"), thresholds=(0.5, 0.5, 0.5))


def answers(logits: npt.ArrayLike) -> run.Answers:
    return run.Answers(
        np.asarray(logits, np.float32), 4.2, 61.0, "ai_edge_litert", "2.3.0", "x86_64", "default", 0.05
    )  # fmt: skip


def verdict(
    logits: npt.ArrayLike,
    *,
    reference: Logits = REFERENCE,
    holdout: npt.NDArray[np.intp] = HOLDOUT,
    limits: Limits | None = None,
    fault: str | None = None,
) -> Row:
    found = answers(logits)
    held = Held(found.logits[holdout], reference[holdout], TRUTH[: len(reference)][holdout])
    return compare(found, reference, held, ABOUT, limits or Limits(), fault)


def said(rows: npt.ArrayLike, label: int) -> Logits:
    """The float model's logits, but for some photos those of another label."""
    logits = REFERENCE.copy()
    logits[rows] = np.eye(CLASSES)[label] * 6
    return logits


def held_out_of(label: int) -> npt.NDArray[np.intp]:
    return np.asarray(HOLDOUT[TRUTH[HOLDOUT] == label])


def wrong(*rows: int) -> Logits:
    """The float model's logits, but for some photos those of the next label."""
    logits = REFERENCE.copy()
    for row in rows:
        logits[row] = np.roll(logits[row], 1)
    return logits


def test_the_float_model_s_own_answers_pass() -> None:
    row = verdict(REFERENCE)
    assert row.passed
    assert row.reason == "no held-out photo lost, 100.0% agree with the float model; low n: 100 held-out photos"
    assert (row.n, row.n_agreement, row.accuracy, row.accuracy_float) == (100, 400, 1.0, 1.0)
    assert (row.runtime, row.version, row.ms, row.rss_mib, row.output_step) == (
        "ai_edge_litert", "2.3.0", 4.2, 61.0, 0.05,
    )  # fmt: skip
    assert (row.lost_by_label, row.constant, row.not_finite, row.held_disagreements) == ({}, False, 0, 0)


def test_int8_rounding_passes() -> None:
    row = verdict(np.round(REFERENCE / 0.05) * 0.05)
    assert row.passed
    assert 0 < row.largest_difference <= 0.03
    assert 0 < row.mean_difference < 0.01
    assert 0 < row.largest_probability_difference < 0.01


@pytest.mark.parametrize(
    ("logits", "says"),
    [
        pytest.param(
            np.roll(REFERENCE, 1, axis=1), "it gets 100 of 100 held-out photos wrong more than the float model, ",
            id="labels in another order",
        ),
        pytest.param(np.tile(REFERENCE[:1], (N, 1)), "it gives the same answer for every photo", id="constant"),
        pytest.param(np.zeros((N, CLASSES)), "it gives the same answer for every photo", id="all zero"),
        pytest.param(-REFERENCE, "held-out photos wrong more", id="the least likely for the most likely"),
        pytest.param(
            said(held_out_of(2)[:2], 0),
            "it gets 2 of 100 held-out photos wrong more than the float model, all of them 'fox'; at most 1 may be",
            id="two held-out photos lost",
        ),
        pytest.param(
            wrong(*held_out_of(0)[:5], *held_out_of(1)[:2]),
            "it gets 7 of 100 held-out photos wrong more than the float model, 5 of them 'deer'; at most 1 may be",
            id="seven lost, most of them of one label",
        ),
        pytest.param(
            wrong(*range(1, 53, 4)),
            "it agrees with the float model on 96.8% of 400 photos, at least 97% must",
            id="thirteen others lost: agreement",
        ),
        pytest.param(REFERENCE[RANDOM.permutation(N)], "held-out photos wrong more", id="photos in another order"),
        pytest.param(
            REFERENCE * 2, "its logits are 0.93 standard deviations from the float model's on average, at most 0.2 may",
            id="the right labels, twice as sure",
        ),
        pytest.param(
            np.where(np.arange(N)[:, np.newaxis] == 7, np.nan, REFERENCE),
            "it answers 1 of 400 photos with numbers that are not finite", id="NaN",
        ),
        pytest.param(
            np.where(np.arange(N)[:, np.newaxis] < 2, [np.inf, 0, 0], REFERENCE),
            "it answers 2 of 400 photos with numbers that are not finite", id="infinity",
        ),
    ],
)  # fmt: skip
def test_a_worse_model_is_refused_with_its_sentence(logits: Logits, says: str) -> None:
    row = verdict(logits)
    assert not row.passed
    assert says in row.reason


def test_what_is_common_to_all_labels_of_a_photo_is_no_difference() -> None:
    """Softmax does not see it."""
    row = verdict(REFERENCE + RANDOM.normal(0, 3, (N, 1)))
    assert row.passed
    assert row.mean_difference < 0.001
    assert row.largest_difference > 1


def test_one_lost_photo_is_allowed_and_said() -> None:
    row = verdict(wrong(0))
    assert row.passed
    assert row.reason.startswith("1 held-out photo lost, 99.8% agree")
    assert (row.accuracy, row.accuracy_float) == (0.99, 1.0)
    assert row.lost_by_label == {ABOUT.labels[TRUTH[0]]: 1}


def test_twelve_disagreements_of_400_are_allowed() -> None:
    assert verdict(wrong(*range(1, 49, 4))).passed


def test_a_photo_won_makes_up_for_one_lost() -> None:
    reference = wrong(0, 4)  # the float model is wrong on two
    row = verdict(
        wrong(*(held_out_of(label)[9] for label in range(3))),
        reference=reference,
        limits=Limits(agreement=0.9, held_disagreements=9),
    )
    assert row.passed
    assert row.reason.startswith("1 held-out photo lost")
    assert row.accuracy == pytest.approx(0.97)
    assert row.accuracy_float == pytest.approx(0.98)
    assert sum(row.lost_by_label.values()) == 1


def test_a_model_that_is_better_than_the_float_one_passes() -> None:
    row = verdict(REFERENCE, reference=wrong(0, 4, 8))
    assert row.passed
    assert "no held-out photo lost" in row.reason


def test_a_label_that_pays_for_another_is_refused() -> None:
    """Overall nothing is lost: as many foxes are won as deer are lost."""
    deer, fox = held_out_of(0), held_out_of(2)
    reference, logits = said(fox[:3], 1), said(deer[:3], 1)
    row = verdict(logits, reference=reference, limits=Limits(agreement=0.9, held_disagreements=9))
    assert row.lost_by_label == {"deer": 3, "fox": -3}
    assert not row.passed
    assert (
        f"it gets 3 of {len(deer)} held-out photos of 'deer' wrong more than the float model; at most 2" in row.reason
    )


def test_two_of_a_label_may_be_paid_for_another() -> None:
    deer, fox = held_out_of(0), held_out_of(2)
    row = verdict(
        said(deer[:2], 1), reference=said(fox[:2], 1),
        limits=Limits(agreement=0.9, held_disagreements=9, empty_photos=9),
    )  # fmt: skip
    assert row.passed


def test_animals_that_vanish_are_refused_though_the_labels_were_wrong_before() -> None:
    """The float model takes four deer for foxes, which is no accuracy to lose; this one calls them empty."""
    deer = held_out_of(0)[:4]
    row = verdict(said(deer, 1), reference=said(deer, 2), limits=Limits(agreement=0.9, held_disagreements=9))
    assert (row.animals_called_empty, row.animals_called_empty_float) == (4, 0)
    animals = int((TRUTH[HOLDOUT] != 1).sum())
    assert not row.passed
    assert row.reason.startswith(
        f"it calls 4 of {animals} held-out photos of animals empty, the float model 0; at most 1 more may be"
    )


def test_an_animal_below_the_threshold_of_empty_is_unknown_and_not_called_empty() -> None:
    deer = held_out_of(0)[:4]
    logits = said(deer, 1)
    held = Held(logits[HOLDOUT], said(deer, 2)[HOLDOUT], TRUTH[HOLDOUT])
    shy = replace(ABOUT, thresholds=(0.5, 0.999, 0.5))
    assert compare(answers(logits), REFERENCE, held, shy, Limits()).animals_called_empty == 0
    sharper = replace(shy, temperature=0.5)
    assert compare(answers(logits), REFERENCE, held, sharper, Limits()).animals_called_empty == 4


def test_held_out_photos_are_judged_by_a_number_where_they_are_few() -> None:
    """3 of 40 is 92.5 %; the photos that the model learned from would hide it."""
    holdout, others = HOLDOUT[:40], wrong(*HOLDOUT[:3])
    reference = REFERENCE.copy()
    reference[HOLDOUT[:3]] = np.roll(reference[HOLDOUT[:3]], 2, axis=1)  # wrong before: no accuracy is lost
    row = verdict(others, reference=reference, holdout=holdout, limits=Limits(empty_photos=9))
    assert row.held_disagreements == 3
    assert "it gives 3 of 40 held-out photos another label than the float model; at most 2 may have one" in row.reason
    assert verdict(others, reference=reference, holdout=holdout[1:], limits=Limits(empty_photos=9)).passed


def test_enough_held_out_photos_are_not_called_few() -> None:
    assert "low n" not in verdict(REFERENCE, holdout=np.arange(200)).reason
    assert "low n: 199" in verdict(REFERENCE, holdout=np.arange(199)).reason


def test_a_single_photo_is_not_called_constant() -> None:
    row = verdict(REFERENCE[:1], reference=REFERENCE[:1], holdout=np.array([0]))
    assert row.passed


def test_without_held_out_photos_the_agreement_decides() -> None:
    none = np.array([], np.intp)
    assert verdict(REFERENCE, holdout=none).passed
    row = verdict(wrong(*range(20)), holdout=none)
    assert not row.passed
    assert "agrees with the float model on 95.0%" in row.reason


def test_what_is_known_to_be_wrong_refuses_a_model_whose_figures_hold() -> None:
    row = verdict(REFERENCE, fault="the labels are swapped")
    assert not row.passed
    assert row.reason == "the labels are swapped"
    both = verdict(wrong(0, 4), fault="the labels are swapped")
    assert both.reason.startswith("the labels are swapped (it gets 2 of 100")
