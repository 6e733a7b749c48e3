"""Golden photos: several labels, clear and small, nobody in them, and tolerances that the gate's rows need."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edge import photo as photos
from edge.errors import ModelError
from edge.model.preprocess import to_pixels
from edge.model.spec import InputSpec
from trainer import golden
from trainer.cache import ArrayCache
from trainer.pixels import PixelStack

LABELS = ("deer", "empty", "person", "fox")
N = 160
H, W = 6, 8
RANDOM = np.random.default_rng(4)
PHOTOS = RANDOM.integers(0, 256, (N, H, W, 3), dtype=np.uint8)
TRUTH = np.arange(N) % 4
LOGITS = (np.eye(4)[TRUTH] * RANDOM.uniform(4, 9, (N, 1)) + RANDOM.normal(0, 0.1, (N, 4))).astype(np.float32)
STEP = 0.05
ROWS = ("ai_edge_litert 2.3.0 x86_64 default", "tflite_runtime 2.14.0 x86_64 default", "tflite_runtime reference")

Logits = npt.NDArray[np.float32]


@pytest.fixture
def stack(tmp_path: Path) -> PixelStack:
    """The photos."""
    return stack_of(tmp_path, PHOTOS, [f"{i:03d}" for i in range(N)])


def stack_of(folder: Path, pixels: npt.NDArray[np.uint8], names: list[str]) -> PixelStack:
    """Pixels by the hashes of their files."""
    cache = ArrayCache(folder / "cache", (H, W, 3), np.uint8)
    for name, photo in zip(names, pixels, strict=True):
        cache.put(name, photo)
    return PixelStack(cache, names, InputSpec(H, W))


def places(chosen: golden.Chosen) -> list[int]:
    """Which photos the PNGs hold."""
    found = [np.asarray(Image.open(io.BytesIO(data))) for path, data in chosen.files.items() if path.endswith(".png")]
    return [next(i for i, photo in enumerate(PHOTOS) if (photo == each).all()) for each in found]


def choose(stack: PixelStack, *rows: Logits, truth: npt.NDArray[np.intp] = TRUTH, step: float = STEP) -> golden.Chosen:
    """From photos without files."""
    answers = dict(zip(ROWS, rows or (LOGITS,), strict=False))
    return golden.choose(stack, [Path("gone.jpg")] * N, LABELS, truth, answers, step)


def noisy(deviation: float, seed: int = 0) -> Logits:
    """Answers of other kernels, in whole output steps."""
    steps = np.rint(np.random.default_rng(seed).normal(0, deviation, (N, 4)))
    made: Logits = (LOGITS + steps * STEP).astype(np.float32)
    return made


def worst(chosen: golden.Chosen, rows: list[Logits]) -> tuple[float, float]:
    """The largest difference of a row, as a share of the photo's tolerance, and of a mean, of the mean's."""
    expected = np.array([each.logits for each in chosen.golden])
    off = np.abs(np.stack([row[places(chosen)] for row in rows]) - expected)
    shares = off.max(axis=2) / [each.tolerance for each in chosen.golden]
    return float(shares.max()), float(off.mean(axis=(1, 2)).max()) / chosen.mean_tolerance


def test_thirty_two_photos_of_every_label_but_person_are_taken(stack: PixelStack) -> None:
    chosen = choose(stack)
    assert [each.file for each in chosen.golden] == list(chosen.files) == [f"golden/{i:02d}.png" for i in range(32)]
    assert [each.label for each in chosen.golden] == (["deer", "empty", "fox"] * 11)[:32]
    assert len(set(places(chosen))) == 32
    assert chosen.said.startswith("32 golden PNGs, 0.0 MB; no original JPEG")


def test_files_are_lossless_and_logits_are_those_of_their_photo(stack: PixelStack) -> None:
    chosen = choose(stack)
    for each, i in zip(chosen.golden, places(chosen), strict=True):
        assert each.logits == pytest.approx(LOGITS[i], abs=1e-5)
        assert each.label == LABELS[int(LOGITS[i].argmax())]


def test_the_choice_is_the_same_twice(stack: PixelStack) -> None:
    assert choose(stack, LOGITS, noisy(1)) == choose(stack, LOGITS, noisy(1))


def test_of_clear_photos_the_small_ones_are_taken(tmp_path: Path) -> None:
    """A bundle travels over slow links, and a flat photo says as much as a busy one."""
    flat = PHOTOS.copy()
    cheap = [i for i in range(N) if i % 2 and TRUTH[i] != 2][:40]
    flat[cheap] = flat[cheap, :1, :1]
    logits = (np.eye(4)[TRUTH] * 6).astype(np.float32)
    made = golden.choose(
        stack_of(tmp_path, flat, [f"{i:03d}" for i in range(N)]), [Path("gone")] * N, LABELS, TRUTH, {"a": logits}, STEP
    )
    half = sum(np.ptp(np.asarray(Image.open(io.BytesIO(data)))) == 0 or len(data) < 120 for data in made.files.values())
    assert half >= 20


def test_a_photo_of_a_person_never_travels_even_if_the_model_sees_a_deer(stack: PixelStack) -> None:
    """The bundle goes to every device, and the photo with it."""
    logits = LOGITS.copy()
    people = np.flatnonzero(TRUTH == 2)
    logits[people] = (20.0, 0.0, 0.0, 0.0)  # surer than any real deer
    assert not set(places(choose(stack, logits))) & set(people.tolist())


def test_what_the_model_takes_for_a_person_is_not_taken_either(stack: PixelStack) -> None:
    logits = LOGITS.copy()
    logits[:20] = (0.0, 0.0, 20.0, 0.0)
    chosen = choose(stack, logits)
    assert "person" not in {each.label for each in chosen.golden}
    assert min(places(chosen)) >= 20


def test_only_photos_on_which_all_rows_agree_are_taken(stack: PixelStack) -> None:
    other = LOGITS.copy()
    disputed = [int(i) for i in np.argsort(-LOGITS.max(axis=1))[:12]]
    other[disputed] = np.roll(other[disputed], 1, axis=1)
    assert not set(places(choose(stack, LOGITS, other))) & set(disputed)


def test_only_photos_that_every_row_answered_are_taken(stack: PixelStack) -> None:
    """The reference kernels are slow and are not asked all."""
    some = LOGITS.copy()
    some[::2] = np.nan
    chosen = choose(stack, LOGITS, LOGITS, some)
    assert {i % 2 for i in places(chosen)} == {1}
    assert np.isfinite([each.logits for each in chosen.golden]).all()


def test_every_row_holds_with_the_same_spare(stack: PixelStack) -> None:
    """Half-way between the rows, none uses more than half of what is allowed, alone or on average."""
    rows = [noisy(2, seed) for seed in range(3)]
    photo, mean = worst(choose(stack, *rows), rows)
    assert 0.4 < photo <= 0.501
    assert 0.3 < mean <= 0.501


def test_what_is_expected_lies_half_way_between_the_rows(stack: PixelStack) -> None:
    """So a device may be off by half as much as if one of the rows were expected."""
    low, high = LOGITS - np.float32(0.5), LOGITS + np.float32(0.5)
    for each in choose(stack, low, LOGITS, high).golden:
        assert each.tolerance == pytest.approx(golden.SPARE * 0.5, rel=1e-4)
    for each, i in zip((chosen := choose(stack, low, high, high)).golden, places(chosen), strict=True):
        assert each.logits == pytest.approx(LOGITS[i], abs=1e-5)


def test_the_margin_is_larger_than_twice_the_tolerance(stack: PixelStack) -> None:
    logits = LOGITS.copy()
    close = np.flatnonzero(TRUTH == 0)
    logits[close, 1] = logits[close, 0] - 0.3  # right, but within the tolerance it could be wrong
    chosen = choose(stack, logits)
    assert not set(places(chosen)) & set(close.tolist())
    for each in chosen.golden:
        second, best = sorted(each.logits)[-2:]
        assert best - second > 2 * each.tolerance


@pytest.mark.parametrize(
    ("rows", "step", "least"),
    [
        pytest.param(ROWS[:1], STEP, 6 * STEP, id="LiteRT alone, which is the same on both architectures"),
        pytest.param(ROWS, STEP, 6 * STEP, id="with the kernels that are the same on both"),
        pytest.param(ROWS[:2], STEP, 12 * STEP, id="kernels that nobody saw on ARM"),
        pytest.param(ROWS, 0.0, 0.08 * 2.89, id="a float model, by what logits vary"),
    ],
)
def test_rows_that_are_equal_still_leave_some_tolerance(
    stack: PixelStack, rows: tuple[str, ...], step: float, least: float
) -> None:
    answers = dict.fromkeys(rows, LOGITS)
    chosen = golden.choose(stack, [Path("gone.jpg")] * N, LABELS, TRUTH, answers, step)
    assert [each.tolerance for each in chosen.golden] == pytest.approx([least] * 32, rel=0.05)
    assert chosen.mean_tolerance == pytest.approx(least / 4, rel=0.05)


def people_but(*rows: int) -> npt.NDArray[np.intp]:
    """Labels that say person of all photos but these."""
    truth = np.full(N, 2)
    truth[list(rows)] = TRUTH[list(rows)]
    return truth


def test_few_photos_are_enough_if_there_are_eight(stack: PixelStack) -> None:
    chosen = choose(stack, truth=people_but(0, 4, 8, 12, 16, 20, 24, 1))
    assert sorted(each.label for each in chosen.golden) == ["deer"] * 7 + ["empty"]


def test_fewer_than_eight_are_refused_with_how_many_there_are(stack: PixelStack) -> None:
    with pytest.raises(ModelError, match=r"only 7 of 160 photos can be golden, 8 are needed.*Add photos") as caught:
        choose(stack, truth=people_but(0, 4, 8, 12, 16, 20, 24))
    assert caught.value.code == "golden"


def test_rows_that_agree_on_nothing_are_refused(stack: PixelStack) -> None:
    with pytest.raises(ModelError, match="only 0 of 160"):
        choose(stack, LOGITS, np.roll(LOGITS, 1, axis=1))


# --- originals

SECRET = "51.4778N"


def picture(i: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A photo of its own."""
    cells = np.random.default_rng(i).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)


def camera(orientation: int = 1) -> Image.Exif:
    """EXIF with a place."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x010E] = "Camera", orientation, SECRET
    return exif


class Folder:
    """A data set of files, its pixels as the trainer reads them, and a model that is sure of every photo."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths: list[Path] = []

    def add(self, name: str, image: Image.Image, form: str = "JPEG", **options: object) -> Path:
        """One more photo."""
        path = self.root / name
        image.save(path, form, **options)
        self.paths.append(path)
        return path

    def choose(self, *, person: Path | None = None, margin: float = 9.0, **options: int) -> golden.Chosen:
        """The golden photos of all that were added."""
        spec = InputSpec(H, W)
        data = [path.read_bytes() for path in self.paths]
        pixels = np.stack([to_pixels(photos.open_image(each), spec) for each in data])
        truth = np.array([2 if path == person else 0 for path in self.paths])
        stack = stack_of(self.root, pixels, [hashlib.sha256(each).hexdigest() for each in data])
        logits = np.tile(np.array([margin, 0, 0, 0], np.float32), (len(data), 1))
        return golden.choose(stack, self.paths, LABELS, truth, {ROWS[0]: logits}, STEP, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Ten PNGs, from which golden photos can be made."""
    made = Folder(tmp_path)
    for i in range(10):
        made.add(f"{i}.png", picture(i), "PNG")
    return made


def originals(chosen: golden.Chosen) -> list[bytes]:
    """The JPEGs of a bundle."""
    return [data for path, data in chosen.files.items() if path.endswith(".jpg")]


def test_a_data_set_of_pngs_gives_no_originals_and_says_so(folder: Folder) -> None:
    chosen = folder.choose()
    assert not originals(chosen)
    assert chosen.said.endswith("no original JPEG could be taken")


def test_three_originals_travel_without_metadata_and_give_the_same_pixels(folder: Folder) -> None:
    added = [folder.add(f"{i}.JPG", picture(i), exif=camera(), quality=60 + i) for i in range(20, 25)]
    chosen = folder.choose()
    assert [each.file for each in chosen.golden[-3:]] == [
        f"golden/{len(chosen.golden) - 3 + i:02d}.jpg" for i in range(3)
    ]
    spec = InputSpec(H, W)
    known = [to_pixels(photos.open_image(path.read_bytes()), spec).tobytes() for path in added]
    for data in originals(chosen):
        assert SECRET.encode() not in data
        assert not Image.open(io.BytesIO(data)).getexif()
        assert to_pixels(photos.open_image(data), spec).tobytes() in known
    assert "3 golden JPGs" in chosen.said


def test_originals_may_differ_twice_as_far(folder: Folder) -> None:
    folder.add("20.jpg", picture(20))
    *pngs, jpeg = folder.choose().golden
    assert {jpeg.tolerance} == {2 * each.tolerance for each in pngs}


def test_originals_of_different_kinds_are_preferred_to_the_smallest(folder: Folder) -> None:
    for i in range(20, 24):
        folder.add(f"{i}.jpg", picture(i), quality=40)
    folder.add("30.jpg", picture(30), progressive=True, quality=90)
    folder.add("31.jpg", picture(31), subsampling=0, quality=90)
    found = [Image.open(io.BytesIO(data)) for data in originals(folder.choose())]
    assert sum("progressive" in image.info for image in found) == 1
    assert len({(image.layer[0][1], "progressive" in image.info) for image in found}) == 3  # type: ignore[attr-defined]


def test_a_cameras_photo_goes_before_a_smaller_one_from_elsewhere(folder: Folder) -> None:
    folder.add("20.jpg", picture(20), quality=30)
    theirs = folder.add("21.jpg", picture(21, (80, 60)), quality=95, exif=camera())
    (data,) = originals(folder.choose(jpegs=1))
    assert Image.open(io.BytesIO(data)).size == Image.open(theirs).size


def test_none_travels_where_none_may(folder: Folder) -> None:
    folder.add("20.jpg", picture(20))
    assert originals(folder.choose())
    assert not originals(folder.choose(jpegs=0))


def _turned(folder: Folder) -> None:
    folder.add("20.jpg", picture(20), exif=camera(6))


def _smaller_than_the_input(folder: Folder) -> None:
    folder.add("20.jpg", picture(20, (W - 1, H)))


def _four_colours(folder: Folder) -> None:
    folder.add("20.jpg", picture(20).convert("CMYK"))


def _a_png_by_another_name(folder: Folder) -> None:
    folder.add("20.jpg", picture(20), "PNG")


def _large(folder: Folder) -> None:
    path = folder.add("20.jpg", picture(20))
    path.write_bytes(path.read_bytes() + bytes(golden.JPEG_BYTES))


@pytest.mark.parametrize("add", [_turned, _smaller_than_the_input, _four_colours, _a_png_by_another_name, _large])
def test_an_odd_original_is_just_not_taken(folder: Folder, add: object) -> None:
    add(folder)  # type: ignore[operator]
    assert not originals(folder.choose())


def test_an_original_of_a_person_never_travels(folder: Folder) -> None:
    path = folder.add("20.jpg", picture(20))
    assert originals(folder.choose())
    assert not originals(folder.choose(person=path))


def test_an_original_needs_the_margin_of_its_wider_tolerance(folder: Folder) -> None:
    folder.add("20.jpg", picture(20))
    assert originals(folder.choose(margin=4 * 6 * STEP + 0.01))
    assert not originals(folder.choose(margin=4 * 6 * STEP - 0.01))


def test_a_file_that_changed_or_went_since_it_was_read_is_not_taken(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, gone = folder.add("20.jpg", picture(20)), folder.add("21.jpg", picture(21))
    same = folder.add("22.jpg", picture(22))
    real = golden._originals

    def meanwhile(*arguments: object) -> dict[int, bytes]:
        picture(99).save(changed)
        same.write_bytes(same.read_bytes() + b"more")  # the same picture, but not the file that people looked at
        gone.unlink()
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(golden, "_originals", meanwhile)
    assert not originals(folder.choose())


def test_originals_stay_under_their_cap_together(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(20, 25):
        folder.add(f"{i}.jpg", picture(i))
    first = len(originals(folder.choose())[0])
    monkeypatch.setattr(golden, "JPEGS_BYTES", 2 * first + first // 2)
    assert len(originals(folder.choose())) == 2
