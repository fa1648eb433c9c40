"""Writing an ONNX graph operator by operator: names, constants, and the table of what can be written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..errors import UnsupportedOperatorError, UserError
from ..passes._tvm import Constant, relax, tirx, tvm
from ..passes.graph.module_params import input_vars, static_shape
from ..passes.graph.view import GraphView
from ..passes.plugins.registry import Registry

OPSET, IR_VERSION = 17, 8
# The first with int16 in QuantizeLinear, and the version of the format that it came with.
WIDE_OPSET, WIDE_IR_VERSION = 21, 10
# The operators whose bias ONNX takes as an operand.
_BIASED = ("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d", "relax.matmul")

Rule = Callable[["Writer", relax.Call], "str | list[str]"]
"""Given the writer and the call; gives the name of the tensor that it computed, or a list for an operator of several results;
raises `CannotWriteError` when ONNX has no form for the call."""

RULES: Registry[Rule] = Registry("ONNX form", prefix="relax.")
"""By the full name of the operator; `onnx_rule` takes names without their prefix."""

onnx_rule = RULES.register


class CannotWriteError(Exception):
    """A rule does not fit; the message completes the sentence 'cannot be written as ONNX: ...'."""


class Writer:
    """One graph that is being written.

    Attributes:
        bias: The bias of the convolution or matrix product that is being written: an expression, or None.
    """

    def __init__(self, mod: tvm.IRModule) -> None:
        self._graph = GraphView(mod)
        self._main, self._values = self._graph.main, self._graph.values
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, np.ndarray] = {}
        self._known: dict[tuple[str, str, tuple[int, ...], bytes], str] = {}
        self._tensors: dict[relax.Var, str | list[str]] = {}
        self._taken: set[str] = set()
        self._stem = ""
        self.bias: relax.Expr | None = None

    # The graph

    def write(self, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.GraphProto:
        """The graph of `main`, its inputs and outputs under the names given.

        Raises:
            UnsupportedOperatorError: An operator cannot be written; the message names it and its layer.
        """
        # Layers must not take the names of the ends.
        self._taken.update((*inputs, *outputs))
        given = []
        for var, label in zip(input_vars(self._main), inputs):
            self._tensors[var] = label
            given.append(helper.make_tensor_value_info(label, _element_type(str(var.ty.dtype)), static_shape(var)))
        for var, value in self._values.items():
            self._bind(var, value)
        made = self._results(outputs)
        graph = helper.make_graph(self._nodes, name, given, made)
        used = {label for node in self._nodes for label in node.input}
        graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in self._initializers.items() if k in used)
        return graph

    def _bind(self, var: relax.Var, value: relax.Expr) -> None:
        if not isinstance(value, relax.Call) or self._is_inside(var, value) or self._is_stored(value):
            return  # read through where it is read
        self.bias, call = None, value
        if call.op.name == "relax.add" and (layer := self._layer(call)) is not None:
            self.bias, call = call.args[1], layer
        rule = RULES.get(getattr(call.op, "name", ""))
        name = str(getattr(call.op, "name", call.op)).removeprefix("relax.")
        if rule is None:
            raise UnsupportedOperatorError(
                f"layer '{var.name}' uses operator {name}, which cannot be written as ONNX; leave the layer out, or "
                "save the model as .tvmc"
            )
        self._stem = var.name
        try:
            made = rule(self, call)
        except CannotWriteError as error:
            raise UnsupportedOperatorError(f"layer '{var.name}' ({name}) cannot be written as ONNX: {error}") from None
        if isinstance(made, str) and self._nodes and self._nodes[-1].output[0] == made:
            self._taken.discard(made)
            made = self.fresh(var.name)
            self._nodes[-1].name = self._nodes[-1].output[0] = made
        self._tensors[var] = made

    def _results(self, outputs: Sequence[str]) -> list[onnx.ValueInfoProto]:
        result = self._source(self._main.body.body)
        fields = list(result.fields) if isinstance(result, relax.Tuple) else [result]
        ends = {*self._initializers, *(value for value in self._tensors.values() if isinstance(value, str))}
        inputs = {str(self._tensors[var]) for var in input_vars(self._main)}
        new: dict[str, str] = {}
        for label, field in zip(outputs, fields):
            name = self.tensor(field)
            if name in new or name in inputs or name not in ends or name in self._initializers:
                self._nodes.append(helper.make_node("Identity", [name], [label], name=label))
            else:
                new[name] = label
        for node in self._nodes:
            node.input[:] = [new.get(name, name) for name in node.input]
            node.output[:] = [new.get(name, name) for name in node.output]
            node.name = new.get(node.name, node.name)
        return [
            helper.make_tensor_value_info(label, _element_type(str(field.ty.dtype)), static_shape(field))
            for label, field in zip(outputs, fields)
        ]

    # Reading the module

    def _source(self, expr: relax.Expr) -> relax.Expr:
        """What a variable that is only another name stands for."""
        while isinstance(expr, relax.Var):
            value = self._values.get(expr)
            if isinstance(value, relax.TupleGetItem):
                return value
            if not isinstance(value, (relax.Var, relax.Tuple, Constant)):
                return expr
            expr = value
        return expr

    def call_of(self, expr: relax.Expr) -> relax.Call | None:
        """The call that computes an expression, if one does."""
        value = self._values.get(self._source(expr)) if isinstance(expr, relax.Var) else None
        return value if isinstance(value, relax.Call) else None

    def _is_stored(self, call: relax.Call) -> bool:
        """Whether a call dequantizes a constant: written where it is read."""
        return call.op.name == "relax.dequantize" and self.value(call.args[0]) is not None

    def _layer(self, call: relax.Call) -> relax.Call | None:
        """The convolution or matrix product whose bias `call`, an addition, adds."""
        first, second = call.args
        layer = self._graph.call(first)
        if layer is None or getattr(layer.op, "name", "") not in _BIASED:
            return None
        stored = self.call_of(second)
        value = self.value(stored.args[0] if stored is not None and self._is_stored(stored) else second)
        shape = static_shape(first)
        matrix = layer.op.name == "relax.matmul"
        if value is None or not self._graph.is_alone(first) or (matrix and not self._is_dense(layer)):
            return None
        wanted = (shape[-1],) if matrix else (1, shape[1]) + (1,) * (len(shape) - 2)
        return layer if value.shape == wanted else None

    def _is_dense(self, call: relax.Call) -> bool:
        return all(len(static_shape(arg)) == 2 for arg in call.args)

    def _is_inside(self, var: relax.Var, value: relax.Call) -> bool:
        """Whether the one reader of a layer is the addition of its bias, with which it is written."""
        if getattr(value.op, "name", "") not in _BIASED:
            return False
        reader = self._graph.sole_reader(var)
        if reader is None or getattr(reader[1].op, "name", "") != "relax.add":
            return False
        return reader[1].args[0].same_as(var) and self._layer(reader[1]) is not None

    def value(self, expr: relax.Expr) -> np.ndarray | None:
        """The value of a parameter or constant; None for what is computed."""
        expr = self._source(expr)
        if isinstance(expr, Constant):
            return expr.value.numpy()
        return self._graph.params.get(expr) if isinstance(expr, relax.Var) else None

    # What rules use

    def tensor(self, expr: relax.Expr) -> str:
        """The name of an operand."""
        expr = self._source(expr)
        if isinstance(expr, relax.TupleGetItem):
            parts = self._tensors[self._source(expr.tuple_value)]
            return parts[int(expr.index)]
        if isinstance(expr, relax.Var) and expr in self._tensors:
            return str(self._tensors[expr])
        value = self.value(expr)
        if value is not None:
            return self.constant(value, expr.name if isinstance(expr, relax.Var) else None)
        call = self.call_of(expr)
        if isinstance(expr, relax.Var) and call is not None and self._is_stored(call):
            name = self._tensors[expr] = self.dequantized(call)
            return name
        raise CannotWriteError(f"its operand {expr} is not a tensor")

    def dequantized(self, call: relax.Call, flat: bool = False) -> str:
        """A dequantized constant; `flat` as a vector."""
        q, scale, zero = (self.value(arg) for arg in call.args)
        assert q is not None
        if scale is None or zero is None:
            raise CannotWriteError("its scale is not constant")
        param = self._source(call.args[0])
        stem = param.name if isinstance(param, relax.Var) else f"{self._stem}.constant"
        axis = 0 if flat else int(call.attrs.axis) % max(q.ndim, 1)
        operands = [
            self.constant(q.reshape(-1) if flat else q, stem),
            self.constant(scale.reshape(-1) if scale.size > 1 else scale.reshape(()), f"{stem}.scale"),
        ]
        if q.dtype != np.int32:
            operands.append(self.constant(zero.reshape(-1) if zero.size > 1 else zero.reshape(()), f"{stem}.zero_point"))
        return self.emit("DequantizeLinear", operands, name=f"{stem}.dequantized", **({"axis": axis} if scale.size > 1 else {}))

    def bias_vector(self) -> str | None:
        """The bias of the layer being written, as a vector."""
        if self.bias is None:
            return None
        value = self.value(self.bias)
        if value is None:
            call = self.call_of(self.bias)
            assert call is not None
            return self.dequantized(call, flat=True)
        source = self._source(self.bias)
        return self.constant(value.reshape(-1), source.name if isinstance(source, relax.Var) else None)

    def constant(self, value: np.ndarray | Sequence[int], name: str | None = None) -> str:
        """An initializer; equal ones of the same name are one. Integers given as a list become int64."""
        array = np.array(value, np.int64) if not isinstance(value, np.ndarray) else np.array(value, order="C")
        stem = name or f"{self._stem}.constant"
        key = (stem, array.dtype.name, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self.fresh(stem)
            self._initializers[self._known[key]] = array
        return self._known[key]

    def emit(self, kind: str, inputs: Sequence[str], *, name: str | None = None, count: int = 1, **attrs: Any) -> str:
        """A node; the name of its first result."""
        return self.emit_all(kind, inputs, name=name, count=count, **attrs)[0]

    def emit_all(self, kind: str, inputs: Sequence[str], *, name: str | None = None, count: int = 1, **attrs: Any) -> list[str]:
        """A node; the names of all its results."""
        outputs = [self.fresh(name or f"{self._stem}.{kind.lower()}") for _ in range(count)]
        self._nodes.append(helper.make_node(kind, list(inputs), outputs, name=outputs[0], **attrs))
        return outputs

    def fresh(self, stem: str) -> str:
        """A name that is not taken."""
        name, count = stem, 1
        while name in self._taken:
            name, count = f"{stem}.{count}", count + 1
        self._taken.add(name)
        return name


def numbers(expr: relax.Expr) -> list[int]:
    """A tuple or shape of integers among the operands of a call."""
    if isinstance(expr, relax.ShapeExpr):
        return [int(dim) for dim in expr.values]
    if isinstance(expr, relax.Tuple):
        return [int(number(field)) for field in expr.fields]
    raise CannotWriteError("it has an operand that is not constant")


def number(expr: relax.Expr) -> float:
    """A plain number among the operands of a call."""
    if not isinstance(expr, (tirx.IntImm, tirx.FloatImm)):
        raise CannotWriteError("it has an operand that is not constant")
    return expr.value


def dtype_of(expr: relax.Expr) -> np.dtype:
    """The dtype of a tensor."""
    return np.dtype(str(expr.ty.dtype))


def _element_type(dtype: str) -> int:
    try:
        return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    except (TypeError, KeyError, ValueError):
        raise UserError(f"a tensor of dtype {dtype} cannot be written as ONNX") from None
