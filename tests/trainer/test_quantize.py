"""Calibration photos: balanced over classes, and always from black to white. The converter itself is in test_chain."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.model.preprocess import InputSpec
from trainer import quantize
from trainer.cache import ArrayCache
from trainer.pixels import PixelStack


def test_each_class_gives_as_many_as_the_others() -> None:
    labels = np.array([0] * 900 + [1] * 80 + [2] * 70)
    chosen = quantize.calibration(labels, np.arange(1050), 0, 200)
    assert Counter(labels[chosen].tolist()) == {0: 67, 1: 67, 2: 66}


def test_a_rare_class_gives_all_and_the_others_the_rest() -> None:
    labels = np.array([0] * 900 + [1] * 3)
    assert Counter(labels[quantize.calibration(labels, np.arange(903), 0, 200)].tolist()) == {0: 197, 1: 3}


def test_a_directory_walk_would_have_taken_one_class() -> None:
    """Control: the first 200 are all of class 0."""
    labels = np.sort(np.arange(900) % 3)
    assert set(labels[:200]) == {0}
    assert set(labels[quantize.calibration(labels, np.arange(900), 0, 200)]) == {0, 1, 2}


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=400), st.integers(0, 3), st.sets(st.integers(0, 399), max_size=300)
)
def test_any_choice_is_of_the_candidates_without_repeats_and_balanced(
    drawn: list[int], seed: int, left_out: set[int]
) -> None:
    labels = np.array(drawn)
    candidates = np.array([i for i in range(len(labels)) if i not in left_out], dtype=np.intp)
    chosen = quantize.calibration(labels, candidates, seed, 200)
    assert len(chosen) == min(len(candidates), 200)
    assert len(set(chosen.tolist())) == len(chosen)
    assert set(chosen.tolist()) <= set(candidates.tolist())
    there, taken = Counter(labels[candidates].tolist()), Counter(labels[chosen].tolist())
    most = max(taken.values(), default=0)
    assert all(taken[label] >= min(there[label], most - 1) for label in there)


def test_the_same_seed_chooses_the_same_photos() -> None:
    labels = np.arange(900) % 3
    first, same, other = (quantize.calibration(labels, np.arange(900), seed, 200).tolist() for seed in (1, 1, 2))
    assert first == same
    assert first != other


def test_black_and_white_come_first_so_that_the_range_is_whole(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path, (4, 6, 3), np.uint8)
    for i in range(3):
        cache.put(f"k{i}", np.full((4, 6, 3), 100 + i, np.uint8))  # dusk: nothing below 100 or above 102
    stack = PixelStack(cache, ["k0", "k1", "k2"], InputSpec(4, 6))
    given_to_it = list(quantize.representative(stack, np.array([2, 0])))
    assert [(each.min(), each.max()) for each in given_to_it] == [(0, 0), (255, 255), (102, 102), (100, 100)]
    assert {(each.shape, each.dtype.name) for each in given_to_it} == {((1, 4, 6, 3), "uint8")}
