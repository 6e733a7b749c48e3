"""The device's settings: ``etc/fieldmark/config.toml`` below the root, read once into frozen dataclasses.

Every key is known or refused, every value is checked here, so nothing downstream meets a wrong one. Never writes.

    species = ["fox", "roe deer"]  # labels of the animals that occur here, above the first table; all if left out

    [agent]
    settle_s = 2.0            # a file is whole when nothing has changed for so long
    scan_interval_s = 60.0    # how often the folders are searched, whatever the file events said
    event_gap_s = 120.0       # photos of one station closer than this are one event
    threads = 1               # of the model
    order = "oldest"          # or "newest": which photos of a backlog come first; new ones always go before it

    [power]
    windows = ["20:00-06:00"] # local times at which photos are taken; all day if left out, and with --once
    pause_s = 0.0             # rest after each photo of a backlog
    cores = 2                 # at most so many photos of a backlog at a time
    nice = 5                  # 0 to 19: how much other programs go before

    [[source]]
    path = "/srv/photos"      # below the root, like everything of a device
    station = "beech 4"
    camera = "cam-07"
    utc_offset = "+01:00"     # the camera's clock; cameras know no daylight saving

The tables for space, people, deletion, alerts and status are in :mod:`edge.agent.config_upkeep`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from edge.agent import config_upkeep
from edge.agent.checked import MOST_TEXT, Checked, is_text
from edge.agent.config_upkeep import Upkeep
from edge.errors import ConfigError

FILE = Path("etc", "fieldmark", "config.toml")
MAX_BYTES = 2**20
MAX_SPECIES = 10_000
ORDERS = ("oldest", "newest")
_DAY_MINUTES = 24 * 60
_OWN_PICTURES = tuple(Path("var", "lib", "fieldmark", name) for name in ("previews", "slots"))


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
    order: str = "oldest"


@dataclass(frozen=True)
class Power:
    """How much of the device the agent may use; see the top of this file.

    Attributes:
        windows: (from, to) in minutes after local midnight, the end not included; from above to where it is past
            midnight. All day if empty.
    """

    windows: tuple[tuple[int, int], ...] = ()
    pause_s: float = 0.0
    cores: int = 2
    nice: int = 5

    def closed_s(self, minute: float) -> float:
        """How many seconds photos must wait at this time of day.

        Args:
            minute: minutes after local midnight.
        """
        if not self.windows or any(
            (minute - start) % _DAY_MINUTES < _length(start, end) for start, end in self.windows
        ):
            return 0.0
        return 60 * min((start - minute) % _DAY_MINUTES for start, _ in self.windows)


def _length(start: int, end: int) -> int:
    return (end - start) % _DAY_MINUTES or _DAY_MINUTES


@dataclass(frozen=True)
class Config:
    """Everything in the file.

    Attributes:
        species: labels of the animals that occur at the device's stations; all if None. An unsure or foreign animal is
            rolled up; see :mod:`edge.model.taxonomy`. Checked against the bundle when its model is loaded.
        upkeep: space, people, deletion, alerts and status.
    """

    sources: tuple[Source, ...] = ()
    agent: Agent = field(default_factory=Agent)
    power: Power = field(default_factory=Power)
    species: tuple[str, ...] | None = None
    upkeep: Upkeep = field(default_factory=Upkeep)


def load(root: Path) -> Config:
    """Read the settings below a device root; the defaults where there is no file.

    Raises:
        ConfigError: the file cannot be read or is no TOML, a key is unknown, a value is of the wrong type or out of
            range; with the file, the key and what is expected.
    """
    import tomllib  # the agent's own process gets settings that were read before

    path = root / FILE
    try:
        with open(path, "rb", opener=_opened_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"{path}: is no plain file. Remove it, or write the settings into one.")
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return Config(upkeep=config_upkeep.defaults(root))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: more than {MAX_BYTES} bytes. Settings are a few lines.")
    try:
        tables = tomllib.loads(data.decode("utf-8-sig"))  # some editors put a mark before UTF-8
    except (ValueError, RecursionError) as error:  # of tomllib, of the encoding, of a number with too many digits
        raise ConfigError(f"{path}: not TOML in UTF-8: {error}.") from error
    return _Reader(path, root).config(tables)


def _opened_at_once(path: str, flags: int) -> int:
    """A named pipe in the file's place must not hang whoever asks."""
    return os.open(path, flags | os.O_NONBLOCK)


def check_station(text: str, where: str) -> str:
    """A station's name as the settings could have it, without space around it.

    Raises:
        ConfigError: it is empty, too long, or not printable.
    """
    if not is_text(text):
        raise ConfigError(f"{where} is {text[:80]!r}, expected 1 to {MOST_TEXT} printable characters.")
    return text.strip()


def check_utc_offset(text: str, where: str) -> str:
    """An offset as it is, if it is one.

    Raises:
        ConfigError: it is not ``+hh:mm`` or ``-hh:mm`` of at most 14 hours.
    """
    if not re.fullmatch(r"[+-](0\d|1[0-3]):[0-5]\d|[+-]14:00", text, re.ASCII):
        raise ConfigError(f"{where} is {text!r}, expected hours and minutes such as +01:00 or -07:30.")
    return text


def check_sources(sources: Iterable[Source], root: Path, where: str) -> None:
    """That no source holds the previews and golden photos of the device itself, nor lies among them: they would be
    taken for photos, get previews of their own, and so on without end.

    Args:
        where: for the error.

    Raises:
        ConfigError: one does.
    """
    for source in sources:
        real = Path(os.path.realpath(source.path))
        for own in (Path(os.path.realpath(root / each)) for each in _OWN_PICTURES):
            if own.is_relative_to(real) or real.is_relative_to(own):
                raise ConfigError(
                    f"{where}: the source {source.path} holds pictures of Fieldmark's own, in {own}. "
                    "Name the folder that has the photos alone."
                )


def _lies_in(inner: Path, outer: Path) -> bool:
    return Path(os.path.realpath(inner)).is_relative_to(os.path.realpath(outer))


class _Reader(Checked):
    """Walks the tables of one file and says where it is."""

    def config(self, tables: dict[str, Any]) -> Config:
        self.check_keys("", tables, ("species", "source", "agent", "power", *config_upkeep.TABLES))
        agent = self.table("agent", tables.get("agent", {}))
        self.check_keys("agent", agent, (each.name for each in fields(Agent)))
        power = self.table("power", tables.get("power", {}))
        self.check_keys("power", power, (each.name for each in fields(Power)))
        listed = self.tables("source", tables.get("source", []))
        sources = tuple(self.source(f"source[{i}]", source) for i, source in enumerate(listed, 1))
        upkeep = config_upkeep.read(self, tables)
        self.check_apart([source.path for source in sources])
        check_sources(sources, self.root, str(self.path))
        self.check_copies([source.path for source in sources], upkeep)
        return Config(sources, self.agent(agent), self.power(power), self.species(tables.get("species")), upkeep)

    def species(self, listed: Any) -> tuple[str, ...] | None:
        return (
            None if listed is None else self.texts("species", listed, MAX_SPECIES, 'labels such as ["fox", "roe deer"]')
        )

    def check_apart(self, paths: list[Path]) -> None:
        """One source inside another would find the same photos twice, also by way of a link."""
        for i, outer in enumerate(paths):
            for inner in paths[:i] + paths[i + 1 :]:
                if _lies_in(inner, outer):
                    raise ConfigError(f"{self.path}: the source {inner} lies in the source {outer}. Keep one of them.")

    def check_copies(self, sources: list[Path], upkeep: Upkeep) -> None:
        """Copies below a source would be found as photos, and photos below the copies be their own copy."""
        for policy in upkeep.deletes:
            for source in sources:
                copies = policy.copied_to
                if copies and (_lies_in(copies, source) or _lies_in(source, copies)):
                    raise ConfigError(f"{self.path}: the copies in {copies} and the source {source} are not apart.")

    def agent(self, table: dict[str, Any]) -> Agent:
        return Agent(
            settle_s=self.number("agent.settle_s", table.get("settle_s", Agent.settle_s), 0, 3600),
            scan_interval_s=self.number(
                "agent.scan_interval_s", table.get("scan_interval_s", Agent.scan_interval_s), 1, 86_400
            ),
            event_gap_s=self.number("agent.event_gap_s", table.get("event_gap_s", Agent.event_gap_s), 1, 86_400),
            threads=int(self.number("agent.threads", table.get("threads", Agent.threads), 1, 64, whole=True)),
            order=self.one_of("agent.order", table.get("order", Agent.order), ORDERS),
        )

    def power(self, table: dict[str, Any]) -> Power:
        windows = table.get("windows", [])
        if not isinstance(windows, list) or len(windows) > 24:
            raise self.refuse("power.windows", repr(windows)[:80], 'a list such as ["20:00-06:00"]')
        return Power(
            windows=tuple(self.window(f"power.windows[{i}]", each) for i, each in enumerate(windows, 1)),
            pause_s=self.number("power.pause_s", table.get("pause_s", Power.pause_s), 0, 3600),
            cores=int(self.number("power.cores", table.get("cores", Power.cores), 1, 64, whole=True)),
            nice=int(self.number("power.nice", table.get("nice", Power.nice), 0, 19, whole=True)),
        )

    def window(self, where: str, value: Any) -> tuple[int, int]:
        """Minutes after midnight of both ends."""
        time = r"([01]\d|2[0-3]):([0-5]\d)"
        match = re.fullmatch(rf"{time}-(?:{time}|24:00)", value, re.ASCII) if isinstance(value, str) else None
        if match is None:
            raise self.refuse(where, repr(value)[:80], "local times such as 20:00-06:00")
        start = int(match[1]) * 60 + int(match[2])
        return start, int(match[3]) * 60 + int(match[4]) if match[3] else _DAY_MINUTES

    def source(self, where: str, value: Any) -> Source:
        table = self.table(where, value)
        self.check_keys(where, table, (each.name for each in fields(Source)))
        if "path" not in table:
            raise ConfigError(f'{self.path}: {where} has no path. Add path = "/folder/of/photos".')
        offset = self.text_or_none(f"{where}.utc_offset", table.get("utc_offset"))
        return Source(
            path=self.below_root(f"{where}.path", table["path"]),
            station=self.text_or_none(f"{where}.station", table.get("station")),
            camera=self.text_or_none(f"{where}.camera", table.get("camera")),
            utc_offset=check_utc_offset(offset, f"{self.path}: {where}.utc_offset") if offset else None,
        )
