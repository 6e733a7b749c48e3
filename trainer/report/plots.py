"""Draws a run's plots and its gallery of mistakes, as PNG and JPEG files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from trainer.fine_tune import Epoch

_DPI = 120
_TILE = 240
_COLUMNS = 4
MOST_MISTAKES = 24


@dataclass(frozen=True)
class Mistake:
    """A photo that the model got wrong: its pixels uint8 (h, w, 3), the two labels, and the confidence, 0 to 1."""

    pixels: npt.NDArray[np.uint8]
    name: str
    truth: str
    predicted: str
    confidence: float


def history(path: Path, epochs: Sequence[Epoch], probe_loss: float, probe_accuracy: float) -> None:
    """Loss and accuracy over the epochs of fine-tuning, with the probe's validation figures as a line."""
    figure = Figure(figsize=(9, 3.6), dpi=_DPI, layout="constrained")
    numbers = [epoch.epoch for epoch in epochs]
    panels = (
        ("loss", [e.loss for e in epochs], [e.validation_loss for e in epochs], probe_loss),
        ("accuracy", [e.accuracy for e in epochs], [e.validation_accuracy for e in epochs], probe_accuracy),
    )
    for position, (title, train, validation, probe) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, 2, position)
        axes.plot(numbers, train, "o-", label="training, random views")
        axes.plot(numbers, validation, "o-", label="validation")
        axes.axhline(probe, color="grey", linestyle="--", label="probe, validation")
        axes.set(xlabel="epoch of fine-tuning", title=title, xticks=numbers)
        axes.legend()
        axes.grid(alpha=0.3)
    _save(figure, path)


def confusion(path: Path, counts: Sequence[Sequence[int]], labels: Sequence[str], title: str) -> None:
    """A confusion matrix: rows are true labels, columns the model's; shaded by share of the row."""
    matrix = np.asarray(counts, float)
    share = matrix / matrix.sum(axis=1, keepdims=True).clip(1)
    side = max(4.0, 0.6 * len(labels) + 2)
    figure = Figure(figsize=(side + 0.6, side), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="model", ylabel="person", title=title)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    for row, column in np.ndindex(*matrix.shape):
        if matrix[row, column]:
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, f"{matrix[row, column]:.0f}", ha="center", va="center", color=colour)
    _save(figure, path)


def mistakes(path: Path, worst: Sequence[Mistake]) -> None:
    """A contact sheet of at most 24 mistakes, in the order given, each with what it is and what the model said."""
    shown = list(worst)[:MOST_MISTAKES]
    rows = -(-len(shown) // _COLUMNS)
    sheet = Image.new("RGB", (_TILE * _COLUMNS, (_TILE + 40) * rows), "white")
    draw = ImageDraw.Draw(sheet)
    for i, mistake in enumerate(shown):
        x, y = i % _COLUMNS * _TILE, i // _COLUMNS * (_TILE + 40)
        sheet.paste(Image.fromarray(mistake.pixels).resize((_TILE - 4, _TILE - 4)), (x + 2, y + 2))
        draw.text((x + 4, y + _TILE), f"{mistake.truth}, called {mistake.predicted} {mistake.confidence:.0%}", "black")
        draw.text((x + 4, y + _TILE + 16), mistake.name[-38:], "grey")
    sheet.save(path, quality=88)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path)
