"""What a model says about itself. ``mediapipe.tflite`` is a colour network into which MediaPipe's own metadata writer
(its image classifier's, release 1.2.2) put normalisation and two lists of labels, one of them German."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import FieldmarkError, ModelError
from tests import colour_model
from trainer.imported import metadata
from trainer.imported.scaling import PRESETS

MEDIAPIPE = (Path(__file__).parent / "mediapipe.tflite").read_bytes()
ZIP_START = MEDIAPIPE.index(b"PK\x03\x04")


def with_labels(content: bytes) -> bytes:
    """The same model with another label file behind it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", content)
    return MEDIAPIPE[:ZIP_START] + packed.getvalue()


def test_mediapipes_normalisation_is_read() -> None:
    assert metadata.scaling(MEDIAPIPE) == PRESETS["-1..1"]


def test_mediapipes_labels_are_read_and_those_of_no_language_go_first() -> None:
    assert metadata.labels(MEDIAPIPE) == ("red", "green", "blue", "dark")


def test_a_model_without_metadata_says_nothing() -> None:
    plain = colour_model.build()
    assert (metadata.scaling(plain), metadata.labels(plain)) == (None, None)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(lambda: MEDIAPIPE[:ZIP_START], "cannot be unpacked", id="the zip is gone"),
        pytest.param(lambda: MEDIAPIPE[:-30], "cannot be unpacked", id="the zip is cut short"),
        pytest.param(lambda: with_labels(b"fox\n"), "1 labels", id="one label"),
        pytest.param(
            lambda: with_labels(b"\n" * 2**22), "more than 1048576 bytes", id="labels that unpack to megabytes"
        ),
    ],
)
def test_damaged_labels_are_refused(damage: Callable[[], bytes], says: str) -> None:
    with pytest.raises(FieldmarkError, match=says):
        metadata.labels(damage())


def test_a_std_of_zero_is_refused() -> None:
    number = MEDIAPIPE.index(b"\x00\x00\xff\x42")  # 127.5
    broken = MEDIAPIPE.replace(b"\x00\x00\xff\x42", b"\x00\x00\x00\x00")
    assert number > 0
    with pytest.raises(ModelError, match="metadata is damaged"):
        metadata.scaling(broken)


@given(st.data())
def test_no_damage_ends_in_anything_but_a_sentence(data: st.DataObject) -> None:
    content = bytearray(MEDIAPIPE)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[place] = data.draw(st.sampled_from([0, 1, 4, 127, 128, 255]))
    broken = bytes(content[: data.draw(st.integers(0, len(content)))])
    for read in (metadata.scaling, metadata.labels):
        with contextlib.suppress(FieldmarkError):
            read(broken)
