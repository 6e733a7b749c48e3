"""A systemd of its own, as process 1 of namespaces of its own, for tests of the units as a device runs them.

Its root is an overlay of this machine's, in memory, so nothing that happens in it reaches this machine: with other
units, no network but a loopback, and Fieldmark in ``/opt/fieldmark`` as a device has it. Needs root, a Debian-like
machine with systemd's programs (it need not run), and a kernel that lets it have cgroups: the capability
``live_systemd``, which is tried by doing it. It ends with the block, and what it wrote is gone then.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
LONG_S = 60.0
"""Longer than anything in it takes."""

_CGROUPS = Path("/sys/fs/cgroup")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_ALONE = "setpriv --pdeathsig KILL unshare --mount --pid --uts --ipc --net --cgroup --propagation private"
_JOIN = 'for each in $1; do echo 0 > "$each/cgroup.procs"; done; shift; exec "$@"'

# Kernel settings and devices are this machine's, so both are read-only, which also keeps sysctl and udev from starting.
# The Python lies below /opt, wherever it is here: the units hide homes.
_BOOT = r"""
set -eu
folder=$1 base=$2 packages=$3 project=$4 hierarchy=$5
version=$(basename "$(dirname "$packages")")
mount -t tmpfs -o mode=755 tmpfs "$folder"
cd "$folder"
mkdir root upper work packages packages-work
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
cp -a "$project/edge" "$project/fieldmark.py" packages
chmod -R a+rX packages
cd root
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
for each in dev home media mnt run srv; do mount -t tmpfs -o mode=755 tmpfs "$each"; done
mount -t tmpfs -o mode=1777 tmpfs tmp
for each in null zero full random urandom tty; do : > "dev/$each"; mount --bind "/dev/$each" "dev/$each"; done
mkdir dev/pts dev/shm
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
rm -rf etc/systemd/system etc/fieldmark var/lib/fieldmark var/log/journal opt/fieldmark opt/python
mkdir -p etc/systemd/system opt/python opt/fieldmark/bin "opt/fieldmark/lib/$version/site-packages"
: > etc/fstab
for each in modprobe@.service systemd-modules-load.service sys-kernel-debug.mount sys-kernel-tracing.mount; do
    ln -s /dev/null "etc/systemd/system/$each"
done
: > etc/machine-id
mount -t overlay -o "lowerdir=$packages,upperdir=../packages,workdir=../packages-work" \
    overlay "opt/fieldmark/lib/$version/site-packages"
if [ "$base" != /usr ]; then
    mount --bind "$base" opt/python
    echo /opt/python/lib > etc/ld.so.conf.d/python.conf
    ldconfig -r .
    base=/opt/python
fi
echo "home = $base/bin" > opt/fieldmark/pyvenv.cfg
ln -s "$base/bin/$version" opt/fieldmark/bin/python
printf '#!/opt/fieldmark/bin/python\nfrom fieldmark import main\nmain()\n' > opt/fieldmark/bin/fieldmark
chmod 755 opt/fieldmark/bin/fieldmark
mkdir oldroot
pivot_root . oldroot
umount -l /oldroot
mount --make-rshared /
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=multi-user.target \
    --show-status=no "systemd.unified_cgroup_hierarchy=$hierarchy"
"""


@dataclass(frozen=True)
class Machine:
    """What runs below that systemd, whose number here is ``process``."""

    process: int

    def path(self, inside: str) -> Path:
        """A path in it, for this process."""
        return Path(f"/proc/{self.process}/root", inside.lstrip("/"))

    def inside(self, *command: str) -> list[str]:
        """A command, to be run in it as root."""
        enter = ["nsenter", "--target", str(self.process), "--all", "--root", "--wd=/"]
        return [*enter, "env", "-i", f"PATH={_PATH}", "LANG=C.UTF-8", *command]

    def try_to(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it as root."""
        return subprocess.run(
            self.inside(*command),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LONG_S, check=False,
        )  # fmt: skip

    def do(self, *command: str) -> str:
        """Run a command in it as root, which must end well; what it said on stdout."""
        done = self.try_to(*command)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}{done.stdout}"
        return done.stdout

    def property(self, unit: str, name: str) -> str:
        """What systemd has to say of a unit."""
        return self.do("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def journal(self, unit: str) -> str:
        """What a unit said, and what systemd said of it."""
        return self.do("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")


@contextmanager
def booted(folder: Path) -> Iterator[Machine]:
    """A systemd that has come up.

    Args:
        folder: an empty one, over which its memory is mounted.

    Raises:
        OSError: this machine does not let it.
    """
    cgroups = _own_cgroups(f"fieldmark-test-{os.getpid()}")
    # Where the old kind of cgroups has the controllers, the new one could limit nothing.
    hierarchy = str(int(len(cgroups) == 1))
    here = [str(folder), sys.base_prefix, sysconfig.get_path("purelib"), str(PROJECT), hierarchy]
    command = ["sh", "-c", _JOIN, "sh", " ".join(map(str, cgroups)), *_ALONE.split(), "--fork", "--kill-child"]
    command += ["sh", "-c", _BOOT, "sh", *here]
    try:
        for cgroup in cgroups:
            _make_cgroup(cgroup)
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as outside:
            try:
                yield _wait_until_up(outside)
            finally:
                outside.kill()  # and with it process 1, and with that everything
    finally:
        until(lambda: all(map(_is_removed, cgroups)), "everything in it has ended")


def until(check: Callable[[], object], what: str) -> None:
    """Wait for something that another process does."""
    end_s = time.monotonic() + LONG_S
    while not check():
        assert time.monotonic() < end_s, f"not seen in {LONG_S:.0f} s: {what}"
        time.sleep(0.05)


def _wait_until_up(outside: subprocess.Popen[str]) -> Machine:
    children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
    end_s = time.monotonic() + LONG_S
    while outside.poll() is None and time.monotonic() < end_s:
        for machine in map(Machine, map(int, children.read_text("ascii").split())):
            if machine.try_to("systemctl", "is-system-running", "--wait").stdout.strip() in ("running", "degraded"):
                return machine
        time.sleep(0.02)
    outside.kill()
    said = outside.communicate()[1].strip().splitlines()
    raise OSError(said[-1] if said else "systemd does not come up")


def _own_cgroups(name: str) -> list[Path]:
    """A cgroup below this process's own in each hierarchy; not made yet."""
    found = []
    for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
        number, controllers, path = line.split(":", 2)
        mounted = [_CGROUPS / "unified", _CGROUPS] if number == "0" else [_CGROUPS / controllers.removeprefix("name=")]
        parents = [each / path.lstrip("/") for each in mounted]
        found += [parent / name for parent in parents if (parent / "cgroup.procs").exists()][:1]
    if not found:
        raise OSError(f"there is no cgroup file system below {_CGROUPS}")
    return found


def _make_cgroup(cgroup: Path) -> None:
    cgroup.mkdir()
    for needed in ("cpuset.cpus", "cpuset.mems"):  # without them the old kind lets nobody in
        if (above := cgroup.parent / needed).exists() and not (cgroup / needed).read_text("ascii").strip():
            (cgroup / needed).write_text(above.read_text("ascii"), "ascii")


def _is_removed(cgroup: Path) -> bool:
    try:
        for folder, _, _ in os.walk(cgroup, topdown=False):
            os.rmdir(folder)
    except OSError:  # somebody in it is still about to end
        return False
    return True
