from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from edge.streams import open_what_is_closed
open_what_is_closed()
print("said", file=sys.stderr)
print("out")
sys.stdout.flush()
assert sys.stdin.read() == ""
assert os.open("/dev/null", os.O_RDONLY) > 2, "the next file would be one of the three"
"""


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-", "0</dev/null"])
def test_process_has_its_three_files_whatever_it_was_started_without(closed: str) -> None:
    subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, PROGRAM], stdin=subprocess.DEVNULL, check=True
    )
