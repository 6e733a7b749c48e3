"""A pretrained network as a stand-alone feature extractor: photos in, one ``.npz`` file of numbers out, and read again.

The file holds plain arrays, which ``numpy.load`` opens without pickles, and everything that a head trained on it
needs: labels, and which photos belong together. Never learns anything itself.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge import pathtext
from edge.errors import ConfigError, DataError
from edge.model.spec import InputSpec
from edge.photo import is_candidate
from trainer import devices, photos, pixels
from trainer.backbones import IMAGENET, NO_WEIGHTS, OWN, Backbone, find_layer
from trainer.cache import cache_dir
from trainer.dataset import folders, readers
from trainer.dataset.found import DataSet
from trainer.dataset.samples import TEST, TRAIN, VALIDATION, Sample, Unreadable
from trainer.progress import Steps
from trainer.settings import CHOICES

if TYPE_CHECKING:
    import keras

SCHEMA = 1
POOLINGS = (*CHOICES["pooling"], "none")
MAX_FILE_BYTES = 64 << 30
MAX_META_BYTES = 1 << 20
NO_LABEL = -1
_TEXTS = ("label_names", "photos", "sha256s", "stations", "sequences", "taken", "parts")
_NUMBERS = {"features": np.float32, "labels": np.int64, "groups": np.int64, "infrared": np.bool_}
_ARRAYS = (*_NUMBERS, *_TEXTS, "meta")
_LONGEST = 4096
_SHA256 = re.compile(r"[0-9a-f]{64}")
_META_TEXTS = ("backbone", "pooling", "weights", "weights_name", "normalise", "data_folder")


@dataclass(frozen=True)
class Request:
    """Which features.

    Attributes:
        backbone: the network.
        layer: whose output is taken, by name or number, also of the ImageNet head, such as VGG16's ``fc2``; the last
            feature map if None.
        pooling: of a feature map (h, w, c): ``avg`` or ``max`` (c,), ``avg+max`` side by side (2c,), ``flatten``
            (h * w * c,), or ``none`` (h, w, c). An output that is a vector already is taken as it is.
        weights: ``imagenet``, ``none`` or the path of a file.
        normalise: ``own`` or ``unit``.
        spec: the input; the network's own side, whole photos stretched to it, if None.
        seed: of random weights.
    """

    backbone: Backbone
    layer: str | None = None
    pooling: str = "avg"
    weights: str = IMAGENET
    normalise: str = OWN
    spec: InputSpec | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise ConfigError(f"pooling is {self.pooling!r}, expected one of {', '.join(POOLINGS)}.")

    def input(self) -> InputSpec:
        """The input that this asks for."""
        return self.spec or InputSpec(self.backbone.side, self.backbone.side)


@dataclass(frozen=True)
class FeatureFile:
    """What a feature file holds; n photos, C labels.

    Attributes:
        features: float32 (n, F), or (n, h, w, c) where nothing was pooled.
        labels: int64 (n,), numbers of ``label_names``; :data:`NO_LABEL` where the data set has none.
        label_names: C labels, sorted.
        photos: n names, relative to the data set, as :func:`edge.pathtext.to_text` writes them.
        sha256s: n content hashes.
        groups: int64 (n,); photos of one number are never divided between training and test.
        stations, sequences, taken, parts: n texts each, empty where not known; see
            :class:`trainer.dataset.samples.Sample`.
        infrared: bool (n,).
        meta: ``schema``, ``backbone``, ``layer``, ``pooling``, ``weights`` (``imagenet``, ``none`` or the SHA-256 of a
            file), ``weights_name``, ``normalise``, ``seed``, ``input``, the fields of an input spec, and
            ``data_folder``, which the photos' names are relative to.
        unreadable: files that could not be used; known only to the one who wrote the file.
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    label_names: tuple[str, ...]
    photos: tuple[str, ...]
    sha256s: tuple[str, ...]
    groups: npt.NDArray[np.int64]
    stations: tuple[str, ...]
    sequences: tuple[str, ...]
    taken: tuple[str, ...]
    parts: tuple[str, ...]
    infrared: npt.NDArray[np.bool_]
    meta: dict[str, Any]
    unreadable: list[Unreadable] = field(default_factory=list)


def write(data: Path, out: Path, request: Request, steps: Steps, *, sequence_column: str | None = None) -> FeatureFile:
    """Compute features of all photos and write them to a file, which appears whole or not at all.

    Args:
        data: a data set (see :func:`trainer.dataset.readers.scan`), or a folder of photos without labels.
        out: the file, ``.npz``; replaced if it is there.
        request: which features.
        steps: shows progress.
        sequence_column: a CSV column that says which photos belong together.

    Returns:
        What was written; its features are read from the disk as they are used.

    Raises:
        ConfigError: there is no such layer, or the network cannot take this size.
        DataError: no photo can be read, the weights are not here, or the file cannot be written.
    """
    if out.suffix != ".npz":
        raise ConfigError(f"{out}: the file's name must end in .npz.")
    network = extractor(request)
    found = find(data, sequence_column)
    with steps.step("reading photos", len(found.samples)) as done:
        decoded, bad, stack = pixels.decode(found.samples, request.input(), cache_dir(), done=lambda: done(1))
    unreadable = found.left_out + bad
    if unreadable:
        steps.say(f"  {len(unreadable)} of {len(found.samples) + len(found.left_out)} files cannot be used.")
    if not decoded:
        first = f", {unreadable[0].reason}" if unreadable else "."
        raise DataError(f"{data}: no photo can be read{first}")
    facts = _facts(decoded, request, data)
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
            matrix = Path(folder) / "features.npy"
            _compute(network, stack, matrix, steps)
            _save(out, Path(folder), matrix, facts)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}.") from error
    return replace(read(out), unreadable=unreadable)


def find(data: Path, sequence_column: str | None = None) -> DataSet:
    """The photos of a data set, or of a folder that has none but photos, without labels."""
    if data.is_dir() and not folders.photo_folders(data):
        loose = [path for path in folders.entries(data) if is_candidate(path) and path.is_file()]
        if loose and not any(path.suffix.lower() in (".csv", ".json") for path in folders.entries(data)):
            return DataSet([Sample(path, pathtext.to_text(path.name), "") for path in loose], [])
    return readers.scan(data, sequence_column=sequence_column)


def extractor(request: Request) -> keras.Model:
    """The network from its pixels to what is asked for: float32 (n, F), or (n, h, w, c) with pooling ``none``.

    Raises:
        ConfigError: there is no such layer.
        DataError: the weights are not here.
    """
    import keras

    devices.prepare()
    keras.utils.set_random_seed(request.seed)
    network = _network(request)
    x = network.output if request.layer is None else find_layer(network, request.layer).output
    if request.pooling != "none":
        x = _pooled(x, request.pooling)
    x = keras.layers.Activation("linear", dtype="float32", name="features")(x)
    return keras.Model(network.input, x, name=network.name)


def read(path: Path) -> FeatureFile:
    """Read a feature file, without trusting it.

    Features are mapped from the file, not read: a file may be larger than memory.

    Raises:
        DataError: it is missing, damaged, or no feature file (code ``features``).
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise _fault(path, f"it has {path.stat().st_size} bytes, at most {MAX_FILE_BYTES} are read")
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = {member.filename: member for member in archive.infolist()}
            if len(members) != len(archive.infolist()) or set(members) != {f"{name}.npy" for name in _ARRAYS}:
                raise _fault(path, f"it holds {', '.join(sorted(members))[:200] or 'nothing'}")
            arrays = {name: _array(path, archive, members[f"{name}.npy"]) for name in _ARRAYS}
        return _checked(path, arrays)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # numpy parses a header as Python, and makes text of any number: both raise nearly all
        raise _fault(path, f"it is damaged ({' '.join(str(error).split())[:200]})") from error


# --- the network


def _network(request: Request) -> keras.Model:
    """The backbone, with its ImageNet head where the layer lies in it."""
    backbone, spec = request.backbone, request.input()
    top = request.layer is not None and _in_head(request)
    return backbone.build(spec.height, spec.width, top=top, weights=request.weights, normalise=request.normalise)


def _in_head(request: Request) -> bool:
    """Whether the layer lies in the ImageNet head; that there is one at all is known before weights are fetched."""
    backbone, spec, layer = request.backbone, request.input(), str(request.layer)
    try:
        find_layer(backbone.build(backbone.min_side, backbone.min_side, weights=NO_WEIGHTS), layer)
    except ConfigError:
        height, width = (backbone.side, backbone.side) if backbone.fixed_top else (spec.height, spec.width)
        find_layer(backbone.build(height, width, top=True, weights=NO_WEIGHTS), layer)
        return True
    return False


def _pooled(x: Any, pooling: str) -> Any:
    """A vector of it. A 1 x 1 map, as some heads have, is one already."""
    import keras

    if len(x.shape) == 4:
        from trainer.model import pooled

        return pooled(x, pooling)
    return x if len(x.shape) == 2 else keras.layers.Flatten(name="pool")(x)


def _compute(network: keras.Model, stack: pixels.PixelStack, file: Path, steps: Steps) -> None:
    from trainer.frozen import Frozen

    shape = (len(stack), *network.output.shape[1:])
    if 2 * math.prod(shape) * 4 > shutil.disk_usage(file.parent).free:  # here, and in the file that is put together
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a mapped file that finds no room ends the process
    matrix = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)  # type: ignore[no-untyped-call]
    with steps.step("features", len(stack)) as done:
        for rows, values in Frozen(network, cache_dir()).over(len(stack), stack.__getitem__, done=done):
            matrix[rows.start : rows.stop] = values
    matrix.flush()


# --- writing


def _facts(decoded: list[pixels.Decoded], request: Request, data: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of the file but the features."""
    samples = [photo.sample for photo in decoded]
    names = sorted({sample.label for sample in samples if sample.label})
    numbers = {name: number for number, name in enumerate(names)}
    return {
        "labels": np.array([numbers.get(sample.label, NO_LABEL) for sample in samples], np.int64),
        "groups": np.asarray(photos.group_photos(decoded), np.int64),
        "infrared": np.array([photo.infrared for photo in decoded], np.bool_),
        "label_names": _texts(names),
        "photos": _texts([sample.name for sample in samples]),
        "sha256s": _texts([photo.sha256 for photo in decoded]),
        "stations": _texts([sample.station or "" for sample in samples]),
        "sequences": _texts([sample.sequence or "" for sample in samples]),
        "taken": _texts([photo.taken or "" for photo in decoded]),
        "parts": _texts([sample.part or "" for sample in samples]),
        "meta": np.array(json.dumps(_meta(request, data), sort_keys=True)),
    }


def _meta(request: Request, data: Path) -> dict[str, Any]:
    from trainer import weights

    known = request.weights in (IMAGENET, NO_WEIGHTS)
    return {
        "schema": SCHEMA,
        "backbone": request.backbone.name,
        "layer": request.layer,
        "pooling": request.pooling,
        "weights": request.weights if known else weights.digest(Path(request.weights)),
        "weights_name": request.weights if known else Path(request.weights).name,
        "normalise": request.normalise,
        "seed": request.seed,
        "input": asdict(request.input()),
        "data_folder": pathtext.to_text(str(data.absolute() if data.is_dir() else data.absolute().parent)),
    }


def _texts(values: list[str]) -> npt.NDArray[np.str_]:
    return np.array(values, dtype=np.str_) if values else np.empty(0, "<U1")


def _save(out: Path, folder: Path, matrix: Path, facts: Mapping[str, npt.NDArray[Any]]) -> None:
    """Put the arrays together beside ``out``, then rename."""
    whole = folder / "whole.npz"
    with whole.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.write(matrix, "features.npy")
            for name, array in facts.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)  # type: ignore[no-untyped-call]
        file.flush()
        os.fsync(file.fileno())
    os.replace(whole, out)
    parent = os.open(out.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


# --- reading


def _fault(path: Path, found: str) -> DataError:
    return DataError(
        f"{path} is no file of features: {found}. Make one with: fieldmark features DATA --out {path.name}",
        code="features",
    )


def _array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """One array, whose header must tell exactly the bytes that are there before any memory is taken for it."""
    name = member.filename.removesuffix(".npy")
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise _fault(path, f"{name} is packed")
    with archive.open(member) as opened:
        version = np.lib.format.read_magic(opened)  # type: ignore[no-untyped-call]
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(opened)  # type: ignore[no-untyped-call]
        start = opened.tell()
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        rows = not fortran or len(shape) < 2
        if not rows or dtype.hasobject or min(shape, default=0) < 0 or size != member.file_size - start:
            raise _fault(path, f"{name} has the header {shape} {dtype} and {member.file_size - start} bytes")
        _check_dtype(path, name, dtype, size)
        if name == "features" and size:
            offset = _data_start(archive, member) + start
            return np.memmap(path, dtype, "r", offset, shape)
        return np.frombuffer(opened.read(size), dtype).reshape(shape)


def _check_dtype(path: Path, name: str, dtype: np.dtype[Any], size: int) -> None:
    if name in _NUMBERS:
        if dtype != _NUMBERS[name]:
            raise _fault(path, f"{name} is {dtype}, expected {np.dtype(_NUMBERS[name])}")
    elif dtype.kind != "U" or (name != "meta" and dtype.itemsize > 4 * _LONGEST):
        raise _fault(path, f"{name} is {dtype}, expected short text")
    elif name == "meta" and size > 4 * MAX_META_BYTES:
        raise _fault(path, f"its description has {size} bytes")


def _data_start(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin: behind its own header, which repeats name and extra field."""
    file = archive.fp
    assert file is not None
    file.seek(member.header_offset + 26)
    lengths = file.read(4)
    return member.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")


def _checked(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> FeatureFile:
    n = len(arrays["features"]) if arrays["features"].ndim else 0
    if arrays["features"].ndim not in (2, 4) or not n:
        raise _fault(path, f"its features have the shape {arrays['features'].shape}")
    for name in ("labels", "groups", "infrared", *_TEXTS[1:]):
        if arrays[name].shape != (n,):
            raise _fault(path, f"{name} has the shape {arrays[name].shape}, expected {(n,)}")
    names, labels = arrays["label_names"], arrays["labels"]
    if names.ndim != 1 or labels.min() < NO_LABEL or labels.max() >= len(names):
        raise _fault(path, f"labels go from {labels.min()} to {labels.max()} with {names.size} names")
    texts = {name: tuple(str(value) for value in arrays[name]) for name in _TEXTS}
    _check_texts(path, texts)
    numbers = {name: arrays[name] for name in _NUMBERS}
    return FeatureFile(**numbers, **texts, meta=_checked_meta(path, arrays["meta"]))  # type: ignore[arg-type]


def _check_texts(path: Path, texts: Mapping[str, tuple[str, ...]]) -> None:
    """What is used as more than a name: hashes name files of the cache, times are counted with."""
    if not all(_SHA256.fullmatch(text) for text in texts["sha256s"]):
        raise _fault(path, "a photo's SHA-256 is none")
    if not set(texts["parts"]) <= {"", TRAIN, VALIDATION, TEST}:
        raise _fault(path, "a photo is in a part that is none of train, validation and test")
    if len(set(texts["label_names"])) != len(texts["label_names"]):
        raise _fault(path, "it names a label twice")
    for text in filter(None, texts["taken"]):
        if datetime.fromisoformat(text).tzinfo is not None:
            raise _fault(path, f"{ascii(text)[:60]} is no local time")


def _checked_meta(path: Path, text: npt.NDArray[Any]) -> dict[str, Any]:
    try:
        meta = json.loads(str(text))
        if meta["schema"] != SCHEMA:
            raise _fault(path, f"its schema is {meta['schema']!r}, expected {SCHEMA}")
        InputSpec(**meta["input"])
        if not all(isinstance(meta[key], str) for key in _META_TEXTS):
            raise ValueError("a text is missing")
        if not isinstance(meta["layer"], str | None) or type(meta["seed"]) is not int or not 0 <= meta["seed"] < 2**32:
            raise ValueError("layer or seed is none")
    except (ValueError, TypeError, KeyError, RecursionError, ConfigError) as error:
        raise _fault(path, f"its description is damaged ({type(error).__name__})") from error
    return dict(meta)
