"""The probe: the same answers as scikit-learn's pipeline, in one layer that survives int8, chosen without cheating."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from edge.model.decide import probabilities
from trainer import probe
from trainer.dataset import split

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.intp]


def blobs(classes: int, *, n: int = 90, width: int = 12, spread: float = 1.5, seed: int = 0) -> tuple[Floats, Labels]:
    """Photos of some classes whose features overlap, each feature on a scale of its own."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = random.normal(size=(classes, width))
    features = (centres[labels] + spread * random.normal(size=(n, width))) * np.linspace(1, 4, width) + 7
    return features.astype(np.float32), labels


def pipeline(features: Floats, labels: Labels, strength: float):  # type: ignore[no-untyped-def]
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000)).fit(features, labels)


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("strength", [1e-3, 1e-1])
def test_the_folded_layer_gives_the_pipeline_s_probabilities(classes: int, strength: float) -> None:
    features, labels = blobs(classes)
    head = probe.fit(features, labels, classes, strength)
    assert head.kernel.shape == (12, classes)
    assert head.kernel.dtype == np.float32
    assert head.bias.dtype == np.float32
    expected = pipeline(features, labels, strength).predict_proba(features)
    assert probabilities(head.logits(features)) == pytest.approx(expected, abs=2e-3)


def test_logits_of_two_classes_are_symmetric() -> None:
    features, labels = blobs(2)
    logits = probe.fit(features, labels, 2, 1e-2).logits(features)
    assert logits[:, 0] == pytest.approx(-logits[:, 1], abs=1e-4)


def test_a_class_without_photos_is_never_the_answer() -> None:
    features, labels = blobs(3)
    head = probe.fit(features, labels * 2, 6, 1e-1)  # classes 0, 2, 4 of six
    logits = head.logits(np.concatenate([features, features * 5, -features]))
    assert set(np.unique(logits.argmax(axis=1))) <= {0, 2, 4}
    assert probabilities(head.logits(features))[:, [1, 3, 5]].max() < 0.01


def test_photos_of_one_class_teach_that_class() -> None:
    features, _ = blobs(2)
    head = probe.fit(features, np.full(90, 1), 3, 1e-2)
    assert (head.logits(features).argmax(axis=1) == 1).all()


def rounded(kernel: Floats) -> Floats:
    """Weights as int8 keeps them: 127 steps on each side, one scale for the layer."""
    step = np.abs(kernel).max() / 127
    return np.asarray(np.round(kernel / step) * step, np.float32)


def test_a_feature_that_hardly_varies_does_not_take_int8_s_whole_scale() -> None:
    """Such a feature once got a weight 16,000 times the median, and the quantized model said one label for all."""
    features, labels = blobs(3, spread=0.3)
    random = np.random.default_rng(1)
    still = np.where(labels == 0, 1e-5, 0) + 1e-6 * random.normal(size=90)
    features = np.column_stack([features, still + 1, np.ones(90)]).astype(np.float32)
    head = probe.fit(features, labels, 3, 1e-1)
    assert np.abs(head.kernel).max() < 100 * np.median(np.abs(head.kernel[:12]))
    quantized = probe.Head(rounded(head.kernel), head.bias)
    assert (quantized.logits(features).argmax(axis=1) == labels).mean() > 0.95


def test_features_that_are_all_the_same_do_not_end_it() -> None:
    head = probe.fit(np.ones((20, 4), np.float32), np.arange(20) % 2, 2, 1e-2)
    assert np.isfinite(head.kernel).all()
    assert np.isfinite(head.bias).all()


# --- choosing the regularisation


def test_a_photo_s_logits_come_from_a_head_that_did_not_see_its_fold() -> None:
    features, labels = blobs(3)
    folds = split.folds(labels, np.arange(90), 5, 0)
    found = probe.out_of_fold(features, labels, 3, folds, 1e-2)
    for fold in folds:
        rest = np.setdiff1d(np.arange(90), fold)
        expected = probe.fit(features[rest], labels[rest], 3, 1e-2).logits(features[fold])
        assert found[fold] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("spread", [0.5, 2.0, 6.0])
def test_the_strength_with_the_smallest_held_out_loss_is_chosen(spread: float) -> None:
    features, labels = blobs(3, width=20, spread=spread)
    folds = split.folds(labels, np.arange(90), 5, 0)
    losses = {}
    for strength in probe.STRENGTHS:
        chances = np.empty((90, 3))
        for fold in folds:
            rest = np.setdiff1d(np.arange(90), fold)
            chances[fold] = pipeline(features[rest], labels[rest], strength).predict_proba(features[fold])
        losses[strength] = log_loss(labels, chances / chances.sum(axis=1, keepdims=True))
    choice = probe.choose(features, labels, 3, folds)
    assert losses[choice.strength] == pytest.approx(min(losses.values()), rel=1e-3)
    assert set(choice.accuracy) == set(probe.STRENGTHS)
    assert choice.accuracy[choice.strength] == (choice.logits.argmax(axis=1) == labels).mean()


def test_labels_that_are_chance_get_the_strongest_regularisation() -> None:
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(90, 40)).astype(np.float32), random.integers(0, 2, 90)
    assert probe.choose(features, labels, 2, split.folds(labels, np.arange(90), 5, 0)).strength == probe.STRENGTHS[0]


def test_a_label_of_one_burst_can_be_left_out_with_its_fold() -> None:
    """All photos of one of two labels in one fold: the others' head sees one class."""
    features, labels = blobs(2, n=24)
    labels = np.array([0] * 20 + [1] * 4)
    groups = np.array([*range(20), *[20] * 4])
    choice = probe.choose(features, labels, 2, split.folds(labels, groups, 5, 0))
    assert np.isfinite(choice.logits).all()


def test_balanced_classes_weigh_the_same_whatever_their_number() -> None:
    """As scikit-learn's own balance does."""
    features, labels = blobs(2, n=80, spread=4.0)
    rare = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:6]])
    features, labels = features[rare], labels[rare]
    plain, fair = (probe.fit(features, labels, 2, 1e-2, balanced=balanced) for balanced in (False, True))
    said = [(head.logits(features).argmax(axis=1) == 1).sum() for head in (plain, fair)]
    assert said[0] < said[1]
    expected = make_pipeline(StandardScaler(), LogisticRegression(C=1e-2, max_iter=1000, class_weight="balanced")).fit(
        features, labels
    )
    assert probabilities(fair.logits(features)) == pytest.approx(expected.predict_proba(features), abs=2e-3)


def test_of_many_photos_some_whole_groups_choose_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = blobs(3, n=300, spread=4.0)
    groups = np.arange(300) // 4
    folds = split.folds(labels, groups, 5, 0)
    fitted: list[int] = []
    real = probe._path

    def path(features: Floats, *rest: object) -> list[probe.Head]:
        fitted.append(len(features))
        return real(features, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(probe, "_path", path)
    whole = probe.choose(features, labels, 3, folds, groups)
    assert fitted == [240] * 5
    monkeypatch.setattr(probe, "ENOUGH", 100)
    some = probe._some(groups)
    assert 97 <= some.sum() <= 104
    assert not set(groups[some]) & set(groups[~some])
    fitted.clear()
    choice = probe.choose(features, labels, 3, folds, groups)
    assert all(size < 104 for size in fitted[:5]), "the choice is made on some"
    assert fitted[5:] == [240] * 5, "and every photo gets its logits"
    assert choice.logits == pytest.approx(probe.out_of_fold(features, labels, 3, folds, choice.strength))
    assert abs(choice.accuracy[choice.strength] - whole.accuracy[whole.strength]) < 0.15


def test_a_station_with_more_photos_than_choose_does_not_choose_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole groups that fill the sample may all be in one fold; nothing would be left to fit on."""
    monkeypatch.setattr(probe, "ENOUGH", 50)
    features, labels = blobs(3, n=300, spread=4.0)
    stations = np.arange(300) // 60
    choice = probe.choose(features, labels, 3, split.folds(labels, stations, 5, 0), stations)
    assert choice.strength in probe.STRENGTHS
    assert np.isfinite(choice.logits).all()


def test_fits_that_start_where_another_ended_come_to_the_same() -> None:
    features, labels = blobs(4, width=30)
    path = probe._path(features, labels, 4, probe.STRENGTHS, False)
    for head, strength in zip(path, probe.STRENGTHS, strict=True):
        alone = probe.fit(features, labels, 4, strength)
        assert probabilities(head.logits(features)) == pytest.approx(probabilities(alone.logits(features)), abs=3e-3)
