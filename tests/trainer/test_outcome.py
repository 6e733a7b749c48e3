"""What follows from a training: what decides about photos is never chosen on those photos themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.trainer import tiny_network as tiny
from trainer.dataset.questions import Question
from trainer.division import Parts
from trainer.fit import Fitted, Learned
from trainer.outcome import Asked, Outcome
from trainer.photos import Photos
from trainer.report.record import OUT_OF_FOLD
from trainer.settings import Settings

N = 60
TEST = np.arange(0, N, 5)
VALIDATION = np.arange(1, N, 5)
LABELS = [(i // 5) % 3 for i in range(N)]


def photos() -> Photos:
    made = tiny.photos(LABELS, pixels=np.zeros((N, 8, 8, 3), np.uint8))
    stations = [f"S{i % 4}" for i in range(N)]
    decoded = [
        replace(each, sample=replace(each.sample, station=stations[i], source="web"), infrared=i % 2 == 0)
        for i, each in enumerate(made.decoded)
    ]
    return replace(made, decoded=decoded, groups=np.arange(N, dtype=np.intp))


def logits(*, scale: float = 3.0, wrong: npt.ArrayLike = ()) -> npt.NDArray[np.float32]:
    """Sure of the right label, but for some rows sure of the next one."""
    said = np.array(LABELS)
    rows = np.array(wrong, dtype=np.intp)
    said[rows] = (said[rows] + 1) % 3
    return np.asarray(np.eye(3)[said] * scale, np.float32)


def fitted(given: npt.NDArray[np.float32], unseen: npt.NDArray[np.intp]) -> Fitted:
    return Fitted("probe", Learned(), given, unseen, given[unseen], {"probe": 1.0})


def outcome(*asked: Asked) -> Outcome:
    return Outcome(Path("data"), Path("/data"), Path("run"), Settings(), photos(), list(asked))


def asked(given: npt.NDArray[np.float32], unseen: npt.NDArray[np.intp], question: Question | None = None) -> Asked:
    train = np.setdiff1d(np.arange(N), np.concatenate([TEST, VALIDATION]))
    return Asked(question or tiny.question(N, TEST.tolist()), Parts(train, VALIDATION, TEST), fitted(given, unseen))


def measured(*those: Asked) -> Outcome:
    found = outcome(*those)
    found.measure()
    return found


UNSEEN = np.sort(np.concatenate([VALIDATION, TEST]))


def test_the_answer_is_about_the_photos_held_out() -> None:
    found = measured(asked(logits(wrong=TEST[:3]), UNSEEN))
    (answer,) = found.answers
    assert (answer.question, answer.is_test, answer.learned) == ("new burst", True, N - len(TEST))
    assert answer.evaluation.figures.n == len(TEST)
    assert answer.evaluation.figures.accuracy == pytest.approx(1 - 3 / len(TEST))


def test_wrong_answers_on_held_out_photos_do_not_cool_their_own_temperature() -> None:
    """The shipped temperature may use them; what the held-out figure is made with must not."""
    right, wrong = (measured(asked(logits(wrong=rows), UNSEEN)) for rows in ((), TEST))
    assert wrong.temperature > 2 * right.temperature
    sure = {kind.temperature: kind.answers[0].evaluation.figures.coverage for kind in (right, wrong)}
    assert sure[wrong.temperature] == sure[right.temperature] == 1.0, "as sure as the validation part made it"


def test_thresholds_are_of_every_label_and_from_unseen_photos_alone() -> None:
    seen = np.setdiff1d(np.arange(N), UNSEEN)
    same = [measured(asked(logits(wrong=rows), UNSEEN)) for rows in ((), seen)]
    assert same[0].thresholds.values == same[1].thresholds.values
    assert same[0].temperature == same[1].temperature
    assert len(same[0].thresholds.values) == 3


def test_where_every_photo_is_unseen_there_is_an_answer_about_all() -> None:
    found = measured(asked(logits(wrong=[7]), np.arange(N)))
    assert [answer.question for answer in found.answers] == ["new burst", OUT_OF_FOLD]
    assert found.answers[-1].evaluation.figures.n == N
    assert found.answers[-1].evaluation.figures.accuracy == pytest.approx(1 - 1 / N)


def test_folds_at_random_are_no_test_either() -> None:
    at_random = replace(tiny.question(N, TEST.tolist()), name="random")
    found = measured(asked(logits(), np.arange(N), at_random))
    assert [answer.is_test for answer in found.answers] == [False, False]


def test_every_question_has_an_answer_and_the_first_decides() -> None:
    other = Question(
        "same stations, later", VALIDATION, np.setdiff1d(np.arange(N), VALIDATION), np.arange(N), "careful"
    )
    found = measured(asked(logits(), UNSEEN), asked(logits(wrong=range(N)), UNSEEN, other))
    assert [answer.question for answer in found.answers] == ["new burst", "same stations, later"]
    assert [answer.warning for answer in found.answers] == [None, "careful"]
    assert [answer.evaluation.figures.accuracy for answer in found.answers] == [1.0, 0.0]
    assert found.temperature == measured(asked(logits(), UNSEEN)).temperature


def test_answers_carry_what_they_are_broken_down_by() -> None:
    rows = np.array([3, 4])
    found = outcome(asked(logits(), UNSEEN)).answered(rows, logits()[rows])
    assert (list(found.stations), list(found.sources)) == (["S3", "S0"], ["web", "web"])
    assert found.infrared.tolist() == [False, True]
    assert list(found.names) == ["003.jpg", "004.jpg"]
    assert found.truth.tolist() == [LABELS[3], LABELS[4]]


def test_thresholds_are_chosen_for_the_precision_that_was_asked_for() -> None:
    """Every third answer is wrong, all as sure: more often right than wrong is what they can be, 95 % is not."""
    some = asked(logits(wrong=UNSEEN[::3]), UNSEEN)
    lax, strict = (outcome(some) for _ in range(2))
    lax.settings = Settings(wanted_precision=0.5)
    for each in (lax, strict):
        each.measure()
    assert (lax.thresholds.wanted, strict.thresholds.wanted) == (0.5, 0.95)
    assert all(each.shown for each in lax.thresholds.reached[:-1])
    assert not any(each.shown for each in strict.thresholds.reached)


def test_what_the_labels_are_is_known_before_anything_is_learned() -> None:
    found = outcome(asked(logits(), UNSEEN))
    assert [label.name for label in found.labels] == list(found.photos.names)
