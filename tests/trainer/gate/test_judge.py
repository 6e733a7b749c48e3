"""Which runtime and kernels answer which photos, and whose verdict counts; on the runtimes themselves, and on stand-ins
for what no runtime does by itself."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Sequence
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
from trainer.gate import About, Emulator, Limits, children
from trainer.gate.judge import _some

Logits = npt.NDArray[np.float32]
Photos = tuple[Path, Logits, npt.NDArray[np.intp]]
INSTALLED = [each.name for each in runtime.installed()]
REFERENCE_DECIDES = "tflite_runtime" in INSTALLED and platform.machine() == "x86_64"
N = 20


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    """Photos for the colour model, its answers as numpy computes them, and the labels."""
    stack = np.random.default_rng(2).integers(0, 256, (N, 4, 4, 3), dtype=np.uint8)
    for i in range(N):
        stack[i, :, :, i % 3] |= 192
    np.save(tmp_path / "photos.npy", stack)
    logits = stack.mean(axis=(1, 2)).astype(np.float32)
    return tmp_path / "photos.npy", logits, logits.argmax(axis=1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The colour model."""
    (tmp_path / "model.tflite").write_bytes(colour_model.build(4, 4))
    return tmp_path / "model.tflite"


# --- on the runtimes themselves


def test_every_installed_runtime_is_judged(model: Path, photos: Photos) -> None:
    found = gate.judge(model, *photos, np.arange(N), Limits())
    deciding = [row for row in found.rows if row.deciding]
    assert [row.runtime for row in deciding] == INSTALLED
    assert found.passed == tuple(deciding)
    assert all(row.agreement == 1 and row.accuracy == 1 and row.largest_difference < 0.01 for row in found.rows)
    assert all(row.ms > 0 and row.rss_mib > 5 for row in found.rows)
    assert sorted(found.logits) == sorted(found.decided) == sorted(found.output_steps) == sorted(INSTALLED)
    assert all(np.allclose(logits, photos[1], atol=1e-3) for logits in found.logits.values())
    assert found.unloadable == ()


@pytest.mark.skipif(not REFERENCE_DECIDES, reason="only tflite-runtime on x86-64 differs from a Pi")
def test_reference_kernels_decide_where_the_default_ones_are_not_the_pi_s(model: Path, photos: Photos) -> None:
    found = gate.judge(model, *photos, np.arange(8), Limits(reference_photos=12))
    rows = {row.kernels: row for row in found.rows if row.runtime == "tflite_runtime"}
    assert (rows["reference"].deciding, rows["default"].deciding) == (True, False)
    assert (rows["reference"].n_agreement, rows["default"].n_agreement) == (12, N)
    assert rows["reference"].n == rows["default"].n == 8
    assert rows["default"].reason.endswith("reported only, the reference kernels decide here")
    assert len(found.decided["tflite_runtime"].photos) == 12
    assert set(range(8)) <= set(found.decided["tflite_runtime"].photos.tolist())
    assert [row.deciding for row in found.rows][:2] == [True, True]


def test_a_model_that_does_not_load_is_a_row_for_each_runtime(tmp_path: Path, photos: Photos) -> None:
    (tmp_path / "model.tflite").write_bytes(b"no model")
    found = gate.judge(tmp_path / "model.tflite", *photos, np.arange(N), Limits())
    assert found.passed == ()
    assert found.unloadable == tuple(INSTALLED)
    assert all("cannot load the model" in row.reason and not row.passed for row in found.rows)
    assert [row.runtime for row in found.rows if row.deciding] == INSTALLED
    assert not found.logits
    assert not found.decided


def test_a_model_that_breaks_the_contract_is_not_called_unloadable(model: Path, photos: Photos) -> None:
    """Another way of converting would not help."""
    found = gate.judge(model, _of_another_size(photos), *photos[1:], np.arange(N), Limits())
    assert not found.passed
    assert not found.unloadable
    assert all("expects uint8 pixels" in row.reason for row in found.rows)


def _of_another_size(photos: Photos) -> Path:
    wide = photos[0].with_name("wide.npy")
    np.save(wide, np.zeros((N, 4, 5, 3), np.uint8))
    return wide


def test_the_accuracy_of_a_model_that_learned_from_all_photos_is_its_twin_s(model: Path, photos: Photos) -> None:
    """The shipped model is right on every photo; what was held out from its twin, the twin answers upside down."""
    pixels, reference, truth = photos
    held = np.arange(5, 15)
    np.save(pixels.with_name("held.npy"), 255 - np.load(pixels)[held])
    twin = gate.Twin(model, pixels.with_name("held.npy"), reference[held])
    found = gate.judge(model, pixels, reference, truth, held, Limits(), twin)
    for row in found.rows:
        assert (row.n, row.n_agreement, row.agreement, row.accuracy_float) == (10, N, 1.0, 1.0)
        assert row.accuracy < 0.5
        assert not row.passed
        assert "held-out photos wrong more than the float model" in row.reason


def test_a_twin_that_agrees_less_than_the_shipped_model_is_told_apart(model: Path, photos: Photos) -> None:
    """The float twin is as often wrong, on other photos than the quantized one: nothing is lost but the agreement."""
    pixels, reference, truth = photos
    held = np.arange(12)
    np.save(pixels.with_name("held.npy"), np.load(pixels)[held])
    other = reference[held]
    other[:4] = np.roll(other[:4], 1, axis=1)
    twin = gate.Twin(model, pixels.with_name("held.npy"), other)
    found = gate.judge(model, pixels, reference, truth, held, Limits(), twin)
    for row in found.rows:
        assert row.agreement == 1
        assert not row.passed
        assert row.reason.startswith("it gives 4 of 12 held-out photos another label than the float model; at most 2")


def test_progress_ends_with_the_work_that_was_announced(model: Path, photos: Photos) -> None:
    counted, lock = [0], threading.Lock()

    def done(count: int) -> None:
        with lock:
            counted[0] += count

    holdout = np.arange(6)
    np.save(photos[0].with_name("held.npy"), np.load(photos[0])[holdout])
    twin = gate.Twin(model, photos[0].with_name("held.npy"), photos[1][holdout])
    limits, about = Limits(reference_photos=9), About(float_model=lambda pixels: pixels.mean(axis=(1, 2)))
    gate.judge(model, *photos, holdout, limits, twin, about=about, done=done)
    assert counted[0] == gate.work(N, holdout, photos[2], limits, twin=True, tried=True)


def test_no_runtime_proves_nothing(model: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "installed", tuple[Any, ...])
    with pytest.raises(ModelError, match="nothing can be proven"):
        gate.judge(model, *photos, np.arange(N), Limits())


# --- on stand-ins


class Runtimes:
    """Both runtimes on x86-64, whose answers are worked out here. ``change`` turns what numpy says into what each says,
    or raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, change: Callable[[str, str, Logits], Logits]) -> None:
        self.change = change
        self.asked: list[tuple[str, str, int]] = []
        names = ("ai_edge_litert", "tflite_runtime")
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(runtime, "installed", lambda: tuple(runtime.Installed(name, "2.3.0") for name in names))
        monkeypatch.setattr(run, "in_child", self.in_child)

    def in_child(
        self, model: Path, pixels: Path, *, runtime: str, kernels: str, photos: Sequence[int], **options: object
    ) -> run.Answers:
        self.asked.append((runtime, kernels, len(photos)))
        logits = np.load(pixels)[photos].mean(axis=(1, 2)).astype(np.float32)
        step = 9.0 if runtime == "tflite_runtime" else 0.05
        logits = self.change(runtime, kernels, logits)
        return run.Answers(logits, 1.0, 50.0, runtime, "2.3.0", "x86_64", kernels, step)


def test_kernels_that_are_only_reported_may_differ(
    model: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(name: str, kernels: str, logits: Logits) -> Logits:
        return -logits if (name, kernels) == ("tflite_runtime", "default") else logits

    Runtimes(monkeypatch, change)
    found = gate.judge(model, *photos, np.arange(N), Limits())
    assert [row.runtime for row in found.passed] == ["ai_edge_litert", "tflite_runtime"]
    assert [(row.kernels, row.passed) for row in found.rows] == [
        ("default", True), ("reference", True), ("default", False),
    ]  # fmt: skip


def test_kernels_that_decide_may_not(model: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    Runtimes(monkeypatch, lambda name, kernels, logits: -logits if kernels == "reference" else logits)
    found = gate.judge(model, *photos, np.arange(N), Limits())
    assert [row.runtime for row in found.passed] == ["ai_edge_litert"]
    assert found.output_step == 0.05
    assert found.output_steps == {"ai_edge_litert": 0.05, "tflite_runtime": 9.0}


def test_where_reference_kernels_cannot_run_it_the_default_ones_decide_and_say_so(
    model: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(name: str, kernels: str, logits: Logits) -> Logits:
        if kernels == "reference":
            raise ModelError("tflite_runtime cannot load the model: no such kernel", code="load")
        return logits

    runtimes = Runtimes(monkeypatch, change)
    found = gate.judge(model, *photos, np.arange(N), Limits())
    assert [(row.runtime, row.kernels) for row in found.passed] == [
        ("ai_edge_litert", "default"), ("tflite_runtime", "default"),
    ]  # fmt: skip
    assert found.passed[1].reason.endswith("the reference kernels cannot run it, so the default ones decide")
    assert "reference kernels" not in found.passed[0].reason
    assert found.unloadable == ()
    assert found.rows[-1].reason == "tflite_runtime cannot load the model: no such kernel"
    assert sum(kernels == "reference" for _, kernels, _ in runtimes.asked) <= children.cores()  # then it is known


def test_reference_kernels_do_not_save_a_runtime_whose_default_ones_crash(
    model: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(name: str, kernels: str, logits: Logits) -> Logits:
        if (name, kernels) == ("tflite_runtime", "default"):
            raise ModelError("tflite_runtime died with status -11.", code="child")
        return logits

    Runtimes(monkeypatch, change)
    found = gate.judge(model, *photos, np.arange(N), Limits())
    assert [row.runtime for row in found.passed] == ["ai_edge_litert"]
    assert found.unloadable == ()
    assert "died with status -11" in {row.kernels: row for row in found.rows if not row.passed}["default"].reason


def test_answers_that_are_not_finite_are_counted(model: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    Runtimes(monkeypatch, lambda name, kernels, logits: np.where(logits > 228, np.float32(np.nan), logits))
    found = gate.judge(model, *photos, np.arange(N), Limits())
    assert found.passed == ()
    count = int((photos[1] > 228).any(axis=1).sum())
    assert 0 < count < N
    assert found.rows[0].not_finite == count
    assert found.rows[0].reason == f"it answers {count} of {N} photos with numbers that are not finite"


def test_red_and_blue_exchanged_is_found_by_trying(
    model: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A linear network, of which exchanged colours are not exchanged labels."""
    weights = np.array([[3, -1, 0], [0, 2, -1], [-1, -1, 1]], np.float32) / 40

    def float_model(pixels: npt.NDArray[np.uint8]) -> Logits:
        return np.asarray(pixels.mean(axis=(1, 2)) @ weights, np.float32)

    about = About(float_model=float_model)
    reference = float_model(np.load(photos[0]))
    truth = reference.argmax(axis=1)
    Runtimes(monkeypatch, lambda name, kernels, logits: logits[:, ::-1] @ weights)
    found = gate.judge(model, photos[0], reference, truth, np.arange(N), Limits(), about=about)
    assert all(row.reason.startswith("it sees red as blue") and not row.passed for row in found.rows)
    Runtimes(monkeypatch, lambda name, kernels, logits: logits @ weights)
    assert len(gate.judge(model, photos[0], reference, truth, np.arange(N), Limits(), about=about).passed) == 2


@pytest.mark.parametrize("photos_count", [1, children.FIRST, children.FIRST + 1])
def test_answers_keep_the_photos_order_whatever_their_number(
    model: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch, photos_count: int
) -> None:
    Runtimes(monkeypatch, lambda name, kernels, logits: logits)
    pixels, reference, truth = photos
    np.save(pixels, np.load(pixels)[:photos_count])
    found = gate.judge(model, pixels, reference[:photos_count], truth[:photos_count], np.array([0]), Limits())
    assert np.allclose(found.logits["tflite_runtime"], reference[:photos_count])
    assert len(found.passed) == 2


def test_an_emulated_device_has_a_say(model: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers the held-out photos and some others; nothing of its time or memory is taken for a Pi's."""
    runtimes = Runtimes(monkeypatch, lambda name, kernels, logits: logits)

    class Device(Emulator):
        def in_child(self, *arguments: Any, **options: Any) -> run.Answers:
            answers = runtimes.in_child(*arguments, **options)
            worse = -answers.logits if options["runtime"] == "tflite_runtime" else answers.logits
            return replace(answers, logits=worse, architecture="aarch64", ms=400.0)

    emulated = (runtime.Installed("tflite_runtime", "2.14.0"), runtime.Installed("ai_edge_litert", "2.3.0"))
    device = Device("qemu", Path("root"), Path("code"), {}, emulated)
    found = gate.judge(model, *photos, np.arange(5), Limits(emulated_photos=9), emulator=device)
    rows = {row.runtime: row for row in found.rows if row.architecture == "aarch64"}
    assert [row.runtime for row in found.passed] == ["ai_edge_litert"]
    assert rows["tflite_runtime"].reason.startswith("emulated: it gets 5 of 5 held-out photos wrong")
    assert rows["ai_edge_litert"].passed
    assert (rows["ai_edge_litert"].n_agreement, rows["ai_edge_litert"].n) == (9, 5)
    assert all((row.deciding, row.ms, row.rss_mib) == (True, 0, 0) for row in rows.values())
    assert len(found.decided["ai_edge_litert"].photos) == N  # this machine's


# --- which photos


def test_the_slow_kernels_answer_all_held_out_photos_and_others_of_every_label() -> None:
    truth = np.array([0] * 300 + [1] * 60 + [2] * 5)
    holdout = np.arange(0, 300, 10)
    chosen = _some(truth, holdout, 100)
    assert len(chosen) == len(set(chosen.tolist())) == 100
    assert set(holdout.tolist()) <= set(chosen.tolist())
    others = np.setdiff1d(chosen, holdout)
    assert np.bincount(truth[others]).tolist() == [33, 32, 5]
    assert (chosen == _some(truth, holdout, 100)).all()


@pytest.mark.parametrize(("held", "least", "count"), [(365, 100, 365), (120, 100, 120), (0, 1000, 365)])
def test_all_are_taken_where_there_are_no_more(held: int, least: int, count: int) -> None:
    truth = np.arange(365) % 3
    assert len(_some(truth, np.arange(held), least)) == count


def test_about_is_optional(model: Path, photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    Runtimes(monkeypatch, lambda name, kernels, logits: logits)
    about = About(variant="float16", labels=colour_model.LABELS)
    assert {row.variant for row in gate.judge(model, *photos, np.arange(N), Limits(), about=about).rows} == {"float16"}
    assert gate.judge(model, *photos, np.arange(N), Limits()).rows[0].variant == "int8"
