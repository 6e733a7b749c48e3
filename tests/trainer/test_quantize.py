"""The four variants of a small network of every kind of layer, on every runtime that is installed."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge.errors import ModelError
from edge.model import run as child
from edge.model import runtime
from trainer import int8, observe, quantize
from trainer.flatbuffer import Table
from trainer.observe import Spread

SIDE, CLASSES = 32, 4

pytestmark = pytest.mark.needs("tensorflow")


@functools.cache
def network() -> Any:
    """Two inverted residual blocks with statistics as after training: no two channels have the same range."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    x = layers.Rescaling(1 / 128, offset=-127 / 128)(pixels)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(16, 3, 2, padding="same", use_bias=False)(x)))
    for _ in range(2):
        y = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(48, 1, use_bias=False)(x)))
        y = layers.DepthwiseConv2D(5, padding="same", use_bias=False)(y)
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        x = layers.Add()([layers.BatchNormalization()(layers.Conv2D(16, 1, use_bias=False)(y)), x])
    x = layers.MaxPooling2D()(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(80, activation="relu")(x)  # the converter leaves smaller ones in float
    model = keras.Model(pixels, layers.Dense(CLASSES)(x))
    random = np.random.default_rng(5)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            c = layer.gamma.shape[0]
            gamma, beta = random.lognormal(0.3, 0.5, c), random.normal(0.5, 0.5, c)
            layer.set_weights([gamma, beta, random.normal(0, 0.2, c), random.lognormal(-1, 0.3, c)])
    return model


@functools.cache
def photos() -> npt.NDArray[np.uint8]:
    """Smooth colours, which neighbouring pixels share."""
    coarse = np.random.default_rng(4).integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(SIDE // 4, axis=1).repeat(SIDE // 4, axis=2)


@functools.cache
def wanted() -> npt.NDArray[np.float32]:
    return np.asarray(network().predict(photos(), verbose=0), np.float32)


@functools.cache
def converted(variant: str, way: int = 0) -> bytes:
    return quantize.convert(
        network(), variant, lambda: (each[np.newaxis] for each in photos()[:40]), recipe=quantize.recipes(variant)[way]
    )


def answers(content: bytes, folder: Path, name: str) -> npt.NDArray[np.float32]:
    (folder / "model.tflite").write_bytes(content)
    np.save(folder / "photos.npy", photos())
    return child.in_child(folder / "model.tflite", folder / "photos.npy", runtime=name).logits


def error(found: npt.NDArray[np.float32]) -> float:
    """Of the photos that it was not calibrated on, as a share of the logits' own spread."""
    return float((found - wanted())[40:].std() / wanted()[40:].std())


@pytest.mark.parametrize("installed", runtime.installed(), ids=lambda each: str(each.name))
@pytest.mark.parametrize(("variant", "most"), [("int8", 0.15), ("dynamic", 0.15), ("float16", 0.01), ("float32", 1e-4)])
def test_a_variant_takes_raw_pixels_and_says_nearly_what_the_float_model_says(
    variant: str, most: float, installed: runtime.Installed, tmp_path: Path
) -> None:
    last = len(quantize.recipes(variant)) - 1  # which every runtime loads
    assert error(answers(converted(variant, last), tmp_path, installed.name)) < most
    with contextlib.suppress(ModelError):  # which an old one may refuse
        assert error(answers(converted(variant, 0), tmp_path, installed.name)) < most


def test_int8_fitted_to_the_photos_errs_less_than_the_converter_alone(tmp_path: Path) -> None:
    name = runtime.installed()[0].name
    ours, theirs = (error(answers(converted("int8", way), tmp_path, name)) for way in (0, 1))
    assert ours < 0.8 * theirs


def test_int8_is_int8_throughout_and_the_operators_are_the_converters() -> None:
    ours, theirs = converted("int8", 0), converted("int8", 1)
    assert quantize.op_versions(ours) == quantize.op_versions(theirs)
    assert len(ours) == pytest.approx(len(theirs), rel=0.02)
    inner = [each.outputs[0] for each in Table(ours).operators[1:-1]]
    assert {Table(ours).graph.tensors[i].type for i in inner} == {9}


def test_two_conversions_give_the_same_bytes() -> None:
    again = quantize.convert(network(), "int8", lambda: (each[np.newaxis] for each in photos()[:40]))
    assert again == converted("int8")


def test_the_first_dynamic_recipe_has_more_scales_than_an_old_runtime_reads_and_the_last_has_not() -> None:
    assert quantize.op_versions(converted("dynamic", 0))["FULLY_CONNECTED"] > 9
    assert quantize.op_versions(converted("dynamic", 1))["FULLY_CONNECTED"] <= 9


@pytest.mark.parametrize("variant", [variant for variant in quantize.VARIANTS if not quantize.is_calibrated(variant)])
def test_no_photo_is_asked_for_where_none_is_needed(variant: str) -> None:
    def refuse() -> Any:
        raise AssertionError("photos were asked for")

    assert quantize.convert(network(), variant, refuse)


def test_int8_and_float16_are_smaller_than_float32() -> None:
    sizes = {variant: len(converted(variant)) for variant in quantize.VARIANTS}
    assert sizes["float32"] == max(sizes.values())
    assert sizes["float16"] < 0.75 * sizes["float32"]  # each of its many small tensors begins on 16 bytes


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ModelError, match="'int4'"):
        quantize.recipes("int4")


def test_the_memory_reckoned_grows_with_what_is_unpacked_and_is_the_same_each_time() -> None:
    numbers = {variant: quantize.memory_mib(converted(variant)) for variant in quantize.VARIANTS}
    assert 64 < numbers["int8"] <= numbers["float16"] <= 70
    assert quantize.memory_mib(converted("int8")) == numbers["int8"]


# --- parts


def test_the_input_of_an_addition_keeps_a_range_of_its_own() -> None:
    """TensorFlow's calibrator gives it the sum's, since the sum is written over it."""
    table = Table(converted("float32"))
    seen = observe.watch(table, [each[np.newaxis] for each in photos()[:4]])
    add = next(each for each in table.operators if each.name == "ADD" and all(i in seen.spreads for i in each.inputs))
    inner, total = seen.spreads[add.inputs[0]], seen.spreads[add.outputs[0]]
    assert inner.high < total.high


def test_pixels_span_black_to_white_though_all_photos_are_dusk() -> None:
    dusk = [np.full((1, SIDE, SIDE, 3), value, np.uint8) for value in (90, 100)]
    content = quantize.convert(network(), "int8", lambda: iter(dusk))
    table = Table(content)
    scaled = next(each for each in table.operators if each.name == "ADD").outputs[0]  # (x - 127) / 128
    assert table.scales(scaled)[0] * 255 == pytest.approx(255 / 128, rel=0.01)


def test_a_rare_outlier_is_clipped_and_zero_stays_in_the_range() -> None:
    values = np.random.default_rng(0).normal(0, 1, 50_000).astype(np.float32)
    low, high = int8.best_range(Spread(-4.0, 60.0, [values, np.array([60.0], np.float32)]))
    assert 3 < high < 60
    assert low < 0
    assert int8.best_range(Spread(0.0, 0.0, [np.zeros(9, np.float32)])) == (0.0, 0.0)


def test_a_range_that_is_used_evenly_is_kept() -> None:
    values = np.linspace(0, 6, 10_000, dtype=np.float32)
    assert int8.best_range(Spread(0.0, 6.0, [values])) == (0.0, 6.0)


def test_layers_that_cannot_be_matched_are_left_and_said_so() -> None:
    """A convolution in groups has no inputs that all outputs share."""
    import keras

    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 128)(pixels)
    x = keras.layers.Conv2D(8, 3, strides=4)(x)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    model = keras.Model(pixels, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
    said: list[str] = []
    assert quantize.convert(model, "int8", lambda: (each[np.newaxis] for each in photos()[:4]), say=said.append)
    assert said == ["1 of 3 layers are left as the quantizer rounded them"]
