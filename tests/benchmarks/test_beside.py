from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import beside, beside_ways
from benchmarks.beside import Bench, Way

PHOTO, TEXT = b"\xff\xd8 a photo", b"text"
LOOP = """
import sys, time
from pathlib import Path
out, folder, flushed = Path(sys.argv[1]).open("a"), Path(sys.argv[2]), sys.argv[3] == "flushed"
for photo in sorted(folder.iterdir()):
    if photo.read_bytes()[:2] != b"\\xff\\xd8":
        CANNOT
    out.write(f"{photo.name},deer,0.9\\n")
    if flushed:
        out.flush()
    print(f"answer\\t{photo.name}", flush=True)
if len(sys.argv) > 4:
    time.sleep(60)
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, rounds=1)


def _loop(cannot: str = "raise OSError('no photo')", *, flushed: bool = False, stays: bool = False) -> Way:
    script = LOOP.replace("CANNOT", cannot)
    way = beside._script("loop", sys.executable, "", Path("model"), Path("labels"))

    def command(photos: Path, out: Path) -> list[str]:
        rest = ["flushed" if flushed else "held back", *["stays"] * stays]
        return [sys.executable, "-P", "-c", script, str(out), str(photos), *rest]

    return Way("loop", command, way.said, way.kept)


@pytest.mark.parametrize(
    ("output", "count"),
    [
        (b"bundle fox-1, on it.\r\n", 0),
        (b"\r1 photos\r2 photos\r\x1b[K12 new files in it", 2),
        (b"\r9 photos\r10 photos", 10),
    ],
    ids=["before the first row", "then the last line", "two digits"],
)
def test_what_the_agent_says_at_a_terminal_is_counted(output: bytes, count: int) -> None:
    assert beside._rows_said(output) == count


def test_answers_that_a_killed_process_still_held_are_counted_as_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    folder = bench.folder([PHOTO] * 8)

    held_back, flushed = (bench.killed(_loop(flushed=each, stays=True), folder) for each in (False, True))

    assert held_back["lost"] == held_back["said"] >= 4
    assert flushed["lost"] == 0 < flushed["said"]


@pytest.mark.parametrize(
    ("cannot", "end"),
    [
        ("raise OSError('no photo')", "crash: OSError: no photo; no answer for the photo after it"),
        ("continue", beside.SKIPPED),
        ("pass", f"{beside.AS_WHOLE}: deer"),
    ],
    ids=["a loop that ends there", "one that goes on without a word", "one that answers all the same"],
)
def test_what_becomes_of_a_file_that_is_no_photo_is_told_apart(bench: Bench, cannot: str, end: str) -> None:
    whole = sorted(bench.folder([PHOTO] * 3).iterdir())

    assert bench.hard(_loop(cannot), whole)["text named as a JPEG"] == end


def test_a_way_that_does_not_work_here_is_left_out_with_the_reason(bench: Bench, tmp_path: Path) -> None:
    single, good = bench.folder([PHOTO]), _loop()
    missing = beside._script("no such Python", str(tmp_path / "python"), "teachable", tmp_path, tmp_path)
    broken = beside._script("no such way", sys.executable, "nothing", tmp_path, tmp_path)

    assert bench.those_that_work(iter([good, missing, broken, ("named", "why")]), single) == [good]
    assert bench.left_out["no such Python"] == "it cannot be started: No such file or directory"
    assert bench.left_out["no such way"] == "KeyError: 'nothing'"
    assert bench.left_out["named"] == "why"


def test_the_scripts_beside_bring_nothing_of_the_project_or_of_the_benchmark_into_memory() -> None:
    code = f"import sys, runpy; runpy.run_path({beside_ways.__file__!r}); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert {"csv", "pathlib"} <= set(loaded)
    assert not {name.partition(".")[0] for name in loaded} & {"edge", "trainer", "benchmarks", "numpy", "PIL"}
