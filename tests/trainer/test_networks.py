"""The networks: pixels in, ImageNet's weights in their places, cut and put together without a change in the answer.

One file for the modules that build networks, so that TensorFlow is loaded once for them.
"""

from __future__ import annotations

import json
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import ConfigError, DataError
from trainer.backbones import backbone
from trainer.torch_weights import read_pth

pytestmark = pytest.mark.needs("tensorflow")

LITE0 = "efficientnet-lite0"
SIDE = 64
RANDOM = np.random.default_rng(6)
PHOTOS = RANDOM.integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def lite0() -> Any:
    """The default backbone with ImageNet's weights, at 64 x 64. Do not train it."""
    return backbone(LITE0).build(SIDE, SIDE)


def answer(model: Any, pixels: Any = PHOTOS) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(model.predict_on_batch(pixels))


# --- the architecture


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


def test_answers_are_those_of_pytorch(samples: Path) -> None:
    """The numbers were computed once with PyTorch, by ``benchmarks/lite0_reference.py``."""
    from benchmarks import lite0_reference

    known = json.loads(lite0_reference.OUT.read_text(encoding="utf-8"))["answers"]
    pixels = np.stack([lite0_reference.pixels_of(name) for name in known])
    logits = answer(backbone(LITE0).build(224, 224, top=True), pixels)
    for name, found, expected in zip(known, logits, known.values(), strict=True):
        best = np.argsort(-found)[: lite0_reference.TOP]
        assert best.tolist() == expected["top"], name
        assert found[best] == pytest.approx(expected["logits"], abs=2e-3), name


def test_any_backbone_identifies_by_its_own_weights(samples: Path, tmp_path: Path) -> None:
    """Random ones here, out of a file."""
    from trainer.identify import identify

    small = backbone("mobilenetv3-small")
    file = tmp_path / "with_head.weights.h5"
    small.build(224, 224, top=True, weights="none").save_weights(file)
    (seen,) = identify([samples / "coffee.png"], small, 5, weights=str(file))
    assert seen.failure is None
    assert len(seen.top) == 5
    with pytest.raises(ConfigError, match="random weights know no ImageNet class"):
        list(identify([], small, 5, weights="none"))


def test_there_is_an_english_name_for_every_class() -> None:
    from trainer.identify import imagenet_names

    names = imagenet_names()
    assert len(names) == 1000
    assert all(name and name == name.strip() for name in names)
    assert (names[0], names[967]) == ("tench", "espresso")


# --- putting together and taking apart


def test_trunk_and_tail_are_the_whole(lite0: Any) -> None:
    from trainer import model

    parts = model.cut(lite0, backbone(LITE0).frozen_until)
    middle = answer(parts.trunk)
    assert middle.shape[1:] == parts.tail.input.shape[1:]
    assert answer(parts.tail, middle) == pytest.approx(answer(lite0), abs=1e-4)


def test_a_cut_inside_a_block_is_refused(lite0: Any) -> None:
    from trainer import model

    with pytest.raises(ConfigError, match="a branch goes past it"):
        model.cut(lite0, "blocks_12_depthwise_bn")
