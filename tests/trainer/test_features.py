"""Features are computed once per photo and kind; whatever changes them changes where they are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import ConfigError
from edge.model.spec import InputSpec
from trainer import features, records
from trainer.cache import ArrayCache
from trainer.features import Extraction
from trainer.pixels import PixelStack

pytestmark = pytest.mark.needs("tensorflow")

WHAT = Extraction("Small Net")
KEYS = [f"{i:02x}" + "0" * 62 for i in range(20)]


@pytest.fixture
def stack(tmp_path: Path) -> PixelStack:
    """Twenty small photos, more than a batch."""
    random = np.random.default_rng(6)
    cache = ArrayCache(tmp_path / "pixels", (8, 8, 3), np.uint8)
    for key in KEYS:
        cache.put(key, random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    return PixelStack(cache, KEYS, InputSpec(8, 8))


@pytest.fixture(scope="module")
def small() -> Any:
    """A network of one convolution, 8 x 8 pixels to 4 x 4 x 5, and a dense layer."""
    import keras

    keras.utils.set_random_seed(0)
    pixels = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Conv2D(5, 3, 2, padding="same", name="map")(keras.layers.Rescaling(1 / 128)(pixels))
    return keras.Model(pixels, keras.layers.Dense(7, name="end")(keras.layers.Flatten()(x)), name="small")


def part(small: Any, layer: str, pixels: Any) -> Any:
    import keras

    return np.asarray(keras.Model(small.input, small.get_layer(layer).output).predict_on_batch(pixels))


def never() -> Any:
    raise AssertionError("the network was built")


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("avg", lambda maps: maps.mean(axis=(1, 2))),
        ("max", lambda maps: maps.max(axis=(1, 2))),
        ("avg+max", lambda maps: np.concatenate([maps.mean(axis=(1, 2)), maps.max(axis=(1, 2))], axis=1)),
        ("flatten", lambda maps: maps.reshape(len(maps), -1)),
    ],
)
def test_a_map_becomes_one_vector(stack: PixelStack, small: Any, tmp_path: Path, pooling: str, expected: Any) -> None:
    done: list[int] = []
    what = replace(WHAT, layer="map", pooling=pooling)
    found = features.pooled(lambda: small, what, stack, tmp_path / "cache", done=done.append)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected(part(small, "map", stack.batch(range(20)))), abs=1e-5)
    assert sum(done) == 20


def test_a_layer_that_gives_a_vector_is_taken_as_it_is(stack: PixelStack, small: Any, tmp_path: Path) -> None:
    found = features.pooled(lambda: small, replace(WHAT, layer="end"), stack, tmp_path / "cache")
    assert found == pytest.approx(part(small, "end", stack.batch(range(20))), abs=1e-5)
    assert (features.pooled(lambda: small, WHAT, stack, tmp_path / "cache") == found).all(), "it is the last layer"


def test_an_unknown_layer_names_the_nearest(stack: PixelStack, small: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no layer 'maps'.*map"):
        features.pooled(lambda: small, replace(WHAT, layer="maps"), stack, tmp_path / "cache")


def test_an_unknown_pooling_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'mean', expected one of avg, max, avg\+max, flatten"):
        Extraction("x", pooling="mean")


def test_features_that_are_known_need_no_network(stack: PixelStack, small: Any, tmp_path: Path) -> None:
    first = features.pooled(lambda: small, WHAT, stack, tmp_path / "cache")
    assert (features.pooled(never, WHAT, stack, tmp_path / "cache") == first).all()


@pytest.mark.parametrize(
    "other",
    [
        replace(WHAT, network="Another Net"),
        replace(WHAT, weights="sha256:ab"),
        replace(WHAT, layer="end"),
        replace(WHAT, pooling="max"),
        replace(WHAT, normalise="unit"),
    ],
    ids=["network", "weights", "layer", "pooling", "normalise"],
)
def test_whatever_changes_the_features_changes_their_place(
    stack: PixelStack, small: Any, tmp_path: Path, other: Extraction
) -> None:
    features.pooled(lambda: small, WHAT, stack, tmp_path / "cache")
    with pytest.raises(AssertionError, match="was built"):
        features.pooled(never, other, stack, tmp_path / "cache")
    assert WHAT.key(InputSpec(8, 8)) != WHAT.key(InputSpec(8, 8, aspect="pad"))


def test_only_missing_features_are_computed(
    stack: PixelStack, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = PixelStack(stack._cache, KEYS[:12], stack.spec)
    features.pooled(lambda: small, WHAT, some, tmp_path / "cache")
    read: list[int] = []
    real = PixelStack.__getitem__

    def counted(self: PixelStack, i: int) -> Any:
        read.append(i)
        return real(self, i)

    monkeypatch.setattr(PixelStack, "__getitem__", counted)
    found = features.pooled(lambda: small, WHAT, stack, tmp_path / "cache")
    assert sorted(read) == list(range(12, 20))
    assert found == pytest.approx(part(small, "end", stack.batch(range(20))), abs=1e-5)


def test_the_same_photo_twice_is_computed_once(stack: PixelStack, small: Any, tmp_path: Path) -> None:
    done: list[int] = []
    twice = PixelStack(stack._cache, [KEYS[0], KEYS[1], KEYS[0]], stack.spec)
    found = features.pooled(lambda: small, WHAT, twice, tmp_path / "cache", done=done.append)
    assert (found[0] == found[2]).all()
    assert (found[0] != found[1]).any()
    assert sum(done) == 3


def test_a_killed_run_keeps_what_it_computed(
    stack: PixelStack, small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "FLUSH_EVERY", 8)

    def killed(count: int) -> None:
        if count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features.pooled(lambda: small, WHAT, stack, tmp_path / "cache", done=killed)
    done: list[int] = []
    features.pooled(lambda: small, WHAT, stack, tmp_path / "cache", done=done.append)
    assert done[0] == 16, "the first batch was computed again"


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(stack: PixelStack, small: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = features.pooled(lambda: small, WHAT, stack, tmp_path / "file")
    assert found == pytest.approx(part(small, "end", stack.batch(range(20))), abs=1e-5)
