"""The agent's status in Prometheus' text format, for node_exporter's textfile collector. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Sample = tuple[dict[str, str], float]
_NONE_YET = {"classified": 0, "duplicate": 0, "failed": 0}
"""A counter that begins with its first failure shows no increase for it."""
_LEVELS = ("plenty", "low", "no previews", "only the log")


def text(status: Mapping[str, Any]) -> str:
    """What :meth:`edge.agent.service.StatusFile.write` wrote, as metrics. What is not known has no line."""
    return "".join(_family(*each) for each in _families(status))


def _families(status: Mapping[str, Any]) -> Iterator[tuple[str, str, str, list[Sample]]]:
    """Name, kind, help and samples."""
    space, clock = status.get("space") or {}, status.get("clock") or {}
    throttling = status.get("throttling") or {}
    facts = {key: str(status[key]) for key in ("device", "bundle", "runtime", "version") if status.get(key)}
    yield "fieldmark_info", "gauge", "Device, bundle, runtime and version.", [(facts, 1)]
    counts = status.get("counts")
    counts = None if counts is None else _NONE_YET | counts
    yield "fieldmark_files_total", "counter", "Files since the agent started.", _by("outcome", counts)
    yield "fieldmark_failures_total", "counter", "Failed files by reason.", _by("code", status.get("failures"))
    yield "fieldmark_queue_files", "gauge", "Files found that wait.", _one(status.get("queue"))
    yield "fieldmark_free_bytes", "gauge", "Free beside the log.", _one(space.get("free_bytes"))
    level = space.get("level")
    known = _LEVELS.index(level) if level in _LEVELS else None
    yield "fieldmark_space_level", "gauge", "0 plenty, 1 low, 2 no previews, 3 only the log.", _one(known)
    yield "fieldmark_temperature_celsius", "gauge", "The processor.", _one(status.get("temperature_c"))
    yield "fieldmark_throttled", "gauge", "What holds the processor back.", [
        ({"reason": reason}, 1) for reason in throttling.get("now", [])
    ]  # fmt: skip
    yield "fieldmark_clock_ok", "gauge", "Whether the device knows the time.", _one(clock.get("ok"))
    yield (
        "fieldmark_status_boottime_seconds",
        "gauge",
        "When this was told, since boot.",
        _one(status.get("since_boot_s")),
    )


def _one(value: object) -> list[Sample]:
    return [({}, float(value))] if isinstance(value, int | float) else []


def _by(label: str, values: Mapping[str, float] | None) -> list[Sample]:
    return [({label: name}, value) for name, value in sorted((values or {}).items())]


def _family(name: str, kind: str, about: str, samples: list[Sample]) -> str:
    if not samples:
        return ""
    lines = [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{_labels(labels)} {value:.17g}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
