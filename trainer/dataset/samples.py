"""What a data set is, whatever layout it came in: a list of samples. Owns the record types and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TRAIN, VALIDATION, TEST = "train", "validation", "test"


@dataclass(frozen=True)
class Box:
    """Where an animal is: left, top, width and height as shares, 0 to 1, of the whole photo."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Sample:
    """One labelled file.

    Attributes:
        path: where it lies.
        name: its path as people know it, relative to the data set, with forward slashes.
        label: what a person says is in it.
        station: the place where the camera stood, if the data set says.
        sequence: an identifier of photos that belong together, if the data set says; see :attr:`sequence_key`.
        taken: capture time on the camera's clock, ISO 8601 without offset, if the data set says.
        part: ``train``, ``validation`` or ``test``, if the data set is divided already.
        source: where the photo came from, such as a camera or the web, if the data set says.
        boxes: where the animals are, if a detector or a person said; for augmentation and for auditing labels only.
    """

    path: Path
    name: str
    label: str
    station: str | None = None
    sequence: str | None = None
    taken: str | None = None
    part: str | None = None
    source: str | None = None
    boxes: tuple[Box, ...] = ()

    @property
    def sequence_key(self) -> tuple[str | None, str] | None:
        """The sequence among those of all stations, which may each count their own from 1."""
        return None if self.sequence is None else (self.station, self.sequence)


@dataclass(frozen=True)
class Unreadable:
    """A file of the data set that cannot be used, and why."""

    name: str
    label: str
    code: str
    reason: str
