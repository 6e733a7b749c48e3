"""What a training that was interrupted needs to go on: arrays and facts in one file, whole or absent.

Written aside, synced and renamed, so that a process killed at any moment leaves the last epoch or the one before.
Read without pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import ConfigError, DataError

_FACTS = "facts.json"
REVISION = 1
"""Raised with every change here or in training that makes an old checkpoint wrong."""


@dataclass(frozen=True)
class State:
    """What was saved: ``facts`` of plain JSON, and ``arrays`` by name."""

    facts: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]


class Checkpoint:
    """One file of a training, which another training must not take for its own."""

    def __init__(self, file: Path, key: str) -> None:
        """
        Args:
            file: where it is or will be; its folder is made when needed.
            key: of all that decides the result; see :func:`key_of`.
        """
        self._file, self._key = file, key

    def load(self) -> State | None:
        """What was saved; None if nothing was, or the disk damaged it.

        Raises:
            ConfigError: it was saved by another training.
        """
        try:
            with np.load(self._file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            facts = json.loads(arrays.pop(_FACTS).tobytes())
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        if facts.get("key") != self._key:
            raise ConfigError(
                f"{self._file} was left by a training with other settings or photos. Give the same again to go on "
                "with it, or remove its folder to start anew.",
                code="other settings",
            )
        return State(facts, arrays)

    def save(self, facts: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Replace what was saved.

        Raises:
            DataError: the disk cannot hold it.
        """
        text = json.dumps({**facts, "key": self._key}).encode()
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            _write(self._file, {_FACTS: np.frombuffer(text, np.uint8), **arrays})
        except OSError as error:
            raise DataError(
                f"{self._file} cannot be written: {error.strerror}. Free some space; --resume then goes on."
            ) from error


def key_of(*facts: Any) -> str:
    """A short name of facts: plain JSON values, or arrays, of which every byte counts."""
    digest = hashlib.sha256(str(REVISION).encode())
    for fact in facts:
        if isinstance(fact, np.ndarray):
            digest.update(f"{fact.dtype} {fact.shape}".encode())
            digest.update(np.ascontiguousarray(fact).tobytes())
        else:
            digest.update(json.dumps(fact, sort_keys=True).encode())
        digest.update(b"\n")
    return digest.hexdigest()[:32]


def _write(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    aside = path.with_name(f".{path.name}.part")
    try:
        with open(aside, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
