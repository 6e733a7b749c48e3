from __future__ import annotations

from pathlib import Path

from edge.agent.in_hand import InHand


def test_photo_with_which_the_agent_died_is_known_at_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "in-hand"
    assert InHand(folder).take("a.jpg") == 0
    assert InHand(folder).take("a.jpg") == 1
    assert InHand(folder).take("a.jpg") == 2
    assert InHand(folder).take("b.jpg") == 0


def test_photo_that_was_laid_down_has_killed_nobody(tmp_path: Path) -> None:
    hand = InHand(tmp_path)
    assert not hand.suspects("a.jpg")
    hand.take("a.jpg")
    assert hand.suspects("a.jpg")
    hand.lay_down("a.jpg")
    assert not hand.suspects("a.jpg")
    hand.lay_down("a.jpg")
    assert InHand(tmp_path).take("a.jpg") == 0


def test_names_that_are_not_utf8_and_very_long_ones_are_taken(tmp_path: Path) -> None:
    hand = InHand(tmp_path)
    assert [hand.take("\udce9" * 3000), hand.take("\udce9" * 3000)] == [0, 1]


def test_without_a_folder_there_are_no_deaths(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    hand = InHand(tmp_path / "file" / "below")
    assert [hand.take("a.jpg"), hand.take("a.jpg")] == [0, 0]
    hand.lay_down("a.jpg")
