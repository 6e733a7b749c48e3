"""The run: what was written is read back, and a folder that is none is refused with what to do."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.errors import FieldmarkError
from edge.model.spec import InputSpec
from trainer import run
from trainer.dataset.samples import Unreadable

FACTS = run.Facts(
    name="fox",
    created="2026-05-01T12:00:00+00:00",
    data_folder="/photos",
    labels=("deer", "Füchsin", "empty"),
    input=InputSpec(96, 96, aspect="pad", cut_bottom=40),
    backbone="efficientnet-lite0",
    kept="probe",
    question="new burst",
    split="6 train, 2 validation, 2 hold-out",
    temperature=1.5,
    thresholds=(0.5, 0.5, 0.9),
    refitted=True,
    dataset_digest="ab" * 32,
    settings={"epochs": 12},
    metrics={"holdout": {"accuracy": 0.5}},
    seconds={"probe": 1.25},
    trained_with="tensorflow 2, keras 3",
)
PHOTOS = [
    run.PhotoLine("deer/a,b.jpg", "deer", run.TRAIN, 0, "aa" * 32, "deer", 0.9871, True, "A1", True),
    run.PhotoLine('Füchsin/"1".jpg', "Füchsin", run.HOLDOUT, 7, "bb" * 32, "deer", 1.0),
]
BAD = [Unreadable("deer/x.jpg", "deer", "truncated", "the photo is truncated: its last part is missing.")]
HISTORY = [{"epoch": 1, "loss": 0.5, "accuracy": 0.75}, {"epoch": 2, "loss": 0.25, "accuracy": 1.0}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run."""
    run.write(tmp_path, FACTS, PHOTOS, BAD, HISTORY)
    return tmp_path


def test_what_was_written_is_read_back(folder: Path) -> None:
    found = run.read(folder)
    assert found.facts == FACTS
    assert found.photos == tuple(PHOTOS)
    assert found.model_path == folder / "model.keras"
    assert found.measured_path == folder / "measured.keras"


def test_a_person_can_read_it(folder: Path) -> None:
    assert (folder / "labels.txt").read_text(encoding="utf-8") == "deer\nFüchsin\nempty\n"
    with (folder / "unreadable.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"name": "deer/x.jpg", "label": "deer", "code": "truncated", "reason": BAD[0].reason}
        ]
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    assert "Füchsin" in (folder / "run.json").read_text(encoding="utf-8")


def test_a_run_without_fine_tuning_has_no_history(tmp_path: Path) -> None:
    run.write(tmp_path, FACTS, PHOTOS, [], [])
    assert not (tmp_path / "history.csv").exists()
    assert (tmp_path / "unreadable.csv").read_text(encoding="utf-8") == "name,label,code,reason\n" or (
        tmp_path / "unreadable.csv"
    ).read_bytes() == b"name,label,code,reason\r\n"


def _facts(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        change(content)
        (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")

    return damage


def _text(name: str, text: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_text(text, encoding="utf-8")

    return damage


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        pytest.param(lambda f: (f / "run.json").unlink(), "is no run: .*run.json is missing", id="no run.json"),
        pytest.param(lambda f: (f / "photos.csv").unlink(), "is no run: .*photos.csv is missing", id="no photos.csv"),
        pytest.param(_text("run.json", ""), "damaged run", id="an empty run.json"),
        pytest.param(_text("run.json", "[]"), "damaged run", id="a list"),
        pytest.param(_text("run.json", "null"), "damaged run", id="null"),
        pytest.param(_facts(lambda c: c.update(format=99)), "format 99, expected 2", id="a newer format"),
        pytest.param(_facts(lambda c: c.pop("format")), "damaged run", id="no format"),
        pytest.param(_facts(lambda c: c.pop("labels")), "damaged run", id="no labels"),
        pytest.param(_facts(lambda c: c.update(more=1)), "damaged run", id="a key too many"),
        pytest.param(_facts(lambda c: c["input"].update(mean=127)), "damaged run", id="an input too many"),
        pytest.param(_facts(lambda c: c["input"].update(height=0)), "input height is 0", id="an impossible input"),
        pytest.param(_text("photos.csv", "photo,label\na,b\n"), "damaged run", id="columns missing"),
        pytest.param(
            _text("photos.csv", ",".join(run.PhotoLine.__dataclass_fields__) + "\na,b,train,x,c,d,0.5,,,\n"),
            "damaged run", id="a group that is no number",
        ),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_whole_run_is_refused(folder: Path, damage: Callable[[Path], None], says: str) -> None:
    damage(folder)
    with pytest.raises(FieldmarkError, match=says):
        run.read(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FieldmarkError, match="Give the folder that train wrote"):
        run.read(tmp_path / "none")


def test_confidences_survive_the_text_file(tmp_path: Path) -> None:
    lines = [replace(PHOTOS[0], confidence=value) for value in (0.0, 1.0, 0.3333, 1e-4)]
    run.write(tmp_path, FACTS, lines, [], [])
    assert [line.confidence for line in run.read(tmp_path).photos] == [0.0, 1.0, 0.3333, 1e-4]
