"""How errors reach a terminal."""

from __future__ import annotations

import pytest

from edge.errors import one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("Rehb\u00f6cke 2.jpg", "Rehb\u00f6cke 2.jpg", id="what can be printed stays"),
        pytest.param("a\nb\r\tc", "a\\nb\\r\\tc", id="line breaks"),
        pytest.param("\x1b[2J\x9b", "\\x1b[2J\\x9b", id="terminal sequences"),
        pytest.param("caf\udce9", "caf\\udce9", id="a name that is no UTF-8"),
        pytest.param("a\u202egpj", "a\\u202egpj", id="what turns the text around"),
    ],
)
def test_text_is_one_line_that_controls_nothing(text: str, shown: str) -> None:
    assert one_line(text) == shown
