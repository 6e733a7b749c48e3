"""Runs models over many photos in child processes side by side, one thread each, as many as there are cores.

What is timed runs alone, before the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge.errors import ModelError
from edge.model import run
from trainer.gate.emulate import Emulator
from trainer.gate.rows import Indices

FIRST = 10
"""So many photos are answered alone, for the time, before others run beside."""
_CHUNK_S, _LEAST_S = 5.0, 1.0
"""About so long a child lives: long enough that its start does not matter, short enough for a bar to move."""
_SLOWER = {"default": 1.0, "reference": 4.0}
_EMULATED_MS = 500.0
"""Guesses, by which work is cut; only the bar depends on them."""

Answer = run.Answers | ModelError


@dataclass(frozen=True, eq=False)
class Ask:
    """One model on one runtime, over some photos of a stack.

    Attributes:
        model, pixels: the ``.tflite`` and the ``.npy`` stack.
        runtime, kernels: where.
        photos: which of the stack.
        timed: whether ``ms`` is to be measured.
        emulator: the device that runs it; this machine if None.
    """

    model: Path
    pixels: Path
    runtime: str
    photos: Indices
    kernels: str = "default"
    timed: bool = False
    emulator: Emulator | None = None


def answer(asks: Sequence[Ask], done: Callable[[int], None]) -> dict[Ask, Answer]:
    """Answer all.

    Args:
        asks: what to run.
        done: called with the number of photos answered since the last call, from any thread; in the end with all.

    Returns:
        For each its answers in the order of ``photos``, or why there are none.
    """
    found: dict[Ask, list[Answer]] = {ask: [] for ask in asks}
    for ask in (ask for ask in asks if ask.timed):
        found[ask].append(_run(replace(ask, photos=ask.photos[:FIRST])))
        done(len(ask.photos[:FIRST]))
    ms = {ask.runtime: each[0].ms for ask, each in found.items() if each and isinstance(each[0], run.Answers)}
    chunks = [(ask, chunk) for ask in asks for chunk in _chunks(ask, ms.get(ask.runtime, 50.0))]
    chunks.sort(
        key=lambda each: -_cost(each[0], ms.get(each[0].runtime, 50.0))
    )  # the slow ones are not left to the end

    def one(ask: Ask, chunk: Indices) -> Answer:
        failed = next((each for each in found[ask] if isinstance(each, ModelError)), None)
        said = failed or _run(replace(ask, photos=chunk))
        if failed is None and isinstance(said, ModelError):
            found[ask].append(said)  # the others of this ask need not start
        done(len(chunk))
        return said

    with ThreadPoolExecutor(cores()) as pool:
        results = [(ask, pool.submit(one, ask, chunk)) for ask, chunk in chunks]
        for ask, result in results:
            found[ask].append(result.result())
    return {ask: _joined(each) for ask, each in found.items()}


def cores() -> int:
    """How many children run side by side."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(ask: Ask) -> Answer:
    here = run.in_child if ask.emulator is None else ask.emulator.in_child
    try:
        return here(
            ask.model, ask.pixels, runtime=ask.runtime, kernels=ask.kernels, photos=ask.photos.tolist(),
            keep_not_finite=True,
        )  # fmt: skip
    except ModelError as error:
        return error


def _cost(ask: Ask, ms: float) -> float:
    """About how many milliseconds a photo takes."""
    return _EMULATED_MS if ask.emulator else ms * _SLOWER[ask.kernels]


def _chunks(ask: Ask, ms: float) -> Iterator[Indices]:
    left = ask.photos[FIRST:] if ask.timed else ask.photos
    photos_a_second = 1000 / max(_cost(ask, ms), 0.01)
    share = max(-(-len(left) // cores()), int(_LEAST_S * photos_a_second))
    size = max(1, min(int(_CHUNK_S * photos_a_second), share))
    for start in range(0, len(left), size):
        yield left[start : start + size]


def _joined(parts: Sequence[Answer]) -> Answer:
    """Answers one after the other, with the first part's time and the largest part's memory."""
    good = []
    for part in parts:
        if isinstance(part, ModelError):
            return part
        good.append(part)
    logits = np.concatenate([part.logits for part in good])
    return replace(good[0], logits=logits, rss_mib=max(part.rss_mib for part in good))
