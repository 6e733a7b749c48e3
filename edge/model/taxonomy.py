"""Which labels lie under which taxon, prepared once for :func:`edge.model.decide.decide`. Never reads a file.

What an unsure answer may be rolled up to: each genus, family, order and class that the labels name, and ``animal``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge.model.decide import EMPTY, PERSON

if TYPE_CHECKING:
    from edge.model.bundle import Label

ANIMAL = "animal"
RANKS = ("genus", "family", "order", "class")
"""Of the taxa above a label, the lowest first. ``animal`` comes after them."""


@dataclass(frozen=True)
class Taxon:
    """What an unsure answer may be rolled up to.

    Attributes:
        name: such as ``Canidae``, or ``animal``.
        rank: one of :data:`RANKS`, or ``animal``.
        members: numbers of the labels under it, ascending.
    """

    name: str
    rank: str
    members: tuple[int, ...]


@dataclass(frozen=True)
class Taxonomy:
    """The taxa of C labels.

    Attributes:
        taxa: those that an answer may be rolled up to, the lowest rank first.
        may_be_said: C of them: whether a label may be the answer. Not so for an animal that does not occur.
    """

    taxa: tuple[Taxon, ...]
    may_be_said: tuple[bool, ...]
    _every: npt.NDArray[np.intp] = field(init=False, repr=False, compare=False)
    _starts: npt.NDArray[np.intp] = field(init=False, repr=False, compare=False)
    levels: npt.NDArray[np.intp] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sizes = [len(taxon.members) for taxon in self.taxa]
        set_once = object.__setattr__
        set_once(self, "_every", np.array([i for taxon in self.taxa for i in taxon.members], np.intp))
        set_once(self, "_starts", np.cumsum([0, *sizes[:-1]], dtype=np.intp))
        set_once(self, "levels", np.array([(*RANKS, ANIMAL).index(taxon.rank) for taxon in self.taxa], np.intp))

    def sums(self, chances: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The probability of each taxon, float64 (n, T), from those of the labels, (n, C).

        A photo's sums are the same to the last bit, whichever photos are asked about with it.
        """
        if not self.taxa:
            return np.zeros((len(chances), 0))
        return np.minimum(np.add.reduceat(np.take(chances, self._every, axis=1), self._starts, axis=1), 1.0)


def taxonomy(labels: Sequence[Label], occurring: Collection[str] | None = None) -> Taxonomy:
    """Prepare the taxa of a model's labels.

    A taxon with only one label under it says no more than the label, and is left out. A label whose own rank is a
    family, such as ``deer`` for Cervidae, lies under that family and what is above it.

    Args:
        labels: C of them, in the order of the logits.
        occurring: names of the animals that occur at the station; all if None. Another animal is never the answer. Its
            probability still counts for the taxa above it, as SpeciesNet rolls up what does not live in a country; but
            a genus, family, order or class of which nothing occurs is not said either.
    """
    animals = [label.animal and label.name not in (EMPTY, PERSON) for label in labels]
    said = tuple(
        not animal or occurring is None or label.name in occurring
        for label, animal in zip(labels, animals, strict=True)
    )
    under: dict[tuple[str, str], list[int]] = {}
    for i, label in enumerate(labels):
        for rank, name in lineage(label) if animals[i] else ():
            under.setdefault((rank, name), []).append(i)
    taxa = [Taxon(name, rank, tuple(members)) for (rank, name), members in under.items()]
    taxa = [taxon for taxon in taxa if _is_worth_saying(taxon, said)]
    return Taxonomy(tuple(sorted(taxa, key=lambda taxon: ((*RANKS, ANIMAL).index(taxon.rank), taxon.name))), said)


def lineage(label: Label) -> list[tuple[str, str]]:
    """The taxa that an animal lies under as (rank, name), the lowest first, ending in ``animal``."""
    above = (label.genus, label.family, label.order, label.taxon_class)
    own = [label.scientific_name if label.rank == rank else None for rank in RANKS]
    named = [(rank, name or itself) for rank, name, itself in zip(RANKS, above, own, strict=True)]
    return [(rank, name) for rank, name in named if name] + [(ANIMAL, ANIMAL)]


def _is_worth_saying(taxon: Taxon, said: Sequence[bool]) -> bool:
    some_occur = any(said[i] for i in taxon.members)
    if taxon.rank == ANIMAL:  # also where the one animal that is known does not occur
        return len(taxon.members) > 1 or not some_occur
    return len(taxon.members) > 1 and some_occur
