"""The settings file of a training: TOML with the names of :class:`trainer.settings.Settings`, read and written here.

Every run holds one, so that ``fieldmark train --config RUN/train.toml --out AGAIN`` repeats it. It is a person's file,
or somebody else's: it is read with a cap, and what it says is checked before anything is done.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from edge import pathtext
from edge.errors import ConfigError, nearest
from trainer.settings import Settings

MAX_BYTES = 64 * 1024
DATA = "data"
FILES = ("weights", "boxes")
"""Settings that may be a file's path; like ``data``, a path in a settings file is relative to that file."""
_TITLES = {
    "backbone": "The network",
    "learn": "What learns, and how",
    "layout": "The data",
    "cross_validate": "What is done with it",
}
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str,),
    "int": (int,),
    "int | None": (int,),
    "float": (int, float),
    "bool": (bool,),
    "tuple[str, ...]": (list,),
    "tuple[int, ...]": (list,),
}
_EXPECTED = {
    "str": "a text in quotes",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple[str, ...]": "a list of texts in quotes",
    "tuple[int, ...]": "a list of whole numbers",
}


def read(file: Path) -> tuple[Path | None, dict[str, Any]]:
    """Read a settings file.

    Returns:
        The data set, if the file names one, and the settings that it sets, as arguments of ``Settings``.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or has an unknown key or a value of the wrong kind.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}. Give --config a settings file.") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{file} has more than {MAX_BYTES} bytes; that is no settings file.")
    try:
        values = tomllib.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{file} is no settings file in TOML: {error}.") from error
    kinds = {DATA: "str"} | {field.name: str(field.type) for field in fields(Settings)}
    found = {key: _value(file, key, value, kinds) for key, value in values.items()}
    for key in (DATA, *FILES):
        if key in found and not (key == "weights" and found[key] in ("imagenet", "none")):
            found[key] = str(file.absolute().parent / pathtext.from_text(found[key]))
    data = found.pop(DATA, None)
    return (Path(data) if data else None), found


def text(data: Path, settings: Settings) -> str:
    """A settings file that repeats a training; every setting is in it, also those left at their defaults.

    Args:
        data: what was trained on; written absolute.
        settings: how.
    """
    lines = [
        "# What this run was made from. To repeat it: fieldmark train --config train.toml --out NEW",
        f"{DATA} = {_toml(pathtext.to_text(str(data.absolute())))}",
    ]
    for field in fields(Settings):
        if field.name in _TITLES:
            lines += ["", f"# {_TITLES[field.name]}"]
        value = getattr(settings, field.name)
        if field.name in FILES and value not in (None, "imagenet", "none"):
            value = pathtext.to_text(str(Path(value).absolute()))
        unset = f"# {field.name} is not set" if value is None else f"{field.name} = {_toml(value)}"
        lines.append(unset)
    return "\n".join(lines) + "\n"


def _value(file: Path, key: str, value: Any, kinds: dict[str, str]) -> Any:
    if key not in kinds:
        raise ConfigError(f"{file}: {key} is no setting. The nearest is {nearest(key, kinds)}.", code="unknown key")
    kind = kinds[key]
    item = int if kind == "tuple[int, ...]" else str
    fits = isinstance(value, _TYPES[kind]) and (kind == "bool" or not isinstance(value, bool))
    if fits and isinstance(value, list):
        fits = all(isinstance(each, item) and not isinstance(each, bool) for each in value)
    if not fits:
        raise ConfigError(f"{file}: {key} is {value!r:.80}, expected {_EXPECTED[kind.removesuffix(' | None')]}.")
    return tuple(value) if isinstance(value, list) else value


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return repr(value) if "." in repr(value) or "e" not in repr(value) else repr(value).replace("e", ".0e")
    return repr(value)
