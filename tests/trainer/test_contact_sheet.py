"""Contact sheets: what is shown, in which order, and what bad names and bad photos cannot do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.errors import DataError
from trainer import contact_sheet
from trainer.contact_sheet import TILE_HEIGHT, TILE_WIDTH, Tile
from trainer.dataset.samples import Box


def tile(i: int, title: str = "fox, called Füchsin ♀", name: str = "fox/IMG_0001.JPG") -> Tile:
    return Tile(np.full((30, 40, 3), 10 * (i % 25), np.uint8), title, ("90 % sure", name))


def drawn(tmp_path: Path, *sets: list[Tile]) -> Image.Image:
    contact_sheet.write(tmp_path / "sheet.jpg", "a title", sets)
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        return sheet.convert("RGB")


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (4, 1), (5, 2), (24, 6), (40, 6)])
def test_pictures_are_a_sheet_of_at_most_24(tmp_path: Path, count: int, rows: int) -> None:
    one = drawn(tmp_path, [tile(0)]).height
    row = drawn(tmp_path, *[[tile(0)]] * 5).height - one
    sheet = drawn(tmp_path, *([tile(i)] for i in range(count)))
    assert row > TILE_HEIGHT
    assert sheet.size == (contact_sheet.WIDTH, one + (rows - 1) * row)


def test_pictures_are_in_the_order_given(tmp_path: Path) -> None:
    pixels = np.asarray(drawn(tmp_path, [tile(0)], [tile(10)], [tile(20)]).convert("L"))
    assert [round(int(pixels[170, 170 + (TILE_WIDTH + 18) * i]), -1) for i in range(3)] == [0, 100, 200]


def test_a_set_is_a_line_of_at_most_four(tmp_path: Path) -> None:
    assert drawn(tmp_path, [tile(i) for i in range(9)]).size == drawn(tmp_path, [tile(i) for i in range(4)]).size


def test_a_name_with_line_ends_or_half_letters_is_drawn_in_one_line(tmp_path: Path) -> None:
    hostile = drawn(tmp_path, [tile(5, title="fox\n\n\ncalled deer", name="caf\udce9\r\n.jpg")])
    shown = drawn(tmp_path, [tile(5, title=r"fox\n\n\ncalled deer", name=r"caf\udce9\r\n.jpg")])
    assert hostile.tobytes() == shown.tobytes()


def test_a_sheet_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none/mistakes\.jpg cannot be written"):
        contact_sheet.write(tmp_path / "none" / "mistakes.jpg", "a title", [[tile(0)]])


def test_a_photo_and_its_pixels_are_drawn_alike(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    box = (Box(0.2, 0.3, 0.4, 0.5),)
    of_file = drawn(tmp_path, [Tile(tmp_path / "photo.png", "fox", ("name",), box)])
    assert of_file.tobytes() == drawn(tmp_path, [Tile(pixels, "fox", ("name",), box)]).tobytes()


def test_a_sheet_shows_each_photo_upright_with_its_boxes_and_outlives_a_broken_one(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.new("RGB", (200, 100), (0, 0, 200)).save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    tiles = [
        Tile(tmp_path / "turned.jpg", "деер" * 40, ("name",), (Box(0.25, 0.25, 0.5, 0.5),)),
        Tile(tmp_path / "broken.jpg", "fox"),
    ]
    contact_sheet.write(tmp_path / "sheet.jpg", "a title\nof one line", [tiles])
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    blue = (pixels[..., 2] > 150) & (pixels[..., 0] < 60)
    rows, columns = np.flatnonzero(blue.any(axis=1)), np.flatnonzero(blue.any(axis=0))
    assert np.ptp(rows) == pytest.approx(TILE_HEIGHT, abs=4)
    assert np.ptp(columns) == pytest.approx(TILE_HEIGHT / 2, abs=4)
    marked = (pixels[..., 0] > 200) & (pixels[..., 2] < 90)
    assert np.ptp(np.flatnonzero(marked.any(axis=1))) == pytest.approx(TILE_HEIGHT / 2, abs=6)
