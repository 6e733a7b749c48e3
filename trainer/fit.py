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

from edge.errors import ModelError
from edge.model.decide import probabilities
from trainer import probe
from trainer.dataset import split
from trainer.dataset.questions import Question
from trainer.division import Parts, folds_of
from trainer.evaluate import temperature
from trainer.history import Epoch
from trainer.photos import Photos
from trainer.probe import Choice, Floats, Head
from trainer.progress import Steps
from trainer.settings import HEAD_ONLY, Settings

if TYPE_CHECKING:
    import keras

    from trainer.fine_tune import Trained
    from trainer.model import LayerWeights
    from trainer.tuner import Tuner

PROBE, HEAD, FINE_TUNED = "probe", "head", "fine-tuned"
"""What is kept: a linear layer on frozen features, new layers on a frozen backbone, or a backbone that learned too."""
LEAD = 1.5
"""Standard errors by which fine-tuning must lead. On folds of camera-trap photos where it did harm it led by up to 1.5,
on those of weather photos, where it helped, by 1.6 and more."""


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


@dataclass(frozen=True)
class Fitting:
    """Fits models that answer one question, on one division of the photos after another.

    Attributes:
        photos: all of them.
        question: whose groups no fold cuts.
        settings: what to do.
        tuner: trains step by step; None if :attr:`Settings.needs_tuner` says so.
        steps: shows progress.
    """

    photos: Photos
    question: Question
    settings: Settings
    tuner: Tuner | None
    steps: Steps

    def fit(self, parts: Parts, name: str = "measured") -> Fitted:
        """Learn on the frozen backbone, fine-tune from there, and keep the better one.

        Where the settings ask for a contest, a fine-tuned model is kept only if it :func:`beats` its start on the
        validation part. A fine-tuning that diverges leaves the start.

        Args:
            parts: who learns from which.
            name: of this fit, and of the folder of its checkpoints; another for every division.

        Raises:
            ModelError: training diverged, and there is nothing to fall back on.
        """
        fitted = self._better(parts, name)
        if fitted.kept != PROBE:
            return fitted
        assert fitted.choice is not None
        photos, rows = self.photos, self._everything
        with self.steps.step("probe in folds of all photos"), _one_thread():
            folds = folds_of(photos, self.question, rows, self.settings)
            strength, classes = fitted.choice.strength, len(photos.names)
            logits = probe.out_of_fold(
                photos.features, photos.labels, classes, folds, strength, balanced=self._balanced
            )
        return replace(fitted, unseen=rows, unseen_logits=logits)

    def cross_validate(self) -> Crossed:
        """Hold out each grouped fold of all photos in turn; everything, also what to keep, is chosen without it."""
        labels, everything = self.photos.labels, self._everything
        every = folds_of(self.photos, self.question, everything, self.settings)
        folds, answers = [], []
        for i, fold in enumerate(every):
            self.steps.say(f"  fold {i + 1} of {len(every)}")
            validation = every[(i + 1) % len(every)]
            train = np.setdiff1d(everything, np.concatenate([fold, validation]))
            fitted = self._better(Parts(train, validation, fold), f"fold-{i + 1}")
            answers.append(_kinds(fitted))
            shares = {kind: accuracy(logits, labels, fold) for kind, logits in answers[-1].items()}
            folds.append({"n": len(fold), "chosen": fitted.kept, **shares})
        logits = _put_together(every, answers)
        total = {kind: accuracy(found, labels, everything) for kind, found in logits.items()}
        n, said = len(labels), ", ".join(f"{kind} {share:.1%}" for kind, share in total.items())
        self.steps.say(f"  grouped folds: {said} of {n}")
        return Crossed(n, total, folds, logits)

    def refit(self, fitted: Fitted, name: str = "shipped") -> tuple[Learned, Floats]:
        """Learn again what was kept, from all photos: what is shipped. How well it does is what :meth:`fit` measured.

        Nothing is left to stop by, so layers learn for as many epochs as were best before, of the same schedule.

        Returns:
            What was learned, and the logits of all photos, which it has all seen.
        """
        everything, nobody = self._everything, np.array([], dtype=np.intp)
        learned, logits = Learned(), fitted.logits
        if fitted.choice is not None:
            with self.steps.step("probe on all photos"), _one_thread():
                head = self._head(slice(None), fitted.choice)
            learned, logits = Learned(head), head.logits(self.photos.features)
        elif fitted.start_epochs:
            assert self.tuner is not None, "layers were trained step by step"
            trained, logits = self.tuner.train_new(everything, nobody, name, fitted.start_epochs)
            learned = Learned(layers=trained.weights)
        if fitted.kept != FINE_TUNED:
            return learned, logits
        assert self.tuner is not None, "layers were trained step by step"
        start = None if fitted.start is None else learned
        trained, logits = self.tuner.fine_tune(_beginning(start), everything, nobody, name, fitted.epochs)
        return Learned(layers=trained.weights), logits

    def _better(self, parts: Parts, name: str) -> Fitted:
        """The frozen start or the fine-tuned model."""
        frozen = None if self.settings.from_scratch else self._frozen(parts, name)
        if frozen is not None:
            share, count = frozen.validation[frozen.kept], len(parts.validation)
            self.steps.say(f"  {frozen.kept}: {share:.1%} of {count} validation photos right")
        tuner = self._fine_tuner
        if tuner is None:
            if frozen is None:
                raise ModelError("nothing learns: all layers are frozen.", code="nothing learns")
            return frozen
        try:
            tuned = self._fine_tune(tuner, frozen, parts, name)
        except ModelError as error:
            if frozen is None:
                raise
            self.steps.say(f"  {error} The {frozen.kept} is kept.")
            return frozen
        verdict = "it is kept" if tuned.kept == FINE_TUNED else f"not clearly better, the {tuned.kept} is kept"
        self.steps.say(f"  fine-tuned: {tuned.validation[FINE_TUNED]:.1%} of the same photos right: {verdict}")
        return tuned

    def _frozen(self, parts: Parts, name: str) -> Fitted:
        if self.settings.linear_probe:
            return self._probe(parts)
        assert self.tuner is not None, "layers that are not a probe are trained step by step"
        return self._new_layers(self.tuner, parts, name)

    def _probe(self, parts: Parts) -> Fitted:
        photos, known = self.photos, parts.known
        place = np.searchsorted(known, self._everything)
        with self.steps.step("probe"), _one_thread():
            inner = [place[fold] for fold in folds_of(photos, self.question, known, self.settings)]
            choice = probe.choose(
                photos.features[known], photos.labels[known], len(photos.names), inner, self.question.grouping[known],
                balanced=self._balanced,
            )  # fmt: skip
            start, refitted = self._head(parts.train, choice), self._head(known, choice)
        logits = refitted.logits(photos.features)
        rival = choice.logits[place[parts.validation]]
        return Fitted(
            kept=PROBE,
            learned=Learned(refitted),
            logits=logits,
            unseen=parts.holdout,
            unseen_logits=logits[parts.holdout],
            validation={PROBE: float((rival.argmax(axis=1) == photos.labels[parts.validation]).mean())},
            choice=choice,
            start=Learned(start),
            rival_logits=rival,
            frozen_logits=logits,
        )

    def _new_layers(self, tuner: Tuner, parts: Parts, name: str) -> Fitted:
        trained, logits = tuner.train_new(parts.train, parts.validation, name)
        fitted = self._of_layers(HEAD, trained, logits, parts)
        return replace(
            fitted,
            start=fitted.learned,
            rival_logits=logits[parts.validation],
            frozen_logits=logits,
            start_history=trained.history,
            start_epochs=trained.best,
        )

    def _fine_tune(self, tuner: Tuner, frozen: Fitted | None, parts: Parts, name: str) -> Fitted:
        start = None if frozen is None else frozen.start
        trained, logits = tuner.fine_tune(_beginning(start), parts.train, parts.validation, name)
        tuned = self._of_layers(FINE_TUNED, trained, logits, parts)
        tuned = replace(tuned, tuned_logits=logits, history=trained.history, epochs=trained.best)
        if frozen is None or frozen.rival_logits is None:
            return tuned
        both = replace(
            frozen,
            validation={**frozen.validation, **tuned.validation},
            tuned_logits=logits,
            history=trained.history,
            epochs=trained.best,
        )
        rows = parts.validation
        truth, groups = self.photos.labels[rows], self.question.grouping[rows]
        if self.settings.contest and not beats(logits[rows], frozen.rival_logits, truth, groups):
            return both
        return replace(
            both,
            kept=FINE_TUNED,
            learned=tuned.learned,
            logits=logits,
            unseen=tuned.unseen,
            unseen_logits=tuned.unseen_logits,
        )

    def _of_layers(self, kept: str, trained: Trained, logits: Floats, parts: Parts) -> Fitted:
        """What came out of training step by step, from the training part, stopped by the validation part."""
        unseen = np.sort(np.concatenate([parts.validation, parts.holdout]))
        return Fitted(
            kept=kept,
            learned=Learned(layers=trained.weights),
            logits=logits,
            unseen=unseen,
            unseen_logits=logits[unseen],
            validation={kept: accuracy(logits, self.photos.labels, parts.validation)},
        )

    def _head(self, rows: split.Indices | slice, choice: Choice) -> Head:
        """The probe of some photos."""
        photos = self.photos
        vectors, labels, classes = photos.features[rows], photos.labels[rows], len(photos.names)
        return probe.fit(vectors, labels, classes, choice.strength, balanced=self._balanced)

    @property
    def _everything(self) -> split.Indices:
        return np.arange(len(self.photos.labels))

    @property
    def _balanced(self) -> bool:
        return self.settings.balance != "none"

    @property
    def _fine_tuner(self) -> Tuner | None:
        """Who fine-tunes, if anything is to be: a tuner may know layers that only another question's model learns."""
        if self.settings.learn == HEAD_ONLY or self.tuner is None or not self.tuner.learns_backbone:
            return None
        return self.tuner


def _beginning(start: Learned | None) -> Head | LayerWeights | None:
    """Where fine-tuning starts."""
    if start is None:
        return None
    return start.layers if start.head is None else start.head


def _one_thread() -> Any:
    """The problems are so small that BLAS's threads only wait for each other; the probe has threads of its own."""
    return threadpool_limits(1, user_api="blas")


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


def final_model(network: keras.Model, settings: Settings, classes: int, learned: Learned) -> keras.Model:
    """The classifier to save, in float32 and with weights of its own: uint8 pixels (n, h, w, 3) to logits (n, C).

    Args:
        network: the backbone as it was before training. It stays as it is.
        settings: what it was trained with.
        classes: C.
        learned: of :class:`Fitted` or :meth:`Fitting.refit`.
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
