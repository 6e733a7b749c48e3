from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge import pathtext

# Names as a file system has them: any bytes but the null byte. The last ones look like escapes already.
NAMES = st.binary(min_size=1, max_size=40).filter(lambda raw: b"\0" not in raw)


@given(NAMES)
@example(b"%25")
@example(b"%2525\xff%FF")
@example(b"%\xff")
@example("é".encode()[:1])
def test_every_name_comes_back_as_it_was(raw: bytes) -> None:
    text = pathtext.to_text(os.fsdecode(raw))
    text.encode("utf-8")  # no lone surrogates: SQLite, JSON and HTML take it
    assert os.fsencode(pathtext.from_text(text)) == raw


@given(NAMES, NAMES)
@example(b"a\xff.jpg", b"a%FF.jpg")
def test_two_names_never_share_a_text(one: bytes, other: bytes) -> None:
    if one != other:
        assert pathtext.to_text(os.fsdecode(one)) != pathtext.to_text(os.fsdecode(other))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        pytest.param(b"DCIM/IMG_0001.JPG", "DCIM/IMG_0001.JPG", id="a plain name stays"),
        pytest.param("Füchse/01.jpg".encode(), "Füchse/01.jpg", id="UTF-8 stays"),
        pytest.param(b"100%.jpg", "100%.jpg", id="a percent sign stays"),
        pytest.param(b"a%20b.jpg", "a%20b.jpg", id="an escape that is not ours stays"),
        pytest.param(b"caf\xe9.jpg", "caf%E9.jpg", id="a Latin-1 byte is escaped"),
        pytest.param(b"caf%E9.jpg", "caf%25E9.jpg", id="what looks like our escape is escaped"),
    ],
)
def test_text_of_a_name(raw: bytes, text: str) -> None:
    assert pathtext.to_text(os.fsdecode(raw)) == text
