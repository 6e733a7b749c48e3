"""The emulated device: it answers as this machine does where kernels are exact; what is missing is said with a cure."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.errors import ConfigError, ModelError
from edge.model import run
from tests import capabilities, colour_model
from trainer import gate
from trainer.gate import Emulator, Limits, emulate


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """Five photos of random colours."""
    np.save(tmp_path / "photos.npy", np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8))
    return tmp_path / "photos.npy"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The colour model."""
    (tmp_path / "model.tflite").write_bytes(colour_model.build(4, 4))
    return tmp_path / "model.tflite"


@pytest.fixture(scope="module")
def device() -> Emulator:
    """Made once for all test runs."""
    return emulate.prepare(capabilities.emulator_folder())


@pytest.mark.needs("emulator")
def test_the_device_s_wheels_answer(device: Emulator, model: Path, stack: Path) -> None:
    assert {each.name for each in device.runtimes} == {"ai_edge_litert", "tflite_runtime"}
    wanted = np.load(stack)[[3, 1]].mean(axis=(1, 2))
    for each in device.runtimes:
        found = device.in_child(model, stack, runtime=each.name, photos=[3, 1])
        assert found.logits == pytest.approx(wanted, abs=1e-3)
        assert (found.runtime, found.version, found.kernels) == (each.name, each.version, "default")
        assert found.architecture == device.architecture == "aarch64"


@pytest.mark.needs("emulator")
def test_its_rows_decide(device: Emulator, model: Path, stack: Path) -> None:
    reference = np.load(stack).mean(axis=(1, 2)).astype(np.float32)
    truth = reference.argmax(axis=1)
    found = gate.judge(model, stack, reference, truth, np.arange(3), Limits(), emulator=device)
    rows = [row for row in found.rows if row.architecture == "aarch64"]
    assert {row.runtime for row in rows} == {each.name for each in device.runtimes}
    assert all(
        row.passed and row.deciding and row.reason.startswith("emulated: no held-out photo lost") for row in rows
    )


@pytest.mark.needs("emulator")
def test_a_model_that_does_not_load_there_is_refused(device: Emulator, tmp_path: Path, stack: Path) -> None:
    (tmp_path / "broken.tflite").write_bytes(b"no model")
    with pytest.raises(ModelError, match="cannot load the model") as caught:
        device.in_child(tmp_path / "broken.tflite", stack, runtime="ai_edge_litert")
    assert caught.value.code == "load"


@pytest.mark.needs("emulator")
def test_what_was_made_is_found_again(device: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched, though nothing could be."""
    monkeypatch.setattr(emulate, "_do", lambda command, variables=None: pytest.fail(f"{command} was run"))
    found = emulate.prepare(device.root.parent)
    assert (found.root, found.packages, found.runtimes) == (device.root, device.packages, device.runtimes)
    assert (found.code / "edge" / "model" / "run.py").is_file()


# --- what is missing


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, on a machine that is no Pi."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    return folder


def program(folder: Path, name: str, script: str = "exit 0") -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_without_qemu_the_cure_is_said(programs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"qemu-aarch64-static is not on PATH.* apt-get install qemu-user-static"):
        emulate.prepare(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_without_apt_the_cure_is_said(programs: Path, tmp_path: Path) -> None:
    program(programs, emulate.QEMU)
    with pytest.raises(ConfigError, match="made with Debian's apt-get"):
        emulate.prepare(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exit 0", "apt knows no mirror"),
        ("[ $1 = indextargets ] && echo mirror && exit; echo first >&2; echo E: last >&2; exit 100", "says: E: last"),
    ],
    ids=["no mirror", "no network"],
)  # fmt: skip
def test_an_apt_that_fails_is_quoted_and_leaves_nothing_half_made(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    for name in (emulate.QEMU, "dpkg"):
        program(programs, name)
    program(programs, "apt-get", script)
    monkeypatch.setattr(emulate, "_KEYS", programs / "dpkg")
    with pytest.raises(ConfigError, match=says):
        emulate.prepare(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_machine_of_that_architecture_needs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(ConfigError, match="this machine is aarch64 itself"):
        emulate.prepare(tmp_path)


def test_the_device_gets_our_code_and_nothing_of_this_machine_s_packages(tmp_path: Path) -> None:
    emulate._copy_code(tmp_path / "code")
    assert [each.name for each in (tmp_path / "code").iterdir()] == ["edge"]
    environment = {"PYTHONPATH": str(tmp_path / "code"), "PATH": "/usr/bin"}
    command = [sys.executable, "-P", "-c", "import edge.model.run as run; print(run.__file__)"]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == tmp_path / "code" / "edge" / "model" / "run.py"
    assert run.__file__ != done.stdout.strip()
