"""The TFLite runtimes, which are installed and which a bundle may run on: the only file that names one.

``ai_edge_litert`` is used where it is installed, else ``tflite_runtime``. On int8 models LiteRT is many times
faster, since it hands them to XNNPACK. TensorFlow is never imported: ``tflite_runtime`` crashes beside it.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.errors import ModelError

if TYPE_CHECKING:
    from edge.model.bundle import Manifest, RuntimePass

# module -> (distribution, module that holds the interpreter)
_RUNTIMES = {
    "ai_edge_litert": ("ai-edge-litert", "ai_edge_litert.interpreter"),
    "tflite_runtime": ("tflite-runtime", "tflite_runtime.interpreter"),
}
NAMES = tuple(_RUNTIMES)
KERNELS = ("default", "reference")
MAX_MODEL_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Installed:
    """A runtime on this machine: ``name`` as in a manifest, ``version`` as its distribution says."""

    name: str
    version: str


def installed() -> tuple[Installed, ...]:
    """The runtimes on this machine, the preferred one first. None of them is imported."""
    from importlib import metadata  # 2 MB that the agent, which is told its runtime, can do without

    found = []
    for name, (distribution, _) in _RUNTIMES.items():
        if importlib.util.find_spec(name) is not None:
            found.append(Installed(name, metadata.version(distribution)))
    return tuple(found)


def module(name: str) -> Any:
    """The module of a runtime that holds its interpreter, imported.

    Raises:
        ModelError: with code ``no runtime``: no such runtime is known, or it is not installed.
    """
    if name not in _RUNTIMES:
        raise ModelError(f"runtime {name!r} is not known, expected one of {', '.join(NAMES)}.", code="no runtime")
    try:
        return importlib.import_module(_RUNTIMES[name][1])
    except ImportError as error:
        raise ModelError(f"runtime {name} is not installed: {error}.", code="no runtime") from error


def preferred() -> str:
    """The first installed one.

    Raises:
        ModelError: with code ``no runtime``: there is none.
    """
    names = [runtime.name for runtime in installed()]
    if not names:
        raise ModelError(
            "no TFLite runtime is installed. Install ai-edge-litert, or tflite-runtime on Python 3.11.",
            code="no runtime",
        )
    return names[0]


def usable(manifest: Manifest) -> str:
    """The first installed runtime among those that passed the gate, in a version that the gate's verdict holds for.

    Raises:
        ModelError: there is none.
    """
    here = installed()
    for candidate in here:
        if any(_covers(entry, candidate) for entry in manifest.runtimes):
            return candidate.name
    passed = [f"{entry.name} {entry.version_min} to below {entry.version_below}" for entry in manifest.runtimes]
    raise ModelError(
        f"bundle {manifest.name} passed the gate on {', '.join(passed) or 'no runtime'}; "
        f"installed here: {', '.join(f'{r.name} {r.version}' for r in here) or 'none'}. Install one that passed.",
        code="no runtime",
    )


def _covers(entry: RuntimePass, candidate: Installed) -> bool:
    low, high = _release(entry.version_min), _release(entry.version_below)
    return candidate.name == entry.name and low <= _release(candidate.version) < high


def _release(version: str) -> tuple[int, ...]:
    """The numbers at the start of a version: ``2.14.0rc1`` to (2, 14, 0)."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(number) for number in numbers.group().split(".")) if numbers else ()
