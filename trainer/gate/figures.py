"""What one runtime's answers are worth: a row's figures, and the verdict on them. Runs nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.model import decide, run
from trainer.gate import diagnose, faults
from trainer.gate.rows import About, Limits, Logits, Row


@dataclass(frozen=True)
class Held:
    """Held-out photos: what the variant and the float model say, float32 (n, C), and the n label numbers."""

    found: Logits
    wanted: Logits
    truth: npt.NDArray[np.intp]


def compare(
    answers: run.Answers, reference: Logits, held: Held, about: About, limits: Limits, fault: str | None = None
) -> Row:
    """One runtime's answers against the float model's, as a row with its verdict.

    Args:
        answers: of some or all photos.
        reference: the float model's logits of the same.
        held: of held-out photos.
        about: labels, temperature and thresholds.
        limits: what passes.
        fault: what is known to be wrong with the model, which refuses it whatever the figures are.
    """
    row = _figures(answers, reference, held, about)
    by_label = {about.label(int(each)): int((held.truth == each).sum()) for each in np.unique(held.truth)}
    counts = faults.Counts(by_label, int(_animals(held.truth, about).sum()))
    reason = faults.explained(faults.fault(row, counts, limits), fault)
    return replace(row, passed=reason is None, reason=reason or faults.success(row, limits))


def _figures(answers: run.Answers, reference: Logits, held: Held, about: About) -> Row:
    finite = np.isfinite(answers.logits).all(axis=1)
    good, wanted = answers.logits[finite], reference[finite]
    chances, chances_wanted = (decide.probabilities(each, about.temperature) for each in (good, wanted))
    right, right_float = (_said(each) == held.truth for each in (held.found, held.wanted))
    lost = {
        int(each): int(
            (right_float & ~right)[held.truth == each].sum() - (right & ~right_float)[held.truth == each].sum()
        )
        for each in np.unique(held.truth)
    }
    return Row(
        variant=about.variant,
        runtime=answers.runtime,
        version=answers.version,
        architecture=answers.architecture,
        kernels=answers.kernels,
        passed=False,
        reason="",
        n=len(held.truth),
        accuracy=_share(right),
        accuracy_float=_share(right_float),
        n_agreement=len(reference),
        agreement=_share(_said(answers.logits) == _said(reference)),
        held_disagreements=int((_said(held.found) != _said(held.wanted)).sum()),
        largest_difference=_largest(good - wanted),
        mean_difference=round(diagnose.distance(good, wanted), 4) if len(good) else 0.0,
        largest_probability_difference=_largest(chances - chances_wanted),
        animals_called_empty=_called_empty(held.found, held.truth, about),
        animals_called_empty_float=_called_empty(held.wanted, held.truth, about),
        lost_by_label=faults.label_names(about, lost),
        constant=len(good) > 1 and float(np.ptp(good, axis=0).max()) == 0,
        not_finite=int((~finite).sum()),
        output_step=round(answers.output_step, 6),
        ms=round(answers.ms, 4),
        rss_mib=round(answers.rss_mib, 1),
    )


def _said(logits: Logits) -> npt.NDArray[np.intp]:
    """Label numbers; -1, which is none, where an answer is not finite."""
    return np.where(np.isfinite(logits).all(axis=1), logits.argmax(axis=1), -1)


def _share(right: npt.NDArray[np.bool_]) -> float:
    return float(right.mean()) if right.size else 0.0


def _largest(difference: npt.NDArray[Any]) -> float:
    return round(float(np.abs(difference).max()), 4) if difference.size else 0.0


def _animals(truth: npt.NDArray[np.intp], about: About) -> npt.NDArray[np.bool_]:
    others = [i for i, label in enumerate(about.labels) if label in (decide.EMPTY, decide.PERSON)]
    return ~np.isin(truth, others)


def _called_empty(logits: Logits, truth: npt.NDArray[np.intp], about: About) -> int:
    """Animals whose decision is ``empty``: the most likely label, at its threshold or above."""
    if decide.EMPTY not in about.labels:
        return 0
    thresholds = about.thresholds or (0.0,) * len(about.labels)
    chances = decide.probabilities(np.nan_to_num(logits), about.temperature)
    empty = decide.answers(chances, thresholds)[0] == list(about.labels).index(decide.EMPTY)
    return int((empty & np.isfinite(logits).all(axis=1) & _animals(truth, about)).sum())
