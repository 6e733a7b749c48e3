"""Makes a ``.tflite`` that was trained elsewhere keep Fieldmark's contract, by adding and taking off operators.

Raw uint8 pixels go in and float32 logits come out, whatever the model did before: the scaling that its own application
did in code becomes its first operators, and a softmax at its end is taken off. Weights are never changed. The result
has run, in a child process, before anyone gets it; how good it is the gate finds out.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.errors import ModelError
from edge.model import run, runtime
from edge.model.spec import MAX_SIDE
from trainer.imported import flat, metadata
from trainer.imported.flat import Graph, Tensor, operator
from trainer.imported.scaling import PRESETS, RAW, Scaling

LOGITS = "logits"
SOFTMAX_REMOVED = "softmax removed"
LOGARITHM = "logarithm of probabilities"

_INPUTS = ("FLOAT32", "UINT8", "INT8")
_QUANTIZED = ("UINT8", "INT8")
_PASSIVE = ("QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE")
_LEAST_PROBABILITY = 1e-7
_DENSE_KNOWN, _DENSE_FLOAT = 11, 6
_MAX_WIDENED = 1 << 24
_RUN_S = 120.0


@dataclass(frozen=True)
class Adapted:
    """A model that keeps the contract.

    Attributes:
        content: the ``.tflite``: uint8 (1, height, width, 3) in, float32 logits (1, classes) out.
        height, width: of the input, pixels.
        classes: C.
        scaling: what is now done to the pixels inside, before the network that was given.
        scaling_from: where it comes from: ``option``, ``metadata``, ``quantization``.
        input: the element type that the model had before: ``FLOAT32``, ``UINT8`` or ``INT8``.
        answer: what became of its end: ``logits``, which it gave already, ``softmax removed``, or ``logarithm of
            probabilities``, whose softmax is the probabilities again.
    """

    content: bytes
    height: int
    width: int
    classes: int
    scaling: Scaling
    scaling_from: str
    input: str
    answer: str


def adapt(content: bytes, scaling: Scaling | None, classes: int) -> Adapted:
    """Put a model trained elsewhere between raw pixels and logits.

    Args:
        content: the ``.tflite``: float32, uint8 or int8 image (1, H, W, 3) in; logits or probabilities out, float or
            quantized.
        scaling: what its application did to the pixels; if None, what its metadata says, or what its quantized input
            leaves no doubt about.
        classes: how many labels there are.

    Raises:
        ModelError: the file is damaged (code ``damaged``), too large (``too large``), no plain image classifier
            (``unsupported``), has another number of classes (``classes``), does not say how it wants its pixels
            (``scaling``), or no runtime on this machine can run it.
    """
    graph = flat.read(content)
    height, width = _size(graph)
    _check_answer(graph, classes)
    kind = graph.tensors[graph.input].kind
    chosen, origin = _scaling(graph, content, scaling)
    _put_in_front(graph, chosen)
    answer = _end_in_logits(graph, classes)
    _suit_older_runtimes(graph)
    made = _written(graph)
    if answer == LOGITS and _are_probabilities(_answers(made, height, width)):
        _append_logarithm(graph)
        made, answer = _written(graph), LOGARITHM
    if not np.isfinite(_answers(made, height, width)).all():
        raise ModelError("the model answers with numbers that are not finite. It cannot be used.", code="not finite")
    return Adapted(made, height, width, classes, chosen, origin, kind, answer)


# --- what there is


def _size(graph: Graph) -> tuple[int, int]:
    """Height and width of the input, pixels."""
    tensor = graph.tensors[graph.input]
    if tensor.kind not in _INPUTS:
        raise ModelError(
            f"the model's input is {tensor.kind}, expected {', '.join(_INPUTS)}. Convert it with another input type.",
            code="unsupported",
        )
    if set(tensor.open_sides) - {0}:
        raise ModelError(
            "the model's input has no fixed height and width. Convert it with a fixed input shape.", code="unsupported"
        )
    if len(tensor.shape) != 4 or tensor.shape[0] != 1 or tensor.shape[3] != 3:
        shape = tensor.shape
        hint = " Its channels come first: convert it to channels last." if shape[1:2] == (3,) else ""
        raise ModelError(f"the model's input is {shape}, expected one photo (1, height, width, 3).{hint}", code="input")
    if not all(1 <= side <= MAX_SIDE for side in tensor.shape[1:3]):
        raise ModelError(f"the model's input is {tensor.shape}, sides are 1 to {MAX_SIDE} pixels.", code="input")
    return tensor.shape[1], tensor.shape[2]


def _check_answer(graph: Graph, classes: int) -> None:
    tensor = graph.tensors[graph.output]
    if tensor.kind not in _INPUTS:
        raise ModelError(f"the model's output is {tensor.kind}, expected {', '.join(_INPUTS)}.", code="unsupported")
    if tensor.size == 1:
        raise ModelError(
            "the model answers with a single number (one sigmoid unit). Train it with two units and a softmax, one for "
            "each of the two labels.",
            code="unsupported",
        )
    if tensor.shape[-1:] != (tensor.size,):
        raise ModelError(f"the model's output is {tensor.shape}, expected one list of scores (1, C).", code="output")
    if tensor.size != classes:
        raise ModelError(
            f"the model has {tensor.size} classes and there are {classes} labels. Give the labels of this model, in "
            "the order of its answers.",
            code="classes",
        )
    for each in (tensor, graph.tensors[graph.input]):
        _check_quantization(each)


def _check_quantization(tensor: Tensor) -> None:
    """An input or output that is quantized has one scale, a sound one."""
    if tensor.kind not in _QUANTIZED or tensor.scale == ():
        return
    low, high = (0, 255) if tensor.kind == "UINT8" else (-128, 127)
    if len(tensor.scale) != 1 or not low <= tensor.zero_point[0] <= high or not 0 <= tensor.scale[0] <= 1e9:
        raise ModelError(
            f"the model's input or output has scale {tensor.scale[:3]} and zero point {tensor.zero_point[:3]}, "
            f"expected one scale above 0 and a zero point of {low} to {high}. Convert it again.",
            code="unsupported",
        )


def _is_plain(tensor: Tensor) -> bool:
    """Whether a uint8 input takes pixels as they are."""
    return tensor.kind == "UINT8" and (tensor.scale, tensor.zero_point) in (((), ()), ((0.0,), (0,)), ((1.0,), (0,)))


# --- the pixels


def _scaling(graph: Graph, content: bytes, option: Scaling | None) -> tuple[Scaling, str]:
    """What is to be done to the pixels, and who says so."""
    tensor = graph.tensors[graph.input]
    if _is_plain(tensor):
        if option not in (None, RAW):
            raise ModelError(
                f"the model takes pixels as they are, 0 to 255, and scales them inside; scaling {option} would do it "
                "twice. Leave the scaling out.",
                code="scaling",
            )
        return RAW, "quantization"
    if option is not None:
        return option, "option"
    said, whole = metadata.scaling(content), _from_quantization(tensor)
    if said is not None and whole is not None and not _much_the_same(said, whole, tensor.scale[0]):
        raise ModelError(
            f"the model's metadata says scaling {said}, its quantized input says {whole}. Give the right one.",
            code="scaling",
        )
    if whole is not None:
        return whole, "quantization"
    if said is not None:
        return said, "metadata"
    raise ModelError(
        f"the model does not say how it wants pixels to be scaled. Give the scaling that it was trained with: "
        f"{', '.join(PRESETS)}, or MEAN/STD; Teachable Machine's is -1..1.",
        code="scaling",
    )


def _from_quantization(tensor: Tensor) -> Scaling | None:
    """The scaling that hands each pixel over as it is, to a quantized input that spans a range people scale to.

    Teachable Machine's scale 1/128 and zero point 127 span -0.99 to 1, so 0 to 255 are -1 to 1. A scale of 0.78, that
    some calibration photos gave, spans 0 to 199: there the pixels are not what the numbers are.
    """
    if tensor.kind not in _QUANTIZED or not tensor.scale or tensor.scale[0] == 0:
        return None
    scale, zero = tensor.scale[0], tensor.zero_point[0] + (128 if tensor.kind == "INT8" else 0)
    low, high = -zero * scale, (255 - zero) * scale
    for name in ("-1..1", "0..1", "raw"):
        preset = PRESETS[name]
        ends = [(pixel - preset.mean[0]) / preset.std[0] for pixel in (0, 255)]
        if math.isclose(low, ends[0], abs_tol=2 * scale) and math.isclose(high, ends[1], abs_tol=2 * scale):
            return Scaling((float(zero),) * 3, (1 / scale,) * 3)
    return None


def _much_the_same(one: Scaling, other: Scaling, step: float) -> bool:
    """Whether two scalings differ by at most three steps of the quantized input, at either end."""
    return one.bgr == other.bgr and all(
        abs((pixel - one.mean[i]) / one.std[i] - (pixel - other.mean[i]) / other.std[i]) <= 3 * step
        for pixel in (0, 255)
        for i in range(3)
    )


def _put_in_front(graph: Graph, scaling: Scaling) -> None:
    """Raw pixels, CAST, MUL, ADD, to another order of channels, QUANTIZE: as far as each is needed."""
    old = graph.tensors[graph.input]
    old.open_sides = ()
    if _is_plain(old):
        old.name = "pixels"
        return
    pixels = graph.add(Tensor(old.shape, "UINT8", name="pixels"))
    new = _scaled(graph, pixels, scaling)
    if old.kind == "FLOAT32":
        new[-1].outputs[0] = graph.input
    else:
        new.append(operator("QUANTIZE", [new[-1].outputs[0]], graph.input))
    graph.operators[:0] = new
    graph.input = pixels


def _scaled(graph: Graph, pixels: int, scaling: Scaling) -> list[flat.Operator]:
    shape = graph.tensors[pixels].shape
    new = [operator("CAST", [pixels], graph.add(Tensor(shape, "FLOAT32")))]
    factor = np.array([1 / std for std in scaling.std], np.float32)
    offset = np.array([-mean / std for mean, std in zip(scaling.mean, scaling.std, strict=True)], np.float32)
    for name, values, nothing in (("MUL", factor, 1), ("ADD", offset, 0)):
        if (values != nothing).any():
            constant = graph.constant(values)
            new.append(operator(name, [new[-1].outputs[0], constant], graph.add(Tensor(shape, "FLOAT32"))))
    if scaling.bgr:
        order = graph.constant(np.array([2, 1, 0], np.int32))
        new.append(operator("GATHER", [new[-1].outputs[0], order], graph.add(Tensor(shape, "FLOAT32")), axis=3))
    return new


# --- the answer


def _end_in_logits(graph: Graph, classes: int) -> str:
    """End the graph in float32 (1, C), before the softmax if there is one; what became of the end."""
    wanted, answer = _before_softmax(graph, classes)
    tensor = graph.tensors[wanted]
    if tensor.kind in _QUANTIZED:
        if tensor.scale in ((), (0.0,)):
            raise ModelError(
                f"the model's output is {tensor.kind} without a scale, so its numbers mean nothing. Convert it again.",
                code="unsupported",
            )
        made = graph.add(Tensor(tensor.shape, "FLOAT32"))
        graph.operators.append(operator("DEQUANTIZE", [wanted], made, version=2 if tensor.kind == "INT8" else 1))
        wanted = made
    if graph.tensors[wanted].shape != (1, classes):
        made = graph.add(Tensor((1, classes), "FLOAT32"))
        graph.operators.append(
            operator("RESHAPE", [wanted, graph.constant(np.array([1, classes], np.int32))], made, newShape=[1, classes])
        )
        wanted = made
    _end_at(graph, wanted)
    return answer


def _end_at(graph: Graph, tensor: int) -> None:
    graph.output = tensor
    graph.tensors[tensor].name = "logits"
    graph.drop_unused()


def _before_softmax(graph: Graph, classes: int) -> tuple[int, str]:
    """The tensor that the last softmax reads, or the output where there is none.

    Raises:
        ModelError: the answers are sigmoids, each for itself.
    """
    tensor = graph.output
    while (last := graph.producer(tensor)) is not None:
        before = last.inputs[0] if last.inputs else -1
        if before >= 0 and _is_plain_softmax(last, graph.tensors[before], classes):
            _check_quantization(graph.tensors[before])
            return before, SOFTMAX_REMOVED
        if last.name == "LOGISTIC":
            raise ModelError(
                "the model answers each label by itself (sigmoid), so several may hold at once. Fieldmark gives a "
                "photo one label: train it with a softmax.",
                code="unsupported",
            )
        if last.name not in _PASSIVE or before < 0:
            break
        tensor = before
    return graph.output, LOGITS


def _is_plain_softmax(last: flat.Operator, before: Tensor, classes: int) -> bool:
    """Whether it is the softmax over all classes, at temperature 1."""
    whole = before.size == classes and before.shape[-1:] == (classes,)
    return last.name == "SOFTMAX" and whole and getattr(last.options, "beta", 1.0) == 1


def _append_logarithm(graph: Graph) -> None:
    """The softmax of the logarithms of probabilities is the probabilities."""
    shape = graph.tensors[graph.output].shape
    graph.tensors[graph.output].name = ""
    least = graph.constant(np.array([_LEAST_PROBABILITY], np.float32))
    above = graph.add(Tensor(shape, "FLOAT32"))
    graph.operators.append(operator("MAXIMUM", [graph.output, least], above))
    made = graph.add(Tensor(shape, "FLOAT32"))
    graph.operators.append(operator("LOG", [above], made))
    _end_at(graph, made)


def _are_probabilities(answers: npt.NDArray[np.float32]) -> bool:
    """Whether all answers are shares of one. A quantized share is off by up to 1/256."""
    off = np.abs(answers.sum(axis=1) - 1)
    return bool((answers >= 0).all() and (off <= 0.01 + answers.shape[1] / 512).all())


# --- operators newer than tflite-runtime 2.14


def _suit_older_runtimes(graph: Graph) -> None:
    """Dense layers of version 12, which current converters write and tflite-runtime 2.14 does not load.

    Only int8 weights with a scale each unit, on float numbers, are new in it: those weights become the floats that they
    stand for. (Written as a convolution of one pixel, which 2.14 loads, such a layer answered zeros there when tried.)
    The others of that version are old layers, written under one number. Very large layers are left as they are, and
    cost the model that runtime.
    """
    for dense in graph.operators:
        if dense.name != "FULLY_CONNECTED" or dense.version <= _DENSE_KNOWN or len(dense.inputs) < 2:
            continue
        numbers, weights = (graph.tensors[i] for i in dense.inputs[:2])
        if numbers.kind == "FLOAT32" and _has_scale_each_unit(graph, weights):
            dense.inputs[1] = _as_floats(graph, weights)
            if dense.options is not None:
                dense.options.asymmetricQuantizeInputs = False  # it quantized the numbers on their way in
        if numbers.kind == graph.tensors[dense.inputs[1]].kind == "FLOAT32":
            dense.version = _DENSE_FLOAT
    graph.drop_unused()


def _has_scale_each_unit(graph: Graph, weights: Tensor) -> bool:
    return (
        weights.kind == "INT8"
        and len(weights.shape) == 2
        and len(weights.scale) == weights.shape[0]
        and weights.axis == 0
        and len(graph.buffers[weights.buffer]) == weights.size <= _MAX_WIDENED
    )


def _as_floats(graph: Graph, weights: Tensor) -> int:
    values = np.frombuffer(graph.buffers[weights.buffer], np.int8).reshape(weights.shape).astype(np.float32)
    zero, scale = (np.array(numbers, np.float32)[:, np.newaxis] for numbers in (weights.zero_point, weights.scale))
    with np.errstate(over="ignore", invalid="ignore"):  # whether the answers are finite is looked at in the end
        return graph.constant((values - zero) * scale)


# --- trying it


def _written(graph: Graph) -> bytes:
    try:
        return flat.write(graph)
    except Exception as error:  # a value out of its field's range: struct, flatbuffers and numpy each say so otherwise
        raise ModelError(f"the .tflite is damaged: it cannot be written again ({error}).", code="damaged") from error


def _answers(content: bytes, height: int, width: int) -> npt.NDArray[np.float32]:
    """The model's answers to black, white and two noisy photos, float32 (4, C), from the first runtime that runs it."""
    random = np.random.default_rng(0)
    photos = np.stack(
        [np.full((height, width, 3), level, np.uint8) for level in (0, 255)]
        + [random.integers(0, top, (height, width, 3), np.uint8) for top in (128, 256)]
    )
    reasons = []
    with tempfile.TemporaryDirectory(prefix="fieldmark-import-") as folder:
        model, pixels = Path(folder) / "model.tflite", Path(folder) / "photos.npy"
        model.write_bytes(content)
        np.save(pixels, photos)
        for installed in runtime.installed():
            try:
                return run.in_child(model, pixels, runtime=installed.name, timeout_s=_RUN_S).logits
            except ModelError as error:
                reasons.append(f"{installed.name}: {error}")
    raise ModelError(
        f"no runtime runs the model. {'; '.join(reasons) or 'None is installed: install ai-edge-litert.'}", code="runs"
    )
