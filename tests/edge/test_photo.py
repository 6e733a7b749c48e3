"""One image file: what is read and what is refused before it costs anything, and when it was taken."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin

from edge import photo
from edge.errors import PhotoError
from tests import capabilities

MODIFIED_S = 1_714_543_929.0  # 2024-05-01T06:12:09 UTC


def encoded(form: str = "JPEG", *, size: tuple[int, int] = (8, 6), exif: Image.Exif | bytes = b"") -> bytes:
    """A grey photo."""
    out = io.BytesIO()
    Image.new("RGB", size, (90, 90, 90)).save(out, form, exif=exif)
    return out.getvalue()


def exif(
    original: str | bytes | None = None,
    *,
    changed: str | None = None,
    digitized: str | None = None,
    offset: str | None = None,
    offset_changed: str | None = None,
    subsec: str | None = None,
) -> Image.Exif:
    """EXIF with times as a camera writes them."""
    made = Image.Exif()
    made[0x010F] = "Test"  # Pillow writes no EXIF into a PNG that seems empty
    detail = made.get_ifd(0x8769)
    if changed is not None:
        made[0x0132] = changed
    times = ((0x9003, original), (0x9004, digitized))
    for tag, value in (*times, (0x9011, offset), (0x9010, offset_changed), (0x9291, subsec)):
        if value is not None:
            detail[tag] = value
    return made


def taken(content: bytes | None, name: str = "IMG_0001.JPG", utc_offset: str | None = None) -> photo.Taken:
    image = None if content is None else photo.open_image(content)
    return photo.taken(Path("/photos") / name, MODIFIED_S, image, utc_offset)


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a hundred bytes whose header promises a picture of any size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# --- names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("IMG_0001.JPG", True),
        ("a.jpeg", True),
        ("a.mpo", True),
        ("a.TIF", True),
        ("a.WebP", True),
        ("clip.AVI", True),
        ("clip.mp4", True),
        (".hidden.jpg", False),
        ("~draft.jpg", False),
        ("notes.txt", False),
        ("a.heic", True),
        ("a.xcf", False),
        ("a.jpg.part", False),
        ("a.jpg.filepart", False),
        ("a.JPG.tmp", False),
        ("a.jpg~", False),
        (".a.jpg.x7Qk2B", False),
        (".jpg", False),
        ("jpg", False),
    ],
)
def test_pictures_and_videos_get_a_row_and_temporary_names_do_not(name: str, expected: bool) -> None:
    assert photo.is_candidate(Path("/photos") / name) is expected


# --- reading


def test_a_photo_is_read_whole_with_its_hash(tmp_path: Path) -> None:
    content = encoded()
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    found = photo.read(path)
    assert found.data == content
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert path.read_bytes() == content


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _too_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(photo.MAX_BYTES + 1)  # sparse


def _dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path is at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("name", "make", "code"),
    [
        pytest.param("a.jpg", lambda path: None, "missing", id="a file that is gone"),
        pytest.param("a.jpg", _dangling, "missing", id="a link to nothing"),
        pytest.param("a.jpg", _empty, "empty", id="no bytes"),
        pytest.param("a.jpg", _too_large, "too large", id="one byte over the cap"),
        pytest.param("a.jpg", Path.mkdir, "not a file", id="a folder"),
        pytest.param("a.jpg", os.mkfifo, "not a file", id="a named pipe that nobody writes to"),
        pytest.param("a.jpg", _socket, "unreadable", id="a socket"),
        pytest.param("a.jpg", _loop, "unreadable", id="a link to itself"),
        pytest.param("clip.MP4", _empty, "video", id="a video"),
        pytest.param("a\0.jpg", lambda path: None, "missing", id="a name that no file can have"),
        pytest.param("b" * 300 + ".jpg", lambda path: None, "unreadable", id="a name that is too long"),
    ],
)
def test_a_file_that_is_no_photo_is_refused_with_its_code(
    tmp_path: Path, name: str, make: Callable[[Path], None], code: str
) -> None:
    path = tmp_path / name
    make(path)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(PhotoError) as caught:
        photo.read(path)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    if before:
        assert len(os.listdir("/proc/self/fd")) == before, "a descriptor leaked"


def test_a_photo_of_exactly_the_cap_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded()
    (tmp_path / "a.jpg").write_bytes(content)
    monkeypatch.setattr(photo, "MAX_BYTES", len(content))
    assert photo.read(tmp_path / "a.jpg").data == content


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded())
    path.chmod(0)
    with pytest.raises(PhotoError) as caught:
        photo.read(path)
    assert caught.value.code == "denied"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param(PermissionError(13, "Permission denied"), "denied", id="no permission"),
        pytest.param(OSError(5, "Input/output error"), "unreadable", id="a worn card"),
    ],
)
def test_what_the_system_says_becomes_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, code: str
) -> None:
    def refuse(path: Path, flags: int) -> int:
        raise error

    (tmp_path / "a.jpg").write_bytes(encoded())
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PhotoError) as caught:
        photo.read(tmp_path / "a.jpg")
    assert caught.value.code == code


# --- opening


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP", "MPO"])
def test_the_five_formats_open_and_are_not_decoded(form: str) -> None:
    image = photo.open_image(encoded(form))
    assert image.size == (8, 6)
    assert image.format in {form, "JPEG"}  # an MPO of one picture is a JPEG


@pytest.mark.parametrize("name", ["x.HEIC", "x.gif", "x.CR3"])
def test_a_picture_that_is_not_decoded_is_called_by_its_format(name: str) -> None:
    kind = name[2:].upper()
    with pytest.raises(PhotoError, match=rf"^{name} is a {kind} picture, which is not decoded here; ") as caught:
        photo.open_image(b"\0\0\0\x18ftypheic", name)
    assert caught.value.code == "unrecognised"
    assert photo.open_image(encoded("JPEG"), name).size == (8, 6)  # misnamed


@pytest.mark.parametrize("form", ["GIF", "BMP", "PPM", "TGA", "ICO", "PDF", "EPS"])
def test_another_format_is_refused_although_pillow_knows_it(form: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, form)
    with pytest.raises(PhotoError) as caught:
        photo.open_image(out.getvalue())
    assert caught.value.code == "unrecognised"


@pytest.mark.parametrize(
    ("width", "height"),
    [
        pytest.param(60_000, 60_000, id="a decompression bomb"),
        pytest.param(2**31 - 1, 1, id="the widest that PNG can claim"),
        pytest.param(8001, 10_000, id="just over 80 megapixels"),
    ],
)
def test_a_picture_too_large_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    def decode(self: Image.Image) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", decode)
    with pytest.raises(PhotoError) as caught:
        photo.open_image(png_that_claims(width, height))
    assert caught.value.code == "too large"


def test_a_jpeg_of_eighty_megapixels_is_opened_since_it_decodes_at_an_eighth() -> None:
    content = bytearray(encoded())
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", 8000, 10_000)
    assert photo.open_image(bytes(content)).size == (10_000, 8000)


def test_no_bytes_are_refused() -> None:
    with pytest.raises(PhotoError) as caught:
        photo.open_image(b"")
    assert caught.value.code == "empty"


@given(st.binary(max_size=400), st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0", b"RIFF"]))
def test_any_bytes_open_or_are_refused(content: bytes, start: bytes) -> None:
    with suppress(PhotoError):
        photo.open_image(start + content)


# --- facts in EXIF


def test_camera_is_make_and_model_without_padding() -> None:
    made = Image.Exif()
    made[0x010F], made[0x0110] = "RECONYX \0\0", "HYPERFIRE 2"
    assert photo.camera(photo.open_image(encoded(exif=made))) == ("RECONYX", "HYPERFIRE 2")


def test_a_photo_without_exif_has_no_camera() -> None:
    assert photo.camera(photo.open_image(encoded())) == (None, None)


@pytest.mark.parametrize("value", [1, 3, 6, 8])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "MPO"])
def test_orientation_is_what_exif_says(form: str, value: int) -> None:
    made = Image.Exif()
    made[0x0112] = value
    assert photo.orientation(photo.open_image(encoded(form, exif=made))) == value


def test_orientation_of_a_tiff_is_upright_since_pillow_turns_it() -> None:
    made = Image.Exif()
    made[0x0112] = 6
    image = photo.open_image(encoded("TIFF", exif=made))
    assert photo.orientation(image) == 1
    assert image.size == (6, 8)


def test_orientation_of_a_photo_without_exif_is_upright() -> None:
    assert photo.orientation(photo.open_image(encoded())) == 1


def camera_of(facts: dict[int, object], form: str = "JPEG") -> photo.CameraFacts:
    made = Image.Exif()
    made[0x010F], made[0x0110] = "RECONYX", "HYPERFIRE"
    made.get_ifd(0x8769).update(facts)
    return photo.camera_facts(photo.open_image(encoded(form, exif=made.tobytes())))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_serial_number_and_temperature_are_exif_s_own(form: str) -> None:
    found = camera_of({0xA431: "H2X-77\0\0", 0x9400: TiffImagePlugin.IFDRational(-35, 10)}, form)
    assert found == photo.CameraFacts("RECONYX", "HYPERFIRE", "H2X-77", -3.5, None)


@pytest.mark.parametrize(
    "value",
    [TiffImagePlugin.IFDRational(1, 0), TiffImagePlugin.IFDRational(-32768, 1), TiffImagePlugin.IFDRational(0, 0)],
)
def test_temperature_that_no_camera_can_have_is_none(value: object) -> None:
    assert camera_of({0x9400: value}).temperature_c is None


def reconyx(start: bytes, at: tuple[int, int, int], burst: int, of: int, degrees: int, serial: str) -> bytes:
    """A maker note with the facts at their places and other bytes between."""
    note = bytearray(b"\x07" * 200)
    note[: len(start)] = start
    struct.pack_into("<HH", note, at[0], burst, of)
    struct.pack_into("<h", note, at[1], degrees)
    note[at[2] : at[2] + 30] = serial.encode("utf-16-le").ljust(30, b"\0")
    return bytes(note)


FIRST, SECOND = (b"\x01\xf1\x04\x00", (14, 40, 42)), (b"RECONYXH2\0", (54, 80, 126))


@pytest.mark.parametrize("layout", [pytest.param(FIRST, id="HyperFire"), pytest.param(SECOND, id="HyperFire 2")])
def test_reconyx_maker_notes_give_burst_temperature_and_serial_number(
    layout: tuple[bytes, tuple[int, int, int]],
) -> None:
    found = camera_of({0x927C: reconyx(*layout, 2, 3, -7, "H550HH12223408")})
    assert (found.burst, found.temperature_c, found.serial) == (2, -7.0, "H550HH12223408")


@pytest.mark.parametrize(
    "note",
    [
        pytest.param(b"", id="none"),
        pytest.param(FIRST[0], id="one that is cut"),
        pytest.param(reconyx(*FIRST, 4, 3, 20, "X"), id="the fourth of three"),
        pytest.param(reconyx(*FIRST, 0, 0, 20, "X"), id="no burst"),
        pytest.param(reconyx(*FIRST, 1, 3, 20, "\u4e00\u4e01"), id="a serial number of no letters"),
        pytest.param(b"Nikon" + bytes(200), id="another maker's"),
    ],
)
def test_maker_note_of_another_layout_gives_nothing(note: bytes) -> None:
    found = camera_of({0x927C: note})
    assert (found.burst, found.temperature_c, found.serial) == (None, None, None)


@given(st.binary(max_size=300), st.sampled_from([b"", FIRST[0], SECOND[0]]))
def test_any_maker_note_costs_at_most_the_facts_in_it(rubbish: bytes, start: bytes) -> None:
    found = camera_of({0x927C: start + rubbish})
    assert found.make == "RECONYX"
    assert found.burst is None or 1 <= found.burst <= 99


@pytest.mark.needs("real_photos")
def test_real_cameras_say_who_they_are() -> None:
    data = capabilities.real_photos()
    [first, *others] = sorted((data / "camtrapdp_example").rglob("*.JPG"))
    assert photo.camera_facts(photo.open_image(first.read_bytes())) == photo.CameraFacts(
        "RECONYX", "HYPERFIRE 2 COVERT", "H2RXEM06043616", 2.0, 1
    )
    assert [photo.camera_facts(photo.open_image(each.read_bytes())).burst for each in others] == list(range(2, 11))
    older = photo.camera_facts(photo.open_image((data / "edge_cases" / "blank.jpg").read_bytes()))
    assert older == photo.CameraFacts("RECONYX", "HC550 HYPERFIRE", "H550HH12223408", 21.0, 5)


# --- visible damage


def scene(width: int = 640, height: int = 480) -> Image.Image:
    """Something like a photo: noise of a sensor over a gradient."""
    return Image.blend(
        Image.linear_gradient("L").resize((width, height)), Image.effect_noise((width, height), 90), 0.5
    ).convert("RGB")


def jpeg_of(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)] + b"\xff\xd9"


def damage_of(data: bytes, side: int | None = None) -> str | None:
    image = photo.open_image(data)
    if side:
        image.draft("RGB", (side, side))
    image.load()
    return photo.damage(image, data)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75, 0.9, 0.95])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"quality": 85}, id="baseline"),
        pytest.param({"quality": 95, "subsampling": 0}, id="no subsampling"),
        pytest.param({"quality": 60, "optimize": True}, id="own Huffman tables"),
        pytest.param({"quality": 85, "restart_marker_rows": 1}, id="restart markers"),
    ],
)
@pytest.mark.parametrize("side", [None, 320])
def test_jpeg_that_is_cut_and_has_an_end_marker_is_damaged(
    options: dict[str, object], share: float, side: int | None
) -> None:
    whole = jpeg_of(scene(), **options)
    assert damage_of(whole, side) is None
    found = damage_of(cut(whole, share), side)
    assert found is not None
    if share <= 0.75:
        [missing] = [int(word) for word in found.split() if word.isdigit()]
        assert abs(missing - 100 * (1 - share)) < 20


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpeg_of_another_colour_space_is_damaged_when_cut(mode: str) -> None:
    whole = jpeg_of(scene().convert(mode))
    assert damage_of(whole) is None
    assert damage_of(cut(whole, 0.5)) is not None


def test_jpeg_of_which_nothing_is_left_is_damaged_and_one_of_plain_grey_is_not() -> None:
    whole = jpeg_of(scene())
    header = whole.index(b"\xff\xda") + 14
    assert damage_of(whole[:header] + b"\xff\xd9") is not None
    assert damage_of(jpeg_of(Image.new("RGB", (640, 480), (128, 128, 128)))) is None


def zeroed(data: bytes, begin: float, end: float) -> bytes:
    """As a camera leaves a file whose last part, or a block, did not get to the card."""
    first, last = int(len(data) * begin), int(len(data) * end)
    return data[:first] + bytes(last - first) + data[last:]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"quality": 85}, id="the usual Huffman tables"),
        pytest.param({"quality": 85, "optimize": True}, id="own Huffman tables"),
        pytest.param({"quality": 85, "subsampling": 0}, id="no subsampling"),
    ],
)
@pytest.mark.parametrize("side", [None, 320])
def test_jpeg_of_which_the_end_was_never_written_is_damaged_if_it_decodes_at_all(
    options: dict[str, object], side: int | None
) -> None:
    whole = jpeg_of(scene(), **options)
    for share in (0.3, 0.6, 0.9):
        unwritten = zeroed(whole, share, 1.0)
        with suppress(OSError):  # most are truncated
            assert damage_of(unwritten, side) is not None
        assert damage_of(unwritten[:-2] + b"\xff\xd9", side) is not None


@pytest.mark.parametrize("colour", [(0, 135, 0), (98, 143, 142), (192, 60, 190)])
def test_lower_part_of_one_colour_is_damage(colour: tuple[int, int, int]) -> None:
    assert damage_of(jpeg_of(with_band(colour, 240, 480))) == "its lower 50 % are missing"
    assert damage_of(jpeg_of(with_band(colour, 440, 480))) is None  # a strip that the camera prints


def test_block_of_zeros_inside_is_damage_and_a_black_picture_is_none() -> None:
    whole = jpeg_of(scene(1280, 960), quality=95)
    assert damage_of(whole[:60_000] + bytes(4096) + whole[64_096:]) is not None
    black = jpeg_of(Image.new("RGB", (4000, 3000)), quality=50, optimize=True)
    assert bytes(512) in black
    assert damage_of(black) is None
    half = Image.new("RGB", (4000, 3000))
    half.paste(scene(4000, 600), (0, 0))
    assert damage_of(jpeg_of(half, quality=50, optimize=True)) is None


def test_jpeg_without_an_end_marker_is_damaged_and_what_follows_the_marker_does_not_matter() -> None:
    whole = jpeg_of(scene())
    assert damage_of(whole + bytes(4096)) is None
    assert damage_of(whole + b"\0" * 600 + jpeg_of(scene(64, 48))) is None  # as makers append previews
    image = photo.open_image(whole)
    image.load()
    assert photo.damage(image, whole[:-2]) == "it has no end marker, so its last part may be missing or wrong"


def test_progressive_jpeg_without_its_last_scans_is_damaged() -> None:
    whole = jpeg_of(scene(), progressive=True)
    assert damage_of(whole) is None
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for at in scans[1:]:
        assert damage_of(whole[:at] + b"\xff\xd9") is not None


def with_band(colour: tuple[int, int, int], top: int, bottom: int) -> Image.Image:
    image = scene()
    image.paste(colour, (0, top, 640, bottom))
    return image


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(with_band((0, 0, 0), 440, 480), id="a black strip below"),
        pytest.param(with_band((255, 255, 255), 440, 480), id="a white strip below"),
        pytest.param(with_band((64, 64, 64), 440, 480), id="a dark grey strip below"),
        pytest.param(with_band((192, 192, 192), 440, 480), id="a light grey strip below"),
        pytest.param(Image.new("RGB", (640, 480), (255, 255, 255)), id="a white-out"),
        pytest.param(Image.new("RGB", (640, 480)), id="a covered lens"),
        pytest.param(Image.new("RGB", (640, 480), (128, 128, 128)), id="plain grey"),
        pytest.param(ImageOps.expand(scene(), 40, (128, 128, 128)), id="a frame of that very grey"),
        pytest.param(ImageOps.expand(scene(), 40, (0, 0, 0)), id="a letterbox"),
        pytest.param(with_band((128, 128, 128), 200, 300), id="a grey bar across the middle"),
        pytest.param(scene().point(lambda value: value // 16), id="a night photo"),
        pytest.param(scene().point(lambda value: 250 + value // 50), id="snow"),
    ],
)
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_photo_that_is_whole_gives_no_alarm(image: Image.Image, form: str) -> None:
    out = io.BytesIO()
    image.save(out, form)
    for side in (None, 64, 320):
        assert damage_of(out.getvalue(), side) is None


@given(st.binary(max_size=200), st.floats(0, 1))
def test_any_bytes_that_decode_are_judged_without_an_error(rubbish: bytes, share: float) -> None:
    whole = jpeg_of(scene(64, 48), progressive=len(rubbish) % 2 == 0)
    at = int(len(whole) * share)
    with suppress(PhotoError, OSError, SyntaxError):
        damage_of(whole[:at] + rubbish + whole[at + len(rubbish) :])


@pytest.mark.needs("real_photos")
def test_real_photos_give_no_alarm() -> None:
    folder = capabilities.real_photos() / "camtrapdp_example"
    for path in sorted(folder.rglob("*.JPG"))[:4]:
        data = path.read_bytes()
        assert damage_of(data, 320) is None
        assert damage_of(cut(data, 0.6), 320) is not None


def test_asking_a_damaged_png_for_its_facts_does_not_hide_the_damage() -> None:
    """Pillow's own ``getexif`` decodes a PNG; if its error is swallowed, the next ``load`` is silent."""
    content = bytearray(encoded("PNG", size=(64, 64)))
    content[-20] ^= 0x55
    image = photo.open_image(bytes(content))
    photo.camera(image)
    photo.orientation(image)
    photo.taken(Path("a.png"), 0.0, image)
    with pytest.raises(OSError, match="broken data stream"):
        image.load()


# --- when it was taken

WHEN = "2024:05:01 06:12:09"


@pytest.mark.parametrize(
    ("facts", "local", "utc_offset", "flags"),
    [
        pytest.param(exif(WHEN), "2024-05-01T06:12:09", "+00:00", ("offset-assumed",), id="original time"),
        pytest.param(exif(changed=WHEN), "2024-05-01T06:12:09", "+00:00", ("offset-assumed",), id="only DateTime"),
        pytest.param(
            exif(WHEN, changed="2025:01:01 00:00:00"), "2024-05-01T06:12:09", "+00:00", ("offset-assumed",),
            id="original before changed",
        ),
        pytest.param(exif(WHEN, offset="-03:30"), "2024-05-01T06:12:09", "-03:30", (), id="with its offset"),
        pytest.param(exif(WHEN, offset_changed="+05:45"), "2024-05-01T06:12:09", "+05:45", (), id="the other offset"),
        pytest.param(
            exif(WHEN, offset="+99:00"), "2024-05-01T06:12:09", "+00:00", ("offset-assumed",), id="impossible offset"
        ),
        pytest.param(
            exif(WHEN, offset="local"), "2024-05-01T06:12:09", "+00:00", ("offset-assumed",), id="offset in words"
        ),
        pytest.param(
            exif(WHEN, subsec="25"), "2024-05-01T06:12:09.25", "+00:00", ("offset-assumed",), id="with a fraction"
        ),
        pytest.param(
            exif(WHEN, subsec="1234567"), "2024-05-01T06:12:09.123456", "+00:00", ("offset-assumed",),
            id="fraction too fine for Python",
        ),
        pytest.param(
            exif(WHEN, subsec="a7"), "2024-05-01T06:12:09", "+00:00", ("offset-assumed",), id="fraction of rubbish"
        ),
        pytest.param(
            exif("2024-05-01T06:12:09"), "2024-05-01T06:12:09", "+00:00", ("offset-assumed",), id="ISO spelling"
        ),
        pytest.param(
            exif("0000:00:00 00:00:00", changed=WHEN), "2024-05-01T06:12:09", "+00:00", ("offset-assumed",),
            id="zeros, and the time when it was stored",
        ),
        pytest.param(
            exif("    :  :     :  :  ", digitized=WHEN), "2024-05-01T06:12:09", "+00:00", ("offset-assumed",),
            id="blanks, and the time when it was digitized",
        ),
        pytest.param(
            exif(changed=WHEN, subsec="25"), "2024-05-01T06:12:09", "+00:00", ("offset-assumed",),
            id="the fraction of another time",
        ),
        pytest.param(
            exif("2024:05:01  6:12: 9"), "2024-05-01T06:12:09", "+00:00", ("offset-assumed",), id="blanks for zeros"
        ),
        pytest.param(
            exif("2024:05:01 06:12:09\0\0"), "2024-05-01T06:12:09", "+00:00", ("offset-assumed",), id="padded"
        ),
    ],
)  # fmt: skip
def test_exif_time_is_taken_as_the_camera_wrote_it(
    facts: Image.Exif, local: str, utc_offset: str, flags: tuple[str, ...]
) -> None:
    found = taken(encoded(exif=facts), name="20200101_000000.jpg")
    assert (found.local, found.utc_offset, found.source, found.flags) == (local, utc_offset, "exif", flags)
    assert found.iso == local + utc_offset


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP", "MPO"])
def test_exif_time_is_found_in_every_format(form: str) -> None:
    found = taken(encoded(form, exif=exif(WHEN, offset="+02:00").tobytes()))
    assert (found.iso, found.source) == ("2024-05-01T06:12:09+02:00", "exif")


def test_offset_in_exif_goes_before_the_one_that_a_person_gave() -> None:
    assert taken(encoded(exif=exif(WHEN, offset="+02:00")), utc_offset="-05:00").utc_offset == "+02:00"
    given_by_person = taken(encoded(exif=exif(WHEN)), utc_offset="-05:00")
    assert (given_by_person.utc_offset, given_by_person.flags) == ("-05:00", ())


@pytest.mark.parametrize(
    "broken",
    [
        "0000:00:00 00:00:00",
        "2024:13:01 06:12:09",
        "2024:05:01 25:00:00",
        "    :  :     :  :  ",
        "soon",
        "9999:12:31 23:59:59",
        "0001:01:01 00:00:00",
        "2024:05:01 06:12:09 PM",
    ],
)
def test_a_broken_exif_time_gives_way_to_the_name_and_then_to_the_file(broken: str) -> None:
    content = encoded(exif=exif(broken))
    named = taken(content, name="20240501_061209.jpg")
    assert (named.local, named.source, named.flags) == ("2024-05-01T06:12:09", "name", ("offset-assumed", "not-exif"))
    by_file = taken(content, name="IMG_0001.jpg")
    assert (by_file.local, by_file.source, by_file.flags) == (
        "2024-05-01T06:12:09", "file", ("offset-assumed", "not-exif"),
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "20240501_061209.jpg",
        "20240501-061209.jpg",
        "IMG_20240501_061209.jpg",
        "2024-05-01 06.12.09.jpg",
        "2024-05-01_06-12-09(1).JPG",
        "cam3__2024.05.01 06h12m09__fox.jpg",
        "2024-05-01T06:12:09.jpg",
        "PXL_20240501_061209_123.jpg",
        "01-20240501061209-00.jpg",  # Motion, as it is without settings
        "cam_00_20240501061209.jpg",
    ],
)
def test_a_time_in_the_name_is_found(name: str) -> None:
    found = taken(encoded(), name=name)
    assert (found.local, found.source) == ("2024-05-01T06:12:09", "name")


def test_a_fraction_in_the_name_is_kept() -> None:
    assert taken(encoded(), name="10.0.0.7_01_20240501061209123_MOTION.jpg").local == "2024-05-01T06:12:09.123"


def test_a_time_in_the_name_that_says_utc_is_utc_whatever_the_camera_s_offset() -> None:
    found = taken(encoded(), name="2024-05-01T06-12-09Z.jpg", utc_offset="+01:00")
    assert (found.iso, found.flags) == ("2024-05-01T06:12:09+00:00", ("not-exif",))
    assert taken(encoded(), name="20240501_061209Zoo.jpg", utc_offset="+01:00").utc_offset == "+01:00"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("120240501_061209.jpg", id="a longer number"),
        pytest.param("20240501_0612091.jpg", id="a longer time"),
        pytest.param("20241301_061209.jpg", id="a 13th month"),
        pytest.param("20240230_061209.jpg", id="a 30th of February"),
        pytest.param("18240501_061209.jpg", id="before photography"),
        pytest.param("202405010612091.jpg", id="a longer time without a gap"),
        pytest.param("20240501996209.jpg", id="an hour that no day has"),
        pytest.param("20240501.jpg", id="a date alone"),
    ],
)
def test_a_number_that_is_no_time_is_not_taken_for_one(name: str) -> None:
    assert taken(encoded(), name=name).source == "file"


def test_file_time_is_told_in_the_camera_s_offset() -> None:
    found = taken(None, utc_offset="-03:30")
    assert (found.iso, found.source, found.flags) == ("2024-05-01T02:42:09-03:30", "file", ("not-exif",))


@pytest.mark.parametrize("modified_s", [1e18, -1e18, float(2**40)])
def test_a_file_time_beyond_the_calendar_is_1970(modified_s: float) -> None:
    found = photo.taken(Path("a.jpg"), modified_s, None)
    assert found.local == "1970-01-01T00:00:00"


@given(st.binary(max_size=300))
def test_any_exif_costs_at_most_the_facts_in_it(rubbish: bytes) -> None:
    image = photo.open_image(encoded(exif=b"Exif\0\0" + rubbish))
    found = photo.taken(Path("IMG_0001.jpg"), MODIFIED_S, image)
    assert found.source in {"exif", "file"}
    assert photo.orientation(image) in range(-(2**31), 2**32)
    photo.camera(image)
    assert image.size == (8, 6)


@given(
    st.lists(st.tuples(st.integers(1, 700), st.integers(0, 1400)), max_size=8), st.integers(0, 600), st.integers(0, 900)
)
def test_zeros_are_found_where_a_plain_search_finds_them(parts: list[tuple[int, int]], start: int, end: int) -> None:
    data = b"".join(b"x" * other + bytes(zeros) for other, zeros in parts) + b"y" * end
    assert photo.first_zeros(data, start) == data.find(bytes(512), start)
