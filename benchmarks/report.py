"""What every benchmark says beside its numbers, and where the numbers are kept.

Owns the form of the results: the machine's facts, the claims with their targets, the JSON files and the table made of
them. Measures nothing itself.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from edge import durable

RESULTS = Path(__file__).resolve().parent / "results"
TABLE = RESULTS / "table.md"
_BUSY_SHARE = 0.75
"""Of the cores: the benchmark itself keeps one busy, or two while it trains."""
_PACKAGES = (
    *("fieldmark", "numpy", "pillow", "ai-edge-litert", "tflite-runtime", "watchdog", "typer", "cryptography"),
    *("tensorflow", "keras", "scikit-learn", "simplejpeg"),
)


@dataclass(frozen=True)
class Claim:
    """One number that may be said in public.

    Attributes:
        what: the number in words.
        value: as measured; None where this run could not measure it.
        unit: ``×`` for a ratio, ``%`` of one for a share, ``s``, ``MB``, or nothing for a count.
        most, least: the target, if there is one.
    """

    what: str
    value: float | None
    unit: str = ""
    most: float | None = None
    least: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None where there is no target or no value."""
        if self.value is None or (self.most is None and self.least is None):
            return None
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)

    @property
    def measured(self) -> str:
        """The value for a person."""
        return "not measured" if self.value is None else _number(self.value, self.unit)

    @property
    def target(self) -> str:
        """The target for a person."""
        if self.most is not None:
            return f"at most {_number(self.most, self.unit)}"
        return "" if self.least is None else f"at least {_number(self.least, self.unit)}"


@dataclass(frozen=True)
class Result:
    """One benchmark's end: its claims, the settings it ran with, and everything else it found."""

    name: str
    claims: Sequence[Claim]
    settings: dict[str, Any]
    detail: dict[str, Any]


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    options = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    options.add_argument("--json", action="store_true", help="print the result as JSON")
    options.add_argument("--save", action="store_true", help=f"keep it in {RESULTS.name}/ and renew the table")
    return options


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def finish(result: Result, options: argparse.Namespace) -> None:
    """Print a result, and keep it if ``--save`` was said."""
    content = {
        "schema": 1,
        "benchmark": result.name,
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "settings": result.settings,
        "claims": [_rounded({**asdict(claim), "met": claim.met}) for claim in result.claims],
        "detail": _rounded(result.detail),
    }
    if options.json:
        print(json.dumps(content, ensure_ascii=False))
    else:
        print("\n".join(_for_a_person(content, result.claims)))
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        durable.write_file(RESULTS / f"{result.name}.json", text.encode())
        durable.write_file(TABLE, "\n".join(table(_kept())).encode())


def machine() -> dict[str, Any]:
    """What ran the benchmark. Names no host, user or folder."""
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average_1min": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "libjpeg_turbo": _libjpeg_turbo(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median and quartiles of at least one value."""
    found = sorted(values)
    if len(found) < 2:
        return {"n": len(found), "median": found[0], "low": found[0], "high": found[0]}
    low, middle, high = statistics.quantiles(found, n=4, method="inclusive")
    return {"n": len(found), "median": middle, "low": low, "high": high}


def table(kept: Iterable[dict[str, Any]]) -> list[str]:
    """The kept results as Markdown."""
    lines = ["# Measured", "", "Made by `--save`; edit nothing here. One row per number, one command per number.", ""]
    lines += ["| number | measured | target | command | machine |", "|---|---|---|---|---|"]
    for content in kept:
        facts, command = content["machine"], f"`python -m benchmarks.{content['benchmark']}`"
        where = f"{facts['architecture']}, {facts['cores']} cores, Python {facts['python']}, {content['measured'][:10]}"
        for each in content["claims"]:
            met = each.pop("met")
            claim = Claim(**each)
            mark = "" if met is None else " (met)" if met else " (**missed**)"
            lines.append(f"| {claim.what} | {claim.measured} | {claim.target}{mark} | {command} | {where} |")
    return [*lines, ""]


def _kept() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


def _for_a_person(content: dict[str, Any], claims: Sequence[Claim]) -> list[str]:
    facts = content["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    lines = [
        f"machine: {facts['processor']}, {facts['architecture']}, {facts['cores']} cores, load "
        f"{facts['load_average_1min']}, {facts['system']}, Python {facts['python']}",
        f"packages: {packages}; Pillow's libjpeg-turbo {facts['libjpeg_turbo']}",
        *_warnings(facts),
        *_indented(content["detail"], 0),
        "",
    ]
    for claim in claims:
        verdict = {True: "met", False: "MISSED", None: ""}[claim.met]
        lines.append(f"{claim.what}: {claim.measured}  {claim.target}  {verdict}".rstrip())
    return lines


def _warnings(facts: dict[str, Any]) -> list[str]:
    busy = facts["load_average_1min"] > facts["cores"] * _BUSY_SHARE
    return ["NOTE: other work runs on this machine; ratios suffer, times more. Measure again when it is idle."] * busy


def _indented(value: dict[str, Any], depth: int) -> list[str]:
    lines = []
    for name, each in value.items():
        if isinstance(each, dict) and set(each) == {"n", "median", "low", "high"}:
            each = f"{each['median']:g} (quartiles {each['low']:g} to {each['high']:g}, n = {each['n']:g})"
        if isinstance(each, dict):
            lines += [f"{'  ' * depth}{name}:", *_indented(each, depth + 1)]
        elif isinstance(each, list) and each and isinstance(each[0], dict):
            lines += [f"{'  ' * depth}{name}:"]
            lines += ["  " * (depth + 1) + ", ".join(f"{key} {item}" for key, item in row.items()) for row in each]
        else:
            lines.append(f"{'  ' * depth}{name}: {each}")
    return lines


def _rounded(value: Any) -> Any:
    """Four figures say all that a noisy machine can."""
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    if isinstance(value, float) and value and math.isfinite(value):
        return round(value, max(0, 3 - math.floor(math.log10(abs(value)))))
    return value


def _number(value: float, unit: str) -> str:
    if unit == "%":
        return f"{value:.1%}"
    if unit == "×":
        return f"{value:.2f} ×"
    return f"{value:.4g} {unit}".rstrip()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.lower().startswith(("model name", "model\t")))
    return next((name for name in named if not name.isdigit()), platform.processor() or "unknown")


def _libjpeg_turbo() -> str | None:
    from PIL import features

    version: str | None = features.version("libjpeg_turbo")
    return version
