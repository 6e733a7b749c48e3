"""How scalings are named, read and shown."""

from __future__ import annotations

import pytest

from edge.errors import ConfigError
from trainer.imported.scaling import PRESETS, RAW, Scaling, parse


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_read_by_its_name_and_shown_by_it(name: str) -> None:
    assert str(parse(name)) == name


def test_one_mean_and_std_hold_for_all_channels() -> None:
    assert parse("127.5/127.5") == PRESETS["-1..1"]
    assert parse("0/1") == RAW


def test_three_numbers_are_red_green_blue() -> None:
    found = parse("123.675, 116.28, 103.53 / 58.395,57.12,57.375")
    assert found == PRESETS["imagenet"]
    assert parse("1,2,3/4") == Scaling((1, 2, 3), (4, 4, 4))


@pytest.mark.parametrize("text", ["1,2,3/4,5,6", "127/128", "-12.5/0.25"])
def test_what_is_shown_is_what_is_read(text: str) -> None:
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("-1...1", id="a preset misspelt"),
        pytest.param("127.5", id="no std"),
        pytest.param("1,2/3", id="two means"),
        pytest.param("1/2/3", id="two slashes"),
        pytest.param("nan/1", id="not a number"),
        pytest.param("1e3/1", id="an exponent"),
        pytest.param("0/0", id="std of zero"),
        pytest.param("1/" + "9" * 100_000, id="a long number"),
    ],
)
def test_a_scaling_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)
