"""Reads tensors out of a legacy PyTorch ``.pth`` file without PyTorch, and without trusting it.

A ``.pth`` is a pickle, and a pickle can run any code. This reader admits the three globals that a state dictionary
needs and refuses every other, checks sizes before it allocates, and never imports ``torch``.

The legacy layout (``torch.serialization._legacy_save``): four pickles (magic number, protocol, system facts, the
state dictionary with its storages as persistent ids), one pickle with the list of storage keys, then for each
storage an 8-byte little-endian count followed by the raw numbers.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edge.errors import DataError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
MAX_FILE_BYTES = 1 << 30
MAX_TENSORS = 100_000

_DTYPES: dict[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class _StorageType:
    dtype: np.dtype[Any]


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, stride: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))


class _Unpickler(pickle._Unpickler):
    """Admits ``OrderedDict``, ``torch._utils._rebuild_tensor_v2`` and the storage types, and nothing else.

    The one in Python: for a memo index of 2**31, which is ten bytes of pickle, the one in C fills 32 GB.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__(file)
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _DTYPES:
            return _StorageType(_DTYPES[name])
        raise DataError(
            f"{self._name}: the weights file asks for {module}.{name}, which weights do not need. "
            "It may run foreign code; take the file from its publisher again.",
            code="unsafe pickle",
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _device, count, *_view = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise DataError(f"{self._name}: the weights file holds a persistent id that is no storage.")
        return _Storage(str(key), storage_type.dtype, int(count))


def read_pth(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read all tensors of a legacy ``.pth`` state dictionary.

    Returns:
        name -> array, in the file's order, with the file's dtype and shape.

    Raises:
        DataError: the file is missing, too large, of another format, asks for another global (code
            ``unsafe pickle``), or ends early. Take the file from its publisher again.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} has {path.stat().st_size} bytes, weights have at most {MAX_FILE_BYTES}.")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return _read(io.BytesIO(content), path.name)
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(f"{path}: not a legacy PyTorch weights file, or damaged ({error}).", code="damaged") from error


def _read(file: BinaryIO, name: str) -> dict[str, npt.NDArray[Any]]:
    magic, protocol = (_Unpickler(file, name).load() for _ in range(2))
    if magic != MAGIC or protocol != PROTOCOL:
        raise DataError(f"{name}: no legacy PyTorch weights file (other magic number or protocol).", code="damaged")
    _Unpickler(file, name).load()  # system facts: byte order, sizes of C types
    state = _Unpickler(file, name).load()
    keys = _Unpickler(file, name).load()
    if not isinstance(state, dict) or len(state) > MAX_TENSORS:
        raise DataError(f"{name}: the weights file does not hold a dictionary of tensors.", code="damaged")
    tensors = {str(key): value for key, value in state.items() if isinstance(value, _Tensor)}
    storages = _read_storages(file, keys, {t.storage.key: t.storage for t in tensors.values()}, name)
    if sum(math.prod(t.shape) * t.storage.dtype.itemsize for t in tensors.values()) > MAX_FILE_BYTES:
        raise DataError(f"{name}: its tensors have more than {MAX_FILE_BYTES} bytes together.", code="damaged")
    return {key: _view(tensor, storages[tensor.storage.key], name) for key, tensor in tensors.items()}


def _read_storages(
    file: BinaryIO, keys: list[str], expected: dict[str, _Storage], name: str
) -> dict[str, npt.NDArray[Any]]:
    storages = {}
    for key in keys:
        storage = expected[key]
        (count,) = struct.unpack("<q", file.read(8))
        data = file.read(count * storage.dtype.itemsize) if count == storage.count else b""
        if count != storage.count or len(data) != count * storage.dtype.itemsize:
            raise DataError(f"{name}: storage {key} is cut short. Take the file from its publisher again.")
        storages[key] = np.frombuffer(data, storage.dtype)
    return storages


def _view(tensor: _Tensor, storage: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """The tensor as a copy. Tensors may be strided (converted weights often are), but never past their storage."""
    last = tensor.offset + sum((side - 1) * step for side, step in zip(tensor.shape, tensor.stride, strict=True))
    fits = 0 <= last < len(storage) and 0 < math.prod(tensor.shape) <= len(storage)
    if not fits or min(tensor.offset, *tensor.stride, *tensor.shape, 0) < 0:
        raise DataError(f"{name}: a tensor of shape {tensor.shape} does not fit its storage.", code="damaged")
    steps = tuple(step * storage.itemsize for step in tensor.stride)
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, steps, writeable=False).copy()
