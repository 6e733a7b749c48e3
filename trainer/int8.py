"""Full-integer quantization that loses little: ranges that fit, weights rounded for what comes in, biases put right.

TensorFlow's quantizer makes the file; what it is given (ranges) and the numbers in what it gives (int8 weights, int32
biases) are ours. The operators, and so the speed and what can load it, stay the quantizer's. What helped and what did
not is in ``docs/quantization.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from trainer import observe, rounding
from trainer.flatbuffer import DEPTHWISE, Layer, Table
from trainer.observe import Pixels, Seen, Spread

_CLIPS = np.linspace(0.25, 1.0, 31)
"""Shares of the whole range that are tried."""
_LEVELS = 255
_SAME_RANGE = frozenset(
    ("MAX_POOL_2D", "AVERAGE_POOL_2D", "PAD", "PADV2", "RESHAPE", "SQUEEZE", "TRANSPOSE", "CONCATENATION")
)
"""Operators whose inputs and output have one scale."""

Say = Callable[[str], None]
Quantize = Callable[[bytes], bytes]
Ranges = dict[int, tuple[float, float]]


def fitted(calibrated: bytes, photos: Iterator[Pixels], quantize: Quantize, say: Say) -> bytes:
    """Quantize a model.

    Args:
        calibrated: the float model with a range, of whatever photo, at each tensor that is to be quantized.
        photos: uint8 (1, h, w, 3), to calibrate on.
        quantize: makes the int8 model of the float one with ranges.
        say: told what could not be done.
    """
    with threadpool_limits(1, user_api="blas"):  # many small problems: threads would only wait for each other
        return _fitted(Table(calibrated), photos, quantize, say)


def _fitted(table: Table, photos: Iterator[Pixels], quantize: Quantize, say: Say) -> bytes:
    seen = observe.watch(table, photos)
    for tensor, (low, high) in _ranges(table, seen).items():
        if table.has_range(tensor):
            table.put_range(tensor, low, high)
    result = Table(quantize(table.content()))
    _put_weights(table, result, seen, say)
    return result.content()


# --- ranges


def _ranges(table: Table, seen: Seen) -> Ranges:
    """Of every tensor: whole where pixels are still pixels and at the end, else where clipping and rounding err least.

    Pixels span 0 to 255 whatever the photos show.
    """
    before = _before_layers(table)
    extreme = observe.ends(table, _black_and_white(table)) if before else {}
    found: Ranges = {}
    for tensor, spread in seen.spreads.items():
        if tensor in before:
            low, high = extreme[tensor]
            found[tensor] = (min(low, spread.low), max(high, spread.high))
        elif tensor in table.outputs:
            found[tensor] = (spread.low, spread.high)
        else:
            found[tensor] = best_range(spread)
    return _shared(table, found)


def best_range(spread: Spread) -> tuple[float, float]:
    """The range, 0 in it, for which clipping and rounding to 256 levels together err least."""
    values = np.concatenate([np.zeros(1, np.float32), *spread.values])
    best, least = (spread.low, spread.high), np.inf
    for share in _CLIPS:
        low, high = spread.low * share, spread.high * share
        step = (high - low) / _LEVELS
        if step <= 0:
            continue
        levels = np.clip(np.round(values / step), np.round(low / step), np.round(high / step))
        error = float(((levels * step - values) ** 2).mean())
        if error < least:
            best, least = (float(low), float(high)), error
    return best


def _before_layers(table: Table) -> frozenset[int]:
    """The float tensors that are computed before any layer with weights: scaled pixels."""
    found: list[int] = []
    layers = {each.output for each in table.layers()}
    for each in table.operators:
        if layers & set(each.outputs):
            break
        found += each.outputs
    return frozenset(found) & frozenset(table.computed())


def _black_and_white(table: Table) -> Iterable[Pixels]:
    shape = table.shape(table.inputs[0])
    return [np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)]


def _shared(table: Table, found: Ranges) -> Ranges:
    """The same where an operator's inputs and output have one scale: what holds both, from the end to the start and
    again, since the quantizer would otherwise convert from one to the other."""
    ranges = dict(found)
    operators = [each for each in table.operators if each.name in _SAME_RANGE]
    for _ in range(len(operators) + 1):
        before = dict(ranges)
        for each in operators:
            tensors = [i for i in (*each.inputs, *each.outputs) if i in ranges]
            inner = [ranges[i] for i in each.inputs if i in ranges] or [ranges[i] for i in tensors]
            low, high = min((low for low, _ in inner), default=0.0), max((high for _, high in inner), default=0.0)
            for i in tensors:
                ranges[i] = (low, high)
        if ranges == before:
            break
    return ranges


# --- weights


def _put_weights(floats: Table, result: Table, seen: Seen, say: Say) -> None:
    """Replace the weights and biases of every layer by better ones; what cannot be matched is left."""
    ours, theirs = floats.layers(), result.layers()
    if [(each.kind, floats.shape(each.weights)) for each in ours] != [
        (each.kind, result.shape(each.weights)) for each in theirs
    ]:
        say("the quantizer changed the layers, so their weights stay as it rounded them")
        return
    users = [each.weights for each in theirs]
    left = 0
    for before, after in zip(ours, theirs, strict=True):
        moments = seen.moments.get(before.weights)
        if moments is None or not moments.n or users.count(after.weights) > 1 or not _is_int8(result, after):
            left += 1
            continue
        _put_layer(floats, result, before, after, moments)
    if left:
        say(f"{left} of {len(ours)} layers are left as the quantizer rounded them")


def _is_int8(table: Table, layer: Layer) -> bool:
    weights = table.constant(layer.weights)
    bias = None if layer.bias is None else table.constant(layer.bias)
    return weights is not None and weights.dtype == np.int8 and (bias is None or bias.dtype == np.int32)


def _put_layer(floats: Table, result: Table, before: Layer, after: Layer, moments: rounding.Moments) -> None:
    weights = floats.constant(before.weights)
    assert weights is not None
    scales = np.broadcast_to(result.scales(after.weights), _channels(before, weights))
    if before.kind == DEPTHWISE:  # (1, h, w, c) -> (c, 1, hw)
        made = rounding.rounded(
            weights.reshape(-1, weights.shape[-1]).T[:, None, :].astype(np.float64), scales[:, None], moments
        )
        values = made.values[:, 0].T.reshape(weights.shape)
    else:  # (o, ...) -> (1, o, d)
        made = rounding.rounded(weights.reshape(1, len(weights), -1).astype(np.float64), scales[None], moments)
        values = made.values[0].reshape(weights.shape)
    result.put_constant(after.weights, np.ascontiguousarray(values))
    if after.bias is not None:
        result.put_constant(after.bias, _bias(floats, result, before, after, made.bias.ravel()))


def _channels(layer: Layer, weights: npt.NDArray[np.float32]) -> tuple[int]:
    return (weights.shape[-1] if layer.kind == DEPTHWISE else len(weights),)


def _bias(
    floats: Table, result: Table, before: Layer, after: Layer, change: npt.NDArray[np.float64]
) -> npt.NDArray[np.int32]:
    assert after.bias is not None
    bias = None if before.bias is None else floats.constant(before.bias)
    wanted = change if bias is None else bias + change
    limits = np.iinfo(np.int32)
    steps = np.round(wanted / result.scales(after.bias))
    return np.asarray(np.clip(steps, limits.min, limits.max), np.int32).reshape(result.shape(after.bias))
