"""The sentences with which a variant passes or fails: by how much, and in which label. Computes nothing anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainer.gate.rows import About, Limits, Row


@dataclass(frozen=True)
class Counts:
    """What a row does not hold: held-out photos of each label, and of animals."""

    by_label: Mapping[str, int]
    animals: int


def fault(row: Row, counts: Counts, limits: Limits) -> str | None:
    """Why a row fails by its figures, or None if it does not. What says most comes first."""
    return (
        _broken(row)
        or _lost(row, limits)
        or _lost_of_label(row, counts, limits)
        or _called_empty(row, counts, limits)
        or _disagrees(row, limits)
        or _far(row, limits)
    )


def success(row: Row, limits: Limits) -> str:
    """The sentence of a row that passed."""
    lost = sum(row.lost_by_label.values())
    change = "no held-out photo lost" if lost <= 0 else f"{_photos(lost, 'held-out')} lost"
    low = f"; low n: {_photos(row.n, 'held-out')}" if row.n < limits.low_n else ""
    return f"{change}, {row.agreement:.1%} agree with the float model{low}"


def _broken(row: Row) -> str | None:
    if row.not_finite:
        return f"it answers {row.not_finite} of {row.n_agreement} photos with numbers that are not finite"
    return "it gives the same answer for every photo" if row.constant else None


def _lost(row: Row, limits: Limits) -> str | None:
    lost, most = sum(row.lost_by_label.values()), limits.most_lost(row.n)
    if lost <= most:
        return None
    label = max(row.lost_by_label, key=lambda each: row.lost_by_label[each])
    of_it = min(row.lost_by_label[label], lost)
    which = "all" if of_it == lost else str(of_it)
    return (
        f"it gets {lost} of {_photos(row.n, 'held-out')} wrong more than the float model, {which} of them {label!r}; "
        f"at most {most} may be"
    )


def _lost_of_label(row: Row, counts: Counts, limits: Limits) -> str | None:
    for label, lost in sorted(row.lost_by_label.items(), key=lambda each: -each[1]):
        n = counts.by_label[label]
        most = limits.most_lost_of_label(n)
        if lost > most:
            return (
                f"it gets {lost} of {_photos(n, 'held-out')} of {label!r} wrong more than the float model; "
                f"at most {most} may be"
            )
    return None


def _called_empty(row: Row, counts: Counts, limits: Limits) -> str | None:
    more, most = row.animals_called_empty - row.animals_called_empty_float, limits.most_called_empty(counts.animals)
    if more <= most:
        return None
    return (
        f"it calls {row.animals_called_empty} of {_photos(counts.animals, 'held-out')} of animals empty, the float "
        f"model {row.animals_called_empty_float}; at most {most} more may be"
    )


def _disagrees(row: Row, limits: Limits) -> str | None:
    if row.agreement < limits.agreement:
        return (
            f"it agrees with the float model on {row.agreement:.1%} of {_photos(row.n_agreement)}, at least "
            f"{100 * limits.agreement:.4g}% must"
        )
    most = limits.most_disagreements(row.n)
    if row.held_disagreements > most:
        return (
            f"it gives {row.held_disagreements} of {_photos(row.n, 'held-out')} another label than the float model; "
            f"at most {most} may have one"
        )
    return None


def _far(row: Row, limits: Limits) -> str | None:
    if row.mean_difference <= limits.mean_difference:
        return None
    return (
        f"its logits are {row.mean_difference:.2f} standard deviations from the float model's on average, at most "
        f"{limits.mean_difference:.4g} may be"
    )


def _photos(n: int, kind: str = "") -> str:
    return f"{n} {kind + ' ' if kind else ''}photo{'s' * (n != 1)}"


def explained(reason: str | None, diagnosis: str | None) -> str | None:
    """A fault with what was found to cause it, which stands first where it is a fault by itself."""
    if reason is None or diagnosis is None:
        return reason or diagnosis
    return f"{diagnosis} ({reason})"


def label_names(about: About, numbers: Mapping[int, int]) -> dict[str, int]:
    """Counts by label number as counts by name, without those of 0."""
    return {about.label(number): count for number, count in sorted(numbers.items()) if count}
