from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from edge.agent.in_hand import InHand


def test_photo_with_which_the_agent_died_is_known_at_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "in-hand"
    assert InHand(folder).take("a.jpg") == 0
    assert InHand(folder).take("a.jpg") == 1
    assert InHand(folder).take("a.jpg") == 2
    assert InHand(folder).take("b.jpg") == 0


def test_photo_that_was_laid_down_has_killed_nobody(tmp_path: Path) -> None:
    InHand(tmp_path).take("a.jpg")
    hand = InHand(tmp_path)
    assert hand.suspects("a.jpg")
    assert not hand.suspects("b.jpg")
    hand.take("a.jpg")
    hand.lay_down("a.jpg")
    assert not hand.suspects("a.jpg")
    hand.lay_down("a.jpg")
    assert InHand(tmp_path).take("a.jpg") == 0


def test_photo_that_another_agent_has_in_hand_has_killed_nobody(tmp_path: Path) -> None:
    one, two, three = (InHand(tmp_path) for _ in range(3))
    assert one.take("a.jpg") == 0
    assert not two.suspects("a.jpg")
    assert [two.take("a.jpg"), three.take("a.jpg")] == [0, 0]
    two.lay_down("a.jpg")  # which leaves it in the hand of the first
    del one  # and that one dies
    assert two.suspects("a.jpg")
    assert two.take("a.jpg") == 1


def test_agent_that_is_killed_has_it_in_hand_no_more(tmp_path: Path) -> None:
    program = "import sys, edge.agent.in_hand as h; hand = h.InHand(h.Path(sys.argv[1])); hand.take('a.jpg'); "
    program += "print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program, os.fspath(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert not InHand(tmp_path).suspects("a.jpg")
        child.send_signal(signal.SIGKILL)
    assert InHand(tmp_path).suspects("a.jpg")
    assert InHand(tmp_path).take("a.jpg") == 1


def test_names_that_are_not_utf8_and_very_long_ones_are_taken(tmp_path: Path) -> None:
    name = "\udce9" * 3000
    assert [InHand(tmp_path).take(name), InHand(tmp_path).take(name)] == [0, 1]


def test_without_a_folder_there_are_no_deaths(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    hand = InHand(tmp_path / "file" / "below")
    assert [hand.take("a.jpg"), hand.take("a.jpg")] == [0, 0]
    hand.lay_down("a.jpg")
