"""What this machine can do beyond Python: found out by trying it, once, and only when a test asks.

A test says what it needs with ``@pytest.mark.needs("browser")`` or, inside, ``require("browser")``. Where the
capability is missing, the test is skipped with the reason, but fails if ``FIELDMARK_REQUIRE`` names it (separated by
spaces): what CI installed must not go missing in silence.

Imports that are slow or can crash are tried in a child process; ``tflite_runtime`` must never be imported into a
process that has TensorFlow.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from edge.errors import FieldmarkError
from edge.model import run, runtime
from tests import colour_model
from tests.deploy import live_systemd
from tests.faults import power

REQUIRE_VARIABLE = "FIELDMARK_REQUIRE"
DATA_VARIABLE = "FIELDMARK_TEST_DATA"
EMULATOR_VARIABLE = "FIELDMARK_TEST_EMULATOR"
ROOT = Path(__file__).resolve().parent.parent


def require(name: str) -> None:
    """Skip the running test where a capability is missing, or fail it where ``FIELDMARK_REQUIRE`` names it."""
    reason = missing(name)
    if reason is None:
        return
    if name in required():
        pytest.fail(f"{name}: {reason} ({REQUIRE_VARIABLE} asks for it)", pytrace=False)
    pytest.skip(f"{name}: {reason}")


def required() -> frozenset[str]:
    """What ``FIELDMARK_REQUIRE`` names."""
    names = frozenset(os.environ.get(REQUIRE_VARIABLE, "").split())
    if unknown := names - PROBES.keys():
        raise ValueError(f"{REQUIRE_VARIABLE} names {sorted(unknown)}, expected some of {sorted(PROBES)}.")
    return names


@cache
def missing(name: str) -> str | None:
    """Why a capability is missing, or None where it is there."""
    return PROBES[name]()


def browser() -> str | None:
    """The headless browser's command, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def browser_command(*arguments: str, profile: Path) -> list[str]:
    """The command that runs the browser headless, talking to nobody of its own accord."""
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
    if os.geteuid() == 0:
        quiet.append("--no-sandbox")  # Chromium refuses root otherwise
    return [str(browser()), "--headless", *quiet, f"--user-data-dir={profile}", *arguments]


def real_photos() -> Path:
    """The folder of real photos, which is never part of the project. Call ``require("real_photos")`` first."""
    return Path(os.environ.get(DATA_VARIABLE) or ROOT.parent / "shared" / "data")


def emulator_folder() -> Path:
    """Where the emulated device is kept from one test run to the next: it is large, and fetched from the network."""
    kept = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(EMULATOR_VARIABLE) or Path(kept, "fieldmark-tests"))


def _tensorflow() -> str | None:
    return _fails([sys.executable, "-P", "-c", "import tensorflow, keras"], timeout_s=300)


def _both_runtimes() -> str | None:
    """With numpy 2, ``tflite_runtime`` imports well and fails when it is used: so each runs one photo."""
    with tempfile.TemporaryDirectory(prefix="fieldmark-runtimes-") as folder:
        model, pixels = Path(folder) / "model.tflite", Path(folder) / "pixels.npy"
        model.write_bytes(colour_model.build(4, 4))
        np.save(pixels, np.zeros((1, 4, 4, 3), np.uint8))
        for name in runtime.NAMES:
            try:
                run.in_child(model, pixels, runtime=name, timeout_s=120)
            except FieldmarkError as error:
                return f"{name} does not run: {error}"
    return None


def _minisign() -> str | None:
    return None if shutil.which("minisign") else "the minisign program is not installed"


def _strace() -> str | None:
    if shutil.which("strace") is None:
        return "the strace program is not installed"
    return _fails(["strace", "-o", os.devnull, "true"], timeout_s=20)


def _loop_mounts() -> str | None:
    """Whether a file of 1 MB can be made a file system, mounted, and shut down: root, loop devices and ext4."""
    if shutil.which("mkfs.ext4") is None:
        return "the mkfs.ext4 program is not installed"
    with tempfile.TemporaryDirectory(prefix="fieldmark-mount-") as folder:
        at = Path(folder) / "at"
        try:
            with power.mounted(power.make_image(Path(folder) / "1.img", lambda disk: None, at, size_mb=1), at):
                power.shut_down(at)
        except OSError as error:
            return str(error)
    return None


def _systemd_analyze() -> str | None:
    """Its ``security`` reads a file of its own accord from version 250 on."""
    if shutil.which("systemd-analyze") is None:
        return "the systemd-analyze program is not installed"
    unit = ROOT / "deploy" / "systemd" / "fieldmark.service"
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    return _fails(command, timeout_s=60, says="Overall exposure level")


def _live_systemd() -> str | None:
    """Whether a systemd can be started beside this machine's own: root, namespaces, cgroups, an overlay."""
    with tempfile.TemporaryDirectory(prefix="fieldmark-systemd-") as folder:
        try:
            with live_systemd.booted(Path(folder)):
                return None
        except OSError as error:
            return str(error)


def _faketime() -> str | None:
    if shutil.which("faketime") is None:
        return "the faketime program is not installed"
    return _fails(["faketime", "2040-01-02", "date", "+%Y"], timeout_s=20, says="2040")


def _eatmydata() -> str | None:
    """It ends well also where its library cannot be loaded."""
    if shutil.which("eatmydata") is None:
        return "the eatmydata program is not installed"
    return _fails(["eatmydata", "cat", "/proc/self/maps"], timeout_s=20, says="libeatmydata")


def _browser() -> str | None:
    if browser() is None:
        return "no Chromium is installed"
    with tempfile.TemporaryDirectory(prefix="fieldmark-browser-") as profile:
        command = browser_command("--dump-dom", "data:text/html,<p>up", profile=Path(profile))
        return _fails(command, timeout_s=120, says="<p>up</p>")


def _real_photos() -> str | None:
    folder = real_photos() / "trailcam"
    return None if folder.is_dir() else f"there is no {folder}; {DATA_VARIABLE} names another place"


def _emulator() -> str | None:
    """Made at the first time, which takes a minute, if QEMU is here at all."""
    from trainer.gate import emulate

    try:
        emulate.prepare(emulator_folder())
    except FieldmarkError as error:
        return str(error)
    return None


PROBES: dict[str, Callable[[], str | None]] = {
    "tensorflow": _tensorflow,
    "both_runtimes": _both_runtimes,
    "minisign": _minisign,
    "strace": _strace,
    "browser": _browser,
    "loop_mounts": _loop_mounts,
    "systemd_analyze": _systemd_analyze,
    "live_systemd": _live_systemd,
    "faketime": _faketime,
    "eatmydata": _eatmydata,
    "real_photos": _real_photos,
    "emulator": _emulator,
}


def _fails(command: list[str], *, timeout_s: float, says: str = "") -> str | None:
    """Run a command; None if it ended well and printed ``says``, else its last line or what became of it."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0 and says in done.stdout:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"it ended with status {done.returncode}"
