"""The ways out of this device: one more is a network that has come. Reads what the kernel says and asks nobody."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_FOLDER = Path("/proc/self/net")  # the unit's ProcSubset=pid hides the link /proc/net
_NOWHERE = "0" * 32


def ways_out(folder: Path = _FOLDER) -> frozenset[tuple[str, str]]:
    """Interface and gateway, in the kernel's hex, of each default route; none where the kernel does not tell.

    Source: Linux, ``net/ipv4/fib_trie.c`` (``fib_route_seq_show``) and ``net/ipv6/route.c`` (``rt6_info_route``).
    """
    found = set()
    for iface, destination, gateway, *_ in _lines(folder / "route", 8):
        if destination == "00000000":
            found.add((iface, gateway))
    for destination, length, _, _, gateway, *_, iface in _lines(folder / "ipv6_route", 10):
        if (destination, length) == (_NOWHERE, "00") and iface != "lo":
            found.add((iface, gateway))
    return frozenset(found)


def _lines(file: Path, least: int) -> list[list[str]]:
    with suppress(OSError):
        return [words for words in map(str.split, file.read_text("ascii").splitlines()) if len(words) >= least]
    return []
