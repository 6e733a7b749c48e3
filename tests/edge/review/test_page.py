from __future__ import annotations

import base64
import io
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from edge.errors import LogError
from edge.log import store
from edge.review import page
from tests import capabilities
from tests.edge.review.conftest import Reviewed
from tests.fakes.camera import jpeg, put


class Elements(HTMLParser):
    """Every element with its attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def saved(log: Reviewed, tmp_path: Path) -> Elements:
    assert page.save_page(log.database, tmp_path / "page.html") == 5  # the copy is not shown twice
    return Elements((tmp_path / "page.html").read_text("utf-8"))


def test_saved_page_needs_nothing_but_itself(saved: Elements) -> None:
    assert {tag for tag, _ in saved.found}.isdisjoint({"script", "link", "form", "iframe"})
    addresses = [value for _, attributes in saved.found for name in ("src", "href") if (value := attributes.get(name))]
    assert len(addresses) == 4
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    policies = [each.get("content") for each in saved.named("meta") if each.get("http-equiv")]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_saved_page_shows_the_least_certain_first_and_the_failed_last(saved: Elements) -> None:
    names = [str(each["alt"]) for each in saved.named("img")]
    assert names[0] == "3-empty.jpg"
    assert re.findall(r"row-(\d)", " ".join(str(each["id"]) for each in saved.named("article")))[-1] == "5"
    assert "the photo is truncated" in saved.text


def test_saved_pictures_are_small(saved: Elements) -> None:
    for attributes in saved.named("img"):
        content = base64.b64decode(str(attributes["src"]).partition(",")[2])
        assert max(Image.open(io.BytesIO(content)).size) <= 480


def test_what_is_html_in_a_name_or_a_station_is_text(saved: Elements) -> None:
    assert "6-<b>\"&'caf%E9.jpg" in saved.text
    assert "<i>beech</i>" in saved.text
    assert "i" not in {tag for tag, _ in saved.found}


def test_person_and_model_are_both_shown(log: Reviewed, tmp_path: Path) -> None:
    with store.open_for_writing(log.database) as opened:
        [sha256] = opened._db.execute("SELECT sha256 FROM photo WHERE id = 1").fetchone()
        opened.add_review(sha256, [store.Observation("roe <deer>")], "Ada & Co")
    page.save_page(log.database, tmp_path / "page.html")
    shown = Elements((tmp_path / "page.html").read_text("utf-8"))
    assert "roe <deer> by Ada & Co, the model said deer" in shown.text


def test_photo_that_is_gone_leaves_its_row(log: Reviewed, tmp_path: Path) -> None:
    (log.photos / "3-empty.jpg").unlink()
    assert page.save_page(log.database, tmp_path / "page.html") == 5
    assert "not there any more" in (tmp_path / "page.html").read_text("utf-8")


def test_at_most_sixty_photos_are_saved(log: Reviewed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_SAVED", 3)
    assert page.save_page(log.database, tmp_path / "page.html") == 3


def test_empty_log_is_a_page_too(tmp_path: Path) -> None:
    store.open_for_writing(tmp_path / "log.db").close()
    assert page.save_page(tmp_path / "log.db", tmp_path / "page.html") == 0
    assert "Nothing here" in (tmp_path / "page.html").read_text("utf-8")


def test_page_that_cannot_be_written_says_so(log: Reviewed, tmp_path: Path) -> None:
    with pytest.raises(LogError, match="cannot be written"):
        page.save_page(log.database, tmp_path / "nowhere" / "page.html")


def test_page_never_replaces_what_is_no_page(log: Reviewed, tmp_path: Path) -> None:
    link, notes = tmp_path / "link.html", tmp_path / "notes.html"
    link.symlink_to(log.database)
    notes.write_text("mine")
    before = log.database.read_bytes()
    for out in (log.database, link, notes, tmp_path / "photos"):
        with pytest.raises(LogError) as caught:
            page.save_page(log.database, out)
        assert caught.value.code == "target"
    assert (log.database.read_bytes(), notes.read_text()) == (before, "mine")
    assert link.is_symlink()


def test_page_replaces_an_earlier_page(log: Reviewed, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert page.save_page(log.database, out) == page.save_page(log.database, out)


def test_no_log_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="there is no detection log"):
        page.save_page(tmp_path / "log.db", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.needs("browser")
def test_browser_draws_the_saved_pictures(log: Reviewed, tmp_path: Path) -> None:
    put(log.photos / "7.jpg", jpeg(7))
    out = tmp_path / "page.html"
    page.save_page(log.database, out)
    picture = tmp_path / "page.png"
    command = capabilities.browser_command(
        f"--screenshot={picture}", "--window-size=900,1200", out.as_uri(), profile=tmp_path / "profile"
    )
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert picture.is_file(), done.stderr
    shades = Image.open(picture).convert("L").histogram()
    assert sum(shades[:16]) > 5_000  # the dark photo of a deer
