"""Small TFLite files for tests, and what LiteRT's reference kernels make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType


@dataclass
class File:
    """A file in the making.

    Attributes:
        named: Whether its tensors have names.
    """

    named: bool = True
    tensors: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=lambda: [schema.BufferT()])
    inputs: list[int] = field(default_factory=list)

    def tensor(
        self,
        shape: Sequence[int],
        dtype: str = "int8",
        scale: float | Sequence[float] | None = None,
        zero_point: int | Sequence[int] = 0,
        *,
        data: np.ndarray | None = None,
        axis: int = 0,
        sparsity: Any = None,
    ) -> int:
        """A tensor; a constant if it has data, which for int4 are int8 values."""
        made = schema.TensorT()
        made.shape, made.type, made.sparsity = list(shape), getattr(schema.TensorType, dtype.upper()), sparsity
        made.name = f"t{len(self.tensors)}".encode() if self.named else None
        if scale is not None:
            made.quantization = schema.QuantizationParametersT()
            scales = np.atleast_1d(np.asarray(scale, np.float32))
            made.quantization.scale = scales
            made.quantization.zeroPoint = np.broadcast_to(np.asarray(zero_point, np.int64), scales.shape).copy()
            made.quantization.quantizedDimension = axis
        if data is not None:
            stored = np.array(data, order="C")
            if dtype == "int4":
                flat = np.pad(stored.reshape(-1).astype(np.uint8) & 15, (0, stored.size % 2))
                stored = flat[::2] | (flat[1::2] << 4)
            made.buffer = len(self.buffers)
            self.buffers.append(schema.BufferT())
            self.buffers[-1].data = np.frombuffer(stored.tobytes(), np.uint8)
        self.tensors.append(made)
        return len(self.tensors) - 1

    def input(self, shape: Sequence[int], dtype: str = "int8", scale: float | None = None, zero_point: int = 0) -> int:
        """An input of the model."""
        self.inputs.append(self.tensor(shape, dtype, scale, zero_point))
        return self.inputs[-1]

    def constant(self, data: Any, dtype: str = "int32") -> int:
        """A constant that is not quantized, such as a shape."""
        value = np.asarray(data, dtype)
        return self.tensor(value.shape, dtype, data=value)

    def operator(
        self, kind: str, inputs: Sequence[int], outputs: Sequence[int], options: str | None = None, **values: Any
    ) -> None:
        """An operator; `options` names the table of its options, whose fields are `values`."""
        code = getattr(schema.BuiltinOperator, kind)
        if code not in self.codes:
            self.codes.append(code)
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = self.codes.index(code), list(inputs), list(outputs)
        if options is not None:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            made.builtinOptions = getattr(schema, f"{options}T")()
            for name, value in values.items():
                assert hasattr(made.builtinOptions, name), name
                setattr(made.builtinOptions, name, value)
        self.operators.append(made)

    def bytes(self, *outputs: int) -> bytes:
        """The file, with these tensors as outputs."""
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs, graph.name = self.inputs, list(outputs), b"main"
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = 3, [graph], self.buffers
        model.operatorCodes = []
        for code in self.codes:
            entry = schema.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 1
            model.operatorCodes.append(entry)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def litert(content: bytes, *inputs: np.ndarray, reference: bool = True) -> list[np.ndarray]:
    """What LiteRT's reference kernels, or its optimized ones, make of one set of inputs.

    Raises:
        RuntimeError: LiteRT refuses the file.
        ValueError: The same.
    """
    kernels = OpResolverType.BUILTIN_REF if reference else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]).copy() for detail in interpreter.get_output_details()]
