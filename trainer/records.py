"""Small facts about photos, many to a file, found by the photo's content. Losing them costs time, nothing else.

One file for each fact would be slow to read where there are tens of thousands: each run writes what it adds as one
more file, and now and then all are joined into one.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.cache import read, touch, write

FLUSH_EVERY = 512
"""So many new records a killed run can lose."""
MOST_FILES = 16
_SHA256_BYTES = 32
_KEY, _VALUE = "key", "value"

Array = npt.NDArray[Any]


class Records:
    """Records of one dtype and shape, by SHA-256. Safe with several threads and processes.

    Attributes:
        full: records could not be written; further ones are dropped.
    """

    def __init__(self, folder: Path, value: npt.DTypeLike | None = None) -> None:
        """Open the records.

        Args:
            folder: holds these records alone.
            value: dtype of a record, which may have a shape; if None, that of the files here or of the first put.
        """
        self._folder = folder
        self._value = None if value is None else np.dtype(value)
        self._lock = Lock()
        self._places: dict[bytes, tuple[Array, int]] = {}
        self._new: dict[bytes, Any] = {}
        self._files: list[Path] = []
        self.full = False
        for path in sorted(folder.glob("*.npy")):
            self._add(path)

    def get(self, sha256: str) -> Any:
        """The record, or None."""
        key = bytes.fromhex(sha256)
        place = self._places.get(key)
        return self._new.get(key) if place is None else place[0][place[1]]

    def put(self, sha256: str, value: Any) -> None:
        """Keep a record. It is on disk after :meth:`flush`."""
        with self._lock:
            if self._value is None:
                found = np.asarray(value)
                self._value = np.dtype((found.dtype, found.shape))
            if not self.full:
                self._new[bytes.fromhex(sha256)] = value
            if len(self._new) >= FLUSH_EVERY and not self.full:
                self._flush()

    def flush(self) -> None:
        """Write what is new."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if not self._new:
            return
        try:
            self._add(self._write(self._new.items(), len(self._new)))
            self._new.clear()
            if len(self._files) > MOST_FILES:
                self._join()
        except OSError:
            self.full = True

    def _join(self) -> None:
        """One file of all that this process knows. Two processes that join at once leave each record twice at most."""
        old = self._files
        items = ((key, rows[i]) for key, (rows, i) in self._places.items())
        joined = self._write(items, len(self._places))
        self._files = []
        self._add(joined)
        for path in old:
            path.unlink(missing_ok=True)

    def _write(self, items: Iterable[tuple[bytes, Any]], count: int) -> Path:
        rows = np.zeros(count, [(_KEY, f"V{_SHA256_BYTES}"), (_VALUE, self._value)])
        for row, (key, value) in zip(rows, items, strict=True):
            row[_KEY], row[_VALUE] = key, value
        path = self._folder / f"{uuid.uuid4().hex}.npy"
        write(path, rows)
        return path

    def _add(self, path: Path) -> None:
        rows = read(path)
        if rows is None or rows.ndim != 1 or rows.dtype.names != (_KEY, _VALUE):
            return
        value = rows.dtype.fields[_VALUE][0] if rows.dtype.fields else None
        if self._value is None:
            self._value = value
        if value != self._value:
            return
        touch(path)
        self._files.append(path)
        keys, values = rows[_KEY].tobytes(), rows[_VALUE]
        for i in range(len(rows)):
            self._places[keys[i * _SHA256_BYTES : (i + 1) * _SHA256_BYTES]] = (values, i)
