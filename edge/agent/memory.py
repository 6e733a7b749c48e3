"""Memory that glibc would keep for the next photo, given back to the device. With another C library nothing is done."""

from __future__ import annotations

import ctypes
from contextlib import suppress

AT_START = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}
"""Environment of the agent's process: has glibc give a decoded photo's memory back at once. By default it raises these
limits to the largest block seen, and keeps some 5 MB for the next photo (``mallopt(3)``)."""

_M_MMAP_THRESHOLD, _MAPPED_BYTES = -3, 2**20  # mallopt(3)


def map_pictures() -> None:
    """Have a picture's memory given back as soon as it is closed, in this process.

    Else glibc keeps tens of megabytes per thread for the next picture, and two helpers cost what four would need.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def give_back() -> None:
    """Give back now what was freed between other things, such as a model."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
