"""From a Keras model to a quantized ``.tflite``: raw pixels in, float32 logits out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge.errors import ModelError
from trainer.dataset.split import Indices
from trainer.pixels import PixelStack

if TYPE_CHECKING:
    import keras

CALIBRATION_PHOTOS = 100
"""More changed nothing: ``benchmarks/calibration.py`` prints agreement and time for 25 to 200."""


def calibration(
    labels: npt.NDArray[np.intp], candidates: Indices, seed: int, most: int = CALIBRATION_PHOTOS
) -> Indices:
    """Choose calibration photos, the same number of each class as far as there are enough.

    A directory walk would take one class only, and the ranges of the others would be clipped.

    Args:
        labels: class numbers of all photos.
        candidates: photos that may be used: those trained on.
        seed: decides within a class.
        most: how many at most.

    Returns:
        At most ``most`` indices, one class after the other in turn.
    """
    random = np.random.default_rng(seed)
    queues = [random.permutation(candidates[labels[candidates] == label]).tolist() for label in np.unique(labels)]
    chosen: list[int] = []
    while any(queues) and len(chosen) < most:
        chosen += [queue.pop() for queue in queues if queue]
    return np.array(chosen[:most], dtype=np.intp)


def representative(pixels: PixelStack, indices: Indices) -> Iterator[npt.NDArray[np.uint8]]:
    """The calibration inputs, uint8 (1, h, w, 3): black and white first, so that the pixels always span 0 to 255."""
    shape = (1, pixels.spec.height, pixels.spec.width, 3)
    yield np.zeros(shape, np.uint8)
    yield np.full(shape, 255, np.uint8)
    for i in indices:
        yield pixels[int(i)][np.newaxis]


def int8(model: keras.Model, inputs: Iterator[npt.NDArray[np.uint8]]) -> bytes:
    """Quantize weights and activations to int8.

    Dense layers are quantized per tensor, since tflite-runtime 2.14 cannot load them per channel.

    Args:
        model: uint8 pixels (n, h, w, 3) to float32 logits.
        inputs: calibration pixels, as :func:`representative` gives them.

    Raises:
        ModelError: the converter refuses the model.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    shape = (1, *model.input.shape[1:])
    function = tf.function(lambda pixels: model(pixels, training=False))
    concrete = convert_variables_to_constants_v2(function.get_concrete_function(tf.TensorSpec(shape, tf.uint8)))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([pixels] for pixels in inputs)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32
    try:
        return bytes(converter.convert())
    except Exception as error:  # the converter raises its own and MLIR's
        raise ModelError(f"the model cannot be quantized: {str(error).strip().splitlines()[-1]}") from error


def memory_mib(content: bytes) -> int:
    """What a process needs that runs the model, reckoned from the file so that the same model gives the same number.

    Python, numpy, Pillow and a runtime (64 MiB), the file twice (XNNPACK packs the weights again), and the tensors
    between the layers as if two of the largest lived at once.
    """
    model = _parse(content)
    sizes = [
        int(np.prod(tensor.shape)) for tensor in model.subgraphs[0].tensors if model.buffers[tensor.buffer].data is None
    ]
    largest = max(sizes, default=0)
    return 64 + -(-(2 * len(content) + 2 * largest) // 2**20)


def op_versions(content: bytes) -> dict[str, int]:
    """Operators of a ``.tflite`` with the highest version of each, read from the file."""
    from tensorflow.lite.python import schema_py_generated as schema

    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    model = _parse(content)
    versions: dict[str, int] = {}
    for code in model.operatorCodes:
        name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        versions[name] = max(versions.get(name, 0), code.version)
    return dict(sorted(versions.items()))


def _parse(content: bytes) -> Any:
    from tensorflow.lite.python import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
