"""Where the lines, dots and cells of a report's plots lie, in SVG units. Pure geometry: the page's template draws it.

Coordinates are rounded to a tenth; x grows to the right, y downwards. Never writes markup.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from trainer.evaluate import Bin, Figures, Point
from trainer.report.record import Stage

Scale = Callable[[float], float]
MOST_LETTERS = 22


@dataclass(frozen=True)
class Dot:
    """A point with a radius, and what it says when pointed at."""

    x: float
    y: float
    r: float
    title: str


@dataclass(frozen=True)
class Line:
    """A path (SVG ``d``) in a style of the page, its dots, and its name in the legend, if any."""

    path: str
    style: str
    name: str = ""
    dots: tuple[Dot, ...] = ()


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A plot. ``left``, ``top``, ``right`` and ``bottom`` are the edges of the area inside the axes."""

    title: str
    width: float
    height: float
    left: float
    top: float
    right: float
    bottom: float
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    borders: tuple[Tick, ...] = ()


@dataclass(frozen=True)
class Cell:
    """A field of a matrix: its corner, how strongly it is filled (0 to 1), what it says, and how large."""

    x: float
    y: float
    strength: float
    right: bool
    count: int
    percent: str
    title: str
    font: float


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: ``side`` of a cell, the margin for row names and the one for column names, and the cells."""

    width: float
    height: float
    side: float
    left: float
    top: float
    font: float
    steep: bool
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]
    cells: tuple[Cell, ...]


def history(stages: Sequence[Stage], quantity: str, start: float | None) -> Chart:
    """Loss or accuracy over all epochs, stages one behind another.

    Args:
        stages: with at least one epoch in all.
        quantity: ``loss`` or ``accuracy``.
        start: the probe's value on the validation photos, drawn as a level line; None for no line.
    """
    epochs = [epoch for stage in stages for epoch in stage.epochs]
    train = [float(getattr(epoch, quantity)) for epoch in epochs]
    validation = [float(getattr(epoch, f"validation_{quantity}")) for epoch in epochs]
    known = [v for v in [*train, *validation, *([] if start is None else [start])] if math.isfinite(v)]
    chart = _frame(quantity, (1, max(2, len(epochs))), _range(known, quantity), "epoch", "")
    x, y = _scales(chart, (1, max(2, len(epochs))), _range(known, quantity))
    lines = [
        _series(x, y, validation, "validation", f"{quantity} on validation photos"),
        _series(x, y, train, "training", f"{quantity} on training photos"),
    ]
    if start is not None and math.isfinite(start):
        level = f"M{chart.left:g},{y(start):g}H{chart.right:g}"
        lines.append(Line(level, "reference", "the probe, before fine-tuning"))
    lines += _kept(stages, validation, x, y)
    return _with(chart, lines, _borders(stages, x))


def reliability(bins: Sequence[Bin]) -> Chart:
    """Confidence against accuracy: a dot for each bin, larger for more photos, with its interval as an upright line."""
    span = (0.0, 1.0)
    chart = _frame(
        "Confidence against truth", span, span, "how sure the model is", "how often it is right", square=True
    )
    x, y = _scales(chart, span, span)
    most = max((each.n for each in bins), default=1)
    dots = tuple(
        Dot(x(b.confidence), y(b.accuracy), round(2.5 + 6 * math.sqrt(b.n / most), 1),
            f"{b.n} photos, {percent(b.confidence)} sure, {percent(b.accuracy)} right")
        for b in bins
    )  # fmt: skip
    whiskers = "".join(f"M{x(b.confidence):g},{y(b.interval[0]):g}V{y(b.interval[1]):g}" for b in bins)
    diagonal = f"M{x(0):g},{y(0):g}L{x(1):g},{y(1):g}"
    lines = [
        Line(diagonal, "reference", "as sure as right"),
        Line(whiskers, "whisker", "95 % interval"),
        Line("", "validation", "", dots),
    ]
    return _with(chart, lines)


def coverage(points: Sequence[Point], here: tuple[float, float] | None) -> Chart:
    """Share of photos answered against share right among them.

    Args:
        points: at least one.
        here: coverage and accuracy at the shipped thresholds; None if nothing is answered there.
    """
    low = min([point.accuracy for point in points] + ([here[1]] if here else []))
    span, y_span = (0.0, 1.0), (min(0.9, math.floor(low * 10) / 10), 1.0)
    chart = _frame("Answering less, but better", span, y_span, "photos answered", "of these, right", square=True)
    x, y = _scales(chart, span, y_span)
    path = _path([(x(point.coverage), y(point.accuracy)) for point in points])
    lines = [Line(path, "validation", "if only its surest answers counted")]
    if here is not None:
        dot = Dot(x(here[0]), y(here[1]), 5.5, f"{percent(here[0], 1)} answered, {percent(here[1], 1)} of these right")
        lines.append(Line("", "here", "with its thresholds", (dot,)))
    return _with(chart, lines)


def matrix(figures: Figures, labels: Sequence[str]) -> Matrix:
    """The confusion matrix, in cells that shrink as the labels grow in number; cells of 0 are left out."""
    count = len(labels)
    side = next(size for most, size in ((8, 46.0), (16, 36.0), (30, 25.0), (10**9, 17.0)) if count <= most)
    font = round(min(12.5, side * 0.55), 1)
    longest = min(MOST_LETTERS, max(len(label) for label in labels))
    left, steep = round(longest * font * 0.62 + 16, 1), count > 16
    top = round(longest * font * (0.62 if steep else 0.46) + 22, 1)
    names = [Tick(round((i + 0.5) * side, 1), shorten(label)) for i, label in enumerate(labels)]
    cells = [
        _cell(i, j, number, sum(row), side, font, labels)
        for i, row in enumerate(figures.confusion)
        for j, number in enumerate(row)
        if number
    ]
    right_margin = 8 if steep else longest * font * 0.46
    return Matrix(
        width=round(left + count * side + right_margin, 1), height=round(top + count * side + 4, 1), side=side,
        left=left, top=top, font=font, steep=steep, rows=tuple(names), columns=tuple(names), cells=tuple(cells),
    )  # fmt: skip


def percent(share: float, digits: int = 0) -> str:
    """A share, 0 to 1, as the report writes it."""
    return f"{share * 100:.{digits}f} %"


def shorten(text: str) -> str:
    """A name that fits beside a matrix."""
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-6)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-6) + 1)]


def _cell(i: int, j: int, number: int, total: int, side: float, font: float, labels: Sequence[str]) -> Cell:
    share = number / total
    verdict = "called so" if i == j else f"called {labels[j]}"
    title = f"{labels[i]}, {verdict}: {number} of {total} ({percent(share)})"
    strength = round(0.12 + 0.88 * share**0.7, 2)
    fitting = round(min(font, side * 1.5 / len(str(number))), 1)
    return Cell(j * side, i * side, strength, i == j, number, percent(share), title, fitting)


def _range(values: Sequence[float], quantity: str) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    if quantity == "accuracy":
        return min(0.9, math.floor(low * 10) / 10), 1.0
    margin = max((high - low) * 0.08, 1e-3)
    return max(0.0, low - margin), high + margin


def _frame(
    title: str,
    x_span: tuple[float, float],
    y_span: tuple[float, float],
    x_label: str,
    y_label: str,
    *,
    square: bool = False,
) -> Chart:
    width, height = (380.0, 340.0) if square else (470.0, 270.0)
    chart = Chart(
        title=title, width=width, height=height, left=60, top=12, right=width - 22, bottom=height - 42,
        x_label=x_label, y_label=y_label, x_ticks=(), y_ticks=(), lines=(),
    )  # fmt: skip
    x, y = _scales(chart, x_span, y_span)
    return replace(
        chart,
        x_ticks=tuple(Tick(x(v), _text(v, x_label != "epoch")) for v in _x_values(x_span, x_label)),
        y_ticks=tuple(Tick(y(v), _text(v, title != "loss")) for v in ticks(*y_span)),
    )


def _x_values(span: tuple[float, float], label: str) -> list[float]:
    if label != "epoch":
        return ticks(*span)
    step = max(1, math.ceil((span[1] - span[0]) / 10))
    return [float(v) for v in range(int(span[0]), int(span[1]) + 1, step)]


def _text(value: float, percent: bool) -> str:
    return f"{value * 100:g} %" if percent else f"{value:g}"


def _scales(chart: Chart, x_span: tuple[float, float], y_span: tuple[float, float]) -> tuple[Scale, Scale]:
    def x(value: float) -> float:
        share = (value - x_span[0]) / (x_span[1] - x_span[0])
        return round(chart.left + share * (chart.right - chart.left), 1)

    def y(value: float) -> float:
        share = (value - y_span[0]) / (y_span[1] - y_span[0])
        return round(chart.bottom - share * (chart.bottom - chart.top), 1)

    return x, y


def _series(x: Scale, y: Scale, values: Sequence[float], style: str, name: str) -> Line:
    """A line through the values of epochs 1, 2, ...; what is not finite is left out."""
    finite = [(i, value) for i, value in enumerate(values, start=1) if math.isfinite(value)]
    dots = tuple(Dot(x(i), y(value), 2.4, f"epoch {i}: {value:.3f}") for i, value in finite)
    return Line(_path([(dot.x, dot.y) for dot in dots]), style, name, dots if len(values) <= 40 else ())


def _kept(stages: Sequence[Stage], values: Sequence[float], x: Scale, y: Scale) -> list[Line]:
    """A ring around each stage's chosen epoch."""
    rings, before = [], 0
    for stage in stages:
        numbers = [epoch.epoch for epoch in stage.epochs]
        if stage.best in numbers:
            at = before + numbers.index(stage.best)
            if math.isfinite(values[at]):
                rings.append(Dot(x(at + 1), y(values[at]), 5.5, f"epoch {at + 1} is kept"))
        before += len(numbers)
    return [Line("", "ring", "epoch that is kept", tuple(rings))] if rings else []


def _borders(stages: Sequence[Stage], x: Scale) -> tuple[Tick, ...]:
    """Where each stage begins, with its name; none if there is only one."""
    starts = itertools.accumulate((len(stage.epochs) for stage in stages), initial=1)
    named = [Tick(x(start), stage.name) for start, stage in zip(starts, stages, strict=False)]
    return tuple(named) if len(named) > 1 else ()


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g},{y:g}" for x, y in points) if points else ""


def _with(chart: Chart, lines: Sequence[Line], borders: tuple[Tick, ...] = ()) -> Chart:
    return replace(chart, lines=tuple(lines), borders=borders)
