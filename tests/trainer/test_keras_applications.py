"""Keras's networks behind our door: the answers are those of Keras's own preprocessing, and weights come whole.

Networks have random weights here: nothing is downloaded but from a server of the test's own.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import inspect
import re
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import DataError
from trainer import backbones
from trainer.backbones import BACKBONES, NORMALISE_LAYERS, Backbone, Download, WeightsFile, backbone, numbered_layers

pytestmark = pytest.mark.needs("tensorflow")

KERAS = [each.name for each in BACKBONES.values() if isinstance(each.source, Download)]
MODULES = {
    "vgg16": "vgg16", "vgg19": "vgg19", "resnet50": "resnet50", "resnet101": "resnet", "inceptionv3": "inception_v3",
    "xception": "xception", "mobilenet": "mobilenet", "densenet121": "densenet", "mobilenetv2": "mobilenet_v2",
    "mobilenetv3-small": "mobilenet_v3", "mobilenetv3-large": "mobilenet_v3",
    "efficientnetv2-b0": "efficientnet_v2",
}  # fmt: skip
"""Where Keras has the ``preprocess_input`` of each."""
RANDOM = np.random.default_rng(3)


def side(each: Backbone) -> int:
    return max(64, each.min_side + 5)


@functools.cache
def ours(name: str) -> Any:
    """Each network with random weights, built once. Do not train it."""
    each = backbone(name)
    return each.build(side(each), side(each), weights="none")


@functools.cache
def original(name: str) -> Any:
    """Keras's own model, as in a fresh process, with the weights of ours."""
    import keras

    keras.backend.clear_session()  # its count of names begins anew
    each = backbone(name)
    assert isinstance(each.source, Download)
    function = getattr(keras.applications, each.source.constructor)
    model = function(include_top=False, weights=None, input_shape=(side(each), side(each), 3))
    model.set_weights([weight for layer in numbered_layers(ours(name)) for weight in layer.get_weights()])
    return model


def pixels(name: str, count: int = 2) -> Any:
    """Smooth random photos that have both black and white in them, uint8."""
    coarse = RANDOM.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    times = -(-side(backbone(name)) // 8)
    photos = coarse.repeat(times, axis=1).repeat(times, axis=2)[:, : side(backbone(name)), : side(backbone(name))]
    photos[:, :2, :2], photos[:, -2:, -2:] = 0, 255
    return photos


def answer(model: Any, photos: Any) -> Any:
    return np.asarray(model(photos, training=False))


def preprocessed(name: str, photos: Any) -> Any:
    import keras

    return getattr(keras.applications, MODULES[name]).preprocess_input(photos.astype(np.float32))


def difference(found: Any, expected: Any) -> float:
    """The largest, as a share of the largest value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# --- the same network


@pytest.mark.parametrize("name", KERAS)
def test_pixels_give_what_keras_gives_for_its_own_preprocessing(name: str) -> None:
    photos = pixels(name)
    expected = answer(original(name), preprocessed(name, photos))
    assert difference(answer(ours(name), photos), expected) < 1e-4
    assert difference(answer(original(name), photos.astype(np.float32) / 200 - 0.5), expected) > 1e-3  # control


@pytest.mark.parametrize("name", KERAS)
def test_layers_have_keras_s_names_in_keras_s_order(name: str) -> None:
    """``--cut`` and ``--fine-tune-from`` go by them, and weights go in by them."""
    theirs = [layer for layer in original(name).layers if type(layer).__name__ not in ("Rescaling", "Normalization")]
    mine = numbered_layers(ours(name))
    assert mine[0].name == "pixels"
    assert [layer.name for layer in mine[1:]] == [layer.name for layer in theirs[1:]]
    assert [type(layer) for layer in mine] == [type(layer) for layer in theirs]
    names = [operation.name for operation in ours(name).operations]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["inceptionv3", "xception", "densenet121", "mobilenetv3-small"])
def test_a_second_build_in_one_process_has_the_same_names(name: str) -> None:
    again = backbone(name).build(96, 96, weights="none")
    assert [each.name for each in again.operations] == [each.name for each in ours(name).operations]
    mine, theirs = ours(name).weights, again.weights
    assert [weight.path for weight in mine] == [weight.path for weight in theirs]


@pytest.mark.parametrize("name", ["vgg16", "densenet121", "mobilenetv2", "mobilenetv3-small"])
def test_pixels_divided_by_255_by_option(name: str) -> None:
    model = backbone(name).build(75, 80, weights="none", normalise="unit")
    (layer,) = [layer for layer in model.layers if layer.name in NORMALISE_LAYERS]
    found = np.asarray(layer(np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1).repeat(3, 3)))
    assert found[0, 0, :, 1] == pytest.approx([0, 0.2, 1])


def test_a_head_gives_logits_not_probabilities() -> None:
    model = backbone("mobilenetv3-small").build(64, 64, top=True, weights="none")
    logits = answer(model, pixels("mobilenetv3-small"))
    assert logits.shape == (2, 1000)
    assert not np.allclose(logits.sum(axis=1), 1, atol=0.5)
    assert model.layers[-1].name == "predictions"


# --- normalisation in front


@pytest.mark.parametrize("name", ["vgg16", "resnet50"])
def test_bgr_minus_mean_is_exact_and_never_trained(name: str) -> None:
    import keras

    front = keras.Model(ours(name).input, ours(name).get_layer("normalise").output)
    photos = RANDOM.integers(0, 256, (1, side(backbone(name)), side(backbone(name)), 3), dtype=np.uint8)
    assert (answer(front, photos) == preprocessed(name, photos)).all()
    assert ours(name).get_layer("normalise").trainable_weights == []


@pytest.mark.parametrize("name", ["vgg16", "mobilenetv2", "mobilenetv3-small", "xception"])
def test_a_network_survives_being_saved(name: str, tmp_path: Path) -> None:
    import keras

    ours(name).save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    photos = pixels(name)
    assert difference(answer(again, photos), answer(ours(name), photos)) < 1e-6
    assert [layer.name for layer in again.layers] == [layer.name for layer in ours(name).layers]
    assert again.get_layer("normalise").trainable_weights == []


@pytest.mark.parametrize(
    ("name", "until"),
    [("vgg16", "block2_pool"), ("resnet50", "conv2_block1_out"), ("mobilenetv2", "block_2_add")],
)
def test_the_front_becomes_int8_with_builtin_operators(name: str, until: str) -> None:
    import keras
    import tensorflow as tf

    from trainer import quantize

    photos = pixels(name, 8)
    whole = ours(name)
    front = keras.Model(whole.input, keras.layers.GlobalMaxPooling2D()(whole.get_layer(until).output))
    content = quantize.int8(front, (photo[np.newaxis] for photo in photos))
    assert "CUSTOM" not in quantize.op_versions(content)  # which is what TensorFlow's own would be
    interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    door, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    assert door["dtype"] == np.uint8
    assert door["quantization"] in ((0.0, 0), (1.0, 0))
    interpreter.set_tensor(door["index"], photos[:1])
    interpreter.invoke()
    found, expected = interpreter.get_tensor(out["index"])[0], answer(front, photos[:1])[0]
    assert np.corrcoef(found, expected)[0, 1] > 0.98


# --- which file, and from where


@pytest.mark.parametrize("name", KERAS)
def test_addresses_and_digests_are_in_keras_s_own_source(name: str) -> None:
    import keras

    from trainer import keras_applications

    each = backbone(name)
    assert isinstance(each.source, Download)
    module = inspect.getmodule(getattr(keras.applications, each.source.constructor))
    assert module is not None
    digests = re.findall(r'"([0-9a-f]{32})"', inspect.getsource(module))
    for file in (each.source.without_top, each.source.with_top):
        address = keras_applications.url(each, file)
        assert address.startswith("https://")
        assert address.endswith(f"/{file.name}")
        assert file.md5 in digests if digests else file.md5 is None


@pytest.mark.parametrize("name", ["mobilenet", "mobilenetv2", "mobilenetv3-small", "mobilenetv3-large"])
@pytest.mark.parametrize("top", [False, True])
def test_keras_would_fetch_the_same_file(name: str, top: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Keras puts the file's name together in code, it is asked for its own weights."""
    import keras

    from trainer import keras_applications

    each = backbone(name)
    assert isinstance(each.source, Download)
    function = getattr(keras.applications, each.source.constructor)
    asked: list[Any] = []

    def get_file(fname: str, origin: str, **options: Any) -> str:
        asked.append((fname, origin, options.get("file_hash")))
        raise InterruptedError

    monkeypatch.setattr(inspect.getmodule(function).file_utils, "get_file", get_file)  # type: ignore[union-attr]
    with pytest.raises(InterruptedError):
        function(include_top=top, input_shape=(224, 224, 3))
    file = each.source.with_top if top else each.source.without_top
    assert asked == [(file.name, keras_applications.url(each, file), file.md5)]


# --- downloads, from a server of our own

CONTENT = RANDOM.bytes(200_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Gives ``CONTENT``, or less of it."""

    given = CONTENT
    promised = len(CONTENT)

    def do_HEAD(self) -> None:
        self.send_response(200 if self.path == "/here/weights.h5" else 404)
        self.send_header("Content-Length", str(self.promised))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.given)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_address[1]}"
    listening.shutdown()
    listening.server_close()
    thread.join()


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """MobileNetV2 with a published file of 200 kB."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    file = WeightsFile("weights.h5", MD5)
    return Backbone(
        "small", 64, 64, 8, 1, Download("MobileNetV2", file, file), "MIT", "relu", "tf", frozenset()
    )  # fmt: skip


def from_server(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    from trainer import keras_applications

    monkeypatch.setattr(keras_applications, "url", lambda each, file: address)


def test_a_download_ends_in_keras_s_folder_and_is_not_repeated(
    small: Backbone, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trainer import keras_applications

    from_server(monkeypatch, f"{server}/here/weights.h5")
    assert small.weights_file() is None
    path = keras_applications.imagenet_file(small, top=False)
    assert path == tmp_path / "keras" / "models" / "weights.h5" == small.weights_file()
    assert path.read_bytes() == CONTENT
    assert [each.name for each in path.parent.iterdir()] == ["weights.h5"]
    assert capsys.readouterr().out == ""  # that is for answers
    from_server(monkeypatch, "http://127.0.0.1:1/gone")
    assert keras_applications.imagenet_file(small, top=True) == path


def test_a_file_cut_short_in_keras_s_folder_is_fetched_again(
    small: Backbone, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer import keras_applications

    from_server(monkeypatch, f"{server}/here/weights.h5")
    file = small.source.file(top=False) or backbones.keras_folder() / "weights.h5"
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT[:-1])
    assert keras_applications.imagenet_file(small, top=False).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("address", "given", "promised", "md5"),
    [
        pytest.param("/none", CONTENT, len(CONTENT), MD5, id="the server does not have it"),
        pytest.param("/here/weights.h5", CONTENT[:-1], len(CONTENT), None, id="the last byte is missing"),
        pytest.param("/here/weights.h5", CONTENT[:-1] + b"x", len(CONTENT), MD5, id="another file"),
        pytest.param("", CONTENT, len(CONTENT), MD5, id="nobody answers"),
    ],
)
def test_what_cannot_be_fetched_leaves_nothing_and_says_what_to_do(
    small: Backbone,
    server: str,
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    given: bytes,
    promised: int,
    md5: str | None,
) -> None:
    from trainer import keras_applications

    monkeypatch.setattr(Server, "given", given)
    monkeypatch.setattr(Server, "promised", promised)
    origin = f"{server}{address}" if address else "http://127.0.0.1:1/here/weights.h5"
    from_server(monkeypatch, origin)
    file = WeightsFile("weights.h5", md5)
    asked = replace(small, source=Download("MobileNetV2", file, file))
    with pytest.raises(DataError) as caught:
        keras_applications.imagenet_file(asked, top=False)
    text = str(caught.value)
    assert caught.value.code == "no weights"
    folder = backbones.keras_folder()
    for part in ("weights.h5", origin, str(folder), "--weights FILE", "--weights none"):
        assert part in text
    assert "\n" not in text
    assert not folder.exists() or not list(folder.iterdir())


def test_a_server_that_never_answers_costs_seconds(small: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer import keras_applications

    never = threading.Event()
    monkeypatch.setattr(keras_applications, "ANSWER_S", 0.05)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **options: never.wait(20))
    try:
        with pytest.raises(DataError, match="no answer within"):
            keras_applications.imagenet_file(small, top=False)
    finally:
        never.set()
