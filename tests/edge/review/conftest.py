"""A log to review: real photos, judged by the fake classifier."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.agent.config import Source
from edge.agent.loop import Intake
from edge.agent.watch import scan
from edge.log import store
from tests.fakes.camera import jpeg, model, put


@dataclass
class Reviewed:
    """A log and the photos in it."""

    database: Path
    photos: Path


@pytest.fixture
def log(tmp_path: Path) -> Reviewed:
    """Rows 1 to 6: deer, a copy of it, empty, fox, a cut photo, and one with a name that is HTML and no UTF-8."""
    photos = tmp_path / "photos"
    put(photos / "1-deer.jpg", jpeg(5, side=400, taken="2024:05:01 06:12:09"))
    put(photos / "2-copy.jpg", jpeg(5, side=400, taken="2024:05:01 06:12:09"))
    put(photos / "3-empty.jpg", jpeg(128))
    put(photos / "4-fox.jpg", jpeg(250, orientation=6))
    put(photos / "5-cut.jpg", jpeg(10, side=900)[:1500])
    put(photos / os.fsdecode(b"6-<b>\"&'caf\xe9.jpg"), jpeg(240))
    database = tmp_path / "log.db"
    with store.open_for_writing(database) as opened:
        intake = Intake(opened, model(), "device")
        source = Source(photos, station="<i>beech</i>")
        for _ in intake.take_all(scan(source, {}), lambda candidate: None):
            pass
    return Reviewed(database, photos)
