"""Photos are decoded once, in parallel; what cannot be used is listed with its reason and stops nothing."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.errors import DataError
from edge.model.preprocess import InputSpec
from tests.fakes import tiny
from tests.trainer import drawn
from trainer import pixels
from trainer.cache import ArrayCache
from trainer.dataset.samples import Sample

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


def test_a_full_disk_does_not_stop_it(photos: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(self: ArrayCache, path: Path, array: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ArrayCache, "_write", no_space)
    good, bad, stack = pixels.decode(photos, SPEC, tmp_path / "cache")
    assert (len(good), len(bad)) == (6, 0)
    assert stack.batch(range(6)).any()
    assert not (tmp_path / "cache").exists()


def test_an_entry_that_is_lost_while_in_use_says_so(photos: list[Sample], tmp_path: Path) -> None:
    _, _, stack = pixels.decode(photos, SPEC, tmp_path / "cache")
    for path in (tmp_path / "cache").rglob("*.npy"):
        path.unlink()
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
