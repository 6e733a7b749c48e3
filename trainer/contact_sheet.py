"""Contact sheets: photos side by side with what is said of them, as JPEG files. Decides nothing about what is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from edge import photo as photos
from edge.errors import DataError, PhotoError, one_line
from edge.model.preprocess import to_fit
from trainer.dataset.samples import Box

MOST = 24
WIDTH = 1330
TILE_WIDTH, TILE_HEIGHT = 312, 234
_GAP = 10
_LINE = 20
_SIZE, _TITLE_SIZE = 14, 22
_PAPER, _CARD, _EDGE, _INK, _GREY, _MARK = "#ffffff", "#f3f4f6", "#c9ced6", "#16191d", "#5b626d", "#ffb000"

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Tile:
    """A picture and what is said of it.

    Attributes:
        picture: where the photo lies, or pixels, uint8 (h, w, 3).
        title: a line in bold.
        lines: more lines, such as its name; on a sheet, what is too long is shortened in the middle.
        boxes: drawn into it.
    """

    picture: Path | Pixels
    title: str
    lines: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()


def write(file: Path, title: str, sets: Sequence[Sequence[Tile]]) -> None:
    """Draw sets of pictures, each set on a card of its own, from left to right and top to bottom.

    Args:
        file: a JPEG.
        title: what is shown.
        sets: the first 24 are shown, and at most four pictures of each, in a line.

    Raises:
        DataError: the file cannot be written.
    """
    per_line = (WIDTH - 3 * _GAP) // (TILE_WIDTH + _GAP)
    cards = [list(tiles)[:per_line] for tiles in sets[:MOST]]
    lines = _lines(cards, per_line)
    heights = [max(_card_height(card) for card in line) + _GAP for line in lines]
    top = _TITLE_SIZE + 3 * _GAP
    sheet = Image.new("RGB", (WIDTH, top + sum(heights)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), one_line(title), _INK, _font(_TITLE_SIZE, bold=True))
    for line, height in zip(lines, heights, strict=True):
        left = _GAP
        for card in line:
            left += _card(sheet, draw, left, top, card, height - _GAP) + _GAP
        top += height
    try:
        sheet.save(file, quality=88)
    except OSError as error:
        raise DataError(f"{file} cannot be written: {error.strerror or error}. Choose another folder.") from error


def drawn(tile: Tile, width: int, height: int, *, enlarge: bool = True) -> Image.Image:
    """A tile's picture, upright, with its boxes, as large as fits, or, without ``enlarge``, as it is if it is smaller.

    Raises:
        PhotoError: the photo cannot be read.
    """
    image = _opened(tile.picture)
    small = Image.fromarray(to_fit(image, width, height, enlarge=enlarge))
    wide, high = small.size
    draw = ImageDraw.Draw(small)
    for box in tile.boxes:
        right, bottom = min(1.0, box.x + box.width), min(1.0, box.y + box.height)
        draw.rectangle((box.x * wide, box.y * high, right * wide - 1, bottom * high - 1), outline=_MARK, width=3)
    return small


def _opened(picture: Path | Pixels) -> Image.Image:
    if isinstance(picture, Path):
        return photos.open_image(photos.read(picture).data, picture.name)
    return Image.fromarray(picture)


def _lines(cards: Sequence[list[Tile]], per_line: int) -> list[list[list[Tile]]]:
    lines: list[list[list[Tile]]] = []
    for card in cards:
        if not lines or sum(map(len, lines[-1])) + len(card) > per_line:
            lines.append([])
        lines[-1].append(card)
    return lines


def _card_height(card: Sequence[Tile]) -> int:
    return TILE_HEIGHT + 2 * _GAP + _LINE * max(1 + len(tile.lines) for tile in card)


def _card(sheet: Image.Image, draw: ImageDraw.ImageDraw, left: int, top: int, card: Sequence[Tile], height: int) -> int:
    """Draw a card and say how wide it is."""
    width = len(card) * (TILE_WIDTH + 4) + 4
    draw.rounded_rectangle((left, top, left + width, top + height), 6, _CARD, _EDGE)
    for i, tile in enumerate(card):
        x, y = left + 4 + i * (TILE_WIDTH + 4), top + 4
        _picture(sheet, draw, x, y, tile)
        y += TILE_HEIGHT + 6
        draw.text((x + 4, y), _fitted(tile.title, bold=True), _INK, _font(_SIZE, bold=True))
        for line in tile.lines:
            y += _LINE
            draw.text((x + 4, y), _fitted(line, bold=False), _GREY, _font(_SIZE, bold=False))
    return width


def _picture(sheet: Image.Image, draw: ImageDraw.ImageDraw, x: int, y: int, tile: Tile) -> None:
    try:
        small = drawn(tile, TILE_WIDTH, TILE_HEIGHT)
    except PhotoError:
        draw.text((x + 8, y + 8), "cannot be read", _GREY, _font(_SIZE, bold=False))
        return
    sheet.paste(small, (x + (TILE_WIDTH - small.width) // 2, y + (TILE_HEIGHT - small.height) // 2))


def _fitted(text: str, *, bold: bool) -> str:
    """Text that fits below a photo; what is too long loses its middle, since a name's end tells most."""
    text, font = one_line(text), _font(_SIZE, bold=bold)
    shown, keep = text, len(text)
    while font.getlength(shown) > TILE_WIDTH - 8 and keep > 4:
        keep -= 1
        shown = f"{text[: keep // 3]}…{text[len(text) - (keep - keep // 3) :]}"
    return shown


@cache
def _font(size: int, *, bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has Latin, Greek and Cyrillic letters."""
    import matplotlib  # slow to load, and a report page needs none of it

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)
