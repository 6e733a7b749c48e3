"""Divides the photos: who learns, who checks, who is held out. Fits nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edge.errors import DataError
from trainer.dataset import questions, split
from trainer.dataset.questions import Question
from trainer.photos import Photos
from trainer.settings import Settings

FOLDS = 5
"""One fold in five validates, and in grouped folds each is held out once."""


@dataclass(frozen=True)
class Parts:
    """Who learns from which: indices into the photos."""

    train: split.Indices
    validation: split.Indices
    holdout: split.Indices

    @property
    def known(self) -> split.Indices:
        """What may be learned from: the training and the validation part."""
        return np.sort(np.concatenate([self.train, self.validation]))


def divide(photos: Photos, question: Question, settings: Settings) -> Parts:
    """Choose the fold that validates, so that every label can still be learned.

    Raises:
        DataError: no choice leaves photos of every label to train on.
    """
    if settings.cross_validate and len(np.unique(question.grouping)) < 3:
        raise DataError(
            f"the photos form two groups ({question.name}); grouped folds need three: to learn from, to check and to "
            "hold out. Leave --folds out, or add photos of other days or stations."
        )
    for fold in folds_of(photos, question, question.learn, settings):
        train = np.setdiff1d(question.learn, fold)
        if len(np.unique(photos.labels[train])) == len(photos.names):
            return Parts(train, fold, question.test)
    labels = [photos.names[i] for i in photos.labels]
    rare = split.thin_labels(labels, question.grouping, 3) or split.thin_labels(labels, question.grouping, FOLDS)
    raise DataError(
        f"{', '.join(rare or photos.names)}: too few independent photos to train and to check ({question.name}). "
        "Give each label photos of at least 3 bursts or days, or leave the label out."
    )


def folds_of(photos: Photos, question: Question, rows: split.Indices, settings: Settings) -> list[split.Indices]:
    """Five folds of some photos, or as many as there are groups, that cut no group of the question."""
    asked = replace(question, learn=rows, grouping=_grouping(photos, question, rows))
    return questions.folds(asked, photos.labels, FOLDS, settings.seed)


def _grouping(photos: Photos, question: Question, rows: split.Indices) -> split.Indices:
    """The question's groups. Outside what it learns from, stations share bursts and near-duplicates, and photos of no
    station have no other group: folds of all photos must not cut these either."""
    if question.name != questions.NEW_STATION or np.isin(rows, question.learn).all():
        return question.grouping
    joined = split.join(question.grouping, photos.groups)
    return joined if len(np.unique(joined)) >= questions.MIN_LEARN_STATIONS else photos.groups
