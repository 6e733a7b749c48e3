"""The probe: a linear head on frozen features. Cheap, hard to beat with few photos, and the start of fine-tuning."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from edge.model.decide import probabilities
from trainer.dataset.split import Indices

STRENGTHS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
"""Inverse L2 strengths tried on standardised features, the strongest regularisation first."""

LEAST_DEVIATION = 0.1
"""Of the mean deviation. A feature that hardly varies among the photos would get a weight thousands of times larger
than the others once standardisation is folded in, and int8, which has one scale for the layer, would lose the rest."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """A linear layer on raw features: float32 ``kernel`` (F, C) and ``bias`` (C,), standardisation folded in."""

    kernel: Floats
    bias: Floats

    def logits(self, features: Floats) -> Floats:
        """float32 (n, C) for features (n, F)."""
        return np.asarray(features @ self.kernel + self.bias, np.float32)


@dataclass(frozen=True)
class Choice:
    """What the regularisation was chosen by.

    Attributes:
        strength: the chosen inverse L2 strength.
        accuracy: strength -> share of photos right when their fold was left out.
        logits: float32 (n, C), each photo's from the head that did not see its fold, at the chosen strength.
    """

    strength: float
    accuracy: dict[float, float]
    logits: Floats


def fit(features: Floats, labels: npt.NDArray[np.intp], classes: int, strength: float) -> Head:
    """Fit a multinomial logistic regression on standardised features.

    Args:
        features: float32 (n, F).
        labels: n class numbers, 0 to classes - 1; a class without photos gets the lowest logit.
        classes: C.
        strength: inverse of the L2 penalty.
    """
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation = np.maximum(deviation, LEAST_DEVIATION * deviation.mean() + 1e-6)
    present = np.unique(labels)
    if len(present) == 1:  # one fold may hold all photos of the other label
        return _one_answer(features.shape[1], classes, int(present[0]))
    model = LogisticRegression(C=strength, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # weak regularisation is tried, and then not chosen
        model.fit((features - mean) / deviation, labels)
    weights, offsets = model.coef_, model.intercept_  # (C, F), or (1, F) for two classes
    if len(model.classes_) == 2:
        weights, offsets = np.concatenate([-weights, weights]) / 2, np.concatenate([-offsets, offsets]) / 2
    kernel = np.zeros((features.shape[1], classes))
    bias = np.full(classes, offsets.min() - 10.0)
    kernel[:, model.classes_] = (weights / deviation).T
    bias[model.classes_] = offsets - (weights / deviation) @ mean
    return Head(kernel.astype(np.float32), bias.astype(np.float32))


def _one_answer(width: int, classes: int, label: int) -> Head:
    """What is learned from photos of one class: to say that one."""
    bias = np.full(classes, -10.0, np.float32)
    bias[label] = 0.0
    return Head(np.zeros((width, classes), np.float32), bias)


def choose(features: Floats, labels: npt.NDArray[np.intp], classes: int, folds: Sequence[Indices]) -> Choice:
    """Choose the regularisation on photos that the head did not learn from.

    Each fold is left out once; the strength with the smallest log loss over all photos is taken.

    Args:
        features, labels, classes: as for :func:`fit`.
        folds: arrays of indices that hold each photo once and cut no group.
    """
    best: tuple[float, float, Floats] | None = None
    accuracy = {}
    for strength in STRENGTHS:
        logits = out_of_fold(features, labels, classes, folds, strength)
        accuracy[strength] = float((logits.argmax(axis=1) == labels).mean())
        loss = float(log_loss(labels, probabilities(logits), labels=range(classes)))
        if best is None or loss < best[0]:
            best = (loss, strength, logits)
    assert best is not None
    return Choice(best[1], accuracy, best[2])


def out_of_fold(
    features: Floats, labels: npt.NDArray[np.intp], classes: int, folds: Sequence[Indices], strength: float
) -> Floats:
    """Each photo's logits, float32 (n, C), from a head fitted without its fold."""
    logits = np.empty((len(labels), classes), np.float32)
    for fold in folds:
        rest = np.setdiff1d(np.arange(len(labels)), fold)
        logits[fold] = fit(features[rest], labels[rest], classes, strength).logits(features[fold])
    return logits
