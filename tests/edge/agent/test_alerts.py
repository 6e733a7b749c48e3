from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.agent.alerts import SHORT_BYTES, Alerts, Events, Sighting, message, short
from edge.agent.config_upkeep import Rule
from edge.log.store import FileFacts, FileKey
from edge.photo import Taken

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
FOXES = Rule("foxes", ("fox",), 0.8)


def sighting(
    label: str = "fox",
    confidence: float = 0.9,
    *,
    ago_s: float = 60,
    station: str | None = "beech 4",
    sha256: str = "ab" * 32,
    local: str | None = None,
    flags: tuple[str, ...] = (),
    written_ago_s: float = 10**9,
) -> Sighting:
    local = local or (NOW - timedelta(seconds=ago_s)).replace(tzinfo=None).isoformat()
    written = NOW - timedelta(seconds=written_ago_s)
    key = FileKey("d1", "/srv", "a.jpg", 1, int(written.timestamp()) * 10**9)
    file = FileFacts(key, Taken(local, "+00:00", "exif", flags), station, "cam-07")
    return Sighting(file, sha256, label, confidence)


def keys(alerts: Alerts, *seen: Sighting, clock_ok: bool = True) -> list[str]:
    return [alert.key for each in seen for alert in alerts.of(each, NOW, clock_ok=clock_ok)]


def maker(*rules: Rule) -> Alerts:
    return Alerts(rules or (FOXES,), Events(120))


def test_fox_above_the_confidence_makes_a_message_that_says_where_and_when() -> None:
    [alert] = maker().of(sighting(), NOW, clock_ok=True)
    assert (alert.channel, alert.key) == ("foxes", "foxes|fox|beech 4|20260501T115900Z")
    said = json.loads(alert.text)
    assert (said["schema"], said["label"], said["confidence"]) == (1, "fox", 0.9)
    assert (said["station"], said["taken"], said["photo"]) == ("beech 4", "2026-05-01T11:59:00+00:00", "a.jpg")


def test_other_labels_and_unsure_ones_make_none() -> None:
    assert keys(maker(), sighting("deer"), sighting(confidence=0.79)) == []


def test_without_rules_there_are_no_messages() -> None:
    assert Alerts((), Events(120)).of(sighting(), NOW, clock_ok=True) == ()


def test_each_rule_makes_its_own_message() -> None:
    found = keys(maker(FOXES, Rule("all", ("fox", "deer"), 0)), sighting())
    assert [key.split("|")[0] for key in found] == ["foxes", "all"]


def test_photos_of_one_event_have_one_key_and_a_second_label_its_own() -> None:
    alerts = maker(Rule("all", ("fox", "deer"), 0))
    found = keys(alerts, sighting(ago_s=400), sighting(ago_s=300), sighting("deer", ago_s=250), sighting(ago_s=200))
    assert len(set(found)) == 2


def test_empty_photos_hold_an_event_together() -> None:
    alerts = maker()
    found = keys(alerts, sighting(ago_s=400), sighting("empty", ago_s=300), sighting(ago_s=200))
    assert len(set(found)) == 1
    assert len(set(keys(maker(), sighting(ago_s=400), sighting(ago_s=200)))) == 2


def test_stations_have_events_of_their_own() -> None:
    assert len(set(keys(maker(), sighting(), sighting(station="oak"), sighting(station=None)))) == 3


def test_newest_first_makes_one_key_too() -> None:
    assert len(set(keys(maker(), *(sighting(ago_s=seconds) for seconds in (100, 200, 300, 400))))) == 1


def test_event_that_goes_on_after_a_restart_makes_no_second_message() -> None:
    before = keys(maker(), sighting(ago_s=200))
    events = Events(120)
    events.remember([*before, "written|by|another version"])
    assert keys(Alerts((FOXES,), events), sighting(ago_s=100)) == before


def test_old_photos_of_a_card_make_no_messages_and_photos_of_the_future_neither() -> None:
    assert keys(maker(), sighting(ago_s=25 * 3600), sighting(ago_s=-2 * 3600)) == []
    assert len(keys(maker(), sighting(ago_s=23 * 3600))) == 1


def test_device_that_does_not_know_the_time_lets_old_photos_through() -> None:
    assert len(keys(maker(), sighting(ago_s=10**8), clock_ok=False)) == 1


RESET = "1970-01-01T00:03:00"


def test_upload_of_a_camera_that_lost_its_time_makes_a_message_that_says_so() -> None:
    [alert] = maker().of(sighting(local=RESET, written_ago_s=60), NOW, clock_ok=True)
    assert alert.key == "foxes|fox|beech 4|20260501T115900Z"
    said = json.loads(alert.text)
    assert (said["taken"], said["time_flags"]) == ("1970-01-01T00:03:00+00:00", ["clock-reset"])


def test_camera_that_loses_its_time_twice_makes_two_messages() -> None:
    seen = [sighting(local=RESET, written_ago_s=seconds) for seconds in (3600, 60)]
    assert len(set(keys(maker(), *seen))) == 2


def test_short_message_of_a_camera_that_lost_its_time_says_when_the_photo_came() -> None:
    [alert] = maker(Rule("x", ("fox",), 0, short=True)).of(sighting(local=RESET, written_ago_s=60), NOW, clock_ok=True)
    assert alert.text == "fox 90% 05-01 11:59 beech 4"


def test_card_of_a_camera_that_lost_its_time_is_as_old_as_its_files() -> None:
    assert keys(maker(), sighting(local=RESET, written_ago_s=10**9)) == []


def test_upload_of_a_camera_that_is_a_day_ahead_makes_a_message() -> None:
    assert len(keys(maker(), sighting(ago_s=-86_400, written_ago_s=60))) == 1


@pytest.mark.parametrize("ahead_h", [14, 10, -10, -12], ids=["Kiribati", "Sydney", "Honolulu", "Baker Island"])
def test_photo_of_now_makes_a_message_wherever_the_camera_is_without_an_offset(ahead_h: int) -> None:
    """Nobody said the offset, so UTC stands in the row and the time seems to lie hours off."""
    seen = sighting(ago_s=-ahead_h * 3600, flags=("offset-assumed",))
    assert len(keys(maker(Rule("foxes", ("fox",), 0.8, fresh_h=1)), seen)) == 1


def test_names_cannot_forge_a_key() -> None:
    [key] = keys(maker(Rule("a|b", ("fox",), 0)), sighting(station="x|y"))
    assert key.count("|") == 3


def test_short_message_has_what_a_ranger_needs() -> None:
    seen = sighting(confidence=0.937)
    assert short(seen, seen.file.taken) == "fox 93% 05-01 11:59 beech 4"


@given(st.text(min_size=1), st.text(), st.floats(0, 1))
def test_short_message_is_at_most_51_bytes_of_utf8_and_keeps_percent_and_time(
    label: str, station: str, confidence: float
) -> None:
    seen = sighting(label.encode("utf-8", "ignore").decode(), confidence, station=station)
    text = short(seen, seen.file.taken)
    assert len(text.encode()) <= SHORT_BYTES
    assert "% 05-01 11:59" in text


def test_message_is_ascii_whatever_the_names_are() -> None:
    seen = sighting("Wölfin", station="Höhle\n7")
    assert message(seen, seen.file.taken, "e", "schlüssel").isascii()


@pytest.mark.parametrize("seed", range(5))
def test_events_that_later_photos_join_are_one_from_then_on(seed: int) -> None:
    seconds = [n * 100.0 for n in range(20)] + [10_000 + n * 100.0 for n in range(20)]
    random.Random(seed).shuffle(seconds)
    events = Events(1000)
    for each in seconds:
        events.name("beech", each)
    assert len({events.name("beech", each) for each in seconds}) == 2


def test_memory_of_events_is_bounded() -> None:
    events = Events(1)
    for number in range(1000):
        events.name("beech", number * 100.0)
    assert len(events._spans["beech"]) == 64


@pytest.mark.parametrize(
    ("local", "offset"),
    [("0001-01-01T00:00:00", "+01:00"), ("9999-12-31T23:59:59", "-01:00")],
    ids=["before the first year", "after the last"],
)
def test_clock_at_an_end_of_the_calendar_ends_nothing(local: str, offset: str) -> None:
    file = FileFacts(FileKey("d", "/p", "a.jpg", 1, 1), Taken(local, offset, "exif", ()))
    alerts = Alerts([Rule("x", ("deer",), 0.5)], Events(120.0))
    assert len(alerts.of(Sighting(file, "ab" * 32, "deer", 0.9), datetime.now(UTC), clock_ok=False)) == 1
