"""A contact sheet: pictures of a report as one JPEG file, to look at and to pass on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from edge.errors import DataError
from trainer.report.record import Tile

MOST = 24
_SIDE, _TEXT_HEIGHT, _COLUMNS, _LETTERS = 240, 40, 4, 38


def write(path: Path, tiles: Sequence[Tile]) -> None:
    """Write at most 24 pictures in rows of 4, in the order given, each above its title and its last line.

    Args:
        path: of the JPEG.
        tiles: at least one.

    Raises:
        DataError: the file cannot be written.
    """
    shown = list(tiles)[:MOST]
    rows = -(-len(shown) // _COLUMNS)
    sheet = Image.new("RGB", (_SIDE * _COLUMNS, (_SIDE + _TEXT_HEIGHT) * rows), "white")
    for i, tile in enumerate(shown):
        _paste(sheet, tile, i % _COLUMNS * _SIDE, i // _COLUMNS * (_SIDE + _TEXT_HEIGHT))
    try:
        sheet.save(path, "JPEG", quality=85)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}. Choose another folder.") from error


def _paste(sheet: Image.Image, tile: Tile, x: int, y: int) -> None:
    picture = Image.fromarray(tile.pixels).resize((_SIDE - 4, _SIDE - 4), Image.Resampling.BILINEAR)
    sheet.paste(picture, (x + 2, y + 2))
    draw = ImageDraw.Draw(sheet)
    draw.text((x + 4, y + _SIDE), _one_line(tile.title)[:_LETTERS], "black")
    draw.text((x + 4, y + _SIDE + 16), _one_line(" ".join(tile.lines[-1:]))[-_LETTERS:], "grey")


def _one_line(text: str) -> str:
    """Without line ends, which a name may hold, and without halves of letters, which no font has."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
