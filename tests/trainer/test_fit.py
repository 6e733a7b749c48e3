"""Dividing, and which of probe and fine-tuned model is kept: everything is chosen without the hold-out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from edge.errors import DataError, ModelError
from trainer.dataset import split
from trainer.fit import FINE_TUNED, PROBE, accuracy, beats, cross_validate, divide, fit
from trainer.photos import FOLDS, Photos
from trainer.probe import Head
from trainer.progress import Steps
from trainer.settings import Settings

NAMES = ("deer", "empty", "fox")
QUIET = Steps(quiet=True)


def photos(labels: Sequence[int], groups: Sequence[int] | None = None, spread: float = 1.0) -> Photos:
    """Photos whose features tell their label, more or less."""
    truth = np.array(labels, dtype=np.intp)
    numbers = np.arange(len(truth), dtype=np.intp) if groups is None else np.array(groups, dtype=np.intp)
    random = np.random.default_rng(0)
    features = np.eye(3, 8)[truth] * 3 + random.normal(0, spread, (len(truth), 8))
    return Photos(
        decoded=[],
        unreadable=[],
        stack=cast("Any", None),
        features=features.astype(np.float32),
        names=NAMES,
        labels=truth,
        groups=numbers,
        folds=split.folds(truth, numbers, FOLDS, 0),
    )


SIXTY = [i % 3 for i in range(60)]


# --- dividing


def test_every_photo_is_in_one_part_and_no_group_is_cut() -> None:
    data = photos(SIXTY, [i // 2 for i in range(60)])
    parts = divide(data)
    everything = np.concatenate([parts.train, parts.validation, parts.holdout])
    assert sorted(everything.tolist()) == list(range(60))
    groups = [set(data.groups[part].tolist()) for part in (parts.train, parts.validation, parts.holdout)]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    assert sorted(parts.known.tolist()) == sorted(np.concatenate([parts.train, parts.validation]).tolist())


def test_a_label_of_one_burst_is_left_to_learn_from() -> None:
    labels = [0] * 20 + [1] * 20 + [2] * 4
    data = photos(labels, [*range(40), *[40] * 4])
    assert set(data.labels[divide(data).train].tolist()) == {0, 1, 2}


def test_labels_that_cannot_all_be_learned_are_named() -> None:
    """Five groups, a label each: whatever is held out is a label that nobody can learn."""
    names = ("a", "b", "c", "d", "e")
    labels = np.arange(5, dtype=np.intp)
    data = Photos([], [], cast("Any", None), np.zeros((5, 2), np.float32), names, labels, labels,
                  split.folds(labels, labels, FOLDS, 0))  # fmt: skip
    with pytest.raises(DataError, match="a, b, c, d, e: too few independent photos"):
        divide(data)


def test_labels_that_each_have_enough_groups_are_still_named() -> None:
    """Folds of a test's own: of one label all photos are in two of them, and every division takes one label away."""
    labels = np.repeat(np.arange(5, dtype=np.intp), 6)
    groups = np.arange(30, dtype=np.intp)
    folds = [np.flatnonzero(labels == label) for label in range(5)]
    data = Photos([], [], cast("Any", None), np.zeros((30, 2), np.float32), ("a", "b", "c", "d", "e"), labels, groups,
                  folds)  # fmt: skip
    with pytest.raises(DataError, match=r"^a, b, c, d, e: too few independent photos"):
        divide(data)


# --- the probe alone


def test_without_fine_tuning_the_probe_is_kept_and_learns_from_validation_too() -> None:
    data = photos(SIXTY)
    parts = divide(data)
    found = fit(data, parts, Settings(fine_tune=False), None, QUIET)
    assert found.kept == PROBE
    assert (found.logits == found.head.logits(data.features)).all()
    assert set(found.validation) == {PROBE}
    assert found.validation[PROBE] == accuracy(found.start.logits(data.features), data.labels, parts.validation)
    assert (found.unseen == parts.known).all()
    assert found.unseen_logits.shape == (len(parts.known), 3)
    assert (found.history, found.tuned_logits, found.tuned_weights) == ([], None, None)


def test_photos_that_are_held_out_change_nothing() -> None:
    data = photos(SIXTY)
    parts = divide(data)
    before = fit(data, parts, Settings(), None, QUIET)
    data.features[parts.holdout] = 1e3
    data.labels[parts.holdout] = 0
    after = fit(data, parts, Settings(), None, QUIET)
    assert (after.head.kernel == before.head.kernel).all()
    assert (after.start.kernel == before.start.kernel).all()
    assert after.validation == before.validation


# --- probe or fine-tuned


WEIGHTS: list[Any] = []


class Tail:
    """Fine-tuning that ends in logits of a test's choosing."""

    def __init__(self, logits: Callable[[npt.NDArray[np.intp]], npt.NDArray[np.float32]]) -> None:
        self._logits = logits
        self.trained_on: list[tuple[list[int], list[int]]] = []
        self.started_at: list[Head] = []

    def train(
        self, head: Head, inputs: Any, labels: Any, train: Any, validation: Any, settings: Any, seed: int, done: Any
    ) -> tuple[Any, list[Any]]:
        self.trained_on.append((train.tolist(), validation.tolist()))
        self.started_at.append(head)
        done(None)
        return self, ["an epoch"]

    def logits(self, model: Any, inputs: Any, indices: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        return self._logits(indices)

    def weights(self) -> list[Any]:
        return WEIGHTS

    def get_layer(self, name: str) -> Any:
        assert name == "logits"
        return self

    def get_weights(self) -> tuple[Any, Any]:
        return np.ones((8, 3), np.float32), np.zeros(3, np.float32)


class Tuner:
    """What :func:`trainer.fit.fit` needs of one."""

    settings, inputs = None, None

    def __init__(self, tail: Tail) -> None:
        self.tail = tail


def right_about(data: Photos, rows: Sequence[int]) -> Callable[[npt.NDArray[np.intp]], npt.NDArray[np.float32]]:
    """Logits that are right about these photos and wrong about the others."""
    said = (data.labels + 1) % 3
    said[list(rows)] = data.labels[list(rows)]
    logits = np.eye(3, dtype=np.float32)[said] * 4
    return lambda indices: logits[indices]


@pytest.mark.parametrize(
    ("better", "worse", "verdict"),
    [
        pytest.param(0, 0, False, id="the same"),
        pytest.param(1, 0, False, id="one better: may be chance"),
        pytest.param(2, 0, True, id="two better"),
        pytest.param(3, 1, False, id="a lead of two in four"),
        pytest.param(4, 1, True, id="a lead of three in five"),
        pytest.param(0, 2, False, id="worse"),
        pytest.param(20, 15, False, id="a lead of five in 35"),
        pytest.param(21, 14, True, id="a lead of seven in 35"),
    ],
)
def test_a_lead_counts_if_it_exceeds_its_standard_error(better: int, worse: int, verdict: bool) -> None:
    new = np.array([True] * better + [False] * worse + [True, False])
    old = np.array([False] * better + [True] * worse + [True, False])
    assert beats(new, old) is verdict


@pytest.mark.needs("tensorflow")  # trainer.fit takes the last layer's weights by fine_tune
@pytest.mark.parametrize(
    ("more", "kept"),
    [
        pytest.param(2, FINE_TUNED, id="two photos better: kept"),
        pytest.param(1, PROBE, id="one photo better: the probe is kept"),
        pytest.param(0, PROBE, id="equal: the probe is kept"),
    ],
)
def test_fine_tuning_is_kept_only_if_it_beats_the_probe_on_validation(more: int, kept: str) -> None:
    data = photos(SIXTY, spread=2.5)
    parts = divide(data)
    rows = parts.validation
    alone = fit(data, parts, Settings(), None, QUIET)
    right = alone.start.logits(data.features[rows]).argmax(axis=1) == data.labels[rows]
    assert (~right).sum() >= 2, "the probe must be beatable for this test to say anything"
    tail = Tail(right_about(data, [*rows[right], *rows[~right][:more]]))
    found = fit(data, parts, Settings(), cast("Any", Tuner(tail)), QUIET)
    assert found.kept == kept
    assert found.validation == {PROBE: right.mean(), FINE_TUNED: pytest.approx(right.mean() + more / len(rows))}
    assert len(found.history) == 1
    assert tail.trained_on == [(parts.train.tolist(), parts.validation.tolist())]
    assert tail.started_at[0] is found.start
    if kept == PROBE:
        assert (found.logits == found.probe_logits).all()
        assert (found.head.kernel == alone.head.kernel).all()
        assert found.tuned_weights is None
    else:
        assert (found.logits == tail.logits(None, None, np.arange(60))).all()
        assert (found.head.kernel == 1).all()
        assert found.tuned_weights is WEIGHTS
        assert (found.unseen == parts.validation).all()
        assert (found.unseen_logits == found.logits[parts.validation]).all()


@pytest.mark.needs("tensorflow")
def test_a_model_that_is_better_on_the_hold_out_alone_is_not_kept() -> None:
    data = photos(SIXTY, spread=2.5)
    parts = divide(data)
    tail = Tail(right_about(data, parts.holdout.tolist()))
    assert fit(data, parts, Settings(), cast("Any", Tuner(tail)), QUIET).kept == PROBE


class Diverging(Tail):
    """Fine-tuning whose loss becomes NaN."""

    def train(self, *_: Any) -> tuple[Any, list[Any]]:
        raise ModelError("fine-tuning diverged in epoch 1; a lower --rate may help.", code="diverged")


@pytest.mark.needs("tensorflow")
def test_a_fine_tuning_that_diverges_leaves_the_probe() -> None:
    data = photos(SIXTY)
    tuner = cast("Any", Tuner(Diverging(right_about(data, range(60)))))
    found = fit(data, divide(data), Settings(), tuner, QUIET)
    assert (found.kept, set(found.validation), found.history) == (PROBE, {PROBE}, [])
    assert (found.logits == found.probe_logits).all()
    assert set(cross_validate(data, Settings(), tuner, QUIET)) == {"n", "kept", PROBE, "folds"}


# --- grouped folds


@pytest.mark.needs("tensorflow")
def test_grouped_folds_hold_out_each_photo_once() -> None:
    data = photos(SIXTY, spread=2.0)
    tail = Tail(right_about(data, range(60)))
    found = cross_validate(data, Settings(), cast("Any", Tuner(tail)), QUIET)
    assert sum(fold["n"] for fold in found["folds"]) == found["n"] == 60
    assert found[FINE_TUNED] == 1.0
    for train, validation in tail.trained_on:
        held = sorted(set(range(60)) - set(train) - set(validation))
        assert held in [fold.tolist() for fold in data.folds]
    assert len({tuple(validation) for _, validation in tail.trained_on}) == FOLDS
    shares = [fold[PROBE] * fold["n"] for fold in found["folds"]]
    assert found[PROBE] == pytest.approx(sum(shares) / 60)


def test_grouped_folds_of_the_probe_alone_name_no_fine_tuning() -> None:
    found = cross_validate(photos(SIXTY), Settings(), None, QUIET)
    assert set(found) == {"n", "kept", PROBE, "folds"}
    assert found["kept"] == found[PROBE]


def test_accuracy_is_counted_on_the_rows_asked_for() -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    assert accuracy(logits, np.array([0, 1, 0, 0]), np.array([1, 2, 3])) == pytest.approx(2 / 3)
