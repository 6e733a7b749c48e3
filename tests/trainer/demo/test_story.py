"""The demo's story: which commands run, what is shown, how the log is held against the truth. No model is trained."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.errors import DataError, FieldmarkError
from trainer.demo import scenes, story
from trainer.demo.scenes import Drawn

ROOT = Path(__file__).resolve().parents[3]
STEPS = ["train", "export", "flash", "watch", "log", "log", "review"]


class FakeFieldmark:
    """Stands for the command line: notes what is run, and answers ``log --json`` from the card and the truth."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.events: list[str] = []
        self.commands: list[list[str]] = []
        self.variables: list[dict[str, str]] = []
        self.fails_at = ""
        self.changed: dict[str, dict[str, Any]] = {}
        self.lost: set[str] = set()

    def say(self, line: str) -> None:
        self.events.append(line)

    def __call__(self, arguments: Sequence[str], variables: Mapping[str, str], *, capture: bool) -> str:
        self.commands.append(list(arguments))
        self.variables.append(dict(variables))
        self.events.append(f"runs {arguments[0]}")
        if arguments[0] == self.fails_at:
            raise FieldmarkError(f"{arguments[0]} failed")
        return "".join(json.dumps(row) + "\n" for row in self.rows()) if capture else ""

    def rows(self) -> list[dict[str, Any]]:
        with (self.out / "card-truth.csv").open(encoding="utf-8", newline="") as file:
            truth = list(csv.DictReader(file))
        return [self.row(each) for each in truth if each["photo"] not in self.lost]

    def row(self, each: Mapping[str, str]) -> dict[str, Any]:
        failure = f"it is {each['failure']}" if each["failure"] else None
        row = {"photo": each["photo"], "failure": failure, "label": each["label"] or None, "confidence": 0.9}
        return row | {"decision": "species"} | self.changed.get(each["photo"], {})


@pytest.fixture(scope="module")
def drawn_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Each set of photos is drawn once for all tests here, then copied: what is in them does not matter."""
    templates: dict[str, tuple[Path, list[Drawn]]] = {}

    def once(real: Callable[..., list[Drawn]]) -> Callable[..., list[Drawn]]:
        def draw(out: Path, *, truth: Path | None = None, progress: object = None, **sizes: int) -> list[Drawn]:
            key = f"{real.__name__} {sorted(sizes.items())}"
            if key not in templates:
                folder = tmp_path_factory.mktemp("template") / "photos"
                templates[key] = folder, real(folder, **sizes)
            folder, drawn = templates[key]
            shutil.copytree(folder, out)
            if truth:
                shutil.copyfile(folder.with_name("photos-truth.csv"), truth)
            return [replace(each, path=out / each.path.relative_to(folder)) for each in drawn]

        return draw

    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_dataset", "draw_card"):
            patch.setattr(scenes, name, once(getattr(scenes, name)))
        yield


@pytest.fixture
def small(drawn_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few photos."""
    for name, value in (("STATIONS", 1), ("BURSTS_PER_LABEL", 1), ("PHOTOS_PER_BURST", 1), ("CARD_BURSTS", 3)):
        monkeypatch.setattr(story, name, value)
    monkeypatch.setattr(story, "CARD_STATION", 0)
    monkeypatch.delenv(story.KEYS_VARIABLE, raising=False)


@pytest.fixture
def fake(tmp_path: Path, small: None) -> FakeFieldmark:
    return FakeFieldmark(tmp_path / "demo")


def tell(fake: FakeFieldmark, data: Path | None = None) -> story.Summary:
    return story.run_demo(data, fake.out, say=fake.say, runner=fake)


# The commands


def test_commands_are_those_of_the_design_in_its_order(fake: FakeFieldmark) -> None:
    tell(fake)
    out, device = str(fake.out), str(fake.out / "device")
    assert fake.commands == [
        ["train", f"{out}/photos", "--out", f"{out}/run"],
        ["export", f"{out}/run", "--out", f"{out}/demo.fmb"],
        ["flash", f"{out}/demo.fmb", device],
        ["watch", f"{out}/card", "--once", "--root", device, "--station", scenes.station_name(0)],
        ["log", "--root", device],
        ["log", "--root", device, "--json"],
        ["review", "--root", device, "--save-html", f"{out}/review.html"],
    ]


def test_each_command_is_shown_as_one_would_type_it_before_it_runs(
    fake: FakeFieldmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fake.out.parent)
    tell(fake)
    told = [event for event in fake.events if event.startswith(("$ ", "runs "))]
    assert told[1::2] == [f"runs {name}" for name in STEPS]
    assert told[::2] == [
        "$ fieldmark train demo/photos --out demo/run",
        "$ FIELDMARK_KEYS=demo/keys fieldmark export demo/run --out demo/demo.fmb",
        "$ fieldmark flash demo/demo.fmb demo/device",
        "$ fieldmark watch demo/card --once --root demo/device --station 'BEECH HOLLOW'",
        "$ fieldmark log --root demo/device",
        "$ fieldmark log --root demo/device --json > demo/log.jsonl",
        "$ fieldmark review --root demo/device --save-html demo/review.html",
    ]


def test_keys_are_the_demo_s_own_and_not_the_user_s(fake: FakeFieldmark) -> None:
    tell(fake)
    assert fake.variables == [{story.KEYS_VARIABLE: str(fake.out / "keys")}] * len(STEPS)


def test_keys_that_the_user_names_are_used(fake: FakeFieldmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(story.KEYS_VARIABLE, "/elsewhere")
    tell(fake)
    assert fake.variables == [{}] * len(STEPS)
    assert not any(story.KEYS_VARIABLE in event for event in fake.events)


@pytest.mark.parametrize("name", ["train", "export", "flash", "watch", "log", "review"])
def test_nothing_runs_after_a_step_that_failed(fake: FakeFieldmark, name: str) -> None:
    fake.fails_at = name
    with pytest.raises(FieldmarkError, match=f"{name} failed"):
        tell(fake)
    assert [command[0] for command in fake.commands] == STEPS[: STEPS.index(name) + 1]


# What is told


def test_five_headings_with_the_time_of_each(fake: FakeFieldmark) -> None:
    summary = tell(fake)
    assert [event[0] for event in fake.events if event[:2] in ("1.", "2.", "3.", "4.", "5.")] == list("12345")
    assert sum("took" in event for event in fake.events) == 5 + 1
    assert len(summary.seconds) == 5


def test_drawn_photos_are_called_drawn_first(fake: FakeFieldmark) -> None:
    tell(fake)
    assert "DRAWN" in " ".join(fake.events[:2])


def test_ends_with_everything_made_and_how_to_open_the_review_page(fake: FakeFieldmark) -> None:
    summary = tell(fake)
    end = "\n".join(fake.events[fake.events.index("runs review") :])
    for path in (summary.places.photos, summary.places.card, summary.places.bundle, summary.places.page):
        assert str(path) in end
    assert fake.events[-1] == f"  $ fieldmark review --root {summary.places.device}"


def test_all_right_is_told_as_such(fake: FakeFieldmark) -> None:
    compared = tell(fake).compared
    assert (compared.files, compared.rows, compared.right, compared.unknown) == (6, 6, 3, 0)
    assert compared.wrong == ()
    assert [each.expected for each in compared.failed] == [True] * 3
    assert compared.accuracy == 1


def test_wrong_unknown_and_unexpected_failures_are_told_apart(fake: FakeFieldmark) -> None:
    name = "DCIM/100DRAWN/IMG_000{}.JPG".format
    fake.changed = {
        name(1): {"label": "wolf", "confidence": 0.7},
        name(2): {"label": "unknown", "decision": "unknown"},
        name(3): {"label": None, "failure": "the disk is full"},
    }
    compared = tell(fake).compared
    assert (compared.right, compared.unknown, compared.accuracy) == (0, 1, 0)
    assert [(each.photo, each.said, each.confidence) for each in compared.wrong] == [(name(1), "wolf", 0.7)]
    assert [each.photo for each in compared.failed if not each.expected] == [name(3)]
    assert f"  {name(3)}: the disk is full (not expected)" in fake.events


def test_rows_with_the_watched_folder_in_front_are_found(fake: FakeFieldmark) -> None:
    name = "DCIM/100DRAWN/IMG_0001.JPG"
    fake.changed = {name: {"photo": f"/media/card/{name}"}}
    assert tell(fake).compared.right == 3


@pytest.mark.parametrize("copies", [0, 2])
def test_file_without_exactly_one_row_fails_the_demo(fake: FakeFieldmark, copies: int) -> None:
    first, second = (f"DCIM/100DRAWN/IMG_000{i}.JPG" for i in (1, 2))
    if copies:
        fake.changed = {second: {"photo": first}}
    else:
        fake.lost = {first}
    with pytest.raises(FieldmarkError, match=f"{first} has {copies} rows in the log, expected 1") as refused:
        tell(fake)
    assert refused.value.code == "rows"


def test_summary_as_json_is_one_object_on_stdout_and_the_story_on_stderr(
    fake: FakeFieldmark, capsys: pytest.CaptureFixture[str]
) -> None:
    story.run_demo(None, fake.out, as_json=True, runner=fake)
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["schema"], found["drawn"], found["files"], found["right"]) == (1, True, 6, 3)
    assert found["paths"]["bundle"] == str(fake.out / "demo.fmb")
    assert "$ fieldmark train" in err


# The folder


def test_folder_that_holds_something_is_refused_and_untouched(fake: FakeFieldmark) -> None:
    fake.out.mkdir()
    (fake.out / "mine").write_text("mine")
    with pytest.raises(DataError, match="already holds something"):
        tell(fake)
    assert [path.name for path in fake.out.iterdir()] == ["mine"]


def test_without_a_name_the_next_free_folder_is_taken(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fieldmark-demo").mkdir()
    (tmp_path / "fieldmark-demo" / "mine").write_text("mine")
    fake = FakeFieldmark(tmp_path / "fieldmark-demo-2")
    summary = story.run_demo(None, say=fake.say, runner=fake)
    assert summary.places.out == tmp_path / "fieldmark-demo-2"


# A person's own photos


@pytest.fixture
def own(tmp_path: Path, drawn_once: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder per class with 24 photos in 12 bursts, and one file that is no photo."""
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "own"
    scenes.draw_dataset(data, stations=1, bursts_per_label=2, photos_per_burst=2)
    (data / "deer" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    return data


def facts(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_own_photos_are_only_read_and_each_is_learned_from_or_on_the_card(fake: FakeFieldmark, own: Path) -> None:
    before = facts(own)
    summary = tell(fake, own)
    assert facts(own) == before
    learned = [path.read_bytes() for path in summary.places.photos.rglob("*") if path.is_file()]
    on_card = [path.read_bytes() for path in summary.places.card.rglob("*") if path.is_file()]
    assert sorted(learned + on_card) == sorted(data for data, _ in before.values())
    assert 2 <= len(on_card) <= 8
    assert summary.photos == len(learned)


def test_own_photos_of_a_burst_are_on_one_side(fake: FakeFieldmark, own: Path) -> None:
    summary = tell(fake, own)
    with summary.places.truth.open(encoding="utf-8", newline="") as file:
        held = {own / row["source"] for row in csv.DictReader(file)}
    for folder in own.glob("*/*/"):
        names = sorted(folder.iterdir())  # two bursts of two, in order of time
        for burst in (names[:2], names[2:]):
            assert len({path in held for path in burst}) == 1


def test_own_photos_keep_their_label_as_folder_and_their_kind_as_ending(fake: FakeFieldmark, own: Path) -> None:
    summary = tell(fake, own)
    assert sorted(path.name for path in summary.places.photos.iterdir()) == sorted(summary.labels)
    assert (summary.places.photos / "deer" / "cut.jpg").exists()
    assert {path.suffix for path in summary.places.card.rglob("*.*") if path.is_file()} == {".JPG"}


def test_own_photos_are_not_called_drawn(fake: FakeFieldmark, own: Path) -> None:
    summary = tell(fake, own)
    assert not summary.drawn
    assert not any("drawn" in event.lower() for event in fake.events)
    assert "--station" not in fake.commands[3]


@pytest.mark.parametrize("name", ["missing", "file.csv"])
def test_own_photos_that_are_no_folder_are_refused(fake: FakeFieldmark, tmp_path: Path, name: str) -> None:
    (tmp_path / "file.csv").write_text("file,label\n")
    with pytest.raises(DataError, match="is not a folder"):
        tell(fake, tmp_path / name)
    assert fake.commands == []


# The real command line


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))


def test_child_runs_the_real_command_and_imports_nothing_from_here(
    importable: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fieldmark.py").write_text("raise SystemExit('the one in the photo folder')")
    monkeypatch.chdir(tmp_path)
    assert story.run_command(["--version"], {}, capture=True).startswith("fieldmark ")


def test_child_that_fails_becomes_one_line_with_its_exit_code(importable: None) -> None:
    with pytest.raises(FieldmarkError, match=r"fieldmark nonsense ended with exit code 2; the line above says why"):
        story.run_command(["nonsense"], {}, capture=True)


def test_child_gets_the_variables(importable: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keys = tmp_path / "nobody-s-keys"
    with pytest.raises(FieldmarkError, match="exit code 1"):
        story.run_command(["keys", "show"], {story.KEYS_VARIABLE: str(keys)}, capture=True)
    assert str(keys) in capfd.readouterr().err


def test_relative_folders_in_variables_are_those_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child starts in ``/``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIELDMARK_CACHE", "cache")
    given: dict[str, str] = {}

    def child(*_: object, env: dict[str, str], **__: object) -> subprocess.CompletedProcess[str]:
        given.update(env)
        return subprocess.CompletedProcess([], 0, "")

    monkeypatch.setattr(subprocess, "run", child)
    story.run_command(["--version"], {story.KEYS_VARIABLE: "my/keys", "FIELDMARK_ROOT": ""}, capture=True)
    assert given["FIELDMARK_CACHE"] == str(tmp_path / "cache")
    assert given[story.KEYS_VARIABLE] == str(tmp_path / "my/keys")
    assert given["FIELDMARK_ROOT"] == ""
    assert "PATH" in given
