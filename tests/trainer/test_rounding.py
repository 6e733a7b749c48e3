"""Rounding weights so that outputs change little: against rounding to the nearest, on numbers made up here."""

from __future__ import annotations

import numpy as np
import pytest

from trainer import rounding
from trainer.rounding import Floats, Moments, rounded


def inputs(k: int, n: int, d: int, seed: int = 0) -> Floats:
    """Like activations after a ReLU: correlated, and with a mean. (k, n, d)."""
    random = np.random.default_rng(seed)
    common = random.normal(1.0, 1.0, (k, n, 3)) @ random.normal(0, 1.0, (k, 3, d))
    return np.asarray(np.maximum(common + random.normal(0.2, 0.3, (k, n, d)), 0), np.float64)


def moments(seen: Floats) -> Moments:
    found = Moments()
    for part in np.array_split(seen, 7, axis=1):
        found.add(part.astype(np.float32))
    return found


def layer(k: int, r: int, d: int) -> tuple[Floats, Floats]:
    weights = np.random.default_rng(1).normal(0, 1, (k, r, d))
    return weights, np.abs(weights).max(axis=2) / 15  # coarse steps, so that rounding matters


def error(weights: Floats, scales: Floats, made: rounding.Rounded, seen: Floats, bias: bool = True) -> Floats:
    """Of the outputs, (k, n, r)."""
    change = made.values * scales[:, :, None] - weights
    return np.asarray(np.einsum("knd,krd->knr", seen, change) + (made.bias[:, None, :] if bias else 0))


@pytest.mark.parametrize(("k", "r", "d"), [(1, 8, 40), (12, 1, 9), (1, 5, 130)], ids=["dense", "depthwise", "blocks"])
def test_outputs_on_photos_not_seen_change_less_than_with_the_nearest(k: int, r: int, d: int) -> None:
    (weights, scales), seen, unseen = layer(k, r, d), inputs(k, 2000, d), inputs(k, 2000, d)[:, ::-1]
    made = rounded(weights, scales, moments(seen))
    nearest = rounding.Rounded(np.round(weights / scales[:, :, None]).astype(np.int8), np.zeros((k, r)))
    ours, theirs = error(weights, scales, made, unseen).std(), error(weights, scales, nearest, unseen).std()
    assert ours < 0.7 * theirs


def test_the_bias_takes_the_mean_away_and_without_it_the_mean_would_stay() -> None:
    (weights, scales), seen = layer(1, 8, 40), inputs(1, 2000, 40)
    made = rounded(weights, scales, moments(seen))
    with_bias = np.abs(error(weights, scales, made, seen).mean(axis=1)).max()
    without = np.abs(error(weights, scales, made, seen, bias=False).mean(axis=1)).max()
    assert with_bias < 1e-4 < 0.01 < without


def test_a_layer_with_very_many_inputs_is_rounded_to_the_nearest_with_its_bias_put_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rounding, "LARGEST", 10)
    (weights, scales), seen = layer(1, 4, 40), inputs(1, 500, 40)
    made = rounded(weights, scales, moments(seen))
    assert np.array_equal(made.values, np.round(weights / scales[:, :, None]))
    assert np.abs(error(weights, scales, made, seen).mean(axis=1)).max() < 1e-4


def test_inputs_that_are_always_zero_and_outputs_without_weights_do_no_harm() -> None:
    weights, scales = layer(1, 3, 6)
    weights[0, 1], scales[0, 1] = 0, 0
    seen = inputs(1, 300, 6)
    seen[:, :, 2] = 0
    made = rounded(weights, scales, moments(seen))
    assert np.isfinite(made.bias).all()
    assert (made.values[0, 1] == 0).all()
    assert np.abs(made.values).max() <= rounding.MOST
    constant = rounded(weights, scales, moments(np.full((1, 300, 6), 5.0)))
    assert np.isfinite(constant.bias).all()
    dead = rounded(weights, scales, moments(np.zeros((1, 300, 6))))
    assert np.array_equal(dead.values[0, 0], np.round(weights[0, 0] / scales[0, 0]))


def test_moments_are_those_of_all_that_was_seen() -> None:
    seen = inputs(2, 700, 5)
    found = moments(seen)
    assert found.n == 700
    assert np.allclose(found.mean, seen.mean(axis=1), atol=1e-5)
    assert found.covariance is not None
    assert np.allclose(found.covariance, [np.cov(each.T, bias=True) for each in seen], atol=1e-4)
