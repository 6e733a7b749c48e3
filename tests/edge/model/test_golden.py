"""Golden photos: a device answers as the workstation did, or the bundle is refused there."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from edge import photo as photos
from edge.errors import ModelError
from edge.model import bundle as bundles
from edge.model import golden, run, runtime
from edge.model.bundle import Golden, Manifest
from edge.model.preprocess import Pixels, to_pixels
from edge.model.spec import InputSpec
from tests.fixtures_models import SIDE

LITERT = "ai_edge_litert"
DEER, JPEG = "golden/deer.png", "golden/original.jpg"
Change = Callable[[Pixels], Pixels]


@pytest.fixture
def unpacked(device_root: Path) -> Path:
    """The files of the tiny bundle, as a device unpacked them."""
    (slot,) = (device_root / "var/lib/fieldmark/slots").iterdir()
    return slot


@pytest.fixture
def manifest(tiny_bundle: Path) -> Manifest:
    """The tiny bundle's."""
    return bundles.open_bundle(tiny_bundle).manifest


def changed(manifest: Manifest, **changes: object) -> Manifest:
    """The manifest with its first golden photo, the deer, changed."""
    first, *others = manifest.golden
    assert first.file == DEER
    return replace(manifest, golden=(replace(first, **changes), *others))  # type: ignore[arg-type]


@pytest.mark.parametrize("installed", runtime.installed(), ids=lambda found: str(found.name))
def test_a_sound_bundle_passes_on_each_runtime(
    unpacked: Path, manifest: Manifest, installed: runtime.Installed
) -> None:
    assert golden.check(unpacked, manifest, runtime=installed.name) == installed.name


def test_the_preferred_runtime_is_asked_by_default(unpacked: Path, manifest: Manifest) -> None:
    assert golden.check(unpacked, manifest) == runtime.installed()[0].name


def _drawn(seed: int = 0) -> Image.Image:
    """A photo that is mostly red, larger than the input, with edges."""
    cells = np.random.default_rng(seed).integers(0, 120, (12, 16, 3), np.uint8)
    cells[..., 0] += 100
    return Image.fromarray(cells).resize((160, 120), Image.Resampling.NEAREST)


def with_jpeg(unpacked: Path, manifest: Manifest, **options: object) -> Manifest:
    """The bundle with an original JPEG besides, a deer by its colour; its answer is expected to be exact."""
    file = io.BytesIO()
    _drawn().save(file, "JPEG", quality=90, **options)
    (unpacked / JPEG).write_bytes(file.getvalue())
    pixels = to_pixels(photos.open_image(file.getvalue()), manifest.input)
    logits = tuple(float(each) for each in pixels.mean(axis=(0, 1)))
    return replace(manifest, golden=(*manifest.golden, Golden(JPEG, "deer", logits, 1.0)))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
def test_an_original_jpeg_goes_the_way_of_any_photo(
    unpacked: Path, manifest: Manifest, options: dict[str, object]
) -> None:
    assert golden.check(unpacked, with_jpeg(unpacked, manifest, **options))


def _padded(image: Image.Image, spec: InputSpec) -> Pixels:
    return to_pixels(image, replace(spec, aspect="pad"))


def _swapped(image: Image.Image, spec: InputSpec) -> Pixels:
    return np.ascontiguousarray(to_pixels(image, spec)[:, :, ::-1])


def _darker(image: Image.Image, spec: InputSpec) -> Pixels:
    return (to_pixels(image, spec) * 0.98).astype(np.uint8)


@pytest.mark.parametrize(
    ("decoder", "code"),
    [
        pytest.param(to_pixels, "", id="right"),
        pytest.param(_swapped, "golden label", id="blue and red swapped"),
        pytest.param(_padded, "golden logits", id="padded and not stretched"),
        pytest.param(_darker, "golden logits", id="darker by 2 %"),
    ],
)
def test_a_decoder_or_resize_that_differs_is_noticed_by_the_jpegs_alone(
    unpacked: Path,
    manifest: Manifest,
    monkeypatch: pytest.MonkeyPatch,
    decoder: Callable[[Image.Image, InputSpec], Pixels],
    code: str,
) -> None:
    with_it = with_jpeg(unpacked, manifest)
    monkeypatch.setattr(golden, "to_pixels", decoder)
    assert golden.check(unpacked, manifest)  # PNGs are input already
    assert _code(lambda: golden.check(unpacked, with_it)) == code


def _replace_pixels(path: Path, change: Change) -> None:
    Image.fromarray(change(np.asarray(Image.open(path)))).save(path)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(lambda a: np.ascontiguousarray(a[:, :, ::-1]), "golden label", id="blue and red swapped"),
        pytest.param(lambda a: (a * 0.78).astype(np.uint8), "golden logits", id="pixels 22 % off"),
        pytest.param(lambda a: a // 2, "golden logits", id="half the brightness"),
        pytest.param(lambda a: np.zeros_like(a), "golden logits", id="black"),
    ],
)
def test_pixels_that_reach_the_model_changed_are_noticed(
    unpacked: Path,
    manifest: Manifest,
    change: Change,
    code: str,
) -> None:
    _replace_pixels(unpacked / DEER, change)
    with pytest.raises(ModelError, match=DEER) as caught:
        golden.check(unpacked, manifest)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"label": "fox", "logits": (10.0, 10.0, 200.0)}, "golden label", id="another label expected"),
        pytest.param({"logits": (202.0, 10.0, 10.0)}, "golden logits", id="another logit expected"),
        pytest.param({"logits": (200.0, 10.0, -10.0)}, "golden logits", id="a losing logit differs"),
    ],
)
def test_an_answer_that_differs_is_refused(
    unpacked: Path, manifest: Manifest, changes: dict[str, object], code: str
) -> None:
    with pytest.raises(ModelError) as caught:
        golden.check(unpacked, changed(manifest, **changes))
    assert caught.value.code == code


def test_an_answer_within_the_tolerance_passes(unpacked: Path, manifest: Manifest) -> None:
    assert golden.check(unpacked, changed(manifest, logits=(202.0, 10.0, 10.0), tolerance=2.01))


@pytest.mark.parametrize(
    ("tolerance", "code"),
    [
        pytest.param(1.0, "", id="well within"),
        pytest.param(0.29, "", id="just within"),
        pytest.param(0.27, "golden mean", id="just outside"),
        pytest.param(0.0, "golden mean", id="none allowed"),
    ],
)
def test_a_small_fault_in_every_photo_shows_in_the_mean(
    unpacked: Path, manifest: Manifest, tolerance: float, code: str
) -> None:
    """Each photo is within its tolerance of 1, and each is off by 0.28."""
    off = [Golden(g.file, g.label, tuple(each - 0.28 for each in g.logits), g.tolerance) for g in manifest.golden]
    told = replace(manifest, golden=tuple(off), golden_mean_tolerance=tolerance)
    assert _code(lambda: golden.check(unpacked, told)) == code


def _code(work: Callable[[], object]) -> str:
    try:
        work()
    except ModelError as error:
        return error.code
    return ""


def _shifted(manifest: Manifest, by: dict[str, float]) -> npt.NDArray[np.float32]:
    """Answers that are off by so much in every logit, by the file's ending."""
    return np.array([[x + by[Path(g.file).suffix] for x in g.logits] for g in manifest.golden], np.float32)


@pytest.mark.parametrize(
    ("by", "code"),
    [
        pytest.param({".png": 0.19, ".jpg": 0.39}, "", id="both within"),
        pytest.param({".png": 0.21, ".jpg": 0.0}, "golden mean", id="the PNGs are off"),
        pytest.param({".png": 0.0, ".jpg": 0.41}, "golden mean", id="the one JPEG is off by more than twice"),
    ],
)
def test_pngs_and_jpegs_are_averaged_apart(unpacked: Path, manifest: Manifest, by: dict[str, float], code: str) -> None:
    """One JPEG among many PNGs would be lost in a common mean."""
    told = replace(with_jpeg(unpacked, manifest), golden_mean_tolerance=0.2)
    assert _code(lambda: golden.compare(told, _shifted(told, by), "here")) == code


def test_what_is_not_a_number_is_never_within_a_tolerance(manifest: Manifest) -> None:
    answers = _shifted(manifest, {".png": 0.0})
    answers[0, 0] = np.nan  # numpy takes it for the largest, so the label still is deer
    assert _code(lambda: golden.compare(manifest, answers, "here")) == "golden logits"


def test_a_message_says_how_many_photos_are_wrong(manifest: Manifest) -> None:
    answers = np.roll(_shifted(manifest, {".png": 0.0}), 1, axis=1)
    with pytest.raises(ModelError, match=r"deer\.png: here says empty.*3 of 3 golden photos are wrong"):
        golden.compare(manifest, answers, "here")


def test_an_answer_that_is_missing_is_noticed(manifest: Manifest) -> None:
    with pytest.raises(ModelError, match=r"2 golden photos.*3 photos"):
        golden.compare(manifest, _shifted(manifest, {".png": 0.0})[:2], "here")


def test_the_child_may_take_a_minute_for_each_photo_and_no_longer(
    unpacked: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    real = run.in_child

    def in_child(model: Path, pixels: Path, *, runtime: str, timeout_s: float) -> run.Answers:
        asked.append(timeout_s)
        return real(model, pixels, runtime=runtime, timeout_s=timeout_s)

    monkeypatch.setattr(run, "in_child", in_child)
    golden.check(unpacked, manifest)
    assert asked == [60 + 60 * 3]


def _png_named_jpeg(folder: Path, manifest: Manifest) -> Manifest:
    (folder / JPEG).write_bytes((folder / DEER).read_bytes())
    return changed(manifest, file=JPEG)


def _other_ending(folder: Path, manifest: Manifest) -> Manifest:
    (folder / "golden/deer.gif").write_bytes((folder / DEER).read_bytes())
    return changed(manifest, file="golden/deer.gif")


def _jpeg_cut_short(folder: Path, manifest: Manifest) -> Manifest:
    told = with_jpeg(folder, manifest)
    (folder / JPEG).write_bytes((folder / JPEG).read_bytes()[:900])
    return told


@pytest.mark.parametrize("damage", [_png_named_jpeg, _other_ending, _jpeg_cut_short])
def test_a_file_that_is_not_what_its_name_says_is_refused(
    unpacked: Path, manifest: Manifest, damage: Callable[[Path, Manifest], Manifest]
) -> None:
    told = damage(unpacked, manifest)
    assert _code(lambda: golden.check(unpacked, told)) == "golden photo"


def _jpeg(path: Path) -> None:
    image = Image.open(path).convert("RGB")
    image.save(path, "JPEG")


def _larger(path: Path) -> None:
    Image.open(path).resize((SIDE + 1, SIDE)).save(path)


def _palette(path: Path) -> None:
    Image.open(path).convert("P").save(path)


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:70])


@pytest.mark.parametrize("damage", [_jpeg, _larger, _palette, _cut_short, Path.unlink, lambda p: p.write_bytes(b"")])
def test_a_golden_photo_that_is_none_is_refused(
    unpacked: Path, manifest: Manifest, damage: Callable[[Path], None]
) -> None:
    damage(unpacked / DEER)
    with pytest.raises(ModelError) as caught:
        golden.check(unpacked, manifest)
    assert caught.value.code == "golden photo"


def test_a_model_with_another_number_of_labels_is_refused(unpacked: Path, manifest: Manifest) -> None:
    two = replace(
        manifest,
        labels=manifest.labels[:2],
        golden=tuple(Golden(g.file, "deer", g.logits[:2], 1.0) for g in manifest.golden if g.label == "deer"),
    )
    with pytest.raises(ModelError) as caught:
        golden.check(unpacked, two)
    assert caught.value.code == "labels"


def test_a_runtime_that_crashes_is_an_error_and_not_the_end(
    unpacked: Path, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = tmp_path / "python"
    crash.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crash.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crash))
    with pytest.raises(ModelError, match="died with status -11"):
        golden.check(unpacked, manifest)


def test_a_scratch_folder_that_is_gone_is_an_error(
    unpacked: Path, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(ModelError, match="could not be run"):
        golden.check(unpacked, manifest)
