"""``fieldmark log show`` as a person reads it."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.log import details, store
from edge.log.store import Detection, Failure, FileFacts, FileKey, Observation, PhotoFacts, TimeShift
from edge.photo import Taken
from tests.fakes.camera import BUNDLE

KEY = FileKey("dev", "/photos", "a.jpg", 10, 1)
FILE = FileFacts(KEY, Taken("2024-05-01T06:00:00", "+01:00", "exif", ()), "beech")
PHOTO = PhotoFacts("ab" * 32, 40, 30)
DEER = Detection(BUNDLE, "shades", "deer", 0.9, "species", (("deer", 0.9), ("fox", 0.1)), b"", False)
NEWER = replace(BUNDLE, digest="b2" * 32, name="shades-2", model_digest="a2" * 32)
CUT = Failure("truncated", "it is cut off", retry=True, model_digest=BUNDLE.model_digest)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "log.db"
    with store.open_for_writing(found) as log:
        log.add_bundle(BUNDLE)
        log.add_bundle(NEWER)
    return found


def add(path: Path, photo: PhotoFacts | None, detection: Detection | None, failure: Failure | None = None) -> None:
    with store.open_for_writing(path) as log:
        log.add_file(FILE, photo=photo, detection=detection, failure=failure)


def show(path: Path, file_id: int = 1) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """As JSON, and as the lines of text, each as its name and what it says."""
    with closing(store.open_for_reading(path)) as connection:
        values = details.of_file(connection, file_id, 120.0)
    assert json.loads(json.dumps(values)) == values
    return values, [(line[:10].strip(), line[10:]) for line in details.lines(values)]


def said(path: Path, name: str, file_id: int = 1) -> list[str]:
    return [text for of, text in show(path, file_id)[1] if of == name]


def test_what_counts_comes_first_and_what_was_said_before_is_called_earlier(path: Path) -> None:
    add(path, PHOTO, DEER)
    assert said(path, "label") == ["deer 0.90, said by the model"]
    add(path, PHOTO, replace(DEER, bundle=NEWER, label="fox", confidence=0.8))
    with store.open_for_writing(path) as log:
        log.add_review(PHOTO.sha256, [Observation("fox")], "Ada")
        log.add_review(PHOTO.sha256, [Observation("roe deer", count=2), Observation("fox", comment="behind")], "Grace")
    _, lines = show(path)
    names = [name for name, _ in lines]
    assert names[names.index("review") :] == ["review", "earlier", "model", "earlier", "event"]
    texts = [text for name, text in lines if name in ("label", "review", "earlier", "model")]
    assert [text.split(" at ")[0] for text in texts] == [
        "2 roe deer, 1 fox (behind), said by Grace",
        "2 roe deer, 1 fox (behind) by Grace",
        "1 fox by Ada",
        "fox 0.80 by shades-2 on shades",
        "deer 0.90 by shades-1 on shades",
    ]


@pytest.mark.parametrize(
    ("detection", "damaged", "expected"),
    [
        pytest.param(replace(DEER, label="unknown", decision="unknown", confidence=0.4), False,
                     "unknown, since the model is not sure enough; perhaps deer", id="unsure"),
        pytest.param(replace(DEER, label="Cervidae", decision="rollup"), False,
                     "Cervidae 0.90, said by the model, which is not sure of the species", id="a group"),
        pytest.param(replace(DEER, label="unknown", decision="unknown", top=(("empty", 0.9),)), True,
                     "unknown: what is there of the photo looks empty, but it is damaged", id="damaged and empty"),
        pytest.param(DEER, True, "deer 0.90, said by the model", id="damaged, with an animal"),
    ],
)  # fmt: skip
def test_label_says_how_it_came_about(path: Path, detection: Detection, damaged: bool, expected: str) -> None:
    add(path, replace(PHOTO, damaged=damaged), detection)
    assert said(path, "label") == [expected]
    assert len(said(path, "damaged")) == damaged


def test_failure_says_whether_and_when_it_is_tried_again(path: Path) -> None:
    add(path, None, None, CUT)
    values, _ = show(path)
    assert values["retried"] is True
    assert said(path, "label") == ["-"]
    [failed] = said(path, "failed")
    assert failed.startswith(f"it is cut off (truncated; read once; tried again at {values['next_try_utc'][:10]}")
    for _ in store.RETRY_AFTER_S:
        add(path, None, None, CUT)
    assert said(path, "failed") == ["it is cut off (truncated; read 4 times; tried again at the next start)"]
    for _ in range(store.MOST_TRIES - 4):
        add(path, None, None, CUT)
    [failed] = said(path, "failed")
    assert failed.endswith("read 8 times; not tried again before another model comes)")


def test_video_is_not_tried_again(path: Path) -> None:
    add(path, None, None, Failure("video", "it is a video"))
    assert said(path, "failed") == ["it is a video (video; read once; not tried again)"]
    assert show(path)[0]["retried"] is False


def test_correction_of_the_clock_says_who_and_why(path: Path) -> None:
    add(path, PHOTO, DEER)
    with store.open_for_writing(path) as log:
        log.add_shift(TimeShift(3600, "an hour slow", "Ada", station="beech"))
        log.add_shift(TimeShift(-30, "and half a minute", "Grace"))
        log.add_shift(TimeShift(60, "another station", "Ada", station="oak"))
    values, _ = show(path)
    assert [each["seconds"] for each in values["time_shifts"]] == [3600, -30]
    assert said(path, "taken") == [
        "2024-05-01T06:59:30+01:00, from EXIF; the camera wrote 2024-05-01T06:00:00+01:00"
    ]  # fmt: skip
    assert said(path, "corrected") == ["+01:00:00 by Ada: an hour slow", "-00:00:30 by Grace: and half a minute"]


def test_copies_know_of_each_other(path: Path) -> None:
    add(path, PHOTO, DEER)
    with store.open_for_writing(path) as log:
        for name in ("b.jpg", "c.jpg"):
            log.add_file(replace(FILE, key=replace(KEY, path=name)), photo=PHOTO, detection=None, failure=None)
    assert (said(path, "copy of"), said(path, "copy at")) == ([], ["/photos/b.jpg", "/photos/c.jpg"])
    assert (said(path, "copy of", 2), said(path, "copy at", 2)) == (["/photos/a.jpg"], ["/photos/c.jpg"])


def test_deleted_original_and_its_preview_are_named(path: Path) -> None:
    add(path, replace(PHOTO, preview="blurred"), DEER)
    assert show(path)[0]["deletion"] is None
    with store.open_for_writing(path) as log:
        log.deletion_dropped(log.plan_deletion(1, policy="old", why="empty"), "it has changed")
        log.deletion_done(log.plan_deletion(1, policy="empty-90d", why="empty 0.99", copied_to="/mnt/stick"))
    [deleted] = said(path, "deleted")
    assert deleted.startswith("the original, by the policy empty-90d (empty 0.99), at 2")
    assert deleted.endswith("copied to /mnt/stick")
    assert said(path, "preview") == ["blurred, since a person may be in it"]


def test_time_that_looks_wrong_is_said_in_words(path: Path) -> None:
    with store.open_for_writing(path) as log:
        taken = Taken("2000-01-01T00:00:00", "+00:00", "file", ("offset-assumed", "not-exif"))
        log.add_file(replace(FILE, taken=taken), photo=PHOTO, detection=DEER, failure=None)
    assert said(path, "taken") == ["2000-01-01T00:00:00+00:00, only the file's own time"]
    assert said(path, "") == [
        "nobody said the camera's offset from UTC",
        "looks like a clock that was reset (clock-reset)",
    ]  # fmt: skip
