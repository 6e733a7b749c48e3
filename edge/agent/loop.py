"""From a ready photo to a durable row.

Photos that an event named, or that come one at a time, are a transaction each; of a backlog several are, and a helper
examines some of them at the same time. Nothing is called done before it is durable. A photo that fails is a row with
its reason and never ends the loop; only the log itself failing does. Never alters, moves or deletes a photo, and never
prints: it says what happened to whoever runs it.
"""

from __future__ import annotations

import math
import queue
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from edge import pathtext
from edge.agent import memory
from edge.agent.examine import (
    RETRY_CODES,
    Examiner,
    Finding,
    ImageClassifier,
    Outcome,
    Preview,
    hand_name,
    text_of,
)
from edge.agent.helper import MOST_GIVEN, Found, Helper
from edge.agent.in_hand import InHand
from edge.agent.watch import Candidate
from edge.errors import FieldmarkError, LogError
from edge.log.store import Alert, BundleFacts, Detection, Failure, FileFacts, FileKey, Log, PhotoFacts

if TYPE_CHECKING:
    from edge.model.bundle import Manifest
    from edge.model.classify import Answer

__all__ = ["Done", "ImageClassifier", "Intake", "Model", "Outcome", "StopFlag", "bundle_facts", "stopped_by_signals"]

BATCH_PHOTOS, BATCH_S = 8, 2.0
"""So many photos of a backlog are one transaction, or those of so long a time."""
_HELP_AFTER = 4
"""So many photos without a pause are a backlog that is worth a helper's memory."""
_HELP_KEPT_S = 10.0
"""So long without a backlog, and its memory is given back: 20 MB that would be held for months."""

Alerts = Callable[[FileFacts, PhotoFacts, Detection], Sequence[Alert]]
"""Messages about a newly classified photo; they are stored together with its row."""


@dataclass(frozen=True)
class Model:
    """A loaded bundle, as the loop uses it; ``development``: signed with a development key."""

    classifier: ImageClassifier
    bundle: BundleFacts
    development: bool


@dataclass(frozen=True)
class Done:
    """One file's end, for whoever runs the loop to say.

    Attributes:
        label, confidence: of a detection.
        reason: of a failure; with a detection, what is visibly wrong with the photo.
    """

    candidate: Candidate
    outcome: Outcome
    label: str | None = None
    confidence: float | None = None
    reason: str | None = None
    code: str | None = None


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
    signal.pthread_sigmask(signal.SIG_UNBLOCK, kinds)  # held back since the start, see edge.agent.plan.hold_sigterm
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


@dataclass(frozen=True)
class Help:
    """What a backlog may use beside one core.

    Attributes:
        helpers: at most so many threads.
        classifier: makes one for a helper.
        say: told where that fails; the backlog goes on without.
    """

    helpers: int
    classifier: Callable[[], ImageClassifier]
    say: Callable[[str], None] = lambda line: None


@dataclass(slots=True)
class _Helping:
    helper: Helper
    given: int = 0
    last_s: float = 0.0  # by the monotonic clock: when it was given a photo


@dataclass(slots=True)
class _Held:
    """Findings that are not written yet."""

    findings: list[Finding] = field(default_factory=list)
    since_s: float = 0.0


class Intake:
    """Takes ready files into the log.

    Attributes:
        counts: how many files ended in which way so far.
    """

    def __init__(
        self,
        log: Log,
        model: Model,
        device: str,
        *,
        help: Help | None = None,
        preview: Preview | None = None,
        alerts: Alerts | None = None,
        in_hand: InHand | None = None,
    ) -> None:
        """Start a run. Files whose earlier failure deserves another try are taken again, once and then as
        :data:`edge.log.store.RETRY_AFTER_S` says.

        Args:
            help: for a backlog; none by default.
            preview, in_hand: see :class:`edge.agent.examine.Examiner`.
            alerts: asked of each newly classified photo.

        Raises:
            LogError: the log cannot be written.
        """
        self._log, self._model, self._device = log, model, device
        self._help = help or Help(0, lambda: model.classifier)
        self._alerts, self._remembered = alerts, in_hand
        self._examiner = Examiner(model.classifier, self._needs_nothing, preview, in_hand)
        self._retries = log.retries(model.bundle.model_digest)
        self._logged = log.sources(device)
        self._in_hand: set[FileKey] = set()
        self._held = _Held()
        self._found: Found = queue.SimpleQueue()
        self._helping: list[_Helping] = []
        self._in_a_row = 0
        self.counts: Counter[Outcome] = Counter()
        log.add_bundle(model.bundle)

    def known(self, candidate: Candidate) -> bool:
        """Whether this very file (path, size, time) needs nothing more, or is in hand."""
        key = self._key(candidate)
        if key in self._in_hand:
            return True
        seen = self._log.seen(key)
        if seen is None:
            return False
        if not seen.retry:
            return True
        due = seen.next_try_utc is not None and datetime.fromisoformat(seen.next_try_utc) <= datetime.now(UTC)
        return not due and seen.file_id not in self._retries

    def take_all(
        self, ready: Iterable[Candidate | None], put_back: Callable[[Candidate], None]
    ) -> Iterator[Done | None]:
        """Take files as they become ready. What is yielded is durable. ``None`` comes where ``ready`` has one: nothing
        is in hand then.

        Args:
            put_back: takes a file that changed while it was read, or was read too early, to be taken again later.

        Raises:
            LogError: the log cannot be written. What was not yielded may not be in it.
        """
        try:
            for candidate in ready:
                if candidate is None:
                    yield from self._finish(put_back)
                    self._rest()
                    yield None
                else:
                    yield from self._hand_on(candidate, put_back)
            yield from self._finish(put_back)
        finally:
            self._close()

    def _rest(self) -> None:
        """Give memory back, since it may be long until the next photo."""
        helping = len(self._helping)
        self._close(time.monotonic() - _HELP_KEPT_S)
        if self._in_a_row or len(self._helping) < helping:
            memory.give_back()
        self._in_a_row = 0

    def _close(self, idle_since_s: float = math.inf) -> None:
        """End the helpers that were given nothing since."""
        for each in self._helping:
            if each.last_s < idle_since_s:
                each.helper.close()
        self._helping = [each for each in self._helping if each.helper.works]

    def take(self, candidate: Candidate) -> Done:
        """Bring one file into the log; on return its row is durable. A file that may not be whole yet gets none.

        Raises:
            LogError: the log cannot be written.
        """
        finding = self._examiner.examine(candidate)
        return self._no_row(finding) or self._write(finding)

    def _hand_on(self, candidate: Candidate, put_back: Callable[[Candidate], None]) -> Iterator[Done]:
        """Give a photo to a helper that has time for it, or examine it here."""
        self._in_a_row += 1
        self._in_hand.add(self._key(candidate))
        if self._remembered and self._remembered.suspects(hand_name(candidate)):
            yield from self._collect(put_back, wait=True)  # if it kills the agent again, no other is to blame
            yield from self._hold(self._examiner.examine(candidate), put_back)
        elif helping := self._free_helper(candidate):
            helping.given, helping.last_s = helping.given + 1, time.monotonic()
            helping.helper.give(candidate)
        else:
            yield from self._hold(self._examiner.examine(candidate), put_back)
        yield from self._collect(put_back, wait=False)

    def _free_helper(self, candidate: Candidate) -> _Helping | None:
        if candidate.live or self._in_a_row < _HELP_AFTER:
            return None
        for helping in self._helping:
            if helping.given < MOST_GIVEN:
                return helping
        return self._another_helper() if len(self._helping) < self._help.helpers else None

    def _another_helper(self) -> _Helping | None:
        try:
            classifier = self._help.classifier()
        except (FieldmarkError, MemoryError) as error:
            self._help.say(f"one core must do: {error}")
            self._help = Help(0, self._help.classifier)
            return None
        helper = Helper(replace(self._examiner, classifier=classifier), self._log.path, self._found)
        self._helping.append(_Helping(helper))
        return self._helping[-1]

    def _finish(self, put_back: Callable[[Candidate], None]) -> Iterator[Done]:
        """Wait for the helpers and write everything."""
        yield from self._collect(put_back, wait=True)
        yield from self._commit()

    def _collect(self, put_back: Callable[[Candidate], None], *, wait: bool) -> Iterator[Done]:
        """Take what helpers have found."""
        while any(each.given for each in self._helping):
            try:
                helper, finding = self._found.get(block=wait)
            except queue.Empty:
                return
            next(each for each in self._helping if each.helper is helper).given -= 1
            yield from self._hold(finding, put_back)

    def _hold(self, finding: Finding, put_back: Callable[[Candidate], None]) -> Iterator[Done]:
        """Keep a finding until its transaction."""
        if done := self._no_row(finding):
            self._in_hand.discard(self._key(finding.candidate))
            self.counts[done.outcome] += 1
            if done.outcome is not Outcome.GONE:
                put_back(finding.candidate)
            yield done
            return
        held = self._held
        if not held.findings:
            held.since_s = time.monotonic()
        held.findings.append(finding)
        full = len(held.findings) >= BATCH_PHOTOS or time.monotonic() - held.since_s >= BATCH_S
        if finding.candidate.live or full:
            yield from self._commit()

    def _commit(self) -> Iterator[Done]:
        findings, self._held.findings = self._held.findings, []
        if not findings:
            return
        with self._log.batch() if len(findings) > 1 else nullcontext():
            ended = [self._write(finding) for finding in findings]
        for done in ended:
            self._in_hand.discard(self._key(done.candidate))
            self.counts[done.outcome] += 1
            yield done

    def _needs_nothing(self, candidate: Candidate, sha256: str) -> bool:
        held = any(each.sha256 == sha256 and each.answer for each in self._held.findings)
        return held or self._is_classified(candidate, sha256)

    def _is_classified(self, candidate: Candidate, sha256: str) -> bool:
        """An old photo is done when this model has classified it; of a new file any model's answer is enough."""
        return self._log.classified(sha256, self._model.bundle.model_digest if candidate.old else None)

    def _no_row(self, finding: Finding) -> Done | None:
        """The end of a file of which nothing is written."""
        if finding.taken is not None:
            return None
        outcome = finding.outcome
        if finding.candidate.old and outcome is Outcome.CHANGED:
            outcome = Outcome.GONE  # what is there now is another file, which a search finds
        return Done(finding.candidate, outcome, reason=finding.reason)

    def _write(self, finding: Finding) -> Done:
        """Write one finding; in a batch it is durable when that ends."""
        try:
            return self._add(finding)
        except LogError as error:
            if error.code != "refused":
                raise
            # Without this the same photo would end the agent at every start.
            return self._add_failure(finding, Failure("refused", text_of(error), sha256=finding.sha256))

    def _add(self, finding: Finding) -> Done:
        candidate, photo = finding.candidate, finding.photo
        if finding.code is not None:
            retry = finding.code in RETRY_CODES
            digest = self._model.bundle.model_digest
            return self._add_failure(
                finding, Failure(finding.code, finding.reason or "", retry, finding.sha256, model_digest=digest)
            )
        assert photo is not None
        file = self._file(finding)
        if self._is_classified(candidate, photo.sha256):
            self._retries.discard(self._log.add_file(file, photo=photo, detection=None, failure=None))
            return Done(candidate, Outcome.DUPLICATE)
        if finding.answer is None:
            reason = "it is a copy of a photo that the log did not take."
            return self._add_failure(finding, Failure("refused", reason, retry=True, sha256=photo.sha256))
        detection = self._detection(finding.answer)
        alerts = self._alerts(file, photo, detection) if self._alerts and not candidate.old else ()
        file_id = self._log.add_file(file, photo=photo, detection=detection, failure=None, alerts=alerts)
        self._retries.discard(file_id)
        outcome = Outcome.RECLASSIFIED if candidate.old else Outcome.CLASSIFIED
        return Done(candidate, outcome, detection.label, detection.confidence, finding.damage)

    def _add_failure(self, finding: Finding, failure: Failure) -> Done:
        photo = finding.photo if finding.answer is None else None
        file_id = self._log.add_file(self._file(finding), photo=photo, detection=None, failure=failure)
        self._retries.discard(file_id)  # this run has had its try; the log says when the next one is due
        return Done(finding.candidate, Outcome.FAILED, reason=failure.reason, code=failure.code)

    def _file(self, finding: Finding) -> FileFacts:
        source = finding.candidate.source
        assert finding.taken is not None
        return FileFacts(self._key(finding.candidate), finding.taken, source.station, source.camera)

    def _key(self, candidate: Candidate) -> FileKey:
        """The file as the log has it: a run that searched a folder above or below this source may have found it."""
        source = _source_text(candidate.source.path)
        own = FileKey(self._device, source, candidate.text, candidate.size_bytes, candidate.mtime_ns)
        for other, path in _elsewhere(source, candidate.text, self._logged):
            key = replace(own, source=other, path=path)
            if self._log.seen(own) is None and self._log.seen(key):
                return key
        return own

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


@lru_cache(maxsize=64)
def _source_text(path: Path) -> str:
    return pathtext.to_text(path)


def _elsewhere(source: str, path: str, logged: Sequence[str]) -> Iterator[tuple[str, str]]:
    """A file's names below other folders of the log."""
    whole = f"{source.rstrip('/')}/{path}"
    for other in logged:
        start = f"{other.rstrip('/')}/"
        if other != source and whole.startswith(start):
            yield other, whole.removeprefix(start)
