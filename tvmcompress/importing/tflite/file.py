"""Reading a TFLite file: its tensors, constants and operators, as the format describes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ...errors import MissingToolError, UnsupportedOperatorError, UserError
from .sparse import densify

_MOST_AXES = 16
"""Shapes of damaged files would make long sentences."""
_READABLE = {"float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"}


@dataclass(frozen=True)
class TfliteTensor:
    """One tensor of the file.

    Attributes:
        index: In the subgraph.
        name: Its name; one made from its number where the file has none.
        shape: Its shape.
        dtype: Its dtype; four-bit integers are read as int8.
        scales: float32, one or one per channel; empty for a tensor that is not quantized.
        zero_points: As many.
        axis: The axis of the scales, if there are several.
        data: Its value when it is a constant.
        bits: How many bits an integer has in the file.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: np.ndarray
    zero_points: np.ndarray
    axis: int
    data: np.ndarray | None
    bits: int

    @property
    def is_float(self) -> bool:
        """Whether it holds real numbers."""
        return self.dtype.startswith("float")

    @property
    def is_quantized(self) -> bool:
        """Whether it holds integers that stand for real numbers."""
        return len(self.scales) > 0 and not self.is_float

    @property
    def scale(self) -> float:
        """Its only scale, as a double."""
        return float(self.scales[0])

    @property
    def zero_point(self) -> int:
        """Its only zero point."""
        return int(self.zero_points[0])

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest integer of its dtype."""
        info = np.iinfo(self.dtype)
        return int(info.min), int(info.max)


@dataclass(frozen=True)
class TfliteOperator:
    """One operator of the file.

    Attributes:
        kind: As the format names it, "CONV_2D".
        index: In the subgraph.
        inputs: Its operands; None for an optional one that is left out.
        outputs: Its results.
        options: As the format describes them; None where there are none.
    """

    kind: str
    index: int
    inputs: tuple[TfliteTensor | None, ...]
    outputs: tuple[TfliteTensor, ...]
    options: Any

    @property
    def output(self) -> TfliteTensor:
        """Its first result."""
        return self.outputs[0]

    @property
    def place(self) -> str:
        """How messages call it."""
        return f"{self.kind} number {self.index}, making '{self.output.name}'"

    def operand(self, index: int) -> TfliteTensor:
        """An operand that must be there.

        Raises:
            UserError: It is left out.
        """
        tensor = self.inputs[index] if index < len(self.inputs) else None
        if tensor is None:
            raise UserError(f"{self.place}, has no operand {index}")
        return tensor

    def constant(self, index: int) -> np.ndarray | None:
        """The value of an operand that may be left out.

        Raises:
            UnsupportedOperatorError: It is there, but not constant.
        """
        tensor = self.inputs[index] if index < len(self.inputs) else None
        if tensor is not None and tensor.data is None:
            raise UnsupportedOperatorError(
                f"{self.place}, takes '{tensor.name}', which must be constant, from another operator"
            )
        return None if tensor is None else tensor.data

    def integers(self, index: int) -> list[int]:
        """A constant operand as a list of integers.

        Raises:
            UserError: It is left out.
            UnsupportedOperatorError: It is not constant.
        """
        self.operand(index)
        value = self.constant(index)
        assert value is not None
        return [int(entry) for entry in value.reshape(-1)]

    def option(self, name: str, default: Any) -> Any:
        """The value of an option; the default of the format where the operator has none."""
        return getattr(self.options, name)() if self.options is not None else default


class TfliteFile:
    """One file of one subgraph.

    Args:
        data: Its bytes.
        source: What messages call it.

    Raises:
        UserError: It has other than one subgraph.
        MissingToolError: The package `tflite`, which describes the format, is not installed.
    """

    def __init__(self, data: bytes, source: str) -> None:
        try:
            import tflite
        except ImportError as error:
            raise MissingToolError("importing TFLite needs the package tflite; run: pip install tflite") from error
        self.source = source
        self._tflite: Any = tflite
        self._data = data
        self._model = tflite.Model.GetRootAsModel(data, 0)
        if self._model.SubgraphsLength() != 1:
            raise UserError(
                f"{source} has {self._model.SubgraphsLength()} subgraphs; only files of one subgraph, without control flow, "
                "can be imported"
            )
        self._graph = self._model.Subgraphs(0)
        self._kinds = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
        self._dtypes = {value: name.lower() for name, value in vars(tflite.TensorType).items() if isinstance(value, int)}
        self._tensors: dict[int, TfliteTensor] = {}

    @cached_property
    def inputs(self) -> list[TfliteTensor]:
        """The model's inputs, in order."""
        return [self.tensor(self._graph.Inputs(index)) for index in range(self._graph.InputsLength())]

    @cached_property
    def outputs(self) -> list[TfliteTensor]:
        """The model's outputs, in order."""
        return [self.tensor(self._graph.Outputs(index)) for index in range(self._graph.OutputsLength())]

    def operators(self) -> Iterator[TfliteOperator]:
        """The operators, in the order in which they run.

        Raises:
            UnsupportedOperatorError: One is of a kind that the format's builtin operators lack.
        """
        for index in range(self._graph.OperatorsLength()):
            yield self._operator(index)

    def _operator(self, index: int) -> TfliteOperator:
        raw = self._graph.Operators(index)
        code = self._model.OperatorCodes(raw.OpcodeIndex())
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        kind = self._kinds.get(number, f"number {number} of the builtin operators")
        inputs = tuple(self.tensor(raw.Inputs(i)) if raw.Inputs(i) >= 0 else None for i in range(raw.InputsLength()))
        outputs = tuple(self.tensor(raw.Outputs(i)) for i in range(raw.OutputsLength()))
        if kind == "CUSTOM":
            name = (code.CustomCode() or b"").decode(errors="replace")
            made = f", making '{outputs[0].name}'" if outputs else ""
            raise UnsupportedOperatorError(f"the custom operator {name} (number {index}{made}) of {self.source} is unknown")
        return TfliteOperator(kind, index, inputs, outputs, self._options(raw))

    def _options(self, raw: Any) -> Any:
        table = raw.BuiltinOptions()
        names = {value: name for name, value in vars(self._tflite.BuiltinOptions).items() if isinstance(value, int)}
        name = names.get(raw.BuiltinOptionsType(), "NONE")
        if table is None or name == "NONE":
            return None
        options = getattr(self._tflite, name)()
        options.Init(table.Bytes, table.Pos)
        return options

    def tensor(self, index: int) -> TfliteTensor:
        """A tensor by its number."""
        if index not in self._tensors:
            self._tensors[index] = self._tensor(index)
        return self._tensors[index]

    def _tensor(self, index: int) -> TfliteTensor:
        raw = self._graph.Tensors(index)
        kind = self._dtypes.get(raw.Type(), f"type number {raw.Type()}")
        dtype = {"int4": "int8"}.get(kind, kind)
        shape = tuple(int(raw.Shape(axis)) for axis in range(raw.ShapeLength()))
        if len(shape) > _MOST_AXES or min(shape, default=0) < -1:
            raise UserError(f"{self.source} is damaged: the shape of its tensor {index} cannot be")
        name = (raw.Name() or b"").decode(errors="replace") or f"tensor{index}"
        if dtype not in _READABLE:
            raise UnsupportedOperatorError(f"'{name}' of {self.source} is of {kind}, which cannot be imported")
        if 0 in shape or -1 in shape:
            raise UserError(f"'{name}' of {self.source} has the open shape {shape}; convert it with a fixed input shape")
        quantization = raw.Quantization()
        has_scale = quantization is not None and quantization.ScaleLength() > 0
        scales = quantization.ScaleAsNumpy() if has_scale else np.zeros(0, np.float32)
        zeros = quantization.ZeroPointAsNumpy() if has_scale and quantization.ZeroPointLength() else np.zeros(len(scales))
        axis = int(quantization.QuantizedDimension()) if has_scale else 0
        data = self._constant(raw, kind, dtype, shape)
        bits = 4 if kind == "int4" else 8 * np.dtype(dtype).itemsize
        scales, zeros = np.asarray(scales, np.float32), np.asarray(zeros).astype(np.int64)
        return TfliteTensor(index, name, shape, dtype, scales, zeros, axis, data, bits)

    def set_constant(self, tensor: TfliteTensor, value: np.ndarray) -> None:
        """Let operators that are read from here on find a value that was computed while importing."""
        self._tensors[tensor.index] = replace(tensor, data=value)

    def _constant(self, raw: Any, kind: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray | None:
        buffer = self._model.Buffers(raw.Buffer())
        if buffer.DataLength():
            stored = buffer.DataAsNumpy().tobytes()
        elif buffer.Offset() > 1:
            # Files beyond 2 GB keep their constants behind the flatbuffer.
            stored = self._data[buffer.Offset() : buffer.Offset() + buffer.Size()]
        else:
            return None
        if kind == "int4":
            packed = np.frombuffer(stored, np.int8)
            # The lower half first; shifting up and down extends the sign.
            halves = np.stack([(packed << 4).astype(np.int8) >> 4, packed >> 4], 1).reshape(-1)
            return halves[: int(np.prod(shape))].reshape(shape)
        values = np.frombuffer(stored, dtype)
        sparsity = raw.Sparsity()
        return densify(values, shape, sparsity) if sparsity is not None else values.reshape(shape)
