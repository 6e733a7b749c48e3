from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import shutil
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Event

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from PIL import Image

from edge import photo as photos
from edge.agent import examine, loop
from edge.agent.config import Source
from edge.agent.loop import Done, Help, Intake, Outcome, StopFlag, stopped_by_signals
from edge.agent.watch import Candidate, Watch, scan
from edge.errors import LogError, ModelError, PhotoError
from edge.log import query, store
from edge.log.query import Row
from edge.log.unclassified import unclassified
from edge.model.classify import Answer
from edge.model.decide import Decision
from tests import capabilities
from tests.fakes.camera import BUNDLE, ShadeClassifier, Silent, jpeg, model, need_leases, put


class Place:
    """A folder of photos, a log, and an agent that can be started again and again."""

    def __init__(self, folder: Path, source: Source | None = None) -> None:
        self.photos, self.database = folder / "photos", folder / "log.db"
        self.photos.mkdir(parents=True)
        self.source = source or Source(self.photos, station="beech", utc_offset="+01:00")
        self.classifier = ShadeClassifier()

    def run(self, *, bundle: store.BundleFacts = BUNDLE, help: Help | None = None) -> Counter[Outcome]:
        """Start the agent, drain the folder, end."""
        with store.open_for_writing(self.database) as log:
            intake = Intake(log, model(self.classifier, bundle), "device", help=help)
            watch = Watch([self.source], known=intake.known, hints=Silent(), settle_s=0)
            self.done: list[Done] = []
            for done in intake.take_all(watch.backlog(Event(), patience_s=0.0), watch.put_back):
                self.done += [done] if done else []
            return intake.counts

    def reclassify(self, bundle: store.BundleFacts) -> list[tuple[str, Outcome]]:
        """Start the agent with another model on the photos in the log alone."""
        with store.open_for_writing(self.database) as log:
            intake = Intake(log, model(self.classifier, bundle), "device")
            with closing(store.open_for_reading(self.database)) as connection:
                keys = list(unclassified(connection, "device", bundle.model_digest))
            old = (Candidate(self.source, self.photos / key.path, key.path, key.size_bytes, key.mtime_ns, old=True)
                   for key in keys)  # fmt: skip
            return [(each.candidate.text, each.outcome) for each in intake.take_all(old, lambda _: None) if each]

    def rows(self) -> list[Row]:
        with closing(store.open_for_reading(self.database)) as connection:
            return list(query.rows(connection))

    def count(self, table: str) -> int:
        with closing(store.open_for_reading(self.database)) as connection:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def summary(rows: list[Row]) -> dict[str, str | None]:
    return {row.path: row.failure_code or row.label for row in rows}


# What becomes of a photo


def test_photo_becomes_a_row_with_label_time_place_and_camera(place: Place) -> None:
    put(place.photos / "DCIM" / "IMG_0001.JPG", jpeg(10, taken="2024:05:01 06:12:09"))
    assert place.run() == {Outcome.CLASSIFIED: 1}
    [row] = place.rows()
    assert (row.path, row.label, row.decision, row.failure) == ("DCIM/IMG_0001.JPG", "deer", "species", None)
    assert (row.taken, row.taken_source, row.station) == ("2024-05-01T06:12:09+01:00", "exif", "beech")
    assert (row.width, row.height) == (32, 16)
    assert row.sha256 is not None
    assert (row.bundle, row.runtime, row.development) == ("shades-1", "shades", True)


def test_logits_are_kept_exactly(place: Place) -> None:
    put(place.photos / "a.jpg", jpeg(128))
    place.run()
    with closing(store.open_for_reading(place.database)) as connection:
        [(logits,)] = connection.execute("SELECT logits FROM classification").fetchall()
    assert len(logits) == 12
    assert logits[4:8] == b"\x00\x00\x80\x40"  # 4.0 as little-endian float32


def cmyk(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("CMYK", (40, 30), (0, 0, 0, 255 - shade)).save(out, "JPEG")
    return out.getvalue()


def png(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (40, 30), shade).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param("a.jpg", jpeg(10), "deer", id="a JPEG is classified"),
        pytest.param("a.png", png(250), "fox", id="a PNG is classified"),
        pytest.param("a.jpg", png(250), "fox", id="a PNG that is called JPEG is classified"),
        pytest.param("a.jpg", cmyk(5), "deer", id="a CMYK JPEG is classified"),
        pytest.param("a.jpg", jpeg(10, orientation=6), "deer", id="a rotated JPEG is classified"),
        pytest.param("a.jpg", jpeg(128), "empty", id="an empty photo is a row too"),
        pytest.param("a.jpg", jpeg(10, side=900)[:1500], "truncated", id="a truncated JPEG fails with its reason"),
        pytest.param("a.jpg", b"", "empty", id="a file of no bytes fails"),
        pytest.param("a.jpg", b"GIF89a" + bytes(50), "unrecognised", id="what is no photo fails"),
        pytest.param("a.MP4", b"\0\0\0\x18ftypmp42", "video", id="a video fails"),
    ],
)
def test_every_kind_of_file_ends_as_one_row(place: Place, name: str, content: bytes, expected: str) -> None:
    put(place.photos / name, content)
    place.run()
    [row] = place.rows()
    assert (row.failure_code or row.label) == expected
    assert (row.failure is None) == (row.model_label is not None)


@pytest.mark.needs("real_photos")
def test_real_edge_cases_each_end_as_a_row(place: Place) -> None:
    for path in sorted((capabilities.real_photos() / "edge_cases").iterdir()):
        shutil.copyfile(path, place.photos / path.name)
    put(place.photos / "zero.jpg", b"")
    place.run()
    rows = {row.path: row for row in place.rows()}
    assert set(rows) == set(os.listdir(place.photos))
    failures = {name: row.failure_code for name, row in rows.items() if row.failure}
    assert failures == {
        "african_elephants_truncated_file.jpg": "truncated",
        "video_in_photo_folder.MP4": "video",
        "zero.jpg": "empty",
    }


def test_picture_of_another_format_says_which(place: Place) -> None:
    put(place.photos / "a.HEIC", b"\0\0\0\x18ftypheic")
    put(place.photos / "b.heic", jpeg(10))
    place.run()
    other, misnamed = place.rows()
    assert (other.failure_code, str(other.failure)[:24]) == ("unrecognised", "a.HEIC is a HEIC picture")
    assert misnamed.label == "deer"


def test_failed_photo_keeps_its_time_from_exif(place: Place) -> None:
    put(place.photos / "a.jpg", jpeg(10, side=900, taken="2024:05:01 06:12:09")[:1500])
    place.run()
    [row] = place.rows()
    assert (row.failure_code, row.taken_local, row.taken_source) == ("truncated", "2024-05-01T06:12:09", "exif")


def test_time_beyond_the_calendar_ends_nothing(place: Place) -> None:
    path = put(place.photos / "a.jpg", jpeg(10))
    os.utime(path, (2**33, 2**33))
    place.run()
    assert summary(place.rows()) == {"a.jpg": "deer"}


def test_name_that_is_not_utf8_is_a_row_also_when_it_fails(place: Place) -> None:
    put(place.photos / os.fsdecode(b"caf\xe9.jpg"), jpeg(10))
    put(place.photos / os.fsdecode(b"caf\xe8.jpg"), b"")
    place.run()
    assert summary(place.rows()) == {"caf%E9.jpg": "deer", "caf%E8.jpg": "empty"}
    assert place.run() == {}


def test_original_is_never_touched(place: Place) -> None:
    path = put(place.photos / "a.jpg", jpeg(10))
    broken = put(place.photos / "b.jpg", b"broken")
    before = [(each.read_bytes(), each.stat().st_mtime_ns, each.stat().st_mode) for each in (path, broken)]
    place.run()
    assert [(each.read_bytes(), each.stat().st_mtime_ns, each.stat().st_mode) for each in (path, broken)] == before


def cut(content: bytes, share: float) -> bytes:
    """A JPEG whose last part is missing, with an end marker all the same."""
    return content[: int(len(content) * share)] + b"\xff\xd9"


@pytest.mark.parametrize(
    ("shade", "label", "decision"),
    [
        pytest.param(30, "deer", "species", id="what it shows is said all the same"),
        pytest.param(131, "unknown", "unknown", id="what shows nothing is not called empty"),
    ],
)
def test_damaged_photo_is_classified_and_flagged(place: Place, shade: int, label: str, decision: str) -> None:
    put(place.photos / "a.jpg", cut(jpeg(shade, side=1600), 0.8))
    assert place.run() == {Outcome.CLASSIFIED: 1}
    [row] = place.rows()
    assert (row.damaged, row.label, row.decision, row.failure) == (True, label, decision, None)
    assert place.done[0].reason is not None
    with closing(store.open_for_reading(place.database)) as connection:
        [(top, confidence)] = connection.execute("SELECT top, confidence FROM classification").fetchall()
    assert json.loads(top)[0][1] == confidence  # the model's own probabilities


def test_photo_that_is_whole_is_not_flagged(place: Place) -> None:
    put(place.photos / "a.jpg", jpeg(131, side=1600))
    place.run()
    [row] = place.rows()
    assert (row.damaged, row.label) == (False, "empty")


def test_camera_s_facts_come_into_the_log(place: Place) -> None:
    made = Image.Exif()
    detail = made.get_ifd(0x8769)
    detail[0xA431], detail[0x9400] = "H2X-77", -3.5
    out = io.BytesIO()
    Image.new("RGB", (32, 16)).save(out, "JPEG", exif=made)
    put(place.photos / "a.jpg", out.getvalue())
    place.run()
    with closing(store.open_for_reading(place.database)) as connection:
        [found] = connection.execute("SELECT camera_serial, temperature_c, burst FROM photo").fetchall()
    assert found == ("H2X-77", -3.5, None)


# Once and only once


def test_restart_adds_no_second_row_and_asks_the_model_nothing(place: Place) -> None:
    put(place.photos / "a.jpg", jpeg(10))
    put(place.photos / "b.jpg", b"broken")
    place.run()
    before = place.rows()
    assert place.run() == {}
    assert place.rows() == before
    assert place.classifier.asked == 1


def test_copy_is_a_row_without_inference(place: Place) -> None:
    put(place.photos / "a.jpg", jpeg(10))
    put(place.photos / "b.jpg", jpeg(10))
    assert place.run() == {Outcome.CLASSIFIED: 1, Outcome.DUPLICATE: 1}
    first, copy = place.rows()
    assert (copy.label, copy.duplicate_of) == ("deer", first.photo)
    assert place.classifier.asked == 1


def test_name_that_a_camera_uses_again_is_another_photo(place: Place) -> None:
    put(place.photos / "IMG_0001.JPG", jpeg(10))
    place.run()
    put(place.photos / "IMG_0001.JPG", jpeg(250), mtime_s=1_700_000_500)
    place.run()
    assert [row.label for row in place.rows()] == ["deer", "fox"]


def test_new_bundle_classifies_new_photos_and_leaves_old_ones(place: Place) -> None:
    put(place.photos / "a.jpg", jpeg(10))
    place.run()
    put(place.photos / "b.jpg", jpeg(20))
    put(place.photos / "copy.jpg", jpeg(10))
    place.run(bundle=NEWER)
    assert {row.path: row.bundle for row in place.rows()} == {
        "a.jpg": "shades-1", "b.jpg": "shades-2", "copy.jpg": "shades-1",
    }  # fmt: skip


def test_truncated_photo_is_read_again_when_it_grows_and_its_failure_ends(place: Place) -> None:
    whole = jpeg(10, side=900)
    put(place.photos / "a.jpg", whole[:1500])
    place.run()
    assert summary(place.rows()) == {"a.jpg": "truncated"}
    put(place.photos / "a.jpg", whole, mtime_s=1_700_000_500)
    place.run()
    assert [(row.label, row.failure) for row in place.rows()] == [("deer", None)]


def test_failed_inference_is_not_blank_and_is_tried_once_at_each_start(place: Place) -> None:
    put(place.photos / "a.jpg", jpeg(10))
    place.classifier.broken = True
    for starts in (1, 2):
        assert place.run() == {Outcome.FAILED: 1}
        assert place.classifier.asked == starts
        [row] = place.rows()
        assert (row.label, row.decision, row.failure_code) == (None, None, "model")
    place.classifier.broken = False
    assert place.run() == {Outcome.CLASSIFIED: 1}
    assert [(row.label, row.failure) for row in place.rows()] == [("deer", None)]
    assert place.run() == {}


def test_failed_inference_is_tried_only_once_while_the_agent_runs(place: Place) -> None:
    put(place.photos / "a.jpg", jpeg(10))
    place.classifier.broken = True
    place.run()
    with store.open_for_writing(place.database) as log:
        intake = Intake(log, model(place.classifier), "device")
        for searches in range(3):
            ready = scan(place.source, {})
            assert len(list(intake.take_all((each for each in ready if not intake.known(each)), lambda _: None))) == (
                1 if searches == 0 else 0
            )
    assert place.classifier.asked == 2


def test_photo_that_may_not_be_read_is_tried_again_at_the_next_start(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(place.photos / "a.jpg", jpeg(10))

    def denied(path: Path) -> photos.Photo:  # root, who runs some tests, may read everything
        raise PhotoError(f"{path.name} may not be read by this user.", code="denied")

    monkeypatch.setattr(photos, "read", denied)
    place.run()
    assert summary(place.rows()) == {"a.jpg": "denied"}
    monkeypatch.undo()
    place.run()
    assert summary(place.rows()) == {"a.jpg": "deer"}


def test_copy_of_a_photo_whose_inference_failed_is_classified_and_ends_both(place: Place) -> None:
    put(place.photos / "a.jpg", jpeg(10))
    place.classifier.broken = True
    place.run()
    place.classifier.broken = False
    put(place.photos / "b.jpg", jpeg(10))
    (place.photos / "a.jpg").unlink()
    place.run()
    assert summary(place.rows()) == {"a.jpg": "deer", "b.jpg": "deer"}


def tries(place: Place) -> list[int]:
    with closing(store.open_for_reading(place.database)) as connection:
        return [row[0] for row in connection.execute("SELECT tries FROM file ORDER BY id")]


def test_truncated_photo_is_tried_at_each_start_and_then_no_more(place: Place) -> None:
    put(place.photos / "a.jpg", jpeg(10, side=900)[:1500])
    ended = [place.run() for _ in range(store.MOST_TRIES + 2)]
    assert ended == [{Outcome.FAILED: 1}] * store.MOST_TRIES + [{}] * 2
    assert tries(place) == [store.MOST_TRIES]
    assert summary(place.rows()) == {"a.jpg": "truncated"}


def test_another_model_tries_again_what_was_given_up(place: Place) -> None:
    put(place.photos / "a.jpg", jpeg(10, side=900)[:1500])
    for _ in range(store.MOST_TRIES + 1):
        place.run()
    assert place.run(bundle=NEWER) == {Outcome.FAILED: 1}
    assert tries(place) == [1]


def test_truncated_photo_is_tried_again_while_the_agent_runs_when_its_time_has_come(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "RETRY_AFTER_S", (0, 3600))
    put(place.photos / "a.jpg", jpeg(10, side=900)[:1500])
    with store.open_for_writing(place.database) as log:
        intake = Intake(log, model(place.classifier), "device")
        for known in (False, False, True):  # new, due at once, due in an hour
            [found] = scan(place.source, {})
            assert intake.known(found) is known
            if not known:
                assert intake.take(found).outcome is Outcome.FAILED
    assert tries(place) == [2]


def test_card_with_a_bad_contact_costs_a_photo_nothing_but_time(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    put(place.photos / "a.jpg", jpeg(10, side=900))
    real = photos.read

    def halved(path: Path) -> photos.Photo:
        return photos.Photo(real(path).data[:1500])

    monkeypatch.setattr(photos, "read", halved)
    place.run()
    assert summary(place.rows()) == {"a.jpg": "truncated"}
    monkeypatch.undo()
    place.run()
    assert [(row.label, row.failure) for row in place.rows()] == [("deer", None)]
    assert tries(place) == [2]


def test_error_that_nobody_foresaw_is_a_failed_row_and_the_next_photo_is_taken(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.jpg", "b.jpg"):
        put(place.photos / name, jpeg(10 if name == "a.jpg" else 20))
    real = place.classifier.classify_image

    def classify(image: Image.Image) -> Answer:
        if place.classifier.asked == 0:
            place.classifier.asked += 1
            raise ZeroDivisionError("surprise")
        return real(image)

    monkeypatch.setattr(place.classifier, "classify_image", classify)
    assert place.run() == {Outcome.FAILED: 1, Outcome.CLASSIFIED: 1}
    assert summary(place.rows()) == {"a.jpg": "unexpected", "b.jpg": "deer"}
    assert place.run() == {Outcome.CLASSIFIED: 1}


def test_photo_that_the_log_refuses_does_not_end_the_agent_at_each_start(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        put(place.photos / f"{i}.jpg", jpeg(10 + i))
    real = place.classifier.classify_image

    def classify(image: Image.Image) -> Answer:
        answer = real(image)
        return replace(answer, decision=replace(answer.decision, confidence=1.5)) if image.getpixel((0, 0)) == (
            11, 11, 11,
        ) else answer  # fmt: skip

    monkeypatch.setattr(place.classifier, "classify_image", classify)
    assert place.run() == {Outcome.FAILED: 1, Outcome.CLASSIFIED: 2}
    assert summary(place.rows()) == {"0.jpg": "deer", "1.jpg": "refused", "2.jpg": "deer"}
    assert place.run() == {}


# Another model


NEWER = replace(BUNDLE, digest="b2" * 32, name="shades-2", model_digest="a2" * 32)


def test_reclassify_adds_a_row_per_photo_and_model_the_newest_first(place: Place) -> None:
    for day in (1, 3, 2):
        put(place.photos / f"{day}.jpg", jpeg(10 + day, taken=f"2024:05:{day:02} 06:12:09"))
    put(place.photos / "copy.jpg", jpeg(11, taken="2024:05:01 06:12:09"))
    put(place.photos / "bad.jpg", b"broken")
    place.run()
    done = place.reclassify(NEWER)
    assert [name for name, outcome in done if outcome is Outcome.RECLASSIFIED][:2] == ["3.jpg", "2.jpg"]
    assert Counter(outcome for _, outcome in done) == {Outcome.RECLASSIFIED: 3, Outcome.DUPLICATE: 1}
    with closing(store.open_for_reading(place.database)) as connection:
        found = connection.execute("SELECT photo_id, model_digest FROM classification").fetchall()
    assert len(found) == len(set(found)) == 6
    assert {row.bundle for row in place.rows() if row.label} == {"shades-2"}
    assert place.reclassify(NEWER) == []


def test_reclassify_leaves_what_is_gone_or_another_file_now(place: Place) -> None:
    put(place.photos / "gone.jpg", jpeg(10))
    put(place.photos / "other.jpg", jpeg(20))
    place.run()
    (place.photos / "gone.jpg").unlink()
    put(place.photos / "other.jpg", jpeg(250), mtime_s=1_700_000_500)
    assert Counter(outcome for _, outcome in place.reclassify(NEWER)) == {Outcome.GONE: 2}
    assert place.count("file") == 2


def test_more_old_photos_than_one_page_are_all_found_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.log.unclassified._PAGE", 2)
    for i in range(7):
        put(
            place.photos / f"{i}.jpg",
            jpeg(10 + i, taken="2024:05:01 06:12:09" if i % 2 else f"2024:05:{i + 2:02} 06:12:09"),
        )
    place.run()
    with closing(store.open_for_reading(place.database)) as connection:
        found = [key.path for key in unclassified(connection, "device", "another")]
    assert sorted(found) == [f"{i}.jpg" for i in range(7)]
    assert found[:4] == ["6.jpg", "4.jpg", "2.jpg", "0.jpg"]


# Batches


def test_what_is_called_done_can_be_read_by_others(place: Place) -> None:
    for i in range(20):
        put(place.photos / f"{i:02}.jpg", jpeg(5 + i))
    with store.open_for_writing(place.database) as log:
        intake = Intake(log, model(place.classifier), "device")
        for done in filter(None, intake.take_all(scan(place.source, {}), lambda _: None)):
            assert done.candidate.text in summary(place.rows())
    assert intake.counts == {Outcome.CLASSIFIED: 20}


def commits(place: Place, ready: list[Candidate | None]) -> list[int]:
    """How many photos came together, in order."""
    sizes = []
    with store.open_for_writing(place.database) as log:
        intake = Intake(log, model(place.classifier), "device")
        asked = 0
        for done in filter(None, intake.take_all(ready, lambda _: None)):
            if place.classifier.asked != asked:
                asked = place.classifier.asked
                sizes.append(0)
            sizes[-1] += 1
            assert done.outcome is Outcome.CLASSIFIED
    return sizes


def test_photos_of_a_backlog_are_written_together_and_new_ones_alone(place: Place) -> None:
    for i in range(14):
        put(place.photos / f"{i:02}.jpg", jpeg(5 + i))
    found: list[Candidate | None] = list(scan(place.source, {}))
    live = [replace(each, live=True) for each in found[10:13] if each]
    assert commits(place, [*found[:10], *live, found[13]]) == [8, 3, 1, 1, 1]


def test_before_a_wait_everything_is_written(place: Place) -> None:
    for i in range(4):
        put(place.photos / f"{i:02}.jpg", jpeg(5 + i))
    found = list(scan(place.source, {}))
    with store.open_for_writing(place.database) as log:
        intake = Intake(log, model(place.classifier), "device")
        ended = intake.take_all([*found[:3], None, found[3]], lambda _: None)
        assert [done and done.candidate.text for done in ended] == ["00.jpg", "01.jpg", "02.jpg", None, "03.jpg"]


def test_slow_photos_are_not_held_for_long(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(6):
        put(place.photos / f"{i:02}.jpg", jpeg(5 + i))
    clock = itertools.count()
    monkeypatch.setattr("edge.agent.loop.time.monotonic", lambda: float(next(clock)))  # a second passes with each look
    assert max(commits(place, list(scan(place.source, {})))) < loop.BATCH_PHOTOS / 2


# Helpers


def test_helper_takes_its_part_of_a_backlog_and_every_photo_is_one_row(place: Place) -> None:
    for i in range(40):
        put(place.photos / f"{i:02}.jpg", jpeg(5 + i))
    others: list[ShadeClassifier] = []

    def another() -> ShadeClassifier:
        others.append(ShadeClassifier())
        return others[-1]

    assert place.run(help=Help(1, another)) == {Outcome.CLASSIFIED: 40}
    [other] = others
    assert other.asked > 0
    assert place.classifier.asked + other.asked == 40
    assert Counter(row.path for row in place.rows()) == Counter({f"{i:02}.jpg": 1 for i in range(40)})
    assert [each for each in threading.enumerate() if "helper" in each.name] == []


def test_two_photos_are_at_work_at_a_time_and_never_more(place: Place) -> None:
    for i in range(24):
        put(place.photos / f"{i:02}.jpg", jpeg(5 + i))
    met: list[bool] = []
    both = Barrier(2, action=lambda: met.append(True), timeout=20)
    at_work: list[int] = []
    most: list[int] = []

    class Meeting(ShadeClassifier):
        helping = False

        def classify_image(self, image: Image.Image) -> Answer:
            at_work.append(1)
            most.append(len(at_work))
            if Meeting.helping and not met:
                both.wait()  # breaks after 20 s without another
            answer = super().classify_image(image)
            at_work.pop()
            return answer

    def another() -> ShadeClassifier:
        Meeting.helping = True
        return Meeting()

    place.classifier = Meeting()
    assert place.run(help=Help(1, another)) == {Outcome.CLASSIFIED: 24}
    assert (met, max(most)) == ([True], 2)


def test_few_photos_are_not_worth_a_helper_and_new_ones_never_wait_for_one(place: Place) -> None:
    for i in range(30):
        put(place.photos / f"{i:02}.jpg", jpeg(5 + i))
    found = list(scan(place.source, {}))

    def another() -> ShadeClassifier:
        raise AssertionError("a helper was made")

    ready = [*found[:3], None, *found[3:6], None, *(replace(each, live=True) for each in found[6:])]
    with store.open_for_writing(place.database) as log:
        intake = Intake(log, model(place.classifier), "device", help=Help(1, another))
        assert len(list(filter(None, intake.take_all(ready, lambda _: None)))) == 30


def test_helper_that_has_nothing_to_do_gives_its_memory_back_and_comes_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_HELP_KEPT_S", -1.0)
    for i in range(40):
        put(place.photos / f"{i:02}.jpg", jpeg(5 + i))
    found = list(scan(place.source, {}))
    made: list[ShadeClassifier] = []
    helpers: list[int] = []

    def another() -> ShadeClassifier:
        made.append(ShadeClassifier())
        return made[-1]

    with store.open_for_writing(place.database) as log:
        intake = Intake(log, model(place.classifier), "device", help=Help(1, another))
        for done in intake.take_all([*found[:20], None, *found[20:], None], lambda _: None):
            if done is None:
                helpers.append(sum("helper" in each.name for each in threading.enumerate()))
        assert intake.counts == {Outcome.CLASSIFIED: 40}
    assert (len(made), helpers) == (2, [0, 0])


def test_without_memory_for_a_helper_one_core_does_it_all(place: Place) -> None:
    for i in range(12):
        put(place.photos / f"{i:02}.jpg", jpeg(5 + i))
    said: list[str] = []

    def none() -> ShadeClassifier:
        raise ModelError("the model does not load: out of memory")

    assert place.run(help=Help(1, none, said.append)) == {Outcome.CLASSIFIED: 12}
    assert len(said) == 1


def test_copies_in_several_hands_are_one_photo_with_one_answer(place: Place) -> None:
    for i in range(30):
        put(place.photos / f"{i:02}.jpg", jpeg(10))
    counts = place.run(help=Help(1, ShadeClassifier))
    assert counts == {Outcome.CLASSIFIED: 1, Outcome.DUPLICATE: 29}
    assert (place.count("photo"), place.count("classification"), place.count("file")) == (1, 1, 30)


def test_large_live_photo_is_hashed_while_it_is_decoded_and_a_copy_of_it_is_found_out(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examine, "_HASHED_ASIDE_BYTES", 1)
    asked_when_hashed: list[int] = []
    hash_aside = photos.Photo.hash_aside

    def hashed(photo: photos.Photo) -> None:
        asked_when_hashed.append(place.classifier.asked)
        hash_aside(photo)

    monkeypatch.setattr(photos.Photo, "hash_aside", hashed)
    for name, shade in (("a.jpg", 10), ("b.jpg", 250), ("c.jpg", 10)):
        put(place.photos / name, jpeg(shade))
    live = [replace(each, live=True) for each in scan(place.source, {})]
    with store.open_for_writing(place.database) as log:
        intake = Intake(log, model(place.classifier), "device")
        assert [done.outcome for done in intake.take_all(live, lambda _: None) if done] == [
            Outcome.CLASSIFIED,
            Outcome.CLASSIFIED,
            Outcome.DUPLICATE,
        ]
    assert asked_when_hashed == [0, 1, 2]  # before each was decoded
    assert place.count("photo") == 2
    rows = {row.path: row.sha256 for row in place.rows()}
    assert rows == {name: hashlib.sha256((place.photos / name).read_bytes()).hexdigest() for name in rows}


def test_file_that_a_helper_has_in_hand_is_not_taken_twice(place: Place) -> None:
    for i in range(12):
        put(place.photos / f"{i:02}.jpg", jpeg(5 + i))
    found = list(scan(place.source, {}))
    with store.open_for_writing(place.database) as log:
        intake = Intake(log, model(place.classifier), "device", help=Help(1, ShadeClassifier))
        known_meanwhile = []

        def ready() -> Iterator[Candidate]:
            for candidate in found:
                yield candidate
                known_meanwhile.append(intake.known(candidate))

        ended = [done.candidate.text for done in intake.take_all(ready(), lambda _: None) if done]
    assert known_meanwhile == [True] * 12
    assert sorted(ended) == [candidate.text for candidate in found]


def test_log_that_fails_ends_the_helpers_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(12):
        put(place.photos / f"{i:02}.jpg", jpeg(5 + i))

    def full(*arguments: object, **named: object) -> int:
        raise LogError("the disk is full")

    monkeypatch.setattr(store.Log, "add_file", full)
    with pytest.raises(LogError, match="full"):
        place.run(help=Help(1, ShadeClassifier))
    assert [each for each in threading.enumerate() if "helper" in each.name] == []


# Previews and alerts are others' work


def test_preview_is_made_of_the_decoded_photo_and_its_state_is_written_with_the_row(place: Place) -> None:
    put(place.photos / "a.jpg", jpeg(10, side=900))
    seen: list[tuple[int, str]] = []

    def preview(image: Image.Image, sha256: str, decision: Decision) -> str:
        seen.append((image.width, decision.label))
        return "kept"

    with store.open_for_writing(place.database) as log:
        [found] = scan(place.source, {})
        Intake(log, model(place.classifier), "device", preview=preview).take(found)
    with closing(store.open_for_reading(place.database)) as connection:
        assert connection.execute("SELECT preview FROM photo").fetchall() == [("kept",)]
    assert seen == [(113, "deer")]  # decoded at an eighth


def test_preview_that_finds_no_space_costs_no_photo(place: Place) -> None:
    put(place.photos / "a.jpg", jpeg(10))

    def preview(image: Image.Image, sha256: str, decision: Decision) -> str:
        raise OSError(28, "No space left on device")

    with store.open_for_writing(place.database) as log:
        [found] = scan(place.source, {})
        done = Intake(log, model(place.classifier), "device", preview=preview).take(found)
    assert done.outcome is Outcome.CLASSIFIED


def test_alert_is_stored_with_the_row_of_a_new_photo_and_not_of_an_old_one(place: Place) -> None:
    put(place.photos / "a.jpg", jpeg(10))

    def alerts(file: store.FileFacts, photo: store.PhotoFacts, detection: store.Detection) -> list[store.Alert]:
        return [store.Alert(f"{file.key.path}-{detection.bundle.name}", "mqtt", detection.label)]

    for bundle, old in ((BUNDLE, False), (NEWER, True)):
        with store.open_for_writing(place.database) as log:
            [found] = scan(place.source, {})
            Intake(log, model(place.classifier, bundle), "device", alerts=alerts).take(replace(found, old=old))
    assert place.count("classification") == 2
    with closing(store.open_for_reading(place.database)) as connection:
        assert connection.execute("SELECT key, text FROM alert").fetchall() == [("a.jpg-shades-1", "deer")]


# While files come and go


def test_half_written_file_with_an_open_writer_is_not_read_early(place: Place) -> None:
    whole = jpeg(10, side=900)
    path = place.photos / "a.jpg"
    need_leases(place.photos)
    with path.open("wb") as camera:
        camera.write(whole[:1500])
        camera.flush()
        os.utime(path, (1_700_000_000, 1_700_000_000))
        assert place.run() == {}
        assert place.classifier.asked == 0
        camera.write(whole[1500:])
    assert place.run() == {Outcome.CLASSIFIED: 1}
    assert [(row.label, row.failure) for row in place.rows()] == [("deer", None)]


def test_file_that_changes_between_search_and_read_gets_no_wrong_row(place: Place) -> None:
    put(place.photos / "a.jpg", jpeg(10))
    [found] = scan(place.source, {})
    put(place.photos / "a.jpg", jpeg(250), mtime_s=1_700_000_500)
    with store.open_for_writing(place.database) as log:
        intake = Intake(log, model(place.classifier), "device")
        assert intake.take(found).outcome is Outcome.CHANGED
    assert place.count("file") == 0
    place.run()
    assert summary(place.rows()) == {"a.jpg": "fox"}


def test_file_that_cannot_be_decoded_right_after_it_was_closed_is_no_row_yet(place: Place) -> None:
    put(place.photos / "a.jpg", jpeg(10, side=900)[:1500])
    [found] = scan(place.source, {})
    back: list[Candidate] = []
    with store.open_for_writing(place.database) as log:
        intake = Intake(log, model(place.classifier), "device")
        [done] = filter(None, intake.take_all([replace(found, early=True)], back.append))
        assert (done.outcome, back) == (Outcome.EARLY, [found])
        assert place.count("file") == 0
        [done] = filter(None, intake.take_all([found], back.append))
        assert (done.outcome, len(back)) == (Outcome.FAILED, 1)
    assert summary(place.rows()) == {"a.jpg": "truncated"}


def noise(side: int) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((side, side), 80).convert("RGB").save(out, "JPEG")
    return out.getvalue()


def test_file_that_looks_damaged_right_after_it_was_closed_is_no_row_yet(place: Place) -> None:
    whole = noise(600)
    put(place.photos / "a.jpg", whole[: len(whole) * 6 // 10] + bytes(len(whole) * 4 // 10))  # made long enough before
    [found] = scan(place.source, {})
    back: list[Candidate] = []
    with store.open_for_writing(place.database) as log:
        intake = Intake(log, model(place.classifier), "device")
        [done] = filter(None, intake.take_all([replace(found, early=True)], back.append))
        assert (done.outcome, back, place.count("file")) == (Outcome.EARLY, [found], 0)
        put(place.photos / "a.jpg", whole)
        [now] = scan(place.source, {})
        [done] = filter(None, intake.take_all([now], back.append))
    assert (done.outcome, done.reason, place.count("file")) == (Outcome.CLASSIFIED, None, 1)


@pytest.mark.parametrize(
    ("first", "then"), [(".", "DCIM"), ("DCIM", ".")], ids=["first the card, then its folder", "first a folder of it"]
)
def test_folder_above_or_below_one_that_was_searched_before_gives_no_second_rows(
    place: Place, first: str, then: str
) -> None:
    put(place.photos / "DCIM" / "100" / "a.jpg", jpeg(10))
    put(place.photos / "DCIM" / "b.jpg", jpeg(250, side=900)[:1500])
    place.source = Source(place.photos / first)
    assert place.run() == {Outcome.CLASSIFIED: 1, Outcome.FAILED: 1}
    place.source = Source(place.photos / then)
    assert place.run() == {Outcome.FAILED: 1}  # it is tried again at each start
    assert (place.count("file"), tries(place)) == (2, [1, 2])


def test_file_that_is_whole_right_after_it_was_closed_is_a_row_at_once(place: Place) -> None:
    put(place.photos / "a.jpg", jpeg(10))
    [found] = scan(place.source, {})
    with store.open_for_writing(place.database) as log:
        done = Intake(log, model(place.classifier), "device").take(replace(found, early=True))
    assert done.outcome is Outcome.CLASSIFIED


def test_file_that_is_gone_when_it_is_read_is_no_row(place: Place) -> None:
    put(place.photos / "a.jpg", jpeg(10))
    [found] = scan(place.source, {})
    found.path.unlink()
    with store.open_for_writing(place.database) as log:
        assert Intake(log, model(place.classifier), "device").take(found).outcome is Outcome.GONE
    assert place.count("file") == 0


def test_log_that_fails_ends_the_agent_and_nothing_was_called_done(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        put(place.photos / f"{i}.jpg", jpeg(10 + i))

    def full(*arguments: object, **named: object) -> int:
        raise LogError("the disk is full")

    monkeypatch.setattr(store.Log, "add_file", full)
    with pytest.raises(LogError, match="full"):
        place.run()
    assert place.done == []
    monkeypatch.undo()
    assert place.run() == {Outcome.CLASSIFIED: 3}


# Stopping


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_signal_finishes_the_photo_in_hand_and_stops(place: Place, kind: signal.Signals) -> None:
    for i in range(5):
        put(place.photos / f"{i}.jpg", jpeg(10 + i))
    woken: list[bool] = []

    def ready(stop: StopFlag) -> Iterator[object]:
        for candidate in scan(place.source, {}):
            if stop.is_set():
                return
            if candidate.text == "2.jpg":
                os.kill(os.getpid(), kind)  # arrives while this photo is in hand
            yield candidate

    before = signal.getsignal(kind)
    with store.open_for_writing(place.database) as log, stopped_by_signals(lambda: woken.append(True)) as stop:
        intake = Intake(log, model(place.classifier), "device")
        for _ in intake.take_all(ready(stop), lambda candidate: None):  # type: ignore[arg-type]
            pass
    assert list(summary(place.rows())) == ["0.jpg", "1.jpg", "2.jpg"]
    assert woken == [True]
    assert signal.getsignal(kind) is before


# Any order of events


SHADES = st.sampled_from([5, 15, 128, 245, 250])
NAMES = st.sampled_from(["a.jpg", "b.jpg", "sub/a.jpg", "c.mp4", "d.png"])


class Forest(RuleBasedStateMachine):
    """Files are written, cut, copied and removed; the agent starts, runs and is started again, in any order.

    Afterwards each state of a file that the agent met is one row, and each photo was classified once.
    """

    @initialize()
    def start(self) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="fieldmark-forest-"))
        self.place = Place(self.scratch)
        self.clock_s = 1_700_000_000
        self.met: set[tuple[str, int, int]] = set()
        self.ran = False
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("edge.agent.loop._HELP_AFTER", 1)  # four files are a backlog here

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.scratch, ignore_errors=True)

    @rule(name=NAMES, shade=SHADES)
    def write(self, name: str, shade: int) -> None:
        self._put(name, jpeg(shade, side=600))

    @rule(name=NAMES, shade=SHADES, share=st.floats(0, 0.95))
    def write_cut(self, name: str, shade: int, share: float) -> None:
        content = jpeg(shade, side=600)
        self._put(name, content[: int(len(content) * share)])

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        (self.place.photos / name).unlink(missing_ok=True)

    @rule(name=NAMES)
    def touch(self, name: str) -> None:
        path = self.place.photos / name
        if path.exists():
            self.clock_s += 1
            os.utime(path, (self.clock_s, self.clock_s))

    @rule(broken=st.booleans(), times=st.integers(1, 2), helpers=st.integers(0, 2))
    def run(self, broken: bool, times: int, helpers: int) -> None:
        self.place.classifier.broken = broken
        help = Help(helpers, lambda: ShadeClassifier(broken=broken))
        for path in self.place.photos.rglob("*.*"):
            facts = path.stat()
            self.met.add((str(path.relative_to(self.place.photos)), facts.st_size, facts.st_mtime_ns))
        for _ in range(times):
            self.place.run(help=help)
        self.ran = True

    @precondition(lambda self: self.ran)
    @invariant()
    def each_met_file_is_one_row(self) -> None:
        with closing(store.open_for_reading(self.place.database)) as connection:
            files = connection.execute("SELECT path, size_bytes, mtime_ns FROM file").fetchall()
            twice = connection.execute(
                "SELECT photo_id, model_digest FROM classification GROUP BY 1, 2 HAVING count(*) > 1"
            ).fetchall()
            bare = connection.execute(
                "SELECT count(*) FROM file WHERE failure_code IS NULL AND photo_id NOT IN"
                " (SELECT photo_id FROM classification)"
            ).fetchone()
        assert Counter(files) == Counter(self.met)
        assert twice == []
        assert bare == (0,)

    @precondition(lambda self: self.ran)
    @invariant()
    def every_row_says_something(self) -> None:
        for row in self.place.rows():
            assert (row.failure is None) != (row.model_label is None)

    def _put(self, name: str, content: bytes) -> None:
        self.clock_s += 1
        put(self.place.photos / name, content, mtime_s=self.clock_s)


TestForest = Forest.TestCase
TestForest.settings = settings(stateful_step_count=12, suppress_health_check=list(HealthCheck))
