"""Reads weights out of files that others wrote, without trusting them, and puts them into a network of ours.

The graph is always built from our own settings; of a file only tensors are read, by name and shape. Never calls
``load_model``, never unpickles, never unpacks an archive to where it says. What it reads:

* ``.h5`` and ``.weights.h5`` of Keras 1 and 2 (attributes ``layer_names`` and ``weight_names``),
* ``.weights.h5`` of Keras 3, and ``.keras``, a zip that holds one, such as a run's ``model.keras``,
* ``.pth`` of EfficientNet-Lite, by :mod:`trainer.torch_weights`.

No number is read unless its tensor has the shape that a layer waits for, so a file cannot make this fill memory.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import mmap
import re
import shutil
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import h5py  # type: ignore[import-untyped]
import keras
import numpy as np

from edge.errors import DataError
from trainer import efficientnet_lite
from trainer.backbones import NORMALISE_LAYERS, Backbone, Wheel, with_kernels
from trainer.keras_applications import snake_case
from trainer.torch_weights import read_pth

MAX_FILE_BYTES = 2 << 30
MAX_OBJECTS = 50_000
MAX_DEPTH = 24
MAX_TEXT_BYTES = 1 << 30
MAX_CONFIG_BYTES = 32 << 20

_HDF5, _ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
_AGAIN = "Take the file from its publisher again."
_SWAP_SHAPES = ((1, 1, 3, 3), (3,))  # our own fixed convolution in front of VGG and ResNet


@dataclass(frozen=True)
class _Stored:
    """One layer as a file has it.

    Attributes:
        name: of the layer, or an empty string where the file does not say.
        kind: its class, in snake case, or an empty string where the order in the file is that of the network.
        tensors: its HDF5 datasets.
    """

    name: str
    kind: str
    tensors: tuple[Any, ...]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(tensor.shape) for tensor in self.tensors)


_Pairs = list[tuple[keras.layers.Layer, _Stored]]


def load(model: keras.Model, backbone: Backbone, file: Path) -> bool:
    """Put the weights of a file into a network.

    Args:
        model: as :meth:`trainer.backbones.Backbone.build` makes it, with or without the ImageNet head. If this raises,
            its weights may be half changed: build it anew.
        backbone: what it is.
        file: with or without the ImageNet head, of the network alone or of a classifier on top of it.

    Returns:
        Whether the ImageNet head got weights too. Every other layer always does.

    Raises:
        DataError: the file is missing, damaged (code ``damaged``), could do harm (``unsafe weights``), or belongs to
            another network (``other network``).
    """
    start = _start(file)
    if start.startswith(_HDF5):
        return _load_hdf5(model, backbone, file, file)
    if start.startswith(_ZIP):
        with tempfile.TemporaryDirectory(prefix="fieldmark-weights-") as folder:
            return _load_hdf5(model, backbone, _unzipped(file, Path(folder)), file)
    if isinstance(backbone.source, Wheel):
        return _load_pth(model, backbone, file)
    raise DataError(
        f"{file} holds no weights that {backbone.name} can take: expected .h5, .weights.h5 or .keras.", code="damaged"
    )


def digest(file: Path) -> str:
    """SHA-256 of a weights file, in hexadecimal.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error


def _start(file: Path) -> bytes:
    try:
        if not file.is_file():  # a named pipe would never end
            raise DataError(f"{file} is no file. --weights takes imagenet, none or the path of a weights file.")
        if file.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{file} has {file.stat().st_size} bytes, weights have at most {MAX_FILE_BYTES}.")
        with file.open("rb") as opened:
            return opened.read(8)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error


def _refuse(file: Path, found: str) -> NoReturn:
    """What no publisher's file has."""
    raise DataError(f"{file.name} holds {found}, which weights do not need. {_AGAIN}", code="unsafe weights")


# --- EfficientNet-Lite


def _load_pth(model: keras.Model, backbone: Backbone, file: Path) -> bool:
    tensors = read_pth(file)
    head = any(layer.name in backbone.top for layer in model.layers)
    try:
        efficientnet_lite.load_tensors(model, tensors, file.name)
    except DataError as error:
        kernels = sum(array.size for array in tensors.values() if array.ndim == 4)
        raise DataError(f"{error}{_hint(kernels, backbone)}", code="other network") from error
    return head


# --- .keras


def _unzipped(file: Path, folder: Path) -> Path:
    """The weights inside a ``.keras`` file, copied out."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = {member.filename: member for member in archive.infolist()}
            if len(members) != len(archive.infolist()):
                _refuse(file, "two members of one name")
            if "config.json" in members:
                _check_config(file, archive, members["config.json"])
            if "model.weights.h5" not in members:
                raise DataError(f"{file.name} holds no model.weights.h5, so it is no .keras file.", code="damaged")
            return _copied(file, archive, members["model.weights.h5"], folder)
    except DataError:
        raise
    except Exception as error:  # zlib and the other packers raise errors of their own
        raise DataError(f"{file.name} is damaged: {_one_line(error)}. {_AGAIN}", code="damaged") from error


def _check_config(file: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Nothing is built from it; but a file with code inside is no file of weights."""
    if member.file_size > MAX_CONFIG_BYTES:
        _refuse(file, f"a description of {member.file_size} bytes")
    try:
        _refuse_lambda(file, archive.read(member))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file.name}: its config.json is damaged. {_AGAIN}", code="damaged") from error


def _refuse_lambda(file: Path, config: bytes) -> None:
    waiting = [json.loads(config)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if str(value.get("class_name")).strip("_").casefold() == "lambda":
                _refuse(file, "a Lambda layer, Python code")
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _copied(file: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> Path:
    if member.file_size > 4 * member.compress_size + 65536:  # weights hardly shrink
        _refuse(file, f"weights that unpack from {member.compress_size} to {member.file_size} bytes")
    path = folder / "model.weights.h5"
    with archive.open(member) as inside, path.open("wb") as outside:
        shutil.copyfileobj(inside, outside)
    return path


# --- HDF5


@dataclass
class _Tree:
    """Everything in a file, by its path. Nothing is looked up by a name that the file gives.

    Attributes:
        file: as people know it.
        heap_bytes: the largest heap of text in it; no text can be longer.
        text_bytes: how much text was read at most.
    """

    file: Path
    heap_bytes: int
    groups: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Any] = field(default_factory=dict)
    seen: set[Any] = field(default_factory=set)
    size_bytes: int = 0
    text_bytes: int = 0


def _load_hdf5(model: keras.Model, backbone: Backbone, path: Path, file: Path) -> bool:
    """Load ``path``, which is ``file`` or was copied out of it."""
    try:
        with h5py.File(path, "r") as root:
            layouts = _layouts(check_hdf5(root, path, file))
            pairs, head = _matched(model, backbone, layouts, file)
            for layer, stored in pairs:
                layer.set_weights([_numbers(tensor, layer.name, file) for tensor in stored.tensors])
            return head
    except DataError:
        raise
    except Exception as error:  # HDF5 raises nearly anything for a damaged file
        raise DataError(f"{file} is damaged or cut short ({_one_line(error)}). {_AGAIN}", code="damaged") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def check_hdf5(root: Any, path: Path, file: Path) -> _Tree:
    """Look at every object, and refuse what weights do not need.

    Args:
        root: the opened file or a group in it.
        path: where it lies.
        file: what it is called, for messages.

    Raises:
        DataError: with code ``unsafe weights``.
    """
    tree = _Tree(file, _largest_heap(path), {"": root})
    waiting = [("", root, 0)]
    while waiting:
        place, group, depth = waiting.pop()
        if depth > MAX_DEPTH:
            _refuse(file, f"groups more than {MAX_DEPTH} deep")
        for name in group:
            item = _object(group, name, tree)
            where = f"{place}/{name}" if place else name
            if isinstance(item, h5py.Group):
                tree.groups[where] = item
                waiting.append((where, item, depth + 1))
            else:
                tree.size_bytes += _checked_bytes(item, file)
                tree.tensors[where] = item
    if tree.size_bytes > path.stat().st_size:  # nothing is packed, so each number has its own bytes
        _refuse(file, f"tensors of {tree.size_bytes} bytes in {path.stat().st_size}")
    return tree


def _largest_heap(path: Path) -> int:
    """The size of the largest global heap in a file, where HDF5 keeps texts.

    A list of names is read as a whole, and a million names may share one text of a megabyte: so the longest that a
    text can be is found out first, by the signature of heaps. Weights that happen to look like one do no harm.
    """
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        heaps = re.finditer(rb"GCOL\x01\0\0\0(.{8})", content, re.DOTALL)
        return max((min(int.from_bytes(heap[1], "little"), len(content)) for heap in heaps), default=0)


def _object(group: Any, name: str, tree: _Tree) -> Any:
    file = tree.file
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        _refuse(file, f"a link ({name!r}) to somewhere else")
    item = group[name]
    if not isinstance(item, h5py.Group | h5py.Dataset):
        _refuse(file, f"{name!r}, neither a group nor a tensor")
    address = h5py.h5o.get_info(item.id).addr
    if address in tree.seen:
        _refuse(file, f"{name!r} twice")
    tree.seen.add(address)
    if len(tree.seen) > MAX_OBJECTS:
        _refuse(file, f"more than {MAX_OBJECTS} objects")
    return item


def _checked_bytes(tensor: Any, file: Path) -> int:
    """The size of a tensor that is plain numbers in this file."""
    name = tensor.name
    if tensor.external:
        _refuse(file, f"a tensor ({name!r}) whose numbers lie in another file")
    if tensor.is_virtual:
        _refuse(file, f"a tensor ({name!r}) put together from others")
    if tensor.dtype.kind not in "fiu" or tensor.shape is None:
        _refuse(file, f"{name!r} of type {tensor.dtype}")
    if tensor.id.get_create_plist().get_nfilters():
        _refuse(file, f"a packed tensor ({name!r})")
    size = int(math.prod(tensor.shape) * tensor.dtype.itemsize)
    if tensor.id.get_storage_size() < size:
        _refuse(file, f"a tensor ({name!r}) of {size} bytes without its numbers")
    return size


def _numbers(tensor: Any, layer: str, file: Path) -> Any:
    values = np.asarray(tensor[()], np.float32)
    if not np.isfinite(values).all():
        raise DataError(f"{file}: the weights of layer {layer} hold numbers that are not finite. {_AGAIN}")
    return values


# --- the layers of a file


def _layouts(tree: _Tree) -> list[list[_Stored]]:
    """The networks of a file, as lists of layers that have weights: one, or one inside another."""
    for place in ("", "model_weights"):
        if place in tree.groups and _keys(tree.groups[place], "layer_names"):
            return [_legacy(tree, place)]
    return _numbered(tree)


def _legacy(tree: _Tree, place: str) -> list[_Stored]:
    """Keras 1 and 2: attributes name the layers in the order of the network, and the tensors of each."""
    if "model_config" in tree.groups[""].attrs:
        _refuse_lambda(tree.file, "".join(_texts(tree, "", "model_config")).encode())
    layers = []
    for name in _names(tree, place, "layer_names"):
        where = f"{place}/{name}" if place else name
        if where not in tree.groups:
            raise DataError(f"{tree.file.name}: layer {name} is named and not there. {_AGAIN}", code="damaged")
        inner: dict[str, list[Any]] = defaultdict(list)  # a network inside a layer has the tensors of many
        for tensor in _names(tree, where, "weight_names"):
            if f"{where}/{tensor}" not in tree.tensors:
                raise DataError(f"{tree.file.name}: tensor {tensor} is named and not there. {_AGAIN}", code="damaged")
            inner[tensor.rpartition("/")[0]].append(tree.tensors[f"{where}/{tensor}"])
        several = len(inner) > 1
        layers += [
            _Stored(part.rpartition("/")[2] if several else name, "", tuple(each)) for part, each in inner.items()
        ]
    return layers


def _numbered(tree: _Tree) -> list[list[_Stored]]:
    """Keras 3: ``layers/conv2d_3/vars/0``, the fourth layer of its class, whatever its name."""
    found: dict[str, dict[tuple[str, int], dict[int, Any]]] = defaultdict(lambda: defaultdict(dict))
    for where, tensor in tree.tensors.items():
        parts = re.fullmatch(r"(?:(.*)/)?([^/]+?)(?:_(\d{1,6}))?/vars/(\d{1,6})", where)
        if parts and not where.startswith("optimizer/"):
            found[parts[1] or ""][parts[2], int(parts[3] or 0)][int(parts[4])] = tensor
    layouts = []
    for place in sorted(found, key=lambda each: (-len(found[each]), each)):
        layers = sorted(found[place].items(), key=lambda item: item[0])
        layouts.append([_numbered_layer(tree, place, *key, tensors) for key, tensors in layers])
    return layouts


def _numbered_layer(tree: _Tree, place: str, kind: str, number: int, tensors: dict[int, Any]) -> _Stored:
    key = f"{kind}_{number}" if number else kind
    where = f"{place}/{key}/vars" if place else f"{key}/vars"
    name = _texts(tree, where, "name") if "name" in tree.groups[where].attrs else [""]
    return _Stored(name[0], kind, tuple(tensors[i] for i in sorted(tensors)))


def _names(tree: _Tree, place: str, key: str) -> list[str]:
    """A list of names in an attribute, or in several where one would be too long for HDF5."""
    return [name for each in _keys(tree.groups[place], key) for name in _texts(tree, place, each)]


def _keys(group: Any, key: str) -> list[str]:
    if key in group.attrs:
        return [key]
    numbered = (f"{key}{number}" for number in itertools.count())
    return list(itertools.takewhile(lambda each: each in group.attrs, numbered))


def _texts(tree: _Tree, place: str, key: str) -> list[str]:
    """The texts in an attribute, one or a list. An empty list has no type that means anything."""
    attributes = tree.groups[place].attrs
    attribute = attributes.get_id(key)
    count = math.prod(attribute.shape)
    if count == 0:
        return []
    kind = h5py.check_string_dtype(attribute.dtype)
    if kind is None or len(attribute.shape) > 1:
        _refuse(tree.file, f"{key} that is no text")
    tree.text_bytes += count * (tree.heap_bytes if kind.length is None else kind.length)
    if tree.text_bytes > MAX_TEXT_BYTES:
        _refuse(tree.file, f"more than {MAX_TEXT_BYTES} bytes of names")
    values = np.atleast_1d(np.asarray(attributes[key], object)).tolist()
    return [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values]


# --- which tensor belongs where


def _matched(
    model: keras.Model, backbone: Backbone, layouts: Sequence[list[_Stored]], file: Path
) -> tuple[_Pairs, bool]:
    """Pairs of our layers and the file's, and whether the ImageNet head is among them."""
    ours = [layer for layer in model.layers if layer.weights and layer.name not in NORMALISE_LAYERS]
    body = [layer for layer in ours if layer.name not in backbone.top]
    head = [layer for layer in ours if layer.name in backbone.top]
    for stored in layouts:
        for match in (_by_name, _by_order):
            pairs = match(body, stored)
            if pairs is not None:
                whole = match(ours, stored) if head else None
                return (pairs, False) if whole is None else (whole, True)
    raise DataError(_mismatch(body, backbone, layouts, file), code="other network")


def _by_name(ours: Sequence[keras.layers.Layer], stored: Sequence[_Stored]) -> _Pairs | None:
    named = {each.name: each for each in stored}
    if not all(layer.name in named and named[layer.name].shapes == _shapes(layer) for layer in ours):
        return None
    return [(layer, named[layer.name]) for layer in ours]


def _by_order(ours: Sequence[keras.layers.Layer], stored: Sequence[_Stored]) -> _Pairs | None:
    """One after the other, within each class where the file counts by class; what is left over is a head."""
    sequences: dict[str, list[_Stored]] = defaultdict(list)
    for each in stored:
        if sequences[each.kind] or each.shapes != _SWAP_SHAPES:
            sequences[each.kind].append(each)
    by_class = "" not in sequences
    waiting = {kind: iter(sequence) for kind, sequence in sequences.items()}
    pairs: _Pairs = []
    for layer in ours:
        found = next(waiting.get(_kind(layer) if by_class else "", iter(())), None)
        if found is None or found.shapes != _shapes(layer):
            return None
        pairs.append((layer, found))
    return pairs


def _kind(layer: keras.layers.Layer) -> str:
    return snake_case(type(layer).__name__)


def _shapes(layer: keras.layers.Layer) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(weight.shape) for weight in layer.weights)


def _mismatch(
    body: Sequence[keras.layers.Layer], backbone: Backbone, layouts: Sequence[list[_Stored]], file: Path
) -> str:
    """The first layer that does not fit, and the network that would."""
    largest = max(layouts, key=len, default=[])
    stored = [each for each in largest if each.shapes != _SWAP_SHAPES]
    if not stored:
        return f"{file} holds no weights of layers. Expected a weights file of {backbone.name}."
    kernels = sum(math.prod(shape) for each in stored for shape in each.shapes if len(shape) == 4)
    return f"{file}: {_first_fault(body, stored, backbone)}{_hint(kernels, backbone)}"


def _first_fault(body: Sequence[keras.layers.Layer], stored: Sequence[_Stored], backbone: Backbone) -> str:
    named = {each.name: each for each in stored}
    if not any(layer.name in named for layer in body):
        first = next((each for each in stored if len(each.shapes[0]) == 4), stored[0])
        return (
            f"layer {body[0].name} of {backbone.name} expects {_shapes(body[0])[0]}, "
            f"the file begins with {first.name or first.kind} of {first.shapes[0]}."
        )
    for layer in body:
        if layer.name not in named:
            return f"layer {layer.name} of {backbone.name} is missing."
        found, expected = named[layer.name].shapes, _shapes(layer)
        if found != expected:
            return f"layer {layer.name} has {len(found)} tensors of shapes {found}, {backbone.name} expects {expected}."
    return f"the layers of {backbone.name} are there in another order."


def _hint(kernels: int, backbone: Backbone) -> str:
    fits = with_kernels(kernels)
    if fits is None or fits == backbone.name:
        return f" These are weights of another network, not of {backbone.name}."
    return f" These are weights of {fits}: give --backbone {fits}."
