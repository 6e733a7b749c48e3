"""Reads data sets as people have them into samples: folders, CSV, COCO JSON, a Camtrap DP package. Finds out which it
is and checks what was found; the formats have files of their own. Never opens a photo."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from edge.errors import DataError
from edge.model.decide import EMPTY, PERSON
from trainer.dataset import boxes as box_files
from trainer.dataset import camtrap_dp, coco, folders, outside, table
from trainer.dataset.found import DECISIONS, two_labels
from trainer.dataset.found import DataSet as DataSet  # re-exported: what scan returns
from trainer.dataset.samples import TRAIN, Sample, Unreadable

MAX_LABELS = 1000
MAX_LABEL_LENGTH = 100
"""As in a bundle: a training must not end in labels that its export refuses."""
_PHOTO_FOLDERS = frozenset({"images", "photos", "media", "img"})
"""Names of a folder of photos beside a label file; one such folder is no class."""


def read(data: Path, *, sequence_column: str | None = None) -> list[Sample]:
    """The samples of :func:`scan`."""
    return scan(data, sequence_column=sequence_column).samples


def scan(
    data: Path,
    *,
    sequence_column: str | None = None,
    layout: str = "auto",
    boxes: Path | None = None,
    box_confidence: float = box_files.CONFIDENCE,
    drop_sequence_labels: bool = False,
) -> DataSet:
    """Read a data set.

    Args:
        data: a folder of folders (:func:`trainer.dataset.folders.read`), a CSV file (:mod:`trainer.dataset.table`), a
            COCO JSON file (:mod:`trainer.dataset.coco`), a Camtrap DP package (:mod:`trainer.dataset.camtrap_dp`), or
            a folder of photos that holds exactly one such file.
        sequence_column: a CSV column, by another name, that says which photos belong together.
        layout: of a folder: ``auto``, ``classes``, ``parts`` or ``stations``.
        boxes: a file of boxes for :func:`trainer.dataset.boxes.attach`.
        box_confidence: a detector's boxes below this, 0 to 1, are not used.
        drop_sequence_labels: leave out photos of a COCO file that have only a label of their whole sequence.

    Returns:
        The samples and what was left out, in a stable order, with notes for the user.

    Raises:
        DataError: nothing is there, it is no data set, or a label cannot be one.
    """
    source, notes = _source(data, layout)
    if sequence_column and source.is_dir():
        raise DataError(f"{data} is a folder; --sequence-column names a column of a CSV file.")
    if source.is_dir():
        found = folders.read(source, layout)
    elif source.suffix.lower() == ".json":
        if sequence_column:
            raise DataError(f"{source} is a JSON file; --sequence-column names a column of a CSV file.")
        found = _json(source, drop_sequence_labels)
    else:
        found = table.read(source, sequence_column=sequence_column)
    found = _each_file_once(replace(found, notes=notes + found.notes), source)
    _check(found, data, source)
    return box_files.attach(found, boxes, confidence=box_confidence) if boxes else found


def check_trainable(found: DataSet, data: Path) -> None:
    """Check that there is something to tell apart, and that the given parts allow it.

    Raises:
        DataError: there are fewer than two labels; some photos have a part and some none; or a part has a label that
            the training part has not.
    """
    labels = sorted({sample.label for sample in found.samples})
    if len(labels) < 2:
        bare = "".join(f" {each.reason}" for each in found.left_out if each.code == "no photos")
        raise DataError(
            f"{data} has {len(labels)} label{'' if len(labels) == 1 else 's'}, at least 2 are needed. "
            f"Expected a folder per class, such as deer/ fox/ empty/.{bare}"
        )
    _check_parts(found, data)


def _check_parts(found: DataSet, data: Path) -> None:
    parts = {sample.part for sample in found.samples}
    if parts == {None}:
        return
    if None in parts:
        bare = next(sample.name for sample in found.samples if sample.part is None)
        raise DataError(f"{data}: {bare} is in no part, others are. Write train, val or test for every photo, or none.")
    if TRAIN not in parts:
        raise DataError(f"{data} has no train part; found {', '.join(sorted(map(str, parts)))}. Add photos to train.")
    learned = {sample.label for sample in found.samples if sample.part == TRAIN}
    for sample in found.samples:
        if sample.label not in learned:
            raise DataError(
                f"{data}: the {sample.part} part has the label {sample.label!r} and the train part has no photo of it. "
                f"Add some to train, or take {sample.label!r} out of {sample.part}."
            )


# --- what it is


def _source(data: Path, layout: str) -> tuple[Path, list[str]]:
    """The folder or label file to read, and what to say if it is not ``data`` itself."""
    if not _exists(data):
        raise DataError(f"{data} does not exist. Give a folder with one folder per class, or a CSV or JSON file.")
    if not data.is_dir():
        if layout != "auto":
            raise DataError(f"{data} is a file; --layout says how folders are laid out.")
        return data, []
    if layout != "auto":
        return data, []
    package = data / camtrap_dp.PACKAGE
    if package.is_file():
        return package, [f"{data} holds {package.name}, so it is read as a Camtrap DP package."]
    if _class_folders(data):
        return data, []
    files = [path for path in folders.entries(data) if path.is_file() and _is_label_file(path)]
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise DataError(f"{data} holds {len(files)} label files ({names}), expected one. Give the one that counts.")
    return (files[0], [f"{data} holds {files[0].name}, so that is read."]) if files else (data, [])


def _exists(data: Path) -> bool:
    try:
        return data.exists()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return False


def _class_folders(data: Path) -> bool:
    """Whether folders hold the photos, by class: not where there is only one, called ``images``."""
    names = [path.name.casefold() for path in folders.photo_folders(data)]
    return bool(names) and not (len(names) == 1 and names[0] in _PHOTO_FOLDERS)


def _is_label_file(path: Path) -> bool:
    if path.suffix.lower() == ".csv":
        return table.looks_like_one(path)
    if path.suffix.lower() != ".json":
        return False
    try:
        return coco.is_one(outside.json_object(path))
    except DataError:  # some other program's
        return False


def _json(path: Path, drop_sequence_labels: bool) -> DataSet:
    if camtrap_dp.is_one(path):
        return camtrap_dp.read(path)
    found = outside.json_object(path)
    if "detection_categories" in found:
        raise DataError(f"{path} holds a detector's boxes, not labels. Give the labels, and this file with --boxes.")
    if not coco.is_one(found):
        raise DataError(
            f"{path} holds {', '.join(map(ascii, found.keys()[:5])) or 'nothing'}, expected COCO: lists called images, "
            f"annotations and categories. A Camtrap DP package is given as its {camtrap_dp.PACKAGE}."
        )
    return coco.read(path, found, drop_sequence_labels=drop_sequence_labels)


# --- what was found


def _each_file_once(found: DataSet, source: Path) -> DataSet:
    """Label files may have a line per animal: one file is one sample, and with two labels none."""
    by_path: dict[str, list[Sample]] = {}
    for sample in found.samples:
        by_path.setdefault(os.path.normpath(sample.path), []).append(sample)
    if len(by_path) == len(found.samples):
        return found
    samples: list[Sample] = []
    rest: list[Unreadable] = []
    for same in by_path.values():
        labels = {sample.label for sample in same}
        if len(labels) == 1:
            samples.append(replace(same[0], boxes=tuple(box for sample in same for box in sample.boxes)))
        else:
            rest.append(two_labels(same[0].name, labels))
    again = len(found.samples) - len(by_path)
    note = f"{source}: {again} lines name a file that another line names, too; each file is taken once."
    return DataSet(samples, found.left_out + rest, [*found.notes, note])


def _check(found: DataSet, data: Path, source: Path) -> None:
    labels = sorted({sample.label for sample in found.samples})
    if not labels:
        first = f" {len(found.left_out)} files are left out: {found.left_out[0].reason}" if found.left_out else ""
        raise DataError(f"{data} has 0 labels. {_expected(source)}{first}")
    for label in labels:
        fault = _label_fault(label)
        if fault:
            raise DataError(f"{data} has the label {label[:MAX_LABEL_LENGTH]!r}; {fault}")
    if len(labels) > MAX_LABELS:
        raise DataError(f"{data} has {len(labels)} labels, at most {MAX_LABELS} are trained.")
    folded: dict[str, str] = {}
    for label in labels:
        other = folded.setdefault(label.casefold(), label)
        if other != label:
            raise DataError(f"{data} has labels {other!r} and {label!r}, which differ only in case. Rename one.")


def _expected(source: Path) -> str:
    """What would have labels; and why a label file that lies in the folder was not taken for one."""
    if not source.is_dir():
        return f"Expected photos in {source.name}, each with its label."
    expected = "Expected a folder per class with photos in it, such as deer/ fox/ empty/."
    for path in folders.entries(source):
        try:
            if path.is_file() and path.suffix.lower() == ".csv":
                table.read(path)
            elif path.is_file() and path.suffix.lower() == ".json":
                _json(path, drop_sequence_labels=False)
        except DataError as error:
            return f"{expected} {error}"
    return expected


def _label_fault(label: str) -> str | None:
    """Why a label cannot be one, and what to do, or None."""
    if len(label) > MAX_LABEL_LENGTH or not label.isprintable():
        return f"a label is at most {MAX_LABEL_LENGTH} characters on one line. Rename it."
    if label != label.strip():
        return "a label neither begins nor ends with a space. Rename it."
    if label.casefold() in DECISIONS:
        return "that is what a device says of a photo of no class. Rename it, or leave it out."
    for meant in (EMPTY, PERSON):
        if label.casefold() == meant and label != meant:
            return f"a device knows only {meant!r}, in lower case. Rename it to {meant!r}."
    return None
