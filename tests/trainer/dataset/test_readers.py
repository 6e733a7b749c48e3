"""Data sets as people have them: a folder per class or a CSV file, and every way in which one is none yet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge import pathtext
from edge.errors import DataError
from trainer.dataset import readers
from trainer.dataset.samples import Sample, Unreadable


def photos(folder: Path, *names: str) -> None:
    """Files of these names; a reader never opens one."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def csv_file(folder: Path, text: str | bytes) -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# --- a folder per class


def test_each_folder_is_a_label_and_each_photo_in_it_a_sample(tmp_path: Path) -> None:
    photos(tmp_path, "fox/b.jpg", "fox/a.JPG", "deer/x.png")
    assert readers.read(tmp_path) == [
        Sample(tmp_path / "deer/x.png", "deer/x.png", "deer"),
        Sample(tmp_path / "fox/a.JPG", "fox/a.JPG", "fox"),
        Sample(tmp_path / "fox/b.jpg", "fox/b.jpg", "fox"),
    ]


def test_folders_below_a_class_are_walked(tmp_path: Path) -> None:
    photos(tmp_path, "fox/100RECNX/IMG_0001.JPG", "fox/101RECNX/IMG_0001.JPG", "deer/x.jpg")
    names = [sample.name for sample in readers.read(tmp_path) if sample.label == "fox"]
    assert names == ["fox/100RECNX/IMG_0001.JPG", "fox/101RECNX/IMG_0001.JPG"]


def test_every_file_of_a_class_is_listed_so_that_none_is_dropped_in_silence(tmp_path: Path) -> None:
    photos(tmp_path, "fox/a.jpg", "fox/clip.mp4", "fox/notes.txt", "deer/x.jpg")
    assert [sample.name for sample in readers.read(tmp_path)] == [
        "deer/x.jpg", "fox/a.jpg", "fox/clip.mp4", "fox/notes.txt",
    ]  # fmt: skip


def test_hidden_files_and_files_outside_classes_are_not(tmp_path: Path) -> None:
    photos(tmp_path, "fox/a.jpg", "fox/.a.jpg", "deer/x.jpg", ".git/a.jpg", "readme.txt", "loose.jpg")
    assert [sample.name for sample in readers.read(tmp_path)] == ["deer/x.jpg", "fox/a.jpg"]


def test_names_that_are_no_ascii_are_kept(tmp_path: Path) -> None:
    photos(tmp_path, "Rotfuchs ♂/Füchsin 1.jpg", "deer/x.jpg")
    assert readers.read(tmp_path)[0].label == "Rotfuchs ♂"


def test_a_name_that_is_not_utf_8_becomes_text_and_leads_back_to_its_file(tmp_path: Path) -> None:
    named = os.fsdecode(b"fox/caf\xe9.jpg")
    photos(tmp_path, named, "fox/caf%E9.jpg", "fox/100%.jpg", "deer/x.jpg")
    samples = readers.read(tmp_path)
    assert {sample.name for sample in samples if sample.label == "fox"} == {
        "fox/caf%E9.jpg", "fox/caf%25E9.jpg", "fox/100%.jpg",
    }  # fmt: skip
    for sample in samples:
        sample.name.encode()
        assert tmp_path / pathtext.from_text(sample.name) == sample.path


def test_a_name_in_a_csv_leads_back_to_its_file(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "file,label\n100%25.jpg,fox\n50%.jpg,deer\n")
    for sample in readers.read(path):
        assert tmp_path / pathtext.from_text(sample.name) == sample.path


def left_out(folder: Path) -> dict[str, str]:
    return {each.name: each.code for each in readers.scan(folder).left_out}


def test_a_folder_without_photos_is_no_label_and_is_listed(tmp_path: Path) -> None:
    photos(tmp_path, "fox/a.jpg", "deer/x.jpg", "PIL/notes.txt", "PIL/more/code.py")
    found = readers.scan(tmp_path)
    assert {sample.label for sample in found.samples} == {"fox", "deer"}
    assert found.left_out == [Unreadable("PIL", "", "no photos", "PIL holds no photos, so it is no label.")]


def test_loose_files_are_listed_but_notes_about_the_photos_are_not(tmp_path: Path) -> None:
    photos(tmp_path, "fox/a.jpg", "deer/x.jpg", "loose.jpg", "clip.mp4", ".hidden.jpg")
    photos(tmp_path, "labels.csv", "README", "readme.md", "notes.TXT", "camera.json")
    assert left_out(tmp_path) == {"loose.jpg": "no label", "clip.mp4": "no label"}


def test_photos_in_hidden_folders_are_not_read(tmp_path: Path) -> None:
    photos(tmp_path, "fox/a.jpg", "fox/.trash/b.jpg", "fox/100/.thumbs/small/c.jpg", "deer/x.jpg")
    assert [sample.name for sample in readers.read(tmp_path)] == ["deer/x.jpg", "fox/a.jpg"]


def test_pipes_and_links_to_nothing_are_listed_and_not_opened(tmp_path: Path) -> None:
    photos(tmp_path, "fox/a.jpg", "deer/x.jpg")
    os.mkfifo(tmp_path / "fox" / "pipe.jpg")
    (tmp_path / "deer" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert left_out(tmp_path) == {"fox/pipe.jpg": "not a file", "deer/gone.jpg": "not a file"}
    assert [sample.name for sample in readers.read(tmp_path)] == ["deer/x.jpg", "fox/a.jpg"]


def test_a_link_to_a_folder_is_listed_and_not_followed(tmp_path: Path) -> None:
    photos(tmp_path, "fox/a.jpg", "deer/x.jpg")
    (tmp_path / "fox" / "all").symlink_to(tmp_path)
    found = readers.scan(tmp_path)
    assert [sample.name for sample in found.samples] == ["deer/x.jpg", "fox/a.jpg"]
    assert [each.reason for each in found.left_out] == ["fox/all is a link to a folder, which is not followed."]


def test_a_folder_that_may_not_be_read_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path, "fox/a.jpg", "fox/100RECNX/b.jpg", "deer/x.jpg", "lost+found/c.jpg")
    real = os.scandir

    def scandir(path: str) -> Iterator[os.DirEntry[str]]:
        if str(path).endswith(("100RECNX", "lost+found")):  # root may read anything, so it is not done by mode
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = readers.scan(tmp_path)
    assert [sample.name for sample in found.samples] == ["deer/x.jpg", "fox/a.jpg"]
    assert {each.reason for each in found.left_out} == {
        "fox/100RECNX cannot be read.",
        "lost+found cannot be read, so it is no label.",
    }


@pytest.mark.parametrize("layout", ["folders", "table"])
def test_a_label_in_two_unicode_forms_is_one_label(tmp_path: Path, layout: str) -> None:
    composed, apart = "L\u00fcchs", "Lu\u0308chs"
    names = [f"{composed}/a.jpg", f"{apart}/b.jpg", "fox/c.jpg"]
    photos(tmp_path, *names)
    lines = "".join(f"{name},{name.partition('/')[0]}\n" for name in names)
    found = readers.read(tmp_path if layout == "folders" else csv_file(tmp_path, f"file,label\n{lines}"))
    assert {sample.label for sample in found} == {composed, "fox"}
    assert {sample.name for sample in found} == set(names)
    assert all(sample.path.is_file() for sample in found)


def test_one_label_can_be_read_but_not_trained(tmp_path: Path) -> None:
    photos(tmp_path, "fox/a.jpg", "fox/b.jpg", "boar/notes.txt")
    found = readers.scan(tmp_path)
    assert len(found.samples) == 2
    with pytest.raises(DataError, match=r"has 1 label, at least 2 are needed.*boar holds no photos"):
        readers.check_trainable(found, tmp_path)
    photos(tmp_path, "boar/c.jpg")
    readers.check_trainable(readers.scan(tmp_path), tmp_path)


def test_the_order_does_not_depend_on_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path, *(f"{label}/{i}.jpg" for label in ("fox", "deer") for i in range(9)))
    first = readers.read(tmp_path)
    real = os.scandir

    class Backwards:
        def __init__(self, path: str) -> None:
            self._entries = iter(list(real(path))[::-1])

        def __iter__(self) -> Backwards:
            return self

        def __next__(self) -> os.DirEntry[str]:
            return next(self._entries)

        def __enter__(self) -> Backwards:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    assert readers.read(tmp_path) == first


# --- a CSV file


def test_a_csv_gives_label_station_and_sequence(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "station,file,label,sequence\nA7,in/a.jpg, fox ,s1\n,b.jpg,deer,\n")
    assert readers.read(path) == [
        Sample(tmp_path / "in/a.jpg", "in/a.jpg", "fox", "A7", "s1"),
        Sample(tmp_path / "b.jpg", "b.jpg", "deer", None, None),
    ]


@pytest.mark.parametrize("column", ["station", "location"])
def test_a_station_may_be_called_location(tmp_path: Path, column: str) -> None:
    path = csv_file(tmp_path, f"file,label,{column}\na.jpg,fox,A7\nb.jpg,deer,A8\n")
    assert [sample.station for sample in readers.read(path)] == ["A7", "A8"]


@pytest.mark.parametrize("column", ["sequence", "seq_id"])
def test_a_sequence_may_be_called_seq_id(tmp_path: Path, column: str) -> None:
    path = csv_file(tmp_path, f"file,label,{column}\na.jpg,fox,1\nb.jpg,deer,2\n")
    assert [sample.sequence for sample in readers.read(path)] == ["1", "2"]


def test_the_sequence_column_can_be_named(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "file,label,sequence,group\na.jpg,fox,1,x\nb.jpg,deer,2,y\n")
    assert [sample.sequence for sample in readers.read(path, sequence_column="group")] == ["x", "y"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\ufefffile,label\na.jpg,fox\nb.jpg,deer\n", id="with a byte order mark, as Excel writes"),
        pytest.param("file,label\r\na.jpg,fox\r\nb.jpg,deer\r\n", id="with Windows line ends"),
        pytest.param('file,label\n"a.jpg","fox"\n"b.jpg",deer', id="quoted, no last line end"),
        pytest.param("label,notes,file\nfox,x,a.jpg\ndeer,y,b.jpg\n", id="columns in another order"),
        pytest.param("file,label\na.jpg,fox,more\nb.jpg,deer\n\n", id="a line too long and an empty one"),
        pytest.param(
            "\ufefffile;label\r\na.jpg;fox\r\nb.jpg;deer\r\n", id="with semicolons, as Excel writes in Europe"
        ),
        pytest.param("file\tlabel\na.jpg\tfox\nb.jpg\tdeer\n", id="with tabs"),
        pytest.param('file,label,"sex; age; notes"\na.jpg,fox,\nb.jpg,deer,\n', id="semicolons in a column's name"),
        pytest.param("file,label\ra.jpg,fox\rb.jpg,deer\r", id="with the line ends of an old Mac"),
    ],
)
def test_a_csv_as_programs_write_it_is_read(tmp_path: Path, text: str) -> None:
    found = readers.read(csv_file(tmp_path, text))
    assert [(sample.name, sample.label) for sample in found] == [("a.jpg", "fox"), ("b.jpg", "deer")]


def test_a_csv_from_windows_has_backslashes_in_its_paths(tmp_path: Path) -> None:
    photos(tmp_path, "in/a.jpg", "b\\c.jpg")
    found = readers.read(csv_file(tmp_path, "file,label\nin\\a.jpg,fox\nb\\c.jpg,deer\n"))
    assert [(each.path, each.name) for each in found] == [
        (tmp_path / "in" / "a.jpg", "in/a.jpg"),
        (tmp_path / "b\\c.jpg", "b\\c.jpg"),  # here that is a file's name
    ]


def test_columns_may_have_other_names_in_any_case(tmp_path: Path) -> None:
    text = "FilePath,Species,Site,Burst,DateTime,Split,Source\na.jpg,fox,A7,9,2022:12:31 09:52:50,valid,web\n"
    sample = Sample(
        tmp_path / "a.jpg", "a.jpg", "fox", "A7", "9", "2022-12-31T09:52:50", part="validation", source="web"
    )
    found = readers.scan(csv_file(tmp_path, text))
    assert (found.samples, found.notes) == ([sample], [])


def test_of_two_columns_of_one_meaning_the_first_known_is_used_and_named(tmp_path: Path) -> None:
    found = readers.scan(csv_file(tmp_path, "path,label,file\nx/a.jpg,fox,a.jpg\n"))
    assert found.samples[0].name == "a.jpg"
    assert found.notes == [f"{tmp_path / 'labels.csv'}: the file is read from the column file, not path."]


def test_date_and_time_may_be_two_columns(tmp_path: Path) -> None:
    found = readers.read(csv_file(tmp_path, "file,label,date,time\na.jpg,fox,2022-12-31,9:52:50\n"))
    assert found[0].taken == "2022-12-31T09:52:50"


def test_what_is_not_known_of_a_photo_stays_unknown(tmp_path: Path) -> None:
    text = "file,label,station,sequence,taken,part,source\na.jpg,fox,NA,,0000:00:00 00:00:00,NA,\n,,,,,,\n"
    assert readers.read(csv_file(tmp_path, text)) == [Sample(tmp_path / "a.jpg", "a.jpg", "fox")]


def test_the_named_sequence_column_may_be_written_in_another_case(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "file,label,NearDup\na.jpg,fox,7\n")
    assert readers.read(path, sequence_column="neardup")[0].sequence == "7"


def test_a_file_with_a_line_per_animal_is_one_sample_and_with_two_species_none(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "file,label\na.jpg,fox\na.jpg,fox\nb.jpg,fox\n./b.jpg,deer\n")
    found = readers.scan(path)
    assert [sample.name for sample in found.samples] == ["a.jpg"]
    assert [(each.name, each.code) for each in found.left_out] == [("b.jpg", "two labels")]
    assert "2 lines name a file that another line names, too" in found.notes[0]


def test_some_photos_with_a_part_and_some_without_are_not_trained_on(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "file,label,part\na.jpg,fox,train\nb.jpg,deer,\n")
    with pytest.raises(DataError, match=r"b\.jpg is in no part, others are"):
        readers.check_trainable(readers.scan(path), path)


# --- a folder that holds a label file


COCO = {"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 1, "name": "fox"}]}
COCO["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1}]


@pytest.mark.parametrize("folder", ["", "images/", "Photos/"])
def test_a_folder_of_photos_with_one_csv_is_read_by_it(tmp_path: Path, folder: str) -> None:
    photos(tmp_path, f"{folder}a.jpg", "notes.csv", "settings.json")
    csv_file(tmp_path, f"file,label\n{folder}a.jpg,fox\n")
    found = readers.scan(tmp_path)
    assert [(each.path.is_file(), each.label) for each in found.samples] == [(True, "fox")]
    assert found.notes == [f"{tmp_path} holds labels.csv, so that is read."]


def test_a_folder_of_photos_with_one_coco_file_is_read_by_it(tmp_path: Path) -> None:
    photos(tmp_path, "images/a.jpg")
    (tmp_path / "coco.json").write_text(json.dumps(COCO))
    found = readers.scan(tmp_path)
    assert [(each.name, each.label) for each in found.samples] == [("images/a.jpg", "fox")]
    assert "holds coco.json" in found.notes[0]


def test_two_label_files_are_one_too_many(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg")
    csv_file(tmp_path, "file,label\na.jpg,fox\n")
    (tmp_path / "coco.json").write_text(json.dumps(COCO))
    with pytest.raises(DataError, match=r"2 label files \(coco.json, labels.csv\), expected one"):
        readers.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("labels.csv", "file,animal\na.jpg,fox\n", "labels.csv has no column label"),
        ("labels.json", "[" * 100_000, "labels.json is not JSON"),
        ("labels.json", '{"images": []}', "expected COCO"),
    ],
)
def test_a_folder_whose_label_file_is_no_use_says_why(tmp_path: Path, name: str, text: str, says: str) -> None:
    photos(tmp_path, "a.jpg")
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"0 labels\. Expected a folder per class.*{says}"):
        readers.read(tmp_path)


def test_class_folders_go_before_a_label_file_beside_them(tmp_path: Path) -> None:
    photos(tmp_path, "fox/a.jpg", "deer/b.jpg")
    csv_file(tmp_path, "file,label\nfox/a.jpg,red fox\n")
    found = readers.scan(tmp_path)
    assert ({each.label for each in found.samples}, found.notes) == ({"fox", "deer"}, [])


def test_a_pipe_called_labels_csv_is_not_waited_for(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "labels.csv")
    os.mkfifo(tmp_path / "labels.json")
    with pytest.raises(DataError, match="0 labels"):
        readers.read(tmp_path)


# --- not a data set yet


def _nothing(folder: Path) -> Path:
    return folder / "photos"


def _no_folders(folder: Path) -> Path:
    photos(folder, "a.jpg", "b.jpg")
    return folder


def _spaced(folder: Path) -> Path:
    photos(folder, "fox /a.jpg", "deer/x.jpg")
    return folder


def _named(label: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        photos(folder, f"{label}/a.jpg", "deer/x.jpg")
        return folder

    return make


def _case(folder: Path) -> Path:
    photos(folder, "Fox/a.jpg", "fox/b.jpg", "deer/x.jpg")
    return folder


def _long_label(folder: Path) -> Path:
    photos(folder, "f" * 101 + "/a.jpg", "deer/x.jpg")
    return folder


def _broken_label(folder: Path) -> Path:
    photos(folder, "fox\nor not/a.jpg", "deer/x.jpg")
    return folder


def _csv(text: str | bytes) -> Callable[[Path], Path]:
    return lambda folder: csv_file(folder, text)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(_nothing, "does not exist", id="nothing there"),
        pytest.param(_no_folders, "0 labels", id="photos without folders"),
        pytest.param(
            _spaced, "'fox ' ?; a label neither begins nor ends with a space", id="a label that ends in a space"
        ),
        pytest.param(_named("unknown"), "what a device says of a photo of no class", id="unknown as a label"),
        pytest.param(_named("Setup"), "what a device says of a photo of no class", id="setup as a label"),
        pytest.param(_named("Empty"), "Rename it to 'empty'", id="empty in capitals"),
        pytest.param(_named("PERSON"), "Rename it to 'person'", id="person in capitals"),
        pytest.param(_case, "'Fox' and 'fox', which differ only in case", id="labels that differ in case"),
        pytest.param(_long_label, "at most 100 characters", id="a label that no bundle holds"),
        pytest.param(_broken_label, "on one line", id="a label of two lines"),
        pytest.param(_csv(""), "no column file, label; found none", id="an empty CSV"),
        pytest.param(_csv("file,animal\na.jpg,fox\n"), "no column label; found file, animal", id="no label column"),
        pytest.param(
            _csv("file,animal\na.jpg,fox\n"), "Label may be called species, class", id="no known label column"
        ),
        pytest.param(_csv('file,label\n"a\x00.jpg",fox\n'), "line 2 names the file", id="a name with a zero byte"),
        pytest.param(_csv("file,label,taken\na.jpg,fox,noon\n"), "line 2: taken is 'noon'", id="no time"),
        pytest.param(
            _csv("file,label,taken\na.jpg,fox,\nb.jpg,fox,2024-05-01\n"), "line 3: taken is", id="a date alone"
        ),
        pytest.param(_csv("file,label,split\na.jpg,fox,holdout\n"), "line 2: split is 'holdout'", id="no part"),
        pytest.param(_csv("file,label,station\na.jpg,fox," + "A" * 201), "line 2: station is", id="a station's novel"),
        pytest.param(_csv("file,label,Label\na.jpg,fox,deer\n"), "'label' twice", id="two label columns"),
        pytest.param(_csv('"a\nb",label\n'), r"found a\\nb, label", id="a column name of two lines"),
        pytest.param(_csv("file,label\n"), "0 labels", id="no lines"),
        pytest.param(_csv("file,label\na.jpg,fox\nb.jpg, \n"), "line 3 is without a label", id="a blank label"),
        pytest.param(_csv("file,label\na.jpg,NA\n"), "without a label, its file is 'a.jpg'", id="a label of R's NA"),
        pytest.param(_csv("file,label\na.jpg,fox\nb.jpg\n"), "line 3 is without a label", id="a line cut short"),
        pytest.param(_csv("file,label\na.jpg,fox\n,deer\n"), "line 3 is without a file", id="a line without a file"),
        pytest.param(_csv("label,file\nfox,a.jpg\ndeer\n"), "without a file", id="a line that ends before its file"),
        pytest.param(_csv("file,label\na.jpg,f\xfcchsin\n".encode("latin-1")), "not a CSV file in UTF-8", id="Latin-1"),
        pytest.param(_csv("file,label\n".encode("utf-16")), "not a CSV file in UTF-8", id="UTF-16"),
        pytest.param(_csv(b"\xff\xd8\xff\xe0" + bytes(200)), "not a CSV file in UTF-8", id="a photo"),
        pytest.param(_csv("file,label\n" + "a" * 200_000 + ",fox\n"), "not a CSV file", id="a cell without end"),
    ],
)
def test_what_is_no_data_set_is_refused_with_what_to_do(
    tmp_path: Path, make: Callable[[Path], Path], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        readers.read(make(tmp_path))


def test_too_many_labels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path, "a/1.jpg", "b/1.jpg", "c/1.jpg")
    monkeypatch.setattr(readers, "MAX_LABELS", 3)
    assert len(readers.read(tmp_path)) == 3
    monkeypatch.setattr(readers, "MAX_LABELS", 2)
    with pytest.raises(DataError, match="3 labels, at most 2"):
        readers.read(tmp_path)


def test_a_sequence_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "file,label\na.jpg,fox\nb.jpg,deer\n")
    with pytest.raises(DataError, match="no column group"):
        readers.read(path, sequence_column="group")


def test_a_sequence_column_of_a_folder_is_refused(tmp_path: Path) -> None:
    photos(tmp_path, "fox/a.jpg", "deer/x.jpg")
    with pytest.raises(DataError, match="--sequence-column names a column of a CSV"):
        readers.read(tmp_path, sequence_column="group")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        pytest.param([], "a list, expected an object", id="a list"),
        pytest.param({}, "holds nothing, expected COCO", id="nothing"),
        pytest.param({"images": [], "type": "x"}, "holds 'images', 'type', expected COCO", id="another format"),
        pytest.param({"detection_categories": {}, "images": []}, "boxes, not labels.*--boxes", id="a detector's"),
        pytest.param({"images": [], "annotations": [], "categories": []}, "0 labels", id="an empty COCO file"),
    ],
)
def test_json_that_holds_no_labels_is_refused_with_what_to_give(tmp_path: Path, value: object, says: str) -> None:
    (tmp_path / "x.json").write_text(json.dumps(value))
    with pytest.raises(DataError, match=says):
        readers.read(tmp_path / "x.json")


def test_a_sequence_column_of_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps(COCO))
    with pytest.raises(DataError, match="JSON file; --sequence-column"):
        readers.read(tmp_path / "x.json", sequence_column="seq_id")


def test_a_name_that_no_data_set_has_does_not_exist() -> None:
    for name in ("a\x00b", "a" * 5000):
        with pytest.raises(DataError, match="does not exist"):
            readers.read(Path(name))


def test_readers_load_no_tensorflow() -> None:
    script = "import sys, trainer.dataset.readers; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
