"""The export: every row, whole or not at all, and independent records worked by hand."""

from __future__ import annotations

import csv
import io
import os
import resource
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from benchmarks import log_stream
from edge.errors import ConfigError, LogError
from edge.log import export, independence, store
from edge.log.query import Filter
from edge.log.store import Detection, Failure, FileFacts, FileKey, Observation, PhotoFacts
from edge.photo import Taken
from tests import scale
from tests.fakes.camera import BUNDLE

# minutes, station, label; the first photo of each is independent, then those 30 minutes after the one before
RECORDS = (
    (0, "beech", "deer", "true"),
    (20, "beech", "deer", "false"),
    (49, "beech", "deer", "false"),  # 29 minutes after the one before, 49 after the first
    (79, "beech", "deer", "true"),  # 30 minutes, exactly
    (25, "beech", "fox", "true"),  # another species
    (30, "oak", "deer", "true"),  # another station
    (80, "beech", "empty", ""),
    (81, "beech", "unknown", ""),
    (200, "beech", "person", "true"),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "log.db"
    with store.open_for_writing(found) as log:
        log.add_bundle(BUNDLE)
        for i, (minutes, station, label, _) in enumerate(RECORDS):
            add(log, i, minutes, station, label)
        add(log, 100, 150, "beech", "deer", copy_of=0)
        add(log, 101, 151, "beech", "deer", source="file")
        failed = FileFacts(FileKey("d", "/p", "cut.jpg", 1, 1), Taken("2026-05-01T06:00:00", "+01:00", "exif", ()))
        log.add_file(failed, photo=None, detection=None, failure=Failure("truncated", "cut"))
    return found


def add(
    log: store.Log,
    i: int,
    minutes: float,
    station: str,
    label: str,
    *,
    copy_of: int | None = None,
    source: str = "exif",
) -> None:
    taken = datetime(2026, 5, 1, 6) + timedelta(minutes=minutes)
    facts = FileFacts(
        FileKey("d", "/p", f"{i}.jpg", 1, 1), Taken(taken.isoformat(), "+01:00", source, ()), station=station
    )
    decision = label if label in ("empty", "unknown") else "species"
    said = Detection(BUNDLE, "shades", label, 0.9, decision, ((label, 0.9),), b"", False)
    content = f"{i if copy_of is None else copy_of:064}"
    log.add_file(
        facts, photo=PhotoFacts(content, 40, 30), detection=None if copy_of is not None else said, failure=None
    )


def lines(path: Path, wanted: Filter | None = None, interval_s: float | None = None) -> list[str]:
    with closing(store.open_for_reading(path)) as connection:
        return list(export.csv_lines(connection, wanted or Filter(), independence_s=interval_s))


def independent(path: Path, interval_s: float) -> dict[str, str]:
    found = csv.DictReader(io.StringIO("\n".join(lines(path, interval_s=interval_s))))
    return {Path(row["photo"]).stem: row[export.INDEPENDENT] for row in found}


def test_record_is_independent_after_the_interval_per_species_and_station(path: Path) -> None:
    found = independent(path, 1800)
    assert [found[str(i)] for i in range(len(RECORDS))] == [expected for *_, expected in RECORDS]
    assert (found["100"], found["101"], found["cut"]) == ("", "", "")  # a copy, a time of a file, a failure


def test_a_persons_label_is_the_species(path: Path) -> None:
    with store.open_for_writing(path) as log:
        log.add_review(f"{1:064}", [Observation("fox")], "Ada")  # 20 minutes, 5 before the other fox
    found = independent(path, 1800)
    assert [found[name] for name in ("0", "1", "2", "4")] == ["true", "true", "true", "false"]


def test_independence_is_of_the_whole_log_and_not_of_what_is_exported(path: Path) -> None:
    found = lines(path, Filter(since="2026-05-01T06:20:00", until="2026-05-01T06:20:01"), 1800)
    assert len(found) == 2
    assert found[1].endswith(",false")


@pytest.mark.parametrize(
    ("local", "offset"),
    [("0001-01-01T00:00:00", "+01:00"), ("9999-12-31T23:59:59", "-01:00")],
    ids=["before the first year", "after the last"],
)
def test_clock_at_an_end_of_the_calendar_ends_no_export(path: Path, local: str, offset: str) -> None:
    with store.open_for_writing(path) as log:
        for i in (200, 201):
            facts = FileFacts(FileKey("d", "/p", f"{i}.jpg", 1, 1), Taken(local, offset, "exif", ()), station="beech")
            said = Detection(BUNDLE, "shades", "deer", 0.9, "species", (("deer", 0.9),), b"", False)
            log.add_file(facts, photo=PhotoFacts(f"{i:064}", 40, 30), detection=said, failure=None)
    assert len(independent(path, 1800)) == len(RECORDS) + 5


def test_export_without_an_interval_has_no_such_column(path: Path) -> None:
    header, *rows = lines(path)
    assert export.INDEPENDENT not in header
    assert len(rows) == len(RECORDS) + 3


@pytest.mark.parametrize(("text", "expected"), [("30m", 1800), ("1h", 3600), ("90s", 90), ("7d", 604_800)])
def test_interval_is_read(text: str, expected: float) -> None:
    assert independence.interval_s(text) == expected


@pytest.mark.parametrize("text", ["30", "m", "0m", "-30m", "1.5h", "367d", "30min", ""])
def test_what_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected one such as 30m"):
        independence.interval_s(text)


def test_file_is_written_whole_or_not_at_all(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert export.write_csv(out, iter(["a,b", "1,2", "3,4"])) == 2
    assert out.read_bytes() == b"a,b\r\n1,2\r\n3,4\r\n"

    def failing() -> Iterator[str]:
        yield "a,b"
        raise LogError("the card is gone.")

    with pytest.raises(LogError, match="card"):
        export.write_csv(out, failing(), replace=True)
    assert out.read_bytes() == b"a,b\r\n1,2\r\n3,4\r\n"
    assert sorted(entry.name for entry in tmp_path.iterdir() if "out" in entry.name) == ["out.csv"]


def test_file_that_is_there_is_replaced_only_on_request(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_bytes(b"mine")
    with pytest.raises(LogError, match="--replace") as refused:
        export.write_csv(out, iter(["a"]))
    assert refused.value.code == "exists"
    assert out.read_bytes() == b"mine"
    export.write_csv(out, iter(["a"]), replace=True)
    assert out.read_bytes() == b"a\r\n"


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
def test_export_never_replaces_a_log(path: Path, end: str) -> None:
    with store.open_for_writing(path) as log:
        log.add_review(f"{0:064}", [Observation("fox")], "Ada")
        target = Path(f"{path}{end}")
        before = target.read_bytes()
        with pytest.raises(LogError, match="is a log or a part of one") as refused:
            export.write_csv(target, iter(["a"]), replace=True)
        assert refused.value.code == "target"
        assert target.read_bytes() == before


def test_export_replaces_nothing_but_a_plain_file(tmp_path: Path) -> None:
    """Such as ``/dev/null`` or ``/dev/stdout``, which root could replace by a file."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("elsewhere.csv")
    for target in (tmp_path, tmp_path / "pipe", tmp_path / "link", Path(".")):
        with pytest.raises(LogError, match="no plain file"):
            export.write_csv(target, iter(["a"]), replace=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "pipe"]


def test_long_log_streams_with_flat_memory(tmp_path: Path) -> None:
    """The second half of the rows adds next to nothing to what the first half took."""
    path, count = tmp_path / "long.db", scale.count("log_rows")
    log_stream.write(path, count)
    with closing(store.open_for_reading(path)) as connection:
        found = export.csv_lines(connection, independence_s=1800)
        half_way = 0
        for number, _ in enumerate(found):
            if number == count // 2:
                half_way = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert number == count
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - half_way < 4_000  # KiB
