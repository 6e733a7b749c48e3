"""Reads a ``.tflite`` that others wrote into plain objects that can be changed, and writes it again.

A flatbuffer is offsets all the way down, and Python's reader believes them: two lists may lie on top of each other, so
that a small file stands for terabytes. So everything is counted against the size of the file while it is read, and all
numbers of tensors, buffers and operators are checked before anyone follows them. It knows nothing of what a network
means; that is :mod:`trainer.imported.graph`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import ModelError
from edge.model.runtime import MAX_MODEL_BYTES
from trainer.flatbuffer import AlignedBuffer

MAX_TENSORS = 20_000
MAX_OPERATORS = 10_000
MAX_RANK = 8
MAX_ELEMENTS = 1 << 30
"""Of all tensors together; a VGG16 at 224 pixels has 0.17 of them."""
_AGAIN = "Take the file from its source again, or convert the model again."
_NEEDS_MORE = ("IF", "WHILE", "CALL", "CALL_ONCE", "DELEGATE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE")


@dataclass
class Tensor:
    """A tensor of a graph.

    Attributes:
        shape: its sides; the first is 1 where the file leaves the batch open.
        kind: the element type as the schema calls it: ``FLOAT32``, ``UINT8``, ``INT8``.
        buffer: number of the constant's bytes, 0 for a tensor that is computed.
        scale, zero_point: of its quantization, none for floats; one, or one per slice along ``axis``.
        open_sides: which sides the file leaves open.
    """

    shape: tuple[int, ...]
    kind: str
    buffer: int = 0
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    axis: int = 0
    open_sides: tuple[int, ...] = ()
    name: str = ""

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass
class Operator:
    """An operator: ``name`` as the schema calls it, its ``version``, and numbers of tensors, -1 for one left out.

    ``options`` is the schema's own object, whose type is the number ``options_type``.
    """

    name: str
    version: int
    inputs: list[int]
    outputs: list[int]
    intermediates: list[int] = field(default_factory=list)
    options: Any = None
    options_type: int = 0


@dataclass
class Graph:
    """A model of one subgraph with one input and one output. Operators stand in the order in which they run."""

    tensors: list[Tensor]
    operators: list[Operator]
    buffers: list[bytes]
    input: int
    output: int

    def add(self, tensor: Tensor) -> int:
        """Add a tensor that an operator computes; its number."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, values: npt.NDArray[Any]) -> int:
        """Add a float32 or int32 constant; its number."""
        kind = {"float32": "FLOAT32", "int32": "INT32"}[values.dtype.name]
        self.buffers.append(values.astype(values.dtype.newbyteorder("<")).tobytes())
        return self.add(Tensor(values.shape, kind, len(self.buffers) - 1))

    def producer(self, tensor: int) -> Operator | None:
        """The operator that computes a tensor."""
        return next((operator for operator in self.operators if tensor in operator.outputs), None)

    def drop_unused(self) -> None:
        """Forget operators that the output does not need, then tensors and buffers that nobody names."""
        wanted, kept = {self.output}, []
        for operator in reversed(self.operators):
            if wanted.intersection(operator.outputs):
                wanted.update(operator.inputs)
                kept.append(operator)
        self.operators = kept[::-1]
        named = {self.input, self.output}
        for operator in self.operators:
            named.update(operator.inputs, operator.outputs, operator.intermediates)
        order = sorted(named - {-1})
        place = {-1: -1, **{old: new for new, old in enumerate(order)}}
        self.tensors = [self.tensors[i] for i in order]
        for operator in self.operators:
            for numbers in (operator.inputs, operator.outputs, operator.intermediates):
                numbers[:] = [place[i] for i in numbers]
        self.input, self.output = place[self.input], place[self.output]
        self._drop_buffers()

    def _drop_buffers(self) -> None:
        used = sorted({0, *(tensor.buffer for tensor in self.tensors)})
        place = {old: new for new, old in enumerate(used)}
        self.buffers = [self.buffers[i] for i in used]
        for tensor in self.tensors:
            tensor.buffer = place[tensor.buffer]


# --- reading


def read(content: bytes) -> Graph:
    """A ``.tflite`` as objects.

    Raises:
        ModelError: it is none or damaged (code ``damaged``), too large (``too large``), or has what no plain image
            network has: several inputs, outputs or subgraphs, variables, operators that are not built in
            (``unsupported``).
    """
    if len(content) > MAX_MODEL_BYTES:
        raise ModelError(f"the model has {len(content)} bytes, at most {MAX_MODEL_BYTES} are read.", code="too large")
    if content[4:8] != b"TFL3":
        raise ModelError("this is no .tflite file: it does not say TFL3 at byte 4. Give the .tflite.", code="damaged")
    try:
        graph = _Reader(content).graph()
        _check(graph)
    except ModelError:
        raise
    except Exception as error:  # struct, numpy, index and memory errors: whatever the offsets lead to
        raise ModelError(f"the .tflite is damaged ({type(error).__name__}). {_AGAIN}", code="damaged") from error
    return graph


class _Reader:
    """Reads through the lazy accessors of the schema, and counts what it takes."""

    def __init__(self, content: bytes):
        from tensorflow.lite.python import schema_py_generated as schema

        self.schema = schema
        self.model = schema.Model.GetRootAs(content, 0)
        self.left_bytes = 2 * len(content) + 65536
        self.kinds = _names(schema.TensorType)
        self.codes = _names(schema.BuiltinOperator)

    def graph(self) -> Graph:
        if self.model.SubgraphsLength() != 1:
            raise _unsupported(f"has {self.model.SubgraphsLength()} subgraphs, expected 1")
        graph = self.model.Subgraphs(0)
        ends = graph.InputsLength(), graph.OutputsLength()
        if ends != (1, 1):
            raise _unsupported(f"has {ends[0]} inputs and {ends[1]} outputs, expected one photo in and one answer out")
        self.capped("buffers", self.model.BuffersLength(), MAX_TENSORS)
        self.capped("operator codes", self.model.OperatorCodesLength(), MAX_OPERATORS)
        codes = [self.code(self.model.OperatorCodes(i)) for i in range(self.model.OperatorCodesLength())]
        return Graph(
            tensors=self.each("tensors", graph.TensorsLength(), MAX_TENSORS, lambda i: self.tensor(graph.Tensors(i))),
            operators=self.each(
                "operators", graph.OperatorsLength(), MAX_OPERATORS, lambda i: self.operator(graph.Operators(i), codes)
            ),
            buffers=[self.buffer(self.model.Buffers(i)) for i in range(self.model.BuffersLength())] or [b""],
            input=int(graph.Inputs(0)),
            output=int(graph.Outputs(0)),
        )

    def each(self, what: str, length: int, most: int, one: Callable[[int], Any]) -> list[Any]:
        self.capped(what, length, most)
        return [one(i) for i in range(length)]

    def capped(self, what: str, length: int, most: int) -> None:
        if length > most:
            raise ModelError(f"the model has {length} {what}, at most {most} are read.", code="too large")

    def numbers(self, values: Any) -> list[Any]:
        """A vector as a list; 0 stands for one left out."""
        if not isinstance(values, np.ndarray):
            return []
        self.take(values.nbytes)
        return list(values.tolist())

    def take(self, count: int) -> None:
        self.left_bytes -= count
        if self.left_bytes < 0:
            raise ModelError(f"the .tflite is damaged: its parts lie on top of each other. {_AGAIN}", code="damaged")

    def tensor(self, stored: Any) -> Tensor:
        kind = self.kinds.get(stored.Type())
        if kind is None or stored.Sparsity() is not None or stored.IsVariable() or stored.VariantTensorsLength():
            raise _unsupported("has a tensor that is sparse, a variable, or of an unknown type")
        shape, signature = self.numbers(stored.ShapeAsNumpy()), self.numbers(stored.ShapeSignatureAsNumpy())
        if shape[:1] == [-1]:
            shape[0], signature = 1, signature or [-1]
        quantization = stored.Quantization()
        scale = self.numbers(quantization.ScaleAsNumpy()) if quantization else []
        return Tensor(
            shape=tuple(shape),
            kind=kind,
            buffer=stored.Buffer(),
            scale=tuple(scale),
            zero_point=tuple(self.numbers(quantization.ZeroPointAsNumpy())) if scale else (),
            axis=quantization.QuantizedDimension() if scale else 0,
            open_sides=tuple(i for i, side in enumerate(signature) if side == -1),
        )

    def code(self, stored: Any) -> tuple[str, int]:
        name = self.codes.get(max(stored.BuiltinCode(), stored.DeprecatedBuiltinCode()), "an unknown one")
        if name == "CUSTOM":
            name = f"CUSTOM {(stored.CustomCode() or b'')[:60].decode('utf-8', 'replace')!a}"
        return name, stored.Version()

    def operator(self, stored: Any, codes: list[tuple[str, int]]) -> Operator:
        name, version = codes[stored.OpcodeIndex()]
        custom = name.startswith(("CUSTOM", "HASHTABLE", "STABLEHLO", "an unknown")) or name in _NEEDS_MORE
        if custom or stored.BuiltinOptions2Type():
            raise _unsupported(
                f"uses the operator {name}, which a plain interpreter does not have", "TFLITE_BUILTINS only"
            )
        kind = stored.BuiltinOptionsType()
        options = self.schema.BuiltinOptionsCreator(kind, stored.BuiltinOptions())
        for value in vars(options).values() if options is not None else ():
            if isinstance(value, str | bytes | list):
                raise _unsupported(f"has text in the options of {name}")
            if isinstance(value, np.ndarray):
                self.take(value.nbytes)
        return Operator(
            name=name,
            version=version,
            inputs=self.numbers(stored.InputsAsNumpy()),
            outputs=self.numbers(stored.OutputsAsNumpy()),
            intermediates=self.numbers(stored.IntermediatesAsNumpy()),
            options=options,
            options_type=kind if options is not None else 0,
        )

    def buffer(self, stored: Any) -> bytes:
        if stored.Offset() > 1:
            raise _unsupported("keeps its weights outside the flatbuffer")
        values = stored.DataAsNumpy()
        if not isinstance(values, np.ndarray):
            return b""
        self.take(values.nbytes)
        return values.tobytes()


def _names(enum: Any) -> dict[int, str]:
    return {number: name for name, number in vars(enum).items() if isinstance(number, int) and name[0] != "_"}


def _unsupported(what: str, cure: str = "one image in, one list of scores out") -> ModelError:
    return ModelError(f"the model {what}. Convert it with {cure}.", code="unsupported")


def _check(graph: Graph) -> None:
    """Every number points somewhere, and everything is computed before it is used."""
    total = 0
    for tensor in graph.tensors:
        fits = len(tensor.shape) <= MAX_RANK and all(0 <= side <= MAX_ELEMENTS for side in tensor.shape)
        total += tensor.size if fits else MAX_ELEMENTS + 1
        if total > MAX_ELEMENTS or not 0 <= tensor.buffer < len(graph.buffers):
            raise _damaged("a tensor's shape or buffer is out of range")
        if len(tensor.zero_point) not in (0, len(tensor.scale)):
            raise _damaged("a tensor has not as many zero points as scales")
        tensor.zero_point = tensor.zero_point or (0,) * len(tensor.scale)
    count = len(graph.tensors)
    if not (0 <= graph.input < count and 0 <= graph.output < count):
        raise _damaged("its input or output is no tensor")
    known = {graph.input}
    known.update(i for i, tensor in enumerate(graph.tensors) if graph.buffers[tensor.buffer] or tensor.size == 0)
    for operator in graph.operators:
        if not {*operator.intermediates, *operator.inputs} <= {-1, *range(count)}:
            raise _damaged("an operator reads what is no tensor")
        if not known.issuperset({*operator.inputs} - {-1}):
            raise _damaged("an operator reads what was not computed before")
        if not operator.outputs or not known.isdisjoint(operator.outputs) or max(operator.outputs) >= count:
            raise _damaged("an operator writes what is no tensor of its own")
        if min(operator.outputs) < 0 or len({*operator.outputs}) != len(operator.outputs):
            raise _damaged("an operator writes what is no tensor of its own")
        known.update(operator.outputs)
    if graph.output not in known:
        raise _damaged("its output is never computed")


def _damaged(what: str) -> ModelError:
    return ModelError(f"the .tflite is damaged: {what}. {_AGAIN}", code="damaged")


# --- writing


def operator(name: str, inputs: list[int], output: int, *, version: int = 1, **options: Any) -> Operator:
    """A new operator; its options are those that the schema keeps for one of its name."""
    from tensorflow.lite.python import schema_py_generated as schema

    words = {"MAXIMUM": "MaximumMinimum"}.get(name, name.title())
    made = getattr(schema, f"{words}OptionsT", None)
    if made is None:  # such as LOG
        return Operator(name, version, inputs, [output])
    stored = made()
    for key, value in options.items():
        setattr(stored, key, value)
    kind = getattr(schema.BuiltinOptions, f"{words}Options")
    return Operator(name, version, inputs, [output], options=stored, options_type=kind)


def write(graph: Graph) -> bytes:
    """A graph as a ``.tflite``; the same graph gives the same bytes."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    codes = sorted({(operator.name, operator.version) for operator in graph.operators})
    stored = schema.SubGraphT()
    stored.name = "main"
    stored.tensors = [_stored_tensor(schema, tensor) for tensor in graph.tensors]
    stored.inputs, stored.outputs = [graph.input], [graph.output]
    stored.operators = [
        _stored_operator(schema, operator, codes.index((operator.name, operator.version)))
        for operator in graph.operators
    ]
    model = schema.ModelT()
    model.version = 3
    model.operatorCodes = [_stored_code(schema, name, version) for name, version in codes]
    model.subgraphs = [stored]
    model.buffers = [AlignedBuffer(data) for data in graph.buffers]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _stored_tensor(schema: Any, tensor: Tensor) -> Any:
    stored = schema.TensorT()
    stored.shape, stored.buffer = list(tensor.shape), tensor.buffer
    stored.type = getattr(schema.TensorType, tensor.kind)
    stored.name = tensor.name or "t"
    stored.hasRank = True
    if tensor.scale:
        stored.quantization = schema.QuantizationParametersT()
        stored.quantization.scale = np.array(tensor.scale, np.float32)
        stored.quantization.zeroPoint = np.array(tensor.zero_point, np.int64)
        stored.quantization.quantizedDimension = tensor.axis
    return stored


def _stored_operator(schema: Any, operator: Operator, code: int) -> Any:
    stored = schema.OperatorT()
    stored.opcodeIndex = code
    stored.inputs, stored.outputs = operator.inputs, operator.outputs
    stored.intermediates = operator.intermediates or None
    stored.builtinOptionsType, stored.builtinOptions = operator.options_type, operator.options
    return stored


def _stored_code(schema: Any, name: str, version: int) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # what readers older than the wide field look at
    code.version = version
    return code
