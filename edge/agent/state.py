"""How a device stands: what is installed, what the log holds, and whether it is ready to go out.

Reads only, apart from :func:`preflight`, which opens the log as the agent would and writes one file to try the disk.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge import durable
from edge.agent import config, slots
from edge.errors import DeviceError, FieldmarkError
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
        "free_bytes": shutil.disk_usage(log.parent if log.parent.is_dir() else root).free,
    }


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
