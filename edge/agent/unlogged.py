"""Classifying photos without a log: for a look at what a bundle says. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge import pathtext
from edge import photo as photos
from edge.agent.config import Source
from edge.agent.examine import sure
from edge.agent.watch import scan
from edge.errors import FieldmarkError

if TYPE_CHECKING:
    from PIL import Image

    from edge.agent.examine import ImageClassifier
    from edge.model.decide import Decision


@dataclass(frozen=True)
class Answered:
    """One file's end.

    Attributes:
        photo: its path, as :mod:`edge.pathtext` writes it.
        taken: ISO 8601 with offset.
        decision: None where it failed.
        duplicate_of: the first photo with the same content in this batch.
    """

    photo: str
    sha256: str | None
    taken: str | None
    decision: Decision | None
    failure: str | None = None
    duplicate_of: str | None = None


def files(paths: Iterable[Path], troubles: dict[Path, str]) -> Iterator[Path]:
    """The files that are named, and for a folder every photo and video below it."""
    for path in paths:
        if path.is_dir():
            yield from (candidate.path for candidate in scan(Source(path), troubles))
        else:
            yield path


def classify(
    paths: Iterable[Path], classifier: ImageClassifier, *, utc_offset: str | None = None
) -> Iterator[Answered]:
    """Classify files one by one. A photo that fails is an answer with its reason and never ends the batch."""
    first: dict[str, tuple[str, Decision]] = {}  # by SHA-256
    for path in paths:
        name = pathtext.to_text(path)
        photo: photos.Photo | None = None
        try:
            photo = photos.read(path)
            same, decision = first.get(photo.sha256, (None, None))
            image = photos.open_image(photo.data, path.name)
            taken = _taken(path, image, utc_offset)
            decision = decision or _decided(classifier, image, photo.data)
            first.setdefault(photo.sha256, (name, decision))
            yield Answered(name, photo.sha256, taken, decision, duplicate_of=same)
        except FieldmarkError as error:
            taken = _taken(path, None, utc_offset)
            yield Answered(name, photo.sha256 if photo else None, taken, None, failure=pathtext.to_text(str(error)))


def _decided(classifier: ImageClassifier, image: Image.Image, data: bytes) -> Decision:
    decision = classifier.classify_image(image).decision
    return sure(decision, photos.damage(image, data))


def _taken(path: Path, image: Image.Image | None, utc_offset: str | None) -> str | None:
    try:
        return photos.taken(path, path.stat().st_mtime, image, utc_offset).iso
    except OSError:  # gone meanwhile, and with it its time
        return None
