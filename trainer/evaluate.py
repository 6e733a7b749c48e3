"""Figures of a model on labelled photos. Pure: logits and labels in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from edge.model.decide import EMPTY, PERSON, Decision, decide, probabilities

ECE_BINS = 15
TEMPERATURES = (0.25, 10.0)

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.intp]


@dataclass(frozen=True)
class PerClass:
    """Precision, recall and F1, 0 to 1, and the number of photos of one label."""

    precision: float
    recall: float
    f1: float
    n: int


@dataclass(frozen=True)
class Figures:
    """What a model is worth on some photos; shares are 0 to 1.

    Attributes:
        n: photos that were answered.
        accuracy: most likely label right, before thresholds.
        macro_f1: mean F1 of the labels that occur.
        per_class: label -> its figures.
        ece: expected calibration error (Naeini et al. 2015) of the most likely label, 15 bins.
        coverage: photos that got a label rather than ``unknown``.
        accuracy_decided: right among those; None if there are none.
        animals_called_empty: photos of animals whose decision was ``empty``.
        confusion: rows are the true labels, columns the most likely ones.
    """

    n: int
    accuracy: float
    macro_f1: float
    per_class: dict[str, PerClass]
    ece: float
    coverage: float
    accuracy_decided: float | None
    animals_called_empty: int
    confusion: list[list[int]]


def figures(
    logits: Logits, truth: Labels, labels: Sequence[str], *, temperature: float, thresholds: Sequence[float]
) -> Figures:
    """Measure.

    Args:
        logits: float32 (n, C), n at least 1.
        truth: n label numbers.
        labels: C names.
        temperature, thresholds: as for :func:`edge.model.decide.decide`.
    """
    predicted = logits.argmax(axis=1)
    decisions = [decide(row, labels, temperature=temperature, thresholds=thresholds) for row in logits]
    decided = np.array([decision.kind != "unknown" for decision in decisions])
    right = predicted == truth
    per_class = _per_class(truth, predicted, labels)
    return Figures(
        n=len(truth),
        accuracy=float(right.mean()),
        macro_f1=float(np.mean([each.f1 for each in per_class.values() if each.n])),
        per_class=per_class,
        ece=calibration_error(probabilities(logits, temperature), truth),
        coverage=float(decided.mean()),
        accuracy_decided=float(right[decided].mean()) if decided.any() else None,
        animals_called_empty=_missed(decisions, [labels[i] for i in truth]),
        confusion=confusion_matrix(truth, predicted, labels=range(len(labels))).tolist(),
    )


def calibration_error(chances: npt.NDArray[np.float64], truth: Labels) -> float:
    """Mean distance between confidence and accuracy over bins of confidence, weighted by photos."""
    confidence, right = chances.max(axis=1), chances.argmax(axis=1) == truth
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = [abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(sum(gaps))


def temperature(logits: Logits, truth: Labels) -> float:
    """The temperature with the smallest log loss on photos that the model did not learn from (Guo et al. 2017).

    The targets are Platt's (1999): of n photos and C labels the true one counts (n + 1) / (n + C), not 1. So a model
    that gets all of a few photos right does not become certain of everything.
    """
    n, classes = logits.shape
    targets = (np.eye(classes)[truth] * n + 1) / (n + classes)

    def loss(log_temperature: float) -> float:
        chances = probabilities(logits, float(np.exp(log_temperature)))
        return float(-(targets * np.log(chances + 1e-12)).sum(axis=1).mean())

    low, high = (float(np.log(bound)) for bound in TEMPERATURES)
    return round(float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x)), 4)


def _per_class(truth: Labels, predicted: Labels, labels: Sequence[str]) -> dict[str, PerClass]:
    columns = precision_recall_fscore_support(truth, predicted, labels=range(len(labels)), zero_division=0.0)
    return {
        label: PerClass(float(precision), float(recall), float(f1), int(n))
        for label, precision, recall, f1, n in zip(labels, *columns, strict=True)
    }


def _missed(decisions: Sequence[Decision], truth: Sequence[str]) -> int:
    return sum(
        decision.kind == "empty" and label not in (EMPTY, PERSON)
        for decision, label in zip(decisions, truth, strict=True)
    )
