from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from edge.agent import metrics

STATUS = {
    "device": 'd"1\\x\ny', "bundle": "fox-7", "runtime": "r", "version": "1", "counts": {"classified": 3, "failed": 1},
    "failures": {"truncated": 1}, "queue": 2, "space": {"free_bytes": 10**12 + 1, "level": "no previews"},
    "temperature_c": 51.5, "throttling": {"now": ["too hot"], "since_start": []}, "clock": {"ok": False},
    "since_boot_s": 12.5,
}  # fmt: skip


def test_each_figure_has_its_line() -> None:
    lines = metrics.text(STATUS).splitlines()
    for line in (
        'fieldmark_info{device="d\\"1\\\\x\\ny",bundle="fox-7",runtime="r",version="1"} 1',
        'fieldmark_files_total{outcome="classified"} 3',
        'fieldmark_failures_total{code="truncated"} 1',
        "fieldmark_queue_files 2",
        "fieldmark_free_bytes 1000000000001",
        "fieldmark_space_level 2",
        "fieldmark_temperature_celsius 51.5",
        'fieldmark_throttled{reason="too hot"} 1',
        "fieldmark_clock_ok 0",
        "# TYPE fieldmark_files_total counter",
    ):
        assert line in lines


def test_what_is_not_known_has_no_line() -> None:
    text = metrics.text({"counts": None, "temperature_c": None, "queue": None, "throttling": None, "space": None})
    assert [line for line in text.splitlines() if not line.startswith(("#", "fieldmark_info"))] == []


def test_what_has_not_happened_yet_is_zero_so_that_the_first_failure_is_an_increase() -> None:
    text = metrics.text({"counts": {"classified": 2}, "failures": {}})
    assert re.findall(r"^fieldmark_.*", text, re.MULTILINE)[1:] == [
        'fieldmark_files_total{outcome="classified"} 2',
        'fieldmark_files_total{outcome="duplicate"} 0',
        'fieldmark_files_total{outcome="failed"} 0',
    ]


_LABEL = r'[a-z_]+="(?:[^"\\\n]|\\[\\"n])*"'
_LINE = re.compile(rf"# (?:HELP|TYPE) fieldmark_[a-z_]+ .+|fieldmark_[a-z_]+(?:\{{{_LABEL}(?:,{_LABEL})*\}})? \S+")


@given(st.dictionaries(st.text(), st.integers(0, 10**9)), st.text())
def test_whatever_names_come_in_each_line_is_as_the_format_says(counts: dict[str, int], device: str) -> None:
    text = metrics.text({"counts": counts, "device": device})
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        assert _LINE.fullmatch(line)
