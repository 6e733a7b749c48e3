"""What a report says, before anyone writes it down: plain records, filled by whoever trained or measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.model.decide import EMPTY, PERSON
from trainer.contact_sheet import Pixels, Tile
from trainer.dataset.samples import Unreadable
from trainer.evaluate import Evaluation, Mistake
from trainer.history import Epoch
from trainer.thresholds import Thresholds

OUT_OF_FOLD = "out of fold"
"""The question of photos answered by a model that was fitted without their fold; the others are those of
:class:`trainer.dataset.questions.Question`."""
WORST = "Worst mistakes"
"""The caption of the gallery that is also a file of its own, to pass on."""


@dataclass(frozen=True)
class Answer:
    """One question that was put to the model, and how it did.

    Attributes:
        question: name of a :class:`trainer.dataset.questions.Question`, or :data:`OUT_OF_FOLD`.
        evaluation: on photos that the model, or its like, did not learn from.
        warning: what may have leaked, in a sentence; None where nothing is known to.
        is_test: whether the figure may be called a test; a random split's may not.
        learned: how many photos the measured model learned from; None if it differs.
    """

    question: str
    evaluation: Evaluation
    warning: str | None = None
    is_test: bool = True
    learned: int | None = None


@dataclass(frozen=True)
class Stage:
    """One stretch of training: its name for people, its epochs in order, and the epoch kept, if one was chosen."""

    name: str
    epochs: Sequence[Epoch]
    best: int | None = None


@dataclass(frozen=True)
class Gallery:
    """Pictures under a heading, with a sentence on what they are."""

    caption: str
    note: str
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Report:
    """A training or a measurement, for a person.

    Attributes:
        title: of the run.
        created: ISO 8601 with offset.
        photos: usable ones.
        counts: label -> photos, in the order of the labels.
        unreadable: the others.
        answers: the hardest question first; it gives the headline.
        model: what was trained, in words, such as ``EfficientNet-Lite0 at 320 × 320``.
        kept: ``probe``, ``head`` or ``fine-tuned``; None where nothing was trained.
        refitted: whether the shipped model learned from all photos, so that its figures are the out-of-fold ones.
        thresholds: as shipped, with what ``empty`` cost where they were chosen.
        validation: share of the validation photos that each of these gets right.
        validation_n: how many these are.
        stages: loss and accuracy over the epochs.
        settings: all of them.
        changed: those that are not the defaults.
        seconds: step -> how long it took.
        device: what it ran on, in words.
        trained_with: libraries and versions.
        command: what repeats it.
        warnings: sentences.
        galleries: pictures.
    """

    title: str
    created: str
    photos: int
    counts: Mapping[str, int]
    answers: Sequence[Answer]
    unreadable: Sequence[Unreadable] = ()
    model: str = ""
    kept: str | None = None
    refitted: bool = False
    thresholds: Thresholds | None = None
    validation: Mapping[str, float] = field(default_factory=dict)
    validation_n: int = 0
    stages: Sequence[Stage] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    changed: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    device: str = ""
    trained_with: str = ""
    command: str = ""
    warnings: Sequence[str] = ()
    galleries: Sequence[Gallery] = ()


def galleries(evaluation: Evaluation, pixels: Callable[[int], Pixels]) -> tuple[Gallery, ...]:
    """Those that every report has: animals called empty, the worst mistakes, and labels to look at again.

    Args:
        evaluation: whose mistakes.
        pixels: gives the picture, uint8 (h, w, 3), of a photo by :attr:`trainer.evaluate.Mistake.index`.
    """
    lost = (
        "The mistake that costs most: nobody would have looked at these photos again, unless another of the same "
        "burst was named."
    )
    worst = "What the model named wrong, the surest first, squeezed into the shape in which it sees them."
    again = (
        "Here the model is as sure of another label as it usually is of photos that have that label. "
        "Some of these are its mistakes, others a person's."
    )
    return (
        Gallery("Animals called empty", lost, _tiles(_lost(evaluation)[:16], pixels)),
        Gallery(WORST, worst, _tiles(evaluation.mistakes[:24], pixels)),
        Gallery("Labels to look at again", again, _tiles(evaluation.suspicious[:16], pixels)),
    )


def _tiles(mistakes: Sequence[Mistake], pixels: Callable[[int], Pixels]) -> list[Tile]:
    return [
        Tile(
            pixels(each.index),
            f"{each.truth}, called {each.answer}",
            (f"{each.confidence * 100:.0f} % sure; {each.truth_chance * 100:.0f} % for {each.truth}", each.name),
        )
        for each in mistakes
    ]


def _lost(evaluation: Evaluation) -> list[Mistake]:
    """Photos of animals for which the decision is ``empty``."""
    threshold = dict(zip(evaluation.labels, evaluation.thresholds, strict=True)).get(EMPTY, 2.0)
    return [
        each
        for each in evaluation.mistakes
        if each.answer == EMPTY and each.truth != PERSON and each.confidence >= threshold
    ]
