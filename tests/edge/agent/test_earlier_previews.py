from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge.agent.config_upkeep import People
from edge.agent.earlier_previews import EarlierPreviews
from edge.agent.previews import Previews
from edge.log import store
from edge.log.store import Detection, FileFacts, FileKey, Observation, PhotoFacts
from edge.photo import Taken
from tests.fakes.camera import BUNDLE


def sharp() -> bytes:
    stripes = np.zeros((240, 320, 3), np.uint8)
    stripes[:, ::8] = 255
    out = io.BytesIO()
    Image.fromarray(stripes).save(out, "JPEG")
    return out.getvalue()


@dataclass
class Device:
    """A log with previews."""

    folder: Path

    def __post_init__(self) -> None:
        self.log = store.open_for_writing(self.folder / "log.db")
        self.log.add_bundle(BUNDLE)
        self.previews = Previews(self.folder / "previews", 10**7)

    def add(self, number: int, label: str, *top: tuple[str, float], state: str = "kept") -> str:
        sha256 = f"{number:02x}" * 32
        self.previews.put(sha256, sharp())
        detection = Detection(BUNDLE, "shades", label, 0.9, "species", top or ((label, 0.9),), b"", True)
        key = FileKey("d", "/s", f"{number}.jpg", 1, 1)
        file = FileFacts(key, Taken("2024-05-01T06:12:09", "+00:00", "exif", ()))
        self.log.add_file(file, photo=PhotoFacts(sha256, 4, 4, preview=state), detection=detection, failure=None)
        return sha256

    def start(self, people: People) -> int:
        """How many one start treats."""
        earlier, count = EarlierPreviews(self.log, self.previews, people), 0
        while not earlier.done:
            count += earlier.round()
        return count

    def states(self) -> list[str]:
        rows = store.open_for_reading(self.log.path).execute("SELECT preview FROM photo ORDER BY id").fetchall()
        return [row[0] for row in rows]

    def contrast(self, sha256: str) -> float:
        with Image.open(self.previews.path(sha256)) as image:
            return float(np.asarray(image).std())


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    found = Device(tmp_path)
    yield found
    found.log.close()


def test_previews_that_were_kept_are_blurred_when_the_settings_say_so(device: Device) -> None:
    person, deer = device.add(1, "person"), device.add(2, "deer")
    perhaps = device.add(3, "deer", ("deer", 0.6), ("person", 0.3))
    assert device.start(People("keep")) == 0
    assert device.start(People("blur")) == 2
    assert device.states() == ["blurred", "kept", "blurred"]
    assert max(device.contrast(person), device.contrast(perhaps)) < 12 < device.contrast(deer)
    assert device.start(People("blur")) == 0


def test_previews_that_were_blurred_go_when_the_settings_want_none(device: Device) -> None:
    person, other = device.add(1, "person", state="blurred"), device.add(2, "person")
    assert device.start(People("none")) == 2
    assert device.states() == ["withheld", "withheld"]
    assert not device.previews.path(person).exists()
    assert not device.previews.path(other).exists()


def test_whom_a_person_named_is_blurred_too(device: Device) -> None:
    sha256 = device.add(1, "deer")
    device.log.add_review(sha256, [Observation("person")], "Ada")
    assert device.start(People("blur")) == 1
    assert device.contrast(sha256) < 12


def test_preview_that_is_broken_or_gone_is_no_more(device: Device) -> None:
    device.previews.path(device.add(1, "person")).write_bytes(b"no picture")
    device.previews.path(device.add(2, "person")).unlink()
    assert device.start(People("blur")) == 2
    assert device.states() == ["withheld", "withheld"]


def test_many_are_treated_some_at_a_time(device: Device) -> None:
    with device.log.batch():
        for number in range(120):
            device.add(number, "person")
    earlier = EarlierPreviews(device.log, device.previews, People("none"))
    assert [earlier.round() for _ in range(4)] == [50, 50, 20, 0]
    assert earlier.done
    assert set(device.states()) == {"withheld"}
