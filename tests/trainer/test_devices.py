"""The device: what is said of it, which numbers it computes in, and that several share the work without changing it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trainer import devices
from trainer.devices import FULL, MIXED, Gpu, Machine, describe, jit_compile, precision

ROOT = Path(__file__).resolve().parent.parent.parent
NEW, OLD, UNKNOWN = Gpu("NVIDIA A30", (8, 0)), Gpu("NVIDIA GTX 1080", (6, 1)), Gpu("some GPU")


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        pytest.param(
            Machine(4), "processor (4 cores); no GPU: no NVIDIA driver is loaded.", id="a machine without a GPU"
        ),
        pytest.param(Machine(1), "processor (1 core); no GPU: no NVIDIA driver is loaded.", id="one core"),
        pytest.param(
            Machine(8, driver=True, hidden=True),
            "processor (8 cores); no GPU: CUDA_VISIBLE_DEVICES hides it.",
            id="hidden",
        ),
        pytest.param(
            Machine(8, driver=True, built_with_cuda=False),
            "processor (8 cores); no GPU: this TensorFlow was built without CUDA. Install another: "
            "pip install 'tensorflow[and-cuda]'.",
            id="a TensorFlow for processors",
        ),
        pytest.param(
            Machine(8, driver=True),
            "processor (8 cores); no GPU: TensorFlow cannot load CUDA's libraries. Install them: "
            "pip install 'tensorflow[and-cuda]'.",
            id="no libraries",
        ),
        pytest.param(Machine(8, (NEW,), driver=True), "GPU (NVIDIA A30), half precision", id="one GPU"),
        pytest.param(
            Machine(8, (NEW, OLD), driver=True),
            "2 GPUs (NVIDIA A30, NVIDIA GTX 1080), single precision",
            id="two, of which one has no tensor cores",
        ),
    ],
)
def test_what_trains_is_said_and_why_no_gpu_does(machine: Machine, expected: str) -> None:
    assert describe(machine) == expected


@pytest.mark.parametrize(
    ("wanted", "gpus", "expected"),
    [
        ("auto", [], FULL),
        ("auto", [NEW], MIXED),
        ("auto", [NEW, NEW], MIXED),
        ("auto", [Gpu("first with tensor cores", (7, 0))], MIXED),
        ("auto", [OLD], FULL),
        ("auto", [NEW, OLD], FULL),
        ("auto", [UNKNOWN], FULL),
        ("mixed", [], MIXED),
        ("float32", [NEW], FULL),
    ],
)
def test_half_precision_only_where_it_is_faster_or_asked_for(wanted: str, gpus: list[Gpu], expected: str) -> None:
    assert precision(wanted, gpus) == expected


@pytest.mark.parametrize(("gpus", "expected"), [(0, False), (1, True), (2, False)])
def test_xla_compiles_for_one_gpu_only(gpus: int, expected: bool) -> None:
    assert jit_compile(gpus) is expected


@pytest.fixture
def without_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing hints at a GPU."""
    monkeypatch.setattr(devices, "_NVIDIA", ())
    monkeypatch.setattr(devices, "_OTHERS", ())
    monkeypatch.setattr(sys, "platform", "linux")


class Tensorflow:
    """What :mod:`trainer.devices` asks of TensorFlow, on a machine with GPUs of our choice."""

    def __init__(self, *gpus: dict[str, Any]) -> None:
        self.grown: list[int] = []
        self.scopes: list[list[str]] = []
        self.in_use = False
        self.config = SimpleNamespace(
            list_physical_devices=lambda kind: list(range(len(gpus))) if kind == "GPU" else [],
            experimental=SimpleNamespace(get_device_details=gpus.__getitem__, set_memory_growth=self._grow),
        )
        self.test = SimpleNamespace(is_built_with_cuda=lambda: True)
        self.distribute = SimpleNamespace(MirroredStrategy=self._mirrored)

    def _grow(self, gpu: int, grow: bool) -> None:
        if self.in_use:
            raise RuntimeError("Physical devices cannot be modified after being initialized")
        assert grow
        self.grown.append(gpu)

    def _mirrored(self, names: list[str]) -> Any:
        self.scopes.append(names)
        return SimpleNamespace(scope=lambda: "a scope")


def pretend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *gpus: dict[str, Any]) -> Tensorflow:
    fake = Tensorflow(*gpus)
    monkeypatch.setitem(sys.modules, "tensorflow", fake)
    monkeypatch.setattr(devices, "_NVIDIA", (tmp_path,))
    monkeypatch.delenv(devices.HIDDEN_BY, raising=False)
    return fake


A30 = {"device_name": "NVIDIA A30", "compute_capability": (8, 0)}


def test_without_a_driver_tensorflow_is_not_asked(without_driver: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # an import of it fails
    assert "no NVIDIA driver is loaded" in describe()
    assert precision() == FULL
    assert not jit_compile()
    devices.prepare()
    with devices.strategy():
        pass


def test_two_gpus_are_found_and_share_the_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = pretend(monkeypatch, tmp_path, A30, A30)
    assert describe() == "2 GPUs (NVIDIA A30, NVIDIA A30), half precision"
    assert precision() == MIXED
    assert not jit_compile()
    found: Any = devices.strategy()
    assert found == "a scope"
    assert fake.scopes == [["GPU:0", "GPU:1"]]


def test_one_gpu_needs_no_strategy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = pretend(monkeypatch, tmp_path, A30)
    with devices.strategy():
        assert fake.scopes == []
    assert jit_compile()


def test_a_gpu_s_memory_is_taken_as_it_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = pretend(monkeypatch, tmp_path, A30, A30)
    devices.prepare()
    assert fake.grown == [0, 1]
    fake.in_use = True
    devices.prepare()


@pytest.mark.parametrize("value", ["", "-1", " -1 "])
def test_gpus_that_the_user_hides_are_said_to_be_hidden(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    pretend(monkeypatch, tmp_path)
    assert "cannot load CUDA's libraries" in describe()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert "CUDA_VISIBLE_DEVICES hides it" in describe()


@pytest.mark.needs("tensorflow")
def test_keras_is_there_after_an_early_load() -> None:
    devices.load_early().join(timeout=120)
    assert "keras" in sys.modules


# --- several devices, tried with two processors that TensorFlow takes for two

_TRAIN = """
import json, sys
import numpy as np
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from trainer import devices

def trained(names):
    keras.utils.set_random_seed(5)
    random = np.random.default_rng(1)
    photos, labels = random.random((32, 8, 8, 3), np.float32), np.eye(3, dtype=np.float32)[random.integers(0, 3, 32)]
    with devices.mirrored(names):
        model = keras.Sequential([
            keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, dtype="float32")])
        model.compile(keras.optimizers.Adam(1e-2), keras.losses.CategoricalCrossentropy(from_logits=True))
    model.fit(photos, labels, batch_size=8, epochs=3, shuffle=False, verbose=0)
    replicas = getattr(model.distribute_strategy, "num_replicas_in_sync", 1)
    return replicas, [weight.tolist() for weight in model.get_weights()]

print(json.dumps([trained([]), trained(["CPU:0", "CPU:1"])]))
"""


@pytest.mark.needs("tensorflow")
def test_two_devices_learn_what_one_learns() -> None:
    """In a process of its own: TensorFlow divides a processor only before it is used."""
    done = subprocess.run(
        [sys.executable, "-c", _TRAIN], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (one, alone), (two, shared) = json.loads(done.stdout.splitlines()[-1])
    assert (one, two) == (1, 2)
    for weight, other in zip(alone, shared, strict=True):
        assert np.array(other) == pytest.approx(np.array(weight), abs=1e-4)
    learned = np.abs(np.array(alone[-1])).max()  # biases begin at zero
    assert learned > 1e-3, "it learned nothing, so it proves nothing"
