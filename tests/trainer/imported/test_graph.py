"""Models in the styles of Teachable Machine, Model Maker and people's own scripts, before and after they are adapted,
on both runtimes: the same photos get the same answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge.errors import FieldmarkError, ModelError
from edge.model import interpreter, run
from edge.model.runtime import NAMES
from tests.trainer.imported import foreign
from tests.trainer.imported.test_metadata import MEDIAPIPE
from trainer.imported import flat, graph
from trainer.imported.scaling import PRESETS, RAW, Scaling, same

pytestmark = pytest.mark.needs("tensorflow", "both_runtimes")
TM = PRESETS["-1..1"]
PHOTOS = foreign.photos()
Files = Callable[[str], bytes]


@pytest.fixture(scope="session")
def adapted(tflite: Files) -> Callable[[str], graph.Adapted]:
    """The network in a style, adapted with the scaling that its own application gave it, or that it tells of itself."""
    return cache(lambda style: graph.adapt(tflite(style), None if style in ("uint8", "int8") else TM, 4))


@pytest.fixture
def logits(tmp_path: Path) -> Callable[..., npt.NDArray[np.float32]]:
    """What an adapted model says of photos, by the device's own code, in a child process."""

    def asked(content: bytes, name: str = NAMES[0], photos: Any = PHOTOS) -> npt.NDArray[np.float32]:
        (tmp_path / "model.tflite").write_bytes(content)
        np.save(tmp_path / "photos.npy", photos)
        return run.in_child(tmp_path / "model.tflite", tmp_path / "photos.npy", runtime=name).logits

    return asked


def original(content: bytes, style: str, name: str) -> npt.NDArray[Any]:
    """Probabilities of a model as it came, fed as its own application feeds it."""
    if style == "uint8":
        return foreign.ask(content, PHOTOS, name) / 256
    if style == "int8":
        return (foreign.ask(content, (PHOTOS.astype(int) - 128).astype(np.int8), name) + 128.0) / 256
    return foreign.ask(content, foreign.scaled(PHOTOS), name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("style", foreign.STYLES)
def test_an_adapted_model_answers_as_the_original_did(
    style: str, name: str, tflite: Files, adapted: Callable[[str], graph.Adapted], logits: Any
) -> None:
    made = adapted(style)
    found = logits(made.content, name)
    asked = NAMES[0] if style == "dynamic" else name  # tflite-runtime does not load the original at all
    probabilities = original(tflite(style), style, asked)
    tolerance = 1e-5 if style.startswith("float") else 1 / 256
    np.testing.assert_allclose(foreign.softmax(found), probabilities, atol=tolerance)
    assert (found.argmax(axis=1) == foreign.TRUTH).all()
    assert made.answer == graph.SOFTMAX_REMOVED
    assert (made.height, made.width, made.classes) == (foreign.SIDE, foreign.SIDE, 4)


def test_the_contract_holds_after_adapting(adapted: Callable[[str], graph.Adapted]) -> None:
    for style in foreign.STYLES:
        read = flat.read(adapted(style).content)
        pixels, answer = read.tensors[read.input], read.tensors[read.output]
        assert (pixels.kind, pixels.shape, pixels.scale) == ("UINT8", (1, foreign.SIDE, foreign.SIDE, 3), ())
        assert (answer.kind, answer.shape) == ("FLOAT32", (1, 4))
        assert "SOFTMAX" not in [each.name for each in read.operators]


def test_the_same_model_gives_the_same_bytes_and_is_left_alone_the_second_time(tflite: Files, adapted: Any) -> None:
    once = adapted("uint8")
    assert graph.adapt(tflite("uint8"), None, 4) == once
    again = graph.adapt(once.content, None, 4)
    assert (again.scaling, again.answer) == (RAW, graph.LOGITS)
    assert again.content == once.content


def test_the_device_knows_the_step_of_a_quantized_answer(adapted: Callable[[str], graph.Adapted]) -> None:
    model = interpreter.Model(adapted("int8").content, runtime="ai_edge_litert")
    found = model.logits(PHOTOS[0]) / model.output_step
    assert model.output_step > 1 / 64  # the logits' own, not the 1/256 of the softmax that was
    np.testing.assert_allclose(found, np.rint(found), atol=1e-3)


@pytest.mark.parametrize("wrong", ["raw", "0..1", "caffe"])
def test_a_wrong_scaling_shows_in_the_answers(wrong: str, tflite: Files, logits: Any) -> None:
    found = logits(graph.adapt(tflite("float32"), PRESETS[wrong], 4).content)
    assert (found.argmax(axis=1) == foreign.TRUTH).mean() <= 0.75  # without numbers below zero nothing is dark
    probabilities = original(tflite("float32"), "float32", NAMES[0])
    assert np.abs(foreign.softmax(found) - probabilities).max() > 0.5


def test_channels_change_places_with_their_own_means(network: Any, logits: Any, tflite: Files) -> None:
    given = Scaling((120.0, 130.0, 140.0), (100.0, 110.0, 120.0), bgr=True)
    scaled = (PHOTOS - np.array(given.mean)) / np.array(given.std)
    wanted = network.predict(scaled[..., ::-1].astype(np.float32), verbose=0)
    for name in NAMES:
        found = foreign.softmax(logits(graph.adapt(tflite("float32"), given, 4).content, name))
        np.testing.assert_allclose(found, wanted, atol=1e-5)


# --- who says how pixels are scaled


def test_mediapipes_metadata_is_the_default(logits: Any) -> None:
    made = graph.adapt(MEDIAPIPE, None, 4)
    assert (made.scaling, made.scaling_from) == (TM, "metadata")
    assert (logits(made.content).argmax(axis=1) == foreign.TRUTH).all()


def test_an_option_goes_before_the_metadata() -> None:
    assert graph.adapt(MEDIAPIPE, PRESETS["0..1"], 4).scaling_from == "option"


def test_a_float_model_that_says_nothing_needs_the_option(tflite: Files) -> None:
    with pytest.raises(ModelError, match="does not say how it wants pixels") as caught:
        graph.adapt(tflite("float32"), None, 4)
    assert caught.value.code == "scaling"


def test_teachable_machines_quantized_input_takes_pixels_as_they_are(tflite: Files) -> None:
    pixels = np.arange(256)
    for scale, zero in ((1 / 128, 127), (1 / 128, 128), (2 / 255, 127), (1 / 255, 0), (1.0, 0)):
        found = graph._from_quantization(flat.Tensor((1, 8, 8, 3), "UINT8", scale=(scale,), zero_point=(zero,)))
        assert found is not None
        fed = np.rint((pixels - found.mean[0]) / found.std[0] / scale + zero)
        assert (fed == pixels).all()
    assert graph.adapt(tflite("uint8"), None, 4).scaling_from == "quantization"


def test_an_input_scale_out_of_calibration_photos_leaves_doubt(network: Any, logits: Any) -> None:
    """Photos of 20 to 199, in a network of -1 to 1: its input would be read as another range than people scale to."""
    narrow = foreign.convert(network, "uint8", foreign.scaled(PHOTOS) * 0.6)
    tensor = _input_of(narrow)
    tensor.scale = (0.78 / 127.5,)
    tensor.zero_point = (139,)
    changed = _with_input(narrow, tensor)
    with pytest.raises(ModelError, match="does not say"):
        graph.adapt(changed, None, 4)
    assert graph.adapt(changed, TM, 4).scaling == TM


def _input_of(content: bytes) -> flat.Tensor:
    read = flat.read(content)
    return read.tensors[read.input]


def _with_input(content: bytes, tensor: flat.Tensor) -> bytes:
    read = flat.read(content)
    read.tensors[read.input] = tensor
    return flat.write(read)


def test_a_model_that_takes_pixels_as_they_are_is_not_scaled_twice(adapted: Callable[[str], graph.Adapted]) -> None:
    ours = adapted("float32").content
    with pytest.raises(ModelError, match="would do it twice"):
        graph.adapt(ours, TM, 4)
    assert graph.adapt(ours, RAW, 4).content == ours


def test_metadata_and_quantization_that_contradict_each_other_are_refused(
    tflite: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.imported.metadata.scaling", lambda content: PRESETS["0..1"])
    with pytest.raises(ModelError, match=r"metadata says scaling 0\.\.1"):
        graph.adapt(tflite("uint8"), None, 4)
    monkeypatch.setattr("trainer.imported.metadata.scaling", lambda content: same(128.0, 127.0))
    assert graph.adapt(tflite("uint8"), None, 4).scaling_from == "quantization"


# --- ends


def test_a_model_that_gives_logits_keeps_its_end(logits: Any, adapted: Callable[[str], graph.Adapted]) -> None:
    content = foreign.convert(foreign.network(end="linear"), "float32")
    made = graph.adapt(content, TM, 4)
    assert made.answer == graph.LOGITS
    np.testing.assert_allclose(logits(made.content), logits(adapted("float32").content), atol=1e-4)


def test_probabilities_of_which_no_softmax_can_be_taken_off_become_logarithms(logits: Any, network: Any) -> None:
    import keras

    doubled = keras.ops.concatenate([network.output, network.output], axis=1)
    mean = keras.layers.Dense(4, use_bias=False)
    model = keras.Model(network.input, mean(doubled))
    mean.set_weights([np.concatenate([np.eye(4), np.eye(4)]) / 2])
    content = foreign.convert(model, "float32")
    made = graph.adapt(content, TM, 4)
    assert made.answer == graph.LOGARITHM
    for name in NAMES:
        np.testing.assert_allclose(
            foreign.softmax(logits(made.content, name)), original(content, "float32", name), atol=1e-5
        )


@pytest.mark.parametrize(("units", "says"), [(1, "single number"), (4, "by itself .sigmoid.")])
def test_sigmoids_are_refused(units: int, says: str) -> None:
    import keras

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(units, activation="sigmoid")(x))
    with pytest.raises(ModelError, match=says):
        graph.adapt(foreign.convert(model, "float32"), TM, 4)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        pytest.param((None, None, 3), "no fixed height and width", id="no fixed size"),
        pytest.param((8, 8, 1), "expected one photo", id="grey photos"),
        pytest.param((3, 8, 8), "channels come first", id="channels first"),
        pytest.param((24,), "expected one photo", id="a vector"),
    ],
)
def test_an_input_that_is_no_photo_is_refused(shape: tuple[int | None, ...], says: str) -> None:
    import keras

    inputs = keras.Input(shape)
    x = keras.layers.GlobalAveragePooling2D()(inputs) if len(shape) == 3 else inputs
    content = foreign.convert(keras.Model(inputs, keras.layers.Dense(4)(x)), "float32")
    with pytest.raises(ModelError, match=says):
        graph.adapt(content, TM, 4)


def test_a_float16_input_is_refused(tflite: Files) -> None:
    tensor = _input_of(tflite("float32"))
    tensor.kind = "FLOAT16"
    with pytest.raises(ModelError, match="input is FLOAT16"):
        graph.adapt(_with_input(tflite("float32"), tensor), TM, 4)


def test_labels_of_another_model_are_refused(tflite: Files) -> None:
    with pytest.raises(ModelError, match="4 classes and there are 5 labels") as caught:
        graph.adapt(tflite("float32"), TM, 5)
    assert caught.value.code == "classes"


def test_several_outputs_are_refused(network: Any) -> None:
    import keras

    content = foreign.convert(keras.Model(network.input, [network.output, network.get_layer("pool").output]), "float32")
    with pytest.raises(ModelError, match="2 outputs"):
        graph.adapt(content, TM, 4)


# --- harm


def test_a_model_that_no_runtime_runs_is_refused_and_harms_nobody(tflite: Files) -> None:
    read = flat.read(tflite("float32"))
    convolution = next(each for each in read.operators if each.name == "CONV_2D")
    read.tensors[convolution.inputs[1]].shape = (6, 3, 3, 7)
    with pytest.raises(ModelError, match="no runtime runs the model"):
        graph.adapt(flat.write(read), TM, 4)


def test_a_model_of_numbers_that_are_not_finite_is_refused(network: Any) -> None:
    import keras

    weights = network.get_weights()
    broken = keras.models.clone_model(network)
    broken.set_weights([*weights[:-1], np.full(4, np.nan)])
    with pytest.raises(ModelError, match="not finite"):
        graph.adapt(foreign.convert(broken, "float32"), TM, 4)


def test_flipped_bytes_end_in_a_sentence_or_in_a_model_that_ran(tflite: Files) -> None:
    """The whole way, a runtime in a child process included; the reader alone meets many more in its own test."""
    content, random = tflite("uint8"), np.random.default_rng(11)
    ran = 0
    for _ in range(6):
        broken = bytearray(content)
        for place in random.integers(0, len(content), 3):
            broken[place] ^= 1 << int(random.integers(8))
        try:
            graph.adapt(bytes(broken), None, 4)
            ran += 1
        except FieldmarkError:
            pass
    assert ran < 6
