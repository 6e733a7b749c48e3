"""Which processor trains: finds GPUs, says why there is none, and sets TensorFlow up for what there is.

Where nothing hints at a GPU, TensorFlow, which takes seconds to load, is not even imported to look for one.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

TENSOR_CORES = (7, 0)
"""The first compute capability of NVIDIA GPUs that multiply float16 matrices several times faster than float32."""
FULL, MIXED = "float32", "mixed_float16"
HIDDEN_BY = "CUDA_VISIBLE_DEVICES"
_NVIDIA = (Path("/proc/driver/nvidia/version"), Path("/dev/nvidiactl"), Path("/usr/lib/wsl/lib/libcuda.so"))
_OTHERS = (Path("/dev/kfd"),)
"""AMD's driver; what TensorFlow makes of it depends on how it was built."""


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, and its compute capability if the driver says it."""

    name: str
    capability: tuple[int, int] | None = None


@dataclass(frozen=True)
class Machine:
    """What decides the device.

    Attributes:
        cores: of the processor, that this process may use.
        gpus: those that TensorFlow uses.
        driver: whether an NVIDIA driver is loaded.
        built_with_cuda: whether this TensorFlow can use an NVIDIA GPU at all; not looked up without a driver.
        hidden: ``CUDA_VISIBLE_DEVICES`` names no GPU.
    """

    cores: int
    gpus: tuple[Gpu, ...] = ()
    driver: bool = False
    built_with_cuda: bool = True
    hidden: bool = False


def machine() -> Machine:
    """Look at this one. No memory of a GPU is taken."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    hidden = os.environ.get(HIDDEN_BY, "0").strip() in ("", "-1")
    driver = any(path.exists() for path in _NVIDIA)
    if not has_gpu():
        return Machine(cores, (), driver, not driver or _built_with_cuda(), hidden)
    return Machine(cores, tuple(map(_details, _gpus())), driver, True, hidden)


def describe(found: Machine | None = None) -> str:
    """Which device trains, and why no GPU does if there is none, in one line.

    Args:
        found: this machine if None.
    """
    found = found or machine()
    if found.gpus:
        count = "GPU" if len(found.gpus) == 1 else f"{len(found.gpus)} GPUs"
        numbers = "half" if precision("auto", found.gpus) == MIXED else "single"
        return f"{count} ({', '.join(gpu.name for gpu in found.gpus)}), {numbers} precision"
    cores = f"{found.cores} core{'s' * (found.cores != 1)}"
    return f"processor ({cores}); no GPU: {_why_none(found)}"


def precision(wanted: str = "auto", gpus: Sequence[Gpu] | None = None) -> str:
    """What the layers that learn compute in, as a Keras dtype policy.

    Args:
        wanted: ``auto``, ``float32`` or ``mixed``. ``auto`` is half precision only if every GPU has tensor cores: on a
            processor, and on older GPUs, it would be slower.
        gpus: this machine's if None.

    Returns:
        ``float32`` or ``mixed_float16``. Weights are float32 in both, and the layer that gives logits must be.
    """
    if wanted != "auto":
        return MIXED if wanted == "mixed" else FULL
    gpus = machine().gpus if gpus is None else gpus
    fast = all(gpu.capability is not None and gpu.capability >= TENSOR_CORES for gpu in gpus)
    return MIXED if gpus and fast else FULL


def prepare() -> None:
    """Have TensorFlow take a GPU's memory as it needs it, not all at once. Call it before a network is built."""
    if not has_gpu():
        return
    import tensorflow as tf

    for gpu in _gpus():
        with contextlib.suppress(RuntimeError):  # it is in use already
            tf.config.experimental.set_memory_growth(gpu, True)


def load_early() -> Thread:
    """Start to import Keras and TensorFlow, which takes seconds, while the caller does something else.

    Whoever imports them meanwhile waits for it. An error comes again there, where it can be said.
    """

    def load() -> None:
        with contextlib.suppress(Exception):
            import keras  # noqa: F401

    thread = Thread(target=load, name="load-keras", daemon=True)
    thread.start()
    return thread


def has_gpu() -> bool:
    """Whether TensorFlow uses a GPU."""
    if sys.platform == "linux" and not any(path.exists() for path in (*_NVIDIA, *_OTHERS)):
        return False
    return bool(_gpus())


def jit_compile(gpus: int | None = None) -> bool:
    """What ``compile(jit_compile=...)`` should be: XLA fuses what one GPU does.

    On a processor it made a step of fine-tuning EfficientNet-Lite0 14 times slower, and with several replicas each
    would compile for itself.

    Args:
        gpus: how many; this machine's if None.
    """
    if gpus is None:
        gpus = len(_gpus()) if has_gpu() else 0
    return gpus == 1


def strategy() -> contextlib.AbstractContextManager[Any]:
    """A scope to build and compile a model in: over all GPUs if there are several, else one that does nothing."""
    return mirrored([f"GPU:{i}" for i in range(len(_gpus()))] if has_gpu() else [])


def mirrored(names: Sequence[str]) -> contextlib.AbstractContextManager[Any]:
    """The scope over some devices, such as ``GPU:0``: each computes an equal share of every batch, and their gradients
    are added up. Fewer than two need none."""
    if len(names) < 2:
        return contextlib.nullcontext()
    import tensorflow as tf

    scope: contextlib.AbstractContextManager[Any] = tf.distribute.MirroredStrategy(list(names)).scope()
    return scope


def _why_none(found: Machine) -> str:
    if not found.driver:
        return "no NVIDIA driver is loaded."
    if found.hidden:
        return f"{HIDDEN_BY} hides it."
    if not found.built_with_cuda:
        return "this TensorFlow was built without CUDA. Install another: pip install 'tensorflow[and-cuda]'."
    return "TensorFlow cannot load CUDA's libraries. Install them: pip install 'tensorflow[and-cuda]'."


def _built_with_cuda() -> bool:
    import tensorflow as tf

    return bool(tf.test.is_built_with_cuda())


def _gpus() -> list[Any]:
    import tensorflow as tf

    return list(tf.config.list_physical_devices("GPU"))


def _details(gpu: Any) -> Gpu:
    import tensorflow as tf

    details = tf.config.experimental.get_device_details(gpu)
    return Gpu(str(details.get("device_name", "GPU")), details.get("compute_capability"))
