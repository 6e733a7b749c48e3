"""Arrays that were computed once, kept on disk by what they were computed from. Losing it costs time, nothing else."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_BYTES = 20 * 2**30


def cache_dir() -> Path:
    """``$FIELDMARK_CACHE``, else ``fieldmark`` in the user's cache folder."""
    own = os.environ.get("FIELDMARK_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fieldmark"


class ArrayCache:
    """Arrays of one shape and dtype, each in a file named by its key.

    A file appears by rename, so it is whole or absent; one that a power cut left damaged reads as absent. Where the
    disk is full the arrays are kept in memory instead, and :attr:`full` says so.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._folder = folder
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._memory: dict[str, npt.NDArray[Any]] = {}
        self.full = False

    def get(self, key: str) -> npt.NDArray[Any] | None:
        """The array, or None if it is not here or damaged."""
        if key in self._memory:
            return self._memory[key]
        try:
            array = np.load(self._path(key), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return array if array.shape == self._shape and array.dtype == self._dtype else None

    def put(self, key: str, array: npt.NDArray[Any]) -> None:
        """Keep an array of this cache's shape and dtype."""
        if array.shape != self._shape or array.dtype != self._dtype:
            raise ValueError(f"expected {self._dtype} {self._shape}, found {array.dtype} {array.shape}")
        try:
            self._write(self._path(key), array)
        except OSError:
            self.full = True
            self._memory[key] = array

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.npy"

    def _write(self, path: Path, array: npt.NDArray[Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with open(descriptor, "wb") as file:
                np.save(file, array, allow_pickle=False)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise


def prune(folder: Path | None = None, max_bytes: int = MAX_BYTES) -> int:
    """Remove the oldest files until at most ``max_bytes`` are left.

    Returns:
        The number of files removed.
    """
    files = []
    for path in (folder or cache_dir()).rglob("*.npy"):
        try:
            facts = path.stat()
        except OSError:  # another run pruned it
            continue
        files.append((facts.st_mtime_ns, facts.st_size, path))
    surplus = sum(size for _, size, _ in files) - max_bytes
    removed = 0
    for _, size, path in sorted(files):
        if surplus <= 0:
            break
        path.unlink(missing_ok=True)
        surplus -= size
        removed += 1
    return removed
