"""Measuring a bundle with the real runtime on labelled photos, some of which are none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edge.errors import BundleError, DataError, FieldmarkError, ModelError
from edge.model import runtime
from tests.fakes import tiny
from tests.fixtures_models import COLOURS
from trainer import measure
from trainer.measure import Measured
from trainer.progress import Steps


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three photos of each label, and a blue one that a person calls deer."""
    folder = tmp_path / "data"
    for label, (red, green, blue) in COLOURS.items():
        (folder / label).mkdir(parents=True)
        for i in range(3):
            (folder / label / f"{i}.jpg").write_bytes(tiny.png((red, green, blue + i), side=40 + i, form="JPEG"))
    (folder / "deer" / "odd.png").write_bytes(tiny.png((20, 10, 190), side=50))
    return folder


def measured(bundle: Path, data: Path, name: str | None = None) -> Measured:
    return measure.measure(measure.subject(bundle), data, name, None, Steps(quiet=True))


def test_figures_of_a_bundle(tiny_bundle: Path, data: Path) -> None:
    found = measured(tiny_bundle, data)
    assert (found.figures.n, found.failed) == (10, [])
    assert found.figures.accuracy == pytest.approx(0.9)
    assert found.figures.per_class["deer"].recall == pytest.approx(0.75)
    assert found.figures.confusion == [[3, 0, 1], [0, 3, 0], [0, 0, 3]]
    assert found.figures.animals_called_empty == 0
    assert found.runtime == runtime.installed()[0].name
    assert list(measure.right(found).values()).count(False) == 1


@pytest.mark.parametrize("installed", runtime.installed(), ids=lambda each: str(each.name))
def test_the_runtime_can_be_chosen(tiny_bundle: Path, data: Path, installed: runtime.Installed) -> None:
    found = measured(tiny_bundle, data, installed.name)
    assert (found.runtime, found.figures.n) == (installed.name, 10)


def test_answered_and_failed_are_all_files(tiny_bundle: Path, data: Path) -> None:
    (data / "fox" / "cut.jpg").write_bytes(tiny.png(COLOURS["fox"], side=400, form="JPEG")[:-300])
    (data / "fox" / "zero.jpg").write_bytes(b"")
    found = measured(tiny_bundle, data)
    assert {each.name: each.code for each in found.failed} == {"fox/cut.jpg": "truncated", "fox/zero.jpg": "empty"}
    assert found.figures.n + len(found.failed) == sum(path.is_file() for path in data.rglob("*"))


def test_the_bundle_s_thresholds_decide(tiny_bundle: Path, data: Path) -> None:
    (data / "deer" / "grey.png").write_bytes(tiny.png((100, 99, 99), side=50))
    found = measured(tiny_bundle, data).figures
    assert found.coverage == pytest.approx(10 / 11)
    assert found.accuracy_decided == pytest.approx(9 / 10)


def test_a_label_that_the_model_does_not_know_is_refused(tiny_bundle: Path, data: Path) -> None:
    shutil.copytree(data / "fox", data / "wolf")
    with pytest.raises(DataError, match=r"label 'wolf', which tiny does not know \(deer, empty, fox\)"):
        measured(tiny_bundle, data)


def test_data_without_a_readable_photo_is_refused(tiny_bundle: Path, data: Path) -> None:
    for path in data.rglob("*.*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of 10 files can be read"):
        measured(tiny_bundle, data)


def test_a_runtime_that_is_not_known_is_refused(tiny_bundle: Path, data: Path) -> None:
    with pytest.raises(ModelError, match="not known"):
        measured(tiny_bundle, data, "onnx")


def test_what_is_neither_run_nor_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"")
    with pytest.raises(DataError, match="neither a run's folder nor a bundle"):
        measure.subject(tmp_path / "model.tflite")
    with pytest.raises(DataError, match="is no run"):
        measure.subject(tmp_path)
    with pytest.raises(FieldmarkError):
        measure.subject(tmp_path / "none.fmb")


def test_an_altered_bundle_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    content = bytearray(tiny_bundle.read_bytes())
    content[-2000] ^= 1
    (tmp_path / "altered.fmb").write_bytes(content)
    with pytest.raises(BundleError):
        measure.subject(tmp_path / "altered.fmb")
