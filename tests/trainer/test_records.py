"""Records come back by content; damaged files are misses; several runs do not harm each other."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from trainer import records
from trainer.records import Records

VECTOR = np.dtype(("<f4", (3,)))


def key(i: int) -> str:
    return hashlib.sha256(str(i).encode()).hexdigest()


def vector(i: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.full(3, i, np.float32)


def put(folder: Path, numbers: range) -> None:
    """As one run does."""
    store = Records(folder)
    for i in numbers:
        store.put(key(i), vector(i))
    store.flush()


def known(folder: Path, count: int) -> list[int]:
    store = Records(folder)
    found = {i: store.get(key(i)) for i in range(count)}
    assert all(value is None or (value == vector(i)).all() for i, value in found.items())
    return [i for i, value in found.items() if value is not None]


def test_what_was_put_is_there_at_once_and_for_the_next_run(tmp_path: Path) -> None:
    store = Records(tmp_path)
    assert store.get(key(1)) is None
    store.put(key(1), vector(1))
    assert store.get(key(1)).tolist() == [1, 1, 1]
    assert known(tmp_path, 3) == [], "it is not written yet"
    store.flush()
    assert known(tmp_path, 3) == [1]
    assert store.get(key(1)).tolist() == [1, 1, 1]


def test_keys_that_end_in_zeros_are_not_shortened(tmp_path: Path) -> None:
    store = Records(tmp_path)
    store.put("ab" + "00" * 31, vector(7))
    store.flush()
    assert Records(tmp_path).get("ab" + "00" * 31).tolist() == [7, 7, 7]


def test_named_fields_come_back(tmp_path: Path) -> None:
    kind = np.dtype([("camera", "S9"), ("infrared", "?"), ("hash", "?", (4,))])
    row = np.zeros(1, kind)[0]
    row["camera"], row["infrared"], row["hash"] = b"Reconyx", True, [True, False, True, True]
    store = Records(tmp_path, kind)
    store.put(key(0), row)
    store.flush()
    found = Records(tmp_path, kind).get(key(0))
    assert found is not None
    assert (found["camera"], bool(found["infrared"]), found["hash"].tolist()) == (
        b"Reconyx",
        True,
        [True, False, True, True],
    )


def test_new_records_are_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "FLUSH_EVERY", 4)
    store = Records(tmp_path)
    for i in range(10):
        store.put(key(i), vector(i))
    assert known(tmp_path, 10) == list(range(8)), "a run killed now loses two"


def test_many_files_become_one_and_nothing_is_lost(tmp_path: Path) -> None:
    for i in range(records.MOST_FILES):
        put(tmp_path, range(2 * i, 2 * i + 2))
    assert len(list(tmp_path.iterdir())) == records.MOST_FILES
    put(tmp_path, range(100, 101))
    assert len(list(tmp_path.iterdir())) == 1
    assert known(tmp_path, 101) == [*range(2 * records.MOST_FILES), 100]


def test_a_run_that_joins_files_keeps_those_of_a_run_beside_it(tmp_path: Path) -> None:
    for i in range(records.MOST_FILES):
        put(tmp_path, range(i, i + 1))
    joins = Records(tmp_path)
    joins.put(key(400), vector(400))
    beside = Records(tmp_path)._write([(bytes.fromhex(key(500)), vector(500))], 1)
    joins.flush()
    assert beside in tmp_path.iterdir()
    assert len(list(tmp_path.iterdir())) == 2
    assert known(tmp_path, 501) == [*range(records.MOST_FILES), 400, 500]


@pytest.mark.parametrize("damage", ["cut", "zeros", "flipped", "another kind"])
def test_a_damaged_file_costs_only_its_own_records(tmp_path: Path, damage: str) -> None:
    put(tmp_path, range(5))
    (file,) = tmp_path.iterdir()
    put(tmp_path, range(5, 9))
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "zeros":
        file.write_bytes(bytes(len(content)))
    elif damage == "flipped":
        file.write_bytes(content[:-10] + bytes([content[-10] ^ 1]) + content[-9:])
    else:
        np.save(file, np.zeros(5, np.float32))
    assert known(tmp_path, 9) == [5, 6, 7, 8]
    put(tmp_path, range(5))
    assert known(tmp_path, 9) == list(range(9))


def test_records_of_another_shape_are_not_mixed_in(tmp_path: Path) -> None:
    put(tmp_path, range(3))
    assert Records(tmp_path, np.dtype(("<f4", (4,)))).get(key(1)) is None
    assert Records(tmp_path, VECTOR).get(key(1)) is not None


def test_a_place_that_cannot_be_written_is_said_and_memory_does_not_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "FLUSH_EVERY", 4)
    (tmp_path / "file").write_text("")
    store = Records(tmp_path / "file")
    for i in range(10):
        store.put(key(i), vector(i))
    assert store.full
    assert [i for i in range(10) if store.get(key(i)) is not None] == [0, 1, 2, 3], "those not written yet, and no more"
