"""The settings file: what was written repeats the training, and what somebody wrote wrongly is named."""

from __future__ import annotations

import contextlib
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ConfigError, FieldmarkError
from trainer import settings_file
from trainer.settings import CHOICES, Settings

ODD = Settings(
    backbone="vgg16", side=96, cut="block1_pool", blocks=(32, 64), head=("256", "dropout:0.5"), pooling="max",
    learn="all", freeze=("block1_*",), rate=1e-7, backbone_rate=0.1, cross_validate=True, refit=False, seed=2**32 - 1,
    sequence_column='a "b" \\ c\x7f', balance="loss",
)  # fmt: skip


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "train.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("settings", [Settings(), ODD], ids=["the defaults", "all but the defaults"])
def test_what_was_written_is_read_back(tmp_path: Path, settings: Settings) -> None:
    data, found = settings_file.read(written(tmp_path, settings_file.text(tmp_path / "photos", settings)))
    assert data == tmp_path / "photos"
    assert Settings(**found) == settings


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.floats(1e-7, 1.0), st.integers(0, 2**32 - 1))
def test_any_text_and_number_survives(text: str, rate: float, seed: int) -> None:
    settings = Settings(sequence_column=text, rate=rate, seed=seed)
    assert tomllib.loads(settings_file.text(Path("/photos"), settings))["sequence_column"] == text
    assert tomllib.loads(settings_file.text(Path("/photos"), settings))["rate"] == rate


def test_every_setting_is_in_the_file_so_that_a_person_sees_what_there_is() -> None:
    text = settings_file.text(Path("/photos"), Settings())
    for field in fields(Settings):
        assert f"\n{field.name} = " in text or f"\n# {field.name} is not set" in text


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    data, found = settings_file.read(written(tmp_path, 'data = "photos"\nweights = "my.h5"\nboxes = "/abs/md.json"'))
    assert data == tmp_path / "photos"
    assert found == {"weights": str(tmp_path / "my.h5"), "boxes": "/abs/md.json"}
    assert settings_file.read(written(tmp_path, 'weights = "none"'))[1] == {"weights": "none"}


def test_a_file_s_path_is_written_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = settings_file.text(Path("photos"), Settings(weights="my.h5"))
    (tmp_path / "elsewhere").mkdir()
    data, found = settings_file.read(written(tmp_path / "elsewhere", text))
    assert (data, found["weights"]) == (tmp_path / "photos", str(tmp_path / "my.h5"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("epoch = 3", "epoch is no setting. The nearest is epochs", id="a key misspelt"),
        pytest.param('epochs = "3"', "epochs is '3', expected a whole number", id="a number in quotes"),
        pytest.param("epochs = 3.5", "epochs is 3.5, expected a whole number", id="a broken number of epochs"),
        pytest.param("epochs = true", "epochs is True, expected a whole number", id="true for a number"),
        pytest.param("rate = true", "rate is True, expected a number", id="true for a rate"),
        pytest.param("refit = 1", "refit is 1, expected true or false", id="a number for true"),
        pytest.param("backbone = 16", "backbone is 16, expected a text in quotes", id="a number for a name"),
        pytest.param('head = "256"', "head is '256', expected a list of texts", id="a text for a list"),
        pytest.param("head = [256]", "expected a list of texts", id="numbers for texts"),
        pytest.param('blocks = ["64"]', "expected a list of whole numbers", id="texts for numbers"),
        pytest.param("blocks = [true]", "expected a list of whole numbers", id="true in a list of numbers"),
        pytest.param("[network]\nside = 3", "network is no setting", id="a table"),
        pytest.param("epochs = ", "is no settings file in TOML", id="no TOML"),
        pytest.param("a = " + "[" * 30_000, "is no settings file in TOML", id="nested without end"),
        pytest.param("#" * 70_000, "has more than 65536 bytes", id="far too long"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        settings_file.read(written(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "train.toml" in str(caught.value)


def test_bytes_that_are_no_text_and_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is no settings file"):
        settings_file.read(tmp_path / "train.toml")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        settings_file.read(tmp_path / "none.toml")


@given(st.dictionaries(st.sampled_from([f.name for f in fields(Settings)]), st.one_of(st.integers(), st.booleans())))
def test_any_values_are_taken_or_refused_and_nothing_else(values: dict[str, Any]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        text = "\n".join(f"{key} = {str(value).lower()}" for key, value in values.items())
        with contextlib.suppress(FieldmarkError):
            Settings(**settings_file.read(written(Path(folder), text))[1])


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_that_is_none_is_refused_with_those_there_are(name: str) -> None:
    changes: dict[str, Any] = {name: "else"}
    with pytest.raises(ConfigError, match=f"{name} is 'else', expected {CHOICES[name][0]}"):
        Settings(**changes)
