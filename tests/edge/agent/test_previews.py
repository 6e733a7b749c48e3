from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge import photo as photos
from edge.agent import previews
from edge.agent.people import Treatment
from edge.agent.previews import MAX_BYTES, Previews
from edge.errors import DeviceError, PhotoError
from edge.log import store
from edge.log.store import FileFacts, FileKey, PhotoFacts
from edge.model.preprocess import to_pixels
from edge.model.spec import InputSpec
from edge.photo import Taken
from tests.fakes.camera import jpeg

SHA = "ab" + "0" * 62


def picture(
    width: int, height: int, *, kind: str = "JPEG", noise: bool = False, exif: Image.Exif | None = None
) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    if not noise:
        pixels[:] = (200, 60, 20)
        pixels[: height // 2, : width // 2] = (20, 60, 200)  # blue at the upper left
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **({"exif": exif} if exif else {}))
    return out.getvalue()


def made(data: bytes, treatment: Treatment = Treatment.KEEP) -> tuple[bytes, Image.Image]:
    preview = previews.render(photos.open_image(data), treatment)
    assert preview is not None
    return preview, Image.open(io.BytesIO(preview))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1600, 1200), (640, 480)), ((600, 1500), (256, 640)), ((100, 50), (100, 50)), ((3, 1), (3, 1))],
)
def test_preview_keeps_proportions_and_is_at_most_640_pixels(size: tuple[int, int], expected: tuple[int, int]) -> None:
    _, image = made(picture(*size))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", expected)


def test_preview_of_a_decoded_photo_decodes_nothing_again() -> None:
    image = photos.open_image(picture(2560, 1920))
    to_pixels(image, InputSpec(224, 224))
    assert image.width <= 640
    preview = previews.render(image, Treatment.KEEP)
    assert preview is not None
    assert Image.open(io.BytesIO(preview)).size == image.size


def test_pure_noise_is_still_at_most_30_kb() -> None:
    preview, _ = made(picture(1280, 960, noise=True))
    assert len(preview) <= MAX_BYTES


def test_preview_stands_upright_and_holds_no_metadata() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored picture must be turned right by 90 degrees
    exif.get_ifd(0x8825)[1] = "N"
    preview, image = made(picture(80, 40, exif=exif))
    assert image.size == (40, 80)
    red, _, blue = image.getpixel((35, 5))  # type: ignore[misc]
    assert blue > red  # what was upper left is upper right
    assert dict(image.getexif()) == {}
    assert b"Exif" not in preview


def test_photo_that_was_decoded_for_the_model_still_stands_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    image = photos.open_image(picture(800, 400, exif=exif))
    to_pixels(image, InputSpec(32, 32))
    preview = previews.render(image, Treatment.KEEP)
    assert preview is not None
    found = Image.open(io.BytesIO(preview))
    assert found.width * 2 == found.height


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_other_formats_have_previews_too(kind: str) -> None:
    assert made(picture(64, 32, kind=kind))[1].size == (64, 32)


def test_broken_photo_is_a_photo_error() -> None:
    with pytest.raises(PhotoError):
        made(picture(640, 480, noise=True)[:5000])


def test_withheld_preview_is_none() -> None:
    assert previews.render(photos.open_image(jpeg(10)), Treatment.WITHHOLD) is None


def test_blurred_preview_keeps_no_more_than_16_pixels_of_a_side() -> None:
    """A pattern finer than a sixteenth of the picture is gone, and not only weaker."""
    checks = np.kron(np.indices((60, 80)).sum(0) % 2, np.ones((8, 8)))[..., None] * np.full(3, 255)
    sharp = Image.fromarray(checks.astype(np.uint8))
    contrast = float(np.asarray(sharp).std())
    assert contrast > 100
    assert float(np.asarray(previews.blurred(sharp)).std()) < 2


def test_two_photos_that_are_alike_in_the_large_are_the_same_when_blurred() -> None:
    """So nothing that tells them apart can be brought back."""
    fine = np.indices((480, 640)).sum(0) % 2 * 255
    one = Image.fromarray(np.repeat(fine[..., None], 3, 2).astype(np.uint8))
    other = Image.fromarray(np.repeat((255 - fine)[..., None], 3, 2).astype(np.uint8))
    assert np.array_equal(np.asarray(previews.blurred(one)), np.asarray(previews.blurred(other)))


@pytest.mark.parametrize("size", [(640, 480), (17, 900), (5, 3), (1, 1)])
def test_blurred_picture_has_the_size_of_the_sharp_one(size: tuple[int, int]) -> None:
    assert previews.blurred(Image.new("RGB", size)).size == size


# The folder


def test_preview_lies_under_its_hash_and_is_not_for_everybody(tmp_path: Path) -> None:
    folder = Previews(tmp_path / "previews", 10**6)
    folder.put(SHA, b"picture")
    path = tmp_path / "previews" / "ab" / f"{SHA}.jpg"
    assert path.read_bytes() == b"picture"
    assert path.stat().st_mode & 0o007 == 0
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_total_is_kept_up_and_counted_anew_after_a_restart(tmp_path: Path) -> None:
    folder = Previews(tmp_path, 10**6)
    folder.put(SHA, b"12345")
    folder.put(SHA, b"123")
    folder.put("cd" * 32, b"12")
    assert folder.total_bytes == 5 == Previews(tmp_path, 10**6).total_bytes
    folder.remove(SHA)
    folder.remove(SHA)
    assert folder.total_bytes == 2 == Previews(tmp_path, 10**6).total_bytes


def test_what_a_cut_left_is_no_preview_and_is_replaced(tmp_path: Path) -> None:
    aside = tmp_path / "ab" / f".{SHA}.jpg.tmp"
    aside.parent.mkdir()
    aside.write_bytes(b"half")
    folder = Previews(tmp_path, 10**6)
    assert folder.total_bytes == 0
    folder.put(SHA, b"whole")
    assert [each.name for each in aside.parent.iterdir()] == [f"{SHA}.jpg"]


def test_folder_that_cannot_be_written_is_a_device_error(tmp_path: Path) -> None:
    (tmp_path / "previews").write_bytes(b"a file is in the way")
    with pytest.raises(DeviceError, match="cannot be written"):
        Previews(tmp_path / "previews", 10**6).put(SHA, b"x")


def log_with_previews(folder: Path, count: int) -> tuple[store.Log, Previews, list[str]]:
    log, kept = store.open_for_writing(folder / "log.db"), Previews(folder / "previews", 1000)
    hashes = [f"{number:02x}" * 32 for number in range(count)]
    for number, sha256 in enumerate(hashes):
        kept.put(sha256, b"x" * 100)
        os.utime(kept.path(sha256), (number, number))
        file = FileFacts(FileKey("d", "/s", f"{number}.jpg", 1, 1), Taken("2024-05-01T06:12:09", "+00:00", "exif", ()))
        log.add_file(file, photo=PhotoFacts(sha256, 4, 4, preview="kept"), detection=None, failure=None)
    return log, kept, hashes


def cut(self: Previews, sha256: str) -> None:
    """The power, after the rows and before the files."""
    raise KeyboardInterrupt


def states(log: store.Log) -> list[str]:
    rows = store.open_for_reading(log.path).execute("SELECT preview FROM photo ORDER BY id").fetchall()
    return [row[0] for row in rows]


def test_under_the_cap_nothing_is_released(tmp_path: Path) -> None:
    log, kept, _ = log_with_previews(tmp_path, 10)
    with log:
        assert kept.make_room(log) == 0
        assert states(log) == ["kept"] * 10


def test_what_somebody_else_left_there_is_no_preview_and_holds_nobody_up(tmp_path: Path) -> None:
    """It could not be released by its hash, and the agent would try for ever."""
    for name in ("thumbs/holiday.jpg", "thumbs/" + SHA + ".jpg", "ab/" + "cd" + SHA[2:] + ".jpg"):
        path = tmp_path / "previews" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(3 * 10**6))
    with store.open_for_writing(tmp_path / "log.db") as log:
        kept = Previews(tmp_path / "previews", 10**6)
        assert (kept.total_bytes, kept.make_room(log)) == (0, 0)


def test_over_the_cap_the_oldest_are_released_with_a_row_each(tmp_path: Path) -> None:
    log, kept, hashes = log_with_previews(tmp_path, 12)
    with log:
        assert kept.make_room(log) == 3  # down to 95 % of the cap
        assert states(log) == ["released"] * 3 + ["kept"] * 9
        assert [kept.path(sha256).exists() for sha256 in hashes] == [False] * 3 + [True] * 9
        assert kept.total_bytes == 900
        assert kept.make_room(log) == 0


def test_preview_is_gone_only_after_its_row_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, kept, hashes = log_with_previews(tmp_path, 12)
    with log:
        with monkeypatch.context() as patch:
            patch.setattr(Previews, "remove", cut)
            with pytest.raises(KeyboardInterrupt):
                kept.make_room(log)
        assert states(log)[:3] == ["released"] * 3
        assert all(kept.path(sha256).exists() for sha256 in hashes)
        assert Previews(tmp_path / "previews", 1000).make_room(log) == 3  # the next run finishes it
        assert not kept.path(hashes[0]).exists()
