"""Boxes from a detector or an annotator, put beside the samples they belong to. Never opens a photo, and never uses a
file name of the boxes' file to open anything: it is only compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from edge import pathtext
from edge.errors import DataError
from edge.model.decide import EMPTY
from trainer.dataset import coco, outside
from trainer.dataset.found import DataSet
from trainer.dataset.outside import Record
from trainer.dataset.samples import Box, Sample

CONFIDENCE = 0.2
"""A detection below is more often a bush than an animal; MegaDetector's own advice is 0.2 for its current models."""
_ANIMAL = "animal"

Boxes = dict[str, tuple[Box, ...]]


def attach(found: DataSet, path: Path, *, confidence: float = CONFIDENCE) -> DataSet:
    """Give samples their boxes; a sample that the file knows loses those that it had.

    A sample is found by its path, else by the longest end of it that only one sample and one entry have: a detector is
    often run on another folder above or below.

    Args:
        found: what a reader found.
        path: MegaDetector results (format 1.x), or COCO JSON with ``bbox`` or ``bbox_relative``.
        confidence: a detector's boxes below this, 0 to 1, are not used.

    Raises:
        DataError: the file is neither, a value in it is of the wrong type, or it knows none of the samples.
    """
    known = read(path, confidence=confidence)
    matched = match([sample.name for sample in found.samples], known)
    if not matched:
        raise DataError(
            f"{path} has boxes for {len(known)} photos, none of which is in this data set. "
            "Give the boxes of these photos, with paths below the same folder."
        )
    samples = [
        replace(sample, boxes=known[matched[sample.name]]) if sample.name in matched else sample
        for sample in found.samples
    ]
    return replace(found, samples=samples, notes=[*found.notes, *_notes(path, samples, matched, known)])


def read(path: Path, *, confidence: float = CONFIDENCE) -> Boxes:
    """The boxes of each file that a boxes' file knows, by the name it gives, with forward slashes.

    Raises:
        DataError: see :func:`attach`.
    """
    found = outside.json_object(path)
    if "detection_categories" in found:
        return _once(path, _megadetector(found, confidence))
    if coco.is_one(found):
        return _once(path, _coco(found))
    raise DataError(
        f"{path} holds {', '.join(map(ascii, found.keys()[:5])) or 'nothing'}, expected MegaDetector results "
        "(detection_categories, images) or COCO (images, annotations, categories)."
    )


def match(samples: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """The entry that belongs to each sample, for those that have one; no entry belongs to two.

    >>> match(["A/1.jpg", "B/1.jpg", "B/2.jpg"], ["photos/A/1.jpg", "2.jpg", "1.jpg"])
    {'A/1.jpg': 'photos/A/1.jpg', 'B/2.jpg': '2.jpg'}
    """
    samples, known = list(dict.fromkeys(samples)), list(known)
    exact = set(samples) & set(known)
    found = {name: name for name in samples if name in exact}
    sample_ends = Counter(end for name in samples for end in _ends(name))
    entries = _by_end(name for name in known if name not in exact)
    for name in samples:
        unique = (end for end in _ends(name) if sample_ends[end] == 1 and entries.get(end))
        end = None if name in exact else next(unique, None)
        if end is not None:
            found[name] = entries[end] or ""
    return found


def _by_end(names: Iterable[str]) -> dict[str, str | None]:
    """Names by each of their ends; None where two share one."""
    found: dict[str, str | None] = {}
    for name in names:
        for end in _ends(name):
            found[end] = None if end in found else name
    return found


def _ends(name: str) -> Iterator[str]:
    """A path, and what is left of it as folders are taken from its front, longest first."""
    parts = name.split("/")
    return ("/".join(parts[i:]) for i in range(len(parts)))


def _once(path: Path, entries: Iterable[tuple[str, tuple[Box, ...]]]) -> Boxes:
    found: Boxes = {}
    for name, boxes in entries:
        if name in found:
            raise DataError(f"{path} has the file {ascii(name)[:80]} twice. Leave one.")
        found[name] = boxes
    return found


def _coco(found: Record) -> Iterator[tuple[str, tuple[Box, ...]]]:
    for image in coco.contents(found).images:
        boxes = tuple(each.box for each in image.annotations if each.box and each.label != EMPTY)
        yield _plain(image.file), boxes


def _megadetector(found: Record, confidence: float) -> Iterator[tuple[str, tuple[Box, ...]]]:
    names = found.inner("detection_categories")
    animals = {key for key in names.keys() if names.text(key).casefold() == _ANIMAL}  # noqa: SIM118 - not a dict
    for image in found.records("images"):
        file = image.text("file", longest=outside.MAX_NAME)
        image.where = f"{found.where}: {ascii(file)[:80]}"
        boxes = []
        if image.raw("detections") is not None:  # null where the detector failed
            boxes = [_detected(each, animals, confidence) for each in image.records("detections")]
        yield _plain(file), tuple(box for box in boxes if box)


def _detected(detection: Record, animals: set[str], confidence: float) -> Box | None:
    category, certainty = detection.named("category"), detection.number("conf")
    if certainty is None or not 0 <= certainty <= 1:
        detection.refuse("conf", "a number from 0 to 1")
    corners = detection.corners("bbox")
    if corners is None:
        detection.refuse("bbox", "four numbers: x, y, width, height")
    if max(map(abs, corners)) > 2:
        detection.refuse("bbox", "shares of the photo from 0 to 1, not pixels")
    return coco.clipped(*corners) if category in animals and certainty >= confidence else None


def _plain(name: str) -> str:
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    return pathtext.to_text("/".join(parts)) if outside.can_be_a_name(name) else ascii(name)


def _notes(path: Path, samples: list[Sample], matched: dict[str, str], known: Boxes) -> list[str]:
    def count(of: Callable[[Sample], bool]) -> int:
        return sum(of(sample) for sample in samples)

    boxed = count(lambda sample: sample.name in matched and bool(sample.boxes))
    bare = count(lambda sample: sample.name in matched and not sample.boxes)
    absent = count(lambda sample: sample.name not in matched)
    strange = len(known) - len(set(matched.values()))
    notes = [f"{path}: boxes for {boxed} of {len(samples)} photos."]
    if bare:
        notes.append(f"{path}: it knows {bare} photos without a box that counts.")
    if absent or strange:
        notes.append(
            f"{path}: it does not know {absent} photos, and {strange} of its entries are none of these photos."
        )
    return notes
