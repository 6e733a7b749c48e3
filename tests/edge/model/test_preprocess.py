"""From photo to pixels: upright whatever EXIF says, cut and fitted as in training, in any mode, or refused."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from edge import photo
from edge.errors import ConfigError, PhotoError
from edge.model.preprocess import Pixels, to_fit, to_pixels
from edge.model.spec import MAX_SIDE, InputSpec
from tests import scale

ORIENTATION = 0x0112
LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}


def pixels(content: bytes, spec: InputSpec) -> Pixels:
    return to_pixels(photo.open_image(content), spec)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def scene(width: int = 90, height: int = 60) -> Image.Image:
    """A picture without any symmetry: two slopes, and a mark in one corner."""
    y, x = np.mgrid[:height, :width]
    values = np.stack([x * 255 // width, y * 255 // height, (x + 2 * y) % 256], axis=-1).astype(np.uint8)
    values[: height // 5, : width // 4] = (255, 0, 0)
    return Image.fromarray(values)


def noise(width: int = 200, height: int = 150) -> Image.Image:
    """A picture that no format can pack."""
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8))


def apart(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> int:
    """The largest difference of two stacks of pixels."""
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())


# --- orientation

SPECS = {
    "stretch": InputSpec(48, 56),
    "pad": InputSpec(48, 64, aspect="pad"),
    "crop": InputSpec(40, 40, aspect="crop"),
    "bicubic": InputSpec(48, 56, resample="bicubic"),
    "cuts": InputSpec(44, 50, cut_top=7, cut_bottom=4),
    "cuts and pad": InputSpec(60, 64, aspect="pad", cut_top=7),
    "cuts and crop": InputSpec(33, 47, aspect="crop", cut_bottom=9),
    "larger than the photo": InputSpec(120, 100),
}
FORMS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "MPO": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "TIFF packed": {"compression": "tiff_lzw"},
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_gives_the_pixels_of_the_upright_one(orientation: int, form: str, spec: InputSpec) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    turned = encoded(scene(), form.split()[0], exif=exif, **FORMS[form])
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(turned)).convert("RGB"))
    assert apart(pixels(turned, spec), pixels(encoded(upright), spec)) <= 1


def test_the_eight_orientations_are_eight_different_pictures() -> None:
    """Without this, the test above would pass with an orientation that is ignored on both sides."""
    seen = set()
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        seen.add(pixels(encoded(scene(), exif=exif), InputSpec(40, 40)).tobytes())
    assert len(seen) == 8


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        pytest.param(1, lambda a: a, id="1 as it is"),
        pytest.param(3, lambda a: a[::-1, ::-1], id="3 upside down"),
        pytest.param(6, lambda a: np.rot90(a, -1), id="6 camera on its left side"),
        pytest.param(8, np.rot90, id="8 camera on its right side"),
    ],
)
@pytest.mark.parametrize("form", LOSSLESS)
def test_a_photo_of_the_input_s_own_size_is_only_turned(
    form: str, orientation: int, turn: Callable[[Pixels], Pixels]
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    expected = turn(np.asarray(scene()))
    spec = InputSpec(expected.shape[0], expected.shape[1])
    assert apart(pixels(encoded(scene(), form, exif=exif, **LOSSLESS[form]), spec), expected) == 0


def turned_behind_its_pixels() -> tuple[bytes, bytes]:
    """A PNG with its EXIF behind the picture, where it is known only after decoding, and the same as it usually is."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    content = encoded(scene(), exif=exif)
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    last = content.index(b"IEND") - 4
    return content[:start] + content[end:last] + content[start:end] + content[last:], content


def test_orientation_behind_the_pixels_of_a_png_is_seen() -> None:
    moved, content = turned_behind_its_pixels()
    assert (pixels(moved, InputSpec(90, 60)) == pixels(content, InputSpec(90, 60))).all()


@pytest.mark.parametrize(
    ("space", "enlarge", "expected"),
    [
        ((640, 640), False, (60, 90)),
        ((30, 1000), False, (30, 45)),
        ((640, 180), True, (120, 180)),
        ((1, 1), True, (1, 1)),
    ],
    ids=["a space that is larger", "a narrow one", "one to fill", "a dot"],
)
def test_what_people_see_stands_upright_in_its_proportions_and_fits(
    space: tuple[int, int], enlarge: bool, expected: tuple[int, int]
) -> None:
    """90 x 60 pixels, turned by EXIF that stands behind them."""
    shown = to_fit(photo.open_image(turned_behind_its_pixels()[0]), *space, enlarge=enlarge)
    assert shown.shape == (expected[1], expected[0], 3)
    exact = pixels(encoded(scene().transpose(Image.Transpose.ROTATE_270)), InputSpec(expected[1], expected[0]))
    assert apart(shown, exact) <= 1


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_orientation_that_does_not_exist_is_none(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert apart(pixels(encoded(scene(), exif=exif), InputSpec(60, 90)), np.asarray(scene())) == 0


# --- the info strip


def bannered(top: int, bottom: int) -> Image.Image:
    """Green, with a burnt-in white strip of some rows above and below."""
    values = np.zeros((100, 80, 3), np.uint8)
    values[:, :, 1] = 128
    values[:top] = 255
    values[100 - bottom :] = 255
    return Image.fromarray(values)


@pytest.mark.parametrize(("top", "bottom"), [(12, 0), (0, 9), (12, 9), (1, 1)])
def test_a_cut_takes_exactly_the_strip(top: int, bottom: int) -> None:
    content = encoded(bannered(top, bottom))
    clean = pixels(content, InputSpec(100 - top - bottom, 80, cut_top=top, cut_bottom=bottom))
    assert (clean == (0, 128, 0)).all()
    less = InputSpec(100 - top - bottom, 80, cut_top=max(0, top - 1), cut_bottom=max(0, bottom - 1))
    assert (pixels(content, less) > 128).any(), "one row less leaves some of the strip"


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "box"])
def test_nothing_of_a_strip_reaches_over_the_cut_when_the_photo_is_shrunk(resample: str) -> None:
    spec = InputSpec(20, 20, resample, cut_top=12, cut_bottom=9)
    assert (pixels(encoded(bannered(12, 9)), spec) == (0, 128, 0)).all()


def test_rows_between_the_cuts_are_kept_as_they_are() -> None:
    expected = np.asarray(scene())[7:-4]
    assert apart(pixels(encoded(scene()), InputSpec(49, 90, cut_top=7, cut_bottom=4)), expected) == 0


def test_a_strip_is_cut_where_it_is_when_the_photo_stands_upright() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    stored = bannered(12, 9).transpose(Image.Transpose.ROTATE_90)  # as a camera on its side stores it
    cut = pixels(encoded(stored, exif=exif), InputSpec(79, 80, cut_top=12, cut_bottom=9))
    assert (cut == (0, 128, 0)).all()


def test_a_large_jpeg_is_cut_in_its_own_rows_although_it_is_decoded_smaller() -> None:
    big = bannered(12, 9).resize((1600, 2000), Image.Resampling.NEAREST)  # strips of 240 and 180 rows
    image = photo.open_image(encoded(big, "JPEG", quality=95))
    cut = to_pixels(image, InputSpec(32, 32, cut_top=240, cut_bottom=180))
    assert image.size < (1600, 2000)
    assert apart(cut, np.full((32, 32, 3), (0, 128, 0), np.uint8)) <= 3


def test_a_photo_with_fewer_rows_than_the_cuts_is_refused() -> None:
    content = encoded(bannered(0, 0))
    assert pixels(content, InputSpec(8, 8, cut_top=60, cut_bottom=39)).shape == (8, 8, 3)
    with pytest.raises(PhotoError) as caught:
        pixels(content, InputSpec(8, 8, cut_top=60, cut_bottom=40))
    assert caught.value.code == "too small"


# --- proportions


def test_padding_keeps_the_proportions_and_is_black() -> None:
    wide = pixels(encoded(Image.new("RGB", (80, 40), (10, 200, 30))), InputSpec(64, 64, aspect="pad"))
    assert (wide[16:48] == (10, 200, 30)).all()
    assert not wide[:16].any()
    assert not wide[48:].any()
    tall = pixels(encoded(Image.new("RGB", (40, 80), (10, 200, 30))), InputSpec(64, 64, aspect="pad"))
    assert (tall[:, 16:48] == (10, 200, 30)).all()
    assert not tall[:, :16].any()
    assert not tall[:, 48:].any()


def test_cropping_takes_the_middle() -> None:
    values = np.zeros((40, 80, 3), np.uint8)
    values[:, 20:60] = (10, 200, 30)
    assert (pixels(encoded(Image.fromarray(values)), InputSpec(40, 40, aspect="crop")) == (10, 200, 30)).all()


@pytest.mark.parametrize("side", [7, 14, 49, 187, 599])
def test_cropping_a_square_takes_all_of_it(side: int) -> None:
    """Rounding once put the window 1e-16 outside the photo, which Pillow refused."""
    content = encoded(Image.new("RGB", (side, side), (1, 2, 3)))
    assert (pixels(content, InputSpec(100, 100, aspect="crop")) == (1, 2, 3)).all()


def test_a_photo_one_pixel_wide_is_padded_to_one_column() -> None:
    thin = pixels(encoded(Image.new("RGB", (1, 4000), "white")), InputSpec(32, 32, aspect="pad"))
    assert (thin.max(axis=(0, 2)) > 0).sum() == 1


# --- modes and formats


def _sixteen_bit(value: int) -> Image.Image:
    return Image.fromarray(np.full((20, 30), value, np.uint16))


@pytest.mark.parametrize(
    ("image", "form", "expected"),
    [
        pytest.param(Image.new("RGB", (30, 20), (200, 100, 50)), "PNG", (200, 100, 50), id="RGB PNG"),
        pytest.param(Image.new("RGB", (30, 20), (200, 100, 50)), "WEBP", (200, 100, 50), id="RGB WebP"),
        pytest.param(Image.new("RGB", (30, 20), (200, 100, 50)), "MPO", (200, 100, 50), id="RGB MPO"),
        pytest.param(Image.new("L", (30, 20), 77), "JPEG", (77, 77, 77), id="grey JPEG, infrared"),
        pytest.param(Image.new("L", (30, 20), 77), "PNG", (77, 77, 77), id="grey PNG"),
        pytest.param(Image.new("LA", (30, 20), (77, 10)), "PNG", (77, 77, 77), id="grey with transparency"),
        pytest.param(Image.new("RGBA", (30, 20), (200, 100, 50, 0)), "PNG", (200, 100, 50), id="transparency"),
        pytest.param(Image.new("RGB", (30, 20), (204, 102, 51)).convert("P"), "PNG", (204, 102, 51), id="palette"),
        pytest.param(Image.new("1", (30, 20), 1), "PNG", (255, 255, 255), id="black and white"),
        pytest.param(Image.new("1", (30, 20), 1), "TIFF", (255, 255, 255), id="black and white TIFF"),
        pytest.param(Image.new("CMYK", (30, 20), (0, 255, 0, 0)), "JPEG", (255, 0, 255), id="CMYK JPEG"),
        pytest.param(Image.new("CMYK", (30, 20), (0, 255, 0, 0)), "TIFF", (255, 0, 255), id="CMYK TIFF"),
        pytest.param(Image.new("YCbCr", (30, 20), (100, 128, 128)), "TIFF", (100, 100, 100), id="YCbCr TIFF"),
        pytest.param(_sixteen_bit(32_896), "PNG", (128, 128, 128), id="16-bit PNG"),
        pytest.param(_sixteen_bit(32_896), "TIFF", (128, 128, 128), id="16-bit TIFF"),
        pytest.param(_sixteen_bit(200), "PNG", (200, 200, 200), id="8 bits stored as 16"),
        pytest.param(Image.new("F", (30, 20), 128.0), "TIFF", (128, 128, 128), id="TIFF of fractions"),
        pytest.param(Image.new("F", (30, 20), -5.0), "TIFF", (0, 0, 0), id="TIFF of negative fractions"),
    ],
)
def test_every_mode_ends_as_rgb(image: Image.Image, form: str, expected: tuple[int, int, int]) -> None:
    found = pixels(encoded(image, form), InputSpec(10, 10))
    assert apart(found, np.full((10, 10, 3), expected, np.uint8)) <= 3


def test_pixels_are_a_contiguous_copy_of_their_own() -> None:
    found = pixels(encoded(scene()), InputSpec(30, 40))
    assert found.flags.writeable
    assert found.flags.c_contiguous
    assert found.flags.owndata


# --- a large JPEG is decoded smaller


@pytest.fixture(scope="module")
def twelve_megapixels() -> bytes:
    small = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return encoded(Image.fromarray(small).resize((4000, 3000), Image.Resampling.BICUBIC), "JPEG", quality=90)


@pytest.mark.parametrize(
    ("spec", "decoded"),
    [
        pytest.param(InputSpec(224, 224), (500, 375), id="1/8 is enough for 224"),
        pytest.param(InputSpec(384, 384), (1000, 750), id="1/4 is enough for 384"),
        pytest.param(InputSpec(600, 600), (1000, 750), id="1/4 is enough for 600"),
        pytest.param(InputSpec(1600, 1600), (4000, 3000), id="nothing less is enough for 1600"),
        pytest.param(InputSpec(320, 320, aspect="pad"), (500, 375), id="padded, only 240 rows are needed"),
        pytest.param(InputSpec(320, 320, aspect="crop"), (500, 375), id="cropped, 427 columns are needed"),
        pytest.param(InputSpec(320, 320, cut_top=1000), (1000, 750), id="cut, 480 rows are needed"),
    ],
)
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_is_enough(
    twelve_megapixels: bytes, spec: InputSpec, decoded: tuple[int, int]
) -> None:
    image = photo.open_image(twelve_megapixels)
    to_pixels(image, spec)
    assert image.size == decoded


def test_decoding_smaller_changes_little(twelve_megapixels: bytes) -> None:
    whole = encoded(Image.open(io.BytesIO(twelve_megapixels)), "PNG", compress_level=1)
    small, full = pixels(twelve_megapixels, InputSpec(224, 224)), pixels(whole, InputSpec(224, 224))
    difference = np.abs(small.astype(int) - full.astype(int))
    assert 0 < difference.mean() < 2
    assert difference.max() < 25


# --- damage


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_photo_cut_short_is_refused(form: str, share: float) -> None:
    content = encoded(noise(), form)
    with pytest.raises(PhotoError) as caught:
        pixels(content[: int(len(content) * share)], InputSpec(32, 32))
    assert caught.value.code == "truncated"
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_jpeg_without_its_last_bytes_is_refused() -> None:
    content = encoded(noise(), "JPEG")
    with pytest.raises(PhotoError):
        pixels(content[:-40], InputSpec(32, 32))


@pytest.mark.parametrize("look", [False, True], ids=["at once", "after its facts were asked for"])
def test_a_damaged_png_is_refused(look: bool) -> None:
    """Pillow decodes a PNG when asked for EXIF; an error swallowed there once left rubbish that passed for a photo."""
    content = bytearray(encoded(noise()))
    content[1000:1050] = bytes(50)
    with pytest.raises(OSError, match="broken data stream"):
        photo.open_image(bytes(content)).load()
    image = photo.open_image(bytes(content))
    if look:
        photo.camera(image)
        photo.taken(Path("a.png"), 0.0, image)
    with pytest.raises(PhotoError) as caught:
        to_pixels(image, InputSpec(32, 32))
    assert caught.value.code in {"undecodable", "truncated"}


def test_damaged_jpegs_give_pixels_or_a_reason() -> None:
    draw = random.Random(7)
    whole = encoded(scene(320, 240), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0")
    refused = 0
    for _ in range(scale.count("damaged_jpegs")):
        content = bytearray(whole)
        start = draw.randrange(len(content))
        end = min(len(content), start + draw.randrange(1, 200))
        content[start:end] = draw.choice([b"", bytes(end - start), draw.randbytes(end - start)])
        try:
            found = pixels(bytes(content), InputSpec(24, 20))
        except PhotoError:
            refused += 1
        else:
            assert found.shape == (24, 20, 3)
    assert refused > 0


# --- any size, any specification

SIDES = st.integers(1, 70)


@given(
    size=st.tuples(SIDES, SIDES),
    mode=st.sampled_from(["RGB", "L", "RGBA", "P", "1", "LA"]),
    orientation=st.integers(1, 8),
    height=SIDES,
    width=SIDES,
    aspect=st.sampled_from(["stretch", "pad", "crop"]),
    resample=st.sampled_from(["bilinear", "bicubic", "box"]),
    cuts=st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
def test_any_photo_and_specification_give_exactly_that_input_or_a_reason(
    size: tuple[int, int],
    mode: str,
    orientation: int,
    height: int,
    width: int,
    aspect: str,
    resample: str,
    cuts: tuple[int, int],
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = encoded(Image.new(mode, size), exif=exif)
    spec = InputSpec(height, width, resample, aspect, *cuts)
    rows = size[0] if orientation >= 5 else size[1]
    if rows <= sum(cuts):
        with pytest.raises(PhotoError):
            pixels(content, spec)
        return
    found = pixels(content, spec)
    assert found.shape == (height, width, 3)
    assert found.dtype == np.uint8


@given(size=st.tuples(st.integers(8, 900), st.integers(8, 900)), side=st.integers(1, 120))
def test_any_jpeg_is_never_decoded_below_the_input(size: tuple[int, int], side: int) -> None:
    image = photo.open_image(encoded(Image.new("L", size), "JPEG"))
    to_pixels(image, InputSpec(side, side))
    assert image.width >= min(side, size[0])
    assert image.height >= min(side, size[1])


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"height": 0}, id="no height"),
        pytest.param({"width": -1}, id="negative width"),
        pytest.param({"height": MAX_SIDE + 1}, id="too high"),
        pytest.param({"resample": "nearest"}, id="unknown filter"),
        pytest.param({"aspect": "fill"}, id="unknown aspect"),
        pytest.param({"cut_top": -1}, id="negative cut"),
        pytest.param({"cut_bottom": 1001}, id="a cut of more than 1000 rows"),
    ],
)
def test_an_impossible_input_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        InputSpec(**{"height": 224, "width": 224} | changes)


@pytest.mark.parametrize(("form", "kind"), [("PNG", np.uint16), ("TIFF", np.uint16), ("TIFF", np.float32)])
def test_sixteen_bits_and_fractions_become_eight_alike_in_all_rows(form: str, kind: type) -> None:
    """They are converted some rows at a time."""
    wide = np.arange(130 * 40).reshape(130, 40) * 12
    expected = (np.clip(wide / 65535.0, 0, 1) * 255).astype(np.uint8)
    found = pixels(encoded(Image.fromarray(wide.astype(kind)), form), InputSpec(130, 40))
    assert (found == expected[..., None]).all()
