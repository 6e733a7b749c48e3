"""A stripped JPEG gives the same pixels and says nothing of where and when; what is odd is refused."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge.errors import PhotoError
from trainer import jpeg_strip
from trainer.jpeg_strip import strip

RANDOM = np.random.default_rng(3)
SMOOTH = Image.fromarray(RANDOM.integers(0, 256, (9, 12, 3), np.uint8)).resize((120, 90), Image.Resampling.BICUBIC)
SECRET = b"51.4778N"


def exif() -> Image.Exif:
    """A camera's EXIF, with a place and an orientation."""
    made = Image.Exif()
    made[0x010F], made[0x0112], made[0x010E] = "Camera", 6, SECRET.decode()
    made.get_ifd(0x8825)[1] = "N"
    return made


def jpeg(mode: str = "RGB", **options: object) -> bytes:
    """A photo with everything in it that a camera writes."""
    file = io.BytesIO()
    told = {"exif": exif(), "comment": SECRET, "icc_profile": SECRET * 20, "quality": 80} | options
    SMOOTH.convert(mode).save(file, "JPEG", **told)
    return file.getvalue()


def pixels(data: bytes) -> npt.NDArray[np.uint8]:
    """As stored, not turned."""
    return np.asarray(Image.open(io.BytesIO(data)))


KINDS = [
    pytest.param(jpeg(subsampling=0), "1x1,1x1,1x1", False, id="4:4:4"),
    pytest.param(jpeg(subsampling=1), "2x1,1x1,1x1", False, id="4:2:2"),
    pytest.param(jpeg(subsampling=2), "2x2,1x1,1x1", False, id="4:2:0"),
    pytest.param(jpeg(progressive=True), "2x2,1x1,1x1", True, id="progressive"),
    pytest.param(jpeg(optimize=True, restart_marker_blocks=2), "2x2,1x1,1x1", False, id="with restart marks"),
    pytest.param(jpeg(keep_rgb=True), "1x1,1x1,1x1", False, id="RGB inside, which the Adobe segment says"),
    pytest.param(jpeg("L"), "1x1", False, id="grey"),
]


@pytest.mark.parametrize(("data", "sampling", "progressive"), KINDS)
def test_the_pixels_stay_and_everything_else_goes(data: bytes, sampling: str, progressive: bool) -> None:
    assert SECRET in data
    stripped = strip(data)
    np.testing.assert_array_equal(pixels(stripped.data), pixels(data))
    assert (stripped.width, stripped.height) == (120, 90)
    assert (stripped.sampling, stripped.progressive) == (sampling, progressive)
    image = Image.open(io.BytesIO(stripped.data))
    assert not image.getexif()
    assert not image.info.keys() & {"exif", "comment", "icc_profile", "photoshop", "mp"}
    assert b"Exif" not in stripped.data
    assert SECRET not in stripped.data


@pytest.mark.parametrize(("data", "sampling", "progressive"), KINDS)
def test_stripping_twice_changes_nothing(data: bytes, sampling: str, progressive: bool) -> None:
    once = strip(data)
    assert strip(once.data) == once


def _numbered(data: bytes) -> bytes:
    """Its colours numbered 1, 2, 3: without an Adobe segment, that means brightness and two colour differences."""
    return data.replace(b"\x03R\x11\0G\x11\0B\x11\0", b"\x03\1\x11\0\2\x11\0\3\x11\0").replace(
        b"\x03R\0G\0B\0", b"\x03\1\0\2\0\3\0"
    )


def test_the_adobe_segment_decides_the_colours_and_stays() -> None:
    data = _numbered(jpeg(keep_rgb=True))
    stripped = strip(data).data
    np.testing.assert_array_equal(pixels(stripped), pixels(data))
    adobe = stripped.index(b"\xff\xee")
    without = stripped[:adobe] + stripped[adobe + 16 :]
    assert (pixels(without) != pixels(data)).mean() > 0.5


def test_a_second_picture_and_trailing_bytes_are_left_out() -> None:
    file = io.BytesIO()
    SMOOTH.save(file, "MPO", save_all=True, append_images=[SMOOTH.rotate(180)])
    data = file.getvalue() + SECRET
    assert Image.open(io.BytesIO(data)).format == "MPO"
    stripped = strip(data).data
    assert Image.open(io.BytesIO(stripped)).format == "JPEG"
    assert stripped.count(b"\xff\xd8\xff") == 1
    assert SECRET not in stripped
    np.testing.assert_array_equal(pixels(stripped), pixels(data))


def test_a_thumbnail_in_the_jfif_segment_is_left_out() -> None:
    plain = strip(jpeg()).data
    head = plain.index(b"JFIF")
    thumbnail = b"\x02\x01" + b"SECRET"
    with_it = plain[: head - 2] + (16 + 6).to_bytes(2, "big") + plain[head : head + 12] + thumbnail + plain[head + 14 :]
    np.testing.assert_array_equal(pixels(with_it), pixels(plain))
    assert strip(with_it).data == plain


def _second_frame(data: bytes) -> bytes:
    start = data.index(b"\xff\xc0")
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    return data[:end] + data[start:end] + data[end:]


def _frame(position: int, value: bytes) -> Callable[[bytes], bytes]:
    """Overwrites bytes of the frame's content."""

    def change(data: bytes) -> bytes:
        at = data.index(b"\xff\xc0") + 4 + position
        return data[:at] + value + data[at + len(value) :]

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda data: b"", "does not begin", id="nothing"),
        pytest.param(lambda data: b"\x89PNG" + data, "does not begin", id="another format"),
        pytest.param(lambda data: data[: len(data) // 2], "cut short", id="cut in the picture"),
        pytest.param(lambda data: data[:100], "cut short", id="cut in a segment"),
        pytest.param(lambda data: data[:2] + b"\xff\xd9" + data[2:], "no picture", id="ends before it begins"),
        pytest.param(lambda data: data[:2] + b"no" + data[2:], "not where it must be", id="bytes between segments"),
        pytest.param(lambda data: data[:2] + b"\xff\xe1\x00\x01" + data[2:], "cut short", id="a length below itself"),
        pytest.param(lambda data: data[:2] + b"\xff\xdc\0\4\0\1" + data[2:], "rare kind", id="lines defined later"),
        pytest.param(lambda data: data.replace(b"\xff\xc0", b"\xff\xc9"), "rare kind", id="arithmetic"),
        pytest.param(lambda data: data.replace(b"\xff\xc0", b"\xff\xc3"), "rare kind", id="lossless"),
        pytest.param(_second_frame, "two frames", id="two frames"),
        pytest.param(_frame(0, b"\x0c"), "8 bits", id="12 bits"),
        pytest.param(_frame(1, b"\xff\xff\xff\xff"), "pixels", id="4 gigapixels"),
        pytest.param(_frame(1, b"\0\0"), "pixels", id="no rows"),
        pytest.param(_frame(7, b"\x05\x11"), "sampling", id="sampling of none"),
        pytest.param(lambda data: data.replace(b"\xff\xc0", b"\xff\xfe"), "before its frame", id="no frame"),
    ],
)
def test_what_is_odd_is_refused_with_a_reason(change: Callable[[bytes], bytes], reason: str) -> None:
    with pytest.raises(PhotoError, match=reason) as caught:
        strip(change(strip(jpeg()).data))
    assert caught.value.code == "jpeg"


def test_a_picture_of_four_colours_is_refused() -> None:
    with pytest.raises(PhotoError, match="three colours"):
        strip(jpeg("CMYK"))


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        ("MAX_BYTES", 1000, "bytes"),
        ("MAX_SEGMENTS", 5, "segments"),
        ("MAX_SCANS", 2, "scans"),
        ("MAX_PIXELS", 99, "pix"),
    ],
)
def test_caps_hold(monkeypatch: pytest.MonkeyPatch, limit: str, value: int, reason: str) -> None:
    data = jpeg(progressive=True)
    strip(data)
    monkeypatch.setattr(jpeg_strip, limit, value)
    with pytest.raises(PhotoError, match=reason):
        strip(data)


WHOLE = jpeg(progressive=True)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(WHOLE)))
def test_damage_is_refused_or_gives_a_jpeg_that_is_stripped_already(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(WHOLE)
    for at, value in changes:
        data[at] = value
    damaged = bytes(data[:cut] if cut % 3 == 0 else data)
    try:
        stripped = strip(damaged)
    except PhotoError:
        return
    assert strip(stripped.data) == stripped
    assert len(stripped.data) <= len(damaged)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_our_words(data: bytes) -> None:
    with pytest.raises(PhotoError):
        strip(b"\xff\xd8\xff" + data)
