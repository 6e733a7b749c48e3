"""Keeps TensorFlow's notes to its own developers off the terminal. Errors still arrive, as exceptions."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings

_DEBUG = "FIELDMARK_DEBUG"
_done = False


def silence() -> None:
    """Send what native libraries write to standard error nowhere; Python's own ``sys.stderr`` goes on as it was.

    TensorFlow prints pages before its own log level is read. ``FIELDMARK_DEBUG=1`` leaves everything as it is.
    Call it before the first import of TensorFlow, in a command's own process only.
    """
    global _done
    if _done or os.environ.get(_DEBUG):
        return
    _done = True
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", module=r"tensorflow|keras")
    logging.getLogger("absl").setLevel(logging.ERROR)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        native = sys.stderr.fileno()
    except (io.UnsupportedOperation, ValueError, AttributeError):
        return  # a test holds it
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(native), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, native)
    os.close(nowhere)
