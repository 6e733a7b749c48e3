"""Networks put together as the settings say, taken apart where they can be, and learning where they should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge.errors import ConfigError
from tests.trainer import tiny_network as tiny
from trainer.backbones import backbone
from trainer.settings import Settings

pytestmark = pytest.mark.needs("tensorflow")

PHOTOS = tiny.coloured([0, 1, 2, 0], side=16)


@pytest.fixture(scope="module")
def keras() -> Any:
    """Keras, imported only where a test needs it."""
    import keras

    return keras


@pytest.fixture(scope="module")
def models() -> Any:
    """The module under test, which imports Keras."""
    from trainer import model

    return model


@pytest.fixture(scope="module")
def lite0() -> Any:
    """The default backbone with random weights. Do not train it."""
    return backbone("efficientnet-lite0").build(64, 64, weights="none")


def answer(model: Any, inputs: Any = PHOTOS) -> Any:
    return np.asarray(model.predict_on_batch(inputs))


def kinds(model: Any) -> list[str]:
    """Its layers behind the backbone."""
    names = [layer.name for layer in model.layers]
    return [type(layer).__name__ for layer in model.layers[names.index("second_relu") + 1 :]]


# --- putting together


@pytest.mark.parametrize(
    ("pooling", "pool"),
    [
        pytest.param("avg", lambda x: x.mean(axis=(1, 2)), id="averaged"),
        pytest.param("max", lambda x: x.max(axis=(1, 2)), id="largest"),
        pytest.param(
            "avg+max", lambda x: np.concatenate([x.mean(axis=(1, 2)), x.max(axis=(1, 2))], axis=1), id="side by side"
        ),
        pytest.param("flatten", lambda x: x.reshape(len(x), -1), id="flattened"),
    ],
)
def test_a_classifier_is_a_linear_layer_on_the_pooled_feature_map(models: Any, pooling: str, pool: Any) -> None:
    network = tiny.network(16)
    model = models.classifier(network, Settings(pooling=pooling), 3)
    kernel, bias = model.get_layer("logits").get_weights()
    assert answer(model) == pytest.approx(pool(answer(network)) @ kernel + bias, abs=1e-4)
    assert (model.input.dtype, model.output.dtype, model.output.shape) == ("uint8", "float32", (None, 3))


def test_own_blocks_and_head_layers_stand_in_order(models: Any) -> None:
    model = models.classifier(tiny.network(16), Settings(blocks=(4, 6), head=("32", "dropout:0.5", "16")), 3)
    block = ["Conv2D", "BatchNormalization", "ReLU", "MaxPooling2D"]
    assert kinds(model) == [*block, *block, "GlobalAveragePooling2D", "Dense", "Dropout", "Dense", "Dense"]
    assert [model.get_layer(f"head_{i}").output.shape[-1] for i in (1, 3)] == [32, 16]
    assert model.get_layer("head_2").rate == 0.5
    assert model.get_layer("own_2_conv").output.shape[1:] == (4, 4, 6)


def test_blocks_end_pooling_where_one_place_is_left(models: Any) -> None:
    model = models.classifier(tiny.network(16), Settings(blocks=(4, 4, 4, 4, 4)), 3)
    assert model.get_layer("own_5_relu").output.shape[1:3] == (1, 1)


def test_a_backbone_can_be_used_up_to_a_layer_inside_a_block(models: Any) -> None:
    network = tiny.network(16)
    model = models.classifier(network, Settings(cut="branch_bn"), 3)
    names = {layer.name for layer in model.layers}
    assert "branch_bn" in names
    assert not names & {"join", "second", "second_relu"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        pytest.param({"cut": "secnd"}, "no layer 'secnd'. Did you mean second?", id="a cut at no layer"),
        pytest.param({"cut": "100"}, "has layers 0 to 8, found 100", id="a cut at a number too high"),
        pytest.param({"fine_tune_from": "100"}, "has layers 0 to 8, found 100", id="fine-tuning from no layer"),
        pytest.param({"fine_tune_from": "bransh"}, "Did you mean branch?", id="fine-tuning from a misspelt layer"),
        pytest.param(
            {"fine_tune_from": "second", "cut": "join"}, "'second' lies behind the cut at 'join'", id="behind the cut"
        ),
        pytest.param({"freeze": ("sceond",)}, "Did you mean second?", id="freezing a misspelt layer"),
        pytest.param({"freeze": ("block*",)}, "no layer 'block\\*'", id="freezing by a pattern of no layer"),
    ],
)
def test_a_layer_that_is_not_there_is_refused(models: Any, settings: dict[str, Any], says: str) -> None:
    asked = Settings(**settings)
    network = tiny.network(16)
    with pytest.raises(ConfigError, match=says):
        models.learning_layers(network, asked)


def test_a_layer_of_billions_of_weights_is_refused_before_it_is_made(models: Any, keras: Any) -> None:
    pixels = keras.Input((1024, 1024, 3), dtype="uint8")
    network = keras.Model(pixels, keras.layers.Rescaling(1 / 255)(pixels))
    with pytest.raises(ConfigError, match=r"pooling flatten gives 3145728 numbers, and 1024 units .* 3.2 billion"):
        models.classifier(network, Settings(pooling="flatten", head=("1024",)), 2)


# --- what learns


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({"learn": "head"}, set(), id="only what is new"),
        pytest.param({"learn": "all"}, {"first", "branch", "second"}, id="all but batch normalisation"),
        pytest.param(
            {"learn": "all", "weights": "none"},
            {"first", "branch", "branch_bn", "second", "second_bn"},
            id="from scratch, batch normalisation too",
        ),
        pytest.param({"fine_tune_from": "second"}, {"second"}, id="from a layer, by name"),
        pytest.param({"fine_tune_from": "3"}, {"branch", "second"}, id="from a layer, by number"),
        pytest.param({"fine_tune_from": "0"}, {"first", "branch", "second"}, id="from the first"),
        pytest.param({"learn": "all", "freeze": ("second",)}, {"first", "branch"}, id="but one"),
        pytest.param({"learn": "all", "freeze": ("1",)}, {"second", "branch"}, id="but one by its number"),
        pytest.param({"learn": "all", "freeze": ("?irst*", "branch")}, {"second"}, id="but those of a pattern"),
        pytest.param({"learn": "all", "freeze": ("*",)}, set(), id="but all"),
        pytest.param({"learn": "all", "cut": "join"}, {"first", "branch"}, id="but what is cut off"),
        pytest.param({"learn": "all", "backbone_rate": 0.0}, set(), id="at no rate at all"),
        pytest.param({"learn": "blocks"}, set(), id="the default's last blocks, which this one has not"),
    ],
)
def test_the_layers_that_learn_are_those_asked_for(models: Any, settings: dict[str, Any], expected: set[str]) -> None:
    assert models.learning_layers(tiny.network(16), Settings(**settings)) == expected


def test_the_default_backbone_s_last_blocks_learn(models: Any, lite0: Any) -> None:
    names = models.learning_layers(lite0, Settings())
    assert "blocks_12_expand" in names
    assert "conv_head" in names
    assert not [name for name in names if name.endswith("_bn") or name.startswith(("blocks_11", "blocks_1_"))]


def test_only_these_layers_learn(models: Any) -> None:
    model = models.classifier(tiny.network(16), Settings(), 3)
    models.set_learning(model, {"second", "logits"})
    assert {variable.path.split("/")[0] for variable in model.trainable_variables} == {"second", "logits"}


# --- taking apart


@pytest.mark.parametrize(
    ("learning", "end"),
    [
        pytest.param({"logits"}, "pool", id="in front of the head"),
        pytest.param({"second"}, "join", id="in front of the last layers"),
        pytest.param({"branch"}, "first_relu", id="in front of the branch"),
        pytest.param({"branch_bn"}, "first_relu", id="not inside the branch"),
        pytest.param({"first"}, None, id="nowhere"),
    ],
)
def test_what_is_frozen_ends_where_no_branch_goes_past(models: Any, learning: set[str], end: str | None) -> None:
    model = models.classifier(tiny.network(16), Settings(), 3)
    assert models.frozen_end(model, learning) == end
    if end is not None:
        parts = models.cut(model, end)
        assert answer(parts.tail, answer(parts.trunk)) == pytest.approx(answer(model), abs=1e-4)


def test_the_default_s_frozen_part_is_the_one_that_is_known_to_be_good(models: Any, lite0: Any) -> None:
    model = models.classifier(lite0, Settings(), 3)
    assert models.frozen_end(model, models.learning_layers(lite0, Settings())) == "blocks_11_project_bn"


def test_a_cut_where_a_branch_goes_past_is_refused(models: Any) -> None:
    with pytest.raises(ConfigError, match="a branch goes past it"):
        models.cut(tiny.network(16), "branch_bn")


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "mobilenetv2", "mobilenetv3-small"])
def test_other_backbones_are_cut_and_copied_too(models: Any, name: str) -> None:
    """MobileNetV3 has sums that are no layers."""
    network = backbone(name).build(64, 64, weights="none")
    settings = Settings(backbone=name)
    model = models.classifier(network, settings, 3)
    end = models.frozen_end(model, models.learning_layers(network, settings))
    assert end == backbone(name).frozen_until
    pixels = tiny.coloured([0, 1], side=64)
    copy = models.working_copy(model)
    assert answer(copy, pixels) == pytest.approx(answer(model, pixels), abs=1e-5)
    parts = models.cut(copy, end)
    assert answer(parts.tail, answer(parts.trunk, pixels)) == pytest.approx(answer(model, pixels), abs=1e-4)


# --- copies and weights


def test_a_copy_answers_the_same_and_is_trained_alone(models: Any) -> None:
    model = models.classifier(tiny.network(16), Settings(head=("8",)), 3)
    before = answer(model)
    copy = models.working_copy(model)
    assert (answer(copy) == before).all()
    copy.get_layer("second").set_weights([np.zeros_like(a) for a in copy.get_layer("second").get_weights()])
    assert (answer(model) == before).all()
    assert (answer(copy) != before).any()


def test_a_copy_in_half_precision_gives_full_logits_and_keeps_full_weights(models: Any) -> None:
    model = models.classifier(tiny.network(16), Settings(head=("8",)), 3)
    copy = models.working_copy(model, precision="mixed_float16")
    assert copy.get_layer("second").compute_dtype == "float16"
    assert {layer.compute_dtype for layer in (copy.get_layer("normalise"), copy.get_layer("logits"))} == {"float32"}
    assert {str(variable.dtype) for variable in copy.trainable_variables} == {"float32"}
    assert answer(copy).dtype == np.float32
    assert answer(copy) == pytest.approx(answer(model), abs=0.02)


def test_weights_are_copies_and_go_back_by_name(models: Any) -> None:
    model = models.classifier(tiny.network(16), Settings(), 3)
    before = answer(model)
    kept = models.weights_of(model, {"second", "logits"})
    assert set(kept) == {"second", "logits"}
    for name in kept:
        model.get_layer(name).set_weights([array + 1 for array in kept[name]])
    assert (answer(model) != before).any()
    models.put_weights(model, kept)
    assert (answer(model) == before).all()


@pytest.mark.parametrize("settings", [{"pooling": "avg+max", "blocks": (4,)}, {"pooling": "flatten", "head": ("8",)}])
def test_every_kind_of_head_survives_int8(models: Any, settings: dict[str, Any], tmp_path: Any) -> None:
    import tensorflow as tf

    model = models.classifier(tiny.network(16), Settings(**settings), 3)
    function = tf.function(lambda x: model(x, training=False), autograph=False)
    concrete = function.get_concrete_function(tf.TensorSpec((1, 16, 16, 3), tf.uint8))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([photo[np.newaxis]] for photo in PHOTOS)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], PHOTOS[:1])
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert found == pytest.approx(answer(model)[:1], abs=0.15 * np.abs(answer(model)).max() + 0.05)
