"""Everything that the log knows of one file, for ``fieldmark log show``. Reads only."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from edge.errors import one_line
from edge.log import events, query, table
from edge.log.event_index import EventIndex


def of_file(
    connection: sqlite3.Connection, file_id: int, event_gap_s: float, starts: query.Starts | None = None
) -> dict[str, Any]:
    """One file as JSON values: its row, every model's answer, every review, and its event.

    Raises:
        LogError: there is no such row.
    """
    row = query.one(connection, file_id, starts)
    with query.reading(), closing(EventIndex(connection, event_gap_s)) as index:
        event = index.event_with(file_id)
    said = events.verdict(query.shots(connection, event))
    values = table.as_json(row)
    values["event"] = event.id
    return values | {
        "width": row.width,
        "height": row.height,
        "camera_make": row.camera_make,
        "camera_model": row.camera_model,
        "camera_serial": row.camera_serial,
        "burst": row.burst,
        "preview": row.preview,
        "taken_source": row.taken_source,
        "models": query.answers(connection, row.photo_id),
        "reviews": query.reviews(connection, row.photo_id),
        "event_files": len(event.moments),
        "event_label": said.label,
        "event_confidence": round(said.confidence, 6),
        "event_also": list(said.also),
    }


def lines(values: dict[str, Any]) -> list[str]:
    """The same for people: one fact per line."""
    facts = [
        ("photo", values["photo"]),
        ("taken", f"{values['taken']} (from {values['taken_source']}{_flags(values['time_flags'])}){_shifted(values)}"),
        ("station", values["station"] or "-"),
        ("device", values["device"]),
        ("camera", " ".join(str(values[name]) for name in _CAMERA if values[name]) or "-"),
        ("size", f"{values['width']} x {values['height']} pixels" if values["width"] else "-"),
        ("sha256", values["sha256"] or "-"),
    ]
    if values["failure"]:
        tries = "once" if values["tries"] == 1 else f"{values['tries']} times"
        facts.append(("failed", f"{values['failure']} ({values['failure_code']}, read {tries})"))
    if values["duplicate_of"]:
        facts.append(("copy of", values["duplicate_of"]))
    facts += [("model", _model(answer)) for answer in values["models"]]
    facts += [("review", _review(review)) for review in values["reviews"]]
    also = f", also {', '.join(values['event_also'])}" if values["event_also"] else ""
    facts.append(("event", f"{values['event']}: {values['event_label']}{also}, {values['event_files']} file(s)"))
    return [one_line(f"{name:<9} {text}") for name, text in facts]


_CAMERA = ("camera", "camera_make", "camera_model", "camera_serial")


def _shifted(values: dict[str, Any]) -> str:
    return "" if values["taken"] == values["taken_original"] else f"; the camera wrote {values['taken_original']}"


def _flags(flags: list[str]) -> str:
    return "".join(f", {flag}" for flag in flags)


def _model(answer: dict[str, Any]) -> str:
    top = ", ".join(f"{label} {chance:.2f}" for label, chance in answer["top"])
    key = ", development key" if answer["development"] else ""
    return f"{answer['label']} {answer['confidence']:.2f} by {answer['bundle']} on {answer['runtime']}{key}: {top}"


def _review(review: dict[str, Any]) -> str:
    seen = ", ".join(f"{each['count']} {each['label']}" for each in review["observations"])
    comments = "".join(f" ({each['comment']})" for each in review["observations"] if each["comment"])
    return f"{seen}{comments} by {review['who']} at {review['created_utc']}"
