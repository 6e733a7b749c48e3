"""Writes the lock of every target: exact versions with the hashes of their public files. Run by ``make locks``.

``uv pip compile`` honours the *target's* Python and architecture, where pip's markers follow the host's. Only the
public registry is asked, whatever this machine's settings say, and no address or path ends up in a lock. Each lock
is then put before pip itself for its target, because uv passes over the upper bound of ``Requires-Python``.

There is no lock for 32-bit Arm: the registry has no armv7l wheels of numpy, Pillow and cffi (Raspberry Pi OS adds an
index of its own for them), and uv knows no such target.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
EXTRAS = {"workstation": ("trainer", "mqtt", "dev"), "device": ("mqtt",)}
GLIBC_MINORS = (36, 35, 34, 31, 28, 27, 26, 24, 17)
"""glibc 2.36 is that of Debian 12, the oldest Raspberry Pi OS with Python 3.11; its tags and older ones fit."""


@dataclass(frozen=True)
class Target:
    """What one lock is for; ``purpose`` is a key of :data:`EXTRAS`."""

    purpose: str
    machine: str
    python: str

    @property
    def path(self) -> Path:
        """The Makefile builds the same name."""
        return HERE / f"{self.purpose}-{self.machine}-py{self.python.replace('.', '')}.txt"


TARGETS = tuple(Target(purpose, machine, python) for purpose in EXTRAS for machine in MACHINES for python in PYTHONS)


def clean_environment() -> dict[str, str]:
    """This process's environment without settings that add indexes, folders or constraints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    return kept | {"PIP_CONFIG_FILE": os.devnull}


def compile_lock(target: Target) -> None:
    """Write one lock."""
    command = [
        sys.executable,
        "-m",
        "uv",
        "--no-config",
        "pip",
        "compile",
        "--quiet",
        "--no-header",
        "--no-annotate",
        "--upgrade",
    ]
    command += ["--generate-hashes", "--only-binary", ":all:", "--no-emit-index-url", "--no-emit-find-links"]
    command += ["--python-version", target.python, "--python-platform", f"{target.machine}-manylinux_2_36"]
    command += ["--constraints", "locks/constraints.txt", "--output-file", str(target.path)]
    for extra in EXTRAS[target.purpose]:
        command += ["--extra", extra]
    subprocess.run([*command, "pyproject.toml"], cwd=HERE.parent, env=clean_environment(), check=True)
    check_text(target.path)


def check_text(lock: Path) -> None:
    """Refuse a lock that holds anything but pinned names and hashes."""
    line = re.compile(r"[a-z0-9][a-z0-9.-]*==[0-9][\w.+!-]* \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    for number, text in enumerate(lock.read_text().splitlines(), 1):
        if not line.fullmatch(text):
            sys.exit(f"{lock.name}:{number}: expected NAME==VERSION or a hash, found {text!r}.")


def check_with_pip(target: Target) -> None:
    """Ask pip (26 or later honours the target's Python here) whether it can install the lock. Nothing is installed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "--isolated", "install", "--quiet", "--dry-run", "--no-deps"]
        command += ["--target", folder, "--only-binary", ":all:", "--require-hashes", "--requirement", str(target.path)]
        command += ["--implementation", "cp", "--python-version", target.python]
        for minor in GLIBC_MINORS:
            command += ["--platform", f"manylinux_2_{minor}_{target.machine}"]
        command += ["--platform", f"manylinux2014_{target.machine}", "--platform", f"linux_{target.machine}"]
        if subprocess.run(command, env=clean_environment(), check=False).returncode != 0:
            sys.exit(f"{target.path.name}: pip refuses it for its target; see above. Constrain it in constraints.txt.")


def main() -> None:
    """Write and check every lock."""
    for target in TARGETS:
        compile_lock(target)
        check_with_pip(target)
        print(target.path.name)


if __name__ == "__main__":
    main()
