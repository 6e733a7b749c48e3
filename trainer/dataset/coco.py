"""COCO JSON as camera-trap archives publish it (COCO Camera Traps), and plain COCO with boxes. Never opens a photo."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge import pathtext
from edge.errors import DataError
from edge.model.decide import EMPTY
from trainer.dataset import outside
from trainer.dataset.found import UNLABELLED, DataSet, left_out, own_spelling, two_labels
from trainer.dataset.outside import Record
from trainer.dataset.samples import Box, Sample, Unreadable

IMAGES_FOLDER = "images"
"""Where photos may lie beside the JSON file, when its names do not say so."""


@dataclass(frozen=True)
class Annotation:
    """What was said of an image: its label, the animal's box if one was drawn, and whether it was said of the whole
    sequence, which is then often wrong for the single image."""

    label: str
    box: Box | None
    of_sequence: bool


@dataclass(frozen=True)
class Image:
    """One image of the file, with all that was said of it.

    Attributes:
        file: its name as the file has it, with forward slashes; not checked.
        record: the rest of its values.
    """

    identifier: str
    file: str
    record: Record
    annotations: list[Annotation] = field(default_factory=list)


@dataclass(frozen=True)
class Contents:
    """The images of a file, and how many annotations or boxes of it were of no use, by reason."""

    images: list[Image]
    unused: Counter[str]


def is_one(found: Record) -> bool:
    """Whether a JSON file's object looks like COCO with labels."""
    return all(isinstance(found.raw(key), list) for key in ("images", "annotations", "categories"))


def read(path: Path, found: Record | None = None, *, drop_sequence_labels: bool = False) -> DataSet:
    """Read a COCO file as a data set.

    Args:
        path: the JSON file; its photos lie in the same folder, or in ``images`` in it.
        found: its contents, if they were read already.
        drop_sequence_labels: leave out photos that have only a label of their whole sequence.

    Raises:
        DataError: a value is of the wrong type, an identifier is there twice, a file name leads out of the folder,
            or none of the photos is there.
    """
    content = contents(found if found is not None else outside.json_object(path))
    read_times = _Times()
    samples: list[Sample] = []
    rest: list[Unreadable] = []
    of_sequence = 0
    for image in content.images:
        said = _said(image)
        of_sequence += bool(said) and said[0].of_sequence
        if drop_sequence_labels:
            said = [each for each in said if not each.of_sequence]
        one = _sample(image, said, path.parent, read_times)
        if isinstance(one, Sample):
            samples.append(one)
        else:
            rest.append(one)
    missing = [each for each in rest if each.code == "missing"]
    if missing and not samples:
        raise DataError(
            f"{path} names {len(missing)} photos and none of them is there, {missing[0].name} for one. "
            f"Put the file into the photos' folder, or the photos into {path.parent / IMAGES_FOLDER}."
        )
    return DataSet(samples, rest, _notes(path, content, of_sequence, drop_sequence_labels, read_times, len(missing)))


def contents(found: Record) -> Contents:
    """Check and join the lists of a COCO file.

    Raises:
        DataError: a value is of the wrong type, or an identifier is there twice.
    """
    categories = _categories(found)
    images: dict[str, Image] = {}
    for record in found.records("images"):
        identifier = record.named("id")
        record.where = f"{found.where}: image {identifier}"
        if identifier in images:
            raise DataError(f"{record.where} is there twice. Give each image an id of its own.")
        file = record.text("file_name", longest=outside.MAX_NAME)
        images[identifier] = Image(identifier, file.replace("\\", "/"), record)
    unused: Counter[str] = Counter()
    for i, record in enumerate(found.records("annotations")):
        record.where = f"{found.where}: annotation {record.identifier('id') or f'number {i + 1}'}"
        image = images.get(record.named("image_id"))
        category = categories.get(record.named("category_id"))
        if category is None:
            record.refuse("category_id", "the id of a category")
        if image is None:
            unused["annotations name an image that is not listed"] += 1
            continue
        box = _box(record, image.record, unused)
        image.annotations.append(Annotation(category, box, record.flag("sequence_level_annotation")))
    return Contents(list(images.values()), unused)


def _categories(found: Record) -> dict[str, str]:
    categories: dict[str, str] = {}
    for record in found.records("categories"):
        identifier = record.named("id")
        record.where = f"{found.where}: category {identifier}"
        if identifier in categories:
            raise DataError(f"{record.where} is there twice. Give each category an id of its own.")
        categories[identifier] = own_spelling(record.text("name"))
    return categories


def _box(annotation: Record, image: Record, unused: Counter[str]) -> Box | None:
    """The box as shares of the image; None where there is none, or none that can be used."""
    relative, absolute = annotation.corners("bbox_relative"), annotation.corners("bbox")
    if relative is None and absolute is not None:
        width, height = image.number("width"), image.number("height")
        if not width or not height or width <= 0 or height <= 0:
            unused["boxes are in pixels of an image whose width and height are not given"] += 1
            return None
        relative = (absolute[0] / width, absolute[1] / height, absolute[2] / width, absolute[3] / height)
    if relative is None:
        return None
    box = clipped(*relative)
    unused["boxes lie outside their image or have no size"] += box is None
    return box


def clipped(x: float, y: float, width: float, height: float) -> Box | None:
    """The part of a box that lies in the photo; None where there is none."""
    left, top = max(0.0, x), max(0.0, y)
    inner_width = min(width + min(0.0, x), 1 - left)
    inner_height = min(height + min(0.0, y), 1 - top)
    return Box(left, top, inner_width, inner_height) if inner_width > 0 and inner_height > 0 else None


def _said(image: Image) -> list[Annotation]:
    """What counts: what was said of the image itself goes before what was said of its whole sequence."""
    itself = [each for each in image.annotations if not each.of_sequence]
    return itself or image.annotations


def _sample(image: Image, said: list[Annotation], folder: Path, times: _Times) -> Sample | Unreadable:
    """The image as a sample, or why it is none."""
    inside = outside.inside(image.file, image.record.where)
    name = pathtext.to_text(inside)
    labels = {each.label for each in said if each.label.casefold() not in UNLABELLED}
    label = next(iter(labels)) if len(labels) == 1 else ""
    if image.record.flag("corrupt"):
        return left_out(name, label, "corrupt", "is marked as corrupt in the label file.")
    if not labels:
        return left_out(name, "", "no label", "has no label in the label file.")
    if not label:
        return two_labels(name, labels)
    path = next((path for path in _places(folder, inside) if os.path.isfile(path)), None)
    if path is None:
        return left_out(name, label, "missing", "is named in the label file, but is not there.")
    return Sample(
        path=path,
        name=pathtext.to_text(path.relative_to(folder).as_posix()),
        label=label,
        station=image.record.identifier("location"),
        sequence=image.record.identifier("seq_id"),
        taken=times.read(image.record),
        boxes=tuple(each.box for each in said if each.box and each.label == label != EMPTY),
    )


def _places(folder: Path, inside: str) -> Iterator[Path]:
    yield folder / inside
    yield folder / IMAGES_FOLDER / inside


class _Times:
    """Reads capture times and counts what is none: one camera without a clock must not refuse an archive."""

    def __init__(self) -> None:
        self.unread = 0

    def read(self, image: Record) -> str | None:
        key = "datetime" if image.raw("datetime") is not None else "date_captured"
        try:
            time = outside.time(image.identifier(key) or "")
        except ValueError:
            self.unread += 1
            return None
        return time.local if time else None


def _notes(path: Path, content: Contents, of_sequence: int, dropped: bool, times: _Times, missing: int) -> list[str]:
    notes = [f"{path}: {count} {what}." for what, count in content.unused.items() if count]
    if missing:
        notes.append(f"{path}: {missing} of {len(content.images)} photos are named there but are not on this machine.")
    if of_sequence:
        what = "they are left out" if dropped else "some will be wrong, such as an empty frame of a visit"
        notes.append(f"{path}: {of_sequence} photos have only the label of their whole sequence; {what}.")
    if times.unread:
        notes.append(f"{path}: the time of {times.unread} photos is not one such as 2022-12-31 09:52:50; it is unused.")
    return notes
