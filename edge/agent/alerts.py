"""Which detections make a message, what it says, and which are one and the same. Nothing is sent here.

The agent has no network: it stores messages with the row that they are about, and :mod:`edge.agent.outbox` sends
them. One message per rule, label and event. Pure apart from what it remembers of recent events.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from edge import pathtext
from edge import photo as photos
from edge.agent.config_upkeep import Rule
from edge.log import times
from edge.log.store import Alert, FileFacts
from edge.photo import Taken

SHORT_BYTES = 51
"""What LoRaWAN carries at its slowest data rate in Europe."""
_MOST_EVENTS = 64
_WEST_S = 12 * 3600.0
"""By so much a photo may be younger than it seems, where UTC stands for an offset that nobody said."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A detection that may be worth a message.

    Attributes:
        file: with the corrected time.
        sha256: of the photo.
        label: the decided one.
        confidence: 0 to 1.
    """

    file: FileFacts
    sha256: str
    label: str
    confidence: float


@dataclass(slots=True)
class _Span:
    """The times of one event so far, seconds since 1970, and the name that its messages go by."""

    first_s: float
    last_s: float
    name: str


class Events:
    """The recent events of each station, as photos come in, in whatever order.

    Unlike in :mod:`edge.log.events`, times that are only the file's count too: photos that were copied together then
    make one message, not one each.
    """

    def __init__(self, gap_s: float) -> None:
        """Set up.

        Args:
            gap_s: photos of one station closer than this are one event.
        """
        self._gap_s = gap_s
        self._spans: dict[str, deque[_Span]] = {}

    def name(self, place: str, taken_s: float) -> str:
        """The event of a photo, named by the first photo of it that came in. Call it for each photo, also empty ones:
        they hold an event together."""
        spans = self._spans.setdefault(place, deque(maxlen=_MOST_EVENTS))
        near = [span for span in spans if span.first_s - self._gap_s < taken_s < span.last_s + self._gap_s]
        if not near:
            name = datetime.fromtimestamp(taken_s, UTC).strftime("%Y%m%dT%H%M%SZ")
            spans.append(_Span(taken_s, taken_s, name))
            return name
        first = near[0]
        for other in near[1:]:  # two events that this photo shows to be one
            spans.remove(other)
        first.first_s = min(taken_s, *(span.first_s for span in near))
        first.last_s = max(taken_s, *(span.last_s for span in near))
        return first.name

    def remember(self, keys: Iterable[str]) -> None:
        """Take the keys of earlier messages, so that after a restart an event that goes on makes no second one."""
        for key in keys:
            *_, place, name = key.split("|")
            try:
                taken_s = datetime.strptime(name, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
            except ValueError:  # written by another version
                continue
            self.name(place, taken_s)


class Alerts:
    """Makes messages by the rules of the settings.

    Attributes:
        rules: of the settings.
    """

    def __init__(self, rules: Sequence[Rule], events: Events) -> None:
        self.rules, self._events = rules, events

    def of(self, seen: Sighting, now: datetime, *, clock_ok: bool) -> tuple[Alert, ...]:
        """The messages about one photo, to be written in the transaction of its row.

        Args:
            now: with a time zone.
            clock_ok: whether the device knows the time; without, no photo counts as old.
        """
        key, likely = seen.file.key, likely_time(seen.file, now)
        place = seen.file.station or f"{key.device}:{key.source}"
        moment_s = _moment(likely).timestamp()
        event = self._events.name(_plain(place), moment_s)
        youngest_s = moment_s + (_WEST_S if "offset-assumed" in likely.flags else 0)
        about = f"{_plain(seen.label)}|{_plain(place)}|{event}"
        keys = {rule.name: f"{_plain(rule.name)}|{about}" for rule in self.rules}
        return tuple(
            Alert(
                key=keys[rule.name],
                channel=rule.name,
                text=short(seen, likely) if rule.short else message(seen, likely, event, keys[rule.name]),
            )
            for rule in self.rules
            if seen.label in rule.labels and seen.confidence >= rule.above
            if not clock_ok or youngest_s >= now.timestamp() - rule.fresh_h * 3600
        )


def message(seen: Sighting, likely: Taken, event: str, key: str) -> str:
    """A message as JSON, in ASCII. With its key, by which whoever receives it can tell one that was sent again.

    Args:
        likely: see :func:`likely_time`; only its flags are told, since ``taken`` is what the log says.
    """
    file = seen.file
    return json.dumps(
        {
            "schema": 1,
            "key": key,
            "label": seen.label,
            "confidence": round(seen.confidence, 4),
            "station": file.station,
            "camera": file.camera,
            "taken": file.taken.iso,
            "time_flags": list(likely.flags),
            "event": event,
            "device": file.key.device,
            "photo": file.key.path,
            "sha256": seen.sha256,
        }
    )


def short(seen: Sighting, likely: Taken) -> str:
    """A message of at most 51 bytes: label, confidence, time, station. The last are cut off first.

    Args:
        likely: see :func:`likely_time`.
    """
    month_to_minute = likely.local[5:16].replace("T", " ")
    label = _cut(_plain(seen.label), SHORT_BYTES - len(" 100% 05-01 06:12"))
    words = f"{label} {int(seen.confidence * 100)}% {month_to_minute} {_plain(seen.file.station or '')}"
    return _cut(words, SHORT_BYTES).strip()


def _cut(text: str, most_bytes: int) -> str:
    """The start of a text, without half a character."""
    return text.encode()[:most_bytes].decode("utf-8", "ignore")


def _plain(text: str) -> str:
    """Words without what keys are divided by, or what is not UTF-8."""
    return pathtext.to_text(text).replace("|", "/")


def likely_time(file: FileFacts, now: datetime) -> Taken:
    """When a photo was taken, with all that is to be known of it. Where the camera's clock is plainly wrong, when the
    file was written: of an upload that is when it came, so a camera that lost its time with its battery is not silent.

    Args:
        now: with a time zone.
    """
    taken = file.taken
    looks_wrong = times.flags(
        local=taken.local, utc_offset=taken.utc_offset, written=taken.flags, seen_utc=now.astimezone(UTC).isoformat()
    )
    if looks_wrong:
        taken = photos.taken(Path(), file.key.mtime_ns / 1e9, None, taken.utc_offset)
    return replace(taken, flags=file.taken.flags + looks_wrong)


def _moment(taken: Taken) -> datetime:
    """In UTC. A clock at an end of the calendar has no time there: its own counts then."""
    moment = datetime.fromisoformat(taken.iso)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return moment.replace(tzinfo=UTC)
