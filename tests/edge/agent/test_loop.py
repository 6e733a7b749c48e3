from __future__ import annotations

import io
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from PIL import Image

from edge import photo as photos
from edge.agent.config import Source
from edge.agent.loop import Intake, Outcome, StopFlag, stopped_by_signals
from edge.agent.watch import Candidate, Watch, scan
from edge.errors import LogError, PhotoError
from edge.log import query, store
from edge.log.query import Row
from tests import capabilities
from tests.fakes.camera import BUNDLE, ShadeClassifier, jpeg, model, need_leases, put


class Silent:
    """No file events; a wait that would sleep is a fault of the test."""

    def wait(self, timeout_s: float) -> list[str]:
        return []

    def lost(self) -> bool:
        return False


class Place:
    """A folder of photos, a log, and an agent that can be started again and again."""

    def __init__(self, folder: Path, source: Source | None = None) -> None:
        self.photos, self.database = folder / "photos", folder / "log.db"
        self.photos.mkdir(parents=True)
        self.source = source or Source(self.photos, station="beech", utc_offset="+01:00")
        self.classifier = ShadeClassifier()

    def run(self, *, bundle: store.BundleFacts = BUNDLE) -> Counter[Outcome]:
        """Start the agent, drain the folder, end."""
        with store.open_for_writing(self.database) as log:
            intake = Intake(log, model(self.classifier, bundle), "device")
            watch = Watch([self.source], known=intake.known, hints=Silent(), settle_s=0)
            for _ in intake.take_all(watch.backlog(Event(), patience_s=0.0), watch.put_back):
                pass
            return intake.counts

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
    newer = replace(BUNDLE, digest="b2" * 32, name="shades-2", model_digest="a2" * 32)
    place.run(bundle=newer)
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
        [done] = intake.take_all([replace(found, early=True)], back.append)
        assert (done.outcome, back) == (Outcome.EARLY, [found])
        assert place.count("file") == 0
        [done] = intake.take_all([found], back.append)
        assert (done.outcome, len(back)) == (Outcome.FAILED, 1)
    assert summary(place.rows()) == {"a.jpg": "truncated"}


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


def test_log_that_fails_stops_the_agent_before_the_next_photo(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(3):
        put(place.photos / f"{i}.jpg", jpeg(10 + i))

    def full(*arguments: object, **named: object) -> int:
        raise LogError("the disk is full")

    monkeypatch.setattr(store.Log, "add_file", full)
    with pytest.raises(LogError, match="full"):
        place.run()
    assert place.classifier.asked == 1
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
NAMES = st.sampled_from(["a.jpg", "b.jpg", "sub/a.jpg", "c.mp4"])


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

    def teardown(self) -> None:
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

    @rule(broken=st.booleans(), times=st.integers(1, 2))
    def run(self, broken: bool, times: int) -> None:
        self.place.classifier.broken = broken
        for path in self.place.photos.rglob("*.*"):
            facts = path.stat()
            self.met.add((str(path.relative_to(self.place.photos)), facts.st_size, facts.st_mtime_ns))
        for _ in range(times):
            self.place.run()
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
