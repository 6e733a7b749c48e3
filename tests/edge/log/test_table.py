from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest

from edge.log import table
from edge.log.query import Row
from edge.model.decide import Decision

# What scripts rely on.
IN_BOTH = {
    "schema", "photo", "sha256", "label", "confidence", "failure", "duplicate_of", "taken",
    "model_label", "model_confidence", "top", "decision", "person_label",
}  # fmt: skip
IN_THE_LOG = IN_BOTH | {"id", "device", "station", "event", "bundle", "reviewed", "damaged"}

ROW = Row(
    id=17, device="d1", source="/srv/photos", path="DCIM/IMG_0001.JPG", station="beech", camera=None,
    taken_local="2024-05-01T06:12:09.50", original_local="2024-05-01T06:12:09.50", utc_offset="+01:00",
    taken_source="exif", time_flags=(), photo_id=3,
    sha256="ab" * 32, width=40, height=30, camera_make=None, camera_model=None, camera_serial=None,
    temperature_c=-4.5, burst=2, preview="kept", damaged=False, duplicate_of=None,
    failure_code=None, failure=None, tries=1, classification_id=1, model_label="deer", model_confidence=0.87654321,
    decision="species", top=(("deer", 0.87654321), ("fox", 0.1)), model_digest="a1", bundle_digest="b1",
    bundle="shades-1", runtime="shades", development=True, classified_utc=None, review_id=None, reviewed_by=None,
    reviewed_utc=None, person_label=None, event="e1", event_number=1,
)  # fmt: skip
REVIEWED = replace(ROW, id=18, review_id=1, reviewed_by="Ada", person_label="fox")
FAILED = replace(
    ROW, id=19, photo_id=None, failure="cut", failure_code="truncated", model_label=None, model_confidence=None,
    decision=None, top=(),
)  # fmt: skip
COPY = replace(ROW, id=20, duplicate_of="/srv/photos/first.jpg")
UNSURE = replace(
    ROW, id=21, model_label="unknown", decision="unknown", model_confidence=0.4, event="e2", event_number=9
)


def test_log_json_has_the_keys_that_scripts_rely_on() -> None:
    assert set(table.as_json(ROW)) >= IN_THE_LOG
    assert table.as_json(ROW)["schema"] == 1


def test_classify_json_has_the_keys_that_scripts_rely_on() -> None:
    decision = Decision("deer", 0.9, "species", (("deer", 0.9),))
    found = table.answer_json(
        photo="a.jpg", sha256="ab", taken=None, decision=decision, failure=None, duplicate_of=None
    )
    assert set(found) == IN_BOTH
    assert (found["label"], found["model_label"], found["person_label"]) == ("deer", "deer", None)


def test_persons_label_goes_first_and_the_models_stays() -> None:
    found = table.as_json(REVIEWED)
    assert (found["label"], found["confidence"], found["person_label"]) == ("fox", 1.0, "fox")
    assert (found["model_label"], found["model_confidence"]) == ("deer", 0.876543)
    assert found["reviewed"] is True


def test_failure_has_no_label_and_no_confidence_but_a_time() -> None:
    found = table.as_json(FAILED)
    assert [found[key] for key in ("label", "confidence", "model_label", "decision", "top")] == [None] * 4 + [[]]
    assert (found["failure"], found["taken"]) == ("cut", "2024-05-01T06:12:09.50+01:00")


def test_json_is_one_line_of_ascii() -> None:
    line = table.json_line(table.as_json(replace(ROW, path="Füchse\n1.jpg", station="\u2028")))
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert json.loads(line)["photo"] == "/srv/photos/Füchse\n1.jpg"


def parse_csv(rows: list[Row]) -> list[dict[str, Any]]:
    lines = table.csv_lines(table.LOG_COLUMNS, map(table.as_json, rows))
    return list(csv.DictReader(io.StringIO("\n".join(lines))))


def test_csv_reads_back() -> None:
    [deer, failed] = parse_csv([ROW, FAILED])
    assert (deer["label"], deer["development"], deer["reviewed"]) == ("deer", "true", "false")
    assert json.loads(deer["top"]) == [["deer", 0.876543], ["fox", 0.1]]
    assert (failed["label"], failed["failure"]) == ("", "cut")


@pytest.mark.parametrize("label", ['=HYPERLINK("x")', "+1", "-1", "@SUM(A1)"])
def test_csv_cell_that_a_spreadsheet_would_run_is_made_text(label: str) -> None:
    assert parse_csv([replace(ROW, person_label=label)])[0]["label"] == f"'{label}"


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\r\nb.jpg", "a\rb.jpg", "a\n1,/forged.jpg,,deer", 'a",b\n".jpg'])
def test_csv_row_stays_one_row_whatever_is_in_a_name(name: str) -> None:
    lines = table.csv_lines(table.LOG_COLUMNS, map(table.as_json, [replace(ROW, path=name), FAILED]))
    found = list(csv.DictReader(io.StringIO("\r\n".join(lines), newline="")))
    assert [each["photo"] for each in found] == [f"/srv/photos/{name}", FAILED.photo]


def test_table_is_aligned_also_with_wide_letters() -> None:
    lines = table.aligned([("label", "conf"), ("鹿", "0.90"), ("Rehbock", "0.10")])
    assert lines == ["label    conf", "鹿       0.90", "Rehbock  0.10"]


def test_table_shows_what_could_control_a_terminal() -> None:
    [line] = table.aligned([("a\x1b[2J\nb.jpg", "x")])
    assert line == r"a\x1b[2J\nb.jpg  x"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param(ROW, "17 | 2024-05-01 06:12:09 | beech | deer | 0.88 | DCIM/IMG_0001.JPG | ", id="a detection"),
        pytest.param(
            REVIEWED,
            "18 | 2024-05-01 06:12:09 | beech | fox | person | DCIM/IMG_0001.JPG | the model said deer",
            id="a correction",
        ),
        pytest.param(
            FAILED, "19 | 2024-05-01 06:12:09 | beech | - | - | DCIM/IMG_0001.JPG | failed: cut", id="a failure"
        ),
        pytest.param(
            COPY,
            "20 | 2024-05-01 06:12:09 | beech | deer | 0.88 | DCIM/IMG_0001.JPG | copy of /srv/photos/first.jpg",
            id="a copy",
        ),
        pytest.param(
            replace(ROW, taken_source="file", time_flags=("not-exif", "clock-reset")),
            "17 | 2024-05-01 06:12:09 | beech | deer | 0.88 | DCIM/IMG_0001.JPG "
            "| time: only the file's, time: clock-reset",
            id="a time that is doubtful",
        ),
        pytest.param(
            UNSURE, "21 | 2024-05-01 06:12:09 | beech | unknown | 0.40 | DCIM/IMG_0001.JPG | perhaps deer", id="unsure"
        ),
    ],
)
def test_row_of_the_table(row: Row, expected: str) -> None:
    assert " | ".join(table.cells(row)) == expected


def test_summary_counts_photos_and_events_once() -> None:
    summary = table.Summary()
    rows = [ROW, replace(ROW, id=22), COPY, REVIEWED, FAILED, UNSURE]
    assert list(summary.counting(rows)) == rows
    assert summary.lines() == [
        "deer     2 photos  1 event",
        "fox      1 photo   1 event",
        "unknown  1 photo   1 event",
        "6 files, 1 of them copies, 1 failed.",
    ]


def test_summary_counts_a_file_once_whose_models_each_have_a_row() -> None:
    summary = table.Summary()
    for label in ("deer", "fox", "deer"):
        summary.add(replace(ROW, model_label=label))
    summary.add(replace(COPY, model_label="deer"))
    summary.add(replace(COPY, model_label="fox"))
    assert summary.lines() == [
        "deer  1 photo  1 event",
        "fox   1 photo  1 event",
        "2 files, 1 of them copies.",
    ]


def test_line_of_classify_says_what_failed_and_what_it_might_be() -> None:
    unsure = Decision("unknown", 0.4, "unknown", (("deer", 0.4),))
    common: dict[str, Any] = {"sha256": None, "taken": None, "duplicate_of": None}
    line = table.answer_line(table.answer_json(photo="a\n.jpg", decision=unsure, failure=None, **common))
    assert line == "unknown              0.40  a\\n.jpg  perhaps deer"
    assert "failed: cut" in table.answer_line(table.answer_json(photo="a", decision=None, failure="cut", **common))
