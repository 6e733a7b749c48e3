"""What a reader hands on: samples, what was left out of them, and what the user should hear. Never reads a file."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field

from edge.model.decide import EMPTY, PERSON, UNKNOWN
from trainer.dataset.samples import TEST, TRAIN, VALIDATION, Sample, Unreadable

PARTS = {
    "train": TRAIN, "training": TRAIN,
    "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION,
    "test": TEST, "testing": TEST,
}  # fmt: skip
"""What people call the parts of a data set that is divided already, in lower case."""
DECISIONS = (UNKNOWN, "setup")
"""What a device says of a photo that is of no class; a class of that name could not be told from it."""
UNLABELLED = frozenset({*DECISIONS, "unclassified", "unlabeled", "unlabelled", "unidentified", "unidentifiable"})
"""Categories, in lower case, by which label files say that nobody knows."""


@dataclass(frozen=True)
class DataSet:
    """The samples, and what lies in the data set but is no sample: folders without photos, loose or odd files, photos
    without a label or with two.

    Attributes:
        samples: in a stable order.
        left_out: the rest, each with its reason.
        notes: sentences that tell the user how the data was understood.
    """

    samples: list[Sample]
    left_out: list[Unreadable]
    notes: list[str] = field(default_factory=list)


def composed(label: str) -> str:
    """The same text in one Unicode form: the names of a Mac's folders have the dots of an ``ü`` as a character of their
    own, and what looks alike must not become two classes."""
    return unicodedata.normalize("NFC", label)


def own_spelling(label: str) -> str:
    """``empty`` and ``person`` in the one spelling that a device knows; any other label as it is, :func:`composed`."""
    label = composed(label)
    return next((ours for ours in (EMPTY, PERSON) if label.casefold() == ours), label)


def two_labels(name: str, labels: set[str]) -> Unreadable:
    """A photo of several species is of no one class."""
    shown = ", ".join(sorted(labels)[:4])
    return Unreadable(name, "", "two labels", f"{name} has more than one label ({shown}), so it is of no one class.")


def left_out(name: str, label: str, code: str, reason: str) -> Unreadable:
    """A record whose reason begins with the name."""
    return Unreadable(name, label, code, f"{name} {reason}")
