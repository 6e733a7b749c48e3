"""What a look over a data set found: records, fit for JSON. Decides and prints nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from trainer.dataset.samples import Sample, Unreadable

SAME_PICTURE = "same picture"
ANIMAL_MARKED, NO_ANIMAL_MARKED = "an animal is marked in it", "no animal is marked in it"


@dataclass(frozen=True)
class LabelFacts:
    """Of the photos of one label: how many, in how many independent groups, at how many stations, and which share of
    them is infrared."""

    count: int
    groups: int
    stations: int
    infrared_share: float


@dataclass(frozen=True)
class Conflict:
    """One picture that has two labels; ``why`` is ``same file`` or ``same picture``."""

    photo: str
    label: str
    other: str
    other_label: str
    why: str


@dataclass(frozen=True)
class PartLeak:
    """A photo of a later part whose like is in an earlier one; ``why`` as in :class:`trainer.dataset.split.Leak`."""

    photo: str
    part: str
    other: str
    other_part: str
    why: str


@dataclass(frozen=True)
class Suspicion:
    """A label that a model, which did not learn from this photo, is sure is another."""

    photo: str
    label: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class BoxDoubt:
    """A label that the boxes speak against."""

    photo: str
    label: str
    reason: str


@dataclass(frozen=True)
class Division:
    """A question that the data could be asked, see :mod:`trainer.dataset.questions`.

    Attributes:
        asked: training asks it where nothing else is said.
        test, learn: numbers of photos; 0 where it is not possible.
        remark: what may leak, or why it is not possible.
    """

    name: str
    possible: bool
    asked: bool
    test: int
    learn: int
    remark: str | None


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        data: the data set.
        n: photos that can be used.
        unreadable: files that cannot.
        labels: facts of each label, in order of their names.
        groups: independent groups.
        stations: photos of each station; those of none are not counted.
        times: how many photos have one, and the first and the last.
        imbalance: photos of the most frequent label for each of the rarest.
        exact_duplicates, near_duplicates: sets of names, the largest first; the second are no mere copies.
        label_conflicts, leaks, suspicious, boxes: see there; the worst first.
        questions: what can be asked of the data, the primary question first.
        problems: sentences, the worst first. A data set without any is fit to train on.
        notes: sentences about what is worth knowing and nobody's fault.
        samples: of the photos that can be used, by name.
    """

    data: str
    n: int
    unreadable: list[Unreadable]
    labels: dict[str, LabelFacts]
    groups: int
    stations: dict[str, int]
    times: dict[str, Any]
    imbalance: float
    exact_duplicates: list[list[str]]
    near_duplicates: list[list[str]]
    label_conflicts: list[Conflict]
    leaks: list[PartLeak]
    suspicious: list[Suspicion]
    boxes: list[BoxDoubt]
    questions: list[Division]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: dict[str, Sample] = field(default_factory=dict, repr=False)

    def facts(self) -> dict[str, Any]:
        """Everything but the samples, fit for JSON."""
        kept = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "samples"}
        return {name: _plain(value) for name, value in kept.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value
