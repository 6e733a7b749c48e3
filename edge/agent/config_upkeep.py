"""The settings of what goes on beside the photos: space, people, deletion, alerts, status. Part of ``config.toml``.

[space]
warn_mb = 1000            # less free than this beside the log: said in `fieldmark status`
stop_previews_mb = 500    # less: no more previews
stop_mb = 100             # less: the ballast file is given up; less again: nothing is written but the log
ballast_mb = 32           # kept to be given up; 0 for none
previews_mb = 1000        # all previews together; the oldest go first. 0 for none

[people]
preview = "blur"          # of a photo with a person: "keep", "blur" or "none". The original is never altered
above = 0.2               # also where a person is one of the likely labels, with at least this probability

[[delete]]                # originals; nothing is deleted unless such a table says so
name = "old empties"
label = "empty"
older_days = 60           # logged longer ago than this
above = 0.95              # the model is at least so sure; or, and
reviewed = true           # a person has said so; at least one of these three is needed
copied_to = "/mnt/copy"   # and the same content lies there, under the same name below the source

[[alert]]
name = "foxes"
labels = ["fox", "lynx"]
above = 0.8
short = true              # at most 51 bytes, for LoRa; else JSON
fresh_h = 24              # no alert for a photo that is older than this when it is logged
channel = "webhook"       # or "mqtt", "command"; then what the channel needs:
url = "https://example.org/hook"        # webhook
token_file = "/etc/fieldmark/token"     # webhook: sent as a bearer token; mqtt: the password of user
host = "broker.example.org"             # mqtt, with port, topic, user, tls
command = ["/usr/local/bin/send", "-q"] # command: the text comes on its standard input
timeout_s = 30

[service]
status_file = "/run/fieldmark/status.json"
prometheus = "/var/lib/prometheus/node-exporter/fieldmark.prom"   # not written if left out
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edge.agent.checked import MOST_PATH, Checked
from edge.errors import ConfigError

PREVIEWS = ("keep", "blur", "none")
CHANNELS = ("webhook", "mqtt", "command")
MOST_RULES = 50
STATUS_FILE = Path("run", "fieldmark", "status.json")
_TAKEN = frozenset({"root.json", "device.json", "days.json", "manifest.json"})
_RULE_KEYS = ("name", "labels", "above", "short", "fresh_h", "channel", "timeout_s")
_CHANNEL_KEYS = {
    "webhook": ("url", "token_file"),
    "mqtt": ("host", "port", "topic", "user", "token_file", "tls"),
    "command": ("command",),
}


@dataclass(frozen=True)
class Space:
    """How much must stay free, in MB of 1,000,000 bytes; see the top of this file."""

    warn_mb: int = 1000
    stop_previews_mb: int = 500
    stop_mb: int = 100
    ballast_mb: int = 32
    previews_mb: int = 1000


@dataclass(frozen=True)
class People:
    """What is kept of a photo with a person; see the top of this file.

    Blurred by default: who walks by has not been asked, and a reviewer still sees where something of which size was.
    ``above`` errs on the side of blurring: an animal whose preview is blurred can be looked at in the original.
    """

    preview: str = "blur"
    above: float = 0.2


@dataclass(frozen=True)
class Delete:
    """Which originals may be deleted: all that is said must hold; see the top of this file.

    Attributes:
        name: of the policy, in the log's row of each deletion.
        label: the person's, where somebody has reviewed the photo, else the newest model's.
        older_days: so long it has been in the log.
        above: the least confidence of the model; whatever it is if None. A person's label needs none.
        reviewed: whether only a person's label counts.
        copied_to: the folder in which a copy must lie.
    """

    name: str
    label: str
    older_days: float
    above: float | None = None
    reviewed: bool = False
    copied_to: Path | None = None


@dataclass(frozen=True)
class Rule:
    """Which detections make an alert, and what it says.

    Attributes:
        name: of the alert, which is what the outbox calls the channel.
        labels: the decided ones, also taxa.
        above: the least confidence.
        short: at most 51 bytes.
        fresh_h: no alert for photos older than so many hours.
    """

    name: str
    labels: tuple[str, ...]
    above: float
    short: bool = False
    fresh_h: float = 24.0


@dataclass(frozen=True)
class Webhook:
    """Where an alert is posted: ``https``, or ``http`` on this device."""

    url: str
    token_file: Path | None = None


@dataclass(frozen=True)
class Mqtt:
    """Where an alert is published."""

    host: str
    topic: str
    port: int = 8883
    user: str | None = None
    token_file: Path | None = None
    tls: bool = True


@dataclass(frozen=True)
class Command:
    """What is run, without a shell; the first is an absolute path, and is not below the root."""

    argv: tuple[str, ...]


@dataclass(frozen=True)
class Alert:
    """A rule and where its messages go; ``timeout_s`` for each try."""

    rule: Rule
    to: Webhook | Mqtt | Command
    timeout_s: float = 30.0


@dataclass(frozen=True)
class Service:
    """What the agent tells of itself; ``prometheus`` is not written if None."""

    status_file: Path
    prometheus: Path | None = None


@dataclass(frozen=True)
class Upkeep:
    """All of it."""

    service: Service = field(default_factory=lambda: Service(Path("/") / STATUS_FILE))
    space: Space = field(default_factory=Space)
    people: People = field(default_factory=People)
    deletes: tuple[Delete, ...] = ()
    alerts: tuple[Alert, ...] = ()

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What the agent needs of the alerts; where they go is for the process that sends them."""
        return tuple(alert.rule for alert in self.alerts)


TABLES = ("space", "people", "delete", "alert", "service")


def defaults(root: Path) -> Upkeep:
    """Without a settings file."""
    return Upkeep(Service(root / STATUS_FILE))


def read(checked: Checked, tables: dict[str, Any]) -> Upkeep:
    """The settings of :data:`TABLES`.

    Raises:
        ConfigError: a key is unknown, a value is of the wrong type or out of range.
    """
    deletes = checked.tables("delete", tables.get("delete", []), MOST_RULES)
    alerts = checked.tables("alert", tables.get("alert", []), MOST_RULES)
    found = Upkeep(
        _service(checked, checked.table("service", tables.get("service", {}))),
        _space(checked, checked.table("space", tables.get("space", {}))),
        _people(checked, checked.table("people", tables.get("people", {}))),
        tuple(_delete(checked, f"delete[{i}]", each) for i, each in enumerate(deletes, 1)),
        tuple(_alert(checked, f"alert[{i}]", each) for i, each in enumerate(alerts, 1)),
    )
    for what, names in (("delete", [each.name for each in found.deletes]), ("alert", [r.name for r in found.rules])):
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise checked.refuse(f"{what} name", f"{twice!r} twice", "another name for each")
    return found


def to_values(upkeep: Upkeep) -> dict[str, Any]:
    """What the agent's process needs, as JSON can hold it; without where alerts go and their secrets."""
    return {
        "service": {name: value and str(value) for name, value in vars(upkeep.service).items()},
        "space": vars(upkeep.space),
        "people": vars(upkeep.people),
        "deletes": [{**vars(d), "copied_to": d.copied_to and str(d.copied_to)} for d in upkeep.deletes],
        "rules": [vars(rule) for rule in upkeep.rules],
    }


def from_values(values: dict[str, Any]) -> tuple[Upkeep, tuple[Rule, ...]]:
    """What :func:`to_values` was given; the alerts as their rules alone."""
    paths = {name: value and Path(value) for name, value in values["service"].items()}
    deletes = [Delete(**each) for each in values["deletes"]]
    upkeep = Upkeep(
        Service(**paths),
        Space(**values["space"]),
        People(**values["people"]),
        tuple(replace(each, copied_to=each.copied_to and Path(each.copied_to)) for each in deletes),
    )
    return upkeep, tuple(Rule(**{**rule, "labels": tuple(rule["labels"])}) for rule in values["rules"])


def _space(checked: Checked, table: dict[str, Any]) -> Space:
    checked.check_keys("space", table, (each.name for each in fields(Space)))
    numbers = {
        each.name: int(
            checked.number(f"space.{each.name}", table.get(each.name, each.default), 0, 10_000_000, whole=True)
        )
        for each in fields(Space)
    }
    space = Space(**numbers)
    if not space.warn_mb >= space.stop_previews_mb >= space.stop_mb:
        found = f"{space.warn_mb}, {space.stop_previews_mb}, {space.stop_mb}"
        raise checked.refuse("space.warn_mb, stop_previews_mb, stop_mb", found, "each at least as large as the next")
    return space


def _people(checked: Checked, table: dict[str, Any]) -> People:
    checked.check_keys("people", table, (each.name for each in fields(People)))
    return People(
        checked.one_of("people.preview", table.get("preview", People.preview), PREVIEWS),
        checked.number("people.above", table.get("above", People.above), 0, 1),
    )


def _delete(checked: Checked, where: str, value: Any) -> Delete:
    table = checked.table(where, value)
    checked.check_keys(where, table, (each.name for each in fields(Delete)))
    _need(checked, where, table, ("name", "label", "older_days"))
    above = table.get("above")
    policy = Delete(
        name=checked.text(f"{where}.name", table["name"]),
        label=checked.text(f"{where}.label", table["label"]),
        older_days=checked.number(f"{where}.older_days", table["older_days"], 1, 36_500),
        above=None if above is None else checked.number(f"{where}.above", above, 0.5, 1),
        reviewed=checked.flag(f"{where}.reviewed", table.get("reviewed", False)),
        copied_to=checked.below_root_or_none(f"{where}.copied_to", table.get("copied_to")),
    )
    if policy.label == "unknown":
        raise checked.refuse(f"{where}.label", "'unknown'", "a label that somebody or a model was sure of")
    if above is None and not policy.reviewed and policy.copied_to is None:
        raise checked.refuse(where, "a policy that asks for nothing", "at least one of above, reviewed, copied_to")
    return policy


def _alert(checked: Checked, where: str, value: Any) -> Alert:
    table = checked.table(where, value)
    _need(checked, where, table, ("name", "labels", "above", "channel"))
    channel = checked.one_of(f"{where}.channel", table["channel"], CHANNELS)
    checked.check_keys(where, table, _RULE_KEYS + _CHANNEL_KEYS[channel])
    rule = Rule(
        name=checked.text(f"{where}.name", table["name"], 50),
        labels=checked.texts(f"{where}.labels", table["labels"], 1000, 'labels such as ["fox"]'),
        above=checked.number(f"{where}.above", table["above"], 0, 1),
        short=checked.flag(f"{where}.short", table.get("short", Rule.short)),
        fresh_h=checked.number(f"{where}.fresh_h", table.get("fresh_h", Rule.fresh_h), 0.1, 87_600),
    )
    timeout_s = checked.number(f"{where}.timeout_s", table.get("timeout_s", Alert.timeout_s), 1, 120)
    return Alert(rule, _to(channel, checked, where, table), timeout_s)


def _to(channel: str, checked: Checked, where: str, table: dict[str, Any]) -> Webhook | Mqtt | Command:
    match channel:
        case "webhook":
            return _webhook(checked, where, table)
        case "mqtt":
            return _mqtt(checked, where, table)
        case _:
            return _command(checked, where, table)


def _webhook(checked: Checked, where: str, table: dict[str, Any]) -> Webhook:
    _need(checked, where, table, ("url",))
    url = checked.text(f"{where}.url", table["url"], MOST_PATH)
    if not is_allowed(url):
        expected = "an https address without a user name, such as https://example.org/hook"
        raise checked.refuse(f"{where}.url", repr(url)[:80], expected)
    return Webhook(url, checked.below_root_or_none(f"{where}.token_file", table.get("token_file")))


def is_allowed(url: str) -> bool:
    """Whether an alert may be posted there: encrypted, or not leaving the device."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username or parts.password or not url.isascii() or " " in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _mqtt(checked: Checked, where: str, table: dict[str, Any]) -> Mqtt:
    _need(checked, where, table, ("host", "topic"))
    topic = checked.text(f"{where}.topic", table["topic"])
    if "+" in topic or "#" in topic or topic.startswith("$"):
        raise checked.refuse(f"{where}.topic", repr(topic), "a topic without + and #, such as fieldmark/beech-4")
    tls = checked.flag(f"{where}.tls", table.get("tls", Mqtt.tls))
    port = table.get("port", Mqtt.port if tls else 1883)
    token_file = checked.below_root_or_none(f"{where}.token_file", table.get("token_file"))
    user = checked.text_or_none(f"{where}.user", table.get("user"))
    if token_file and not user:
        raise checked.refuse(f"{where}.user", "left out", "a user name beside token_file")
    return Mqtt(
        host=checked.text(f"{where}.host", table["host"]),
        topic=topic,
        port=int(checked.number(f"{where}.port", port, 1, 65_535, whole=True)),
        user=user,
        token_file=token_file,
        tls=tls,
    )


def _command(checked: Checked, where: str, table: dict[str, Any]) -> Command:
    _need(checked, where, table, ("command",))
    argv = checked.texts(f"{where}.command", table["command"], 50, 'words such as ["/usr/local/bin/send", "-q"]')
    if not re.match("/[^/]", argv[0]):
        raise checked.refuse(f"{where}.command", repr(argv[0])[:80], "an absolute path, such as /usr/local/bin/send")
    return Command(argv)


def _service(checked: Checked, table: dict[str, Any]) -> Service:
    checked.check_keys("service", table, (each.name for each in fields(Service)))
    return Service(
        _written(checked, "service.status_file", table.get("status_file"), ".json") or checked.root / STATUS_FILE,
        _written(checked, "service.prometheus", table.get("prometheus"), ".prom"),
    )


def _written(checked: Checked, where: str, value: Any, suffix: str) -> Path | None:
    """A file that the agent replaces again and again, so it must not be the log, or what a device is known by."""
    path = checked.below_root_or_none(where, value)
    if path is not None and (path.suffix != suffix or path.name in _TAKEN):
        raise checked.refuse(where, repr(value)[:80], f"a file of its own whose name ends in {suffix}")
    return path


def _need(checked: Checked, where: str, table: dict[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        if key not in table:
            raise ConfigError(f"{checked.path}: {where} has no {key}; it needs {', '.join(keys)}.")
