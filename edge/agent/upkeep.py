"""Everything that goes on beside the photos, for one run of the agent: previews, alerts, space, deletion, status.

The loop calls it at fixed points and hears nothing back but what goes into a row. Whatever goes wrong here while photos
come is said, and ends nothing.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.agent import health, metrics, previews
from edge.agent.alerts import Alerts, Events, Sighting
from edge.agent.config_upkeep import Rule
from edge.agent.config_upkeep import Upkeep as Settings
from edge.agent.days import Days
from edge.agent.deletion import Deleter
from edge.agent.earlier_previews import EarlierPreviews, names_person
from edge.agent.in_hand import InHand
from edge.agent.people import PERSON, Treatment, treatment
from edge.agent.service import Notifier, StatusFile, replace_file
from edge.agent.space import MB, Guard
from edge.errors import DeviceError, FieldmarkError
from edge.log import store
from edge.log.store import Alert, Detection, FileFacts, Log, PhotoFacts

if TYPE_CHECKING:
    from PIL import Image

    from edge.model.decide import Decision

SPACE_EVERY_S, DELETE_EVERY_S, METRICS_EVERY_S = 5.0, 600.0, 30.0
FIRST_DELETE_S = 60.0
_KEYS_REMEMBERED = 500


@dataclass(frozen=True)
class Job:
    """What a run is about.

    Attributes:
        state: the folder of what the device keeps, ``var/lib/fieldmark``.
        log: the log's file.
        device: its id.
        sources: the folders of the photos.
        event_gap_s: see :mod:`edge.agent.config`.
        bundle: the digest of the bundle that it runs; None where nobody wants to know of another.
        once: the run only drains a backlog: it lays no ballast down, and tidies up at its end.
        facts: for the status file: bundle, model, runtime, version.
        reclassify: the run also classifies old photos anew, which people may have reviewed.
    """

    state: Path
    log: Path
    device: str
    sources: Sequence[Path]
    event_gap_s: float
    once: bool
    facts: Mapping[str, Any]
    bundle: str | None = None
    reclassify: bool = False


class Upkeep:
    """See the top of this file. One thread uses it, but for :meth:`preview`, which several may call.

    Attributes:
        in_hand: the photos in hand.
    """

    def __init__(
        self,
        job: Job,
        settings: Settings,
        rules: Sequence[Rule],
        log: Log,
        *,
        say: Callable[[str], None],
        notifier: Notifier | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        clock_ok: Callable[[], bool] = lambda: health.clock().ok,
    ) -> None:
        """Set up; call it once the log is open.

        Raises:
            DeviceError: the log's folder is not there.
            LogError: the log cannot be read or written.
        """
        self._job, self._settings, self._log, self._say = job, settings, log, say
        self._notifier = notifier or Notifier.from_environment()
        self._monotonic, self._clock_ok = monotonic, clock_ok
        job.state.mkdir(parents=True, exist_ok=True)
        ballast = job.state / "ballast" if job.log.parent == job.state else None
        self.guard = Guard(job.log.parent, settings.space, ballast=ballast, lay_down=not job.once, say=say)
        self._previews = previews.Previews(job.state / "previews", settings.space.previews_mb * MB)
        self._earlier = EarlierPreviews(log, self._previews, settings.people)
        self._alerts = Alerts(rules, _events(log.path, job.event_gap_s) if rules else Events(job.event_gap_s))
        days = Days(job.state / "days.json")
        self._deleter = Deleter(log, job.device, settings.deletes, job.sources, days, say=say)
        status = settings.service.status_file
        self._status = StatusFile(status, {"device": job.device, **job.facts}, monotonic=monotonic, say=say)
        self.in_hand = InHand(status.parent / "in-hand")
        self._counts, self._failures = Counter[str](), Counter[str]()
        self._last: dict[str, Any] | None = None
        self._metrics_failed = self._told_of_another = self._told_of_previews = False
        self._looked_s = self._measured_s = float("-inf")
        self._delete_s = monotonic() + FIRST_DELETE_S

    def preview(self, image: Image.Image, sha256: str, decision: Decision) -> str:
        """Make the preview of a photo that was classified; several threads may.

        Args:
            image: as the classifier has left it.

        Returns:
            What became of it, in the words of :class:`edge.log.store.PhotoFacts`.

        Raises:
            PhotoError: the picture is broken.
            DeviceError: it cannot be written.
        """
        label = decision.label
        if self._job.reclassify and names_person(self._job.log, sha256):
            label = PERSON  # before the model's word, so that what was blurred does not come back, not for a moment
        chosen = treatment(label, decision.top, self._settings.people)
        if chosen is Treatment.WITHHOLD:
            self._previews.remove(sha256)  # one that another model, which saw nobody, had let pass
            return str(chosen.value)
        if not self._settings.space.previews_mb or not self.guard.previews:
            if chosen is Treatment.BLUR:
                self._previews.remove(sha256)  # likewise
                return str(Treatment.WITHHOLD.value)
            return "none"
        data = previews.render(image, chosen)
        assert data is not None
        try:
            self._previews.put(sha256, data)
        except DeviceError as error:
            if not self._told_of_previews:
                self._say(f"{error} The photos are classified all the same; this is said once.")
            self._told_of_previews = True
            raise
        return str(chosen.value)

    def alerts(self, file: FileFacts, photo: PhotoFacts, detection: Detection) -> tuple[Alert, ...]:
        """The messages to be stored with a photo's row."""
        if not self._alerts.rules:
            return ()
        corrected = replace(file, taken=self._log.corrected(file))
        seen = Sighting(corrected, photo.sha256, detection.label, detection.confidence)
        return self._alerts.of(seen, datetime.now(UTC), clock_ok=self._clock_ok())

    def started(self) -> None:
        """The model is loaded, the log is open: at work."""
        self._notifier.ready("waiting for photos")
        self._tell("waiting", None)

    def progress(self, queue: int | None = None, text: str = "") -> None:
        """Something was done that takes a while, such as the search of a folder. Cheap: call it often.

        Args:
            queue: how many files are known to wait.
            text: for people who ask the service manager.
        """
        self._notifier.progress(text)
        if self._status.due:
            self._tell("working", queue)

    def taken(
        self,
        photo: str,
        outcome: str,
        *,
        label: str | None = None,
        confidence: float | None = None,
        code: str | None = None,
        queue: int | None = None,
    ) -> None:
        """A file's end, once its row is durable.

        Args:
            photo: its path, as :mod:`edge.pathtext` writes it.
            outcome: of :class:`edge.agent.examine.Outcome`.
            code: of a failure.
            queue: how many files are known to wait.
        """
        self._counts[outcome] += 1
        if code:
            self._failures[code] += 1
        self._last = {"photo": photo, "outcome": outcome, "label": label, "confidence": confidence}
        self._last["at"] = datetime.now(UTC).isoformat(timespec="seconds")
        self._look_at_space()
        self.progress(queue, f"{self._counts.total()} files since the start, the last was {photo}")

    def idle(self, queue: int = 0) -> None:
        """No photo waits. At least every :data:`edge.agent.service.MOST_IDLE_S`."""
        self._look_at_space()
        self._treat_earlier()
        self._make_room()
        self._delete()
        self._notifier.progress("waiting for photos")
        if self._status.due:
            self._tell("waiting", queue)

    @property
    def superseded(self) -> bool:
        """Whether another bundle was installed, and a service manager will start an agent that ends again, with it.
        Without one the agent goes on with the bundle that it has, and says so once. For while no photo waits."""
        if self._job.bundle is None or not _is_another(self._job.state / "current", self._job.bundle):
            return False
        if not self._told_of_another:
            then = "the agent ends, to be started with it" if self._notifier.heard else "the next start takes it"
            self._say(f"another bundle was installed: {then}.")
        self._told_of_another = True
        return self._notifier.heard

    def end(self, *, stopped: bool) -> None:
        """The run ends: as asked, or since the backlog is empty. The latter is the one quiet moment of a device that
        wakes, drains and sleeps."""
        if stopped:
            self._notifier.stopping()
        elif self._job.once:
            while self._treat_earlier():
                pass
            while self._make_room():
                pass
            self._delete_s = self._monotonic()
            self._delete()
        self._tell("ended", None)

    def _look_at_space(self) -> None:
        now_s = self._monotonic()
        if now_s - self._looked_s >= SPACE_EVERY_S:
            self._looked_s = now_s
            try:
                self.guard.check()
            except DeviceError as error:  # the disk is gone, and the log will say so
                self._say(str(error))

    def _treat_earlier(self) -> bool:
        """Whether there may be more to treat."""
        if self._earlier.done or not self.guard.previews:
            return False
        try:
            treated = self._earlier.round()
        except (FieldmarkError, OSError) as error:
            self._say(f"an earlier preview of a person cannot be treated: {error}")
            return False
        if treated:
            self._say(f"{treated} earlier previews of people were blurred or removed, as the settings say now.")
        return not self._earlier.done

    def _make_room(self) -> int:
        try:
            released = self._previews.make_room(self._log)
        except (FieldmarkError, OSError) as error:
            self._say(f"the oldest previews cannot be released: {error}")
            return 0
        if released:
            most_mb = self._settings.space.previews_mb
            self._say(f"{released} of the oldest previews released: all together may take {most_mb} MB.")
        return released

    def _delete(self) -> None:
        now_s = self._monotonic()
        if now_s >= self._delete_s:
            self._delete_s = now_s + DELETE_EVERY_S
            try:
                self._deleter.round(datetime.now(UTC), clock_ok=self._clock_ok(), note=self.guard.anything)
            except FieldmarkError as error:  # also of a log on a full disk: if that lasts, the next photo finds out
                self._say(str(error))

    def _tell(self, state: str, queue: int | None) -> None:
        status, path = self._settings.service.status_file, self._settings.service.prometheus
        if state != "ended" and not self._may_write(status):
            return
        values = {
            "counts": dict(self._counts),
            "failures": dict(self._failures),
            "last": self._last,
            "queue": queue,
            "space": self.guard.as_json(),
            "previews_bytes": self._previews.total_bytes,
            **health.report(),
        }
        whole = self._status.write(state, values)
        now_s = self._monotonic()
        if path and self._may_write(path) and (state == "ended" or now_s - self._measured_s >= METRICS_EVERY_S):
            self._measured_s = now_s
            try:
                replace_file(path, metrics.text(whole).encode())
            except OSError as error:  # tried again: a folder may come, and a full disk be freed
                if not self._metrics_failed:
                    self._say(f"{path}: the metrics cannot be written: {error.strerror}.")
                self._metrics_failed = True

    def _may_write(self, path: Path) -> bool:
        """Whether this file takes nothing from a log that needs the last of its disk."""
        try:
            return self.guard.anything or path.parent.stat().st_dev != self._job.log.parent.stat().st_dev
        except OSError:
            return False


def _is_another(current: Path, digest: str) -> bool:
    """Whether the file that names the current slot names another one. It is checked at the next start, not here."""
    try:
        found = json.loads(current.read_bytes())["digest"]
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return False
    return isinstance(found, str) and found != digest


def _events(log: Path, gap_s: float) -> Events:
    events = Events(gap_s)
    with closing(store.open_for_reading(log)) as connection:
        rows = connection.execute("SELECT key FROM alert ORDER BY id DESC LIMIT ?", (_KEYS_REMEMBERED,)).fetchall()
    events.remember(row[0] for row in reversed(rows))
    return events
