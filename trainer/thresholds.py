"""Below which probability a model should rather say ``unknown``, and what that costs. Pure.

The mistake that costs most is an animal, or a person, called ``empty``: nobody will look at that photo again.
So ``empty`` is said only above a threshold at which nearly no event is lost; the other labels are said as soon as they
are more likely right than wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.model.decide import EMPTY, PERSON
from trainer.answered import Answered, decided
from trainer.interval import at_most

UNDECIDED = 0.5
"""Below this probability the answer is ``unknown``: a label is given only if it is more likely right than wrong."""
MISSED_SHARE = 0.01
"""Of events with an animal, as many may be called ``empty``; of events with a person likewise."""
_DIGITS = 4


@dataclass(frozen=True)
class Missed:
    """Events that would be lost: every photo that shows the animal was called ``empty``.

    Attributes:
        events: photos of one label in one group are one event.
        missed: of these.
        at_most: the share of such events missed, with 95 % certainty, if events are independent.
    """

    events: int
    missed: int
    at_most: float


@dataclass(frozen=True)
class Emptied:
    """What it costs and saves to call photos ``empty`` above a threshold.

    Attributes:
        threshold: probability, 0 to 1.
        animals, persons: events missed.
        empties: photos in which there is nothing.
        removed: of these, called ``empty``, so that nobody needs to look.
    """

    threshold: float
    animals: Missed
    persons: Missed
    empties: int
    removed: int


@dataclass(frozen=True)
class Thresholds:
    """Thresholds for :func:`edge.model.decide.decide`, with their price on the photos they were chosen on.

    Attributes:
        values: C probabilities, in the order of the labels.
        chosen: for ``empty``; None if the model does not know that label, so that there was nothing to choose.
    """

    values: tuple[float, ...]
    chosen: Emptied | None


def thresholds(answered: Answered, temperature: float, missed_share: float = MISSED_SHARE) -> Thresholds:
    """Choose them on photos that the model did not learn from.

    Args:
        answered: the photos; their groups should be events.
        temperature: as the device will use it.
        missed_share: of the events with animals, and of those with persons, that may be missed; 0 to 1.
    """
    values = [UNDECIDED] * len(answered.labels)
    if EMPTY not in answered.labels:
        return Thresholds(tuple(values), None)
    chances = answered.chances(temperature)
    for who in (_animals(answered), _persons(answered)):
        lowest = _lowest(_scores(answered, chances, who), missed_share)
        values[answered.labels.index(EMPTY)] = max(values[answered.labels.index(EMPTY)], lowest)
    return Thresholds(tuple(values), emptied(answered, temperature, values))


def emptied(answered: Answered, temperature: float, values: Sequence[float]) -> Emptied | None:
    """What given thresholds cost and save on some photos; None if the model does not know ``empty``."""
    if EMPTY not in answered.labels:
        return None
    empty = answered.labels.index(EMPTY)
    chances = answered.chances(temperature)
    threshold, nothing = float(values[empty]), answered.truth == empty
    return Emptied(
        threshold=threshold,
        animals=_missed(_scores(answered, chances, _animals(answered)), threshold),
        persons=_missed(_scores(answered, chances, _persons(answered)), threshold),
        empties=int(nothing.sum()),
        removed=int((decided(chances, values)[nothing] == empty).sum()),
    )


def _animals(answered: Answered) -> npt.NDArray[np.bool_]:
    others = [i for i, label in enumerate(answered.labels) if label not in (EMPTY, PERSON)]
    return np.isin(answered.truth, others)


def _persons(answered: Answered) -> npt.NDArray[np.bool_]:
    return np.array([answered.labels[i] == PERSON for i in answered.truth], bool)


def _scores(
    answered: Answered, chances: npt.NDArray[np.float64], who: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """For each event of some photos, the highest threshold at which it is still missed; 0 if it never is.

    Only photos that show the animal count, not empty ones of the same burst: who was right there by luck did not
    find it.
    """
    empty = answered.labels.index(EMPTY)
    scores = np.where(chances.argmax(axis=1) == empty, chances[:, empty], 0.0)[who]
    events = np.stack([answered.groups, answered.truth], axis=1)[who]
    _, index = np.unique(events, axis=0, return_inverse=True)
    lowest = np.ones(index.max() + 1 if len(index) else 0)
    np.minimum.at(lowest, index.reshape(-1), scores)
    return lowest


def _lowest(scores: npt.NDArray[np.float64], missed_share: float) -> float:
    """The lowest threshold, of 4 digits, at or above which lie no more events than allowed."""
    allowed = math.floor(missed_share * len(scores) + 1e-9)
    if allowed >= len(scores):
        return 0.0
    bound, step = float(np.sort(scores)[::-1][allowed]), 10.0**-_DIGITS
    threshold = round(bound, _DIGITS)
    return min(1.0, threshold if threshold > bound else round(threshold + step, _DIGITS))


def _missed(scores: npt.NDArray[np.float64], threshold: float) -> Missed:
    n, missed = len(scores), int((scores >= threshold).sum())
    return Missed(n, missed, at_most(missed, n))
