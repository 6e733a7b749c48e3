"""What was found in a data set, in words for a terminal. Looks at nothing but the findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from edge.errors import one_line
from edge.model.decide import EMPTY
from trainer.dataset import questions, split
from trainer.dataset.findings import ANIMAL_MARKED, NO_ANIMAL_MARKED, SAME_PICTURE, Check
from trainer.dataset.samples import TRAIN

THIN = 5
"""Independent groups that a label needs for a figure that says something."""
UNEVEN = 10.0
TELLS = 0.5
"""A label that differs by so much from the rest in what is not the animal can be told by it."""


def problems(result: Check, refusal: str | None) -> Iterator[str]:
    """What is wrong, the worst first.

    Args:
        result: whose own problems are not looked at.
        refusal: why training would refuse the data set, if it would.
    """
    if refusal:
        yield refusal
    yield from _conflict_problems(result)
    if result.leaks:
        counts = Counter(leak.why for leak in result.leaks)
        kinds = ", ".join(f"{count} {why}" for why, count in counts.most_common())
        leak = result.leaks[0]
        yield (
            f"{_photos(len(result.leaks))} of a later part have their like in an earlier one ({kinds}), such as "
            f"{leak.photo} ({leak.part}) and {leak.other} ({leak.other_part}). Figures on them flatter."
        )
    if result.unreadable:
        codes = ", ".join(f"{count} {code}" for code, count in Counter(e.code for e in result.unreadable).most_common())
        first, reason = result.unreadable[0], result.unreadable[0].reason
        named = reason if Path(first.name).name in reason else f"{first.name}: {reason}"
        yield f"{_count(len(result.unreadable), 'file')} cannot be used ({codes}). {named}"
    alone = [name for name, facts in result.labels.items() if facts.groups == 1]
    if alone:
        yield (
            f"{', '.join(alone)}: all photos are of one burst or set of near-duplicates, so nothing can be measured. "
            "Add photos of other days or stations."
        )
    if not any(division.asked and division.name != questions.RANDOM for division in result.questions):
        given = [each.remark for each in result.questions if each.name == questions.AS_GIVEN and _divided(result)]
        yield f"No honest test is possible. {(given or [_random_remark(result)])[0]}"
    yield from _label_problems(result)


def _conflict_problems(result: Check) -> Iterator[str]:
    for why, meaning in ((split.SAME_FILE, "the same file"), (SAME_PICTURE, "nearly the same picture")):
        found = [conflict for conflict in result.label_conflicts if conflict.why == why]
        if found:
            first = found[0]
            yield (
                f"{len(found)} {'time is' if len(found) == 1 else 'times'} {meaning} {'is ' if len(found) > 1 else ''}"
                f"there under two labels, such as {first.photo} ({first.label}) and {first.other} "
                f"({first.other_label}). Decide for one."
            )


def _label_problems(result: Check) -> Iterator[str]:
    if result.suspicious:
        worst = result.suspicious[0]
        yield (
            f"{_photos(len(result.suspicious))} may be labelled wrongly: the model says otherwise, most surely of "
            f"{worst.photo} ({worst.label}, it says {worst.predicted}, {worst.confidence:.0%})."
        )
    for reason, said in (
        (ANIMAL_MARKED, f"labelled {EMPTY} have an animal marked in them"),
        (NO_ANIMAL_MARKED, "of animals have none marked in them"),
    ):
        doubts = [doubt for doubt in result.boxes if doubt.reason == reason]
        if doubts:
            yield f"{_photos(len(doubts))} {said}, such as {doubts[0].photo} ({doubts[0].label})."


def _divided(result: Check) -> bool:
    return any(sample.part not in (None, TRAIN) for sample in result.samples.values())


def _random_remark(result: Check) -> str:
    return next(each.remark or "" for each in result.questions if each.name == questions.RANDOM)


def notes(result: Check) -> Iterator[str]:
    """What is worth knowing."""
    copies = sum(len(names) - 1 for names in result.exact_duplicates)
    if copies:
        yield f"{_photos(copies)} more than needed: the same file is there twice or more often."
    thin = [name for name, facts in result.labels.items() if 1 < facts.groups < THIN]
    if thin:
        yield f"{', '.join(thin)}: fewer than {THIN} independent groups, so their figures say little."
    if result.imbalance >= UNEVEN:
        order = sorted(result.labels, key=lambda name: result.labels[name].count)
        yield f"{order[-1]} has {result.imbalance:.0f} times as many photos as {order[0]}; see --balance of training."
    yield from _tells(result)
    placed = sum(result.stations.values())
    if placed not in (0, result.n):
        yield f"{_photos(result.n - placed)} without a station, though others name one."


def _tells(result: Check) -> Iterator[str]:
    """Labels that can be told by something that is not the animal."""
    infrared = {name: facts.infrared_share for name, facts in result.labels.items()}
    sources: dict[str, Counter[str]] = {}
    for sample in result.samples.values():
        if sample.source:
            sources.setdefault(sample.source, Counter())[sample.label] += 1
    yield from _told(result, infrared, "infrared", none_too=True)
    for source, counts in sorted(sources.items()):
        shares = {name: counts[name] / facts.count for name, facts in result.labels.items()}
        yield from _told(result, shares, f"from {source}", none_too=False)


def _told(result: Check, shares: dict[str, float], what: str, *, none_too: bool) -> Iterator[str]:
    for name, facts in result.labels.items():
        others = [(other.count, shares[key]) for key, other in result.labels.items() if key != name]
        rest = sum(count * share for count, share in others) / max(1, sum(count for count, _ in others))
        told = shares[name] - rest >= TELLS if shares[name] == 1 else none_too and rest >= TELLS and not shares[name]
        if told and others and facts.count >= THIN:
            share = "All" if shares[name] else "None"
            yield f"{share} of {name} and {rest:.0%} of the rest are {what}: a model may learn that, not the animal."


def _photos(count: int) -> str:
    return _count(count, "photo")


def _count(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def lines(result: Check) -> list[str]:
    """The check for a terminal."""
    return [one_line(line) for line in (*_head(result), "", *_table(result), "", *_asked(result), *_said(result))]


def _head(result: Check) -> Iterator[str]:
    files = result.n + len(result.unreadable)
    labels = _count(len(result.labels), "label")
    yield f"{result.data}: {result.n} of {files} files are photos that can be used, of {labels}"
    copies, near = (sum(map(len, sets)) for sets in (result.exact_duplicates, result.near_duplicates))
    yield (f"{result.groups} independent groups; {near} photos have near-duplicates, {copies} are there more than once")
    known, first, last = (result.times[key] for key in ("known", "first", "last"))
    span = f", {first} to {last}" if known else ""
    yield f"{_count(len(result.stations), 'station')} named; times of {_photos(known)}{span}"


def _table(result: Check) -> Iterator[str]:
    width = max(len("label"), *map(len, result.labels))
    yield f"{'label':<{width}}  photos  groups  stations  infrared"
    for name, facts in result.labels.items():
        stations = facts.stations or "-"
        yield f"{name:<{width}}  {facts.count:>6}  {facts.groups:>6}  {stations:>8}  {facts.infrared_share:>8.0%}"


def _asked(result: Check) -> Iterator[str]:
    yield "What training can hold out:"
    for each in result.questions:
        mark = "*" if each.asked else " "
        if each.possible:
            yield f"{mark} {each.name}: {each.test} photos, {each.learn} to learn from.{_after(each.remark)}"
        else:
            yield f"  not {each.name}: {each.remark}"
    if any(each.asked for each in result.questions):
        yield "* is asked unless --split says otherwise."


def _after(remark: str | None) -> str:
    return f" {remark}" if remark else ""


def _said(result: Check) -> Iterator[str]:
    for title, sentences in (("Problems, the worst first:", result.problems), ("Worth knowing:", result.notes)):
        if sentences:
            yield from ("", title, *(f"- {sentence}" for sentence in sentences))
    if not result.problems:
        yield from ("", "No problems found.")
