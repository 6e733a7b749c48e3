"""Golden photos: a device answers as the workstation did, or the bundle is refused there."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.errors import ModelError
from edge.model import bundle as bundles
from edge.model import golden, runtime
from edge.model.bundle import Golden, Manifest
from edge.model.preprocess import Pixels
from tests.fixtures_models import SIDE

LITERT = "ai_edge_litert"
DEER = "golden/deer.png"
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
