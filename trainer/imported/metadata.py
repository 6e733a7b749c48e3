"""Reads what a ``.tflite`` says about itself: TFLite metadata as MediaPipe Model Maker writes it.

The metadata is a flatbuffer of its own inside the model's, and its label files are a zip behind it. Both come from
outside: every offset is checked before it is followed, lists and texts have caps, nothing is unpacked to disk. It
reads normalisation and labels, and never the network.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

from edge.errors import ConfigError, ModelError
from trainer.imported.scaling import Scaling
from trainer.imported.source import MAX_LABELS_BYTES, labels_of

_MAX_ITEMS = 64
_MAX_BUFFERS = 1 << 16
_MAX_TEXT_BYTES = 4096
_MAX_ZIP_BYTES = 4 << 20
# Places of fields, from the schemas tflite/schema.fbs and metadata_schema.fbs (M001).
_MODEL_BUFFERS, _MODEL_METADATA = 4, 6
_ENTRY_NAME, _ENTRY_BUFFER = 0, 1
_SUBGRAPHS = 3
_INPUTS, _OUTPUTS = 2, 3
_PROCESS_UNITS, _FILES = 4, 6
_OPTIONS_KIND, _OPTIONS = 0, 1
_MEAN, _STD = 0, 1
_FILE_NAME, _FILE_KIND, _FILE_LOCALE = 0, 2, 3
_NORMALISATION = 1
_AXIS_LABELS = 2


@dataclass(frozen=True)
class _Table:
    """A flatbuffer table at ``place``."""

    content: bytes
    place: int

    def field(self, number: int) -> int | None:
        """Where a field's value is, or None where the table leaves it out."""
        entries = self.place - self._number("<i", self.place)
        offset = 4 + 2 * number
        if offset + 2 > self._number("<H", entries):
            return None
        inside = self._number("<H", entries + offset)
        return self.place + inside if inside else None

    def integer(self, number: int, kind: str) -> int:
        place = self.field(number)
        return 0 if place is None else self._number(kind, place)

    def table(self, number: int) -> _Table | None:
        place = self.field(number)
        return None if place is None else _Table(self.content, self._follow(place))

    def tables(self, number: int, most: int = _MAX_ITEMS) -> Iterator[_Table]:
        first, length = self._vector(number)
        if length > most:
            raise ValueError(f"a list of {length}")
        for i in range(length):
            yield _Table(self.content, self._follow(first + 4 * i))

    def floats(self, number: int) -> tuple[float, ...]:
        first, length = self._vector(number)
        if length > _MAX_ITEMS:
            raise ValueError(f"{length} numbers")
        return struct.unpack_from(f"<{length}f", self.content, first) if length else ()

    def text(self, number: int) -> str:
        return self.data(number, _MAX_TEXT_BYTES).decode("utf-8")

    def data(self, number: int, most: int) -> bytes:
        first, length = self._vector(number)
        if length > most or first + length > len(self.content):
            raise ValueError(f"{length} bytes")
        return self.content[first : first + length]

    def _vector(self, number: int) -> tuple[int, int]:
        place = self.field(number)
        if place is None:
            return 0, 0
        start = self._follow(place)
        return start + 4, self._number("<I", start)

    def _follow(self, place: int) -> int:
        return place + self._number("<I", place)

    def _number(self, kind: str, place: int) -> int:
        if place < 0:  # struct would count from the end
            raise ValueError("an offset before the start")
        return int(struct.unpack_from(kind, self.content, place)[0])


def scaling(content: bytes) -> Scaling | None:
    """How a model's metadata says that pixels are scaled, or None where it says nothing.

    Raises:
        ModelError: the metadata is damaged (code ``damaged``).
    """
    try:
        tensor = _tensor(content, _INPUTS)
        for unit in tensor.tables(_PROCESS_UNITS) if tensor else ():
            options = unit.table(_OPTIONS)
            if options is not None and unit.integer(_OPTIONS_KIND, "<B") == _NORMALISATION:
                return Scaling(_three(options.floats(_MEAN)), _three(options.floats(_STD)))
    except (struct.error, ValueError, OverflowError, ConfigError) as error:
        raise _damaged(error) from error
    return None


def labels(content: bytes) -> tuple[str, ...] | None:
    """The labels that a model carries along, or None where it carries none.

    Raises:
        ModelError: the metadata, or the zip behind the model, is damaged (code ``damaged``).
        DataError: a label cannot be one.
    """
    try:
        tensor = _tensor(content, _OUTPUTS)
        named = [
            file for file in (tensor.tables(_FILES) if tensor else ()) if file.integer(_FILE_KIND, "<b") == _AXIS_LABELS
        ]
        named.sort(key=lambda file: bool(file.text(_FILE_LOCALE)))  # those in no certain language first
        content = _member(content, named[0].text(_FILE_NAME)) if named else b""
    except (struct.error, ValueError, OverflowError) as error:
        raise _damaged(error) from error
    return labels_of(content, "the model's own list of labels") if named else None


def _member(content: bytes, name: str) -> bytes:
    """A file of the zip that is appended to a model. Only its end is looked at, never millions of files."""
    try:
        with zipfile.ZipFile(io.BytesIO(content[-_MAX_ZIP_BYTES:])) as archive, archive.open(name) as member:
            return member.read(MAX_LABELS_BYTES + 1)  # one more than there may be, whatever the zip says
    except Exception as error:  # zlib and the other packers raise errors of their own
        raise ValueError(f"{name!r} cannot be unpacked") from error


def _tensor(content: bytes, which: int) -> _Table | None:
    """The metadata of the first input or output."""
    found = _metadata(content)
    if found is None:
        return None
    root = _Table(found, struct.unpack_from("<I", found)[0])
    graph = next(root.tables(_SUBGRAPHS), None)
    return None if graph is None else next(graph.tables(which), None)


def _metadata(content: bytes) -> bytes | None:
    model = _Table(content, struct.unpack_from("<I", content)[0])
    for entry in model.tables(_MODEL_METADATA):
        if entry.data(_ENTRY_NAME, _MAX_TEXT_BYTES) == b"TFLITE_METADATA":
            wanted = entry.integer(_ENTRY_BUFFER, "<I")
            for i, buffer in enumerate(model.tables(_MODEL_BUFFERS, _MAX_BUFFERS)):
                if i == wanted:
                    return buffer.data(0, len(content))
            raise ValueError("no such buffer")
    return None


def _three(numbers: tuple[float, ...]) -> tuple[float, float, float]:
    if len(numbers) not in (1, 3):
        raise ValueError(f"{len(numbers)} numbers for 3 channels")
    red, green, blue = numbers if len(numbers) == 3 else numbers * 3
    return red, green, blue


def _damaged(error: Exception) -> ModelError:
    return ModelError(
        f"the model's metadata is damaged ({error}). Take the model from its source again, or give --scaling and "
        "--labels.",
        code="damaged",
    )
