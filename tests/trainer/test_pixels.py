"""Photos are decoded once, in parallel; what cannot be used is listed with its reason and stops nothing."""

from __future__ import annotations

import csv
import io
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge import photo as photo_module
from edge.errors import DataError
from edge.model.preprocess import to_pixels
from edge.model.spec import InputSpec
from tests.capabilities import real_photos
from tests.fakes import tiny
from tests.trainer import drawn
from trainer import pixels, records
from trainer.cache import ArrayCache
from trainer.dataset.samples import Sample
from trainer.dataset.split import difference_hash, thumbnail
from trainer.known_files import KnownFiles

SPEC = InputSpec(24, 32)


def samples(folder: Path, names: list[str]) -> list[Sample]:
    return [Sample(folder / name, name, "fox") for name in names]


@pytest.fixture
def photos(tmp_path: Path) -> list[Sample]:
    """Six photos of two labels."""
    drawn.write_set(tmp_path / "data", bursts=1, per_burst=2)
    names = sorted(path.relative_to(tmp_path / "data").as_posix() for path in (tmp_path / "data").rglob("*.jpg"))
    return samples(tmp_path / "data", names)


def test_photos_come_in_their_order_with_camera_and_time(photos: list[Sample], tmp_path: Path) -> None:
    good, bad, stack = pixels.decode(photos, SPEC, tmp_path / "cache")
    assert [photo.sample for photo in good] == photos
    assert bad == []
    assert {photo.camera for photo in good} == {drawn.CAMERA}
    assert [photo.taken for photo in good[:2]] == ["2025-04-01T06:00:00", "2025-04-01T06:00:20"]
    assert len(stack) == 6
    assert stack[0].shape == (24, 32, 3)
    assert stack.batch([5, 0]).shape == (2, 24, 32, 3)
    assert (stack.batch(np.array([5, 0]))[1] == stack[0]).all()


def test_pixels_are_those_of_the_device(photos: list[Sample], tmp_path: Path) -> None:
    from edge import photo
    from edge.model.preprocess import to_pixels

    _, _, stack = pixels.decode(photos, SPEC, tmp_path / "cache")
    for i, sample in enumerate(photos):
        assert (stack[i] == to_pixels(photo.open_image(sample.path.read_bytes()), SPEC)).all()


def test_a_photo_without_exif_has_no_time_whatever_its_name_says(tmp_path: Path) -> None:
    (tmp_path / "20240501_061209.png").write_bytes(tiny.png((1, 2, 3)))
    good, _, _ = pixels.decode(samples(tmp_path, ["20240501_061209.png"]), SPEC, tmp_path / "cache")
    assert (good[0].taken, good[0].camera) == (None, "")


def test_the_data_set_s_own_time_goes_before_exif(photos: list[Sample], tmp_path: Path) -> None:
    own = replace(photos[0], taken="2019-09-09T09:09:09")
    good, _, _ = pixels.decode([own, photos[1]], SPEC, tmp_path / "cache")
    assert [photo.taken for photo in good] == ["2019-09-09T09:09:09", "2025-04-01T06:00:20"]
    good, _, _ = pixels.decode(photos[:1], SPEC, tmp_path / "cache")
    assert good[0].taken == "2025-04-01T06:00:00", "it was cached with the photo, which it does not belong to"


# --- infrared

GREY = np.repeat(np.random.default_rng(1).integers(0, 256, (100, 100, 1), dtype=np.uint8), 3, axis=2)


def coloured(share: float, by: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A grey frame of which a strip at the top is coloured."""
    frame = np.clip(GREY, 0, 200)
    frame[: round(100 * share), :, 0] += by
    return frame


@pytest.mark.parametrize(
    ("frame", "infrared"),
    [
        pytest.param(GREY, True, id="grey"),
        pytest.param(coloured(1, 8), True, id="grey with a faint tint, as JPEG leaves it"),
        pytest.param(coloured(0.04, 55), True, id="grey with a coloured clock in its banner"),
        pytest.param(coloured(0.1, 55), False, id="a tenth of it coloured"),
        pytest.param(coloured(1, 20), False, id="pale colours, as in fog"),
        pytest.param(np.zeros((4, 4, 3), np.uint8), True, id="black"),
    ],
)
def test_a_frame_is_infrared_if_it_is_grey_nearly_everywhere(frame: pixels.Pixels, infrared: bool) -> None:
    assert pixels.is_infrared(frame) is infrared


def test_infrared_frames_are_told_from_their_pixels(photos: list[Sample], tmp_path: Path) -> None:
    grey = photos[0].path.with_name("night.png")
    Image.fromarray(GREY).save(grey)
    good, _, _ = pixels.decode([photos[0], Sample(grey, "night.png", "fox")], SPEC, tmp_path / "cache")
    assert [photo.infrared for photo in good] == [False, True]


@pytest.mark.needs("real_photos")
def test_infrared_is_what_people_say_of_real_photos(tmp_path: Path) -> None:
    folder = real_photos() / "trailcam"
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[::6]
    some = [Sample(folder / row["file"], row["file"], row["light"]) for row in rows]
    good, _, _ = pixels.decode(some, InputSpec(160, 160), tmp_path / "cache")
    assert len(good) > 40
    wrong = [photo.sample.name for photo in good if photo.infrared != (photo.sample.label == "grey_ir")]
    assert wrong == []


def faults(folder: Path) -> dict[str, str]:
    """Files that cannot be used, and their codes."""
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(whole, "JPEG")
    damaged = bytearray(tiny.png((9, 9, 9), side=64))
    damaged[-20] ^= 0x55
    content = {
        "zero.jpg": (b"", "empty"),
        "cut.jpg": (whole.getvalue()[:-2000], "truncated"),
        "text.jpg": (b"not a photo at all", "unrecognised"),
        "gif.jpg": (b"GIF89a" + bytes(60), "unrecognised"),
        "notes.txt": (b"seen a fox today", "not a photo"),
        "clip.mp4": (bytes(99), "video"),
        "damaged.png": (bytes(damaged), "undecodable"),
        "huge.jpg": (whole.getvalue() + bytes(65 * 2**20), "too large"),
    }
    for name, (data, _) in content.items():
        (folder / name).write_bytes(data)
    (folder / "folder.jpg").mkdir()
    (folder / "link.jpg").symlink_to(folder / "nowhere")
    return {name: code for name, (_, code) in content.items()} | {"folder.jpg": "not a file", "link.jpg": "missing"}


def test_every_file_is_either_used_or_listed_with_its_reason(photos: list[Sample], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    expected = faults(broken)
    mixed = [*photos[:3], *samples(broken, list(expected)), *photos[3:]]
    seen: list[int] = []
    good, bad, stack = pixels.decode(mixed, SPEC, tmp_path / "cache", done=lambda: seen.append(1))
    assert len(seen) == len(mixed)
    assert [photo.sample for photo in good] == photos
    assert len(stack) == len(photos)
    assert {each.name: each.code for each in bad} == expected
    assert all(each.reason and "\n" not in each.reason and each.label == "fox" for each in bad)


def test_only_broken_files_give_an_empty_stack(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    good, bad, stack = pixels.decode(samples(tmp_path, ["a.jpg"]), SPEC, tmp_path / "cache")
    assert (good, len(bad), len(stack)) == ([], 1, 0)


def test_no_photo_is_decoded_twice(photos: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pixels.decode(photos, SPEC, tmp_path / "cache")[2].batch(range(6))

    def decode(*_: object) -> None:
        raise AssertionError("it was decoded again")

    monkeypatch.setattr(pixels, "to_pixels", decode)
    again = pixels.decode([*photos, *photos], SPEC, tmp_path / "cache")[2]
    assert (again.batch(range(6)) == first).all()
    assert len(again) == 12


def test_a_changed_photo_is_decoded_again(photos: list[Sample], tmp_path: Path) -> None:
    before = pixels.decode(photos[:1], SPEC, tmp_path / "cache")[2][0]
    photos[0].path.write_bytes(tiny.png((1, 2, 3)))
    after = pixels.decode(photos[:1], SPEC, tmp_path / "cache")[2][0]
    assert (after != before).any()


def test_known_photos_are_not_even_opened(
    photos: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pixels.decode(photos, SPEC, tmp_path / "cache")[0]
    monkeypatch.setattr(photo_module, "open_image", lambda *_: pytest.fail("it was opened again"))
    again = pixels.decode(photos, SPEC, tmp_path / "cache")[0]
    for one, other in zip(first, again, strict=True):
        assert replace(one, look=None) == replace(other, look=None)  # type: ignore[arg-type]
        assert (one.look.hash == other.look.hash).all()
        assert (one.look.thumbnail == other.look.thumbnail).all()


def test_photos_that_look_as_they_did_are_not_read(
    photos: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.known_files.RACY_NS", -10 * 10**9)  # they were just written
    first = pixels.decode(photos, SPEC, tmp_path / "cache")[0]
    opened: list[str] = []
    read = photo_module.read

    def count(path: Path) -> photo_module.Photo:
        opened.append(path.name)
        return read(path)

    monkeypatch.setattr(photo_module, "read", count)
    photos[3].path.write_bytes(photos[4].path.read_bytes())
    again = pixels.decode(photos, SPEC, tmp_path / "cache")[0]
    assert opened == [photos[3].path.name]
    assert [photo.sha256 for photo in again] == [first[i].sha256 for i in (0, 1, 2, 4, 4, 5)]


def test_a_photo_whose_pixels_were_pruned_is_read_again_and_taken_for_what_it_is(
    photos: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.known_files.RACY_NS", -10 * 10**9)
    pixels.decode(photos[:1], SPEC, tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache" / "pixels")
    monkeypatch.setattr(KnownFiles, "sha256", lambda *_: "0" * 64)  # a wrong index costs a read, no more
    (good,), _, stack = pixels.decode(photos[:1], SPEC, tmp_path / "cache")
    assert good.sha256 == photo_module.read(photos[0].path).sha256
    assert (stack[0] == to_pixels(Image.open(photos[0].path), SPEC)).all()


def test_looks_are_those_of_the_pixels(photos: list[Sample], tmp_path: Path) -> None:
    good, _, stack = pixels.decode(photos, SPEC, tmp_path / "cache")
    for i, photo in enumerate(good):
        assert (photo.look.hash == difference_hash(stack[i])).all()
        assert (photo.look.thumbnail == thumbnail(stack[i])).all()


def test_pixels_that_were_pruned_are_decoded_again_and_their_facts_stay(photos: list[Sample], tmp_path: Path) -> None:
    first = pixels.decode(photos, SPEC, tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache" / "pixels")
    again = pixels.decode(photos, SPEC, tmp_path / "cache")
    assert (again[2].batch(range(6)) == first[2].batch(range(6))).all()
    assert len(list((tmp_path / "cache" / "pixels").rglob("*.npy"))) == 6


# --- where there is no room


def room_for(entries: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ArrayCache(tmp_path, (24, 32, 3), np.uint8).file_bytes
    monkeypatch.setenv("FIELDMARK_CACHE_GB", f"{entries * one / 1e9:.12f}")


def test_without_room_photos_are_decoded_again_each_time(
    photos: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = pixels.decode(photos, SPEC, tmp_path / "other")[2].batch(range(6))
    room_for(2.5, tmp_path, monkeypatch)
    good, bad, stack = pixels.decode(photos, SPEC, tmp_path / "cache")
    assert (len(good), len(bad)) == (6, 0)
    assert len(list((tmp_path / "cache" / "pixels").rglob("*.npy"))) == 2
    assert stack.note is not None
    assert "no room for 4 of 6 photos" in stack.note
    assert "FIELDMARK_CACHE_GB" in stack.note
    decoded: list[int] = []

    def counted(image: Image.Image, spec: InputSpec) -> pixels.Pixels:
        decoded.append(1)
        return to_pixels(image, spec)

    monkeypatch.setattr(pixels, "to_pixels", counted)
    for _ in range(2):
        assert (stack.batch(range(6)) == expected).all()
    assert len(decoded) == 8, "four in each of two epochs: none is held in memory"


def test_a_disk_that_cannot_be_written_does_not_stop_it(
    photos: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(self: ArrayCache, path: Path, array: object) -> None:
        raise OSError(28, "No space left on device")

    expected, _, whole = pixels.decode(photos, SPEC, tmp_path / "other")
    monkeypatch.setattr(ArrayCache, "_write", no_space)
    monkeypatch.setattr(records, "FLUSH_EVERY", 2)
    (tmp_path / "cache").write_text("in the way of a folder")
    good, bad, stack = pixels.decode(photos, SPEC, tmp_path / "cache")
    assert (len(good), len(bad)) == (6, 0)
    assert [photo.look.hash.tolist() for photo in good] == [photo.look.hash.tolist() for photo in expected]
    assert (stack.batch(range(6)) == whole.batch(range(6))).all()
    assert stack.note is not None
    assert "no room for 6 of 6 photos" in stack.note


def test_with_room_there_is_no_note(photos: list[Sample], tmp_path: Path) -> None:
    assert pixels.decode(photos, SPEC, tmp_path / "cache")[2].note is None


def test_room_is_made_of_other_runs_pixels_but_not_of_this_one_s(
    photos: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last photo was decoded long ago by another run, and is met only after room has run out."""
    folder, spec = tmp_path / "cache", InputSpec(96, 96)  # so large that the photos' facts are little beside
    pixels.decode(photos[5:], spec, folder)
    (kept,) = (folder / "pixels").rglob("*.npy")
    old = [folder / "pixels" / "other" / f"{i:064x}.npy" for i in range(9)]
    for path in old:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(kept.read_bytes())
    for path in (kept, *old):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    monkeypatch.setenv("FIELDMARK_CACHE_GB", f"{11.5 * kept.stat().st_size / 1e9:.9f}")
    stack = pixels.decode(photos, spec, folder)[2]
    assert stack.note is None
    assert all(path.exists() for path in stack_files(stack, folder))
    assert 0 < sum(path.exists() for path in old) < 9, "as many went as were in the way"


def stack_files(stack: pixels.PixelStack, folder: Path) -> list[Path]:
    return [folder / "pixels" / pixels.spec_key(stack.spec) / key[:2] / f"{key}.npy" for key in stack.sha256s]


# --- what is lost while it is in use


def test_an_entry_that_is_lost_while_in_use_is_decoded_again(photos: list[Sample], tmp_path: Path) -> None:
    _, _, stack = pixels.decode(photos, SPEC, tmp_path / "cache")
    first = stack.batch(range(6))
    for path in (tmp_path / "cache").rglob("*.npy"):
        path.unlink()
    assert (stack.batch(range(6)) == first).all()
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 6


def test_a_damaged_entry_is_decoded_again(photos: list[Sample], tmp_path: Path) -> None:
    _, _, stack = pixels.decode(photos, SPEC, tmp_path / "cache")
    first = np.array(stack[3])
    path = stack_files(stack, tmp_path / "cache")[3]
    content = bytearray(path.read_bytes())
    content[-1000:-500] = bytes(500)
    path.write_bytes(content)
    assert (stack[3] == first).all()
    assert path.read_bytes() != bytes(content)


@pytest.mark.parametrize(("content", "says"), [(b"", "readable when the run began"), (b"other", "was changed")])
def test_a_photo_that_is_no_longer_the_same_is_not_taken_for_it(
    photos: list[Sample], tmp_path: Path, content: bytes, says: str
) -> None:
    _, _, stack = pixels.decode(photos, SPEC, tmp_path / "cache")
    for path in (tmp_path / "cache").rglob("*.npy"):
        path.unlink()
    photos[2].path.write_bytes(content)
    with pytest.raises(DataError, match=f"{says}.*Run again"):
        stack[2]


def test_a_stack_that_does_not_know_the_photos_says_what_is_lost(tmp_path: Path) -> None:
    stack = pixels.PixelStack(ArrayCache(tmp_path, (24, 32, 3), np.uint8), ["ab"], SPEC)
    with pytest.raises(DataError, match="Run again"):
        stack[0]


def test_a_stack_is_written_as_one_file(photos: list[Sample], tmp_path: Path) -> None:
    _, _, stack = pixels.decode(photos, SPEC, tmp_path / "cache")
    stack.save(tmp_path / "stack.npy", [4, 1])
    written = np.load(tmp_path / "stack.npy")
    assert (written.dtype, written.shape) == (np.uint8, (2, 24, 32, 3))
    assert (written == stack.batch([4, 1])).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"height": 25},
        {"width": 33},
        {"resample": "box"},
        {"aspect": "pad"},
        {"cut_top": 1},
        {"cut_bottom": 1},
    ],
)
def test_whatever_changes_the_pixels_changes_their_place(changes: dict[str, int]) -> None:
    assert pixels.spec_key(replace(SPEC, **changes)) != pixels.spec_key(SPEC)  # type: ignore[arg-type]


def test_another_pillow_or_another_code_has_its_own_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    before = pixels.spec_key(SPEC)
    with monkeypatch.context() as patch:
        patch.setattr(pixels, "pillow_version", "99.0")
        assert pixels.spec_key(SPEC) != before
    monkeypatch.setattr(pixels, "REVISION", 99)
    assert pixels.spec_key(SPEC) != before
