"""Export without a network: names, tables, and what is refused before any work. The rest is in test_chain."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import DataError
from edge.model import bundle
from trainer import export
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


def test_the_table_has_a_line_for_each_runtime() -> None:
    row = Row(
        "int8", "tflite_runtime", "2.14.0", "x86_64", "default", False, "because", 80, 0.875, 0.9, 400, 0.96, 0.4, 81.2,
        51.0,
    )  # fmt: skip
    head, line = export.table([row])
    assert line.split() == [
        "tflite_runtime", "2.14.0", "FAILED", "87.5%", "90.0%", "96.0%", "81.2", "51", "because",
    ]  # fmt: skip
    assert head.index("verdict") == line.index("FAILED")
