"""Geometry: what is larger lies higher, and nothing lies outside the axes."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.report.reports import answers, epochs, evaluation
from trainer.history import Epoch
from trainer.report import charts
from trainer.report.charts import Chart
from trainer.report.record import Stage


def points(chart: Chart) -> list[tuple[float, float]]:
    """Every dot, and every corner of a path that gives both numbers."""
    dots = [(dot.x, dot.y) for line in chart.lines for dot in line.dots]
    corners = [pair for line in chart.lines for pair in re.findall(r"([\d.]+),([\d.]+)", line.path)]
    return dots + [(float(x), float(y)) for x, y in corners]


def assert_inside(chart: Chart) -> None:
    for x, y in points(chart):
        assert chart.left - 0.1 <= x <= chart.right + 0.1
        assert chart.top - 0.1 <= y <= chart.bottom + 0.1


@pytest.mark.parametrize("count", [1, 2, 7, 300])
@pytest.mark.parametrize("quantity", ["loss", "accuracy"])
def test_a_history_of_any_length_lies_inside_its_axes(count: int, quantity: str) -> None:
    chart = charts.history([Stage("all", epochs(count))], quantity, 0.8)
    assert_inside(chart)
    assert [line.style for line in chart.lines] == ["validation", "training", "reference"]
    assert 2 <= len(chart.x_ticks) <= 12


def test_a_better_epoch_lies_higher_and_a_later_one_to_the_right() -> None:
    [line, *_] = charts.history([Stage("all", epochs(5))], "accuracy", None).lines
    across, down = [dot.x for dot in line.dots], [dot.y for dot in line.dots]
    assert (across, down) == (sorted(set(across)), sorted(set(down), reverse=True))
    assert len(across) == 5


def test_stages_follow_each_other_and_say_where_they_begin() -> None:
    chart = charts.history([Stage("head", epochs(4)), Stage("last blocks", epochs(6), best=5)], "loss", None)
    assert [border.text for border in chart.borders] == ["head", "last blocks"]
    [ring] = [line for line in chart.lines if line.style == "ring"]
    assert ring.dots[0].title == "epoch 9 is kept"
    assert ring.dots[0].x == chart.lines[0].dots[8].x
    assert chart.borders[1].at == chart.lines[0].dots[4].x


def test_a_loss_that_is_not_finite_is_left_out() -> None:
    broken = [*epochs(3), Epoch(4, float("nan"), 0.5, float("inf"), 0.5)]
    chart = charts.history([Stage("all", broken)], "loss", float("nan"))
    assert_inside(chart)
    assert "nan" not in str(chart)
    assert [len(line.dots) for line in chart.lines] == [3, 3]


def test_equal_losses_are_a_level_line() -> None:
    same = [replace(epoch, loss=0.5, validation_loss=0.5) for epoch in epochs(3)]
    assert_inside(charts.history([Stage("all", same)], "loss", 0.5))


def test_reliability_and_coverage_lie_inside_their_axes() -> None:
    found = evaluation(answers())
    assert_inside(charts.reliability(found.reliability))
    assert_inside(charts.coverage(found.curve, (0.9, 0.3)))
    assert_inside(charts.coverage(found.curve, None))


@pytest.mark.parametrize("count", [2, 5, 12, 25, 60])
def test_a_matrix_of_any_size_has_its_cells_apart_and_inside(count: int) -> None:
    labels = [f"Species {i} with a name that is rather long" for i in range(count)]
    found = evaluation(answers(4 * count, labels))
    matrix = charts.matrix(found.figures, labels)
    assert len({(cell.x, cell.y) for cell in matrix.cells}) == len(matrix.cells)
    assert sum(cell.count for cell in matrix.cells) == 4 * count
    assert max(matrix.left + cell.x + matrix.side for cell in matrix.cells) <= matrix.width
    assert max(matrix.top + cell.y + matrix.side for cell in matrix.cells) <= matrix.height
    assert all(len(tick.text) <= charts.MOST_LETTERS for tick in matrix.rows)


def test_a_cell_says_what_was_called_what() -> None:
    found = evaluation(answers()).figures
    shown = charts.matrix(replace(found, confusion=np.diag([9, 0, 5, 3]).tolist()), ("deer", "empty", "fox", "hog"))
    assert [cell.title for cell in shown.cells][:2] == [
        "deer, called so: 9 of 9 (100 %)",
        "fox, called so: 5 of 5 (100 %)",
    ]
    [cell] = charts.matrix(replace(found, confusion=[[0, 4], [0, 0]]), ("deer", "fox")).cells
    assert (cell.title, cell.right, cell.x > cell.y) == ("deer, called fox: 4 of 4 (100 %)", False, True)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside(low: float, width: float) -> None:
    found = charts.ticks(low, low + width)
    assert 1 <= len(found) <= 7
    slack = width * 1e-3
    assert all(low - slack <= tick <= low + width + slack for tick in found)


def test_ticks_are_round() -> None:
    assert charts.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert charts.ticks(0.37, 0.63) == [0.4, 0.5, 0.6]
