from __future__ import annotations

import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edge.agent.channels import AlertError, send
from edge.agent.config_upkeep import Alert, Command, Mqtt, Rule, Webhook
from edge.errors import ConfigError

RULE = Rule("foxes", ("fox",), 0.8)
TEXT = '{"label": "fox"}'


class Hook(ThreadingHTTPServer):
    """A real web server that answers as it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.headers_out = 204, dict[str, str]()
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.silent = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), body))
        self.server.silent.wait(5 if self.server.status == 0 else 0)
        self.send_response(self.server.status or 204)
        for name, value in self.server.headers_out.items():
            self.send_header(name, value)
        self.end_headers()

    do_GET = do_POST  # what a followed redirect would become

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[Hook]:
    server = Hook()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.silent.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    with serving() as server:
        yield server


def webhook(url: str, token: Path | None = None, timeout_s: float = 5) -> Alert:
    return Alert(RULE, Webhook(url, token), timeout_s)


def test_webhook_gets_the_text_and_the_key(hook: Hook, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    send(webhook(hook.url, token), "foxes|füchse|1", TEXT)
    [(path, headers, body)] = hook.got
    assert (path, body) == ("/hook", TEXT.encode())
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == "foxes|f\\xfcchse|1"
    assert headers["Authorization"] == "Bearer s3cret"


def test_short_text_is_sent_as_text(hook: Hook) -> None:
    send(webhook(hook.url), "k", "fox 93%")
    assert hook.got[0][1]["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("status", "code"),
    [(301, "refused"), (302, "refused"), (307, "refused"), (400, "refused"), (404, "refused"), (408, "unreachable"),
     (429, "unreachable"), (500, "unreachable"), (503, "unreachable")],
)  # fmt: skip
def test_answer_that_is_not_yes_is_an_error(hook: Hook, status: int, code: str) -> None:
    hook.status = status
    with pytest.raises(AlertError, match=f"answered {status}") as refused:
        send(webhook(hook.url), "k", TEXT)
    assert refused.value.code == code


def test_redirect_is_not_followed_and_the_token_goes_nowhere_else(hook: Hook, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret")
    with serving() as elsewhere:
        hook.status, hook.headers_out = 302, {"Location": elsewhere.url}
        with pytest.raises(AlertError, match="answered 302"):
            send(webhook(hook.url, tmp_path / "token"), "k", TEXT)
        assert (len(hook.got), elsewhere.got) == (1, [])


def test_server_that_is_silent_ends_with_the_time(hook: Hook) -> None:
    hook.status = 0
    with pytest.raises(AlertError) as refused:
        send(webhook(hook.url, timeout_s=0.2), "k", TEXT)
    assert refused.value.code == "unreachable"


def test_nobody_there_is_unreachable() -> None:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(AlertError, match="cannot be reached") as refused:
        send(webhook(f"http://127.0.0.1:{port}/"), "k", TEXT)
    assert refused.value.code == "unreachable"


def raw_server(answer: bytes) -> tuple[str, threading.Thread]:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as connection, suppress(OSError):
            connection.recv(65_536)
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}/", thread


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"a" * 200_000 + b"\r\n\r\n", id="a header without end"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 1000 + b"\r\n", id="a thousand headers"),
        pytest.param(b"HTTP/1.1 999 \xff\xfe\r\n\r\n", id="a status that there is not"),
    ],
)
def test_answer_that_is_none_is_an_alert_error(answer: bytes) -> None:
    url, thread = raw_server(answer)
    with pytest.raises(AlertError) as refused:
        send(webhook(url), "k", TEXT)
    thread.join()
    assert len(str(refused.value)) < 500


def test_proxy_of_the_environment_is_not_asked(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
    send(webhook(hook.url), "k", TEXT)
    assert len(hook.got) == 1


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"\xff"])
def test_token_that_is_none_is_refused_before_anything_is_sent(hook: Hook, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(ConfigError, match="token"):
        send(webhook(hook.url, tmp_path / "token"), "k", TEXT)
    assert hook.got == []


# A command


def command(*argv: str, timeout_s: float = 20) -> Alert:
    return Alert(RULE, Command(argv), timeout_s)


def python(script: str, *arguments: str, timeout_s: float = 20) -> Alert:
    return command(sys.executable, "-c", script, *arguments, timeout_s=timeout_s)


def test_command_gets_the_text_on_standard_input_and_its_words_unchanged(tmp_path: Path) -> None:
    out = tmp_path / "got"
    script = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read() + '|' + sys.argv[2])"
    send(python(script, str(out), "$(rm -rf /); `x` *"), "k", "fox 93%; $HOME")
    assert out.read_text() == "fox 93%; $HOME|$(rm -rf /); `x` *"


def test_command_has_nothing_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    out = tmp_path / "got"
    send(
        python("import os, sys; open(sys.argv[1], 'w').write(repr((dict(os.environ), os.getcwd())))", str(out)), "k", ""
    )
    assert "NOTIFY_SOCKET" not in out.read_text()
    assert out.read_text().endswith("'/')")


def test_command_that_fails_says_its_last_words() -> None:
    with pytest.raises(AlertError, match=r"ended with 3: no modem\."):
        send(python("import sys; sys.stderr.write('x' * 9999 + '\\nno modem\\n'); sys.exit(3)"), "k", TEXT)


def test_command_that_is_not_there_is_an_alert_error() -> None:
    with pytest.raises(AlertError, match="cannot be run"):
        send(command("/nowhere/send"), "k", TEXT)


def test_command_that_reads_nothing_is_no_error() -> None:
    send(command("/bin/true"), "k", "x" * 10**6)


def test_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); "
    script += "open(sys.argv[1], 'w').write(str(p.pid)); time.sleep(60)"
    with pytest.raises(AlertError, match="did not end within"):
        send(python(script, str(pid), timeout_s=1.5), "k", TEXT)
    stat = Path(f"/proc/{pid.read_text()}/stat")
    deadline = time.monotonic() + 5
    while stat.exists() and ") Z" not in stat.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not stat.exists() or ") Z" in stat.read_text()


# MQTT


class Broker(threading.Thread):
    """Just enough of MQTT 3.1.1 to take one message: CONNECT, PUBLISH with QoS 1, DISCONNECT."""

    def __init__(self, connack: int = 0, *, acknowledge: bool = True) -> None:
        super().__init__()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connack, self.acknowledge = connack, acknowledge
        self.connected, self.published = b"", list[tuple[str, bytes, int]]()
        self.start()

    def run(self) -> None:
        with suppress(ConnectionError), self.listener, self.listener.accept()[0] as connection:
            connection.settimeout(10)
            self.stream = connection.makefile("rwb")
            while packet := self._packet():
                self._answer(*packet)

    def _packet(self) -> tuple[int, bytes] | None:
        head = self.stream.read(1)
        if not head:
            return None
        length = shift = 0
        while True:
            byte = self.stream.read(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return head[0], self.stream.read(length)

    def _answer(self, head: int, body: bytes) -> None:
        if head >> 4 == 1:
            self.connected = body
            self.stream.write(bytes([0x20, 2, 0, self.connack]))
        elif head >> 4 == 3:
            (length,) = struct.unpack(">H", body[:2])
            self.published.append((body[2 : 2 + length].decode(), body[4 + length :], head >> 1 & 3))
            if self.acknowledge:
                self.stream.write(bytes([0x40, 2]) + body[2 + length : 4 + length])
        self.stream.flush()


def mqtt(port: int, token: Path | None = None, timeout_s: float = 5) -> Alert:
    return Alert(
        RULE, Mqtt("127.0.0.1", "fieldmark/beech", port, "cam" if token else None, token, tls=False), timeout_s
    )


def test_mqtt_publishes_and_waits_until_the_broker_has_it(tmp_path: Path) -> None:
    pytest.importorskip("paho.mqtt.client")
    (tmp_path / "token").write_text("s3cret")
    broker = Broker()
    send(mqtt(broker.port, tmp_path / "token"), "k", TEXT)
    broker.join()
    assert broker.published == [("fieldmark/beech", TEXT.encode(), 1)]
    assert broker.connected.endswith(b"\x00\x03cam\x00\x06s3cret")


def test_mqtt_without_an_acknowledgement_has_not_arrived() -> None:
    pytest.importorskip("paho.mqtt.client")
    broker = Broker(acknowledge=False)
    with pytest.raises(AlertError, match="did not take it within") as refused:
        send(mqtt(broker.port, timeout_s=0.5), "k", TEXT)
    broker.join()
    assert refused.value.code == "unreachable"


def test_mqtt_broker_that_does_not_know_us_is_an_alert_error() -> None:
    pytest.importorskip("paho.mqtt.client")
    broker = Broker(connack=5)
    with pytest.raises(AlertError, match="refused us"):
        send(mqtt(broker.port), "k", TEXT)
    broker.join()


def test_mqtt_broker_that_is_not_there_is_an_alert_error() -> None:
    pytest.importorskip("paho.mqtt.client")
    with pytest.raises(AlertError, match="cannot be reached"):
        send(mqtt(9), "k", TEXT)


def test_without_the_package_mqtt_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("paho", "paho.mqtt"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"fieldmark\[mqtt\]"):
        send(mqtt(9), "k", TEXT)


def dripping(answer: bytes) -> tuple[str, threading.Event]:
    """A server that sends an answer and then a byte now and then, for as long as somebody listens."""
    listener, over = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve() -> None:
        with listener, suppress(OSError):
            end, _ = listener.accept()
            with end:
                end.recv(65536)
                end.sendall(answer)
                while not over.wait(0.05):
                    end.sendall(b"x")

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}/", over


def test_server_that_drips_its_answer_does_not_hold_up_the_others() -> None:
    url, over = dripping(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    start_s = time.monotonic()
    with pytest.raises(AlertError, match=r"no whole answer within 0\.3 s"):
        send(webhook(url, timeout_s=0.3), "k", TEXT)
    over.set()
    assert time.monotonic() - start_s < 5
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_who_says_yes_has_it_whatever_comes_behind() -> None:
    url, over = dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    start_s = time.monotonic()
    send(webhook(url, timeout_s=3), "k", TEXT)
    over.set()
    assert time.monotonic() - start_s < 2


def test_password_of_mqtt_may_be_any_text_and_a_bearer_token_is_ascii(hook: Hook, tmp_path: Path) -> None:
    pytest.importorskip("paho.mqtt.client")
    token = tmp_path / "token"
    token.write_text("geheim-Übel", encoding="utf-8")
    broker = Broker()
    send(mqtt(broker.port, token), "k", TEXT)
    broker.join()
    assert broker.connected.endswith("geheim-Übel".encode())
    with pytest.raises(ConfigError, match="no text in ASCII") as refused:
        send(webhook(hook.url, token), "k", TEXT)
    assert "geheim" not in str(refused.value)
