"""Which runtimes there are, and which of them a bundle may run on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edge.errors import ModelError
from edge.model import runtime
from edge.model.bundle import RuntimePass
from edge.model.runtime import Installed
from tests.fakes import tiny

LITERT = "ai_edge_litert"
PASSED = tuple(
    RuntimePass(name, version, "3", "x86_64", "default", 100, 0.9, 0.91, 200, 0.99)
    for name, version in ((LITERT, "2.3.0"), ("tflite_runtime", "2.14.0"))
)


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        pytest.param([(LITERT, "2.3.0"), ("tflite_runtime", "2.14.0")], LITERT, id="both, the preferred one"),
        pytest.param([("tflite_runtime", "2.14.0")], "tflite_runtime", id="the other alone"),
        pytest.param([(LITERT, "2.3.0")], LITERT, id="the least version"),
        pytest.param([(LITERT, "2.10.1")], LITERT, id="2.10 is after 2.3"),
        pytest.param([(LITERT, "2.99.9")], LITERT, id="the last of the major version"),
        pytest.param([(LITERT, "2.4.0rc1")], LITERT, id="a release candidate"),
        pytest.param([(LITERT, "2.2.9"), ("tflite_runtime", "2.14.0")], "tflite_runtime", id="the preferred too old"),
    ],
)
def test_the_first_installed_runtime_that_passed_is_used(
    monkeypatch: pytest.MonkeyPatch, installed: list[tuple[str, str]], expected: str
) -> None:
    monkeypatch.setattr(runtime, "installed", lambda: tuple(Installed(*each) for each in installed))
    assert runtime.usable(tiny.manifest(runtimes=PASSED)) == expected


@pytest.mark.parametrize(
    "installed",
    [
        pytest.param([(LITERT, "2.2.9")], id="too old"),
        pytest.param([(LITERT, "3.0.0")], id="the next major version"),
        pytest.param([(LITERT, "3")], id="exactly the upper end"),
        pytest.param([(LITERT, "unknown")], id="a version that is none"),
        pytest.param([("onnx", "2.5.0")], id="one that was never tried"),
        pytest.param([], id="none"),
    ],
)
def test_no_runtime_that_passed_is_refused(monkeypatch: pytest.MonkeyPatch, installed: list[tuple[str, str]]) -> None:
    monkeypatch.setattr(runtime, "installed", lambda: tuple(Installed(*each) for each in installed))
    with pytest.raises(ModelError, match=r"passed the gate on ai_edge_litert 2\.3\.0 to below 3") as caught:
        runtime.usable(tiny.manifest(runtimes=PASSED))
    assert caught.value.code == "no runtime"


def test_asking_what_is_installed_imports_nothing() -> None:
    script = (
        "import sys; from edge.model import runtime; found = runtime.installed(); "
        "assert found and all(r.version[0].isdigit() for r in found); "
        "print([name for name in (*runtime.NAMES, 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
