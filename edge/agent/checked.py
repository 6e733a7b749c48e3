"""Values of one settings file, checked one by one, with errors that say file, key, what was found and what is expected.

Knows kinds of values, not settings. Never reads a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edge.errors import ConfigError, nearest

MOST_TEXT = 200
MOST_PATH = 4000


def is_text(value: str, most: int = MOST_TEXT) -> bool:
    """Whether it is a line of text that is neither empty nor too long."""
    return bool(value.strip()) and len(value) <= most and value.isprintable()


class Checked:
    """Checks the values of one file."""

    def __init__(self, path: Path, root: Path) -> None:
        """Set up.

        Args:
            path: the file, for errors.
            root: the device root, below which all folders of the file lie.
        """
        self.path, self.root = path, root

    def table(self, where: str, value: Any) -> dict[str, Any]:
        """A table."""
        if not isinstance(value, dict):
            raise self.refuse(where, repr(value)[:80], "a table")
        return value

    def tables(self, where: str, value: Any, most: int = 1000) -> list[Any]:
        """What stands in double brackets."""
        if not isinstance(value, list) or len(value) > most:
            raise self.refuse(where, "a single table", f"[[{where}]] in double brackets, at most {most}")
        return value

    def check_keys(self, where: str, table: dict[str, Any], known: Iterable[str]) -> None:
        """Refuse a key that nobody knows, with the nearest one that there is."""
        names = list(known)
        for key in table:
            if key not in names:
                full = f"{where}.{key[:80]}" if where else key[:80]
                raise ConfigError(
                    f"{self.path}: {full} is no setting. The nearest is `{nearest(key[:80], names)}`; there are "
                    f"{', '.join(names)}.",
                    code="unknown key",
                )

    def number(self, where: str, value: Any, low: float, high: float, *, whole: bool = False) -> float:
        """A number between two others, which are included."""
        kinds = int if whole else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
            what = "a whole number" if whole else "a number"
            raise self.refuse(where, repr(value)[:80], f"{what} from {low} to {high}")
        return value

    def flag(self, where: str, value: Any) -> bool:
        """True or false."""
        if not isinstance(value, bool):
            raise self.refuse(where, repr(value)[:80], "true or false")
        return value

    def text(self, where: str, value: Any, most: int = MOST_TEXT) -> str:
        """A line of text that is not empty, without space around it."""
        if not isinstance(value, str) or not is_text(value, most):
            raise self.refuse(where, repr(value)[:80], f"1 to {most} printable characters")
        return value.strip()

    def text_or_none(self, where: str, value: Any) -> str | None:
        """The same, where it may be left out."""
        return None if value is None else self.text(where, value)

    def texts(self, where: str, value: Any, most: int, example: str) -> tuple[str, ...]:
        """A list of texts that is not empty."""
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            raise self.refuse(where, repr(value)[:80], f"1 to {most} {example}")
        return tuple(self.text(f"{where}[{i}]", each) for i, each in enumerate(value, 1))

    def one_of(self, where: str, value: Any, names: tuple[str, ...]) -> str:
        """One of some words."""
        if value not in names:
            raise self.refuse(where, repr(value)[:80], " or ".join(names))
        return str(value)

    def below_root(self, where: str, value: Any) -> Path:
        """A file or folder; below the root, so that a card mounted on a workstation means its own."""
        path = self.text(where, value, MOST_PATH)
        return self.root / os.path.normpath("/" + path.lstrip("/")).lstrip("/")

    def below_root_or_none(self, where: str, value: Any) -> Path | None:
        """The same, where it may be left out."""
        return None if value is None else self.below_root(where, value)

    def refuse(self, where: str, found: str, expected: str) -> ConfigError:
        """The error, to be raised."""
        return ConfigError(f"{self.path}: {where} is {found}, expected {expected}.")
