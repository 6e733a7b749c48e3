"""The networks of Keras Applications behind a uint8 door, and the files of their ImageNet weights.

A network is built by Keras's own function, so its layers and their names are Keras's; only what stands in front is
ours. Weights are read by :mod:`trainer.weights`; this file finds and downloads them.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from edge.errors import DataError
from trainer.backbones import Backbone, Download, WeightsFile

ANSWER_S = 6.0
"""How long the server may take to answer at all; a machine without internet should not wait longer."""
STALL_S = 30.0
"""How long a download may stand still."""

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet in RGB, 0 to 1
_MEAN_BGR = (103.939, 116.779, 123.68)  # of ImageNet in BGR, 0 to 255
_NAMED_BY_KERAS = frozenset({"reshape_1", "reshape_2"})  # in MobileNet's head: they look numbered and are not


def build(backbone: Backbone, height: int, width: int, *, top: bool = False, unit: bool = False) -> keras.Model:
    """Build the network with random weights.

    Args:
        backbone: one whose weights are a :class:`trainer.backbones.Download`.
        height, width: of the input, pixels.
        top: end in 1,000 ImageNet logits instead of the last feature map.
        unit: pixels / 255 instead of the network's own normalisation.
    """
    pixels = keras.Input((height, width, 3), dtype="uint8", name="pixels")
    network = _constructor(backbone)
    options: dict[str, Any] = {"classifier_activation": None} if top else {}
    if "include_preprocessing" in inspect.signature(network).parameters:
        options["include_preprocessing"] = False  # it is what stands in front here
    made = network(
        include_top=top,
        weights=None,
        input_tensor=_normalise(pixels, "unit" if unit else backbone.normalisation),
        input_shape=(height, width, 3),
        **options,
    )
    named = _with_stable_names(made)
    return keras.Model(named.inputs[0], named.outputs[0], name=backbone.name.replace("-", "_"))


def imagenet_file(backbone: Backbone, *, top: bool) -> Path:
    """The file of ImageNet's weights, downloaded if it is not in Keras's folder.

    Raises:
        DataError: it is not here and cannot be downloaded (code ``no weights``).
    """
    source = backbone.source
    assert isinstance(source, Download)
    for file in [source.with_top] if top else [source.without_top, source.with_top]:
        if file.path.is_file() and _is_whole(file, file.path):
            return file.path
    wanted = source.with_top if top else source.without_top
    _download(backbone, wanted)
    return wanted.path


def url(backbone: Backbone, file: WeightsFile) -> str:
    """Where Keras has a file, by the constants of its own module."""
    known = [value for value in vars(_module(backbone)).values() if isinstance(value, str) and "://" in value[:9]]
    whole = [value for value in known if value.endswith(f"/{file.name}")]
    folders = [value for value in known if value.endswith("/")]
    return whole[0] if whole else folders[0] + file.name


def _constructor(backbone: Backbone) -> Any:
    assert isinstance(backbone.source, Download)
    return getattr(keras.applications, backbone.source.constructor)


def _module(backbone: Backbone) -> Any:
    return sys.modules[_constructor(backbone).__module__]


def _normalise(pixels: Any, kind: str) -> Any:
    """uint8 pixels to what the network was trained on, float32 whatever the precision of the rest."""
    if kind == "caffe":
        return _bgr_minus_mean(pixels)
    scale, offset = {
        "unit": (1 / 255, 0.0),
        "tf": (1 / 127.5, -1.0),
        "torch": (
            [1 / (255 * deviation) for deviation in _DEVIATION],
            [-mean / deviation for mean, deviation in zip(_MEAN, _DEVIATION, strict=True)],
        ),
    }[kind]
    return layers.Rescaling(scale, offset=offset, name="normalise", dtype="float32")(pixels)


def _bgr_minus_mean(pixels: Any) -> Any:
    """A fixed 1 x 1 convolution turns RGB to BGR and subtracts the mean: exact, and int8 and TFLite know it."""
    x = layers.Rescaling(1.0, name="to_float", dtype="float32")(pixels)
    convolution = layers.Conv2D(3, 1, name="normalise", trainable=False, dtype="float32")
    x = convolution(x)
    swap = np.eye(3, dtype=np.float32)[::-1].reshape(1, 1, 3, 3)
    convolution.set_weights([swap, -np.array(_MEAN_BGR, np.float32)])
    return x


def _with_stable_names(model: keras.Model) -> keras.Model:
    """The same network with the numbers that a fresh process gives to what has no name of its own.

    Keras counts through a whole process: the second InceptionV3 begins at ``conv2d_94``, and a layer that was chosen
    by name would be another one.
    """
    names = _fresh_names(model)
    if any(layer.weights and layer.name != names[id(layer)] for layer in model.layers):
        # Only a new layer has its new name in the paths of its weights too.
        return keras.models.clone_model(model, clone_function=lambda each: _renamed(each, names[id(each)]))
    for operation in model.operations:
        operation.name = names[id(operation)]
    return model


def _renamed(operation: Any, name: str) -> Any:
    return type(operation).from_config({**operation.get_config(), "name": name})


def _fresh_names(model: keras.Model) -> dict[int, str]:
    """By the identity of each operation. The numbers of a class follow the order in which they were made."""
    numbers: dict[int, tuple[str, int]] = {}
    for operation in model.operations:
        class_name = snake_case(type(operation).__name__)
        found = re.fullmatch(rf"{class_name}(?:_(\d+))?", operation.name)
        if found and operation.name not in _NAMED_BY_KERAS:
            numbers[id(operation)] = (class_name, int(found[1] or 0))
    names = {id(operation): operation.name for operation in model.operations}
    counts: Counter[str] = Counter()
    for identity, (class_name, _) in sorted(numbers.items(), key=lambda item: item[1]):
        number = counts[class_name]
        names[identity] = f"{class_name}_{number}" if number else class_name
        counts[class_name] += 1
    return names


def snake_case(name: str) -> str:
    """As Keras names layers: ``ReLU`` to ``re_lu``, ``Conv2D`` to ``conv2d``."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _is_whole(file: WeightsFile, path: Path) -> bool:
    """Whether a file is what Keras published. Where Keras has no MD5, reading it will tell."""
    if file.md5 is None:
        return True
    try:
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "md5").hexdigest() == file.md5
    except OSError:
        return False


def _download(backbone: Backbone, file: WeightsFile) -> None:
    """Into a folder of its own, then renamed: a file under its name is whole."""
    origin = url(backbone, file)
    scratch: Path | None = None
    try:
        length_bytes = _length(origin)
        file.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=file.path.parent, prefix=".download-"))
        part = _fetch(origin, file, scratch)
        if part.stat().st_size != length_bytes:
            raise OSError(f"{part.stat().st_size} of {length_bytes} bytes came")
        _settle(part, file.path)
    except Exception as error:  # Keras raises a bare Exception for what urllib raises
        raise DataError(_advice(backbone, file, origin, error), code="no weights") from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _length(origin: str) -> int:
    """How many bytes the server has, asked in a thread: a name server or a proxy that is away can hang for minutes."""
    found: list[int | Exception] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(origin, method="HEAD")
            with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                found.append(int(answer.headers["Content-Length"]))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_S)
    if not found:
        raise TimeoutError(f"no answer within {ANSWER_S:.0f} s")
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def _fetch(origin: str, file: WeightsFile, folder: Path) -> Path:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_S)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras's progress bar
            got = keras.utils.get_file(file.name, origin, file_hash=file.md5, cache_dir=str(folder), cache_subdir="")
        return Path(got)
    finally:
        socket.setdefaulttimeout(before)


def _settle(part: Path, path: Path) -> None:
    with part.open("rb") as opened:
        os.fsync(opened.fileno())
    os.replace(part, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _advice(backbone: Backbone, file: WeightsFile, origin: str, error: Exception) -> str:
    damaged = " (the one there is damaged)" if file.path.exists() else ""
    reason = getattr(error, "reason", error)
    return (
        f"the weights of {backbone.name} are not on this machine{damaged} and cannot be downloaded ({reason}). "
        f"Put {file.name} from {origin} into {file.path.parent}, or give --weights FILE, "
        "or --weights none to start from random ones."
    )
