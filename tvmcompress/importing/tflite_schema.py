"""What a TFLite file holds, as plain Python: tensors with their quantization, and operators in order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingToolError, UserError

_DTYPES = {
    "FLOAT32": "float32",
    "FLOAT16": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor.

    Attributes:
        name: As in the file.
        shape: Its shape.
        dtype: As NumPy names it; the file's own name where NumPy has none.
        data: The value of a constant.
        scales: float32: none, one, or one along `axis`.
        zero_points: As many.
        axis: The quantized dimension.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: np.ndarray | None
    scales: np.ndarray
    zero_points: np.ndarray
    axis: int


@dataclass(frozen=True)
class Node:
    """One operator.

    Attributes:
        kind: Its name, for instance "CONV_2D"; "CUSTOM <name>" for a custom one.
        inputs: Indices of tensors; -1 where an optional one is missing.
        outputs: Indices of tensors.
        options: The table of its options, as the schema package gives it; None without.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any


@dataclass(frozen=True)
class Graph:
    """The first subgraph of a file."""

    tensors: tuple[TensorInfo, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read(path: Path) -> Graph:
    """Read a file.

    Raises:
        UserError: The file cannot be read, is damaged, or has several subgraphs.
        MissingToolError: The schema package is not installed.
    """
    try:
        import tflite
    except ImportError:
        raise MissingToolError("reading TFLite files needs the package tflite; run: pip install tflite") from None
    try:
        buffer = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if buffer[4:8] != b"TFL3":
        raise UserError(f"{path} is not a TFLite file (its identifier is missing); convert the model again")
    try:
        model = tflite.Model.GetRootAs(buffer)
        if model.SubgraphsLength() != 1:
            raise UserError(f"{path} has {model.SubgraphsLength()} subgraphs (control flow), which cannot be imported")
        return _graph(tflite, model)
    except UserError:
        raise
    except Exception as error:  # flatbuffers and struct raise what the damage happens to hit
        raise UserError(f"{path} is damaged (truncated?); convert the model again") from error


def _names(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _array(value: Any, dtype: str) -> np.ndarray:
    return np.zeros(0, dtype) if isinstance(value, int) else np.array(value, dtype)


def _graph(tflite: Any, model: Any) -> Graph:
    subgraph = model.Subgraphs(0)
    kinds, types = _names(tflite.BuiltinOperator), _names(tflite.TensorType)
    options_names = _names(tflite.BuiltinOptions)
    tensors = tuple(_tensor(model, subgraph.Tensors(i), types) for i in range(subgraph.TensorsLength()))
    nodes = []
    for i in range(subgraph.OperatorsLength()):
        operator = subgraph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex())
        # Old files have the code in the narrow field only.
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        kind = kinds.get(number, f"operator {number}")
        if kind == "CUSTOM":
            kind = f"CUSTOM {(code.CustomCode() or b'').decode()}"
        table, options = operator.BuiltinOptions(), None
        if table is not None and operator.BuiltinOptionsType():
            options = getattr(tflite, options_names[operator.BuiltinOptionsType()])()
            options.Init(table.Bytes, table.Pos)
        inputs = tuple(int(index) for index in _array(operator.InputsAsNumpy(), "int32"))
        outputs = tuple(int(index) for index in _array(operator.OutputsAsNumpy(), "int32"))
        nodes.append(Node(kind, inputs, outputs, options))
    ends = (
        tuple(int(i) for i in _array(side, "int32")) for side in (subgraph.InputsAsNumpy(), subgraph.OutputsAsNumpy())
    )
    return Graph(tensors, tuple(nodes), *ends)


def _tensor(model: Any, tensor: Any, types: dict[int, str]) -> TensorInfo:
    shape = tuple(int(dim) for dim in _array(tensor.ShapeAsNumpy(), "int32"))
    name = types.get(tensor.Type(), str(tensor.Type()))
    dtype = _DTYPES.get(name, name)
    raw = model.Buffers(tensor.Buffer()).DataAsNumpy()
    data = None
    if not isinstance(raw, int) and dtype in _DTYPES.values():
        data = np.frombuffer(raw.tobytes(), dtype).reshape(shape).copy()
    quantization = tensor.Quantization()
    scales, zeros, axis = np.zeros(0, np.float32), np.zeros(0, np.int64), 0
    if quantization is not None:
        scales = _array(quantization.ScaleAsNumpy(), "float32")
        zeros = _array(quantization.ZeroPointAsNumpy(), "int64")
        axis = int(quantization.QuantizedDimension())
    return TensorInfo((tensor.Name() or b"").decode(), shape, dtype, data, scales, zeros, axis)
