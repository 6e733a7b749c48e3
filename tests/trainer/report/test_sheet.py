from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.errors import DataError
from trainer.report import sheet
from trainer.report.record import Tile


def tile(i: int, title: str = "fox, called Füchsin ♀", name: str = "fox/IMG_0001.JPG") -> Tile:
    return Tile(np.full((30, 40, 3), 10 * (i % 25), np.uint8), title, ("90 % sure", name))


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (4, 1), (5, 2), (24, 6), (40, 6)])
def test_pictures_are_a_sheet_of_at_most_24(tmp_path: Path, count: int, rows: int) -> None:
    sheet.write(tmp_path / "mistakes.jpg", [tile(i) for i in range(count)])
    assert Image.open(tmp_path / "mistakes.jpg").size == (960, 280 * rows)


def test_pictures_are_in_the_order_given(tmp_path: Path) -> None:
    sheet.write(tmp_path / "mistakes.jpg", [tile(0), tile(10), tile(20)])
    pixels = np.asarray(Image.open(tmp_path / "mistakes.jpg").convert("L"))
    assert [round(int(pixels[120, 120 + 240 * i]), -1) for i in range(3)] == [0, 100, 200]


def test_a_name_with_line_ends_or_half_letters_is_drawn_in_one_line(tmp_path: Path) -> None:
    sheet.write(tmp_path / "a.jpg", [tile(5, title="fox\n\n\ncalled deer", name="caf\udce9\r\n.jpg")])
    sheet.write(tmp_path / "b.jpg", [tile(5, title="fox called deer", name="caf? .jpg")])
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()


def test_a_sheet_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none/mistakes\.jpg cannot be written"):
        sheet.write(tmp_path / "none" / "mistakes.jpg", [tile(0)])
