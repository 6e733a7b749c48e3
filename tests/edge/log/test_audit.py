"""The audit finds what is lost or double, each fault put there by hand, and nothing else."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edge.agent import found
from edge.agent.config import Source
from edge.log import store
from edge.log.audit import Audit
from edge.log.store import Detection, Failure, FileFacts, FileKey, PhotoFacts
from edge.photo import Taken
from tests.fakes.camera import BUNDLE

TAKEN = Taken("2024-05-01T06:12:09", "+01:00", "exif", ())


class Season:
    """A folder of photos and a log in which each has its row."""

    def __init__(self, folder: Path) -> None:
        self.photos, self.log = folder / "photos", folder / "log.db"
        self.previews = folder / "previews"
        with store.open_for_writing(self.log) as log:
            log.add_bundle(BUNDLE)
        for i in range(5):
            self.add(f"DCIM/IMG_{i:04}.JPG")

    def put(self, name: str, content: bytes | None = None, mtime_s: int = 1_700_000_000) -> Path:
        path = self.photos / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name) if content is None else content)
        os.utime(path, (mtime_s, mtime_s))
        return path

    def add(
        self, name: str, *, device: str = "dev", source: Path | None = None, failure: Failure | None = None
    ) -> None:
        path = self.photos / name
        path = path if path.exists() else self.put(name)
        facts = path.stat()
        source = source or self.photos
        key = FileKey(device, str(source), str(path.relative_to(source)), facts.st_size, facts.st_mtime_ns)
        photo = PhotoFacts(hashlib.sha256(path.read_bytes()).hexdigest(), 40, 30)
        said = Detection(BUNDLE, "shades", "deer", 0.9, "species", (("deer", 0.9),), b"", False)
        with store.open_for_writing(self.log) as log:
            if failure:
                log.add_file(FileFacts(key, TAKEN), photo=None, detection=None, failure=failure)
            else:
                log.add_file(FileFacts(key, TAKEN), photo=photo, detection=said, failure=None)

    def sql(self, statement: str) -> None:
        with closing(sqlite3.connect(self.log, isolation_level=None)) as db:
            db.execute(statement)

    def audit(self, *sources: Path, grace_s: float = 0.0) -> tuple[list[tuple[str, str]], Audit]:
        troubles: dict[Path, str] = {}
        root = Path("/")
        with closing(store.open_for_reading(self.log)) as connection:
            audit = Audit(connection, here=lambda text: found.here(root, text), digest=digest)
            logged = [row[0] for row in connection.execute("SELECT DISTINCT source FROM file")]
            files = found.files(root, logged, map(Source, sources), troubles, grace_s=grace_s)
            findings = [(each.kind, each.what) for each in audit.run(files, self.previews, troubles)]
        return findings, audit


def digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def season(tmp_path: Path) -> Season:
    return Season(tmp_path)


def test_season_without_faults_passes(season: Season) -> None:
    season.add("cut.JPG", failure=Failure("truncated", "cut"))
    findings, audit = season.audit()
    assert (findings, audit.passed) == ([], True)
    assert (audit.counts["files"], audit.counts["rows"], audit.failures) == (6, 6, {"truncated": 1})
    assert audit.lines() == ["6 files on the disk, 6 rows, failed: 1 truncated.", "Nothing lost, nothing twice."]


def missing(season: Season) -> str:
    season.put("DCIM/IMG_0099.JPG")
    return "missing"


def changed(season: Season) -> str:
    season.put("DCIM/IMG_0001.JPG", b"another photo of this name")
    return "changed"


def two_devices(season: Season) -> str:
    season.add("DCIM/IMG_0001.JPG", device="reborn")
    return "twice"


def two_sources(season: Season) -> str:
    season.add("DCIM/IMG_0001.JPG", source=season.photos / "DCIM")
    return "twice"


def no_answer(season: Season) -> str:
    season.sql("DELETE FROM classification WHERE photo_id = 2")
    return "unclassified"


def closed_without_answer(season: Season) -> str:
    """A failure that was closed by a read whose answer is not there."""
    no_answer(season)
    season.sql(
        "UPDATE file SET failure_code = 'model', failure_reason = 'broken', failure_closed_by = 1,"
        " failure_closed_utc = '2026' WHERE id = 2"
    )
    return "unclassified"


def two_answers(season: Season) -> str:
    """As a damaged index would let in: the table without its uniqueness."""
    season.sql("CREATE TABLE loose AS SELECT * FROM classification")
    season.sql("INSERT INTO loose SELECT * FROM classification WHERE id = 1")
    season.sql("ALTER TABLE classification RENAME TO strict_one")
    season.sql("ALTER TABLE loose RENAME TO classification")
    return "answered twice"


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(missing, id="a file without a row"),
        pytest.param(changed, id="another photo under a known name"),
        pytest.param(two_devices, id="a file with rows of two devices"),
        pytest.param(two_sources, id="a file found through two sources"),
        pytest.param(no_answer, id="a photo with neither an answer nor a failure"),
        pytest.param(closed_without_answer, id="a closed failure without an answer"),
        pytest.param(two_answers, id="two answers of one model"),
    ],
)
def test_what_is_lost_or_double_fails_the_audit(season: Season, harm: object) -> None:
    kind = harm(season)  # type: ignore[operator]
    findings, audit = season.audit()
    assert {name for name, _ in findings} == {kind}
    assert not audit.passed
    assert audit.failed_words() == f"1 {kind}"


def test_folder_of_the_settings_that_was_never_searched_is_missing(season: Season, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.jpg").write_bytes(b"x")
    findings, _ = season.audit(season.photos, other)
    assert findings == [("missing", f"{other}/a.jpg")]


def test_young_files_can_be_left_out(season: Season) -> None:
    path = season.put("DCIM/IMG_0099.JPG")
    os.utime(path)
    assert season.audit(grace_s=300)[1].passed
    assert not season.audit()[1].passed


def test_copied_card_whose_times_differ_is_not_lost(season: Season) -> None:
    season.put("DCIM/IMG_0001.JPG", mtime_s=1_700_003_600)  # an hour, as FAT and daylight saving do
    findings, audit = season.audit()
    assert (findings, audit.passed, audit.counts["touched"]) == ([], True, 1)


def test_row_whose_file_is_gone_is_named_unless_a_policy_deleted_it(season: Season) -> None:
    (season.photos / "DCIM/IMG_0001.JPG").unlink()
    (season.photos / "DCIM/IMG_0002.JPG").unlink()
    with store.open_for_writing(season.log) as log:
        log.deletion_done(log.plan_deletion(2, policy="empty-90d", why="empty"))
    findings, audit = season.audit()
    assert findings == [("gone", f"{season.photos}/DCIM/IMG_0002.JPG")]
    assert audit.passed
    assert audit.counts["deleted by policy"] == 1


def test_card_that_was_taken_out_is_noted_once(season: Season) -> None:
    season.photos.rename(season.photos.with_name("elsewhere"))
    findings, audit = season.audit()
    assert (findings, audit.passed) == ([("source not there", str(season.photos))], True)


def test_earlier_version_of_a_file_is_no_fault(season: Season) -> None:
    season.put("DCIM/IMG_0001.JPG", b"a new one")
    season.add("DCIM/IMG_0001.JPG")
    assert season.audit()[0] == []


def test_previews_and_photos_are_compared(season: Season) -> None:
    with store.open_for_writing(season.log) as log:
        log.set_preview(digest(season.photos / "DCIM/IMG_0000.JPG") or "", "kept")
    folder = season.previews / "ab"
    folder.mkdir(parents=True)
    (folder / f"{'ab' * 32}.jpg").write_bytes(b"x")
    findings, audit = season.audit()
    assert [kind for kind, _ in findings] == ["preview without photo", "preview missing"]
    assert audit.passed


def test_folder_that_cannot_be_read_fails_the_audit(season: Season, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def failing(path: Path | str) -> object:
        if str(path).endswith("DCIM"):
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr("edge.agent.watch.os.scandir", failing)
    findings, audit = season.audit()
    assert findings == [("folder not read", f"{season.photos}/DCIM: Input/output error")]
    assert not audit.passed


def test_names_that_are_no_utf_8_are_compared(season: Season) -> None:
    name = os.fsdecode(b"caf\xe9 100%25.JPG")
    season.put(name)
    assert season.audit()[0] == [("missing", f"{season.photos}/caf%E9 100%2525.JPG")]
    facts = (season.photos / name).stat()
    key = FileKey("dev", str(season.photos), "caf%E9 100%2525.JPG", facts.st_size, facts.st_mtime_ns)
    with store.open_for_writing(season.log) as log:
        log.add_file(FileFacts(key, TAKEN), photo=None, detection=None, failure=Failure("truncated", "cut"))
    assert season.audit()[0] == []


def test_card_mounted_elsewhere_is_compared_below_its_root(season: Season, tmp_path: Path) -> None:
    """The log says /srv/photos; the card stands for the device's root."""
    root = tmp_path / "card"
    with store.open_for_writing(season.log) as log:
        log._db.execute("UPDATE file SET source = '/srv/photos'")
    (root / "srv").mkdir(parents=True)
    season.photos.rename(root / "srv" / "photos")
    (root / "srv/photos/new.JPG").write_bytes(b"new")
    troubles: dict[Path, str] = {}
    with closing(store.open_for_reading(season.log)) as connection:
        audit = Audit(connection, here=lambda text: found.here(root, text), digest=digest)
        files = found.files(root, ["/srv/photos"], [Source(root / "srv/photos")], troubles)
        findings = [(each.kind, each.what) for each in audit.run(files, season.previews, troubles)]
    assert findings == [("missing", "/srv/photos/new.JPG")]


def test_findings_come_while_the_folder_is_read(season: Season) -> None:
    """Memory does not grow with the files: the first finding comes before the last file."""
    season.put("DCIM/AAA.JPG")
    read = 0

    def counted() -> object:
        nonlocal read
        for file in found.files(Path("/"), [str(season.photos)], [], {}):
            read += 1
            yield file

    with closing(store.open_for_reading(season.log)) as connection:
        audit = Audit(connection, here=lambda text: found.here(Path("/"), text), digest=digest)
        findings = audit.run(counted(), season.previews)  # type: ignore[arg-type]
        assert next(findings).kind == "missing"
        assert read == 1
