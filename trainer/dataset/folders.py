"""Folders as labels: a folder per class, the same below ``train/ val/ test/``, or below a folder per station.
Never opens a photo."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from edge import pathtext
from edge.errors import DataError
from edge.photo import is_candidate
from trainer.dataset.found import PARTS, DataSet, composed, left_out
from trainer.dataset.samples import TRAIN, Sample, Unreadable

LAYOUTS = ("auto", "classes", "parts", "stations")
_NOTES = frozenset({".csv", ".json", ".md", ".txt"})
"""Endings of files that people keep beside the folders, and that nobody takes for photos."""
_CAMERA_FOLDER = re.compile(r"\d{3}[\w-]{5}|DCIM|\d[\d_. -]*", re.IGNORECASE)
"""``100RECNX``, ``DCIM``, ``2024-05-01``: folders that a camera makes, or a day; never a class."""
_STATION_NAME = re.compile(
    r"(station|site|cam(era)?|loc(ation)?|plot|trap|deployment)[ _.-]?([a-z]|\d[\w.-]*)|[a-z]{1,3}[ _-]?\d+",
    re.IGNORECASE,
)
"""What a station's folder is called where nobody says what folders mean: Station A, site_12, CT07. No species is."""
_STATION = re.compile(r"(station|site|cam(era)?|loc(ation)?|plot|trap|deployment)(?![a-z])[\w .-]*", re.IGNORECASE)


def read(data: Path, layout: str = "auto") -> DataSet:
    """Read a folder of folders.

    Args:
        data: the folder.
        layout: ``classes``: a folder per class; ``parts``: ``train``, ``val`` and ``test``, each with a folder per
            class; ``stations``: a folder per station, each with a folder per class; ``auto``: find out which.

    Raises:
        DataError: the folder cannot be read, or is not laid out so.
    """
    if layout not in LAYOUTS:
        raise DataError(f"the layout {layout!r} is not known, expected one of {', '.join(LAYOUTS)}.")
    folders = photo_folders(data)
    if layout == "parts" or (layout == "auto" and _are_parts(folders)):
        return _parts(data)
    if layout == "stations":
        return _stations(data)
    if layout == "auto" and _are_stations(folders):
        found = _stations(data)
        return DataSet(found.samples, found.left_out, [_read_as_stations(data, folders)])
    samples, rest = _classes(data, data)
    return DataSet(samples, rest)


def photo_folders(data: Path) -> list[Path]:
    """The folders of a folder that hold a photo, at any depth."""
    return [path for path in entries(data) if path.is_dir() and _holds_photos(path)]


def entries(folder: Path) -> list[Path]:
    """What lies in a folder and is not hidden, in a stable order.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}.") from error


def _classes(
    root: Path, data: Path, *, station: str | None = None, part: str | None = None
) -> tuple[list[Sample], list[Unreadable]]:
    """The class folders in ``root``, which is ``data`` or lies in it."""
    samples: list[Sample] = []
    rest: list[Unreadable] = []
    for path in entries(root):
        if not path.is_dir():
            rest += _loose(path, data)
            continue
        files = _files(path)
        if not any(is_candidate(file) and file.is_file() for file in files):
            why = "cannot be read" if path in files else "holds no photos"
            rest.append(left_out(_name(path, data), "", "no photos", f"{why}, so it is no label."))
            continue
        label = composed(path.name)
        for file in files:
            name = _name(file, data)
            if file.is_file():
                samples.append(Sample(file, name, label, station=station, part=part))
            else:
                rest.append(left_out(name, label, "not a file", _why_no_file(file)))
    return samples, rest


def _why_no_file(path: Path) -> str:
    if path.is_dir():
        return "is a link to a folder, which is not followed." if path.is_symlink() else "cannot be read."
    return "is not a file."  # a named pipe would never end, a link to nothing has nothing


def _parts(data: Path) -> DataSet:
    samples: list[Sample] = []
    rest: list[Unreadable] = []
    for path in entries(data):
        part = PARTS.get(path.name.casefold())
        if not path.is_dir():
            rest += _loose(path, data)
        elif part is None and _holds_photos(path):
            raise DataError(
                f"{data} has the folder {path.name!r} beside its parts, expected only train, val and test. Move it."
            )
        elif part is not None:
            more, odd = _classes(path, data, part=part)
            samples, rest = samples + more, rest + odd
    return DataSet(samples, rest)


def _stations(data: Path) -> DataSet:
    samples: list[Sample] = []
    rest: list[Unreadable] = []
    for path in entries(data):
        if path.is_dir():
            more, odd = _classes(path, data, station=pathtext.to_text(path.name))
            samples, rest = samples + more, rest + odd
        else:
            rest += _loose(path, data)
    return DataSet(samples, rest)


def _are_parts(folders: list[Path]) -> bool:
    """Whether these are the parts of a divided data set. A class may well be called ``test``: so all must be parts, and
    the training part, or all if there is none, must hold class folders, neither photos nor a camera's folders."""
    parts = [PARTS.get(path.name.casefold()) for path in folders]
    if not parts or None in parts:
        return False
    telling = [path for path, part in zip(folders, parts, strict=True) if part == TRAIN] or folders
    inner = [each.name for path in telling for each in photo_folders(path)]
    return not any(_photos_in(path) for path in telling) and not any(map(_CAMERA_FOLDER.fullmatch, inner))


def _are_stations(folders: list[Path]) -> bool:
    """Whether these are stations: called so, none holds photos itself, and most of the folders in them recur in another
    one. Names decide, for a folder per class may as well have a folder per station in it."""
    if not all(_STATION_NAME.fullmatch(path.name) for path in folders):
        return False
    if len(folders) < 2 or any(_photos_in(path) for path in folders):
        return False
    names = [inner.name for path in folders for inner in photo_folders(path)]
    if any(_CAMERA_FOLDER.fullmatch(name) or _STATION.fullmatch(name) for name in names):
        return False  # a class with a folder per camera card, day or station in it
    times = Counter(names)
    return 2 * sum(count for count in times.values() if count > 1) >= len(names)


def _read_as_stations(data: Path, folders: list[Path]) -> str:
    shown = ", ".join(pathtext.to_text(path.name) for path in folders[:3])
    return (
        f"{data}: the same folder names recur in {shown}{' …' if len(folders) > 3 else ''}, so these are read as "
        "stations and the folders in them as labels; --layout classes reads them as labels instead."
    )


def _photos_in(folder: Path) -> bool:
    return any(is_candidate(path) and path.is_file() for path in entries(folder))


def _holds_photos(folder: Path) -> bool:
    """Whether a photo lies below, at any depth, looked for no longer than needed."""
    return any(is_candidate(path) and path.is_file() for path in _below(folder))


def _files(folder: Path) -> list[Path]:
    """All that is below a folder but folders, and nothing that is hidden or in a hidden folder. Two kinds of folders
    are there, lest their photos be missing in silence: links, which may lead in a circle, and what cannot be read."""
    return sorted(_below(folder))


def _below(folder: Path) -> Iterator[Path]:
    unread: list[OSError] = []
    for place, inner, names in os.walk(folder, onerror=unread.append):
        inner[:] = [name for name in inner if not name.startswith(".")]
        links = (name for name in inner if os.path.islink(os.path.join(place, name)))
        yield from (Path(place, name) for name in (*names, *links) if not name.startswith("."))
    yield from (Path(error.filename) for error in unread)


def _loose(path: Path, data: Path) -> list[Unreadable]:
    if path.suffix.lower() in _NOTES or path.stem.casefold() == "readme":
        return []
    reason = "lies beside the folders, so it has no label. Move it into one."
    return [left_out(_name(path, data), "", "no label", reason)]


def _name(path: Path, data: Path) -> str:
    return pathtext.to_text(path.relative_to(data).as_posix())
