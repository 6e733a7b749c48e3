"""What people hand in that cannot be trained on as it is, through the front door: one line that says what to do, exit
code 1, and nothing left on the disk; or a run that goes on without what is of no use, and says so."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fieldmark
from tests.trainer import drawn
from trainer import run as runs

pytestmark = pytest.mark.needs("tensorflow")

SMALL = ("--backbone", "mobilenet", "--weights", "none", "--image-size", "32")
PROBE = (*SMALL, "--probe-only")
TUNED = (*SMALL, "--epochs", "1", "--views", "1", "--no-refit", "--fine-tune-from", "conv_pw_13")
BURSTS, PER_BURST = 5, 2
PHOTOS = len(drawn.LABELS) * BURSTS * PER_BURST


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDMARK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per class of sound photos. Do not change it."""
    folder = tmp_path_factory.mktemp("sound") / "data"
    drawn.write_set(folder, bursts=BURSTS, per_burst=PER_BURST)
    return folder


@pytest.fixture
def data(sound: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(sound, tmp_path / "data")


@pytest.fixture
def door(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str]]]:
    """The command line: exit code, and the lines that it says on standard error."""

    def run(*arguments: object) -> tuple[int, list[str]]:
        with pytest.raises(SystemExit) as ended:
            fieldmark.main([str(argument) for argument in arguments])
        return int(str(ended.value.code)), capsys.readouterr().err.splitlines()

    return run


Door = Callable[..., tuple[int, list[str]]]


def everything_in(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


# --- faults: each makes something of sound photos, and gives what is trained on


def one_burst_in_each_class(data: Path) -> Path:
    for label in drawn.LABELS:
        for path in (data / label).glob("IMG_0[1-9]*"):
            path.unlink()
    return data


def only_one_class_has_photos(data: Path) -> Path:
    for label in ("deer", "empty"):
        shutil.rmtree(data / label)
        (data / label).mkdir()
    return data


def labels_that_differ_in_case(data: Path) -> Path:
    (data / "empty").rename(data / "Fox")
    return data


def a_class_of_val_that_train_has_not(data: Path) -> Path:
    for part, labels in (("train", ("deer", "empty")), ("val", ("deer", "fox"))):
        for label in labels:
            shutil.copytree(data / label, data.parent / "parts" / part / label)
    return data.parent / "parts"


def coco(data: Path, *, missing: int) -> Path:
    """A COCO file beside the photos; the last so many that it names are not there."""
    images, annotations = [], []
    for number, path in enumerate(sorted(data.rglob("*.jpg"))):
        name = path.relative_to(data).as_posix() if number < PHOTOS - missing else f"gone/{path.name}"
        images.append({"id": number, "file_name": name})
        annotations.append({"id": number, "image_id": number, "category_id": drawn.LABELS.index(path.parent.name)})
    categories = [{"id": number, "name": label} for number, label in enumerate(drawn.LABELS)]
    file = data / "labels.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


def a_coco_file_of_missing_photos(data: Path) -> Path:
    return coco(data, missing=PHOTOS)


def no_photo_is_whole(data: Path) -> Path:
    for path in data.rglob("*.jpg"):
        path.write_bytes(path.read_bytes()[:300])
    return data


@pytest.mark.parametrize(
    ("spoil", "says", "cure"),
    [
        pytest.param(one_burst_in_each_class, "too few independent photos", "at least 3 bursts", id="too few groups"),
        pytest.param(only_one_class_has_photos, "has 1 label", "a folder per class", id="a single class with photos"),
        pytest.param(labels_that_differ_in_case, "'Fox' and 'fox', which differ only in case", "Rename", id="case"),
        pytest.param(a_class_of_val_that_train_has_not, "train part has no photo", "Add some to train", id="val alone"),
        pytest.param(a_coco_file_of_missing_photos, "none of them is there", "Put the file", id="photos of COCO gone"),
        pytest.param(no_photo_is_whole, "of 30 files 0 can be read", "2 labels are needed", id="no photo is whole"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused_in_one_line(
    data: Path, tmp_path: Path, door: Door, spoil: Callable[[Path], Path], says: str, cure: str
) -> None:
    source = spoil(data)
    before = everything_in(tmp_path)
    code, lines = door("train", source, "--out", tmp_path / "run", *PROBE)
    assert code == 1
    assert lines[-1].startswith("fieldmark: ")
    assert says in lines[-1]
    assert cure in lines[-1]
    assert "unexpected" not in lines[-1]
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param(
            ("--fine-tune-from", "conv_pw_12_rule"), "no layer 'conv_pw_12_rule'. Did you mean conv_pw_12_relu?",
            id="a layer misspelt",
        ),
        pytest.param(("--cut", "conv_pw3_relu"), "Did you mean conv_pw_3_relu?", id="a cut misspelt"),
        pytest.param(("--freeze", "conv_dw_77"), "Did you mean conv_dw_", id="a frozen layer misspelt"),
        pytest.param(("--freeze", "block_*"), "no layer 'block_*'", id="a pattern that fits no layer"),
        pytest.param(("--fine-tune-from", "100"), "mobilenet has layers 0 to 85, found 100", id="a number too high"),
        pytest.param(("--fine-tune-from", "-1"), "layers 0 to 85, found -1", id="a number below nought"),
        pytest.param(("--weights", "OTHER"), "These are weights of mobilenetv3-small: give --backbone", id="weights"),
        pytest.param(("--weights", "gone.h5"), "gone.h5 cannot be read: No such file", id="weights that are not there"),
    ],
)  # fmt: skip
def test_a_network_that_cannot_be_as_asked_is_refused_in_one_line(
    sound: Path, tmp_path: Path, door: Door, other_weights: Path, options: tuple[str, ...], says: str
) -> None:
    before = everything_in(tmp_path)
    given = [str(other_weights) if each == "OTHER" else each for each in options]
    code, lines = door("train", sound, "--out", tmp_path / "run", *SMALL, *given)
    assert code == 1
    assert lines[-1].startswith("fieldmark: ")
    assert says in lines[-1]
    assert "unexpected" not in lines[-1]
    assert everything_in(tmp_path) == before


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of MobileNetV3-Small."""
    from trainer.backbones import backbone

    file = tmp_path_factory.mktemp("weights") / "other.weights.h5"
    backbone("mobilenetv3-small").build(32, 32, weights="none").save_weights(file)
    return file


# --- a run that goes on


def listed(run: Path) -> dict[str, str]:
    """What the run could not use: name -> code."""
    with (run / runs.UNREADABLE).open(encoding="utf-8", newline="") as file:
        return {row["name"]: row["code"] for row in csv.DictReader(file)}


def test_a_tenth_of_damaged_files_and_a_class_without_photos_are_listed(data: Path, tmp_path: Path, door: Door) -> None:
    damaged = sorted(data.rglob("*.jpg"))[::10]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-700])
    (data / "wolf").mkdir()
    code, lines = door("train", data, "--out", tmp_path / "run", *PROBE)
    assert code == 0
    assert any("4 of 31 files cannot be used; unreadable.csv in the run says why" in line for line in lines)
    names = {path.relative_to(data).as_posix(): "truncated" for path in damaged}
    assert listed(tmp_path / "run") == names | {"wolf": "no photos"}
    assert runs.read(tmp_path / "run").facts.labels == drawn.LABELS


def test_a_class_of_one_photo_is_named_and_its_photo_is_learned_from(data: Path, tmp_path: Path, door: Door) -> None:
    """Held out, it could not be learned at all."""
    for path in sorted((data / "fox").iterdir())[1:]:
        path.unlink()
    code, lines = door("train", data, "--out", tmp_path / "run", *PROBE)
    assert code == 0
    assert any("fox: fewer than 5 independent groups, so their figures say little" in line for line in lines)
    (only,) = (line for line in runs.read(tmp_path / "run").photos if line.label == "fox")
    assert only.part == runs.TRAIN


def test_photos_that_a_coco_file_names_and_that_are_missing_are_listed(data: Path, tmp_path: Path, door: Door) -> None:
    code, lines = door("train", coco(data, missing=3), "--out", tmp_path / "run", *PROBE)
    assert code == 0
    assert any("3 of 30 files cannot be used" in line for line in lines)
    assert sorted(listed(tmp_path / "run").values()) == ["missing"] * 3


@pytest.mark.parametrize(
    "cache",
    [
        pytest.param(lambda own, patch: patch.setenv("FIELDMARK_CACHE_GB", "0"), id="none is allowed"),
        pytest.param(
            lambda own, patch: (own.write_text("mine"), patch.setenv("FIELDMARK_CACHE", str(own / "cache"))),
            id="the place cannot be written",
        ),
    ],
)
def test_without_room_for_the_cache_training_goes_on_slower_and_says_so(
    sound: Path, tmp_path: Path, door: Door, monkeypatch: pytest.MonkeyPatch, cache: Callable[[Path, Any], object]
) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))
    cache(tmp_path / "file", monkeypatch)
    code, lines = door("train", sound, "--out", tmp_path / "run", *TUNED)
    assert code == 0
    (note,) = (line for line in lines if "has no room for 30 of 30 photos" in line)
    assert "set FIELDMARK_CACHE to a folder on another disk" in note
    assert len(runs.read(tmp_path / "run").photos) == PHOTOS
    assert not list(tmp_path.rglob("pixels/**/*.npy"))


# --- no room for the run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of one megabyte. Needs the right to mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_without_room_for_the_run_ends_in_one_line(sound: Path, small_disk: Path, door: Door) -> None:
    code, lines = door("train", sound, "--out", small_disk / "run", *PROBE)
    assert code == 1
    assert lines[-1].startswith(
        f"fieldmark: {small_disk / 'run'} cannot be written: No space left on device. Make room"
    )
    assert list(small_disk.iterdir()) == []


def test_a_run_that_found_no_room_is_written_later_without_training_again(
    sound: Path, tmp_path: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    command = ("train", sound, "--out", tmp_path / "run", *TUNED)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "write", full)
        code, lines = door(*command)
    assert code == 1
    assert "run cannot be written: No space left on device" in lines[-1]
    assert "--resume" in lines[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["run.unfinished"], "what was learned, and no half run"

    from trainer.checkpoint import Checkpoint

    monkeypatch.setattr(Checkpoint, "save", full)
    code, _ = door(*command, "--resume")
    assert code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_checkpoint_that_finds_no_room_leaves_what_resume_needs(
    sound: Path, tmp_path: Path, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer import checkpoint

    real, saved = checkpoint._write, []

    def full_at_the_second(path: Path, arrays: Any) -> None:
        saved.append(path)
        if len(saved) == 2:
            raise OSError(28, "No space left on device")
        real(path, arrays)

    monkeypatch.setattr(checkpoint, "_write", full_at_the_second)
    command = ("train", sound, "--out", tmp_path / "run", *TUNED, "--epochs", "2")
    code, lines = door(*command)
    assert code == 1
    assert "Free some space; --resume then goes on" in lines[-1]
    assert saved[0].exists()
    code, _ = door(*command, "--resume")
    assert code == 0
    assert len(saved) == 3, "the first epoch is not trained again"
