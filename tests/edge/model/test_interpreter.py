"""The runtime: a model that breaks the input or output contract is refused, one that keeps it answers."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edge.errors import ModelError
from edge.model import runtime
from edge.model.interpreter import Model
from tests import colour_model

LITERT = "ai_edge_litert"  # the one that may be loaded beside TensorFlow


def altered(change: Callable[[Any], None], *, side: int = 4) -> bytes:
    """The colour model with something changed in its parts."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(colour_model.build(side, side), 0))
    change(model)
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _quantization(scale: float, zero_point: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        found = model.subgraphs[0].tensors[0].quantization
        found.scale, found.zeroPoint = [scale], [zero_point]

    return change


def _shape(*shape: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for tensor in model.subgraphs[0].tensors[:2]:
            tensor.shape = list(shape)
        model.subgraphs[0].tensors[3].shape = [shape[0], shape[-1]]

    return change


def _float_input(model: Any) -> None:
    graph = model.subgraphs[0]
    graph.inputs, graph.operators = [1], graph.operators[1:]


def _two_outputs(model: Any) -> None:
    model.subgraphs[0].outputs = [3, 1]


def _two_inputs(model: Any) -> None:
    graph = model.subgraphs[0]
    graph.tensors.append(graph.tensors[0])
    graph.inputs = [0, len(graph.tensors) - 1]


def _pixels_out(model: Any) -> None:
    model.subgraphs[0].outputs = [1]


def _one_number(model: Any) -> None:
    model.buffers[1].data = list(struct.pack("<3i", 1, 2, 3))
    model.subgraphs[0].tensors[2].shape = [3]
    model.subgraphs[0].tensors[3].shape = [1]


def _grey(model: Any) -> None:
    """Three channels in, their mean as the only logit, shape (1, 1)."""
    _one_number(model)
    model.subgraphs[0].operators[1].builtinOptions.keepDims = True
    model.subgraphs[0].tensors[3].shape = [1, 1, 1, 1]


def logarithm(model: Any) -> None:
    """The logits' logarithm: of black, minus infinity."""
    graph = model.subgraphs[0]
    graph.tensors.append(schema.TensorT())
    graph.tensors[4].name, graph.tensors[4].shape, graph.tensors[4].type = "log", [1, 3], schema.TensorType.FLOAT32
    graph.tensors[4].buffer = 0
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.LOG
    code.version = 1
    model.operatorCodes.append(code)
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 2, [3], [4]
    graph.operators.append(operator)
    graph.outputs = [4]


# --- a model that keeps the contract


def test_logits_are_the_mean_colours() -> None:
    model = Model(colour_model.build(4, 6), runtime=LITERT)
    assert (model.height, model.width, model.classes, model.output_step) == (4, 6, 3, 0.0)
    photo = np.zeros((4, 6, 3), np.uint8)
    photo[:2], photo[2:] = (255, 0, 100), (255, 10, 0)
    found = model.logits(photo)
    assert found.dtype == np.float32
    assert found == pytest.approx([255, 5, 50])


def test_a_file_and_its_bytes_are_the_same_model(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(colour_model.build(4, 4))
    photo = np.full((4, 4, 3), 9, np.uint8)
    assert (Model(path, runtime=LITERT).logits(photo) == Model(path.read_bytes(), runtime=LITERT).logits(photo)).all()


def test_answers_do_not_depend_on_the_photo_before() -> None:
    model = Model(colour_model.build(4, 4), runtime=LITERT)
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    first = model.logits(black)
    model.logits(white)
    assert (model.logits(black) == first).all()
    assert not first.any()


def test_an_input_without_quantization_is_raw_pixels() -> None:
    """Scale 0 and zero point 0 is how a converter says that there is none."""

    def without(model: Any) -> None:
        graph = model.subgraphs[0]
        graph.tensors[0].quantization = None
        model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.CAST
        model.operatorCodes[0].version = 1

    model = Model(altered(without), runtime=LITERT)
    assert model.logits(np.full((4, 4, 3), 200, np.uint8)) == pytest.approx([200, 200, 200])


# --- models that do not


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(_quantization(0.78, 0), "scale 0.78 .* wrong colours", id="input scale from calibration"),
        pytest.param(_quantization(1.0, 5), "zero point 5", id="input zero point"),
        pytest.param(_quantization(1.0078125, 0), "scale 1.008", id="input scale of 129/128"),
        pytest.param(_float_input, "input is float32", id="float input"),
        pytest.param(_shape(2, 4, 4, 3), r"input is uint8 \(2, 4, 4, 3\)", id="a batch of two"),
        pytest.param(_shape(1, 4, 4, 4), r"input is uint8 \(1, 4, 4, 4\)", id="four channels"),
        pytest.param(_shape(1, 4, 4, 1), r"input is uint8 \(1, 4, 4, 1\)", id="grey input"),
        pytest.param(_two_outputs, "1 inputs and 2 outputs", id="two outputs"),
        pytest.param(_two_inputs, "2 inputs and 1 outputs", id="two inputs"),
        pytest.param(_pixels_out, r"output is float32 \(1, 4, 4, 3\)", id="a picture out"),
        pytest.param(_one_number, r"output is float32 \(1,\)", id="a number out"),
        pytest.param(_grey, r"output is float32 \(1, 1, 1, 1\)", id="one logit"),
    ],
)
def test_a_model_that_breaks_the_contract_is_refused(change: Callable[[Any], None], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        Model(altered(change), runtime=LITERT)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="no bytes"),
        pytest.param(b"not a model", id="text"),
        pytest.param(bytes(2000), id="zeros"),
        pytest.param(b"\x1c\0\0\0XXXX" + bytes(100), id="another identifier"),
    ],
)
def test_a_file_that_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(ModelError, match="cannot load the model"):
        Model(content, runtime=LITERT)


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        Model(tmp_path / "model.tflite", runtime=LITERT)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    with path.open("wb") as file:
        file.truncate(runtime.MAX_MODEL_BYTES + 1)  # sparse
    with pytest.raises(ModelError, match="at most"):
        Model(path, runtime=LITERT)


# --- photos that do not fit, answers that are none


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(np.zeros((4, 5, 3), np.uint8), id="another width"),
        pytest.param(np.zeros((1, 4, 4, 3), np.uint8), id="already a batch"),
        pytest.param(np.zeros((4, 4), np.uint8), id="grey"),
        pytest.param(np.zeros((4, 4, 3), np.float32), id="floats"),
        pytest.param(np.zeros((4, 4, 3), np.int8), id="signed"),
    ],
)
def test_pixels_of_another_shape_or_type_are_refused(pixels: Any) -> None:
    model = Model(colour_model.build(4, 4), runtime=LITERT)
    with pytest.raises(ModelError, match="expects uint8 pixels"):
        model.logits(pixels)


def test_logits_that_are_not_finite_are_refused() -> None:
    model = Model(altered(logarithm), runtime=LITERT)
    assert model.logits(np.full((4, 4, 3), 1, np.uint8)) == pytest.approx([0, 0, 0], abs=1e-6)
    with pytest.raises(ModelError) as caught:
        model.logits(np.zeros((4, 4, 3), np.uint8))
    assert caught.value.code == "not finite"


# --- which runtime


def test_a_runtime_of_another_name_is_refused() -> None:
    with pytest.raises(ModelError, match="expected one of ai_edge_litert, tflite_runtime") as caught:
        Model(colour_model.build(4, 4), runtime="onnx")
    assert caught.value.code == "no runtime"


def test_kernels_of_another_name_are_refused() -> None:
    with pytest.raises(ModelError, match="default, reference"):
        Model(colour_model.build(4, 4), runtime=LITERT, kernels="fast")


def test_a_runtime_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    monkeypatch.setitem(sys.modules, "tflite_runtime", None)
    with pytest.raises(ModelError, match="not installed") as caught:
        Model(colour_model.build(4, 4), runtime="tflite_runtime")
    assert caught.value.code == "no runtime"


def test_no_runtime_at_all_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "installed", lambda: ())
    with pytest.raises(ModelError, match="Install ai-edge-litert") as caught:
        Model(colour_model.build(4, 4))
    assert caught.value.code == "no runtime"


def test_the_first_installed_runtime_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    both = (runtime.Installed(LITERT, "2.3.0"), runtime.Installed("tflite_runtime", "2.14.0"))
    monkeypatch.setattr(runtime, "installed", lambda: both)
    assert Model(colour_model.build(4, 4)).runtime == LITERT


def test_reference_kernels_answer_alike() -> None:
    photo = np.full((4, 4, 3), 120, np.uint8)
    reference = Model(colour_model.build(4, 4), runtime=LITERT, kernels="reference").logits(photo)
    assert reference == pytest.approx(Model(colour_model.build(4, 4), runtime=LITERT).logits(photo))
