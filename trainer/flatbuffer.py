"""The table that a ``.tflite`` file is: operators, constants and ranges, to read and to change. Computes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt

CONV, DEPTHWISE, DENSE = "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"
FLOAT32 = 0
_TYPES: Mapping[int, Any] = {
    0: np.float32, 1: np.float16, 2: np.int32, 3: np.uint8, 4: np.int64, 6: np.bool_, 7: np.int16, 9: np.int8
}  # fmt: skip
_IDENTIFIER = b"TFL3"
_ALIGNED_BYTES = 16

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Operator:
    """One operator; tensors are named by their numbers, an input that is left out by -1."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


@dataclass(frozen=True)
class Layer:
    """An operator with constant weights: convolution, depthwise convolution, or dense.

    Attributes:
        kind: ``CONV_2D``, ``DEPTHWISE_CONV_2D`` or ``FULLY_CONNECTED``.
        data, weights, bias, output: numbers of tensors; ``bias`` is None without one.
        options: stride, padding and dilation as in the file.
    """

    kind: str
    data: int
    weights: int
    bias: int | None
    output: int
    options: Any


@dataclass
class AlignedBuffer:
    """Packs as the schema's ``BufferT``, which from Python would put weights at odd addresses: some ARM kernels load
    them as words, and the schema asks for 16 bytes."""

    data: bytes

    def Pack(self, builder: Any) -> int:  # the schema calls it so
        """Write it; where it is."""
        from tensorflow.lite.python import schema_py_generated as schema

        vector = None
        if self.data:
            builder.Prep(_ALIGNED_BYTES, len(self.data))
            vector = builder.CreateByteVector(self.data)
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))


class Table:
    """One model of one subgraph, parsed."""

    def __init__(self, content: bytes) -> None:
        """Parse a file that the converter wrote."""
        from tensorflow.lite.python import schema_py_generated as schema

        self._schema = schema
        self.model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        self.graph = self.model.subgraphs[0]
        names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
        codes = [(names[max(c.builtinCode, c.deprecatedBuiltinCode)], c.version) for c in self.model.operatorCodes]
        self.versions = codes
        self.operators = [
            Operator(
                codes[each.opcodeIndex][0],
                tuple(int(i) for i in each.inputs),
                tuple(int(i) for i in each.outputs),
                each.builtinOptions,
            )
            for each in self.graph.operators
        ]
        self.inputs = tuple(int(i) for i in self.graph.inputs)
        self.outputs = tuple(int(i) for i in self.graph.outputs)

    def content(self) -> bytes:
        """The file. The same table gives the same bytes."""
        stored = self.model.buffers
        builder = flatbuffers.Builder(1 << 20)
        try:
            self.model.buffers = [AlignedBuffer(b"" if each.data is None else bytes(each.data)) for each in stored]
            builder.Finish(self.model.Pack(builder), _IDENTIFIER)
        finally:
            self.model.buffers = stored
        return bytes(builder.Output())

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Of a tensor; () of a scalar."""
        shape = self.graph.tensors[tensor].shape
        return () if shape is None else tuple(int(side) for side in shape)

    def length_bytes(self, tensor: int) -> int:
        """How much memory its values take; four bytes each where the type is unknown."""
        about = self.graph.tensors[tensor]
        return int(np.prod(self.shape(tensor))) * np.dtype(_TYPES.get(about.type, np.float32)).itemsize

    def is_constant(self, tensor: int) -> bool:
        """Whether its values are in the file."""
        data = self.model.buffers[self.graph.tensors[tensor].buffer].data
        return data is not None and len(data) > 0

    def constant(self, tensor: int) -> Array | None:
        """The values of a constant; None of what is computed."""
        about = self.graph.tensors[tensor]
        if not self.is_constant(tensor) or about.type not in _TYPES:
            return None
        data = self.model.buffers[about.buffer].data
        return np.frombuffer(bytes(data), _TYPES[about.type]).reshape(self.shape(tensor))

    def put_constant(self, tensor: int, values: Array) -> None:
        """Replace the values of a constant by others of its shape and type."""
        about = self.graph.tensors[tensor]
        assert values.shape == self.shape(tensor)
        assert values.dtype == _TYPES[about.type]
        self.model.buffers[about.buffer].data = np.frombuffer(values.tobytes(), np.uint8)

    def scales(self, tensor: int) -> npt.NDArray[np.float64]:
        """The quantization scales of a tensor, one or one for each channel; none of a float tensor."""
        about = self.graph.tensors[tensor].quantization
        return np.array([] if about is None or about.scale is None else about.scale, np.float64)

    def computed(self) -> list[int]:
        """The float tensors that operators write, in order."""
        written = [i for each in self.operators for i in each.outputs]
        return [i for i in written if self.graph.tensors[i].type == FLOAT32]

    def give_out(self, tensors: Iterable[int]) -> None:
        """Make these tensors the model's outputs."""
        self.graph.outputs = np.array(list(tensors), np.int32)
        self.model.signatureDefs = None
        self.outputs = tuple(int(i) for i in self.graph.outputs)

    def has_range(self, tensor: int) -> bool:
        """Whether calibration left a range here."""
        about = self.graph.tensors[tensor].quantization
        return about is not None and about.min is not None and len(about.min) == 1

    def put_range(self, tensor: int, low: float, high: float) -> None:
        """What quantization will go by."""
        about = self.graph.tensors[tensor].quantization
        about.min, about.max = np.array([low], np.float32), np.array([high], np.float32)

    def layers(self) -> list[Layer]:
        """The operators with constant weights, in order."""
        found = []
        for each in self.operators:
            if each.name in (CONV, DEPTHWISE, DENSE) and self.constant(each.inputs[1]) is not None:
                bias = each.inputs[2] if len(each.inputs) > 2 and each.inputs[2] >= 0 else None
                found.append(Layer(each.name, each.inputs[0], each.inputs[1], bias, each.outputs[0], each.options))
        return found
