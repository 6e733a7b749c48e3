"""What the machine says of itself: temperature, throttling, clock, which boot this is. Reads, and sets nothing.

Whatever a machine does not say is None; nothing here raises.
"""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_MOST_BYTES = 4096
# Of the Raspberry Pi's firmware; the same bits 16 higher say that it happened since the start.
_THROTTLING = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "too hot"}
_HAPPENED = 16
_TIME_ERROR = 5  # of adjtimex(2): nobody keeps the clock right
_FIRST_YEAR, _LAST_YEAR = 2025, 2099  # earlier than the software is no true time


@dataclass(frozen=True, slots=True)
class Clock:
    """What is known of the clock.

    Attributes:
        synchronised: whether some service keeps it right; None where nobody says.
        battery: whether the machine has a clock that runs while it is off.
        plausible: whether the year may be true at all.
    """

    synchronised: bool | None
    battery: bool
    plausible: bool

    @property
    def ok(self) -> bool:
        """Whether the times that the device writes mean something."""
        return self.plausible and (self.synchronised is True or self.battery)


def clock(root: Path = Path("/"), *, now_s: float | None = None) -> Clock:
    """The clock's state.

    Args:
        root: where ``/run`` and ``/sys`` are; replaced in tests.
        now_s: seconds since 1970.
    """
    year = time.gmtime(time.time() if now_s is None else now_s).tm_year
    # systemd-timesyncd's mark; chrony and ntpd tell the kernel alone.
    synchronised = True if (root / "run/systemd/timesync/synchronized").exists() else _kernel_is_synchronised(root)
    return Clock(synchronised, _has_battery(root), _FIRST_YEAR <= year <= _LAST_YEAR)


def _kernel_is_synchronised(root: Path) -> bool | None:
    if root != Path("/"):
        return None
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
        state = int(adjtimex(ctypes.create_string_buffer(512)))  # zeros: asks and sets nothing
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def _has_battery(root: Path) -> bool:
    """Whether some clock chip knows a plausible time; an empty battery gives 1970 or 2000. A Raspberry Pi 5 has one
    without a battery, and perhaps a second one that has one."""
    return any(_is_plausible(_text(chip / "since_epoch")) for chip in (root / "sys/class/rtc").glob("rtc*"))


def _is_plausible(seconds: str | None) -> bool:
    try:
        return seconds is not None and _FIRST_YEAR <= time.gmtime(int(seconds)).tm_year <= _LAST_YEAR
    except (ValueError, OverflowError, OSError):
        return False


def temperature_c(root: Path = Path("/")) -> float | None:
    """The processor's temperature; of several sensors the hottest."""
    found = []
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        text = _text(zone / "temp")
        if text and text.lstrip("-").isdigit() and -60_000 < int(text) < 200_000:
            found.append(int(text) / 1000)
    return max(found, default=None)


def throttling(root: Path = Path("/")) -> dict[str, list[str]] | None:
    """What holds a Raspberry Pi back ``now`` and did ``since_start``; None on other machines."""
    text = _text(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    try:
        bits = int(text or "", 16)
    except ValueError:
        return None
    return {
        "now": [word for bit, word in _THROTTLING.items() if bits >> bit & 1],
        "since_start": [word for bit, word in _THROTTLING.items() if bits >> (bit + _HAPPENED) & 1],
    }


def boot_id(root: Path = Path("/")) -> str | None:
    """A name for the time since the machine started."""
    return _text(root / "proc/sys/kernel/random/boot_id")


def since_boot_s() -> float:
    """Seconds since the machine started, also those asleep; no setting of the clock changes it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def report(root: Path = Path("/")) -> dict[str, Any]:
    """All of it, for the status file."""
    found = clock(root)
    return {
        "temperature_c": temperature_c(root),
        "throttling": throttling(root),
        "clock": {**asdict(found), "ok": found.ok, "now": datetime.now(UTC).isoformat(timespec="seconds")},
    }


def _text(path: Path) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(descriptor, _MOST_BYTES).decode("ascii", "replace").strip()
        finally:
            os.close(descriptor)
    except OSError:  # not this machine, or a sensor that fails
        return None
