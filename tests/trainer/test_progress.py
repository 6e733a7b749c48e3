"""Progress goes to standard error, a line for each step where it is no terminal, and times are kept."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from trainer.progress import Steps


def test_each_step_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps()
    with steps.step("reading photos", 3) as done, ThreadPoolExecutor(3) as pool:
        list(pool.map(done, [1, 1, 1]))
    with steps.step("probe"):
        pass
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert re.fullmatch(r"  reading photos, 3: \d+\.\d s", first)
    assert re.fullmatch(r"  probe: \d+\.\d s", second)


def test_times_of_a_step_that_comes_again_are_added() -> None:
    steps = Steps(quiet=True)
    for _ in range(3):
        with steps.step("probe"):
            pass
    assert list(steps.seconds) == ["probe"]
    steps.seconds["probe"] = 5.0
    with steps.step("probe"):
        pass
    assert 5.0 <= steps.seconds["probe"] < 6.0


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps(quiet=True)
    steps.say("anything")
    with steps.step("probe", 1) as done:
        done(1)
    assert capsys.readouterr() == ("", "")


def test_square_brackets_are_text_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Steps().say("label [bold] of [/tmp/x]")
    assert capsys.readouterr().err == "label [bold] of [/tmp/x]\n"


def test_a_step_that_fails_lets_the_error_through(capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps()
    with pytest.raises(ZeroDivisionError), steps.step("probe"):
        1 / 0  # noqa: B018
    assert "probe" not in steps.seconds
