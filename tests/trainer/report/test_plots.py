"""Plots and the gallery of mistakes: pictures that open, with something in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.needs("tensorflow")  # the history's type is fine_tune's


@pytest.fixture(scope="module")
def plots() -> Any:
    """The module, imported where TensorFlow is known to be there."""
    from trainer.report import plots

    return plots


def epochs(count: int) -> list[Any]:
    from trainer.fine_tune import Epoch

    return [Epoch(i + 1, 1 / (i + 1), i / count, 1.2 / (i + 1), i / count) for i in range(count)]


def colours(path: Path) -> int:
    return len(np.unique(np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3), axis=0))


@pytest.mark.parametrize("count", [1, 2, 30])
def test_a_history_is_a_picture(plots: Any, tmp_path: Path, count: int) -> None:
    plots.history(tmp_path / "history.png", epochs(count), 0.5, 0.9)
    assert Image.open(tmp_path / "history.png").size == (1080, 432)
    assert colours(tmp_path / "history.png") > 50


def test_a_history_without_a_probe_s_line_would_look_different(plots: Any, tmp_path: Path) -> None:
    for name, accuracy in (("a", 0.2), ("b", 0.9)):
        plots.history(tmp_path / f"{name}.png", epochs(3), 0.5, accuracy)
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("labels", [["a", "b"], [f"Species {i} with a long name" for i in range(12)]])
def test_a_confusion_matrix_grows_with_its_labels(plots: Any, tmp_path: Path, labels: list[str]) -> None:
    counts = np.eye(len(labels), dtype=int) * 7
    plots.confusion(tmp_path / "confusion.png", counts.tolist(), labels, "hold-out")
    width, height = Image.open(tmp_path / "confusion.png").size
    assert height == round(max(4.0, 0.6 * len(labels) + 2) * 120)
    assert width > height
    assert colours(tmp_path / "confusion.png") > 50


def test_a_label_without_photos_leaves_its_row_white(plots: Any, tmp_path: Path) -> None:
    plots.confusion(tmp_path / "confusion.png", [[3, 0], [0, 0]], ["deer", "fox"], "")
    assert colours(tmp_path / "confusion.png") > 10


def mistake(plots: Any, i: int) -> Any:
    return plots.Mistake(np.full((30, 40, 3), 10 * i, np.uint8), f"fox/IMG_{i:04d}.JPG", "fox", "Füchsin ♀", 0.9)


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (4, 1), (5, 2), (24, 6), (40, 6)])
def test_mistakes_are_a_sheet_of_at_most_24(plots: Any, tmp_path: Path, count: int, rows: int) -> None:
    plots.mistakes(tmp_path / "mistakes.jpg", [mistake(plots, i % 25) for i in range(count)])
    assert Image.open(tmp_path / "mistakes.jpg").size == (960, 280 * rows)


def test_drawing_needs_no_network() -> None:
    code = "import sys, trainer.report.plots; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
