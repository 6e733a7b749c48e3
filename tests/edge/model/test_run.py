"""The child process: every runtime answers in it, and whatever happens to it becomes one error with one line."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from edge.errors import ModelError
from edge.model import run, runtime
from tests import colour_model
from tests.edge.model.test_interpreter import altered, logarithm

SIDE = 4
LITERT = "ai_edge_litert"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The colour model."""
    path = tmp_path / "model.tflite"
    path.write_bytes(colour_model.build(SIDE, SIDE))
    return path


@pytest.fixture
def pixels(tmp_path: Path) -> Path:
    """Seven photos of random colours."""
    path = tmp_path / "pixels.npy"
    np.save(path, np.random.default_rng(1).integers(0, 256, (7, SIDE, SIDE, 3), dtype=np.uint8))
    return path


def means(pixels: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(np.load(pixels).mean(axis=(1, 2)))


def stand_in(tmp_path: Path, script: str) -> str:
    """A program that takes Python's place."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("installed", runtime.installed(), ids=lambda found: str(found.name))
def test_a_runtime_answers_every_photo_and_says_where_it_ran(
    model: Path, pixels: Path, installed: runtime.Installed
) -> None:
    found = run.in_child(model, pixels, runtime=installed.name)
    assert found.logits.shape == (7, 3)
    assert found.logits.dtype == np.float32
    assert found.logits == pytest.approx(means(pixels), abs=1e-3)
    assert (found.runtime, found.version, found.kernels) == (installed.name, installed.version, "default")
    assert found.architecture == os.uname().machine
    assert 0 < found.ms < 1000
    assert 5 < found.rss_mib < 500
    assert found.output_step == 0


@pytest.mark.needs("both_runtimes")
def test_both_runtimes_and_both_kernels_give_the_same_answers(model: Path, pixels: Path) -> None:
    answers = [
        run.in_child(model, pixels, runtime=name, kernels=kernels).logits
        for name in runtime.NAMES
        for kernels in runtime.KERNELS
    ]
    for other in answers[1:]:
        assert other == pytest.approx(answers[0], abs=1e-3)


@pytest.mark.parametrize("photos", [[4], [6, 0, 3], list(range(7)), [2, 2]], ids=str)
def test_only_the_photos_asked_for_are_answered_in_their_order(model: Path, pixels: Path, photos: list[int]) -> None:
    found = run.in_child(model, pixels, runtime=LITERT, photos=photos).logits
    assert found == pytest.approx(means(pixels)[photos], abs=1e-3)


@pytest.mark.parametrize("photo", [-1, 7])
def test_a_photo_that_is_not_there_is_refused(model: Path, pixels: Path, photo: int) -> None:
    with pytest.raises(ModelError, match=f"photo {photo} was asked for, .* has 7"):
        run.in_child(model, pixels, runtime=LITERT, photos=[0, photo])


def test_an_answer_that_is_not_finite_ends_the_child_or_is_kept_as_asked(tmp_path: Path) -> None:
    """The logarithm of black is minus infinity."""
    (tmp_path / "log.tflite").write_bytes(altered(logarithm))
    photos = np.full((3, SIDE, SIDE, 3), 100, np.uint8)
    photos[1] = 0
    np.save(tmp_path / "photos.npy", photos)
    asked = (tmp_path / "log.tflite", tmp_path / "photos.npy")
    with pytest.raises(ModelError, match="not finite"):
        run.in_child(*asked, runtime=LITERT)
    found = run.in_child(*asked, runtime=LITERT, keep_not_finite=True).logits
    assert np.isnan(found).all(axis=1).tolist() == [False, True, False]


def test_another_python_runs_the_child_with_variables_of_its_own(model: Path, pixels: Path, tmp_path: Path) -> None:
    other = stand_in(tmp_path, f'echo "$COLOUR $*" > {tmp_path}/asked; exec {sys.executable} "$@"')
    run.in_child(model, pixels, runtime=LITERT, python=(other,), environment={"COLOUR": "red"})
    assert (tmp_path / "asked").read_text().startswith("red -P -m edge.model.run")


def test_memory_is_the_child_s_own(model: Path, pixels: Path) -> None:
    ballast = np.ones(60_000_000)  # 458 MiB here must not count there
    assert run.in_child(model, pixels, runtime=LITERT).rss_mib < 300
    assert ballast.all()


def test_nothing_is_left_behind(
    model: Path, pixels: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    run.in_child(model, pixels, runtime=LITERT)
    assert list(scratch.iterdir()) == []


# --- a child that fails


def test_a_model_that_does_not_load_is_refused_with_the_child_s_line(tmp_path: Path, pixels: Path) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"no model at all")
    with pytest.raises(ModelError, match="cannot load the model") as caught:
        run.in_child(broken, pixels, runtime=LITERT)
    assert caught.value.code == "load"
    assert "\n" not in str(caught.value)


def test_a_model_that_is_cut_short_is_refused(model: Path, pixels: Path) -> None:
    content = model.read_bytes()
    model.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError):
        run.in_child(model, pixels, runtime=LITERT)


def test_photos_of_another_size_are_refused(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((1, SIDE, SIDE + 1, 3), np.uint8))
    with pytest.raises(ModelError, match="expects uint8 pixels"):
        run.in_child(model, tmp_path / "wide.npy", runtime=LITERT)


def test_photos_that_are_gone_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        run.in_child(model, tmp_path / "none.npy", runtime=LITERT)


def test_a_runtime_that_is_not_known_is_refused(model: Path, pixels: Path) -> None:
    with pytest.raises(ModelError, match="not known"):
        run.in_child(model, pixels, runtime="onnx")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        pytest.param("kill -SEGV $$", "ai_edge_litert died with status -11", id="a crash in native code"),
        pytest.param("kill -KILL $$", "died with status -9", id="killed for its memory"),
        pytest.param("exit 0", "died with status 0", id="an end without an answer"),
        pytest.param("echo first >&2; echo 'last words' >&2; exit 3", "^last words$", id="an end with words"),
        pytest.param("printf '\\377\\n' >&2; exit 1", "\ufffd", id="words that are no text"),
    ],
)
def test_a_child_that_dies_becomes_an_error(
    model: Path, pixels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    monkeypatch.setattr(sys, "executable", stand_in(tmp_path, script))
    with pytest.raises(ModelError, match=says) as caught:
        run.in_child(model, pixels, runtime=LITERT)
    assert caught.value.code == "child"


def test_a_child_that_hangs_is_ended(
    model: Path, pixels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", stand_in(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 600"))
    with pytest.raises(ModelError, match="no answer within 1 s") as caught:
        run.in_child(model, pixels, runtime=LITERT, timeout_s=1)
    assert caught.value.code == "timeout"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


# --- a folder of photos that brings its own numpy


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder of photos with modules in it that leave a mark when they are imported."""
    folder = tmp_path / "photos"
    (folder / "PIL").mkdir(parents=True)
    for name in ("numpy.py", "PIL/__init__.py", "json.py", "edge.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\nraise SystemExit('foreign')\n")
    return folder


def test_a_module_beside_the_photos_is_not_imported(
    model: Path, pixels: Path, trap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = pixels.rename(trap / "pixels.npy")
    monkeypatch.chdir(trap)
    assert run.in_child(model, Path("pixels.npy"), runtime=LITERT).logits == pytest.approx(means(moved), abs=1e-3)
    assert not (trap.parent / "imported").exists()


def test_without_its_precautions_the_module_would_be_imported(trap: Path) -> None:
    """Control of the test above: this is how Python behaves by default."""
    command = [sys.executable, "-m", "edge.model.run", "--help"]
    done = subprocess.run(command, cwd=trap, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert (trap.parent / "imported").exists()
