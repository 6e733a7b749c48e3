"""Labelled photos, read to judge a model that is there already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.errors import DataError
from edge.model.spec import InputSpec
from trainer import pixels
from trainer.answered import Answered, Logits
from trainer.cache import cache_dir
from trainer.dataset import readers
from trainer.dataset.samples import Unreadable
from trainer.photos import group_photos
from trainer.progress import Steps


@dataclass(frozen=True)
class Labelled:
    """Photos whose labels a model knows.

    Attributes:
        decoded: the n that could be read.
        failed: labelled files that could not.
        stack: pixels of the n.
        truth: n label numbers.
        notes: sentences for the user.
    """

    decoded: list[pixels.Decoded]
    failed: list[Unreadable]
    stack: pixels.PixelStack
    truth: npt.NDArray[np.intp]
    notes: list[str]

    @property
    def digest(self) -> str:
        """SHA-256 over photos and labels."""
        return pixels.dataset_digest(self.decoded)

    def answered(self, logits: Logits, labels: tuple[str, ...]) -> Answered:
        """What a model answered on them: float32 (n, C)."""
        return Answered.on(self.decoded, logits, self.truth, labels, group_photos(self.decoded))


def read(
    data: Path, labels: Sequence[str], spec: InputSpec, sequence_column: str | None, steps: Steps, *, who: str
) -> Labelled:
    """Read a data set.

    Args:
        data: as for ``train``.
        labels: C names that the model knows.
        spec: what it wants to see.
        who: the model's name, for messages.

    Raises:
        DataError: the data has a label that the model does not know, or no readable photo.
    """
    found = readers.scan(data, sequence_column=sequence_column)
    for note in found.notes:
        steps.say(f"  {note}")
    strange = sorted({sample.label for sample in found.samples} - set(labels))
    if strange:
        raise DataError(
            f"{data} has the label {strange[0]!r}, which {who} does not know ({', '.join(labels)}). "
            "Rename or leave out its folder."
        )
    bare = [each for each in found.left_out if not each.label]
    if bare:
        steps.say(f"  {len(bare)} files or folders have no label and are not measured; {bare[0].reason}")
    with steps.step("reading photos", len(found.samples)) as done:
        decoded, failed, stack = pixels.decode(found.samples, spec, cache_dir(), done=lambda: done(1))
    if not decoded:
        raise DataError(
            f"{data}: none of {len(found.samples)} files can be read, {failed[0].name} for one: {failed[0].reason}"
        )
    truth = np.array([labels.index(photo.sample.label) for photo in decoded], dtype=np.intp)
    left_out = [each for each in found.left_out if each.label]
    return Labelled(decoded, left_out + failed, stack, truth, found.notes)
