"""One run of the agent: bundle, folders and log put together.

Owns the order in which they are opened and closed. Never prints; whoever calls is told of each file. Never checks a
signature: a plan names the bundle by the digest of a manifest that was verified when the plan was made.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from edge.agent.config import Agent, Config, Source
from edge.agent.hints import FileEvents
from edge.agent.loop import Done, Intake, Model, Outcome, bundle_facts, stopped_by_signals
from edge.agent.watch import Watch
from edge.errors import ConfigError, DeviceError
from edge.log import store
from edge.model import bundle as bundles
from edge.model.classify import Classifier


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


def load_model(plan: Plan) -> Model:
    """The installed bundle's model, ready to classify.

    Raises:
        DeviceError: with code ``damaged``: the slot no longer holds what was verified.
        ModelError: no runtime that passed the gate is installed, or the model does not load.
    """
    data = _whole(plan.slot / bundles.MANIFEST, plan.digest)
    manifest = bundles.parse_manifest(data, bundles.MANIFEST)
    model = _whole(plan.slot / bundles.MODEL, manifest.model.sha256)
    classifier = Classifier(model, manifest, threads=plan.agent.threads)
    return Model(classifier, bundle_facts(manifest, plan.digest), plan.development)


def run(
    plan: Plan, *, started: Callable[[Model], None], done: Callable[[Done], None], say: Callable[[str], None]
) -> Result:
    """Watch until SIGTERM or SIGINT, or with ``once`` until the backlog is empty. The photo in hand is finished.

    Args:
        started: told of the model before the first photo.
        done: told of each file after its row is durable.
        say: told of troubles that end nothing.

    Raises:
        DeviceError: the bundle is damaged.
        ModelError: the model does not load here.
        LogError: the log cannot be opened or written. What was committed stays.
    """
    model = load_model(plan)
    started(model)
    with (
        closing(FileEvents()) as hints,
        stopped_by_signals(hints.wake) as stop,
        store.open_for_writing(plan.log) as log,
    ):
        intake = Intake(log, model, plan.device)
        watch = Watch(
            plan.sources,
            known=intake.known,
            hints=hints,
            settle_s=plan.agent.settle_s,
            scan_interval_s=plan.agent.scan_interval_s,
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


def _whole(path: Path, sha256: str) -> bytes:
    """A file of a slot, if its content is the one that was verified."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DeviceError(f"{path}: {error.strerror}. Install the bundle again.", code="damaged") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DeviceError(f"{path} is not what was installed. Install the bundle again.", code="damaged")
    return data


def _real(path: Path) -> Path:
    """A folder's one name, however it was spelled, so that a restart finds its rows."""
    return Path(os.path.realpath(path))
