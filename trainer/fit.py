"""Fits a model on a division of the photos: a frozen start, fine-tuning, and which of the two is kept.

Everything, also what to keep, is chosen without the photos held out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from edge.errors import DataError, ModelError
from edge.model.decide import probabilities
from trainer import probe
from trainer.dataset import questions, split
from trainer.dataset.questions import Question
from trainer.evaluate import temperature
from trainer.photos import Photos
from trainer.probe import Choice, Floats, Head
from trainer.progress import Steps
from trainer.settings import ALL, HEAD_ONLY, RANDOM, Settings

if TYPE_CHECKING:
    import keras

    from trainer.fine_tune import Epoch, Trained
    from trainer.model import LayerWeights
    from trainer.tuner import Tuner

PROBE, HEAD, FINE_TUNED = "probe", "head", "fine-tuned"
"""What is kept: a linear layer on frozen features, new layers on a frozen backbone, or a backbone that learned too."""
LEAD = 1.5
"""Standard errors by which fine-tuning must lead. On folds of camera-trap photos where it did harm it led by up to 1.5,
on those of weather photos, where it helped, by 1.6 and more."""
FOLDS = 5
"""One fold in five validates, and in grouped folds each is held out once."""


@dataclass(frozen=True)
class Parts:
    """Who learns from which: indices into the photos."""

    train: split.Indices
    validation: split.Indices
    holdout: split.Indices

    @property
    def known(self) -> split.Indices:
        """What may be learned from: the training and the validation part."""
        return np.sort(np.concatenate([self.train, self.validation]))


@dataclass(frozen=True)
class Learned:
    """What was learned: a linear head on pooled features, or weights of layers by their names, or both."""

    head: Head | None = None
    layers: LayerWeights = field(default_factory=dict)


@dataclass(frozen=True)
class Fitted:
    """What came out of one division of the photos.

    Attributes:
        kept: ``probe``, ``head`` or ``fine-tuned``.
        learned: what the kept model learned without the hold-out: the probe from training and validation part, the
            others from the training part, with the validation part to stop by.
        logits: float32 (n, C), the kept model's, of all photos.
        unseen, unseen_logits: photos, and logits of the kept model, or one of its kind, that did not learn from them.
            For a probe all photos, in grouped folds; else validation part and hold-out.
        validation: share of the validation part that each kind gets right.
        choice: of the probe's regularisation, by grouped folds of all photos but the hold-out.
        start: what was learned on the frozen backbone from the training part alone, where fine-tuning starts.
        rival_logits: of the validation part, (n, C), from models like the start that did not learn from it either: what
            fine-tuning must beat. A probe's are out of fold, since what would be kept has learned from about as many.
        frozen_logits: of the model that would be kept without fine-tuning; None from scratch.
        tuned_logits: the fine-tuned model's, kept or not; None without fine-tuning.
        start_history, history: of the new layers and of fine-tuning.
        start_epochs, epochs: the best ones.
    """

    kept: str
    learned: Learned
    logits: Floats
    unseen: split.Indices
    unseen_logits: Floats
    validation: dict[str, float]
    choice: Choice | None = None
    start: Learned | None = None
    rival_logits: Floats | None = None
    frozen_logits: Floats | None = None
    tuned_logits: Floats | None = None
    start_history: list[Epoch] = field(default_factory=list)
    history: list[Epoch] = field(default_factory=list)
    start_epochs: int = 0
    epochs: int = 0


@dataclass(frozen=True)
class Crossed:
    """Each photo's answer by a model that did not learn from its fold.

    Attributes:
        n: photos.
        shares: share right of ``kept``, and of each kind that every fold has.
        folds: the same for each fold, with ``n`` and ``chosen``.
        logits: kind -> float32 (n, C).
    """

    n: int
    shares: dict[str, float]
    folds: list[dict[str, Any]]
    logits: dict[str, Floats]

    def facts(self) -> dict[str, Any]:
        """For a report."""
        return {"n": self.n, **self.shares, "folds": self.folds}


def divide(photos: Photos, question: Question, settings: Settings) -> Parts:
    """Choose the fold that validates, so that every label can still be learned.

    Raises:
        DataError: no choice leaves photos of every label to train on.
    """
    if settings.cross_validate and len(np.unique(question.grouping)) < 3:
        raise DataError(
            f"the photos form two groups ({question.name}); grouped folds need three: to learn from, to check and to "
            "hold out. Leave --folds out, or add photos of other days or stations."
        )
    for fold in _folds(photos, question, question.learn, settings):
        train = np.setdiff1d(question.learn, fold)
        if len(np.unique(photos.labels[train])) == len(photos.names):
            return Parts(train, fold, question.test)
    labels = [photos.names[i] for i in photos.labels]
    rare = split.thin_labels(labels, question.grouping, 3) or split.thin_labels(labels, question.grouping, FOLDS)
    raise DataError(
        f"{', '.join(rare or photos.names)}: too few independent photos to train and to check ({question.name}). "
        "Give each label photos of at least 3 bursts or days, or leave the label out."
    )


def _folds(photos: Photos, question: Question, rows: split.Indices, settings: Settings) -> list[split.Indices]:
    """Five folds of some photos, or as many as there are groups, that cut no group of the question."""
    asked = replace(question, learn=rows, grouping=_grouping(photos, question, rows))
    return questions.folds(asked, photos.labels, FOLDS, settings.seed)


def _grouping(photos: Photos, question: Question, rows: split.Indices) -> split.Indices:
    """The question's groups. Outside what it learns from, stations share bursts and near-duplicates, and photos of no
    station have no other group: folds of all photos must not cut these either."""
    if question.name != questions.NEW_STATION or np.isin(rows, question.learn).all():
        return question.grouping
    joined = split.join(question.grouping, photos.groups)
    return joined if len(np.unique(joined)) >= questions.MIN_LEARN_STATIONS else photos.groups


def needs_tuner(settings: Settings) -> bool:
    """Whether anything is trained step by step; a probe alone needs no network once its features are known."""
    return settings.learn != HEAD_ONLY or not settings.linear_probe


def from_scratch(settings: Settings) -> bool:
    """Whether all starts from random numbers, so that a frozen start would say nothing."""
    return settings.weights == RANDOM and settings.learn == ALL


def fit(
    photos: Photos,
    question: Question,
    parts: Parts,
    settings: Settings,
    tuner: Tuner | None,
    steps: Steps,
    name: str = "measured",
) -> Fitted:
    """Learn on the frozen backbone, fine-tune from there, and keep the better one.

    Where the settings ask for a contest, a fine-tuned model is kept only if it :func:`beats` its start on the
    validation part. A fine-tuning that diverges leaves the start.

    Args:
        photos: all of them.
        question: whose groups no fold cuts.
        parts: who learns from which.
        settings: what to do.
        tuner: trains step by step; None if :func:`needs_tuner` says so.
        steps: shows progress.
        name: of this fit, and of the folder of its checkpoints; another for every division.

    Raises:
        ModelError: training diverged, and there is nothing to fall back on.
    """
    fitted = _fit(photos, question, parts, settings, tuner, steps, name)
    if fitted.kept != PROBE:
        return fitted
    assert fitted.choice is not None
    rows = np.arange(len(photos.labels))
    with steps.step("probe in folds of all photos"), _one_thread():
        folds = _folds(photos, question, rows, settings)
        logits = probe.out_of_fold(
            photos.features,
            photos.labels,
            len(photos.names),
            folds,
            fitted.choice.strength,
            balanced=_balanced(settings),
        )
    return replace(fitted, unseen=rows, unseen_logits=logits)


def _fit(
    photos: Photos,
    question: Question,
    parts: Parts,
    settings: Settings,
    tuner: Tuner | None,
    steps: Steps,
    name: str,
) -> Fitted:
    frozen = None if from_scratch(settings) else _frozen(photos, question, parts, settings, tuner, steps, name)
    if frozen is not None:
        steps.say(
            f"  {frozen.kept}: {frozen.validation[frozen.kept]:.1%} of {len(parts.validation)} validation photos right"
        )
    if tuner is None or not tuner.learns_backbone:
        if frozen is None:
            raise ModelError("nothing learns: all layers are frozen.", code="nothing learns")
        return frozen
    try:
        tuned = _fine_tune(photos, question.grouping, parts, settings, tuner, frozen, name)
    except ModelError as error:
        if frozen is None:
            raise
        steps.say(f"  {error} The {frozen.kept} is kept.")
        return frozen
    verdict = "it is kept" if tuned.kept == FINE_TUNED else f"not clearly better, the {tuned.kept} is kept"
    steps.say(f"  fine-tuned: {tuned.validation[FINE_TUNED]:.1%} of the same photos right: {verdict}")
    return tuned


def _frozen(
    photos: Photos,
    question: Question,
    parts: Parts,
    settings: Settings,
    tuner: Tuner | None,
    steps: Steps,
    name: str,
) -> Fitted:
    if settings.linear_probe:
        return _probe(photos, question, parts, settings, steps)
    assert tuner is not None, "layers that are not a probe are trained step by step"
    return _new_layers(photos, parts, tuner, name)


def _probe(photos: Photos, question: Question, parts: Parts, settings: Settings, steps: Steps) -> Fitted:
    vectors, labels, classes, known = photos.features, photos.labels, len(photos.names), parts.known
    balanced = _balanced(settings)
    place = np.searchsorted(known, np.arange(len(labels)))
    with steps.step("probe"), _one_thread():
        inner = [place[fold] for fold in _folds(photos, question, known, settings)]
        choice = probe.choose(
            vectors[known], labels[known], classes, inner, question.grouping[known], balanced=balanced
        )
        start = probe.fit(vectors[parts.train], labels[parts.train], classes, choice.strength, balanced=balanced)
        refitted = probe.fit(vectors[known], labels[known], classes, choice.strength, balanced=balanced)
    logits = refitted.logits(vectors)
    rival = choice.logits[place[parts.validation]]
    return Fitted(
        kept=PROBE,
        learned=Learned(refitted),
        logits=logits,
        unseen=parts.holdout,
        unseen_logits=logits[parts.holdout],
        validation={PROBE: float((rival.argmax(axis=1) == labels[parts.validation]).mean())},
        choice=choice,
        start=Learned(start),
        rival_logits=rival,
        frozen_logits=logits,
    )


def _new_layers(photos: Photos, parts: Parts, tuner: Tuner, name: str) -> Fitted:
    trained, logits = tuner.train_new(parts.train, parts.validation, name)
    learned = Learned(layers=trained.weights)
    unseen = _unseen(parts)
    return Fitted(
        kept=HEAD,
        learned=learned,
        logits=logits,
        unseen=unseen,
        unseen_logits=logits[unseen],
        validation={HEAD: accuracy(logits, photos.labels, parts.validation)},
        start=learned,
        rival_logits=logits[parts.validation],
        frozen_logits=logits,
        start_history=trained.history,
        start_epochs=trained.best,
    )


def _fine_tune(
    photos: Photos,
    groups: split.Indices,
    parts: Parts,
    settings: Settings,
    tuner: Tuner,
    frozen: Fitted | None,
    name: str,
) -> Fitted:
    start = None if frozen is None else frozen.start
    trained, logits = tuner.fine_tune(_beginning(start), parts.train, parts.validation, name)
    rows, truth = parts.validation, photos.labels[parts.validation]
    tuned = _tuned(parts, trained, logits, accuracy(logits, photos.labels, rows))
    if frozen is None or frozen.rival_logits is None:
        return tuned
    validation = {**frozen.validation, **tuned.validation}
    if settings.contest and not beats(logits[rows], frozen.rival_logits, truth, groups[rows]):
        return replace(frozen, validation=validation, tuned_logits=logits, history=trained.history, epochs=trained.best)
    return replace(
        tuned,
        validation=validation,
        **{name: getattr(frozen, name) for name in _OF_THE_START},
    )


_OF_THE_START = ("choice", "start", "rival_logits", "frozen_logits", "start_history", "start_epochs")


def _tuned(parts: Parts, trained: Trained, logits: Floats, right: float) -> Fitted:
    unseen = _unseen(parts)
    return Fitted(
        kept=FINE_TUNED,
        learned=Learned(layers=trained.weights),
        logits=logits,
        unseen=unseen,
        unseen_logits=logits[unseen],
        validation={FINE_TUNED: right},
        tuned_logits=logits,
        history=trained.history,
        epochs=trained.best,
    )


def _beginning(start: Learned | None) -> Head | LayerWeights | None:
    if start is None:
        return None
    return start.layers if start.head is None else start.head


def _unseen(parts: Parts) -> split.Indices:
    return np.sort(np.concatenate([parts.validation, parts.holdout]))


def _balanced(settings: Settings) -> bool:
    return settings.balance != "none"


def _one_thread() -> Any:
    """The problems are so small that BLAS's threads only wait for each other; the probe has threads of its own."""
    return threadpool_limits(1, user_api="blas")


def cross_validate(
    photos: Photos, question: Question, settings: Settings, tuner: Tuner | None, steps: Steps
) -> Crossed:
    """Hold out each grouped fold of all photos in turn; everything, also what to keep, is chosen without it."""
    every = _folds(photos, question, np.arange(len(photos.labels)), settings)
    folds, answers = [], []
    for i, fold in enumerate(every):
        steps.say(f"  fold {i + 1} of {len(every)}")
        validation = every[(i + 1) % len(every)]
        known = np.setdiff1d(np.arange(len(photos.labels)), fold)
        parts = Parts(np.setdiff1d(known, validation), validation, fold)
        fitted = _fit(photos, question, parts, settings, tuner, steps, f"fold-{i + 1}")
        answers.append(_kinds(fitted))
        shares = {kind: accuracy(logits, photos.labels, fold) for kind, logits in answers[-1].items()}
        folds.append({"n": len(fold), "chosen": fitted.kept, **shares})
    logits = _put_together(every, answers)
    total = {kind: accuracy(found, photos.labels, np.arange(len(found))) for kind, found in logits.items()}
    n = len(photos.labels)
    steps.say("  grouped folds: " + ", ".join(f"{kind} {share:.1%}" for kind, share in total.items()) + f" of {n}")
    return Crossed(n, total, folds, logits)


def _kinds(fitted: Fitted) -> dict[str, Floats]:
    """Kind -> logits of all photos."""
    found: dict[str, Floats] = {"kept": fitted.logits}
    if fitted.frozen_logits is not None:
        found[PROBE if fitted.choice is not None else HEAD] = fitted.frozen_logits
    if fitted.tuned_logits is not None:
        found[FINE_TUNED] = fitted.tuned_logits
    return found


def _put_together(every: Sequence[split.Indices], answers: Sequence[dict[str, Floats]]) -> dict[str, Floats]:
    """Each photo's logits from the fold that held it out, of the kinds that all folds have."""
    kinds = [kind for kind in answers[0] if all(kind in each for each in answers)]
    found = {kind: np.empty_like(answers[0][kind]) for kind in kinds}
    for fold, each in zip(every, answers, strict=True):
        for kind in kinds:
            found[kind][fold] = each[kind][fold]
    return found


def with_folds(fitted: Fitted, crossed: Crossed) -> Fitted:
    """The same with all photos as unseen ones, where grouped folds have the kept kind."""
    if fitted.kept not in crossed.logits:
        return fitted
    return replace(fitted, unseen=np.arange(crossed.n), unseen_logits=crossed.logits[fitted.kept])


def refit(
    photos: Photos, fitted: Fitted, settings: Settings, tuner: Tuner | None, steps: Steps, name: str = "shipped"
) -> tuple[Learned, Floats]:
    """Learn again what was kept, from all photos: what is shipped. How well it does is what :func:`fit` measured.

    Nothing is left to stop by, so layers learn for as many epochs as were best before, of the same schedule.

    Returns:
        What was learned, and the logits of all photos, which it has all seen.
    """
    everything, nobody = np.arange(len(photos.labels)), np.array([], dtype=np.intp)
    learned, logits = Learned(), fitted.logits
    if fitted.choice is not None:
        with steps.step("probe on all photos"), _one_thread():
            head = probe.fit(
                photos.features, photos.labels, len(photos.names), fitted.choice.strength, balanced=_balanced(settings)
            )
        learned, logits = Learned(head), head.logits(photos.features)
    elif fitted.start_epochs:
        assert tuner is not None, "layers were trained step by step"
        trained, logits = tuner.train_new(everything, nobody, name, fitted.start_epochs)
        learned = Learned(layers=trained.weights)
    if fitted.kept != FINE_TUNED:
        return learned, logits
    assert tuner is not None, "layers were trained step by step"
    start = None if fitted.start is None else learned
    trained, logits = tuner.fine_tune(_beginning(start), everything, nobody, name, fitted.epochs)
    return Learned(layers=trained.weights), logits


def final_model(network: keras.Model, settings: Settings, classes: int, learned: Learned) -> keras.Model:
    """The classifier to save, in float32 and with weights of its own: uint8 pixels (n, h, w, 3) to logits (n, C).

    Args:
        network: the backbone as it was before training. It stays as it is.
        settings: what it was trained with.
        classes: C.
        learned: of :class:`Fitted` or :func:`refit`.
    """
    from trainer import model as networks

    model = networks.working_copy(networks.classifier(network, settings, classes))
    networks.put_weights(model, learned.layers)
    if learned.head is not None:
        networks.put_weights(model, {networks.LOGITS: [learned.head.kernel, learned.head.bias]})
    return model


def beats(new: Floats, old: Floats, truth: npt.NDArray[np.intp], groups: split.Indices) -> bool:
    """Whether one model is clearly better than another on photos that neither learned from.

    It must be right as often, and its log loss smaller by more than 1.5 standard errors of that difference; else the
    simpler model is kept, in the manner of the one-standard-error rule (Breiman et al. 1984). The loss says more than
    the number of right answers, in which two models often differ by a photo or two. Each model is given the temperature
    that suits it, as it will be in use, and photos of one group count as one.

    Args:
        new, old: logits, float32 (n, C).
        truth: n label numbers.
        groups: n group numbers.
    """
    if (new.argmax(axis=1) == truth).sum() < (old.argmax(axis=1) == truth).sum():
        return False
    gain = _tempered_losses(old, truth) - _tempered_losses(new, truth)
    _, group = np.unique(groups, return_inverse=True)
    sums = np.bincount(group, gain)
    return float(gain.sum()) > LEAD * math.sqrt(float((sums**2).sum()))


def _tempered_losses(logits: Floats, truth: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Of each photo, at the best temperature."""
    chances = probabilities(logits, temperature(logits, truth))
    return np.asarray(-np.log(chances[np.arange(len(truth)), truth] + 1e-6))


def accuracy(logits: Floats, labels: npt.NDArray[np.intp], rows: split.Indices) -> float:
    """Share of some rows whose largest logit is the label's."""
    return float((logits[rows].argmax(axis=1) == labels[rows]).mean())
