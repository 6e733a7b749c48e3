"""Label files and input options, as people write them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ConfigError, DataError
from edge.model.spec import InputSpec
from trainer.imported import source


def written(folder: Path, content: bytes) -> Path:
    path = folder / "labels.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        pytest.param(b"fox\nroe deer\nempty\n", ("fox", "roe deer", "empty"), id="one a line"),
        pytest.param(b"0 fox\n1 roe deer\n2 empty", ("fox", "roe deer", "empty"), id="numbered by Teachable Machine"),
        pytest.param(b"0 fox\r\n1 deer\r\n", ("fox", "deer"), id="Windows line ends"),
        pytest.param(b"\xef\xbb\xbffox\ndeer\n\n\n", ("fox", "deer"), id="a byte order mark, empty lines at the end"),
        pytest.param("Füchse\n鹿\n".encode(), ("Füchse", "鹿"), id="letters of other languages"),
        pytest.param(b"0 fox\ndeer\n", ("0 fox", "deer"), id="a number on one line only"),
        pytest.param(b"1 fox\n2 deer\n", ("1 fox", "2 deer"), id="numbers that do not begin at 0"),
        pytest.param(b"Empty\nPERSON\nfox\n", ("empty", "person", "fox"), id="the two fixed labels in another case"),
    ],
)
def test_labels_are_read_in_the_order_of_the_answers(tmp_path: Path, content: bytes, labels: tuple[str, ...]) -> None:
    assert source.read_labels(written(tmp_path, content)) == labels


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "0 labels|1 labels|empty line", id="an empty file"),
        pytest.param(b"fox\n", "1 labels, expected 2", id="one label"),
        pytest.param(b"fox\n\ndeer\n", "line 2: '' is an empty line", id="an empty line in the middle"),
        pytest.param(b"fox\ndeer\nFox\n", "line 3: 'Fox' is also on line 1", id="a label twice in another case"),
        pytest.param(b"0 fox\n1 deer\n2 fox\n", "line 3: 'fox' is also on line 1", id="a numbered label twice"),
        pytest.param(b"fox\n\xff\xfe\n", "no UTF-8 text .byte 4.", id="no UTF-8"),
        pytest.param(b"fox\nde\x07er\n", "line 2", id="a control character"),
        pytest.param(b"fox\n" + b"x" * 101, "at most 100", id="a label of 101 characters"),
        pytest.param(b"fox\nUnknown\n", "what a device says", id="a label that is a decision"),
        pytest.param(b"x\n" * 20_000, "20000 labels", id="twenty thousand labels"),
        pytest.param(b"x" * (source.MAX_LABELS_BYTES + 1), "more than 1048576 bytes", id="a huge file"),
    ],
)
def test_a_label_file_that_cannot_be_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        source.read_labels(written(tmp_path, content))


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "missing.txt", tmp_path / "pipe"):
        with pytest.raises(DataError, match="is no file"):
            source.read_labels(path)


@given(st.binary(max_size=300))
def test_any_bytes_give_labels_or_a_sentence(content: bytes) -> None:
    labels: tuple[str, ...] = ("a", "b")
    with contextlib.suppress(DataError):
        labels = source.labels_of(content, "labels.txt")
    assert len(labels) >= 2
    assert all(label and label == label.strip() and label.isprintable() for label in labels)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("224", InputSpec(224, 224)),
        ("224x320", InputSpec(height=224, width=320)),
        ("224,crop", InputSpec(224, 224, aspect="crop")),
        (" 96x128 , pad, box ", InputSpec(96, 128, resample="box", aspect="pad")),
        ("224,cut_top=40,cut_bottom=16,bicubic", InputSpec(224, 224, "bicubic", "stretch", 40, 16)),
    ],
)
def test_an_input_is_read(text: str, spec: InputSpec) -> None:
    assert source.parse_input(text) == spec


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("", "begins with ''", id="nothing"),
        pytest.param("pad,224", "begins with 'pad'", id="the size not first"),
        pytest.param("224x", "HEIGHTxWIDTH", id="half a size"),
        pytest.param("224x224x3", "HEIGHTxWIDTH", id="channels too"),
        pytest.param("٢٢٤", "HEIGHTxWIDTH", id="other digits"),
        pytest.param("0", "expected 1 to 2048", id="no pixels"),
        pytest.param("4096", "expected 1 to 2048", id="too many pixels"),
        pytest.param("224,squash", "'squash', which is not known", id="an unknown word"),
        pytest.param("224,pad,crop", "sets aspect twice", id="two ways to treat proportions"),
        pytest.param("224,cut_top=-3", "expected a number of rows", id="a negative cut"),
        pytest.param("224,cut_top", "not known", id="a cut without rows"),
        pytest.param("224,cut_top=2000", "expected 0 to 1000 rows", id="a cut of too much"),
    ],
)
def test_an_input_that_cannot_be_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        source.parse_input(text)


@given(st.text(max_size=60))
def test_any_text_gives_an_input_or_a_sentence(text: str) -> None:
    with contextlib.suppress(ConfigError):
        source.parse_input(text)
