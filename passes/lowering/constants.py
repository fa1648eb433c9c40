"""Constants and parameters of a lowering: what it reads of the old function, and what it stores in the new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .._tvm import relax, tvm
from ..graph.rebuild import Rebuilder
from ..graph.view import GraphView
from ..integer.stored_weights import unpacked
from ..numbers.int4_weights import pack_int4, spread


@dataclass(frozen=True)
class Weights:
    """A constant tensor that was quantized.

    Attributes:
        integers: Its integers less the zero point.
        scales: float32, one for all (shape (1,)) or one along `axis`.
        axis: The axis of `scales`.
        name: Name of the parameter.
    """

    integers: np.ndarray
    scales: np.ndarray
    axis: int
    name: str

    @property
    def real(self) -> np.ndarray:
        """Real values, float64."""
        shape = [-1 if a == self.axis and self.scales.size > 1 else 1 for a in range(self.integers.ndim)]
        return self.integers * self.scales.astype(np.float64).reshape(shape)


class Constants:
    """The constants of a function that is lowered, and the parameters of the one that is made.

    Attributes:
        build: The new function.
        values: What the variables of the old function are bound to.
        params: The values of the old function's parameters.
        packed: Multipliers (O, groups) and group sizes of the weights to store in four bits, by name.
    """

    def __init__(self, mod: tvm.IRModule, packed: Mapping[str, tuple[np.ndarray, int]] | None = None) -> None:
        self.build = Rebuilder(mod)
        self.packed = dict(packed or {})
        graph = GraphView(mod)
        self.values, self.params = graph.values, graph.params
        self._taken: dict[str, np.ndarray] = {}

    def source(self, expr: relax.Expr) -> relax.Expr | None:
        """What a variable is bound to, through mere renamings."""
        value = self.values.get(expr) if isinstance(expr, relax.Var) else None
        return self.source(value) if isinstance(value, relax.Var) and value in self.values else value

    def constant(self, expr: relax.Expr) -> Weights | None:
        """An operand that is a quantized constant."""
        call = self.source(expr)
        if not isinstance(call, relax.Call):
            return None
        if call.op.name == "relax.permute_dims":
            inner = self.constant(call.args[0])
            if inner is None:
                return None
            axes = [int(axis) for axis in call.attrs.axes or range(inner.integers.ndim)[::-1]]
            return Weights(inner.integers.transpose(axes), inner.scales, axes.index(inner.axis), inner.name)
        if call.op.name != "relax.dequantize":
            return None
        integers = self.build.param_value(call.args[0])
        scale, zero = self.build.param_value(call.args[1]), self.build.param_value(call.args[2])
        if integers is None or scale is None or zero is None or not np.issubdtype(integers.dtype, np.integer):
            return None
        axis = int(call.attrs.axis) % max(integers.ndim, 1)
        shape = [-1 if a == axis and zero.size > 1 else 1 for a in range(integers.ndim)]
        shifted = integers.astype(np.int64) - zero.astype(np.int64).reshape(shape)
        name = self.build.param_name(call.args[0]) or "constant"
        return Weights(shifted, scale.reshape(-1).astype(np.float32), axis, name)

    def real_constant(self, expr: relax.Expr) -> tuple[np.ndarray, str] | None:
        """(real value as float64, name) of an operand that is constant, quantized or not."""
        value = self.build.param_value(expr)
        if value is not None and np.issubdtype(value.dtype, np.floating):
            return value.astype(np.float64), self.build.param_name(expr) or "constant"
        weights = self.constant(expr)
        return (weights.real, weights.name) if weights is not None else None

    def param(self, name: str, value: np.ndarray) -> relax.Var:
        """A parameter of the new function; another value under the same name gets another name."""
        unique, count = name, 1
        while unique in self._taken and not (
            self._taken[unique].dtype == value.dtype and np.array_equal(self._taken[unique], value)
        ):
            unique, count = f"{name}.{count}", count + 1
        self._taken[unique] = value
        return self.build.param(unique, np.array(value, order="C"))

    def weight(self, name: str, value: np.ndarray, output_axis: int = 0) -> relax.Var:
        """The weight of an integer layer: a parameter, or unpacked from one in four bits.

        Args:
            name: Of the parameter that it came from.
            value: int8; the last axis counts input channels, unless it counts the outputs.
            output_axis: The axis of output channels.
        """
        multipliers, size = self.packed.get(name, (None, 0))
        if multipliers is None or len(multipliers) != value.shape[output_axis]:
            return self.param(name, value)
        last = value.ndim - 1
        shape = [-1 if axis == output_axis else 1 for axis in range(value.ndim)]
        wide = multipliers[:, 0].reshape(shape)
        if output_axis != last:
            wide = spread(multipliers, value.shape[-1], size)
            if wide.shape[1] != value.shape[-1]:
                return self.param(name, value)
            wide = wide.reshape(value.shape[0], *(1,) * (value.ndim - 2), value.shape[-1])
        values = value // wide
        if not np.array_equal(values * wide, value) or np.abs(values).max(initial=0) > 8:
            return self.param(name, value)
        packed = self.param(name, pack_int4(values))
        factors = self.param(f"{packed.name}.multipliers", multipliers)
        made = unpacked(packed, factors, shape=value.shape, output_axis=output_axis, group_size=size)
        return self.emit(made, f"{packed.name}.int8")

    def emit(self, expr: relax.Expr, name: str) -> relax.Var:
        """Bind an expression of the new function."""
        return self.build.emit(expr, name)
