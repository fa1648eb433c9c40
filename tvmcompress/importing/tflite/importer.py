"""From a TFLite file to a model: the walk over its operators, and what their converters work with.

A float tensor of an image is kept in the layout in which it was computed, channels first behind a convolution, and is
permuted only where an operator needs the other; integer operators work in the file's own layout, channels last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from ...errors import UnsupportedOperatorError, UserError
from ...model import InputSpec, Model
from ...passes import attach_params
from ...passes._tvm import relax, tvm
from ...passes.graph.interpreter import evaluate_call, plain_value
from ...passes.graph.rebuild import Rebuilder, bindings
from ...passes.graph.remarks import Remark, add_remarks
from ...passes.integer.registry import is_integer_op
from ...passes.layout.converter import to_first, to_last
from ...passes.lowering.integer_core import IOQuantization, TensorQuantization, set_io_quantization
from ...passes.pipeline import canonical_passes
from ...passes.plugins.registry import Registry
from .file import TfliteFile, TfliteOperator, TfliteTensor

DenseRounding = Literal["single", "double"]
# A converter gives one expression a result, or binds them itself.
Converter = Callable[["Importer", TfliteOperator], "relax.Expr | list[relax.Expr] | None"]

PLAIN: Registry[Converter] = Registry("operator of TFLite")
"""How operators are imported that move values, whatever these are; the results are in the file's layout."""

FLOAT: Registry[Converter] = Registry("operator of TFLite")
"""How operators on real numbers, or on integers that stand for themselves, are imported."""

INTEGER: Registry[Converter] = Registry("operator of TFLite")
"""How operators on quantized tensors are imported."""

plain, real, integer = PLAIN.register, FLOAT.register, INTEGER.register


def identifier(name: str) -> str:
    """A name that parameters and variables may have."""
    return "".join(c if c.isalnum() or c == "_" else "_" for c in name)


class Importer:
    """One import.

    Args:
        file: What is imported.
        dense_rounding: How fully connected layers round.

    Attributes:
        source: Name of the file.
        dense_rounding: How fully connected layers round.
    """

    def __init__(self, file: TfliteFile, dense_rounding: DenseRounding) -> None:
        self.source, self.dense_rounding = file.source, dense_rounding
        self._file = file
        names: set[str] = set()
        inputs = [relax.Var(_unique(identifier(t.name), names), relax.TensorType(t.shape, t.dtype)) for t in file.inputs]
        self.build = Rebuilder(_identity(inputs))
        # What is known of each tensor: in the file's layout, and channels first.
        self._last: dict[int, relax.Expr] = {t.index: var for t, var in zip(file.inputs, self.build.inputs)}
        self._first: dict[int, relax.Expr] = {}
        self._native_first: set[int] = set()
        self._params: dict[int, relax.Expr] = {}
        self._param_names: set[str] = set()
        self._remarks: list[Remark] = []
        self._shadows = 0

    # What converters work with

    def value(self, tensor: TfliteTensor) -> relax.Expr:
        """A tensor in the file's layout: an input, computed before, or a constant as a parameter."""
        if tensor.data is not None and tensor.index not in self._last:
            return self._constant(tensor)
        if tensor.index not in self._last:
            if tensor.index not in self._first:
                raise UserError(f"{self.source}: '{tensor.name}' is read before it is computed, and is no constant")
            self._last[tensor.index] = self._permuted(tensor, self._first[tensor.index], to_last)
        return self._last[tensor.index]

    def first(self, tensor: TfliteTensor) -> relax.Expr:
        """A tensor with its channels, the last axis in the file, on axis 1."""
        if tensor.index not in self._first:
            self._first[tensor.index] = self._permuted(tensor, self.value(tensor), to_first)
        return self._first[tensor.index]

    def is_first(self, tensor: TfliteTensor) -> bool:
        """Whether a tensor was computed with its channels on axis 1."""
        return tensor.index in self._native_first

    def bind(self, tensor: TfliteTensor, expr: relax.Expr, *, first: bool = False) -> None:
        """Say what a tensor of the file is.

        Args:
            tensor: The tensor.
            expr: Its value.
            first: Whether the channels are on axis 1.
        """
        var = expr if isinstance(expr, relax.Var) else self.emit(expr, identifier(tensor.name))
        (self._first if first else self._last)[tensor.index] = var
        if first:
            self._native_first.add(tensor.index)

    def emit(self, expr: relax.Expr, name: str = "value") -> relax.Var:
        """Bind an expression to a variable."""
        return self.build.emit(expr, name)

    def param(self, name: str, value: np.ndarray) -> relax.Var:
        """A parameter of its own; a name that is taken gets a number."""
        return self.build.param(_unique(identifier(name), self._param_names), np.array(value, order="C"))

    def set_constant(self, operator: TfliteOperator, value: np.ndarray) -> None:
        """Let the operators that follow find the result of this one as a constant."""
        self._file.set_constant(operator.output, value.astype(operator.output.dtype))

    def moved(self, tensor: TfliteTensor) -> tuple[relax.Expr, list[int]]:
        """A tensor in the layout in which it was computed, and where each axis of the file is there."""
        rank = len(tensor.shape)
        if not self.is_first(tensor) or rank < 3:
            return self.value(tensor), list(range(rank))
        return self.first(tensor), [to_first(rank).index(axis) for axis in range(rank)]

    def remark(self, operator: TfliteOperator, text: str) -> None:
        """Tell the user something about an operator."""
        self._remarks.append(Remark("import", f"{operator.kind} '{operator.output.name}'", text))

    def refuse(self, operator: TfliteOperator, reason: str) -> UnsupportedOperatorError:
        """The error that says why an operator cannot be imported."""
        return UnsupportedOperatorError(f"{operator.place}, of {self.source} cannot be imported: {reason}")

    # The walk

    def run(self) -> Model:
        """The model."""
        for operator in self._file.operators():
            self._import(operator)
        ends = [self.value(tensor) for tensor in self._file.outputs]
        mod = self.build.finish(ends[0] if len(ends) == 1 else relax.Tuple(ends))
        integers = any(is_integer_op(value) for _, value in bindings(mod["main"]))
        if integers:
            mod = self._with_io(mod)
        else:
            mod = tvm.transform.Sequential(canonical_passes())(mod)
        specs = tuple(
            InputSpec(name=var.name, shape=t.shape, dtype=t.dtype, layout="NHWC" if len(t.shape) == 4 else None)
            for var, t in zip(self.build.inputs, self._file.inputs)
        )
        return Model(
            module=add_remarks(mod, self._remarks) if self._remarks else mod,
            inputs=specs,
            outputs=tuple(tensor.name for tensor in self._file.outputs),
            provenance=(f"imported from {self.source}, TFLite, {'integer' if integers else 'float'}",),
        )

    def _import(self, operator: TfliteOperator) -> None:
        start = len(self.build.emitted)
        self._convert(operator)
        known = all(t is None or t.data is not None for t in operator.inputs)
        if operator.inputs and known and self._file.tensor(operator.output.index).data is None:
            self._fold(operator, start)

    def _convert(self, operator: TfliteOperator) -> None:
        kind, main = operator.kind, operator.output
        quantized = main.is_quantized and not main.is_float
        converter = PLAIN.get(kind) or (INTEGER if quantized else FLOAT).get(kind)
        if converter is None and quantized and kind in FLOAT:
            converter = Importer.in_float
        if converter is None and kind in INTEGER:
            raise self.refuse(operator, f"it gives {main.dtype} here; only its quantized form is known")
        if converter is None:
            raise UnsupportedOperatorError(f"{operator.place}, of {self.source} cannot be imported")
        if quantized and kind not in PLAIN and main.dtype not in ("int8", "int16"):
            raise self.refuse(operator, f"it computes in {main.dtype}; convert the model with int8 or int16 activations")
        self._bind(operator, converter(self, operator))

    def _bind(self, operator: TfliteOperator, results: relax.Expr | list[relax.Expr] | None) -> None:
        if results is None:
            return
        several = results if isinstance(results, list) else [results]
        for tensor, expr in zip(operator.outputs, several, strict=True):
            self.bind(tensor, expr)

    def in_float(self, operator: TfliteOperator) -> list[relax.Expr]:
        """Import an operator that has no integer form between dequantization and quantization, with a remark.

        Raises:
            UnsupportedOperatorError: It has no form in float either.
        """
        if operator.kind not in FLOAT:
            raise self.refuse(operator, f"it has no form for {operator.operand(0).dtype}")
        shadows = tuple(self._dequantized(t) if t is not None and t.is_quantized else t for t in operator.inputs)
        in_real = replace(operator, inputs=shadows, outputs=tuple(self._shadow(t) for t in operator.outputs))
        self._bind(in_real, FLOAT[operator.kind](self, in_real))
        self.remark(operator, "has no integer form and is computed in float: single steps may differ from LiteRT's")
        return [quantized(self.value(shadow), tensor) for tensor, shadow in zip(operator.outputs, in_real.outputs, strict=True)]

    def _dequantized(self, tensor: TfliteTensor) -> TfliteTensor:
        shadow = self._shadow(tensor)
        if tensor.data is not None:
            return replace(shadow, data=real_values(tensor))
        self.bind(shadow, dequantized(self.value(tensor), tensor))
        return shadow

    def _shadow(self, tensor: TfliteTensor) -> TfliteTensor:
        self._shadows += 1
        none = np.zeros(0, np.float32)
        return replace(tensor, index=-self._shadows, dtype="float32", scales=none, zero_points=none, data=None)

    def _fold(self, operator: TfliteOperator, start: int) -> None:
        """Compute what depends on constants only, so that operators that need a constant find one."""
        known: dict[relax.Expr, np.ndarray] = {}

        def look(expr: relax.Expr) -> Any:
            if isinstance(expr, relax.Tuple):
                return tuple(look(field) for field in expr.fields)
            if isinstance(expr, relax.Var):
                stored = self.build.new_param_value(expr)
                return known[expr] if stored is None else stored
            if isinstance(expr, relax.TupleGetItem):
                return look(expr.tuple_value)[int(expr.index)]
            if isinstance(expr, relax.Call):
                return evaluate_call(expr, [look(arg) for arg in expr.args])
            return plain_value(expr)

        for binding in self.build.emitted[start:]:
            known[binding.var] = look(binding.value)
        for tensor in operator.outputs:
            value = np.asarray(look(self.value(tensor)))
            self._file.set_constant(tensor, value)
            for table in (self._last, self._first):
                table.pop(tensor.index, None)
            self._native_first.discard(tensor.index)

    def _constant(self, tensor: TfliteTensor) -> relax.Expr:
        if tensor.index not in self._params:
            value = tensor.data
            assert value is not None
            floats = value.dtype.kind == "f"
            # Indices and shapes stand in the graph itself.
            self._params[tensor.index] = (
                self.param(tensor.name, value.astype(np.float32) if floats else value)
                if floats or tensor.is_quantized
                else relax.const(value)
            )
        return self._params[tensor.index]

    def _permuted(self, tensor: TfliteTensor, expr: relax.Expr, order: Callable[[int], tuple[int, ...]]) -> relax.Expr:
        rank = len(tensor.shape)
        if rank < 3:
            return expr
        return self.emit(relax.op.permute_dims(expr, list(order(rank))), f"{identifier(tensor.name)}.permuted")

    def _with_io(self, mod: tvm.IRModule) -> tvm.IRModule:
        """Tell how the integers that go in and out are to be read; float ends are left to `IntegerCore`."""
        inputs, outputs = self._file.inputs, self._file.outputs
        if all(t.is_float for t in (*inputs, *outputs)):
            return mod
        io = IOQuantization(
            inputs=tuple(_quantization(t, var.name) for t, var in zip(inputs, self.build.inputs)),
            outputs=tuple(_quantization(t, f"output{index}") for index, t in enumerate(outputs)),
        )
        return set_io_quantization(mod, io)


def real_values(tensor: TfliteTensor) -> np.ndarray:
    """The real numbers that a constant stands for, float32."""
    assert tensor.data is not None
    if not tensor.is_quantized:
        return tensor.data.astype(np.float32)
    shape = [-1 if axis == tensor.axis and tensor.scales.size > 1 else 1 for axis in range(len(tensor.shape))]
    steps = tensor.data.astype(np.float32) - tensor.zero_points.astype(np.float32).reshape(shape)
    return steps * tensor.scales.reshape(shape)


def dequantized(expr: relax.Expr, tensor: TfliteTensor) -> relax.Expr:
    """The real numbers of a quantized tensor."""
    zero = relax.const(np.asarray(tensor.zero_point, tensor.dtype))
    return relax.op.dequantize(expr, relax.const(np.float32(tensor.scale)), zero, axis=-1)


def quantized(expr: relax.Expr, tensor: TfliteTensor) -> relax.Expr:
    """The integers of real numbers, as a tensor of the file says."""
    zero = relax.const(np.asarray(tensor.zero_point, tensor.dtype))
    return relax.op.quantize(expr, relax.const(np.float32(tensor.scale)), zero, axis=-1, out_dtype=tensor.dtype)


def _quantization(tensor: TfliteTensor, name: str) -> TensorQuantization:
    """Quantized images are NHWC here and NCHW in float models."""
    shape = tensor.shape
    if not tensor.is_quantized:
        return TensorQuantization(name, shape, shape, tuple(range(len(shape))), tensor.dtype)
    image = len(shape) == 4
    return TensorQuantization(
        name=name,
        float_shape=(shape[0], shape[3], shape[1], shape[2]) if image else shape,
        shape=shape,
        axes=(0, 2, 3, 1) if image else (),
        dtype=tensor.dtype,
        scale=tensor.scale,
        zero_point=tensor.zero_point,
        layout="NHWC" if image else "",
    )


def _unique(name: str, taken: set[str]) -> str:
    unique, count = name, 1
    while unique in taken:
        unique, count = f"{name}.{count}", count + 1
    taken.add(unique)
    return unique


def _identity(inputs: list[relax.Var]) -> tvm.IRModule:
    """A module that returns its inputs, to be rebuilt."""
    builder = relax.BlockBuilder()
    with builder.function("main", inputs, attrs={"num_input": len(inputs)}):
        with builder.dataflow():
            out = builder.emit_output(relax.Tuple(inputs))
        builder.emit_func_output(out)
    return attach_params(builder.get(), {})
