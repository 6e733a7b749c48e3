"""How a device stands: what is installed, what the log holds, and whether it is ready to go out.

Reads only, apart from :func:`preflight`, which opens the log as the agent would and writes one file to try the disk.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge import durable
from edge.agent import config, deletion, health, service, slots
from edge.agent.config_upkeep import STATUS_FILE, Command, Mqtt
from edge.agent.people import PERSON
from edge.errors import ConfigError, DeviceError, FieldmarkError, LogError
from edge.log import query, store

SPARE_BYTES = 64_000_000
"""Less free space than this fails the check: the log must grow for months."""


Part = TypeVar("Part")


@dataclass(frozen=True)
class Check:
    """One thing that was tried; ``text`` says what was found or what to do."""

    name: str
    passed: bool
    text: str


def status(root: Path, log: Path) -> dict[str, Any]:
    """What is installed, what the log holds, in the words of ``fieldmark status --json``. A part that cannot be read is
    None, and ``troubles`` says why: who looks after a damaged log wants to see the rest.

    Raises:
        DeviceError: there is no such root.
    """
    if not os.path.isdir(root):
        raise DeviceError(f"{root} is no folder, or not for this user. Name a device root.", code="no root")
    troubles: dict[str, str] = {}

    def part(name: str, read: Callable[[], Part]) -> Part | None:
        try:
            return read()
        except FieldmarkError as error:
            troubles[name] = str(error)
            return None

    settings = part("settings", lambda: config.load(root))
    return {
        "schema": 1,
        "root": str(root),
        "device": part("device", lambda: _device(root)),
        "bundle": part("bundle", lambda: _bundle(root)),
        "log": part("log", lambda: _log(log)),
        "agent": service.read_status(settings.upkeep.service.status_file if settings else root / STATUS_FILE),
        "machine": health.report() if root.resolve() == Path("/") else None,
        "free_bytes": shutil.disk_usage(log.parent if log.parent.is_dir() else root).free,
        "troubles": troubles,
    }


def agent_lines(agent: dict[str, Any] | None) -> list[str]:
    """What the agent last told, for people."""
    if agent is None:
        return ["agent     has told nothing here"]
    try:
        return _agent_lines(agent)
    except (TypeError, ValueError, AttributeError, KeyError, OverflowError):  # not written by an agent
        return ["agent     its status file cannot be understood"]


def _agent_lines(agent: dict[str, Any]) -> list[str]:
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
    from edge.model.runtime import usable

    try:
        slot = slots.current(root)
    except DeviceError as error:
        if error.code == "no bundle":
            return None
        raise
    manifest = slot.manifest
    try:
        runtime: str | None = usable(manifest)
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
    try:
        with closing(store.open_for_reading(path)) as connection:
            return {"path": str(path), **asdict(query.totals(connection))}
    except LogError as error:
        if error.code != "no log":
            raise
        return None


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
        _try("delete", lambda: _deletes(root, log)),  # of a log that is up to date now
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
    from edge.model.classify import known_species

    slot = slots.current(root)
    runtime = golden.check(slot.path, slot.manifest)
    with suppress(_SettingsError):
        if (species := _config(root).species) is not None:
            known_species(slot.manifest, species)  # else the agent would not start
    return f"{len(slot.manifest.golden)} golden photos answered as on the workstation, by {runtime}"


def _people(root: Path) -> str:
    wanted = _config(root).upkeep.people.preview
    try:
        labels = [label.name for label in slots.current(root).manifest.labels]
    except FieldmarkError:  # said above
        labels = [PERSON]
    if PERSON not in labels:
        return f"the model knows no `{PERSON}`, so previews of people are kept like others"
    return {"keep": "previews are kept", "blur": "previews are blurred", "none": "no previews are made"}[wanted]


def _alerts(root: Path) -> str:
    alerts = _config(root).upkeep.alerts
    said = _said(root)
    for alert in alerts:
        if said and not said & set(alert.rule.labels):
            raise DeviceError(
                f"alert {alert.rule.name!r}: the model never says {' nor '.join(alert.rule.labels)}. {_says(said)}"
            )
        if isinstance(alert.to, Command) and not os.access(alert.to.argv[0], os.X_OK):
            raise DeviceError(f"alert {alert.rule.name!r}: {alert.to.argv[0]} is not there or may not be run.")
        if isinstance(alert.to, Mqtt) and importlib.util.find_spec("paho") is None:
            raise DeviceError(f"alert {alert.rule.name!r} needs MQTT. Run: pip install 'fieldmark[mqtt]'")
        if not isinstance(alert.to, Command) and (token := alert.to.token_file) and not os.access(token, os.R_OK):
            raise DeviceError(f"alert {alert.rule.name!r}: {token} is not there or may not be read.")
    return f"{len(alerts)} alert(s)" if alerts else "none"


def _deletes(root: Path, log: Path) -> str:
    """What each policy would do, before it does it."""
    policies, said = _config(root).upkeep.deletes, _said(root)
    for policy in policies:
        if said and not policy.reviewed and policy.label not in said:
            raise DeviceError(f"policy {policy.name!r}: the model never says {policy.label}. {_says(said)}")
    if not policies:
        return "none, so no original is ever deleted"
    if not log.exists():
        return f"{len(policies)} policies, no log yet"
    device = slots.device_id(root)
    with closing(store.open_for_reading(log)) as connection:
        return "; ".join(
            f"{policy.name!r}: {deletion.count(connection, policy, device)} of the logged files, once they are "
            f"{policy.older_days:g} days old{' and copied' if policy.copied_to else ''}"
            for policy in policies
        )


class _SettingsError(DeviceError):
    """The settings are wrong, as the first check says in full."""


def _config(root: Path) -> config.Config:
    try:
        return config.load(root)
    except ConfigError as error:
        raise _SettingsError("the settings cannot be read, see there.") from error


def _said(root: Path) -> set[str]:
    """Every label and taxon that the model may answer with; none if no bundle says so."""
    from edge.model.taxonomy import taxonomy

    try:
        labels = slots.current(root).manifest.labels
    except FieldmarkError:  # said above
        return set()
    return {label.name for label in labels} | {taxon.name for taxon in taxonomy(labels).taxa} | {"unknown"}


def _says(said: set[str]) -> str:
    return f"It says {', '.join(sorted(said))}."


def _writable(root: Path, log: Path) -> str:
    slots.device_id(root)  # nothing is made where no device is: a root that holds something enrols nobody
    with store.open_for_writing(log) as opened:
        opened.check()
        return f"{log} is whole, every row will be synced"


def _space(root: Path, log: Path) -> str:
    slots.device_id(root)
    trial = log.with_name("fieldmark-check")
    try:
        durable.write_file(trial, b"x")
        trial.unlink()
    except OSError as error:
        raise DeviceError(f"{log.parent} cannot be written: {error.strerror}.") from error
    free = shutil.disk_usage(log.parent).free
    if free < SPARE_BYTES:
        raise DeviceError(f"{free // 10**6} MB free beside the log, at least {SPARE_BYTES // 10**6} are needed.")
    return f"{free // 10**6} MB free, can be written"
