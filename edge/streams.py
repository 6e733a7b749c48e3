"""Standard input, output and error, as a process may find them. Imports nothing heavy."""

from __future__ import annotations

import io
import os
import sys


def open_what_is_closed() -> None:
    """Open ``/dev/null`` in the place of what was closed (``2>&-``): Python has None there. Else the next file that the
    process opens would be its standard error, into which libraries write."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  for as long as the process lives


def escape_what_cannot_be_written() -> None:
    """Write ``\\u015b`` where the terminal's encoding has no such letter, instead of ending at it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
