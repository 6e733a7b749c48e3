"""Reads what a person says about a model trained elsewhere: the list of its labels and how it wants its photos."""

from __future__ import annotations

import re
from pathlib import Path

from edge.errors import ConfigError, DataError
from edge.model.bundle import MAX_LABELS
from edge.model.spec import InputSpec
from trainer.dataset.found import DECISIONS, own_spelling
from trainer.dataset.readers import MAX_LABEL_LENGTH

MAX_LABELS_BYTES = 1 << 20
_ASPECTS = ("pad", "stretch", "crop")
_RESAMPLES = ("bilinear", "bicubic", "box")
_CUTS = ("cut_top", "cut_bottom")
_NUMBERED = re.compile(r"(\d{1,6})[ \t]+(\S.*)")


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels of a text file, one a line, in the order of the model's answers.

    Teachable Machine numbers its lines (``0 fox``); the numbers are taken off where every line has its own, from 0.

    Raises:
        DataError: the file cannot be read, is no UTF-8 text, is too large, or a label cannot be one.
    """
    try:
        if not path.is_file():  # a named pipe would never end
            raise DataError(f"{path} is no file. --labels takes a text file with one label a line.")
        with path.open("rb") as opened:
            content = opened.read(MAX_LABELS_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return labels_of(content, str(path))


def labels_of(content: bytes, where: str) -> tuple[str, ...]:
    """The labels in the bytes of such a file; ``where`` is named in errors.

    Raises:
        DataError: as :func:`read_labels`.
    """
    if len(content) > MAX_LABELS_BYTES:
        raise DataError(f"{where} has more than {MAX_LABELS_BYTES} bytes; labels need less. Is it the right file?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is no UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    lines = re.split(r"\r\n|\r|\n", text.rstrip())
    labels = tuple(own_spelling(line) for line in _without_numbers([line.strip() for line in lines]))
    _check(labels, where)
    return labels


def _without_numbers(lines: list[str]) -> list[str]:
    found = [_NUMBERED.fullmatch(line) for line in lines]
    names = [match[2] for i, match in enumerate(found) if match and int(match[1]) == i]
    return names if len(names) == len(lines) else lines


def _check(labels: tuple[str, ...], where: str) -> None:
    if not 2 <= len(labels) <= MAX_LABELS:
        raise DataError(f"{where} has {len(labels)} labels, expected 2 to {MAX_LABELS}, one a line.")
    seen: dict[str, int] = {}
    for line, label in enumerate(labels, start=1):
        fault = _fault(label)
        if fault:
            raise DataError(f"{where}, line {line}: {label[:MAX_LABEL_LENGTH]!r} {fault}")
        first = seen.setdefault(label.casefold(), line)
        if first != line:
            raise DataError(f"{where}, line {line}: {label!r} is also on line {first}. Each label stands there once.")


def _fault(label: str) -> str | None:
    if not label:
        return "is an empty line. Every line is one of the model's answers: name it."
    if len(label) > MAX_LABEL_LENGTH or not label.isprintable():
        return f"is no label: at most {MAX_LABEL_LENGTH} printable characters."
    if label.casefold() in DECISIONS:
        return "is what a device says of a photo of no class. Give the class another name."
    return None


def parse_input(text: str) -> InputSpec:
    """How photos become a model's input, from an option.

    Args:
        text: the side, or ``HEIGHTxWIDTH``, then what differs from stretching with a bilinear filter: ``pad``,
            ``stretch`` or ``crop``; ``bilinear``, ``bicubic`` or ``box``; ``cut_top=ROWS``, ``cut_bottom=ROWS``. For
            example ``224``, ``224x320,pad``, ``224,crop,bicubic,cut_bottom=40``. Teachable Machine crops: ``224,crop``.

    Raises:
        ConfigError: something in it is not known, is there twice, or is out of range.
    """
    size, *words = [word.strip() for word in text[:500].split(",")]
    height, width = _size(size)
    settings: dict[str, str] = {}
    for word in words:
        key, value = _setting(word)
        if key in settings:
            raise ConfigError(f"input {text[:80]!r} sets {key} twice. Say it once.")
        settings[key] = value
    return InputSpec(
        height,
        width,
        resample=settings.get("resample", "bilinear"),
        aspect=settings.get("aspect", "stretch"),
        cut_top=int(settings.get("cut_top", "0")),
        cut_bottom=int(settings.get("cut_bottom", "0")),
    )


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text, re.ASCII)
    if match is None:
        raise ConfigError(
            f"input begins with {text[:40]!r}, expected the side or HEIGHTxWIDTH, such as 224 or 224x320."
        )
    return int(match[1]), int(match[2] or match[1])


def _setting(word: str) -> tuple[str, str]:
    if word in _ASPECTS:
        return "aspect", word
    if word in _RESAMPLES:
        return "resample", word
    key, equals, value = word.partition("=")
    if key in _CUTS and equals:
        if not re.fullmatch(r"\d{1,5}", value, re.ASCII):
            raise ConfigError(f"input {key} is {value[:20]!r}, expected a number of rows, such as {key}=40.")
        return key, value
    known = ", ".join((*_ASPECTS, *_RESAMPLES, *(f"{cut}=ROWS" for cut in _CUTS)))
    raise ConfigError(f"input has {word[:40]!r}, which is not known. Expected some of {known}.")
