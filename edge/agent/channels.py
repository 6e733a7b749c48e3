"""How a message leaves the device: a webhook, MQTT, or a command. One try each, within its time; never again by itself.

What answers is not trusted: redirects are not followed, of an answer no more than its head is read, and however
slowly it comes, it does not hold up the messages behind it.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

from edge.agent.config_upkeep import Alert, Command, Mqtt, Webhook
from edge.errors import ConfigError, FieldmarkError

_MOST_TOKEN_BYTES = 4096
_GRACE_S = 0.5
"""Later than a socket's own timeout, which says better what was waited for."""
_MOST_WORDS = 200


class AlertError(FieldmarkError):
    """A message did not arrive. With code ``refused`` somebody answered and did not take this one; with ``unreachable``
    nobody did, and the next message would fare no better."""

    code = "unreachable"


def send(alert: Alert, key: str, text: str) -> None:
    """Send one message; on return somebody has taken it.

    Args:
        key: the same for a message that is sent again, so that whoever receives it can tell.

    Raises:
        AlertError: it did not arrive.
        ConfigError: the token file cannot be read, or what the channel needs is not installed.
    """
    match alert.to:
        case Webhook():
            with _no_longer_than(alert.timeout_s):
                _post(alert.to, key, text, alert.timeout_s)
        case Mqtt():
            with _no_longer_than(alert.timeout_s):
                _publish(alert.to, text, alert.timeout_s)
        case Command():
            _run(alert.to, text, alert.timeout_s)


@contextmanager
def _no_longer_than(timeout_s: float) -> Iterator[None]:
    """End all of a try after its time. The timeout of a socket is for each read alone: a server that sends a byte now
    and then is within it for ever. Signals come to the main thread only, in which messages are sent.

    Raises:
        AlertError: the time is over.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, _over)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, timeout_s + _GRACE_S)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _Over as error:
        raise AlertError(f"no whole answer within {timeout_s:g} s.") from error
    finally:
        signal.signal(signal.SIGALRM, before)


class _Over(BaseException):
    """The time is over; no handler of a library takes it for an error of its own."""


def _over(number: int, frame: FrameType | None) -> None:
    raise _Over


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry message and token to wherever the answer says."""

    def redirect_request(self, *_: Any) -> None:
        return None


# No proxies from the environment, and no handler for any other scheme.
_OPENER = urllib.request.OpenerDirector()
for _handler in (
    urllib.request.HTTPHandler(), urllib.request.HTTPSHandler(), _NoRedirects(),
    urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor(),
):  # fmt: skip
    _OPENER.add_handler(_handler)


def _post(to: Webhook, key: str, text: str, timeout_s: float) -> None:
    kind = "application/json" if text.startswith("{") else "text/plain; charset=utf-8"
    headers = {"Content-Type": kind, "User-Agent": "fieldmark", "Idempotency-Key": _header(key)}
    if to.token_file:
        headers["Authorization"] = f"Bearer {_token(to.token_file, 'ascii')}"
    request = urllib.request.Request(to.url, text.encode(), headers, method="POST")
    try:
        _OPENER.open(request, timeout=timeout_s).close()  # whoever says yes has it, whatever else it says
    except urllib.error.HTTPError as error:
        error.close()
        code = "refused" if 300 <= error.code < 500 and error.code not in (408, 429) else "unreachable"
        raise AlertError(f"the webhook answered {error.code} {_words(error.reason)}.", code=code) from error
    except urllib.error.URLError as error:
        raise AlertError(f"the webhook cannot be reached: {_words(error.reason)}.") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise AlertError(f"the webhook did not answer as one: {_words(error) or type(error).__name__}.") from error


def _header(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()[:1000]


def _publish(to: Mqtt, text: str, timeout_s: float) -> None:
    """With the broker's word for it (QoS 1)."""
    try:
        from paho.mqtt import client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion
    except ModuleNotFoundError as error:
        raise ConfigError("MQTT needs the package paho-mqtt: pip install 'fieldmark[mqtt]'.", code="extra") from error
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.connect_timeout = timeout_s
    if to.user:
        client.username_pw_set(to.user, _token(to.token_file, "utf-8") if to.token_file else None)
    if to.tls:
        client.tls_set()
    refused: list[str] = []
    client.on_connect = lambda *answer: refused.append(str(answer[3])) if answer[3].is_failure else None
    try:
        client.connect(to.host, to.port)
        client.loop_start()
        message = client.publish(to.topic, text, qos=1)
        end_s = time.monotonic() + timeout_s
        while not message.is_published() and not refused:
            if time.monotonic() >= end_s:
                raise AlertError(f"the broker {to.host} did not take it within {timeout_s:g} s.")
            message.wait_for_publish(0.1)
    except (OSError, ValueError, RuntimeError) as error:
        if not refused:  # a connection that the broker ended after it refused is no other trouble
            raise AlertError(f"the broker {to.host} cannot be reached: {_words(error)}.") from error
    finally:
        client.disconnect()
        client.loop_stop()
    if refused:
        raise AlertError(f"the broker {to.host} refused us: {_words(refused[0])}.")


def _run(to: Command, text: str, timeout_s: float) -> None:
    """With the text on standard input, and nothing of our own environment or folder."""
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8"}
    with tempfile.TemporaryFile() as said:
        try:
            child = subprocess.Popen(
                to.argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said,
                cwd="/", env=environment, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise AlertError(f"{to.argv[0]} cannot be run: {error.strerror}.") from error
        try:
            child.communicate(text.encode(), timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            _end(child)
            raise AlertError(f"{to.argv[0]} did not end within {timeout_s:g} s.") from error
        if child.returncode != 0:
            raise AlertError(f"{to.argv[0]} ended with {child.returncode}: {_last_words(said)}.")


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a command and what it has started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin:
        with suppress(OSError):
            child.stdin.close()


def _last_words(said: IO[bytes]) -> str:
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - _MOST_WORDS))
    lines = said.read().decode("utf-8", "replace").strip().splitlines()
    return _words(lines[-1]) if lines else "it said nothing"


def _token(path: Path, encoding: str) -> str:
    """The secret of a file. What is wrong with it is said without a part of it."""
    try:
        with path.open("rb") as file:
            token = file.read(_MOST_TOKEN_BYTES).decode(encoding).strip()
    except OSError as error:
        raise ConfigError(f"{path}: the token cannot be read: {_words(error)}.", code="token") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: the token is no text in {encoding.upper()}.", code="token") from None
    if not token or not token.isprintable():
        raise ConfigError(f"{path}: expected one line with the token.", code="token")
    return token


def _words(error: object) -> str:
    """A foreign message as part of a line."""
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:_MOST_WORDS].rstrip(".")
