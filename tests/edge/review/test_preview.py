from __future__ import annotations

import io
from contextlib import closing

import pytest
from PIL import Image

from edge.errors import PhotoError
from edge.log import query, store
from edge.log.query import Row
from edge.review import preview
from tests.edge.review.conftest import Reviewed
from tests.fakes.camera import jpeg, put


def row(log: Reviewed, number: int) -> Row:
    with closing(store.open_for_reading(log.database)) as connection:
        return query.one(connection, number)


def opened(log: Reviewed, number: int, side: int) -> Image.Image:
    return Image.open(io.BytesIO(preview.jpeg(row(log, number), side)))


def test_preview_is_a_small_jpeg_in_the_same_proportions(log: Reviewed) -> None:
    image = opened(log, 1, 100)
    assert (image.format, image.size, image.mode) == ("JPEG", (100, 50), "RGB")


def test_small_photo_is_not_made_larger(log: Reviewed) -> None:
    assert opened(log, 3, 1000).size == (32, 16)


def test_preview_stands_upright(log: Reviewed) -> None:
    assert opened(log, 4, 1000).size == (16, 32)


def test_nothing_of_exif_leaves(log: Reviewed) -> None:
    assert dict(opened(log, 1, 100).getexif()) == {}


def test_photo_with_an_odd_name_is_found(log: Reviewed) -> None:
    assert opened(log, 6, 100).size == (32, 16)


def test_other_photo_under_the_same_name_is_not_shown(log: Reviewed) -> None:
    put(log.photos / "1-deer.jpg", jpeg(200))
    with pytest.raises(PhotoError, match="another photo") as refused:
        preview.jpeg(row(log, 1), 100)
    assert refused.value.code == "replaced"


def test_photo_that_is_gone_is_a_photo_error(log: Reviewed) -> None:
    (log.photos / "1-deer.jpg").unlink()
    with pytest.raises(PhotoError, match="gone"):
        preview.jpeg(row(log, 1), 100)
