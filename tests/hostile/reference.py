"""What `docs/bundle.md` says, so that tests can hold it to the code and the code to it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bundle.md"


@cache
def section(title: str) -> str:
    """The text under a heading."""
    return PAGE.read_text("utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of the tables under a heading, without their heads."""
    lines = [line.strip("|").split("|") for line in section(title).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    heads = {i + shift for i, row in enumerate(cells) if set(row[0]) == {"-"} for shift in (-1, 0)}
    return [row for i, row in enumerate(cells) if i not in heads]


@cache
def codes() -> frozenset[str]:
    """The codes of the table."""
    return frozenset(quoted(row[0])[0] for row in rows("Codes"))


def quoted(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)
