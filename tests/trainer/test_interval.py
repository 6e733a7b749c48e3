"""Bounds against published and textbook values, and against draws from a known truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.interval import at_most, grouped, wilson


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [  # Newcombe 1998, table I, method 3
        pytest.param(81, 263, 0.2553, 0.3662, id="81 of 263"),
        pytest.param(15, 148, 0.0624, 0.1605, id="15 of 148"),
        pytest.param(0, 20, 0.0, 0.1611, id="none of 20"),
        pytest.param(1, 29, 0.0061, 0.1718, id="1 of 29"),
    ],
)
def test_wilson_gives_the_published_bounds(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits, n) == pytest.approx((low, high), abs=1e-4)


def test_of_nothing_nothing_is_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert grouped(np.array([], bool), np.array([], np.intp)) == (0.0, 1.0)
    assert at_most(0, 0) == 1.0


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_bounds_are_shares_around_what_was_seen(counted: tuple[int, int]) -> None:
    hits, n = counted
    low, high = wilson(hits, n)
    assert 0 <= low <= hits / n <= high <= 1
    assert hits / n <= at_most(hits, n) <= 1


def test_none_of_40_missed_means_at_most_7_percent() -> None:
    assert at_most(0, 40) == pytest.approx(1 - 0.05 ** (1 / 40))
    assert at_most(0, 40) == pytest.approx(0.0722, abs=1e-4)
    assert at_most(0, 300) == pytest.approx(0.00994, abs=1e-4)


def test_at_most_holds_where_the_threshold_was_chosen_on_the_same_events() -> None:
    """The threshold lies just above the highest score of 60; the truth exceeds the bound in 5 of 100 cases."""
    random = np.random.default_rng(0)
    beyond = 1 - random.random((4000, 60)).max(axis=1)  # scores are uniform, so this is the true share missed
    assert (beyond > at_most(0, 60)).mean() == pytest.approx(0.05, abs=0.01)


def test_photos_that_are_independent_have_wilson_s_bounds() -> None:
    right = np.arange(50) % 10 > 0
    assert grouped(right, np.arange(50)) == pytest.approx(wilson(45, 50))


def test_ten_photos_of_a_burst_say_no_more_than_one() -> None:
    right = np.repeat(np.arange(50) % 10 > 0, 10)
    assert grouped(right, np.repeat(np.arange(50), 10)) == pytest.approx(wilson(45, 50), abs=0.005)


def test_bursts_of_which_all_photos_are_right_count_as_one_photo_each() -> None:
    assert grouped(np.ones(100, bool), np.repeat(np.arange(10), 10)) == wilson(10, 10)


def test_bounds_hold_the_truth_of_photos_in_bursts_and_plain_ones_do_not() -> None:
    random = np.random.default_rng(1)
    held = plain = 0
    for _ in range(300):
        right = np.repeat(random.random(60) < 0.9, 5)
        low, high = grouped(right, np.repeat(np.arange(60), 5))
        held += low <= 0.9 <= high
        low, high = wilson(float(right.sum()), 300)
        plain += low <= 0.9 <= high
    assert held / 300 > 0.9
    assert plain / 300 < 0.75
