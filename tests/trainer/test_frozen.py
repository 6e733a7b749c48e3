"""A frozen network gives Keras's answers, whichever way it runs, and never holds more than a few photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.needs("tensorflow")

SIDE = 48
PHOTOS = np.random.default_rng(3).integers(0, 256, (41, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def frozen() -> Any:
    """The module, which imports Keras."""
    from trainer import frozen

    return frozen


@pytest.fixture(scope="module")
def depthwise() -> Any:
    """A small network of depthwise convolutions, as mobile backbones have them, with a model inside."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    x = layers.Conv2D(8, 3, 2, padding="same", activation="relu6")(layers.Rescaling(1 / 128, -1)(pixels))
    inside = keras.Input((24, 24, 8))
    y = layers.BatchNormalization()(layers.DepthwiseConv2D(5, padding="same")(inside))
    x = keras.Model(inside, layers.Add()([layers.Conv2D(8, 1)(y), inside]))(x)
    return keras.Model(pixels, layers.Conv2D(6, 1)(x))


@pytest.fixture(scope="module")
def plain() -> Any:
    """A network without any."""
    import keras

    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    x = keras.layers.Conv2D(4, 3, 2)(keras.layers.Rescaling(1 / 255)(pixels))
    return keras.Model(pixels, keras.layers.GlobalMaxPooling2D()(x))


@pytest.fixture
def always(frozen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number of photos pays for the conversion."""
    monkeypatch.setattr(frozen, "CONVERSION_PAYS_PIXELS", 0)


def by_keras(model: Any, photos: Any = PHOTOS) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(model.predict_on_batch(photos))


def assert_same(found: Any, expected: Any) -> None:
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()


def kept(folder: Path) -> list[Path]:
    return list(folder.rglob("*.tflite"))


def test_a_converted_network_answers_as_keras_does(frozen: Any, depthwise: Any, always: None, tmp_path: Path) -> None:
    assert_same(frozen.Frozen(depthwise, tmp_path)(PHOTOS), by_keras(depthwise))
    assert len(kept(tmp_path)) == 1


def test_a_real_backbone_answers_as_keras_does(frozen: Any, always: None, tmp_path: Path) -> None:
    from trainer.backbones import backbone

    lite0 = backbone("efficientnet-lite0").build(64, 64)
    photos = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    assert_same(frozen.Frozen(lite0, tmp_path)(photos), by_keras(lite0, photos))
    assert len(kept(tmp_path)) == 1


def test_few_photos_do_not_pay_for_a_conversion(frozen: Any, depthwise: Any, tmp_path: Path) -> None:
    assert_same(frozen.Frozen(depthwise, tmp_path)(PHOTOS), by_keras(depthwise))
    assert kept(tmp_path) == []


def test_a_network_of_other_layers_stays_with_keras(frozen: Any, plain: Any, always: None, tmp_path: Path) -> None:
    assert_same(frozen.Frozen(plain, tmp_path)(PHOTOS), by_keras(plain))
    assert kept(tmp_path) == []


def test_a_network_that_does_not_convert_stays_with_keras(frozen: Any, always: None, tmp_path: Path) -> None:
    import keras

    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8")
    x = keras.layers.DepthwiseConv2D(3)(keras.layers.Rescaling(1 / 255)(pixels))
    model = keras.Model(pixels, keras.ops.erfinv(keras.ops.tanh(x)))  # no such operator in TFLite
    with pytest.raises(Exception, match=r"(?i)erfinv"):
        frozen.convert(model)
    assert_same(frozen.Frozen(model, tmp_path)(PHOTOS[:5]), by_keras(model, PHOTOS[:5]))
    assert kept(tmp_path) == []


def test_a_network_is_converted_once(
    frozen: Any, depthwise: Any, always: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = frozen.Frozen(depthwise, tmp_path)(PHOTOS)

    def convert(model: Any) -> bytes:
        raise AssertionError("it was converted again")

    monkeypatch.setattr(frozen, "convert", convert)
    monkeypatch.setattr(frozen.Frozen, "_answers", convert)  # not with Keras either
    monkeypatch.setattr(frozen, "CONVERSION_PAYS_PIXELS", 10**12)
    assert (frozen.Frozen(depthwise, tmp_path)(PHOTOS[:1]) == first[:1]).all()


@pytest.mark.parametrize("damage", [b"", b"\0" * 4000], ids=["empty", "zeros, as after a power cut"])
def test_a_damaged_network_is_converted_again(
    frozen: Any, depthwise: Any, always: None, tmp_path: Path, damage: bytes
) -> None:
    frozen.Frozen(depthwise, tmp_path)(PHOTOS[:1])
    (file,) = kept(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(damage)
    assert_same(frozen.Frozen(depthwise, tmp_path)(PHOTOS[:3]), by_keras(depthwise, PHOTOS[:3]))
    assert len(file.read_bytes()) == len(whole)


def test_other_weights_are_another_network(frozen: Any, depthwise: Any, always: None, tmp_path: Path) -> None:
    import keras

    other = keras.models.clone_model(depthwise)
    other.set_weights([weight * 0.5 for weight in depthwise.get_weights()])
    frozen.Frozen(depthwise, tmp_path)(PHOTOS[:1])
    assert_same(frozen.Frozen(other, tmp_path)(PHOTOS), by_keras(other))
    assert len(kept(tmp_path)) == 2


def test_a_place_that_cannot_be_written_costs_only_the_next_conversion(
    frozen: Any, depthwise: Any, always: None, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    network = frozen.Frozen(depthwise, tmp_path / "file")
    assert_same(network(PHOTOS), by_keras(depthwise))


# --- over many photos

WAYS = pytest.mark.parametrize("pays", [0, 10**12], ids=["XNNPACK", "Keras"])


class Loader:
    """Hands out photos and remembers which."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, i: int) -> Any:
        self.asked.append(i)
        return PHOTOS[i % len(PHOTOS)]


@WAYS
def test_every_photo_is_loaded_once_and_answered_in_order(
    frozen: Any, depthwise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pays: int
) -> None:
    monkeypatch.setattr(frozen, "CONVERSION_PAYS_PIXELS", pays)
    load = Loader()
    done: list[int] = []
    found = list(frozen.Frozen(depthwise, tmp_path).over(len(PHOTOS), load, done=done.append))
    assert [i for rows, _ in found for i in rows] == list(range(len(PHOTOS)))
    assert sorted(load.asked) == list(range(len(PHOTOS)))
    assert sum(done) == len(PHOTOS)
    assert_same(np.concatenate([values for _, values in found]), by_keras(depthwise))


@WAYS
def test_only_a_few_photos_are_loaded_ahead(
    frozen: Any, depthwise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pays: int
) -> None:
    monkeypatch.setattr(frozen, "CONVERSION_PAYS_PIXELS", pays)
    monkeypatch.setattr(frozen, "_threads", lambda: 2)
    load, count, answered, most = Loader(), 400, 0, 0
    for rows, _ in frozen.Frozen(depthwise, tmp_path).over(count, load):
        most = max(most, len(load.asked) - answered)
        answered += len(rows)
    assert answered == count
    assert most <= frozen.BATCH * (2 + frozen.AHEAD + 1) < count / 2


@WAYS
def test_who_stops_asking_stops_the_loading(
    frozen: Any, depthwise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pays: int
) -> None:
    monkeypatch.setattr(frozen, "CONVERSION_PAYS_PIXELS", pays)
    load = Loader()
    answers = frozen.Frozen(depthwise, tmp_path).over(4000, load)
    next(answers)
    answers.close()
    seen = len(load.asked)
    assert seen < 2000
    assert len(load.asked) == seen


@WAYS
def test_a_photo_that_cannot_be_loaded_is_an_error_and_no_hole(
    frozen: Any, depthwise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pays: int
) -> None:
    monkeypatch.setattr(frozen, "CONVERSION_PAYS_PIXELS", pays)

    def load(i: int) -> Any:
        if i == 30:
            raise OSError("the card is gone")
        return PHOTOS[i]

    with pytest.raises(OSError, match="the card is gone"):
        list(frozen.Frozen(depthwise, tmp_path).over(len(PHOTOS), load))


def test_no_photos_give_no_answers(frozen: Any, depthwise: Any, tmp_path: Path) -> None:
    assert frozen.Frozen(depthwise, tmp_path)(PHOTOS[:0]).shape == (0, 24, 24, 6)
