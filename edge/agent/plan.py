"""What a run of the agent shall do: made by the command, carried out by another process.

Owns how a plan gets from the one to the other. Imports nothing heavy: the command checks and hands over, and what it
had to load for that is gone with it.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from edge.agent import config_upkeep, memory
from edge.agent.config import Agent, Config, Power, Source
from edge.agent.config_upkeep import Rule, Upkeep
from edge.errors import ConfigError


@dataclass(frozen=True)
class Plan:
    """What a run shall do.

    Attributes:
        device: its id.
        slot: the folder of the installed bundle.
        digest: the bundle digest, from a verified signature.
        development: whether it is signed with a development key.
        sources: the folders, at least one.
        log: the log's file.
        once: end when everything that is there has its row.
        patience_s: with ``once``, how long files are waited for that are still being written.
        species: labels of the animals that occur here; all if None.
        power: how much of the device it may use.
        reclassify: also classify the photos in the log that this model has not seen, the newest first.
        runtime: the one to use; the first installed one that passed the gate if None.
        version: of Fieldmark, for the log.
    """

    device: str
    slot: Path
    digest: str
    development: bool
    sources: tuple[Source, ...]
    log: Path
    agent: Agent
    once: bool = False
    patience_s: float = 10.0
    species: tuple[str, ...] | None = None
    power: Power = field(default_factory=Power)
    reclassify: bool = False
    runtime: str | None = None
    version: str = "unknown"
    upkeep: Upkeep = field(default_factory=Upkeep)
    rules: tuple[Rule, ...] = ()


def choose_sources(
    config: Config, folder: Path | None, *, station: str | None = None, utc_offset: str | None = None
) -> tuple[Source, ...]:
    """The folders to watch: the named one, with what the settings say of it, else those of the settings.

    Args:
        station, utc_offset: go before the settings; only where there is one folder.

    Raises:
        ConfigError: there is no folder, or station and offset are given for several.
    """
    if folder is None:
        sources = config.sources
        if not sources:
            raise ConfigError("there is no folder to watch. Name one, or add [[source]] to etc/fieldmark/config.toml.")
        if len(sources) > 1 and (station or utc_offset):
            raise ConfigError("the settings name several sources. Say station and offset there, or name a folder.")
    elif not os.path.isdir(folder):
        raise ConfigError(f"{folder} is no folder, or not for this user. Name the folder in which the photos appear.")
    else:
        real = _real(folder)
        sources = (next((source for source in config.sources if _real(source.path) == real), Source(real)),)
    chosen = tuple(
        replace(
            source,
            path=_real(source.path),
            station=station or source.station,
            utc_offset=utc_offset or source.utc_offset,
        )
        for source in sources
    )
    for inner in chosen:
        for outer in chosen:
            if inner is not outer and inner.path.is_relative_to(outer.path):
                raise ConfigError(f"the source {inner.path} lies in the source {outer.path}. Keep one of them.")
    return chosen


def hold_sigterm() -> None:
    """Have SIGTERM wait, through :func:`become`, until the agent can end as it should:
    :func:`edge.agent.loop.stopped_by_signals` lets it through."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def become(plan: Plan, *, as_json: bool) -> NoReturn:
    """Replace this process, keeping its number, its output and who watches over it. Ctrl-C waits meanwhile, too.

    Raises:
        ConfigError: the settings are longer than an argument of a process may be.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it is where it was closed
            stream.flush()
    text = to_text(plan, as_json=as_json)
    # -P: a folder of photos that holds a numpy.py must not be imported.
    command = [sys.executable, "-P", "-m", "edge.agent.process", text]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        os.execve(sys.executable, command, {**memory.AT_START, **os.environ})
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        raise ConfigError(
            f"the settings take {len(text)} bytes as an argument, and Linux has room for 131,071. "
            "Shorten the lists of species, alert labels or sources."
        ) from error


def to_text(plan: Plan, *, as_json: bool) -> str:
    """A plan as one argument. JSON in ASCII, in which names that are not UTF-8 survive."""
    # Where alerts go is for the process that sends them, and not for whoever lists processes.
    values = {**asdict(replace(plan, upkeep=Upkeep())), "upkeep": config_upkeep.to_values(plan.upkeep)}
    return json.dumps({"plan": values, "as_json": as_json}, default=os.fspath)


def from_text(text: str) -> tuple[Plan, bool]:
    """The plan that :func:`to_text` was given, and whether JSON is wanted."""
    values = json.loads(text)
    plan = values["plan"]
    sources = tuple(Source(**source | {"path": Path(source["path"])}) for source in plan["sources"])
    changed: dict[str, Any] = {"slot": Path(plan["slot"]), "log": Path(plan["log"]), "agent": Agent(**plan["agent"])}
    changed["species"] = None if plan["species"] is None else tuple(plan["species"])
    windows = tuple((start, end) for start, end in plan["power"]["windows"])
    changed["power"] = Power(**plan["power"] | {"windows": windows})
    changed["upkeep"], changed["rules"] = config_upkeep.from_values(plan["upkeep"])
    return Plan(**plan | changed | {"sources": sources}), values["as_json"]


def _real(path: Path) -> Path:
    """A folder's one name, however it was spelled, so that a restart finds its rows."""
    return Path(os.path.realpath(path))
