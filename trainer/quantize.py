"""From a Keras model to a ``.tflite`` of one of four variants: raw pixels in, float32 logits out. Judges nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge.errors import ModelError
from trainer.calibration import CALIBRATION_PHOTOS, CalibrationRecord, calibration, representative
from trainer.flatbuffer import Operator, Table

if TYPE_CHECKING:
    import keras

__all__ = [
    "CALIBRATION_PHOTOS", "VARIANTS", "CalibrationRecord", "Recipe", "calibration", "convert", "int8",
    "is_calibrated", "memory_mib", "op_versions", "recipes", "representative",
]  # fmt: skip

INT8, DYNAMIC, FLOAT16, FLOAT32 = VARIANTS = ("int8", "dynamic", "float16", "float32")

Inputs = Callable[[], Iterator[npt.NDArray[np.uint8]]]


@dataclass(frozen=True)
class Recipe:
    """One way to make a variant.

    Attributes:
        words: for the manifest and a person.
        per_channel_dense: a scale for each output of dense layers too; tflite-runtime 2.14 cannot load that.
        fitted: int8 only: own ranges and rounding, see :mod:`trainer.int8`; else all is the converter's.
    """

    words: str = "as the converter makes it, one scale for each dense layer"
    per_channel_dense: bool = False
    fitted: bool = True


_RECIPES = {
    INT8: (
        Recipe("all int8, ranges and rounding fitted to the calibration photos, one scale for each dense layer"),
        Recipe("all int8 as the converter makes it, one scale for each dense layer", fitted=False),
    ),
    DYNAMIC: (
        Recipe("int8 weights and float activations, one scale for each output", per_channel_dense=True),
        Recipe("int8 weights and float activations, one scale for each dense layer"),
    ),
    FLOAT16: (Recipe("float16 weights, float32 activations"),),
    FLOAT32: (Recipe("float32 weights and activations"),),
}


def recipes(variant: str) -> tuple[Recipe, ...]:
    """The ways to make a variant, in the order to try: a runtime that cannot load the first may load a later one.

    Raises:
        ModelError: there is no such variant.
    """
    if variant not in VARIANTS:
        raise ModelError(f"there is no variant {variant!r}, expected one of {', '.join(VARIANTS)}.", code="variant")
    return _RECIPES[variant]


def is_calibrated(variant: str) -> bool:
    """Whether photos decide the ranges of its activations."""
    return variant == INT8


def convert(
    model: keras.Model,
    variant: str,
    calibration_pixels: Inputs,
    *,
    recipe: Recipe | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> bytes:
    """Convert a model. The same model, photos and machine give the same bytes.

    Args:
        model: uint8 pixels (n, h, w, 3) to float32 logits.
        variant: one of :data:`VARIANTS`.
        calibration_pixels: begins to give photos, uint8 (1, h, w, 3); may be asked more than once, and is asked only
            where :func:`is_calibrated` says so.
        recipe: one of :func:`recipes`; the first if None.
        say: told in half a sentence what of the recipe could not be done with this network.

    Returns:
        A ``.tflite`` with uint8 input and float32 output.

    Raises:
        ModelError: the converter refuses the model, or there is no such variant.
    """
    recipe = recipes(variant)[0] if recipe is None else recipe
    converter = _converter(model, variant, recipe)
    try:
        if variant != INT8:
            return bytes(converter.convert())
        if recipe.fitted:
            return _fitted(converter, calibration_pixels, recipe, say)
        converter.representative_dataset = lambda: ([pixels] for pixels in _spanning(model, calibration_pixels))
        return bytes(converter.convert())
    except Exception as error:  # the converter raises its own and MLIR's
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise ModelError(f"the model cannot be quantized to {variant}: {reason}", code="convert") from error


def int8(model: keras.Model, inputs: Iterator[npt.NDArray[np.uint8]]) -> bytes:
    """Quantize weights and activations to int8 by the first recipe.

    Args:
        model: uint8 pixels (n, h, w, 3) to float32 logits.
        inputs: calibration pixels, as :func:`representative` gives them.

    Raises:
        ModelError: the converter refuses the model.
    """
    photos = list(inputs)
    return convert(model, INT8, lambda: iter(photos))


def _converter(model: keras.Model, variant: str, recipe: Recipe) -> Any:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    shape = (1, *model.input.shape[1:])
    function = tf.function(lambda pixels: model(pixels, training=False))
    concrete = convert_variables_to_constants_v2(function.get_concrete_function(tf.TensorSpec(shape, tf.uint8)))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    converter._experimental_disable_per_channel_quantization_for_dense_layers = not recipe.per_channel_dense
    if variant != FLOAT32:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if variant == FLOAT16:
        converter.target_spec.supported_types = [tf.float16]
    if variant == INT8:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.float32
    return converter


def _spanning(model: keras.Model, photos: Inputs) -> Iterator[npt.NDArray[np.uint8]]:
    """Black and white first, so that the pixels always span 0 to 255."""
    shape = (1, *model.input.shape[1:])
    yield np.zeros(shape, np.uint8)
    yield np.full(shape, 255, np.uint8)
    yield from photos()


def _fitted(converter: Any, photos: Inputs, recipe: Recipe, say: Callable[[str], None]) -> bytes:
    """The converter says which tensors need a range; the first photo is enough for that."""
    import tensorflow as tf
    from tensorflow.lite.python import convert as lite

    from trainer import int8 as fitting

    first = next(photos())
    converter.representative_dataset = lambda: iter([[first]])
    converter._experimental_calibrate_only = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the input's range was not given, which calibration finds
        calibrated = bytes(converter.convert())
    return fitting.fitted(
        calibrated,
        photos(),
        lambda content: bytes(
            lite.mlir_quantize(
                content,
                input_data_type=tf.uint8,
                output_data_type=tf.float32,
                disable_per_channel_for_dense_layers=not recipe.per_channel_dense,
            )
        ),
        say,
    )


def memory_mib(content: bytes) -> int:
    """What a process needs that runs the model, reckoned from the file so that the same model gives the same number.

    Python, numpy, Pillow and a runtime (64 MiB), the file twice (XNNPACK packs the weights again), and the tensors
    between the layers as if two of the largest lived at once.
    """
    table = Table(content)
    sizes = [table.length_bytes(i) for each in table.operators for i in each.outputs]
    unpacked = sum(2 * table.length_bytes(each.inputs[0]) for each in table.operators if _is_unpacked(table, each))
    return 64 + -(-(2 * len(content) + unpacked + 2 * max(sizes, default=0)) // 2**20)


def _is_unpacked(table: Table, each: Operator) -> bool:
    """Float16 weights become float32 when the model is loaded."""
    return each.name == "DEQUANTIZE" and table.is_constant(each.inputs[0])


def op_versions(content: bytes) -> dict[str, int]:
    """Operators of a ``.tflite`` with the highest version of each, read from the file."""
    versions: dict[str, int] = {}
    for name, version in Table(content).versions:
        versions[name] = max(versions.get(name, 0), version)
    return dict(sorted(versions.items()))
