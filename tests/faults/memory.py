"""How much memory a process has, as the kernel counts it."""

from __future__ import annotations

import re
from pathlib import Path


def resident_mb(pid: int, what: str = "VmRSS") -> float:
    """Resident memory now (``VmRSS``), or at its most (``VmHWM``), in MB of 10^6 bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(rf"^{what}:\s+(\d+) kB", status, re.MULTILINE)
    assert found, f"the kernel says no {what}"
    return int(found[1]) * 1024 / 1e6
