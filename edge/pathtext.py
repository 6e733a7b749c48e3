"""A file name as text that every program can hold, and back again without loss.

On Linux a name is bytes. What is UTF-8 stays as it is; other bytes become ``%FF``. A percent sign that could be
mistaken for such an escape is written ``%25``, so two names never share one text. Never touches the disk.
"""

from __future__ import annotations

import os
import re

_MISTAKABLE = re.compile(r"%(?=25|[89A-F][0-9A-F])")
_ESCAPE = re.compile(rb"%(25|[89A-F][0-9A-F])")


def to_text(name: str | os.PathLike[str]) -> str:
    """A name as Python has it to text without lone surrogates, fit for SQLite, JSON and HTML.

    >>> to_text("IMG_0001.JPG"), to_text("100%.jpg"), to_text(os.fsdecode(b"caf\\xe9.jpg"))
    ('IMG_0001.JPG', '100%.jpg', 'caf%E9.jpg')
    """
    return "".join(
        f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c
        for c in _MISTAKABLE.sub("%25", os.fsdecode(os.fsencode(name)))
    )


def from_text(text: str) -> str:
    """The name that :func:`to_text` was given."""
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), os.fsencode(text)))
