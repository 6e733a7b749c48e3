from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.agent import config, config_upkeep
from edge.agent.config_upkeep import Alert, Command, Delete, Mqtt, People, Rule, Service, Space, Webhook
from edge.errors import ConfigError

WHOLE = """
[space]
warn_mb = 900
stop_previews_mb = 400
stop_mb = 90
ballast_mb = 10
previews_mb = 200

[people]
preview = "none"
above = 0.5

[[delete]]
name = "old empties"
label = "empty"
older_days = 60
above = 0.95
copied_to = "/mnt/copy"

[[alert]]
name = "foxes"
labels = ["fox"]
above = 0.8
channel = "webhook"
url = "https://example.org/hook"
token_file = "/etc/fieldmark/token"

[[alert]]
name = "radio"
labels = ["fox", "lynx"]
above = 0.9
short = true
fresh_h = 2
channel = "command"
command = ["/usr/local/bin/send", "-q"]
timeout_s = 5

[[alert]]
name = "broker"
labels = ["fox"]
above = 0
channel = "mqtt"
host = "broker.example.org"
topic = "fieldmark/beech"

[service]
status_file = "/run/other/status.json"
prometheus = "/var/lib/x/f.prom"
"""


def load(root: Path, text: str) -> config_upkeep.Upkeep:
    path = root / config.FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return config.load(root).upkeep


def test_every_setting_is_read(tmp_path: Path) -> None:
    found = load(tmp_path, WHOLE)
    assert found.space == Space(900, 400, 90, 10, 200)
    assert found.people == People("none", 0.5)
    assert found.deletes == (
        Delete("old empties", "empty", 60, above=0.95, reviewed=False, copied_to=tmp_path / "mnt/copy"),
    )
    token = tmp_path / "etc/fieldmark/token"
    assert found.alerts == (
        Alert(Rule("foxes", ("fox",), 0.8), Webhook("https://example.org/hook", token)),
        Alert(Rule("radio", ("fox", "lynx"), 0.9, True, 2), Command(("/usr/local/bin/send", "-q")), 5),
        Alert(Rule("broker", ("fox",), 0), Mqtt("broker.example.org", "fieldmark/beech", 8883)),
    )
    assert found.service == Service(tmp_path / "run/other/status.json", tmp_path / "var/lib/x/f.prom")


def test_without_settings_nothing_is_deleted_or_sent_and_people_are_blurred(tmp_path: Path) -> None:
    found = config.load(tmp_path).upkeep
    assert (found.deletes, found.alerts, found.people.preview) == ((), (), "blur")
    assert found.service == Service(tmp_path / "run/fieldmark/status.json", None)


def test_the_agents_process_gets_all_but_where_alerts_go(tmp_path: Path) -> None:
    found = load(tmp_path, WHOLE)
    text = json.dumps(config_upkeep.to_values(found))
    assert "example.org" not in text
    upkeep, rules = config_upkeep.from_values(json.loads(text))
    assert rules == found.rules
    assert (upkeep.space, upkeep.people, upkeep.deletes) == (found.space, found.people, found.deletes)
    assert (upkeep.service, upkeep.alerts) == (found.service, ())


def test_plain_mqtt_has_the_plain_port(tmp_path: Path) -> None:
    text = '[[alert]]\nname="a"\nlabels=["fox"]\nabove=0\nchannel="mqtt"\nhost="h"\ntopic="t"\ntls=false'
    assert load(tmp_path, text).alerts[0].to == Mqtt("h", "t", 1883, tls=False)


ALERT = '[[alert]]\nname="a"\nlabels=["fox"]\nabove=0.5\n'
DELETE = '[[delete]]\nname="a"\nlabel="empty"\nolder_days=30\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[space]\nwarn_mb=1\n", "each at least as large as the next"),
        ("[space]\nballast_mb=-1", "space.ballast_mb is -1"),
        ("[space]\nbalast_mb=1", "`ballast_mb`"),
        ('[people]\npreview="hide"', "keep or blur or none"),
        ("[people]\nabove=2", "people.above is 2"),
        (DELETE, "at least one of above, reviewed, copied_to"),
        (DELETE + "reviewed=1", "true or false"),
        (DELETE + "above=0.2", "delete[1].above is 0.2"),
        (DELETE.replace("30", "0") + "above=0.9", "older_days is 0"),
        (DELETE.replace("empty", "unknown") + "above=0.9", "was sure of"),
        (DELETE.replace("older_days=30", "") + "above=0.9", "has no older_days"),
        (DELETE + "above=0.9\n" + DELETE + "above=0.9", "'a' twice"),
        ('[[source]]\npath="/srv"\n' + DELETE + 'copied_to="/srv/copy"', "are not apart"),
        ('[[source]]\npath="/srv/photos"\n' + DELETE + 'copied_to="/srv"', "are not apart"),
        ("[delete]\n", "[[delete]] in double brackets"),
        (ALERT, "has no channel"),
        (ALERT + 'channel="sms"', "webhook or mqtt or command"),
        (ALERT + 'channel="webhook"', "has no url"),
        (ALERT + 'channel="webhook"\nurl="http://example.org/"', "an https address"),
        (ALERT + 'channel="webhook"\nurl="http://127.0.0.1.example.org/"', "an https address"),
        (ALERT + 'channel="webhook"\nurl="file:///etc/passwd"', "an https address"),
        (ALERT + 'channel="webhook"\nurl="https://me:secret@example.org/"', "an https address"),
        (ALERT + 'channel="webhook"\nurl="https://example.org:99999/"', "an https address"),
        (ALERT + 'channel="webhook"\nurl="https://example.org/"\ncommand=["/bin/x"]', "command is no setting"),
        (ALERT + 'channel="command"\ncommand="/bin/send fox"', "words such as"),
        (ALERT + 'channel="command"\ncommand=["send"]', "an absolute path"),
        (ALERT + 'channel="mqtt"\nhost="h"\ntopic="a/#"', "a topic without + and #"),
        (ALERT + 'channel="mqtt"\nhost="h"\ntopic="a"\ntoken_file="/t"', "a user name"),
        (ALERT.replace('["fox"]', "[]") + 'channel="webhook"\nurl="https://e.org/"', "alert[1].labels"),
        ("[service]\nprometheus=7", "service.prometheus is 7"),
        ('[service]\nprometheus="/var/lib/x"', "a file of its own whose name ends in .prom"),
        ('[service]\nstatus_file="/var/lib/fieldmark/log.db"', "a file of its own whose name ends in .json"),
        ('[service]\nstatus_file="/etc/fieldmark/root.json"', "a file of its own whose name ends in .json"),
    ],
)
def test_wrong_settings_are_refused_in_one_line_that_says_what_is_expected(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, text)
    assert says in str(refused.value)
    assert str(refused.value).startswith(str(tmp_path / config.FILE))
    assert len(str(refused.value).splitlines()) == 1
