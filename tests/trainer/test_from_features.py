"""A file of features as what is trained on: what it says of the network holds, and what it cannot give is refused."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from edge.errors import ConfigError, DataError
from edge.model.spec import InputSpec
from trainer.cli import app
from trainer.dataset.questions import AS_GIVEN, NEW_STATION
from trainer.feature_file import SCHEMA, FeatureFile
from trainer.from_features import Source, source
from trainer.settings import HEAD_ONLY, Settings

N = 60
SPEC = InputSpec(96, 96, cut_bottom=8)
NAME = Path("lite0.npz")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))


def file(meta: dict[str, Any] | None = None, **changes: Any) -> FeatureFile:
    """Sixty photos of two labels at ten stations, as :func:`trainer.feature_file.read` gives them."""
    described = {
        "schema": SCHEMA, "backbone": "mobilenetv2", "layer": "out_relu", "pooling": "max", "weights": "none",
        "weights_name": "none", "normalise": "unit", "seed": 3, "input": asdict(SPEC), "data_folder": "/photos",
    }  # fmt: skip
    empty = ("",) * N
    made = FeatureFile(
        features=np.arange(N * 4, dtype=np.float32).reshape(N, 4),
        labels=np.arange(N, dtype=np.int64) % 2,
        label_names=("deer", "fox"),
        photos=tuple(f"a/{i}.jpg" for i in range(N)),
        sha256s=tuple(f"{i:064d}" for i in range(N)),
        groups=np.arange(N, dtype=np.int64),
        stations=tuple(f"S{i // 6}" for i in range(N)),
        sequences=empty,
        taken=empty,
        parts=empty,
        infrared=np.arange(N) % 3 == 0,
        meta=described | (meta or {}),
    )
    return replace(made, **changes)


def made(given: FeatureFile, **settings: Any) -> Source:
    return source(given, NAME, Settings(**settings))


def test_network_and_pixels_are_what_the_file_says_whatever_the_settings_say() -> None:
    found = made(file(), backbone="vgg16", side=64, normalise="own", pooling="flatten", seed=9)
    settings = found.settings
    assert (settings.backbone, settings.weights, settings.normalise) == ("mobilenetv2", "none", "unit")
    assert settings.spec() == SPEC
    assert (settings.learn, settings.linear_probe, settings.seed) == (HEAD_ONLY, True, 9)
    assert (found.request.layer, found.request.pooling, found.request.seed) == ("out_relu", "max", 3)


def test_photos_keep_label_place_and_what_was_known_of_them() -> None:
    photos = made(file(taken=("2024-05-01T06:00:00",) * N)).photos
    assert np.array_equal(photos.features, file().features)
    assert photos.names == ("deer", "fox")
    one = photos.decoded[7]
    assert (one.sample.path, one.sample.name, one.sample.label) == (Path("/photos/a/7.jpg"), "a/7.jpg", "fox")
    assert (one.sample.station, one.sample.sequence, one.taken) == ("S1", None, "2024-05-01T06:00:00")
    assert [photo.infrared for photo in photos.decoded[:4]] == [True, False, False, True]
    assert not photos.stack.can_be_read(), "they are nowhere, and that does not matter"


def test_what_is_held_out_is_chosen_from_stations_and_parts_as_for_photos() -> None:
    (question, *_) = made(file()).photos.questions
    assert question.name == NEW_STATION
    held = {file().stations[i] for i in question.test}
    assert held
    assert held.isdisjoint(file().stations[i] for i in question.learn)
    parts = ("train",) * 40 + ("test",) * 20
    (given,) = made(file(parts=parts)).photos.questions
    assert (given.name, given.test.tolist()) == (AS_GIVEN, list(range(40, 60)))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"head": ("8",)}, id="a dense layer"),
        pytest.param({"blocks": (8,)}, id="own blocks"),
        pytest.param({"cut": "block_1_expand"}, id="a cut"),
        pytest.param({"fine_tune_from": "100"}, id="fine-tuning from a layer"),
        pytest.param({"learn": "all"}, id="all layers"),
    ],
)
def test_what_features_cannot_give_is_refused_not_ignored(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"a single layer is trained.*or train from the photos"):
        made(file(), **settings)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"features": np.zeros((N, 2, 2, 4), np.float32)}, "holds feature maps. Write it", id="maps"),
        pytest.param(
            {"labels": np.full(N, -1, np.int64), "label_names": ()}, "60 of 60 photos have no", id="no labels"
        ),
        pytest.param(
            {"labels": np.r_[-1, np.zeros(N - 1, np.int64)]}, "1 of 60 photos have no label", id="one without"
        ),
        pytest.param({"labels": np.zeros(N, np.int64), "label_names": ("fox",)}, "it names 1 label", id="one label"),
    ],
)
def test_a_file_that_holds_nothing_to_learn_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        made(file(**changes))


def test_weights_of_a_file_must_be_the_same_file(tmp_path: Path) -> None:
    import hashlib

    right, wrong = tmp_path / "right.h5", tmp_path / "wrong.h5"
    right.write_bytes(b"the weights")
    wrong.write_bytes(b"others")
    meta = {"weights": hashlib.sha256(b"the weights").hexdigest(), "weights_name": "mine.h5"}
    for given in ("imagenet", str(wrong)):
        with pytest.raises(DataError, match=r"weights of a file, mine.h5 .*Give the same file with --weights"):
            made(file(meta), weights=given)
    assert made(file(meta), weights=str(right)).request.weights == str(right)


def test_photos_and_features_are_not_both_given(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["train", "photos", "--features", "f.npz", "--out", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert "not both" in done.stderr
