"""The one base class of every error that Fieldmark raises on purpose.

Outside errors (Pillow, SQLite, the runtime, the operating system) become one of these in the file that touched
them; only the command line prints them and exits. A message says where, what was expected, what was found and
what to do, in one line; :func:`one_line` keeps it one where it is printed.
"""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """Of the names that there are, the one most like a name that there is not: for a message, where there is any."""
    import difflib  # rarely needed

    return max(known, key=lambda each: difflib.SequenceMatcher(None, name.lower(), each.lower()).ratio())


def one_line(text: str) -> str:
    """Text as a terminal may have it: line breaks and control sequences, such as a file name can hold, are shown and
    not obeyed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(number: int, noun: str) -> str:
    """``1 photo``, ``2 photos``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class FieldmarkError(Exception):
    """Something was refused or failed, and the message says what to do about it.

    Attributes:
        code: a short, stable, lower-case word for scripts and tests, such as ``truncated``.
    """

    code = "failed"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class PhotoError(FieldmarkError):
    """One photo cannot be used. In a batch this becomes a row with its reason and never ends the batch."""

    code = "unreadable"


class BundleError(FieldmarkError):
    """A bundle is malformed, incomplete or altered."""

    code = "bundle"


class TrustError(FieldmarkError):
    """A signature, key or root file is missing, wrong or not trusted here."""

    code = "trust"


class ModelError(FieldmarkError):
    """A model or the runtime under it does not do what the manifest promises."""

    code = "model"


class DeviceError(FieldmarkError):
    """A device root is not in a state that allows what was asked."""

    code = "device"


class LogError(FieldmarkError):
    """The detection log cannot be opened, read or written."""

    code = "log"


class ConfigError(FieldmarkError):
    """A settings file or option holds something that is not known or not allowed."""

    code = "config"


class DataError(FieldmarkError):
    """A data set cannot be trained on or evaluated as it is."""

    code = "data"
