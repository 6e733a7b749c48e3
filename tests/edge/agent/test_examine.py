"""What two helpers may have in memory at a time."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest
from PIL import Image

from edge.agent.config import Source
from edge.agent.examine import Examiner, Finding, Outcome
from edge.agent.watch import Candidate
from edge.errors import ModelError

MOST_S = 20.0


class Slow:
    """A classifier that holds its photo until it is told to go on, and then fails it."""

    runtime = "none"

    def __init__(self) -> None:
        self.has_one, self.go_on = threading.Event(), threading.Event()

    def classify_image(self, image: Image.Image) -> object:
        self.has_one.set()
        assert self.go_on.wait(MOST_S)
        raise ModelError("it was only a test.", code="model")


class Hand(threading.Thread):
    """Examines one photo."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.slow, self.path, self.found = Slow(), path, list[Finding]()
        self.start()

    def run(self) -> None:
        facts = self.path.stat()
        one = Candidate(Source(self.path.parent), self.path, self.path.name, facts.st_size, facts.st_mtime_ns)
        self.found.append(Examiner(self.slow).examine(one))  # type: ignore[arg-type]


def picture(folder: Path, side: int) -> Path:
    out = io.BytesIO()
    Image.new("RGB", (side, side)).save(out, "PNG")
    path = folder / f"{side}.png"
    path.write_bytes(out.getvalue())
    return path


@pytest.mark.parametrize(
    ("side", "together"), [pytest.param(2500, False, id="large"), pytest.param(100, True, id="small")]
)
def test_of_two_large_pictures_one_waits_and_small_ones_do_not(tmp_path: Path, side: int, together: bool) -> None:
    first = Hand(picture(tmp_path, 2500))
    assert first.slow.has_one.wait(MOST_S)
    second = Hand(picture(tmp_path, side))
    second.slow.go_on.set()
    assert second.slow.has_one.wait(MOST_S if together else 0.3) is together
    first.slow.go_on.set()
    for hand in (first, second):
        hand.join(MOST_S)
        assert [found.outcome for found in hand.found] == [Outcome.FAILED]
    assert second.slow.has_one.is_set()
