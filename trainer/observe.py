"""Watches a float ``.tflite`` at work on photos: the range of every tensor, and what comes into every layer.

TensorFlow's own calibrator is not used for ranges. It reads an operator's input after the operator ran, and ADD writes
its result over its input, so that both get the wider of the two ranges (TensorFlow 2.21).
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.flatbuffer import DENSE, DEPTHWISE, Layer, Table
from trainer.rounding import Moments

_VALUES = 1000
"""Drawn from each tensor of each photo."""
_PLACES = 64
"""Of each layer's output, of each photo, whose inputs are looked at."""
_THREADS = 4
_SAME = 0  # padding, in the file

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass
class Spread:
    """The values of one tensor: the smallest, the largest, and some."""

    low: float = 0.0
    high: float = 0.0
    values: list[Floats] = field(default_factory=list)


@dataclass(frozen=True)
class Seen:
    """What was watched.

    Attributes:
        spreads: tensor -> its values.
        moments: weights of a layer -> what comes in where they are used.
    """

    spreads: dict[int, Spread]
    moments: dict[int, Moments]


@dataclass(frozen=True)
class _Look:
    """One photo's part."""

    ends: dict[int, tuple[float, float]]
    values: dict[int, Floats]
    inputs: dict[int, Floats]


def watch(table: Table, photos: Iterable[Pixels]) -> Seen:
    """Run a float model.

    Args:
        table: the model; it is left as it is.
        photos: uint8 (1, h, w, 3).
    """
    layers = [each for each in table.layers() if _is_plain(each, table)]
    kernels = {each.weights: table.shape(each.weights) for each in layers}
    seen = Seen({i: Spread() for i in table.computed()}, {each.weights: Moments() for each in layers})
    threads = min(_THREADS, os.cpu_count() or 1)
    interpreters = [_Watched(table) for _ in range(threads)]

    def look(job: tuple[_Watched, tuple[int, Pixels]]) -> _Look:
        watched, (number, pixels) = job
        return _look(watched(pixels), layers, kernels, np.random.default_rng(number))

    with ThreadPoolExecutor(threads) as pool:
        for some in _batched(enumerate(photos), threads):
            for found in pool.map(look, zip(interpreters, some, strict=False)):
                _add(seen, found)
    return seen


def ends(table: Table, photos: Iterable[Pixels]) -> dict[int, tuple[float, float]]:
    """The smallest and the largest value of every tensor."""
    watched = _Watched(table)
    found: dict[int, tuple[float, float]] = {}
    for pixels in photos:
        for i, array in watched(pixels).items():
            low, high = found.get(i, (0.0, 0.0))
            found[i] = (min(low, float(array.min())), max(high, float(array.max())))
    return found


class _Watched:
    """An interpreter that gives out every float tensor."""

    def __init__(self, table: Table) -> None:
        import tensorflow as tf

        copy = Table(table.content())
        self._tensors = copy.computed()
        copy.give_out(self._tensors)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its successor is another package, which edge alone names
            self._interpreter = tf.lite.Interpreter(model_content=copy.content(), num_threads=1)
        self._interpreter.allocate_tensors()
        self._door = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [each["index"] for each in self._interpreter.get_output_details()]

    def __call__(self, pixels: Pixels) -> dict[int, Floats]:
        self._interpreter.set_tensor(self._door, pixels)
        self._interpreter.invoke()
        return {i: self._interpreter.get_tensor(out) for i, out in zip(self._tensors, self._outputs, strict=True)}


def _batched(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    rest = iter(items)
    while some := list(itertools.islice(rest, size)):
        yield some


def _add(seen: Seen, found: _Look) -> None:
    for i, (low, high) in found.ends.items():
        spread = seen.spreads[i]
        spread.low, spread.high = min(spread.low, low), max(spread.high, high)
        spread.values.append(found.values[i])
    for weights, inputs in found.inputs.items():
        seen.moments[weights].add(inputs)


def _look(
    arrays: dict[int, Floats], layers: list[Layer], kernels: dict[int, tuple[int, ...]], random: np.random.Generator
) -> _Look:
    found = {i: (float(array.min()), float(array.max())) for i, array in arrays.items()}
    values = {i: array.ravel()[random.integers(0, array.size, _VALUES)] for i, array in arrays.items()}
    inputs: dict[int, Floats] = {}
    for each in layers:
        if each.data in arrays:
            inputs[each.weights] = _inputs(each, arrays[each.data], kernels[each.weights], random)
    return _Look(found, values, inputs)


def _is_plain(layer: Layer, table: Table) -> bool:
    """Not one of groups, or of several outputs for each input channel."""
    shape, data = table.shape(layer.weights), table.shape(layer.data)
    return bool(data) and shape[-1] == data[-1]


def _inputs(layer: Layer, array: Floats, kernel: tuple[int, ...], random: np.random.Generator) -> Floats:
    """What one photo brings into a layer at some places, (k, n, d): of a depthwise one k channels, else 1."""
    if layer.kind == DENSE:
        return array.reshape(1, -1, kernel[-1])
    patches = _patches(layer.options, array[0], kernel[1:3], random)  # (n, kh * kw, c)
    if layer.kind == DEPTHWISE:
        return np.ascontiguousarray(patches.transpose(2, 0, 1))  # or numpy multiplies without BLAS
    return patches.reshape(1, len(patches), -1)


def _patches(options: Any, array: Floats, kernel: tuple[int, ...], random: np.random.Generator) -> Floats:
    """The values under the kernel, (n, kh * kw, c), at n places of the output drawn from all."""
    rows, height = _reach(array.shape[0], kernel[0], options.strideH, options.dilationHFactor, options.padding)
    columns, width = _reach(array.shape[1], kernel[1], options.strideW, options.dilationWFactor, options.padding)
    padded = np.pad(array, (height, width, (0, 0)))
    count = len(rows) * len(columns)
    places = np.sort(random.permutation(count)[: min(_PLACES, count)])
    y = rows[places // len(columns)][:, :, None]
    x = columns[places % len(columns)][:, None, :]
    return np.asarray(padded[y, x].reshape(len(places), -1, array.shape[-1]), np.float32)


def _reach(
    side: int, kernel: int, stride: int, dilation: int, padding: int
) -> tuple[npt.NDArray[np.intp], tuple[int, int]]:
    """Along one side: where each output looks, (outputs, kernel), in the padded array, and the padding."""
    span = (kernel - 1) * dilation + 1
    outputs = -(-side // stride) if padding == _SAME else (side - span) // stride + 1
    missing = max(0, (outputs - 1) * stride + span - side) if padding == _SAME else 0
    starts = np.arange(outputs)[:, None] * stride
    return starts + np.arange(kernel)[None, :] * dilation, (missing // 2, missing - missing // 2)
