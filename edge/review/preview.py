"""A small upright picture of a photo in the log, made when somebody looks. Reads originals, writes nothing.

What leaves here is decoded and encoded again: no EXIF (and so no position), no original bytes, a bounded size.
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from edge import pathtext
from edge import photo as photos
from edge.errors import PhotoError
from edge.log.query import Row
from edge.model.preprocess import to_fit


def jpeg(row: Row, side: int, *, quality: int = 82) -> bytes:
    """The photo of a row as a JPEG, its longer side at most ``side`` pixels.

    Raises:
        PhotoError: the original is gone, cannot be decoded, or has another content than when it was logged: cameras
            use names again, and a person must not review another photo than the model saw.
    """
    photo = photos.read(Path(pathtext.from_text(row.photo)))
    if photo.sha256 != row.sha256:
        raise PhotoError("another photo has this name now.", code="replaced")
    image = photos.open_image(photo.data)
    out = io.BytesIO()
    Image.fromarray(to_fit(image, side, side)).save(out, "JPEG", quality=quality)
    return out.getvalue()
