"""The device's commands, through the one door, on a device root with a real bundle."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import fieldmark
from edge.agent import process
from edge.agent.plan import Plan
from tests.fakes import tiny
from tests.fakes.camera import jpeg, put

ROOT = Path(__file__).resolve().parents[2]


class End(NamedTuple):
    """How a command line ended."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Device:
    """A device root, a folder of photos, and the command line."""

    def __init__(self, root: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.photos, self.capsys = root, photos, capsys

    def __call__(self, *arguments: str | Path) -> End:
        with pytest.raises(SystemExit) as end:
            fieldmark.main([str(argument) for argument in arguments])
        out, err = self.capsys.readouterr()
        return End(int(end.value.code or 0), out, err)

    def watch(self, *options: str | Path) -> End:
        return self("watch", self.photos, "--once", "--root", self.root, "--patience", "0", "--settle", "0", *options)

    def log(self, *arguments: str | Path) -> End:
        return self("log", "--root", self.root, *arguments)


def coloured(red: int, green: int, blue: int) -> bytes:
    return tiny.png((red, green, blue), side=32, form="JPEG")


@pytest.fixture
def device(device_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Device:
    """Four photos: a deer, its copy, a fox in a folder, and one that is cut."""
    photos = tmp_path / "photos"
    put(photos / "1-deer.jpg", coloured(200, 10, 10))
    put(photos / "2-copy.jpg", coloured(200, 10, 10))
    put(photos / "3" / "fox.jpg", coloured(10, 10, 200))
    put(photos / "4-cut.jpg", jpeg(10, side=900)[:1500])
    return Device(device_root, photos, capsys)


# watch


def test_watch_once_logs_every_file_and_says_how_many(device: Device) -> None:
    end = device.watch("--json", "--station", "beech", "--utc-offset", "+01:00")
    assert end.code == 0
    [found] = end.objects
    log = device.root / "var/lib/fieldmark/log.db"
    assert found == {
        "schema": 1, "log": str(log), "classified": 2, "reclassified": 0, "duplicate": 1, "failed": 1,
        "changed": 0, "early": 0, "gone": 0, "already": 0, "not_ready": 0, "not_read": 0,
    }  # fmt: skip
    assert "4-cut.jpg: failed: the photo is truncated" in end.err
    assert "4 files taken into" in end.err
    assert "development key" in end.err


def test_watch_again_adds_nothing(device: Device) -> None:
    device.watch()
    before = device.log("--json").objects
    [found] = device.watch("--json").objects
    assert (found["classified"], found["failed"], found["already"]) == (0, 1, 3)  # the one that is cut is tried again
    after = device.log("--json").objects
    assert [each.pop("tries") for each in after] == [each.pop("tries") + bool(each["failure"]) for each in before]
    assert after == before


def test_watch_takes_the_folders_of_the_settings(device: Device) -> None:
    inside = device.root / "srv" / "photos"
    put(inside / "a.jpg", coloured(10, 10, 200))
    (device.root / "etc/fieldmark/config.toml").write_text(
        '[agent]\nsettle_s = 0\n[[source]]\npath = "/srv/photos"\nstation = "oak"\n'
    )
    assert device("watch", "--once", "--root", device.root).code == 0
    [row] = device.log("--json").objects
    assert (row["photo"], row["station"]) == (str(inside / "a.jpg"), "oak")


def test_command_becomes_a_lean_process_that_keeps_its_number(device: Device, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "fieldmark.py"), "watch", "photos", "--once", "--root", "device-root"]
    command += ["--json", "--settle", "0", "--db", "my.db"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    # A file of this name in the folder that one stands in must not be imported.
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported from the current folder')")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["log"] == str(tmp_path / "my.db")
    assert len(device("log", "--db", tmp_path / "my.db", "--json").objects) == 4


def test_station_that_no_settings_could_have_is_wrong_usage_before_any_photo(device: Device) -> None:
    for name in ("", "a\nb", "\udce9", "x" * 201):
        end = device.watch("--station", name)
        assert end.code == 2
        assert "--station is" in end.err
    assert device.log("--json").code == 1  # there is no log yet
    device.watch("--station", " beech 4 ")
    assert {each["station"] for each in device.log("--json").objects} == {"beech 4"}


def test_watch_without_a_bundle_says_what_to_do(device: Device, tmp_path: Path) -> None:
    end = device("watch", device.photos, "--once", "--root", tmp_path / "new")
    assert end.code == 1
    assert re.fullmatch(r"fieldmark: .* holds no bundle\. Run: fieldmark flash .*\n", end.err)
    assert not (tmp_path / "new").exists()


# log


def test_log_json_holds_one_object_per_file(device: Device) -> None:
    device.watch("--station", "beech", "--utc-offset", "+01:00")
    deer, copy, fox, cut = sorted(device.log("--json").objects, key=_order)
    assert (deer["label"], deer["decision"], deer["station"], deer["bundle"]) == ("deer", "species", "beech", "tiny-7")
    assert deer["top"][0] == ["deer", deer["confidence"]]
    assert str(deer["taken"]).endswith("+01:00")
    assert (copy["label"], copy["duplicate_of"]) == ("deer", deer["photo"])
    assert (fox["label"], fox["failure"]) == ("fox", None)
    assert (cut["label"], cut["confidence"], cut["failure_code"]) == (None, None, "truncated")
    assert {row["schema"] for row in (deer, copy, fox, cut)} == {1}


def test_log_is_a_table_with_counts_at_its_end(device: Device) -> None:
    device.watch("--station", "beech")
    lines = device.log().out.splitlines()
    assert lines[0].split() == ["id", "taken", "station", "label", "conf", "photo", "note"]
    assert lines[-1] == "4 files, 1 of them copies, 1 failed."
    assert [line.split()[:3] for line in lines[-3:-1]] == [["deer", "1", "photo"], ["fox", "1", "photo"]]


def test_log_csv_reads_back(device: Device) -> None:
    device.watch()
    found = list(csv.DictReader(io.StringIO(device.log("--csv").out)))
    assert sorted(row["label"] for row in found) == ["", "deer", "deer", "fox"]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        pytest.param(["--species", "fox"], 1, id="one species"),
        pytest.param(["--station", "oak"], 0, id="another station"),
        pytest.param(["--since", "2023-11-14"], 4, id="from a day on"),
        pytest.param(["--until", "2023-11-13"], 0, id="up to a day"),
        pytest.param(["--below", "0.5"], 0, id="below a confidence"),
        pytest.param(["--limit", "2"], 2, id="the newest"),
        pytest.param(["--all-models"], 4, id="all models"),
    ],
)
def test_log_options_choose_rows(device: Device, options: list[str], count: int) -> None:
    device.watch("--station", "beech")
    assert len(device.log("--json", *options).objects) == count


def test_correction_goes_first_and_the_model_stays(device: Device) -> None:
    device.watch()
    [fox] = device.log("--json", "--species", "fox").objects
    end = device.log("correct", str(fox["id"]), "roe deer", "--who", "Ada", "--count", "2", "--comment", "limping")
    assert (end.code, end.out) == (0, "3/fox.jpg: fox -> roe deer\n")
    assert "new label" in end.err
    [row] = device.log("--json", "--species", "roe deer").objects
    assert (row["label"], row["person_label"], row["model_label"]) == ("roe deer", "roe deer", "fox")
    assert (row["confidence"], row["reviewed"], row["reviewed_by"]) == (1.0, True, "Ada")
    shown = device("log", "show", str(fox["id"]), "--root", device.root)
    assert "2 roe deer (limping) by Ada" in shown.out
    [details] = device.log("show", str(fox["id"]), "--json").objects
    assert details["reviews"][0]["observations"][0]["count"] == 2


def test_correction_is_compared_and_shown_as_it_is_kept(device: Device) -> None:
    device.watch()
    [fox] = device.log("--json", "--species", "fox").objects
    end = device.log("correct", str(fox["id"]), "  fox\n", "--comment", " two\n lines ")
    assert (end.code, end.out, end.err) == (0, "3/fox.jpg: fox -> fox\n", "")
    [details] = device.log("show", str(fox["id"]), "--json").objects
    assert details["reviews"][0]["observations"][0]["comment"] == "two lines"
    end = device.log("correct", str(fox["id"]), "fox\x1b[2J")
    assert (end.code, end.out) == (1, "")


def test_correcting_what_is_no_photo_is_refused(device: Device) -> None:
    device.watch()
    [cut] = [row for row in device.log("--json").objects if row["failure"]]
    end = device.log("correct", str(cut["id"]), "deer")
    assert end.code == 1
    assert "no photo that can be seen" in end.err


def _order(row: dict[str, Any]) -> int:
    return ["1-deer.jpg", "2-copy.jpg", "fox.jpg", "4-cut.jpg"].index(Path(row["photo"]).name)


# classify


def test_classify_prints_one_object_per_file_and_writes_nothing(device: Device, tiny_bundle: Path) -> None:
    before = sorted(device.root.rglob("*"))
    end = device("classify", device.photos, "--bundle", tiny_bundle, "--json", "--utc-offset", "+01:00")
    assert end.code == 0
    by_name = {Path(row["photo"]).name: row for row in end.objects}
    assert {name: row["label"] for name, row in by_name.items()} == {
        "1-deer.jpg": "deer", "2-copy.jpg": "deer", "fox.jpg": "fox", "4-cut.jpg": None,
    }  # fmt: skip
    assert by_name["2-copy.jpg"]["duplicate_of"] == by_name["1-deer.jpg"]["photo"]
    assert "truncated" in by_name["4-cut.jpg"]["failure"]
    assert end.err.splitlines()[-1] == "4 photos, 1 failed."
    assert sorted(device.root.rglob("*")) == before


def test_classify_and_log_agree(device: Device, tiny_bundle: Path) -> None:
    device.watch()
    said = {row["sha256"]: row for row in device("classify", device.photos, "--bundle", tiny_bundle, "--json").objects}
    for row in device.log("--json").objects:
        for key in ("label", "confidence", "top", "decision", "taken", "failure"):
            assert said[row["sha256"]][key] == row[key], key


def test_strict_makes_a_failed_photo_a_failed_command(device: Device, tiny_bundle: Path) -> None:
    assert device("classify", device.photos, "--bundle", tiny_bundle, "--csv", "--strict").code == 1
    whole = device.photos / "1-deer.jpg"
    assert device("classify", whole, "--bundle", tiny_bundle, "--strict").code == 0


def test_classify_says_for_people_what_it_saw(device: Device, tiny_bundle: Path) -> None:
    end = device("classify", device.photos / "1-deer.jpg", device.photos / "4-cut.jpg", "--bundle", tiny_bundle)
    first, second = end.out.splitlines()
    assert first.split()[0] == "deer"
    assert "failed: the photo is truncated" in second


def test_altered_bundle_classifies_nothing(device: Device, tiny_bundle: Path, tmp_path: Path) -> None:
    altered = tmp_path / "altered.fmb"
    data = bytearray(tiny_bundle.read_bytes())
    data[700] ^= 1
    altered.write_bytes(bytes(data))
    end = device("classify", device.photos, "--bundle", altered, "--json")
    assert (end.code, end.out) == (1, "")


# install, status, check


def test_install_status_check_on_a_new_root(device: Device, tiny_bundle: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    assert "none" in device("status", "--root", new).out
    assert device("check", "--root", new).code == 1
    [done] = device("install", tiny_bundle, "--root", new, "--json").objects
    assert done["changed"] is True
    assert "nothing changed" in device("install", tiny_bundle, "--root", new).out
    [found] = device("status", "--root", new, "--json").objects
    assert (found["bundle"]["name"], found["bundle"]["development"]) == ("tiny", True)
    assert "DEVELOPMENT key" in device("status", "--root", new).out
    end = device("check", "--root", new, "--json")
    assert end.code == 0
    assert all(each["passed"] for each in end.objects)


def test_root_can_come_from_the_environment(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDMARK_ROOT", str(device.root))
    [found] = device("status", "--json").objects
    assert found["root"] == str(device.root)


def test_relative_root_is_the_same_device_for_the_agent_that_stands_elsewhere(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(device.root.parent)
    plans: list[Plan] = []
    monkeypatch.setattr(process, "carry_out", lambda plan, *, as_json: plans.append(plan))
    (device.root / "etc/fieldmark/config.toml").write_text(
        '[[delete]]\nname = "a"\nlabel = "red"\nolder_days = 1\ncopied_to = "/copies"\n'
        '[service]\nprometheus = "/f.prom"\n'
    )
    assert device("watch", device.photos, "--once", "--root", device.root.name).code == 0
    [plan] = plans
    service, [policy] = plan.upkeep.service, plan.upkeep.deletes
    assert policy.copied_to == device.root / "copies"
    assert service.prometheus == device.root / "f.prom"
    assert service.status_file == device.root / "run/fieldmark/status.json"
    assert plan.slot.is_absolute()
    assert plan.log.is_absolute()


def test_device_does_not_take_its_own_previews_for_photos(device: Device) -> None:
    end = device("watch", device.root, "--once", "--root", device.root)
    assert (end.code, end.out) == (1, "")
    assert "pictures of Fieldmark's own" in end.err


def test_status_shows_what_it_can_and_fails_for_the_rest(device: Device) -> None:
    log = device.root / "var/lib/fieldmark/log.db"
    log.write_bytes(b"no database " * 100)
    end = device("status", "--root", device.root)
    assert end.code == 1
    assert "bundle    tiny 7" in end.out
    assert str(log) in end.out
    assert end.err.startswith(f"fieldmark: {device.root}: in trouble: log.")
    assert len(end.err.splitlines()) == 1
    end = device("status", "--root", device.root, "--json")
    [found] = end.objects
    assert (end.code, list(found["troubles"])) == (1, ["log"])


# review


def test_review_saves_its_page(device: Device, tmp_path: Path) -> None:
    device.watch()
    out = tmp_path / "page.html"
    end = device("review", "--root", device.root, "--save-html", out)
    assert (end.code, end.out) == (0, f"{out}: 3 photos.\n")
    assert out.read_text("utf-8").count("data:image/jpeg") == 2


# Usage


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        pytest.param(["watch", "nowhere", "--once"], 1, "is no folder", id="a folder that is not there"),
        pytest.param(["watch", ".", "--utc-offset", "CET"], 2, "expected hours and minutes", id="a zone's name"),
        pytest.param(["watch", ".", "--settle", "-1"], 2, "--settle", id="a negative time"),
        pytest.param(["log"], 1, "there is no detection log", id="no log"),
        pytest.param(["log", "--since", "yesterday"], 2, "expected a date", id="a day that is none"),
        pytest.param(["log", "--below", "2"], 2, "--below", id="a confidence above 1"),
        pytest.param(["log", "show", "x"], 2, "ID", id="a row that is no number"),
        pytest.param(["log", "correct", "1", "deer", "--count", "0"], 2, "--count", id="none of them"),
        pytest.param(["log", "correct", "1", "deer", "--count", "9" * 20], 2, "--count", id="more than there can be"),
        pytest.param(["log", "show", "9" * 20], 2, "ID", id="a row beyond every number"),
        pytest.param(["classify", "x.jpg", "--bundle", "x.fmb"], 2, "does not exist", id="a photo that is not there"),
        pytest.param(["classify", "."], 2, "--bundle", id="no bundle"),
        pytest.param(["review", "a.db", "--db", "b.db"], 2, "named twice", id="two logs"),
        pytest.param(["review", "a.db"], 1, "there is no detection log", id="a log that is not there"),
        pytest.param(["install", "x.fmb"], 1, "x.fmb cannot be read", id="a bundle that is not there"),
    ],
)
def test_wrong_use_is_one_line_and_its_code(
    device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    monkeypatch.setenv("FIELDMARK_ROOT", str(device.root))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    end = device(*arguments)
    assert (end.code, end.out) == (code, "")
    assert len(end.err.splitlines()) == 1
    assert says in end.err


def test_json_and_csv_exclude_each_other(device: Device) -> None:
    device.watch()
    assert device.log("--json", "--csv").code == 2
