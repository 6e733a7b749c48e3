"""One run of the agent: bundle, folders and log put together.

Owns the order in which they are opened and closed. Never prints; whoever calls is told of each file. Never checks a
signature: a plan names the bundle by the digest of a manifest that was verified when the plan was made.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

from edge import pathtext
from edge.agent import health, memory, space
from edge.agent.hints import FileEvents
from edge.agent.loop import Done, Help, Intake, Model, Outcome, bundle_facts, stopped_by_signals
from edge.agent.plan import Plan
from edge.agent.upkeep import Job, Upkeep
from edge.agent.watch import Candidate, Watch
from edge.errors import DeviceError
from edge.log import damage, store
from edge.log.store import Log
from edge.model import bundle as bundles
from edge.model.classify import Classifier

HEARTBEAT_S = 300.0


@dataclass(frozen=True)
class Result:
    """How a run ended: files by outcome, those in the log before, those not ready, and whether it was stopped.

    ``not_read``: folders, or files in them, that the last search could not look at.
    ``superseded``: it ended so that it is started again, with a bundle that was installed meanwhile.
    """

    outcomes: dict[str, int]
    already: int
    not_ready: int
    stopped: bool
    superseded: bool = False
    not_read: int = 0


@dataclass(frozen=True)
class Slot:
    """What a plan's slot holds, verified: its manifest and the model's bytes, which all classifiers share."""

    manifest: bundles.Manifest
    model: bytes

    def classifier(self, plan: Plan) -> Classifier:
        """One more classifier.

        Raises:
            ModelError: no runtime that passed the gate is installed, or the model does not load.
            ConfigError: the bundle does not know one of the species.
        """
        return Classifier(
            self.model, self.manifest, name=plan.runtime, threads=plan.agent.threads, species=plan.species
        )


def read_slot(plan: Plan) -> Slot:
    """The installed bundle.

    Raises:
        DeviceError: with code ``damaged``: the slot no longer holds what was verified.
    """
    manifest = bundles.parse_manifest(_whole(plan.slot / bundles.MANIFEST, plan.digest), bundles.MANIFEST)
    return Slot(manifest, _whole(plan.slot / bundles.MODEL, manifest.model.sha256))


def load_model(plan: Plan, slot: Slot | None = None) -> Model:
    """The installed bundle's model, ready to classify.

    Raises:
        DeviceError: with code ``damaged``: the slot no longer holds what was verified.
        ModelError: no runtime that passed the gate is installed, or the model does not load.
        ConfigError: the bundle does not know one of the species.
    """
    slot = slot or read_slot(plan)
    return Model(slot.classifier(plan), bundle_facts(slot.manifest, plan.digest), plan.development)


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
        ConfigError: the bundle does not know one of the species.
        LogError: the log cannot be opened or written. What was committed stays.
    """
    memory.map_pictures()
    space.give_way(plan.log, plan.slot.parent.parent / "ballast", plan.upkeep.space, say=say)
    with (
        closing(FileEvents()) as hints,
        stopped_by_signals(hints.wake) as stop,  # also while the model is loaded, which takes seconds on a small device
        nullcontext(_loaded(plan, started)) as (slot, model),
        damage.open_or_set_aside(plan.log, say) as log,
    ):
        upkeep = _upkeep(plan, model, log, say)
        intake = Intake(
            log,
            model,
            plan.device,
            help=_help(plan, slot, say),
            preview=upkeep.preview,
            alerts=upkeep.alerts,
            in_hand=upkeep.in_hand,
        )
        watch = _watch(plan, intake, hints, _old_photos(plan, model) if plan.reclassify else None, say)
        pulse = Pulse(log, plan, model)
        if not plan.once:
            for trouble in hints.listen(source.path for source in plan.sources):
                say(trouble)
        upkeep.started()
        superseded = False
        ready = watch.backlog(stop, patience_s=plan.patience_s) if plan.once else watch.ready(stop)
        for each in intake.take_all(ready, watch.put_back):
            pulse.beat(idle=each is None)
            if each is None:
                upkeep.idle(watch.not_ready)
                if upkeep.superseded:
                    superseded = True
                    stop.set()
            else:
                done(each)
                upkeep.taken(
                    each.candidate.text,
                    each.outcome.value,
                    label=each.label,
                    confidence=each.confidence,
                    code=each.code,
                    queue=watch.not_ready,
                )
        pulse.end()
        upkeep.end(stopped=stop.is_set())
        outcomes = {outcome.value: intake.counts[outcome] for outcome in Outcome}
        return Result(outcomes, watch.already, watch.not_ready, stop.is_set(), superseded, watch.not_read)


def _loaded(plan: Plan, started: Callable[[Model], None]) -> tuple[Slot, Model]:
    slot = read_slot(plan)
    model = load_model(plan, slot)
    started(model)
    return slot, model


def _upkeep(plan: Plan, model: Model, log: Log, say: Callable[[str], None]) -> Upkeep:
    facts = {
        "bundle": model.bundle.name,
        "model": model.bundle.model_digest,
        "runtime": model.classifier.runtime,
        "development": model.development,
        "version": plan.version,
    }
    job = Job(
        state=plan.slot.parent.parent,
        log=plan.log,
        device=plan.device,
        sources=[source.path for source in plan.sources],
        event_gap_s=plan.agent.event_gap_s,
        once=plan.once,
        reclassify=plan.reclassify,
        facts=facts,
        bundle=None if plan.once else plan.digest,
    )
    return Upkeep(job, plan.upkeep, plan.rules, log, say=say)


def _watch(
    plan: Plan, intake: Intake, hints: FileEvents, old: Iterator[Candidate] | None, say: Callable[[str], None]
) -> Watch:
    return Watch(
        plan.sources,
        known=intake.known,
        hints=hints,
        settle_s=plan.agent.settle_s,
        scan_interval_s=plan.agent.scan_interval_s,
        newest_first=plan.agent.order == "newest",
        pause_s=plan.power.pause_s,
        closed_s=lambda: plan.power.closed_s(_minute_of_day()),
        old=old,
        say=say,
    )


def _help(plan: Plan, slot: Slot, say: Callable[[str], None]) -> Help:
    """Helpers for a backlog: one core is this thread's. With a pause after each photo there is no hurry."""
    cores = 1 if plan.power.pause_s else min(plan.power.cores, len(os.sched_getaffinity(0)))
    return Help(cores - 1, lambda: slot.classifier(plan), say)


def _old_photos(plan: Plan, model: Model) -> Iterator[Candidate]:
    """What is in the log without an answer of this model, the newest first."""
    from edge.log import unclassified

    sources = {pathtext.to_text(source.path): source for source in plan.sources}
    with closing(store.open_for_reading(plan.log)) as connection:
        for key in unclassified.unclassified(connection, plan.device, model.bundle.model_digest):
            if source := sources.get(key.source):
                path = source.path / pathtext.from_text(key.path)
                yield Candidate(source, path, key.path, key.size_bytes, key.mtime_ns, old=True)


def _minute_of_day() -> float:
    now = time.localtime()
    return now.tm_hour * 60 + now.tm_min + now.tm_sec / 60


class Pulse:
    """Writes into the log that the agent is alive, and keeps the log's own files small while nothing is to do."""

    def __init__(self, log: Log, plan: Plan, model: Model) -> None:
        """Write that the run begins."""
        self._log = log
        self._next_s = time.monotonic() + HEARTBEAT_S
        self._wrote = True
        self._clock_ok = health.clock().ok
        log.add_run(
            plan.device,
            version=plan.version,
            model_digest=model.bundle.model_digest,
            boot_id=health.boot_id(),
            clock_ok=self._clock_ok,
            once=plan.once,
        )

    def beat(self, *, idle: bool) -> None:
        """Called for each photo, and before each wait; writes at most every five minutes."""
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + HEARTBEAT_S
            self._clock_ok = self._clock_ok or health.clock().ok
            self._log.heartbeat(clock_ok=self._clock_ok)
            self._wrote = True
        if not idle:
            self._wrote = True
        elif self._wrote:
            self._wrote = not self._log.checkpoint_if_idle()

    def end(self) -> None:
        """Write that the run ends as it should."""
        self._log.end_run()


def _whole(path: Path, sha256: str) -> bytes:
    """A file of a slot, if its content is the one that was verified."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DeviceError(f"{path}: {error.strerror}. Install the bundle again.", code="damaged") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DeviceError(f"{path} is not what was installed. Install the bundle again.", code="damaged")
    return data
