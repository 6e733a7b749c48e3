"""The report as a page: what it says, that nothing from outside becomes markup, and that a browser is content."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge.errors import DataError
from tests.edge.review.devtools import Chromium
from tests.trainer.answers import answered
from tests.trainer.report.reports import LABELS, answers, epochs, evaluation, report
from trainer.contact_sheet import Tile
from trainer.dataset.samples import Unreadable
from trainer.evaluate import Part, evaluate
from trainer.report import page
from trainer.report.record import OUT_OF_FOLD, Answer, Gallery, Report, Stage, galleries

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "link", "img", "br"}


class Elements(HTMLParser):
    """Every element with its attributes, all text, and what was opened but not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.text += " " * (tag in ("td", "th", "li", "span", "dt", "text"))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def whole() -> Elements:
    return Elements(page.html(report()))


def words(text: str) -> str:
    return " ".join(text.split())


# --- what it says


def test_the_headline_is_a_sentence_about_the_hardest_question() -> None:
    figures = replace(evaluation(answers()).figures, accuracy=0.931, accuracy_interval=(0.884, 0.957))
    found = page.headline(Answer("new station", replace(evaluation(answers()), figures=figures)))
    assert found == "Of 100 photos from stations it has never seen, 93 are named right (between 88 and 96)."


@pytest.mark.parametrize(("share", "shown"), [(1.0, 100), (0.9999, 99), (0.995, 99), (0.5, 50), (0.001, 1), (0.0, 0)])
def test_all_and_none_are_said_only_of_all_and_none(share: float, shown: int) -> None:
    assert page.of_100(share) == shown


def test_every_part_of_the_report_is_there(whole: Elements) -> None:
    text = words(whole.text)
    for said in (
        "beech wood", "1 May 2024, 06:12 UTC+02:00", "EfficientNet-Lite0 at 320 × 320", "Before you trust it",
        "from stations it has never seen", "animals missed", "empty photos removed", "Label by label",
        "What is taken for what", "by light", "by source", "by station", "Confidence against truth",
        "Answering less, but better", "Worst mistakes", "Labels to look at again", "Loss", "Accuracy", "last blocks",
        "2.4 min", "2 processor cores, no GPU", "the photo is truncated", "fine-tuned model",
        "it learned once more from all 120 photos", "fieldmark train --config runs/beech/train.toml",
        "head = 256, dropout:0.5", "not set", "probe 91.0 %, fine-tuned 95.0 %", "At most 1 %".lower(),
    ):  # fmt: skip
        assert said in text, said
    assert whole.open == []


def test_details_are_of_the_out_of_fold_answers_first(whole: Elements) -> None:
    text = words(whole.text)
    assert text.index("In detail: 120 photos that it did not learn from") < text.index("In detail: 60 photos from")


def test_a_random_split_is_never_called_a_test() -> None:
    some = replace(
        report(), answers=[Answer("random", evaluation(answers()), warning="nothing is known of bursts", is_test=False)]
    )
    text = words(Elements(page.html(some)).text)
    assert "Random: nothing is known of bursts" in text
    assert "This is no test" in text
    assert "random, no test" in text
    assert "test" not in page.headline(some.answers[0])


def test_without_the_label_empty_nothing_is_said_of_removing_photos() -> None:
    labels = ("deer", "fox", "hog")
    text = words(Elements(page.html(report(labels))).text)
    assert "does not know the label empty" in text
    assert "Empty photos" not in text
    assert "empty photos removed" not in text


def test_a_report_of_a_mere_measurement_has_no_training_in_it() -> None:
    found = evaluation(answers(40))
    bare = Report("fox 7", "not a date", 40, dict.fromkeys(LABELS, 10), [Answer("as given", found)])
    text = words(Elements(page.html(bare)).text)
    assert "not a date" in text
    for absent in ("How it learned", "The model in this folder", "To do it again", "could not be used", "Worst"):
        assert absent not in text


def test_a_report_without_answers_still_shows_the_photos() -> None:
    text = words(Elements(page.html(Report("nothing yet", "2024-05-01", 3, {"deer": 3}, []))).text)
    assert "deer 3" in text
    assert "In short" not in text


@pytest.mark.parametrize("count", [2, 12, 60])
def test_any_number_of_labels_fits(count: int) -> None:
    found = Elements(page.html(report([f"species {i}" for i in range(count)])))
    assert found.open == []
    assert words(found.text).count("species 1 ") > 1


def test_of_many_unreadable_files_the_first_50_are_listed() -> None:
    lost = [Unreadable(f"lost-{i:03d}.jpg", "deer", "truncated", "cut") for i in range(80)]
    text = Elements(page.html(replace(report(), unreadable=lost))).text
    assert "lost-049.jpg" in text
    assert "lost-050.jpg" not in text
    assert "80 files that could not be used" in words(text)


def test_animals_called_empty_are_shown_apart() -> None:
    some = answered(
        LABELS,
        [("deer", (0.1, 0.8, 0.05, 0.05)), ("deer", (0.2, 0.6, 0.1, 0.1)), ("person", (0.0001, 0.9, 0.05, 0.0499))],
    )
    found = evaluate(some, temperature=1.0, thresholds=[0.5, 0.7, 0.5, 0.5])
    lost, worst, _ = galleries(found, lambda i: np.full((9, 9, 3), i, np.uint8))
    assert [tile.lines[-1] for tile in lost.tiles] == ["0.jpg"]
    assert [(tile.title, int(np.asarray(tile.picture)[0, 0, 0])) for tile in worst.tiles] == [
        ("person, called empty", 2), ("deer, called empty", 0), ("deer, called empty", 1),
    ]  # fmt: skip
    assert found.figures.animals_called_empty == len(lost.tiles)


# --- warnings


def part(name: str, share: float, low: float, high: float) -> Part:
    return Part(name, 100, round(share * 100), share, (low, high))


def test_sources_that_differ_by_more_than_chance_are_a_warning() -> None:
    uneven = (part("web", 0.98, 0.95, 0.99), part("camera", 0.85, 0.78, 0.9))
    even = (part("web", 0.92, 0.87, 0.96), part("camera", 0.88, 0.81, 0.93))
    for parts, warned in ((uneven, True), (even, False), (uneven[:1], False)):
        some = replace(report(), answers=[Answer(OUT_OF_FOLD, replace(evaluation(answers()), by_source=parts))])
        found = [each for each in page.warnings(some) if "telling sources apart" in each]
        assert bool(found) is warned
    assert (
        "98 % right for web, 85 % for camera"
        in page.warnings(
            replace(report(), answers=[Answer(OUT_OF_FOLD, replace(evaluation(answers()), by_source=uneven))])
        )[0]
    )


def test_few_photos_and_few_events_are_warnings() -> None:
    found = " ".join(page.warnings(replace(report(), answers=[Answer("new station", evaluation(answers(20)))])))
    assert "New station: only 20 photos" in found
    assert "Fewer than 10 photos of deer, empty, fox, person" in found
    assert "Only 10 events with animals" in found
    assert "1 of 121 files could not be used" in found


def test_a_label_that_nobody_asked_about_is_a_warning() -> None:
    some = answers(80).take(np.arange(80) % 4 != 3)
    found = " ".join(page.warnings(replace(report(), answers=[Answer("new station", evaluation(some))])))
    assert "No photo of person was asked about" in found


# --- one file, small, quick


def test_the_page_needs_nothing_but_itself(whole: Elements) -> None:
    assert {tag for tag, _ in whole.found}.isdisjoint({"script", "form", "iframe", "object", "a", "base"})
    addresses = [value for _, each in whole.found for name in ("src", "href") if (value := each.get(name))]
    assert len(addresses) >= 5
    assert all(address.startswith("data:") for address in addresses)
    policies = [each.get("content") for each in whole.named("meta") if each.get("http-equiv")]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert "url(" not in (ROOT / "trainer/report/page.css").read_text("utf-8")


@pytest.mark.parametrize(("shape", "size"), [((600, 800), (200, 150)), ((96, 96), (96, 96))])
def test_pictures_are_small(shape: tuple[int, int], size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    some = replace(report(), galleries=[Gallery("", "", [Tile(pixels, "a")])])
    [source] = [str(each["src"]) for each in Elements(page.html(some)).named("img")]
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
        assert (image.format, image.size) == ("JPEG", size)


def test_a_page_with_40_photos_is_quick_and_below_3_mb(tmp_path: Path) -> None:
    """Noise compresses worse than any photo."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 320, 320, 3), dtype=np.uint8)
    some = replace(report(), galleries=[Gallery("all", "", [Tile(each, "a") for each in pixels])])
    start_s = time.monotonic()
    page.write(tmp_path, some)
    assert time.monotonic() - start_s < 2
    assert (tmp_path / page.PAGE).stat().st_size < 3e6


def test_writing_needs_no_network_and_no_plotting_library() -> None:
    code = "import sys, trainer.report.page; sys.exit(bool({'keras', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none/report\.html cannot be written"):
        page.write(tmp_path / "none", report())


# --- JSON


def strict(text: str) -> Any:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_the_same_numbers_are_in_the_json_file(tmp_path: Path) -> None:
    some = report()
    page.write(tmp_path, some)
    found = strict((tmp_path / page.DATA).read_text("utf-8"))
    assert found["schema"] == 1
    assert [each["question"] for each in found["answers"]] == ["new station", OUT_OF_FOLD]
    assert found["answers"][1]["evaluation"]["figures"]["accuracy"] == some.answers[1].evaluation.figures.accuracy
    assert found["thresholds"]["chosen"]["animals"]["events"] == 60
    assert found["stages"][1] == {"name": "last blocks", "best": 5, "epochs": [vars(each) for each in epochs(6)]}
    assert found["settings"] == {"side": 320, "head": ["256", "dropout:0.5"], "cut": None, "refit": True}
    assert "galleries" not in found


def test_what_is_not_finite_or_of_numpy_is_json_all_the_same(tmp_path: Path) -> None:
    broken = [replace(epoch, loss=float("nan"), validation_loss=float("inf")) for epoch in epochs(2)]
    some = replace(
        report(), stages=[Stage("all", broken)], validation={"probe": float("nan")}, seconds={"a": np.float64(2.5)},  # type: ignore[dict-item]
        settings={"side": np.int64(3), "data": tmp_path},
    )  # fmt: skip
    page.write(tmp_path, some)
    found = strict((tmp_path / page.DATA).read_text("utf-8"))
    assert (found["stages"][0]["epochs"][0]["loss"], found["validation"]["probe"]) == (None, None)
    assert (found["seconds"], found["settings"]) == ({"a": 2.5}, {"side": 3, "data": str(tmp_path)})


# --- what comes from outside


def hostile() -> Report:
    labels = (HOSTILE, "empty", 'fox" onload="alert(2)', "person")
    return replace(
        report(labels, name=f"{HOSTILE}'\"&", title=HOSTILE),
        warnings=[HOSTILE],
        settings={HOSTILE: HOSTILE},
        changed={HOSTILE: HOSTILE},
        seconds={HOSTILE: 1.0},
        device=HOSTILE,
        command=HOSTILE,
        model=HOSTILE,
        created=HOSTILE,
        validation={HOSTILE: 0.5},
        stages=[Stage(HOSTILE, epochs(2)), Stage(HOSTILE, epochs(2))],
    )


def test_what_is_html_in_a_label_or_a_name_is_text() -> None:
    found = Elements(page.html(hostile()))
    assert "script" not in {tag for tag, _ in found.found}
    assert not [each for _, each in found.found if "onload" in each]
    assert found.text.count(HOSTILE) > 20
    assert found.open == []


def test_a_file_name_that_is_not_utf_8_can_be_written(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    page.write(tmp_path, report(name=name))
    assert f"{name}/cut.jpg" == strict((tmp_path / page.DATA).read_text("utf-8"))["unreadable"][0]["name"]
    (tmp_path / page.PAGE).read_text("utf-8")


# --- in a browser


class Watched(Chromium):
    """A browser that remembers what it was told of: requests, errors, and lines on the console."""

    def __init__(self, profile: Path) -> None:
        super().__init__(profile)
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> Watched:
        super().__enter__()
        for domain in ("Log", "Runtime", "Network", "Page"):
            self._send(f"{domain}.enable")
        return self

    def _receive(self) -> dict[str, Any]:
        message = super()._receive()
        if "method" in message:
            self.events.append(message)
        return message

    def complaints(self) -> list[Any]:
        wrong = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [event["params"] for event in self.events if event["method"] in wrong]

    def requests(self) -> list[str]:
        sent = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent]

    def at_width(self, width: int) -> None:
        self._send("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)


@pytest.mark.needs("browser")
def test_a_browser_loads_it_without_a_request_or_a_complaint(tmp_path: Path) -> None:
    page.write(tmp_path, hostile())
    with Watched(tmp_path / "profile") as browser:
        browser.open((tmp_path / page.PAGE).as_uri())
        assert browser.value("document.querySelectorAll('svg').length") > 10
        assert browser.value("[...document.images].every(image => image.naturalWidth > 0)")
        assert browser.value("document.scripts.length") == 0
        assert browser.value("getComputedStyle(document.querySelector('h1')).color") == "rgb(47, 107, 58)"
        assert browser.complaints() == []
        assert [url[:5] for url in browser.requests()] == ["file:"] + ["data:"] * (len(browser.requests()) - 1)


@pytest.mark.needs("browser")
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_never_scrolls_sideways(tmp_path: Path, width: int) -> None:
    """Wide tables scroll inside the page."""
    labels = [f"Species{'y' * 30}{i}" for i in range(30)]
    page.write(tmp_path, report(labels, name="a" * 90))
    with Watched(tmp_path / "profile") as browser:
        browser.at_width(width)
        browser.open((tmp_path / page.PAGE).as_uri())
        browser.value("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert browser.value("document.documentElement.scrollWidth") <= width
