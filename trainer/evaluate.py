"""Figures of a model on labelled photos. Pure: logits and labels in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from edge.model.decide import EMPTY, PERSON, probabilities
from edge.model.taxonomy import Taxonomy
from trainer.answered import Answered, Labels, Logits, decided, is_right
from trainer.interval import Interval, grouped, wilson
from trainer.thresholds import Emptied, emptied

ECE_BINS = 15
TEMPERATURES = (0.25, 10.0)
CURVE_POINTS = 100
MOST_LISTED = 200
DAY, INFRARED = "day", "infrared"

Bools = npt.NDArray[np.bool_]
Chances = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PerClass:
    """Precision, recall with its 95 % interval, F1, all 0 to 1, and the number of photos of one label."""

    precision: float
    recall: float
    f1: float
    n: int
    recall_interval: Interval


@dataclass(frozen=True)
class Figures:
    """What a model is worth on some photos; shares are 0 to 1.

    Attributes:
        n: photos that were answered.
        accuracy: most likely label right, before thresholds.
        accuracy_interval: its 95 % interval.
        macro_precision, macro_recall, macro_f1: means over the labels that occur.
        per_class: label -> its figures.
        ece: expected calibration error (Naeini et al. 2015) of the most likely label, 15 bins.
        coverage: photos that got a label or, rolled up, a taxon, rather than ``unknown``.
        accuracy_decided: right among those; None if there are none. A taxon is right if the true label lies under it.
        rolled_up, rolled_up_right: photos that got a taxon, and how many of these are right.
        animals_called_empty: photos of animals whose decision was ``empty``.
        confusion: rows are the true labels, columns the most likely ones.
    """

    n: int
    accuracy: float
    accuracy_interval: Interval
    macro_precision: float
    macro_recall: float
    macro_f1: float
    per_class: dict[str, PerClass]
    ece: float
    coverage: float
    accuracy_decided: float | None
    rolled_up: int
    rolled_up_right: int
    animals_called_empty: int
    confusion: list[list[int]]


@dataclass(frozen=True)
class Part:
    """Some of the photos: how many, how many of them are right, and the 95 % interval of that share."""

    name: str
    n: int
    right: int
    accuracy: float
    interval: Interval


@dataclass(frozen=True)
class Point:
    """If only answers of at least this confidence are given: the share of photos answered, and right among them."""

    confidence: float
    coverage: float
    accuracy: float


@dataclass(frozen=True)
class Bin:
    """Photos of similar confidence: their mean confidence, the share right, and its 95 % interval."""

    n: int
    confidence: float
    accuracy: float
    interval: Interval


@dataclass(frozen=True)
class Mistake:
    """A photo whose most likely label is not the person's.

    Attributes:
        index: of the photo among those answered.
        name, truth, answer: the photo, the person's label and the model's.
        confidence, truth_chance: the probabilities of the model's label and of the person's, 0 to 1.
    """

    index: int
    name: str
    truth: str
    answer: str
    confidence: float
    truth_chance: float


@dataclass(frozen=True)
class Evaluation:
    """All that is to be said of a model's answers; numbers and text only, so that ``asdict`` gives JSON.

    Attributes:
        labels: C names, in the order of confusion, thresholds and logits.
        temperature, thresholds, rollup: with which it was measured.
        figures: of all photos.
        ece_raw: calibration error without the temperature.
        by_station, by_light, by_source: the same photos in parts; empty where the data does not say.
        curve: from the most confident answers only to all of them.
        reliability: at most 15 bins, by rising confidence.
        emptied: what calling photos empty costs; None without that label.
        mistakes: the most confident first, at most 200.
        suspicious: mistakes in which the person's label may be the wrong one; see :func:`suspicious`.
    """

    labels: tuple[str, ...]
    temperature: float
    thresholds: tuple[float, ...]
    rollup: float | None
    figures: Figures
    ece_raw: float
    by_station: tuple[Part, ...]
    by_light: tuple[Part, ...]
    by_source: tuple[Part, ...]
    curve: tuple[Point, ...]
    reliability: tuple[Bin, ...]
    emptied: Emptied | None
    mistakes: tuple[Mistake, ...]
    suspicious: tuple[Mistake, ...]


def evaluate(
    answered: Answered,
    *,
    temperature: float,
    thresholds: Sequence[float],
    taxonomy: Taxonomy | None = None,
    rollup: float | None = None,
) -> Evaluation:
    """Measure everything.

    Args:
        answered: at least one photo.
        temperature, thresholds, taxonomy, rollup: as for :func:`edge.model.decide.decide`.
    """
    chances = answered.chances(temperature)
    right = chances.argmax(axis=1) == answered.truth
    lights = [INFRARED if grey else DAY for grey in answered.infrared]
    return Evaluation(
        labels=answered.labels,
        temperature=temperature,
        thresholds=tuple(thresholds),
        rollup=rollup,
        figures=figures(
            answered.logits, answered.truth, answered.labels,
            temperature=temperature, thresholds=thresholds, taxonomy=taxonomy, rollup=rollup, groups=answered.groups,
        ),
        ece_raw=calibration_error(answered.chances(1.0), answered.truth),
        by_station=parts(right, answered.stations, answered.groups),
        by_light=parts(right, lights, answered.groups),
        by_source=parts(right, answered.sources, answered.groups),
        curve=curve(chances, answered.truth),
        reliability=reliability(chances, answered.truth),
        emptied=emptied(answered, temperature, thresholds),
        mistakes=mistakes(answered, chances)[:MOST_LISTED],
        suspicious=suspicious(answered, chances)[:MOST_LISTED],
    )  # fmt: skip


def figures(
    logits: Logits,
    truth: Labels,
    labels: Sequence[str],
    *,
    temperature: float,
    thresholds: Sequence[float],
    taxonomy: Taxonomy | None = None,
    rollup: float | None = None,
    groups: npt.NDArray[np.intp] | None = None,
) -> Figures:
    """Measure.

    Args:
        logits: float32 (n, C), n at least 1.
        truth: n label numbers.
        labels: C names.
        temperature, thresholds, taxonomy, rollup: as for :func:`edge.model.decide.decide`.
        groups: n numbers; photos of one number are alike, which widens the intervals. None if all are independent.
    """
    chances = probabilities(logits, temperature)
    answers = decided(chances, thresholds, taxonomy, rollup)
    right, said, rolled = logits.argmax(axis=1) == truth, answers >= 0, answers >= len(labels)
    good = is_right(answers, truth, len(labels), taxonomy)
    groups = np.arange(len(truth)) if groups is None else groups
    confusion = np.zeros((len(labels), len(labels)), int)
    np.add.at(confusion, (truth, logits.argmax(axis=1)), 1)
    per_class = _per_class(
        confusion, labels, [grouped(right[truth == i], groups[truth == i]) for i in range(len(labels))]
    )
    present = [each for each in per_class.values() if each.n]
    return Figures(
        n=len(truth),
        accuracy=float(right.mean()),
        accuracy_interval=grouped(right, groups),
        macro_precision=float(np.mean([each.precision for each in present])),
        macro_recall=float(np.mean([each.recall for each in present])),
        macro_f1=float(np.mean([each.f1 for each in present])),
        per_class=per_class,
        ece=calibration_error(chances, truth),
        coverage=float(said.mean()),
        accuracy_decided=float(good[said].mean()) if said.any() else None,
        rolled_up=int(rolled.sum()),
        rolled_up_right=int(good[rolled].sum()),
        animals_called_empty=_animals_called_empty(answers, truth, labels),
        confusion=confusion.tolist(),
    )


def temperature(logits: Logits, truth: Labels) -> float:
    """The temperature with the smallest log loss on photos that the model did not learn from (Guo et al. 2017).

    The targets are Platt's (1999) with the prior of Krichevsky and Trofimov (1981): of n photos and C labels the true
    one counts (n + 1/2) / (n + C/2), not 1. So a model that gets all of a few photos right does not become certain of
    everything.
    """
    n, classes = logits.shape
    targets = (np.eye(classes)[truth] * n + 0.5) / (n + 0.5 * classes)

    def loss(log_temperature: float) -> float:
        chances = probabilities(logits, float(np.exp(log_temperature)))
        return float(-(targets * np.log(chances + 1e-12)).sum(axis=1).mean())

    low, high = (float(np.log(bound)) for bound in TEMPERATURES)
    return round(float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x)), 4)


def calibration_error(chances: Chances, truth: Labels) -> float:
    """Mean distance between confidence and accuracy over bins of confidence, weighted by photos."""
    return float(
        sum(abs(each.accuracy - each.confidence) * each.n for each in reliability(chances, truth)) / len(truth)
    )


def reliability(chances: Chances, truth: Labels) -> tuple[Bin, ...]:
    """Confidence against accuracy, in at most 15 bins of equal width; bins without photos are left out."""
    confidence, right = chances.max(axis=1), chances.argmax(axis=1) == truth
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    found = []
    for b in np.unique(bins):
        hits, n = int(right[bins == b].sum()), int((bins == b).sum())
        found.append(Bin(n, float(confidence[bins == b].mean()), hits / n, wilson(hits, n)))
    return tuple(found)


def curve(chances: Chances, truth: Labels) -> tuple[Point, ...]:
    """Coverage against precision for every confidence that may be asked for, thinned to about 100 points."""
    order = np.argsort(-chances.max(axis=1), kind="stable")
    confidence = chances.max(axis=1)[order]
    right = np.cumsum(chances.argmax(axis=1)[order] == truth[order])
    n = len(truth)
    ends = np.flatnonzero(np.append(confidence[1:] < confidence[:-1], True))  # equal ones are answered together
    chosen = ends[np.unique(np.linspace(0, len(ends) - 1, CURVE_POINTS).round().astype(int))]
    return tuple(Point(float(confidence[i]), float((i + 1) / n), float(right[i] / (i + 1))) for i in chosen)


def parts(right: Bools, names: Sequence[str | None], groups: npt.NDArray[np.intp]) -> tuple[Part, ...]:
    """Accuracy by station, light or source: the largest part first.

    Args:
        right: bool (n,).
        names: which part each photo belongs to; None for none.
        groups: as for :func:`figures`.
    """
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        if name is not None:
            rows.setdefault(name, []).append(i)
    found = [_part(name, right[chosen], groups[chosen]) for name, chosen in rows.items()]
    return tuple(sorted(found, key=lambda part: (-part.n, part.name)))


def mistakes(answered: Answered, chances: Chances) -> tuple[Mistake, ...]:
    """Every photo whose most likely label is not the person's, the most confident first.

    Args:
        answered: n photos.
        chances: (n, C), after the temperature.
    """
    confidence, answers = chances.max(axis=1), chances.argmax(axis=1)
    wrong = np.flatnonzero(answers != answered.truth)
    return tuple(
        Mistake(
            index=int(i),
            name=answered.names[i],
            truth=answered.labels[answered.truth[i]],
            answer=answered.labels[answers[i]],
            confidence=float(confidence[i]),
            truth_chance=float(chances[i, answered.truth[i]]),
        )
        for i in wrong[np.argsort(-confidence[wrong], kind="stable")]
    )


def suspicious(answered: Answered, chances: Chances) -> tuple[Mistake, ...]:
    """Mistakes in which the person's label may be the wrong one: the model is at least as sure of another label as it
    is, on average, of photos that have that label (confident learning, Northcutt et al. 2021).

    Args and order as for :func:`mistakes`.
    """
    usual = {
        label: float(chances[answered.truth == i, i].mean()) if (answered.truth == i).any() else 1.0
        for i, label in enumerate(answered.labels)
    }
    return tuple(each for each in mistakes(answered, chances) if each.confidence >= max(0.5, usual[each.answer]))


def _part(name: str, right: Bools, groups: npt.NDArray[np.intp]) -> Part:
    return Part(name, len(right), int(right.sum()), float(right.mean()), grouped(right, groups))


def _per_class(
    confusion: npt.NDArray[np.int_], labels: Sequence[str], recall_intervals: Sequence[Interval]
) -> dict[str, PerClass]:
    found = {}
    for i, label in enumerate(labels):
        hits, said, n = int(confusion[i, i]), int(confusion[:, i].sum()), int(confusion[i].sum())
        precision, recall, f1 = hits / max(said, 1), hits / max(n, 1), 2 * hits / max(said + n, 1)
        found[label] = PerClass(precision, recall, f1, n, recall_intervals[i])
    return found


def _animals_called_empty(answers: Labels, truth: Labels, labels: Sequence[str]) -> int:
    animals = [i for i, label in enumerate(labels) if label not in (EMPTY, PERSON)]
    empties = [i for i, label in enumerate(labels) if label == EMPTY]
    return int((np.isin(answers, empties) & np.isin(truth, animals)).sum())
