"""Settings: defaults, ranges, and the input that follows from them."""

from __future__ import annotations

from typing import Any

import pytest

from edge.errors import ConfigError
from edge.model.spec import InputSpec
from trainer.settings import Settings


def test_the_default_input_is_the_backbone_s_training_side() -> None:
    assert Settings().spec() == InputSpec(320, 320)
    assert Settings(backbone="efficientnet-lite2").spec() == InputSpec(384, 384)


def test_side_aspect_and_cuts_reach_the_input() -> None:
    found = Settings(side=96, aspect="pad", cut_top=20, cut_bottom=64).spec()
    assert found == InputSpec(96, 96, aspect="pad", cut_top=20, cut_bottom=64)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"epochs": 1001},
        {"rate": 0.0},
        {"rate": 1.5},
        {"rate": float("nan")},
        {"views": -1},
        {"views": 101},
        {"wanted_precision": 0.4},
        {"wanted_precision": 1.0},
        {"seed": -1},
        {"seed": 2**32},
    ],
)
def test_a_setting_out_of_range_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(changes))} is .*, expected"):
        Settings(**changes)


@pytest.mark.parametrize("changes", [{"side": 0}, {"side": 5000}, {"aspect": "fill"}, {"cut_top": -1}])
def test_an_impossible_input_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Settings(**changes).spec()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"head": ("0",)}, "head has '0', expected units such as 256", id="a layer of no units"),
        pytest.param({"head": ("dropout:1",)}, "head has 'dropout:1'", id="all dropped"),
        pytest.param({"head": ("relu",)}, "head has 'relu'", id="another kind of layer"),
        pytest.param({"head": ("8",) * 9}, "head has 9 layers, expected at most 8", id="too many layers"),
        pytest.param({"blocks": (0,)}, r"blocks is \[0\]", id="a block of no filters"),
        pytest.param({"blocks": (64, 5000)}, "expected at most 8 numbers of filters", id="a block of too many filters"),
        pytest.param({"fine_tune_from": "5", "learn": "all"}, "but learn is 'all'. Choose one", id="from and all"),
        pytest.param({"fine_tune_from": "5", "learn": "head"}, "but learn is 'head'", id="from and the head alone"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Settings(**changes)


def test_head_layers_are_read_in_order() -> None:
    assert Settings(head=("512", "dropout:.25", "64")).head_layers() == [
        ("dense", 512.0), ("dropout", 0.25), ("dense", 64.0),
    ]  # fmt: skip


def test_what_is_no_linear_layer_on_a_vector_is_no_probe() -> None:
    assert Settings().linear_probe
    assert Settings(pooling="avg+max", cut="blocks_3_add").linear_probe
    for changes in ({"head": ("8",)}, {"blocks": (8,)}, {"pooling": "flatten"}):
        assert not Settings(**changes).linear_probe


def test_what_random_weights_give_is_no_rival() -> None:
    assert Settings().contest
    assert not Settings(weights="none").contest
    assert not Settings(keep="fine-tuned").contest


def test_only_what_differs_from_the_defaults_is_changed() -> None:
    assert Settings().changed() == {}
    assert Settings(epochs=3, backbone="vgg16").changed() == {"epochs": 3, "backbone": "vgg16"}
