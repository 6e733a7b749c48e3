"""What was found in a data set, to look at: contact sheets, and the whole lists as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from edge.errors import DataError
from trainer import contact_sheet
from trainer.contact_sheet import Tile
from trainer.dataset.findings import Check
from trainer.dataset.samples import Unreadable

SHEETS = ("label_conflicts.jpg", "leaks.jpg", "suspicious.jpg", "boxes.jpg", "duplicates.jpg", "labels.jpg")
FINDINGS, UNREADABLE = "findings.csv", "unreadable.csv"


def write_sheets(result: Check, folder: Path) -> list[Path]:
    """Write contact sheets of what was found, and the whole lists as CSV; a kind of which nothing was found has none.

    Args:
        result: of :func:`check`.
        folder: made if it is not there; sheets of an earlier check in it are replaced or removed.

    Returns:
        What was written.

    Raises:
        DataError: the folder cannot be written to.
    """
    kinds = (_conflict_sets, _leak_sets, _suspicion_sets, _box_sets, _duplicate_sets, _label_sets)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, kind in zip(SHEETS, kinds, strict=True):
            title, sets = kind(result)
            if sets:
                contact_sheet.write(folder / name, _title(title, len(sets)), sets)
                written.append(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
        _write_csv(folder / FINDINGS, ("kind", "photo", "label_or_part", "other", "other_label_or_part"), _rows(result))
        names = [each.name for each in fields(Unreadable)]
        _write_csv(folder / UNREADABLE, names, ([getattr(each, name) for name in names] for each in result.unreadable))
    except OSError as error:
        raise DataError(f"{folder} cannot be written to: {error.strerror}. Give another folder.") from error
    return [*written, folder / FINDINGS, folder / UNREADABLE]


def _title(title: str, count: int) -> str:
    most = contact_sheet.MOST
    return f"{title}: {count}" if count <= most else f"{title}: {count}, of which {most} are shown"


_Sets = tuple[str, list[list[Tile]]]


def _tile(result: Check, name: str, title: str, *more: str, boxes: bool = False) -> Tile:
    sample = result.samples[name]
    return Tile(sample.path, title, (name, *more), sample.boxes if boxes else ())


def _conflict_sets(result: Check) -> _Sets:
    return "One picture, two labels", [
        [_tile(result, each.photo, each.label, each.why), _tile(result, each.other, each.other_label)]
        for each in result.label_conflicts
    ]


def _leak_sets(result: Check) -> _Sets:
    return "Photos that leak between the given parts", [
        [_tile(result, each.photo, each.part, each.why), _tile(result, each.other, each.other_part)]
        for each in result.leaks
    ]


def _suspicion_sets(result: Check) -> _Sets:
    return "Labels that the model doubts", [
        [_tile(result, each.photo, f"{each.label}? The model: {each.predicted}", f"{each.confidence:.0%} sure")]
        for each in result.suspicious
    ]


def _box_sets(result: Check) -> _Sets:
    return "Labels that the boxes speak against", [
        [_tile(result, each.photo, each.label, each.reason, boxes=True)] for each in result.boxes
    ]


def _duplicate_sets(result: Check) -> _Sets:
    sets = sorted(result.exact_duplicates + result.near_duplicates, key=len, reverse=True)
    return "Duplicates and near-duplicates; training keeps a set together", [
        [
            _tile(result, name, f"{result.samples[name].label} ({i} of {len(names)})")
            for i, name in enumerate(names, start=1)
        ]
        for names in sets
    ]


def _label_sets(result: Check) -> _Sets:
    """A few photos of each label, spread over all of them."""
    by_label: dict[str, list[str]] = {}
    for name, sample in result.samples.items():
        by_label.setdefault(sample.label, []).append(name)
    sets = []
    for label, facts in result.labels.items():
        names = by_label[label]
        chosen = [names[i * len(names) // 4] for i in range(4)] if len(names) >= 4 else names
        sets.append([_tile(result, name, f"{label} ({facts.count})") for name in chosen])
    return "Labels", sets


def _rows(result: Check) -> Iterator[tuple[str, ...]]:
    for conflict in result.label_conflicts:
        yield f"{conflict.why}, two labels", conflict.photo, conflict.label, conflict.other, conflict.other_label
    for leak in result.leaks:
        yield f"leak, {leak.why}", leak.photo, leak.part, leak.other, leak.other_part
    for each in result.suspicious:
        yield f"model doubts, {each.confidence:.3f}", each.photo, each.label, "", each.predicted
    for doubt in result.boxes:
        yield doubt.reason, doubt.photo, doubt.label, "", ""
    for kind, sets in (("same file", result.exact_duplicates), ("near-duplicate", result.near_duplicates)):
        for first, *others in sets:
            for other in others:
                yield kind, first, result.samples[first].label, other, result.samples[other].label


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
