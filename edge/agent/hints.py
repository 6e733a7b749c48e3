"""File events as hints: the one place that names the watchdog library.

Without events (too many folders for the kernel's limit, a network folder, more events than are kept) the agent still
finds everything by searching. Never decides that a file is ready.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import ObservedWatch

MOST_QUEUED = 10_000
DEAF_S = 60.0
"""So long a folder must have been listened to before that is tried again, so that one that cannot be costs little."""
_LIBRARY = logging.getLogger("watchdog")
_FILES: list[type[FileSystemEvent]] = [FileClosedEvent, FileCreatedEvent, FileMovedEvent]
_FOLDERS: list[type[FileSystemEvent]] = [DirCreatedEvent, DirMovedEvent]


class FileEvents:
    """Names of files that were closed or moved in, and of new folders, from threads that listen to the kernel."""

    def __init__(self) -> None:
        # A SimpleQueue, since its put() may be called from a signal handler.
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lost = threading.Event()
        self._observer = Observer()
        self._handler = _Handler(self._put)
        self._watches: dict[Path, ObservedWatch] = {}
        self._since_s: dict[Path, float] = {}  # by the monotonic clock: when a folder was last found deaf
        self._warnings = _Warnings(self._lose)
        _LIBRARY.addHandler(self._warnings)

    def listen(self, folders: Iterable[Path]) -> list[str]:
        """Start to listen.

        Returns:
            Why some folders cannot be listened to; they are only searched then.
        """
        # It warns, with a page of its insides, where folders are made quicker than it can listen to them.
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"watchdog\.")
        self._observer.start()
        return [trouble for folder in folders if (trouble := self._schedule(folder))]

    def listen_again(self, folder: Path) -> str | None:
        """Listen to a folder anew: what is mounted there now is another one, which the kernel does not tell of.

        Returns:
            Why it cannot be listened to.
        """
        if not self._observer.is_alive():
            return None  # nobody asked for events
        if watch := self._watches.pop(folder, None):
            with suppress(KeyError, OSError):  # it may have ended with its folder
                self._observer.unschedule(watch)
        return self._schedule(folder)

    def _schedule(self, folder: Path) -> str | None:
        try:
            self._watches[folder] = self._observer.schedule(
                self._handler, str(folder), recursive=True, event_filter=_FILES + _FOLDERS
            )
        except FileNotFoundError:
            return None  # the search says so, and it is listened to again once it is there
        except OSError as error:
            reason = error.strerror or str(error)
            return f"{folder}: no file events here ({reason}); it is searched at intervals."
        return None

    def close(self) -> None:
        """Stop listening."""
        _LIBRARY.removeHandler(self._warnings)
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()

    def wake(self) -> None:
        """Make the running or next :meth:`wait` return at once. May be called from a signal handler."""
        self._queue.put(None)

    def wait(self, timeout_s: float) -> list[str]:
        """Paths of files that were closed, created or moved in, and of folders that are new; empty after ``timeout_s``
        or :meth:`wake`."""
        found: dict[str, None] = {}  # in order, each once
        try:
            path = self._queue.get(timeout=max(0.0, timeout_s))
            while path is not None:
                found[path] = None
                path = self._queue.get_nowait()
        except queue.Empty:
            pass
        return list(found)

    def lost(self) -> bool:
        """Whether events were dropped since the last call. They were, too, of a folder that was deleted and made anew,
        which can look the same to ``stat``; it is listened to again."""
        was = self._lost.is_set()
        self._lost.clear()
        for folder in self._deaf():
            self._since_s[folder] = time.monotonic()
            self.listen_again(folder)
            was = True
        return was

    def _deaf(self) -> list[Path]:
        """Folders that are there, and of which nothing is heard: the library's thread ends with its folder."""
        heard = {emitter.watch for emitter in self._observer.emitters if emitter.is_alive()}
        deaf = [folder for folder, watch in self._watches.items() if watch not in heard and os.path.isdir(folder)]
        now_s = time.monotonic()
        return [folder for folder in deaf if now_s - self._since_s.get(folder, -DEAF_S) >= DEAF_S]

    def _put(self, path: str) -> None:
        if self._queue.qsize() >= MOST_QUEUED:
            self._lost.set()
        else:
            self._queue.put(path)

    def _lose(self) -> None:
        self._lost.set()
        self._queue.put(None)


class _Warnings(logging.Handler):
    """The library warns in its own log, and nowhere else, where the kernel had more events than it keeps."""

    def __init__(self, lose: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._lose = lose

    def emit(self, record: logging.LogRecord) -> None:
        self._lose()


class _Handler(FileSystemEventHandler):
    """Called in the listening thread."""

    def __init__(self, put: Callable[[str], None]) -> None:
        self._put = put

    def on_any_event(self, event: FileSystemEvent) -> None:
        self._put(os.fsdecode(event.dest_path or event.src_path))
