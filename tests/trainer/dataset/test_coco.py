"""COCO JSON, with and without the camera-trap fields, as archives publish it and as an attacker would."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.errors import DataError
from tests import capabilities
from trainer.dataset import coco, readers
from trainer.dataset.found import DataSet
from trainer.dataset.samples import Box, Sample

CATEGORIES = [
    {"id": 0, "name": "Empty"}, {"id": 1, "name": "fox"}, {"id": 2, "name": "deer"}, {"id": 3, "name": "unknown"},
]  # fmt: skip


def archive(
    folder: Path, images: list[Any], annotations: list[Any], categories: Any = None, *, there: bool = True
) -> Path:
    """A COCO file and, unless said otherwise, its photos."""
    value = {"images": images, "annotations": annotations, "categories": categories or CATEGORIES}
    path = folder / "coco.json"
    path.write_text(json.dumps(value))
    for image in images if there else []:
        photo = folder / image["file_name"]
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(b"")
    return path


def image(i: Any, **more: Any) -> dict[str, Any]:
    return {"id": i, "file_name": f"{i}.jpg", **more}


def said(i: Any, category: int, **more: Any) -> dict[str, Any]:
    return {"id": f"a{i}-{category}", "image_id": i, "category_id": category, **more}


def codes(found: DataSet) -> dict[str, str]:
    return {each.name: each.code for each in found.left_out}


def test_the_camera_trap_fields_become_station_sequence_and_time(tmp_path: Path) -> None:
    images = [
        image("x", location="A7", seq_id="s1", datetime="2022-12-31 09:52:50", frame_num=0, corrupt=False),
        image("y", location=26, seq_id=None, date_captured="2013:10:04 13:31:53"),
    ]
    path = archive(tmp_path, images, [said("x", 1), said("y", 0)])
    assert readers.scan(path) == DataSet(
        [
            Sample(tmp_path / "x.jpg", "x.jpg", "fox", "A7", "s1", "2022-12-31T09:52:50"),
            Sample(tmp_path / "y.jpg", "y.jpg", "empty", "26", None, "2013-10-04T13:31:53"),
        ],
        [],
    )


def test_photos_may_lie_in_an_images_folder(tmp_path: Path) -> None:
    path = archive(tmp_path, [image(1), image(2)], [said(1, 1), said(2, 2)])
    (tmp_path / "images").mkdir()
    (tmp_path / "1.jpg").rename(tmp_path / "images" / "1.jpg")
    assert [each.name for each in readers.read(path)] == ["images/1.jpg", "2.jpg"]


def test_names_written_on_windows_are_understood(tmp_path: Path) -> None:
    archive(tmp_path, [{"id": 1, "file_name": "in/1.jpg"}], [])
    path = archive(tmp_path, [{"id": 1, "file_name": "in\\1.jpg"}], [said(1, 1)], there=False)
    assert readers.read(path)[0].path == tmp_path / "in/1.jpg"


def test_identifiers_may_be_numbers_here_and_text_there(tmp_path: Path) -> None:
    path = archive(tmp_path, [image(7)], [said("7", 1)])
    assert readers.read(path)[0].label == "fox"


def test_a_whole_number_may_have_a_point_as_pandas_writes_it(tmp_path: Path) -> None:
    path = archive(tmp_path, [image(7, seq_id=1.0, location=2.0), image(8, seq_id=None)], [said(7.0, 1), said(8.0, 2)])
    found = readers.read(path)
    assert [(each.station, each.sequence) for each in found] == [("2", "1"), (None, None)]
    path = archive(tmp_path, [image(7, seq_id=1.5)], [said(7, 1)])
    with pytest.raises(DataError, match=r"seq_id is 1\.5, expected a whole number"):
        readers.read(path)


def test_boxes_in_pixels_and_in_shares_are_one_thing(tmp_path: Path) -> None:
    images = [image(1, width=200, height=100), image(2)]
    boxes = [
        said(1, 1, bbox=[20, 10, 50, 40]),
        said(1, 1, bbox=[150, -25, 100, 50]),
        said(2, 1, bbox_relative=[0, 0, 1, 0.5]),
    ]
    found = readers.read(archive(tmp_path, images, boxes))
    assert found[0].boxes == (Box(0.1, 0.1, 0.25, 0.4), Box(0.75, 0.0, 0.25, 0.25))
    assert found[1].boxes == (Box(0.0, 0.0, 1.0, 0.5),)


def test_boxes_of_no_use_are_counted_and_cost_no_photo(tmp_path: Path) -> None:
    images = [image(1), image(2, width=100, height=100)]
    path = archive(
        tmp_path, images, [said(1, 1, bbox=[1, 1, 2, 2]), said(2, 1, bbox=[200, 0, 5, 5]), said(2, 1, bbox=[])]
    )
    found = readers.scan(path)
    assert [each.boxes for each in found.samples] == [(), ()]
    assert [note.partition(": ")[2] for note in found.notes] == [
        "1 boxes are in pixels of an image whose width and height are not given.",
        "1 boxes lie outside their image or have no size.",
    ]


def test_photos_that_are_of_no_one_class_are_left_out_with_the_reason(tmp_path: Path) -> None:
    images = [image(1), image(2), image(3), image(4, corrupt=True), image(5), image(6)]
    annotations = [said(1, 1), said(2, 1), said(2, 2), said(4, 1), said(5, 3), said(6, 1), said(6, 3)]
    found = readers.scan(archive(tmp_path, images, annotations))
    assert [(each.name, each.label) for each in found.samples] == [("1.jpg", "fox"), ("6.jpg", "fox")]
    assert codes(found) == {"2.jpg": "two labels", "3.jpg": "no label", "4.jpg": "corrupt", "5.jpg": "no label"}
    assert "(deer, fox)" in found.left_out[0].reason


def test_missing_photos_are_left_out_and_counted(tmp_path: Path) -> None:
    path = archive(tmp_path, [image(1), image(2)], [said(1, 1), said(2, 2)])
    (tmp_path / "2.jpg").unlink()
    found = readers.scan(path)
    assert [(each.name, each.label, each.code) for each in found.left_out] == [("2.jpg", "deer", "missing")]
    assert "1 of 2 photos are named there but are not on this machine" in found.notes[0]


def test_a_file_of_which_every_photo_is_missing_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, [image(1), image(2)], [said(1, 1), said(2, 2)], there=False)
    with pytest.raises(DataError, match=r"names 2 photos and none of them is there, 1\.jpg for one.*images"):
        readers.scan(path)


def test_a_word_about_the_image_goes_before_one_about_its_sequence(tmp_path: Path) -> None:
    whole = {"sequence_level_annotation": True}
    path = archive(tmp_path, [image(1), image(2)], [said(1, 0), said(1, 1, **whole), said(2, 1, **whole)])
    found = readers.scan(path)
    assert [each.label for each in found.samples] == ["empty", "fox"]
    assert "1 photos have only the label of their whole sequence; some will be wrong" in found.notes[0]


def test_labels_of_whole_sequences_can_be_dropped(tmp_path: Path) -> None:
    path = archive(tmp_path, [image(1), image(2)], [said(1, 0), said(2, 1, sequence_level_annotation=True)])
    found = readers.scan(path, drop_sequence_labels=True)
    assert ([each.name for each in found.samples], codes(found)) == (["1.jpg"], {"2.jpg": "no label"})
    assert "they are left out" in found.notes[0]


def test_times_that_are_none_and_annotations_of_nothing_are_counted(tmp_path: Path) -> None:
    path = archive(
        tmp_path, [image(1, datetime="Saturday"), image(2, datetime="")], [said(1, 1), said(2, 1), said(9, 1)]
    )
    found = readers.scan(path)
    assert [each.taken for each in found.samples] == [None, None]
    assert [note.partition(": ")[2] for note in found.notes] == [
        "1 annotations name an image that is not listed.",
        "the time of 1 photos is not one such as 2022-12-31 09:52:50; it is unused.",
    ]


@pytest.mark.parametrize(
    ("images", "annotations", "categories", "says"),
    [
        pytest.param([{"id": 1}], [], None, "image 1: file_name is missing, expected text", id="no file name"),
        pytest.param([{"file_name": "a"}], [], None, r"images\[0\]: id is missing", id="no image id"),
        pytest.param([7], [], None, r"images\[0\] is a number, expected an object", id="an image that is a number"),
        pytest.param([image(1), image("1")], [], None, "image 1 is there twice", id="an image twice"),
        pytest.param(
            [image(1)], [said(1, 9)], None, "annotation a1-9: category_id is 9, expected the id", id="no category"
        ),
        pytest.param([image(1)], [{"category_id": 1}], None, "annotation number 1: image_id is missing", id="no image"),
        pytest.param(
            [image(1)], [said(1, 1, bbox=[1, 2, 3])], None, "a1-1: bbox is a list, expected four", id="a short box"
        ),
        pytest.param([image(1)], [said(1, 1, bbox=[1, 2, 3, "4"])], None, "a1-1: bbox is a list", id="text in a box"),
        pytest.param([image(1)], [said(1, 1, bbox="1 2 3 4")], None, "a1-1: bbox is '1 2 3 4'", id="a box of text"),
        pytest.param(
            [image(1, width="9")], [said(1, 1, bbox=[1, 2, 3, 4])], None, "image 1: width is '9'", id="width text"
        ),
        pytest.param(
            [image(1, corrupt="no")], [said(1, 1)], None, "image 1: corrupt is 'no', expected true", id="a corrupt no"
        ),
        pytest.param(
            [image(1, location=[1])], [said(1, 1)], None, "image 1: location is a list", id="a list of stations"
        ),
        pytest.param([image(1, datetime=[])], [said(1, 1)], None, "image 1: datetime is a list", id="a list of times"),
        pytest.param(
            [image(1)], [said(1, True)], None, "category_id is True, expected a whole number", id="true as an id"
        ),
        pytest.param([image(1)], [], [{"id": 1}], "category 1: name is missing", id="a category without a name"),
        pytest.param([image(1)], [], [{"id": 1, "name": "a"}] * 2, "category 1 is there twice", id="a category twice"),
        pytest.param(
            [image(1)], [said(1, 1)], [{"id": 1, "name": "f" * 150}], "at most 100 characters", id="a long label"
        ),
        pytest.param(
            [image("../1")], [said("../1", 1)], None, r"image ../1 names the file '\.\./1\.jpg'", id="out of the folder"
        ),
        pytest.param([image("/1")], [said("/1", 1)], None, "image /1 names the file '/1.jpg'", id="an absolute path"),
        pytest.param([{"id": 1, "file_name": "a\x00"}], [], None, "image 1: file_name is", id="a zero byte"),
    ],
)
def test_a_wrong_value_is_refused_with_the_entry_it_stands_in(
    tmp_path: Path, images: list[Any], annotations: list[Any], categories: Any, says: str
) -> None:
    (tmp_path / "1.jpg").write_bytes(b"")
    path = archive(tmp_path, images, annotations, categories, there=False)
    with pytest.raises(DataError, match=says) as refused:
        readers.read(path)
    assert "\n" not in str(refused.value)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["../a", "1", "fox"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
entries = st.lists(
    st.dictionaries(
        st.sampled_from(
            [
                "id",
                "file_name",
                "image_id",
                "category_id",
                "name",
                "bbox",
                "bbox_relative",
                "width",
                "height",
                "datetime",
                "location",
                "seq_id",
                "corrupt",
                "sequence_level_annotation",
            ]
        ),
        json_values | st.sampled_from([1, "1", "a.jpg", [0, 0, 1, 1]]),
    ),
    max_size=3,
)


@given(value=st.fixed_dictionaries({"images": entries, "annotations": entries, "categories": entries}) | json_values)
@example(value={"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []})
def test_any_json_is_a_data_set_or_a_data_error(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    (folder / "a.jpg").write_bytes(b"")
    path = folder / "x.json"
    path.write_text(json.dumps(value))
    for data in (path, folder):
        try:
            found = readers.scan(data)
        except DataError as error:
            message = str(error)
        else:
            message = ""
            assert all(sample.path == folder / "a.jpg" for sample in found.samples)
        assert "\n" not in message


@given(st.tuples(*[st.floats(-3, 3)] * 4))
def test_a_clipped_box_lies_in_the_photo(corners: tuple[float, float, float, float]) -> None:
    box = coco.clipped(*corners)
    if box is not None:
        assert 0 <= box.x <= box.x + box.width <= 1 + 1e-12
        assert 0 <= box.y <= box.y + box.height <= 1 + 1e-12
        assert box.width > 0 < box.height


@pytest.mark.needs("real_photos")
def test_a_real_file_is_read_with_its_boxes() -> None:
    found = readers.scan(capabilities.real_photos() / "ena24_small" / "coco_annotations.json")
    assert Counter(Counter(each.label for each in found.samples).values()) == {3: 7}
    assert all(len(each.boxes) == 1 and each.path.is_file() for each in found.samples)
