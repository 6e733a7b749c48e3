"""Below which probability a model should rather say ``unknown``, and what that costs. Pure.

A label is said where so many of such answers are right as was wanted. The mistake that costs most is an animal, or a
person, called ``empty``: nobody will look at that photo again. So ``empty`` is said only where, besides, nearly no
event is lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from edge.model.decide import EMPTY, PERSON, answers, rolled_up
from edge.model.taxonomy import Taxonomy
from trainer.answered import Answered, decided, is_right
from trainer.interval import at_most

WANTED = 0.95
"""Of the answers that are given, as many should be right."""
UNDECIDED = 0.5
"""No answer is given below this probability: it is given only if it is more likely right than wrong."""
ENOUGH = 30
"""A label with fewer photos has the threshold of all labels together."""
MISSED_SHARE = 0.01
"""Of events with an animal, as many may be called ``empty``; of events with a person likewise."""
ROLL_UP = "roll-up"
_DIGITS = 4
_ROLLUPS = (*(round(UNDECIDED + i / 100, 2) for i in range(50)), 0.995, 0.999)


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
class Reached:
    """What one answer's threshold holds on the photos it was chosen on.

    Attributes:
        label: the answer; :data:`ROLL_UP` for all taxa together.
        threshold: probability, 0 to 1.
        said: photos that get the answer.
        right: of these.
        shown: whether these photos show the wanted precision. Where they do not, a label has the threshold of all
            labels together, and the roll-up the wanted precision itself, which is enough if probabilities are true,
            or more, if the photos say that they are not.
    """

    label: str
    threshold: float
    said: int
    right: int
    shown: bool


@dataclass(frozen=True)
class Thresholds:
    """Thresholds for :func:`edge.model.decide.decide`, with their price on the photos they were chosen on.

    Attributes:
        values: C probabilities, in the order of the labels.
        chosen: for ``empty``; None if the model does not know that label, so that there was nothing to choose.
        rollup: for taxa.
        wanted: the precision they were chosen for, 0 to 1.
        reached: C of them in the order of the labels, and one for the roll-up.
    """

    values: tuple[float, ...]
    chosen: Emptied | None
    rollup: float | None = None
    wanted: float | None = None
    reached: tuple[Reached, ...] = ()


@dataclass(frozen=True)
class _Said:
    """Answers that might be given: how sure, whether right, and which event: n each."""

    confidence: npt.NDArray[np.float64]
    right: npt.NDArray[np.bool_]
    groups: npt.NDArray[np.intp]

    def take(self, rows: npt.NDArray[np.bool_]) -> _Said:
        return _Said(self.confidence[rows], self.right[rows], self.groups[rows])


def for_precision(
    answered: Answered,
    temperature: float,
    wanted: float = WANTED,
    taxonomy: Taxonomy | None = None,
    missed_share: float = MISSED_SHARE,
) -> Thresholds:
    """Choose them on photos that the model did not learn from: as low as the wanted precision allows.

    A threshold is low enough if the wanted precision would hold with one more event of answers, all wrong. Without
    that, the lowest threshold that happens to look good on few photos would not be good on others; the false discovery
    rate is controlled in this manner (Barber and Candès 2015). So 19 events all right are the fewest that show 95 %.

    Args:
        answered: the photos; their groups should be events.
        temperature: as the device will use it.
        wanted: share of the given answers that should be right, 0 to 1.
        taxonomy: what is rolled up to; nothing if None.
        missed_share: of the events with animals, and of those with persons, that may be missed; 0 to 1.
    """
    chances = answered.chances(temperature)
    found = [_for_label(answered, chances, i, wanted) for i in range(len(answered.labels))]
    values = [threshold for threshold, _ in found]
    if EMPTY in answered.labels:
        empty = answered.labels.index(EMPTY)
        for who in (_animals(answered), _persons(answered)):
            values[empty] = max(values[empty], _lowest(_scores(answered, chances, who), missed_share))
    rollup, shown = _for_rollup(answered, chances, values, wanted, taxonomy)
    return Thresholds(
        values=tuple(values),
        chosen=emptied(answered, temperature, values),
        rollup=rollup,
        wanted=wanted,
        reached=_reached(answered, chances, values, rollup, taxonomy, [*(proof for _, proof in found), shown]),
    )


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


# --- precision


def _for_label(answered: Answered, chances: npt.NDArray[np.float64], label: int, wanted: float) -> tuple[float, bool]:
    """The label's threshold, and whether its photos show the wanted precision there."""
    best = chances.argmax(axis=1)
    every = _Said(chances.max(axis=1), best == answered.truth, answered.groups)
    together, shown = _precise(every, wanted)
    if (answered.truth == label).sum() < ENOUGH:
        return together, shown
    own, shown = _precise(every.take(best == label), wanted)
    if shown:
        return own, True
    said = every.take((best == label) & (every.confidence >= together))
    return (max(own, together) if _disproves(said, wanted) else together), False


def _precise(said: _Said, wanted: float) -> tuple[float, bool]:
    """The lowest threshold that shows the wanted precision; where none does, the one that comes nearest, and False."""
    said = said.take(said.confidence >= UNDECIDED)
    if not len(said.right):
        return UNDECIDED, False
    steps = np.floor(said.confidence * 10**_DIGITS).astype(int)
    order = np.argsort(-steps, kind="stable")
    steps, wrong = steps[order], np.cumsum(~said.right[order])
    one_more = len(said.right) / len(np.unique(said.groups))
    share = (wrong + one_more) / (np.arange(1, len(steps) + 1) + one_more)
    ends = np.flatnonzero(np.append(steps[1:] < steps[:-1], True))  # equal ones are said together
    good = ends[share[ends] <= 1 - wanted + 1e-9]
    last = good[-1] if len(good) else ends[share[ends].argmin()]
    threshold = UNDECIDED if last == ends[-1] else round(float(steps[last]) / 10**_DIGITS, _DIGITS)
    return threshold, len(good) > 0


def _disproves(said: _Said, wanted: float) -> bool:
    """Whether answers are less precise than wanted with 95 % certainty (Clopper and Pearson 1934)."""
    n = len(np.unique(said.groups))
    wrong = float((~said.right).mean()) * n if n else 0.0
    return wrong > 0 and float(betaincinv(wrong, n - wrong + 1, 0.05)) > 1 - wanted


def _for_rollup(
    answered: Answered,
    chances: npt.NDArray[np.float64],
    values: Sequence[float],
    wanted: float,
    taxonomy: Taxonomy | None,
) -> tuple[float, bool]:
    """The threshold of taxa, which are said of photos whose label is not, and whether these show the wanted precision.

    Where they are too few to show it, it is the wanted precision itself, unless they speak against it.
    """
    rows = np.flatnonzero(answers(chances, values, taxonomy=taxonomy)[0] < 0)
    if taxonomy is None or not len(rows):
        return wanted, False
    sums, least = taxonomy.sums(chances[rows]), chances[rows].max(axis=1)
    classes, truth, groups = len(answered.labels), answered.truth[rows], answered.groups[rows]
    fallback = None
    for rollup in sorted({*_ROLLUPS, round(wanted, _DIGITS)}):
        taxa = rolled_up(sums, least, taxonomy, rollup)
        said = taxa >= 0
        wrong = int((said & ~is_right(np.where(said, classes + taxa, -1), truth, classes, taxonomy)).sum())
        one_more = int(said.sum()) / max(1, len(np.unique(groups[said])))
        if said.any() and (wrong + one_more) / (said.sum() + one_more) <= 1 - wanted + 1e-9:
            return rollup, True
        if fallback is None and rollup >= wanted and wrong <= (1 - wanted) * said.sum() + 1e-9:
            fallback = rollup
    return (1.0 if fallback is None else fallback), False


def _reached(
    answered: Answered,
    chances: npt.NDArray[np.float64],
    values: Sequence[float],
    rollup: float,
    taxonomy: Taxonomy | None,
    shown: Sequence[bool],
) -> tuple[Reached, ...]:
    """The figures of each label and of the roll-up."""
    classes = len(answered.labels)
    found = decided(chances, values, taxonomy, rollup)
    right = is_right(found, answered.truth, classes, taxonomy)
    rows = [found == i for i in range(classes)] + [found >= classes]
    return tuple(
        Reached(label, float(threshold), int(said.sum()), int(right[said].sum()), proof)
        for label, threshold, said, proof in zip(
            [*answered.labels, ROLL_UP], [*values, rollup], rows, shown, strict=True
        )
    )


# --- events called empty


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
