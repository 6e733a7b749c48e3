"""From logits to an answer: softmax, temperature, thresholds. Pure functions, the same on workstation and device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

EMPTY = "empty"
PERSON = "person"
UNKNOWN = "unknown"
TOP = 5

Kind = Literal["species", "rollup", "unknown", "empty"]


@dataclass(frozen=True)
class Decision:
    """What a model says of one photo.

    Attributes:
        label: the decided label; ``unknown`` where no label reaches its threshold.
        confidence: probability of the most likely label, 0 to 1.
        kind: ``species`` for any label but ``empty``, ``empty``, or ``unknown``.
        top: at most five (label, probability) pairs, most likely first.
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
    logits: npt.ArrayLike, labels: Sequence[str], *, temperature: float, thresholds: Sequence[float]
) -> Decision:
    """Decide one photo.

    Args:
        logits: float, shape (C,).
        labels: C names, in the order of the logits.
        temperature: above 0; 1 leaves the logits as they are.
        thresholds: C probabilities; a label is given only at or above its own.
    """
    chances = probabilities(logits, temperature)
    order = np.argsort(-chances, kind="stable")
    best = int(order[0])
    top = tuple((labels[i], float(chances[i])) for i in order[:TOP])
    confidence = float(chances[best])
    if confidence < thresholds[best]:
        return Decision(UNKNOWN, confidence, "unknown", top)
    return Decision(labels[best], confidence, "empty" if labels[best] == EMPTY else "species", top)
