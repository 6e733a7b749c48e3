"""How a device stands: what is installed, what the log holds, and whether it is ready to go out.

Reads only, apart from :func:`preflight`, which opens the log as the agent would and writes one file to try the disk.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge import durable
from edge.agent import config, health, service, slots
from edge.agent.config_upkeep import STATUS_FILE, Command, Mqtt
from edge.agent.people import PERSON
from edge.errors import ConfigError, DeviceError, FieldmarkError
from edge.log import query, store

SPARE_BYTES = 64 * 2**20
"""Less free space than this fails the check: the log must grow for months."""


@dataclass(frozen=True)
class Check:
    """One thing that was tried; ``text`` says what was found or what to do."""

    name: str
    passed: bool
    text: str


def status(root: Path, log: Path) -> dict[str, Any]:
    """What is installed, what the log holds, in the words of ``fieldmark status --json``.

    Raises:
        DeviceError: there is no such root, or the installed bundle is damaged.
        LogError: there is a log and it cannot be read.
    """
    if not root.is_dir():
        raise DeviceError(f"{root} is no folder. Name a device root.", code="no root")
    return {
        "schema": 1,
        "root": str(root),
        "device": _device(root),
        "bundle": _bundle(root),
        "log": _log(log),
        "agent": service.read_status(_status_file(root)),
        "machine": health.report() if root.resolve() == Path("/") else None,
        "free_bytes": shutil.disk_usage(log.parent if log.parent.is_dir() else root).free,
    }


def _status_file(root: Path) -> Path:
    try:
        return config.load(root).upkeep.service.status_file
    except ConfigError:  # `fieldmark check` says so; this is for looking
        return root / STATUS_FILE


def agent_lines(agent: dict[str, Any] | None) -> list[str]:
    """What the agent last told, for people; what a damaged or foreign file says is shown as it is."""
    if agent is None:
        return ["agent     has told nothing here"]
    lines = [f"agent     {_agent_state(agent)}"]
    if last := agent.get("last"):
        said = f"{last.get('label')} {last.get('confidence'):.2f}" if last.get("label") else last.get("outcome")
        lines.append(f"          last photo {last.get('photo')}: {said}, at {last.get('at')}")
    counts, failures = agent.get("counts") or {}, agent.get("failures") or {}
    if counts:
        lines.append(f"          since it started: {_listed(counts)}; {agent.get('queue') or 0} wait")
    if failures:
        lines.append(f"          failed: {_listed(failures)}")
    space = agent.get("space") or {}
    if space.get("level", "plenty") != "plenty":
        lines.append(f"          space: {space['level']}, {space.get('free_bytes', 0) // 10**6} MB free")
    return lines


def _agent_state(agent: dict[str, Any]) -> str:
    if agent["stale"]:
        return f"SILENT since {agent.get('written')}: it was {agent.get('state')} then and is not running, or hangs"
    if agent.get("state") == "ended":
        return f"ended as it should, at {agent.get('written')}"
    return f"{agent.get('state')}, {agent['age_s']:.0f} s ago"


def machine_lines(machine: dict[str, Any] | None) -> list[str]:
    """Temperature, throttling and clock, for people; nothing of a device that is not this machine."""
    if machine is None:
        return []
    clock, throttling = machine["clock"], machine["throttling"]
    words = []
    if machine["temperature_c"] is not None:
        words.append(f"{machine['temperature_c']:.0f} °C")
    if throttling:
        now, before = throttling["now"], throttling["since_start"]
        words.append(f"held back: {', '.join(now)}" if now else "not held back")
        words += [f"since the start: {', '.join(before)}"] if before else []
    known = {True: "synchronised", False: "NOT synchronised", None: "nobody says whether it is right"}
    battery = ", with a battery" if clock["battery"] else ""
    wrong = "" if clock["plausible"] else ", and cannot be right"
    lines = [f"machine   {'; '.join(words)}"] if words else []
    return [*lines, f"clock     {clock['now']}, {known[clock['synchronised']]}{battery}{wrong}"]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in counts.items())


def _device(root: Path) -> str | None:
    try:
        return slots.device_id(root)
    except DeviceError as error:
        if error.code == "no device":
            return None
        raise


def _bundle(root: Path) -> dict[str, Any] | None:
    from edge.model.classify import usable_runtime

    try:
        slot = slots.current(root)
    except DeviceError as error:
        if error.code == "no bundle":
            return None
        raise
    manifest = slot.manifest
    try:
        runtime: str | None = usable_runtime(manifest)
    except FieldmarkError:
        runtime = None
    return {
        "name": manifest.name,
        "sequence": manifest.sequence,
        "version": manifest.version,
        "digest": slot.digest,
        "model": slot.model_digest,
        "development": slot.development,
        "installed": slot.installed,
        "labels": [label.name for label in manifest.labels],
        "runtime": runtime,
    }


def _log(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    with closing(store.open_for_reading(path)) as connection:
        return {"path": str(path), **asdict(query.totals(connection))}


def preflight(root: Path, log: Path) -> list[Check]:
    """Try everything that the agent needs; each thing is tried even if one before it failed.

    Leaves a root that is no device yet as it is.
    """
    return [
        _try("settings", lambda: _settings(root)),
        _try("bundle", lambda: _installed(root)),
        _try("model", lambda: _golden(root)),
        _try("people", lambda: _people(root)),
        _try("alerts", lambda: _alerts(root)),
        _try("log", lambda: _writable(root, log)),
        _try("disk", lambda: _space(root, log)),
    ]


def _try(name: str, work: Callable[[], str]) -> Check:
    try:
        return Check(name, True, work())
    except FieldmarkError as error:
        return Check(name, False, str(error))
    except OSError as error:
        return Check(name, False, f"{error.filename or name}: {error.strerror}.")


def _settings(root: Path) -> str:
    settings = config.load(root)
    for source in settings.sources:
        if not os.access(source.path, os.R_OK | os.X_OK):
            raise DeviceError(f"the source {source.path} is not there or may not be read. Is the card in?")
    return f"{len(settings.sources)} source(s)" if settings.sources else "no sources; `watch` needs a folder"


def _installed(root: Path) -> str:
    slot = slots.current(root)
    key = "development key" if slot.development else "release key"
    return f"{slot.manifest.name}-{slot.manifest.sequence}, signature and digests hold ({key})"


def _golden(root: Path) -> str:
    from edge.model import golden

    slot = slots.current(root)
    runtime = golden.check(slot.path, slot.manifest)
    return f"{len(slot.manifest.golden)} golden photos answered as on the workstation, by {runtime}"


def _people(root: Path) -> str:
    wanted = config.load(root).upkeep.people.preview
    try:
        labels = [label.name for label in slots.current(root).manifest.labels]
    except FieldmarkError:  # said above
        labels = [PERSON]
    if PERSON not in labels:
        return f"the model knows no `{PERSON}`, so previews of people are kept like others"
    return {"keep": "previews are kept", "blur": "previews are blurred", "none": "no previews are made"}[wanted]


def _alerts(root: Path) -> str:
    alerts = config.load(root).upkeep.alerts
    for alert in alerts:
        if isinstance(alert.to, Command) and not os.access(alert.to.argv[0], os.X_OK):
            raise DeviceError(f"alert {alert.rule.name!r}: {alert.to.argv[0]} is not there or may not be run.")
        if isinstance(alert.to, Mqtt) and importlib.util.find_spec("paho") is None:
            raise DeviceError(f"alert {alert.rule.name!r} needs MQTT. Run: pip install 'fieldmark[mqtt]'")
        if not isinstance(alert.to, Command) and (token := alert.to.token_file) and not os.access(token, os.R_OK):
            raise DeviceError(f"alert {alert.rule.name!r}: {token} is not there or may not be read.")
    return f"{len(alerts)} alert(s)" if alerts else "none"


def _writable(root: Path, log: Path) -> str:
    slots.device_id(root)  # nothing is made where no device is: a root that holds something enrols nobody
    with store.open_for_writing(log) as opened:
        opened.check()
        return f"{log} is whole, every row will be synced"


def _space(root: Path, log: Path) -> str:
    slots.device_id(root)
    trial = log.with_name(".fieldmark-check")
    durable.write_file(trial, b"x")
    trial.unlink()
    free = shutil.disk_usage(log.parent).free
    if free < SPARE_BYTES:
        raise DeviceError(f"{free // 2**20} MiB free beside the log, at least {SPARE_BYTES // 2**20} are needed.")
    return f"{free // 2**20} MiB free, can be written"
