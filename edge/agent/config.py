"""The device's settings: ``etc/fieldmark/config.toml`` below the root, read once into frozen dataclasses.

Every key is known or refused, every value is checked here, so nothing downstream meets a wrong one. Never writes.

    [agent]
    settle_s = 2.0            # a file is whole when nothing has changed for so long
    scan_interval_s = 60.0    # how often the folders are searched, whatever the file events said
    event_gap_s = 120.0       # photos of one station closer than this are one event
    threads = 1               # of the model

    [[source]]
    path = "/srv/photos"      # below the root, like everything of a device
    station = "beech 4"
    camera = "cam-07"
    utc_offset = "+01:00"     # the camera's clock; cameras know no daylight saving
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from edge.errors import ConfigError

FILE = Path("etc", "fieldmark", "config.toml")
MAX_BYTES = 2**20
_MOST_TEXT = 200


@dataclass(frozen=True)
class Source:
    """A folder in which photos appear.

    Attributes:
        path: the folder.
        station: the place where the camera stands.
        camera: which camera it is.
        utc_offset: of the camera's clock, ``+hh:mm``.
    """

    path: Path
    station: str | None = None
    camera: str | None = None
    utc_offset: str | None = None


@dataclass(frozen=True)
class Agent:
    """How the agent works; see the top of this file."""

    settle_s: float = 2.0
    scan_interval_s: float = 60.0
    event_gap_s: float = 120.0
    threads: int = 1


@dataclass(frozen=True)
class Config:
    """Everything in the file."""

    sources: tuple[Source, ...] = ()
    agent: Agent = field(default_factory=Agent)


def load(root: Path) -> Config:
    """Read the settings below a device root; the defaults where there is no file.

    Raises:
        ConfigError: the file cannot be read or is no TOML, a key is unknown, a value is of the wrong type or out of
            range; with the file, the key and what is expected.
    """
    path = root / FILE
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: more than {MAX_BYTES} bytes. Settings are a few lines.")
    try:
        tables = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML in UTF-8: {error}.") from error
    return _Reader(path, root).config(tables)


def check_utc_offset(text: str, where: str) -> str:
    """An offset as it is, if it is one.

    Raises:
        ConfigError: it is not ``+hh:mm`` or ``-hh:mm`` of at most 14 hours.
    """
    if not re.fullmatch(r"[+-](0\d|1[0-3]):[0-5]\d|[+-]14:00", text, re.ASCII):
        raise ConfigError(f"{where} is {text!r}, expected hours and minutes such as +01:00 or -07:30.")
    return text


class _Reader:
    """Walks the tables of one file and says where it is."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path, self.root = path, root

    def config(self, tables: dict[str, Any]) -> Config:
        self.check_keys("", tables, ("source", "agent"))
        agent = self.table("agent", tables.get("agent", {}))
        self.check_keys("agent", agent, (each.name for each in fields(Agent)))
        listed = tables.get("source", [])
        if not isinstance(listed, list):
            raise self.refuse("source", "a single table", "[[source]] in double brackets")
        sources = tuple(self.source(f"source[{i}]", source) for i, source in enumerate(listed, 1))
        self.check_apart([source.path for source in sources])
        return Config(sources, self.agent(agent))

    def check_apart(self, paths: list[Path]) -> None:
        """One source inside another would find the same photos twice."""
        for i, outer in enumerate(paths):
            for inner in paths[:i] + paths[i + 1 :]:
                if inner.is_relative_to(outer):
                    raise ConfigError(f"{self.path}: the source {inner} lies in the source {outer}. Keep one of them.")

    def agent(self, table: dict[str, Any]) -> Agent:
        return Agent(
            settle_s=self.number("agent.settle_s", table.get("settle_s", Agent.settle_s), 0, 3600),
            scan_interval_s=self.number(
                "agent.scan_interval_s", table.get("scan_interval_s", Agent.scan_interval_s), 1, 86_400
            ),
            event_gap_s=self.number("agent.event_gap_s", table.get("event_gap_s", Agent.event_gap_s), 1, 86_400),
            threads=int(self.number("agent.threads", table.get("threads", Agent.threads), 1, 64, whole=True)),
        )

    def source(self, where: str, value: Any) -> Source:
        table = self.table(where, value)
        self.check_keys(where, table, (each.name for each in fields(Source)))
        if "path" not in table:
            raise ConfigError(f'{self.path}: {where} has no path. Add path = "/folder/of/photos".')
        path = self.text(f"{where}.path", table["path"], 4000)
        offset = self.text_or_none(f"{where}.utc_offset", table.get("utc_offset"))
        return Source(
            # Below the root, so that a card mounted on a workstation means its own folders.
            path=self.root / os.path.normpath("/" + path.lstrip("/")).lstrip("/"),
            station=self.text_or_none(f"{where}.station", table.get("station")),
            camera=self.text_or_none(f"{where}.camera", table.get("camera")),
            utc_offset=check_utc_offset(offset, f"{self.path}: {where}.utc_offset") if offset else None,
        )

    def table(self, where: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.refuse(where, repr(value), "a table")
        return value

    def check_keys(self, where: str, table: dict[str, Any], known: Iterable[str]) -> None:
        names = list(known)
        for key in table:
            if key not in names:
                nearest = max(names, key=lambda name: difflib.SequenceMatcher(None, key, name).ratio())
                full = f"{where}.{key}" if where else key
                raise ConfigError(
                    f"{self.path}: {full} is no setting. The nearest is `{nearest}`; there are {', '.join(names)}.",
                    code="unknown key",
                )

    def number(self, where: str, value: Any, low: float, high: float, *, whole: bool = False) -> float:
        kinds = int if whole else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
            what = "a whole number" if whole else "a number"
            raise self.refuse(where, repr(value), f"{what} from {low} to {high}")
        return value

    def text(self, where: str, value: Any, most: int = _MOST_TEXT) -> str:
        if not isinstance(value, str) or not value.strip() or len(value) > most or not value.isprintable():
            raise self.refuse(where, repr(value)[:80], f"1 to {most} printable characters")
        return value.strip()

    def text_or_none(self, where: str, value: Any) -> str | None:
        return None if value is None else self.text(where, value)

    def refuse(self, where: str, found: str, expected: str) -> ConfigError:
        return ConfigError(f"{self.path}: {where} is {found}, expected {expected}.")
