"""The probe: a linear head on frozen features. Cheap, hard to beat with few photos, and the start of fine-tuning."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_sample_weight

from edge.model.decide import probabilities
from trainer.dataset.split import Indices

STRENGTHS = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
"""Inverse L2 strengths tried on standardised features, the strongest regularisation first."""

LEAST_DEVIATION = 0.1
"""Of the mean deviation. A feature that hardly varies among the photos would get a weight thousands of times larger
than the others once standardisation is folded in, and int8, which has one scale for the layer, would lose the rest."""

ENOUGH = 5000
"""So many photos choose the regularisation."""

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


def fit(
    features: Floats, labels: npt.NDArray[np.intp], classes: int, strength: float, *, balanced: bool = False
) -> Head:
    """Fit a multinomial logistic regression on standardised features.

    Args:
        features: float32 (n, F).
        labels: n class numbers, 0 to classes - 1; a class without photos gets the lowest logit.
        classes: C.
        strength: inverse of the L2 penalty.
        balanced: rare classes count as much as frequent ones.
    """
    return _path(features, labels, classes, [strength], balanced)[0]


def _path(
    features: Floats, labels: npt.NDArray[np.intp], classes: int, strengths: Sequence[float], balanced: bool
) -> list[Head]:
    """One head for each strength, each fit starting where the one before ended: they are not far apart."""
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation = np.maximum(deviation, LEAST_DEVIATION * deviation.mean() + 1e-6)
    present = np.unique(labels)
    if len(present) == 1:  # one fold may hold all photos of the other label
        return [_one_answer(features.shape[1], classes, int(present[0]))] * len(strengths)
    standard = (features - mean) / deviation
    model = LogisticRegression(max_iter=1000, warm_start=True, class_weight="balanced" if balanced else None)
    heads = []
    for strength in strengths:
        model.set_params(C=strength)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # weak regularisation is tried, and then not chosen
            model.fit(standard, labels)
        heads.append(_folded(model, mean, deviation, classes))
    return heads


def _folded(model: LogisticRegression, mean: Floats, deviation: Floats, classes: int) -> Head:
    """The fitted model as one layer on raw features."""
    weights, offsets = model.coef_, model.intercept_  # (C, F), or (1, F) for two classes
    if len(model.classes_) == 2:
        weights, offsets = np.concatenate([-weights, weights]) / 2, np.concatenate([-offsets, offsets]) / 2
    kernel = np.zeros((len(mean), classes))
    bias = np.full(classes, offsets.min() - 10.0)
    kernel[:, model.classes_] = (weights / deviation).T
    bias[model.classes_] = offsets - (weights / deviation) @ mean
    return Head(kernel.astype(np.float32), bias.astype(np.float32))


def _one_answer(width: int, classes: int, label: int) -> Head:
    """What is learned from photos of one class: to say that one."""
    bias = np.full(classes, -10.0, np.float32)
    bias[label] = 0.0
    return Head(np.zeros((width, classes), np.float32), bias)


def choose(
    features: Floats,
    labels: npt.NDArray[np.intp],
    classes: int,
    folds: Sequence[Indices],
    groups: Indices | None = None,
    *,
    balanced: bool = False,
) -> Choice:
    """Choose the regularisation on photos that the head did not learn from.

    Each fold is left out once; the strength with the smallest log loss over all photos is taken. Of more than
    ``ENOUGH`` photos some whole groups decide for all, since the choice hardly changes any more and the time does;
    where these would all be in one fold, some photos of each fold.

    Args:
        features, labels, classes, balanced: as for :func:`fit`.
        folds: arrays of indices that hold each photo once and cut no group.
        groups: n group numbers; each photo its own if None.
    """
    some = _some(np.arange(len(labels)) if groups is None else groups)
    if sum(bool(some[fold].any()) for fold in folds) < 2:  # a station may have more photos than ENOUGH by itself
        some = _some_of_each(folds, len(labels))
    kept = [fold[some[fold]] for fold in folds]
    found = _without_each(features, labels, classes, [fold for fold in kept if len(fold)], some, STRENGTHS, balanced)
    rows = np.flatnonzero(some)
    accuracy = {c: float((found[i, rows].argmax(axis=1) == labels[rows]).mean()) for i, c in enumerate(STRENGTHS)}
    losses = [_loss(found[i, rows], labels[rows], classes, balanced) for i in range(len(STRENGTHS))]
    best = int(np.argmin(losses))
    logits = found[best]
    if len(rows) < len(labels):
        logits = out_of_fold(features, labels, classes, folds, STRENGTHS[best], balanced=balanced)
    return Choice(STRENGTHS[best], accuracy, logits)


def out_of_fold(
    features: Floats,
    labels: npt.NDArray[np.intp],
    classes: int,
    folds: Sequence[Indices],
    strength: float,
    *,
    balanced: bool = False,
) -> Floats:
    """Each photo's logits, float32 (n, C), from a head fitted without its fold."""
    every = np.ones(len(labels), dtype=bool)
    return np.asarray(_without_each(features, labels, classes, folds, every, [strength], balanced)[0])


def _without_each(
    features: Floats,
    labels: npt.NDArray[np.intp],
    classes: int,
    folds: Sequence[Indices],
    used: npt.NDArray[np.bool_],
    strengths: Sequence[float],
    balanced: bool,
) -> Floats:
    """float32 (strengths, n, C): of the photos of each fold, from heads fitted on the other photos that are used."""
    logits: Floats = np.zeros((len(strengths), len(labels), classes), np.float32)

    def leave_out(fold: Indices) -> None:
        rest = used.copy()
        rest[fold] = False
        for i, head in enumerate(_path(features[rest], labels[rest], classes, strengths, balanced)):
            logits[i, fold] = head.logits(features[fold])

    threads = 1 if used.sum() > ENOUGH else min(len(folds), os.cpu_count() or 1)  # each holds a copy of its photos
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(leave_out, folds))
    return logits


def _some(groups: Indices) -> npt.NDArray[np.bool_]:
    """All photos, or those of as many groups as together have ``ENOUGH``, the same ones each time."""
    if len(groups) <= ENOUGH:
        return np.ones(len(groups), dtype=bool)
    numbers, sizes = np.unique(groups, return_counts=True)
    order = np.random.default_rng(0).permutation(len(numbers))
    taken = order[: 1 + int(np.searchsorted(np.cumsum(sizes[order]), ENOUGH))]
    return np.asarray(np.isin(groups, numbers[taken]))


def _some_of_each(folds: Sequence[Indices], n: int) -> npt.NDArray[np.bool_]:
    """Photos of every fold, together about ``ENOUGH`` of n, the same ones each time."""
    some, random = np.zeros(n, dtype=bool), np.random.default_rng(0)
    for fold in folds:
        some[random.permutation(fold)[: max(1, ENOUGH // len(folds))]] = True
    return some


def _loss(logits: Floats, labels: npt.NDArray[np.intp], classes: int, balanced: bool) -> float:
    weights = compute_sample_weight("balanced", labels) if balanced else None
    return float(log_loss(labels, probabilities(logits), labels=range(classes), sample_weight=weights))
