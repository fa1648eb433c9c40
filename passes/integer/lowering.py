"""From quantize and dequantize operators to integer operators: the walk over the graph, and what rules work with.

A value that comes out of `dequantize` is known as integers. At every `quantize` the computation in front of it, back
to known integers, is matched by a rule and becomes integer operators. Float code is made only on demand: where no rule
fits, and at the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from .._tvm import Constant, relax, tvm
from ..affine import Affine, Range, affine_of_range
from ..int4_weights import pack_int4, spread
from ..layout_converter import to_first, to_last
from ..layout_rules import with_attrs
from ..module_params import input_vars, param_vars, static_shape
from ..pointwise import evaluate, pointwise_operands
from ..quantization_kinds import REARRANGING, TRANSPOSED, is_float, op_name
from ..rebuild import Rebuilder, bindings
from ..remarks import Remark
from .ops import interpolated_table, qlut, qrequantize
from .requantize import quantize_multiplier
from .stored_weights import unpacked

_INFINITE = float("inf")
_STEPS = {"relax.nn.relu", "relax.nn.relu6", "relax.clip"}


@dataclass(frozen=True)
class Integers:
    """A tensor known as integers.

    Attributes:
        expr: The int8 tensor in the new function.
        affine: How it is to be read.
    """

    expr: relax.Expr
    affine: Affine


@dataclass(frozen=True)
class Wanted:
    """The result that a rule must give.

    Attributes:
        affine: Scale and zero point.
        low: Lower end of a clip of the real value, the fused activation.
        high: Upper end.
        name: Name of the tensor.
    """

    affine: Affine
    low: float
    high: float
    name: str

    @property
    def limits(self) -> tuple[int, int]:
        """The clip as integers: (qmin, qmax)."""
        return self.affine.clip_limits(self.low, self.high)


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


class CannotLowerError(Exception):
    """A rule does not fit; the message completes the sentence 'stays in float: ...'."""


Rule = Callable[["Lowering", relax.Var, relax.Call, Wanted], relax.Expr]
_RULES: dict[str, Rule] = {}
_WIDE: set[str] = set()


def lowering_rule(*names: str, wide: bool = False) -> Callable[[Rule], Rule]:
    """Register how Relax operators, named without their prefix, are lowered.

    The rule gets the lowering, the operator's variable, its call and what is wanted, and returns an integer expression
    that has the wanted scale, zero point, dtype and clip; it raises `CannotLowerError` when it does not fit.

    Args:
        names: Of the operators.
        wide: Whether operands and result may be int16.
    """

    def register(rule: Rule) -> Rule:
        for name in names:
            _RULES[f"relax.{name}"] = rule
            if wide:
                _WIDE.add(f"relax.{name}")
        return rule

    return register


class Lowering:
    """One lowering of a channels-last module in QDQ form.

    Attributes:
        build: The new function.
        values: What the variables of the old function are bound to.
        params: The values of the old function's parameters.
        rounding: "double" or "single".
        packed: Multipliers (O, groups) and group sizes of the weights to store in four bits, by name.
    """

    def __init__(
        self, mod: tvm.IRModule, rounding: str, packed: Mapping[str, tuple[np.ndarray, int]] | None = None
    ) -> None:
        self.build = Rebuilder(mod)
        self.rounding = rounding
        self.packed = dict(packed or {})
        self.values = dict(bindings(self.build.source))
        self.params = {var: self.build.old_params[var.name] for var in param_vars(self.build.source)}
        # Integer variables of the old function in the new one, and how they are to be read.
        self._integers: dict[relax.Var, relax.Expr] = {}
        self._tensors: dict[relax.Var, Integers] = {}
        self._floats: dict[relax.Var, relax.Expr] = {
            var: self.build.values[var] for var in input_vars(self.build.source)
        }
        self._done: dict[tuple[relax.Var, Affine, float, float], relax.Expr] = {}
        self._taken: dict[str, np.ndarray] = {}
        self._reasons: dict[relax.Var, str] = {}
        self._stayed: list[relax.Var] = []
        self.scales: dict[str, Affine] = {}

    def run(self) -> tvm.IRModule:
        """The module with integer operators."""
        for var, value in bindings(self.build.source):
            if not isinstance(value, relax.Call):
                continue
            name = getattr(value.op, "name", "")
            if name == "relax.quantize":
                self._quantize(var, value)
            elif name == "relax.dequantize":
                self._dequantize(var, value)
            elif self._is_integer(var) and all(self._known(arg) for arg in value.args):
                args = [self._integers.get(arg, arg) if isinstance(arg, relax.Var) else arg for arg in value.args]
                self._integers[var] = self.build.emit(relax.Call(value.op, args, value.attrs, value.ty_args), var.name)
        return self.build.finish(self._float(self.build.source.body.body))

    def remarks(self) -> list[Remark]:
        """What stayed in float, and why."""
        found = []
        for var in self._stayed:
            op = self.values[var].op.name.removeprefix("relax.")
            known = self.values[var].op.name in _RULES
            other = "its operands or its result are not quantized" if known else "it has no integer form"
            reason = self._reasons.get(var, other)
            found.append(Remark("LowerQDQ", var.name, f"{op} stays in float: {reason}"))
        return found

    # What rules ask

    def source(self, expr: relax.Expr) -> relax.Expr | None:
        """What a variable is bound to, through mere renamings."""
        value = self.values.get(expr) if isinstance(expr, relax.Var) else None
        return self.source(value) if isinstance(value, relax.Var) and value in self.values else value

    def integers(self, expr: relax.Expr) -> Integers:
        """An operand as integers.

        Raises:
            CannotLowerError: It is not known as integers.
        """
        while (
            isinstance(expr, relax.Var) and expr not in self._tensors and isinstance(self.values.get(expr), relax.Var)
        ):
            expr = self.values[expr]
        if isinstance(expr, relax.Var) and expr not in self._tensors:
            self._move_integers(expr)
        if not isinstance(expr, relax.Var) or expr not in self._tensors:
            raise CannotLowerError(f"its operand {getattr(expr, 'name', '')} is not quantized")
        return self._tensors[expr]

    def _move_integers(self, var: relax.Var) -> None:
        """Know a tensor as integers that is moved from one known as integers, without a quantization of its own."""
        call = self.values.get(var)
        if not isinstance(call, relax.Call) or op_name(call) not in REARRANGING or not is_float(var):
            return
        x = self.integers(call.args[0])
        moved = relax.Call(call.op, [x.expr, *list(call.args)[1:]], call.attrs, call.ty_args)
        self._tensors[var] = Integers(self.emit(moved, var.name), x.affine)

    def is_integers(self, expr: relax.Expr) -> bool:
        """Whether an operand is known as integers."""
        return isinstance(expr, relax.Var) and expr in self._tensors

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

    def rescaled(self, tensor: Integers, wanted: Wanted) -> relax.Expr:
        """Integers as they are wanted: the same ones, or requantized and clipped."""
        qmin, qmax = wanted.limits
        if tensor.affine == wanted.affine and (qmin, qmax) == wanted.affine.limits:
            return tensor.expr
        multiplier, shift = self.factor(tensor.affine.scale / wanted.affine.scale)
        return qrequantize(
            tensor.expr,
            input_zero_point=tensor.affine.zero_point,
            output_zero_point=wanted.affine.zero_point,
            multiplier=multiplier,
            shift=shift,
            qmin=qmin,
            qmax=qmax,
            rounding=self.rounding,
            out_dtype=wanted.affine.dtype,
        )

    def then_rescaled(self, expr: relax.Expr, affine: Affine, wanted: Wanted) -> relax.Expr:
        """An operator that keeps the scale of its input, and the change to the scale that is wanted, if it is another."""
        if affine == wanted.affine and wanted.limits == wanted.affine.limits:
            return expr
        return self.rescaled(Integers(self.emit(expr, f"{wanted.name}.unscaled"), affine), wanted)

    def factor(self, factor: float) -> tuple[int, int]:
        """A requantization factor as (multiplier, shift).

        Raises:
            CannotLowerError: It is out of range.
        """
        try:
            return quantize_multiplier(factor, self.rounding)
        except ValueError as error:
            raise CannotLowerError(f"its scales do not fit: {error}") from None

    def scaled(self, x: relax.Expr, factor: float, wanted: Wanted) -> relax.Expr:
        """x * factor as it is wanted: x computed onto another scale.

        Raises:
            CannotLowerError: x has no integer form.
        """
        affine = replace(wanted.affine, scale=wanted.affine.scale / factor)
        inner = Wanted(affine, wanted.low / factor, wanted.high / factor, wanted.name)
        found = self._apply(x, inner) if isinstance(x, relax.Var) else None
        if found is None:
            raise CannotLowerError(f"its operand {getattr(x, 'name', '')} is not quantized")
        return found

    def plain(self, expr: relax.Expr) -> relax.Expr:
        """An operand that is no activation, such as indices or a condition, in the new function."""
        if not isinstance(expr, (relax.Var, relax.Tuple)):
            return expr
        root = self._root(expr) if str(getattr(expr.ty, "dtype", "")) == "bool" else None
        if root is None or self._tensors[root].affine.dtype == "int16":
            return self._float(expr)
        # A condition on a tensor known as integers: a table of zeros and ones.
        table = self.param(f"{expr.name}.table", self._evaluated(expr, root).astype(bool).astype(np.int8))
        flags = self.emit(qlut(self._tensors[root].expr, table), expr.name)
        return self.emit(relax.op.not_equal(flags, relax.const(0, "int8")), expr.name)

    # The walk

    def _is_integer(self, var: relax.Var) -> bool:
        return isinstance(var.ty, relax.TensorType) and str(var.ty.dtype) in ("int8", "uint8", "int16")

    def _known(self, expr: relax.Expr) -> bool:
        return not isinstance(expr, relax.Var) or expr in self._integers

    def _affine(self, call: relax.Call, dtype: str) -> Affine | None:
        """The scale and zero point of a quantize or dequantize, for int8 or int16; None when there are several."""
        scale, zero = self.build.param_value(call.args[1]), self.build.param_value(call.args[2])
        if scale is None or zero is None or scale.size != 1 or zero.size != 1:
            return None
        if dtype not in ("int8", "uint8", "int16"):
            return None
        # Unsigned integers are kept less 128: the same bytes with the top bit flipped.
        offset = 128 if dtype == "uint8" else 0
        return Affine(float(scale.reshape(())), int(zero.reshape(())) - offset, "int16" if dtype == "int16" else "int8")

    def _quantize(self, var: relax.Var, call: relax.Call) -> None:
        affine = self._affine(call, str(var.ty.dtype))
        x = call.args[0]
        if affine is None or not (isinstance(x, relax.Var)):
            return
        new = self._lower(x, affine)
        if new is None:
            name = f"{x.name}.quantized"
            new = self.emit(relax.op.quantize(self._float(x), *_constants(affine), out_dtype=affine.dtype), name)
        self._integers[var] = new

    def _dequantize(self, var: relax.Var, call: relax.Call) -> None:
        q = call.args[0]
        if not isinstance(q, relax.Var) or q not in self._integers:
            return
        affine = self._affine(call, str(q.ty.dtype))
        if affine is not None:
            self._tensors[var] = Integers(self._integers[q], affine)
            self.scales[self._integers[q].name] = affine

    def _lower(self, x: relax.Var, affine: Affine) -> relax.Expr | None:
        """The integers of a float tensor, computed in integers; None when that cannot be done."""
        y, low, high = self._through_clips(x)
        key = (y, affine, low, high)
        if key in self._done:
            return self._done[key]
        found = self._apply(y, Wanted(affine, low, high, x.name))
        if found is None:
            found = self._table(x, affine)
        if found is None:
            return None
        result = found if isinstance(found, relax.Var) else self.emit(found, x.name)
        self._done[key] = result
        return result

    def _through_clips(self, x: relax.Var) -> tuple[relax.Var, float, float]:
        """The tensor behind the ReLUs and clips that end in `x`, and what they clip it to."""
        low, high = -_INFINITE, _INFINITE
        while not self.is_integers(x):
            call = self.source(x)
            if (
                not isinstance(call, relax.Call)
                or call.op.name not in _STEPS
                or not isinstance(call.args[0], relax.Var)
            ):
                break
            ends = (0.0, 6.0 if call.op.name == "relax.nn.relu6" else _INFINITE)
            if call.op.name == "relax.clip":
                ends = (float(call.args[1].value), float(call.args[2].value))
            low, high = min(max(ends[0], low), high), max(min(ends[1], high), low)
            x = call.args[0]
        return x, low, high

    def _apply(self, y: relax.Var, wanted: Wanted) -> relax.Expr | None:
        try:
            if self.is_integers(y):
                return self.rescaled(self._tensors[y], wanted)
            value = self.source(y)
            if isinstance(value, relax.TupleGetItem):
                call = self.source(value.tuple_value)
                return self._by_rule(y, call, wanted)
            return self._by_rule(y, value, wanted)
        except CannotLowerError as reason:
            self._reasons[y] = str(reason)
            return None

    def _by_rule(self, y: relax.Var, call: relax.Expr | None, wanted: Wanted) -> relax.Expr | None:
        name = getattr(call.op, "name", "") if isinstance(call, relax.Call) else ""
        rule = _RULES.get(name)
        if rule is None:
            return None
        if name not in _WIDE:
            operands = [self._tensors[var] for var in relax.analysis.free_vars(call) if var in self._tensors]
            if "int16" in (wanted.affine.dtype, *(tensor.affine.dtype for tensor in operands)):
                raise CannotLowerError("it has no form for int16")
        return rule(self, y, call, wanted)

    def _table(self, x: relax.Var, affine: Affine) -> relax.Expr | None:
        """A chain of pointwise operators on one tensor, as a table."""
        root = self._root(x)
        if root is None or root.same_as(x):
            return None
        tensor = self._tensors[root]
        if tensor.affine.dtype == "int16":
            return self._wide_table(x, root, affine)
        values = self._evaluated(x, root)
        if not np.isfinite(values).all():
            self._reasons[x] = "it is not finite for all values of its operand"
            return None
        table = self.param(f"{x.name}.table", affine.quantize(values))
        return qlut(tensor.expr, table)

    def _wide_table(self, x: relax.Var, root: relax.Var, affine: Affine) -> relax.Expr | None:
        """A table with interpolation; an int8 result is requantized from one of all 16 bits."""
        tensor = self._tensors[root]
        steps = np.arange(-32768, 32769, 64).astype(np.float32) * np.float32(tensor.affine.scale)
        values = evaluate(x, root, steps, self.source, self.params)
        if not np.isfinite(values).all():
            self._reasons[x] = "it is not finite for all values of its operand"
            return None
        fine = affine
        if affine.dtype != "int16":
            low, high = ((end - affine.zero_point) * affine.scale for end in affine.limits)
            fine = affine_of_range(Range(low, high), "int16", symmetric=True)
        table = self.param(f"{x.name}.table", interpolated_table(values, fine.scale))
        found = qlut(tensor.expr, table)
        return found if fine == affine else self.then_rescaled(found, fine, Wanted(affine, -_INFINITE, _INFINITE, x.name))

    def _evaluated(self, x: relax.Expr, root: relax.Var) -> np.ndarray:
        """What a chain of pointwise operators makes of all values of its root, float32 (256,)."""
        inputs = self._tensors[root].affine.dequantize(np.arange(-128, 128, dtype=np.int16))
        return evaluate(x, root, inputs, self.source, self.params)

    def _root(self, x: relax.Expr) -> relax.Var | None:
        """The one tensor known as integers that a chain of pointwise operators ends in; None when there is none."""
        if self.is_integers(x):
            return x
        call = self.source(x)
        operands = pointwise_operands(call, self.params) if call is not None else None
        if operands is None:
            return None
        roots = {self._root(operand) for operand in operands}
        return roots.pop() if len(roots) == 1 else None

    def _float(self, expr: relax.Expr) -> relax.Expr:
        """An operand in float."""
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._float(field) for field in expr.fields])
        if not isinstance(expr, relax.Var) or expr in self.params:
            return self.build.get(expr)
        if expr in self._floats:
            return self._floats[expr]
        if expr in self._integers:
            return self._integers[expr]
        self._floats[expr] = new = self._made_float(expr)
        return new

    def _made_float(self, var: relax.Var) -> relax.Expr:
        if var in self._tensors:
            tensor = self._tensors[var]
            return self.emit(relax.op.dequantize(tensor.expr, *_constants(tensor.affine)), var.name)
        value = self.values[var]
        if isinstance(value, (relax.Var, Constant)):
            return self._float(value)
        if isinstance(value, relax.TupleGetItem):
            return self.emit(relax.TupleGetItem(self._float(value.tuple_value), value.index), var.name)
        if not isinstance(value, relax.Call):
            return self._float(value)
        if value.op.name != "relax.dequantize" and is_float(var):
            self._stayed.append(var)
        args = [self._float(arg) if isinstance(arg, (relax.Var, relax.Tuple)) else arg for arg in value.args]
        if value.op.name in TRANSPOSED and str(value.attrs.data_layout).endswith("C"):
            return self._channels_first(value, args, var.name)
        return self.emit(relax.Call(value.op, args, value.attrs, value.ty_args), var.name)

    def _channels_first(self, call: relax.Call, args: list[relax.Expr], name: str) -> relax.Expr:
        """A float operator that TVM compiles for channels-first tensors only."""
        rank = len(static_shape(call))
        layout = "NC" + str(call.attrs.data_layout)[1:-1]
        x = self.emit(relax.op.permute_dims(args[0], list(to_first(rank))), f"{name}.permuted")
        first = with_attrs(call, [x, *args[1:]], data_layout=layout, out_layout=layout)
        return self.emit(relax.op.permute_dims(self.emit(first, name), list(to_last(rank))), f"{name}.permuted")


def _constants(affine: Affine) -> tuple[relax.Expr, relax.Expr]:
    return relax.const(np.float32(affine.scale)), relax.const(np.asarray(affine.zero_point, affine.dtype))


def operand(lower: Lowering, expr: relax.Expr, like: Affine | None = None) -> Integers:
    """An operand of an operator as integers; a constant is quantized over its own range, or to a scale given.

    Args:
        lower: The lowering.
        expr: The operand.
        like: The scale of a constant that is not quantized yet.

    Raises:
        CannotLowerError: It is neither known as integers nor a constant tensor.
    """
    if lower.is_integers(expr):
        return lower.integers(expr)
    weights = lower.constant(expr)
    if weights is not None and weights.scales.size == 1 and np.abs(weights.integers).max(initial=0) > 256:
        stored = weights.integers.astype(np.int16)
        return Integers(lower.param(weights.name, stored), Affine(float(weights.scales[0]), 0, "int16"))
    if weights is not None and weights.scales.size == 1 and np.abs(weights.integers).max(initial=0) <= 128:
        shift = int(np.clip(weights.integers.max(initial=0) - 127, 0, None))
        stored = (weights.integers - shift).astype(np.int8)
        return Integers(lower.param(weights.name, stored), Affine(float(weights.scales[0]), -shift))
    known = lower.real_constant(expr)
    if known is None or (known[0].size == 1 and like is None):
        return lower.integers(expr)
    value, name = known
    affine = like or affine_of_range(Range(float(value.min()), float(value.max())))
    return Integers(lower.param(name, affine.quantize(value)), affine)
