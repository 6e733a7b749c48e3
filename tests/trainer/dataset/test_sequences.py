"""A sequence is known by its station and its number: stations may each count their own from 1."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from trainer.cli import app

STATIONS = ("North", "South", "")


class Line(NamedTuple):
    """What a label file says of a photo."""

    file: str
    label: str
    station: str
    sequence: str
    part: str


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def lines(tmp_path: Path) -> list[Line]:
    """Three places, the last without a name; at each the sequences 1 to 4 of two photos that look nothing alike."""
    random = np.random.default_rng(3)
    found = []
    for number, station in enumerate(STATIONS):
        for sequence in range(1, 5):
            for shot in range(2):
                name = f"{number}-{sequence}-{shot}.png"
                coarse = Image.fromarray(random.integers(0, 255, (6, 8, 3), dtype=np.uint8))
                coarse.resize((80, 60), Image.Resampling.BICUBIC).save(tmp_path / name)
                part = "test" if number else "train"
                found.append(Line(name, ("deer", "fox")[sequence % 2], station, str(sequence), part))
    return found


def table(folder: Path, lines: list[Line]) -> Path:
    path = folder / "labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([Line._fields, *lines])
    return path


def coco(folder: Path, lines: list[Line]) -> Path:
    labels = sorted({line.label for line in lines})
    images = [
        {"id": line.file, "file_name": line.file, "location": line.station or None, "seq_id": int(line.sequence)}
        for line in lines
    ]
    said = [{"id": i, "image_id": line.file, "category_id": labels.index(line.label)} for i, line in enumerate(lines)]
    categories = [{"id": i, "name": label} for i, label in enumerate(labels)]
    path = folder / "labels.json"
    path.write_text(json.dumps({"images": images, "annotations": said, "categories": categories}))
    return path


def looked_over(data: Path) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["dataset", "check", str(data), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("write", [table, coco])
def test_sequences_of_one_number_at_several_stations_are_groups_of_their_own(
    write: Callable[[Path, list[Line]], Path], lines: list[Line], tmp_path: Path
) -> None:
    result = looked_over(write(tmp_path, lines))
    assert result["groups"] == len(STATIONS) * 4
    (by_sequence,) = (each for each in result["questions"] if each["name"] == "new sequence")
    assert by_sequence["possible"]


def test_sequences_that_only_share_their_number_leak_nothing(lines: list[Line], tmp_path: Path) -> None:
    assert looked_over(table(tmp_path, lines))["leaks"] == []


def test_a_sequence_that_is_cut_by_the_parts_leaks_at_a_station_and_at_none(lines: list[Line], tmp_path: Path) -> None:
    cut = [line._replace(part="train" if line.file.endswith("0.png") else "test") for line in lines]
    leaks = looked_over(table(tmp_path, cut))["leaks"]
    assert {(leak["photo"], leak["other"]) for leak in leaks} == {
        (line.file, line.file.replace("1.png", "0.png")) for line in lines if line.file.endswith("1.png")
    }
    assert {leak["why"] for leak in leaks} == {"same sequence"}
