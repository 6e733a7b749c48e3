"""Looks a data set over before anybody trains on it: what is there, what is wrong, what can be tested honestly.

It reads photos and reports; it never changes, moves or relabels one, and needs no network and no TensorFlow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import DataError
from edge.model.decide import EMPTY, PERSON
from edge.model.spec import InputSpec
from trainer import pixels
from trainer import run as runs
from trainer.cache import cache_dir
from trainer.dataset import boxes as box_files
from trainer.dataset import check_words, questions, readers, split
from trainer.dataset.findings import (
    ANIMAL_MARKED,
    NO_ANIMAL_MARKED,
    SAME_PICTURE,
    BoxDoubt,
    Check,
    Conflict,
    Division,
    LabelFacts,
    PartLeak,
    Suspicion,
)
from trainer.dataset.samples import TEST, TRAIN, VALIDATION
from trainer.photos import group_photos
from trainer.progress import Steps
from trainer.settings import Settings

SPEC = InputSpec(128, 128)
"""Enough to see what looks alike and what is infrared."""
SAME_PICTURE_BITS, SAME_PICTURE_CORRELATION = 8, 0.99
"""A scaled or recompressed copy. Two visits to one place look alike, too, but not so much."""
SURE = 0.8
"""A model this sure of another label is worth a person's look."""
SURE_BOX = 0.6
"""And so is a detector this sure of an animal where a person saw none."""
MOST_BOXED = 0.5
"""Where fewer photos of animals have a box, the boxes are of some photos only, and a missing one says nothing."""
MOST_CONFLICTS = 1000
PARTS = (TRAIN, VALIDATION, TEST)

_Mask = npt.NDArray[np.bool_]


def check(
    data: Path,
    *,
    sequence_column: str | None = None,
    boxes: Path | None = None,
    layout: str = "auto",
    run: Path | None = None,
    steps: Steps,
) -> Check:
    """Look a data set over.

    Args:
        data, sequence_column, layout: see :func:`trainer.dataset.readers.scan`.
        boxes: a file of boxes to check labels against.
        run: a run on these photos, whose model's confident disagreements are listed.
        steps: shows progress.

    Raises:
        DataError: the data set or the run cannot be read, or no photo of it.
    """
    found = readers.scan(data, sequence_column=sequence_column, layout=layout, boxes=boxes)
    known = runs.read(run) if run else None
    with steps.step("reading photos", len(found.samples)) as done:
        decoded, unreadable, _ = pixels.decode(found.samples, SPEC, cache_dir(), done=lambda: done(1))
    unreadable = found.left_out + unreadable
    if not decoded:
        raise DataError(f"{data}: none of {len(unreadable)} files can be used. {unreadable[0].reason}")
    with steps.step("looking for duplicates, leaks and divisions"):
        photos = _Photos(decoded)
        result = Check(
            data=str(data),
            n=len(decoded),
            unreadable=unreadable,
            labels=photos.label_facts(),
            groups=len(np.unique(photos.groups)),
            stations=dict(sorted(Counter(filter(None, photos.stations)).items())),
            times=photos.time_facts(),
            imbalance=photos.imbalance(),
            exact_duplicates=photos.sets(photos.copies),
            near_duplicates=photos.near_sets(),
            label_conflicts=photos.conflicts(),
            leaks=photos.leaks(),
            suspicious=_suspicious(photos, known) if known else [],
            boxes=_box_doubts(photos, found, boxes),
            questions=_divisions(photos.facts),
            samples={photo.sample.name: photo.sample for photo in decoded},
        )
    result.problems.extend(check_words.problems(result, _refusal(found, data)))
    result.notes.extend([*found.notes, *check_words.notes(result)])
    return result


def _refusal(found: readers.DataSet, data: Path) -> str | None:
    try:
        readers.check_trainable(found, data)
    except DataError as error:
        return str(error)
    return None


class _Photos:
    """The photos' columns, and what is computed from them."""

    def __init__(self, decoded: Sequence[pixels.Decoded]) -> None:
        samples = [photo.sample for photo in decoded]
        self.names = [sample.name for sample in samples]
        self.truth = [sample.label for sample in samples]
        self.stations = [sample.station for sample in samples]
        self.boxes = [sample.boxes for sample in samples]
        self.sha256s = [photo.sha256 for photo in decoded]
        self.times = [photo.taken for photo in decoded]
        self._moments = np.array([time or "" for time in self.times])
        self._infrared = np.array([photo.infrared for photo in decoded], dtype=np.bool_)
        self.label_names = sorted(set(self.truth))
        number = {name: i for i, name in enumerate(self.label_names)}
        self.labels = np.array([number[label] for label in self.truth], dtype=np.intp)
        self.groups = group_photos(decoded)
        self._hashes = np.stack([photo.look.hash for photo in decoded])
        self._thumbnails = np.stack([photo.look.thumbnail for photo in decoded])
        self.copies = np.unique(self.sha256s, return_inverse=True)[1].astype(np.intp)
        self.near = split.join(split.near_duplicates(self._hashes, self._thumbnails, self.times), self.copies)
        defaults = Settings()
        self.facts = questions.Facts(
            labels=self.labels,
            groups=self.groups,
            stations=self.stations,
            sequences=[sample.sequence_key for sample in samples],
            times=self.times,
            parts=[sample.part for sample in samples],
            names=self.label_names,
            test_share=defaults.test_share,
            seed=defaults.seed,
        )

    def label_facts(self) -> dict[str, LabelFacts]:
        result = {}
        for i, name in enumerate(self.label_names):
            rows = np.flatnonzero(self.labels == i)
            result[name] = LabelFacts(
                count=len(rows),
                groups=len(np.unique(self.groups[rows])),
                stations=len({self.stations[row] for row in rows} - {None}),
                infrared_share=round(float(self._infrared[rows].mean()), 4),
            )
        return result

    def time_facts(self) -> dict[str, Any]:
        times = sorted(time for time in self.times if time is not None)
        return {"known": len(times), "first": times[0] if times else None, "last": times[-1] if times else None}

    def imbalance(self) -> float:
        counts = np.bincount(self.labels)
        return round(float(counts.max() / counts.min()), 2)

    def sets(self, numbers: split.Indices) -> list[list[str]]:
        """Names of the photos of one number, where there are two or more; the largest sets first."""
        members = [rows for rows in split.members(numbers) if len(rows) > 1]
        return [[self.names[i] for i in rows] for rows in sorted(members, key=lambda rows: (-len(rows), rows[0]))]

    def near_sets(self) -> list[list[str]]:
        """Sets of near-duplicates that are not all one file."""
        files = np.bincount(np.unique(np.stack([self.near, self.copies]), axis=1)[0])
        alone = np.arange(len(self.near), dtype=np.intp) + len(self.near)
        return self.sets(np.where(files[self.near] == 1, alone, self.near))

    def conflicts(self) -> list[Conflict]:
        """Files that are there under two labels, then pictures."""
        same = [
            self._conflict(int(rows[0]), int(other), split.SAME_FILE)
            for rows in split.members(self.copies)
            for other in _first_of_others(self.labels[rows], rows)
        ]
        return same + [self._conflict(i, j, SAME_PICTURE) for i, j in self._same_pictures()]

    def _same_pictures(self) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        alike = split.similar(
            self._hashes, self._thumbnails, self.times, self._may_conflict,
            bits=SAME_PICTURE_BITS, correlation=SAME_PICTURE_CORRELATION,
        )  # fmt: skip
        for first, second in alike:
            found += [(min(i, j), max(i, j)) for i, j in zip(first.tolist(), second.tolist(), strict=True)]
            if len(found) >= MOST_CONFLICTS:
                break
        return sorted(found, key=lambda pair: (self._hashes[pair[0]] != self._hashes[pair[1]]).sum())[:MOST_CONFLICTS]

    def _may_conflict(self, i: split.Indices, j: split.Indices) -> _Mask:
        """Photos known to be taken at different times are two photos, however alike: the animal may have gone."""
        apart = (self._moments[i] != self._moments[j]) & (self._moments[i] != "") & (self._moments[j] != "")
        return np.asarray((self.labels[i] != self.labels[j]) & (self.copies[i] != self.copies[j]) & ~apart)

    def _conflict(self, i: int, j: int, why: str) -> Conflict:
        return Conflict(self.names[i], self.truth[i], self.names[j], self.truth[j], why)

    def leaks(self) -> list[PartLeak]:
        parts = self.facts.parts
        found = split.leaks(
            groups=self.groups, parts=parts, order=PARTS, hashes=self._hashes, sha256s=self.sha256s,
            sequences=self.facts.sequences, near=self.near,
        )  # fmt: skip
        reasons = (split.SAME_FILE, split.NEAR_DUPLICATE, split.SAME_SEQUENCE, split.SAME_BURST)
        return [
            PartLeak(
                self.names[leak.held_out], str(parts[leak.held_out]), self.names[leak.learned],
                str(parts[leak.learned]), leak.why,
            )
            for leak in sorted(found, key=lambda leak: reasons.index(leak.why))
        ]  # fmt: skip


def _first_of_others(labels: split.Indices, rows: split.Indices) -> Iterator[int]:
    """Of rows, the first of each label but the first row's."""
    _, first = np.unique(labels, return_index=True)
    return (int(rows[i]) for i in sorted(first) if i)


def _suspicious(photos: _Photos, known: runs.Run) -> list[Suspicion]:
    lines = {line.sha256: line for line in known.photos}
    if not lines.keys() & set(photos.sha256s):
        raise DataError(f"{known.folder} knows none of these photos. Give a run that was trained on this data set.")
    found = []
    for name, label, sha256 in zip(photos.names, photos.truth, photos.sha256s, strict=True):
        line = lines.get(sha256)
        if line and line.unseen and line.predicted != label and line.confidence >= SURE:
            found.append(Suspicion(name, label, line.predicted, line.confidence))
    return sorted(found, key=lambda each: -each.confidence)


def _box_doubts(photos: _Photos, found: readers.DataSet, path: Path | None) -> list[BoxDoubt]:
    """What the boxes say: an animal where a person saw none, or none where a person saw one."""
    animal = [label not in (EMPTY, PERSON) for label in photos.truth]
    boxed = [bool(boxes) for boxes in photos.boxes]
    if not any(boxed):
        return []
    sure = box_files.attach(found, path, confidence=SURE_BOX) if path else found
    sure_names = {sample.name for sample in sure.samples if sample.boxes}
    doubts = [
        BoxDoubt(name, label, ANIMAL_MARKED)
        for name, label in zip(photos.names, photos.truth, strict=True)
        if label == EMPTY and name in sure_names
    ]
    if sum(map(bool.__and__, animal, boxed)) < MOST_BOXED * sum(animal):
        return doubts
    return doubts + [
        BoxDoubt(name, label, NO_ANIMAL_MARKED)
        for name, label, is_animal, has in zip(photos.names, photos.truth, animal, boxed, strict=True)
        if is_animal and not has
    ]


def _divisions(facts: questions.Facts) -> list[Division]:
    try:
        asked = [question.name for question in questions.questions(**vars(facts), split=questions.AUTO)]
    except DataError:
        asked = []
    found = [
        Division(
            name=option.name,
            possible=option.question is not None,
            asked=option.name in asked,
            test=0 if option.question is None else len(option.question.test),
            learn=0 if option.question is None else len(option.question.learn),
            remark=option.why_not if option.question is None else option.question.warning,
        )
        for option in questions.survey(facts)
    ]
    return sorted(found, key=lambda division: (not division.asked, not division.possible))
