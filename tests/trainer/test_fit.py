"""Dividing, and which of frozen start and fine-tuned model is kept: everything is chosen without the hold-out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import pytest

from edge.errors import DataError, ModelError
from tests.trainer import tiny_network as tiny
from trainer import probe
from trainer.dataset.questions import Question
from trainer.division import FOLDS, divide, folds_of
from trainer.fit import (
    FINE_TUNED,
    HEAD,
    PROBE,
    Fitted,
    Fitting,
    Learned,
    accuracy,
    beats,
    final_model,
    with_folds,
)
from trainer.photos import Photos
from trainer.probe import Head
from trainer.progress import Steps
from trainer.settings import Settings

Floats = npt.NDArray[np.float32]
QUIET = Steps(quiet=True)
SIXTY = [i % 3 for i in range(60)]
HELD = list(range(0, 60, 5))
DEFAULTS = Settings()


def photos(labels: Sequence[int], spread: float = 1.0) -> Photos:
    """Photos whose features tell their label, more or less."""
    random = np.random.default_rng(0)
    features = np.eye(max(labels) + 1, 8)[list(labels)] * 3 + random.normal(0, spread, (len(labels), 8))
    return tiny.photos(labels, features=features.astype(np.float32))


def question(groups: Sequence[int] | None = None) -> Question:
    return tiny.question(60, HELD, groups)


# --- dividing


def test_validation_is_a_fold_that_cuts_no_group_and_what_would_leak_is_left_out() -> None:
    groups = [i // 2 for i in range(60)]
    asked = question(groups)
    asked = replace(asked, learn=np.setdiff1d(asked.learn, np.array(HELD) ^ 1))
    parts = divide(photos(SIXTY), asked, Settings())
    assert sorted([*parts.train, *parts.validation]) == asked.learn.tolist() == parts.known.tolist()
    assert parts.holdout.tolist() == HELD
    assert not {groups[i] for i in parts.train} & {groups[i] for i in parts.validation}
    assert 5 <= len(parts.validation) <= 10


def test_a_label_of_one_burst_is_left_to_learn_from() -> None:
    labels = [0] * 20 + [1] * 20 + [2] * 4
    data, asked = photos(labels), tiny.question(44, [0, 1, 20, 21], [*range(40), *[40] * 4])
    assert set(data.labels[divide(data, asked, Settings()).train].tolist()) == {0, 1, 2}


def test_five_stations_of_which_one_is_held_out_make_fourfolds_of() -> None:
    groups = [i // 12 for i in range(60)]
    asked = tiny.question(60, range(12), groups)
    parts = divide(photos(SIXTY), asked, Settings())
    assert (len(parts.train), len(parts.validation), len(parts.holdout)) == (36, 12, 12)


def test_labels_that_cannot_all_be_learned_are_named() -> None:
    """Two groups to learn from, a label each: whichever validates is a label that nobody can learn."""
    labels = [0] * 10 + [1] * 10
    with pytest.raises(
        DataError, match=r"^deer, empty: too few independent photos to train and to check \(new burst\)"
    ):
        divide(photos(labels), tiny.question(20, [], [0] * 10 + [1] * 10), Settings())


# --- the probe alone


def test_without_fine_tuning_the_probe_is_kept_and_learns_from_validation_too() -> None:
    data, asked, settings = photos(SIXTY), question(), Settings(learn="head")
    assert not settings.needs_tuner
    parts = divide(data, asked, settings)
    found = Fitting(data, asked, settings, None, QUIET).fit(parts)
    assert found.kept == PROBE
    assert found.learned.head is not None
    assert found.start is not None
    assert found.start.head is not None
    assert (found.logits == found.learned.head.logits(data.features)).all()
    assert found.frozen_logits is found.logits
    rival, truth = cast("Floats", found.rival_logits), data.labels[parts.validation]
    assert found.validation == {PROBE: float((rival.argmax(axis=1) == truth).mean())}
    assert (found.history, found.tuned_logits, dict(found.learned.layers)) == ([], None, {})


def test_the_probe_s_unseen_logits_are_of_all_photos_in_groupedfolds_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features that tell a photo's group and nothing of its label: whoever saw the group knows the label."""
    monkeypatch.setattr(probe, "STRENGTHS", (100.0,))
    groups = [i // 3 for i in range(60)]
    labels = np.random.default_rng(0).integers(0, 2, 20).repeat(3).tolist()
    data = tiny.photos(labels, features=np.eye(20, dtype=np.float32)[groups])
    asked, settings = question(groups), Settings(learn="head")
    found = Fitting(data, asked, settings, None, QUIET).fit(divide(data, asked, settings))
    assert found.unseen.tolist() == list(range(60))
    assert accuracy(found.logits, data.labels, divide(data, asked, settings).known) > 0.9
    assert accuracy(found.unseen_logits, data.labels, found.unseen) < 0.8


def test_photos_that_are_held_out_change_nothing() -> None:
    data, asked, settings = photos(SIXTY), question(), Settings(learn="head")
    parts = divide(data, asked, settings)
    before = Fitting(data, asked, settings, None, QUIET).fit(parts)
    data.features[parts.holdout] = 1e3
    data.labels[parts.holdout] = 0
    after = Fitting(data, asked, settings, None, QUIET).fit(parts)
    assert before.learned.head is not None
    assert after.learned.head is not None
    assert (after.learned.head.kernel == before.learned.head.kernel).all()
    assert (cast("Floats", after.rival_logits) == cast("Floats", before.rival_logits)).all()
    assert after.validation == before.validation


@pytest.mark.parametrize("balance", ["sample", "loss"])
def test_a_balanced_probe_finds_more_of_the_rare_label(balance: str) -> None:
    labels = [0] * 54 + [1] * 6
    data, asked = photos(labels, spread=3.0), tiny.question(60, [])
    parts = divide(data, asked, Settings())

    def rare_found(settings: Settings) -> float:
        found = Fitting(data, asked, settings, None, QUIET).fit(parts)
        return float((found.unseen_logits.argmax(axis=1)[54:] == 1).mean())

    assert rare_found(Settings(learn="head", balance=balance)) > rare_found(Settings(learn="head"))


# --- frozen or fine-tuned


class Line:
    """A history of one epoch, with weights that a test can know again."""

    def __init__(self, weights: Any) -> None:
        self.weights, self.history, self.best = weights, ["an epoch"], 3


class Tuner:
    """Training step by step that ends in logits of a test's choosing."""

    learns_backbone = True
    NEW: ClassVar[Any] = {"head_1": ["new"]}
    TUNED: ClassVar[Any] = {"second": ["tuned"]}

    def __init__(
        self, tuned: Callable[[], Floats], new: Callable[[], Floats] = lambda: np.zeros((60, 3), np.float32)
    ) -> None:
        self._tuned, self._new = tuned, new
        self.calls: list[tuple[Any, ...]] = []

    def train_new(self, train: Any, validation: Any, name: str, epochs: int | None = None) -> tuple[Any, Floats]:
        self.calls.append(("new", train.tolist(), validation.tolist(), name, epochs))
        return Line(self.NEW), self._new()

    def fine_tune(
        self, start: Any, train: Any, validation: Any, name: str, epochs: int | None = None
    ) -> tuple[Any, Floats]:
        self.calls.append((start, train.tolist(), validation.tolist(), name, epochs))
        return Line(self.TUNED), self._tuned()


def right_about(data: Photos, rows: Sequence[int]) -> Callable[[], Floats]:
    """Logits that are right about these photos and wrong about the others."""
    said = (data.labels + 1) % 3
    said[list(rows)] = data.labels[list(rows)]
    return lambda: np.eye(3, dtype=np.float32)[said] * 4


def fitted_with(data: Photos, tuner: Any, settings: Settings = DEFAULTS) -> Fitted:
    asked = question()
    return Fitting(data, asked, settings, tuner, QUIET).fit(divide(data, asked, settings))


def test_what_must_be_beaten_has_not_learned_from_validation_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features that tell a photo's group and nothing of its label: whoever saw the group knows the label."""
    monkeypatch.setattr(probe, "STRENGTHS", (100.0,))
    groups = [i // 3 for i in range(60)]
    labels = np.random.default_rng(0).integers(0, 2, 20).repeat(3).tolist()
    data = tiny.photos(labels, features=np.eye(20, dtype=np.float32)[groups])
    asked, settings = question(groups), Settings(learn="head")
    parts = divide(data, asked, settings)
    found = Fitting(data, asked, settings, None, QUIET).fit(parts)
    rival = cast("Floats", found.rival_logits)
    assert rival.shape == (len(parts.validation), 2)
    assert (rival.argmax(axis=1) == data.labels[parts.validation]).mean() < 0.9
    assert accuracy(found.logits, data.labels, parts.validation) > 0.9


TRUTH = np.arange(40, dtype=np.intp) % 2


def sure(wrong: Sequence[int], size: float = 3.0) -> Floats:
    """Logits that are wrong about some of 40 photos."""
    said = TRUTH.copy()
    said[list(wrong)] = 1 - said[list(wrong)]
    return np.asarray(np.eye(2, dtype=np.float32)[said] * size, np.float32)


@pytest.mark.parametrize(
    ("new", "old", "groups", "verdict"),
    [
        pytest.param([1, 2], [1, 2], range(40), False, id="the same"),
        pytest.param([1, 2], [1, 2, 3], range(40), False, id="one photo better: may be chance"),
        pytest.param([1, 2], range(1, 7), range(40), True, id="four photos better"),
        pytest.param([1, 2], range(1, 7), [0, 1, 2, *[3] * 37], False, id="four photos better, all of one burst"),
        pytest.param(range(1, 7), [1, 2], range(40), False, id="worse"),
        pytest.param(range(1, 7), range(6, 12), range(40), False, id="others wrong, as many"),
    ],
)
def test_a_lead_counts_if_it_exceeds_its_standard_error(
    new: Sequence[int], old: Sequence[int], groups: Sequence[int], verdict: bool
) -> None:
    assert beats(sure(new), sure(old), TRUTH, np.array(groups, dtype=np.intp)) is verdict


def test_being_right_as_often_and_surer_where_it_is_right_is_better() -> None:
    """Both are wrong about four; one of them hesitates there, and is sure of the rest."""
    wise, even = sure(range(4), 1.0), sure(range(4), 3.0)
    wise[4:] *= 4
    assert beats(wise, even, TRUTH, np.arange(40))
    assert not beats(even, wise, TRUTH, np.arange(40))
    assert beats(wise * 2, even, TRUTH, np.arange(40)), "each has the temperature that suits it"


def test_a_smaller_loss_does_not_make_up_for_more_mistakes() -> None:
    wise, even = sure(range(5), 0.1), sure(range(4), 3.0)
    wise[5:] *= 60
    assert not beats(wise, even, TRUTH, np.arange(40))


@pytest.mark.parametrize(
    ("more", "settings", "kept"),
    [
        pytest.param(4, {}, FINE_TUNED, id="four photos better: kept"),
        pytest.param(0, {}, PROBE, id="equal: the probe is kept"),
        pytest.param(-2, {}, PROBE, id="worse: the probe stays"),
        pytest.param(-2, {"keep": "fine-tuned"}, FINE_TUNED, id="worse, but no contest was asked for"),
        pytest.param(-2, {"weights": "none"}, FINE_TUNED, id="worse, but its start was random"),
    ],
)
def test_fine_tuning_is_kept_only_if_it_beats_its_start_on_validation(
    more: int, settings: dict[str, Any], kept: str
) -> None:
    data, asked = photos(SIXTY, spread=3.5), question()
    chosen = Settings(**settings)
    parts = divide(data, asked, chosen)
    rows = parts.validation
    alone = Fitting(data, asked, replace(chosen, learn="head"), None, QUIET).fit(parts)
    rival = cast("Floats", alone.rival_logits)
    right = rival.argmax(axis=1) == data.labels[rows]
    assert (~right).sum() >= 4, "the probe must be beatable for this test to say anything"
    said = np.zeros((60, 3), np.float32)
    said[rows] = rival
    for i in np.flatnonzero(~right)[:more] if more > 0 else np.flatnonzero(right)[: -more or 0]:
        said[rows[i]] = np.eye(3)[(data.labels[rows[i]] + (more < 0)) % 3] * 4
    tuner: Any = Tuner(lambda: said)
    found = Fitting(data, asked, chosen, tuner, QUIET).fit(parts)
    assert found.kept == kept
    assert found.validation == {PROBE: right.mean(), FINE_TUNED: pytest.approx(right.mean() + more / len(rows))}
    assert (len(found.history), found.epochs) == (1, 3)
    assert found.tuned_logits is not None
    ((start, *rest),) = tuner.calls
    assert rest == [parts.train.tolist(), parts.validation.tolist(), "measured", None]
    assert alone.start is not None
    assert (start.kernel == cast("Head", alone.start.head).kernel).all()
    if kept == PROBE:
        assert (found.logits == alone.logits).all()
        assert found.learned.layers == {}
        assert len(found.unseen) == 60
    else:
        assert (found.logits == said).all()
        assert found.learned == Learned(layers=Tuner.TUNED)
        assert found.unseen.tolist() == sorted([*parts.validation, *parts.holdout])
        assert (found.unseen_logits == found.logits[found.unseen]).all()
        assert found.choice is not None, "what it started from is still known"


def test_a_model_that_is_better_on_the_hold_out_alone_is_not_kept() -> None:
    data = photos(SIXTY, spread=2.5)
    assert fitted_with(data, Tuner(right_about(data, HELD))).kept == PROBE


def test_new_layers_are_the_start_where_the_head_is_more_than_a_probe() -> None:
    data, settings = photos(SIXTY), Settings(head=("16",), learn="head")
    tuner = Tuner(right_about(data, []), right_about(data, range(60)))
    assert settings.needs_tuner
    tuner.learns_backbone = False
    found = fitted_with(data, tuner, settings)
    assert (found.kept, found.validation, found.start_epochs) == (HEAD, {HEAD: 1.0}, 3)
    assert found.learned == Learned(layers=Tuner.NEW)
    assert found.choice is None
    tuner.learns_backbone = True
    found = fitted_with(data, tuner, replace(settings, learn="blocks"))
    assert (found.kept, found.validation) == (HEAD, {HEAD: 1.0, FINE_TUNED: 0.0})
    assert tuner.calls[-1][0] == Tuner.NEW, "fine-tuning starts from them"


def test_a_tuner_that_could_fine_tune_does_not_where_only_the_head_shall_learn() -> None:
    """As a second question is asked where the first one kept the new layers: of the same tuner."""
    data, settings = photos(SIXTY), Settings(head=("16",), learn="head")
    tuner = Tuner(right_about(data, range(60)), right_about(data, []))
    found = fitted_with(data, tuner, settings)
    assert (found.kept, found.tuned_logits, set(found.validation)) == (HEAD, None, {HEAD})
    assert [call[0] for call in tuner.calls] == ["new"]
    assert fitted_with(data, tuner, Settings(learn="head")).kept == PROBE


def test_from_scratch_there_is_no_start() -> None:
    data, settings = photos(SIXTY), Settings(weights="none", learn="all")
    tuner = Tuner(right_about(data, []))
    found = fitted_with(data, tuner, settings)
    assert (found.kept, found.start, found.frozen_logits, set(found.validation)) == (
        FINE_TUNED,
        None,
        None,
        {FINE_TUNED},
    )
    assert tuner.calls[0][0] is None


class Diverging(Tuner):
    """Fine-tuning whose loss becomes NaN."""

    def fine_tune(self, *_: Any) -> tuple[Any, Floats]:
        raise ModelError("fine-tuning diverged in epoch 1; a lower --rate may help.", code="diverged")


def test_a_fine_tuning_that_diverges_leaves_the_start() -> None:
    data = photos(SIXTY)
    tuner: Any = Diverging(right_about(data, range(60)))
    found = fitted_with(data, tuner)
    assert (found.kept, set(found.validation), found.history) == (PROBE, {PROBE}, [])
    crossed = Fitting(data, question(), Settings(), tuner, QUIET).cross_validate()
    assert set(crossed.facts()) == {
        "n",
        "kept",
        PROBE,
        "folds",
    }


def test_a_training_from_scratch_that_diverges_leaves_nothing() -> None:
    data = photos(SIXTY)
    with pytest.raises(ModelError, match="diverged"):
        fitted_with(data, Diverging(right_about(data, [])), Settings(weights="none", learn="all"))


# --- grouped folds


def test_grouped_folds_hold_out_each_photo_once() -> None:
    data = photos(SIXTY, spread=2.0)
    groups = [i // 2 for i in range(60)]
    tuner: Any = Tuner(right_about(data, range(60)))
    found = Fitting(data, question(groups), Settings(), tuner, QUIET).cross_validate()
    assert sum(fold["n"] for fold in found.folds) == found.n == 60
    assert found.shares[FINE_TUNED] == 1.0
    held: list[int] = []
    for _, train, validation, _, _ in tuner.calls:
        rest = sorted(set(range(60)) - set(train) - set(validation))
        assert not {groups[i] for i in rest} & {groups[i] for i in [*train, *validation]}
        held += rest
    assert sorted(held) == list(range(60))
    assert [name for _, _, _, name, _ in tuner.calls] == [f"fold-{i + 1}" for i in range(FOLDS)]
    shares = [fold[PROBE] * fold["n"] for fold in found.folds]
    assert found.shares[PROBE] == pytest.approx(sum(shares) / 60)
    assert accuracy(found.logits[PROBE], data.labels, np.arange(60)) == found.shares[PROBE]


def test_grouped_folds_of_the_probe_alone_name_no_fine_tuning() -> None:
    found = Fitting(photos(SIXTY), question(), Settings(learn="head"), None, QUIET).cross_validate()
    assert set(found.facts()) == {"n", "kept", PROBE, "folds"}
    assert found.shares["kept"] == found.shares[PROBE]


def test_with_grouped_folds_all_photos_are_unseen_ones() -> None:
    data, settings = photos(SIXTY), Settings(keep="fine-tuned")
    tuner: Any = Tuner(right_about(data, range(30)))
    fitted = fitted_with(data, tuner, settings)
    assert len(fitted.unseen) < 60
    crossed = Fitting(data, question(), settings, tuner, QUIET).cross_validate()
    more = with_folds(fitted, crossed)
    assert more.unseen.tolist() == list(range(60))
    assert (more.unseen_logits == crossed.logits[FINE_TUNED]).all()
    assert with_folds(replace(fitted, kept="another kind"), crossed).unseen is fitted.unseen


def test_two_groups_cannot_be_crossed_and_that_is_said_before_any_work() -> None:
    data, asked = photos(SIXTY), tiny.question(60, [], [i % 2 for i in range(60)])
    divide(data, asked, Settings())
    with pytest.raises(DataError, match=r"two groups .* grouped folds need three"):
        divide(data, asked, Settings(cross_validate=True))
    three = tiny.question(60, [], [i % 3 for i in range(60)])
    labels = photos([(i // 3) % 3 for i in range(60)])
    divide(labels, three, Settings(cross_validate=True))
    assert len(Fitting(labels, three, Settings(learn="head"), None, QUIET).cross_validate().folds) == 3


def test_folds_of_all_photos_cut_no_burst_that_lies_outside_what_a_new_station_learns_from() -> None:
    """Photos of no station, and a near-duplicate at a station that is held out."""
    station = np.array([i // 10 for i in range(60)])
    bursts = np.arange(60)
    bursts[[3, 55]] = 3  # left out of learning: its like is held out
    bursts[40:50] = 40  # a burst of no station
    grouping = np.where(station == 4, 100 + np.arange(60), station)
    learn = np.setdiff1d(np.arange(40), [3])
    asked = Question("new station", np.arange(50, 60), learn, grouping)
    data = replace(photos(SIXTY), groups=bursts)
    for fold in folds_of(data, asked, np.arange(60), DEFAULTS):
        rest = np.setdiff1d(np.arange(60), fold)
        assert not set(bursts[fold]) & set(bursts[rest])
        assert not set(grouping[fold]) & set(grouping[rest])
    assert len(folds_of(data, asked, learn, DEFAULTS)) == 4, "inside what it learns from nothing changes"


# --- what is shipped


def test_a_probe_is_shipped_as_fitted_on_all_photos() -> None:
    data, settings = photos(SIXTY), Settings(learn="head")
    fitted = fitted_with(data, None, settings)
    learned, logits = Fitting(data, question(), settings, None, QUIET).refit(fitted)
    assert learned.head is not None
    assert (logits == learned.head.logits(data.features)).all()
    assert (learned.head.kernel != cast("Head", fitted.learned.head).kernel).any()
    data.features[HELD] = 1e3
    changed, _ = Fitting(data, question(), settings, None, QUIET).refit(fitted)
    assert (cast("Head", changed.head).kernel != learned.head.kernel).any(), "also what was held out"


@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        pytest.param({}, [("shipped", 3)], id="from a probe"),
        pytest.param({"head": ("16",)}, [("shipped", 3), ("shipped", 3)], id="from new layers"),
        pytest.param({"weights": "none", "learn": "all"}, [("shipped", 3)], id="from scratch"),
    ],
)
def test_a_fine_tuned_model_is_shipped_after_as_many_epochs_on_all_photos(
    settings: dict[str, Any], calls: list[Any]
) -> None:
    data, chosen = photos(SIXTY), Settings(keep="fine-tuned", **settings)
    tuner: Any = Tuner(right_about(data, range(30)), right_about(data, range(30)))
    fitted = fitted_with(data, tuner, chosen)
    tuner.calls.clear()
    learned, logits = Fitting(data, question(), chosen, tuner, QUIET).refit(fitted)
    assert learned == Learned(layers=Tuner.TUNED)
    assert logits.shape == (60, 3)
    assert [call[3:] for call in tuner.calls] == calls
    assert all(call[1:3] == (list(range(60)), []) for call in tuner.calls)


@pytest.mark.needs("tensorflow")
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"learn": "head", "pooling": "avg+max"}, id="a probe"),
        pytest.param({"learn": "blocks", "fine_tune_from": "second", "keep": "fine-tuned"}, id="fine-tuned from it"),
        pytest.param({"learn": "all", "head": ("8",), "blocks": (4,), "keep": "fine-tuned"}, id="all, from new layers"),
    ],
)
def test_the_final_models_answer_as_what_was_measured_and_what_is_shipped(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    from trainer import model
    from trainer.tuner import Tuner

    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))
    chosen = Settings(epochs=2, rate=0.01, batch=8, views=1, **settings)
    network = tiny.network()
    pixels = tiny.coloured(SIXTY)
    pool = keras.Model(network.input, model.pooled(network.output, "avg+max" if "pooling" in settings else "avg"))
    data = tiny.photos(SIXTY, pixels, np.asarray(pool.predict(pixels, verbose=0)))
    tuner = Tuner(network, data, chosen, tmp_path, QUIET) if chosen.needs_tuner else None
    fitted = fitted_with(data, tuner, chosen)
    shipped, logits = Fitting(data, question(), chosen, tuner, QUIET).refit(fitted)
    measured_model = final_model(network, chosen, 3, fitted.learned)
    shipped_model = final_model(network, chosen, 3, shipped)
    measured_model.save(tmp_path / "model.keras")
    saved = keras.models.load_model(tmp_path / "model.keras")
    assert np.asarray(saved.predict(pixels, verbose=0)) == pytest.approx(fitted.logits, abs=0.05)
    assert np.asarray(shipped_model.predict(pixels, verbose=0)) == pytest.approx(logits, abs=0.05)
    assert np.abs(logits - fitted.logits).max() > 0.1, "they differ, so each must have its own weights"


def test_accuracy_is_counted_on_the_rows_asked_for() -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    assert accuracy(logits, np.array([0, 1, 0, 0]), np.array([1, 2, 3])) == pytest.approx(2 / 3)
