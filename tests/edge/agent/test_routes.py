from __future__ import annotations

from pathlib import Path

from edge.agent.routes import ways_out

IPV4 = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
ANY = "0" * 32
IPV6 = f"""\
fe800000000000000000000000000000 40 {ANY} 00 {ANY} 00000100 00000002 00000000 00000001    wlan0
{ANY} 00 {ANY} 00 fe800000000000000000000000000001 00000400 00000003 00000000 00000003    wlan0
{ANY} 00 {ANY} 00 {ANY} ffffffff 00000001 00000000 00200200       lo
"""


def test_ways_out_are_the_default_routes_of_both_protocols(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(IPV4)
    (tmp_path / "ipv6_route").write_text(IPV6)
    assert ways_out(tmp_path) == {("eth0", "0101A8C0"), ("wlan0", "fe800000000000000000000000000001")}


def test_without_a_network_or_such_files_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(IPV4.splitlines()[0] + "\n")
    assert ways_out(tmp_path) == frozenset()
