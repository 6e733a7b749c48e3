from __future__ import annotations

import os
from pathlib import Path

from edge.agent import unlogged
from edge.agent.unlogged import Answered
from tests.fakes.camera import ShadeClassifier, jpeg, put


def labels(found: list[Answered]) -> dict[str, str | None]:
    return {Path(each.photo).name: each.decision.label if each.decision else None for each in found}


def test_folder_gives_its_photos_in_order_and_a_failure_ends_nothing(tmp_path: Path) -> None:
    put(tmp_path / "b.jpg", jpeg(250))
    put(tmp_path / "a.jpg", b"broken")
    put(tmp_path / "sub" / "c.jpg", jpeg(10))
    put(tmp_path / "notes.txt", b"")
    found = list(unlogged.classify(unlogged.files([tmp_path], {}), ShadeClassifier()))
    assert labels(found) == {"a.jpg": None, "b.jpg": "fox", "c.jpg": "deer"}
    assert [Path(each.photo).name for each in found] == ["c.jpg", "a.jpg", "b.jpg"]  # folders first, then by name
    assert found[1].failure is not None
    assert found[1].sha256 is not None


def test_named_file_is_tried_whatever_it_is_called(tmp_path: Path) -> None:
    path = put(tmp_path / "photo.bak", jpeg(10))
    [found] = unlogged.classify(unlogged.files([path], {}), ShadeClassifier())
    assert found.decision is not None


def test_copy_names_the_first_and_asks_the_model_nothing(tmp_path: Path) -> None:
    first, copy = put(tmp_path / "1.jpg", jpeg(10)), put(tmp_path / "2.jpg", jpeg(10))
    classifier = ShadeClassifier()
    [one, two] = unlogged.classify([first, copy], classifier)
    assert (one.duplicate_of, two.duplicate_of) == (None, str(first))
    assert one.decision == two.decision
    assert classifier.asked == 1


def test_failed_inference_is_a_failure(tmp_path: Path) -> None:
    [found] = unlogged.classify([put(tmp_path / "1.jpg", jpeg(10))], ShadeClassifier(broken=True))
    assert found.decision is None
    assert "out of crayons" in str(found.failure)


def test_time_is_the_photos_with_the_given_offset(tmp_path: Path) -> None:
    photo = put(tmp_path / "1.jpg", jpeg(10, taken="2024:05:01 06:12:09"))
    broken = put(tmp_path / "2.jpg", b"broken", mtime_s=0)
    found = unlogged.classify([photo, broken], ShadeClassifier(), utc_offset="+01:00")
    assert [each.taken for each in found] == ["2024-05-01T06:12:09+01:00", "1970-01-01T01:00:00+01:00"]


def test_file_that_is_gone_has_no_time(tmp_path: Path) -> None:
    [found] = unlogged.classify([tmp_path / "gone.jpg"], ShadeClassifier())
    assert (found.taken, found.decision) == (None, None)


def test_name_that_is_not_utf8_is_escaped_also_in_the_reason(tmp_path: Path) -> None:
    path = put(tmp_path / os.fsdecode(b"caf\xe9.jpg"), b"")
    [found] = unlogged.classify([path], ShadeClassifier())
    assert found.photo.endswith("caf%E9.jpg")
    assert found.failure == "caf%E9.jpg is empty (0 bytes)."


def test_damaged_photo_is_not_called_empty(tmp_path: Path) -> None:
    whole = jpeg(131, side=1600)
    paths = [put(tmp_path / "1.jpg", whole), put(tmp_path / "2.jpg", whole[: len(whole) * 3 // 4] + b"\xff\xd9")]
    assert labels(list(unlogged.classify(paths, ShadeClassifier()))) == {"1.jpg": "empty", "2.jpg": "unknown"}
