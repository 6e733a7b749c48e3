"""The run: the folder that training writes and that export and evaluation read. Owns its files and their names."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge.errors import DataError
from edge.model.spec import InputSpec
from trainer.dataset.samples import Unreadable

FORMAT = 2
MODEL, MEASURED, FACTS, PHOTOS, UNREADABLE = "model.keras", "measured.keras", "run.json", "photos.csv", "unreadable.csv"
HISTORY, LABELS, SUMMARY, SETTINGS = "history.csv", "labels.txt", "summary.txt", "train.toml"
MISTAKES = "mistakes.jpg"
TAXA = "labels.toml"

TRAIN, VALIDATION, HOLDOUT, UNUSED = "train", "validation", "holdout", "left out"


@dataclass(frozen=True)
class PhotoLine:
    """One photo of a run.

    Attributes:
        photo: path relative to the data folder, as :func:`edge.pathtext.to_text` writes it.
        part: ``train``, ``validation`` or ``holdout``, of the hardest question; ``left out`` if it would leak.
        group: photos of one number were never split.
        predicted, confidence: of a model that did not learn from this photo if ``unseen``; else they flatter.
        unseen: whether they are.
        station: where the camera stood, if the data set says; else empty.
        infrared: whether the photo has no colour.
    """

    photo: str
    label: str
    part: str
    group: int
    sha256: str
    predicted: str
    confidence: float
    unseen: bool = False
    station: str = ""
    infrared: bool = False


@dataclass(frozen=True)
class Facts:
    """What a run is, apart from its model and photos; ``run.json``.

    Attributes:
        name: of the folder at training.
        created: end of training, ISO 8601 with offset.
        data_folder: absolute, written like the photos, which are relative to it.
        labels: C names in the order of the logits.
        input: what the model wants to see.
        backbone: name of the pretrained network.
        kept: ``probe``, ``head`` or ``fine-tuned``; see :mod:`trainer.fit`.
        question: what the held-out figure answers; a name of :class:`trainer.dataset.questions.Question`.
        split: how photos were divided, in words.
        temperature: from photos that the model did not learn from.
        thresholds: C probabilities below which a label is not given; from the same photos.
        rollup: the probability below which a taxon is not given either.
        refitted: whether the shipped model learned from all photos; ``measured.keras`` is then its twin that did not
            learn from the held-out ones, and the figures are the twin's.
        dataset_digest: SHA-256 over photos and labels.
        settings, metrics, seconds: as they were, found and spent.
        trained_with: libraries and versions.
    """

    name: str
    created: str
    data_folder: str
    labels: tuple[str, ...]
    input: InputSpec
    backbone: str
    kept: str
    question: str
    split: str
    temperature: float
    thresholds: tuple[float, ...]
    refitted: bool
    dataset_digest: str
    settings: dict[str, Any]
    metrics: dict[str, Any]
    seconds: dict[str, float]
    trained_with: str
    rollup: float | None = None
    format: int = FORMAT


@dataclass(frozen=True)
class Run:
    """A run that was read back."""

    folder: Path
    facts: Facts
    photos: tuple[PhotoLine, ...]

    @property
    def model_path(self) -> Path:
        """The Keras model that is shipped."""
        return self.folder / MODEL

    @property
    def labels_path(self) -> Path:
        """What each label is; for the user to complete, and for :func:`trainer.labels.read`."""
        return self.folder / TAXA

    @property
    def measured_path(self) -> Path:
        """The Keras model that the figures are of: it did not learn from the held-out photos."""
        return self.folder / (MEASURED if self.facts.refitted else MODEL)


def write(
    folder: Path,
    facts: Facts,
    photos: Sequence[PhotoLine],
    unreadable: Sequence[Unreadable],
    history: Sequence[dict[str, Any]],
) -> None:
    """Write the text files of a run; model and plots are written beside them."""
    (folder / FACTS).write_text(json.dumps(asdict(facts), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / LABELS).write_text("\n".join(facts.labels) + "\n", encoding="utf-8")
    _write_csv(folder / PHOTOS, PhotoLine.__dataclass_fields__, map(asdict, photos))
    _write_csv(folder / UNREADABLE, Unreadable.__dataclass_fields__, map(asdict, unreadable))
    if history:
        _write_csv(folder / HISTORY, history[0], history)


def read(folder: Path) -> Run:
    """Read a run.

    Raises:
        DataError: the folder is no run, or of another format.
    """
    try:
        content = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise DataError(f"{folder} is a run of format {content['format']}, expected {FORMAT}. Train it again.")
        content["input"] = InputSpec(**content["input"])
        content["labels"], content["thresholds"] = tuple(content["labels"]), tuple(content["thresholds"])
        with (folder / PHOTOS).open(encoding="utf-8", newline="") as file:
            photos = tuple(_photo_line(row) for row in csv.DictReader(file))
        return Run(folder, Facts(**content), photos)
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} is no run: {error.filename} is missing. Give the folder that train wrote."
        ) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{folder} is a damaged run: {error}. Train it again.") from error


def _photo_line(row: dict[str, str]) -> PhotoLine:
    return PhotoLine(
        row["photo"], row["label"], row["part"], int(row["group"]), row["sha256"], row["predicted"],
        float(row["confidence"]), row["unseen"] == "True", row["station"], row["infrared"] == "True",
    )  # fmt: skip


def _write_csv(path: Path, columns: Iterable[str], rows: Iterable[dict[str, Any]]) -> None:
    # a reason may quote a file name that is not UTF-8
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows)
