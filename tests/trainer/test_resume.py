"""A training that was killed goes on with the next epoch, and ends with the very weights of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge.errors import ConfigError, DataError
from trainer.checkpoint import Checkpoint, key_of

ROOT = Path(__file__).resolve().parents[2]

CHILD = """
import os, signal, sys
from pathlib import Path
import numpy as np
from tests.trainer import tiny_network as tiny
from trainer import division, fine_tune, fit
from trainer.progress import Steps
from trainer.settings import Settings
from trainer.tuner import Tuner

folder, kill_after, out = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
labels = [i % 3 for i in range(60)]
settings = Settings(learn="all", head=("8", "dropout:0.5"), epochs=3, rate=0.01, batch=8, optimizer=sys.argv[4])
photos = tiny.photos(labels)
question = tiny.question(60, range(0, 60, 5))
saved = 0
save = fine_tune.Checkpoint.save

def counting(self, *what):
    global saved
    save(self, *what)
    saved += 1
    if saved == kill_after:
        os.kill(os.getpid(), signal.SIGKILL)

fine_tune.Checkpoint.save = counting
tuner = Tuner(tiny.network(dropout=True), photos, settings, folder, Steps(quiet=True))
fitting = fit.Fitting(photos, question, settings, tuner, Steps(quiet=True))
fitted = fitting.fit(division.divide(photos, question, settings))
np.savez(out, logits=fitted.logits, saved=saved, loss=[line.loss for line in fitted.start_history + fitted.history],
         **{f"{name}-{i}": a for name, each in fitted.learned.layers.items() for i, a in enumerate(each)})
"""


def run(folder: Path, out: Path, *, kill_after: int = 0, optimizer: str = "adam") -> int:
    """Train in a child process; after so many saved checkpoints it is killed."""
    command = [sys.executable, "-c", CHILD, str(folder), str(kill_after), str(out), optimizer]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FIELDMARK_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.needs("tensorflow")
def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    """Killed between the new layers' three epochs and fine-tuning, and after its first; both stages have dropout."""
    with ThreadPoolExecutor() as pool:
        whole_run = pool.submit(run, tmp_path / "whole", tmp_path / "whole.npz")
        for kill_after in (3, 1):
            assert run(tmp_path / "cut", tmp_path / "cut.npz", kill_after=kill_after) == -signal.SIGKILL
        assert not (tmp_path / "cut.npz").exists()
        assert run(tmp_path / "cut", tmp_path / "cut.npz") == 0
        assert whole_run.result() == 0
    whole, cut = np.load(tmp_path / "whole.npz"), np.load(tmp_path / "cut.npz")
    assert whole["saved"] == 6
    assert cut["saved"] == 2, "what was trained before a kill is not trained again"
    assert set(whole.files) == set(cut.files)
    for name in set(whole.files) - {"saved"}:
        np.testing.assert_array_equal(cut[name], whole[name], err_msg=name)


# --- the file


ARRAYS: dict[str, npt.NDArray[Any]] = {
    "now/0": np.arange(6, dtype=np.float32).reshape(2, 3),
    "best/a/0": np.array(7, np.uint64),
}


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "deep" / "er" / "a.npz", "key")
    assert checkpoint.load() is None
    for loss in (0.1 + 0.2, float("nan")):
        checkpoint.save({"history": [{"loss": loss}], "over": False}, ARRAYS)
    state = checkpoint.load()
    assert state is not None
    assert np.isnan(state.facts["history"][0]["loss"])
    assert state.facts["over"] is False
    assert {name: array.tolist() for name, array in state.arrays.items()} == {
        name: array.tolist() for name, array in ARRAYS.items()
    }
    assert state.arrays["best/a/0"].dtype == np.uint64
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["a.npz"], "nothing is left beside it"


def test_another_training_s_checkpoint_is_refused(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "a.npz", "one").save({}, ARRAYS)
    with pytest.raises(ConfigError, match=r"a.npz was left by a training with other settings or photos") as caught:
        Checkpoint(tmp_path / "a.npz", "two").load()
    assert caught.value.code == "other settings"


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="an empty file"),
        pytest.param(lambda data: data[: len(data) // 2], id="half a file"),
        pytest.param(lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:], id="one bit of an array turned"),
        pytest.param(lambda data: b"not a checkpoint", id="something else"),
    ],
)
def test_a_damaged_checkpoint_is_as_good_as_none(damage: object, tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    checkpoint = Checkpoint(file, "key")
    checkpoint.save({"over": False}, ARRAYS)
    assert checkpoint.load() is not None
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    assert checkpoint.load() is None


def test_a_pickle_in_a_checkpoint_is_not_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    facts = np.frombuffer(json.dumps({"key": "key"}).encode(), np.uint8)
    np.savez(tmp_path / "a.npz", **{"facts.json": facts, "now/0": np.array([Trap()], dtype=object)})
    assert Checkpoint(tmp_path / "a.npz", "key").load() is None
    assert not (tmp_path / "sprung").exists()


def test_a_disk_that_cannot_hold_it_is_told_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint(tmp_path / "a.npz", "key")
    checkpoint.save({"over": False}, ARRAYS)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"cannot be written: No space left on device. Free some space; --resume"):
        checkpoint.save({"over": True}, ARRAYS)
    state = checkpoint.load()
    assert state is not None
    assert state.facts["over"] is False
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_key_tells_every_byte_and_every_name() -> None:
    same = np.array([1, 2])
    keys = {
        key_of("a", same),
        key_of("b", same),
        key_of("a", np.array([1, 3])),
        key_of("a", same.astype(np.float64)),
        key_of("a", same.reshape(2, 1)),
        key_of("a", same, {"rate": 0.1}),
        key_of("a", same, {"rate": 0.2}),
    }
    assert len(keys) == 7
    assert key_of("a", np.array([1, 2]), {"x": 1, "y": 2}) == key_of("a", same, {"y": 2, "x": 1})
