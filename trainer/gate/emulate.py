"""An aarch64 device on this machine: Debian's Python and the wheels that a Raspberry Pi installs, run one program at a
time by QEMU's user-mode emulation.

What it answers is what a Pi answers; what it takes, in time or memory, means nothing. It is made once, in a folder of
the caller's, from the package sources that this machine's apt and pip use. Needs no root.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

from edge.errors import ConfigError
from edge.model import run, runtime

ARCHITECTURE = "aarch64"
QEMU = "qemu-aarch64-static"
PYTHON = "python3.11"
_SUITE = "bookworm"
_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_DEBIAN = (f"{PYTHON}-minimal", f"lib{PYTHON}-stdlib", "libstdc++6", "libatomic1")
_WHEELS = {"ai_edge_litert": "ai-edge-litert>=2.3,<3", "tflite_runtime": "tflite-runtime==2.14.0"}
_TAGS = ("manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28", "manylinux_2_34")
_CORE = "cortex-a72"
"""A Pi 4's. With all that QEMU can do, LiteRT would take kernels that no Pi has."""
_CPUINFO = "".join(
    f"processor\t: {i}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
    "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n"
    for i in range(4)
)
"""With the host's /proc/cpuinfo LiteRT crashes."""
_DOWNLOAD_S = 1800.0
_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Emulator:
    """A device that was prepared.

    Attributes:
        qemu: the emulator's program.
        root: its userland.
        code: a folder with the package ``edge`` and nothing else.
        packages: runtime -> folder with its wheels.
        runtimes: what is installed there, as :func:`edge.model.runtime.installed` says it here.
        architecture: ``aarch64``.
    """

    qemu: str
    root: Path
    code: Path
    packages: Mapping[str, Path]
    runtimes: tuple[runtime.Installed, ...]
    architecture: str = ARCHITECTURE

    def in_child(
        self,
        model: Path,
        pixels: Path,
        *,
        runtime: str,
        kernels: str = "default",
        photos: Sequence[int] | None = None,
        keep_not_finite: bool = False,
    ) -> run.Answers:
        """As :func:`edge.model.run.in_child`, on the device.

        Raises:
            ModelError: as there.
        """
        return run.in_child(
            model, pixels, runtime=runtime, kernels=kernels, photos=photos, keep_not_finite=keep_not_finite,
            timeout_s=_TIMEOUT_S, python=self._python, environment=self._environment(runtime),
        )  # fmt: skip

    @property
    def _python(self) -> tuple[str, ...]:
        return (self.qemu, "-cpu", _CORE, "-L", str(self.root), str(self.root / "usr/bin" / PYTHON))

    def _environment(self, name: str) -> dict[str, str]:
        ours = ("PYTHONHOME", "LD_LIBRARY_PATH", "LD_PRELOAD")  # mean this machine; empty is unset
        paths = os.pathsep.join((str(self.packages[name]), str(self.code)))
        return {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", **dict.fromkeys(ours, "")}


def prepare(folder: Path, say: Callable[[str], None] = lambda text: None) -> Emulator:
    """Make the device, or find it made: about 350 MB in ``folder``.

    Args:
        folder: keeps it for the next time.
        say: told what takes long.

    Raises:
        ConfigError: a program is missing, or packages cannot be had; with the cure.
    """
    if platform.machine() == ARCHITECTURE:
        raise ConfigError(f"this machine is {ARCHITECTURE} itself: leave out the emulation.", code="emulator")
    qemu = shutil.which(QEMU)
    if qemu is None:
        raise ConfigError(
            f"{QEMU} is not on PATH, and {ARCHITECTURE} cannot be emulated without it. Debian and Ubuntu: apt-get "
            "install qemu-user-static.",
            code="emulator",
        )
    root = _made(folder / f"{ARCHITECTURE}-{_SUITE}", _userland, say, "Debian's Python")
    packages = {}
    for name, wheel in _wheels().items():
        kept = folder / f"{ARCHITECTURE}-{wheel.translate(str.maketrans('=<>,', '----'))}"
        packages[name] = _made(kept, partial(_install, wheel=wheel), say, wheel)
    code = _made(folder / f"{ARCHITECTURE}-code-{_code_digest()}", _copy_code, lambda text: None, "our code")
    return Emulator(qemu, root, code, packages, tuple(_installed(packages)))


def _wheels() -> dict[str, str]:
    """The versions that are installed here, where they are, so that the rows can be compared."""
    pinned = {}
    for name, wheel in _WHEELS.items():
        here = next((each.version for each in runtime.installed() if each.name == name), None)
        pinned[name] = f"{wheel.split('>')[0].split('=')[0]}=={here}" if here else wheel
    return pinned


def _installed(packages: Mapping[str, Path]) -> Iterator[runtime.Installed]:
    for name, folder in packages.items():
        wanted = name.replace("_", "-")
        for each in metadata.distributions(path=[str(folder)]):
            if each.metadata["Name"].replace("_", "-").lower() == wanted:
                yield runtime.Installed(name, each.version)


def _made(place: Path, make: Callable[[Path], None], say: Callable[[str], None], what: str) -> Path:
    """A folder that is whole once it has its name."""
    if place.is_dir():
        return place
    say(f"  {what} for {ARCHITECTURE} is fetched once, into {place}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="making-", dir=place.parent) as scratch:
            part = Path(scratch) / "part"
            part.mkdir()
            make(part)
            with contextlib.suppress(OSError):  # somebody else made it meanwhile
                part.rename(place)
    except OSError as error:
        raise ConfigError(
            f"{place} cannot be made: {error.strerror}. Choose another folder.", code="emulator"
        ) from error
    return place


def _userland(place: Path) -> None:
    """Unpacks arm64 packages; nothing is installed on this machine, and nothing of them is run but Python."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None or not _KEYS.is_file():
        raise ConfigError(
            f"the {ARCHITECTURE} userland is made with Debian's apt-get, dpkg and {_KEYS}, which are not all here. Use "
            "a Debian machine, or install debian-archive-keyring.",
            code="emulator",
        )
    with tempfile.TemporaryDirectory(prefix="fieldmark-apt-") as scratch:
        settings = _apt_settings(Path(scratch))
        variables = {**os.environ, "APT_CONFIG": str(settings)}
        _do(["apt-get", "-qq", "update"], variables)
        _do(["apt-get", "-qq", "-y", "--download-only", "install", *_DEBIAN], variables)
        for package in sorted(Path(scratch, "debs").glob("*.deb")):
            _do(["dpkg", "-x", str(package), str(place)])
    (place / "proc").mkdir(exist_ok=True)
    (place / "proc" / "cpuinfo").write_text(_CPUINFO, encoding="ascii")


def _apt_settings(scratch: Path) -> Path:
    """An apt of its own, that knows this machine's mirror and signing keys and writes below ``scratch`` only."""
    sites = _do(["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"]).splitlines()
    mirror = next((site for site in sites if "security" not in site), None)
    if mirror is None:
        raise ConfigError("apt knows no mirror. Name one in /etc/apt/sources.list.", code="emulator")
    for each in ("etc/apt/apt.conf.d", "etc/apt/preferences.d", "lists/partial", "debs/partial"):
        (scratch / each).mkdir(parents=True)
    (scratch / "status").touch()
    (scratch / "sources.list").write_text(f"deb [arch=arm64 signed-by={_KEYS}] {mirror} {_SUITE} main\n")
    settings = scratch / "apt.conf"
    settings.write_text(
        f'Dir "{scratch}"; Dir::State::status "{scratch}/status"; Dir::State::lists "{scratch}/lists";\n'
        f'Dir::Etc::sourcelist "{scratch}/sources.list"; Dir::Etc::sourceparts "-"; Dir::Cache "{scratch}";\n'
        f'Dir::Cache::archives "{scratch}/debs"; APT::Architecture "arm64"; APT::Architectures "arm64";\n'
        'APT::Install-Recommends "0"; APT::Sandbox::User ""; Debug::NoLocking "1";\n'
    )
    return settings


def _install(place: Path, wheel: str) -> None:
    tags = [part for tag in _TAGS for part in ("--platform", f"{tag}_{ARCHITECTURE}")]
    command = [sys.executable, "-P", "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile"]
    command += ["--only-binary=:all:", "--implementation=cp", "--python-version=311", *tags]
    _do([*command, "--target", str(place), wheel, "numpy<2"])


def _code() -> dict[str, bytes]:
    """The package ``edge`` alone: beside it here lie packages of another architecture."""
    folder = Path(run.__file__).parents[1]
    return {str(file.relative_to(folder.parent)): file.read_bytes() for file in sorted(folder.rglob("*.py"))}


def _code_digest() -> str:
    digest = hashlib.sha256()
    for name, content in _code().items():
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:12]


def _copy_code(place: Path) -> None:
    for name, content in _code().items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)


def _do(command: list[str], variables: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd="/", env=variables, capture_output=True, text=True, errors="replace", timeout=_DOWNLOAD_S,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{Path(command[0]).name} did not end well: {error}", code="emulator") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise ConfigError(
            f"the {ARCHITECTURE} device cannot be made: {Path(command[0]).name} says: {lines[-1]}. Check the network, "
            "and try again.",
            code="emulator",
        )
    return done.stdout
