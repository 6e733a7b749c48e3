"""The review page's server: for this machine alone, at 127.0.0.1.

Assumes hostile pages in the same browser: the host name is checked (DNS rebinding), a correction needs a token that
only our own page has (cross-site requests), nothing from elsewhere is loaded or may frame the page, and a photo is
served by its row's number only, never by a path. Writes nothing but reviews.
"""

from __future__ import annotations

import errno
import hmac
import json
import re
import secrets
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from edge.errors import ConfigError, FieldmarkError, PhotoError
from edge.log import query, store
from edge.review import page, preview

ADDRESS = "127.0.0.1"
MAX_BODY_BYTES = 8 * 2**10
_MAX_FIELDS = 20
_SIDE = 1280
_TIMEOUT_S = 20
_POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)


class Refused(Exception):
    """A request that gets an error status and a line that says why."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class ReviewServer(ThreadingHTTPServer):
    """Serves one log to one person.

    Attributes:
        url: where the page is.
    """

    def __init__(self, database: Path, port: int, who: str) -> None:
        """Bind, without serving yet.

        Raises:
            LogError: there is no log at ``database``.
            ConfigError: the port is taken.
        """
        store.open_for_reading(database).close()
        self.database = database
        self.who = store.clean_words(who, "who reviews")
        self.token, self.session = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self.decoders = threading.Semaphore(2)  # a 48-megapixel PNG takes 150 MB while it is decoded
        try:
            super().__init__((ADDRESS, port), Handler)
        except (OSError, OverflowError) as error:
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            why = "is in use" if taken else f"cannot be used: {error}"
            raise ConfigError(f"port {port} of {ADDRESS} {why}. Name another by --port, or 0 for any.") from error
        self.url = f"http://{ADDRESS}:{self.server_port}/"
        self.hosts = {f"{name}:{self.server_port}" for name in (ADDRESS, "localhost")}
        self.cookie = f"fieldmark_{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up is no news; anything else is a fault to be seen."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def serve(database: Path, *, port: int, who: str, ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C.

    Args:
        ready: told where the page is.

    Raises:
        LogError: there is no log.
        ConfigError: the port is taken.
    """
    with ReviewServer(database, port, who) as server:
        ready(f"Open {server.url} in a browser on this machine. Ctrl-C ends it.")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            ready("Ended. Every correction is in the log.")


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: ReviewServer
    server_version, sys_version = "Fieldmark", ""
    timeout = _TIMEOUT_S

    def do_GET(self) -> None:
        """The page, its style and script, and previews."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """A correction."""
        self._answer(self._post)

    def _answer(self, work: Callable[[], None]) -> None:
        try:
            self._check_host()
            work()
        except Refused as error:
            self._refuse(error.status, str(error))
        except PhotoError as error:
            self._refuse(HTTPStatus.GONE, str(error))
        except FieldmarkError as error:
            missing = error.code == "missing"
            self._refuse(HTTPStatus.NOT_FOUND if missing else HTTPStatus.UNPROCESSABLE_ENTITY, str(error))

    def _check_host(self) -> None:
        if self.headers.get("Host", "") not in self.server.hosts:
            raise Refused(HTTPStatus.MISDIRECTED_REQUEST, f"This page is at {self.server.url} only.")

    def _get(self) -> None:
        try:
            asked = urlsplit(self.path)
            fields = parse_qs(asked.query, max_num_fields=_MAX_FIELDS)
        except ValueError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "The address cannot be read.") from error
        if asked.path == "/":
            self._page(fields)
        elif asked.path == "/page.css":
            self._send(page.STYLE.read_bytes(), "text/css; charset=utf-8")
        elif asked.path == "/page.js":
            self._send(page.SCRIPT.read_bytes(), "text/javascript; charset=utf-8")
        elif match := re.fullmatch(r"/photo/([0-9]{1,18})/([0-9a-f]{16})\.jpg", asked.path):
            self._photo(int(match[1]), match[2])
        else:
            raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def _page(self, asked: dict[str, list[str]]) -> None:
        state, skip = _place(asked)
        with closing(store.open_for_reading(self.server.database)) as connection:
            view = page.View(
                name=self.server.database.name,
                state=state,
                skip=skip,
                counts=query.count_states(connection),
                rows=query.to_review(connection, state, skip=skip, most=page.PER_PAGE),
                labels=query.known_labels(connection),
                token=self.server.token,
            )
        cookie = f"{self.server.cookie}={self.server.session}; Path=/; HttpOnly; SameSite=Strict"
        self._send(page.live(view).encode("utf-8"), "text/html; charset=utf-8", {"Set-Cookie": cookie})

    def _photo(self, file_id: int, sha256_start: str) -> None:
        with closing(store.open_for_reading(self.server.database)) as connection:
            row = query.one(connection, file_id)
        if row.photo_id is None or row.sha256 is None or row.sha256[:16] != sha256_start:
            raise Refused(HTTPStatus.NOT_FOUND, "This row holds no such photo.")
        with self.server.decoders:
            content = preview.jpeg(row, _SIDE)
        self._send(content, "image/jpeg", {"Cache-Control": "private, max-age=3600"})

    def _post(self) -> None:
        match = re.fullmatch(r"/review/([0-9]{1,18})", self.path)
        if not match:
            raise Refused(HTTPStatus.NOT_FOUND, "There is nothing here.")
        form = self._form()
        self._check_ours(form)
        label, counts = self._review(int(match[1]), form)
        if "application/json" in self.headers.get("Accept", ""):
            answer = {"schema": 1, "label": label, "who": self.server.who, "counts": counts}
            self._send(json.dumps(answer).encode(), "application/json")
            return
        state, skip = _place({name: [value] for name, value in form.items()})
        self._send(b"", "text/plain", {"Location": f"/?state={state}&skip={skip}"}, HTTPStatus.SEE_OTHER)

    def _form(self) -> dict[str, str]:
        """The posted fields, read only if they are few and small."""
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "A form is expected.")
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,9}", length):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "The length of the form is missing.")
        if int(length) > MAX_BODY_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A form has at most {MAX_BODY_BYTES} bytes.")
        try:
            text = self.rfile.read(int(length)).decode("utf-8")
            fields = parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
        except (ValueError, TimeoutError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "The form cannot be read.") from error
        return {name: values[-1] for name, values in fields.items()}

    def _check_ours(self, form: dict[str, str]) -> None:
        """Whether the form is from our page: its token, and the cookie that other sites cannot have sent along."""
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            cookie = None
        session = cookie.value if cookie else ""
        origin = self.headers.get("Origin")
        if not (
            _same(form.get("token", ""), self.server.token)
            and _same(session, self.server.session)
            and origin in (None, *(f"http://{host}" for host in self.server.hosts))
        ):
            raise Refused(HTTPStatus.FORBIDDEN, "This form is not from the open page. Load the page again.")

    def _review(self, file_id: int, form: dict[str, str]) -> tuple[str, dict[str, int]]:
        label = form.get("label") or form.get("other") or ""
        count = form.get("count", "1")
        if not re.fullmatch(r"[1-9][0-9]{0,3}", count):
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "How many is a number from 1 to 9999.")
        with closing(store.open_for_reading(self.server.database)) as connection:
            row = query.one(connection, file_id)
        if row.photo_id is None or row.sha256 is None:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "This file is no photo that can be seen.")
        if form.get("sha256") != row.sha256:
            raise Refused(HTTPStatus.CONFLICT, "The row holds another photo than the page showed. Load the page again.")
        with store.open_for_writing(self.server.database) as log:
            log.add_review(row.sha256, [store.Observation(label, count=int(count))], self.server.who)
        with closing(store.open_for_reading(self.server.database)) as connection:
            return query.one(connection, file_id).person_label or label, query.count_states(connection)

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        if "application/json" in self.headers.get("Accept", ""):
            self._send(json.dumps({"schema": 1, "error": text}).encode(), "application/json", status=status)
        else:
            self._send(f"{text}\n".encode("utf-8", "replace"), "text/plain; charset=utf-8", status=status)

    def _send(
        self, body: bytes, kind: str, headers: dict[str, str] | None = None, status: HTTPStatus = HTTPStatus.OK
    ) -> None:
        always = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "same-origin",  # without one, browsers post forms with the origin "null"
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-store",
        }
        self.send_response(status)
        for name, value in (always | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: file names are nobody's business."""


def _place(asked: dict[str, list[str]]) -> tuple[str, int]:
    """Which list, and how far down; the start of the first for anything odd."""
    state, skip = asked.get("state", [""])[-1], asked.get("skip", [""])[-1]
    known = state if state in query.STATES else next(iter(query.STATES))
    return known, int(skip) if re.fullmatch(r"[0-9]{1,9}", skip) else 0


def _same(found: str, expected: str) -> bool:
    return hmac.compare_digest(found.encode("utf-8", "replace"), expected.encode())
