"""Writes legacy ``.pth`` files opcode by opcode, sound ones and hostile ones, without PyTorch.

The values that go into the pickles are built from the few functions here, so that a test can put any global anywhere.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.torch_weights import MAGIC, PROTOCOL

STORAGES = {"<f4": "FloatStorage", "<f8": "DoubleStorage", "<f2": "HalfStorage", "<i8": "LongStorage"}
FACTS = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def start(value: bytes) -> bytes:
    """A whole pickle of one value."""
    return b"\x80\x02" + value + b"."


def name(module: str, attribute: str) -> bytes:
    """A global, looked up when the pickle is read."""
    return f"c{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def several(*values: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(values) + b"t"


def numbers(values: Sequence[int]) -> bytes:
    return several(*map(number, values))


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + several(*arguments) + b"R"


def ordered(items: Mapping[str, bytes]) -> bytes:
    """An ``OrderedDict``, as a state dictionary is."""
    return call(name("collections", "OrderedDict")) + b"(" + b"".join(text(k) + v for k, v in items.items()) + b"u"


def storage(key: str, count: int, kind: bytes = name("torch", "FloatStorage")) -> bytes:
    """A persistent id."""
    return several(text("storage"), kind, text(key), text("cpu"), number(count), b"N") + b"Q"


def tensor(held: bytes, shape: Sequence[int], stride: Sequence[int], offset: int = 0) -> bytes:
    return call(
        name("torch._utils", "_rebuild_tensor_v2"),
        *(held, number(offset), numbers(shape), numbers(stride), b"\x89", ordered({})),
    )


def raw(values: npt.NDArray[Any]) -> bytes:
    """A storage as it stands behind the pickles."""
    return struct.pack("<q", values.size) + values.tobytes()


def file(
    state: bytes,
    storages: Mapping[str, bytes],
    *,
    magic: bytes = pickle.dumps(MAGIC, 2),
    protocol: bytes = pickle.dumps(PROTOCOL, 2),
    facts: bytes = pickle.dumps(FACTS, 2),
    keys: bytes | None = None,
) -> bytes:
    """A file: magic number, protocol, system facts, state dictionary, storage keys, storages."""
    listed = pickle.dumps(list(storages), 2) if keys is None else keys
    return magic + protocol + facts + start(state) + listed + b"".join(storages.values())


def of_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """A sound file of contiguous arrays, each with a storage of its own."""
    items, storages = {}, {}
    for i, (key, array) in enumerate(arrays.items()):
        dtype = array.dtype.newbyteorder("<")
        stride = [step // array.itemsize for step in array.strides]
        kind = name("torch", STORAGES[dtype.str])
        items[key] = tensor(storage(str(i), array.size, kind), array.shape, stride)
        storages[str(i)] = raw(np.ascontiguousarray(array, dtype))
    return file(ordered(items), storages)
