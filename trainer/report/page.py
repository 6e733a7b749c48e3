"""Writes a report as one page that needs nothing else, and as JSON. Text from outside is escaped by the template.

Never measures: what it says is in :class:`trainer.report.record.Report`.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from edge.errors import DataError
from trainer.contact_sheet import Tile, drawn
from trainer.evaluate import Evaluation, Part
from trainer.report import charts
from trainer.report.record import OUT_OF_FOLD, Answer, Gallery, Report

PAGE, DATA = "report.html", "report.json"
SCHEMA = 1
THUMBNAIL_SIDE = 200
MOST_UNREADABLE, MOST_PARTS, MOST_CONFUSIONS = 50, 40, 10
FEW_PHOTOS, FEW_OF_A_LABEL = 50, 10
_HERE = Path(__file__).parent
_PHRASES = {
    "new station": "from stations it has never seen",
    "same stations, later": "taken later at stations it knows",
    "new sequence": "from sequences it has never seen",
    "new burst": "from bursts it has never seen",
    "as given": "of the test set that came with the data",
    "random": "drawn at random from the same data",
    OUT_OF_FOLD: "that it did not learn from",
}


@dataclass(frozen=True)
class Confused:
    """A pair of labels that the model confuses: how many photos, of how many, and their share."""

    truth: str
    answer: str
    count: int
    of: int


def write(folder: Path, report: Report) -> None:
    """Write ``report.html`` and ``report.json`` into a folder that exists.

    Raises:
        DataError: the folder cannot be written.
    """
    texts = {PAGE: html(report), DATA: json.dumps(as_json(report), indent=1, ensure_ascii=False) + "\n"}
    for name, text in texts.items():
        try:  # a file name that is not UTF-8 holds lone surrogates
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise DataError(f"{folder / name} cannot be written: {error.strerror}. Choose another folder.") from error


def html(report: Report) -> str:
    """The page."""
    style = Markup((_HERE / "page.css").read_text("utf-8"))
    return _template().render(
        report=report,
        style=style,
        main=main_answer(report),
        warnings=warnings(report),
        headline=headline(report.answers[0]) if report.answers else None,
        most_unreadable=MOST_UNREADABLE,
        most_parts=MOST_PARTS,
    )


def as_json(report: Report) -> dict[str, Any]:
    """All that the page says but the pictures, as what JSON can hold; numbers that are not finite become null."""
    found = {each.name: _plain(getattr(report, each.name)) for each in fields(report) if each.name != "galleries"}
    return {"schema": SCHEMA, **found}


def main_answer(report: Report) -> Answer | None:
    """The one whose details are shown: the out-of-fold answers, which are the most, else the hardest question's."""
    of_folds = [answer for answer in report.answers if answer.question == OUT_OF_FOLD]
    return next(iter([*of_folds, *report.answers]), None)


def headline(answer: Answer) -> str:
    """What a model is worth, in one sentence."""
    figures = answer.evaluation.figures
    low, high = figures.accuracy_interval
    share = f"between {math.floor(low * 100)} and {math.ceil(high * 100)}"
    return f"Of 100 photos {phrase(answer.question)}, {of_100(figures.accuracy)} are named right ({share})."


def phrase(question: str) -> str:
    """What photos a question is about, to follow "photos"."""
    return _PHRASES.get(question, f"({question})")


def of_100(share: float) -> int:
    """A share as a number of 100: all and none only if it is all and none."""
    if share in (0.0, 1.0):
        return int(share * 100)
    return min(99, max(1, round(share * 100)))


def warnings(report: Report) -> list[str]:
    """What a reader must know before trusting the figures: those given, and those that the figures show."""
    found = list(report.warnings)
    for answer in report.answers:
        n = answer.evaluation.figures.n
        if answer.warning:
            found.append(f"{answer.question.capitalize()}: {answer.warning}")
        if not answer.is_test:
            found.append(
                "The photos that were held out were drawn at random, so others of the same burst or place may have "
                "been learned from. This is no test, and new photos will come out worse."
            )
        if n < FEW_PHOTOS:
            found.append(f"{answer.question.capitalize()}: only {n} photos, so the figures are rough.")
    main = main_answer(report)
    if main is not None:
        found += _weak_spots(main.evaluation)
    if report.unreadable:
        total = report.photos + len(report.unreadable)
        found.append(f"{len(report.unreadable)} of {total} files could not be used; they are listed below.")
    return list(dict.fromkeys(found))


def _weak_spots(evaluation: Evaluation) -> list[str]:
    thin = [label for label, each in evaluation.figures.per_class.items() if 0 < each.n < FEW_OF_A_LABEL]
    none = [label for label, each in evaluation.figures.per_class.items() if each.n == 0]
    found = []
    if thin:
        found.append(f"Fewer than {FEW_OF_A_LABEL} photos of {_listed(thin)}: what is said of them is a guess.")
    if none:
        found.append(f"No photo of {_listed(none)} was asked about, so nothing is known of how well they are told.")
    found += [_uneven(parts, *words) for parts, words in (
        (evaluation.by_light, ("light", "Look at more photos of the weaker kind before you trust it there.")),
        (evaluation.by_source, ("source", "Part of the accuracy may be telling sources apart, not animals.")),
    )]  # fmt: skip
    emptied = evaluation.emptied
    if emptied is not None and emptied.animals.events > 0 and emptied.animals.at_most > 0.05:
        found.append(
            f"Only {emptied.animals.events} events with animals say how many would be lost as `empty`: "
            f"up to {charts.percent(emptied.animals.at_most)} cannot be excluded."
        )
    return [each for each in found if each]


def _uneven(parts: Sequence[Part], kind: str, advice: str) -> str:
    """Whether the best and the worst part differ by more than chance."""
    if len(parts) < 2:
        return ""
    best, worst = max(parts, key=lambda p: p.interval[0]), min(parts, key=lambda p: p.interval[1])
    if best.interval[0] <= worst.interval[1]:
        return ""
    shares = f"{charts.percent(best.accuracy)} right for {best.name}, {charts.percent(worst.accuracy)} for {worst.name}"
    return f"By {kind}: {shares}. {advice}"


def _listed(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _confused(evaluation: Evaluation) -> list[Confused]:
    """The pairs of labels that are confused most often."""
    labels = evaluation.labels
    pairs = [
        Confused(labels[i], labels[j], count, sum(row))
        for i, row in enumerate(evaluation.figures.confusion)
        for j, count in enumerate(row)
        if count and i != j
    ]
    return sorted(pairs, key=lambda pair: (-pair.count, pair.of, pair.truth, pair.answer))[:MOST_CONFUSIONS]


def _outcomes(evaluation: Evaluation) -> list[str]:
    """A hundred photos as ``right``, ``unknown`` or ``wrong``, as they would be decided."""
    figures = evaluation.figures
    unknown = round((1 - figures.coverage) * 100)
    right = min(100 - unknown, round(figures.coverage * (figures.accuracy_decided or 0.0) * 100))
    return ["right"] * right + ["unknown"] * unknown + ["wrong"] * (100 - right - unknown)


def _coverage_chart(evaluation: Evaluation) -> charts.Chart:
    figures = evaluation.figures
    here = None if figures.accuracy_decided is None else (figures.coverage, figures.accuracy_decided)
    return charts.coverage(evaluation.curve, here)


def _picture(tile: Tile) -> str:
    """A small JPEG as a data URI."""
    content = io.BytesIO()
    image = drawn(tile, THUMBNAIL_SIDE, THUMBNAIL_SIDE, enlarge=False)
    image.save(content, "JPEG", quality=72, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode("ascii")


def _shown_galleries(report: Report) -> list[Gallery]:
    return [gallery for gallery in report.galleries if gallery.tiles]


def _percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else charts.percent(share, digits)


def _between(interval: Sequence[float]) -> str:
    low, high = (bound * 100 for bound in interval)
    digits = 0 if high - low >= 3 else 1
    return f"{low:.{digits}f} to {high:.{digits}f} %"


def _number(count: int) -> str:
    return f"{count:,}"


def _sure(threshold: float) -> str:
    return f"{threshold * 100:.4g} %"


def _when(created: str) -> str:
    """A moment for people; as it is, if it is none."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{moment.day} {moment:%B %Y, %H:%M} {moment:%Z}".rstrip()


def _took(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _value(setting: object) -> str:
    if isinstance(setting, list | tuple):
        return ", ".join(map(str, setting)) or "none"
    if setting is None or isinstance(setting, bool):
        return "not set" if setting is None else "yes" if setting else "no"
    return str(setting)


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "percent": _percent,
        "between": _between,
        "when": _when,
        "number": _number,
        "sure": _sure,
        "took": _took,
        "value": _value,
        "picture": _picture,
        "phrase": phrase,
        "of_100": of_100,
    }
    environment.globals |= {
        "charts": charts,
        "confused": _confused,
        "outcomes": _outcomes,
        "coverage_chart": _coverage_chart,
        "galleries": _shown_galleries,
        "out_of_fold": OUT_OF_FOLD,
    }
    return environment.get_template("page.html.j2")


def _plain(value: object) -> Any:
    """Records, numbers and sequences as JSON has them."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
