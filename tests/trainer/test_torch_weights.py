"""Weights without PyTorch: a sound file is read number by number, a hostile or damaged one costs nothing."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from edge.errors import DataError
from tests.trainer import legacy_pth as pth
from trainer import torch_weights
from trainer.backbones import backbone
from trainer.torch_weights import MAGIC, read_pth

SIX = np.arange(6, dtype="<f4")
ONE_STORAGE = {"0": pth.raw(SIX)}


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    return path


def one_tensor(*, count: int = 6, shape: tuple[int, ...] = (2, 3), stride: tuple[int, ...] = (3, 1), offset: int = 0):  # type: ignore[no-untyped-def]
    return pth.ordered({"w": pth.tensor(pth.storage("0", count), shape, stride, offset)})


# --- sound files


def test_every_dtype_and_shape_is_read(tmp_path: Path) -> None:
    arrays = {
        "float": np.arange(24, dtype="<f4").reshape(2, 3, 4),
        "double": np.array([np.pi], "<f8"),
        "half": np.array([[0.5, -2.0]], "<f2"),
        "steps": np.array(7, "<i8"),
    }
    found = read_pth(written(tmp_path, pth.of_arrays(arrays)))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert (found[name] == array).all()


def test_a_tensor_may_be_a_transposed_view_of_its_storage(tmp_path: Path) -> None:
    found = read_pth(written(tmp_path, pth.file(one_tensor(shape=(3, 2), stride=(1, 3)), ONE_STORAGE)))
    assert found["w"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_a_tensor_may_start_inside_its_storage(tmp_path: Path) -> None:
    found = read_pth(written(tmp_path, pth.file(one_tensor(shape=(2,), stride=(1,), offset=4), ONE_STORAGE)))
    assert found["w"].tolist() == [4, 5]


def test_two_tensors_may_share_a_storage_and_are_copies(tmp_path: Path) -> None:
    held = pth.storage("0", 6)
    state = pth.ordered({"a": pth.tensor(held, (6,), (1,)), "b": pth.tensor(held, (6,), (1,))})
    found = read_pth(written(tmp_path, pth.file(state, ONE_STORAGE)))
    found["a"][:] = -1
    assert found["b"].tolist() == [0, 1, 2, 3, 4, 5]


def test_what_is_no_tensor_is_left_out(tmp_path: Path) -> None:
    state = pth.ordered({"epoch": pth.number(9), "w": pth.tensor(pth.storage("0", 6), (6,), (1,))})
    assert list(read_pth(written(tmp_path, pth.file(state, ONE_STORAGE)))) == ["w"]


def test_the_published_weights_are_read_whole() -> None:
    path = backbone("efficientnet-lite0").weights_file()
    assert path is not None
    found = read_pth(path)
    assert sum(array.size for array in found.values() if array.dtype.kind == "f") == 4_694_024
    assert all(np.isfinite(array).all() for array in found.values())
    assert found["_conv_stem.weight"].shape == (32, 3, 3, 3)


# --- another global


def _touches(folder: Path) -> bytes:
    """A call that makes a folder when it is unpickled."""
    return pth.call(pth.name("os", "mkdir"), pth.text(str(folder)))


def test_the_attack_works_on_a_reader_that_admits_everything(tmp_path: Path) -> None:
    """Control: without the refusal below, the folder would be there."""
    pickle.loads(pth.start(_touches(tmp_path / "owned")))
    assert (tmp_path / "owned").is_dir()


@pytest.mark.parametrize("place", ["magic", "protocol", "facts", "keys", "state", "value", "storage type"])
def test_a_call_anywhere_in_the_file_is_refused_and_not_made(tmp_path: Path, place: str) -> None:
    attack = _touches(tmp_path / "owned")
    state = one_tensor()
    if place == "state":
        state = attack
    elif place == "value":
        state = pth.ordered({"w": attack})
    elif place == "storage type":
        state = pth.ordered({"w": pth.tensor(pth.storage("0", 6, attack), (6,), (1,))})
    others = {place: pth.start(attack)} if place in ("magic", "protocol", "facts", "keys") else {}
    with pytest.raises(DataError, match=r"os\.mkdir") as caught:
        read_pth(written(tmp_path, pth.file(state, ONE_STORAGE, **others)))
    assert caught.value.code == "unsafe pickle"
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("posix", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("__builtin__", "exec"),
        ("operator", "attrgetter"),
        ("importlib", "import_module"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("torch", "load"),
        ("torch", "Tensor"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch.storage", "_load_from_bytes"),
        ("collections", "Counter"),
        ("collections", "namedtuple"),
        ("collections", "OrderedDict.__init__.__globals__"),
        ("trainer.torch_weights", "_Unpickler"),
    ],
)
def test_any_other_global_is_refused(tmp_path: Path, module: str, name: str) -> None:
    state = pth.ordered({"w": pth.name(module, name)})
    with pytest.raises(DataError) as caught:
        read_pth(written(tmp_path, pth.file(state, ONE_STORAGE)))
    assert caught.value.code == "unsafe pickle"
    assert f"{module}.{name}" in str(caught.value)


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(lambda path: b"(" + pth.text(path) + b"ios\nmkdir\n", id="INST"),
        pytest.param(lambda path: b"(" + pth.name("os", "mkdir") + pth.text(path) + b"o", id="OBJ"),
        pytest.param(
            lambda path: pth.text("os") + pth.text("mkdir") + b"\x93" + pth.several(pth.text(path)) + b"R",
            id="STACK_GLOBAL",
        ),
        pytest.param(lambda path: pth.name("os", "mkdir") + pth.several(pth.text(path)) + b"\x81", id="NEWOBJ"),
    ],
)
def test_other_opcodes_for_a_call_are_refused_too(tmp_path: Path, attack) -> None:  # type: ignore[no-untyped-def]
    content = pth.file(pth.ordered({"w": attack(str(tmp_path / "owned"))}), ONE_STORAGE)
    with pytest.raises(DataError) as caught:
        read_pth(written(tmp_path, content))
    assert caught.value.code == "unsafe pickle"
    assert not (tmp_path / "owned").exists()


# --- damage, and sizes that lie


def _bomb(depth: int) -> bytes:
    """Many numbers out of six, by standing still."""
    return pth.file(one_tensor(shape=(depth, 1_000, 1_000), stride=(0, 0, 0)), ONE_STORAGE)


def _nested(depth: int) -> bytes:
    """A list of ten of a list of ten ...: small in memory, endless when written out."""
    value = b"]" + b"K\x01a" * 10
    for _ in range(depth):
        value = b"](" + value + b"2" * 9 + b"e"
    return pth.start(value)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="no bytes"),
        pytest.param(b"PK\x03\x04" + bytes(100), id="the newer zip layout"),
        pytest.param(pth.file(one_tensor(), ONE_STORAGE, magic=pickle.dumps(MAGIC + 1, 2)), id="another magic number"),
        pytest.param(pth.file(one_tensor(), ONE_STORAGE, protocol=pickle.dumps(1002, 2)), id="another protocol"),
        pytest.param(pth.file(one_tensor(), ONE_STORAGE, magic=_nested(12)), id="a magic number without end"),
        pytest.param(pth.file(pth.number(3), ONE_STORAGE), id="a number for a dictionary"),
        pytest.param(pth.file(one_tensor(), {"0": pth.raw(SIX[:5])}), id="storage of fewer numbers"),
        pytest.param(pth.file(one_tensor(), {"0": pth.raw(SIX)[:-1]}), id="storage one byte short"),
        pytest.param(pth.file(one_tensor(), {"0": pth.raw(SIX)[:4]}), id="storage without its count"),
        pytest.param(
            pth.file(one_tensor(count=-1), {"0": struct.pack("<q", -1) + bytes(24)}), id="storage of minus one"
        ),
        pytest.param(
            pth.file(one_tensor(count=2**60), {"0": struct.pack("<q", 2**60) + bytes(24)}), id="storage of exabytes"
        ),
        pytest.param(pth.file(one_tensor(), {}), id="storage missing"),
        pytest.param(pth.file(one_tensor(), {"1": pth.raw(SIX)}), id="storage of another key"),
        pytest.param(pth.file(one_tensor(shape=(2, 4), stride=(3, 1)), ONE_STORAGE), id="more numbers than storage"),
        pytest.param(pth.file(one_tensor(shape=(2, 2), stride=(5, 1)), ONE_STORAGE), id="a stride past the end"),
        pytest.param(pth.file(one_tensor(offset=1), ONE_STORAGE), id="an offset past the end"),
        pytest.param(pth.file(one_tensor(offset=-1), ONE_STORAGE), id="a negative offset"),
        pytest.param(pth.file(one_tensor(shape=(2, 3), stride=(-3, 1), offset=3), ONE_STORAGE), id="going backwards"),
        pytest.param(pth.file(one_tensor(shape=(-2, -3)), ONE_STORAGE), id="a negative shape"),
        pytest.param(pth.file(one_tensor(shape=(6,), stride=(1, 1)), ONE_STORAGE), id="more strides than sides"),
        pytest.param(_bomb(1000), id="a billion numbers out of six"),
        pytest.param(_bomb(100), id="a hundred million numbers out of six"),
        pytest.param(
            pth.file(pth.ordered({"w": pth.several(pth.text("module"), b"N") + b"Q"}), {}), id="another persistent id"
        ),
    ],
)
def test_a_damaged_file_is_refused_before_it_costs_memory(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path, content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            read_pth(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20
    assert caught.value.code in {"damaged", "data"}
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_memo_index_costs_no_list_of_that_length(tmp_path: Path) -> None:
    """Ten bytes that make the unpickler in C fill 64 MB; with the largest index it would be 32 GB."""
    facts = b"\x80\x02K\x01r" + struct.pack("<I", 4_000_000) + b"."
    path = written(tmp_path, pth.file(one_tensor(), ONE_STORAGE, facts=facts))
    tracemalloc.start()
    try:
        assert list(read_pth(path)) == ["w"]
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_many_tensors_over_one_storage_are_refused_by_their_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand views of 4 kB are 4 MB: each is allowed, together they are a bomb."""
    held = pth.storage("0", 1000)
    content = pth.file(
        pth.ordered({f"w{i}": pth.tensor(held, (1000,), (1,)) for i in range(1000)}),
        {"0": pth.raw(np.zeros(1000, "<f4"))},
    )
    path = written(tmp_path, content)
    assert len(read_pth(path)) == 1000
    monkeypatch.setattr(torch_weights, "MAX_FILE_BYTES", 2**20)
    with pytest.raises(DataError, match="together"):
        read_pth(path)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = pth.of_arrays({"a": np.arange(6, dtype="<f4").reshape(2, 3), "b": np.arange(4, dtype="<i8")})
    assert set(read_pth(written(tmp_path, whole))) == {"a", "b"}
    for length in range(len(whole)):
        with pytest.raises(DataError):
            read_pth(written(tmp_path, whole[:length]))


def test_a_file_that_is_gone_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_pth(tmp_path / "none.pth")
    with pytest.raises(DataError, match="Is a directory"):
        read_pth(tmp_path)
    path = written(tmp_path, pth.of_arrays({"a": SIX}))
    monkeypatch.setattr(torch_weights, "MAX_FILE_BYTES", path.stat().st_size - 1)
    with pytest.raises(DataError, match="at most"):
        read_pth(path)
