"""Reading and writing ``.tflite`` files that others made, and files that were made to do harm."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import ModelError
from tests import colour_model
from trainer.imported import flat

pytestmark = pytest.mark.needs("tensorflow")
COLOURS = colour_model.build()


def schema() -> Any:
    from tensorflow.lite.python import schema_py_generated

    return schema_py_generated


def changed(change: Callable[[Any, Any], None]) -> bytes:
    """The colour model with a change to its objects: the model's, and its graph's."""
    model = schema().ModelT.InitFromObj(schema().Model.GetRootAs(COLOURS, 0))
    change(model, model.subgraphs[0])
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def put(thing: Any, name: str, value: Any) -> None:
    setattr(thing, name, value)


def test_what_is_written_reads_as_the_same() -> None:
    once = flat.write(flat.read(COLOURS))
    graph = flat.read(once)
    assert [each.name for each in graph.operators] == ["DEQUANTIZE", "MEAN"]
    assert graph.tensors[graph.input].shape == (1, 32, 32, 3)
    assert graph.tensors[graph.input].scale == (1.0,)
    assert flat.write(graph) == once


def test_constants_lie_at_addresses_that_every_processor_can_load() -> None:
    graph = flat.read(COLOURS)
    for length in (1, 3, 5, 17):
        graph.operators[1].inputs[1] = graph.constant(np.arange(length, dtype=np.int32))
        content = flat.write(graph)
        stored = schema().Model.GetRootAs(content, 0)
        tables = [stored.Buffers(i)._tab for i in range(stored.BuffersLength())]
        places = [table.Vector(table.Offset(4)) for table in tables if table.Offset(4)]
        assert len(places) >= 1
        assert all(place % 16 == 0 for place in places)


def test_what_the_output_does_not_need_is_dropped() -> None:
    graph = flat.read(COLOURS)
    for _ in range(3):
        unused = graph.add(flat.Tensor((1, 3), "FLOAT32"))
        graph.operators.append(flat.operator("LOG", [graph.output], unused))
        graph.constant(np.zeros(100, np.float32))
    graph.drop_unused()
    assert flat.write(graph) == flat.write(flat.read(COLOURS))


FAULTS = [
    pytest.param(lambda m, g: put(m, "subgraphs", [g, g]), "2 subgraphs", id="two subgraphs"),
    pytest.param(lambda m, g: put(g, "inputs", [0, 2]), "2 inputs", id="two inputs"),
    pytest.param(lambda m, g: put(g, "outputs", [3, 3]), "2 outputs", id="two outputs"),
    pytest.param(lambda m, g: put(g, "outputs", []), "0 outputs", id="no output"),
    pytest.param(lambda m, g: put(g, "inputs", [99]), "input or output is no tensor", id="an input that is no tensor"),
    pytest.param(lambda m, g: put(g, "outputs", [-1]), "input or output is no tensor", id="a negative output"),
    pytest.param(
        lambda m, g: put(g.tensors[1], "buffer", 77), "buffer is out of range", id="a buffer that is not there"
    ),
    pytest.param(lambda m, g: put(g.tensors[1], "shape", [1, -5]), "shape or buffer", id="a negative side"),
    pytest.param(lambda m, g: put(g.tensors[1], "shape", [2**30] * 4), "shape or buffer", id="a tensor of exabytes"),
    pytest.param(lambda m, g: put(g.tensors[1], "shape", [1] * 9), "shape or buffer", id="nine sides"),
    pytest.param(lambda m, g: put(g.tensors[1], "isVariable", True), "a variable", id="a variable"),
    pytest.param(
        lambda m, g: put(g.tensors[0].quantization, "zeroPoint", [0, 1]), "zero points as scales", id="more zero points"
    ),
    pytest.param(
        lambda m, g: put(g.operators[0], "opcodeIndex", 9), "damaged", id="an operator code that is not there"
    ),
    pytest.param(lambda m, g: put(g.operators[0], "inputs", [55]), "reads what is no tensor", id="reading nowhere"),
    pytest.param(lambda m, g: put(g.operators[0], "inputs", [-2]), "reads what is no tensor", id="reading at -2"),
    pytest.param(lambda m, g: put(g.operators[0], "outputs", [55]), "writes what is no tensor", id="writing nowhere"),
    pytest.param(lambda m, g: put(g.operators[0], "outputs", [2]), "of its own", id="writing over a constant"),
    pytest.param(lambda m, g: put(g.operators[0], "inputs", [3]), "computed before", id="a circle"),
    pytest.param(lambda m, g: g.operators.reverse(), "computed before", id="operators in the wrong order"),
    pytest.param(lambda m, g: g.operators.pop(), "never computed", id="an output that nothing computes"),
    pytest.param(lambda m, g: put(m.buffers[1], "offset", 4096), "outside the flatbuffer", id="weights elsewhere"),
]


@pytest.mark.parametrize(("change", "says"), FAULTS)
def test_a_graph_that_cannot_be_is_refused(change: Callable[[Any, Any], None], says: str) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        flat.read(changed(change))
    assert caught.value.code in ("damaged", "unsupported")


@pytest.mark.parametrize("name", ["CALL_ONCE", "WHILE", "VAR_HANDLE", "HASHTABLE", "STABLEHLO_ADD", "DELEGATE"])
def test_operators_that_need_more_than_an_interpreter_are_refused(name: str) -> None:
    def change(model: Any, graph: Any) -> None:
        model.operatorCodes[0].builtinCode = getattr(schema().BuiltinOperator, name)

    with pytest.raises(ModelError, match=f"uses the operator {name},"):
        flat.read(changed(change))


def test_an_operator_of_tensorflow_itself_is_named() -> None:
    def change(model: Any, graph: Any) -> None:
        model.operatorCodes[1].builtinCode = model.operatorCodes[1].deprecatedBuiltinCode = 32
        model.operatorCodes[1].customCode = "FlexErf\x1b[31m"

    with pytest.raises(ModelError, match=r"CUSTOM 'FlexErf\\x1b.*TFLITE_BUILTINS") as caught:
        flat.read(changed(change))
    assert "\x1b" not in str(caught.value)


def overlapping() -> bytes:
    """Two thousand tensors whose scales are one list of 400 kB: 800 MB, once somebody copies them."""
    types = schema()
    builder = flatbuffers.Builder(0)
    scales = builder.CreateNumpyVector(np.ones(100_000, np.float32))
    tensors = []
    for _ in range(2000):
        types.QuantizationParametersStart(builder)
        types.QuantizationParametersAddScale(builder, scales)
        quantization = types.QuantizationParametersEnd(builder)
        types.TensorStart(builder)
        types.TensorAddQuantization(builder, quantization)
        tensors.append(types.TensorEnd(builder))
    ends = builder.CreateNumpyVector(np.zeros(1, np.int32))
    listed = [_listed(builder, tensors)]
    types.SubGraphStart(builder)
    types.SubGraphAddTensors(builder, listed[0])
    types.SubGraphAddInputs(builder, ends)
    types.SubGraphAddOutputs(builder, ends)
    graphs = _listed(builder, [types.SubGraphEnd(builder)])
    types.ModelStart(builder)
    types.ModelAddVersion(builder, 3)
    types.ModelAddSubgraphs(builder, graphs)
    builder.Finish(types.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


def _listed(builder: Any, tables: list[int]) -> int:
    builder.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    return int(builder.EndVector())


def test_parts_on_top_of_each_other_are_refused_before_they_fill_memory() -> None:
    content = overlapping()
    assert len(content) < 600_000
    with pytest.raises(ModelError, match="on top of each other"):
        flat.read(content)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "TFL3", id="nothing"),
        pytest.param(b"TFL3", "TFL3", id="the mark at the start"),
        pytest.param(b"\0\0\0\0TFL3", "damaged|subgraphs", id="the mark and no more"),
        pytest.param(b"\xff\xff\xff\xffTFL3" + b"\0" * 64, "damaged", id="a root behind the end"),
        pytest.param(b"\x08\0\0\0TFL3" + b"\xff" * 64, "damaged", id="negative offsets"),
        pytest.param(b"PK\x03\x04" * 20, "TFL3", id="a zip"),
    ],
)
def test_what_is_no_model_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        flat.read(content)


def test_a_file_larger_than_a_device_loads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "MAX_MODEL_BYTES", len(COLOURS) - 1)
    with pytest.raises(ModelError, match="at most"):
        flat.read(COLOURS)


def test_every_truncation_is_refused_or_reads() -> None:
    for length in range(0, len(COLOURS), 3):
        _read(COLOURS[:length])
    assert not _read(COLOURS[: len(COLOURS) // 2])


@given(st.data())
def test_no_damage_ends_in_anything_but_a_sentence(data: st.DataObject) -> None:
    content = bytearray(COLOURS)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[place] = data.draw(st.sampled_from([0, 1, 3, 127, 128, 252, 255]))
    start = time.monotonic()
    _read(bytes(content))
    assert time.monotonic() - start < 5


def _read(content: bytes) -> bool:
    """Whether it reads; all that may happen instead is a sentence. What reads can be written."""
    try:
        graph = flat.read(content)
    except ModelError as error:
        said = str(error)
    else:
        graph.drop_unused()
        return True
    assert said
    assert "\n" not in said
    return False
