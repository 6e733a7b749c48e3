"""Everything that the log knows of one file, for ``fieldmark log show``. Reads only."""

from __future__ import annotations

import sqlite3
from typing import Any

from edge.errors import counted, one_line
from edge.log import events, query, store, table, times
from edge.log.event_near import EventsNear

_MOST_COPIES = 100


def of_file(
    connection: sqlite3.Connection, file_id: int, event_gap_s: float, starts: query.Starts | None = None
) -> dict[str, Any]:
    """One file as JSON values: its row, every model's answer, every review, and its event.

    Raises:
        LogError: there is no such row.
    """
    row = query.one(connection, file_id, starts)
    with query.reading():
        event = EventsNear(connection, event_gap_s).event_with(file_id)
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
        **_beside(connection, file_id),
        "models": query.answers(connection, row.photo_id),
        "reviews": query.reviews(connection, row.photo_id),
        "event_files": len(event.moments),
        "event_label": said.label,
        "event_confidence": round(said.confidence, 6),
        "event_also": list(said.also),
    }


def _beside(connection: sqlite3.Connection, file_id: int) -> dict[str, Any]:
    """What ``fieldmark log`` does not print: when the file was seen, what corrects its time, its further tries, its
    deletion, and the other files with the same content."""
    with query.reading():
        seen_utc, retry, tries, next_try_utc = connection.execute(
            "SELECT seen_utc, failure_retry AND failure_closed_utc IS NULL, tries, next_try_utc FROM file WHERE id = ?",
            (file_id,),
        ).fetchone()
    return {
        "seen_utc": seen_utc,
        "retried": bool(retry) and tries < store.MOST_TRIES,
        "next_try_utc": next_try_utc,
        "time_shifts": query.dicts(connection, _SHIFTS, file_id),
        "deletion": next(iter(query.dicts(connection, _DELETION, file_id)), None),
        "copies": [each["photo"] for each in query.dicts(connection, _COPIES, file_id)],
    }


_SHIFTS = f"""
SELECT s.id, s.seconds, s.reason, s.who, s.created_utc
FROM file f JOIN time_shift s ON {times.holds("f")} WHERE f.id = ? ORDER BY s.id
"""
_DELETION = """
SELECT policy, why, copied_to, planned_utc, done_utc FROM deletion WHERE file_id = ? AND dropped_utc IS NULL
"""
_COPIES = f"""
SELECT rtrim(x.source, '/') || '/' || x.path AS photo
FROM file f JOIN file x ON x.photo_id = f.photo_id AND x.id <> f.id WHERE f.id = ? ORDER BY x.id LIMIT {_MOST_COPIES}
"""


def lines(values: dict[str, Any]) -> list[str]:
    """The same for people: one fact per line; of models and people first the one that counts."""
    facts = [
        ("photo", values["photo"]),
        ("label", _label(values)),
        ("taken", f"{values['taken']}, {_SOURCES[values['taken_source']]}{_shifted(values)}"),
        *(("corrected", f"{times.difference(each['seconds'])} by {each['who']}: {each['reason']}")
          for each in values["time_shifts"]),
        *(("", _FLAGS.get(flag, flag)) for flag in values["time_flags"] if flag != "not-exif"),
        ("station", values["station"] or "-"),
        ("device", f"{values['device']}, seen at {_utc(values['seen_utc'])}"),
        ("camera", " ".join(str(values[name]) for name in _CAMERA if values[name]) or "-"),
        ("size", f"{values['width']} x {values['height']} pixels" if values["width"] else "-"),
        ("sha256", values["sha256"] or "-"),
    ]  # fmt: skip
    if values["damaged"]:
        facts.append(("damaged", "part of the picture is missing; what is there was classified, never as empty"))
    if values["failure"]:
        facts.append(("failed", f"{values['failure']} ({values['failure_code']}; {_tries(values)})"))
    if values["duplicate_of"]:
        facts.append(("copy of", values["duplicate_of"]))
    facts += [("copy at", path) for path in values["copies"] if path != values["duplicate_of"]]
    if values["preview"] != "none":
        facts.append(("preview", _PREVIEWS[values["preview"]]))
    if values["deletion"]:
        facts.append(("deleted", _deleted(values["deletion"])))
    facts += _newest_first("review", [_review(each) for each in values["reviews"]])
    facts += _newest_first("model", [_model(each) for each in values["models"]])
    also = f", also {', '.join(values['event_also'])}" if values["event_also"] else ""
    files = counted(values["event_files"], "file")
    facts.append(("event", f"{values['event']}: {values['event_label']}{also}, {files}"))
    return [one_line(f"{name:<9} {text}") for name, text in facts]


_CAMERA = ("camera", "camera_make", "camera_model", "camera_serial")
_SOURCES = {"exif": "from EXIF", "name": "from the file's name", "file": "only the file's own time"}
_FLAGS = {
    "offset-assumed": "nobody said the camera's offset from UTC",
    times.CLOCK_RESET: "looks like a clock that was reset (clock-reset)",
    times.FUTURE: "later than the device saw it (future)",
    times.BACKWARDS: "earlier than the file before it (backwards)",
}
_PREVIEWS = {
    "kept": "kept",
    "blurred": "blurred, since a person may be in it",
    "withheld": "not made, since a person may be in it",
    "released": "removed to make room",
}


def _newest_first(name: str, texts: list[str]) -> list[tuple[str, str]]:
    return [("earlier" if i else name, text) for i, text in enumerate(reversed(texts))]


def _label(values: dict[str, Any]) -> str:
    """What counts now, and who says it."""
    if values["reviews"]:
        newest = values["reviews"][-1]
        return f"{_seen(newest)}, said by {newest['who']}"
    if values["model_label"] is None:
        return "-"
    if values["decision"] == "unknown":
        perhaps = values["top"][0][0] if values["top"] else "-"
        if values["damaged"] and perhaps == events.EMPTY:
            return "unknown: what is there of the photo looks empty, but it is damaged"
        return f"unknown, since the model is not sure enough; perhaps {perhaps}"
    said = f"{values['model_label']} {values['model_confidence']:.2f}, said by the model"
    return f"{said}, which is not sure of the species" if values["decision"] == "rollup" else said


def _shifted(values: dict[str, Any]) -> str:
    return "" if values["taken"] == values["taken_original"] else f"; the camera wrote {values['taken_original']}"


def _tries(values: dict[str, Any]) -> str:
    tries = "read once" if values["tries"] == 1 else f"read {values['tries']} times"
    if not values["retried"]:
        final = values["tries"] >= store.MOST_TRIES
        return f"{tries}; not tried again{' before another model comes' if final else ''}"
    if values["next_try_utc"] is None:
        return f"{tries}; tried again at the next start"
    return f"{tries}; tried again at {_utc(values['next_try_utc'])}"


def _deleted(deletion: dict[str, Any]) -> str:
    when = f"at {_utc(deletion['done_utc'])}" if deletion["done_utc"] else f"planned at {_utc(deletion['planned_utc'])}"
    copied = f"; copied to {deletion['copied_to']}" if deletion["copied_to"] else ""
    return f"the original, by the policy {deletion['policy']} ({deletion['why']}), {when}{copied}"


def _model(answer: dict[str, Any]) -> str:
    top = ", ".join(f"{label} {chance:.2f}" for label, chance in answer["top"])
    key = ", development key" if answer["development"] else ""
    by = f"{answer['bundle']} on {answer['runtime']}{key} at {_utc(answer['created_utc'])}"
    return f"{answer['label']} {answer['confidence']:.2f} by {by}: {top}"


def _review(review: dict[str, Any]) -> str:
    return f"{_seen(review)} by {review['who']} at {_utc(review['created_utc'])}"


def _seen(review: dict[str, Any]) -> str:
    seen = ", ".join(f"{each['count']} {each['label']}" for each in review["observations"])
    return seen + "".join(f" ({each['comment']})" for each in review["observations"] if each["comment"])


def _utc(text: str) -> str:
    return f"{text[:19].replace('T', ' ')} UTC"
