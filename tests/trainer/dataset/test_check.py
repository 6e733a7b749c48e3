"""What a look over a data set finds, says and shows."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from edge.errors import DataError
from edge.model.spec import InputSpec
from tests.trainer import drawn
from trainer import contact_sheet
from trainer import run as runs
from trainer.dataset import check, check_sheets, check_words
from trainer.dataset.findings import BoxDoubt, Check, Conflict, PartLeak, Suspicion
from trainer.progress import Steps


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Deer, empty and fox: five bursts of two photos each, on five days."""
    drawn.write_set(tmp_path / "data", per_burst=2)
    return tmp_path / "data"


def look(data: Path, **options: Path) -> Check:
    return check.check(data, steps=Steps(quiet=True), **options)  # type: ignore[arg-type]


def said(result: Check) -> str:
    return "\n".join(check_words.lines(result))


def again(source: Path, target: Path, quality: int = 60, scale: float = 0.7) -> None:
    """The picture of a photo as a messenger passes it on: smaller, without EXIF."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as image:
        image.resize((int(image.width * scale), int(image.height * scale))).save(target, quality=quality)


# --- what is found


def test_a_sound_data_set_is_counted_and_has_no_problems(data: Path) -> None:
    result = look(data)
    assert (result.n, result.groups, result.imbalance) == (30, 15, 1.0)
    assert {name: (facts.count, facts.groups) for name, facts in result.labels.items()} == {
        "deer": (10, 5),
        "empty": (10, 5),
        "fox": (10, 5),
    }
    assert result.times == {"known": 30, "first": "2025-04-01T06:00:00", "last": "2025-04-05T08:00:20"}
    assert [division.name for division in result.questions if division.asked] == ["same stations, later"]
    assert not result.problems
    assert "No problems found." in said(result)


def test_why_a_harder_question_cannot_be_asked_is_said(data: Path) -> None:
    assert "  not new station: the data set names no stations." in check_words.lines(look(data))


def test_the_same_file_under_two_labels_comes_first_of_all_problems(data: Path) -> None:
    shutil.copy(data / "deer/IMG_0000.jpg", data / "fox/copy.jpg")
    (data / "fox/broken.jpg").write_bytes(b"no photo")
    result = look(data)
    assert result.label_conflicts == [Conflict("deer/IMG_0000.jpg", "deer", "fox/copy.jpg", "fox", "same file")]
    assert result.problems[0] == (
        "1 time is the same file there under two labels, such as deer/IMG_0000.jpg (deer) and fox/copy.jpg (fox). "
        "Decide for one."
    )
    assert [bad.name for bad in result.unreadable] == ["fox/broken.jpg"]
    assert result.problems[1].startswith("1 file cannot be used (1 unrecognised). fox/broken.jpg: ")


def test_the_same_picture_made_smaller_under_another_label_is_found(data: Path) -> None:
    (data / "deer/IMG_0301.jpg").unlink()
    again(data / "deer/IMG_0300.jpg", data / "fox/from a friend.jpg")
    (conflict,) = look(data).label_conflicts[:1]
    assert {conflict.photo, conflict.other} == {"deer/IMG_0300.jpg", "fox/from a friend.jpg"}
    assert conflict.why == "same picture"


def test_two_shots_of_one_scene_with_two_labels_are_no_conflict_if_their_times_differ(data: Path) -> None:
    """The animal may have gone between them."""
    random = np.random.default_rng(9)
    scene = drawn.draw("empty", random)
    for label, second in (("deer", 0), ("empty", 20)):
        taken = datetime(2025, 5, 1, 6) + timedelta(seconds=second)
        drawn.write(data / label / "IMG_9000.jpg", scene, taken, random)
    assert not look(data).label_conflicts


def test_copies_and_near_duplicates_are_sets_of_names(data: Path) -> None:
    shutil.copy(data / "deer/IMG_0000.jpg", data / "deer/copy.jpg")
    result = look(data)
    assert result.exact_duplicates == [["deer/IMG_0000.jpg", "deer/copy.jpg"]]
    assert ["deer/IMG_0000.jpg", "deer/IMG_0001.jpg", "deer/copy.jpg"] in result.near_duplicates
    assert "1 photo more than needed: the same file is there twice or more often." in result.notes


def divided(data: Path, target: Path) -> Path:
    """Bursts 0 to 2 to train, 3 to val, 4 to test."""
    for path in sorted(data.rglob("*.jpg")):
        part = {"03": "val", "04": "test"}.get(path.name[4:6], "train")
        place = target / part / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return target


def test_a_clean_division_has_no_leaks_and_is_taken_as_given(data: Path, tmp_path: Path) -> None:
    result = look(divided(data, tmp_path / "parts"))
    assert not result.leaks
    assert [each.name for each in result.questions if each.asked] == ["as given"]
    assert not result.problems


def test_photos_that_leak_between_given_parts_are_named_with_the_reason(data: Path, tmp_path: Path) -> None:
    parts = divided(data, tmp_path / "parts")
    shutil.copy(parts / "train/deer/IMG_0000.jpg", parts / "test/deer/known.jpg")
    shutil.move(parts / "train/fox/IMG_0101.jpg", parts / "val/fox/IMG_0101.jpg")
    result = look(parts)
    assert result.leaks == [
        PartLeak("test/deer/known.jpg", "test", "train/deer/IMG_0000.jpg", "train", "same file"),
        PartLeak("val/fox/IMG_0101.jpg", "validation", "train/fox/IMG_0100.jpg", "train", "near-duplicate"),
    ]
    assert result.problems[0].startswith("2 photos of a later part have their like in an earlier one (1 same file, ")


def test_what_training_would_refuse_is_a_problem(data: Path, tmp_path: Path) -> None:
    parts = divided(data, tmp_path / "parts")
    shutil.rmtree(parts / "train/fox")
    shutil.rmtree(parts / "val/fox")
    problems = look(parts).problems
    assert "'fox'" in problems[0]
    assert any(problem.startswith("No honest test is possible. ") for problem in problems)


def test_a_label_that_is_told_by_its_infrared_light_is_pointed_out(data: Path) -> None:
    for path in (data / "fox").iterdir():
        with Image.open(path) as image:
            ImageOps.grayscale(image).save(path, exif=image.getexif())
    result = look(data)
    assert result.labels["fox"].infrared_share == 1.0
    assert "All of fox and 0% of the rest are infrared: a model may learn that, not the animal." in result.notes


def test_a_label_of_one_burst_and_an_uneven_set_are_pointed_out(data: Path) -> None:
    for path in sorted((data / "fox").iterdir())[1:]:
        path.unlink()
    result = look(data)
    assert result.imbalance == 10.0
    assert any(problem.startswith("fox: all photos are of one burst") for problem in result.problems)
    assert any(" has 10 times as many photos as fox" in note for note in result.notes)


def test_a_data_set_of_which_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data/deer").mkdir(parents=True)
    (tmp_path / "data/deer/a.jpg").write_bytes(b"no photo")
    with pytest.raises(DataError, match="none of 1 files can be used"):
        look(tmp_path / "data")


# --- what a model and a detector say


def run_on(data: Path, folder: Path, predicted: dict[str, tuple[str, float, bool]]) -> Path:
    """A run whose model says something else of some photos: label, confidence, whether it did not learn from them."""
    result = look(data)
    lines = []
    for name, sample in result.samples.items():
        label, confidence, unseen = predicted.get(name, (sample.label, 0.99, True))
        lines.append(runs.PhotoLine(name, sample.label, runs.TRAIN, 0, _sha256(sample.path), label, confidence, unseen))
    folder.mkdir()
    facts = runs.Facts(
        name="r", created="2026-05-01T12:00:00+00:00", data_folder=str(data), labels=("deer", "empty", "fox"),
        input=InputSpec(96, 96), backbone="b", kept="probe", question="new burst", split="", temperature=1.0,
        thresholds=(0.5, 0.5, 0.5), refitted=False, dataset_digest="ab" * 32, settings={}, metrics={}, seconds={},
        trained_with="",
    )  # fmt: skip
    runs.write(folder, facts, lines, [], [])
    return folder


def _sha256(path: Path) -> str:
    from edge import photo

    return photo.read(path).sha256


def test_confident_disagreements_of_a_model_that_did_not_learn_from_the_photo_are_suspicious(
    data: Path, tmp_path: Path
) -> None:
    run = run_on(
        data,
        tmp_path / "run",
        {
            "deer/IMG_0000.jpg": ("fox", 0.91, True),
            "deer/IMG_0100.jpg": ("fox", 0.97, True),
            "deer/IMG_0200.jpg": ("fox", 0.79, True),
            "deer/IMG_0300.jpg": ("fox", 0.99, False),
        },
    )
    result = look(data, run=run)
    assert result.suspicious == [
        Suspicion("deer/IMG_0100.jpg", "deer", "fox", 0.97),
        Suspicion("deer/IMG_0000.jpg", "deer", "fox", 0.91),
    ]
    assert "2 photos may be labelled wrongly: the model says otherwise, most surely of deer/IMG_0100.jpg" in said(
        result
    )
    (data / "deer/IMG_0100.jpg").rename(data / "fox/corrected.jpg")
    assert [each.photo for each in look(data, run=run).suspicious] == ["deer/IMG_0000.jpg"]


def test_a_run_on_other_photos_is_refused(data: Path, tmp_path: Path) -> None:
    run = run_on(data, tmp_path / "run", {})
    drawn.write_set(tmp_path / "other", bursts=2, per_burst=1, seed=5)
    with pytest.raises(DataError, match="knows none of these photos"):
        look(tmp_path / "other", run=run)


def boxes_file(path: Path, found: dict[str, float | None]) -> Path:
    """A detector's results: the confidence of an animal in each photo, or None of nothing."""
    images = [
        {
            "file": name,
            "detections": [] if sure is None else [{"category": "1", "conf": sure, "bbox": [0.2, 0.3, 0.4, 0.5]}],
        }
        for name, sure in found.items()
    ]
    path.write_text(json.dumps({"info": {}, "detection_categories": {"1": "animal"}, "images": images}))
    return path


def test_boxes_that_speak_against_a_label_are_told(data: Path, tmp_path: Path) -> None:
    names = [path.relative_to(data).as_posix() for path in sorted(data.rglob("*.jpg"))]
    sure: dict[str, float | None] = {name: None if name.startswith("empty") else 0.9 for name in names}
    sure |= {"empty/IMG_0000.jpg": 0.9, "empty/IMG_0100.jpg": 0.3, "fox/IMG_0000.jpg": None, "fox/IMG_0100.jpg": 0.3}
    result = look(data, boxes=boxes_file(tmp_path / "boxes.json", sure))
    assert result.boxes == [
        BoxDoubt("empty/IMG_0000.jpg", "empty", "an animal is marked in it"),
        BoxDoubt("fox/IMG_0000.jpg", "fox", "no animal is marked in it"),
    ]


def test_boxes_of_a_few_photos_only_say_nothing_of_the_others(data: Path, tmp_path: Path) -> None:
    boxes = boxes_file(tmp_path / "boxes.json", {"fox/IMG_0000.jpg": 0.9})
    assert not look(data, boxes=boxes).boxes


# --- what is shown


def test_facts_are_json_without_paths(data: Path) -> None:
    facts = json.loads(json.dumps(look(data).facts()))
    assert facts["labels"]["deer"] == {"count": 10, "groups": 5, "stations": 0, "infrared_share": 0.0}
    assert "samples" not in facts
    assert set(facts) >= {
        "n", "unreadable", "labels", "exact_duplicates", "near_duplicates", "label_conflicts", "leaks", "imbalance",
        "stations", "times", "questions", "suspicious", "boxes", "problems", "notes",
    }  # fmt: skip


def test_sheets_show_what_was_found_and_a_later_check_takes_away_what_is_mended(data: Path, tmp_path: Path) -> None:
    copy = data / "fox/copy.jpg"
    shutil.copy(data / "deer/IMG_0000.jpg", copy)
    out = tmp_path / "sheets"
    names = {path.name for path in check_sheets.write_sheets(look(data), out)}
    assert names == {"label_conflicts.jpg", "duplicates.jpg", "labels.jpg", "findings.csv", "unreadable.csv"}
    with (out / "findings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "kind": "same file, two labels",
        "photo": "deer/IMG_0000.jpg",
        "label_or_part": "deer",
        "other": "fox/copy.jpg",
        "other_label_or_part": "fox",
    }
    copy.unlink()
    check_sheets.write_sheets(look(data), out)
    assert not (out / "label_conflicts.jpg").exists()


def test_sheets_do_not_grow_without_end(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_sheet, "MOST", 2)
    check_sheets.write_sheets(look(data), tmp_path / "sheets")
    with Image.open(tmp_path / "sheets/duplicates.jpg") as sheet:
        assert sheet.height < 2 * contact_sheet.TILE_HEIGHT


def test_a_folder_that_cannot_be_written_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written to"):
        check_sheets.write_sheets(look(data), tmp_path / "file" / "sheets")


def test_a_name_that_would_drive_a_terminal_is_shown_and_not_obeyed(data: Path) -> None:
    (data / "fox/a\x1b[31m.jpg").write_bytes(b"no photo")
    assert "\x1b" not in said(look(data))


def test_a_check_needs_no_tensorflow() -> None:
    code = "import sys, trainer.dataset.check; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
