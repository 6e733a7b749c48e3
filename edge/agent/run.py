"""One run of the agent: settings, bundle, folders and log put together.

Owns the order in which they are opened and closed. Never prints; whoever calls is told of each file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edge.agent import slots
from edge.agent.config import Config, Source
from edge.agent.hints import FileEvents
from edge.agent.loop import Done, Intake, Model, Outcome, bundle_facts, stopped_by_signals
from edge.agent.watch import Watch
from edge.errors import ConfigError
from edge.log import store
from edge.model.classify import Classifier

if TYPE_CHECKING:
    from edge.agent.slots import Slot


@dataclass(frozen=True)
class Plan:
    """What a run shall do.

    Attributes:
        sources: the folders, at least one.
        log: the log's file.
        once: end when everything that is there has its row.
        patience_s: with ``once``, how long files are waited for that are still being written.
    """

    root: Path
    sources: tuple[Source, ...]
    log: Path
    config: Config
    once: bool = False
    patience_s: float = 10.0


@dataclass(frozen=True)
class Result:
    """How a run ended: files by outcome, those in the log before, those not ready, and whether it was stopped."""

    outcomes: dict[str, int]
    already: int
    not_ready: int
    stopped: bool


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
    elif not folder.is_dir():
        raise ConfigError(f"{folder} is no folder. Name the folder in which the photos appear.")
    else:
        real = _real(folder)
        sources = (next((source for source in config.sources if _real(source.path) == real), Source(real)),)
    return tuple(
        replace(
            source,
            path=_real(source.path),
            station=station or source.station,
            utc_offset=utc_offset or source.utc_offset,
        )
        for source in sources
    )


def load_model(slot: slots.Slot, threads: int) -> Model:
    """The installed bundle's model, ready to classify.

    Raises:
        ModelError: no runtime that passed the gate is installed, or the model does not load.
    """
    classifier = Classifier(slot.model_path, slot.manifest, threads=threads)
    return Model(classifier, bundle_facts(slot.manifest, slot.digest), slot.development)


def run(
    plan: Plan, *, started: Callable[[Slot, Model], None], done: Callable[[Done], None], say: Callable[[str], None]
) -> Result:
    """Watch until SIGTERM or SIGINT, or with ``once`` until the backlog is empty. The photo in hand is finished.

    Args:
        started: told of the bundle before the first photo.
        done: told of each file after its row is durable.
        say: told of troubles that end nothing.

    Raises:
        DeviceError: no bundle is installed, or it is damaged.
        ModelError: the model does not load here.
        LogError: the log cannot be opened or written. What was committed stays.
    """
    slot = slots.current(plan.root)
    device = slots.device_id(plan.root)
    model = load_model(slot, plan.config.agent.threads)
    started(slot, model)
    with (
        closing(FileEvents()) as hints,
        stopped_by_signals(hints.wake) as stop,
        store.open_for_writing(plan.log) as log,
    ):
        intake = Intake(log, model, device)
        agent = plan.config.agent
        watch = Watch(
            plan.sources,
            known=intake.known,
            hints=hints,
            settle_s=agent.settle_s,
            scan_interval_s=agent.scan_interval_s,
            say=say,
        )
        if not plan.once:
            for trouble in hints.listen(source.path for source in plan.sources):
                say(trouble)
        ready = watch.backlog(stop, patience_s=plan.patience_s) if plan.once else watch.ready(stop)
        for each in intake.take_all(ready, watch.put_back):
            done(each)
        outcomes = {outcome.value: intake.counts[outcome] for outcome in Outcome}
        return Result(outcomes, watch.already, watch.not_ready, stop.is_set())


def _real(path: Path) -> Path:
    """A folder's one name, however it was spelled, so that a restart finds its rows."""
    return Path(os.path.realpath(path))
