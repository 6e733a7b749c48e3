"""Fits a model on a division of the photos: probe, fine-tuning, and which of the two is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from edge.errors import DataError, ModelError
from trainer import probe
from trainer.backbones import backbone
from trainer.dataset import split
from trainer.photos import FOLDS, Photos
from trainer.probe import Choice, Floats, Head
from trainer.progress import Steps
from trainer.settings import Settings

if TYPE_CHECKING:
    import keras

    from trainer.fine_tune import Epoch

PROBE, FINE_TUNED = "probe", "fine-tuned"


@dataclass(frozen=True)
class Parts:
    """Who learns from which: indices into the photos."""

    train: split.Indices
    validation: split.Indices
    holdout: split.Indices

    @property
    def known(self) -> split.Indices:
        """Everything but the hold-out."""
        return np.sort(np.concatenate([self.train, self.validation]))


@dataclass(frozen=True)
class Fitted:
    """What came out of one division of the photos.

    Attributes:
        kept: ``probe`` or ``fine-tuned``.
        choice: of the probe's regularisation, by grouped folds of all photos but the hold-out.
        start: the probe fitted on the training part alone, where fine-tuning starts.
        head: the last layer that is kept: the probe refitted on training and validation part, or the fine-tuned one.
        logits: float32 (n, C), the kept model's, of all photos.
        probe_logits: the refitted probe's, kept or not.
        tuned_logits: the fine-tuned model's, kept or not; None without fine-tuning.
        unseen, unseen_logits: photos that the kept model, or its like, did not learn from; they set the temperature.
        validation: share of the validation part that ``probe`` and ``fine-tuned`` get right.
        history: of fine-tuning.
        tuned_weights: of the last blocks, if fine-tuning is kept.
    """

    kept: str
    choice: Choice
    start: Head
    head: Head
    logits: Floats
    probe_logits: Floats
    unseen: split.Indices
    unseen_logits: Floats
    validation: dict[str, float]
    tuned_logits: Floats | None = None
    history: list[Epoch] = field(default_factory=list)
    tuned_weights: list[npt.NDArray[Any]] | None = None


def divide(photos: Photos) -> Parts:
    """Choose the folds that hold out and validate, so that every label can still be learned.

    Raises:
        DataError: no choice leaves photos of every label to train on.
    """
    for first in range(FOLDS):
        for shift in range(1, FOLDS):
            parts = _parts(photos.folds, first, (first + shift) % FOLDS)
            if len(np.unique(photos.labels[parts.train])) == len(photos.names):
                return parts
    labels = [photos.names[i] for i in photos.labels]
    rare = split.thin_labels(labels, photos.groups, 3) or split.thin_labels(labels, photos.groups, FOLDS)
    raise DataError(
        f"{', '.join(rare or photos.names)}: too few independent photos to train and to check. "
        "Give each label photos of at least 3 bursts or days, or leave the label out."
    )


class Tuner:
    """Fine-tuning, prepared once: the frozen blocks' activations serve every division of the photos."""

    def __init__(self, network: keras.Model, photos: Photos, settings: Settings, scratch: Path, steps: Steps) -> None:
        """Compute the activations.

        Args:
            network: the backbone; its last blocks will be trained in place.
            photos: all of them.
            settings: depth, views, rate.
            scratch: a folder for the activations.
            steps: shows progress.
        """
        from trainer import fine_tune, model

        cut = model.cut(network, backbone(settings.backbone).frozen_until)
        self.settings = fine_tune.Settings(settings.epochs, settings.rate, settings.views)
        with steps.step("frozen blocks on random views", len(photos.decoded)) as count:
            self.inputs = fine_tune.activations(
                cut.trunk, photos.stack, settings.views, settings.seed, scratch / "activations.npy", count
            )
        self.tail = fine_tune.Tail(cut)


def fit(photos: Photos, parts: Parts, settings: Settings, tuner: Tuner | None, steps: Steps) -> Fitted:
    """Fit the probe, fine-tune from it if there is a tuner, and keep the fine-tuned model only if it :func:`beats` the
    probe on the validation part. A fine-tuning that diverges leaves the probe."""
    fitted = _probe(photos, parts, settings, steps)
    steps.say(f"  probe: {fitted.validation[PROBE]:.1%} of {len(parts.validation)} validation photos right")
    if tuner is None:
        return fitted
    try:
        tuned = _fine_tune(photos, parts, settings, tuner, fitted, steps)
    except ModelError as error:
        steps.say(f"  {error} The probe is kept.")
        return fitted
    verdict = "it is kept" if tuned.kept == FINE_TUNED else "not clearly better, the probe is kept"
    steps.say(f"  fine-tuned: {tuned.validation[FINE_TUNED]:.1%} of the same photos right: {verdict}")
    return tuned


def cross_validate(photos: Photos, settings: Settings, tuner: Tuner | None, steps: Steps) -> dict[str, Any]:
    """Hold out each fold in turn; everything, also what to keep, is chosen without it.

    Returns:
        ``n``; the shares right of ``kept``, ``probe`` and ``fine-tuned`` models; and ``folds``, a list of the same.
    """
    folds: list[dict[str, Any]] = []
    for i in range(FOLDS):
        steps.say(f"  fold {i + 1} of {FOLDS}")
        parts = _parts(photos.folds, i, (i + 1) % FOLDS)
        fitted = fit(photos, parts, settings, tuner, steps)
        folds.append({"n": len(parts.holdout), "chosen": fitted.kept, **_shares(photos, parts, fitted)})
    n = len(photos.labels)
    names = [name for name in ("kept", PROBE, FINE_TUNED) if all(name in fold for fold in folds)]
    total = {name: sum(round(fold[name] * fold["n"]) for fold in folds) / n for name in names}
    steps.say("  grouped folds: " + ", ".join(f"{name} {share:.1%}" for name, share in total.items()) + f" of {n}")
    return {"n": n, **total, "folds": folds}


def beats(new: npt.NDArray[np.bool_], old: npt.NDArray[np.bool_]) -> bool:
    """Whether one model is clearly better than another on the same photos.

    Its lead must exceed the standard error that the lead would have by chance: the square root of the number of photos
    on which they differ. Else the simpler model is kept, as in the one-standard-error rule (Breiman et al. 1984).

    Args:
        new, old: for each photo, whether the model is right.
    """
    better, worse = int((new & ~old).sum()), int((old & ~new).sum())
    return better - worse > math.sqrt(better + worse)


def accuracy(logits: Floats, labels: npt.NDArray[np.intp], rows: split.Indices) -> float:
    """Share of some rows whose largest logit is the label's."""
    return float((logits[rows].argmax(axis=1) == labels[rows]).mean())


def _parts(folds: Sequence[split.Indices], holdout: int, validation: int) -> Parts:
    rest = [fold for i, fold in enumerate(folds) if i not in (holdout, validation)]
    return Parts(np.sort(np.concatenate(rest)), folds[validation], folds[holdout])


def _probe(photos: Photos, parts: Parts, settings: Settings, steps: Steps) -> Fitted:
    vectors, labels, classes, known = photos.features, photos.labels, len(photos.names), parts.known
    with steps.step("probe"), threadpool_limits(1, user_api="blas"):  # so small that threads only wait for each other
        inner = split.folds(labels[known], photos.groups[known], FOLDS, settings.seed)
        choice = probe.choose(vectors[known], labels[known], classes, inner)
        start = probe.fit(vectors[parts.train], labels[parts.train], classes, choice.strength)
        refitted = probe.fit(vectors[known], labels[known], classes, choice.strength)
    logits = refitted.logits(vectors)
    return Fitted(
        kept=PROBE,
        choice=choice,
        start=start,
        head=refitted,
        logits=logits,
        probe_logits=logits,
        unseen=known,
        unseen_logits=choice.logits,
        validation={PROBE: accuracy(start.logits(vectors), labels, parts.validation)},
    )


def _fine_tune(photos: Photos, parts: Parts, settings: Settings, tuner: Tuner, fitted: Fitted, steps: Steps) -> Fitted:
    from trainer.fine_tune import head_of

    with steps.step("fine-tuning the last blocks", settings.epochs) as count:
        model, history = tuner.tail.train(
            fitted.start, tuner.inputs, photos.labels, parts.train, parts.validation, tuner.settings, settings.seed,
            lambda epoch: count(1),
        )  # fmt: skip
        logits = tuner.tail.logits(model, tuner.inputs, np.arange(len(photos.labels)))
    rows, truth = parts.validation, photos.labels[parts.validation]
    right = logits[rows].argmax(axis=1) == truth
    right_probe = fitted.start.logits(photos.features[rows]).argmax(axis=1) == truth
    validation = {**fitted.validation, FINE_TUNED: float(right.mean())}
    fitted = replace(fitted, history=history, tuned_logits=logits, validation=validation)
    if not beats(right, right_probe):
        return fitted
    return replace(
        fitted,
        kept=FINE_TUNED,
        head=head_of(model),
        logits=logits,
        unseen=parts.validation,
        unseen_logits=logits[parts.validation],
        tuned_weights=tuner.tail.weights(),
    )


def _shares(photos: Photos, parts: Parts, fitted: Fitted) -> dict[str, float]:
    shares = {
        "kept": accuracy(fitted.logits, photos.labels, parts.holdout),
        PROBE: accuracy(fitted.probe_logits, photos.labels, parts.holdout),
    }
    if fitted.tuned_logits is not None:
        shares[FINE_TUNED] = accuracy(fitted.tuned_logits, photos.labels, parts.holdout)
    return shares
