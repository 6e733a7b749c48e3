"""One loaded ``.tflite``: pixels in, logits out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from edge.errors import ModelError
from edge.model import runtime as runtimes


class Model:
    """One loaded ``.tflite`` on one runtime.

    Attributes:
        height, width: the input's, pixels.
        classes: C, the number of logits.
        output_step: the difference between neighbouring logits of an int8 model; 0 for a float model.
    """

    def __init__(self, model: Path | bytes, *, runtime: str | None = None, threads: int = 1, kernels: str = "default"):
        """Load a model and refuse one that breaks the input or output contract.

        Args:
            model: the file, or its bytes.
            runtime: a name of :data:`edge.model.runtime.NAMES`; the preferred installed one if None.
            threads: at least 1.
            kernels: ``default``, or ``reference`` for the slow kernels. Of an int8 model they answer the same on every
                architecture, to the last step or nearly; ``tflite_runtime``'s default kernels on aarch64 do as they do.

        Raises:
            ModelError: no runtime is installed, the file does not load, or its tensors are not
                uint8 (1, H, W, 3) with scale 0 or 1 and float32 (1, C). With code ``load`` where the runtime refused
                the file.
        """
        self.runtime = runtime or runtimes.preferred()
        content = model if isinstance(model, bytes) else _read_model(model)
        self._interpreter = _interpreter(self.runtime, content, threads, kernels)
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelError(f"the model has {len(inputs)} inputs and {len(outputs)} outputs, expected one of each.")
        self._check_input(inputs[0])
        self._check_output(outputs[0])
        self._input, self._output = int(inputs[0]["index"]), int(outputs[0]["index"])
        self.output_step = _output_step(self._interpreter, self._output)

    def logits(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Run the model on one photo.

        Args:
            pixels: uint8 RGB, shape (H, W, 3), 0 to 255.

        Returns:
            float32, shape (C,).

        Raises:
            ModelError: another shape or type, or the runtime fails.
        """
        if pixels.shape != (self.height, self.width, 3) or pixels.dtype != np.uint8:
            raise ModelError(
                f"the model expects uint8 pixels of shape {(self.height, self.width, 3)}, "
                f"found {pixels.dtype} of {pixels.shape}."
            )
        try:
            self._interpreter.set_tensor(self._input, pixels[np.newaxis])
            self._interpreter.invoke()
            output = self._interpreter.get_tensor(self._output)[0]
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{self.runtime} failed to run the model: {error}") from error
        logits = cast("npt.NDArray[np.float32]", np.array(output, dtype=np.float32))
        if not np.isfinite(logits).all():
            raise ModelError("the model answered with numbers that are not finite.", code="not finite")
        return logits

    def _check_input(self, detail: dict[str, Any]) -> None:
        shape = tuple(int(side) for side in detail["shape"])
        if detail["dtype"] != np.uint8 or len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
            raise ModelError(f"the model's input is {np.dtype(detail['dtype'])} {shape}, expected uint8 (1, H, W, 3).")
        scale, zero_point = detail["quantization"]
        if (float(scale), int(zero_point)) not in ((0.0, 0), (1.0, 0)):
            raise ModelError(
                f"the model's uint8 input has scale {scale:.4g} and zero point {zero_point}, expected raw pixels "
                "(scale 0 or 1, zero point 0). It would see wrong colours. Export it again."
            )
        self.height, self.width = shape[1], shape[2]

    def _check_output(self, detail: dict[str, Any]) -> None:
        shape = tuple(int(side) for side in detail["shape"])
        if detail["dtype"] != np.float32 or len(shape) != 2 or shape[0] != 1 or shape[1] < 2:
            raise ModelError(
                f"the model's output is {np.dtype(detail['dtype'])} {shape}, expected float32 logits (1, C), C >= 2."
            )
        self.classes = shape[1]


def _read_model(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > runtimes.MAX_MODEL_BYTES:
            raise ModelError(f"{path} has {size} bytes, at most {runtimes.MAX_MODEL_BYTES} are loaded.")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error


def _interpreter(name: str, content: bytes, threads: int, kernels: str) -> Any:
    if kernels not in runtimes.KERNELS:
        raise ModelError(f"kernels {kernels!r} are not known, expected one of {', '.join(runtimes.KERNELS)}.")
    module = runtimes.module(name)
    options: dict[str, Any] = {"model_content": content, "num_threads": threads}
    try:
        if kernels == "reference":
            options["experimental_op_resolver_type"] = module.OpResolverType.BUILTIN_REF
        with _native_notes_off():
            interpreter = module.Interpreter(**options)
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError, AttributeError, ImportError) as error:  # numpy 2 under tflite_runtime: the last
        raise ModelError(f"{name} cannot load the model: {_in_one_line(error)}", code="load") from error
    return interpreter


def _in_one_line(error: Exception) -> str:
    """What the runtime said, in one line: TFLite's errors have several."""
    return " ".join(str(error).split())


@contextlib.contextmanager
def _native_notes_off() -> Iterator[None]:
    """LiteRT says on standard error, past Python, that it made an XNNPACK delegate. What fails is raised anyway."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _output_step(interpreter: Any, output: int) -> float:
    """The scale of the int8 or uint8 tensor that a final DEQUANTIZE reads, found among the tensors by its shape."""
    details = interpreter.get_tensor_details()
    shape = next(tuple(d["shape"]) for d in details if d["index"] == output)
    scales = [
        float(d["quantization"][0])
        for d in details
        if d["dtype"] in (np.int8, np.uint8) and tuple(d["shape"]) == shape and d["quantization"][0] > 0
    ]
    return scales[-1] if scales else 0.0
