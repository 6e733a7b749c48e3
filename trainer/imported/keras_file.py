"""Takes a Keras model that others trained, ``.keras`` or ``.h5``, and wraps it: raw uint8 pixels in, logits out.

Such a file describes layers to be built, so it could name code to be run. Keras's ``safe_mode`` refuses ``Lambda``
layers and other Python code stored inside a ``.keras`` file; it is no sandbox, and older releases left it off for
``.h5``. So Keras is given a copy with nothing in it but what was looked at before: a description made of Keras's own
layers only, without those that call other code or open files, and weights that are plain numbers in this one file. The
memory that a described layer asks for is not bounded. Never trains, never converts.
"""

from __future__ import annotations

import inspect
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import keras
import numpy as np
from keras import layers

from edge.errors import FieldmarkError, ModelError
from edge.model.spec import MAX_SIDE
from trainer import weights
from trainer.imported.scaling import PRESETS, RAW, Scaling

MAX_FILE_BYTES = 1 << 30
MAX_CONFIG_BYTES = 32 << 20

_HDF5, _ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_CODE = frozenset({"Lambda", "__lambda__", "TFOpLambda", "SlicingOpLambda", "function", "TFSMLayer"})
_REFUSED = _CODE | {"TorchModuleWrapper", "JaxLayer", "FlaxLayer", "StringLookup", "IntegerLookup", "TextVectorization"}
_MODELS = frozenset({"Functional", "Sequential", "Model"})
_VALUES = frozenset(
    {"DTypePolicy", "Policy", "__keras_tensor__", "__numpy__", "__tensor__", "__ellipsis__", "__slice__"}
)
_OPERATIONS = ("keras.src.ops.numpy", "keras.src.ops.nn", "keras.src.ops.core", "keras.src.ops.math")
_LEAST_PROBABILITY = 1e-7


def load(path: Path, scaling: Scaling | None, classes: int) -> keras.Model:
    """Load a model and wrap it.

    Args:
        path: a ``.keras`` file, or an ``.h5`` file as Keras 2 and Teachable Machine (``keras_model.h5``) write it.
        scaling: what its application did to the pixels; if None, nothing, where the model begins with layers that do.
        classes: how many labels there are.

    Returns:
        uint8 RGB (n, H, W, 3) to float32 logits (n, classes). A softmax at the end is taken off.

    Raises:
        ModelError: the file is missing or damaged (code ``damaged``), too large (``too large``), holds Python code
            (``unsafe``), is no image classifier (``unsupported``), has another number of classes (``classes``), or
            does not scale pixels itself and no scaling is given (``scaling``).
    """
    model = _loaded(path)
    height, width = _size(model)
    answer = tuple(model.outputs[0].shape)
    found = answer[-1] if answer else None
    if found == 1:
        raise ModelError(
            f"{path.name} answers with a single number (one sigmoid unit). Train it with two units and a softmax.",
            code="unsupported",
        )
    if len(answer) != 2 or found != classes:
        raise ModelError(
            f"{path.name} answers {answer} and there are {classes} labels. Give the labels of this "
            "model, in the order of its answers.",
            code="classes",
        )
    chosen = _scaling(model, scaling)
    headless = _without_softmax(model)
    pixels = keras.Input((height, width, 3), dtype="uint8", name="pixels")
    x = (headless or model)(pixels if _takes_bytes(model) else _scaled(pixels, chosen))
    wrapped = keras.Model(pixels, layers.Activation("linear", dtype="float32", name="logits")(x), name="imported")
    if headless is None and _are_probabilities(wrapped, height, width):
        return keras.Model(
            pixels, keras.ops.log(keras.ops.maximum(wrapped.outputs[0], _LEAST_PROBABILITY)), name="imported"
        )
    return wrapped


# --- the file


def _loaded(path: Path) -> keras.Model:
    """The model as it was saved, built from a copy of which every part was looked at."""
    start = _start(path)
    with tempfile.TemporaryDirectory(prefix="fieldmark-keras-") as folder:
        try:
            if start.startswith(_ZIP):
                copy = _checked_zip(path, Path(folder))
            elif start.startswith(_HDF5):
                copy = _checked_hdf5(path, Path(folder))
            else:
                raise ModelError(f"{path} is neither a .keras nor an .h5 file of Keras.", code="damaged")
            model = keras.models.load_model(copy, compile=False, safe_mode=True)
        except FieldmarkError:
            raise
        except Exception as error:  # zipfile, h5py and Keras raise nearly anything
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ModelError(
                f"{path} cannot be loaded ({reason}). Save it again with a current Keras.", code="damaged"
            ) from error
    if not isinstance(model, keras.Model):
        raise ModelError(f"{path} holds no model but a {type(model).__name__}.", code="unsupported")
    return model


def _start(path: Path) -> bytes:
    try:
        if not path.is_file():  # a named pipe would never end
            raise ModelError(f"{path} is no file. Give a .keras or .h5 file.", code="damaged")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ModelError(
                f"{path} has {path.stat().st_size} bytes, at most {MAX_FILE_BYTES} are read.", code="too large"
            )
        with path.open("rb") as opened:
            return opened.read(8)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.", code="damaged") from error


def _checked_zip(path: Path, folder: Path) -> Path:
    """A ``.keras`` file of the checked parts alone."""
    copy, numbers = folder / "model.keras", folder / _WEIGHTS
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if len(members) != len(archive.infolist()) or not members.keys() <= {_CONFIG, _METADATA, _WEIGHTS}:
            raise ModelError(f"{path.name} holds more than a description and weights. Is it whole?", code="unsafe")
        for name, most in ((_CONFIG, MAX_CONFIG_BYTES), (_WEIGHTS, MAX_FILE_BYTES)):
            if members[name].file_size > most or members[name].file_size > 65536 + 100 * members[name].compress_size:
                raise ModelError(f"{path.name}: {name} unpacks to {members[name].file_size} bytes.", code="too large")
        config = _checked_config(archive.read(_CONFIG), path)
        with archive.open(_WEIGHTS) as inside, numbers.open("wb") as outside:
            shutil.copyfileobj(inside, outside)
    _check_weights(numbers, path)
    with zipfile.ZipFile(copy, "w") as archive:
        archive.writestr(_METADATA, json.dumps({"keras_version": keras.__version__}))
        archive.writestr(_CONFIG, config)
        archive.write(numbers, _WEIGHTS)
    return copy


def _checked_hdf5(path: Path, folder: Path) -> Path:
    """An ``.h5`` file with its description checked, and without what only training needs."""
    copy = folder / "model.h5"
    shutil.copyfile(path, copy)
    _check_weights(copy, path)
    with h5py.File(copy, "r+") as root:
        stored = root.attrs.get("model_config")
        if stored is None:
            raise ModelError(f"{path.name} holds weights and no model. Save the whole model.", code="unsupported")
        text = stored if isinstance(stored, bytes) else str(stored).encode()
        root.attrs["model_config"] = _checked_config(text, path)
        for name in ("training_config", "optimizer_weights"):
            root.attrs.pop(name, None)
            root.pop(name, None)
    return copy


def _check_weights(numbers: Path, path: Path) -> None:
    """Plain numbers in this file: Keras's reader of ``.h5`` would also follow links to others."""
    with h5py.File(numbers, "r") as root:
        weights.check_hdf5(root, numbers, path)


def _checked_config(text: bytes, path: Path) -> str:
    """A description of Keras's own layers, again as text; without how it was compiled.

    Raises:
        ModelError: it names anything else.
    """
    if len(text) > MAX_CONFIG_BYTES:
        raise ModelError(f"{path.name}: its description has {len(text)} bytes.", code="too large")
    config = json.loads(text)
    for part in _parts(config):
        name, module = str(part["class_name"]), part.get("module")
        if name in _REFUSED:
            kind = "Python code" if name in _CODE else "code or files outside the model"
            raise ModelError(
                f"{path.name} holds {name}, {kind}, which is not run here. Build the model without it; Rescaling does "
                "for pixels what a Lambda often does.",
                code="unsafe",
            )
        if not _is_known(name, module):
            raise ModelError(
                f"{path.name} holds {name[:60]!r} of {str(module)[:60]!r}, which is none of Keras's own layers. "
                "Build the model of those.",
                code="unsafe",
            )
        _forget_old_words(name, part.get("config"))
    config.pop("compile_config", None)
    return json.dumps(config)


def _parts(config: Any) -> Iterator[dict[str, Any]]:
    """Everything in a description that says what class it is, however deep."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += (each for key, each in value.items() if key != "compile_config")
            if "class_name" in value:
                yield value
        elif isinstance(value, list):
            waiting += value


def _is_known(name: str, module: Any) -> bool:
    if module is not None and not (isinstance(module, str) and (module == "keras" or module.startswith("keras."))):
        return False
    return name in _own_classes() | _MODELS | _VALUES or _is_operation(name, module)


def _is_operation(name: str, module: str | None) -> bool:
    """Sums and products that someone wrote as such: ``x / 127.5 - 1``."""
    return module in _OPERATIONS and name.isidentifier() and name[0].isupper()


@cache
def _own_classes() -> frozenset[str]:
    """Names of Keras's layers, initializers, regularizers and constraints."""
    homes = (layers, keras.initializers, keras.regularizers, keras.constraints)
    names = {name for home in homes for name, value in vars(home).items() if inspect.isclass(value)}
    return frozenset(names - _REFUSED)


def _forget_old_words(name: str, config: Any) -> None:
    """Keras 2, and so Teachable Machine, wrote ``groups: 1`` for a depthwise convolution; Keras 3 refuses the word."""
    if name == "DepthwiseConv2D" and isinstance(config, dict) and config.get("groups") == 1:
        del config["groups"]


# --- the model


def _size(model: keras.Model) -> tuple[int, int]:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs, expected one of each. A "
            "Sequential model begins with an Input of fixed size.",
            code="unsupported",
        )
    shape = tuple(model.inputs[0].shape)
    if len(shape) != 4 or shape[0] not in (None, 1) or shape[3] != 3:
        raise ModelError(f"the model's input is {shape}, expected photos (n, height, width, 3).", code="unsupported")
    if not all(side is not None and 1 <= side <= MAX_SIDE for side in shape[1:3]):
        raise ModelError(
            f"the model's input is {shape}, expected a fixed height and width of 1 to {MAX_SIDE}. Build it with an "
            "Input of the size that it was trained at.",
            code="unsupported",
        )
    return int(shape[1]), int(shape[2])


def _takes_bytes(model: keras.Model) -> bool:
    return str(keras.backend.standardize_dtype(model.inputs[0].dtype)) == "uint8"


def _scaling(model: keras.Model, option: Scaling | None) -> Scaling:
    if _takes_bytes(model):
        if option not in (None, RAW):
            raise ModelError(
                f"the model takes pixels as they are and scales them inside; scaling {option} would do it twice. Leave "
                "the scaling out.",
                code="scaling",
            )
        return RAW
    if option is not None:
        return option
    if any(isinstance(layer, layers.Rescaling | layers.Normalization) for layer in _all_layers(model)):
        return RAW
    raise ModelError(
        "the model has no layer that scales pixels and does not say how it wants them. Give the scaling that it was "
        f"trained with: {', '.join(PRESETS)}, or MEAN/STD; Teachable Machine's is -1..1.",
        code="scaling",
    )


def _all_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _all_layers(layer)


def _scaled(pixels: Any, scaling: Scaling) -> Any:
    """Pixels to what the network wants, float32 (n, h, w, 3)."""
    factors = [1 / std for std in scaling.std]
    offsets = [-mean / std for mean, std in zip(scaling.mean, scaling.std, strict=True)]
    x = layers.Rescaling(1.0, name="to_float", dtype="float32")(pixels)
    if scaling == RAW:
        return x
    if not scaling.bgr:
        return layers.Rescaling(factors, offset=offsets, name="normalise", dtype="float32")(x)
    convolution = layers.Conv2D(3, 1, name="normalise", trainable=False, dtype="float32")  # int8 and TFLite know it
    x = convolution(x)
    convolution.set_weights([np.diag(factors)[:, ::-1].reshape(1, 1, 3, 3), np.array(offsets[::-1])])
    return x


def _without_softmax(model: keras.Model) -> keras.Model | None:
    """The same model, layers shared, ending before its softmax; None where it does not end in one.

    Raises:
        ModelError: it ends in sigmoids.
    """
    history = model.outputs[0]._keras_history
    last = history.operation
    before = last._inbound_nodes[history.node_index].input_tensors[0]
    if isinstance(last, keras.Model):
        inner = _without_softmax(last)
        return None if inner is None else keras.Model(model.inputs, inner(before), name=model.name)
    if type(last).__name__ == "Softmax" and getattr(last, "axis", -1) in (-1, 1):  # the layer and the operation
        return keras.Model(model.inputs, before, name=model.name)
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    if activation == "sigmoid":
        raise ModelError(
            "the model answers each label by itself (sigmoid), so several may hold at once. Fieldmark gives a photo "
            "one label: train it with a softmax.",
            code="unsupported",
        )
    if activation != "softmax":
        return None
    last.activation = keras.activations.linear
    return model


def _are_probabilities(model: keras.Model, height: int, width: int) -> bool:
    """Whether its answers to black, white and two noisy photos are shares of one."""
    random = np.random.default_rng(0)
    photos = [np.full((height, width, 3), level, np.uint8) for level in (0, 255)]
    photos += [random.integers(0, top, (height, width, 3), np.uint8) for top in (128, 256)]
    answers = np.asarray(model(np.stack(photos), training=False))
    return bool((answers >= 0).all() and (np.abs(answers.sum(axis=1) - 1) <= 1e-3).all())
