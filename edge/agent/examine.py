"""One photo, from its bytes to what can be said of it: read once, decode once, classify, look for damage.

Knows no log and writes nothing, so that several threads can be at it, each with a classifier of its own. A photo that
fails is a finding with its reason, never an exception.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from PIL import Image

from edge import decode_cost, pathtext
from edge import photo as photos
from edge.agent import in_hand as deaths
from edge.agent.in_hand import InHand
from edge.agent.watch import Candidate, again
from edge.errors import FieldmarkError, ModelError, PhotoError
from edge.log.store import PhotoFacts
from edge.photo import Taken

if TYPE_CHECKING:
    from edge.model.classify import Answer
    from edge.model.decide import Decision

RETRY_CODES = frozenset(
    {deaths.CODE, "denied", "model", "too small", "truncated", "undecodable", "unexpected", "unreadable"}
)
"""Failures that may go better another time with the same file: it is still being written over a network, the card had
a bad contact, rights are set, memory is free again, or another model has no strip to cut."""
UNEXPECTED = "unexpected"
_HASHED_ASIDE_BYTES = 2**20  # less is hashed sooner than a thread starts
_ONE_LARGE = threading.RLock()
"""Held while a large file or picture is in memory, so that helpers do not have one each."""

Preview = Callable[[Image.Image, str, "Decision"], str]
"""Makes a preview of a decoded photo, given its SHA-256 and what was decided; says what became of it, in the words of
:class:`edge.log.store.PhotoFacts`."""


class Outcome(enum.Enum):
    """What became of one file."""

    CLASSIFIED = "classified"
    RECLASSIFIED = "reclassified"  # by another model than before
    DUPLICATE = "duplicate"
    FAILED = "failed"
    CHANGED = "changed"  # while it was read: not a row yet
    EARLY = "early"  # just closed and not whole: not a row before it has settled
    GONE = "gone"


class ImageClassifier(Protocol):
    """What is needed of :class:`edge.model.classify.Classifier`."""

    @property
    def runtime(self) -> str:
        """Its name."""

    def classify_image(self, image: Image.Image) -> Answer:
        """Classify an opened photo, decoding it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about one file; small, without pixels.

    Attributes:
        taken: None where there is nothing to write: ``outcome`` is ``CHANGED``, ``EARLY`` or ``GONE``.
        photo: its facts, where it could be opened.
        answer: what the model says, in the end, of a damaged photo too.
        damage: what is visibly wrong with it.
        code, reason: of a failure.
        sha256: of the bytes, where they were read.
    """

    candidate: Candidate
    outcome: Outcome
    taken: Taken | None = None
    photo: PhotoFacts | None = None
    answer: Answer | None = None
    damage: str | None = None
    code: str | None = None
    reason: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Examiner:
    """Finds out about files, one at a time; each thread has one of its own.

    Attributes:
        classified: whether a photo of this SHA-256, found as this file, needs no classification any more.
        preview: makes previews; None for none.
        in_hand: remembers the file meanwhile. One with which in hand the agent has died is not opened.
    """

    classifier: ImageClassifier
    classified: Callable[[Candidate, str], bool] = lambda candidate, sha256: False
    preview: Preview | None = None
    in_hand: InHand | None = None

    def examine(self, candidate: Candidate) -> Finding:
        """Find out about one file."""
        if self.in_hand is None:
            return self._with_room(candidate)
        name = hand_name(candidate)
        try:
            if (times := self.in_hand.take(name)) >= deaths.MOST_DEATHS:
                reason = f"the agent died {times} times while it had this file in hand; it is tried again later."
                return _failed(candidate, None, deaths.CODE, reason)
            return self._with_room(candidate)
        finally:
            self.in_hand.lay_down(name)

    def _with_room(self, candidate: Candidate) -> Finding:
        with _room(candidate.size_bytes):
            return self._examine(candidate)

    def _examine(self, candidate: Candidate) -> Finding:
        photo: photos.Photo | None = None
        try:
            found = _read(candidate)
            if again(candidate) not in (candidate, None):  # its row would have the wrong size and time
                return Finding(candidate, Outcome.CHANGED, reason="it changed while it was read")
            if isinstance(found, PhotoError):
                raise found
            photo = found
            return self._classify(candidate, photo)
        except PhotoError as error:
            if error.code == "missing":
                return Finding(candidate, Outcome.GONE, reason=text_of(error))
            if candidate.early and error.code != "video":  # that is known by its name
                reason = f"tried again once it has settled: {text_of(error)}"
                return Finding(candidate, Outcome.EARLY, reason=reason)
            return _failed(candidate, photo, error.code, text_of(error))
        except Exception as error:  # one photo that nobody foresaw must not stop all the others
            return _failed(candidate, photo, UNEXPECTED, text_of(f"unexpected {type(error).__name__}: {error}"))

    def _classify(self, candidate: Candidate, photo: photos.Photo) -> Finding:
        image = photos.open_image(photo.data, candidate.path.name)
        camera = photos.camera_facts(image)
        opened = _Opened(candidate, photo, image, _taken(candidate, image), image.width, image.height, camera)
        # Somebody may wait for a live photo, and it is rarely a copy: what it is, is found out while it is decoded.
        aside = candidate.live and len(photo.data) >= _HASHED_ASIDE_BYTES
        if aside:
            photo.hash_aside()
        elif self.classified(candidate, photo.sha256):
            return opened.finding(Outcome.DUPLICATE)
        with _room(decode_cost.decode_bytes(image)):
            return self._decoded(opened, ask=aside)

    def _decoded(self, opened: _Opened, *, ask: bool) -> Finding:
        """What its pixels say of a photo that could be opened; ``ask`` afterwards whether it is a copy."""
        try:
            answer = self.classifier.classify_image(opened.image)
        except ModelError as error:
            return replace(opened.finding(Outcome.FAILED), code=error.code, reason=text_of(error))
        finding = opened.finding(Outcome.CLASSIFIED)
        assert finding.photo is not None
        if ask and self.classified(opened.candidate, finding.photo.sha256):
            return replace(finding, outcome=Outcome.DUPLICATE)
        damage = photos.damage(opened.image, opened.photo.data)
        if damage and opened.candidate.early:  # the rest may still come into a file that was made long enough before
            return Finding(opened.candidate, Outcome.EARLY, reason=f"tried again once it has settled: {damage}")
        answer = replace(answer, decision=sure(answer.decision, damage))
        state = self._previewed(opened.image, finding.photo.sha256, answer.decision)
        facts = replace(finding.photo, damaged=damage is not None, preview=state)
        return replace(finding, photo=facts, answer=answer, damage=damage)

    def _previewed(self, image: Image.Image, sha256: str, decision: Decision) -> str:
        if self.preview is not None:
            with suppress(FieldmarkError, OSError):  # no space for a preview is no reason to fail the photo
                return self.preview(image, sha256, decision)
        return "none"


def hand_name(candidate: Candidate) -> str:
    """By what :class:`edge.agent.in_hand.InHand` tells a file from all others."""
    return f"{candidate.path}:{candidate.size_bytes}:{candidate.mtime_ns}"


def sure(decision: Decision, damage: str | None) -> Decision:
    """What may be decided of a photo that is damaged: never ``empty``, since the animal may be in what is missing. The
    probabilities stay."""
    if damage is None or decision.kind != "empty":
        return decision
    return replace(decision, label="unknown", kind="unknown")


@dataclass(frozen=True, slots=True)
class _Opened:
    """A photo whose header was read, with what decoding would change."""

    candidate: Candidate
    photo: photos.Photo
    image: Image.Image
    taken: Taken
    width: int
    height: int
    camera: photos.CameraFacts

    def finding(self, outcome: Outcome) -> Finding:
        sha256, camera = self.photo.sha256, self.camera
        facts = PhotoFacts(
            sha256,
            self.width,
            self.height,
            camera_make=camera.make,
            camera_model=camera.model,
            camera_serial=camera.serial,
            temperature_c=camera.temperature_c,
            burst=camera.burst,
        )
        return Finding(self.candidate, outcome, self.taken, facts, sha256=sha256)


def _room(needed_bytes: int) -> AbstractContextManager[object]:
    return _ONE_LARGE if needed_bytes > decode_cost.LARGE_BYTES else nullcontext()


def _failed(candidate: Candidate, photo: photos.Photo | None, code: str, reason: str) -> Finding:
    """A file that is no photo, or one that cannot be decoded."""
    image = None
    if photo:
        with suppress(PhotoError):  # a truncated photo still opens, and has its time in EXIF
            image = photos.open_image(photo.data)
    taken = _taken(candidate, image)
    sha256 = photo.sha256 if photo else None
    return Finding(candidate, Outcome.FAILED, taken, code=code, reason=reason, sha256=sha256)


def _taken(candidate: Candidate, image: Image.Image | None) -> Taken:
    return photos.taken(candidate.path, candidate.mtime_ns / 1e9, image, candidate.source.utc_offset)


def _read(candidate: Candidate) -> photos.Photo | PhotoError:
    try:
        return photos.read(candidate.path)
    except PhotoError as error:
        return error


def text_of(message: object) -> str:
    """A message that may hold a file name, as text that the log takes."""
    return pathtext.to_text(str(message))
