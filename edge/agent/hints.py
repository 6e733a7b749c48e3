"""File events as hints: the one place that names the watchdog library.

Without events (too many folders for the kernel's limit, a network folder, a folder that appears later) the agent
still finds everything by searching. Never decides that a file is ready.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable
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

MOST_QUEUED = 10_000
_FILES: list[type[FileSystemEvent]] = [FileClosedEvent, FileCreatedEvent, FileMovedEvent]
_FOLDERS: list[type[FileSystemEvent]] = [DirCreatedEvent, DirMovedEvent]


class FileEvents:
    """Names of files that were closed or moved in, from a thread that listens to the kernel."""

    def __init__(self) -> None:
        # A SimpleQueue, since its put() may be called from a signal handler.
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lost = threading.Event()
        self._observer = Observer()

    def listen(self, folders: Iterable[Path]) -> list[str]:
        """Start to listen.

        Returns:
            Why some folders cannot be listened to; they are only searched then.
        """
        troubles = []
        handler = _Handler(self._put, self._lose)
        self._observer.start()
        for folder in folders:
            try:
                self._observer.schedule(handler, str(folder), recursive=True, event_filter=_FILES + _FOLDERS)
            except OSError as error:
                reason = error.strerror or str(error)
                troubles.append(f"{folder}: no file events here ({reason}); it is searched at intervals.")
        return troubles

    def close(self) -> None:
        """Stop listening."""
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join()

    def wake(self) -> None:
        """Make the running or next :meth:`wait` return at once. May be called from a signal handler."""
        self._queue.put(None)

    def wait(self, timeout_s: float) -> list[str]:
        """Paths of files that were closed, created or moved in; empty after ``timeout_s`` or :meth:`wake`."""
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
        """Whether events were dropped since the last call."""
        was = self._lost.is_set()
        self._lost.clear()
        return was

    def _put(self, path: str) -> None:
        if self._queue.qsize() >= MOST_QUEUED:
            self._lost.set()
        else:
            self._queue.put(path)

    def _lose(self) -> None:
        self._lost.set()
        self._queue.put(None)


class _Handler(FileSystemEventHandler):
    """Called in the listening thread."""

    def __init__(self, put: Callable[[str], None], lose: Callable[[], None]) -> None:
        self._put, self._lose = put, lose

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.is_directory:  # files can be in it before the kernel tells of them
            self._lose()
        else:
            self._put(os.fsdecode(event.dest_path or event.src_path))
