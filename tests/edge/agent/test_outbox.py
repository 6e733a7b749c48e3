from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge.agent import config, outbox
from edge.agent.channels import AlertError
from edge.agent.config_upkeep import Alert, Command, Rule
from edge.agent.outbox import FIRST_PAUSE_S, LONGEST_PAUSE_S, Outbox, Sent, pause_s
from edge.errors import ConfigError
from edge.log import store
from edge.log.store import FileFacts, FileKey, PhotoFacts
from edge.photo import Taken


@dataclass
class Post:
    """An outbox with a network that can be cut, and clocks that can be turned."""

    path: Path
    monotonic_s: float = 1000.0
    wall_s: float = 1.8e9
    down: set[str] = field(default_factory=set)
    refuses: set[str] = field(default_factory=set)
    tried: list[str] = field(default_factory=list)
    arrived: list[tuple[str, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    ways: frozenset[tuple[str, str]] = frozenset()

    def __post_init__(self) -> None:
        self.box = self.start()

    def start(self) -> Outbox:
        alerts = [Alert(Rule(name, ("fox",), 0), Command(("/bin/true",))) for name in ("one", "two")]
        return Outbox(
            self.path, alerts, send=self.send, say=self.said.append,
            monotonic=lambda: self.monotonic_s, wall=lambda: self.wall_s, chance=lambda: 0.5,
            ways_out=lambda: self.ways,
        )  # fmt: skip

    def send(self, alert: Alert, key: str, text: str) -> None:
        self.tried.append(key)
        if alert.rule.name in self.down:
            raise AlertError("no network.")
        if key in self.refuses:
            raise AlertError("not this one.", code="refused")
        self.arrived.append((key, text))

    def store(self, *keys: str, channel: str = "one") -> None:
        with store.open_for_writing(self.path) as log:
            key = FileKey("d", "/s", f"{keys[0]}.jpg", 1, 1)
            file = FileFacts(key, Taken("2024-05-01T06:12:09", "+00:00", "exif", ()))
            alerts = [store.Alert(key, channel, f"text of {key}") for key in keys]
            photo = PhotoFacts(keys[0].rjust(64, "0"), 4, 4)
            log.add_file(file, photo=photo, detection=None, failure=None, alerts=alerts)

    def wait(self, seconds: float) -> None:
        self.monotonic_s += seconds
        self.wall_s += seconds


@pytest.fixture
def post(tmp_path: Path) -> Post:
    return Post(tmp_path / "log.db")


def test_messages_arrive_in_order_and_once(post: Post) -> None:
    post.store("a", "b")
    assert post.box.round() == Sent(2, 0, 0)
    assert post.box.round() == Sent(0, 0, 0)
    assert post.arrived == [("a", "text of a"), ("b", "text of b")]


def test_without_a_log_or_messages_nothing_is_written(post: Post) -> None:
    assert post.box.round() == Sent(0, 0, 0)
    assert not post.path.exists()


def test_without_a_network_nothing_is_lost_and_nobody_hammers(post: Post) -> None:
    post.store(*(f"{number}" for number in range(50)))
    post.down = {"one"}
    for _ in range(360):  # an hour
        post.box.round()
        post.wait(10)
    assert len(post.tried) <= 8
    post.down = set()
    for _ in range(6 * 360):
        post.box.round()
        post.wait(10)
    assert sorted(key for key, _ in post.arrived) == sorted(f"{number}" for number in range(50))


def test_network_that_comes_back_after_a_month_ends_all_waits_and_one_that_goes_none(post: Post) -> None:
    post.ways = frozenset({("eth0", "0101A8C0")})
    post.store("a", "b")
    post.down = {"one"}
    for _ in range(30):
        post.box.round()
        post.wait(86_400)
    post.box.round()
    tried = len(post.tried)
    post.ways = frozenset()
    post.box.round()
    assert len(post.tried) == tried
    post.down, post.ways = set(), frozenset({("wwan0", "00000000")})
    assert post.box.round() == Sent(2, 0, 0)


def test_network_that_flaps_costs_one_try_a_channel_each_time(post: Post) -> None:
    post.store("a", "b")
    post.down = {"one"}
    for number in range(5):
        post.ways = frozenset({("wlan0", f"{number}")})
        post.box.round()
    assert len(post.tried) == 5


def test_channel_that_is_down_does_not_hold_up_another(post: Post) -> None:
    post.store("a", "b")
    post.store("c", channel="two")
    post.down = {"one"}
    assert post.box.round() == Sent(1, 1, 2)
    assert post.arrived == [("c", "text of c")]


def test_message_that_is_refused_does_not_hold_up_the_next(post: Post) -> None:
    post.store("a", "b")
    post.refuses = {"a"}
    assert post.box.round() == Sent(1, 1, 1)
    assert post.arrived == [("b", "text of b")]
    with closing(store.open_for_reading(post.path)) as connection:
        [first, second] = outbox.newest(connection, 10)
    assert (first["tries"], first["last_error"], first["sent_utc"]) == (1, "not this one.", None)
    assert (second["tries"], second["last_error"]) == (0, None)


def test_message_whose_alert_is_no_longer_in_the_settings_waits(post: Post) -> None:
    post.store("a", channel="gone")
    assert post.box.round() == Sent(0, 1, 1)
    assert "no [[alert]] of the settings is called 'gone'" in post.said[0]


def test_kill_after_sending_sends_it_again_with_the_same_key(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    post.store("a")
    with monkeypatch.context() as patch:
        patch.setattr(store.Log, "alert_sent", lambda log, alert_id: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            post.box.round()
    assert post.start().round() == Sent(1, 0, 0)
    assert post.arrived == [("a", "text of a")] * 2


def test_restart_and_clock_that_was_set_back_do_not_wait_for_a_time_that_never_comes(post: Post) -> None:
    post.store("a")
    post.wall_s = 2.2e9  # the clock says 2039
    post.down = {"one"}
    post.box.round()
    post.down = set()
    post.wall_s = 1.8e9
    post.monotonic_s += 2 * FIRST_PAUSE_S
    assert post.box.round() == Sent(1, 0, 0)


def test_damaged_log_that_was_set_aside_is_not_held_on_to(post: Post) -> None:
    post.store("a")
    post.box.round()
    post.path.rename(post.path.with_name("aside"))
    post.store("b")
    assert post.box.round() == Sent(1, 0, 0)


def test_stop_is_asked_before_each_message(post: Post) -> None:
    post.store("a", "b")
    assert post.box.round(stop=lambda: len(post.tried) >= 1) == Sent(1, 0, 1)


def test_pauses_double_up_to_an_hour_and_differ_between_devices() -> None:
    assert [pause_s(tries, 0.5) for tries in (1, 2, 3)] == [30, 60, 120]
    assert pause_s(1000, 0.5) == LONGEST_PAUSE_S
    assert pause_s(1, 0) < pause_s(1, 1)


# The process


def write_settings(root: Path, out: Path) -> None:
    script = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read())"
    path = root / config.FILE
    path.parent.mkdir(parents=True)
    path.write_text(
        '[[alert]]\nname="one"\nlabels=["fox"]\nabove=0\nchannel="command"\n'
        f'command=["{sys.executable}", "-c", "{script}", "{out}"]\n'
    )


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    write_settings(tmp_path, tmp_path / "out")
    Post(store.path_below(tmp_path)).store("a")
    command = [sys.executable, "-P", "-m", "edge.agent.outbox", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(command, cwd="/", env=environment, stderr=subprocess.PIPE, text=True) as child:
        yield child
        child.kill()


def test_process_sends_by_a_real_command_and_ends_quickly_when_asked(
    sender: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert sender.stderr is not None
    assert sender.stderr.readline() == "sent by one: a\n"
    assert (tmp_path / "out").read_text() == "text of a"
    sender.send_signal(signal.SIGTERM)
    assert sender.wait(timeout=5) == 0


def test_process_without_alerts_ends_well_so_that_it_is_not_started_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert outbox.main([str(tmp_path)]) == 0
        assert systemd.recv(100).startswith(b"READY=1")
    assert "there is no [[alert]]" in capsys.readouterr().err


def test_process_with_wrong_settings_fails(tmp_path: Path) -> None:
    (tmp_path / config.FILE).parent.mkdir(parents=True)
    (tmp_path / config.FILE).write_text("[[alert]]\n")
    assert outbox.main([str(tmp_path)]) == 1


def test_run_once_sends_what_is_due_and_gives_the_signals_back(tmp_path: Path) -> None:
    write_settings(tmp_path, tmp_path / "out")
    Post(store.path_below(tmp_path)).store("a")
    before, threads = signal.getsignal(signal.SIGTERM), set(threading.enumerate())
    assert outbox.run(tmp_path, once=True, say=lambda line: None) == Sent(1, 0, 0)
    assert signal.getsignal(signal.SIGTERM) is before
    assert set(threading.enumerate()) <= threads


def test_run_without_alerts_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no \\[\\[alert\\]\\]"):
        outbox.run(tmp_path, once=True, say=lambda line: None)


def test_thousands_of_messages_of_a_channel_that_is_down_hide_nobody_elses(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_MOST_AT_ONCE", 10)
    post.store(*(f"{number}" for number in range(30)))
    post.store("c", channel="two")
    post.down = {"one"}
    post.box.round()
    post.wait(1)
    post.box.round()
    assert post.arrived == [("c", "text of c")]


def test_after_a_cut_the_messages_arrive_in_the_order_in_which_they_were_made(post: Post) -> None:
    post.store("a", "b", "c")
    post.down = {"one"}
    post.box.round()
    post.down = set()
    post.wait(2 * FIRST_PAUSE_S)
    post.box.round()
    assert [key for key, _ in post.arrived] == ["a", "b", "c"]


def test_process_takes_a_root_as_it_was_named(tmp_path: Path) -> None:
    write_settings(tmp_path / "dev", tmp_path / "out")
    (tmp_path / "dev" / config.FILE).write_text("agent = 3")
    ended = subprocess.run(
        [sys.executable, "-m", "edge.agent.outbox", "dev"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(outbox.__file__).parents[2])},
    )  # fmt: skip
    assert ended.returncode == 1
    assert f"{tmp_path}/dev/etc/fieldmark/config.toml: agent is 3" in ended.stderr
