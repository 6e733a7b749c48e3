"""Folders of folders: classes, classes below parts, classes below stations, and telling one from another."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from edge.errors import DataError
from tests import capabilities
from trainer.dataset import readers
from trainer.dataset.samples import TEST, TRAIN, VALIDATION, Sample


def photos(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def labels(folder: Path, layout: str = "auto") -> list[tuple[str, str | None, str | None]]:
    return [(each.label, each.part, each.station) for each in readers.scan(folder, layout=layout).samples]


# --- parts


def test_folders_of_a_divided_data_set_give_parts(tmp_path: Path) -> None:
    photos(tmp_path, "train/fox/a.jpg", "train/deer/in/b.jpg", "val/fox/c.jpg", "test/deer/d.jpg")
    assert readers.read(tmp_path)[:2] == [
        Sample(tmp_path / "test/deer/d.jpg", "test/deer/d.jpg", "deer", part=TEST),
        Sample(tmp_path / "train/deer/in/b.jpg", "train/deer/in/b.jpg", "deer", part=TRAIN),
    ]
    readers.check_trainable(readers.scan(tmp_path), tmp_path)


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_a_validation_part_has_several_names(tmp_path: Path, name: str) -> None:
    photos(tmp_path, "Train/fox/a.jpg", f"{name}/fox/b.jpg")
    assert {each[1] for each in labels(tmp_path)} == {TRAIN, VALIDATION}


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["test/a.jpg", "fox/b.jpg"], id="a class called test among others"),
        pytest.param(["test/a.jpg", "train/b.jpg"], id="classes called test and train that hold photos"),
        pytest.param(["test/DCIM/a.jpg", "train/DCIM/b.jpg", "fox/DCIM/c.jpg"], id="with a third that is no part"),
        pytest.param(
            ["test/100RECNX/a.jpg", "train/101RECNX/b.jpg"], id="classes called test and train with a camera's folders"
        ),
    ],
)
def test_a_class_may_be_called_test(tmp_path: Path, names: list[str]) -> None:
    photos(tmp_path, *names)
    found = readers.scan(tmp_path).samples
    assert {each.label for each in found} == {name.partition("/")[0] for name in names}
    assert {each.part for each in found} == {None}


def test_a_folder_without_photos_beside_the_parts_does_not_turn_them_into_classes(tmp_path: Path) -> None:
    photos(tmp_path, "train/fox/a.jpg", "test/fox/b.jpg", "docs/page.html")
    assert [each[:2] for each in labels(tmp_path)] == [("fox", TEST), ("fox", TRAIN)]


def test_unlabelled_photos_in_a_part_are_left_out_with_a_reason(tmp_path: Path) -> None:
    photos(tmp_path, "train/fox/a.jpg", "train/deer/b.jpg", "test/1.jpg", "test/2.jpg")
    found = readers.scan(tmp_path)
    assert {each.label for each in found.samples} == {"fox", "deer"}
    assert [(each.name, each.code) for each in found.left_out] == [
        ("test/1.jpg", "no label"),
        ("test/2.jpg", "no label"),
    ]


def test_a_class_that_train_lacks_is_named(tmp_path: Path) -> None:
    photos(tmp_path, "train/fox/a.jpg", "train/deer/b.jpg", "val/boar/c.jpg", "train/boar/notes.txt")
    found = readers.scan(tmp_path)
    with pytest.raises(
        DataError, match="the validation part has the label 'boar' and the train part has no photo of it"
    ):
        readers.check_trainable(found, tmp_path)


def test_parts_without_train_can_be_measured_but_not_trained(tmp_path: Path) -> None:
    photos(tmp_path, "val/fox/a.jpg", "test/deer/b.jpg")
    found = readers.scan(tmp_path)
    assert [(each.label, each.part) for each in found.samples] == [("deer", TEST), ("fox", VALIDATION)]
    with pytest.raises(DataError, match="no train part; found test, validation"):
        readers.check_trainable(found, tmp_path)


def test_a_strange_folder_beside_parts_that_were_asked_for_is_refused(tmp_path: Path) -> None:
    photos(tmp_path, "train/fox/a.jpg", "holdout/fox/b.jpg")
    with pytest.raises(DataError, match="the folder 'holdout' beside its parts"):
        readers.scan(tmp_path, layout="parts")


# --- stations


def test_station_folders_are_recognised_and_the_user_is_told(tmp_path: Path) -> None:
    photos(tmp_path, "A7/fox/a.jpg", "A7/deer/b.jpg", "A8/fox/c.jpg", "A8/boar/100RECNX/d.jpg")
    found = readers.scan(tmp_path)
    assert [(each.label, each.station) for each in found.samples] == [
        ("deer", "A7"), ("fox", "A7"), ("boar", "A8"), ("fox", "A8"),
    ]  # fmt: skip
    assert len(found.notes) == 1
    assert re.search("recur in A7, A8, so these are read as stations.*--layout classes", found.notes[0])


def test_the_user_can_say_otherwise(tmp_path: Path) -> None:
    photos(tmp_path, "A7/fox/a.jpg", "A8/fox/c.jpg")
    assert labels(tmp_path, "classes") == [("A7", None, None), ("A8", None, None)]
    assert readers.scan(tmp_path, layout="classes").notes == []
    assert labels(photos(tmp_path / "b", "A7/fox/a.jpg", "A8/deer/c.jpg"), "stations") == [
        ("fox", None, "A7"), ("deer", None, "A8"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["fox/100RECNX/a.jpg", "deer/100RECNX/b.jpg"], id="a folder of the camera in each class"),
        pytest.param(["fox/2024-05-01/a.jpg", "deer/2024-05-01/b.jpg"], id="a folder per day in each class"),
        pytest.param(["fox/Station A/a.jpg", "deer/Station A/b.jpg"], id="a folder per station in each class"),
        pytest.param(["fox/cam1/a.jpg", "deer/cam1/b.jpg"], id="a folder per camera in each class"),
        pytest.param(["fox/water-hole/a.jpg", "deer/water-hole/b.jpg"], id="a folder per place in each class"),
        pytest.param(["fox/adult/a.jpg", "deer/b.jpg"], id="photos in a top folder"),
        pytest.param(["fox/red/a.jpg", "fox/grey/b.jpg", "deer/roe/c.jpg", "deer/red/d.jpg", "deer/x/e.jpg"],
                     id="inner names of which most do not recur"),
        pytest.param(["fox/adult/a.jpg"], id="one top folder"),
    ],
)  # fmt: skip
def test_classes_with_folders_in_them_are_not_taken_for_stations(tmp_path: Path, names: list[str]) -> None:
    found = readers.scan(photos(tmp_path, *names)).samples
    assert {each.label for each in found} == {name.partition("/")[0] for name in names}
    assert {each.station for each in found} == {None}


def test_camel_is_no_camera(tmp_path: Path) -> None:
    photos(tmp_path, "A7/camel/a.jpg", "A8/camel/b.jpg", "A8/locust/c.jpg")
    assert {each[2] for each in labels(tmp_path)} == {"A7", "A8"}


def test_a_layout_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'flat' is not known, expected one of auto, classes, parts, stations"):
        readers.scan(photos(tmp_path, "fox/a.jpg"), layout="flat")


def test_a_layout_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,label\na.jpg,fox\n")
    with pytest.raises(DataError, match="--layout says how folders are laid out"):
        readers.scan(tmp_path / "labels.csv", layout="stations")


@pytest.mark.needs("real_photos")
def test_the_folders_that_camtrap_r_makes_are_stations() -> None:
    found = readers.scan(capabilities.real_photos() / "camtrapr_stations")
    assert Counter(each.station for each in found.samples) == {"StationA": 9, "StationB": 23, "StationC": 37}
    assert Counter(each.label for each in found.samples)["PBE"] == 27
