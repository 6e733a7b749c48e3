"""The gate: a model as good as the float one passes, and each way of being worse is refused with its sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge.errors import ModelError
from edge.model import run, runtime
from tests import colour_model
from trainer import gate
from trainer.gate import Limits, Row, compare

N, CLASSES = 400, 3
HOLDOUT = np.arange(0, N, 4)  # 100 photos
RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.integers(0, CLASSES, N)
REFERENCE: npt.NDArray[np.float32] = (np.eye(CLASSES)[TRUTH] * 6 + RANDOM.normal(0, 0.5, (N, CLASSES))).astype(
    np.float32
)

Logits = npt.NDArray[np.float32]


def answers(logits: Logits, name: str = "ai_edge_litert") -> run.Answers:
    return run.Answers(logits, 4.2, 61.0, name, "2.3.0", "x86_64", "default", 0.05)


def verdict(logits: Logits, *, holdout: npt.NDArray[np.intp] = HOLDOUT, limits: Limits | None = None) -> Row:
    return compared(logits.astype(np.float32), REFERENCE, holdout, limits or Limits())


def compared(logits: Logits, reference: Logits, holdout: npt.NDArray[np.intp], limits: Limits) -> Row:
    pair = (logits[holdout], reference[holdout])
    return compare(answers(logits), reference, pair, TRUTH[: len(logits)][holdout], limits)


def wrong(*rows: int) -> Logits:
    """The float model's logits, but for some photos those of another label."""
    logits = REFERENCE.copy()
    for row in rows:
        logits[row] = np.roll(logits[row], 1)
    return logits


def test_the_float_model_s_own_answers_pass() -> None:
    row = verdict(REFERENCE)
    assert row.passed
    assert row.reason == "no held-out photo lost, 100.0% agree with the float model; low n: 100 held-out photos"
    assert (row.n, row.n_agreement, row.accuracy, row.accuracy_float) == (100, 400, 1.0, 1.0)
    assert (row.runtime, row.version, row.ms, row.rss_mib) == ("ai_edge_litert", "2.3.0", 4.2, 61.0)


def test_int8_rounding_passes() -> None:
    row = verdict(np.round(REFERENCE / 0.05) * 0.05)
    assert row.passed
    assert 0 < row.largest_difference <= 0.03


@pytest.mark.parametrize(
    ("logits", "says"),
    [
        pytest.param(
            np.roll(REFERENCE, 1, axis=1),
            "it gets 100 of 100 held-out photos wrong more than the float model, at most 1 may be",
            id="labels in another order",
        ),
        pytest.param(REFERENCE[:, [1, 0, 2]], "held-out photos wrong more", id="two labels swapped"),
        pytest.param(np.tile(REFERENCE[:1], (N, 1)), "it gives the same answer for every photo", id="constant"),
        pytest.param(np.zeros((N, CLASSES)), "it gives the same answer for every photo", id="all zero"),
        pytest.param(-REFERENCE, "held-out photos wrong more", id="the least likely for the most likely"),
        pytest.param(
            wrong(0, 4), "it gets 2 of 100 held-out photos wrong more than the float model, at most 1 may be",
            id="two held-out photos lost",
        ),
        pytest.param(
            wrong(*range(1, 53, 4)),
            "it agrees with the float model on 96.8% of the photos, at least 97% must",
            id="thirteen others lost: agreement",
        ),
        pytest.param(
            REFERENCE[RANDOM.permutation(N)], "held-out photos wrong more", id="photos in another order"
        ),
    ],
)  # fmt: skip
def test_a_worse_model_is_refused_with_its_sentence(logits: Logits, says: str) -> None:
    row = verdict(logits)
    assert not row.passed
    assert says in row.reason


def test_one_lost_photo_is_allowed_and_said() -> None:
    row = verdict(wrong(0))
    assert row.passed
    assert row.reason.startswith("1 held-out photo lost, 99.8% agree")
    assert (row.accuracy, row.accuracy_float) == (0.99, 1.0)


def test_twelve_disagreements_of_400_are_allowed() -> None:
    assert verdict(wrong(*range(1, 49, 4))).passed


def test_a_photo_won_makes_up_for_one_lost() -> None:
    reference = wrong(0, 4)  # the float model is wrong on two
    row = compared(wrong(8, 12, 16), reference, HOLDOUT, Limits(agreement=0.9))
    assert row.passed
    assert row.reason.startswith("1 held-out photo lost")
    assert row.accuracy == pytest.approx(0.97)
    assert row.accuracy_float == pytest.approx(0.98)


def test_a_model_that_is_better_than_the_float_one_passes() -> None:
    row = compared(REFERENCE, wrong(0, 4, 8), HOLDOUT, Limits())
    assert row.passed
    assert "no held-out photo lost" in row.reason


@pytest.mark.parametrize(("n", "most"), [(1, 1), (100, 1), (199, 1), (200, 2), (1000, 10)])
def test_one_photo_or_one_per_cent_may_be_lost(n: int, most: int) -> None:
    assert Limits().most_lost(n) == most


def test_enough_held_out_photos_are_not_called_few() -> None:
    assert "low n" not in verdict(REFERENCE, holdout=np.arange(200)).reason
    assert "low n: 199" in verdict(REFERENCE, holdout=np.arange(199)).reason


def test_a_single_photo_is_not_called_constant() -> None:
    row = compared(REFERENCE[:1], REFERENCE[:1], np.array([0]), Limits())
    assert row.passed


# --- on the runtimes themselves


@pytest.fixture
def photos(tmp_path: Path) -> tuple[Path, Logits, npt.NDArray[np.intp]]:
    """Photos for the colour model, its answers as numpy computes them, and the labels."""
    stack = np.random.default_rng(2).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    for i in range(20):
        stack[i, :, :, i % 3] |= 192
    np.save(tmp_path / "photos.npy", stack)
    logits = stack.mean(axis=(1, 2)).astype(np.float32)
    return tmp_path / "photos.npy", logits, logits.argmax(axis=1)


def test_every_installed_runtime_is_judged(tmp_path: Path, photos: tuple[Path, Logits, npt.NDArray[np.intp]]) -> None:
    pixels, reference, truth = photos
    (tmp_path / "model.tflite").write_bytes(colour_model.build(4, 4))
    found = gate.judge(tmp_path / "model.tflite", pixels, reference, truth, np.arange(20), Limits())
    assert [row.runtime for row in found.rows] == [each.name for each in runtime.installed()]
    assert found.passed == found.rows
    assert all(row.agreement == 1 and row.accuracy == 1 and row.largest_difference < 0.01 for row in found.rows)
    assert set(found.logits) == {row.runtime for row in found.rows}


def test_a_model_that_does_not_load_is_a_row_for_each_runtime(
    tmp_path: Path, photos: tuple[Path, Logits, npt.NDArray[np.intp]]
) -> None:
    pixels, reference, truth = photos
    (tmp_path / "model.tflite").write_bytes(b"no model")
    found = gate.judge(tmp_path / "model.tflite", pixels, reference, truth, np.arange(20), Limits())
    assert found.passed == ()
    assert len(found.rows) == len(runtime.installed())
    assert all("cannot load the model" in row.reason for row in found.rows)
    assert found.logits == {}


def test_the_accuracy_of_a_model_that_learned_from_all_photos_is_its_twin_s(
    tmp_path: Path, photos: tuple[Path, Logits, npt.NDArray[np.intp]]
) -> None:
    """The shipped model is right on every photo; what was held out from its twin, the twin answers upside down."""
    pixels, reference, truth = photos
    (tmp_path / "model.tflite").write_bytes(colour_model.build(4, 4))
    held = np.arange(5, 15)
    np.save(tmp_path / "held.npy", 255 - np.load(pixels)[held])
    twin = gate.Twin(tmp_path / "model.tflite", tmp_path / "held.npy", reference[held])
    found = gate.judge(tmp_path / "model.tflite", pixels, reference, truth, held, Limits(), twin)
    for row in found.rows:
        assert (row.n, row.n_agreement, row.agreement, row.accuracy_float) == (10, 20, 1.0, 1.0)
        assert row.accuracy < 0.5
        assert not row.passed
        assert "held-out photos wrong more than the float model" in row.reason


def test_no_runtime_proves_nothing(
    tmp_path: Path, photos: tuple[Path, Logits, npt.NDArray[np.intp]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "installed", tuple[Any, ...])
    with pytest.raises(ModelError, match="nothing can be proven"):
        gate.judge(tmp_path / "model.tflite", *photos, np.arange(20), Limits())


def test_the_output_step_is_that_of_the_runtimes_that_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that ran last, and failed, has no say in how far golden photos may differ."""
    said = {
        "ai_edge_litert": answers(REFERENCE),
        "tflite_runtime": replace(answers(-REFERENCE, "tflite_runtime"), output_step=9.0),
    }
    monkeypatch.setattr(runtime, "installed", lambda: [runtime.Installed(name, "2.3.0") for name in said])
    monkeypatch.setattr(run, "in_child", lambda model, pixels, runtime: said[runtime])
    found = gate.judge(Path("model"), Path("photos"), REFERENCE, TRUTH, HOLDOUT, Limits())
    assert [row.passed for row in found.rows] == [True, False]
    assert found.output_step == 0.05
    assert found.output_steps == {"ai_edge_litert": 0.05, "tflite_runtime": 9.0}
