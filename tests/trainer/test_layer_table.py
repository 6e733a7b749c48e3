"""The table of layers: what it numbers is what options take."""

from __future__ import annotations

from typing import Any

import pytest

from tests.trainer import tiny_network as tiny
from trainer import layer_table
from trainer.backbones import find_layer

pytestmark = pytest.mark.needs("tensorflow")


@pytest.fixture(scope="module")
def network() -> Any:
    return tiny.network()


def rows(lines: list[str]) -> list[list[str]]:
    return [line.split() for line in lines[1:] if line.split()[0].isdecimal()]


def test_every_number_and_name_finds_its_layer(network: Any) -> None:
    found = rows(layer_table.lines(network))
    assert len(found) == len(network.layers) - 1, "our normalisation has no number"
    for number, name, *_ in found:
        assert find_layer(network, number).name == find_layer(network, name).name == name


def test_a_line_says_kind_output_and_parameters(network: Any) -> None:
    (line,) = (row for row in rows(layer_table.lines(network)) if row[1] == "second")
    assert line[2:] == ["Conv2D", "4", "×", "4", "×", "8", "584"]
    assert (
        layer_table.lines(network)[-1]
        == f"tiny: {len(network.layers) - 1} layers, {network.count_params():,} parameters"
    )


def test_what_learns_has_a_star_and_is_counted(network: Any) -> None:
    lines = layer_table.lines(network, {"second", "second_relu"})
    assert [row[2] for row in rows(lines) if "*" in row] == ["second"], "an activation has nothing to learn"
    assert lines[-1] == "* learn in fine-tuning: 584 parameters"
