"""Judges a variant: which runtime and kernels answer which photos, and what the answers are worth."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.errors import ModelError
from edge.model import run, runtime
from trainer.gate import children, diagnose
from trainer.gate.children import Ask
from trainer.gate.emulate import Emulator
from trainer.gate.figures import Held, compare
from trainer.gate.rows import About, Indices, Limits, Logits, Row, Said, Twin, Verdict

_NOT_THE_PI_S = ("tflite_runtime", "x86_64")
"""Its default kernels answer otherwise here than on aarch64; its reference kernels answer as those on aarch64."""


@dataclass(frozen=True)
class _Subject:
    """What :func:`judge` was given."""

    model: Path
    pixels: Path
    reference: Logits
    truth: npt.NDArray[np.intp]
    holdout: Indices
    limits: Limits
    twin: Twin | None
    about: About


@dataclass(frozen=True)
class _Plan:
    """One row to be: what is asked for it. ``held`` is of the twin; without one, the held-out are among the photos."""

    runtime: runtime.Installed
    kernels: str
    main: Ask
    held: Ask | None
    emulated: bool = False


def judge(
    model: Path,
    pixels: Path,
    reference: Logits,
    truth: npt.NDArray[np.intp],
    holdout: Indices,
    limits: Limits,
    twin: Twin | None = None,
    *,
    about: About | None = None,
    emulator: Emulator | None = None,
    done: Callable[[int], None] = lambda count: None,
) -> Verdict:
    """Run the model on every installed runtime and compare with the float model.

    Args:
        model: the ``.tflite``.
        pixels: all readable photos, an ``.npy`` stack, uint8 (n, h, w, 3).
        reference: the float model's logits of them, float32 (n, C).
        truth: n label numbers.
        holdout: the photos that the model, or its twin, did not learn from.
        limits: what passes.
        twin: whose accuracy is judged, if the model itself learned from all photos.
        about: what else is known.
        emulator: runs the device's wheels too.
        done: called with the number of photos answered since the last call, from any thread; :func:`work` tells how
            many there will be.

    Raises:
        ModelError: no runtime is installed.
    """
    subject = _Subject(model, pixels, reference, truth, holdout, limits, twin, about or About())
    plans = _plans(subject, emulator)
    if not plans:
        raise ModelError("no TFLite runtime is installed, so nothing can be proven. Install ai-edge-litert.")
    with tempfile.TemporaryDirectory(prefix="fieldmark-gate-") as scratch:
        tinted = _tinted(subject, plans[0].runtime.name, Path(scratch) / "tinted.npy")
        asks = [ask for plan in plans for ask in (plan.main, plan.held) if ask is not None]
        said = children.answer([*asks, *tinted], done)
        fault = _model_fault(subject, said[plans[0].main], *((said[ask], ask.pixels) for ask in tinted))
    rows = {plan: _row(subject, plan, plans, said, fault) for plan in plans}
    return _verdict(plans, rows, said)


def work(
    n: int,
    holdout: Indices,
    truth: npt.NDArray[np.intp],
    limits: Limits,
    *,
    twin: bool,
    tried: bool = False,
    emulated: int = 0,
) -> int:
    """How many answers of photos :func:`judge` will ask for, for a bar.

    Args:
        n: photos.
        holdout, truth, limits: as there.
        twin: whether there is one.
        tried: whether there is a float model to try why a variant fails.
        emulated: runtimes under emulation.
    """
    held = len(holdout) if twin else 0
    found = runtime.installed()
    total = len(found) * (n + held) + tried * 2 * min(n, diagnose.TINTED_PHOTOS)
    total += sum(_reference_decides(each.name) for each in found) * (
        len(_some(truth, holdout, limits.reference_photos)) + held
    )
    return total + emulated * (len(_some(truth, holdout, limits.emulated_photos)) + held)


def _plans(subject: _Subject, emulator: Emulator | None) -> list[_Plan]:
    """The rows to be, default kernels first; the first has the diagnosis."""
    every = np.arange(len(subject.reference))
    installed = runtime.installed()
    plans = [_plan(subject, each, "default", every) for each in installed]
    for each in installed:
        if _reference_decides(each.name):
            some = _some(subject.truth, subject.holdout, subject.limits.reference_photos)
            plans.append(_plan(subject, each, "reference", some))
    if emulator is not None:
        some = _some(subject.truth, subject.holdout, subject.limits.emulated_photos)
        plans += [_plan(subject, each, "default", some, emulator) for each in emulator.runtimes]
    return plans


def _plan(
    subject: _Subject, where: runtime.Installed, kernels: str, photos: Indices, emulator: Emulator | None = None
) -> _Plan:
    timed = kernels == "default" and emulator is None
    main = Ask(subject.model, subject.pixels, where.name, photos, kernels, timed, emulator)
    held = None
    if subject.twin is not None and len(subject.twin.reference):
        every = np.arange(len(subject.twin.reference))
        held = Ask(subject.twin.model, subject.twin.pixels, where.name, every, kernels, False, emulator)
    return _Plan(where, kernels, main, held, emulator is not None)


def _reference_decides(name: str) -> bool:
    return (name, platform.machine()) == _NOT_THE_PI_S


def _some(truth: npt.NDArray[np.intp], holdout: Indices, least: int) -> Indices:
    """All held-out photos, and if these are fewer than ``least``, others, as many of each label as far as there are."""
    random = np.random.default_rng(0)
    others = np.setdiff1d(np.arange(len(truth)), holdout)
    queues = [random.permutation(others[truth[others] == label]).tolist() for label in np.unique(truth)]
    chosen = holdout.tolist()
    while any(queues) and len(chosen) < least:
        chosen += [queue.pop() for queue in queues if queue][: least - len(chosen)]
    return np.sort(np.array(chosen, np.intp))


def _tinted(subject: _Subject, name: str, stack: Path) -> list[Ask]:
    """What one runtime is asked to find out whether red and blue are exchanged; nothing without a float model."""
    if subject.about.float_model is None:
        return []
    pixels = diagnose.tinted(subject.pixels)
    np.save(stack, pixels)
    return [Ask(subject.model, stack, name, np.arange(len(pixels)))]


def _model_fault(subject: _Subject, found: children.Answer, *tinted: tuple[children.Answer, Path]) -> str | None:
    """What is wrong with the model wherever it runs, as one runtime's answers show it."""
    about, tried = subject.about, None
    unproven = diagnose.calibration(about, subject.pixels, subject.truth)
    if isinstance(found, ModelError) or not np.isfinite(found.logits).all():
        return unproven
    for answer, stack in tinted:
        if about.float_model is not None and isinstance(answer, run.Answers):
            tried = diagnose.channels(answer.logits, about.float_model(np.load(stack)))
    tried = tried or diagnose.labels(found.logits, subject.reference, about)
    if tried is None and about.float_model is not None:
        shape = np.load(subject.pixels, mmap_mode="r").shape[1:]
        tried = diagnose.normalisation(found.logits, subject.reference, shape, about.float_model)
    return tried or unproven


def _row(
    subject: _Subject, plan: _Plan, plans: Sequence[_Plan], said: dict[Ask, children.Answer], fault: str | None
) -> Row:
    found, held = said[plan.main], said[plan.held] if plan.held is not None else None
    for answer in (found, held):
        if isinstance(answer, ModelError):
            return _crashed(subject, plan, plans, said, answer)
    assert isinstance(found, run.Answers) and not isinstance(held, ModelError)  # noqa: PT018
    photos = plan.main.photos
    if subject.twin is not None and held is not None:
        pair = Held(held.logits, subject.twin.reference, subject.truth[subject.holdout])
    else:
        inside = np.isin(photos, subject.holdout)
        pair = Held(found.logits[inside], subject.reference[photos[inside]], subject.truth[photos[inside]])
    row = compare(found, subject.reference[photos], pair, subject.about, subject.limits, fault)
    if plan.emulated:
        return replace(row, reason=f"emulated: {row.reason}", ms=0.0, rss_mib=0.0)
    if _decides(plan, plans, said):
        stands_in = plan.kernels == "default" and _reference_decides(plan.runtime.name)
        note = "; the reference kernels cannot run it, so the default ones decide" if stands_in else ""
        return replace(row, reason=row.reason + note)
    return replace(row, deciding=False, reason=f"{row.reason}; reported only, the reference kernels decide here")


def _decides(plan: _Plan, plans: Sequence[_Plan], said: dict[Ask, children.Answer]) -> bool:
    """Default kernels do, unless there are reference kernels that answered."""
    if plan.emulated or plan.kernels == "reference":
        return True
    return not any(
        other.kernels == "reference" and other.runtime == plan.runtime and not _failed(other, said) for other in plans
    )


def _failed(plan: _Plan, said: dict[Ask, children.Answer]) -> bool:
    return any(isinstance(said[ask], ModelError) for ask in (plan.main, plan.held) if ask is not None)


def _crashed(
    subject: _Subject, plan: _Plan, plans: Sequence[_Plan], said: dict[Ask, children.Answer], error: ModelError
) -> Row:
    """A row without figures. Reference kernels that cannot run it leave the verdict to the default ones."""
    reason = f"emulated: {error}" if plan.emulated else str(error)
    architecture = plan.main.emulator.architecture if plan.main.emulator else platform.machine()
    return Row(
        subject.about.variant, plan.runtime.name, plan.runtime.version, architecture, plan.kernels, False, reason,
        deciding=plan.kernels == "default",
    )  # fmt: skip


def _verdict(plans: Sequence[_Plan], rows: dict[_Plan, Row], said: dict[Ask, children.Answer]) -> Verdict:
    here = [plan for plan in plans if not plan.emulated]
    logits, steps, decided, unloadable = {}, {}, {}, []
    for plan in here:
        name, found = plan.runtime.name, said[plan.main]
        if isinstance(found, ModelError):
            if plan.kernels == "default" and found.code == "load":
                unloadable.append(name)
            continue
        if plan.kernels == "default" and not _failed(plan, said):
            logits[name], steps[name] = found.logits, found.output_step
        if rows[plan].deciding and not _failed(plan, said):
            decided[name] = Said(plan.main.photos, found.logits)
    return Verdict(tuple(_ordered(plans, rows)), logits, decided, steps, tuple(unloadable))


def _ordered(plans: Sequence[_Plan], rows: dict[_Plan, Row]) -> Iterator[Row]:
    names = list(dict.fromkeys(plan.runtime.name for plan in plans))
    yield from (
        rows[plan]
        for plan in sorted(
            plans, key=lambda each: (each.emulated, names.index(each.runtime.name), not rows[each].deciding)
        )
    )
