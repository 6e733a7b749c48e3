"""Strict JSON for signed files: every key expected, present and once, every value of its type and in range.

What two readers could understand differently is refused: duplicate keys, NaN, integers that a double cannot hold,
half a surrogate pair. Reads bytes only, never the disk.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from edge.errors import FieldmarkError

MAX_INTEGER = 2**53 - 1
_T = TypeVar("_T")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Refusal:
    """How one kind of file says no: which error, and where it was."""

    def __init__(self, error: type[FieldmarkError], file: str) -> None:
        self.error, self.file = error, file

    def __call__(self, text: str, code: str) -> FieldmarkError:
        return self.error(f"{self.file}: {text}", code=code)


class Fields:
    """One JSON object, each of whose keys must be taken; :meth:`done` refuses the rest."""

    def __init__(self, value: Any, where: str, refuse: Refusal) -> None:
        self.where, self.refuse = where, refuse
        if not isinstance(value, dict):
            raise refuse(f"{where or 'the file'} is {_kind(value)}, expected an object.", "type")
        self._left: dict[str, Any] = dict(value)

    def take(self, key: str) -> Any:
        """A value as it is."""
        if key not in self._left:
            raise self.refuse(f"{self._at(key)} is missing.", "missing key")
        return self._left.pop(key)

    def done(self) -> None:
        """Refuse keys that nobody took."""
        if self._left:
            unknown = _show(self._at(min(self._left)))
            raise self.refuse(f"{unknown} is not a key of this format. Update Fieldmark.", "unknown key")

    def text(self, key: str, *, longest: int = 200, pattern: str = "") -> str:
        """Text of 1 to ``longest`` characters on one line, wholly matching ``pattern``."""
        value = self.take(key)
        return self._text(key, value, longest, pattern)

    def text_or_none(self, key: str, *, longest: int = 200, pattern: str = "") -> str | None:
        """Text or null."""
        value = self.take(key)
        return None if value is None else self._text(key, value, longest, pattern)

    def exactly(self, key: str, expected: str | int, code: str) -> None:
        """One known value."""
        value = self.take(key)
        if type(value) is not type(expected) or value != expected:
            raise self.refuse(f"{self._at(key)} is {_show(value)}, expected {_show(expected)}.", code)

    def boolean(self, key: str) -> bool:
        """True or false."""
        value = self.take(key)
        if not isinstance(value, bool):
            self._wrong_type(key, value, "true or false")
        return value

    def integer(self, key: str, low: int, high: int = MAX_INTEGER) -> int:
        """An integer from ``low`` to ``high``."""
        value = self.take(key)
        if not isinstance(value, int) or isinstance(value, bool):
            self._wrong_type(key, value, "an integer")
        self._range(key, value, low, high)
        return value

    def number(self, key: str, low: float, high: float) -> float:
        """A finite number from ``low`` to ``high``."""
        return self._number(key, self.take(key), low, high)

    def number_or_none(self, key: str, low: float, high: float) -> float | None:
        """A finite number from ``low`` to ``high``, or null."""
        value = self.take(key)
        return None if value is None else self._number(key, value, low, high)

    def numbers(self, key: str, low: float, high: float, *, most: int) -> tuple[float, ...]:
        """A list of numbers."""
        values = self.items(key, most=most)
        return tuple(self._number(f"{key}[{i}]", value, low, high) for i, value in enumerate(values))

    def number_map(self, key: str, low: float, high: float, *, most: int, pattern: str) -> dict[str, float]:
        """An object from names that match ``pattern`` to numbers."""
        values = self._map(key, most, pattern)
        return {name: self._number(f"{key}.{name}", value, low, high) for name, value in values.items()}

    def integer_map(self, key: str, low: int, high: int, *, most: int, pattern: str) -> dict[str, int]:
        """An object from names that match ``pattern`` to integers."""
        inner = Fields(self._map(key, most, pattern), self._at(key), self.refuse)
        return {name: inner.integer(name, low, high) for name in list(inner._left)}

    def inner(self, key: str) -> Fields:
        """An object inside this one."""
        return Fields(self.take(key), self._at(key), self.refuse)

    def inners(self, key: str, most: int, pattern: str) -> dict[str, Fields]:
        """An object from names that match ``pattern`` to objects."""
        values = self._map(key, most, pattern)
        return {name: Fields(value, f"{self._at(key)}.{name}", self.refuse) for name, value in values.items()}

    def items(self, key: str, *, most: int, least: int = 0) -> list[Any]:
        """A list of ``least`` to ``most`` values."""
        value = self.take(key)
        if not isinstance(value, list):
            self._wrong_type(key, value, "a list")
        if not least <= len(value) <= most:
            raise self.refuse(f"{self._at(key)} has {len(value)} entries, expected {least} to {most}.", "range")
        return value

    def each(self, key: str, read: Callable[[Fields], _T], *, most: int, least: int = 0) -> tuple[_T, ...]:
        """A list of objects, each read by ``read`` and then :meth:`done`."""
        found = []
        for i, value in enumerate(self.items(key, most=most, least=least)):
            fields = Fields(value, f"{self._at(key)}[{i}]", self.refuse)
            found.append(read(fields))
            fields.done()
        return tuple(found)

    def texts(self, key: str, *, most: int, least: int = 0, pattern: str = "") -> tuple[str, ...]:
        """A list of texts."""
        values = self.items(key, most=most, least=least)
        return tuple(self._text(f"{key}[{i}]", value, 200, pattern) for i, value in enumerate(values))

    def _at(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def _wrong_type(self, key: str, value: Any, expected: str) -> NoReturn:
        raise self.refuse(f"{self._at(key)} is {_kind(value)}, expected {expected}.", "type")

    def _range(self, key: str, value: float, low: float, high: float) -> None:
        if not low <= value <= high:
            raise self.refuse(f"{self._at(key)} is {_show(value)}, expected {low} to {high}.", "range")

    def _number(self, key: str, value: Any, low: float, high: float) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            self._wrong_type(key, value, "a number")
        self._range(key, value, low, high)
        return float(value)

    def _text(self, key: str, value: Any, longest: int, pattern: str) -> str:
        if not isinstance(value, str):
            self._wrong_type(key, value, "text")
        if not 1 <= len(value) <= longest or _CONTROL.search(value) or value != value.strip():
            raise self.refuse(
                f"{self._at(key)} is {_show(value)}, expected 1 to {longest} characters on one line, "
                "without spaces at its ends.",
                "text",
            )
        if pattern and not re.fullmatch(pattern, value):
            raise self.refuse(f"{self._at(key)} is {_show(value)}, expected the form {pattern}.", "text")
        return value

    def _map(self, key: str, most: int, pattern: str) -> dict[str, Any]:
        value = self.take(key)
        if not isinstance(value, dict):
            self._wrong_type(key, value, "an object")
        if len(value) > most:
            raise self.refuse(f"{self._at(key)} has {len(value)} entries, expected at most {most}.", "range")
        for name in value:
            if not re.fullmatch(pattern, name):
                raise self.refuse(f"{self._at(key)} has the key {_show(name)}, expected the form {pattern}.", "text")
        return value


def load(data: bytes, refuse: Refusal, *, most_bytes: int) -> Fields:
    """Parse one JSON object.

    Raises:
        FieldmarkError: the kind that ``refuse`` makes, with code ``too large``, ``json``, ``duplicate key``
            or ``number``.
    """
    if len(data) > most_bytes:
        raise refuse(f"it has more than {most_bytes} bytes, which is the most that is read.", "too large")

    def pairs(found: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in found:
            if key in made:
                raise refuse(f"the key {_show(key)} is there twice.", "duplicate key")
            made[key] = value
        return made

    def integer(text: str) -> int:
        if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
            raise refuse(f"the integer {text[:40]} is larger than {MAX_INTEGER}.", "number")
        return int(text)

    def real(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise refuse(f"the number {text[:40]} is not finite.", "number")
        return value

    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=pairs, parse_int=integer, parse_float=real, parse_constant=real
        )
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair cannot be written again
    except (ValueError, RecursionError) as error:
        raise refuse(f"it is not JSON in UTF-8 ({str(error)[:80]}). Copy it again.", "json") from error
    return Fields(value, "", refuse)


def dump(value: dict[str, Any]) -> bytes:
    """The one way this project writes signed JSON: keys in the given order, indented, UTF-8, ending in a newline."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _show(value: Any) -> str:
    return ascii(value)[:80]
