"""Limits: what they let through by numbers worked out by hand, how they are set; which runtimes a verdict passes."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from edge.errors import ConfigError
from trainer.gate import Limits, Row, Verdict


@pytest.mark.parametrize(
    ("n", "lost", "of_label", "disagreements"),
    [(1, 1, 2, 2), (58, 1, 2, 2), (99, 1, 4, 2), (100, 1, 5, 3), (199, 1, 9, 5), (200, 2, 10, 6), (1000, 10, 50, 30)],
)
def test_few_photos_may_differ_by_a_number_and_many_by_a_share(
    n: int, lost: int, of_label: int, disagreements: int
) -> None:
    limits = Limits()
    assert limits.most_lost(n) == lost
    assert limits.most_lost_of_label(n) == of_label
    assert limits.most_disagreements(n) == disagreements


def test_limits_are_set_by_name() -> None:
    limits = Limits().with_settings(["agreement=0.98", " lost_photos = 3 "])
    assert (limits.agreement, limits.lost_photos) == (0.98, 3)
    assert Limits().agreement == 0.97
    assert limits.with_settings(["low_n=5"]).agreement == 0.98


def test_every_limit_is_a_number_that_can_be_set_to_itself() -> None:
    """So that what a manifest records can be given again."""
    numbers = asdict(Limits())
    assert all(isinstance(value, int | float) for value in numbers.values())
    assert Limits().with_settings([f"{name}={value}" for name, value in numbers.items()]) == Limits()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        pytest.param("agrement=0.9", "'agrement' is no limit of the gate. The nearest is agreement", id="misspelt"),
        pytest.param("lost=1", "nearest is lost_", id="half a name"),
        pytest.param("agreement", "agreement is '', expected 0 to 1", id="without a value"),
        pytest.param("agreement=97", "'97', expected 0 to 1", id="per cent for a share"),
        pytest.param("agreement=-0.1", "expected 0 to 1", id="a negative share"),
        pytest.param("agreement=nan", "expected 0 to 1", id="not a number"),
        pytest.param("lost_photos=1.5", "expected a whole number of at least 0", id="half a photo"),
        pytest.param("lost_photos=-1", "expected a whole number of at least 0", id="minus one photo"),
        pytest.param("mean_difference=far", "expected at least 0", id="a word"),
        pytest.param("=1", "is no limit", id="without a name"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Limits().with_settings([setting])


def row(name: str, *, passed: bool = True, deciding: bool = True, architecture: str = "x86_64") -> Row:
    return Row("int8", name, "2.0", architecture, "default", passed, "", deciding)


def verdict(*rows: Row) -> Verdict:
    return Verdict(rows, {}, {}, {"a": 0.1, "b": 0.3}, ())


@pytest.mark.parametrize(
    ("rows", "passed"),
    [
        pytest.param([row("a"), row("b")], ["a", "b"], id="both"),
        pytest.param([row("a", passed=False), row("b")], ["b"], id="one"),
        pytest.param([row("a"), row("a", passed=False, deciding=False)], ["a"], id="what is reported does not count"),
        pytest.param([row("a", passed=False), row("a", deciding=False)], [], id="nor does it help"),
        pytest.param([row("a"), row("a", passed=False, architecture="aarch64")], [], id="emulated ones count"),
        pytest.param([row("a"), row("a", architecture="aarch64")], ["a"], id="a runtime is named once"),
    ],
)
def test_a_runtime_passes_only_with_all_its_deciding_rows(rows: list[Row], passed: list[str]) -> None:
    found = verdict(*rows)
    assert [each.runtime for each in found.passed] == passed
    assert all(each.architecture == "x86_64" for each in found.passed)


def test_the_output_step_is_that_of_the_runtimes_that_passed() -> None:
    """A runtime that failed has no say in how far golden photos may differ."""
    assert verdict(row("a"), row("b")).output_step == 0.3
    assert verdict(row("a"), row("b", passed=False)).output_step == 0.1
    assert verdict(row("b", passed=False)).output_step == 0
    assert np.isscalar(verdict().output_step)
