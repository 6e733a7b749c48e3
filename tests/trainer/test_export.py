"""Export without a network: names, tables, and what is refused before any work. The rest is in test_chain."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge import pathtext
from edge.errors import ConfigError, DataError
from edge.model import bundle
from tests.trainer.test_run import FACTS
from trainer import export, pixels, run
from trainer.dataset import readers
from trainer.dataset.samples import Unreadable
from trainer.gate import Row
from trainer.progress import Steps


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("fox", "fox"),
        ("Fox run 3", "fox-run-3"),
        ("2026-05-01_night", "2026-05-01_night"),
        ("Füchse & Rehe", "f-chse-rehe"),
        ("--x--", "x"),
        ("лиса", "model"),
        ("", "model"),
        ("a" * 80, "a" * 64),
    ],
)
def test_a_bundle_s_name_is_made_from_the_folder_s(folder: str, name: str) -> None:
    assert export.bundle_name(folder) == name


@given(st.text(max_size=90))
def test_any_folder_gives_a_name_that_a_bundle_may_have(folder: str) -> None:
    assert re.fullmatch(bundle.NAME, export.bundle_name(folder))


@pytest.mark.parametrize(
    ("out", "says"),
    [
        pytest.param("fox.zip", "ends in .fmb", id="another ending"),
        pytest.param("fox", "ends in .fmb", id="no ending"),
        pytest.param("none/fox.fmb", "is no folder", id="a folder that is not there"),
    ],
)
def test_a_place_that_cannot_be_is_refused_before_any_work(tmp_path: Path, out: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        export.export(tmp_path / "no run needed", tmp_path / out, export.Options(), Steps(quiet=True))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_run_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no run"):
        export.export(tmp_path, tmp_path / "fox.fmb", export.Options(), Steps(quiet=True))
    assert list(tmp_path.iterdir()) == []


def test_the_table_has_a_line_for_each_row_and_says_which_do_not_decide() -> None:
    row = Row(
        "int8", "tflite_runtime", "2.14.0", "x86_64", "default", False, "because",
        n=80, accuracy=0.875, accuracy_float=0.9, agreement=0.96, ms=81.2, rss_mib=51.0,
    )  # fmt: skip
    head, line, told = export.table([row, replace(row, deciding=False, kernels="reference", ms=0.0, rss_mib=0.0)])
    assert line.split() == [
        "int8", "tflite_runtime", "2.14.0", "x86_64", "default", "FAILED", "87.5%", "90.0%", "96.0%", "81.2", "51",
        "because",
    ]  # fmt: skip
    assert head.index("verdict") == line.index("FAILED")
    assert told.split()[4:6] == ["reference", "(FAILED)"]
    assert told.split()[-3:] == ["-", "-", "because"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param(export.Options(name="Fox 1"), "name is 'Fox 1'; expected", id="a name with capitals and spaces"),
        pytest.param(export.Options(name=""), "name is ''; expected", id="an empty name"),
        pytest.param(export.Options(name="fox\n"), "name is 'fox", id="a name of two lines"),
        pytest.param(export.Options(sequence=0), "sequence is 0, expected at least 1", id="sequence 0"),
        pytest.param(export.Options(threshold=float("nan")), "threshold is nan", id="no threshold"),
        pytest.param(export.Options(data_licence=" "), "data licence is empty", id="an empty licence"),
        pytest.param(export.Options(variant="int4"), "variant 'int4' is not to be had", id="a variant nobody knows"),
        pytest.param(export.Options(require=("tensorrt",)), "runtime 'tensorrt' is not", id="no such runtime"),
    ],
)
def test_an_option_that_no_bundle_holds_is_refused_before_any_work(
    tmp_path: Path, options: export.Options, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        export.export(tmp_path / "no run needed", tmp_path / "fox.fmb", options, Steps(quiet=True))


def test_photos_whose_names_are_not_utf_8_are_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))
    data = tmp_path / os.fsdecode(b"d\xe9")
    for label, name in (("empty", b"caf\xe9.jpg"), ("empty", b"caf%E9.jpg"), ("deer", b"a.jpg")):
        (data / label).mkdir(parents=True, exist_ok=True)
        colour = tuple(name[:5].ljust(3)[-3:])
        Image.new("RGB", (120, 100), colour).save(data / label / os.fsdecode(name))
    spec = FACTS.input
    decoded, bad, _ = pixels.decode(readers.read(data), spec, tmp_path / "cache")
    assert bad == []
    lines = [
        run.PhotoLine(each.sample.name, each.sample.label, run.HOLDOUT, i, each.sha256, "fox", 1.0)
        for i, each in enumerate(decoded)
    ]
    facts = replace(FACTS, data_folder=pathtext.to_text(str(data)))
    odd = Unreadable("fox/x", "fox", "missing", os.fsdecode(b"caf\xe9 is gone."))
    run.write(tmp_path, facts, lines, [odd], [])
    found = export.photos_of(run.read(tmp_path), Steps(quiet=True))
    assert len(found) == len(found.stack) == 3
    assert r"caf\udce9 is gone." in (tmp_path / run.UNREADABLE).read_text(encoding="utf-8")
