"""What a data set is, whatever layout it came in: a list of samples. Owns the two record types and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """One labelled file.

    Attributes:
        path: where it lies.
        name: its path as people know it, relative to the data set, with forward slashes.
        label: what a person says is in it.
        station: the place where the camera stood, if the data set says.
        sequence: an identifier of photos that belong together, if the data set says.
    """

    path: Path
    name: str
    label: str
    station: str | None = None
    sequence: str | None = None


@dataclass(frozen=True)
class Unreadable:
    """A file of the data set that cannot be used, and why."""

    name: str
    label: str
    code: str
    reason: str
