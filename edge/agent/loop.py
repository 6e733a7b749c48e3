"""From a ready photo to a durable row: read once, decode once, classify, commit.

A photo that fails is a row with its reason and never ends the loop; only the log itself failing does. Never alters,
moves or deletes a photo, and never prints: it says what happened to whoever runs it.
"""

from __future__ import annotations

import enum
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from PIL import Image

from edge import pathtext
from edge import photo as photos
from edge.agent.watch import Candidate, again
from edge.errors import ModelError, PhotoError
from edge.log.store import BundleFacts, Detection, Failure, FileFacts, FileKey, Log, PhotoFacts

if TYPE_CHECKING:
    from edge.model.bundle import Manifest
    from edge.model.classify import Answer

# The same bytes may do better after a restart: the card is back, rights are set, or the new model has no strip to cut.
_RETRY_CODES = frozenset({"denied", "unreadable", "too small"})
_MOST_TEXT = 200


class Outcome(enum.Enum):
    """What became of one file."""

    CLASSIFIED = "classified"
    DUPLICATE = "duplicate"
    FAILED = "failed"
    CHANGED = "changed"  # while it was read: not a row yet
    EARLY = "early"  # just closed and not whole: not a row before it has settled
    GONE = "gone"


class ImageClassifier(Protocol):
    """What the loop needs of :class:`edge.model.classify.Classifier`."""

    @property
    def runtime(self) -> str:
        """Its name."""

    def classify_image(self, image: Image.Image) -> Answer:
        """Classify an opened photo, decoding it."""


@dataclass(frozen=True)
class Model:
    """A loaded bundle, as the loop uses it; ``development``: signed with a development key."""

    classifier: ImageClassifier
    bundle: BundleFacts
    development: bool


@dataclass(frozen=True)
class Done:
    """One file's end, for whoever runs the loop to say. ``label`` and ``confidence`` of a detection."""

    candidate: Candidate
    outcome: Outcome
    label: str | None = None
    confidence: float | None = None
    reason: str | None = None


class StopFlag:
    """Set by SIGTERM and SIGINT. Not ``threading.Event``: its lock can be held by the very code that a signal
    interrupts."""

    def __init__(self) -> None:
        self._stopped = False

    def is_set(self) -> bool:
        """Whether to stop after the photo in hand."""
        return self._stopped

    def set(self) -> None:
        """Stop after the photo in hand."""
        self._stopped = True


@contextmanager
def stopped_by_signals(wake: Callable[[], None]) -> Iterator[StopFlag]:
    """A flag that SIGTERM and SIGINT set while the block runs; a second signal does what it always does.

    Args:
        wake: called from the signal handler, to end a wait.
    """
    flag = StopFlag()
    kinds = (signal.SIGTERM, signal.SIGINT)
    before = {kind: signal.getsignal(kind) for kind in kinds}

    def stop(number: int, frame: FrameType | None) -> None:
        flag.set()
        wake()
        for kind in kinds:
            signal.signal(kind, before[kind])

    for kind in kinds:
        signal.signal(kind, stop)
    try:
        yield flag
    finally:
        for kind in kinds:
            signal.signal(kind, before[kind])


def bundle_facts(manifest: Manifest, digest: str) -> BundleFacts:
    """What the log keeps of a bundle."""
    return BundleFacts(
        digest=digest,
        name=f"{manifest.name}-{manifest.sequence}",
        model_digest=manifest.model.sha256,
        labels=tuple(label.name for label in manifest.labels),
        thresholds=manifest.thresholds,
        temperature=manifest.temperature,
    )


class Intake:
    """Takes ready files into the log, one transaction each.

    Attributes:
        counts: how many files ended in which way so far.
    """

    def __init__(self, log: Log, model: Model, device: str) -> None:
        """Start a run. Files whose earlier failure deserves another try are taken again, once.

        Raises:
            LogError: the log cannot be written.
        """
        self._log, self._model, self._device = log, model, device
        self._retries = log.retries()
        self.counts: Counter[Outcome] = Counter()
        log.add_bundle(model.bundle)

    def known(self, candidate: Candidate) -> bool:
        """Whether this very file (path, size, time) needs nothing more."""
        seen = self._log.seen(self._key(candidate))
        return seen is not None and not (seen.retry and seen.file_id in self._retries)

    def take_all(self, ready: Iterable[Candidate], put_back: Callable[[Candidate], None]) -> Iterator[Done]:
        """Take files as they become ready.

        Args:
            put_back: takes a file that changed while it was read, or was read too early, to be taken again later.

        Raises:
            LogError: the log cannot be written. The photo in hand is not in it then.
        """
        for candidate in ready:
            done = self.take(candidate)
            self.counts[done.outcome] += 1
            if done.outcome in (Outcome.CHANGED, Outcome.EARLY):
                put_back(candidate)
            yield done

    def take(self, candidate: Candidate) -> Done:
        """Bring one file into the log; on return its row is durable. A file that may not be whole yet gets none.

        Raises:
            LogError: the log cannot be written.
        """
        found = _read(candidate)
        if again(candidate) not in (candidate, None):  # its row would have the wrong size and time
            return Done(candidate, Outcome.CHANGED, reason="it changed while it was read")
        if isinstance(found, PhotoError):
            if found.code == "missing":
                return Done(candidate, Outcome.GONE, reason=_text(found))
            return self._unreadable(candidate, found, None)
        try:
            return self._classify(candidate, found)
        except PhotoError as error:
            return self._unreadable(candidate, error, found)

    def _classify(self, candidate: Candidate, photo: photos.Photo) -> Done:
        image = photos.open_image(photo.data, candidate.path.name)
        file, facts = self._file(candidate, image), _photo_facts(photo.sha256, image)  # decoding changes image.size
        if self._log.classified(photo.sha256):
            self._add(file, photo=facts)
            return Done(candidate, Outcome.DUPLICATE)
        try:
            answer = self._model.classifier.classify_image(image)
        except ModelError as error:
            self._add(file, photo=facts, failure=Failure(error.code, _text(error), retry=True))
            return Done(candidate, Outcome.FAILED, reason=_text(error))
        self._add(file, photo=facts, detection=self._detection(answer))
        return Done(candidate, Outcome.CLASSIFIED, answer.decision.label, answer.decision.confidence)

    def _unreadable(self, candidate: Candidate, error: PhotoError, photo: photos.Photo | None) -> Done:
        """A row for a file that is no photo, or none that can be decoded; none yet where it may still be written."""
        if candidate.early and error.code != "video":  # that is known by its name
            return Done(candidate, Outcome.EARLY, reason=f"tried again once it has settled: {_text(error)}")
        image, sha256 = None, None
        if photo:
            sha256 = photo.sha256
            with suppress(PhotoError):  # a truncated photo still opens, and has its time in EXIF
                image = photos.open_image(photo.data)
        self._add(
            self._file(candidate, image),
            failure=Failure(error.code, _text(error), error.code in _RETRY_CODES, sha256),
        )
        return Done(candidate, Outcome.FAILED, reason=_text(error))

    def _add(
        self,
        file: FileFacts,
        *,
        photo: PhotoFacts | None = None,
        detection: Detection | None = None,
        failure: Failure | None = None,
    ) -> None:
        file_id = self._log.add_file(file, photo=photo, detection=detection, failure=failure)
        self._retries.discard(file_id)  # this run has had its try

    def _file(self, candidate: Candidate, image: Image.Image | None) -> FileFacts:
        source = candidate.source
        taken = photos.taken(candidate.path, candidate.mtime_ns / 1e9, image, source.utc_offset)
        return FileFacts(self._key(candidate), taken, source.station, source.camera)

    def _key(self, candidate: Candidate) -> FileKey:
        source = pathtext.to_text(candidate.source.path)
        return FileKey(self._device, source, candidate.text, candidate.size_bytes, candidate.mtime_ns)

    def _detection(self, answer: Answer) -> Detection:
        decision = answer.decision
        return Detection(
            bundle=self._model.bundle,
            runtime=self._model.classifier.runtime,
            label=decision.label,
            confidence=decision.confidence,
            decision=decision.kind,
            top=decision.top,
            logits=answer.logits.astype("<f4").tobytes(),
            development=self._model.development,
        )


def _photo_facts(sha256: str, image: Image.Image) -> PhotoFacts:
    make, model = photos.camera(image)
    return PhotoFacts(sha256, image.width, image.height, make and make[:_MOST_TEXT], model and model[:_MOST_TEXT])


def _read(candidate: Candidate) -> photos.Photo | PhotoError:
    try:
        return photos.read(candidate.path)
    except PhotoError as error:
        return error


def _text(error: Exception) -> str:
    """A message that may hold a file name, as text that the log takes."""
    return pathtext.to_text(str(error))
