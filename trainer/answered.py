"""What a model answered on labelled photos, with all that its figures are broken down by. Owns the record only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge.model.decide import answers, probabilities

if TYPE_CHECKING:
    from edge.model.taxonomy import Taxonomy
    from trainer.pixels import Decoded

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Answered:
    """A model's answers on n photos, none of which it learned from.

    Attributes:
        logits: float32 (n, C).
        truth: n label numbers, what a person says.
        labels: C names.
        groups: n numbers; photos of one number are of one event or burst, and resemble each other.
        stations: where each was taken; None where the data does not say.
        infrared: bool (n,), whether the photo is grey, as at night.
        sources: what each came from, such as a camera or the web; None where the data does not say.
        names: n names of photos, for people.
    """

    logits: Logits
    truth: Labels
    labels: tuple[str, ...]
    groups: npt.NDArray[np.intp]
    stations: Sequence[str | None]
    infrared: npt.NDArray[np.bool_]
    sources: Sequence[str | None]
    names: Sequence[str]

    def __post_init__(self) -> None:
        columns = (self.truth, self.groups, self.stations, self.infrared, self.sources, self.names)
        expected = (len(self.truth), len(self.labels))
        if self.logits.shape != expected or {len(column) for column in columns} != {len(self.truth)}:
            raise ValueError(f"logits are {self.logits.shape}, expected {expected}, and n of everything else.")

    @classmethod
    def on(
        cls,
        photos: Sequence[Decoded],
        logits: Logits,
        truth: Labels,
        labels: tuple[str, ...],
        groups: npt.NDArray[np.intp],
    ) -> Answered:
        """Answers on n photos that were decoded."""
        return cls(
            logits=logits,
            truth=truth,
            labels=labels,
            groups=groups,
            stations=[photo.sample.station for photo in photos],
            infrared=np.array([photo.infrared for photo in photos], bool),
            sources=[photo.sample.source for photo in photos],
            names=[photo.sample.name for photo in photos],
        )

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, rows: npt.ArrayLike) -> Answered:
        """Some of the photos: n bools or indices."""
        chosen = np.arange(len(self))[np.asarray(rows)]
        return Answered(
            logits=self.logits[chosen],
            truth=self.truth[chosen],
            labels=self.labels,
            groups=self.groups[chosen],
            stations=[self.stations[i] for i in chosen],
            infrared=self.infrared[chosen],
            sources=[self.sources[i] for i in chosen],
            names=[self.names[i] for i in chosen],
        )

    def chances(self, temperature: float) -> npt.NDArray[np.float64]:
        """float64 (n, C)."""
        return probabilities(self.logits, temperature)


def decided(
    chances: npt.NDArray[np.float64],
    thresholds: Sequence[float],
    taxonomy: Taxonomy | None = None,
    rollup: float | None = None,
) -> Labels:
    """What the device would say of each photo, by the device's own code: n numbers, below C of a label, from C on of
    ``taxonomy.taxa``, -1 for ``unknown``.

    Args:
        chances: (n, C), after the temperature.
        thresholds, taxonomy, rollup: as for :func:`edge.model.decide.decide`.
    """
    return answers(chances, thresholds, taxonomy=taxonomy, rollup=rollup)[0]


def is_right(found: Labels, truth: Labels, classes: int, taxonomy: Taxonomy | None = None) -> npt.NDArray[np.bool_]:
    """Whether each answer is right: the label itself, or a taxon that the label lies under. ``unknown`` is not.

    Args:
        found: n numbers of :func:`decided`.
        truth: n label numbers.
        classes: C.
    """
    right = np.asarray(found == truth)
    for number, taxon in enumerate(taxonomy.taxa if taxonomy else (), classes):
        right |= (found == number) & np.isin(truth, taxon.members)
    return right
