"""From logits to an answer: softmax, temperature, thresholds, roll-up. Pure functions, the same on workstation and
device: both call :func:`answers`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from edge.model.taxonomy import Taxonomy

EMPTY = "empty"
PERSON = "person"
UNKNOWN = "unknown"
TOP = 5

Kind = Literal["species", "rollup", "unknown", "empty"]


@dataclass(frozen=True)
class Decision:
    """What a model says of one photo.

    Attributes:
        label: the decided label; with a roll-up the name of a taxon, such as ``Canidae`` or ``animal``; ``unknown``
            where nothing is sure enough.
        confidence: the label's or taxon's probability, 0 to 1; that of the most likely label where ``unknown``.
        kind: ``species`` for any label but ``empty``, ``rollup`` for a taxon, ``empty``, or ``unknown``.
        top: at most five (label, probability) pairs, most likely first, whatever was decided.
    """

    label: str
    confidence: float
    kind: Kind
    top: tuple[tuple[str, float], ...]


def probabilities(logits: npt.ArrayLike, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Softmax over the last axis of ``logits / temperature`` (Guo et al. 2017, "On Calibration of Modern Neural
    Networks"), computed so that large logits do not overflow."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    shifted = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def decide(
    logits: npt.ArrayLike,
    labels: Sequence[str],
    *,
    temperature: float,
    thresholds: Sequence[float],
    taxonomy: Taxonomy | None = None,
    rollup: float | None = None,
) -> Decision:
    """Decide one photo.

    Args:
        logits: float, shape (C,).
        labels: C names, in the order of the logits.
        temperature: above 0; 1 leaves the logits as they are.
        thresholds: C probabilities; a label is given only at or above its own.
        taxonomy: which labels lie under which taxon, and which may be said at this station; see
            :func:`edge.model.taxonomy.taxonomy`.
        rollup: the probability at or above which a taxon is given where the label is not; never if None.
    """
    chances = probabilities(logits, temperature)
    order = np.argsort(-chances, kind="stable")
    top = tuple((labels[i], float(chances[i])) for i in order[:TOP])
    found, sure = answers(chances[np.newaxis], thresholds, taxonomy=taxonomy, rollup=rollup)
    number, confidence = int(found[0]), float(sure[0])
    if number < 0:
        return Decision(UNKNOWN, confidence, "unknown", top)
    if number >= len(labels):
        assert taxonomy is not None  # whose taxa are numbered from C on
        return Decision(taxonomy.taxa[number - len(labels)].name, confidence, "rollup", top)
    return Decision(labels[number], confidence, "empty" if labels[number] == EMPTY else "species", top)


def answers(
    chances: npt.NDArray[np.float64],
    thresholds: Sequence[float],
    *,
    taxonomy: Taxonomy | None = None,
    rollup: float | None = None,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Decide many photos.

    The most likely label is the answer if it reaches its threshold and may be said. Otherwise it is the lowest taxon
    whose labels together reach ``rollup``, of several of one rank the likeliest; otherwise nothing.

    Args:
        chances: float64 (n, C), after the temperature.
        thresholds, taxonomy, rollup: as for :func:`decide`.

    Returns:
        n numbers: below C of a label, from C on of ``taxonomy.taxa``, -1 for ``unknown``; and n probabilities, of the
        answer or else of the most likely label.
    """
    best = chances.argmax(axis=1)
    confidence = np.take_along_axis(chances, best[:, np.newaxis], axis=1)[:, 0]
    given = confidence >= np.asarray(thresholds, np.float64)[best]
    if taxonomy is not None:
        given &= np.asarray(taxonomy.may_be_said, bool)[best]
    found = np.where(given, best, -1)
    if taxonomy is None or rollup is None or given.all():
        return found, confidence
    rows = np.flatnonzero(~given)
    sums = taxonomy.sums(chances[rows])
    taxa = rolled_up(sums, confidence[rows], taxonomy, rollup)
    rolled = taxa >= 0
    found[rows[rolled]] = chances.shape[1] + taxa[rolled]
    confidence[rows[rolled]] = sums[rolled, taxa[rolled]]
    return found, confidence


def rolled_up(
    sums: npt.NDArray[np.float64], least: npt.NDArray[np.float64], taxonomy: Taxonomy, rollup: float
) -> npt.NDArray[np.intp]:
    """The taxon of each photo whose label is not sure: n numbers of ``taxonomy.taxa``, -1 where none is sure either.

    Args:
        sums: (n, T), by :meth:`edge.model.taxonomy.Taxonomy.sums`.
        least: n probabilities of the most likely label; a taxon that is less likely is not said.
        rollup: as for :func:`decide`.
    """
    if not taxonomy.taxa:
        return np.full(len(sums), -1, np.intp)
    sure = (sums >= rollup) & (sums >= least[:, np.newaxis])
    levels = np.where(sure, taxonomy.levels, np.iinfo(np.intp).max)
    of_lowest = sure & (levels == levels.min(axis=1, keepdims=True))
    likeliest = np.where(of_lowest, sums, -1.0).argmax(axis=1)
    return np.where(sure.any(axis=1), likeliest, -1)
