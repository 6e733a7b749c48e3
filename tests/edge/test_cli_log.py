"""The commands of the log and of the stations, through the one door, on a device root with a real bundle."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.edge.test_cli import Device, coloured
from tests.fakes.camera import jpeg, put

BEECH = ["--id", "beech", "--latitude", "52.7044", "--longitude", "-3.5", "--start", "2023-11-01T10:00:00+01:00"]


@pytest.fixture
def device(device_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Device:
    """A deer, a fox and a cut photo of 2023-11-14T22:13:20Z, and a bright photo whose EXIF says otherwise."""
    photos = tmp_path / "photos"
    put(photos / "IMG_0001.jpg", coloured(200, 10, 10))
    put(photos / "IMG_0002.jpg", coloured(10, 10, 200))
    put(photos / "IMG_0003.jpg", jpeg(10, side=900)[:1500])
    put(photos / "IMG_0004.jpg", jpeg(250, taken="2023:11:14 23:30:00"))
    found = Device(device_root, photos, capsys)
    assert found.watch("--station", "beech", "--utc-offset", "+01:00").code == 0
    return found


def station(device: Device, *arguments: str) -> Any:
    return device("station", *arguments, "--root", device.root)


def row(device: Device, name: str) -> dict[str, Any]:
    [found] = [each for each in device.log("--json").objects if each["photo"].endswith(name)]
    return found


# log shift-time


def test_corrected_time_is_everywhere_and_the_original_beside_it(device: Device) -> None:
    end = device.log(
        "shift-time", "--station", "beech", "--by", "-1d01:00:00", "--reason", "clock was set wrong", "--who", "Ada"
    )
    assert (end.code, end.out) == (
        0,
        "1 file; the first was of 2023-11-14T23:30:00 and is of 2023-11-13T22:30:00 now.\n",
    )
    found = row(device, "0004.jpg")
    assert (found["taken"], found["taken_original"]) == ("2023-11-13T22:30:00+01:00", "2023-11-14T23:30:00+01:00")
    assert row(device, "0001.jpg")["taken"] == row(device, "0001.jpg")["taken_original"]
    assert [each["id"] for each in device.log("--json", "--until", "2023-11-13").objects] == [found["id"]]
    shown = device.log("show", str(found["id"]))
    assert "the camera wrote 2023-11-14T23:30:00+01:00" in shown.out
    [listed] = device.log("shift-time", "--list", "--json").objects
    assert (listed["seconds"], listed["station"], listed["reason"], listed["who"]) == (
        -90_000, "beech", "clock was set wrong", "Ada",
    )  # fmt: skip
    assert "-1d01:00:00" in device.log("shift-time", "--list").out
    assert device.log("shift-time", "--station", "beech", "--by", "+1d01:00:00", "--reason", "it was right").code == 0
    assert row(device, "0004.jpg")["taken"] == "2023-11-14T23:30:00+01:00"


def test_correction_that_is_for_no_photo_changes_nothing(device: Device) -> None:
    end = device.log("shift-time", "--station", "elm", "--by", "+01:00:00", "--reason", "slow")
    assert end.code == 1
    assert "no photo is meant" in end.err
    assert device.log("shift-time", "--list", "--json").objects == []


# An older log

OLDER = Path(__file__).parent / "log" / "data" / "version-2.sql"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["correct", "1", "deer"], id="a correction of a label"),
        pytest.param(["shift-time", "--by", "+01:00:00", "--reason", "slow"], id="a correction of a clock"),
    ],
)
def test_correction_brings_an_older_log_up_to_date(
    device_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """As is said to whoever tries to read it."""
    path, device = tmp_path / "older.db", Device(device_root, tmp_path, capsys)
    with closing(sqlite3.connect(path)) as older:
        older.executescript(OLDER.read_text("utf-8"))
    end = device("log", "--db", path)
    assert (end.code, "as `fieldmark log correct` or `fieldmark watch` does" in end.err) == (1, True)
    assert device("log", *arguments, "--db", path).code == 0
    assert device("log", "--db", path).code == 0


# A damaged log


@pytest.mark.parametrize(
    ("table", "arguments"),
    [
        ("file", ["log", "--json"]),
        ("file", ["log", "audit"]),
        ("file", ["log", "shift-time", "--by", "+01:00:00", "--reason", "slow"]),
        ("file", ["log", "correct", "1", "deer"]),
        ("file", ["station", "list"]),
        ("time_shift", ["log", "shift-time", "--list"]),
        ("agent_run", ["station", "list"]),
    ],
)
def test_damaged_log_is_called_so(device: Device, table: str, arguments: list[str]) -> None:
    station(device, "add", *BEECH)
    path = device.root / "var/lib/fieldmark/log.db"
    with closing(sqlite3.connect(path)) as opened:
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [page] = opened.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        [size] = opened.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    end = device(*arguments, "--root", device.root)
    assert (end.code, len(end.err.splitlines())) == (1, 1)
    assert "The log is damaged. Set it and its -wal file aside" in end.err


def test_correction_makes_no_log(device_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = Device(device_root, tmp_path, capsys)
    end = device("log", "correct", "1", "deer", "--db", tmp_path / "none.db")
    assert (end.code, "there is no detection log" in end.err) == (1, True)
    assert not (tmp_path / "none.db").exists()


# log audit


def test_audit_of_a_whole_season_ends_with_0(device: Device) -> None:
    end = device.log("audit")
    assert (end.code, end.out.splitlines()[-1]) == (0, "Nothing lost, nothing twice.")
    assert "4 files on the disk, 4 rows" in end.out
    assert "failed: 1 truncated" in end.out


def test_audit_names_what_has_no_row_and_ends_with_1(device: Device) -> None:
    put(device.photos / "late" / "IMG_0005.jpg", jpeg(1))
    end = device.log("audit")
    assert end.code == 1
    assert f"missing: {device.photos}/late/IMG_0005.jpg" in end.out
    assert "1 missing. Run `fieldmark watch`" in end.err
    *findings, summary = device.log("audit", "--json").objects
    assert [(each["kind"], each["fails"]) for each in findings] == [("missing", True)]
    assert (summary["passed"], summary["counts"]["files"], summary["schema"]) == (False, 5, 1)
    device.watch()
    assert device.log("audit").code == 0


def test_audit_prints_some_of_many_findings(device: Device) -> None:
    for i in range(25):
        put(device.photos / f"new_{i}.jpg", jpeg(1))
    assert "missing: 5 more" in device.log("audit").out
    assert len(device.log("audit", "--json").objects) == 26


# log export


def test_export_writes_the_rows_of_the_log(device: Device, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    end = device.log("export", "--format", "csv", "--out", str(out), "--independence", "30m")
    assert (end.code, end.out, end.err) == (0, "", f"{out}: 4 rows.\n")
    found = list(csv.DictReader(io.StringIO(out.read_text("utf-8"))))
    assert [each["label"] for each in found][:2] == ["deer", "fox"]
    assert found[3]["independent"] in ("true", "")
    assert device.log("export", "--out", str(out)).code == 1
    assert device.log("export", "--out", str(out), "--replace", "--species", "fox").code == 0
    assert len(out.read_text("utf-8").splitlines()) == 2


# station


def test_station_is_added_listed_closed_and_goes_on(device: Device) -> None:
    assert station(device, "add", *BEECH, "--camera", "cam-7", "--set", "habitat=heath").code == 0
    end = station(device, "close", "beech", "--end", "2023-12-01T10:00:00+01:00", "--why", "battery changed", "--go-on")
    assert end.out.splitlines() == [
        "beech 2023-11-01: station beech, 2023-11-01T10:00:00+01:00 to 2023-12-01T10:00:00+01:00",
        "beech 2023-12-01: station beech, 2023-12-01T10:00:00+01:00 to now",
    ]
    first, second = station(device, "list", "--json").objects
    assert (first["deployment"], first["station"], first["days"], first["photos"]) == (
        "beech 2023-11-01",
        "beech",
        30,
        1,
    )
    assert (first["last_photo"], first["dead_days"]) == ("2023-11-14T23:30:00+01:00", None)
    assert (second["end"], second["photos"], second["camera"]) == (None, 0, "cam-7")
    assert "goes on" in station(device, "list").out
    assert "52.7" not in station(device, "list", "--json").out + device.log("--json").out
    path = device.root / "etc/fieldmark/deployments.csv"
    [written, _] = csv.DictReader(io.StringIO(path.read_text("utf-8")))
    assert (written["latitude"], written["longitude"], written["habitat"]) == ("52.7044", "-3.5", "heath")
    assert written["deploymentComments"] == "battery changed"


def test_stations_are_listed_before_there_is_a_log(
    device_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = Device(device_root, tmp_path, capsys)
    assert station(device, "add", *BEECH).code == 0
    [found] = station(device, "list", "--json").objects
    assert (found["photos"], found["dead_days"]) == (0, None)


def test_photo_from_before_its_station_is_flagged(device: Device) -> None:
    later = [*BEECH[:-1], "2023-12-01T10:00:00+01:00"]
    assert station(device, "add", *later).code == 0
    assert "clock-reset" in row(device, "0004.jpg")["time_flags"]


def test_spreadsheet_with_a_fault_stops_no_reading_of_the_log(device: Device) -> None:
    (device.root / "etc/fieldmark/deployments.csv").write_text("deploymentID,where\n")
    end = device.log("--json")
    assert (end.code, len(end.objects)) == (0, 4)
    assert "'where' is no column" in end.err
    assert station(device, "list").code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        pytest.param(["station", "add", *BEECH[:-1], "yesterday"], 2, "--start is 'yesterday'", id="no time"),
        pytest.param(
            ["station", "add", *BEECH[:-1], "2024-05-01"], 2, "Add it: 2024-05-01T00:00+01:00", id="no offset"
        ),
        pytest.param(["station", "add", *BEECH[:3], "99", *BEECH[4:]], 2, "--latitude", id="beyond the pole"),
        pytest.param(["station", "add", *BEECH, "--set", "colour=red"], 2, "COLUMN=TEXT", id="an unknown column"),
        pytest.param(["station", "add", *BEECH, "--set", "baitUse=yes"], 2, "true, false", id="a wrong value"),
        pytest.param(["station", "close", "elm", "--end", "2024-05-01T00:00Z"], 1, "no open deployment", id="not open"),
        pytest.param(
            ["log", "shift-time", "--by", "1h", "--reason", "x"], 2, "expected one such as", id="no difference"
        ),
        pytest.param(["log", "shift-time", "--by", "+01:00"], 2, "why with --reason", id="no reason"),
        pytest.param(["log", "--station", "caf\udce9"], 2, "expected text in UTF-8", id="a name in another encoding"),
        pytest.param(["log", "export", "--format", "pdf", "--out", "x"], 2, "expected csv", id="an unknown format"),
        pytest.param(["log", "export", "--out", "x", "--independence", "1"], 2, "30m", id="no interval"),
        pytest.param(
            ["log", "--species", "fox", "export", "--out", "x"], 2, "--species goes behind `export`", id="too early"
        ),
        pytest.param(["log", "--json", "show", "1"], 2, "--json goes behind `show`", id="a form that is too early"),
        pytest.param(["log", "--since", ""], 2, "since is ''", id="an empty time"),
        pytest.param(["log", "audit", "--grace", "inf"], 2, "--grace", id="seconds without end"),
        pytest.param(
            ["log", "shift-time", "--by", "+01:00", "--reason", "x", "--since", "2024-05-01+01:00"],
            2,
            "--since is '2024-05-01+01:00'",
            id="a day with an offset",
        ),
        pytest.param(
            ["station", "add", *BEECH, "--set", "latitude=7"], 2, "has an option of its own", id="a value given twice"
        ),
        pytest.param(["log", "audit", "--db", "none.db"], 1, "there is no detection log", id="no log to audit"),
    ],
)
def test_wrong_use_is_one_line_and_its_code(
    device_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], code: int, says: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("FIELDMARK_ROOT", str(device_root))
    monkeypatch.chdir(tmp_path)
    end = Device(device_root, tmp_path, capsys)(*arguments)
    assert (end.code, end.out, len(end.err.splitlines())) == (code, "", 1)
    assert says in end.err


def test_every_json_object_says_its_schema(device: Device) -> None:
    station(device, "add", *BEECH)
    for end in (device.log("audit", "--json"), station(device, "list", "--json"), device.log("--json")):
        assert {json.loads(line)["schema"] for line in end.out.splitlines()} == {1}
