"""The review page over real HTTP, as its own page uses it and as hostile pages would."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from PIL import Image

from edge.errors import ConfigError, LogError
from edge.log import query, store
from edge.log.query import Row
from edge.review.server import ADDRESS, MAX_BODY_BYTES, ReviewServer
from tests.edge.review.conftest import Reviewed
from tests.edge.review.devtools import Chromium
from tests.fakes.camera import jpeg, put


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")


class Browser:
    """Asks the server, with the cookie and token that the page gave it."""

    def __init__(self, server: ReviewServer) -> None:
        self.server = server
        self.cookie = self.token = ""

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(http.client.HTTPConnection(ADDRESS, self.server.server_port, timeout=20)) as connection:
            connection.request(method, path, body, names)
            reply: HTTPResponse = connection.getresponse()
            return Answer(reply.status, reply.headers, reply.read())

    def open(self, path: str = "/") -> str:
        reply = self.ask("GET", path)
        assert reply.status == 200, reply.text
        self.cookie = str(reply.headers["Set-Cookie"]).partition(";")[0]
        self.token = (re.findall(r'name="token" value="([^"]+)"', reply.text) or [""])[0]
        return reply.text

    def form(self, row: Row, **fields: str) -> bytes:
        return urlencode({"token": self.token, "sha256": row.sha256 or "", **fields}).encode()

    def post(self, row: Row, body: bytes | None = None, fields: dict[str, str] | None = None, **headers: str) -> Answer:
        sent: dict[str, str] = {
            "Content_Type": "application/x-www-form-urlencoded",
            "Cookie": self.cookie,
            "Accept": "application/json",
        }
        content = self.form(row, **(fields or {})) if body is None else body
        return self.ask("POST", f"/review/{row.id}", content, **(sent | headers))


@pytest.fixture
def server(log: Reviewed) -> Iterator[ReviewServer]:
    with ReviewServer(log.database, 0, "Ada") as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def browser(server: ReviewServer) -> Browser:
    return Browser(server)


def row(log: Reviewed, number: int) -> Row:
    with closing(store.open_for_reading(log.database)) as connection:
        return query.one(connection, number)


# The page


def test_page_lists_the_least_certain_first_without_copies(browser: Browser) -> None:
    text = browser.open()
    shown = re.findall(r'<article id="row-(\d+)"', text)
    assert shown[0] == "3"
    assert set(shown) == {"1", "3", "4", "6"}
    assert "2024-05-01 06:12:09" in text
    assert "6-&lt;b&gt;&quot;&amp;&#x27;caf%E9.jpg" in text
    assert "<i>beech" not in text


def test_every_card_can_be_accepted_and_changed(browser: Browser) -> None:
    text = browser.open()
    assert text.count('class="accept"') == text.count('name="other"') == 4
    assert [f'<option value="{label}">' in text for label in ("deer", "fox", "empty", "person", "unknown", "setup")]


def test_lists_can_be_chosen(browser: Browser) -> None:
    assert "truncated" in browser.open("/?state=failed")
    assert "Nothing here" in browser.open("/?state=reviewed")
    assert browser.open("/?state=all").count("<article") == 5
    assert browser.open("/?state=all&skip=4").count("<article") == 1
    assert browser.open("/?state=drop%20table&skip=-1").count("<article") == 4


def test_style_and_script_are_served(browser: Browser) -> None:
    for path, kind in (("/page.css", "text/css"), ("/page.js", "text/javascript")):
        reply = browser.ask("GET", path)
        assert reply.status == 200
        assert str(reply.headers["Content-Type"]).startswith(kind)


def test_every_answer_forbids_what_is_not_needed(browser: Browser) -> None:
    for path in ("/", "/page.js", "/photo/1/0000000000000000.jpg", "/nothing"):
        headers = browser.ask("GET", path).headers
        assert str(headers["Content-Security-Policy"]).startswith("default-src 'none'; ")
        assert "unsafe" not in str(headers["Content-Security-Policy"])
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Python" not in str(headers["Server"])


def test_page_loads_nothing_from_elsewhere(browser: Browser) -> None:
    text = browser.open()
    addresses = re.findall(r'(?:src|href|action)="([^"]*)"', text)
    assert addresses
    assert all(address.startswith("/") and not address.startswith("//") for address in addresses)


# Photos


def test_photo_is_served_as_a_preview_without_exif(browser: Browser, log: Reviewed) -> None:
    [source] = re.findall(r'src="(/photo/1/[^"]+)"', browser.open())
    reply = browser.ask("GET", source)
    image = Image.open(io.BytesIO(reply.body))
    assert (reply.headers["Content-Type"], image.size) == ("image/jpeg", (400, 200))
    assert reply.body != (log.photos / "1-deer.jpg").read_bytes()
    assert dict(image.getexif()) == {}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/photo/99/0000000000000000.jpg", 404, id="a row that is not there"),
        pytest.param("/photo/5/0000000000000000.jpg", 404, id="a file that is no photo"),
        pytest.param("/photo/1/0000000000000000.jpg", 404, id="another photo than the row holds"),
        pytest.param("/?" + "x=1&" * 21, 400, id="more fields than a page has"),
        pytest.param("x://[", 400, id="an address that is none"),
        pytest.param("/photo/../../etc/passwd", 404, id="a path instead of a row"),
        pytest.param("/photo/1/..%2f..%2fetc%2fpasswd.jpg", 404, id="an escaped path"),
        pytest.param("/photo/1%00/0000000000000000.jpg", 404, id="a null byte"),
        pytest.param("/etc/passwd", 404, id="a file of the machine"),
        pytest.param("/log.db", 404, id="the log itself"),
        pytest.param("/photo/999999999999999999/0000000000000000.jpg", 404, id="a very large number"),
    ],
)
def test_only_photos_of_rows_are_served(browser: Browser, path: str, status: int) -> None:
    assert browser.ask("GET", path).status == status


def test_photo_that_was_replaced_is_not_shown(browser: Browser, log: Reviewed) -> None:
    put(log.photos / "1-deer.jpg", jpeg(200))
    assert browser.ask("GET", f"/photo/1/{(row(log, 1).sha256 or '')[:16]}.jpg").status == 410


# Corrections


def test_accepting_confirms_the_models_label(browser: Browser, log: Reviewed) -> None:
    browser.open()
    reply = browser.post(row(log, 1), fields={"label": "deer"})
    assert reply.status == 200, reply.text
    assert json.loads(reply.text)["label"] == "deer"
    assert json.loads(reply.text)["counts"]["unreviewed"] == 3
    found = row(log, 1)
    assert (found.person_label, found.reviewed_by, found.model_label) == ("deer", "Ada", "deer")
    assert row(log, 2).person_label == "deer"  # the copy is the same photo


def test_changing_writes_the_typed_label_and_count(browser: Browser, log: Reviewed) -> None:
    browser.open()
    assert browser.post(row(log, 3), fields={"other": " Roe  deer ", "count": "2"}).status == 200
    assert row(log, 3).person_label == "Roe deer"
    with closing(store.open_for_reading(log.database)) as connection:
        [review] = query.reviews(connection, row(log, 3).photo_id)
    assert review["observations"][0]["count"] == 2
    assert "Roe deer" in browser.open("/?state=reviewed")


def test_form_without_script_comes_back_to_its_list(browser: Browser, log: Reviewed) -> None:
    browser.open("/?state=all")
    fields = {"label": "deer", "state": "all", "skip": "20"}
    reply = browser.post(row(log, 1), fields=fields, Accept="text/html")
    assert (reply.status, reply.headers["Location"]) == (303, "/?state=all&skip=20")


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="no label"),
        pytest.param({"other": "   "}, id="an empty label"),
        pytest.param({"other": "x" * 101}, id="a label that is too long"),
        pytest.param({"other": "a\x00b"}, id="a control character"),
        pytest.param({"label": "deer", "count": "0"}, id="none of them"),
        pytest.param({"label": "deer", "count": "1e9"}, id="a count that is no number"),
    ],
)
def test_correction_that_makes_no_sense_is_refused(browser: Browser, log: Reviewed, fields: dict[str, str]) -> None:
    browser.open()
    reply = browser.post(row(log, 1), fields=fields)
    assert reply.status == 422
    assert json.loads(reply.text)["error"]
    assert row(log, 1).review_id is None


def hostile(browser: Browser, log: Reviewed) -> dict[str, Any]:
    one = row(log, 1)
    good = browser.form(one, label="fox")
    return {
        "without the token": {"body": urlencode({"sha256": one.sha256, "label": "fox"}).encode()},
        "with a guessed token": {"body": good.replace(browser.token.encode(), b"x" * len(browser.token))},
        "without the cookie, as from another site": {"body": good, "Cookie": ""},
        "with another cookie": {"body": good, "Cookie": browser.cookie[:-1] + "!"},
        "from another origin": {"body": good, "Origin": "http://evil.example"},
        "from a sandboxed frame": {"body": good, "Origin": "null"},
        "under another host name, as DNS rebinding does": {"body": good, "Host": "evil.example"},
        "with our port under another name": {"body": good, "Host": f"evil.example:{browser.server.server_port}"},
        "as JSON": {"body": json.dumps({"label": "fox"}).encode(), "Content_Type": "application/json"},
        "as plain text, which needs no permission": {"body": good, "Content_Type": "text/plain"},
        "too large": {"body": good + b"&x=" + b"y" * MAX_BODY_BYTES},
        "with many fields": {"body": good + b"&x=" * 100},
        "not in UTF-8": {"body": good + b"&x=\xff"},
        "with a label that is no text": {"body": good.replace(b"label=fox", b"label=%ff")},
        "for another photo than was shown": {
            "body": urlencode({"token": browser.token, "sha256": "0" * 64, "label": "fox"}).encode()
        },
    }


HOSTILE = (
    ("without the token", 403),
    ("with a guessed token", 403),
    ("without the cookie, as from another site", 403),
    ("with another cookie", 403),
    ("from another origin", 403),
    ("from a sandboxed frame", 403),
    ("under another host name, as DNS rebinding does", 421),
    ("with our port under another name", 421),
    ("as JSON", 415),
    ("as plain text, which needs no permission", 415),
    ("too large", 413),
    ("with many fields", 400),
    ("not in UTF-8", 400),
    ("with a label that is no text", 400),
    ("for another photo than was shown", 409),
)


@pytest.mark.parametrize(("case", "status"), HOSTILE, ids=[case for case, _ in HOSTILE])
def test_hostile_correction_is_refused_and_nothing_is_written(
    browser: Browser, log: Reviewed, case: str, status: int
) -> None:
    browser.open()
    assert browser.post(row(log, 1), **hostile(browser, log)[case]).status == status
    assert row(log, 1).review_id is None


def test_same_form_without_the_attack_is_taken(browser: Browser, log: Reviewed) -> None:
    """Or the refusals above would prove nothing."""
    browser.open()
    own = browser.server.url.rstrip("/")
    assert browser.post(row(log, 1), fields={"label": "fox"}, Origin=own).status == 200
    assert row(log, 1).person_label == "fox"


def test_length_that_is_missing_is_refused_without_reading(browser: Browser) -> None:
    head = f"POST /review/1 HTTP/1.0\r\nHost: {ADDRESS}:{browser.server.server_port}\r\n"
    head += "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    with socket.create_connection((ADDRESS, browser.server.server_port), timeout=20) as connection:
        connection.sendall(head.encode())
        assert b" 411 " in connection.recv(1000)


def test_page_of_another_host_name_is_not_shown(browser: Browser) -> None:
    reply = browser.ask("GET", "/", Host="evil.example")
    assert reply.status == 421
    assert "token" not in reply.text


def test_cookie_never_goes_to_other_sites_or_scripts(browser: Browser) -> None:
    cookie = str(browser.ask("GET", "/").headers["Set-Cookie"])
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


def test_other_methods_are_not_known(browser: Browser) -> None:
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD"):
        assert browser.ask(method, "/review/1").status == 501


# Starting


def test_server_listens_on_this_machine_only(server: ReviewServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_taken_port_is_said(server: ReviewServer, log: Reviewed) -> None:
    with pytest.raises(ConfigError, match=rf"port {server.server_port} .* is in use"):
        ReviewServer(log.database, server.server_port, "Ada")


def test_no_log_is_said_before_serving(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="there is no detection log"):
        ReviewServer(tmp_path / "log.db", 0, "Ada")


# In a real browser


@pytest.mark.needs("browser")
def test_keys_accept_change_and_move_on(server: ReviewServer, log: Reviewed, tmp_path: Path) -> None:
    here = "document.querySelector('.here')?.id"
    with Chromium(tmp_path / "profile") as browser:
        browser.open(server.url)
        order = browser.value("[...document.querySelectorAll('.card')].map((card) => +card.id.slice(4))")
        assert browser.value(here) == f"row-{order[0]}"
        # The policy lets our own pictures in.
        browser.until("[...document.images].slice(0, 2).every((image) => image.naturalWidth > 0)")

        browser.press("a")
        browser.until(f"{here} === 'row-{order[1]}'")
        first = row(log, order[0])
        assert (first.person_label, first.reviewed_by) == (first.model_label, "Ada")
        assert browser.value("document.querySelector('[data-count=unreviewed]').textContent") == "3"

        browser.press("c")
        for key in "lynx":
            browser.press(key)
        browser.press("Enter")
        browser.until(f"{here} === 'row-{order[2]}'")
        assert row(log, order[1]).person_label == "lynx"

        browser.press("2")
        browser.until(f"{here} === 'row-{order[3]}'")
        third = row(log, order[2])
        assert third.person_label == [label for label, _ in third.top if label != third.model_label][1]

        browser.press("k")
        assert browser.value(here) == f"row-{order[2]}"
        browser.press("j")
        assert browser.value(here) == f"row-{order[3]}"
