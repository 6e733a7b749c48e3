"""Boxes from a detector or an annotator: which belong to which photo, and which count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.errors import DataError
from tests import capabilities
from trainer.dataset import boxes, readers
from trainer.dataset.found import DataSet
from trainer.dataset.samples import Box, Sample

CATEGORIES = {"1": "animal", "2": "person"}
BOX = [0.1, 0.2, 0.3, 0.4]


def detection(conf: Any = 0.9, category: Any = "1", bbox: Any = BOX) -> dict[str, Any]:
    return {"category": category, "conf": conf, "bbox": bbox}


def detected(folder: Path, images: Any, categories: Any = None) -> Path:
    value = {"info": {"format_version": "1.4"}, "detection_categories": categories or CATEGORIES, "images": images}
    path = folder / "md.json"
    path.write_text(json.dumps(value))
    return path


def data_set(*names: str) -> DataSet:
    return DataSet([Sample(Path(name), name, "fox") for name in names], [], ["before"])


def test_animals_above_the_confidence_become_boxes(tmp_path: Path) -> None:
    images = [
        {"file": "a.jpg", "detections": [detection(0.2), detection(0.19), detection(0.9, "2")]},
        {"file": "b.jpg", "detections": [detection(0.1)]},
        {"file": "c.jpg", "detections": None, "failure": "image access failure"},
        {"file": "d.jpg", "detections": []},
    ]
    found = boxes.attach(data_set("a.jpg", "b.jpg", "c.jpg", "e.jpg"), detected(tmp_path, images))
    assert [each.boxes for each in found.samples] == [(Box(0.1, 0.2, 0.3, 0.4),), (), (), ()]
    assert [note.rpartition("md.json: ")[2] for note in found.notes] == [
        "before",
        "boxes for 1 of 4 photos.",
        "it knows 2 photos without a box that counts.",
        "it does not know 1 photos, and 1 of its entries are none of these photos.",
    ]


def test_the_confidence_can_be_chosen(tmp_path: Path) -> None:
    path = detected(tmp_path, [{"file": "a.jpg", "detections": [detection(0.5), detection(0.7)]}])
    for confidence, count in ((0.5, 2), (0.6, 1), (0.8, 0)):
        assert len(boxes.attach(data_set("a.jpg"), path, confidence=confidence).samples[0].boxes) == count


def test_coco_boxes_are_taken_and_an_empty_frame_has_none(tmp_path: Path) -> None:
    value = {
        "images": [{"id": 1, "file_name": "in\\a.jpg", "width": 100, "height": 50}, {"id": 2, "file_name": "b.jpg"}],
        "categories": [{"id": 0, "name": "empty"}, {"id": 1, "name": "animal"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20]},
            {"id": 2, "image_id": 2, "category_id": 0, "bbox_relative": [0, 0, 1, 1]},
        ],
    }
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(value))
    found = boxes.attach(data_set("in/a.jpg", "b.jpg"), path)
    assert [each.boxes for each in found.samples] == [(Box(0.1, 0.2, 0.2, 0.4),), ()]


def test_readers_put_boxes_beside_any_data_set(tmp_path: Path) -> None:
    (tmp_path / "fox").mkdir()
    (tmp_path / "fox/a.jpg").write_bytes(b"")
    path = detected(tmp_path, [{"file": "a.jpg", "detections": [detection(0.5)]}])
    assert readers.scan(tmp_path, boxes=path).samples[0].boxes == (Box(0.1, 0.2, 0.3, 0.4),)
    assert readers.scan(tmp_path, boxes=path, box_confidence=0.6).samples[0].boxes == ()
    assert readers.scan(tmp_path).samples[0].boxes == ()


# --- which entry belongs to which photo


@pytest.mark.parametrize(
    ("samples", "known", "matched"),
    [
        pytest.param(["A/1.jpg"], ["A/1.jpg"], {"A/1.jpg": "A/1.jpg"}, id="the same path"),
        pytest.param(["A/1.jpg"], ["photos/A/1.jpg"], {"A/1.jpg": "photos/A/1.jpg"}, id="run on the folder above"),
        pytest.param(["fox/A/1.jpg"], ["A/1.jpg"], {"fox/A/1.jpg": "A/1.jpg"}, id="run on a folder below"),
        pytest.param(["fox/1.jpg"], ["A/1.jpg"], {"fox/1.jpg": "A/1.jpg"}, id="sorted into classes since"),
        pytest.param(["A/1.jpg", "B/1.jpg"], ["B/1.jpg"], {"B/1.jpg": "B/1.jpg"}, id="no box of another station"),
        pytest.param(["A/1.jpg", "B/1.jpg"], ["1.jpg"], {}, id="a name that two photos have"),
        pytest.param(["1.jpg"], ["A/1.jpg", "B/1.jpg"], {}, id="a name that two entries have"),
        pytest.param(
            ["fox/A/1.jpg", "fox/B/1.jpg"], ["x/A/1.jpg", "x/B/1.jpg"],
            {"fox/A/1.jpg": "x/A/1.jpg", "fox/B/1.jpg": "x/B/1.jpg"}, id="a name that all stations have",
        ),
        pytest.param(["1.jpg"], ["11.jpg", "x1.jpg"], {}, id="only whole parts of a path"),
    ],
)  # fmt: skip
def test_an_entry_belongs_to_the_photo_with_the_same_end_of_path(
    samples: list[str], known: list[str], matched: dict[str, str]
) -> None:
    assert boxes.match(samples, known) == matched


paths = st.lists(st.lists(st.sampled_from("ab1"), min_size=1, max_size=3).map("/".join), max_size=6, unique=True)


@given(paths, paths)
def test_no_entry_belongs_to_two_photos_and_none_to_a_photo_of_another_name(
    samples: list[str], known: list[str]
) -> None:
    matched = boxes.match(samples, known)
    assert len(set(matched.values())) == len(matched)
    assert set(samples) & set(known) <= set(matched)
    for sample, entry in matched.items():
        assert sample.rpartition("/")[2] == entry.rpartition("/")[2]


# --- refused


@pytest.mark.parametrize(
    ("images", "categories", "says"),
    [
        pytest.param(
            [{"file": "x.jpg", "detections": []}], None, "boxes for 1 photos, none of which", id="of other photos"
        ),
        pytest.param([{"file": "a.jpg"}] * 2, None, "the file 'a.jpg' twice", id="a file twice"),
        pytest.param([{"detections": []}], None, r"images\[0\]: file is missing", id="no file"),
        pytest.param({}, None, "images is an object, expected a list", id="images of no list"),
        pytest.param(
            [{"file": "a.jpg", "detections": 1}], None, "'a.jpg': detections is 1, expected a list", id="a number"
        ),
        pytest.param([], {"1": 1}, "detection_categories: 1 is 1, expected text", id="a category of no text"),
        pytest.param([], [1], "detection_categories is a list, expected an object", id="a list of categories"),
        *(
            pytest.param([{"file": "a.jpg", "detections": [one]}], None, rf"detections\[0\]: {says}", id=id_)
            for one, says, id_ in [
                (detection(1.5), "conf is 1.5, expected a number from 0 to 1", "more than certain"),
                (detection("0.9"), "conf is '0.9'", "a confidence of text"),
                (detection(None), "conf is missing", "no confidence"),
                (detection(0.9, None), "category is missing", "no category"),
                (detection(bbox=[1, 2]), "bbox is a list, expected four numbers", "a short box"),
                (detection(bbox=None), "bbox is missing", "no box"),
                (
                    detection(bbox=[10, 20, 300, 200]),
                    "bbox is a list, expected shares of the photo from 0 to 1",
                    "pixels",
                ),
            ]
        ),
    ],
)
def test_wrong_detections_are_refused_with_the_file_they_belong_to(
    tmp_path: Path, images: Any, categories: Any, says: str
) -> None:
    with pytest.raises(DataError, match=says):
        boxes.attach(data_set("a.jpg"), detected(tmp_path, images, categories))


def test_what_is_neither_detections_nor_coco_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"predictions": []}')
    with pytest.raises(DataError, match="holds 'predictions', expected MegaDetector results"):
        boxes.attach(data_set("a.jpg"), path)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just("a.jpg"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
detections = st.lists(
    st.fixed_dictionaries({"category": values, "conf": values | st.floats(0, 1), "bbox": values}), max_size=2
)


@example({"detection_categories": {"\n": None}, "images": []})
@given(
    st.fixed_dictionaries(
        {
            "detection_categories": values | st.just(CATEGORIES),
            "images": values
            | st.lists(st.fixed_dictionaries({"file": values, "detections": values | detections}), max_size=3),
        }
    )
)
def test_any_json_is_boxes_or_a_data_error(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any-boxes.json"
    path.write_text(json.dumps(value))
    message = ""
    try:
        boxes.attach(data_set("a.jpg"), path)
    except DataError as error:
        message = str(error)
    assert "\n" not in message


@pytest.mark.needs("real_photos")
def test_a_real_detector_s_boxes_belong_to_real_photos() -> None:
    folder = capabilities.real_photos() / "ena24_small"
    found = readers.scan(folder / "labels.csv", boxes=folder / "md_annotations.json")
    assert [len(each.boxes) for each in found.samples] == [1] * 21
    assert found.notes == [f"{folder / 'md_annotations.json'}: boxes for 21 of 21 photos."]
