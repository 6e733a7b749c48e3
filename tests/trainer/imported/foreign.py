"""Models as others make them, with answers that are known: what colour a photo has, or that it is dark.

The network's weights are set by hand. It wants pixels from -1 to 1, and knows dark photos by their negative numbers, so
that any other scaling shows. The files are made by the real converter, as Teachable Machine, MediaPipe Model Maker and
people's own scripts use it; an original is asked on a real runtime in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

LABELS = ("red", "green", "blue", "dark")
SIDE = 24
REPEATS = 30
"""Of each number before the last layer: weights of fewer than 1,024 numbers are never quantized without photos."""
STYLES = ("float32", "float16", "dynamic", "uint8", "int8")

_ASK = """
import importlib, sys
import numpy as np
model, photos, answers, module = sys.argv[1:]
interpreter = importlib.import_module(module).Interpreter(model)
index = interpreter.get_input_details()[0]["index"]
interpreter.allocate_tensors()
found = []
for photo in np.load(photos):
    interpreter.set_tensor(index, photo[None])
    interpreter.invoke()
    found.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
np.save(answers, np.stack(found))
"""


def network(*, end: str = "softmax", pixels: str = "float32") -> Any:
    """The network: (n, SIDE, SIDE, 3) from -1 to 1, to four probabilities, or to logits where ``end`` is ``linear``."""
    import keras
    from keras import layers

    x = inputs = keras.Input((SIDE, SIDE, 3), dtype=pixels, name="image")
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="colours")(x)
    x = layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False, name="means")(x)
    x = layers.ReLU(6.0, name="relu6")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(6 * REPEATS, activation="relu", name="repeated")(x)
    x = layers.Dense(4, activation=end, name="answer")(x)
    model = keras.Model(inputs, x, name="colour_network")
    set_weights(model)
    return model


def set_weights(model: Any) -> None:
    """Three filters for a channel's positive numbers and three for its negative ones; dark is all three negative."""
    signs = np.concatenate([np.eye(3), -np.eye(3)], axis=1)
    model.get_layer("colours").set_weights([np.tile(signs / 9, (3, 3, 1, 1)), np.zeros(6)])
    model.get_layer("means").set_weights([np.full((3, 3, 6, 1), 1 / 9)])
    bright = np.array([[6, -3, -3, -4], [-3, 6, -3, -4], [-3, -3, 6, -4]])
    below = np.array([[-3, 1, 1, 3], [1, -3, 1, 3], [1, 1, -3, 3]])
    model.get_layer("repeated").set_weights([np.tile(np.eye(6), REPEATS), np.zeros(6 * REPEATS)])
    answer = np.tile(np.concatenate([bright, below]) / REPEATS, (REPEATS, 1))
    model.get_layer("answer").set_weights([answer, np.array([0, 0, 0, -2.0])])


def photos() -> npt.NDArray[np.uint8]:
    """Twelve photos, (n, SIDE, SIDE, 3), three of each label in turn: noisy, with a gradient."""
    random = np.random.default_rng(5)
    means = np.array([[210, 60, 50], [60, 190, 70], [40, 70, 220], [30, 25, 28]])
    slope = np.linspace(-25, 25, SIDE)[None, :, None, None]
    stack = np.tile(means, (3, 1))[:, None, None, :] + slope.reshape(1, SIDE, 1, 1)
    noisy = stack + random.normal(0, 12, (12, SIDE, SIDE, 3))
    return np.asarray(np.clip(np.rint(noisy), 0, 255), np.uint8)


TRUTH = np.tile(np.arange(4), 3)


def scaled(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """What the network's own application does to pixels: Teachable Machine's ``image / 127.5 - 1``."""
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)


def convert(model: Any, style: str, calibration: npt.NDArray[np.float32] | None = None) -> bytes:
    """A ``.tflite`` of a Keras model, in one of :data:`STYLES`; ``uint8`` and ``int8`` are full integer, in and out."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if style != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if style == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if style in ("uint8", "int8"):
        converter.representative_dataset = lambda: _each(scaled(photos()) if calibration is None else calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = getattr(tf, style)
    return bytes(converter.convert())


def _each(stack: npt.NDArray[np.float32]) -> Iterator[list[npt.NDArray[np.float32]]]:
    for level in (-1, 1):
        yield [np.full((1, SIDE, SIDE, 3), level, np.float32)]
    for photo in stack:
        yield [photo[None]]


def ask(content: bytes, inputs: npt.NDArray[Any], runtime: str) -> npt.NDArray[Any]:
    """The answers of any ``.tflite`` to inputs that are ready for it, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="fieldmark-foreign-") as folder:
        model, given, answers = (Path(folder) / name for name in ("model.tflite", "in.npy", "out.npy"))
        model.write_bytes(content)
        np.save(given, inputs)
        command = [sys.executable, "-P", "-c", _ASK, str(model), str(given), str(answers), f"{runtime}.interpreter"]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return np.asarray(np.load(answers))


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)
