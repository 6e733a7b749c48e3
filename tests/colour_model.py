"""A real model of under a kilobyte, built without TensorFlow: its logits are a photo's mean red, green and blue.

It keeps the input and output contract (uint8 pixels with scale 1 in, float32 logits out) and runs on every runtime, so
tests of everything around a model need no training.
"""

from __future__ import annotations

import struct
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

LABELS = ("red", "green", "blue")


def build(height: int = 32, width: int = 32) -> bytes:
    """The ``.tflite`` file: DEQUANTIZE, then MEAN over rows and columns. Logits are 0 to 255."""
    shape = [1, height, width, 3]
    graph = schema.SubGraphT()
    graph.name = "main"
    graph.tensors = [
        _tensor("pixels", shape, schema.TensorType.UINT8, scale=1.0),
        _tensor("wide", shape, schema.TensorType.FLOAT32),
        _tensor("axes", [2], schema.TensorType.INT32, buffer=1),
        _tensor("logits", [1, 3], schema.TensorType.FLOAT32),
    ]
    graph.inputs, graph.outputs = [0], [3]
    graph.operators = [_operator(0, [0], 1), _operator(1, [1, 2], 3)]
    graph.operators[1].builtinOptionsType = schema.BuiltinOptions.ReducerOptions
    graph.operators[1].builtinOptions = schema.ReducerOptionsT()

    model = schema.ModelT()
    model.version = 3
    model.description = "mean red, green and blue"
    model.operatorCodes = [_code(schema.BuiltinOperator.DEQUANTIZE, 2), _code(schema.BuiltinOperator.MEAN, 1)]
    model.subgraphs = [graph]
    model.buffers = [schema.BufferT(), schema.BufferT()]
    model.buffers[1].data = list(struct.pack("<2i", 1, 2))
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(name: str, shape: list[int], kind: int, *, buffer: int = 0, scale: float | None = None) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, kind, buffer
    if scale is not None:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [0]
    return tensor


def _operator(code: int, inputs: list[int], output: int) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, inputs, [output]
    return operator


def _code(operator: int, version: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = operator
    code.version = version
    return code
