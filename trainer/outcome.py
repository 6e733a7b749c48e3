"""What a training gave, and the figures that follow from it. Chooses temperature and thresholds; writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.model.bundle import Label
from edge.model.taxonomy import taxonomy
from trainer import labels
from trainer.answered import Answered
from trainer.dataset.questions import Question
from trainer.division import Parts
from trainer.evaluate import Evaluation, evaluate, temperature
from trainer.fit import Crossed, Fitted, Learned
from trainer.photos import Photos
from trainer.report.record import OUT_OF_FOLD, Answer
from trainer.settings import Settings
from trainer.thresholds import Thresholds, for_precision

Rows = npt.NDArray[np.intp]


@dataclass
class Asked:
    """One question, who learned from what for it, and what came out."""

    question: Question
    parts: Parts
    fitted: Fitted


@dataclass
class Outcome:
    """A training, with the figures that follow from it; filled from top to bottom.

    Attributes:
        data: what was trained on, as it was named.
        data_folder: what the photos' names are relative to, absolute.
        out: the run's folder.
        asked: the questions and what came out, the hardest first.
        crossed: grouped folds, if they were asked for.
        shipped: what was learned from all photos, if that is shipped.
        labels: what each label is, as far as data set and table know.
        temperature, thresholds, answers: filled by :meth:`measure`.
    """

    data: Path
    data_folder: Path
    out: Path
    settings: Settings
    photos: Photos
    asked: list[Asked] = field(default_factory=list)
    crossed: Crossed | None = None
    shipped: Learned | None = None
    temperature: float = 1.0
    thresholds: Thresholds = field(default_factory=lambda: Thresholds((), None))
    answers: list[Answer] = field(default_factory=list)
    labels: tuple[Label, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.labels = labels.known(self.photos.names, labels.of_data(self.data))
        self._taxonomy = taxonomy(self.labels)

    @property
    def main(self) -> Asked:
        """The hardest question."""
        return self.asked[0]

    @property
    def fitted(self) -> Fitted:
        """What the hardest question's training part gave: what is kept, and measured."""
        return self.main.fitted

    def measure(self) -> None:
        """Temperature and thresholds from photos that the kept model did not learn from, and the answers."""
        self.temperature, self.thresholds = self._decisions(self.fitted, self.fitted.unseen)
        for each in self.asked:
            # What decides about a held-out photo is chosen without it, too.
            others = np.setdiff1d(each.fitted.unseen, each.question.test)
            warmth, limits = self._decisions(each.fitted, others if len(others) else each.fitted.unseen)
            measured = evaluate(
                self.answered(each.question.test, each.fitted.logits[each.question.test]),
                temperature=warmth, thresholds=limits.values, taxonomy=self._taxonomy, rollup=limits.rollup,
            )  # fmt: skip
            self.answers.append(
                Answer(
                    each.question.name, measured, each.question.warning, each.question.is_test, len(each.parts.known)
                )
            )
        if len(self.fitted.unseen) == len(self.photos.labels):
            self.answers.append(Answer(OUT_OF_FOLD, self.out_of_fold(), is_test=self.main.question.is_test))

    def out_of_fold(self) -> Evaluation:
        """On all photos that the kept kind of model was asked about without having learned from them."""
        return evaluate(
            self.answered(self.fitted.unseen, self.fitted.unseen_logits),
            temperature=self.temperature, thresholds=self.thresholds.values,
            taxonomy=self._taxonomy, rollup=self.thresholds.rollup,
        )  # fmt: skip

    def answered(self, rows: Rows, logits: npt.NDArray[np.float32]) -> Answered:
        """Answers to some photos, with what they are broken down by."""
        photos = self.photos
        decoded = [photos.decoded[i] for i in rows]
        return Answered.on(decoded, logits, photos.labels[rows], photos.names, photos.groups[rows])

    def _decisions(self, fitted: Fitted, rows: Rows) -> tuple[float, Thresholds]:
        logits = fitted.unseen_logits[np.isin(fitted.unseen, rows)]
        warmth = temperature(logits, self.photos.labels[rows])
        wanted = self.settings.wanted_precision
        return warmth, for_precision(self.answered(rows, logits), warmth, wanted, self._taxonomy)
