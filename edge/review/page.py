"""The review page as HTML. Text in, text out, everything escaped; :func:`save_page` writes it to a file.

Never changes the log. The page has no address but its own: styles and script come from this folder.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from html import escape
from pathlib import Path

from edge import durable
from edge.errors import LogError, PhotoError
from edge.log import query, store
from edge.log.query import Row
from edge.review import preview

HERE = Path(__file__).parent
STYLE, SCRIPT = HERE / "page.css", HERE / "page.js"
PER_PAGE = 20
MOST_SAVED, MOST_FAILED = 60, 6
_SAVED_SIDE = 480
_DOCTYPE = "<!doctype html>"

_TITLES = {"unreviewed": "To review", "reviewed": "Reviewed", "failed": "Failed", "all": "All"}
_KEYS = (("a", "accept"), ("1 to 4", "another of its guesses"), ("c", "change"), ("j", "next"), ("k", "back"))


@dataclass(frozen=True)
class View:
    """One page of the list.

    Attributes:
        state: a key of :data:`edge.log.query.STATES`.
        skip: photos before this page.
        counts: photos per state.
        labels: what the change field offers.
        token: goes into every form; None for a page that is only looked at.
    """

    name: str
    state: str
    skip: int
    counts: dict[str, int]
    rows: Sequence[Row]
    labels: Sequence[str]
    token: str | None = None


def live(view: View) -> str:
    """The page that the server sends."""
    head = '<link rel="stylesheet" href="/page.css"><script src="/page.js" defer></script>'
    return _document(view, head, _tabs(view), lambda row: f"/photo/{row.id}/{(row.sha256 or '')[:16]}.jpg")


def save_page(database: Path, out: Path) -> int:
    """Write the page as one self-contained file, with small pictures in it, and without buttons.

    Args:
        database: the log.
        out: replaced where it is an HTML page; anything else there is refused, above all the log itself.

    Returns:
        How many files it shows: at most 60, the least certain first.

    Raises:
        LogError: the log cannot be read, or the file cannot be written or may not be replaced.
    """
    _check_replaceable(out, database)
    with closing(store.open_for_reading(database)) as connection:
        view = View(
            name=database.name,
            state="all",
            skip=0,
            counts=query.count_states(connection),
            rows=_saved_rows(lambda state, most: query.to_review(connection, state, most=most)),
            labels=(),
        )
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    style = STYLE.read_text("utf-8")
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>{style}</style>'
    try:
        durable.write_file(out, _document(view, head, _plain_tabs(view), _embedded).encode("utf-8"))
    except OSError as error:
        raise LogError(f"{out}: the page cannot be written: {error.strerror}.") from error
    return len(view.rows)


def _check_replaceable(out: Path, database: Path) -> None:
    try:
        if not out.exists() or not database.exists():
            return
        if out.samefile(database):
            raise LogError(f"{out} is the log itself. Name another file for the page.", code="target")
        start = b""
        if out.is_file():
            with out.open("rb") as file:
                start = file.read(len(_DOCTYPE))
    except OSError as error:
        raise LogError(f"{out}: the page cannot be written: {error.strerror}.") from error
    if start.lower() != _DOCTYPE.encode():
        raise LogError(f"{out} is there and is no HTML page. Name another file, or take it away first.", code="target")


def _saved_rows(find: Callable[[str, int], list[Row]]) -> list[Row]:
    """Mostly photos to look at; a few failures, so that they are not forgotten."""
    failed = [row for row in find("failed", MOST_FAILED) if row.photo_id is None]
    rows = find("unreviewed", MOST_SAVED - len(failed))
    rows += find("reviewed", MOST_SAVED - len(failed) - len(rows))
    return rows + failed


def _embedded(row: Row) -> str | None:
    try:
        return "data:image/jpeg;base64," + base64.b64encode(preview.jpeg(row, _SAVED_SIDE, quality=75)).decode()
    except PhotoError:
        return None


def _document(view: View, head: str, tabs: str, picture: Callable[[Row], str | None]) -> str:
    cards = "\n".join(_card(view, row, picture) for row in view.rows)
    empty = "" if view.rows else '<p class="nothing">Nothing here.</p>'
    return f"""{_DOCTYPE}
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Review of {escape(view.name)}</title>
{head}
<header>
<h1>Fieldmark <span>review of {escape(view.name)}</span></h1>
<nav>{tabs}</nav>
{_help(view)}
</header>
<main{"" if view.token else " class=saved"}>
{cards}{empty}
</main>
{_pager(view)}{_known(view)}
</html>
"""


def _tabs(view: View) -> str:
    return "".join(
        f'<a href="/?state={state}"{" aria-current=page" if state == view.state else ""}>'
        f'{title} <b data-count="{state}">{view.counts[state]}</b></a>'
        for state, title in _TITLES.items()
    )


def _plain_tabs(view: View) -> str:
    return "".join(f"<span>{title} <b>{view.counts[state]}</b></span>" for state, title in _TITLES.items())


def _help(view: View) -> str:
    if view.token is None:
        return "<p>Saved to look at. Open the log with <code>fieldmark review</code> to correct it.</p>"
    keys = ", ".join(f"<kbd>{key}</kbd> {what}" for key, what in _KEYS)
    return f"<p>Least certain first. Keys: {keys}.</p>"


def _card(view: View, row: Row, picture: Callable[[Row], str | None]) -> str:
    reviewed = " done" if row.reviewed else ""
    return f"""<article id="row-{row.id}" class="card{reviewed}" tabindex="-1">
{_figure(row, picture)}
<section>
<h2>{escape(row.label or "no detection")}{_said_by(row)}</h2>
{_bars(row)}
<dl>{_facts(row)}</dl>
{_forms(view, row)}
</section>
</article>"""


def _figure(row: Row, picture: Callable[[Row], str | None]) -> str:
    source = picture(row) if row.photo_id is not None else None
    if source is None:
        why = row.failure or "The original is not there any more, so there is nothing to see."
        return f'<figure class="none"><p>{escape(why)}</p></figure>'
    name = escape(row.path)
    return f'<figure><img src="{escape(source)}" alt="{name}" loading="lazy" decoding="async"></figure>'


def _said_by(row: Row) -> str:
    if row.person_label:
        model = f", the model said {escape(row.model_label)}" if row.model_label else ""
        return f" <small>by {escape(row.reviewed_by or '')}{model}</small>"
    if row.model_confidence is None:
        return ""
    return f" <small>{row.model_confidence:.0%} sure</small>"


def _bars(row: Row) -> str:
    lines = "".join(
        f'<li><span>{escape(label)}</span><meter min="0" max="1" value="{chance:.4f}"></meter><b>{chance:.0%}</b></li>'
        for label, chance in row.top
    )
    return f"<ol>{lines}</ol>" if lines else ""


def _facts(row: Row) -> str:
    clock = "" if row.taken_source == "exif" else f" (from the {row.taken_source})"
    facts: Iterable[tuple[str, str | None]] = (
        ("Taken", row.taken_local[:19].replace("T", " ") + clock),
        ("Station", row.station),
        ("File", row.path),
        ("Row", str(row.id)),
        ("Bundle", row.bundle and row.bundle + (" (development key)" if row.development else "")),
    )
    return "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts if value)


def _forms(view: View, row: Row) -> str:
    """Two forms, so that Enter in the field changes the label and does not press the first button."""
    if view.token is None or row.photo_id is None:
        return ""
    labels = [row.label] if row.label else []
    labels += [label for label, _ in row.top if label != row.label]
    buttons = "".join(_button(label, accept=label == row.label, key=key) for key, label in enumerate(labels))
    start = f'<form method="post" action="/review/{row.id}" autocomplete="off">{_hidden(view, row)}'
    return f"""{start}{buttons}</form>
{start}
<input name="other" list="labels" maxlength="100" placeholder="another label" aria-label="another label" data-key="c">
<input name="count" type="number" min="1" max="9999" value="1" aria-label="how many" title="how many">
<button>Change</button>
</form>
<output></output>"""


def _button(label: str, *, accept: bool, key: int) -> str:
    kind = ' class="accept" data-key="a">Accept ' if accept else f' data-key="{key}">'
    return f'<button name="label" value="{escape(label)}"{kind}{escape(label)}</button>'


def _hidden(view: View, row: Row) -> str:
    values = {"token": view.token or "", "sha256": row.sha256 or "", "state": view.state, "skip": str(view.skip)}
    return "".join(f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in values.items())


def _pager(view: View) -> str:
    if view.token is None:
        return ""
    links = []
    if view.skip:
        links.append(f'<a href="/?state={view.state}&amp;skip={max(0, view.skip - PER_PAGE)}">Back</a>')
    if len(view.rows) == PER_PAGE:
        skip = view.skip + PER_PAGE
        links.append(f'<a href="/?state={view.state}&amp;skip={skip}" data-next>Next {PER_PAGE}</a>')
    return f"<footer>{' '.join(links)}</footer>" if links else ""


def _known(view: View) -> str:
    options = "".join(f'<option value="{escape(label)}">' for label in view.labels)
    return f'<datalist id="labels">{options}</datalist>' if options else ""
